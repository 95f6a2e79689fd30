/*
 * Bytes of QEMU's that are not usbredir, or are what no host would say: the slot is given up, and
 * what is merely refused leaves the device at work.
 */
#include "mutate.h"
#include "usb_check.h"

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

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/usb-hostile-guest/rejected", test_rejected);
    g_test_add_func("/usb-hostile-guest/streams-refused", test_streams_refused);
    g_test_add_func("/usb-hostile-guest/malformed", test_malformed);
    g_test_add_func("/usb-hostile-guest/too-long", test_too_long);
    g_test_add_func("/usb-hostile-guest/lying-length", test_lying_length);
    g_test_add_func("/usb-hostile-guest/garbage", test_garbage);
    g_test_add_func("/usb-hostile-guest/dead-fd", test_dead_fd);
    return g_test_run();
}
