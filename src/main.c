/*
 * Puts the rooms together and holds the loop.
 *
 * One process serves one virtual machine. Three ways lead to a machine: we start it (run), we find
 * it behind a QMP socket (serve --qmp), or it comes to a message bus (serve --dbus-address). After
 * that they are the same: a Server with listeners, peers and a Vm.
 *
 * Leaving has one door, app_leave(): it may be asked for by a signal, by QEMU's end, by the bus or
 * by the Server, tells the bus (Leaving), ends QEMU if it is ours, lets the Server say goodbye to
 * its peers, and ends the loop when all of that is done. The first status wins.
 */
#include <errno.h>
#include <gio/gio.h>
#include <glib-unix.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "announce.h"
#include "auth.h"
#include "cert.h"
#include "cmdline.h"
#include "control.h"
#include "dmabuf.h"
#include "helper_bus.h"
#include "log.h"
#include "passwd.h"
#include "qmp.h"
#include "run.h"
#include "sandbox.h"
#include "server.h"
#include "status_client.h"
#include "video.h"

#define SUBJECT "main"
#define HOST_USB_DIR "/dev/bus/usb"
#define GPU_DIR "/dev/dri"
#define EXIT_USAGE 2
#define LARGE_BYTES (5 << 18) /* allocations that get pages of their own */
#define TRIM_BYTES (4 << 20)  /* at the end of the heap, that are given back */
#define ATTACH_PAUSE_MS 250
#define CHILD_LINGER_MS 2000
#define ATTACH_PATIENCE_S 5 /* for a QMP monitor to greet: another client may be in it */
#define START_PATIENCE_S 60 /* for a QEMU that is just starting, on a busy host */
#define FAILURE_LINGER_S 10 /* how long libvirt gets to fetch the reason of a failed start */
#define LEAVE_LIMIT_S 10    /* a shutdown that hangs is our bug; it must not become libvirt's */

typedef struct App {
    Config *config;
    GMainLoop *loop;
    char *run_dir; /* NULL: no control socket */
    Auth *auth;
    Server *server;
    Control *control;
    HelperBus *bus; /* BUS */
    Run *run;       /* RUN */
    Qmp *qmp;       /* RUN, QMP: until the Server takes it */
    const char *qmp_path;
    guint timer; /* the one thing being waited for: next attach, QEMU's end, libvirt's question */
    bool waiting_told;
    bool serving; /* the Server has listeners; without it there is nobody to say goodbye to */
    bool leaving, peers_gone, child_gone;
    int status;
} App;

static void set_timer(App *app, guint milliseconds, GSourceFunc function)
{
    if (app->timer)
        g_source_remove(app->timer);
    app->timer = function ? g_timeout_add(milliseconds, function, app) : 0;
}

/* ------------------------------------------------------------------------------------------------
 * Leaving
 */

static void app_quit_if_done(App *app)
{
    if (app->peers_gone && (!app->run || app->child_gone))
        g_main_loop_quit(app->loop);
}

static void app_leave(App *app, int status, const char *why)
{
    if (app->leaving)
        return;
    app->leaving = true;
    app->status = status;
    alarm(LEAVE_LIMIT_S);
    set_timer(app, 0, NULL);
    log_line(status == 0 ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR, SUBJECT, "leaving: %s", why);
    if (app->bus)
        helper_bus_leave(app->bus, why);
    if (!app->serving) {
        g_main_loop_quit(app->loop);
        return;
    }
    if (app->run && !app->child_gone)
        run_stop(app->run);
    server_shutdown(app->server, status, why);
}

static gboolean on_signal(void *data)
{
    App *app = data;
    if (app->leaving)
        g_main_loop_quit(app->loop); /* asked twice: wait for nobody */
    app_leave(app, 0, "qrdp was asked to stop");
    return G_SOURCE_CONTINUE;
}

static gboolean on_child_lingers(void *data)
{
    App *app = data;
    app->timer = 0;
    app_leave(app, 1, "QEMU closed its display but did not end");
    return G_SOURCE_REMOVE;
}

static void on_server_quit(void *user, int status, const char *why)
{
    App *app = user;
    if (app->leaving) {
        app->peers_gone = true;
        app_quit_if_done(app);
    } else if (app->run && !app->child_gone) {
        /* QEMU is most likely ending, and then its own exit status is ours. */
        set_timer(app, CHILD_LINGER_MS, on_child_lingers);
    } else {
        app_leave(app, status, why);
    }
}

static void on_child_exited(void *user, int status)
{
    App *app = user;
    app->child_gone = true;
    if (app->leaving) {
        app_quit_if_done(app);
        return;
    }
    g_autofree char *why = status == 0 ? g_strdup("the virtual machine has ended")
                                       : g_strdup_printf("QEMU ended with status %d", status);
    app_leave(app, status, why);
}

/* ------------------------------------------------------------------------------------------------
 * Questions from `qrdp status` and `qrdp usb`
 */

static bool is_confined(const App *app)
{
    return app->config->sandbox && sandbox_possible();
}

static char *on_command(void *user, char **words, bool *ok)
{
    App *app = user;
    *ok = app->serving;
    if (!app->serving)
        return g_strdup("This qrdp could not start and is about to end.\n");
    if (strcmp(words[0], "status") == 0)
        return server_status(app->server, words[1] && strcmp(words[1], "json") == 0);
    if (strcmp(words[0], "usb") == 0)
        return server_usb_command(app->server, words + 1, ok);
    if (strcmp(words[0], "sandbox-check") == 0 && app->run_dir) /* for tests */
        return sandbox_check(app->run_dir, ok);
    *ok = false;
    return g_strdup("The request must be status or usb: use the qrdp program of this version.\n");
}

/* ------------------------------------------------------------------------------------------------
 * Confinement (sandbox.h)
 */

/** Where files may still be made: nowhere, but for a helper on libvirt's bus, which must be on it
 * before it does anything slow, and so is confined before it has a certificate and listens. */
static void allow_folder(const App *app, const char *path)
{
    if (app->config->mode == CONFIG_BUS)
        sandbox_allow_write(path);
    else
        sandbox_allow_remove(path);
}

static void allow_certificate(const App *app)
{
    if (app->config->cert_path) {
        sandbox_allow_read_beside(app->config->cert_path);
        sandbox_allow_read_beside(app->config->key_path);
        return;
    }
    g_autofree char *dir = cert_state_dir();
    if (app->config->mode == CONFIG_BUS) {
        g_mkdir_with_parents(dir, 0700); /* cert.c reports it if that failed */
        sandbox_allow_write(dir);
    } else {
        sandbox_allow_read(dir);
    }
}

static void allow_listening(const App *app)
{
    static const char *const names[] = {"/etc/hosts",     "/etc/resolv.conf",
                                        "/etc/host.conf", "/etc/nsswitch.conf",
                                        "/etc/gai.conf",  "/run/systemd/resolve"};
    for (char **l = app->config->listen; l && *l; l++) {
        if (!g_str_has_prefix(*l, "unix:"))
            continue;
        g_autofree char *dir = g_path_get_dirname(*l + 5);
        allow_folder(app, dir);
    }
    for (size_t i = 0; app->config->mode == CONFIG_BUS && i < G_N_ELEMENTS(names); i++)
        sandbox_allow_read(names[i]);
}

/* What libusb opens. Only on demand: a process that was taken over could type on the host's own
 * keyboard through it. */
static void allow_host_usb(const App *app)
{
    static const char *const described[] = {"/sys/bus", "/sys/class", "/sys/devices", "/run/udev",
                                            "/etc/udev"};

    if (!app->config->host_usb)
        return;
    sandbox_allow_devices(HOST_USB_DIR);
    for (size_t i = 0; i < G_N_ELEMENTS(described); i++)
        sandbox_allow_read(described[i]);
}

/* A GPU that encodes video is opened anew for each stream; that which reads dma-bufs is open. */
static void allow_gpu(void)
{
    if (video_needs_gpu())
        sandbox_allow_devices(GPU_DIR);
    if (video_needs_gpu() || dmabuf_has_node())
        sandbox_allow_gpu_facts();
}

/* Whether QEMU may render with OpenGL: of one that is ours its arguments say so. */
static bool may_render(const Config *config)
{
    for (char **word = config->qemu_argv; word && *word; word++) {
        if (g_str_has_prefix(*word, "dbus,") && strstr(*word, "gl=") && !strstr(*word, "gl=off"))
            return true;
    }
    return config->mode != CONFIG_RUN;
}

static void confine(App *app)
{
    /* first: it opens what later cannot be opened */
    if (app->config->mode == CONFIG_BUS)
        video_open(); /* libvirt waits for our name on the bus */
    else
        video_load(is_confined(app));
    if (may_render(app->config))
        dmabuf_open(GPU_DIR);
    if (!is_confined(app)) {
        app->config->host_usb = true;
        sandbox_off(app->config->sandbox ? "this build has sanitizers in it" : "--sandbox=off");
        return;
    }
    const char *run_dir = app->run_dir ? app->run_dir : app->config->run_dir;
    if (run_dir) {
        if (app->config->mode == CONFIG_BUS)
            g_mkdir_with_parents(run_dir, 0700); /* control.c reports it if that failed */
        allow_folder(app, run_dir);
        g_autofree char *parent = g_path_get_dirname(run_dir);
        sandbox_allow_remove_folders(parent);
    }
    if (app->config->auth_file) {
        g_autofree char *dir = g_path_get_dirname(app->config->auth_file);
        sandbox_allow_read_beside(app->config->auth_file);
        if (app->config->mode == CONFIG_BUS) /* SetCredentials writes there */
            sandbox_allow_write(dir);
    }
    if (app->config->mode == CONFIG_RUN)
        sandbox_allow_run("/"); /* what explains why QEMU would not start */
    allow_certificate(app);
    allow_listening(app);
    allow_host_usb(app);
    allow_gpu();
    sandbox_confine();
}

static void filter(App *app)
{
    const SandboxCalls calls = {
        .child = app->run ? run_pid(app->run) : 0,
        .connect = app->config->mode != CONFIG_BUS,
        .devices = app->config->host_usb,
        .gpu = video_needs_gpu() || dmabuf_has_node(),
        .write_files = app->config->mode == CONFIG_BUS && app->config->auth_file,
    };
    if (is_confined(app))
        sandbox_filter(&calls);
}

/* ------------------------------------------------------------------------------------------------
 * A machine behind a QMP socket: ours (run) or one that runs already (serve --qmp)
 */

static gboolean try_attach(void *data);

/** Whether nobody listens at the QMP socket: not yet there, or left behind by a QEMU that ended. */
static bool nobody_listens(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool absent = fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 &&
                  (errno == ENOENT || errno == ECONNREFUSED);
    if (fd >= 0)
        close(fd);
    return absent;
}

static void attach_later(App *app)
{
    if (!app->waiting_told && app->config->mode == CONFIG_QMP) {
        g_autofree char *waiting = config_waiting_text(app->config);
        log_info(SUBJECT, "%s", waiting);
    }
    app->waiting_told = true;
    set_timer(app, ATTACH_PAUSE_MS, try_attach);
}

static void announce(App *app)
{
    if (app->config->mode == CONFIG_RUN)
        announce_print(app->server, !auth_is_empty(app->auth), app->run_dir);
    if (app->config->print_ready)
        announce_ready(app->server);
}

static void on_attached(void *user, GDBusConnection *connection, const char *error)
{
    App *app = user;
    if (app->leaving) {
        g_clear_object(&connection);
    } else if (connection) {
        if (app->config->mode == CONFIG_RUN) /* until here QEMU's early end had to be explained */
            filter(app);
        server_attach_p2p(app->server, connection, g_steal_pointer(&app->qmp));
        announce(app);
    } else if (nobody_listens(app->qmp_path)) {
        attach_later(app);
    } else {
        app_leave(app, app->config->mode == CONFIG_QMP ? EXIT_USAGE : 1, error);
    }
}

static gboolean try_attach(void *data)
{
    App *app = data;
    app->timer = 0;
    if (access(app->qmp_path, F_OK) < 0)
        attach_later(app);
    else
        qmp_attach_display(app->qmp, on_attached, app);
    return G_SOURCE_REMOVE;
}

static bool start_attaching(App *app, const char *qmp_path)
{
    app->qmp_path = qmp_path;
    app->qmp = qmp_new(qmp_path);
    qmp_set_patience(app->qmp,
                     app->config->mode == CONFIG_RUN ? START_PATIENCE_S : ATTACH_PATIENCE_S);
    set_timer(app, 0, try_attach);
    return true;
}

static bool start_run(App *app, GError **error)
{
    const RunCallbacks callbacks = {.exited = on_child_exited};
    app->run = run_start(app->config, app->run_dir, &callbacks, app, error);
    if (app->run)
        confine(app); /* after QEMU, which is not to be */
    return app->run && start_attaching(app, run_qmp_path(app->run));
}

/* ------------------------------------------------------------------------------------------------
 * A machine that comes to a message bus
 */

static bool on_credentials(void *user, const char *name, const char *password, GError **error)
{
    App *app = user;
    auth_clear(app->auth);
    return !*password || auth_set_password(app->auth, name, password, error);
}

static void on_bus_closed(void *user, const char *why)
{
    app_leave(user, 0, why);
}

static gboolean on_failure_told(void *data)
{
    App *app = data;
    static int polls;
    if (!helper_bus_failure_told(app->bus) && ++polls < FAILURE_LINGER_S * 10)
        return G_SOURCE_CONTINUE;
    app->timer = 0;
    g_main_loop_quit(app->loop);
    return G_SOURCE_REMOVE;
}

/** libvirt shows its user neither our log nor our exit status, only how SetCredentials was
 * answered: stay until it has asked. */
static void tell_failure(App *app, const char *sentence)
{
    app->serving = false;
    helper_bus_fail(app->bus, sentence);
    app->timer = g_timeout_add(100, on_failure_told, app);
    g_main_loop_run(app->loop);
    if (!app->leaving)
        helper_bus_leave(app->bus, sentence);
}

static bool start_bus(App *app)
{
    filter(app);
    server_attach_bus(app->server, helper_bus_connection(app->bus));
    announce(app);
    return true;
}

/* ------------------------------------------------------------------------------------------------
 * Start and end
 */

/** The bus promises its helper no directory; everybody else gets one. */
static bool make_run_dir(App *app, GError **error)
{
    if (app->config->run_dir) {
        app->run_dir = g_strdup(app->config->run_dir);
    } else if (app->config->mode != CONFIG_BUS) {
        g_autofree char *base = config_run_base();
        if (!control_make_dir(base, error))
            return false;
        app->run_dir = g_strdup_printf("%s/%d", base, (int)getpid());
    }
    return !app->run_dir || control_make_dir(app->run_dir, error);
}

static bool start_serving(App *app, GError **error)
{
    const ServerCallbacks callbacks = {.quit = on_server_quit};
    if (!make_run_dir(app, error))
        return false;
    app->auth = auth_new(app->config->auth_file, error);
    if (!app->auth)
        return false;
    app->server = server_new(app->config, app->auth, &callbacks, app);
    if (!server_listen(app->server, error))
        return false;
    if (app->run_dir && !(app->control = control_new(app->run_dir, on_command, app, error)))
        return false;
    app->serving = true;
    return true;
}

static bool start_machine(App *app, GError **error)
{
    switch (app->config->mode) {
    case CONFIG_RUN:
        return start_run(app, error);
    case CONFIG_QMP:
        confine(app);
        filter(app);
        return start_attaching(app, app->config->qmp_path);
    case CONFIG_BUS:
        return start_bus(app);
    case CONFIG_STATUS:
    case CONFIG_USB:
    case CONFIG_PASSWD:
    case CONFIG_PRINT_CAPABILITIES:
        break;
    }
    g_assert_not_reached();
}

static bool join_bus(App *app, GError **error)
{
    const HelperBusCallbacks callbacks = {
        .credentials = on_credentials, .command = on_command, .closed = on_bus_closed};
    if (app->config->mode == CONFIG_BUS)
        app->bus = helper_bus_new(app->config->dbus_address, &callbacks, app, error);
    return app->config->mode != CONFIG_BUS || app->bus;
}

static void app_clear(App *app)
{
    app->leaving = true; /* whatever still calls back finds the door closed */
    set_timer(app, 0, NULL);
    control_free(app->control);
    if (!server_free(app->server)) {
        run_free(app->run);
        _exit(app->status);
    }
    qmp_free(app->qmp);
    run_free(app->run);
    helper_bus_free(app->bus);
    auth_free(app->auth);
    if (app->run_dir)
        rmdir(app->run_dir); /* if it is empty now */
    g_free(app->run_dir);
    g_main_loop_unref(app->loop);
}

static int serve(Config *config)
{
    App app = {.config = config, .loop = g_main_loop_new(NULL, FALSE)};
    g_autoptr(GError) error = NULL;
    sigset_t stops;
    sigemptyset(&stops);
    sigaddset(&stops, SIGTERM);
    sigaddset(&stops, SIGINT);
    sigaddset(&stops, SIGHUP);
    signal(SIGPIPE, SIG_IGN);
    sigprocmask(SIG_BLOCK, &stops, NULL);
    if (config->mode == CONFIG_BUS)
        confine(&app); /* GDBus starts threads */
    bool started =
        join_bus(&app, &error) && start_serving(&app, &error) && start_machine(&app, &error);
    /* Not earlier: GLib starts a thread for signals, and those there are before sandbox_confine()
     * are not confined. */
    g_unix_signal_add(SIGTERM, on_signal, &app);
    g_unix_signal_add(SIGINT, on_signal, &app);
    g_unix_signal_add(SIGHUP, on_signal, &app);
    sigprocmask(SIG_UNBLOCK, &stops, NULL);
    if (started) {
        if (config->mode == CONFIG_BUS)
            video_try_later();
        g_main_loop_run(app.loop);
    } else {
        fprintf(stderr, "qrdp: %s\n", error->message);
        app.status = EXIT_USAGE;
        if (app.bus)
            tell_failure(&app, error->message);
    }
    video_finish();
    app_clear(&app);
    return app.status;
}

static int print_capabilities(void)
{
    /* libvirt knows dbus-address and remotefx; others are for people and newer versions of it. */
    puts("{\"type\":\"rdp\",\"features\":[\"dbus-address\",\"remotefx\"]}");
    return fflush(stdout) == 0 ? 0 : 1;
}

/** Where `qrdp passwd` writes and run and serve read, unless the operator says otherwise. libvirt
 * hands credentials over the bus, those are in memory only. */
static void fill_auth_file(Config *config)
{
    if (config->auth_file || config->mode == CONFIG_BUS)
        return;
    g_autofree char *dir = cert_state_dir();
    g_mkdir_with_parents(dir, 0700); /* auth.c reports it if that failed and matters */
    config->auth_file = g_build_filename(dir, "credentials", NULL);
}

static int run_command(Config *config)
{
    log_set_level(config->log_level);
    switch (config->mode) {
    case CONFIG_PRINT_CAPABILITIES:
        return print_capabilities();
    case CONFIG_STATUS:
    case CONFIG_USB:
        return status_client_run(config);
    case CONFIG_PASSWD:
        fill_auth_file(config);
        return passwd_run(config);
    case CONFIG_RUN:
    case CONFIG_QMP:
    case CONFIG_BUS:
        /* Who names a file wants logins; without it everybody on this host would be let in. */
        if (config->auth_file && access(config->auth_file, F_OK) < 0) {
            fprintf(stderr,
                    "qrdp: --auth-file=%s: %s: make it with 'qrdp passwd --auth-file=%s USER'\n",
                    config->auth_file, g_strerror(errno), config->auth_file);
            return 2;
        }
        fill_auth_file(config);
        return serve(config);
    }
    g_assert_not_reached();
}

int main(int argc, char **argv)
{
    g_autofree char *text = NULL;
    g_autoptr(GError) error = NULL;
    Config *config = cmdline_parse(argc, argv, &text, &error);
    if (text) {
        fputs(text, stdout);
        return 0;
    }
    if (!config) {
        fprintf(stderr, "qrdp: %s\n", error->message);
        return EXIT_USAGE;
    }
    /* Each client has threads of its own, and glibc would give up to eight arenas per core to them,
     * whose holes are never shared: memory would grow with the number of clients that were here. */
    mallopt(M_ARENA_MAX, 2);
    /* Pictures get pages of their own, which go back to the kernel with them. Left alone, glibc
     * takes the first one that is freed as a sign that there will be more, and from then on keeps
     * all of them between the small things: 24 MB of holes after a film of 1920x1080. USB transfers
     * of a megabyte stay below, for each would cost its pages anew: half of all that a read costs. */
    mallopt(M_MMAP_THRESHOLD, LARGE_BYTES);
    mallopt(M_TRIM_THRESHOLD, TRIM_BYTES);
    int status = run_command(config);
    config_free(config);
    return status;
}
