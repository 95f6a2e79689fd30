/*
 * The order of things, what everybody needs, capabilities, and the check.
 *
 * The lists below are what libraries open while a client is served: other libraries (codecs,
 * character sets), keyboard data, time zones, TLS configuration. Found with strace, kept short:
 * nothing in them is secret.
 */
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"
#include "sandbox_priv.h"

#define SUBJECT "sandbox"

static GArray *paths; /* SandboxPath; NULL once enforced */
static int landlock_version;
static bool confined, filtered;
static char *text;

static const char *const readable[] = {
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/usr/share/X11/xkb",
    "/etc/X11/xkb",
    "/etc/xkb",
    "/usr/share/zoneinfo",
    "/etc/localtime",
    "/etc/timezone",
    "/usr/share/locale",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/openssl.cnf",
    "/etc/crypto-policies",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
    "/dev/null",
    "/dev/urandom",
};

bool sandbox_possible(void)
{
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
    return false;
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return false;
#endif
    return true;
}

/* --- what is allowed --- */

static void allow(const char *path, unsigned rights)
{
    if (!paths)
        paths = g_array_new(FALSE, FALSE, sizeof(SandboxPath));
    SandboxPath p = {.path = g_strdup(path), .rights = rights};
    g_array_append_val(paths, p);
}

void sandbox_allow_read(const char *path)
{
    allow(path, SANDBOX_READ);
}

void sandbox_allow_gpu_facts(void)
{
    static const char *const facts[] = {"/sys/dev/char", "/sys/devices", "/sys/class/drm",
                                        "/usr/share/drirc.d"};

    for (size_t i = 0; i < G_N_ELEMENTS(facts); i++)
        sandbox_allow_read(facts[i]);
}

void sandbox_allow_read_beside(const char *path)
{
    g_autofree char *folder = g_path_get_dirname(path);
    allow(folder, SANDBOX_READ);
    /* certbot's live/ has links into archive/, where the new ones will be, too. */
    char *target = realpath(path, NULL);
    if (target) {
        g_autofree char *other = g_path_get_dirname(target);
        allow(other, SANDBOX_READ);
    }
    free(target);
}

void sandbox_allow_remove(const char *path)
{
    allow(path, SANDBOX_REMOVE);
}

void sandbox_allow_remove_folders(const char *path)
{
    allow(path, SANDBOX_REMOVE_FOLDERS);
}

void sandbox_allow_write(const char *path)
{
    allow(path, SANDBOX_WRITE);
}

void sandbox_allow_run(const char *path)
{
    allow(path, SANDBOX_RUN);
}

void sandbox_allow_devices(const char *path)
{
    allow(path, SANDBOX_DEVICES);
}

/* --- the first step --- */

static unsigned count_threads(void)
{
    GDir *dir = g_dir_open("/proc/self/task", 0, NULL);
    unsigned n = 0;
    while (dir && g_dir_read_name(dir))
        n++;
    if (dir)
        g_dir_close(dir);
    return n;
}

/* Root keeps what reading the certificate and signalling a QEMU of another user take; anybody else
 * has nothing to begin with. */
static void drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}, {0}};
    const uint32_t keep = 1u << CAP_DAC_READ_SEARCH | 1u << CAP_KILL;

    if (syscall(SYS_capget, &header, data) < 0)
        return;
    for (int i = 0; i < 2; i++) {
        data[i].effective &= i == 0 ? keep : 0;
        data[i].permitted &= i == 0 ? keep : 0;
        data[i].inheritable = 0;
    }
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        prctl(PR_CAPBSET_DROP, cap, 0, 0, 0); /* without the right to it there is nothing to drop */
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (syscall(SYS_capset, &header, data) < 0)
        log_warning(SUBJECT, "capabilities stay: %s", g_strerror(errno));
}

static void clear_paths(void)
{
    for (guint i = 0; paths && i < paths->len; i++)
        g_free(g_array_index(paths, SandboxPath, i).path);
    g_clear_pointer(&paths, g_array_unref);
}

void sandbox_confine(void)
{
    unsigned threads = count_threads();
    g_return_if_fail(!confined);

    for (size_t i = 0; i < G_N_ELEMENTS(readable); i++)
        sandbox_allow_read(readable[i]);
    const char *keyboards = g_getenv("XKB_CONFIG_ROOT");
    if (keyboards && *keyboards)
        sandbox_allow_read(keyboards);
    if (threads > 1)
        log_warning(SUBJECT, "%u threads run already and keep their rights on files: this is a bug",
                    threads - 1);
    drop_capabilities();
    /* Others of this user, a QEMU that was taken over among them, do not read our memory. */
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        log_warning(SUBJECT, "no_new_privs: %s", g_strerror(errno));
    else
        landlock_version = sandbox_files_enforce(paths);
    if (landlock_version == 0)
        log_warning(SUBJECT,
                    "this kernel has no Landlock (%s): files are protected by the system call "
                    "filter and by their modes only; Linux 5.13 with lsm=landlock has it",
                    g_strerror(errno));
    confined = true;
    clear_paths();
}

/* --- the second --- */

void sandbox_filter(const SandboxCalls *calls)
{
    int error = sandbox_calls_load(calls);
    if (error != 0) {
        log_warning(SUBJECT,
                    "the system call filter cannot be loaded: %s; allow seccomp to this process (a "
                    "container's profile may forbid it), or accept this with --sandbox=off",
                    g_strerror(error));
        return;
    }
    filtered = true;
    log_debug(SUBJECT, "%s", sandbox_text());
}

void sandbox_off(const char *why)
{
    g_free(text);
    text = g_strdup_printf("off (%s)", why);
}

const char *sandbox_text(void)
{
    if (!confined)
        return text ? text : "off";
    g_free(text);
    if (landlock_version == 0 && !filtered)
        text = g_strdup("off (the kernel allows neither Landlock nor a system call filter)");
    else if (landlock_version == 0)
        text = g_strdup("on in part (no Landlock in this kernel; system call filter)");
    else if (!filtered)
        text = g_strdup_printf("on in part (Landlock %d; no system call filter)", landlock_version);
    else
        text = g_strdup_printf("on (Landlock %d, system call filter)", landlock_version);
    return text;
}

/* --- the check --- */

typedef struct Check {
    const char *dir;
    GString *out;
    bool ok;
} Check;

static void tried(Check *check, const char *what, bool refused)
{
    int error = errno;
    g_string_append_printf(check->out, "%s: %s\n", what, refused ? g_strerror(error) : "POSSIBLE");
    check->ok = check->ok && refused;
}

static void try_open(Check *check, const char *path, int flags, const char *what)
{
    int fd = open(path, flags | O_CLOEXEC, 0600);
    tried(check, what, fd < 0 && (errno == EACCES || errno == EPERM));
    if (fd >= 0)
        close(fd);
}

static void try_socket(Check *check, int family, const char *what)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    tried(check, what, fd < 0 && errno == EPERM);
    if (fd >= 0)
        close(fd);
}

/* @name: an abstract socket that a process outside of the sandbox listens on. */
static void try_abstract(Check *check, const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = MIN(strlen(name), sizeof(address.sun_path) - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memcpy(address.sun_path + 1, name, length);
    length += offsetof(struct sockaddr_un, sun_path) + 1;
    tried(check, "abstract socket",
          fd < 0 ||
              (connect(fd, (struct sockaddr *)&address, (socklen_t)length) < 0 && errno == EPERM));
    if (fd >= 0)
        close(fd);
}

static void try_fork(Check *check)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    tried(check, "fork", pid < 0 && errno == EPERM);
    if (pid > 0)
        waitpid(pid, NULL, 0);
}

/* The last one: where it is possible, nothing is left that could say so. */
static void try_exec(Check *check)
{
    static char *const argv[] = {(char *)"/bin/true", NULL};
    execve(argv[0], argv, NULL);
    tried(check, "execve", errno == EPERM);
}

static gpointer check_thread(gpointer data)
{
    Check *check = data;
    g_autofree char *made = g_build_filename(check->dir, "sandbox-check", NULL);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    if (landlock_version > 0) {
        try_open(check, "/etc/passwd", O_RDONLY, "open /etc/passwd");
        try_open(check, "/proc/1/status", O_RDONLY, "open /proc/1/status");
        try_open(check, "/", O_RDONLY | O_DIRECTORY, "open /");
    }
    if (landlock_version >= 6)
        try_abstract(check, made);
    try_open(check, made, O_WRONLY | O_CREAT, "make a file");
    try_open(check, "/dev/null", O_RDWR, "open for writing");
    try_socket(check, AF_INET, "socket");
    int fd = memfd_create("sandbox-check", MFD_CLOEXEC);
    tried(check, "memory as a file", fd < 0 && errno == EPERM);
    if (fd >= 0)
        close(fd);
    try_fork(check);
    tried(check, "kill", kill(getppid(), 0) < 0 && errno == EPERM);
    void *memory =
        mmap(NULL, page, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    tried(check, "writable code", memory == MAP_FAILED && errno == EPERM);
    if (memory != MAP_FAILED)
        munmap(memory, page);
    try_exec(check);
    return NULL;
}

char *sandbox_check(const char *dir, bool *ok)
{
    *ok = filtered;
    if (!filtered)
        return g_strdup_printf("The sandbox is %s.\n", sandbox_text());
    Check check = {.dir = dir, .out = g_string_new(NULL), .ok = true};
    g_thread_join(g_thread_new("sandbox-check", check_thread, &check));
    *ok = check.ok;
    return g_string_free(check.out, FALSE);
}
