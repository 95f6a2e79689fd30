/*
 * Theory of operation.
 *
 * The operator's command is kept as it is; what qrdp needs is added at its end: the display, a QMP
 * monitor, USB controllers and slots. The monitor listens on a socket that we open and hand over,
 * so it can be connected to at once: the greeting comes when QEMU is ready, and if QEMU dies first
 * the connection ends, because nobody else holds the listening end.
 *
 * Lifetimes: the kernel sends QEMU a SIGTERM when we die, however we die (PR_SET_PDEATHSIG), which
 * QEMU takes as an order to power off at once; run_stop() sends the same and after a grace SIGKILL.
 * QEMU shares our process group and terminal, so that its stdio works as without qrdp.
 *
 * A chardev's id becomes part of a D-Bus object path inside QEMU, which dies (10.0.2) of a '-' in
 * it: hence "qrdp_usb0".
 */
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"

#define SUBJECT "run"
#define SLOTS_PER_CONTROLLER 15u
#define CONTROLLERS ((CONFIG_MAX_USB_SLOTS + SLOTS_PER_CONTROLLER - 1) / SLOTS_PER_CONTROLLER)
#define GRACE_SECONDS 5u /* between SIGTERM and SIGKILL */

struct Run {
    RunCallbacks callbacks;
    void *user;
    char **argv;
    char *qmp_path;
    GPid pid; /* 0: has ended */
    guint child_watch, kill_source;
    bool stopping;
};

/* ---- the command ---- */

static bool is_option(const char *word, const char *name)
{
    if (word[0] != '-')
        return false;
    return strcmp(word + (word[1] == '-' ? 2 : 1), name) == 0;
}

/* What @display, the value of -display, means for us. */
static bool display_ok(const char *display, bool *ours, GError **error)
{
    if (strcmp(display, "none") == 0) /* the last -display counts: ours */
        return true;
    if (strcmp(display, "dbus") == 0 || g_str_has_prefix(display, "dbus,")) {
        *ours = strstr(display, "p2p=on") || strstr(display, "p2p=yes");
        if (*ours)
            return true;
        g_set_error(
            error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
            "QEMU's arguments have -display %s, which is not peer to peer: remove it (qrdp "
            "run adds -display dbus,p2p=yes), or attach with qrdp --dbus-address=ADDR serve",
            display);
        return false;
    }
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                "QEMU's arguments have -display %s, but qrdp run is the display: remove it",
                display);
    return false;
}

/* Looks for options that cannot go together with ours. *has_display: ours is there already. */
static bool check_arguments(char **argv, bool *has_display, GError **error)
{
    static const char *const displays[] = {"vnc", "spice", "nographic", "curses", "sdl", "gtk"};

    for (char **word = argv + 1; *word; word++) {
        if (is_option(*word, "append")) { /* the guest's words, not QEMU's */
            if (word[1])
                word++;
            continue;
        }
        if (is_option(*word, "display") && word[1]) {
            if (!display_ok(*++word, has_display, error))
                return false;
            continue;
        }
        for (size_t i = 0; i < G_N_ELEMENTS(displays); i++) {
            if (!is_option(*word, displays[i]))
                continue;
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                        "QEMU's arguments have %s, but qrdp run is the display: remove it%s", *word,
                        strcmp(displays[i], "nographic") == 0
                            ? " (-serial mon:stdio gives the console in the terminal)"
                            : "");
            return false;
        }
        if (is_option(*word, "daemonize")) {
            g_set_error_literal(
                error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                "QEMU's arguments have -daemonize, but qrdp run lives and dies with "
                "QEMU: remove it, and start qrdp in the background instead");
            return false;
        }
    }
    return true;
}

static void add(GPtrArray *argv, const char *option, const char *format, ...) G_GNUC_PRINTF(3, 4);

static void add(GPtrArray *argv, const char *option, const char *format, ...)
{
    va_list list;

    va_start(list, format);
    g_ptr_array_add(argv, g_strdup(option));
    g_ptr_array_add(argv, g_strdup_vprintf(format, list));
    va_end(list);
}

/* Controllers for as many slots as there can ever be, so that more can be plugged later. */
static void add_usb(GPtrArray *argv, unsigned slots, int boot)
{
    if (slots == 0)
        return;
    for (unsigned i = 0; i < CONTROLLERS; i++)
        add(argv, "-device", "qemu-xhci,id=qrdp-xhci%u,p2=%u,p3=%u", i, SLOTS_PER_CONTROLLER,
            SLOTS_PER_CONTROLLER);
    for (unsigned i = 0; i < MIN(slots, CONFIG_MAX_USB_SLOTS); i++) {
        add(argv, "-chardev", "dbus,id=qrdp_usb%u,name=org.qemu.usbredir", i);
        g_autofree char *index = boot < 0 ? NULL : g_strdup_printf(",bootindex=%u", boot + i);
        add(argv, "-device",
            "usb-redir,chardev=qrdp_usb%u,id=qrdp_usb%u,bus=qrdp-xhci%u.0,port=%u%s", i, i,
            i / SLOTS_PER_CONTROLLER, i % SLOTS_PER_CONTROLLER + 1, index ? index : "");
    }
}

/* RDP sends where the pointer is, and a PS/2 mouse can only be told how far it moved: the two drift
 * apart. A guest gets a tablet, unless its command says what it points with. */
static void add_tablet(GPtrArray *argv, char **command)
{
    for (char **word = command + 1; *word; word++) {
        if (is_option(*word, "device") && word[1] &&
            (strstr(word[1], "tablet") || strstr(word[1], "mouse") ||
             strstr(word[1], "multitouch")))
            return;
        if (is_option(*word, "usbdevice")) /* it insists on a bus of its own */
            return;
    }
    /* The last port: slots are plugged from the first one on. */
    add(argv, "-device", "usb-tablet,id=qrdp-tablet,bus=qrdp-xhci%u.0,port=%u", CONTROLLERS - 1,
        SLOTS_PER_CONTROLLER);
}

/* @listen_fd: the monitor's socket as the child will see it. */
static char **build_argv(const Config *config, bool has_display, int listen_fd)
{
    GPtrArray *argv = g_ptr_array_new();

    for (char **word = config->qemu_argv; *word; word++)
        g_ptr_array_add(argv, g_strdup(*word));
    if (!has_display)
        add(argv, "-display", "dbus,p2p=yes");
    add(argv, "-chardev", "socket,id=qrdp_qmp,fd=%d,server=on,wait=off", listen_fd);
    add(argv, "-mon", "chardev=qrdp_qmp,mode=control");
    add_usb(argv, config->usb_slots, config->usb_boot);
    if (config->usb_slots > 0)
        add_tablet(argv, config->qemu_argv);
    g_ptr_array_add(argv, NULL);
    return (char **)g_ptr_array_free(argv, FALSE);
}

/* ---- the monitor's socket ---- */

/* Close-on-exec; only our user may connect. */
static int listen_on(const char *path, GError **error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(address.sun_path)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FILENAME_TOO_LONG,
                    "%s is too long for a socket: give a shorter run directory", path);
        return -1;
    }
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unlink(path);
    mode_t mask = umask(0177);
    bool ok = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    int bind_errno = errno;
    umask(mask);
    if (ok && listen(fd, 4) == 0)
        return fd;
    g_set_error(error, G_IO_ERROR, g_io_error_from_errno(ok ? errno : bind_errno),
                "cannot make QEMU's monitor socket %s: %s", path,
                g_strerror(ok ? errno : bind_errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

/* ---- the child ---- */

typedef struct ChildSetup {
    pid_t parent;
    int listen_fd;
} ChildSetup;

/* Between fork and exec: async-signal-safe calls only. */
static void child_setup(gpointer data)
{
    const ChildSetup *setup = data;

    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != setup->parent)
        _exit(127);
    fcntl(setup->listen_fd, F_SETFD, 0);
    signal(SIGPIPE, SIG_DFL);
    sigset_t none;
    sigemptyset(&none); /* main.c holds some back until it can handle them */
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* QEMU refused its command line: the likeliest reason is one that it words badly. */
static void explain_early_exit(const Run *run)
{
    char *argv[] = {run->argv[0], (char *)"-display", (char *)"help", NULL};
    g_autofree char *text = NULL;
    g_autofree char *name = g_path_get_basename(run->argv[0]);

    if (!g_str_has_prefix(name, "qemu")) /* a script might start another machine */
        return;
    if (!g_spawn_sync(NULL, argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL, NULL,
                      NULL, &text, NULL, NULL, NULL))
        return;
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    if (strstr(text, "display") && !g_strv_contains((const char *const *)lines, "dbus"))
        log_error(SUBJECT, "this QEMU has no D-Bus display: install the package that has "
                           "ui-dbus.so (Debian 12 backports and Debian 13: "
                           "qemu-system-modules-opengl; Debian 12: qemu-system-common)");
}

static void on_exited(GPid pid, gint wait_status, gpointer user_data)
{
    Run *run = user_data;
    int status = WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);

    run->child_watch = 0;
    run->pid = 0;
    g_clear_handle_id(&run->kill_source, g_source_remove);
    g_spawn_close_pid(pid);
    unlink(run->qmp_path);
    if (status == 1 && !run->stopping)
        explain_early_exit(run);
    if (run->callbacks.exited)
        run->callbacks.exited(run->user, status);
}

static const char *absence_help(const char *program)
{
    bool x86 =
        strcmp(program, "qemu-system-x86_64") == 0 || strcmp(program, "qemu-system-i386") == 0;

    return x86 ? " (install it, on Debian qemu-system-x86, or give its path)"
               : " (install it, or give its path)";
}

Run *run_start(const Config *config, const char *dir, const RunCallbacks *callbacks, void *user,
               GError **error)
{
    bool has_display = false;

    if (!config->qemu_argv || !config->qemu_argv[0]) {
        g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                            "nothing to run: qrdp run -- qemu-system-x86_64 ARGS...");
        return NULL;
    }
    if (!check_arguments(config->qemu_argv, &has_display, error))
        return NULL;
    g_autofree char *qmp_path = g_build_filename(dir, "qmp.sock", NULL);
    int listen_fd = listen_on(qmp_path, error);
    if (listen_fd < 0)
        return NULL;

    Run *run = g_new0(Run, 1);
    ChildSetup setup = {.parent = getpid(), .listen_fd = listen_fd};
    run->callbacks = *callbacks;
    run->user = user;
    run->qmp_path = g_steal_pointer(&qmp_path);
    run->argv = build_argv(config, has_display, listen_fd);
    /* Our other descriptors are close-on-exec; those the operator passed on to QEMU are not. */
    bool ok = g_spawn_async(NULL, run->argv, NULL,
                            G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD |
                                G_SPAWN_CHILD_INHERITS_STDIN | G_SPAWN_LEAVE_DESCRIPTORS_OPEN,
                            child_setup, &setup, &run->pid, error);
    close(listen_fd);
    if (!ok) {
        bool absent = error && g_error_matches(*error, G_SPAWN_ERROR, G_SPAWN_ERROR_NOENT);
        g_prefix_error(error, "cannot start %s%s: ", config->qemu_argv[0],
                       absent ? absence_help(config->qemu_argv[0]) : "");
        run->pid = 0;
        run_free(run);
        return NULL;
    }
    run->child_watch = g_child_watch_add(run->pid, on_exited, run);
    log_debug(SUBJECT, "%s runs as process %d", run->argv[0], (int)run->pid);
    return run;
}

const char *run_qmp_path(const Run *run)
{
    return run->qmp_path;
}

GPid run_pid(const Run *run)
{
    return run->pid;
}

static gboolean on_grace_over(gpointer data)
{
    Run *run = data;

    run->kill_source = 0;
    log_warning(SUBJECT, "QEMU did not end in %u s after SIGTERM: killing it", GRACE_SECONDS);
    kill(run->pid, SIGKILL);
    return G_SOURCE_REMOVE;
}

void run_stop(Run *run)
{
    if (run->pid == 0 || run->stopping)
        return;
    run->stopping = true;
    kill(run->pid, SIGTERM);
    run->kill_source = g_timeout_add_seconds(GRACE_SECONDS, on_grace_over, run);
}

void run_free(Run *run)
{
    if (!run)
        return;
    g_clear_handle_id(&run->child_watch, g_source_remove);
    g_clear_handle_id(&run->kill_source, g_source_remove);
    if (run->pid != 0) {
        kill(run->pid, SIGKILL);
        while (waitpid(run->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    unlink(run->qmp_path);
    g_strfreev(run->argv);
    g_free(run->qmp_path);
    g_free(run);
}
