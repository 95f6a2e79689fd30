/*
 * The whole UsbDevice between an emulated device and a guest's end of usbredir: what a guest does
 * to a stick and a keyboard, from the first descriptor to the end.
 */
#include "usb_check.h"

/* ---- enumeration ---- */

static void test_connect(void)
{
    static const UsbSpeed speeds[] = {USB_SPEED_FULL, USB_SPEED_HIGH, USB_SPEED_SUPER};

    for (unsigned i = 0; i < 3; i++) {
        FakeSource *source = fake_source_new(FAKE_STICK, speeds[i]);
        source->base.as_is = true; /* test_usb_shown.c has the others */
        UsbRig *r = usb_rig_with(source, FREERDP);

        g_assert_true(usb_device_has_guest_bytes(r->device));
        g_assert_cmpint(usb_device_state(r->device), ==, USB_DEVICE_HELLO);
        usb_rig_run(r);
        g_assert_cmpint(usb_device_state(r->device), ==, USB_DEVICE_CONNECTED);
        g_assert_cmpuint(r->guest->n_log, ==, 4);
        g_assert_cmpint(r->guest->log[0].type, ==, usb_redir_hello);
        const GuestPacket *info = &r->guest->log[1], *ep = &r->guest->log[2],
                          *connect = &r->guest->log[3];
        g_assert_cmpint(info->type, ==, usb_redir_interface_info);
        g_assert_cmpuint(info->info.interface_count, ==, 1);
        g_assert_cmpuint(info->info.interface_class[0], ==, 8);
        g_assert_cmpint(ep->type, ==, usb_redir_ep_info);
        g_assert_cmpuint(ep->ep.type[0], ==, usb_redir_type_control);
        g_assert_cmpuint(ep->ep.type[2], ==, usb_redir_type_bulk);
        g_assert_cmpuint(ep->ep.type[17], ==, usb_redir_type_bulk);
        g_assert_cmpuint(ep->ep.type[18], ==, usb_redir_type_invalid);
        g_assert_cmpuint(ep->ep.max_packet_size[17], ==,
                         speeds[i] == USB_SPEED_SUPER  ? 1024
                         : speeds[i] == USB_SPEED_HIGH ? 512
                                                       : 64);
        g_assert_cmpint(connect->type, ==, usb_redir_device_connect);
        g_assert_cmpuint(connect->connect.speed, ==, speeds[i]);
        g_assert_cmpuint(connect->connect.vendor_id, ==, 0x1234);
        g_assert_cmpuint(r->source->submitted, ==, 0);
        end(r);
    }
}

static void test_descriptors_are_local(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_SUPER, FREERDP);

    usb_rig_run(r);
    uint64_t dev = fake_guest_control(r->guest, 0x80, 6, 0x0100, 0, 18, NULL);
    uint64_t head = fake_guest_control(r->guest, 0x80, 6, 0x0200, 0, 9, NULL);
    uint64_t conf = fake_guest_control(r->guest, 0x80, 6, 0x0200, 0, 4096, NULL);
    uint64_t none = fake_guest_control(r->guest, 0x80, 6, 0x0201, 0, 9, NULL);
    uint64_t bos = fake_guest_control(r->guest, 0x80, 6, 0x0f00, 0, 255, NULL);
    uint64_t get = fake_guest_control(r->guest, 0x80, 8, 0, 0, 1, NULL);
    const GuestPacket *p = control_answer(r, dev, USB_STATUS_SUCCESS, 18);
    g_assert_cmpmem(p->data, 18, r->source->device_raw, 18);
    control_answer(r, head, USB_STATUS_SUCCESS, 9);
    control_answer(r, none, USB_STATUS_STALL, 0);
    control_answer(r, bos, USB_STATUS_SUCCESS, 22);
    p = control_answer(r, get, USB_STATUS_SUCCESS, 1);
    g_assert_cmpuint(p->data[0], ==, 1);
    g_assert_cmpuint(r->source->submitted, ==, 0);

    /* at super speed: no streams, no UAS; all else as it was */
    p = control_answer(r, conf, USB_STATUS_SUCCESS, r->source->config_len);
    unsigned companions = 0, uas = 0;
    for (unsigned at = 0; at < p->length; at += p->data[at]) {
        const uint8_t *d = p->data + at;
        if (d[1] == 0x30) {
            companions++;
            g_assert_cmpuint(d[3] & 0x1f, ==, 0);
        }
        if (d[1] == 4 && d[3] == 1) {
            uas++;
            g_assert_cmpuint(d[5], ==, 0xff);
        }
    }
    g_assert_cmpuint(companions, ==, 6);
    g_assert_cmpuint(uas, ==, 1);

    uint64_t string = fake_guest_control(r->guest, 0x80, 6, 0x0303, 0x0409, 255, NULL);
    control_answer(r, string, USB_STATUS_SUCCESS, 26);
    g_assert_cmpuint(r->source->submitted, ==, 1);
    end(r);
}

static void test_never_forwarded(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);
    static const uint16_t stalled[][3] = {
        {0x00, 5, 7}, {0x00, 9, 1}, {0x01, 11, 1}, {0x00, 3, 2}, {0x02, 1, 0}};
    static const uint16_t swallowed[][3] = {
        {0x00, 3, 48}, {0x00, 1, 49}, {0x00, 3, 50}, {0x00, 0x31, 40}};

    usb_rig_enumerate(r);
    unsigned before = r->source->submitted;
    for (unsigned i = 0; i < 5; i++) {
        uint64_t id = fake_guest_control(r->guest, (uint8_t)stalled[i][0], (uint8_t)stalled[i][1],
                                         stalled[i][2], 0x8f, 0, NULL);
        control_answer(r, id, USB_STATUS_STALL, 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        uint64_t id = fake_guest_control(r->guest, (uint8_t)swallowed[i][0],
                                         (uint8_t)swallowed[i][1], swallowed[i][2], 0, 0, NULL);
        control_answer(r, id, USB_STATUS_SUCCESS, 0);
    }
    uint64_t sel = fake_guest_control(r->guest, 0, 0x30, 0, 0, 6, "\1\2\3\4\5\6");
    control_answer(r, sel, USB_STATUS_SUCCESS, 6);
    uint64_t big = fake_guest_control(r->guest, 0xc0, 1, 0, 0, 4097, NULL);
    control_answer(r, big, USB_STATUS_INVAL, 0);
    g_assert_cmpuint(r->source->submitted, ==, before);
    end(r);
}

/* What could change the device itself is its user's to give: as it came, and the answer as it is.
 */
static void test_forwarded(void)
{
    static const uint16_t requests[][3] = {{0x00, 7, 0x0300}, {0x21, 1, 0}, {0x40, 0xa0, 0xe600}};
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

    usb_rig_enumerate(r);
    unsigned before = r->source->submitted;
    for (unsigned i = 0; i < 3; i++) {
        uint64_t id = fake_guest_control(r->guest, (uint8_t)requests[i][0], (uint8_t)requests[i][1],
                                         requests[i][2], 0, 4, "\4\3fw");
        control_answer(r, id, USB_STATUS_STALL, 0); /* this device knows none of them */
        g_assert_cmpuint(r->source->submitted, ==, ++before);
    }
    end(r);
}

static void test_configuration(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_SUPER, FREERDP);

    usb_rig_run(r);
    /* not configured: nothing reaches the device */
    uint64_t early = fake_guest_bulk_in(r->guest, 0x81, 13);
    bulk_answer(r, early, USB_STATUS_STALL, 0);
    uint64_t alt = fake_guest_set_alt(r->guest, 0, 1);
    g_assert_cmpuint(answer(r, usb_redir_alt_setting_status, alt)->status, ==, USB_STATUS_INVAL);

    fake_guest_clear_log(r->guest);
    uint64_t id = fake_guest_set_configuration(r->guest, 1);
    const GuestPacket *p = answer(r, usb_redir_configuration_status, id);
    g_assert_cmpuint(p->status, ==, USB_STATUS_SUCCESS);
    g_assert_cmpuint(p->value, ==, 1);
    g_assert_cmpint(r->guest->log[0].type, ==, usb_redir_interface_info);
    g_assert_cmpint(r->guest->log[1].type, ==, usb_redir_ep_info);
    g_assert_cmpint(r->guest->log[2].type, ==, usb_redir_configuration_status);
    g_assert_cmpuint(r->source->selects, ==, 1);

    /* the same again costs nothing */
    id = fake_guest_set_configuration(r->guest, 1);
    g_assert_cmpuint(answer(r, usb_redir_configuration_status, id)->status, ==, 0);
    g_assert_cmpuint(r->source->selects, ==, 1);

    /* a configuration that is not there keeps the old one */
    id = fake_guest_set_configuration(r->guest, 9);
    p = answer(r, usb_redir_configuration_status, id);
    g_assert_cmpuint(p->status, ==, USB_STATUS_INVAL);
    g_assert_cmpuint(p->value, ==, 1);

    /* alternate settings, and back by selecting the configuration again */
    fake_guest_clear_log(r->guest);
    id = fake_guest_set_alt(r->guest, 0, 1);
    p = answer(r, usb_redir_alt_setting_status, id);
    g_assert_cmpuint(p->status, ==, 0);
    g_assert_cmpuint(p->alt, ==, 1);
    g_assert_cmpuint(r->source->alt[0], ==, 1);
    g_assert_cmpuint(fake_guest_find(r->guest, usb_redir_ep_info, UINT64_MAX)->ep.type[4], ==,
                     usb_redir_type_bulk);
    id = fake_guest_set_alt(r->guest, 7, 0);
    p = answer(r, usb_redir_alt_setting_status, id);
    g_assert_cmpuint(p->status, ==, USB_STATUS_INVAL);
    g_assert_cmpuint(p->alt, ==, 0xff);
    id = fake_guest_set_configuration(r->guest, 1);
    answer(r, usb_redir_configuration_status, id);
    g_assert_cmpuint(r->source->selects, ==, 2);
    g_assert_cmpuint(r->source->alt[0], ==, 0);

    /* failure: the old value, and no endpoints until it works */
    r->source->fail_select = true;
    id = fake_guest_set_alt(r->guest, 0, 1);
    p = answer(r, usb_redir_alt_setting_status, id);
    g_assert_cmpuint(p->status, ==, USB_STATUS_IOERROR);
    g_assert_cmpuint(p->alt, ==, 0);

    /* unconfigured */
    fake_guest_clear_log(r->guest);
    id = fake_guest_set_configuration(r->guest, 0);
    p = answer(r, usb_redir_configuration_status, id);
    g_assert_cmpuint(p->status, ==, 0);
    g_assert_cmpuint(p->value, ==, 0);
    g_assert_cmpuint(
        fake_guest_find(r->guest, usb_redir_interface_info, UINT64_MAX)->info.interface_count, ==,
        0);
    id = fake_guest_set_configuration(r->guest, 1);
    g_assert_cmpuint(answer(r, usb_redir_configuration_status, id)->status, ==, USB_STATUS_IOERROR);
    r->source->fail_select = false;
    id = fake_guest_set_configuration(r->guest, 1);
    g_assert_cmpuint(answer(r, usb_redir_configuration_status, id)->status, ==, 0);
    check_stick_works(r, 1);
    end(r);
}

/* Nothing behind a SELECT_* is looked at before it has ended. */
static void test_select_holds_the_rest(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);
    uint8_t cb[6] = {0x12, 0, 0, 0, 36, 0};

    usb_rig_run(r);
    r->source->hold = true;
    uint64_t id = fake_guest_set_configuration(r->guest, 1);
    uint64_t cbw = send_cbw(r, 1, 36, true, cb, 6);
    usb_rig_run(r);
    g_assert_false(usb_device_wants_guest_bytes(r->device));
    g_assert_cmpuint(r->source->n_pending, ==, 1);
    unanswered(r, id);
    r->source->hold = false;
    usb_rig_run(r);
    answer(r, usb_redir_configuration_status, id);
    bulk_answer(r, cbw, USB_STATUS_SUCCESS, 31);
    g_assert_true(usb_device_wants_guest_bytes(r->device));
    end(r);
}

/* ---- the stick ---- */

static void test_stick(void)
{
    static uint8_t bytes[2 << 20], back[2 << 20];
    static const UsbSpeed speeds[] = {USB_SPEED_FULL, USB_SPEED_HIGH, USB_SPEED_SUPER};

    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i ^ i >> 8 ^ i >> 16);
    for (unsigned i = 0; i < 3; i++) {
        UsbRig *r = usb_rig_new(FAKE_STICK, speeds[i], FREERDP);
        uint8_t inquiry[6] = {0x12, 0, 0, 0, 36, 0};
        UsbDeviceStats stats;

        r->chunk = i == 1 ? 7 : 0; /* however the bytes are cut */
        usb_rig_enumerate(r);
        r->chunk = i == 1 ? 4093 : 0;
        uint64_t lun = fake_guest_control(r->guest, 0xa1, 0xfe, 0, 0, 1, NULL);
        control_answer(r, lun, USB_STATUS_SUCCESS, 1);
        send_cbw(r, 1, 36, true, inquiry, 6);
        uint64_t data = fake_guest_bulk_in(r->guest, 0x81, 36);
        uint64_t csw = fake_guest_bulk_in(r->guest, 0x81, 13);
        const GuestPacket *p = bulk_answer(r, data, USB_STATUS_SUCCESS, 36);
        g_assert_cmpint(memcmp(p->data + 8, "QRDP", 4), ==, 0);
        check_csw(bulk_answer(r, csw, USB_STATUS_SUCCESS, 13), 1, 0);

        write_blocks(r, 2, 0, 240, bytes); /* 120 KiB */
        read_blocks(r, 3, 0, 240, back);
        g_assert_cmpmem(bytes, 240 * 512, back, 240 * 512);
        write_blocks(r, 4, 0, 4096, bytes); /* 2 MiB: 32 chunks */
        read_blocks(r, 5, 0, 4096, back);
        g_assert_cmpmem(bytes, sizeof(bytes), back, sizeof(back));
        usb_device_stats(r->device, &stats);
        g_assert_cmpuint(stats.in_flight, ==, 0);
        g_assert_cmpuint(stats.bytes_in_flight, ==, 0);
        g_assert_cmpuint(stats.requests, ==, stats.completions);
        g_assert_cmpuint(stats.bytes_out, >, 2 << 20);
        end(r);
    }
}

/* An unknown command: the data stage stalls, the guest clears the halt and reads the status. */
static void test_stall_recovery(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);
    uint8_t cb[6] = {0x5a};

    usb_rig_enumerate(r);
    send_cbw(r, 1, 64, true, cb, 6);
    uint64_t data = fake_guest_bulk_in(r->guest, 0x81, 64);
    bulk_answer(r, data, USB_STATUS_STALL, 0);
    uint64_t clear = fake_guest_control(r->guest, 0x02, 1, 0, 0x81, 0, NULL);
    control_answer(r, clear, USB_STATUS_SUCCESS, 0);
    g_assert_cmpuint(r->source->clear_halts, ==, 1);
    uint64_t csw = fake_guest_bulk_in(r->guest, 0x81, 13);
    check_csw(bulk_answer(r, csw, USB_STATUS_SUCCESS, 13), 1, 1);
    check_stick_works(r, 5);
    end(r);
}

/* A wrong CBW: the device wants reset recovery, which the guest does by the book. */
static void test_bulk_only_reset(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

    usb_rig_enumerate(r);
    uint64_t bad = fake_guest_bulk_out(r->guest, 0x02, "junk", 4);
    bulk_answer(r, bad, USB_STATUS_STALL, 0);
    control_answer(r, fake_guest_control(r->guest, 0x21, 0xff, 0, 0, 0, NULL), 0, 0);
    control_answer(r, fake_guest_control(r->guest, 0x02, 1, 0, 0x81, 0, NULL), 0, 0);
    control_answer(r, fake_guest_control(r->guest, 0x02, 1, 0, 0x02, 0, NULL), 0, 0);
    check_stick_works(r, 1);
    end(r);
}

/* The guest resets the port while a read is half done; the client's reset does nothing. */
static void test_reset_mid_transfer(void)
{
    static const uint32_t quirks[] = {FREERDP, 0, FREERDP | USB_QUIRK_TRANSFERS_MAY_PEND};

    for (unsigned i = 0; i < 3; i++) {
        UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, quirks[i]);
        uint8_t cb[10] = {0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0};

        usb_rig_enumerate(r);
        send_cbw(r, 1, 8 * 512, true, cb, 10);
        uint64_t half = fake_guest_bulk_in(r->guest, 0x81, 512);
        bulk_answer(r, half, USB_STATUS_SUCCESS, 512);
        r->source->hold = true;
        uint64_t data = fake_guest_bulk_in(r->guest, 0x81, 7 * 512);
        uint64_t csw = fake_guest_bulk_in(r->guest, 0x81, 13);
        uint64_t ctl = fake_guest_control(r->guest, 0xa1, 0xfe, 0, 0, 1, NULL);
        usb_rig_run(r);
        fake_guest_reset(r->guest);
        fake_guest_reset(r->guest);
        bulk_answer(r, data, USB_STATUS_CANCELLED, 0);
        bulk_answer(r, csw, USB_STATUS_CANCELLED, 0);
        control_answer(r, ctl, USB_STATUS_CANCELLED, 0);
        r->source->hold = false;
        usb_rig_run(r);
        g_assert_cmpuint(r->source->bulk_resets, ==, quirks[i] ? 1 : 0);
        g_assert_cmpuint(r->source->clear_halts, ==, quirks[i] ? 2 : 0);
        g_assert_cmpuint(r->source->port_resets, ==, quirks[i] ? 0 : 1);
        fake_guest_reset(r->guest); /* nothing happened since: nothing is sent */
        unsigned submitted = r->source->submitted;
        usb_rig_run(r);
        g_assert_cmpuint(r->source->submitted, ==, submitted);
        uint64_t early = fake_guest_bulk_in(r->guest, 0x81, 13);
        bulk_answer(r, early, USB_STATUS_STALL, 0);
        uint64_t conf = fake_guest_set_configuration(r->guest, 1);
        answer(r, usb_redir_configuration_status, conf);
        g_assert_cmpuint(r->source->selects, ==, 2);
        check_stick_works(r, 9);
        end(r);
    }
}

/* Everything the guest waits for is selected again, even when the resets are still under way. */
static void test_reset_then_configure_at_once(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

    usb_rig_enumerate(r);
    check_stick_works(r, 1);
    r->source->hold = true;
    fake_guest_reset(r->guest);
    uint64_t conf = fake_guest_set_configuration(r->guest, 1);
    uint8_t cb[6] = {0};
    uint64_t cbw = send_cbw(r, 3, 0, false, cb, 6);
    usb_rig_run(r);
    unanswered(r, conf);
    r->source->hold = false;
    answer(r, usb_redir_configuration_status, conf);
    bulk_answer(r, cbw, USB_STATUS_SUCCESS, 31);
    check_csw(bulk_answer(r, fake_guest_bulk_in(r->guest, 0x81, 13), 0, 13), 3, 0);
    check_stick_works(r, 4);
    end(r);
}

/* ---- the keyboard ---- */

static void test_keyboard(void)
{
    UsbRig *r = usb_rig_new(FAKE_KEYBOARD, USB_SPEED_LOW, FREERDP);

    usb_rig_run(r);
    r->source->hold = true;
    fake_guest_set_configuration(r->guest, 1);
    usb_rig_run(r);
    r->now += 40000; /* its client is as far away as that */
    r->source->hold = false;
    usb_rig_run(r);
    uint64_t id = fake_guest_start_interrupt(r->guest, 0x81);
    const GuestPacket *p = answer(r, usb_redir_interrupt_receiving_status, id);
    g_assert_cmpuint(p->status, ==, 0);
    unsigned window = fake_source_count(r->source, 0x81);
    g_assert_cmpuint(window, ==, 8); /* (40 ms + 20 ms + 5 ms) / 10 ms, one begun, one more */
    for (uint8_t i = 0; i < 20; i++)
        fake_source_key(r->source, (uint8_t)(4 + i));
    usb_rig_run(r);
    unsigned n = 0;
    for (unsigned i = 0; i < r->guest->n_log; i++) {
        p = &r->guest->log[i];
        if (p->type != usb_redir_interrupt_packet)
            continue;
        g_assert_cmpuint(p->id, ==, n);
        g_assert_cmpuint(p->length, ==, 8);
        g_assert_cmpuint(p->data[2], ==, 4 + n);
        n++;
    }
    g_assert_cmpuint(n, ==, 20);
    g_assert_cmpuint(fake_source_count(r->source, 0x81), ==, window);

    /* the client's 10 s timeout is nobody's business */
    fake_guest_clear_log(r->guest);
    for (unsigned i = 0; i < window; i++)
        fake_source_complete(r->source, 0, USB_STATUS_TIMEOUT, NULL, 0, true);
    g_assert_cmpuint(r->guest->n_log, ==, 0);
    g_assert_cmpuint(fake_source_count(r->source, 0x81), ==, window);
    /* nor is a completion that got lost */
    usb_rig_wait(r, 4 * (uint64_t)USB_TIMEOUT_TRANSFER_US);
    g_assert_cmpuint(r->guest->n_log, ==, 0);
    g_assert_cmpuint(fake_source_count(r->source, 0x81), ==, window);
    g_assert_cmpuint(r->source->retired, ==, 0);

    uint64_t led = fake_guest_control(r->guest, 0x21, 9, 0x0200, 0, 1, "\2");
    control_answer(r, led, USB_STATUS_SUCCESS, 1);
    g_assert_cmpuint(r->source->leds, ==, 2);

    id = fake_guest_stop_interrupt(r->guest, 0x81);
    g_assert_cmpuint(answer(r, usb_redir_interrupt_receiving_status, id)->status, ==, 0);
    fake_source_key(r->source, 99);
    fake_guest_clear_log(r->guest);
    usb_rig_run(r);
    g_assert_cmpuint(r->guest->n_log, ==, 0);
    g_assert_cmpuint(fake_source_count(r->source, 0x81), ==, 0);
    id = fake_guest_start_interrupt(r->guest, 0x81); /* ids start over */
    usb_rig_run(r);
    g_assert_nonnull(fake_guest_find(r->guest, usb_redir_interrupt_packet, 0));

    /* where there is no interrupt endpoint */
    id = fake_guest_start_interrupt(r->guest, 0x82);
    g_assert_cmpuint(answer(r, usb_redir_interrupt_receiving_status, id)->status, ==,
                     USB_STATUS_STALL);
    end(r);
}

static void test_keyboard_stall(void)
{
    UsbRig *r = usb_rig_new(FAKE_KEYBOARD, USB_SPEED_FULL, FREERDP);

    usb_rig_enumerate(r);
    fake_guest_start_interrupt(r->guest, 0x81);
    usb_rig_run(r);
    fake_guest_clear_log(r->guest);
    r->source->stall_in = 1;
    fake_source_key(r->source, 4);
    usb_rig_run(r);
    g_assert_cmpuint(r->source->clear_halts, ==, 1);
    g_assert_cmpuint(r->guest->n_log, ==, 1); /* the guest has not noticed */
    g_assert_cmpint(r->guest->log[0].type, ==, usb_redir_interrupt_packet);
    g_assert_cmpuint(fake_source_count(r->source, 0x81), ==, 2);

    fake_guest_clear_log(r->guest);
    r->source->stall_in = 1000; /* it stalls for ever: given up after a few attempts */
    usb_rig_run(r);
    g_assert_cmpuint(r->source->clear_halts, <, 5);
    const GuestPacket *p =
        fake_guest_find(r->guest, usb_redir_interrupt_receiving_status, UINT64_MAX);
    g_assert_nonnull(p);
    g_assert_cmpuint(p->status, ==, USB_STATUS_STALL);
    g_assert_cmpuint(fake_source_count(r->source, 0x81), ==, 0);
    end(r);
}

static void test_keyboard_errors(void)
{
    UsbRig *r = usb_rig_new(FAKE_KEYBOARD, USB_SPEED_FULL, FREERDP);

    usb_rig_enumerate(r);
    fake_guest_start_interrupt(r->guest, 0x81);
    usb_rig_run(r);
    r->source->hold = true;
    unsigned n = 0;
    for (; fake_source_find(r->source, 0x81) >= 0; n++)
        fake_source_complete(r->source, (unsigned)fake_source_find(r->source, 0x81),
                             USB_STATUS_IOERROR, NULL, 0, false);
    g_assert_cmpuint(n, ==, 8);
    g_assert_nonnull(fake_guest_find(r->guest, usb_redir_interrupt_receiving_status, 0));
    end(r);
}

/* A guest that reboots finds its keyboard again. */
static void test_keyboard_reset(void)
{
    UsbRig *r = usb_rig_new(FAKE_KEYBOARD, USB_SPEED_FULL, FREERDP);

    usb_rig_enumerate(r);
    fake_guest_start_interrupt(r->guest, 0x81);
    usb_rig_run(r);
    fake_guest_clear_log(r->guest);
    fake_guest_reset(r->guest);
    usb_rig_run(r);
    const GuestPacket *p =
        fake_guest_find(r->guest, usb_redir_interrupt_receiving_status, UINT64_MAX);
    g_assert_nonnull(p);
    g_assert_cmpuint(p->status, ==, USB_STATUS_STALL);
    usb_rig_enumerate(r);
    fake_guest_start_interrupt(r->guest, 0x81);
    fake_source_key(r->source, 5);
    usb_rig_run(r);
    g_assert_nonnull(fake_guest_find(r->guest, usb_redir_interrupt_packet, 0));
    end(r);
}

/* ---- ends ---- */

static void test_gone(void)
{
    for (unsigned early = 0; early < 2; early++) {
        UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

        if (!early) {
            usb_rig_enumerate(r);
            fake_guest_bulk_in(r->guest, 0x81, 512);
            fake_guest_control(r->guest, 0xa1, 0xfe, 0, 0, 1, NULL);
            r->source->hold = true;
            usb_rig_run(r);
        }
        fake_source_unplug(r->source);
        g_assert_cmpint(usb_device_state(r->device), ==, USB_DEVICE_GONE);
        g_assert_cmpstr(r->why, ==, "it was unplugged");
        usb_rig_run(r);
        g_assert_cmpuint(fake_guest_count(r->guest, usb_redir_device_disconnect), ==, !early);
        fake_guest_clear_log(r->guest);
        fake_guest_bulk_in(r->guest, 0x81, 512); /* QEMU may not have seen it yet */
        fake_guest_reset(r->guest);
        usb_rig_wait(r, 100000000);
        g_assert_cmpuint(fake_guest_count(r->guest, usb_redir_bulk_packet), ==, 0);
        g_assert_cmpuint(usb_device_deadline(r->device), ==, UINT64_MAX);
        end(r);
    }
}

static void test_disconnect(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

    usb_rig_enumerate(r);
    fake_guest_bulk_in(r->guest, 0x81, 512);
    usb_rig_run(r);
    usb_device_disconnect(r->device, "the operator took it");
    usb_rig_run(r);
    g_assert_nonnull(fake_guest_find(r->guest, usb_redir_device_disconnect, UINT64_MAX));
    g_assert_cmpuint(r->source->cancels, ==, 1);
    g_assert_null(r->source->base.sink);
    usb_device_disconnect(r->device, "again");
    g_assert_cmpint(r->states[r->n_states - 1], ==, USB_DEVICE_GONE);
    end(r);
}

static void test_free_in_flight(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

    usb_rig_enumerate(r);
    r->source->hold = true;
    fake_guest_bulk_in(r->guest, 0x81, 512);
    fake_guest_bulk_out(r->guest, 0x02, "0123456789012345678901234567890", 31);
    fake_guest_control(r->guest, 0xa1, 0xfe, 0, 0, 1, NULL);
    usb_rig_run(r);
    usb_device_free(r->device);
    r->device = NULL;
    g_assert_cmpuint(r->source->cancels, ==, 3);
    g_assert_null(r->source->base.sink);
    r->source->hold = false;
    fake_source_run(r->source); /* nobody listens */
    end(r);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/usb-device/connect", test_connect);
    g_test_add_func("/usb-device/descriptors-are-local", test_descriptors_are_local);
    g_test_add_func("/usb-device/never-forwarded", test_never_forwarded);
    g_test_add_func("/usb-device/forwarded", test_forwarded);
    g_test_add_func("/usb-device/configuration", test_configuration);
    g_test_add_func("/usb-device/select-holds-the-rest", test_select_holds_the_rest);
    g_test_add_func("/usb-device/stick", test_stick);
    g_test_add_func("/usb-device/stall-recovery", test_stall_recovery);
    g_test_add_func("/usb-device/bulk-only-reset", test_bulk_only_reset);
    g_test_add_func("/usb-device/reset-mid-transfer", test_reset_mid_transfer);
    g_test_add_func("/usb-device/reset-then-configure", test_reset_then_configure_at_once);
    g_test_add_func("/usb-device/keyboard", test_keyboard);
    g_test_add_func("/usb-device/keyboard-stall", test_keyboard_stall);
    g_test_add_func("/usb-device/keyboard-errors", test_keyboard_errors);
    g_test_add_func("/usb-device/keyboard-reset", test_keyboard_reset);
    g_test_add_func("/usb-device/gone", test_gone);
    g_test_add_func("/usb-device/disconnect", test_disconnect);
    g_test_add_func("/usb-device/free-in-flight", test_free_in_flight);
    return g_test_run();
}
