/*
 * Requests that may pend: they wait for as long as the device likes, but not for a client that has
 * forgotten it. And control requests that block their client: slow ones are followed by a rest.
 */
#include "usb_check.h"

#define MINUTE 60000000u

static UsbRig *pending_rig(FakeKind kind)
{
    UsbRig *r = usb_rig_new(kind, kind == FAKE_STICK ? USB_SPEED_HIGH : USB_SPEED_FULL,
                            USB_QUIRK_TRANSFERS_MAY_PEND);

    usb_rig_enumerate(r);
    return r;
}

static const GuestPacket *came(UsbRig *r, uint64_t id)
{
    usb_rig_run(r);
    return fake_guest_find(r->guest, usb_redir_bulk_packet, id);
}

static unsigned questions(const UsbRig *r)
{
    unsigned n = 0;

    for (unsigned i = 0; i < r->source->n_pending; i++) {
        const UsbRequest *q = &r->source->pending[i].request;
        n += q->kind == USB_REQUEST_CONTROL && q->setup.request_type == 0x80 &&
             q->setup.request == 6 && q->setup.value == 0x100 && q->length == 18;
    }
    return n;
}

/* The client answers each question: the request waits on, for hours. */
static void test_waits(void)
{
    UsbRig *r = pending_rig(FAKE_STICK);
    uint64_t in = fake_guest_bulk_in(r->guest, 0x81, 512);

    usb_rig_run(r);
    unsigned before = r->source->submitted;
    usb_rig_wait(r, 180u * (uint64_t)MINUTE);
    g_assert_null(came(r, in));
    unsigned asked = r->source->submitted - before;
    g_assert_cmpuint(asked, >=, 170);
    g_assert_cmpuint(asked, <=, 181);
    g_assert_true(usb_device_wants_guest_bytes(r->device));
    fake_source_complete(r->source, 0, USB_STATUS_SUCCESS, "at last", 7, false);
    g_assert_cmpuint(came(r, in)->length, ==, 7);

    before = r->source->submitted; /* nothing pends: nothing is asked */
    usb_rig_wait(r, 10u * MINUTE);
    g_assert_cmpuint(r->source->submitted, ==, before);
    end(r);
}

/* It does not: the request ends within its bound, and not before. */
static void test_deaf(void)
{
    UsbRig *r = pending_rig(FAKE_STICK);

    r->source->hold = true;
    uint64_t old = fake_guest_bulk_in(r->guest, 0x81, 512);
    usb_rig_run(r);
    usb_rig_wait(r, MINUTE / 2);
    uint64_t young = fake_guest_bulk_in(r->guest, 0x81, 512);
    usb_rig_run(r);
    usb_rig_wait(r, MINUTE / 2 - 1000);
    g_assert_cmpuint(questions(r), ==, 0);
    usb_rig_wait(r, 2000);
    g_assert_cmpuint(questions(r), ==, 1);
    uint64_t late = fake_guest_bulk_in(r->guest, 0x81, 512), made = r->now;
    usb_rig_run(r);
    usb_rig_wait(r, USB_TIMEOUT_CONTROL_US - 5000);
    uint64_t later = fake_guest_bulk_in(r->guest, 0x81, 512);
    g_assert_null(came(r, old));
    usb_rig_wait(r, 10000);
    g_assert_cmpint(came(r, old)->status, ==, usb_redir_ioerror);
    g_assert_cmpint(came(r, young)->status, ==, usb_redir_ioerror);
    g_assert_null(came(r, late)); /* the client has not been asked since */
    usb_rig_wait(r, made + USB_TIMEOUT_PEND_US + USB_TIMEOUT_CONTROL_US - r->now);
    g_assert_cmpint(came(r, late)->status, ==, usb_redir_ioerror);
    g_assert_cmpint(came(r, later)->status, ==, usb_redir_ioerror);
    usb_rig_wait(r, 2 * MINUTE);
    g_assert_cmpuint(r->source->retired, <=, 1);
    end(r);
}

/* A device whose endpoint 0 hangs is not a client that has forgotten it. */
static void test_hung_control(void)
{
    UsbRig *r = pending_rig(FAKE_STICK);

    r->source->hold = true;
    uint64_t in = fake_guest_bulk_in(r->guest, 0x81, 512);
    usb_rig_run(r);
    usb_rig_wait(r, MINUTE + 1000);
    g_assert_cmpuint(questions(r), ==, 1);
    uint64_t out = fake_guest_bulk_out(r->guest, 0x02, "x", 1);
    usb_rig_run(r);
    usb_rig_wait(r, 1000000);
    usb_device_tick(r->device, r->now);
    fake_source_complete(r->source, (unsigned)fake_source_find(r->source, 0x02), USB_STATUS_SUCCESS,
                         NULL, 1, false);
    g_assert_nonnull(came(r, out));
    usb_rig_wait(r, USB_TIMEOUT_CONTROL_US);
    g_assert_cmpuint(r->source->cancels, ==, 1); /* the question */
    g_assert_null(came(r, in));
    end(r);
}

/* Anything that is answered is a sign of life, and a control request of the guest's a question. */
static void test_signs(void)
{
    UsbRig *r = pending_rig(FAKE_STICK);

    r->source->hold = true;
    uint64_t in = fake_guest_bulk_in(r->guest, 0x81, 512);
    usb_rig_run(r);
    for (unsigned i = 0; i < 5; i++) {
        uint64_t out = fake_guest_bulk_out(r->guest, 0x02, "x", 1);
        usb_rig_run(r);
        usb_rig_wait(r, MINUTE / 2);
        g_assert_cmpuint(questions(r), ==, 0);
        fake_source_complete(r->source, (unsigned)fake_source_find(r->source, 0x02),
                             USB_STATUS_SUCCESS, NULL, 1, false);
        g_assert_nonnull(came(r, out));
    }
    g_assert_null(came(r, in));
    end(r);
}

/* Asked by the owner: once, and not while a control request is out. Nothing comes of the answer. */
static void test_asked(void)
{
    UsbRig *r = pending_rig(FAKE_STICK);

    r->source->hold = true;
    usb_device_ask(r->device, r->now);
    usb_device_ask(r->device, r->now);
    usb_rig_run(r);
    g_assert_cmpuint(questions(r), ==, 1);
    unsigned before = r->guest->n_log;
    r->source->hold = false;
    usb_rig_run(r);
    g_assert_cmpuint(questions(r), ==, 0);
    g_assert_cmpuint(r->guest->n_log, ==, before);
    g_assert_true(usb_device_wants_guest_bytes(r->device));
    usb_device_ask(r->device, r->now);
    usb_device_suspend(r->device);
    usb_device_ask(r->device, r->now); /* nobody to ask */
    end(r);
}

/* The streams of a keyboard that nobody touches; its client forgets it: it is given back. */
static void test_stream(void)
{
    UsbRig *r = pending_rig(FAKE_KEYBOARD);

    fake_guest_start_interrupt(r->guest, 0x81);
    usb_rig_run(r);
    fake_guest_clear_log(r->guest);
    usb_rig_wait(r, 100u * (uint64_t)MINUTE);
    g_assert_cmpuint(r->source->cancels, ==, 0);
    g_assert_cmpuint(r->source->retired, ==, 0);
    fake_source_key(r->source, 4);
    usb_rig_run(r);
    g_assert_cmpuint(fake_guest_count(r->guest, usb_redir_interrupt_packet), ==, 1);

    r->source->hold = true;
    usb_rig_wait(r, 5u * MINUTE);
    g_assert_cmpuint(r->source->retired, ==, 1);
    end(r);
}

/* A client that ends requests itself needs no question. */
static void test_others(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, 0);

    usb_rig_enumerate(r);
    r->source->hold = true;
    uint64_t in = fake_guest_bulk_in(r->guest, 0x81, 512);
    usb_rig_run(r);
    usb_rig_wait(r, USB_TIMEOUT_TRANSFER_US + 10000);
    g_assert_cmpuint(questions(r), ==, 0);
    g_assert_cmpint(came(r, in)->status, ==, usb_redir_ioerror);
    end(r);
}

/* The index of the control request that is at the client, -1 for none. */
static int control_request(const UsbRig *r)
{
    for (unsigned i = 0; i < r->source->n_pending; i++) {
        if (r->source->pending[i].request.kind == USB_REQUEST_CONTROL)
            return (int)i;
    }
    return -1;
}

/* Three requests in a row to a device that takes @us for each; how long the client was left alone
 * after the first and the second. */
static void pace(uint32_t quirks, uint64_t us, uint64_t rest)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, quirks);
    uint64_t ids[3];

    usb_rig_enumerate(r);
    r->source->hold = true;
    for (unsigned i = 0; i < 3; i++)
        ids[i] = fake_guest_control(r->guest, 0xa1, 0xfe, 0, 0, 1, NULL);
    usb_rig_run(r);
    for (unsigned i = 0; i < 3; i++) {
        int at = control_request(r);
        if (i > 0 && rest > 0) {
            g_assert_cmpint(at, <, 0);
            usb_rig_wait(r, rest - 1000);
            g_assert_cmpint(control_request(r), <, 0);
            usb_rig_wait(r, 2000);
            at = control_request(r);
        }
        g_assert_cmpint(at, >=, 0);
        usb_rig_wait(r, us);
        usb_device_tick(r->device, r->now); /* as the loop does, which knows the time */
        fake_source_complete(r->source, (unsigned)at, USB_STATUS_SUCCESS, "", 1, false);
        usb_rig_run(r);
        g_assert_nonnull(fake_guest_find(r->guest, usb_redir_control_packet, ids[i]));
    }
    end(r);
}

static void test_rest(void)
{
    pace(USB_QUIRK_CONTROL_BLOCKS_CLIENT, 2000000, 2000000);
    pace(USB_QUIRK_CONTROL_BLOCKS_CLIENT, 400000, 0);
    pace(0, 2000000, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/usb-alive/waits", test_waits);
    g_test_add_func("/usb-alive/deaf", test_deaf);
    g_test_add_func("/usb-alive/hung-control", test_hung_control);
    g_test_add_func("/usb-alive/signs", test_signs);
    g_test_add_func("/usb-alive/asked", test_asked);
    g_test_add_func("/usb-alive/stream", test_stream);
    g_test_add_func("/usb-alive/others", test_others);
    g_test_add_func("/usb-alive/rest", test_rest);
    return g_test_run();
}
