/*
 * What comes after its time: answers to reads that were given up on, and clients that say nothing
 * any more. Time passes only from deadline to deadline here, as in the loop.
 */
#include "usb_check.h"

#define KEYS 0x81
#define SECOND 1000000u

/* A keyboard whose client hears nothing of cancels: it is behind a network that stands still. */
static UsbRig *stalled_keyboard(void)
{
    UsbRig *r = usb_rig_new(FAKE_KEYBOARD, USB_SPEED_FULL, FREERDP);

    usb_rig_enumerate(r);
    r->source->cancel_mode = FAKE_CANCEL_DEAF;
    fake_guest_start_interrupt(r->guest, KEYS);
    usb_rig_run(r);
    r->source->hold = true;
    fake_guest_clear_log(r->guest);
    return r;
}

static unsigned reports(const UsbRig *r, UsbStatus status)
{
    unsigned n = 0;

    for (unsigned i = 0; i < r->guest->n_log; i++)
        n += r->guest->log[i].type == usb_redir_interrupt_packet &&
             r->guest->log[i].status == status;
    return n;
}

/* The network stands still for so long that the reads time out. What was typed meanwhile comes when
 * it goes on, in order, with what is typed then behind it. */
static void test_keys_after_a_stall(void)
{
    UsbRig *r = stalled_keyboard();

    usb_rig_wait(r, USB_TIMEOUT_TRANSFER_US + SECOND);
    g_assert_cmpuint(r->guest->n_log, ==, 0);
    for (uint8_t key = 4; key < 14; key++)
        fake_source_key(r->source, key);
    r->source->hold = false;
    usb_rig_run(r);
    g_assert_cmpuint(reports(r, USB_STATUS_SUCCESS), ==, 10);
    for (unsigned i = 0; i < 10; i++) {
        g_assert_cmpuint(r->guest->log[i].id, ==, i);
        g_assert_cmpuint(r->guest->log[i].data[2], ==, 4 + i);
    }
    /* It hears of the cancels, too, and of those to come. Nothing was lost, nothing is reported. */
    while (r->source->n_pending > 0 && r->source->pending[0].unwanted)
        fake_source_complete(r->source, 0, USB_STATUS_CANCELLED, NULL, 0, false);
    r->source->cancel_mode = FAKE_CANCEL_LATE;
    usb_rig_wait(r, 60 * SECOND);
    g_assert_cmpuint(r->guest->n_log, ==, 10);
    end(r);
}

/* An answer to a read that the guest no longer wants is not one to its new reads. */
static void test_stopped_meanwhile(void)
{
    UsbRig *r = stalled_keyboard();

    usb_rig_wait(r, USB_TIMEOUT_TRANSFER_US + SECOND);
    unsigned before = r->source->n_pending;
    fake_guest_stop_interrupt(r->guest, KEYS);
    fake_guest_start_interrupt(r->guest, KEYS);
    usb_rig_run(r);
    fake_guest_clear_log(r->guest);
    while (before-- > 0) /* all but the new ones */
        fake_source_complete(r->source, 0, USB_STATUS_SUCCESS, "\0\0\4\0\0\0\0", 8, false);
    usb_rig_run(r);
    g_assert_cmpuint(r->guest->n_log, ==, 0);
    fake_source_complete(r->source, 0, USB_STATUS_SUCCESS, "\0\0\5\0\0\0\0", 8, false);
    usb_rig_run(r);
    g_assert_cmpuint(reports(r, USB_STATUS_SUCCESS), ==, 1);
    end(r);
}

/* A client that answers longer than it was asked does so late as well as in time. */
static void test_late_and_long(void)
{
    UsbRig *r = stalled_keyboard();
    uint8_t much[64] = {0};

    usb_rig_wait(r, USB_TIMEOUT_TRANSFER_US + SECOND);
    fake_source_complete(r->source, 0, USB_STATUS_SUCCESS, much, sizeof(much), false);
    usb_rig_run(r);
    g_assert_cmpuint(r->guest->n_log, ==, 1);
    g_assert_cmpuint(r->guest->log[0].length, <, sizeof(much));
    end(r);
}

/* No answer at all: the guest hears once that something may be missing. */
static void test_lost(void)
{
    UsbRig *r = stalled_keyboard();

    r->source->cancel_mode = FAKE_CANCEL_SILENT;
    usb_rig_wait(r, USB_TIMEOUT_TRANSFER_US + USB_TOMBSTONE_US - SECOND);
    g_assert_cmpuint(r->guest->n_log, ==, 0);
    usb_rig_wait(r, 2 * SECOND);
    g_assert_cmpuint(reports(r, USB_STATUS_IOERROR), ==, 1);
    g_assert_cmpuint(r->guest->n_log, ==, 1);
    r->source->hold = false;
    fake_source_key(r->source, 4);
    usb_rig_run(r);
    g_assert_cmpuint(reports(r, USB_STATUS_SUCCESS), ==, 1);
    end(r);
}

/* The guest asks once and never again: the device is given back all the same, on time. */
static void test_silence(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);
    uint64_t start;

    usb_rig_enumerate(r);
    r->source->hold = true;
    start = r->now;
    fake_guest_control(r->guest, 0xa1, 0xfe, 0, 0, 1, NULL);
    usb_rig_run(r);
    while (r->source->retired == 0) {
        uint64_t due = usb_device_deadline(r->device);

        g_assert_cmpuint(due, !=, UINT64_MAX);
        r->now = MAX(due, r->now);
        usb_device_tick(r->device, r->now);
    }
    g_assert_cmpuint(r->now - start, ==, USB_TIMEOUT_CONTROL_US + 60 * SECOND);
    g_assert_cmpuint(usb_device_deadline(r->device), ==, UINT64_MAX);
    end(r);
}

/* It has swallowed one request and answers others: half a minute later it is asked, and stays. */
static void test_not_silent(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

    usb_rig_enumerate(r);
    r->source->cancel_mode = FAKE_CANCEL_SILENT;
    r->source->hold = true;
    fake_guest_control(r->guest, 0xa1, 0xfe, 0, 0, 1, NULL);
    usb_rig_wait(r, USB_TIMEOUT_CONTROL_US + SECOND);
    r->source->hold = false;
    unsigned before = r->source->submitted;
    usb_rig_wait(r, 3600ull * SECOND);
    g_assert_cmpuint(r->source->submitted, ==, before + 1);
    g_assert_cmpuint(r->source->retired, ==, 0);
    end(r);
}

/* A request that was never answered has kept the client as long as any can; the next one comes in
 * time for a guest that waits five seconds. */
static void test_rest_after_a_timeout(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP | USB_QUIRK_CONTROL_BLOCKS_CLIENT);

    usb_rig_enumerate(r);
    r->source->cancel_mode = FAKE_CANCEL_SILENT;
    r->source->hold = true;
    fake_guest_control(r->guest, 0xa1, 0xfe, 0, 0, 1, NULL);
    fake_guest_control(r->guest, 0xa1, 0xfe, 0, 0, 1, NULL);
    usb_rig_run(r);
    unsigned before = r->source->submitted;
    usb_rig_wait(r, USB_TIMEOUT_CONTROL_US + USB_CONTROL_REST_US - 1000);
    g_assert_cmpuint(r->source->submitted, ==, before);
    usb_rig_wait(r, 2000);
    g_assert_cmpuint(r->source->submitted, ==, before + 1);
    end(r);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/usb-late/keys-after-a-stall", test_keys_after_a_stall);
    g_test_add_func("/usb-late/stopped-meanwhile", test_stopped_meanwhile);
    g_test_add_func("/usb-late/late-and-long", test_late_and_long);
    g_test_add_func("/usb-late/lost", test_lost);
    g_test_add_func("/usb-late/silence", test_silence);
    g_test_add_func("/usb-late/not-silent", test_not_silent);
    g_test_add_func("/usb-late/rest-after-a-timeout", test_rest_after_a_timeout);
    return g_test_run();
}
