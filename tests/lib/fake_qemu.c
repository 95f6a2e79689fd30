#include "fake_qemu.h"

#include "handover.h"

#include <gio/gunixfdlist.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROOT "/org/qemu/Display1"
#define SLOTS 2u

static const char description[] =
    "<node>"
    "<interface name='org.freedesktop.DBus.ObjectManager'>"
    "<method name='GetManagedObjects'><arg type='a{oa{sa{sv}}}' direction='out'/></method>"
    "</interface>"
    "<interface name='org.qemu.Display1.Console'>"
    "<method name='RegisterListener'><arg type='h' direction='in'/></method>"
    "<method name='SetUIInfo'><arg type='q' direction='in'/><arg type='q' direction='in'/>"
    "<arg type='i' direction='in'/><arg type='i' direction='in'/><arg type='u' direction='in'/>"
    "<arg type='u' direction='in'/></method>"
    "</interface>"
    "<interface name='org.qemu.Display1.Keyboard'>"
    "<method name='Press'><arg type='u' direction='in'/></method>"
    "<method name='Release'><arg type='u' direction='in'/></method>"
    "</interface>"
    "<interface name='org.qemu.Display1.Mouse'>"
    "<method name='Press'><arg type='u' direction='in'/></method>"
    "<method name='Release'><arg type='u' direction='in'/></method>"
    "<method name='SetAbsPosition'><arg type='u' direction='in'/><arg type='u' direction='in'/>"
    "</method>"
    "<method name='RelMotion'><arg type='i' direction='in'/><arg type='i' direction='in'/></method>"
    "</interface>"
    "<interface name='org.qemu.Display1.Chardev'>"
    "<method name='Register'><arg type='h' direction='in'/></method>"
    "</interface>"
    "</node>";

struct FakeQemu {
    GThread *thread;
    GMainContext *context;
    GMainLoop *loop;
    GDBusNodeInfo *info;
    GDBusConnection *server, *client;

    GMutex lock; /* what follows */
    GDBusConnection *listener;
    unsigned n_listeners, n_ui_infos;
    bool map, ui_info;
    GString *input;
    int slots[SLOTS];
    unsigned refusals; /* of Register */
};

static GVariant *objects(void)
{
    return g_variant_new_parsed(
        "({objectpath '/org/qemu/Display1/VM': {'org.qemu.Display1.VM': {'Name': <'fake'>}},"
        " '/org/qemu/Display1/Console_0': {'org.qemu.Display1.Console': {'Type': <'Text'>}},"
        " '/org/qemu/Display1/Console_1':"
        "  {'org.qemu.Display1.Console': {'Type': <'Graphic'>, 'Width': <uint32 64>,"
        "    'Height': <uint32 48>},"
        "   'org.qemu.Display1.Keyboard': {'Modifiers': <uint32 2>},"
        "   'org.qemu.Display1.Mouse': {'IsAbsolute': <true>}},"
        " '/org/qemu/Display1/Chardev_other': {'org.qemu.Display1.Chardev':"
        "  {'Name': <'org.qemu.monitor.hmp.0'>, 'Owner': <''>}},"
        " '/org/qemu/Display1/Chardev_charredir9': {'org.qemu.Display1.Chardev':"
        "  {'Name': <'org.qemu.usbredir'>, 'Owner': <''>, 'FEOpened': <false>}},"
        " '/org/qemu/Display1/Chardev_charredir1': {'org.qemu.Display1.Chardev':"
        "  {'Name': <'org.qemu.usbredir'>, 'Owner': <''>, 'FEOpened': <true>}},"
        " '/org/qemu/Display1/Chardev_charredir0': {'org.qemu.Display1.Chardev':"
        "  {'Name': <'org.qemu.usbredir'>, 'Owner': <''>, 'FEOpened': <true>}}},)");
}

static void fake_lock(FakeQemu *fake)
{
    g_mutex_lock(&fake->lock);
    handover_take(&fake->lock);
}

static void fake_unlock(FakeQemu *fake)
{
    handover_give(&fake->lock);
    g_mutex_unlock(&fake->lock);
}

static void emit_changed(FakeQemu *fake, const char *path, const char *interface, const char *name,
                         GVariant *value)
{
    GVariantBuilder changed;

    g_variant_builder_init(&changed, G_VARIANT_TYPE_VARDICT);
    g_variant_builder_add(&changed, "{sv}", name, value);
    g_dbus_connection_emit_signal(fake->server, NULL, path, "org.freedesktop.DBus.Properties",
                                  "PropertiesChanged",
                                  g_variant_new("(sa{sv}as)", interface, &changed, NULL), NULL);
}

static int take_fd(GDBusMethodInvocation *call)
{
    return g_unix_fd_list_get(
        g_dbus_message_get_unix_fd_list(g_dbus_method_invocation_get_message(call)), 0, NULL);
}

/* As QEMU: reply first, then authenticate synchronously and ask for the interfaces. */
static void register_listener(FakeQemu *fake, GDBusMethodInvocation *call)
{
    g_autoptr(GSocket) socket = g_socket_new_from_fd(take_fd(call), NULL);
    g_autoptr(GSocketConnection) stream = g_socket_connection_factory_create_connection(socket);
    g_autofree char *guid = g_dbus_generate_guid();

    g_dbus_method_invocation_return_value(call, NULL);
    GDBusConnection *listener = g_dbus_connection_new_sync(
        G_IO_STREAM(stream), guid, G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_SERVER, NULL, NULL, NULL);
    if (!listener)
        return;
    g_autoptr(GVariant) reply = g_dbus_connection_call_sync(
        listener, NULL, ROOT "/Listener", "org.freedesktop.DBus.Properties", "GetAll",
        g_variant_new("(s)", "org.qemu.Display1.Listener"), NULL, G_DBUS_CALL_FLAGS_NONE, 5000,
        NULL, NULL);
    g_autoptr(GVariant) properties = reply ? g_variant_get_child_value(reply, 0) : NULL;
    g_autofree const char **interfaces = NULL;
    if (properties)
        g_variant_lookup(properties, "Interfaces", "^a&s", &interfaces);
    fake_lock(fake);
    g_clear_object(&fake->listener);
    fake->listener = listener;
    fake->map = interfaces && g_strv_contains(interfaces, "org.qemu.Display1.Listener.Unix.Map");
    fake->n_listeners++;
    fake_unlock(fake);
}

static void register_slot(FakeQemu *fake, const char *path, GDBusMethodInvocation *call)
{
    unsigned n = (unsigned)(path[strlen(path) - 1] - '0');
    fake_lock(fake);
    bool taken = fake->slots[n] >= 0;
    fake->refusals += taken;
    fake_unlock(fake);
    if (taken) {
        g_dbus_method_invocation_return_dbus_error(call, "org.qemu.Display1.Error.Failed",
                                                   "Couldn't register FD!");
        return;
    }
    fake_lock(fake);
    fake->slots[n] = take_fd(call);
    fake_unlock(fake);
    g_dbus_method_invocation_return_value(call, NULL);
    /* Without a bus nobody has a name. */
    emit_changed(fake, path, "org.qemu.Display1.Chardev", "Owner", g_variant_new_string(""));
}

static void on_call(GDBusConnection *connection, const gchar *sender, const gchar *path,
                    const gchar *interface, const gchar *method, GVariant *parameters,
                    GDBusMethodInvocation *call, gpointer user_data)
{
    FakeQemu *fake = user_data;

    if (strcmp(method, "GetManagedObjects") == 0) {
        g_dbus_method_invocation_return_value(call, objects());
    } else if (strcmp(method, "RegisterListener") == 0) {
        register_listener(fake, call);
    } else if (strcmp(method, "Register") == 0) {
        register_slot(fake, path, call);
    } else if (strcmp(method, "SetUIInfo") == 0) {
        fake_lock(fake);
        fake->n_ui_infos++;
        bool supported = fake->ui_info;
        fake_unlock(fake);
        if (supported)
            g_dbus_method_invocation_return_value(call, NULL);
        else
            g_dbus_method_invocation_return_dbus_error(call, "org.qemu.Display1.Error.Unsupported",
                                                       "SetUIInfo is not supported");
    } else {
        g_autofree char *arguments = g_variant_print(parameters, FALSE);
        fake_lock(fake);
        g_string_append_printf(fake->input, "%s.%s%s ", strrchr(interface, '.') + 1, method,
                               arguments);
        fake_unlock(fake);
        g_dbus_method_invocation_return_value(call, NULL);
    }
}

static void export(FakeQemu *fake, const char *path, const char *interface)
{
    static const GDBusInterfaceVTable vtable = {.method_call = on_call};
    guint id = g_dbus_connection_register_object(
        fake->server, path, g_dbus_node_info_lookup_interface(fake->info, interface), &vtable, fake,
        NULL, NULL);

    g_assert_cmpuint(id, !=, 0);
}

static gpointer fake_thread(gpointer data)
{
    FakeQemu *fake = data;

    g_main_context_push_thread_default(fake->context);
    export(fake, ROOT, "org.freedesktop.DBus.ObjectManager");
    export(fake, ROOT "/Console_1", "org.qemu.Display1.Console");
    export(fake, ROOT "/Console_1", "org.qemu.Display1.Keyboard");
    export(fake, ROOT "/Console_1", "org.qemu.Display1.Mouse");
    export(fake, ROOT "/Chardev_charredir0", "org.qemu.Display1.Chardev");
    export(fake, ROOT "/Chardev_charredir1", "org.qemu.Display1.Chardev");
    g_dbus_connection_start_message_processing(fake->server);
    g_main_loop_run(fake->loop);
    g_main_context_pop_thread_default(fake->context);
    return NULL;
}

static GSocketConnection *stream_of(int fd)
{
    g_autoptr(GSocket) socket = g_socket_new_from_fd(fd, NULL);

    return g_socket_connection_factory_create_connection(socket);
}

static void on_client(GObject *source, GAsyncResult *result, gpointer data)
{
    FakeQemu *fake = data;

    fake->client = g_dbus_connection_new_finish(result, NULL);
    g_assert_nonnull(fake->client);
}

FakeQemu *fake_qemu_new(void)
{
    FakeQemu *fake = g_new0(FakeQemu, 1);
    g_autofree char *guid = g_dbus_generate_guid();
    int ends[2];

    g_mutex_init(&fake->lock);
    fake->ui_info = true;
    fake->input = g_string_new(NULL);
    for (unsigned i = 0; i < SLOTS; i++)
        fake->slots[i] = -1;
    fake->info = g_dbus_node_info_new_for_xml(description, NULL);
    fake->context = g_main_context_new();
    fake->loop = g_main_loop_new(fake->context, FALSE);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), ==, 0);
    g_autoptr(GSocketConnection) client = stream_of(ends[0]), server = stream_of(ends[1]);
    g_dbus_connection_new(G_IO_STREAM(client), NULL, G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT,
                          NULL, NULL, on_client, fake);
    fake->server = g_dbus_connection_new_sync(G_IO_STREAM(server), guid,
                                              G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_SERVER |
                                                  G_DBUS_CONNECTION_FLAGS_DELAY_MESSAGE_PROCESSING,
                                              NULL, NULL, NULL);
    g_assert_nonnull(fake->server);
    while (!fake->client)
        g_main_context_iteration(NULL, TRUE);
    fake->thread = g_thread_new("fake-qemu", fake_thread, fake);
    return fake;
}

static gboolean quit_loop(gpointer data)
{
    g_main_loop_quit(data);
    return G_SOURCE_REMOVE;
}

void fake_qemu_free(FakeQemu *fake)
{
    g_autoptr(GSource) source = g_idle_source_new();

    fake_qemu_drop_listener(fake);
    g_source_set_callback(source, quit_loop, fake->loop, NULL); /* the loop may not run yet */
    g_source_attach(source, fake->context);
    g_thread_join(fake->thread);
    g_dbus_connection_close_sync(fake->server, NULL, NULL);
    g_clear_object(&fake->server);
    g_clear_object(&fake->client);
    g_dbus_node_info_unref(fake->info);
    g_main_loop_unref(fake->loop);
    g_main_context_unref(fake->context);
    for (unsigned i = 0; i < SLOTS; i++)
        if (fake->slots[i] >= 0)
            close(fake->slots[i]);
    g_string_free(fake->input, TRUE);
    g_mutex_clear(&fake->lock);
    g_free(fake);
}

GDBusConnection *fake_qemu_connection(FakeQemu *fake)
{
    return g_object_ref(fake->client);
}

unsigned fake_qemu_listeners(FakeQemu *fake, bool *map)
{
    fake_lock(fake);
    unsigned n = fake->n_listeners;
    if (map)
        *map = fake->map;
    fake_unlock(fake);
    return n;
}

bool fake_qemu_call(FakeQemu *fake, const char *method, GVariant *parameters, int fd, bool wait)
{
    const char *dot = strrchr(method, '.');
    g_autofree char *interface =
        g_strdup_printf("org.qemu.Display1.%.*s", (int)(dot - method), method);
    g_autoptr(GUnixFDList) fds = g_unix_fd_list_new();

    if (fd >= 0)
        g_unix_fd_list_append(fds, fd, NULL);
    if (wait) {
        g_autoptr(GVariant) reply = g_dbus_connection_call_with_unix_fd_list_sync(
            fake->listener, NULL, ROOT "/Listener", interface, dot + 1, parameters, NULL,
            G_DBUS_CALL_FLAGS_NONE, 5000, fds, NULL, NULL, NULL);
        return reply != NULL;
    }
    g_dbus_connection_call_with_unix_fd_list(fake->listener, NULL, ROOT "/Listener", interface,
                                             dot + 1, parameters, NULL, G_DBUS_CALL_FLAGS_NONE, -1,
                                             fds, NULL, NULL, NULL);
    return true;
}

void fake_qemu_drop_listener(FakeQemu *fake)
{
    fake_lock(fake);
    GDBusConnection *listener = g_steal_pointer(&fake->listener);
    fake_unlock(fake);
    if (!listener)
        return;
    g_dbus_connection_close_sync(listener, NULL, NULL);
    g_object_unref(listener);
}

void fake_qemu_set_property(FakeQemu *fake, const char *interface, const char *name,
                            GVariant *value)
{
    g_autofree char *full = g_strconcat("org.qemu.Display1.", interface, NULL);

    emit_changed(fake, ROOT "/Console_1", full, name, value);
}

char *fake_qemu_input(FakeQemu *fake)
{
    fake_lock(fake);
    char *copy = g_strdup(fake->input->str);
    fake_unlock(fake);
    return copy;
}

void fake_qemu_support_ui_info(FakeQemu *fake, bool supported)
{
    fake_lock(fake);
    fake->ui_info = supported;
    fake_unlock(fake);
}

unsigned fake_qemu_ui_infos(FakeQemu *fake)
{
    fake_lock(fake);
    unsigned n = fake->n_ui_infos;
    fake_unlock(fake);
    return n;
}

unsigned fake_qemu_refusals(FakeQemu *fake)
{
    fake_lock(fake);
    unsigned n = fake->refusals;
    fake_unlock(fake);
    return n;
}

void fake_qemu_drop_slot(FakeQemu *fake, unsigned n)
{
    fake_lock(fake);
    close(fake->slots[n]);
    fake->slots[n] = -1;
    fake_unlock(fake);
}

int fake_qemu_slot_fd(FakeQemu *fake, unsigned n)
{
    fake_lock(fake);
    int fd = fake->slots[n];
    fake_unlock(fake);
    return fd;
}
