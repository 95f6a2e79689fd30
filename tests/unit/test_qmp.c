/* QMP against a scripted monitor in a thread. */
#include "qmp.h"

#include <gio/gunixfdmessage.h>
#include <gio/gunixsocketaddress.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"

#define GREETING "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n"
#define OK "{\"return\": {}}\n"

/* For each line that the client sends the monitor sends the next answer. An answer of NULL: close.
 * The first one is sent at once. */
typedef struct Monitor {
    char *dir, *path;
    int listen_fd;
    const char *const *answers;
    GThread *thread;
    GString *heard;
    bool be_display; /* speak D-Bus on the fd that was passed */
    GDBusConnection *display;
} Monitor;

static void serve_display(Monitor *m, int fd)
{
    g_autoptr(GSocket) socket = g_socket_new_from_fd(fd, NULL);
    g_autoptr(GSocketConnection) stream = g_socket_connection_factory_create_connection(socket);
    g_autofree char *guid = g_dbus_generate_guid();

    m->display = g_dbus_connection_new_sync(
        G_IO_STREAM(stream), guid, G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_SERVER, NULL, NULL, NULL);
}

/* One line; *passed gets a descriptor that came with it. Empty: the client is gone. */
static char *hear(int fd, int *passed)
{
    GString *line = g_string_new(NULL);
    char c;
    union {
        char buffer[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;

    while (line->len == 0 || line->str[line->len - 1] != '\n') {
        struct iovec vector = {&c, 1};
        struct msghdr message = {.msg_iov = &vector,
                                 .msg_iovlen = 1,
                                 .msg_control = control.buffer,
                                 .msg_controllen = sizeof(control.buffer)};
        if (recvmsg(fd, &message, 0) <= 0)
            break;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        if (header && header->cmsg_type == SCM_RIGHTS)
            memcpy(passed, CMSG_DATA(header), sizeof(int));
        g_string_append_c(line, c);
    }
    return g_string_free(line, FALSE);
}

static gpointer monitor_thread(gpointer data)
{
    Monitor *m = data;
    int fd = accept(m->listen_fd, NULL, NULL), passed = -1;

    for (size_t i = 0; m->answers[i]; i++) {
        size_t len = strlen(m->answers[i]);
        if (send(fd, m->answers[i], len, MSG_NOSIGNAL) < 0)
            break;
        g_autofree char *line = hear(fd, &passed);
        if (!*line)
            break;
        g_string_append(m->heard, line);
        if (m->be_display && strstr(line, "add_client")) {
            send(fd, OK, strlen(OK), MSG_NOSIGNAL);
            serve_display(m, passed);
            passed = -1;
            break;
        }
    }
    if (passed >= 0)
        close(passed);
    close(fd);
    return NULL;
}

static Monitor *monitor_new(const char *const *answers)
{
    Monitor *m = g_new0(Monitor, 1);
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    m->dir = g_dir_make_tmp("qmp-XXXXXX", NULL);
    m->path = g_build_filename(m->dir, "qmp", NULL);
    m->answers = answers;
    m->heard = g_string_new(NULL);
    g_strlcpy(address.sun_path, m->path, sizeof(address.sun_path));
    m->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(bind(m->listen_fd, (struct sockaddr *)&address, sizeof(address)), ==, 0);
    g_assert_cmpint(listen(m->listen_fd, 4), ==, 0);
    return m;
}

static void monitor_start(Monitor *m)
{
    m->thread = g_thread_new("monitor", monitor_thread, m);
}

static void monitor_free(Monitor *m)
{
    if (m->thread)
        g_thread_join(m->thread);
    g_clear_object(&m->display);
    close(m->listen_fd);
    g_unlink(m->path);
    g_rmdir(m->dir);
    g_string_free(m->heard, TRUE);
    g_free(m->path);
    g_free(m->dir);
    g_free(m);
}

typedef struct Result {
    int calls;
    bool connected;
    char *id, *error;
} Result;

static void on_attached(void *user, GDBusConnection *connection, const char *error)
{
    Result *r = user;

    r->calls++;
    r->connected = connection != NULL;
    g_assert_true((connection != NULL) == (error == NULL));
    r->error = g_strdup(error);
    g_clear_object(&connection);
}

static void on_added(void *user, const char *id, const char *error)
{
    Result *r = user;

    r->calls++;
    g_assert_true((id != NULL) == (error == NULL));
    r->id = g_strdup(id);
    r->error = g_strdup(error);
}

static void result_clear(Result *r)
{
    g_free(r->id);
    g_free(r->error);
    memset(r, 0, sizeof(*r));
}

static void wait_for_result(Result *r)
{
    while (r->calls == 0)
        g_main_context_iteration(NULL, TRUE); /* every operation has deadlines of its own */
}

/* Runs one operation against a monitor that answers like that. */
static void operate(const char *const *answers, bool attach, Result *r, char **heard)
{
    Monitor *m = monitor_new(answers);
    Qmp *qmp = qmp_new(m->path);

    monitor_start(m);
    if (attach)
        qmp_attach_display(qmp, on_attached, r);
    else
        qmp_add_usb_slot(qmp, 7, on_added, r);
    wait_for_result(r);
    qmp_free(qmp);
    g_assert_cmpint(r->calls, ==, 1);
    g_thread_join(g_steal_pointer(&m->thread));
    if (heard)
        *heard = g_strdup(m->heard->str);
    monitor_free(m);
}

static void test_attach(void)
{
    const char *const answers[] = {GREETING, "{\"event\": \"RESUME\", \"data\": {}}\n" OK,
                                   "{\"event\": \"STOP\"}\n{\"event\": \"RESET\"}\n" OK, OK, NULL};
    Monitor *m = monitor_new(answers);
    Qmp *qmp = qmp_new(m->path);
    Result r = {0};

    m->be_display = true;
    monitor_start(m);
    qmp_attach_display(qmp, on_attached, &r);
    wait_for_result(&r);
    g_assert_cmpstr(r.error, ==, NULL);
    g_assert_true(r.connected);
    result_clear(&r);
    qmp_free(qmp);
    monitor_free(m);
}

static void expect_attach_error(const char *const *answers, const char *part)
{
    Result r = {0};

    operate(answers, true, &r, NULL);
    g_assert_nonnull(r.error);
    if (!strstr(r.error, part))
        g_error("\"%s\" does not say \"%s\"", r.error, part);
    result_clear(&r);
}

static void test_attach_refused(void)
{
    expect_attach_error(
        (const char *const[]){GREETING, OK, OK,
                              "{\"error\": {\"class\": \"DeviceNotActive\", \"desc\": \"D-Bus "
                              "display is not in use\"}}\n",
                              OK, NULL},
        "-display dbus,p2p=yes");
    expect_attach_error(
        (const char *const[]){GREETING, OK, OK,
                              "{\"error\": {\"class\": \"GenericError\", \"desc\": \"p2p "
                              "connections not accepted in bus mode\"}}\n",
                              OK, NULL},
        "--dbus-address");
}

static void test_attach_nonsense(void)
{
    g_autofree char *deep = g_strnfill(100000, '[');
    g_autofree char *deep_line = g_strconcat(deep, "\n", NULL);
    g_autofree char *endless = g_strnfill(3 * 1024 * 1024, 'x');

    expect_attach_error((const char *const[]){"SSH-2.0-OpenSSH\n", NULL}, "does not speak QMP");
    expect_attach_error((const char *const[]){"{}\n", NULL}, "does not speak QMP");
    expect_attach_error((const char *const[]){"[]\n", NULL}, "does not speak QMP");
    expect_attach_error((const char *const[]){deep_line, NULL}, "does not speak QMP");
    expect_attach_error((const char *const[]){"{\"QMP\": {}}{\"QMP\": {}}\n", NULL},
                        "does not speak QMP");
    expect_attach_error(
        (const char *const[]){"{\"QMP\": {} /* \" */}{\"QMP\": {} /* \" */}\n", NULL},
        "does not speak QMP");
    expect_attach_error((const char *const[]){endless, NULL}, "a QMP socket?");
    expect_attach_error((const char *const[]){NULL}, "closed");
    expect_attach_error((const char *const[]){GREETING, NULL}, "closed");
    expect_attach_error((const char *const[]){GREETING, "{\"error\": 7}\n", NULL}, "no reason");
    expect_attach_error((const char *const[]){GREETING, "{\"error\": {\"desc\": {}}}\n", NULL},
                        "no reason");
}

static void test_no_socket(void)
{
    Qmp *qmp = qmp_new("/nonexistent/qmp");
    Result r = {0};

    qmp_attach_display(qmp, on_attached, &r);
    wait_for_result(&r);
    g_assert_nonnull(strstr(r.error, "-qmp unix:/nonexistent/qmp,server=on,wait=off"));
    result_clear(&r);
    qmp_free(qmp);

    g_autofree char *name = g_strnfill(200, 'a');
    qmp = qmp_new(name);
    qmp_attach_display(qmp, on_attached, &r);
    wait_for_result(&r);
    g_assert_nonnull(strstr(r.error, "too long"));
    result_clear(&r);
    qmp_free(qmp);
}

/* Nobody accepts: another client holds the monitor. */
static void test_busy(void)
{
    Monitor *m = monitor_new(NULL);
    Qmp *qmp = qmp_new(m->path);
    Result r = {0};

    qmp_set_patience(qmp, 1);
    qmp_attach_display(qmp, on_attached, &r);
    wait_for_result(&r);
    g_assert_nonnull(strstr(r.error, "one client at a time"));
    result_clear(&r);
    qmp_free(qmp);
    monitor_free(m);
}

/* Freed with one operation under way and one waiting: both hear of it, once, before it returns. */
static void test_free_while_busy(void)
{
    Monitor *m = monitor_new(NULL);
    Qmp *qmp = qmp_new(m->path);
    Result attach = {0}, add = {0};

    qmp_attach_display(qmp, on_attached, &attach);
    qmp_add_usb_slot(qmp, -1, on_added, &add);
    g_main_context_iteration(NULL, FALSE);
    qmp_free(qmp);
    g_assert_cmpint(attach.calls, ==, 1);
    g_assert_cmpint(add.calls, ==, 1);
    g_assert_nonnull(attach.error);
    g_assert_nonnull(add.error);
    result_clear(&attach);
    result_clear(&add);
    for (int i = 0; i < 20; i++)
        g_main_context_iteration(NULL, FALSE);
    monitor_free(m);
}

#define QOM                                                                                        \
    "{\"return\": [{\"name\": \"type\", \"type\": \"string\"},"                                    \
    "{\"name\": \"usb\", \"type\": \"child<qemu-xhci>\"},"                                         \
    "{\"name\": \"disk\", \"type\": \"child<virtio-blk-pci>\"},"                                   \
    "{\"name\": \"qrdp-xhci0\", \"type\": \"child<qemu-xhci>\"}, 7]}\n"
#define TAKEN "{\"error\": {\"desc\": \"usb port 1 (bus usb.0) not found (in use?)\"}}\n"
#define EXISTS "{\"error\": {\"desc\": \"Chardev with id 'qrdp_usb0' already exists\"}}\n"

static void test_add_slot(void)
{
    Result r = {0};
    char *heard;

    operate((const char *const[]){GREETING, OK, QOM, EXISTS, OK, TAKEN, TAKEN, OK, NULL}, false, &r,
            &heard);
    g_assert_cmpstr(r.error, ==, NULL);
    g_assert_cmpstr(r.id, ==, "qrdp_usb1");
    /* Our controller first, its third port, always named. */
    g_assert_nonnull(strstr(heard, "\"bus\":\"qrdp-xhci0.0\",\"port\":\"3\",\"bootindex\":8}"));
    g_assert_null(strstr(heard, "usb.0\",\"port"));
    g_free(heard);
    result_clear(&r);
}

static void test_add_slot_full(void)
{
    const char *answers[3 + 1 + 30 + 2];
    size_t n = 0;
    Result r = {0};
    char *heard;

    answers[n++] = GREETING;
    answers[n++] = OK;
    answers[n++] = QOM;
    answers[n++] = OK;
    for (int i = 0; i < 30; i++)
        answers[n++] = TAKEN;
    answers[n++] = OK;
    answers[n] = NULL;
    operate(answers, false, &r, &heard);
    g_assert_cmpstr(r.id, ==, NULL);
    g_assert_nonnull(strstr(r.error, "no free USB port"));
    g_assert_nonnull(strstr(heard, "chardev-remove"));
    g_free(heard);
    result_clear(&r);

    operate((const char *const[]){GREETING, OK, "{\"return\": []}\n", OK, OK, NULL}, false, &r,
            NULL);
    g_assert_nonnull(strstr(r.error, "qemu-xhci"));
    result_clear(&r);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_set_level(LOG_LEVEL_ERROR);
    g_test_add_func("/qmp/attach", test_attach);
    g_test_add_func("/qmp/attach-refused", test_attach_refused);
    g_test_add_func("/qmp/attach-nonsense", test_attach_nonsense);
    g_test_add_func("/qmp/no-socket", test_no_socket);
    g_test_add_func("/qmp/busy", test_busy);
    g_test_add_func("/qmp/free-while-busy", test_free_while_busy);
    g_test_add_func("/qmp/add-slot", test_add_slot);
    g_test_add_func("/qmp/add-slot-full", test_add_slot_full);
    return g_test_run();
}
