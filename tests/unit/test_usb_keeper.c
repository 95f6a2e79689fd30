/* Slots that change threads, and main's keeper of those whose client is away. */
#include "usb_keeper.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fake_guest.h"

#define LONG 600u

/* One slot, QEMU's end of its socket, and the device behind it. */
typedef struct Stand {
    FakeSource *source;
    FakeGuest *guest;
    UsbDescriptors *descriptors;
    int fd; /* QEMU's, -1: closed */
    Slot *slot;
    UsbDeviceState state;
    GMainContext *context; /* of the thread that made it */
} Stand;

static void on_state(void *user, Slot *slot, UsbDeviceState state, const char *why)
{
    ((Stand *)user)->state = state;
}

static uint64_t on_arrived(void *user)
{
    return (uint64_t)g_get_monotonic_time();
}

static bool on_may_send(void *user)
{
    return true;
}

static void on_nothing(void *user)
{
}

static const SlotCallbacks callbacks = {.state_changed = on_state,
                                        .may_send = on_may_send,
                                        .arrived = on_arrived,
                                        .read = on_nothing,
                                        .written = on_nothing};

/* QEMU's half; false: the slot has closed its end. */
static bool qemu(Stand *s)
{
    uint8_t bytes[4096];
    ssize_t n;

    while ((n = recv(s->fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0)
        fake_guest_receive(s->guest, bytes, (size_t)n);
    if (n == 0)
        return false;
    if (s->guest->out_len) {
        n = send(s->fd, s->guest->out, s->guest->out_len, MSG_NOSIGNAL);
        g_assert_cmpint(n, ==, (ssize_t)s->guest->out_len);
        s->guest->out_len = 0;
    }
    return true;
}

static void turn(Stand *s)
{
    g_main_context_iteration(s->context, FALSE);
    if (s->fd >= 0)
        qemu(s);
    fake_source_run(s->source);
    g_usleep(1000);
}

/* A keyboard in the guest, up to the moment when its client is gone; on a thread of its own. */
static gpointer make(gpointer data)
{
    Stand *s = data;
    int pair[2];

    s->context = g_main_context_new();
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), ==, 0);
    s->fd = pair[1];
    s->slot =
        slot_new(s->context, "slot", pair[0], s->descriptors, &s->source->base, &callbacks, s);
    while (s->state != USB_DEVICE_CONNECTED)
        turn(s);
    uint64_t set = fake_guest_set_configuration(s->guest, 1);
    while (!fake_guest_find(s->guest, usb_redir_configuration_status, set))
        turn(s);
    usb_device_suspend(slot_device(s->slot));
    slot_detach(s->slot);
    g_main_context_unref(s->context);
    s->context = NULL;
    return s;
}

static Stand *stand(char serial)
{
    Stand *s = g_new0(Stand, 1);

    s->source = fake_source_new(FAKE_KEYBOARD, USB_SPEED_FULL);
    s->guest = fake_guest_new();
    s->descriptors = fake_source_descriptors(s->source);
    s->descriptors->strings[s->descriptors->strings_len - 2] = (uint8_t)serial;
    GThread *thread = g_thread_new("peer", make, s);
    g_thread_join(thread);
    return s;
}

static void stand_free(Stand *s)
{
    g_assert_cmpuint(s->source->violations, ==, 0);
    if (s->fd >= 0)
        close(s->fd);
    usb_descriptors_unref(s->descriptors);
    fake_guest_free(s->guest);
    fake_source_free(s->source);
    g_free(s);
}

typedef struct Lost {
    guint n, device_id;
    char why[160];
} Lost;

static void on_lost(void *user, guint device_id, const char *why)
{
    Lost *lost = user;

    lost->n++;
    lost->device_id = device_id;
    g_strlcpy(lost->why, why, sizeof(lost->why));
}

static void wait_lost(const Lost *lost, guint n)
{
    while (lost->n < n)
        g_main_context_iteration(NULL, TRUE);
    g_assert_cmpuint(lost->n, ==, n);
}

static Slot *claim(UsbKeeper *keeper, const char *login, const Stand *s, guint expected)
{
    guint id = 0;
    Slot *slot = usb_keeper_claim(keeper, login, s->descriptors, &id);

    g_assert_cmpuint(id, ==, slot ? expected : 0);
    return slot;
}

/* --- tests --- */

static void test_claim(void)
{
    Lost lost = {0};
    UsbKeeper *keeper = usb_keeper_new(LONG, on_lost, &lost);
    Stand *a = stand('a'), *b = stand('b'), *c = stand('c');

    g_assert_true(usb_keeper_keep(keeper, a->slot, 1, "joe"));
    g_assert_true(usb_keeper_keep(keeper, b->slot, 2, "joe"));
    g_assert_cmpuint(usb_keeper_seconds(keeper, 1), >, LONG - 60);
    g_assert_cmpuint(usb_keeper_seconds(keeper, 3), ==, 0);
    g_assert_null(claim(keeper, "eve", a, 0));
    g_assert_null(claim(keeper, "Joe", a, 0));
    g_assert_null(claim(keeper, "joe", c, 0));
    g_assert_true(claim(keeper, "joe", b, 2) == b->slot);
    g_assert_null(claim(keeper, "joe", b, 0));
    g_assert_true(claim(keeper, "joe", a, 1) == a->slot);
    g_assert_cmpuint(lost.n, ==, 0);
    slot_free(a->slot); /* nobody's */
    g_assert_false(qemu(a));

    /* It works on the next thread, with what the guest has asked in between. */
    FakeSource *fresh = fake_source_new(FAKE_KEYBOARD, USB_SPEED_FULL);
    fake_source_free(b->source);
    b->source = fresh;
    b->context = g_main_context_new();
    uint64_t start = fake_guest_start_interrupt(b->guest, 0x81);
    qemu(b);
    slot_attach(b->slot, b->context, &callbacks, b);
    fresh->selected = 1; /* as a replay would have */
    usb_device_resume(slot_device(b->slot), &fresh->base, (uint64_t)g_get_monotonic_time());
    fake_source_key(fresh, 4);
    while (!fake_guest_find(b->guest, usb_redir_interrupt_packet, UINT64_MAX))
        turn(b);
    g_assert_nonnull(fake_guest_find(b->guest, usb_redir_interrupt_receiving_status, start));
    slot_free(b->slot);
    g_main_context_unref(b->context);
    slot_free(c->slot);
    usb_keeper_free(keeper);
    stand_free(a);
    stand_free(b);
    stand_free(c);
}

static void test_over(void)
{
    Lost lost = {0};
    UsbKeeper *keeper = usb_keeper_new(1, on_lost, &lost);
    Stand *a = stand('a'), *b = stand('b');

    g_assert_true(usb_keeper_keep(keeper, a->slot, 7, "joe"));
    wait_lost(&lost, 1);
    g_assert_cmpuint(lost.device_id, ==, 7);
    g_assert_nonnull(strstr(lost.why, "within 1 s"));
    g_assert_false(qemu(a));
    g_assert_null(claim(keeper, "joe", a, 0));

    g_assert_true(usb_keeper_keep(keeper, b->slot, 8, "joe"));
    usb_keeper_renew(keeper, "eve");
    usb_keeper_renew(keeper, "joe");
    g_assert_cmpuint(usb_keeper_seconds(keeper, 8), ==, 1);
    wait_lost(&lost, 2);
    usb_keeper_free(keeper);
    stand_free(a);
    stand_free(b);
}

/* A client that logs in over and over without bringing the device, and one that brings it but never
 * gets as far as to be given it. */
static void test_total(void)
{
    Lost lost = {0};
    UsbKeeper *keeper = usb_keeper_new(1, on_lost, &lost);
    Stand *a = stand('a'), *b = stand('b');
    gint64 start = g_get_monotonic_time();

    g_assert_true(usb_keeper_keep(keeper, a->slot, 1, "joe"));
    g_assert_true(usb_keeper_keep(keeper, b->slot, 2, "joe"));
    while (usb_keeper_seconds(keeper, 1) + usb_keeper_seconds(keeper, 2) > 0) {
        Slot *slot = claim(keeper, "joe", b, 2);

        if (slot)
            usb_keeper_keep(keeper, slot, 2, "joe");
        usb_keeper_renew(keeper, "joe");
        g_main_context_iteration(NULL, FALSE);
    }
    wait_lost(&lost, MAX(lost.n, 1));
    while (qemu(a) || qemu(b)) { /* no second is left, but perhaps a part of one */
        g_assert_cmpint(g_get_monotonic_time() - start, <, 30000 * 1000);
        g_main_context_iteration(NULL, FALSE);
    }
    g_assert_cmpint(g_get_monotonic_time() - start, >=, 2900 * 1000);
    g_assert_nonnull(strstr(lost.why, "within 3 s"));
    usb_keeper_free(keeper);
    stand_free(a);
    stand_free(b);
}

static void test_ends_early(void)
{
    Lost lost = {0};
    UsbKeeper *keeper = usb_keeper_new(LONG, on_lost, &lost);
    Stand *a = stand('a'), *b = stand('b'), *c = stand('c');

    g_assert_true(usb_keeper_keep(keeper, a->slot, 1, "joe"));
    g_assert_true(usb_keeper_keep(keeper, b->slot, 2, "joe"));
    g_assert_true(usb_keeper_keep(keeper, c->slot, 3, "joe"));
    close(a->fd); /* QEMU dies */
    a->fd = -1;
    wait_lost(&lost, 1);
    g_assert_cmpuint(lost.device_id, ==, 1);
    g_assert_nonnull(strstr(lost.why, "QEMU"));

    usb_keeper_drop(keeper, 2, "the operator says so");
    g_assert_null(claim(keeper, "joe", b, 0)); /* too late */
    usb_keeper_drop(keeper, 2, "again");
    usb_keeper_drop(keeper, 99, "unknown");
    wait_lost(&lost, 2);
    g_assert_cmpuint(lost.device_id, ==, 2);
    g_assert_cmpstr(lost.why, ==, "the operator says so");
    g_assert_false(qemu(b));
    usb_keeper_free(keeper);
    g_assert_false(qemu(c));
    g_assert_cmpuint(lost.n, ==, 2);
    stand_free(a);
    stand_free(b);
    stand_free(c);
}

static void test_off(void)
{
    Lost lost = {0};
    UsbKeeper *keeper = usb_keeper_new(0, on_lost, &lost);
    Stand *a = stand('a');

    g_assert_false(usb_keeper_keep(keeper, a->slot, 1, "joe"));
    g_assert_false(qemu(a));
    usb_keeper_free(keeper);
    stand_free(a);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/usb-keeper/claim", test_claim);
    g_test_add_func("/usb-keeper/over", test_over);
    g_test_add_func("/usb-keeper/total", test_total);
    g_test_add_func("/usb-keeper/ends-early", test_ends_early);
    g_test_add_func("/usb-keeper/off", test_off);
    return g_test_run();
}
