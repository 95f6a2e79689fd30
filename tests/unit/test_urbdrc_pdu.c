/*
 * The PDU layer against the example bytes of MS-RDPEUSB section 4, against a written-out sample of
 * every other message and TS_URB, and against every truncation and bit flip of all of them.
 */
#include "urbdrc_pdu.h"

#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "mutate.h"

typedef enum From { FROM_SERVER, FROM_CLIENT, FROM_CLIENT_IO } From;

typedef struct Golden {
    const char *name;
    From from;
    UrbdrcKind kind;
    const char *hex;
} Golden;

/* Messages whose bytes come from the specification carry the section of the example; the others
 * were laid out by hand from the section named. */
static const Golden goldens[] = {
    {"4.1.1 server", FROM_SERVER, URBDRC_CHANNEL_CREATED,
     "02000040 00000000 00010000 01000000 00000000 00000000"},
    {"4.1.1 client", FROM_CLIENT, URBDRC_CHANNEL_CREATED,
     "03000040 00000000 00010000 01000000 00000000 00000000"},
    {"4.1.2", FROM_SERVER, URBDRC_INTERNAL_IO_CONTROL,
     "00000040 00000000 03010000 00402200 00000000 04000000 00000000"},
    {"4.1.3", FROM_CLIENT_IO, URBDRC_IOCONTROL_COMPLETION,
     "00000040 00000000 00010000 00000000 00000000 04000000 04000000 534b5f1a"},
    {"4.1.4", FROM_SERVER, URBDRC_TRANSFER_IN,
     "00000040 00000000 05010000 10000000 10000900 02000000 0200ffff 03000000 32000000"},
    {"4.1.5", FROM_CLIENT_IO, URBDRC_URB_COMPLETION,
     "00000040 00000000 01010000 02000000 08000000 08000900 00000000 00000000"
     "32000000 00000000 01000000 02000000 03000000 04000000 05000000 06000000"
     "07000000 08000000 09000000 0a000000 0b000000 0000"},
    {"2.2.3.1", FROM_SERVER, URBDRC_CAPS_REQUEST, "00000000 05000000 00010000 01000000"},
    {"2.2.3.2", FROM_CLIENT, URBDRC_CAPS_RESPONSE, "00000000 05000000 01000000 00000000"},
    {"2.2.2 release", FROM_SERVER, URBDRC_RELEASE, "02000040 07000000 01000000"},
    {"2.2.2 release from client", FROM_CLIENT_IO, URBDRC_RELEASE, "09000040 07000000 01000000"},
    {"2.2.2 query", FROM_CLIENT, URBDRC_QUERY_INTERFACE,
     "01000040 07000000 02000000 00000000 00000000 00000000 00000000"},
    {"2.2.2 refusal", FROM_SERVER, URBDRC_QUERY_INTERFACE_RSP, "01000080 07000000"},
    {"2.2.2 refusal from client", FROM_CLIENT_IO, URBDRC_QUERY_INTERFACE_RSP, "01000080 07000000"},
    {"2.2.4.1", FROM_CLIENT, URBDRC_ADD_VIRTUAL_CHANNEL, "01000040 00000000 00010000"},
    {"2.2.4.2", FROM_CLIENT, URBDRC_ADD_DEVICE,
     "01000040 00000000 01010000 01000000 05000000"
     "03000000 5500 5300 0000"      /* instance id "US" */
     "04000000 5600 0000 5700 0000" /* hardware ids "V", "W" */
     "00000000"                     /* no compatible ids */
     "02000000 7b00 0000"           /* container id "{" */
     "1c000000 02000000 00060000 00020000 00000000 01000000 50000000"},
    {"2.2.6.1", FROM_SERVER, URBDRC_CANCEL_REQUEST, "05000040 00000000 00010000 11000000"},
    {"2.2.6.2", FROM_SERVER, URBDRC_REGISTER_CALLBACK,
     "05000040 00000000 01010000 01000000 00010000"},
    {"2.2.6.2 none", FROM_SERVER, URBDRC_REGISTER_CALLBACK, "05000040 00000000 01010000 00000000"},
    {"2.2.6.3", FROM_SERVER, URBDRC_IO_CONTROL,
     "05000040 00000000 02010000 07002200 02000000 aabb 00000000 12000000"},
    {"2.2.6.5", FROM_SERVER, URBDRC_QUERY_DEVICE_TEXT,
     "05000040 01000000 04010000 00000000 09040000"},
    {"2.2.6.6", FROM_CLIENT_IO, URBDRC_QUERY_DEVICE_TEXT_RSP,
     "05000080 01000000 02000000 4100 0000 00000000"},
    {"2.2.6.9", FROM_SERVER, URBDRC_RETRACT_DEVICE, "05000040 00000000 07010000 01000000"},
    {"2.2.7.3", FROM_CLIENT_IO, URBDRC_URB_COMPLETION_NO_DATA,
     "00010040 00000000 02010000 03000000 08000000 08000000 040000c0 00000000 00000000"},
    {"2.2.7.3 with an interface result", FROM_CLIENT_IO, URBDRC_URB_COMPLETION_NO_DATA,
     "00010040 00000000 02010000 03000000 2c000000 2c000000 00000000"
     "2400 00 00 08 06 50 00 11000000 01000000"
     "0002 81 00 02000000 81000101 ffffffff 00000000"
     "00000000 00000000"},
    /* One TS_URB of each body, 2.2.9.2 to 2.2.9.16. */
    {"2.2.9.2", FROM_SERVER, URBDRC_TRANSFER_IN,
     "05000040 00000000 05010000 41000000"
     "4100 0000 01000000 01000000 01000000"
     "1800 0100 00 00 0000 01000000 0002 0000 00000100 00000000"
     "09021900 01010080 32 090400000008065000 07058102000200"
     "00000000"},
    {"2.2.9.2 unconfigure", FROM_SERVER, URBDRC_TRANSFER_IN,
     "05000040 00000000 05010000 10000000 1000 0000 01000000 00000000 00000000 00000000"},
    {"2.2.9.3", FROM_SERVER, URBDRC_TRANSFER_IN,
     "05000040 00000000 05010000 24000000"
     "2400 0100 02000000 01000102"
     "1800 0100 01 02 0000 01000000 0800 0000 00000100 00000000"
     "00000000"},
    {"2.2.9.4", FROM_SERVER, URBDRC_TRANSFER_IN,
     "05000040 00000000 05010000 0c000000 0c00 1e00 02000000 81000101 00000000"},
    {"2.2.9.5", FROM_SERVER, URBDRC_TRANSFER_IN,
     "05000040 00000000 05010000 08000000 0800 0700 02000000 00000000"},
    {"2.2.9.6", FROM_SERVER, URBDRC_TRANSFER_OUT,
     "05000040 00000000 06010000 18000000 1800 0800 02000000 00000000 08000000"
     "0003010000000000 00000000"},
    {"2.2.9.7", FROM_SERVER, URBDRC_TRANSFER_OUT,
     "05000040 00000000 06010000 10000000 1000 0900 02000000 02000101 00000000 03000000 aabbcc"},
    {"2.2.9.8", FROM_SERVER, URBDRC_TRANSFER_IN,
     "05000040 00000000 05010000 34000000"
     "3400 0a00 02000000 81000101 05000000 00000000 02000000 00000000"
     "00000000 00000000 00000000 c0000000 00000000 00000000 80010000"},
    {"2.2.9.8 no ack", FROM_SERVER, URBDRC_TRANSFER_OUT,
     "05000040 00000000 06010000 28000000"
     "2800 0a00 02000080 01000101 04000000 00000000 01000000 00000000"
     "00000000 00000000 00000000 02000000 abcd"},
    {"2.2.9.9", FROM_SERVER, URBDRC_TRANSFER_IN,
     "05000040 00000000 05010000 0c000000 0c00 0b00 02000000 00 01 0904 12000000"},
    {"2.2.9.10", FROM_SERVER, URBDRC_TRANSFER_IN,
     "05000040 00000000 05010000 0c000000 0c00 0d00 02000000 0100 0000 00000000"},
    {"2.2.9.11", FROM_SERVER, URBDRC_TRANSFER_IN,
     "05000040 00000000 05010000 0c000000 0c00 1500 02000000 8100 0000 02000000"},
    {"2.2.9.12", FROM_SERVER, URBDRC_TRANSFER_IN,
     "05000040 00000000 05010000 14000000"
     "1400 1b00 02000000 03000000 00 fe 0000 0000 0000 01000000"},
    {"2.2.9.13", FROM_SERVER, URBDRC_TRANSFER_IN,
     "05000040 00000000 05010000 08000000 0800 2600 02000000 01000000"},
    {"2.2.9.14", FROM_SERVER, URBDRC_TRANSFER_IN,
     "05000040 00000000 05010000 0c000000 0c00 2700 02000000 0300 0000 01000000"},
    {"2.2.9.15", FROM_SERVER, URBDRC_TRANSFER_IN,
     "05000040 00000000 05010000 10000000 1000 2a00 02000000 01 02 03 0400 000000 28000000"},
    {"2.2.9.16", FROM_SERVER, URBDRC_TRANSFER_IN,
     "05000040 00000000 05010000 1c000000"
     "1c00 3200 02000000 00000000 0b000000 e8030000 8006000100001200 12000000"},
};

static uint8_t *unhex(const char *hex, size_t *len)
{
    uint8_t *out = malloc(strlen(hex) / 2 + 1);
    size_t n = 0;

    for (const char *p = hex; *p;) {
        if (*p == ' ') {
            p++;
            continue;
        }
        out[n++] = (uint8_t)(g_ascii_xdigit_value(p[0]) << 4 | g_ascii_xdigit_value(p[1]));
        p += 2;
    }
    *len = n;
    return out;
}

static const char *parse(From from, const uint8_t *data, size_t len, UrbdrcMessage *m,
                         UrbdrcScratch *scratch)
{
    if (from == FROM_SERVER)
        return urbdrc_parse_from_server(data, len, m, scratch);
    return urbdrc_parse_from_client(
        data, len, from == FROM_CLIENT_IO ? URBDRC_PHASE_IO : URBDRC_PHASE_SETUP, m);
}

static void test_golden(gconstpointer user)
{
    const Golden *golden = user;
    UrbdrcScratch scratch;
    UrbdrcMessage m;
    size_t len, written_len;
    uint8_t *data = unhex(golden->hex, &len);
    Writer w;

    g_assert_cmpstr(parse(golden->from, data, len, &m, &scratch), ==, NULL);
    g_assert_cmpstr(urbdrc_kind_name(m.kind), ==, urbdrc_kind_name(golden->kind));

    writer_init(&w, 1 << 16);
    urbdrc_write_message(&w, &m);
    uint8_t *written = writer_steal(&w, &written_len);
    if (strcmp(golden->name, "4.1.5") == 0)
        written[22] = 0x09; /* the example carries the URB function in what is padding */
    g_assert_cmpmem(written, written_len, data, len);
    free(written);
    free(data);
}

/* What must hold for any bytes: a verdict, pointers that stay inside, counts below their maxima,
 * and an accepted message of a kind we send survives being written and read again. */
static uint64_t checksum;

static void touch(const uint8_t *data, size_t n, const uint8_t *start, size_t len)
{
    if (n == 0)
        return;
    g_assert_true(data >= start && data + n <= start + len);
    for (size_t i = 0; i < n; i++)
        checksum = checksum * 31 + data[i];
}

static void check_results(const UrbdrcMessage *m)
{
    static UrbdrcInterfaceResult interfaces[URBDRC_MAX_INTERFACES];
    static UrbdrcIsoPacket packets[URBDRC_MAX_ISO_PACKETS];
    uint32_t handle, n = 0, a, b;

    if (!urbdrc_parse_select_configuration_result(m->completion.result, m->completion.result_len,
                                                  &handle, &n, interfaces)) {
        g_assert_cmpuint(n, <=, URBDRC_MAX_INTERFACES);
        for (uint32_t i = 0; i < n; i++)
            g_assert_cmpuint(interfaces[i].n_pipes, <=, URBDRC_MAX_PIPES);
    }
    if (!urbdrc_parse_select_interface_result(m->completion.result, m->completion.result_len,
                                              interfaces))
        g_assert_cmpuint(interfaces[0].n_pipes, <=, URBDRC_MAX_PIPES);
    if (!urbdrc_parse_isoch_result(m->completion.result, m->completion.result_len, &a, &b, &n,
                                   packets))
        g_assert_cmpuint(n, <=, URBDRC_MAX_ISO_PACKETS);
    urbdrc_parse_frame_number_result(m->completion.result, m->completion.result_len, &a);
}

static void check_any(const uint8_t *data, size_t len, From from)
{
    static UrbdrcScratch scratch, again_scratch;
    UrbdrcMessage m, again;
    char text[64];
    Writer w;

    if (parse(from, data, len, &m, &scratch))
        return;
    switch (m.kind) {
    case URBDRC_ADD_DEVICE: {
        const UrbdrcString strings[] = {m.add_device.instance_id, m.add_device.hardware_ids,
                                        m.add_device.compatibility_ids, m.add_device.container_id};
        for (size_t i = 0; i < G_N_ELEMENTS(strings); i++) {
            touch(strings[i].units, (size_t)strings[i].n_units * 2, data, len);
            urbdrc_string_text(strings[i], text, sizeof(text));
            g_assert_true(g_utf8_validate(text, -1, NULL));
        }
        g_assert_cmphex(m.add_device.usb_device & ~URBDRC_INTERFACE_MASK, ==, 0);
        break;
    }
    case URBDRC_URB_COMPLETION:
    case URBDRC_URB_COMPLETION_NO_DATA:
    case URBDRC_IOCONTROL_COMPLETION:
        touch(m.completion.result, m.completion.result_len, data, len);
        touch(m.completion.data, m.completion.data_len, data, len);
        g_assert_cmpuint(m.completion.data_len, <=, m.completion.output_size);
        check_results(&m);
        return; /* may claim more than it holds: not written back */
    case URBDRC_TRANSFER_OUT:
        touch(m.transfer.output, m.transfer.output_size, data, len);
        break;
    case URBDRC_IO_CONTROL:
    case URBDRC_INTERNAL_IO_CONTROL:
        touch(m.io_control.input, m.io_control.input_len, data, len);
        break;
    default:
        break;
    }
    writer_init(&w, 1 << 20);
    urbdrc_write_message(&w, &m);
    g_assert_true(writer_ok(&w));
    g_assert_cmpstr(parse(from, w.data, w.len, &again, &again_scratch), ==, NULL);
    g_assert_cmpint(again.kind, ==, m.kind);
    g_assert_cmphex(again.interface_id, ==, m.interface_id);
    writer_clear(&w);
}

static void run_case(uint8_t *data, size_t len, void *user)
{
    (void)user;
    /* Each as what it is and as what it is not: the phase is ours, not the peer's to know. */
    check_any(data, len, FROM_SERVER);
    check_any(data, len, FROM_CLIENT);
    check_any(data, len, FROM_CLIENT_IO);
}

static void run_truncated(uint8_t *data, size_t len, void *user)
{
    const Golden *golden = user;
    UrbdrcScratch scratch;
    UrbdrcMessage m;

    run_case(data, len, NULL);
    /* A prefix is never taken for the whole, but for two: the data that FreeRDP claims and does
     * not send (2.2.7.1), and a TEXT response that shrinks to a QI response. */
    if (golden->kind == URBDRC_IOCONTROL_COMPLETION && len >= 28)
        return;
    if (!parse(golden->from, data, len, &m, &scratch) && m.kind == golden->kind) {
        g_test_message("%s cut to %zu bytes is accepted", golden->name, len);
        g_test_fail();
    }
}

static void test_truncations(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(goldens); i++) {
        size_t len;
        uint8_t *data = unhex(goldens[i].hex, &len);

        mutate_truncations(data, len, run_truncated, (void *)&goldens[i]);
        free(data);
    }
}

static void test_bit_flips(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(goldens); i++) {
        size_t len;
        uint8_t *data = unhex(goldens[i].hex, &len);

        mutate_bit_flips(data, len, run_case, NULL);
        mutate_random(data, len, (uint32_t)i + 1, 500, run_case, NULL);
        free(data);
    }
}

/* ---- single facts ---- */

static void test_example_values(void)
{
    UrbdrcScratch scratch;
    UrbdrcMessage m;
    size_t len;
    uint8_t *data = unhex(goldens[4].hex, &len);

    g_assert_null(urbdrc_parse_from_server(data, len, &m, &scratch));
    g_assert_cmphex(m.transfer.urb.function, ==, URB_BULK_OR_INTERRUPT_TRANSFER);
    g_assert_cmpuint(m.transfer.urb.request_id, ==, 2);
    g_assert_cmphex(m.transfer.urb.transfer.pipe, ==, 0xffff0002);
    g_assert_cmphex(m.transfer.urb.transfer.flags, ==, URB_FLAG_IN | URB_FLAG_SHORT_OK);
    g_assert_cmpuint(m.transfer.output_size, ==, 0x32);
    free(data);

    data = unhex(goldens[5].hex, &len);
    g_assert_null(urbdrc_parse_from_client(data, len, URBDRC_PHASE_IO, &m));
    g_assert_cmpuint(m.completion.request_id, ==, 2);
    g_assert_cmphex(m.completion.usbd_status, ==, 0);
    g_assert_cmpuint(m.completion.data_len, ==, 0x32);
    g_assert_cmpuint(m.completion.data[4], ==, 1);
    g_assert_cmpuint(m.completion.trailing, ==, 0);
    /* In the handshake the same bytes are a bad ADD_DEVICE, whatever the interface id says. */
    g_assert_nonnull(urbdrc_parse_from_client(data, len, URBDRC_PHASE_SETUP, &m));
    free(data);
}

static void test_ids_collide(void)
{
    UrbdrcMessage m;
    size_t len;

    for (unsigned r = 0; r < 4; r++) { /* RequestCompletion equal to a fixed interface id */
        char hex[128];
        g_snprintf(hex, sizeof(hex),
                   "%02x000040 00000000 02010000 07000000 08000000 08000000 00000000"
                   "00000000 00000000",
                   r);
        uint8_t *data = unhex(hex, &len);
        g_assert_null(urbdrc_parse_from_client(data, len, URBDRC_PHASE_IO, &m));
        g_assert_cmpint(m.kind, ==, URBDRC_URB_COMPLETION_NO_DATA);
        g_assert_cmpuint(m.completion.request_id, ==, 7);
        free(data);
    }
}

static void test_tolerances(void)
{
    UrbdrcMessage m;
    size_t len;
    uint8_t *data;

    /* IOCONTROL_COMPLETION that claims four bytes and has none. */
    data = unhex("09000040 00000000 00010000 02000000 00000000 00000000 04000000", &len);
    g_assert_null(urbdrc_parse_from_client(data, len, URBDRC_PHASE_IO, &m));
    g_assert_cmpuint(m.completion.output_size, ==, 4);
    g_assert_cmpuint(m.completion.data_len, ==, 0);
    free(data);

    /* SELECT_INTERFACE result of FreeRDP 3.14-3.22: 12 bytes too many before HResult. */
    data = unhex("09000040 00000000 02010000 02000000 18000000 18000000 00000000"
                 "1000 01 02 08 06 50 00 33000000 00000000"
                 "33000000 00000000 10000102 00000000 00000000",
                 &len);
    g_assert_null(urbdrc_parse_from_client(data, len, URBDRC_PHASE_IO, &m));
    g_assert_cmpuint(m.completion.trailing, ==, 12);
    UrbdrcInterfaceResult interface;
    g_assert_null(urbdrc_parse_select_interface_result(m.completion.result, m.completion.result_len,
                                                       &interface));
    g_assert_cmpuint(interface.number, ==, 1);
    g_assert_cmpuint(interface.alt, ==, 2);
    free(data);

    /* Size that is not CbTsUrbResult. */
    data = unhex("09000040 00000000 02010000 02000000 08000000 0c000000 00000000"
                 "00000000 03000000",
                 &len);
    g_assert_null(urbdrc_parse_from_client(data, len, URBDRC_PHASE_IO, &m));
    g_assert_cmpuint(m.completion.output_size, ==, 3);
    free(data);
}

static void assert_refused(From from, const char *hex)
{
    UrbdrcScratch scratch;
    UrbdrcMessage m;
    size_t len;
    uint8_t *data = unhex(hex, &len);

    g_assert_nonnull(parse(from, data, len, &m, &scratch));
    free(data);
}

static void test_refusals(void)
{
    assert_refused(FROM_CLIENT, "03000040 00000000 00010000 01000000 00000000 00000000 00");
    assert_refused(FROM_CLIENT, "03000040 00000000 99990000");
    assert_refused(FROM_CLIENT, "00000000 00000000 01000000 00000000 00");
    /* NumUsbDevice 2; UsbDevice with a mask bit; a string of 2^31 characters; CbSize 27. */
    assert_refused(FROM_CLIENT, "01000040 00000000 01010000 02000000 05000000 00000000 00000000"
                                "00000000 00000000 1c000000 02000000 00060000 00020000 00000000"
                                "01000000 50000000");
    assert_refused(FROM_CLIENT, "01000040 00000000 01010000 01000000 05000040 00000000 00000000"
                                "00000000 00000000 1c000000 02000000 00060000 00020000 00000000"
                                "01000000 50000000");
    assert_refused(FROM_CLIENT, "01000040 00000000 01010000 01000000 05000000 00000080 00000000");
    assert_refused(FROM_CLIENT, "01000040 00000000 01010000 01000000 05000000 00000000 00000000"
                                "00000000 00000000 1b000000 02000000 00060000 00020000 00000000"
                                "01000000 50000000");
    /* CbTsUrbResult 7, and one past the end; OutputBufferSize past the end. */
    assert_refused(FROM_CLIENT_IO, "09000040 00000000 02010000 02000000 07000000 08000000"
                                   "00000000 00000000 00000000");
    assert_refused(FROM_CLIENT_IO, "09000040 00000000 02010000 02000000 ffffffff 08000000"
                                   "00000000 00000000 00000000");
    assert_refused(FROM_CLIENT_IO, "09000040 00000000 01010000 02000000 08000000 08000000"
                                   "00000000 00000000 05000000 aabbccdd");
    /* A completion before there is a device. */
    assert_refused(FROM_CLIENT, "09000040 00000000 02010000 02000000 08000000 08000000"
                                "00000000 00000000 00000000");
    /* TS_URB: Size differs; unknown function; 31 pipes; 33 interfaces. */
    assert_refused(FROM_SERVER, "05000040 00000000 05010000 08000000 0c00 0700 02000000 00000000");
    assert_refused(FROM_SERVER, "05000040 00000000 05010000 08000000 0800 ff00 02000000 00000000");
    assert_refused(FROM_SERVER, "05000040 00000000 05010000 10000000 1000 0000 02000000 01000000"
                                "21000000 00000000");
}

static void test_writer_refuses_nonsense(void)
{
    UrbdrcMessage m = {.kind = URBDRC_TRANSFER_IN};
    Writer w;

    writer_init(&w, 1000);
    m.transfer.urb.function = 0x16; /* not a function of the table */
    urbdrc_write_message(&w, &m);
    g_assert_false(writer_ok(&w));
    writer_clear(&w);
    m.transfer.urb = (UrbdrcUrb){.function = URB_ISOCH_TRANSFER};
    m.transfer.urb.iso.n_packets = URBDRC_MAX_ISO_PACKETS + 1;
    urbdrc_write_message(&w, &m);
    g_assert_false(writer_ok(&w));
    writer_clear(&w);
}

static void test_string_text(void)
{
    static const uint8_t units[] = {'A',  0,    0xe4, 0x00, 0xac, 0x20, 0x3d, 0xd8, 0x00,
                                    0xde, 0x00, 0xd8, 'B',  0,    0,    0,    'C',  0};
    const UrbdrcString s = {units, sizeof(units) / 2};
    char out[32], small[6];

    g_assert_cmpstr(urbdrc_string_text(s, out, sizeof(out)), ==,
                    "A\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\xef\xbf\xbd"
                    "B");
    g_assert_cmpstr(urbdrc_string_text(s, small, sizeof(small)), ==, "A\xc3\xa4");
    g_assert_cmpstr(urbdrc_string_text((UrbdrcString){NULL, 0}, out, sizeof(out)), ==, "");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(goldens); i++) {
        g_autofree char *path = g_strdup_printf("/urbdrc-pdu/golden/%s", goldens[i].name);
        g_test_add_data_func(path, &goldens[i], test_golden);
    }
    g_test_add_func("/urbdrc-pdu/example-values", test_example_values);
    g_test_add_func("/urbdrc-pdu/ids-collide", test_ids_collide);
    g_test_add_func("/urbdrc-pdu/tolerances", test_tolerances);
    g_test_add_func("/urbdrc-pdu/refusals", test_refusals);
    g_test_add_func("/urbdrc-pdu/writer-refuses", test_writer_refuses_nonsense);
    g_test_add_func("/urbdrc-pdu/string-text", test_string_text);
    g_test_add_func("/urbdrc-pdu/truncations", test_truncations);
    g_test_add_func("/urbdrc-pdu/bit-flips", test_bit_flips);
    return g_test_run();
}
