/*
 * Requests between a guest and an emulated stick: cancelled, late, answered twice, never answered,
 * in order, cut into pieces, too many. In the end each has had one answer.
 */
#include "mutate.h"
#include "usb_check.h"

/* ---- cancel, late, double, timeout ---- */

static void test_cancel(void)
{
    static const FakeCancel modes[] = {FAKE_CANCEL_LATE, FAKE_CANCEL_SILENT, FAKE_CANCEL_DEAF};

    for (unsigned m = 0; m < 3; m++) {
        UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);
        UsbDeviceStats stats;

        r->source->cancel_mode = modes[m];
        usb_rig_enumerate(r);
        uint64_t id = fake_guest_bulk_in(r->guest, 0x81, 13);
        usb_rig_run(r);
        unanswered(r, id);
        fake_guest_cancel(r->guest, id);
        fake_guest_cancel(r->guest, id);   /* is not an error */
        fake_guest_cancel(r->guest, 4711); /* neither */
        bulk_answer(r, id, USB_STATUS_CANCELLED, 0);
        g_assert_cmpuint(r->source->cancels, ==, 1);
        usb_device_stats(r->device, &stats);
        g_assert_cmpuint(stats.in_flight, ==, 0);
        g_assert_cmpuint(stats.cancelled, ==, 1);
        g_assert_cmpuint(stats.late, ==, modes[m] == FAKE_CANCEL_LATE ? 1 : 0);
        if (modes[m] == FAKE_CANCEL_DEAF) /* its data is lost, as on real hardware */
            fake_source_complete(r->source, 0, USB_STATUS_SUCCESS, "lost", 4, false);
        usb_rig_run(r);
        bulk_answer(r, id, USB_STATUS_CANCELLED, 0);
        check_stick_works(r, 1);
        end(r);
    }
}

static void test_cancel_control(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

    usb_rig_enumerate(r);
    r->source->hold = true;
    uint64_t a = fake_guest_control(r->guest, 0xa1, 0xfe, 0, 0, 1, NULL);
    uint64_t b = fake_guest_control(r->guest, 0xa1, 0xfe, 0, 0, 1, NULL);
    uint64_t c = fake_guest_control(r->guest, 0xa1, 0xfe, 0, 0, 1, NULL);
    usb_rig_run(r);
    g_assert_cmpuint(r->source->n_pending, ==, 1); /* one at a time */
    fake_guest_cancel(r->guest, b);
    fake_guest_cancel(r->guest, a);
    control_answer(r, b, USB_STATUS_CANCELLED, 0);
    control_answer(r, a, USB_STATUS_CANCELLED, 0);
    g_assert_cmpuint(fake_source_count(r->source, 0x80), ==, 1);
    r->source->hold = false;
    control_answer(r, c, USB_STATUS_SUCCESS, 1);
    end(r);
}

static void test_strays(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);
    UsbDeviceStats stats;

    usb_rig_enumerate(r);
    fake_source_stray(r->source, 0);
    fake_source_stray(r->source, 1); /* the SELECT, completed long ago */
    fake_source_stray(r->source, USB_MAX_REQUEST_ID);
    usb_device_stats(r->device, &stats);
    g_assert_cmpuint(stats.late, ==, 3);
    g_assert_cmpuint(r->guest->n_log, ==, 0);
    check_stick_works(r, 1);
    end(r);
}

static void test_timeouts(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);
    UsbDeviceStats stats;

    r->source->cancel_mode = FAKE_CANCEL_SILENT;
    usb_rig_enumerate(r);
    r->source->hold = true;
    uint64_t ctl = fake_guest_control(r->guest, 0xa1, 0xfe, 0, 0, 1, NULL);
    uint64_t next = fake_guest_control(r->guest, 0xa1, 0xfe, 0, 0, 1, NULL);
    uint64_t in = fake_guest_bulk_in(r->guest, 0x81, 512);
    uint64_t out = fake_guest_bulk_out(r->guest, 0x02, "0123456789012345678901234567890", 31);
    usb_rig_wait(r, USB_TIMEOUT_CONTROL_US - 1);
    unanswered(r, ctl);
    usb_rig_wait(r, 2);
    control_answer(r, ctl, USB_STATUS_TIMEOUT, 0);
    unanswered(r, next);
    usb_rig_wait(r, USB_TIMEOUT_TRANSFER_US - USB_TIMEOUT_CONTROL_US - 10);
    unanswered(r, in);
    usb_rig_wait(r, 20);
    bulk_answer(r, in, USB_STATUS_IOERROR, 0);
    bulk_answer(r, out, USB_STATUS_IOERROR, 0);
    control_answer(r, next, USB_STATUS_TIMEOUT, 0);
    usb_device_stats(r->device, &stats);
    g_assert_cmpuint(stats.timeouts, ==, 4);
    g_assert_cmpuint(stats.in_flight, ==, 0);
    g_assert_cmpuint(r->source->cancels, ==, 4);
    r->source->hold = false;
    check_stick_works(r, 1);
    usb_rig_wait(r, USB_TOMBSTONE_US + 1); /* the tombstones go */
    g_assert_cmpuint(usb_device_deadline(r->device), ==, UINT64_MAX);
    end(r);
}

/* After a time-out the next requests get less time, until the client answers something. */
static void test_short_patience(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

    r->source->cancel_mode = FAKE_CANCEL_SILENT;
    usb_rig_enumerate(r);
    r->source->hold = true;
    for (unsigned i = 0; i < 4; i++) {
        uint64_t in = fake_guest_bulk_in(r->guest, 0x81, 512);
        uint64_t patience = i ? USB_TIMEOUT_SILENT_US : USB_TIMEOUT_TRANSFER_US;

        usb_rig_wait(r, patience - 1);
        unanswered(r, in);
        usb_rig_wait(r, 2);
        bulk_answer(r, in, USB_STATUS_IOERROR, 0);
    }
    r->source->hold = false;
    check_stick_works(r, 1);
    r->source->hold = true;
    uint64_t in = fake_guest_bulk_in(r->guest, 0x81, 512);
    usb_rig_wait(r, USB_TIMEOUT_TRANSFER_US - 1);
    unanswered(r, in);
    usb_rig_wait(r, 2);
    bulk_answer(r, in, USB_STATUS_IOERROR, 0);
    end(r);
}

/* A client that answers nothing for a minute is told to take its device back. */
static void test_silence(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

    usb_rig_enumerate(r);
    usb_rig_wait(r, 600000000);
    r->source->hold = true;
    for (unsigned i = 0; i < 15; i++) {
        fake_guest_control(r->guest, 0xa1, 0xfe, 0, 0, 1, NULL);
        usb_rig_wait(r, 7000000);
        g_assert_cmpuint(r->source->retired, ==, i < 9 ? 0 : 1);
    }
    g_assert_cmpuint(r->source->submitted, <, 14); /* from then on it is asked for nothing */
    fake_source_unplug(r->source);
    usb_rig_run(r);
    g_assert_nonnull(fake_guest_find(r->guest, usb_redir_device_disconnect, UINT64_MAX));
    end(r);
}

static void test_may_pend(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, USB_QUIRK_TRANSFERS_MAY_PEND);

    usb_rig_enumerate(r);
    uint64_t in = fake_guest_bulk_in(r->guest, 0x81, 512);
    usb_rig_wait(r, 3600000000u);
    unanswered(r, in);
    fake_source_complete(r->source, 0, USB_STATUS_SUCCESS, "late but fine", 13, false);
    bulk_answer(r, in, USB_STATUS_SUCCESS, 13);
    end(r);
}

/* A timer that was started from within a completion, whose time was unknown, never fires early. */
static void test_unstamped(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

    usb_rig_enumerate(r);
    uint64_t in = fake_guest_bulk_in(r->guest, 0x81, 512);
    usb_rig_run(r);
    for (unsigned i = 0; i < 20; i++) { /* FreeRDP's own timeout, again and again */
        r->now += 10000000;
        if (usb_device_deadline(r->device) <= r->now)
            usb_device_tick(r->device, r->now);
        fake_source_complete(r->source, 0, USB_STATUS_TIMEOUT, NULL, 0, true);
        usb_rig_run(r);
        unanswered(r, in);
        g_assert_cmpuint(fake_source_count(r->source, 0x81), ==, 1);
    }
    fake_source_complete(r->source, 0, USB_STATUS_SUCCESS, "data", 4, false);
    bulk_answer(r, in, USB_STATUS_SUCCESS, 4);
    end(r);
}

/* ---- bulk ---- */

static void test_order(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);
    uint64_t ids[8];

    usb_rig_enumerate(r);
    r->source->hold = true;
    for (unsigned i = 0; i < 8; i++)
        ids[i] = fake_guest_bulk_in(r->guest, 0x81, 64);
    usb_rig_run(r);
    for (int i = 7; i >= 0; i--) { /* completed backwards, answered forwards */
        uint8_t byte = (uint8_t)i;
        g_assert_cmpuint(r->guest->n_log, ==, 0);
        fake_source_complete(r->source, (unsigned)i, USB_STATUS_SUCCESS, &byte, 1, false);
    }
    g_assert_cmpuint(r->guest->n_log, ==, 8);
    for (unsigned i = 0; i < 8; i++) {
        g_assert_cmpuint(r->guest->log[i].id, ==, ids[i]);
        g_assert_cmpuint(r->guest->log[i].data[0], ==, i);
    }
    end(r);
}

/* After the client's timeout a request stands behind the others; its packet must not. */
static void test_retry_keeps_order(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);
    uint64_t ids[4];

    usb_rig_enumerate(r);
    r->source->hold = true;
    for (unsigned i = 0; i < 4; i++)
        ids[i] = fake_guest_bulk_in(r->guest, 0x81, 64);
    usb_rig_run(r);
    fake_source_complete(r->source, 0, USB_STATUS_TIMEOUT, NULL, 0, true);
    fake_source_complete(r->source, 0, USB_STATUS_TIMEOUT, NULL, 0, true);
    g_assert_cmpuint(fake_source_count(r->source, 0x81), ==, 4);
    for (uint8_t i = 0; i < 4; i++)
        fake_source_complete(r->source, 0, USB_STATUS_SUCCESS, &i, 1, false);
    for (uint8_t i = 0; i < 4; i++)
        g_assert_cmpuint(bulk_answer(r, ids[i], USB_STATUS_SUCCESS, 1)->data[0], ==, i);

    /* some bytes before the client's timeout are a short transfer */
    uint64_t id = fake_guest_bulk_in(r->guest, 0x81, 64);
    usb_rig_run(r);
    fake_source_complete(r->source, 0, USB_STATUS_TIMEOUT, "part", 4, true);
    bulk_answer(r, id, USB_STATUS_SUCCESS, 4);
    end(r);
}

static void test_out_chunks(void)
{
    static uint8_t bytes[USB_MAX_TRANSFER_BYTES];
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

    usb_rig_enumerate(r);
    r->source->hold = true;
    uint64_t id = fake_guest_bulk_out(r->guest, 0x02, bytes, 10 * USB_OUT_CHUNK_BYTES + 100);
    uint64_t behind = fake_guest_bulk_out(r->guest, 0x02, bytes, 31);
    usb_rig_run(r);
    g_assert_cmpuint(r->source->n_pending, ==, 1); /* one after the other */
    fake_source_complete(r->source, 0, USB_STATUS_SUCCESS, NULL, USB_OUT_CHUNK_BYTES, false);
    g_assert_cmpuint(r->source->n_pending, ==, 1);
    fake_source_complete(r->source, 0, USB_STATUS_SUCCESS, NULL, USB_OUT_CHUNK_BYTES, false);
    g_assert_cmpuint(r->source->n_pending, ==, 1);
    /* the third chunk fails half way: the sum is reported, and nothing of the rest is sent */
    unsigned before = r->source->submitted;
    fake_source_complete(r->source, 0, USB_STATUS_STALL, NULL, 512, false);
    usb_rig_run(r);
    bulk_answer(r, id, USB_STATUS_STALL, 2 * USB_OUT_CHUNK_BYTES + 512);
    g_assert_cmpuint(r->source->submitted, ==, before + 1);
    g_assert_cmpuint(fake_source_count(r->source, 0x02), ==, 1);
    fake_source_complete(r->source, (unsigned)fake_source_find(r->source, 0x02), USB_STATUS_SUCCESS,
                         NULL, 31, false);
    bulk_answer(r, behind, USB_STATUS_SUCCESS, 31);

    /* a zero-length packet is a packet */
    uint64_t zlp = fake_guest_bulk_out(r->guest, 0x02, NULL, 0);
    usb_rig_run(r);
    int at = fake_source_find(r->source, 0x02);
    g_assert_cmpint(at, >=, 0);
    g_assert_cmpuint(r->source->pending[at].request.length, ==, 0);
    fake_source_complete(r->source, (unsigned)at, USB_STATUS_SUCCESS, NULL, 0, false);
    bulk_answer(r, zlp, USB_STATUS_SUCCESS, 0);

    /* and one that moved nothing is not a success */
    id = fake_guest_bulk_out(r->guest, 0x02, bytes, 31);
    usb_rig_run(r);
    fake_source_complete(r->source, (unsigned)fake_source_find(r->source, 0x02), USB_STATUS_SUCCESS,
                         NULL, 0, false);
    bulk_answer(r, id, USB_STATUS_IOERROR, 0);

    /* cancelled half way */
    id = fake_guest_bulk_out(r->guest, 0x02, bytes, USB_MAX_TRANSFER_BYTES);
    usb_rig_run(r);
    fake_guest_cancel(r->guest, id);
    bulk_answer(r, id, USB_STATUS_CANCELLED, 0);
    g_assert_cmpuint(fake_source_count(r->source, 0x02), ==, 0);
    end(r);
}

static void test_refused_packets(void)
{
    static uint8_t bytes[USB_MAX_TRANSFER_BYTES + 70000];
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

    usb_rig_enumerate(r);
    unsigned before = r->source->submitted;
    uint64_t in = fake_guest_bulk_in(r->guest, 0x81, USB_MAX_TRANSFER_BYTES + 1);
    uint64_t huge = fake_guest_bulk_in(r->guest, 0x81, 100 << 20);
    uint64_t out = fake_guest_bulk_out(r->guest, 0x02, bytes, sizeof(bytes));
    uint64_t wrong = fake_guest_bulk_in(r->guest, 0x82, 64);
    uint64_t control = fake_guest_bulk_in(r->guest, 0x80, 64);
    uint64_t interrupt = fake_guest_interrupt_out(r->guest, 0x02, bytes, 8);
    bulk_answer(r, in, USB_STATUS_INVAL, 0);
    bulk_answer(r, huge, USB_STATUS_INVAL, 0);
    bulk_answer(r, out, USB_STATUS_INVAL, 0);
    bulk_answer(r, wrong, USB_STATUS_INVAL, 0);
    bulk_answer(r, control, USB_STATUS_INVAL, 0);
    g_assert_cmpuint(answer(r, usb_redir_interrupt_packet, interrupt)->status, ==,
                     USB_STATUS_INVAL);
    g_assert_cmpuint(r->source->submitted, ==, before);
    r->source->refuse = true;
    bulk_answer(r, fake_guest_bulk_in(r->guest, 0x81, 13), USB_STATUS_IOERROR, 0);
    control_answer(r, fake_guest_control(r->guest, 0xa1, 0xfe, 0, 0, 1, NULL), USB_STATUS_IOERROR,
                   0);
    r->source->refuse = false;
    check_stick_works(r, 1);
    end(r);
}

/* A completion with more than was asked for (the source should have caught it) is cut. */
static void test_babble(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

    usb_rig_enumerate(r);
    r->source->hold = true;
    uint64_t id = fake_guest_bulk_in(r->guest, 0x81, 4);
    usb_rig_run(r);
    fake_source_complete(r->source, 0, USB_STATUS_SUCCESS, "too much", 8, false);
    bulk_answer(r, id, USB_STATUS_BABBLE, 4);
    end(r);
}

/* CLEAR_HALT on one endpoint cancels what waits on the others at FreeRDP. */
static void test_clear_halt_cancels_all(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

    usb_rig_enumerate(r);
    uint64_t in = fake_guest_bulk_in(r->guest, 0x81, 13);
    usb_rig_run(r);
    uint64_t clear = fake_guest_control(r->guest, 0x02, 1, 0, 0x02, 0, NULL);
    control_answer(r, clear, USB_STATUS_SUCCESS, 0);
    unanswered(r, in);
    g_assert_cmpuint(fake_source_count(r->source, 0x81), ==, 1); /* issued again */
    fake_guest_cancel(r->guest, in);
    bulk_answer(r, in, USB_STATUS_CANCELLED, 0);
    check_stick_works(r, 1);
    end(r);
}

/* ---- caps and back-pressure ---- */

static void test_request_cap(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP | USB_QUIRK_TRANSFERS_MAY_PEND);
    uint64_t ids[400];
    UsbDeviceStats stats;

    usb_rig_enumerate(r);
    for (unsigned i = 0; i < 400; i++)
        ids[i] = fake_guest_bulk_in(r->guest, 0x81, 64);
    usb_rig_run(r);
    g_assert_false(usb_device_wants_guest_bytes(r->device));
    usb_device_stats(r->device, &stats);
    g_assert_cmpuint(stats.in_flight, <=, USB_MAX_IN_FLIGHT);
    g_assert_cmpuint(stats.in_flight, >, USB_MAX_IN_FLIGHT / 2);
    g_assert_cmpuint(r->guest->n_log, ==, 0);
    /* the caps stay full: then the rest is refused, and cancels get through */
    for (unsigned i = 0; i < 400; i++)
        fake_guest_cancel(r->guest, ids[i]);
    usb_rig_wait(r, USB_TIMEOUT_TRANSFER_US + 3000000);
    g_assert_cmpuint(fake_guest_count(r->guest, usb_redir_bulk_packet), ==, 400);
    for (unsigned i = 0; i < 400; i++)
        g_assert_cmpuint(answer(r, usb_redir_bulk_packet, ids[i])->status, ==,
                         i < USB_MAX_IN_FLIGHT ? USB_STATUS_CANCELLED : USB_STATUS_IOERROR);
    check_stick_works(r, 1);
    end(r);
}

static void test_byte_cap(void)
{
    static uint8_t bytes[1 << 20];
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);
    uint64_t ids[16];

    usb_rig_enumerate(r);
    r->chunk = 65536;
    r->source->hold = true;
    for (unsigned i = 0; i < 16; i++)
        ids[i] = fake_guest_bulk_out(r->guest, 0x02, bytes, sizeof(bytes));
    usb_rig_run(r);
    g_assert_false(usb_device_wants_guest_bytes(r->device));
    g_assert_cmpuint(r->guest->out_len, >, 7 << 20); /* it stays where it came from */
    while (r->guest->n_log < 16) {
        int at = fake_source_find(r->source, 0x02);
        g_assert_cmpint(at, >=, 0);
        fake_source_complete(r->source, (unsigned)at, USB_STATUS_SUCCESS, NULL,
                             r->source->pending[at].request.length, false);
        usb_rig_run(r);
    }
    for (unsigned i = 0; i < 16; i++)
        bulk_answer(r, ids[i], USB_STATUS_SUCCESS, sizeof(bytes));
    end(r);
}

static void test_guest_does_not_read(void)
{
    UsbRig *r = usb_rig_new(FAKE_KEYBOARD, USB_SPEED_FULL, FREERDP);

    usb_rig_enumerate(r);
    fake_guest_start_interrupt(r->guest, 0x81);
    usb_rig_run(r);
    r->blocked = true;
    unsigned rounds = 0;
    while (fake_source_count(r->source, 0x81) > 0 && rounds < 1000000) {
        fake_source_complete(r->source, 0, USB_STATUS_SUCCESS, "12345678", 8, false);
        rounds++;
    }
    g_assert_cmpuint(rounds, >, 500);
    g_assert_cmpuint(rounds, <, 1500);
    g_assert_true(usb_device_has_guest_bytes(r->device));
    g_assert_false(usb_device_wants_guest_bytes(r->device));
    r->blocked = false;
    usb_device_guest_writable(r->device);
    usb_rig_run(r);
    g_assert_cmpuint(fake_guest_count(r->guest, usb_redir_interrupt_packet), ==, rounds);
    g_assert_cmpuint(fake_source_count(r->source, 0x81), >, 0); /* and it goes on */
    end(r);
}

static void test_cancel_flood(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

    usb_rig_enumerate(r);
    r->source->cancel_mode = FAKE_CANCEL_SILENT;
    for (unsigned i = 0; i < 1000; i++)
        fake_guest_cancel(r->guest, fake_guest_bulk_in(r->guest, 0x81, 64));
    usb_rig_run(r);
    g_assert_cmpuint(r->source->cancels, ==, USB_MAX_TOMBSTONES);
    usb_rig_wait(r, 900000);
    g_assert_cmpuint(r->source->cancels, ==, USB_MAX_TOMBSTONES);
    usb_rig_wait(r, 10000000);
    g_assert_cmpuint(r->source->cancels, ==, 1000);
    g_assert_cmpuint(fake_guest_count(r->guest, usb_redir_bulk_packet), ==, 1000);
    end(r);
}

/* ---- at random ---- */

/* Guest, source and clock do what they like in any order; at the end each packet has exactly one
 * answer and nothing is left over. */
static void test_random(void)
{
    static uint8_t bytes[200000];

    for (uint32_t seed = 1; seed <= 150; seed++) {
        uint32_t state = seed;
        UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH,
                                seed % 3 ? FREERDP : USB_QUIRK_TRANSFERS_MAY_PEND);
        GArray *ids = g_array_new(FALSE, FALSE, sizeof(uint64_t));
        UsbDeviceStats stats;

        usb_rig_enumerate(r);
        r->source->hold = true;
        r->source->cancel_mode = seed % 3;
        r->chunk = 65536;
        for (unsigned step = 0; step < 400; step++) {
            uint32_t a = mutate_next(&state), b = mutate_next(&state);
            uint64_t id = 0;

            switch (a % 12) {
            case 0:
            case 1:
                id = fake_guest_bulk_in(r->guest, 0x81, b % 70000);
                break;
            case 2:
                id = fake_guest_bulk_out(r->guest, 0x02, bytes, b % sizeof(bytes));
                break;
            case 3:
                id = fake_guest_control(r->guest, 0xa1, 0xfe, 0, 0, 1, NULL);
                break;
            case 4:
                if (ids->len)
                    fake_guest_cancel(r->guest, g_array_index(ids, uint64_t, b % ids->len));
                break;
            case 5:
                if (b % 20 == 0)
                    fake_guest_reset(r->guest);
                break;
            case 6:
                if (b % 5 == 0)
                    fake_guest_set_configuration(r->guest, 1);
                break;
            case 7:
                r->now += b % 3000000;
                usb_device_tick(r->device, r->now);
                break;
            case 8:
                r->blocked = b % 4 == 0;
                break;
            default:
                if (r->source->n_pending) {
                    unsigned at = b % r->source->n_pending;
                    const UsbRequest *q = &r->source->pending[at].request;
                    bool in = (q->endpoint & 0x80) != 0;
                    UsbStatus status = b % 7 < 5 ? USB_STATUS_SUCCESS : (UsbStatus)(b % 7);
                    uint32_t n = q->length ? (b >> 4) % (q->length + 1) : 0;

                    fake_source_complete(r->source, at, status, in ? bytes : NULL, n,
                                         in && b % 11 == 0);
                }
            }
            if (id)
                g_array_append_val(ids, id);
            usb_rig_run(r);
        }
        r->blocked = false;
        for (unsigned i = 0; i < ids->len; i++)
            fake_guest_cancel(r->guest, g_array_index(ids, uint64_t, i));
        usb_rig_wait(r, 600000000);
        for (unsigned i = 0; i < ids->len; i++) {
            unsigned n = 0;
            for (unsigned k = 0; k < r->guest->n_log; k++)
                n += r->guest->log[k].type >= usb_redir_control_packet &&
                     r->guest->log[k].id == g_array_index(ids, uint64_t, i);
            if (n != 1)
                g_error("seed %u: packet %u of %u has %u answers", seed, i, ids->len, n);
        }
        usb_device_stats(r->device, &stats);
        g_assert_cmpuint(stats.in_flight, ==, 0);
        g_assert_cmpuint(stats.bytes_in_flight, ==, 0);
        g_assert_cmpint(usb_device_state(r->device), ==, USB_DEVICE_CONNECTED);
        g_array_unref(ids);
        end(r);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/usb-requests/cancel", test_cancel);
    g_test_add_func("/usb-requests/cancel-control", test_cancel_control);
    g_test_add_func("/usb-requests/strays", test_strays);
    g_test_add_func("/usb-requests/timeouts", test_timeouts);
    g_test_add_func("/usb-requests/short-patience", test_short_patience);
    g_test_add_func("/usb-requests/silence", test_silence);
    g_test_add_func("/usb-requests/may-pend", test_may_pend);
    g_test_add_func("/usb-requests/unstamped", test_unstamped);
    g_test_add_func("/usb-requests/order", test_order);
    g_test_add_func("/usb-requests/retry-keeps-order", test_retry_keeps_order);
    g_test_add_func("/usb-requests/out-chunks", test_out_chunks);
    g_test_add_func("/usb-requests/refused-packets", test_refused_packets);
    g_test_add_func("/usb-requests/babble", test_babble);
    g_test_add_func("/usb-requests/clear-halt-cancels-all", test_clear_halt_cancels_all);
    g_test_add_func("/usb-requests/request-cap", test_request_cap);
    g_test_add_func("/usb-requests/byte-cap", test_byte_cap);
    g_test_add_func("/usb-requests/guest-does-not-read", test_guest_does_not_read);
    g_test_add_func("/usb-requests/cancel-flood", test_cancel_flood);
    g_test_add_func("/usb-requests/random", test_random);
    return g_test_run();
}
