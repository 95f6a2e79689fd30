/*
 * Theory of operation.
 *
 * An operation is a script: connect, read the greeting, negotiate, a few commands, close. It runs
 * in a worker thread as plain blocking code, every wait bounded by a deadline and a cancellable;
 * the Job that describes it travels main -> worker -> main, so nothing is shared but the path.
 * Operations of one Qmp run one after the other, because the monitor serves one client at a time
 * and the second would only wait for the first.
 *
 * QEMU's answers are bounded (MAX_LINE) and events are skipped. What QEMU says in an error is
 * passed on to the user, inside a sentence that says what to do where we know it.
 */
#include "qmp.h"

#include <errno.h>
#include <gio/gunixconnection.h>
#include <gio/gunixfdmessage.h>
#include <gio/gunixsocketaddress.h>
#include <json-glib/json-glib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "handover.h"
#include "log.h"

#define SUBJECT "qmp"
#define MAX_LINE (1024u * 1024) /* one answer; the largest real ones are some tens of KiB */
#define GREETING_SECONDS 5u
#define COMMAND_SECONDS 10u
#define OPERATION_SECONDS 30u /* after the greeting, all in all */
#define MAX_DEPTH 32
#define MAX_PORT 15u /* what a qemu-xhci has at most */
#define MAX_CONTROLLERS 8u
#define MAX_SLOT_NUMBER 64u

typedef enum JobKind { JOB_ATTACH, JOB_ADD_SLOT } JobKind;

typedef struct Job {
    JobKind kind;
    Qmp *qmp; /* main only; NULL: answered already */
    char *path;
    unsigned patience;
    GCancellable *cancellable;
    guint watchdog; /* main only, as the next */
    bool timed_out;
    union {
        QmpAttached attached;
        QmpSlotAdded added;
    } done;
    void *user;
    int boot; /* the first slot's bootindex, negative: none */

    GSocket *socket; /* worker only, with what follows */
    GByteArray *input;
    gint64 deadline;
    GDBusConnection *connection; /* results */
    char *chardev_id;
    unsigned slot_number;
} Job;

struct Qmp {
    char *path;
    unsigned patience;
    GQueue jobs; /* of Job; the first one is running */
};

/* ---- worker: lines ---- */

static void set_deadline(Job *job, unsigned seconds)
{
    job->deadline = g_get_monotonic_time() + (gint64)seconds * G_USEC_PER_SEC;
}

static bool wait_for(Job *job, GIOCondition condition, GError **error)
{
    gint64 left = MAX(job->deadline - g_get_monotonic_time(), 1);

    return g_socket_condition_timed_wait(job->socket, condition, left, job->cancellable, error);
}

/* One line without its end, or NULL. */
static char *read_line(Job *job, GError **error)
{
    gsize searched = 0;

    while (true) {
        const guint8 *end = job->input->len > searched ? memchr(job->input->data + searched, '\n',
                                                                job->input->len - searched)
                                                       : NULL;
        if (end) {
            gsize len = (gsize)(end - job->input->data);
            char *line = g_strndup((const char *)job->input->data, len);
            g_byte_array_remove_range(job->input, 0, (guint)len + 1);
            return line;
        }
        searched = job->input->len;
        if (searched > MAX_LINE) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                        "the monitor sent a line of more than %u bytes: is %s a QMP socket?",
                        MAX_LINE, job->path);
            return NULL;
        }

        char buffer[4096];
        if (!wait_for(job, G_IO_IN, error))
            return NULL;
        gssize n = g_socket_receive(job->socket, buffer, sizeof(buffer), job->cancellable, error);
        if (n < 0 && g_error_matches(*error, G_IO_ERROR, G_IO_ERROR_WOULD_BLOCK)) {
            g_clear_error(error);
            continue;
        }
        if (n == 0)
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_CLOSED, "QEMU closed the QMP socket");
        if (n <= 0)
            return NULL;
        g_byte_array_append(job->input, (const guint8 *)buffer, (guint)n);
    }
}

/* One object that nests no deeper than any QMP message, without comments. The parser is not shown
 * anything else: it recurses, and an immutable one of json-glib 1.10 dies of a second value. */
static bool is_one_object(const char *json)
{
    int depth = 0;
    bool quoted = false, ended = false;

    for (const char *p = json; *p; p++) {
        if (g_ascii_isspace(*p) && !quoted)
            continue;
        if (ended || (depth == 0 && *p != '{'))
            return false;
        if (!quoted && !g_ascii_isalnum(*p) && !strchr("{}[]:,\"+-.", *p))
            return false;
        if (*p == '\\' && quoted && p[1])
            p++;
        else if (*p == '"')
            quoted = !quoted;
        else if (!quoted && (*p == '{' || *p == '['))
            depth++;
        else if (!quoted && (*p == '}' || *p == ']'))
            depth--;
        if (depth > MAX_DEPTH)
            return false;
        ended = depth == 0;
    }
    return ended;
}

/* One message: a JSON object. */
static JsonObject *read_message(Job *job, GError **error)
{
    g_autofree char *line = read_line(job, error);
    g_autoptr(JsonParser) parser = json_parser_new();

    if (!line)
        return NULL;
    JsonNode *root = is_one_object(line) && json_parser_load_from_data(parser, line, -1, NULL)
                         ? json_parser_get_root(parser)
                         : NULL;
    if (!root || !JSON_NODE_HOLDS_OBJECT(root)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "%s does not speak QMP: give the path of a QMP socket (-qmp unix:PATH,"
                    "server=on,wait=off)",
                    job->path);
        return NULL;
    }
    return json_node_dup_object(root);
}

static bool send_all(Job *job, const char *text, int fd, GError **error)
{
    gsize len = strlen(text), sent = 0;
    g_autoptr(GSocketControlMessage) rights = NULL;

    if (fd >= 0) {
        rights = g_unix_fd_message_new();
        if (!g_unix_fd_message_append_fd(G_UNIX_FD_MESSAGE(rights), fd, error))
            return false;
    }
    while (sent < len) {
        GOutputVector vector = {text + sent, len - sent};
        if (!wait_for(job, G_IO_OUT, error))
            return false;
        gssize n = g_socket_send_message(job->socket, NULL, &vector, 1, rights ? &rights : NULL,
                                         rights ? 1 : 0, 0, job->cancellable, error);
        if (n < 0 && g_error_matches(*error, G_IO_ERROR, G_IO_ERROR_WOULD_BLOCK)) {
            g_clear_error(error);
            continue;
        }
        if (n < 0)
            return false;
        sent += (gsize)n;
        g_clear_object(&rights); /* they went with the first byte */
    }
    return true;
}

/* ---- worker: commands ---- */

/* The domain of QEMU's own refusals. */
static GQuark refusal_quark(void)
{
    return g_quark_from_static_string("qrdp-qmp-refusal");
}

static bool refused(const GError *error)
{
    return error && error->domain == refusal_quark();
}

static const char *string_member(JsonObject *object, const char *name, const char *otherwise)
{
    JsonNode *node = json_object_get_member(object, name);

    return node && JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == G_TYPE_STRING
               ? json_node_get_string(node)
               : otherwise;
}

/* Runs a command. The "return" member or NULL: *error is refused() with QEMU's own words, or the
 * conversation failed. */
static JsonNode *run(Job *job, const char *command, JsonNode *arguments, int fd, GError **error)
{
    g_autoptr(JsonObject) message = json_object_new();
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);

    json_object_set_string_member(message, "execute", command);
    if (arguments)
        json_object_set_member(message, "arguments", arguments);
    json_node_set_object(node, message);
    g_autofree char *json = json_to_string(node, FALSE);
    g_autofree char *line = g_strconcat(json, "\n", NULL);

    log_trace(SUBJECT, "%s", command);
    set_deadline(job, COMMAND_SECONDS);
    if (!send_all(job, line, fd, error))
        return NULL;
    while (true) {
        g_autoptr(JsonObject) answer = read_message(job, error);
        if (!answer)
            return NULL;
        JsonNode *result = json_object_get_member(answer, "return");
        if (result)
            return json_node_copy(result);
        JsonNode *refusal = json_object_get_member(answer, "error");
        if (!refusal)
            continue; /* an event */
        const char *text = "no reason given";
        if (JSON_NODE_HOLDS_OBJECT(refusal))
            text = string_member(json_node_get_object(refusal), "desc", text);
        g_set_error_literal(error, refusal_quark(), 0, text);
        return NULL;
    }
}

/* As run(), with string arguments (name, value, ..., NULL), and only success counts. */
static bool run_strings(Job *job, int fd, GError **error, const char *command,
                        ...) G_GNUC_NULL_TERMINATED;

static JsonNode *string_arguments(va_list list)
{
    JsonObject *object = json_object_new();
    JsonNode *node = json_node_new(JSON_NODE_OBJECT);

    for (const char *name; (name = va_arg(list, const char *));)
        json_object_set_string_member(object, name, va_arg(list, const char *));
    json_node_take_object(node, object);
    return node;
}

static bool run_strings(Job *job, int fd, GError **error, const char *command, ...)
{
    va_list list;

    va_start(list, command);
    JsonNode *arguments = string_arguments(list);
    va_end(list);
    g_autoptr(JsonNode) result = run(job, command, arguments, fd, error);
    return result != NULL;
}

/* Tidies up: what QEMU says does not matter. */
static void run_unheard(Job *job, const char *command, const char *name, const char *value)
{
    g_autoptr(GError) ignored = NULL;

    run_strings(job, -1, &ignored, command, name, value, NULL);
}

/* Says that the monitor does not listen to us. */
static void set_busy(Job *job, GError **error)
{
    g_clear_error(error);
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_BUSY,
                "the QMP monitor at %s has not answered for %u s: it serves one client at a time, "
                "and another one (libvirt, a management tool) is probably connected; give QEMU a "
                "second -qmp socket for qrdp",
                job->path, job->patience);
}

static bool connect_monitor(Job *job, GError **error)
{
    g_autoptr(GSocketAddress) address = g_unix_socket_address_new(job->path);

    if (strlen(job->path) > g_unix_socket_address_get_path_len(G_UNIX_SOCKET_ADDRESS(address))) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FILENAME_TOO_LONG,
                    "the path %s is too long for a socket: use a shorter one", job->path);
        return false;
    }
    job->socket =
        g_socket_new(G_SOCKET_FAMILY_UNIX, G_SOCKET_TYPE_STREAM, G_SOCKET_PROTOCOL_DEFAULT, error);
    if (!job->socket)
        return false;
    if (!g_socket_connect(job->socket, address, job->cancellable, error)) {
        if (g_error_matches(*error, G_IO_ERROR, G_IO_ERROR_WOULD_BLOCK)) /* backlog full */
            set_busy(job, error);
        else
            g_prefix_error(
                error,
                "no QMP monitor at %s (is QEMU running with -qmp unix:%s,server=on,wait=off"
                "?): ",
                job->path, job->path);
        return false;
    }
    g_socket_set_blocking(job->socket, FALSE);

    set_deadline(job, job->patience);
    g_autoptr(JsonObject) greeting = read_message(job, error);
    if (g_error_matches(*error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT))
        set_busy(job, error);
    if (!greeting)
        return false;
    if (!json_object_has_member(greeting, "QMP")) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "%s does not speak QMP: give the path of a QMP socket", job->path);
        return false;
    }
    return run_strings(job, -1, error, "qmp_capabilities", NULL);
}

/* ---- worker: attach ---- */

/* Says what to do about a refused add_client. */
static void explain_no_display(GError **error)
{
    if (!refused(*error))
        return;
    g_autofree char *said = g_strdup((*error)->message);
    g_clear_error(error);
    if (strstr(said, "bus mode"))
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
                    "this VM's D-Bus display is on a message bus (%s): start qrdp with "
                    "--dbus-address=ADDR, or QEMU with -display dbus,p2p=yes",
                    said);
    else
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
                    "this VM has no D-Bus display to attach to (%s): start QEMU with "
                    "-display dbus,p2p=yes",
                    said);
}

static void attach_in_worker(Job *job, GError **error)
{
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno), "socketpair: %s",
                    g_strerror(errno));
        return;
    }
    bool ok = run_strings(job, ends[1], error, "getfd", "fdname", "qrdp-display", NULL);
    close(ends[1]);
    if (ok && !run_strings(job, -1, error, "add_client", "protocol", "@dbus-display", "fdname",
                           "qrdp-display", NULL)) {
        bool display_refused = refused(*error);
        explain_no_display(error);
        if (display_refused) /* a refused fd stays in the monitor otherwise */
            run_unheard(job, "closefd", "fdname", "qrdp-display");
        ok = false;
    }
    g_autoptr(GSocket) socket = ok ? g_socket_new_from_fd(ends[0], error) : NULL;
    if (!socket) {
        close(ends[0]);
        return;
    }
    g_autoptr(GSocketConnection) stream = g_socket_connection_factory_create_connection(socket);
    job->connection = g_dbus_connection_new_sync(G_IO_STREAM(stream), NULL,
                                                 G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT,
                                                 NULL, job->cancellable, error);
    if (!job->connection)
        g_prefix_error(error, "QEMU's D-Bus display did not authenticate: ");
}

/* ---- worker: slots ---- */

/* Names of the children of @path whose type is one of our kind of controller. */
static GPtrArray *find_controllers(Job *job, GError **error)
{
    JsonObject *object = json_object_new();
    JsonNode *arguments = json_node_new(JSON_NODE_OBJECT);

    json_object_set_string_member(object, "path", "/machine/peripheral");
    json_node_take_object(arguments, object);
    g_autoptr(JsonNode) result = run(job, "qom-list", arguments, -1, error);
    if (!result)
        return NULL;
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    JsonArray *children = JSON_NODE_HOLDS_ARRAY(result) ? json_node_get_array(result) : NULL;
    for (guint i = 0; children && i < json_array_get_length(children); i++) {
        JsonNode *child = json_array_get_element(children, i);
        if (!JSON_NODE_HOLDS_OBJECT(child) || names->len == MAX_CONTROLLERS)
            continue;
        const char *type = string_member(json_node_get_object(child), "type", "");
        const char *name = string_member(json_node_get_object(child), "name", "");
        if (strcmp(type, "child<qemu-xhci>") != 0 && strcmp(type, "child<nec-usb-xhci>") != 0)
            continue;
        /* Ours first: their ports are meant for slots. */
        bool ours = g_str_has_prefix(name, "qrdp-xhci");
        g_ptr_array_insert(names, ours ? 0 : -1, g_strdup(name));
    }
    return names;
}

/* Adds a chardev under the first free name of ours. */
static char *add_chardev(Job *job, GError **error)
{
    for (unsigned i = 0; i < MAX_SLOT_NUMBER; i++) {
        /* No '-' in the name: QEMU makes an object path of it and dies (10.0.2). */
        g_autofree char *id = g_strdup_printf("qrdp_usb%u", i);
        g_autofree char *json =
            g_strdup_printf("{\"id\":\"%s\",\"backend\":{\"type\":\"dbus\",\"data\":{\"name\":"
                            "\"org.qemu.usbredir\"}}}",
                            id);
        g_autoptr(JsonNode) result =
            run(job, "chardev-add", json_from_string(json, NULL), -1, error);
        job->slot_number = i;
        if (result)
            return g_steal_pointer(&id);
        if (!refused(*error) || !strstr((*error)->message, "already exists"))
            return NULL;
        g_clear_error(error);
    }
    g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_NO_SPACE, "all redirection slots exist");
    return NULL;
}

static JsonNode *slot_arguments(Job *job, const char *id, const char *bus, unsigned port)
{
    JsonObject *object = json_object_new();
    JsonNode *node = json_node_new(JSON_NODE_OBJECT);
    char text[8];

    g_snprintf(text, sizeof(text), "%u", port);
    json_object_set_string_member(object, "driver", "usb-redir");
    json_object_set_string_member(object, "chardev", id);
    json_object_set_string_member(object, "id", id);
    json_object_set_string_member(object, "bus", bus);
    json_object_set_string_member(object, "port", text);
    if (job->boot >= 0)
        json_object_set_int_member(object, "bootindex", job->boot + (gint64)job->slot_number);
    json_node_take_object(node, object);
    return node;
}

/* Plugs the device into the first free port. A port is always named: without one QEMU inserts a
 * full-speed hub when only one port is left. */
static bool add_device(Job *job, const GPtrArray *controllers, const char *id, GError **error)
{
    for (guint i = 0; i < controllers->len; i++) {
        g_autofree char *bus = g_strconcat(g_ptr_array_index(controllers, i), ".0", NULL);
        for (unsigned n = 1; n <= MAX_PORT; n++) {
            g_autoptr(JsonNode) result =
                run(job, "device_add", slot_arguments(job, id, bus, n), -1, error);
            if (result)
                return true;
            if (!refused(*error) || !strstr((*error)->message, "in use"))
                return false;
            g_clear_error(error);
        }
    }
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_NO_SPACE,
                controllers->len > 0
                    ? "no free USB port: every port of the VM's xHCI controllers is taken"
                    : "no free USB port: the VM has no xHCI controller with an id (add -device "
                      "qemu-xhci,id=usb,p2=15,p3=15)");
    return false;
}

static void add_slot_in_worker(Job *job, GError **error)
{
    g_autoptr(GPtrArray) controllers = find_controllers(job, error);

    if (!controllers)
        return;
    char *id = add_chardev(job, error);
    if (!id)
        return;
    if (add_device(job, controllers, id, error)) {
        job->chardev_id = id;
        return;
    }
    run_unheard(job, "chardev-remove", "id", id);
    g_free(id);
}

static void worker(GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
    Job *job = data;
    g_autoptr(GError) error = NULL;

    handover_take(job);
    job->input = g_byte_array_new();
    if (connect_monitor(job, &error)) {
        if (job->kind == JOB_ATTACH)
            attach_in_worker(job, &error);
        else
            add_slot_in_worker(job, &error);
    }
    if (job->socket)
        g_socket_close(job->socket, NULL);
    handover_give(job);
    if (error)
        g_task_return_error(task, g_steal_pointer(&error));
    else
        g_task_return_boolean(task, TRUE);
}

/* ---- main ---- */

static void job_free(gpointer data)
{
    Job *job = data;

    handover_take(job);
    g_clear_object(&job->socket);
    g_clear_object(&job->connection);
    g_clear_object(&job->cancellable);
    if (job->input)
        g_byte_array_unref(job->input);
    g_free(job->chardev_id);
    g_free(job->path);
    g_free(job);
}

/* Takes @job out of the queue and tells its owner. */
static void answer(Job *job, const char *error)
{
    g_queue_remove(&job->qmp->jobs, job);
    g_clear_handle_id(&job->watchdog, g_source_remove);
    job->qmp = NULL;
    if (job->kind == JOB_ATTACH)
        job->done.attached(job->user, error ? NULL : g_steal_pointer(&job->connection), error);
    else
        job->done.added(job->user, error ? NULL : job->chardev_id, error);
}

static void start_first(Qmp *qmp);

static void on_done(GObject *source, GAsyncResult *result, gpointer user_data)
{
    Job *job = user_data; /* the task owns it and is alive during this call */
    handover_take(job);
    Qmp *qmp = job->qmp;
    g_autoptr(GError) error = NULL;

    g_task_propagate_boolean(G_TASK(result), &error);
    if (!qmp) {
        handover_give(job); /* the worker may hold the task's last reference */
        return;
    }
    g_queue_remove(&qmp->jobs, job);
    start_first(qmp);
    g_autofree char *late = g_strdup_printf("QEMU did not finish a QMP operation in %u s",
                                            job->patience + OPERATION_SECONDS);
    /* This may free the Qmp. */
    answer(job, !error ? NULL : job->timed_out ? late : error->message);
    handover_give(job);
}

static gboolean on_watchdog(gpointer data)
{
    Job *job = data;

    job->watchdog = 0;
    job->timed_out = true;
    g_cancellable_cancel(job->cancellable);
    return G_SOURCE_REMOVE;
}

static void start_first(Qmp *qmp)
{
    Job *job = g_queue_peek_head(&qmp->jobs);

    if (!job)
        return;
    g_autoptr(GTask) task = g_task_new(NULL, job->cancellable, on_done, job);
    g_task_set_check_cancellable(task, FALSE);
    g_task_set_task_data(task, job, job_free);
    job->watchdog = g_timeout_add_seconds(job->patience + OPERATION_SECONDS, on_watchdog, job);
    handover_give(job);
    g_task_run_in_thread(task, worker);
}

static void submit(Qmp *qmp, Job *job)
{
    job->qmp = qmp;
    job->path = g_strdup(qmp->path);
    job->patience = qmp->patience;
    job->cancellable = g_cancellable_new();
    g_queue_push_tail(&qmp->jobs, job);
    if (qmp->jobs.length == 1)
        start_first(qmp);
}

Qmp *qmp_new(const char *path)
{
    Qmp *qmp = g_new0(Qmp, 1);

    qmp->path = g_strdup(path);
    qmp->patience = GREETING_SECONDS;
    g_queue_init(&qmp->jobs);
    return qmp;
}

void qmp_set_patience(Qmp *qmp, unsigned seconds)
{
    qmp->patience = seconds;
}

void qmp_free(Qmp *qmp)
{
    if (!qmp)
        return;
    for (bool running = true; qmp->jobs.head; running = false) {
        Job *job = g_queue_peek_head(&qmp->jobs);
        g_cancellable_cancel(job->cancellable);
        answer(job, "QMP is being closed");
        if (!running) /* else its task frees it */
            job_free(job);
    }
    g_free(qmp->path);
    g_free(qmp);
}

void qmp_attach_display(Qmp *qmp, QmpAttached done, void *user)
{
    Job *job = g_new0(Job, 1);

    job->kind = JOB_ATTACH;
    job->done.attached = done;
    job->user = user;
    submit(qmp, job);
}

void qmp_add_usb_slot(Qmp *qmp, int boot, QmpSlotAdded done, void *user)
{
    Job *job = g_new0(Job, 1);

    job->kind = JOB_ADD_SLOT;
    job->boot = boot;
    job->done.added = done;
    job->user = user;
    submit(qmp, job);
}
