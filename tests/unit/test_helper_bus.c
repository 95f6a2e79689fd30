/* libvirt's side of the helper contract, on a private dbus-daemon (GTestDBus). */
#include <gio/gio.h>
#include <string.h>

#include "helper_bus.h"

typedef struct Fixture {
    GTestDBus *daemon;
    GDBusConnection *libvirt;
    HelperBus *bus;
    char *name, *password;
    bool refuse, closed;
    char *left; /* argument of Leaving */
} Fixture;

static bool on_credentials(void *user, const char *name, const char *password, GError **error)
{
    Fixture *f = user;
    if (f->refuse) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "this name cannot be used");
        return false;
    }
    g_free(f->name);
    g_free(f->password);
    f->name = g_strdup(name);
    f->password = g_strdup(password);
    return true;
}

static char *on_command(void *user, char **words, bool *ok)
{
    *ok = !words[1] || strcmp(words[1], "fail") != 0;
    return g_strjoinv("+", words);
}

static void on_closed(void *user, const char *why)
{
    ((Fixture *)user)->closed = true;
}

static const HelperBusCallbacks callbacks = {on_credentials, on_command, on_closed};

static GDBusConnection *connect_to(Fixture *f)
{
    g_autoptr(GError) error = NULL;
    GDBusConnection *connection =
        g_dbus_connection_new_for_address_sync(g_test_dbus_get_bus_address(f->daemon),
                                               G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT |
                                                   G_DBUS_CONNECTION_FLAGS_MESSAGE_BUS_CONNECTION,
                                               NULL, NULL, &error);
    g_assert_no_error(error);
    g_dbus_connection_set_exit_on_close(connection, FALSE);
    return connection;
}

static void set_up(Fixture *f, const void *data)
{
    g_autoptr(GError) error = NULL;
    f->daemon = g_test_dbus_new(G_TEST_DBUS_NONE);
    g_test_dbus_up(f->daemon);
    f->libvirt = connect_to(f);
    f->bus = helper_bus_new(g_test_dbus_get_bus_address(f->daemon), &callbacks, f, &error);
    g_assert_no_error(error);
}

static void tear_down(Fixture *f, const void *data)
{
    helper_bus_free(f->bus);
    g_object_unref(f->libvirt);
    if (g_test_dbus_get_bus_address(f->daemon)) /* not stopped by the test */
        g_test_dbus_stop(f->daemon);
    g_object_unref(f->daemon);
    g_free(f->name);
    g_free(f->password);
    g_free(f->left);
}

static void on_reply(GObject *source, GAsyncResult *result, void *data)
{
    *(GAsyncResult **)data = g_object_ref(result);
}

static GVariant *call(Fixture *f, const char *interface, const char *method, GVariant *parameters,
                      GError **error)
{
    g_autoptr(GAsyncResult) result = NULL;
    g_dbus_connection_call(f->libvirt, HELPER_BUS_NAME, HELPER_BUS_PATH, interface, method,
                           parameters, NULL, G_DBUS_CALL_FLAGS_NO_AUTO_START, 10000, NULL, on_reply,
                           &result);
    while (!result)
        g_main_context_iteration(NULL, TRUE);
    return g_dbus_connection_call_finish(f->libvirt, result, error);
}

static bool set_credentials(Fixture *f, const char *name, const char *password, GError **error)
{
    g_autoptr(GVariant) reply = call(f, HELPER_BUS_NAME, "SetCredentials",
                                     g_variant_new("(sss)", name, password, ""), error);
    return reply != NULL;
}

static void test_credentials(Fixture *f, const void *data)
{
    g_autoptr(GError) error = NULL;
    g_assert_true(set_credentials(f, "DOM\\jöe", "pä\"<s€ 🙂", &error));
    g_assert_cmpstr(f->name, ==, "DOM\\jöe");
    g_assert_cmpstr(f->password, ==, "pä\"<s€ 🙂");
    g_assert_true(set_credentials(f, "", "s3cret", &error));
    g_assert_null(f->name);
    g_assert_true(set_credentials(f, "jane", "n3w", &error));
    g_assert_cmpstr(f->name, ==, "jane");
    g_assert_true(set_credentials(f, "[Invalid UTF-8]", "s3cret", &error)); /* a NULL user */
    g_assert_null(f->name);
    g_assert_true(set_credentials(f, "joe", "", &error));
    g_assert_cmpstr(f->password, ==, "");
}

static void assert_told(const GError *error, const char *sentence)
{
    g_autofree char *name = g_dbus_error_get_remote_error(error);
    g_assert_cmpstr(name, ==, "org.QemuDisplay.RDP.Error");
    g_assert_nonnull(strstr(error->message, sentence));
}

static void test_refusals(Fixture *f, const void *data)
{
    g_autoptr(GError) error = NULL;
    f->refuse = true;
    g_assert_false(set_credentials(f, "joe", "x", &error));
    assert_told(error, "this name cannot be used");
    g_clear_error(&error);
    f->refuse = false;
    helper_bus_fail(f->bus, "port 3389 is busy");
    g_assert_false(helper_bus_failure_told(f->bus));
    g_assert_false(set_credentials(f, "joe", "x", &error));
    assert_told(error, "port 3389 is busy");
    g_assert_true(helper_bus_failure_told(f->bus));
    g_assert_null(f->name);
}

static void on_leaving(GDBusConnection *connection, const char *sender, const char *path,
                       const char *interface, const char *signal, GVariant *parameters, void *data)
{
    Fixture *f = data;
    g_free(f->left);
    g_variant_get(parameters, "(s)", &f->left);
}

static void test_leaving(Fixture *f, const void *data)
{
    g_dbus_connection_signal_subscribe(f->libvirt, NULL, HELPER_BUS_NAME, "Leaving",
                                       HELPER_BUS_PATH, NULL, G_DBUS_SIGNAL_FLAGS_NONE, on_leaving,
                                       f, NULL);
    g_assert_true(set_credentials(f, "a", "b", NULL)); /* the subscription has reached the bus */
    helper_bus_leave(f->bus, "the virtual machine has ended");
    while (!f->left)
        g_main_context_iteration(NULL, TRUE);
    g_assert_cmpstr(f->left, ==, "the virtual machine has ended");
}

static void test_control(Fixture *f, const void *data)
{
    g_autoptr(GError) error = NULL;
    gboolean ok;
    const char *text;
    g_autoptr(GVariant) status =
        call(f, "org.qrdp.Control1", "Status", g_variant_new("(b)", TRUE), &error);
    g_assert_no_error(error);
    g_variant_get(status, "(&s)", &text);
    g_assert_cmpstr(text, ==, "status+json");
    const char *words[] = {"fail", "2", NULL};
    g_autoptr(GVariant) usb =
        call(f, "org.qrdp.Control1", "Usb", g_variant_new("(^as)", words), &error);
    g_assert_no_error(error);
    g_variant_get(usb, "(b&s)", &ok, &text);
    g_assert_false(ok);
    g_assert_cmpstr(text, ==, "usb+fail+2");
}

static void test_second_helper(Fixture *f, const void *data)
{
    g_autoptr(GError) error = NULL;
    g_assert_null(helper_bus_new(g_test_dbus_get_bus_address(f->daemon), &callbacks, f, &error));
    g_assert_nonnull(strstr(error->message, "Another RDP server"));
}

static void test_bus_ends(Fixture *f, const void *data)
{
    g_test_dbus_stop(f->daemon);
    while (!f->closed)
        g_main_context_iteration(NULL, TRUE);
    helper_bus_leave(f->bus, "nobody hears this"); /* must not hang */
}

static void name_call(Fixture *f, const char *method, GVariant *parameters)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GVariant) reply = g_dbus_connection_call_sync(
        f->libvirt, "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", method,
        parameters, NULL, G_DBUS_CALL_FLAGS_NONE, -1, NULL, &error);
    g_assert_no_error(error);
    g_assert_nonnull(reply);
}

static void test_machine_leaves(Fixture *f, const void *data)
{
    g_assert_true(set_credentials(f, "a", "b", NULL));
    g_assert_false(f->closed); /* it has not come yet: that is not an end */
    name_call(f, "RequestName", g_variant_new("(su)", "org.qemu", 0));
    g_assert_true(set_credentials(f, "a", "b", NULL));
    g_assert_false(f->closed);
    name_call(f, "ReleaseName", g_variant_new("(s)", "org.qemu"));
    while (!f->closed)
        g_main_context_iteration(NULL, TRUE);
}

static void test_no_bus(void)
{
    Fixture f = {0};
    g_autoptr(GError) error = NULL;
    gint64 start = g_get_monotonic_time();
    g_assert_null(helper_bus_new("unix:path=/nonexistent/bus", &callbacks, &f, &error));
    g_assert_nonnull(strstr(error->message, "message bus"));
    g_assert_cmpint(g_get_monotonic_time() - start, >, 2 * G_TIME_SPAN_SECOND); /* it was patient */
    g_clear_error(&error);
    start = g_get_monotonic_time();
    g_assert_null(helper_bus_new("nonsense", &callbacks, &f, &error));
    g_assert_cmpint(g_get_monotonic_time() - start, <, G_TIME_SPAN_SECOND); /* no use to wait */
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name, function)                                                                        \
    g_test_add("/helper-bus/" name, Fixture, NULL, set_up, function, tear_down)
    ADD("credentials", test_credentials);
    ADD("refusals", test_refusals);
    ADD("leaving", test_leaving);
    ADD("control", test_control);
    ADD("second-helper", test_second_helper);
    ADD("machine-leaves", test_machine_leaves);
    ADD("bus-ends", test_bus_ends);
    g_test_add_func("/helper-bus/no-bus", test_no_bus);
    return g_test_run();
}
