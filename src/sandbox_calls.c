/*
 * seccomp: which system calls may be made.
 *
 * A list of what is allowed. What is not on it fails with ENOSYS, as on an older kernel, so that
 * the C library takes its other way (clone3, io_uring); what an attacker wants fails with EPERM,
 * which is what a person looking at a trace expects. Nothing kills: a library that asks for
 * something odd gets an error, and the machine keeps its console.
 *
 * Arguments are looked at where a number decides: opening for reading only, threads but no
 * processes, unix sockets only, memory that is written to or run but not both, signals to QEMU or
 * ourselves. Paths are pointers, which a filter cannot follow: they are Landlock's.
 */
#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sandbox_priv.h"

#define REFUSED SCMP_ACT_ERRNO(EPERM)

/* s390 passes clone's flags second. */
#ifdef __s390x__
#define CLONE_FLAGS_ARG 1
#else
#define CLONE_FLAGS_ARG 0
#endif

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

/* By name, so that one an architecture lacks (stat on arm64) or libseccomp does not know yet is
 * passed over. */
static const char *const allowed[] = {
    /* files that are open, and looking at names */
    "read",
    "readv",
    "pread64",
    "preadv",
    "preadv2",
    "write",
    "writev",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "close",
    "close_range",
    "lseek",
    "_llseek",
    "fstat",
    "fstat64",
    "newfstatat",
    "fstatat64",
    "stat",
    "stat64",
    "lstat",
    "lstat64",
    "statx",
    "access",
    "faccessat",
    "faccessat2",
    "readlink",
    "readlinkat",
    "getdents64",
    "getcwd",
    "fcntl",
    "fcntl64",
    "dup",
    "dup2",
    "dup3",
    "pipe",
    "pipe2",
    "ftruncate",
    "ftruncate64",
    "fallocate",
    "flock",
    "fsync",
    "fdatasync",
    "statfs",
    "fstatfs",
    "statfs64",
    "fstatfs64",
    /* removing our sockets at the end: where, Landlock says */
    "unlink",
    "unlinkat",
    "rmdir",
    /* waiting */
    "poll",
    "ppoll",
    "ppoll_time64",
    "select",
    "_newselect",
    "pselect6",
    "pselect6_time64",
    "epoll_create",
    "epoll_create1",
    "epoll_ctl",
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "eventfd2",
    "timerfd_create",
    "timerfd_settime",
    "timerfd_settime64",
    "timerfd_gettime",
    "timerfd_gettime64",
    "signalfd4",
    "nanosleep",
    "clock_nanosleep",
    "clock_nanosleep_time64",
    "futex",
    "futex_time64",
    "futex_waitv",
    "sched_yield",
    "restart_syscall",
    "wait4",
    "waitid",
    /* sockets that are there */
    "accept",
    "accept4",
    "send",
    "sendto",
    "sendmsg",
    "sendmmsg",
    "recv",
    "recvfrom",
    "recvmsg",
    "recvmmsg",
    "recvmmsg_time64",
    "shutdown",
    "getsockname",
    "getpeername",
    "getsockopt",
    "setsockopt",
    "socketpair",
    /* memory */
    "brk",
    "munmap",
    "mremap",
    "madvise",
    "mlock",
    "mlock2",
    "munlock",
    "mincore",
    "msync",
    "membarrier",
    /* time, limits, ourselves */
    "clock_gettime",
    "clock_gettime64",
    "clock_getres",
    "clock_getres_time64",
    "gettimeofday",
    "time",
    "times",
    "alarm",
    "setitimer",
    "getitimer",
    "timer_create",
    "timer_settime",
    "timer_settime64",
    "timer_gettime",
    "timer_delete",
    "getpid",
    "gettid",
    "getppid",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "getgroups",
    "getresuid",
    "getresgid",
    "getpgrp",
    "getpgid",
    "getsid",
    "uname",
    "sysinfo",
    "getrandom",
    "getrusage",
    "getrlimit",
    "ugetrlimit",
    "getcpu",
    "getpriority",
    "capget",
    "umask",
    /* threads and signals of our own */
    "exit",
    "exit_group",
    "set_robust_list",
    "get_robust_list",
    "set_tid_address",
    "rseq",
    "arch_prctl",
    "sigaltstack",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigreturn",
    "rt_sigtimedwait",
    "rt_sigtimedwait_time64",
    "rt_sigsuspend",
    "rt_sigpending",
    "sched_getaffinity",
    "sched_getparam",
    "sched_getscheduler",
    "sched_getattr",
    "sched_setattr",
    "sched_get_priority_min",
    "sched_get_priority_max",
};

/* What an attacker would try first. */
static const char *const refused[] = {
    "execve",
    "execveat",
    "fork",
    "vfork",
    "ptrace",
    "memfd_create", /* memory that can be written through one mapping and run through another */
    "bind",
    "listen",
    "creat",
    "openat2",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "mkdir",
    "mkdirat",
    "mknod",
    "mknodat",
    "chmod",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "chown",
    "fchown",
    "lchown",
    "fchownat",
    "truncate",
    "tkill",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    "pidfd_send_signal",
    "process_vm_readv",
    "process_vm_writev",
    "pidfd_getfd",
    "setuid",
    "setgid",
    "setresuid",
    "setresgid",
    "chroot",
    "mount",
    "unshare",
    "setns",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "keyctl",
    "add_key",
    "request_key",
    "open_by_handle_at",
};

typedef struct Build {
    scmp_filter_ctx context;
    int error; /* the first one, an errno */
} Build;

static void add(Build *b, uint32_t action, const char *name, unsigned n,
                const struct scmp_arg_cmp *args)
{
    int call = seccomp_syscall_resolve_name(name);
    if (call == __NR_SCMP_ERROR || b->error)
        return;
    int result = seccomp_rule_add_array(b->context, action, call, n, args);
    if (result < 0 && result != -EDOM) /* EDOM: not a call of this architecture */
        b->error = -result;
}

/* All 64 bits of the argument are compared. Where the kernel looks at fewer, more of them set must
 * not turn a refusal into something else: what is not equal is not allowed. */
static struct scmp_arg_cmp equal(unsigned arg, uint64_t value)
{
    return (struct scmp_arg_cmp){.arg = arg, .op = SCMP_CMP_EQ, .datum_a = value};
}

static struct scmp_arg_cmp unequal(unsigned arg, uint64_t value)
{
    return (struct scmp_arg_cmp){.arg = arg, .op = SCMP_CMP_NE, .datum_a = value};
}

static struct scmp_arg_cmp masked(unsigned arg, uint64_t mask, uint64_t value)
{
    return (struct scmp_arg_cmp){
        .arg = arg, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = value};
}

static void allow_if(Build *b, const char *name, struct scmp_arg_cmp arg)
{
    add(b, SCMP_ACT_ALLOW, name, 1, &arg);
}

static void refuse_if(Build *b, const char *name, struct scmp_arg_cmp arg)
{
    add(b, REFUSED, name, 1, &arg);
}

#define MAKES (O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY))

/* @writes: of what is there; files are never made or emptied. */
static void add_open(Build *b, const char *name, unsigned flags, bool writes)
{
    static const scmp_datum_t makes[] = {O_CREAT, O_TRUNC, O_TMPFILE & ~O_DIRECTORY};
    static const scmp_datum_t modes[] = {O_WRONLY, O_RDWR, O_ACCMODE};

    allow_if(b, name, masked(flags, MAKES | (writes ? 0 : O_ACCMODE), O_RDONLY));
    for (size_t i = 0; i < G_N_ELEMENTS(makes); i++)
        refuse_if(b, name, masked(flags, makes[i], makes[i]));
    for (size_t i = 0; !writes && i < G_N_ELEMENTS(modes); i++)
        refuse_if(b, name, masked(flags, O_ACCMODE, modes[i]));
}

static void add_opening(Build *b, const SandboxCalls *calls)
{
    static const struct {
        const char *name;
        unsigned flags; /* which argument */
    } opens[] = {{"open", 1}, {"openat", 2}};

    for (size_t i = 0; i < G_N_ELEMENTS(opens); i++) {
        if (calls->write_files)
            add(b, SCMP_ACT_ALLOW, opens[i].name, 0, NULL);
        else
            add_open(b, opens[i].name, opens[i].flags, calls->devices || calls->gpu);
    }
    /* g_file_set_contents() */
    for (size_t i = 0; calls->write_files && i < 2; i++)
        add(b, SCMP_ACT_ALLOW, (const char *[]){"rename", "renameat"}[i], 0, NULL);
    if (calls->write_files)
        add(b, SCMP_ACT_ALLOW, "fchmod", 0, NULL);
}

static void add_memory(Build *b)
{
    static const char *const names[] = {"mmap", "mmap2"};
    static const scmp_datum_t both = PROT_WRITE | PROT_EXEC;

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) { /* libraries are mapped to be run */
        allow_if(b, names[i], masked(2, both, 0));
        allow_if(b, names[i], masked(2, both, PROT_WRITE));
        allow_if(b, names[i], masked(2, both, PROT_EXEC));
        refuse_if(b, names[i], masked(2, both, both));
    }
    allow_if(b, "mprotect", masked(2, PROT_EXEC, 0));
    refuse_if(b, "mprotect", masked(2, PROT_EXEC, PROT_EXEC));
}

static void add_processes(Build *b, const SandboxCalls *calls)
{
    pid_t self = getpid();

    allow_if(b, "clone", masked(CLONE_FLAGS_ARG, CLONE_THREAD, CLONE_THREAD));
    refuse_if(b, "clone", masked(CLONE_FLAGS_ARG, CLONE_THREAD, 0));
    allow_if(b, "tgkill", equal(0, (uint64_t)self));
    if (calls->child > 0) {
        allow_if(b, "kill", equal(0, (uint64_t)calls->child));
        refuse_if(b, "kill", unequal(0, (uint64_t)calls->child));
    } else {
        add(b, REFUSED, "kill", 0, NULL);
    }
    allow_if(b, "prlimit64", equal(0, 0));
    static const scmp_datum_t options[] = {PR_SET_NAME, PR_GET_NAME, PR_GET_DUMPABLE, PR_SET_VMA,
                                           PR_CAPBSET_READ};
    for (size_t i = 0; i < G_N_ELEMENTS(options); i++)
        allow_if(b, "prctl", equal(0, options[i]));
}

static void add_sockets(Build *b, const SandboxCalls *calls)
{
    if (calls->connect) {
        allow_if(b, "socket", equal(0, AF_UNIX));
        add(b, SCMP_ACT_ALLOW, "connect", 0, NULL);
    } else {
        refuse_if(b, "socket", equal(0, AF_UNIX));
        add(b, REFUSED, "connect", 0, NULL);
    }
    if (calls->devices) { /* libusb: hotplug news */
        allow_if(b, "socket", equal(0, AF_NETLINK));
        add(b, SCMP_ACT_ALLOW, "bind", 0, NULL);
    }
    refuse_if(b, "socket", equal(0, AF_INET));
    refuse_if(b, "socket", equal(0, AF_INET6));
    refuse_if(b, "socket", equal(0, AF_PACKET));
}

static void add_ioctls(Build *b, const SandboxCalls *calls)
{
    static const scmp_datum_t requests[] = {FIONREAD, FIONBIO, FIOCLEX,
                                            SIOCOUTQ, TCGETS,  TIOCGWINSZ};
    if (calls->devices) /* usbfs: those of type 'U' */
        allow_if(b, "ioctl", masked(1, 0xff00, 'U' << 8));
    if (calls->gpu) /* DRM: those of type 'd' */
        allow_if(b, "ioctl", masked(1, 0xff00, 'd' << 8));
    for (size_t i = 0; i < G_N_ELEMENTS(requests); i++)
        allow_if(b, "ioctl", equal(1, requests[i]));
}

static bool is_overridden(const char *name, const SandboxCalls *calls)
{
    return (calls->write_files && (g_str_equal(name, "rename") || g_str_equal(name, "renameat") ||
                                   g_str_equal(name, "fchmod"))) ||
           (calls->devices && g_str_equal(name, "bind"));
}

int sandbox_calls_load(const SandboxCalls *calls)
{
    Build b = {.context = seccomp_init(SCMP_ACT_ERRNO(ENOSYS))};
    if (!b.context)
        return ENOMEM;
    for (size_t i = 0; i < G_N_ELEMENTS(allowed); i++)
        add(&b, SCMP_ACT_ALLOW, allowed[i], 0, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(refused); i++)
        if (!is_overridden(refused[i], calls))
            add(&b, REFUSED, refused[i], 0, NULL);
    add_opening(&b, calls);
    add_memory(&b);
    add_processes(&b, calls);
    add_sockets(&b, calls);
    add_ioctls(&b, calls);
    if (!b.error)
        b.error = -seccomp_attr_set(b.context, SCMP_FLTATR_CTL_TSYNC, 1);
    /* A jump tree instead of a list: a call costs the same wherever it stands. */
    if (!b.error)
        seccomp_attr_set(b.context, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    if (!b.error)
        b.error = -seccomp_load(b.context);
    seccomp_release(b.context);
    return b.error;
}
