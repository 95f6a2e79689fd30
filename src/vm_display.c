/*
 * Theory of operation.
 *
 * QEMU's display speaks over a socket of its own per listener. When it is handed over, QEMU
 * authenticates on it synchronously on its main loop, and later calls ScanoutMap synchronously
 * there: whatever serves that socket must never wait for anything. So one thread serves it, and
 * all that thread does is check, queue and reply (rdp-server.md 21.2).
 *
 * The queue (vm_ops.h) is ordered and short, the cursor has one place. Main is woken once per
 * batch. Should main be so late that the queue exceeds its bounds, the session is given up:
 * registering again brings a fresh Scanout, which is what dropped Updates would have needed anyway.
 *
 * With gl=on QEMU sends dma-bufs (dmabuf.h). They are read on this thread, when QEMU says what has
 * changed, and go on as copies. A picture that cannot be read is refused with a sentence, in the
 * log and as a picture for whoever looks.
 *
 * A Session is one listener connection. Main drops it by clearing Session.display; whatever the
 * thread queues afterwards is thrown away.
 */
#include <errno.h>
#include <gio/gio.h>
#include <gio/gunixfdlist.h>
#include <pixman.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "display1.h"
#include "dmabuf.h"
#include "handover.h"
#include "log.h"
#include "notice.h"
#include "vm_internal.h"
#include "vm_ops.h"

#define SUBJECT "display"

typedef struct Session {
    gint refs;
    GMainContext *main_context;
    GCancellable *cancellable;
    bool offer_map;
    VmDisplay *display;   /* main only; NULL: dropped */
    unsigned *connecting; /* listener thread only: VmDisplay.connecting */

    GMutex lock; /* what follows */
    bool dropped;
    bool wake_pending;
    OpQueue ops;
    Cursor *cursor; /* a shape that arrived */
    bool has_pointer, pointer_on;
    const char *ended; /* why, or NULL */

    GDBusConnection *connection; /* listener thread only, with what follows */
    guint registrations[2];
    Dmabuf *dmabuf; /* the picture, if it is one */
    bool refused;   /* that it cannot be read was said */
} Session;

struct VmDisplay {
    Framebuffer *fb;
    VmDisplayCallbacks callbacks;
    void *user;
    GMainContext *main_context;
    GThread *thread;
    GMainContext *context; /* the thread's */
    GMainLoop *loop;
    unsigned connecting; /* listener thread only: sessions whose on_connected() is to come */
    Session *session;
    Cursor *shape; /* the last one defined */
    bool pointer_on;
    Cursor *shown; /* what the callback was last told; not a reference of its own */
};

/* ---- cursors ---- */

Cursor *cursor_ref(Cursor *cursor)
{
    g_atomic_int_inc(&cursor->refs);
    return cursor;
}

Cursor *cursor_new(int32_t width, int32_t height, int32_t hot_x, int32_t hot_y, const uint8_t *argb,
                   size_t len)
{
    if (width <= 0 || height <= 0 || width > (int32_t)VM_MAX_CURSOR_SIDE ||
        height > (int32_t)VM_MAX_CURSOR_SIDE || len != (size_t)width * (size_t)height * 4)
        return NULL;
    Cursor *cursor = g_new0(Cursor, 1);
    cursor->refs = 1;
    cursor->width = (uint32_t)width;
    cursor->height = (uint32_t)height;
    cursor->hot_x = CLAMP(hot_x, 0, width - 1);
    cursor->hot_y = CLAMP(hot_y, 0, height - 1);
    cursor->argb = g_memdup2(argb, len);
    return cursor;
}

void cursor_unref(Cursor *cursor)
{
    if (!cursor || !g_atomic_int_dec_and_test(&cursor->refs))
        return;
    g_free(cursor->argb);
    g_free(cursor);
}

static void session_unref(Session *session)
{
    if (!g_atomic_int_dec_and_test(&session->refs))
        return;
    g_assert(!session->connection);
    ops_clear(&session->ops);
    cursor_unref(session->cursor);
    g_object_unref(session->cancellable);
    g_main_context_unref(session->main_context);
    g_mutex_clear(&session->lock);
    g_free(session);
}

static Session *session_ref(Session *session)
{
    g_atomic_int_inc(&session->refs);
    return session;
}

static void session_lock(Session *session)
{
    g_mutex_lock(&session->lock);
    handover_take(&session->lock);
}

static void session_unlock(Session *session)
{
    handover_give(&session->lock);
    g_mutex_unlock(&session->lock);
}

/* ---- main: applying what was queued ---- */

static void apply_cursor(VmDisplay *display, Cursor *shape, bool has_pointer, bool on)
{
    if (shape) {
        cursor_unref(display->shape);
        display->shape = cursor_ref(shape);
    }
    if (has_pointer)
        display->pointer_on = on;
    Cursor *now = display->pointer_on ? display->shape : NULL;
    if (now != display->shown || (shape && now)) {
        display->shown = now;
        display->callbacks.cursor(display->user, now);
    }
}

static gboolean session_drain(gpointer data)
{
    Session *session = data;
    VmDisplay *display = session->display;

    session_lock(session);
    session->wake_pending = false;
    OpQueue taken = ops_take(&session->ops);
    Cursor *cursor = g_steal_pointer(&session->cursor);
    bool has_pointer = session->has_pointer, on = session->pointer_on;
    session->has_pointer = false;
    const char *ended = session->ended;
    session_unlock(session);

    if (display) {
        display->callbacks.drain_begin(display->user);
        ops_apply(&taken, display->fb);
        display->callbacks.drain_end(display->user);
        /* A callback may have closed this session. */
        if (session->display)
            apply_cursor(display, cursor, has_pointer, on);
        if (session->display && ended) {
            vm_display_close(display);
            display->callbacks.closed(display->user, ended);
        }
    }
    ops_clear(&taken);
    cursor_unref(cursor);
    return G_SOURCE_REMOVE;
}

/* ---- listener thread: queueing ---- */

/* With the lock held. */
static void session_wake(Session *session)
{
    if (session->wake_pending || session->dropped)
        return;
    session->wake_pending = true;
    GSource *source = g_idle_source_new();
    g_source_set_priority(source, G_PRIORITY_DEFAULT);
    g_source_set_static_name(source, "display drain");
    g_source_set_callback(source, session_drain, session_ref(session),
                          (GDestroyNotify)session_unref);
    g_source_attach(source, session->main_context);
    g_source_unref(source);
}

/* With the lock held. */
static void session_end(Session *session, const char *why)
{
    if (!session->ended)
        session->ended = why;
    session_wake(session);
}

/* Takes @op. */
static void session_push(Session *session, Op *op)
{
    bool news = false;

    session_lock(session);
    if (session->dropped || session->ended)
        op_free(op);
    else if (!ops_push(&session->ops, op, &news))
        session_end(session, "more picture updates than could be shown");
    if (news)
        session_wake(session);
    session_unlock(session);
}

/* ---- listener thread: calls ---- */

/* Anything else that is a picture, or none, ends one that was a dma-buf. */
static void push_other(Session *session, Op *op)
{
    g_clear_pointer(&session->dmabuf, dmabuf_free);
    session_push(session, op);
}

static void on_scanout_map(Session *session, GVariant *parameters, GDBusMethodInvocation *call)
{
    GUnixFDList *fds = g_dbus_message_get_unix_fd_list(g_dbus_method_invocation_get_message(call));
    g_autoptr(GError) error = NULL;
    gint32 handle;
    Op *op = op_new(OP_MAP);

    g_variant_get(parameters, "(huuuuu)", &handle, &op->offset, &op->width, &op->height,
                  &op->stride, &op->format);
    if (fds && handle >= 0 && handle < g_unix_fd_list_get_length(fds))
        op->fd = g_unix_fd_list_get(fds, handle, &error);
    if (op->fd < 0) {
        log_warning(SUBJECT, "QEMU sent a ScanoutMap without its memory: %s",
                    error ? error->message : "no file descriptor");
        op_free(op);
        return;
    }
    push_other(session, op);
}

static void on_scanout(Session *session, GVariant *parameters)
{
    Op *op = op_new(OP_SCANOUT);

    g_variant_get(parameters, "(uuuu@ay)", &op->width, &op->height, &op->stride, &op->format,
                  &op->data);
    push_other(session, op);
}

static void on_update(Session *session, GVariant *parameters)
{
    Op *op = op_new(OP_UPDATE);

    g_variant_get(parameters, "(iiiiuu@ay)", &op->rect.x, &op->rect.y, &op->rect.w, &op->rect.h,
                  &op->stride, &op->format, &op->data);
    session_push(session, op);
}

static void on_update_map(Session *session, GVariant *parameters)
{
    Rect rect;

    g_variant_get(parameters, "(iiii)", &rect.x, &rect.y, &rect.w, &rect.h);
    Op *op = op_new_damage(&rect);
    if (op)
        session_push(session, op);
}

static void on_cursor_define(Session *session, GVariant *parameters)
{
    gint32 width, height, hot_x, hot_y;
    g_autoptr(GVariant) data = NULL;
    gsize len;

    g_variant_get(parameters, "(iiii@ay)", &width, &height, &hot_x, &hot_y, &data);
    const uint8_t *argb = g_variant_get_fixed_array(data, &len, 1);
    Cursor *cursor = cursor_new(width, height, hot_x, hot_y, argb, len);
    if (!cursor) {
        log_warning(SUBJECT, "cursor of %dx%d in %zu bytes ignored (at most %u a side)", width,
                    height, len, VM_MAX_CURSOR_SIDE);
        return;
    }
    session_lock(session);
    cursor_unref(session->cursor);
    session->cursor = cursor;
    session_wake(session);
    session_unlock(session);
}

static void on_mouse_set(Session *session, GVariant *parameters)
{
    gint32 on;

    g_variant_get(parameters, "(iii)", NULL, NULL, &on);
    session_lock(session);
    session->has_pointer = true;
    session->pointer_on = on != 0;
    session_wake(session);
    session_unlock(session);
}

static GVariant *bytes_variant(GBytes *bytes)
{
    return g_variant_ref_sink(g_variant_new_from_bytes(G_VARIANT_TYPE_BYTESTRING, bytes, TRUE));
}

/* Says why the picture cannot be read, once in the log and to whoever looks. Takes @why. */
static void refuse_dmabuf(Session *session, char *why, uint32_t width, uint32_t height)
{
    Op *op = op_new(OP_SCANOUT);
    g_autoptr(GBytes) picture = notice_draw(why, &width, &height);

    g_clear_pointer(&session->dmabuf, dmabuf_free);
    if (!session->refused)
        log_error(SUBJECT, "%s", why);
    session->refused = true;
    g_free(why);
    op->width = width;
    op->height = height;
    op->stride = width * 4;
    op->format = PIXMAN_x8r8g8b8;
    op->data = bytes_variant(picture);
    session_push(session, op);
}

/* Sends on what a rectangle of the dma-buf shows now: as the whole picture (OP_SCANOUT), or a part.
 */
static void read_dmabuf(Session *session, OpKind kind, Rect rect)
{
    uint32_t stride;
    char *why;
    GBytes *pixels = dmabuf_read(session->dmabuf, &rect, &stride, &why);

    if (!pixels) {
        if (why)
            refuse_dmabuf(session, why, 0, 0);
        return;
    }
    Op *op = op_new(kind);
    op->rect = rect;
    op->width = (uint32_t)rect.w;
    op->height = (uint32_t)rect.h;
    op->stride = stride;
    op->format = dmabuf_format(session->dmabuf);
    op->data = bytes_variant(pixels);
    g_bytes_unref(pixels);
    session_push(session, op);
}

static void on_scanout_dmabuf(Session *session, GVariant *parameters, GDBusMethodInvocation *call)
{
    GUnixFDList *fds = g_dbus_message_get_unix_fd_list(g_dbus_method_invocation_get_message(call));
    DmabufImage image = {.fd = -1};
    gboolean y0_top;
    gint32 handle;
    char *why = NULL;

    g_variant_get(parameters, "(huuuutb)", &handle, &image.width, &image.height, &image.stride,
                  &image.fourcc, &image.modifier, &y0_top);
    if (fds && handle >= 0 && handle < g_unix_fd_list_get_length(fds))
        image.fd = g_unix_fd_list_get(fds, handle, NULL);
    if (image.fd < 0) {
        log_warning(SUBJECT, "QEMU sent a ScanoutDMABUF without its buffer");
        return;
    }
    g_clear_pointer(&session->dmabuf, dmabuf_free);
    session->dmabuf = dmabuf_import(&image, y0_top, &why);
    close(image.fd);
    if (session->dmabuf)
        read_dmabuf(session, OP_SCANOUT, (Rect){0, 0, (int32_t)image.width, (int32_t)image.height});
    else
        refuse_dmabuf(session, why, image.width, image.height);
}

static void on_update_dmabuf(Session *session, GVariant *parameters)
{
    Rect rect;

    g_variant_get(parameters, "(iiii)", &rect.x, &rect.y, &rect.w, &rect.h);
    if (session->dmabuf)
        read_dmabuf(session, OP_UPDATE, rect);
}

static void on_call(GDBusConnection *connection, const gchar *sender, const gchar *path,
                    const gchar *interface, const gchar *method, GVariant *parameters,
                    GDBusMethodInvocation *call, gpointer user_data)
{
    Session *session = user_data;

    log_trace(SUBJECT, "%s", method);
    if (strcmp(method, "UpdateMap") == 0)
        on_update_map(session, parameters);
    else if (strcmp(method, "Update") == 0)
        on_update(session, parameters);
    else if (strcmp(method, "ScanoutMap") == 0)
        on_scanout_map(session, parameters, call);
    else if (strcmp(method, "Scanout") == 0)
        on_scanout(session, parameters);
    else if (strcmp(method, "Disable") == 0)
        push_other(session, op_new(OP_DISABLE));
    else if (strcmp(method, "CursorDefine") == 0)
        on_cursor_define(session, parameters);
    else if (strcmp(method, "MouseSet") == 0)
        on_mouse_set(session, parameters);
    else if (strcmp(method, "ScanoutDMABUF") == 0)
        on_scanout_dmabuf(session, parameters, call);
    else if (strcmp(method, "UpdateDMABUF") == 0)
        on_update_dmabuf(session, parameters);
    g_dbus_method_invocation_return_value(call, NULL);
}

static GVariant *on_get_property(GDBusConnection *connection, const gchar *sender,
                                 const gchar *path, const gchar *interface, const gchar *property,
                                 GError **error, gpointer user_data)
{
    const Session *session = user_data;
    const char *offered[] = {session->offer_map ? VM_IFACE_LISTENER_MAP : NULL, NULL};

    return g_variant_new_strv(offered, -1); /* Interfaces is the only one */
}

/* ---- listener thread: connection ---- */

static void on_connection_closed(GDBusConnection *connection, gboolean remote_vanished,
                                 GError *error, gpointer user_data)
{
    Session *session = user_data;

    session_lock(session);
    session_end(session, "QEMU closed the display listener's socket");
    session_unlock(session);
}

static void on_connected(GObject *source, GAsyncResult *result, gpointer user_data)
{
    static const GDBusInterfaceVTable vtable = {.method_call = on_call,
                                                .get_property = on_get_property};
    Session *session = user_data; /* session_start()'s reference */
    g_autoptr(GError) error = NULL;
    GDBusConnection *connection = g_dbus_connection_new_finish(result, &error);

    --*session->connecting;
    if (g_cancellable_is_cancelled(session->cancellable))
        g_clear_object(&connection);
    if (!connection) {
        if (error && !g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED)) {
            log_warning(SUBJECT, "QEMU did not accept the display listener: %s", error->message);
            session_lock(session);
            session_end(session, "QEMU did not accept the display listener");
            session_unlock(session);
        }
        session_unref(session);
        return;
    }
    session->connection = connection;
    g_signal_connect(connection, "closed", G_CALLBACK(on_connection_closed), session);
    session->registrations[0] = g_dbus_connection_register_object(
        connection, VM_LISTENER_PATH, (GDBusInterfaceInfo *)&org_qemu_display1_listener_interface,
        &vtable, session_ref(session), (GDestroyNotify)session_unref, NULL);
    if (session->offer_map)
        session->registrations[1] = g_dbus_connection_register_object(
            connection, VM_LISTENER_PATH,
            (GDBusInterfaceInfo *)&org_qemu_display1_listener_unix_map_interface, &vtable,
            session_ref(session), (GDestroyNotify)session_unref, NULL);
    g_dbus_connection_start_message_processing(connection);
    session_unref(session);
}

typedef struct Start {
    Session *session;
    GSocketConnection *stream;
} Start;

static gboolean session_start(gpointer data)
{
    Start *start = data;

    handover_take(start);
    ++*start->session->connecting;
    g_dbus_connection_new(G_IO_STREAM(start->stream), NULL,
                          G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT |
                              G_DBUS_CONNECTION_FLAGS_DELAY_MESSAGE_PROCESSING,
                          NULL, start->session->cancellable, on_connected,
                          session_ref(start->session));
    return G_SOURCE_REMOVE;
}

static void start_free(gpointer data)
{
    Start *start = data;

    g_object_unref(start->stream);
    session_unref(start->session);
    g_free(start);
}

/* Runs after everything main asked for before; the last thing the thread does for a session. */
static gboolean session_stop(gpointer data)
{
    Session *session = data;

    handover_take(session);
    g_clear_pointer(&session->dmabuf, dmabuf_free);
    if (session->connection) {
        g_signal_handlers_disconnect_by_data(session->connection, session);
        for (size_t i = 0; i < G_N_ELEMENTS(session->registrations); i++)
            if (session->registrations[i] > 0)
                g_dbus_connection_unregister_object(session->connection, session->registrations[i]);
        g_dbus_connection_close(session->connection, NULL, NULL, NULL);
        g_clear_object(&session->connection);
    }
    return G_SOURCE_REMOVE;
}

static gpointer listener_thread(gpointer data)
{
    VmDisplay *display = data;

    g_main_context_push_thread_default(display->context);
    g_main_loop_run(display->loop);
    while (display->connecting > 0) /* cancelled, so soon */
        g_main_context_iteration(display->context, TRUE);
    while (g_main_context_iteration(display->context, FALSE))
        ;
    g_main_context_pop_thread_default(display->context);
    return NULL;
}

static void in_thread(VmDisplay *display, GSourceFunc func, gpointer data, GDestroyNotify destroy)
{
    GSource *source = g_idle_source_new();

    g_source_set_priority(source, G_PRIORITY_DEFAULT);
    g_source_set_callback(source, func, data, destroy);
    handover_give(data);
    g_source_attach(source, display->context);
    g_source_unref(source);
}

/* ---- main ---- */

VmDisplay *vm_display_new(Framebuffer *fb, const VmDisplayCallbacks *callbacks, void *user)
{
    VmDisplay *display = g_new0(VmDisplay, 1);

    display->fb = fb;
    display->callbacks = *callbacks;
    display->user = user;
    display->main_context = g_main_context_ref_thread_default();
    display->context = g_main_context_new();
    display->loop = g_main_loop_new(display->context, FALSE);
    display->thread = g_thread_new("vm-display", listener_thread, display);
    return display;
}

static gboolean quit_loop(gpointer data)
{
    g_main_loop_quit(data);
    return G_SOURCE_REMOVE;
}

void vm_display_free(VmDisplay *display)
{
    if (!display)
        return;
    vm_display_close(display);
    in_thread(display, quit_loop, display->loop, NULL);
    g_thread_join(display->thread);
    g_main_loop_unref(display->loop);
    g_main_context_unref(display->context);
    g_main_context_unref(display->main_context);
    cursor_unref(display->shape);
    g_free(display);
}

int vm_display_open(VmDisplay *display, bool offer_map, GError **error)
{
    int ends[2];

    vm_display_close(display);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno), "socketpair: %s",
                    g_strerror(errno));
        return -1;
    }
    g_autoptr(GSocket) socket = g_socket_new_from_fd(ends[0], error);
    if (!socket) {
        close(ends[0]);
        close(ends[1]);
        return -1;
    }

    Session *session = g_new0(Session, 1);
    session->refs = 1;
    session->display = display;
    session->main_context = g_main_context_ref(display->main_context);
    session->cancellable = g_cancellable_new();
    session->offer_map = offer_map;
    session->connecting = &display->connecting;
    g_mutex_init(&session->lock);
    ops_init(&session->ops);
    display->session = session;

    Start *start = g_new0(Start, 1);
    start->session = session_ref(session);
    start->stream = g_socket_connection_factory_create_connection(socket);
    in_thread(display, session_start, start, start_free);
    return ends[1];
}

void vm_display_close(VmDisplay *display)
{
    Session *session = g_steal_pointer(&display->session);

    if (!session)
        return;
    session->display = NULL;
    session_lock(session);
    session->dropped = true;
    session_unlock(session);
    g_cancellable_cancel(session->cancellable);
    in_thread(display, session_stop, session, (GDestroyNotify)session_unref);
}
