#include <glib-unix.h>
#include <unistd.h>

#include "usb_latency.h"

#define BUSY_US 3000

typedef struct Rig {
    GMainContext *context;
    UsbLatency *latency;
    int first[2], second[2];
    bool done;
} Rig;

static void spin(void)
{
    gint64 until = g_get_monotonic_time() + BUSY_US;

    while (g_get_monotonic_time() < until)
        ;
}

static void put(int fd)
{
    g_assert_cmpint(write(fd, "x", 1), ==, 1);
}

static void attach(Rig *rig, int fd, GUnixFDSourceFunc func)
{
    GSource *source = g_unix_fd_source_new(fd, G_IO_IN);

    g_source_set_callback(source, G_SOURCE_FUNC(func), rig, NULL);
    g_source_attach(source, rig->context);
    g_source_unref(source);
}

/* While this runs, what on_second() finds arrives. */
static gboolean on_first(gint fd, GIOCondition condition, gpointer user)
{
    Rig *rig = user;

    put(rig->second[1]);
    spin();
    return G_SOURCE_REMOVE;
}

static gboolean on_second(gint fd, GIOCondition condition, gpointer user)
{
    Rig *rig = user;

    usb_latency_receiving(rig->latency, true);
    usb_latency_in_gone(rig->latency);
    usb_latency_receiving(rig->latency, false);
    usb_latency_out_waits(rig->latency);
    usb_latency_out_gone(rig->latency);
    rig->done = true;
    return G_SOURCE_REMOVE;
}

static void setup(Rig *rig)
{
    *rig = (Rig){.context = g_main_context_new()};
    rig->latency = usb_latency_new(rig->context);
    g_assert_true(g_unix_open_pipe(rig->first, FD_CLOEXEC, NULL));
    g_assert_true(g_unix_open_pipe(rig->second, FD_CLOEXEC, NULL));
}

static void teardown(Rig *rig)
{
    usb_latency_free(rig->latency);
    g_main_context_unref(rig->context);
    for (int i = 0; i < 2; i++) {
        close(rig->first[i]);
        close(rig->second[i]);
    }
}

static void test_waiting_for_us_counts(void)
{
    Rig rig;

    setup(&rig);
    attach(&rig, rig.first[0], on_first);
    attach(&rig, rig.second[0], on_second);
    put(rig.first[1]);
    while (!rig.done)
        g_main_context_iteration(rig.context, TRUE);
    const UsbLatencies *sums = usb_latency_get(rig.latency);
    g_assert_cmpuint(sums->in.count, ==, 1);
    g_assert_cmpuint(sums->in.max_us, >=, BUSY_US);
    g_assert_cmpuint(sums->out.count, ==, 1);
    g_assert_cmpuint(sums->out.max_us, >=, BUSY_US);
    teardown(&rig);
}

static void test_oldest_bytes_count(void)
{
    Rig rig;

    setup(&rig);
    usb_latency_out_waits(rig.latency);
    spin();
    g_main_context_iteration(rig.context, FALSE);
    usb_latency_out_waits(rig.latency);
    usb_latency_out_gone(rig.latency);
    usb_latency_out_gone(rig.latency);
    const UsbLatencies *sums = usb_latency_get(rig.latency);
    g_assert_cmpuint(sums->out.count, ==, 1);
    g_assert_cmpuint(sums->out.max_us, >=, BUSY_US);
    teardown(&rig);
}

static void test_only_the_clients_bytes_count(void)
{
    Rig rig;

    setup(&rig);
    usb_latency_in_gone(rig.latency); /* something of our own for QEMU */
    usb_latency_receiving(rig.latency, true);
    usb_latency_receiving(rig.latency, false);
    usb_latency_in_gone(rig.latency);
    g_assert_cmpuint(usb_latency_get(rig.latency)->in.count, ==, 0);
    teardown(&rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/usb-latency/waiting-for-us-counts", test_waiting_for_us_counts);
    g_test_add_func("/usb-latency/oldest-bytes-count", test_oldest_bytes_count);
    g_test_add_func("/usb-latency/only-the-clients-bytes-count", test_only_the_clients_bytes_count);
    return g_test_run();
}
