/* Inside the sandbox: sandbox.c, sandbox_files.c (Landlock), sandbox_calls.c (seccomp). */
#ifndef QRDP_SANDBOX_PRIV_H
#define QRDP_SANDBOX_PRIV_H

#include "sandbox.h"

/** Sandbox rights on a path, turned into Landlock's by sandbox_files.c. */
typedef enum SandboxRight {
    SANDBOX_READ = 1u << 0,
    SANDBOX_REMOVE = 1u << 1,
    SANDBOX_REMOVE_FOLDERS = 1u << 2,
    SANDBOX_WRITE = 1u << 3,
    SANDBOX_DEVICES = 1u << 4,
    SANDBOX_RUN = 1u << 5,
} SandboxRight;

typedef struct SandboxPath {
    char *path;
    unsigned rights; /* SandboxRight */
} SandboxPath;

/** Enforces @paths on this thread. Landlock's version, or 0 and errno when the kernel has none. */
int sandbox_files_enforce(const GArray *paths);

/** Loads the filter for all threads; 0, or an errno. */
int sandbox_calls_load(const SandboxCalls *calls);

#endif
