/*
 * dbus-viewer FD: listens to QEMU's D-Bus display over the socket FD (QMP add_client), maps what
 * can be mapped, and does nothing else with it: the least that anything behind that display takes.
 */
#include <gio/gio.h>
#include <gio/gunixfdlist.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "display1.h"
#include "viewer.h"

#define BUS "org.qemu.Display1"
#define CONSOLE "/org/qemu/Display1/Console_0"

static GDBusConnection *display, *listener;
static uint8_t *map; /* of QEMU's memory */
static size_t map_size;
static uint8_t *copy; /* where there is none to map */
static guint32 copy_width, copy_height, copy_stride;

static void on_scanout_map(GVariant *parameters, GDBusMethodInvocation *call)
{
    GUnixFDList *list = g_dbus_message_get_unix_fd_list(g_dbus_method_invocation_get_message(call));
    gint32 handle;
    guint32 offset, width, height, stride, format;
    struct stat status;
    g_variant_get(parameters, "(huuuuu)", &handle, &offset, &width, &height, &stride, &format);
    int fd = g_unix_fd_list_get(list, handle, NULL);
    if (fd < 0 || fstat(fd, &status) < 0)
        viewer_fail("D-Bus", "a ScanoutMap without memory");
    if (map)
        munmap(map, map_size);
    map_size = (size_t)status.st_size;
    map = mmap(NULL, map_size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        viewer_fail("D-Bus", "mmap");
    close(fd);
    viewer_picture(map + offset, width, height, stride);
}

static void on_scanout(GVariant *parameters)
{
    g_autoptr(GVariant) data = NULL;
    guint32 format;
    gsize length;
    g_variant_get(parameters, "(uuuu@ay)", &copy_width, &copy_height, &copy_stride, &format, &data);
    const uint8_t *bytes = g_variant_get_fixed_array(data, &length, 1);
    if (length < (gsize)copy_stride * copy_height)
        viewer_fail("D-Bus", "a Scanout that is too short");
    g_free(copy);
    copy = g_memdup2(bytes, length);
    viewer_picture(copy, copy_width, copy_height, copy_stride);
}

static void on_update(GVariant *parameters)
{
    g_autoptr(GVariant) data = NULL;
    gint32 x, y, width, height;
    guint32 stride, format;
    gsize length;
    g_variant_get(parameters, "(iiiiuu@ay)", &x, &y, &width, &height, &stride, &format, &data);
    const uint8_t *bytes = g_variant_get_fixed_array(data, &length, 1);
    if (!copy || x < 0 || y < 0 || (guint32)(x + width) > copy_width ||
        (guint32)(y + height) > copy_height ||
        length < (gsize)stride * (gsize)(height - 1) + 4ul * (gsize)width)
        viewer_fail("D-Bus", "an Update outside the picture");
    for (gint32 row = 0; row < height; row++)
        memcpy(copy + (size_t)(y + row) * copy_stride + 4ul * (size_t)x,
               bytes + (size_t)row * stride, 4ul * (size_t)width);
}

static void on_call(GDBusConnection *connection, const gchar *sender, const gchar *path,
                    const gchar *interface, const gchar *method, GVariant *parameters,
                    GDBusMethodInvocation *call, gpointer unused)
{
    bool shown = true;
    if (strcmp(method, "UpdateMap") == 0)
        ;
    else if (strcmp(method, "ScanoutMap") == 0)
        on_scanout_map(parameters, call);
    else if (strcmp(method, "Update") == 0)
        on_update(parameters);
    else if (strcmp(method, "Scanout") == 0)
        on_scanout(parameters);
    else
        shown = false; /* cursors, and there is no OpenGL here */
    if (shown)
        viewer_changed(true);
    g_dbus_method_invocation_return_value(call, NULL);
}

static GVariant *on_get_property(GDBusConnection *connection, const gchar *sender,
                                 const gchar *path, const gchar *interface, const gchar *property,
                                 GError **error, gpointer unused)
{
    static const char *const offered[] = {"org.qemu.Display1.Listener.Unix.Map", NULL};
    return g_variant_new_strv(offered, -1);
}

static void on_listening(GObject *source, GAsyncResult *result, gpointer unused)
{
    static const GDBusInterfaceVTable vtable = {.method_call = on_call,
                                                .get_property = on_get_property};
    g_autoptr(GError) error = NULL;
    listener = g_dbus_connection_new_finish(result, &error);
    if (!listener ||
        !g_dbus_connection_register_object(
            listener, "/org/qemu/Display1/Listener",
            (GDBusInterfaceInfo *)&org_qemu_display1_listener_interface, &vtable, NULL, NULL,
            &error) ||
        !g_dbus_connection_register_object(
            listener, "/org/qemu/Display1/Listener",
            (GDBusInterfaceInfo *)&org_qemu_display1_listener_unix_map_interface, &vtable, NULL,
            NULL, &error))
        viewer_fail("D-Bus listener", error->message);
    g_dbus_connection_start_message_processing(listener);
}

static GDBusConnection *connection_of(int fd, GError **error)
{
    g_autoptr(GSocket) socket = g_socket_new_from_fd(fd, error);
    g_autoptr(GSocketConnection) stream =
        socket ? g_socket_connection_factory_create_connection(socket) : NULL;
    return stream ? g_dbus_connection_new_sync(G_IO_STREAM(stream), NULL,
                                               G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT, NULL,
                                               NULL, error)
                  : NULL;
}

/* QEMU authenticates on the listener's socket before it answers: nothing may wait for its answer
 * here. */
static void register_listener(void)
{
    int pair[2];
    g_autoptr(GError) error = NULL;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        viewer_fail("D-Bus", "socketpair");
    g_autoptr(GUnixFDList) list = g_unix_fd_list_new_from_array(&pair[1], 1);
    g_dbus_connection_call_with_unix_fd_list(display, NULL, CONSOLE, BUS ".Console",
                                             "RegisterListener", g_variant_new("(h)", 0), NULL,
                                             G_DBUS_CALL_FLAGS_NONE, -1, list, NULL, NULL, NULL);
    g_autoptr(GSocket) socket = g_socket_new_from_fd(pair[0], &error);
    g_autoptr(GSocketConnection) stream =
        socket ? g_socket_connection_factory_create_connection(socket) : NULL;
    if (!stream)
        viewer_fail("D-Bus", error->message);
    g_dbus_connection_new(G_IO_STREAM(stream), NULL,
                          G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT |
                              G_DBUS_CONNECTION_FLAGS_DELAY_MESSAGE_PROCESSING,
                          NULL, NULL, on_listening, NULL);
}

static void key(bool down)
{
    g_dbus_connection_call(display, NULL, CONSOLE, BUS ".Keyboard", down ? "Press" : "Release",
                           g_variant_new("(u)", 0x1e), NULL, G_DBUS_CALL_FLAGS_NONE, -1, NULL, NULL,
                           NULL);
}

int main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    if (argc != 2)
        viewer_fail("dbus-viewer", "FD");
    display = connection_of(atoi(argv[1]), &error);
    if (!display)
        viewer_fail("D-Bus", error->message);
    register_listener();
    viewer_run(key);
    return 0;
}
