/*
 * A UsbDevice whose client goes away and comes back: what the guest gets, and what the device sees.
 */
#include <stdio.h>

#include "usb_check.h"

#define SECOND 1000000u

static const GuestPacket *answered(UsbRig *r, int type, uint64_t id, UsbStatus status)
{
    const GuestPacket *p = answer(r, type, id);

    g_assert_cmpuint(p->status, ==, status);
    return p;
}

static const GuestPacket *bulk(UsbRig *r, uint64_t id, UsbStatus status)
{
    return answered(r, usb_redir_bulk_packet, id, status);
}

/* ---- Bulk-Only Transport as a guest speaks it ---- */

static uint64_t command(UsbRig *r, uint32_t length, bool in, const uint8_t *block, uint8_t len)
{
    return send_cbw(r, 0x04030201, length, in, block, len);
}

static uint8_t read_in(UsbRig *r, uint32_t length, const uint8_t *block, uint8_t len)
{
    bulk(r, command(r, length, true, block, len), USB_STATUS_SUCCESS);
    uint64_t data = fake_guest_bulk_in(r->guest, STICK_IN, length);
    usb_rig_run(r);
    const GuestPacket *p = fake_guest_find(r->guest, usb_redir_bulk_packet, data);
    g_assert_nonnull(p);
    if (p->status == USB_STATUS_STALL) {
        uint64_t clear = fake_guest_control(r->guest, 0x02, 1, 0, STICK_IN, 0, NULL);
        answered(r, usb_redir_control_packet, clear, USB_STATUS_SUCCESS);
    }
    p = bulk(r, fake_guest_bulk_in(r->guest, STICK_IN, 13), USB_STATUS_SUCCESS);
    g_assert_cmpuint(p->length, ==, 13);
    return p->data[12];
}

static const uint8_t inquiry[6] = {0x12, 0, 0, 0, 36, 0};
static const uint8_t capacity[10] = {0x25};

static void write_sector(UsbRig *r, uint8_t lba, UsbStatus status)
{
    const uint8_t block[10] = {0x2a, 0, 0, 0, 0, lba, 0, 0, 1, 0};
    uint8_t bytes[FAKE_BLOCK];

    memset(bytes, lba, sizeof(bytes));
    uint64_t cbw = command(r, FAKE_BLOCK, false, block, 10);
    uint64_t data = fake_guest_bulk_out(r->guest, STICK_OUT, bytes, sizeof(bytes));
    uint64_t csw = fake_guest_bulk_in(r->guest, STICK_IN, 13);
    bulk(r, cbw, status);
    bulk(r, data, status);
    bulk(r, csw, status);
    if (status == USB_STATUS_SUCCESS)
        g_assert_cmpuint(r->source->disk[lba * FAKE_BLOCK + 100], ==, lba);
}

/* A stick whose medium the guest knows. */
static UsbRig *stick(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

    usb_rig_enumerate(r);
    g_assert_cmpuint(read_in(r, 36, inquiry, 6), ==, 0);
    g_assert_cmpuint(read_in(r, 8, capacity, 10), ==, 0);
    fake_guest_clear_log(r->guest);
    return r;
}

/* ---- going and coming ---- */

static bool suspendable(const UsbRig *r)
{
    const char *why;
    bool can = usb_device_can_suspend(r->device, &why);

    g_assert_true(can == !why);
    return can;
}

static void suspend(UsbRig *r)
{
    g_assert_true(suspendable(r));
    usb_device_suspend(r->device);
    g_assert_true(usb_device_is_suspended(r->device));
    g_assert_null(r->source->base.sink);
    g_assert_false(usb_device_wants_guest_bytes(r->device));
    g_assert_cmpuint(usb_device_deadline(r->device), ==, UINT64_MAX);
    while (usb_device_has_guest_bytes(r->device))
        usb_device_guest_writable(r->device);
}

/* The same stick in a fresh connection. */
static FakeSource *back(UsbRig *r)
{
    FakeSource *old = r->source;
    FakeSource *f = fake_source_new(old->kind, old->speed);

    f->base.quirks = old->base.quirks;
    memcpy(f->config_raw, old->config_raw, sizeof(f->config_raw));
    if (old->disk)
        memcpy(f->disk, old->disk, FAKE_BLOCKS * FAKE_BLOCK);
    f->phase = old->phase; /* the device itself has not been reset */
    f->halted_in = old->halted_in;
    f->halted_out = old->halted_out;
    check_clean(r);
    fake_source_free(old);
    r->source = f;
    return f;
}

typedef struct Outcome {
    bool done;
    char error[160];
    UsbReplay *replay;
} Outcome;

static void on_done(void *user, const char *error)
{
    Outcome *o = user;

    g_assert_false(o->done);
    o->done = true;
    g_strlcpy(o->error, error ? error : "", sizeof(o->error));
    usb_replay_free(g_steal_pointer(&o->replay)); /* it may be freed from here */
}

/* Replays for at most @us; what it said, NULL if it is not done. */
static Outcome replay(UsbRig *r, uint64_t us)
{
    Outcome o = {0};
    uint64_t until = r->now + us;

    o.replay = usb_replay_new(r->device, &r->source->base, r->now, on_done, &o);
    while (!o.done && r->now < until) {
        uint64_t next = usb_replay_deadline(o.replay);

        r->now = MAX(r->now, MIN(next, until));
        usb_replay_tick(o.replay, r->now);
        if (!o.done)
            fake_source_run(r->source);
    }
    usb_replay_free(g_steal_pointer(&o.replay));
    return o;
}

static void resume(UsbRig *r)
{
    Outcome o = replay(r, SECOND);

    g_assert_true(o.done);
    g_assert_cmpstr(o.error, ==, "");
    usb_device_resume(r->device, &r->source->base, r->now);
    g_assert_false(usb_device_is_suspended(r->device));
}

static void refuses(UsbRig *r, const char *word)
{
    Outcome o = replay(r, 60 * (uint64_t)SECOND);

    g_assert_true(o.done);
    g_assert_nonnull(strstr(o.error, word));
    g_assert_true(usb_device_is_suspended(r->device));
}

/* ---- tests ---- */

static void test_in_flight(void)
{
    UsbRig *r = stick();
    static uint8_t bytes[USB_OUT_CHUNK_BYTES * 2];

    r->source->hold = true;
    uint64_t in = fake_guest_bulk_in(r->guest, STICK_IN, 4096);
    uint64_t in2 = fake_guest_bulk_in(r->guest, STICK_IN, 13);
    uint64_t out = fake_guest_bulk_out(r->guest, STICK_OUT, bytes, sizeof(bytes));
    uint64_t control = fake_guest_control(r->guest, 0xa1, 0xfe, 0, 0, 1, NULL);
    uint64_t second = fake_guest_control(r->guest, 0x80, 0, 0, 0, 2, NULL);
    usb_rig_run(r);
    unsigned submitted = r->source->submitted;
    suspend(r);
    bulk(r, in, USB_STATUS_IOERROR);
    bulk(r, in2, USB_STATUS_IOERROR);
    bulk(r, out, USB_STATUS_IOERROR);
    answered(r, usb_redir_control_packet, control, USB_STATUS_IOERROR);
    answered(r, usb_redir_control_packet, second, USB_STATUS_IOERROR);
    g_assert_cmpuint(r->source->submitted, ==, submitted);
    UsbDeviceStats stats;
    usb_device_stats(r->device, &stats);
    g_assert_cmpuint(stats.in_flight, ==, 0);

    /* A result that had come before an earlier one is not thrown away. */
    back(r);
    resume(r);
    write_sector(r, 1, USB_STATUS_SUCCESS);
    end(r);
}

static void test_result_kept(void)
{
    UsbRig *r = stick();

    r->source->hold = true;
    uint64_t first = fake_guest_bulk_in(r->guest, STICK_IN, 512);
    uint64_t second = fake_guest_bulk_in(r->guest, STICK_IN, 64);
    usb_rig_run(r);
    fake_source_complete(r->source, 1, USB_STATUS_SUCCESS, "result", 6, false);
    suspend(r);
    bulk(r, first, USB_STATUS_IOERROR);
    g_assert_cmpuint(bulk(r, second, USB_STATUS_SUCCESS)->length, ==, 6);
    end(r);
}

static void test_held(void)
{
    UsbRig *r = stick();

    suspend(r);
    const uint8_t block[10] = {0x2a, 0, 0, 0, 0, 7, 0, 0, 1, 0};
    uint8_t bytes[FAKE_BLOCK];
    memset(bytes, 7, sizeof(bytes));
    uint64_t cbw = command(r, FAKE_BLOCK, false, block, 10);
    uint64_t data = fake_guest_bulk_out(r->guest, STICK_OUT, bytes, sizeof(bytes));
    uint64_t csw = fake_guest_bulk_in(r->guest, STICK_IN, 13);
    usb_rig_wait(r, 9 * SECOND);
    g_assert_cmpuint(r->guest->n_log, ==, 0);

    back(r);
    resume(r);
    g_assert_cmpuint(r->source->writes, ==, 0); /* the replay writes nothing */
    bulk(r, cbw, USB_STATUS_SUCCESS);
    bulk(r, data, USB_STATUS_SUCCESS);
    bulk(r, csw, USB_STATUS_SUCCESS);
    g_assert_cmpuint(r->source->writes, ==, 1);
    g_assert_cmpuint(r->source->disk[7 * FAKE_BLOCK], ==, 7);
    g_assert_cmpuint(r->source->bulk_resets, ==, 1);
    g_assert_cmpuint(r->source->clear_halts, ==, 2);
    end(r);
}

/* A write is cut off between command and data: the guest is told, the device never sees the data
 * as a command, and nothing is written that the guest does not write again. */
static void test_cut_command(void)
{
    UsbRig *r = stick();
    const uint8_t block[10] = {0x2a, 0, 0, 0, 0, 9, 0, 0, 1, 0};
    uint8_t bytes[FAKE_BLOCK];

    memset(bytes, 9, sizeof(bytes));
    bulk(r, command(r, FAKE_BLOCK, false, block, 10), USB_STATUS_SUCCESS);
    r->source->hold = true;
    uint64_t data = fake_guest_bulk_out(r->guest, STICK_OUT, bytes, sizeof(bytes));
    usb_rig_run(r);
    suspend(r);
    bulk(r, data, USB_STATUS_IOERROR);
    g_assert_cmpint(r->source->phase, ==, FAKE_DATA_OUT);

    /* xHCI repeats a transfer that failed, then the driver asks for the status. */
    uint64_t again = fake_guest_bulk_out(r->guest, STICK_OUT, bytes, sizeof(bytes));
    uint64_t csw = fake_guest_bulk_in(r->guest, STICK_IN, 13);
    back(r);
    resume(r);
    bulk(r, again, USB_STATUS_STALL);
    bulk(r, csw, USB_STATUS_STALL);
    g_assert_cmpuint(r->source->disk[9 * FAKE_BLOCK], ==, 0);
    g_assert_cmpint(r->source->phase, ==, FAKE_CBW);

    /* The driver recovers: it resets the port, configures, and writes again. */
    fake_guest_reset(r->guest);
    answered(r, usb_redir_configuration_status, fake_guest_set_configuration(r->guest, 1),
             USB_STATUS_SUCCESS);
    write_sector(r, 9, USB_STATUS_SUCCESS);
    g_assert_cmpuint(r->source->writes, ==, 1);
    end(r);
}

static void test_reset_meanwhile(void)
{
    UsbRig *r = stick();

    suspend(r);
    uint64_t csw = fake_guest_bulk_in(r->guest, STICK_IN, 13);
    fake_guest_cancel(r->guest, csw);
    fake_guest_reset(r->guest);
    uint64_t set = fake_guest_set_configuration(r->guest, 1);
    usb_rig_wait(r, 5 * SECOND);
    g_assert_cmpuint(r->guest->n_log, ==, 0);
    back(r);
    resume(r);
    bulk(r, csw, USB_STATUS_STALL);
    answered(r, usb_redir_configuration_status, set, USB_STATUS_SUCCESS);
    write_sector(r, 3, USB_STATUS_SUCCESS);
    end(r);
}

static void test_attention(void)
{
    UsbRig *r = stick();

    suspend(r);
    back(r)->attention = 0x29; /* FreeRDP has reset it when it let go of it */
    resume(r);
    write_sector(r, 1, USB_STATUS_SUCCESS);
    suspend(r); /* and again */
    back(r);
    resume(r);
    write_sector(r, 2, USB_STATUS_SUCCESS);
    suspend(r);
    back(r)->attention = 0x28; /* another medium, perhaps */
    refuses(r, "medium");
    end(r);
}

/* Pulled out and plugged in again: a write cache is empty now. */
static void test_power_lost(void)
{
    UsbRig *r = stick();

    suspend(r);
    FakeSource *f = back(r);
    f->attention = 0x29;
    f->qualifier = 1;
    refuses(r, "power");
    end(r);
}

static void test_other_medium(void)
{
    UsbRig *r = stick();

    suspend(r);
    back(r)->blocks = FAKE_BLOCKS - 1;
    refuses(r, "size");
    back(r)->no_medium = true;
    refuses(r, "medium");
    snprintf(back(r)->name, 17, "OTHER STICK     ");
    refuses(r, "name");
    g_assert_cmpuint(r->source->writes, ==, 0);
    back(r); /* the right one after all */
    resume(r);
    write_sector(r, 1, USB_STATUS_SUCCESS);
    end(r);
}

static void test_replay_fails(void)
{
    UsbRig *r = stick();

    suspend(r);
    back(r)->hold = true;
    uint64_t before = r->now;
    refuses(r, "in time");
    g_assert_cmpuint(r->now - before, <=, 25 * SECOND);
    back(r)->refuse = true;
    refuses(r, "does not take requests");
    back(r)->fail_select = true;
    refuses(r, "configured");
    back(r)->mute_control = true;
    refuses(r, "in time");
    back(r)->stall_in = 20;
    refuses(r, "does not answer");

    Outcome o = {0};
    back(r);
    o.replay = usb_replay_new(r->device, &r->source->base, r->now, on_done, &o);
    usb_replay_tick(o.replay, r->now);
    fake_source_unplug(r->source);
    g_assert_true(o.done);
    g_assert_cmpstr(o.error, ==, "it was unplugged");

    back(r);
    o = (Outcome){0};
    o.replay = usb_replay_new(r->device, &r->source->base, r->now, on_done, &o);
    usb_replay_tick(o.replay, r->now);
    usb_replay_free(o.replay); /* the client is away again in mid-replay */
    g_assert_false(o.done);
    g_assert_null(r->source->base.sink);
    g_assert_cmpuint(r->source->cancels, ==, 1);
    end(r);
}

static void test_keyboard(void)
{
    UsbRig *r = usb_rig_new(FAKE_KEYBOARD, USB_SPEED_FULL, FREERDP);

    usb_rig_enumerate(r);
    answered(r, usb_redir_interrupt_receiving_status, fake_guest_start_interrupt(r->guest, 0x81),
             USB_STATUS_SUCCESS);
    fake_source_key(r->source, 4);
    usb_rig_run(r);
    g_assert_cmpuint(fake_guest_count(r->guest, usb_redir_interrupt_packet), ==, 1);
    unsigned window = fake_source_count(r->source, 0x81);
    g_assert_cmpuint(window, >, 0);
    fake_guest_clear_log(r->guest);

    suspend(r);
    g_assert_cmpuint(fake_guest_count(r->guest, usb_redir_interrupt_packet), ==, 1);
    const GuestPacket *p = fake_guest_find(r->guest, usb_redir_interrupt_packet, 1);
    g_assert_nonnull(p);
    g_assert_cmpuint(p->status, ==, USB_STATUS_IOERROR);
    fake_guest_clear_log(r->guest);

    back(r);
    resume(r);
    g_assert_cmpuint(r->source->selects, ==, 1);
    g_assert_cmpuint(fake_source_count(r->source, 0x81), ==, window);
    fake_source_key(r->source, 5);
    usb_rig_run(r);
    p = fake_guest_find(r->guest, usb_redir_interrupt_packet, 2);
    g_assert_nonnull(p);
    g_assert_cmpuint(p->status, ==, USB_STATUS_SUCCESS);
    g_assert_cmpuint(p->data[2], ==, 5);
    end(r);
}

/* A device of no class with two settings. */
static void test_alternate_setting(void)
{
    FakeSource *f = fake_source_new(FAKE_STICK, USB_SPEED_SUPER);

    for (unsigned i = 0; i + 9 < f->config_len; i += f->config_raw[i])
        if (f->config_raw[i + 1] == 4)
            f->config_raw[i + 5] = 0xff;
    UsbRig *r = usb_rig_with(f, FREERDP);
    usb_rig_enumerate(r);
    answered(r, usb_redir_alt_setting_status, fake_guest_set_alt(r->guest, 0, 1),
             USB_STATUS_SUCCESS);
    suspend(r);
    back(r);
    resume(r);
    g_assert_cmpuint(r->source->alt[0], ==, 1);
    g_assert_cmpuint(r->source->selects, ==, 1);
    g_assert_cmpuint(r->source->bulk_resets, ==, 0);
    g_assert_cmpuint(r->source->commands, ==, 0);
    answered(r, usb_redir_alt_setting_status, fake_guest_set_alt(r->guest, 0, 0),
             USB_STATUS_SUCCESS);
    g_assert_cmpuint(r->source->alt[0], ==, 0);
    suspend(r);
    back(r);
    resume(r);
    g_assert_cmpuint(r->source->alt[0], ==, 0);
    end(r);

    r = usb_rig_new(FAKE_STICK, USB_SPEED_SUPER, FREERDP);
    usb_rig_enumerate(r);
    read_in(r, 36, inquiry, 6);
    read_in(r, 8, capacity, 10);
    g_assert_true(suspendable(r));
    answered(r, usb_redir_alt_setting_status, fake_guest_set_alt(r->guest, 0, 1),
             USB_STATUS_SUCCESS);
    g_assert_false(suspendable(r)); /* UAS */
    end(r);
}

/* What the driver has set is set again, in its order and as it was last; what nobody understands
 * keeps a device from being kept. */
static void test_settings(void)
{
    UsbRig *r = usb_rig_new(FAKE_KEYBOARD, USB_SPEED_FULL, FREERDP);

    usb_rig_enumerate(r);
    answered(r, usb_redir_control_packet,
             fake_guest_control(r->guest, 0x21, 0x0a, 0x0400, 0, 0, NULL),
             USB_STATUS_SUCCESS); /* SET_IDLE */
    answered(r, usb_redir_control_packet, fake_guest_control(r->guest, 0x21, 0x0b, 0, 0, 0, NULL),
             USB_STATUS_SUCCESS); /* SET_PROTOCOL */
    answered(r, usb_redir_control_packet,
             fake_guest_control(r->guest, 0x21, 0x0a, 0x0400, 0, 0, NULL), USB_STATUS_SUCCESS);
    uint8_t leds = 2; /* SET_REPORT: not a setting */
    answered(r, usb_redir_control_packet,
             fake_guest_control(r->guest, 0x21, 0x09, 0x0200, 0, 1, &leds), USB_STATUS_SUCCESS);
    suspend(r);
    FakeSource *f = back(r);
    f->hold = true;
    Outcome o = {0};
    o.replay = usb_replay_new(r->device, &f->base, r->now, on_done, &o);
    usb_replay_tick(o.replay, r->now);
    fake_source_complete(f, 0, USB_STATUS_SUCCESS, NULL, 0, false); /* SELECT_CONFIGURATION */
    g_assert_cmpuint(f->n_pending, ==, 1);
    g_assert_cmpuint(f->pending[0].request.setup.request, ==, 0x0b);
    fake_source_complete(f, 0, USB_STATUS_SUCCESS, NULL, 0, false);
    g_assert_cmpuint(f->pending[0].request.setup.request, ==, 0x0a);
    g_assert_cmpuint(f->pending[0].request.setup.value, ==, 0x0400);
    g_assert_false(o.done);
    fake_source_complete(f, 0, USB_STATUS_SUCCESS, NULL, 0, false);
    g_assert_true(o.done);
    g_assert_cmpstr(o.error, ==, "");
    g_assert_cmpuint(f->leds, ==, 0);
    f->hold = false;
    usb_device_resume(r->device, &f->base, r->now);

    g_assert_true(suspendable(r));
    uint64_t vendor = fake_guest_control(r->guest, 0x40, 0x01, 0, 0, 0, NULL);
    r->source->hold = true;
    usb_rig_run(r);
    fake_source_complete(r->source, 0, USB_STATUS_SUCCESS, NULL, 0, false);
    answered(r, usb_redir_control_packet, vendor, USB_STATUS_SUCCESS);
    g_assert_false(suspendable(r));
    r->source->hold = false;
    fake_guest_reset(r->guest); /* which undoes it */
    usb_rig_run(r);
    g_assert_true(suspendable(r));
    end(r);
}

/* The guest's driver sends a request that the device carries out. */
static void driver_sends(UsbRig *r, uint8_t type, uint8_t request, uint16_t value, uint16_t index,
                         uint16_t length, const void *data)
{
    uint64_t id = fake_guest_control(r->guest, type, request, value, index, length, data);

    r->source->hold = true;
    usb_rig_run(r);
    fake_source_complete(r->source, 0, USB_STATUS_SUCCESS, NULL, 0, false);
    answered(r, usb_redir_control_packet, id, USB_STATUS_SUCCESS);
    r->source->hold = false;
}

typedef struct Wanted {
    uint8_t request;
    uint16_t value, index;
    uint8_t first; /* byte of data */
} Wanted;

/* The device comes back, and after @selects requests these settings are made, nothing else. */
static void check_replayed(UsbRig *r, unsigned selects, const Wanted *wanted, unsigned n)
{
    suspend(r);
    FakeSource *f = back(r);
    Outcome o = {0};

    f->hold = true;
    o.replay = usb_replay_new(r->device, &f->base, r->now, on_done, &o);
    usb_replay_tick(o.replay, r->now);
    for (unsigned i = 0; i < selects + n; i++) {
        g_assert_false(o.done);
        g_assert_cmpuint(f->n_pending, ==, 1);
        const FakeRequest *q = &f->pending[0];
        if (i >= selects) {
            g_assert_cmpuint(q->request.kind, ==, USB_REQUEST_CONTROL);
            g_assert_cmpuint(q->request.setup.request, ==, wanted[i - selects].request);
            g_assert_cmpuint(q->request.setup.value, ==, wanted[i - selects].value);
            g_assert_cmpuint(q->request.setup.index, ==, wanted[i - selects].index);
            if (q->request.length)
                g_assert_cmpuint(q->data[0], ==, wanted[i - selects].first);
        }
        fake_source_complete(f, 0, USB_STATUS_SUCCESS, NULL, 0, false);
    }
    g_assert_true(o.done);
    g_assert_cmpstr(o.error, ==, "");
    f->hold = false;
    f->selected = 1;
    usb_device_resume(r->device, &f->base, r->now);
    usb_rig_run(r);
}

/* A headset's sampling rate belongs to an endpoint, its volumes to the device. */
static void test_audio_settings(void)
{
    UsbRig *r = usb_rig_new(FAKE_HEADSET, USB_SPEED_FULL, FREERDP);
    static const uint8_t slow[] = {0x44, 0xac, 0}, fast[] = {0x80, 0xbb, 0}, loud[] = {7, 0},
                         soft[] = {3, 0};
    static const Wanted wanted[] = {
        {1, 0x0201, 0x0600, 3}, {1, 0x0202, 0x0600, 7}, {1, 0x0100, 0x03, 0x80}};

    usb_rig_enumerate(r);
    answered(r, usb_redir_alt_setting_status, fake_guest_set_alt(r->guest, 1, 1),
             USB_STATUS_SUCCESS);
    driver_sends(r, 0x22, 1, 0x0100, 0x03, 3, slow);
    driver_sends(r, 0x21, 1, 0x0201, 0x0600, 2, soft); /* the left channel's volume */
    driver_sends(r, 0x21, 1, 0x0202, 0x0600, 2, loud);
    driver_sends(r, 0x22, 1, 0x0100, 0x03, 3, fast);
    check_replayed(r, 2, wanted, 3);
    answered(r, usb_redir_alt_setting_status, fake_guest_set_alt(r->guest, 1, 0),
             USB_STATUS_SUCCESS);
    check_replayed(r, 1, wanted, 2);              /* the endpoint is not there */
    driver_sends(r, 0x21, 5, 0, 0x0600, 1, soft); /* SET_MEM */
    g_assert_false(suspendable(r));
    end(r);
}

/* A network adapter's filters (CDC ECM); not what only a dialogue can have brought about. */
static void test_network_settings(void)
{
    FakeSource *f = fake_source_new(FAKE_KEYBOARD, USB_SPEED_HIGH);
    static const Wanted wanted[] = {{0x40, 1, 0, 1}, {0x43, 0x0c, 0, 0}};
    static const uint8_t group[6] = {1, 0, 0x5e, 0, 0, 1};

    for (unsigned i = 0; i + 9 < f->config_len; i += f->config_raw[i])
        if (f->config_raw[i + 1] == 4)
            f->config_raw[i + 5] = 2;
    UsbRig *r = usb_rig_with(f, FREERDP);
    usb_rig_enumerate(r);
    driver_sends(r, 0x21, 0x43, 0x0e, 0, 0, NULL);
    driver_sends(r, 0x21, 0x40, 1, 0, 6, group);
    driver_sends(r, 0x21, 0x43, 0x0c, 0, 0, NULL);
    check_replayed(r, 1, wanted, 2);
    driver_sends(r, 0x21, 0x86, 0, 0, 6, group); /* NCM: SET_NTB_INPUT_SIZE */
    g_assert_false(suspendable(r));
    end(r);
}

static void test_not_configured(void)
{
    UsbRig *r = usb_rig_new(FAKE_KEYBOARD, USB_SPEED_FULL, FREERDP);

    g_assert_false(suspendable(r)); /* the guest has not got it yet */
    usb_rig_run(r);
    suspend(r);
    back(r);
    resume(r);
    g_assert_cmpuint(r->source->submitted, ==, 0);
    usb_rig_enumerate(r);
    end(r);
}

static void test_configuring(void)
{
    UsbRig *r = usb_rig_new(FAKE_KEYBOARD, USB_SPEED_FULL, FREERDP);

    usb_rig_run(r);
    r->source->hold = true;
    uint64_t set = fake_guest_set_configuration(r->guest, 1);
    usb_rig_run(r);
    suspend(r);
    answered(r, usb_redir_configuration_status, set, USB_STATUS_IOERROR);
    back(r);
    resume(r);
    answered(r, usb_redir_configuration_status, fake_guest_set_configuration(r->guest, 1),
             USB_STATUS_SUCCESS);
    end(r);
}

static void test_unsuitable(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

    usb_rig_enumerate(r);
    g_assert_false(suspendable(r)); /* the guest has asked nothing yet */
    read_in(r, 36, inquiry, 6);
    g_assert_false(suspendable(r));
    r->source->no_medium = true;
    g_assert_cmpuint(read_in(r, 8, capacity, 10), ==, 1);
    g_assert_false(suspendable(r)); /* no medium is no identity */
    r->source->no_medium = false;
    g_assert_cmpuint(read_in(r, 8, capacity, 10), ==, 0);
    g_assert_true(suspendable(r));
    fake_guest_reset(r->guest); /* not configured: nobody could be asked */
    usb_rig_run(r);
    g_assert_false(suspendable(r));
    end(r);

    r = usb_rig_new(FAKE_KEYBOARD, USB_SPEED_FULL, FREERDP);
    UsbDescriptors *d = (UsbDescriptors *)usb_device_descriptors(r->device);
    usb_rig_enumerate(r);
    g_assert_true(suspendable(r));
    d->serial[0] = '\0';
    g_assert_false(suspendable(r));
    end(r);
}

static void test_ends_suspended(void)
{
    UsbRig *r = stick();

    suspend(r);
    fake_guest_bulk_in(r->guest, STICK_IN, 13);
    usb_device_disconnect(r->device, "the grace is over");
    usb_rig_run(r);
    g_assert_cmpint(usb_device_state(r->device), ==, USB_DEVICE_GONE);
    g_assert_nonnull(fake_guest_find(r->guest, usb_redir_device_disconnect, UINT64_MAX));
    end(r);

    r = stick(); /* QEMU is gone when the errors are to be written */
    r->source->hold = true;
    fake_guest_bulk_in(r->guest, STICK_IN, 13);
    usb_rig_run(r);
    r->dead = true;
    usb_device_suspend(r->device);
    g_assert_cmpint(usb_device_state(r->device), ==, USB_DEVICE_BROKEN);
    end(r);
}

static void test_same(void)
{
    FakeSource *f = fake_source_new(FAKE_STICK, USB_SPEED_SUPER);
    UsbDescriptors *a = fake_source_descriptors(f), *b = fake_source_descriptors(f);

    g_assert_true(usb_descriptors_same(a, b));
    for (unsigned i = 0; i < sizeof(b->device_raw); i++) {
        b->device_raw[i] ^= 1;
        g_assert_false(usb_descriptors_same(a, b));
        b->device_raw[i] ^= 1;
    }
    for (unsigned i = 0; i < b->configurations[0].raw_len; i++) {
        b->configurations[0].raw[i] ^= 0x80;
        g_assert_false(usb_descriptors_same(a, b));
        b->configurations[0].raw[i] ^= 0x80;
    }
    for (unsigned i = 0; i < b->bos_len; i++) {
        b->bos[i] ^= 1;
        g_assert_false(usb_descriptors_same(a, b));
        b->bos[i] ^= 1;
    }
    g_assert_cmpuint(b->strings_len, >, 4);
    for (unsigned i = 0; i < b->strings_len; i++) {
        b->strings[i] ^= 1;
        g_assert_false(usb_descriptors_same(a, b));
        b->strings[i] ^= 1;
    }
    b->strings_len--;
    g_assert_false(usb_descriptors_same(a, b));
    b->strings_len++;
    b->speed = USB_SPEED_HIGH;
    g_assert_false(usb_descriptors_same(a, b));
    usb_descriptors_unref(a);
    usb_descriptors_unref(b);
    fake_source_free(f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/usb-suspend/in-flight", test_in_flight);
    g_test_add_func("/usb-suspend/result-kept", test_result_kept);
    g_test_add_func("/usb-suspend/held", test_held);
    g_test_add_func("/usb-suspend/cut-command", test_cut_command);
    g_test_add_func("/usb-suspend/reset-meanwhile", test_reset_meanwhile);
    g_test_add_func("/usb-suspend/attention", test_attention);
    g_test_add_func("/usb-suspend/power-lost", test_power_lost);
    g_test_add_func("/usb-suspend/other-medium", test_other_medium);
    g_test_add_func("/usb-suspend/replay-fails", test_replay_fails);
    g_test_add_func("/usb-suspend/keyboard", test_keyboard);
    g_test_add_func("/usb-suspend/alternate-setting", test_alternate_setting);
    g_test_add_func("/usb-suspend/settings", test_settings);
    g_test_add_func("/usb-suspend/settings/audio", test_audio_settings);
    g_test_add_func("/usb-suspend/settings/network", test_network_settings);
    g_test_add_func("/usb-suspend/not-configured", test_not_configured);
    g_test_add_func("/usb-suspend/configuring", test_configuring);
    g_test_add_func("/usb-suspend/unsuitable", test_unsuitable);
    g_test_add_func("/usb-suspend/ends-suspended", test_ends_suspended);
    g_test_add_func("/usb-suspend/same", test_same);
    return g_test_run();
}
