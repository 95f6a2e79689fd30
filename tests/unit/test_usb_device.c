/*
 * The whole UsbDevice between an emulated device and a guest's end of usbredir.
 */
#include "mutate.h"
#include "usb_check.h"

static void unanswered(UsbRig *r, uint64_t id)
{
    usb_rig_run(r);
    for (unsigned i = 0; i < r->guest->n_log; i++)
        g_assert_cmpuint(r->guest->log[i].id, !=, id);
}

static const GuestPacket *bulk_answer(UsbRig *r, uint64_t id, UsbStatus status, uint32_t length)
{
    const GuestPacket *p = answer(r, usb_redir_bulk_packet, id);

    g_assert_cmpuint(p->status, ==, status);
    g_assert_cmpuint(p->length, ==, length);
    g_assert_cmpint(p->data_len, ==, p->endpoint & 0x80 ? (int)length : 0);
    return p;
}

static const GuestPacket *control_answer(UsbRig *r, uint64_t id, UsbStatus status, uint32_t length)
{
    const GuestPacket *p = answer(r, usb_redir_control_packet, id);

    g_assert_cmpuint(p->status, ==, status);
    g_assert_cmpuint(p->length, ==, length);
    return p;
}

/* ---- Bulk-Only Transport as a guest speaks it ---- */

static void check_csw(const GuestPacket *p, uint32_t tag, uint8_t status)
{
    g_assert_cmpuint(p->length, ==, 13);
    g_assert_cmpint(memcmp(p->data, "USBS", 4), ==, 0);
    g_assert_cmpuint(p->data[4], ==, tag & 0xff);
    g_assert_cmpuint(p->data[12], ==, status);
}

static void read_blocks(UsbRig *r, uint32_t tag, uint16_t lba, uint16_t blocks, uint8_t *out)
{
    uint32_t length = blocks * FAKE_BLOCK;
    uint8_t cb[10] = {0x28,
                      0,
                      0,
                      0,
                      (uint8_t)(lba >> 8),
                      (uint8_t)lba,
                      0,
                      (uint8_t)(blocks >> 8),
                      (uint8_t)blocks,
                      0};
    uint64_t cbw = send_cbw(r, tag, length, true, cb, 10);
    uint64_t data = fake_guest_bulk_in(r->guest, 0x81, length);
    uint64_t csw = fake_guest_bulk_in(r->guest, 0x81, 13);

    bulk_answer(r, cbw, USB_STATUS_SUCCESS, 31);
    const GuestPacket *p = bulk_answer(r, data, USB_STATUS_SUCCESS, length);
    memcpy(out, p->data, length);
    check_csw(bulk_answer(r, csw, USB_STATUS_SUCCESS, 13), tag, 0);
}

static void write_blocks(UsbRig *r, uint32_t tag, uint16_t lba, uint16_t blocks,
                         const uint8_t *bytes)
{
    uint32_t length = blocks * FAKE_BLOCK;
    uint8_t cb[10] = {0x2a,
                      0,
                      0,
                      0,
                      (uint8_t)(lba >> 8),
                      (uint8_t)lba,
                      0,
                      (uint8_t)(blocks >> 8),
                      (uint8_t)blocks,
                      0};
    uint64_t cbw = send_cbw(r, tag, length, false, cb, 10);
    uint64_t data = fake_guest_bulk_out(r->guest, 0x02, bytes, length);
    uint64_t csw = fake_guest_bulk_in(r->guest, 0x81, 13);

    bulk_answer(r, cbw, USB_STATUS_SUCCESS, 31);
    bulk_answer(r, data, USB_STATUS_SUCCESS, length);
    check_csw(bulk_answer(r, csw, USB_STATUS_SUCCESS, 13), tag, 0);
}

static void check_stick_works(UsbRig *r, uint32_t tag)
{
    uint8_t bytes[2048], back[2048];

    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 7 + tag);
    write_blocks(r, tag, 10, 4, bytes);
    read_blocks(r, tag + 1, 10, 4, back);
    g_assert_cmpmem(bytes, sizeof(bytes), back, sizeof(back));
}

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

static void put_packet(UsbRig *r, uint32_t type, uint32_t length, uint64_t id, const void *body,
                       size_t body_len)
{
    uint8_t header[16];

    for (int i = 0; i < 4; i++) {
        header[i] = (uint8_t)(type >> (8 * i));
        header[4 + i] = (uint8_t)(length >> (8 * i));
    }
    for (int i = 0; i < 8; i++)
        header[8 + i] = (uint8_t)(id >> (8 * i));
    usb_device_guest_bytes(r->device, header, 16, r->now);
    if (body_len)
        usb_device_guest_bytes(r->device, body, body_len, r->now);
}

static void test_rejected(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

    usb_rig_enumerate(r);
    put_packet(r, usb_redir_filter_filter, 14, 0, "-1,-1,-1,-1,1", 14);
    g_assert_cmpint(usb_device_state(r->device), ==, USB_DEVICE_CONNECTED);
    fake_guest_bulk_in(r->guest, 0x81, 512);
    usb_rig_run(r);
    put_packet(r, usb_redir_filter_reject, 0, 0, NULL, 0);
    g_assert_cmpint(usb_device_state(r->device), ==, USB_DEVICE_REJECTED);
    g_assert_cmpuint(r->source->cancels, ==, 1);
    usb_rig_run(r);
    end(r);

    r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);
    usb_rig_enumerate(r);
    put_packet(r, usb_redir_filter_filter, 15, 0, "0x08,-1,-1,-1,0", 15); /* without its NUL */
    g_assert_cmpint(usb_device_state(r->device), ==, USB_DEVICE_BROKEN);
    end(r);

    r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);
    usb_rig_enumerate(r);
    put_packet(r, usb_redir_filter_filter, 30, 0, "0x08,-1,-1,-1,0|-1,-1,-1,-1,1", 30);
    g_assert_cmpint(usb_device_state(r->device), ==, USB_DEVICE_REJECTED);
    end(r);
}

/* What is not offered is refused with the protocol's own status. */
static void test_streams_refused(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

    usb_rig_enumerate(r);
    put_packet(r, usb_redir_start_iso_stream, 3, 7, "\x81\x08\x08", 3);
    g_assert_cmpuint(answer(r, usb_redir_iso_stream_status, 7)->status, ==, USB_STATUS_STALL);
    put_packet(r, usb_redir_stop_iso_stream, 1, 8, "\x81", 1);
    g_assert_cmpuint(answer(r, usb_redir_iso_stream_status, 8)->status, ==, USB_STATUS_SUCCESS);
    put_packet(r, usb_redir_iso_packet, 4 + 2, 9, "\x02\x00\x02\x00xx", 6);
    g_assert_cmpint(usb_device_state(r->device), ==, USB_DEVICE_CONNECTED);
    check_stick_works(r, 1);
    end(r);
}

/* Every packet type with every wrong length, and types that no guest sends. */
static void test_malformed(void)
{
    static const uint32_t types[] = {
        usb_redir_hello,
        usb_redir_device_connect,
        usb_redir_device_disconnect,
        usb_redir_reset,
        usb_redir_interface_info,
        usb_redir_ep_info,
        usb_redir_set_configuration,
        usb_redir_get_configuration,
        usb_redir_configuration_status,
        usb_redir_set_alt_setting,
        usb_redir_get_alt_setting,
        usb_redir_alt_setting_status,
        usb_redir_start_iso_stream,
        usb_redir_stop_iso_stream,
        usb_redir_iso_stream_status,
        usb_redir_start_interrupt_receiving,
        usb_redir_stop_interrupt_receiving,
        usb_redir_interrupt_receiving_status,
        usb_redir_alloc_bulk_streams,
        usb_redir_free_bulk_streams,
        usb_redir_bulk_streams_status,
        usb_redir_cancel_data_packet,
        usb_redir_filter_reject,
        usb_redir_filter_filter,
        usb_redir_device_disconnect_ack,
        usb_redir_start_bulk_receiving,
        usb_redir_stop_bulk_receiving,
        usb_redir_bulk_receiving_status,
        usb_redir_control_packet,
        usb_redir_bulk_packet,
        usb_redir_iso_packet,
        usb_redir_interrupt_packet,
        usb_redir_buffered_bulk_packet,
        28,
        99,
        105,
        UINT32_MAX,
    };
    static const uint8_t fills[] = {0x00, 0x02, 0x81, 0xff};
    unsigned broken = 0, fine = 0;

    for (unsigned t = 0; t < G_N_ELEMENTS(types); t++) {
        for (uint32_t length = 0; length < 40; length++) {
            for (unsigned f = 0; f < G_N_ELEMENTS(fills); f++) {
                UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);
                uint8_t body[40];

                memset(body, fills[f], sizeof(body));
                usb_rig_enumerate(r);
                put_packet(r, types[t], length, 5, body, length);
                usb_rig_wait(r, 30000000);
                if (usb_device_state(r->device) == USB_DEVICE_BROKEN) {
                    broken++;
                    g_assert_false(usb_device_wants_guest_bytes(r->device));
                    g_assert_false(usb_device_guest_bytes(r->device, body, 1, r->now));
                    g_assert_cmpint(strncmp(r->why, "QEMU's usbredir stream", 22), ==, 0);
                } else {
                    fine++;
                }
                g_assert_cmpuint(r->source->violations, ==, 0);
                usb_rig_free(r);
            }
        }
    }
    g_assert_cmpuint(broken, >, fine);
    g_assert_cmpuint(fine, >, 20);
}

static void test_too_long(void)
{
    static const struct {
        uint32_t type, length;
    } cases[] = {
        {usb_redir_filter_filter, 1 << 20},     {usb_redir_control_packet, 16 << 20},
        {usb_redir_bulk_packet, UINT32_MAX},    {usb_redir_set_configuration, 70000},
        {usb_redir_interrupt_packet, 16 << 20},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);
        bool bulk = cases[i].type == usb_redir_bulk_packet;

        usb_rig_enumerate(r);
        put_packet(r, cases[i].type, cases[i].length, 1, NULL, 0);
        g_assert_cmpint(usb_device_state(r->device), ==,
                        bulk ? USB_DEVICE_CONNECTED : USB_DEVICE_BROKEN);
        usb_rig_free(r);
    }
}

/* More than a bulk packet may bring, under a header that gives a length which would be accepted. */
static void test_lying_length(void)
{
    static const struct usb_redir_bulk_packet_header headers[] = {
        {.endpoint = 0x02, .length = 100},
        {.endpoint = 0x02, .length_high = USB_MAX_TRANSFER_BYTES >> 16},
        {.endpoint = 0x81, .length_high = UINT16_MAX},
    };
    const uint32_t len = USB_MAX_TRANSFER_BYTES + 100;
    uint8_t *body = g_malloc0(len);

    for (unsigned i = 0; i < G_N_ELEMENTS(headers); i++) {
        UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

        usb_rig_enumerate(r);
        unsigned before = r->source->submitted;
        memcpy(body, &headers[i], sizeof(headers[i]));
        put_packet(r, usb_redir_bulk_packet, len, 1, body, len);
        usb_rig_run(r);
        g_assert_cmpuint(r->source->submitted, ==, before);
        g_assert_cmpint(usb_device_state(r->device), ==, USB_DEVICE_BROKEN);
        usb_rig_free(r);
    }
    g_free(body);
}

/* Bit flips and truncations of a whole session. Whatever comes of it: no crash, no leak, and the
 * device at the other end is never asked for nonsense. */
static void garbage(uint8_t *data, size_t len, void *user)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

    r->guest->out_len = 0;
    usb_device_guest_bytes(r->device, data, len, r->now);
    usb_rig_run(r);
    usb_rig_wait(r, 40000000);
    g_assert_cmpstr(r->source->violation, ==, "");
    usb_rig_free(r);
}

static void test_garbage(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);
    uint8_t cb[6] = {0x12, 0, 0, 0, 36, 0};

    fake_guest_control(r->guest, 0x80, 6, 0x0100, 0, 18, NULL);
    fake_guest_set_configuration(r->guest, 1);
    send_cbw(r, 1, 36, true, cb, 6);
    fake_guest_bulk_in(r->guest, 0x81, 36);
    fake_guest_bulk_in(r->guest, 0x81, 13);
    fake_guest_control(r->guest, 0x02, 1, 0, 0x81, 0, NULL);
    fake_guest_cancel(r->guest, 3);
    fake_guest_reset(r->guest);
    fake_guest_set_alt(r->guest, 0, 0);
    fake_guest_start_interrupt(r->guest, 0x81);
    uint8_t *bytes = g_memdup2(r->guest->out, r->guest->out_len);
    size_t len = r->guest->out_len;
    usb_rig_free(r);
    mutate_none(bytes, len, garbage, NULL);
    mutate_truncations(bytes, len, garbage, NULL);
    mutate_bit_flips(bytes, len, garbage, NULL);
    mutate_random(bytes, len, 1, 2000, garbage, NULL);
    g_free(bytes);
}

static void test_dead_fd(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

    usb_rig_enumerate(r);
    r->dead = true;
    fake_guest_control(r->guest, 0x80, 6, 0x0100, 0, 18, NULL);
    usb_rig_run(r);
    g_assert_cmpint(usb_device_state(r->device), ==, USB_DEVICE_BROKEN);
    g_assert_cmpuint(r->n_states, ==, 2);
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
    g_test_add_func("/usb-device/cancel", test_cancel);
    g_test_add_func("/usb-device/cancel-control", test_cancel_control);
    g_test_add_func("/usb-device/strays", test_strays);
    g_test_add_func("/usb-device/timeouts", test_timeouts);
    g_test_add_func("/usb-device/short-patience", test_short_patience);
    g_test_add_func("/usb-device/silence", test_silence);
    g_test_add_func("/usb-device/may-pend", test_may_pend);
    g_test_add_func("/usb-device/unstamped", test_unstamped);
    g_test_add_func("/usb-device/order", test_order);
    g_test_add_func("/usb-device/retry-keeps-order", test_retry_keeps_order);
    g_test_add_func("/usb-device/out-chunks", test_out_chunks);
    g_test_add_func("/usb-device/refused-packets", test_refused_packets);
    g_test_add_func("/usb-device/babble", test_babble);
    g_test_add_func("/usb-device/clear-halt-cancels-all", test_clear_halt_cancels_all);
    g_test_add_func("/usb-device/request-cap", test_request_cap);
    g_test_add_func("/usb-device/byte-cap", test_byte_cap);
    g_test_add_func("/usb-device/guest-does-not-read", test_guest_does_not_read);
    g_test_add_func("/usb-device/cancel-flood", test_cancel_flood);
    g_test_add_func("/usb-device/keyboard", test_keyboard);
    g_test_add_func("/usb-device/keyboard-stall", test_keyboard_stall);
    g_test_add_func("/usb-device/keyboard-errors", test_keyboard_errors);
    g_test_add_func("/usb-device/keyboard-reset", test_keyboard_reset);
    g_test_add_func("/usb-device/gone", test_gone);
    g_test_add_func("/usb-device/disconnect", test_disconnect);
    g_test_add_func("/usb-device/free-in-flight", test_free_in_flight);
    g_test_add_func("/usb-device/rejected", test_rejected);
    g_test_add_func("/usb-device/streams-refused", test_streams_refused);
    g_test_add_func("/usb-device/malformed", test_malformed);
    g_test_add_func("/usb-device/too-long", test_too_long);
    g_test_add_func("/usb-device/lying-length", test_lying_length);
    g_test_add_func("/usb-device/garbage", test_garbage);
    g_test_add_func("/usb-device/dead-fd", test_dead_fd);
    g_test_add_func("/usb-device/random", test_random);
    return g_test_run();
}
