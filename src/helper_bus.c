/*
 * Order matters more than anything here. libvirt starts us before QEMU and calls SetCredentials
 * half a second later without waiting for the name: if the name has no owner at that moment the
 * virtual machine's start fails. So the object is exported and the name taken before certificates
 * are read or ports bound, and what goes wrong with those afterwards is told in the answer to
 * SetCredentials, because that text reaches the person who typed `virsh start`.
 *
 * libvirt formats a missing user name as GLib does a NULL string, "[Invalid UTF-8]"; that and the
 * empty name both mean "no name was given".
 */
#include "helper_bus.h"

#include <string.h>
#include <unistd.h>

#include "log.h"

#define SUBJECT "bus"
#define MACHINE_NAME "org.qemu"
#define CONNECT_TRIES 60
#define CONNECT_PAUSE_US 50000 /* 60 x 50 ms = 3 s */
#define CALL_TIMEOUT_MS 5000
#define FLUSH_TIMEOUT_MS 500
#define ERROR_NAME "org.QemuDisplay.RDP.Error"
#define CONTROL_INTERFACE "org.qrdp.Control1"

struct HelperBus {
    GDBusConnection *connection;
    HelperBusCallbacks callbacks;
    void *user;
    guint objects[2];
    gulong closed_handler;
    guint machine_watch;
    bool machine_seen;
    char *failure;
    bool failure_told;
};

static const char introspection[] =
    "<node>"
    " <interface name='" HELPER_BUS_NAME "'>"
    "  <method name='SetCredentials'>"
    "   <arg name='username' type='s' direction='in'/>"
    "   <arg name='password' type='s' direction='in'/>"
    "   <arg name='domain' type='s' direction='in'/>"
    "  </method>"
    "  <signal name='Leaving'><arg name='reason' type='s'/></signal>"
    " </interface>"
    " <interface name='" CONTROL_INTERFACE "'>"
    "  <method name='Status'>"
    "   <arg name='json' type='b' direction='in'/>"
    "   <arg name='text' type='s' direction='out'/>"
    "  </method>"
    "  <method name='Usb'>"
    "   <arg name='words' type='as' direction='in'/>"
    "   <arg name='ok' type='b' direction='out'/>"
    "   <arg name='text' type='s' direction='out'/>"
    "  </method>"
    " </interface>"
    "</node>";

/* ------------------------------------------------------------------------------------------------
 * Methods
 */

static void set_credentials(HelperBus *bus, GVariant *parameters, GDBusMethodInvocation *invocation)
{
    const char *name, *password, *domain;
    g_variant_get(parameters, "(&s&s&s)", &name, &password, &domain);
    if (bus->failure) {
        bus->failure_told = true;
        g_dbus_method_invocation_return_dbus_error(invocation, ERROR_NAME, bus->failure);
        return;
    }
    if (!*name || strcmp(name, "[Invalid UTF-8]") == 0)
        name = NULL;
    g_autoptr(GError) error = NULL;
    if (!bus->callbacks.credentials(bus->user, name, password, &error)) {
        g_dbus_method_invocation_return_dbus_error(invocation, ERROR_NAME, error->message);
        return;
    }
    log_info(SUBJECT, "%s",
             *password ? "credentials were set"
                       : "the password was set to nothing: "
                         "logins are refused");
    g_dbus_method_invocation_return_value(invocation, NULL);
}

static void on_method(GDBusConnection *connection, const char *sender, const char *path,
                      const char *interface, const char *method, GVariant *parameters,
                      GDBusMethodInvocation *invocation, void *data)
{
    HelperBus *bus = data;
    bool ok = true;
    if (strcmp(method, "SetCredentials") == 0) {
        set_credentials(bus, parameters, invocation);
    } else if (strcmp(method, "Status") == 0) {
        gboolean json;
        g_variant_get(parameters, "(b)", &json);
        char *words[] = {(char *)"status", json ? (char *)"json" : NULL, NULL};
        g_autofree char *text = bus->callbacks.command(bus->user, words, &ok);
        g_dbus_method_invocation_return_value(invocation, g_variant_new("(s)", text));
    } else { /* Usb: GDBus lets only what the introspection names through */
        g_autoptr(GVariant) array = g_variant_get_child_value(parameters, 0);
        g_autofree const char **given = g_variant_get_strv(array, NULL);
        g_autoptr(GPtrArray) words = g_ptr_array_new();
        g_ptr_array_add(words, (char *)"usb");
        for (size_t i = 0; given[i]; i++)
            g_ptr_array_add(words, (char *)given[i]);
        g_ptr_array_add(words, NULL);
        g_autofree char *text = bus->callbacks.command(bus->user, (char **)words->pdata, &ok);
        g_dbus_method_invocation_return_value(invocation, g_variant_new("(bs)", ok, text));
    }
}

/* ------------------------------------------------------------------------------------------------
 * Connection and name
 */

/** The bus may be about to be started: libvirt does that when the XML names rdp before dbus. */
static GDBusConnection *connect_patiently(const char *address, GError **error)
{
    for (int i = 0;; i++) {
        g_autoptr(GError) failure = NULL;
        GDBusConnection *connection = g_dbus_connection_new_for_address_sync(
            address,
            G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT |
                G_DBUS_CONNECTION_FLAGS_MESSAGE_BUS_CONNECTION,
            NULL, NULL, &failure);
        if (connection)
            return connection;
        bool early = g_error_matches(failure, G_IO_ERROR, G_IO_ERROR_NOT_FOUND) ||
                     g_error_matches(failure, G_IO_ERROR, G_IO_ERROR_CONNECTION_REFUSED);
        if (!early || i + 1 >= CONNECT_TRIES) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                        "Cannot connect to the message bus at %s (%s): give the address of a "
                        "running bus that lets uid %u in",
                        address, failure->message, (unsigned)geteuid());
            return NULL;
        }
        g_usleep(CONNECT_PAUSE_US);
    }
}

static bool take_name(HelperBus *bus, GError **error)
{
    enum { DO_NOT_QUEUE = 4, PRIMARY_OWNER = 1 };
    g_autoptr(GVariant) reply = g_dbus_connection_call_sync(
        bus->connection, "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
        "RequestName", g_variant_new("(su)", HELPER_BUS_NAME, (guint32)DO_NOT_QUEUE),
        G_VARIANT_TYPE("(u)"), G_DBUS_CALL_FLAGS_NONE, CALL_TIMEOUT_MS, NULL, error);
    if (!reply) {
        g_prefix_error(error, "The bus did not give us the name " HELPER_BUS_NAME ": ");
        return false;
    }
    guint32 result;
    g_variant_get(reply, "(u)", &result);
    if (result == PRIMARY_OWNER)
        return true;
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_EXISTS,
                "Another RDP server owns " HELPER_BUS_NAME " on this bus: stop it first");
    return false;
}

static bool export_object(HelperBus *bus, GError **error)
{
    static const GDBusInterfaceVTable vtable = {.method_call = on_method};
    g_autoptr(GDBusNodeInfo) node = g_dbus_node_info_new_for_xml(introspection, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(bus->objects); i++) {
        bus->objects[i] = g_dbus_connection_register_object(
            bus->connection, HELPER_BUS_PATH, node->interfaces[i], &vtable, bus, NULL, error);
        if (!bus->objects[i])
            return false;
    }
    return true;
}

static void on_closed(GDBusConnection *connection, gboolean vanished, GError *error, void *data)
{
    HelperBus *bus = data;
    bus->callbacks.closed(bus->user, "the message bus went away");
}

/* libvirt starts us before QEMU: "no owner yet" is not "gone". And after a restart of libvirtd it
 * sends no SIGTERM any more, so this is the only notice of the machine's end. */

static void on_machine(GDBusConnection *connection, const char *name, const char *owner, void *data)
{
    ((HelperBus *)data)->machine_seen = true;
}

static void on_no_machine(GDBusConnection *connection, const char *name, void *data)
{
    HelperBus *bus = data;
    if (bus->machine_seen && !g_dbus_connection_is_closed(bus->connection))
        bus->callbacks.closed(bus->user, "the virtual machine has ended");
}

HelperBus *helper_bus_new(const char *address, const HelperBusCallbacks *callbacks, void *user,
                          GError **error)
{
    GDBusConnection *connection = connect_patiently(address, error);
    if (!connection)
        return NULL;
    HelperBus *bus = g_new0(HelperBus, 1);
    bus->connection = connection;
    bus->callbacks = *callbacks;
    bus->user = user;
    g_dbus_connection_set_exit_on_close(connection, FALSE);
    bus->closed_handler = g_signal_connect(connection, "closed", G_CALLBACK(on_closed), bus);
    if (export_object(bus, error) && take_name(bus, error)) {
        bus->machine_watch =
            g_bus_watch_name_on_connection(connection, MACHINE_NAME, G_BUS_NAME_WATCHER_FLAGS_NONE,
                                           on_machine, on_no_machine, bus, NULL);
        return bus;
    }
    helper_bus_free(bus);
    return NULL;
}

void helper_bus_free(HelperBus *bus)
{
    if (!bus)
        return;
    if (bus->machine_watch)
        g_bus_unwatch_name(bus->machine_watch);
    g_signal_handler_disconnect(bus->connection, bus->closed_handler);
    for (size_t i = 0; i < G_N_ELEMENTS(bus->objects); i++)
        if (bus->objects[i])
            g_dbus_connection_unregister_object(bus->connection, bus->objects[i]);
    g_object_unref(bus->connection);
    g_free(bus->failure);
    g_free(bus);
}

GDBusConnection *helper_bus_connection(HelperBus *bus)
{
    return bus->connection;
}

void helper_bus_fail(HelperBus *bus, const char *sentence)
{
    g_free(bus->failure);
    bus->failure = g_strdup(sentence);
}

bool helper_bus_failure_told(const HelperBus *bus)
{
    return bus->failure_told;
}

/* ------------------------------------------------------------------------------------------------
 * Leaving
 */

static void on_flushed(GObject *source, GAsyncResult *result, void *data)
{
    g_dbus_connection_flush_finish(G_DBUS_CONNECTION(source), result, NULL);
    *(bool *)data = true;
}

static gboolean on_flush_timeout(void *data)
{
    g_cancellable_cancel(data);
    return G_SOURCE_REMOVE;
}

void helper_bus_leave(HelperBus *bus, const char *reason)
{
    bool done = false;
    g_dbus_connection_emit_signal(bus->connection, NULL, HELPER_BUS_PATH, HELPER_BUS_NAME,
                                  "Leaving", g_variant_new("(s)", reason), NULL);
    /* A context of its own: nothing but the flush may run in here. */
    g_autoptr(GMainContext) context = g_main_context_new();
    g_autoptr(GCancellable) cancellable = g_cancellable_new();
    g_autoptr(GSource) timeout = g_timeout_source_new(FLUSH_TIMEOUT_MS);
    g_source_set_callback(timeout, on_flush_timeout, cancellable, NULL);
    g_source_attach(timeout, context);
    g_main_context_push_thread_default(context);
    g_dbus_connection_flush(bus->connection, cancellable, on_flushed, &done);
    while (!done)
        g_main_context_iteration(context, TRUE);
    g_main_context_pop_thread_default(context);
    g_source_destroy(timeout);
}

/* ------------------------------------------------------------------------------------------------
 * The asking side
 */

char *helper_bus_call(const char *address, char **words, bool *ok, GError **error)
{
    g_autoptr(GDBusConnection) connection =
        g_dbus_connection_new_for_address_sync(address,
                                               G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT |
                                                   G_DBUS_CONNECTION_FLAGS_MESSAGE_BUS_CONNECTION,
                                               NULL, NULL, error);
    if (!connection) {
        g_prefix_error(error, "Cannot connect to the message bus at %s: ", address);
        return NULL;
    }
    bool usb = strcmp(words[0], "usb") == 0;
    GVariant *parameters =
        usb ? g_variant_new("(^as)", words + 1) : g_variant_new("(b)", words[1] != NULL);
    g_autoptr(GVariant) reply = g_dbus_connection_call_sync(
        connection, HELPER_BUS_NAME, HELPER_BUS_PATH, CONTROL_INTERFACE, usb ? "Usb" : "Status",
        parameters, G_VARIANT_TYPE(usb ? "(bs)" : "(s)"), G_DBUS_CALL_FLAGS_NONE, CALL_TIMEOUT_MS,
        NULL, error);
    if (!reply) {
        g_dbus_error_strip_remote_error(*error);
        g_prefix_error(error, "No qrdp answers on this bus: ");
        return NULL;
    }
    gboolean good = TRUE;
    char *text;
    if (usb)
        g_variant_get(reply, "(bs)", &good, &text);
    else
        g_variant_get(reply, "(s)", &text);
    *ok = good;
    return text;
}
