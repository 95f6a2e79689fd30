/*
 * qrdp confines itself: after start-up the process that speaks to clients and to QEMU can neither
 * open files it has no business with nor run programs, so a fault in a parser stays a fault in one
 * process.
 *
 * Two steps, because each has a moment of its own:
 *
 *      sandbox_confine()   Landlock, capabilities, no_new_privs, not dumpable. Inherited by threads
 *                          that are started later, so it comes while there is only one. A QEMU that
 *                          is ours must be started before it.
 *      sandbox_filter()    the system call filter, for all threads at once, when what only a start
 *                          needs (listening, making files, explaining QEMU's early end) is over:
 *                          before the first client is served.
 *
 * What the kernel does not have is left out with a warning, and `qrdp status` says so. The sandbox
 * is one for the process and is never undone: hence no object, and no free.
 *
 * Thread: main.
 */
#ifndef QRDP_SANDBOX_H
#define QRDP_SANDBOX_H

#include <glib.h>
#include <stdbool.h>
#include <sys/types.h>

/** Whether this build can be confined: sanitizers need files and calls that a server does not. */
bool sandbox_possible(void);

/* What the process will need after sandbox_confine(), said before it. Of a path that does not exist
 * nothing is allowed. */

/** @path and everything below it may be read. */
void sandbox_allow_read(const char *path);
/** The folder that the file @path is in may be read: files are replaced by renaming. So may the one
 * of the file that @path is a link to. */
void sandbox_allow_read_beside(const char *path);
/** Files and sockets directly or deeper in the folder @path may be removed. */
void sandbox_allow_remove(const char *path);
/** Empty folders in the folder @path may be removed. */
void sandbox_allow_remove_folders(const char *path);
/** Files and sockets in the folder @path may be made, written, read and removed. The filter then
 * refuses what makes and writes, unless SandboxCalls.write_files. */
void sandbox_allow_write(const char *path);
/** Programs below @path may be run, until sandbox_filter(). */
void sandbox_allow_run(const char *path);
/** Device nodes below @path may be opened for reading and writing, and given ioctls. */
void sandbox_allow_devices(const char *path);

/** What graphics drivers read to find out what a device is that is open already. */
void sandbox_allow_gpu_facts(void);

/** Confines the calling thread and all it starts later. There must be no other. */
void sandbox_confine(void);

typedef struct SandboxCalls {
    pid_t child;      /* the one process that may be signalled; 0: none */
    bool connect;     /* unix sockets may still be connected: QMP */
    bool write_files; /* where sandbox_confine() allowed it */
    bool devices;     /* ioctls of USB devices, netlink: libusb */
    bool gpu;         /* ioctls of /dev/dri */
} SandboxCalls;

/** Filters the system calls of all threads from now on. A second call can only narrow. */
void sandbox_filter(const SandboxCalls *calls);

/** One line for people: "on (Landlock 7, system call filter)", "off". */
const char *sandbox_text(void);
/** Says that the operator (or the build) wanted none. @why for status: "off (--sandbox=off)". */
void sandbox_off(const char *why);

/** Tries from a new thread what must not be possible, for tests: a line per attempt. @dir: a folder
 * to try to make a file in; an abstract socket named "@dir/sandbox-check" must be listened on.
 * *@ok: all was refused. */
char *sandbox_check(const char *dir, bool *ok);

#endif
