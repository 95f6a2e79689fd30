/*
 * The URBDRC server against a scripted client: handshake, devices that come and go, and the tables
 * by which it tells clients and requests apart.
 */
#include <string.h>

#include "log.h"
#include "urbdrc_flavour.h"
#include "urbdrc_rig.h"

/* ---- handshake ---- */

static void test_freerdp_handshake(void)
{
    Fixture *f = new_fixture();

    g_assert_cmpstr(fake_dvc_name(dvc(f, 0)), ==, "URBDRC");
    g_assert_cmpint(fake_dvc_priority(dvc(f, 0)), ==, DVC_URGENT);
    client_handshake(f, 0);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, 1);
    client_announce(f);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, 2);
    status_is(f, "opening", "");
    client_handshake(f, 1);
    status_is(f, "device", "");
    client_add_device(f, 1, 5);
    status_is(f, "active", "freerdp3");
    g_assert_cmphex(f->devices[0].source->quirks, ==,
                    USB_QUIRK_CLEAR_HALT_CANCELS_ALL | USB_QUIRK_RESET_IS_NO_OP |
                        USB_QUIRK_EQUAL_ISO_PACKETS | USB_QUIRK_CONTROL_BLOCKS_CLIENT);
    g_assert_true(f->devices[0].source->high_speed_hint);
    g_assert_cmpstr(f->devices[0].source->label, ==, "alice@127.0.0.1 channel 2");
    assert_quiet(f, 1);
    free_fixture(f);
}

static void test_windows_handshake(void)
{
    Fixture *f = fixture_with_device(0);
    UrbdrcDeviceStatus s;

    urbdrc_status(f->urbdrc, &s, 1);
    g_assert_cmpstr(s.flavour, ==, "windows");
    g_assert_cmpstr(s.hardware_id, ==, "USB/VID");
    g_assert_cmphex(f->devices[0].source->quirks, ==,
                    USB_QUIRK_TRANSFERS_MAY_PEND | USB_QUIRK_ISO_WHOLE_FRAMES);
    /* It releases the callback interface whenever it likes; R may be anything, also 0. */
    for (int i = 0; i < 100; i++)
        client_send(f, 1, &(UrbdrcMessage){.kind = URBDRC_RELEASE});
    g_assert_true(submit(&f->devices[0], control(1, get_device)));
    UrbdrcMessage m = client_take(f, 1, URBDRC_TRANSFER_IN);
    g_assert_cmphex(m.interface_id, ==, 0);
    m = completion(URBDRC_URB_COMPLETION, 1, 0);
    m.interface_id = 1;
    m.completion.data = (const uint8_t *)"0123456789abcdefgh";
    m.completion.data_len = m.completion.output_size = 18;
    client_send(f, 1, &m);
    g_assert_cmpuint(f->devices[0].n_completions, ==, 1);
    g_assert_cmpmem(f->devices[0].data, 18, "0123456789abcdefgh", 18);
    free_fixture(f);
}

static void test_eager_client(void)
{
    /* By the letter of 3.3.5.2.2 a client announces without waiting for RIMCALL_RELEASE. */
    Fixture *f = new_fixture();
    const UrbdrcMessage add = add_device(7);

    fake_dvc_accept(dvc(f, 0));
    client_caps(f, 0);
    client_announce(f);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, 1);
    client_created(f, 0);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, 2);
    fake_dvc_accept(dvc(f, 1));
    client_caps(f, 1);
    client_send(f, 1, &add);
    g_assert_cmpuint(f->n_devices, ==, 1);
    client_created(f, 1);
    client_take(f, 1, URBDRC_REGISTER_CALLBACK);
    assert_quiet(f, 1); /* no RIMCALL_RELEASE: it would bind another device here */
    free_fixture(f);
}

static void test_wrong_order_is_ignored_but_bounded(void)
{
    Fixture *f = new_fixture();
    const UrbdrcMessage created = {.kind = URBDRC_CHANNEL_CREATED,
                                   .interface_id = URBDRC_INTERFACE_TO_SERVER,
                                   .created.major = 1};

    fake_dvc_accept(dvc(f, 0));
    client_send(f, 0, &created);
    client_announce(f);
    client_caps(f, 0);
    client_created(f, 0);
    client_take(f, 0, URBDRC_RELEASE);
    client_send(f, 0, &created); /* twice: no second release */
    assert_quiet(f, 0);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, 1);
    for (unsigned i = 0; i < URBDRC_MAX_IGNORED; i++)
        client_send(f, 0, &created);
    g_assert_true(fake_dvc_closed_by_server(dvc(f, 0)));
    g_assert_cmpuint(f->n_unavailable, ==, 1);
    free_fixture(f);
}

static void test_refusals(void)
{
    Fixture *f = new_fixture();

    fake_dvc_end(dvc(f, 0), DVC_CLOSED_REFUSED);
    g_assert_cmpuint(f->n_unavailable, ==, 1);
    g_assert_cmpuint(urbdrc_deadline(f->urbdrc), ==, UINT64_MAX);
    free_fixture(f);

    f = new_fixture();
    fake_dvc_accept(dvc(f, 0));
    client_send(f, 0, &(UrbdrcMessage){.kind = URBDRC_CAPS_RESPONSE, .caps = {1, 0x80004005}});
    g_assert_true(fake_dvc_closed_by_server(dvc(f, 0)));
    g_assert_cmpuint(f->n_unavailable, ==, 1);
    free_fixture(f);

    f = new_fixture();
    fake_dvc_accept(dvc(f, 0));
    client_caps(f, 0);
    client_send(f, 0,
                &(UrbdrcMessage){.kind = URBDRC_CHANNEL_CREATED,
                                 .interface_id = URBDRC_INTERFACE_TO_SERVER,
                                 .created.major = 2});
    g_assert_true(fake_dvc_closed_by_server(dvc(f, 0)));
    free_fixture(f);

    f = g_new0(Fixture, 1); /* no drdynvc: known only at the first tick */
    f->manager = fake_dvc_manager_new();
    fake_dvc_refuse_opens(f->manager);
    f->urbdrc = urbdrc_new(f->manager, "x", 1, &callbacks, f);
    g_assert_cmpuint(f->n_unavailable, ==, 0);
    g_assert_cmpuint(urbdrc_deadline(f->urbdrc), ==, 0);
    urbdrc_tick(f->urbdrc, 2);
    g_assert_cmpuint(f->n_unavailable, ==, 1);
    free_fixture(f);
}

static void test_handshake_timeouts(void)
{
    for (int steps = 0; steps < 3; steps++) {
        for (size_t n = 0; n < 2; n++) {
            Fixture *f = new_fixture();
            if (n == 1) {
                client_handshake(f, 0);
                client_announce(f);
            }
            if (steps > 0)
                fake_dvc_accept(dvc(f, n));
            if (steps > 1)
                client_caps(f, n);
            g_assert_cmpuint(urbdrc_deadline(f->urbdrc), ==, 0);
            tick(f, URBDRC_HANDSHAKE_US - 1);
            g_assert_false(fake_dvc_dead(dvc(f, n)));
            g_assert_cmpuint(urbdrc_deadline(f->urbdrc), ==, f->now + 1);
            tick(f, 1);
            g_assert_true(fake_dvc_closed_by_server(dvc(f, n)));
            g_assert_cmpuint(f->n_unavailable, ==, n == 0 ? 1 : 0);
            free_fixture(f);
        }
    }
}

static void test_idle_has_no_deadline(void)
{
    Fixture *f = fixture_with_device(5);

    tick(f, URBDRC_BEGIN_US);
    g_assert_cmpuint(urbdrc_deadline(f->urbdrc), ==, UINT64_MAX);
    tick(f, 3600ull * SECOND);
    g_assert_false(fake_dvc_dead(dvc(f, 1)));
    free_fixture(f);
}

static void test_two_devices_one_after_the_other(void)
{
    Fixture *f = new_fixture();

    client_handshake(f, 0);
    client_announce(f);
    client_announce(f);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, 2);
    client_handshake(f, 1);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, 2); /* not before the first has its device */
    client_add_device(f, 1, 5);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, 3);
    client_handshake(f, 2);
    client_add_device(f, 2, 6);
    /* Requests of one do not show on the other; equal ids are different requests. */
    g_assert_true(submit(&f->devices[0], control(1, get_device)));
    g_assert_true(submit(&f->devices[1], control(1, get_device)));
    client_take(f, 1, URBDRC_TRANSFER_IN);
    client_take(f, 2, URBDRC_TRANSFER_IN);
    client_data(f, 2, 1, 0, 18);
    g_assert_cmpuint(f->devices[0].n_completions, ==, 0);
    g_assert_cmpuint(f->devices[1].n_completions, ==, 1);
    fake_dvc_end(dvc(f, 1), DVC_CLOSED_BY_CLIENT);
    g_assert_cmpuint(f->devices[0].gone, ==, 1);
    g_assert_cmpuint(f->devices[1].gone, ==, 0);
    free_fixture(f);
}

static void test_surplus_announcement(void)
{
    Fixture *f = new_fixture();

    client_handshake(f, 0);
    client_announce(f);
    client_announce(f);
    client_handshake(f, 1); /* no ADD_DEVICE follows */
    tick(f, URBDRC_SERIAL_US);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, 3); /* holds up the next one this long only */
    client_handshake(f, 2);
    client_add_device(f, 2, 5);
    tick(f, URBDRC_HANDSHAKE_US - URBDRC_SERIAL_US);
    g_assert_true(fake_dvc_closed_by_server(dvc(f, 1)));
    g_assert_false(fake_dvc_dead(dvc(f, 2)));
    g_assert_cmpuint(f->n_devices, ==, 1);
    g_assert_cmpuint(f->n_unavailable, ==, 0);
    free_fixture(f);
}

/* The client's system gets time to load its driver for what is plugged in later. */
static void test_plugged_in_later(void)
{
    Fixture *f = new_fixture();

    client_handshake(f, 0);
    tick(f, URBDRC_BEGIN_US + 1);
    client_announce(f);
    tick(f, URBDRC_SETTLE_US - 1);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, 1);
    g_assert_cmpuint(urbdrc_deadline(f->urbdrc), ==, f->now + 1);
    client_announce(f); /* the next one's driver needs time, too */
    tick(f, URBDRC_SETTLE_US - 1);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, 1);
    tick(f, 1);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, 2);
    client_handshake(f, 1);
    client_add_device(f, 1, 5);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, 3);
    free_fixture(f);
}

static void test_device_limit(void)
{
    Fixture *f = new_fixture();

    client_handshake(f, 0);
    for (unsigned i = 0; i < 3 * URBDRC_MAX_DEVICES; i++)
        client_announce(f);
    for (unsigned i = 1; i <= URBDRC_MAX_DEVICES; i++) {
        g_assert_cmpuint(fake_dvc_count(f->manager), ==, i + 1);
        client_handshake(f, i);
        client_add_device(f, i, 4 + i);
    }
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, URBDRC_MAX_DEVICES + 1);
    /* A place that becomes free can be used again. */
    fake_dvc_end(dvc(f, 1), DVC_CLOSED_BY_CLIENT);
    client_announce(f);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, URBDRC_MAX_DEVICES + 2);
    fake_dvc_end(dvc(f, URBDRC_MAX_DEVICES + 1), DVC_CLOSED_REFUSED);
    free_fixture(f);
}

static void test_unplug_in_every_state(void)
{
    for (int steps = 0; steps < 6; steps++) {
        Fixture *f = new_fixture();
        client_handshake(f, 0);
        client_announce(f);
        if (steps == 1)
            fake_dvc_accept(dvc(f, 1));
        if (steps == 2) {
            fake_dvc_accept(dvc(f, 1));
            client_caps(f, 1);
        }
        if (steps >= 3)
            client_handshake(f, 1);
        if (steps >= 4)
            client_add_device(f, 1, 5);
        if (steps >= 5) {
            submit(&f->devices[0], control(1, get_device));
            submit(&f->devices[0], select_configuration(2)); /* queued behind it */
        }
        client_announce(f); /* the next one gets its channel then */
        fake_dvc_end(dvc(f, 1), steps == 0 ? DVC_CLOSED_REFUSED : DVC_CLOSED_BY_CLIENT);
        g_assert_cmpuint(f->n_devices, ==, steps >= 4 ? 1 : 0);
        g_assert_cmpuint(fake_dvc_count(f->manager), ==, 3);
        if (steps >= 4)
            g_assert_cmpstr(f->devices[0].why, ==, "the device was unplugged");
        free_fixture(f);
    }
}

static void test_control_channel_lost_keeps_devices(void)
{
    Fixture *f = fixture_with_device(5);

    fake_dvc_end(dvc(f, 0), DVC_CLOSED_BY_CLIENT);
    g_assert_cmpuint(f->n_unavailable, ==, 1);
    g_assert_cmpuint(f->devices[0].gone, ==, 0);
    g_assert_true(submit(&f->devices[0], control(1, get_device)));
    free_fixture(f);
}

static void test_retire(void)
{
    Fixture *f = fixture_with_device(5);

    f->devices[0].source->ops->retire(f->devices[0].source, "hubs are not allowed");
    f->devices[0].source->ops->retire(f->devices[0].source, "twice");
    UrbdrcMessage m = client_take(f, 1, URBDRC_RETRACT_DEVICE);
    g_assert_cmpuint(m.retract.reason, ==, URBDRC_RETRACT_BLOCKED_BY_POLICY);
    assert_quiet(f, 1);
    tick(f, URBDRC_RETRACT_GRACE_US - 1);
    g_assert_cmpuint(f->devices[0].gone, ==, 0);
    status_is(f, "retracting", "freerdp3");
    tick(f, 1);
    assert_device_closed(f);
    free_fixture(f);

    f = fixture_with_device(0); /* Windows closes by itself */
    f->devices[0].source->ops->retire(f->devices[0].source, "no slot");
    fake_dvc_end(dvc(f, 1), DVC_CLOSED_BY_CLIENT);
    g_assert_cmpuint(f->devices[0].gone, ==, 1);
    tick(f, 10 * SECOND);
    free_fixture(f);

    f = new_fixture(); /* from inside device_added */
    f->retire_at_once = true;
    client_handshake(f, 0);
    client_announce(f);
    client_handshake(f, 1);
    client_add_device(f, 1, 5);
    client_take(f, 1, URBDRC_RETRACT_DEVICE);
    tick(f, URBDRC_RETRACT_GRACE_US);
    assert_device_closed(f);
    free_fixture(f);
}

static void test_malformed_closes_that_channel(void)
{
    Fixture *f = fixture_with_device(5);

    fake_dvc_receive(dvc(f, 1), "\0\0\0\x40garbage", 11);
    assert_device_closed(f);
    free_fixture(f);

    f = fixture_with_device(5);
    fake_dvc_end(dvc(f, 1), DVC_CLOSED_OVERSIZE);
    g_assert_cmpuint(f->devices[0].gone, ==, 1);
    free_fixture(f);
}

/* ---- tables ---- */

static void test_status_map(void)
{
    static const struct {
        uint32_t usbd, hresult, length;
        bool stream_in;
        UsbStatus status;
        bool retry;
    } cases[] = {
        {0, 0, 5, true, USB_STATUS_SUCCESS, false},
        {USBD_STATUS_SHORT_TRANSFER, 0, 5, true, USB_STATUS_SUCCESS, false},
        {USBD_STATUS_DATA_UNDERRUN, 0, 5, true, USB_STATUS_SUCCESS, false},
        {USBD_STATUS_STALL_PID, 0, 0, true, USB_STATUS_STALL, false},
        {USBD_STATUS_ENDPOINT_HALTED, 0, 0, false, USB_STATUS_STALL, false},
        {USBD_LIBUSB_STALL, 0, 0, true, USB_STATUS_STALL, false},
        {USBD_LIBUSB_TIMED_OUT, 0, 0, true, USB_STATUS_TIMEOUT, true},
        {USBD_LIBUSB_TIMED_OUT, 0, 7, true, USB_STATUS_SUCCESS, false},
        {USBD_LIBUSB_TIMED_OUT, 0, 0, false, USB_STATUS_TIMEOUT, false},
        {USBD_STATUS_TIMEOUT, 0, 0, false, USB_STATUS_TIMEOUT, false},
        {USBD_LIBUSB_CANCELLED, 0, 0, true, USB_STATUS_CANCELLED, true},
        {USBD_STATUS_CANCELED, 0, 0, false, USB_STATUS_IOERROR, false},
        {USBD_LIBUSB_ERROR, 0, 0, true, USB_STATUS_IOERROR, false},
        {USBD_LIBUSB_NO_DEVICE, 0, 0, true, USB_STATUS_IOERROR, false},
        {USBD_STATUS_DEVICE_GONE, 0, 0, true, USB_STATUS_IOERROR, false},
        {USBD_LIBUSB_OVERFLOW, 0, 0, true, USB_STATUS_BABBLE, false},
        {USBD_STATUS_BABBLE, 0, 0, true, USB_STATUS_BABBLE, false},
        {USBD_STATUS_DATA_OVERRUN, 0, 0, true, USB_STATUS_BABBLE, false},
        {USBD_STATUS_BUFFER_OVERRUN, 0, 0, true, USB_STATUS_BABBLE, false},
        {USBD_STATUS_INVALID_URB_FUNCTION, 0, 0, true, USB_STATUS_INVAL, false},
        {USBD_STATUS_INVALID_PARAMETER, 0, 0, true, USB_STATUS_INVAL, false},
        {USBD_STATUS_INVALID_PIPE_HANDLE, 0, 0, true, USB_STATUS_INVAL, false},
        {0, URBDRC_E_INVALIDARG, 0, true, USB_STATUS_INVAL, false},
        {0, 0x8007001f, 0, true, USB_STATUS_IOERROR, false},
        {7, 0, 0, true, USB_STATUS_IOERROR, false},
        {0xdeadbeef, 0, 0, true, USB_STATUS_IOERROR, false},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        UrbdrcOutcome o = urbdrc_flavour_outcome(cases[i].usbd, cases[i].hresult, cases[i].length,
                                                 cases[i].stream_in);
        g_test_message("usbd %08x hresult %08x", cases[i].usbd, cases[i].hresult);
        g_assert_cmpint(o.status, ==, cases[i].status);
        g_assert_cmpint(o.retry_in, ==, cases[i].retry);
    }
}

/* Who is who: device, MessageId, jitter buffer, the core data's build and early flags. */
static void test_flavours(void)
{
    enum { OLD_FLAGS = 0x06ef, NEW_FLAGS = 0x0eef };
    static const struct {
        uint32_t device, message_id, jitter;
        bool known;
        uint32_t build, flags;
        const char *flavour;
    } cases[] = {
        {5, 0, 0x50, true, 18363, NEW_FLAGS, "freerdp3"},
        {6, 0, 0x50, true, 18363, OLD_FLAGS, "freerdp2"},
        {5, 0, 0x50, true, 2600, OLD_FLAGS, "freerdp2"},
        {5, 0, 0x50, false, 0, 0, "freerdp3"},
        {4, 0, 0x50, true, 18363, NEW_FLAGS, "ironrdp"}, /* its first device */
        {5, 0, 0x50, true, 10, NEW_FLAGS, "ironrdp"},
        {0, 0, 0, true, 26100, NEW_FLAGS, "windows"},
        {0, 7, 0, true, 7601, OLD_FLAGS, "windows"},
        {0, 0, 32, false, 0, 0, "windows"},
        {5, 9, 0x50, true, 18363, NEW_FLAGS, "unknown"},
        {5, 0, 0, true, 18363, NEW_FLAGS, "unknown"},
        {3, 0, 0x50, true, 18363, NEW_FLAGS, "unknown"},
        {4, 1, 0x50, true, 18363, NEW_FLAGS, "unknown"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        UrbdrcEvidence e = {
            .known = cases[i].known, .client_build = cases[i].build, .early_flags = cases[i].flags};
        UrbdrcMessage m = add_device(cases[i].device);
        char text[URBDRC_EVIDENCE_SIZE];

        m.add_device.no_ack_jitter_ms = cases[i].jitter;
        g_test_message(
            "case %zu: %s", i,
            urbdrc_flavour_evidence(&e, &m.add_device, cases[i].message_id, text, sizeof(text)));
        g_assert_cmpstr(urbdrc_flavour_detect(&e, &m.add_device, cases[i].message_id)->name, ==,
                        cases[i].flavour);
        if (cases[i].device == 4 && cases[i].message_id == 0) { /* and its second one */
            m.add_device.usb_device = 5;
            g_assert_cmpstr(urbdrc_flavour_detect(&e, &m.add_device, 0)->name, ==, "ironrdp");
        }
    }
}

static void test_flavour_is_told(void)
{
    Fixture *f = new_fixture();
    const char *evidence;

    urbdrc_set_client(f->urbdrc, 18363, 0x06ef);
    g_assert_cmpstr(urbdrc_flavour(f->urbdrc, &evidence), ==, "");
    client_handshake(f, 0);
    client_announce(f);
    client_handshake(f, 1);
    client_add_device(f, 1, 5);
    g_assert_cmpstr(urbdrc_flavour(f->urbdrc, &evidence), ==, "freerdp2");
    g_assert_cmpstr(evidence, ==,
                    "UsbDevice 5, MessageId 0, jitter buffer 80 ms, client build 18363, early "
                    "flags 0x06ef");
    free_fixture(f);
}

static void test_control_map(void)
{
    static const struct {
        UsbSetup setup;
        uint16_t freerdp, windows; /* URB functions; 0xffff: never forwarded */
        bool out_freerdp, out_windows;
    } cases[] = {
        {{0x80, 6, 0x0100, 0, 18}, 0x0b, 0x0b, false, false},
        {{0x81, 6, 0x2200, 0, 63}, 0x28, 0x28, false, false},
        {{0x82, 6, 0x2200, 0, 63}, 0x24, 0x24, false, false},
        {{0x83, 6, 0x2200, 0, 63}, 0x08, 0x08, false, false},
        {{0x00, 7, 0x0300, 0, 4}, 0x08, 0x0c, true, true},
        {{0x00, 3, 1, 0, 0}, 0x08, 0x0d, true, false},
        {{0x01, 3, 1, 0, 0}, 0x08, 0x0e, true, false},
        {{0x02, 3, 0, 1, 0}, 0x08, 0x0f, true, false},
        {{0x03, 3, 1, 0, 0}, 0x08, 0x23, true, false},
        {{0x00, 1, 1, 0, 0}, 0x08, 0x10, true, false},
        {{0x02, 1, 0, 0x81, 0}, 0x08, 0x12, true, false},
        {{0x80, 0, 0, 0, 2}, 0x13, 0x13, false, false},
        {{0x81, 0, 0, 0, 2}, 0x14, 0x14, false, false},
        {{0x82, 0, 0, 0x81, 2}, 0x15, 0x15, false, false},
        {{0x83, 0, 0, 0, 2}, 0x21, 0x21, false, false},
        {{0x80, 0, 0, 0, 4}, 0x08, 0x08, false, false}, /* not the length of a status */
        {{0x80, 8, 0, 0, 1}, 0x26, 0x26, false, false},
        {{0x81, 10, 0, 0, 1}, 0x27, 0x27, false, false},
        {{0xa1, 0xfe, 0, 0, 1}, 0x1b, 0x1b, false, false},
        {{0x21, 0xff, 0, 0, 0}, 0x1b, 0x1b, true, true},
        {{0x20, 9, 0, 0, 0}, 0x1a, 0x1a, true, true}, /* class request 9 is not SET_CONFIGURATION */
        {{0x22, 1, 0x100, 2, 3}, 0x1c, 0x1c, true, true},
        {{0x23, 3, 8, 1, 0}, 0x1f, 0x1f, true, true},
        {{0xc0, 0x20, 0, 4, 16}, 0x17, 0x17, false, false},
        {{0x41, 1, 0, 0, 0}, 0x18, 0x18, true, true},
        {{0x42, 1, 0, 0, 0}, 0x19, 0x19, true, true},
        {{0x43, 1, 0, 0, 0}, 0x20, 0x20, true, true},
        {{0xe0, 1, 0, 0, 4}, 0x08, 0x08, false, false}, /* reserved type */
        {{0x44, 1, 0, 0, 0}, 0x08, 0x08, true, true},   /* reserved recipient */
        {{0x00, 9, 1, 0, 0}, 0xffff, 0xffff, false, false},
        {{0x01, 11, 1, 0, 0}, 0xffff, 0xffff, false, false},
        {{0x00, 5, 1, 0, 0}, 0xffff, 0xffff, false, false},
    };
    const UrbdrcMessage f = add_device(5), w = add_device(0), u = add_device(3);
    UrbdrcEvidence nothing = {0};
    const UrbdrcFlavour *freerdp = urbdrc_flavour_detect(&nothing, &f.add_device, 0);
    const UrbdrcFlavour *windows = urbdrc_flavour_detect(&nothing, &w.add_device, 0);
    const UrbdrcFlavour *unknown = urbdrc_flavour_detect(&nothing, &u.add_device, 0);

    g_assert_cmpstr(unknown->name, ==, "unknown");
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        UrbdrcUrb urb = {0};
        bool out = false;

        g_test_message("%02x %02x", cases[i].setup.request_type, cases[i].setup.request);
        bool ok = urbdrc_flavour_control(freerdp, &cases[i].setup, &urb, &out);
        g_assert_cmpint(ok, ==, cases[i].freerdp != 0xffff);
        if (!ok)
            continue;
        g_assert_cmphex(urb.function, ==, cases[i].freerdp);
        g_assert_cmpint(out, ==, cases[i].out_freerdp);
        g_assert_true(urbdrc_flavour_control(unknown, &cases[i].setup, &urb, &out));
        g_assert_cmphex(urb.function, ==, cases[i].freerdp);
        g_assert_true(urbdrc_flavour_control(windows, &cases[i].setup, &urb, &out));
        g_assert_cmphex(urb.function, ==, cases[i].windows);
        g_assert_cmpint(out, ==, cases[i].out_windows);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_set_level(LOG_LEVEL_ERROR);
#define TEST(path, fn) g_test_add_func("/urbdrc/" path, fn)
    TEST("handshake/freerdp", test_freerdp_handshake);
    TEST("handshake/windows", test_windows_handshake);
    TEST("handshake/flavours", test_flavours);
    TEST("handshake/flavour-told", test_flavour_is_told);
    TEST("handshake/eager", test_eager_client);
    TEST("handshake/wrong-order", test_wrong_order_is_ignored_but_bounded);
    TEST("handshake/refusals", test_refusals);
    TEST("handshake/timeouts", test_handshake_timeouts);
    TEST("handshake/idle", test_idle_has_no_deadline);
    TEST("devices/two", test_two_devices_one_after_the_other);
    TEST("devices/surplus", test_surplus_announcement);
    TEST("devices/later", test_plugged_in_later);
    TEST("devices/limit", test_device_limit);
    TEST("devices/unplug", test_unplug_in_every_state);
    TEST("devices/control-lost", test_control_channel_lost_keeps_devices);
    TEST("devices/retire", test_retire);
    TEST("devices/malformed", test_malformed_closes_that_channel);
    TEST("tables/status", test_status_map);
    TEST("tables/control", test_control_map);
    return g_test_run();
}
