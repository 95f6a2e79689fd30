#include "hostile_guest.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <usbredirparser.h>

#define PAYLOAD_BYTES (256u << 10)
#define CBW_BYTES 31u

typedef struct Asked {
    uint64_t id;
    int type; /* of the answer */
    uint8_t endpoint;
    uint32_t length; /* wanted, IN; of a stream: 1 to start it, 0 to stop it */
    unsigned answers;
} Asked;

/* Endpoints, bit n for endpoint n, whose stream of packets the device has said to be running. */
typedef struct Running {
    uint16_t iso, interrupt, bulk; /* IN */
} Running;

struct HostileGuest {
    FakeGuest *fake;
    Asked asked[HOSTILE_MAX_PACKETS];
    unsigned n;
    size_t taken;                  /* of fake->out */
    bool raw, connected, rejected; /* .rejected: it may be offered once more, as something else */
    uint8_t configuration;         /* the last one that was set, 0 for none */
    Running running;
};

static const uint8_t payload[PAYLOAD_BYTES];

/* --- what comes back --- */

static void check_endpoints(const struct usb_redir_ep_info_header *h)
{
    for (unsigned i = 0; i < 32; i++) {
        if (h->type[i] == usb_redir_type_invalid)
            continue;
        assert(h->type[i] <= usb_redir_type_interrupt);
        if (h->type[i] == usb_redir_type_iso || h->type[i] == usb_redir_type_interrupt)
            assert(h->interval[i] > 0);
        if (i % 16 != 0) /* QEMU divides by it (CVE-2026-63319) */
            assert(h->max_packet_size[i] > 0);
    }
}

/* The streams of a packet's or a status' kind, NULL if it has none. */
static uint16_t *streams_of(HostileGuest *g, int type)
{
    switch (type) {
    case usb_redir_iso_packet:
    case usb_redir_iso_stream_status:
        return &g->running.iso;
    case usb_redir_interrupt_packet:
    case usb_redir_interrupt_receiving_status:
        return &g->running.interrupt;
    case usb_redir_buffered_bulk_packet:
    case usb_redir_bulk_receiving_status:
        return &g->running.bulk;
    default:
        return NULL;
    }
}

static void set_running(HostileGuest *g, int type, uint8_t endpoint, bool running)
{
    uint16_t *streams = streams_of(g, type), bit = (uint16_t)(1u << (endpoint & 15));

    if (endpoint & 0x80)
        *streams = (uint16_t)(running ? *streams | bit : *streams & ~bit);
}

/* A packet of a stream has an id of its own. It comes in, and only while its stream runs: what was
 * answered to start, stop and since then is in order with it. */
static void check_stream(HostileGuest *g, const GuestPacket *p)
{
    assert(p->endpoint & 0x80);
    assert(g->raw || *streams_of(g, p->type) >> (p->endpoint & 15) & 1);
}

/* A configuration was set. Another one than before ends all streams without a word. The same one
 * again need not end any: usbredirhost_set_configuration() leaves the device alone then. */
static void set_configured(HostileGuest *g, uint8_t value)
{
    if (value != g->configuration)
        g->running = (Running){0};
    g->configuration = value;
}

static void check_answer(HostileGuest *g, const GuestPacket *p)
{
    for (unsigned i = 0; i < g->n; i++) {
        Asked *a = &g->asked[i];
        if (a->id != p->id || a->type != p->type)
            continue;
        a->answers++;
        assert(g->raw || a->answers == 1);
        if (p->type == usb_redir_bulk_packet || p->type == usb_redir_control_packet ||
            p->type == usb_redir_interrupt_packet) {
            assert(p->endpoint == a->endpoint);
            assert(p->length <= a->length);
            assert(p->data_len == 0 || (a->endpoint & 0x80));
        } else if (p->type == usb_redir_configuration_status) {
            if (a->length && p->status == usb_redir_success)
                set_configured(g, p->value);
        } else if (streams_of(g, p->type)) {
            assert(p->endpoint == a->endpoint);
            if (!a->length || p->status == usb_redir_success)
                set_running(g, p->type, p->endpoint, a->length);
        }
        return;
    }
    assert(g->raw || g->n == HOSTILE_MAX_PACKETS); /* an answer to nothing */
}

static void check_packet(HostileGuest *g, const GuestPacket *p)
{
    switch (p->type) {
    case usb_redir_device_connect:
        assert(!g->connected || g->rejected);
        g->connected = true;
        g->rejected = false;
        break;
    case usb_redir_device_disconnect:
        assert(g->connected);
        g->connected = false;
        break;
    case usb_redir_ep_info:
        check_endpoints(&p->ep);
        break;
    case usb_redir_interface_info:
        assert(p->info.interface_count <= 32);
        break;
    case usb_redir_control_packet:
        assert(p->data_len <= (int)USB_MAX_CONTROL_BYTES);
        check_answer(g, p);
        break;
    case usb_redir_interrupt_packet:
        if (p->endpoint & 0x80)
            check_stream(g, p);
        else
            check_answer(g, p);
        break;
    case usb_redir_iso_packet:
    case usb_redir_buffered_bulk_packet:
        check_stream(g, p);
        break;
    case usb_redir_iso_stream_status:
    case usb_redir_interrupt_receiving_status:
    case usb_redir_bulk_receiving_status:
        if (p->id == 0) /* the device ends it */
            set_running(g, p->type, p->endpoint, false);
        else
            check_answer(g, p);
        break;
    case usb_redir_bulk_packet:
    case usb_redir_configuration_status:
    case usb_redir_alt_setting_status:
        check_answer(g, p);
        break;
    default:
        break;
    }
}

void hostile_guest_receive(HostileGuest *g, const uint8_t *data, size_t len)
{
    fake_guest_receive(g->fake, data, len);
    assert(g->fake->errors == 0); /* what QEMU's parser would refuse */
    for (unsigned i = 0; i < g->fake->n_log; i++)
        check_packet(g, &g->fake->log[i]);
    fake_guest_clear_log(g->fake);
}

void hostile_guest_check(HostileGuest *g, bool all)
{
    for (unsigned i = 0; all && !g->raw && i < g->n; i++) {
        const Asked *a = &g->asked[i];
        if (a->answers != 1)
            fprintf(stderr, "packet %u of %u, kind %d, endpoint %02x, %u bytes: %u answers\n", i,
                    g->n, a->type, a->endpoint, a->length, a->answers);
        assert(a->answers == 1);
    }
}

/* --- what it asks --- */

static uint64_t ask(HostileGuest *g, int type, uint8_t endpoint, uint32_t length)
{
    uint64_t id = g->fake->next_id++;

    if (g->n < HOSTILE_MAX_PACKETS)
        g->asked[g->n++] = (Asked){.id = id, .type = type, .endpoint = endpoint, .length = length};
    return id;
}

/* The library takes what it only reads as if it wrote. */
static uint8_t *bytes(const uint8_t *data)
{
    return (uint8_t *)(uintptr_t)data;
}

static bool full(const HostileGuest *g)
{
    return g->n >= HOSTILE_MAX_PACKETS - 1;
}

static void control(HostileGuest *g, Reader *r)
{
    struct usb_redir_control_packet_header h = {.requesttype = reader_u8(r),
                                                .request = reader_u8(r),
                                                .value = reader_u16(r),
                                                .index = reader_u16(r),
                                                .length = reader_u16(r)};
    h.endpoint = h.requesttype & 0x80;
    bool out = !h.endpoint;
    uint64_t id = ask(g, usb_redir_control_packet, h.endpoint, h.length);
    usbredirparser_send_control_packet(g->fake->parser, id, &h,
                                       out && h.length ? bytes(payload) : NULL, out ? h.length : 0);
}

/* Lengths that are usual, and some that are not. */
static uint32_t transfer_length(uint8_t scale, uint32_t length)
{
    if (scale == 30 || scale == 31) /* a command block of mass storage */
        return CBW_BYTES;
    return scale > 250 ? length << 11 : scale > 200 ? length << 4 : length;
}

static void bulk(HostileGuest *g, Reader *r, uint8_t endpoint)
{
    uint8_t scale = reader_u8(r);
    uint32_t length = transfer_length(scale, reader_u16(r));
    static const uint8_t inquiry[CBW_BYTES] = {'U', 'S', 'B',  'C', 1, 2,    3, 4, 36, 0,
                                               0,   0,   0x80, 0,   6, 0x12, 0, 0, 0,  36};
    static const uint8_t capacity[CBW_BYTES] = {'U', 'S', 'B', 'C', 1,    2, 3,  4,
                                                8,   0,   0,   0,   0x80, 0, 10, 0x25};
    const uint8_t *data = length != CBW_BYTES ? payload : scale == 30 ? capacity : inquiry;

    if (!(endpoint & 0x80) && length > PAYLOAD_BYTES)
        length = PAYLOAD_BYTES;
    struct usb_redir_bulk_packet_header h = {.endpoint = endpoint,
                                             .status = 0,
                                             .length = (uint16_t)length,
                                             .length_high = (uint16_t)(length >> 16),
                                             .stream_id = endpoint == 0x8f ? 1 : 0};
    uint64_t id = ask(g, usb_redir_bulk_packet, endpoint, length);
    bool out = !(endpoint & 0x80);
    usbredirparser_send_bulk_packet(g->fake->parser, id, &h, out && length ? bytes(data) : NULL,
                                    out ? (int)length : 0);
}

static void interrupt_out(HostileGuest *g, Reader *r, uint8_t endpoint)
{
    struct usb_redir_interrupt_packet_header h = {.endpoint = endpoint & 0x7f,
                                                  .length = reader_u8(r)};
    uint64_t id = ask(g, usb_redir_interrupt_packet, h.endpoint, h.length);
    usbredirparser_send_interrupt_packet(g->fake->parser, id, &h, h.length ? bytes(payload) : NULL,
                                         h.length);
}

static void iso_out(HostileGuest *g, Reader *r, uint8_t endpoint)
{
    struct usb_redir_iso_packet_header h = {.endpoint = endpoint & 0x7f, .length = reader_u16(r)};

    usbredirparser_send_iso_packet(g->fake->parser, g->fake->next_id++, &h,
                                   h.length ? bytes(payload) : NULL, h.length);
}

static void stream(HostileGuest *g, Reader *r, uint8_t what, uint8_t endpoint)
{
    static const int answers[] = {usb_redir_iso_stream_status, usb_redir_interrupt_receiving_status,
                                  usb_redir_bulk_receiving_status};
    struct usbredirparser *p = g->fake->parser;
    uint64_t id = ask(g, answers[what % 6 / 2], endpoint, what % 2 == 0);

    switch (what % 6) {
    case 0:
        usbredirparser_send_start_iso_stream(
            p, id,
            &(struct usb_redir_start_iso_stream_header){
                .endpoint = endpoint, .pkts_per_urb = reader_u8(r), .no_urbs = reader_u8(r)});
        break;
    case 1:
        usbredirparser_send_stop_iso_stream(
            p, id, &(struct usb_redir_stop_iso_stream_header){.endpoint = endpoint});
        break;
    case 2:
        usbredirparser_send_start_interrupt_receiving(
            p, id, &(struct usb_redir_start_interrupt_receiving_header){.endpoint = endpoint});
        break;
    case 3:
        usbredirparser_send_stop_interrupt_receiving(
            p, id, &(struct usb_redir_stop_interrupt_receiving_header){.endpoint = endpoint});
        break;
    case 4:
        usbredirparser_send_start_bulk_receiving(
            p, id,
            &(struct usb_redir_start_bulk_receiving_header){.bytes_per_transfer = reader_u16(r),
                                                            .stream_id = 0,
                                                            .endpoint = endpoint,
                                                            .no_transfers = reader_u8(r)});
        break;
    default:
        usbredirparser_send_stop_bulk_receiving(
            p, id, &(struct usb_redir_stop_bulk_receiving_header){.endpoint = endpoint});
        break;
    }
}

static void streams(HostileGuest *g, Reader *r)
{
    uint64_t id = g->fake->next_id++;
    uint32_t endpoints = reader_u32(r);

    if (endpoints & 1)
        usbredirparser_send_alloc_bulk_streams(
            g->fake->parser, id,
            &(struct usb_redir_alloc_bulk_streams_header){.endpoints = endpoints, .no_streams = 4});
    else
        usbredirparser_send_free_bulk_streams(
            g->fake->parser, id,
            &(struct usb_redir_free_bulk_streams_header){.endpoints = endpoints});
}

static void set_configuration(HostileGuest *g, uint8_t value)
{
    usbredirparser_send_set_configuration(
        g->fake->parser, ask(g, usb_redir_configuration_status, 0, 1),
        &(struct usb_redir_set_configuration_header){.configuration = value});
}

static void set_alt(HostileGuest *g, uint8_t interface, uint8_t alt)
{
    usbredirparser_send_set_alt_setting(
        g->fake->parser, ask(g, usb_redir_alt_setting_status, 0, 0),
        &(struct usb_redir_set_alt_setting_header){.interface = interface, .alt = alt});
}

static void query(HostileGuest *g, Reader *r)
{
    uint8_t interface = reader_u8(r);

    if (interface & 0x80)
        usbredirparser_send_get_configuration(g->fake->parser,
                                              ask(g, usb_redir_configuration_status, 0, 0));
    else
        usbredirparser_send_get_alt_setting(
            g->fake->parser, ask(g, usb_redir_alt_setting_status, 0, 0),
            &(struct usb_redir_get_alt_setting_header){.interface = interface});
}

static const uint8_t endpoints[] = {0x81, 0x02, 0x82, 0x01, 0x83, 0x03, 0x04, 0x8f};

static void act(HostileGuest *g, Reader *r, uint8_t what, uint8_t arg)
{
    uint8_t endpoint = arg < 0xf0 ? endpoints[arg % sizeof(endpoints)] : reader_u8(r);
    static const uint8_t types[] = {0x81, 0x01, 0xc0, 0x40, 0x21, 0xa1, 0x80, 0x00, 0x02, 0x82};

    switch (what % 12) {
    case 0:
    case 1:
        bulk(g, r, endpoint);
        break;
    case 2:
        control(g, r);
        break;
    case 3: { /* a plausible one */
        uint8_t text[] = {
            types[arg % sizeof(types)], reader_u8(r), arg, reader_u8(r), arg & 3, 0, 64, 0};
        Reader short_one;
        reader_init(&short_one, text, sizeof(text));
        control(g, &short_one);
        break;
    }
    case 4:
        interrupt_out(g, r, endpoint);
        break;
    case 5:
        iso_out(g, r, endpoint);
        break;
    case 6:
    case 7:
        stream(g, r, arg, endpoints[reader_u8(r) % sizeof(endpoints)]);
        break;
    case 8:
        if (arg & 0x80)
            streams(g, r);
        else
            query(g, r);
        break;
    case 9:
        set_configuration(g, arg & 3);
        break;
    case 10:
        set_alt(g, arg >> 4, arg & 3);
        break;
    default:
        if (arg == 0) {
            usbredirparser_send_reset(g->fake->parser);
        } else if (arg == 1) {
            g->rejected = true;
            usbredirparser_send_filter_reject(g->fake->parser);
        } else if (g->n > 0) {
            usbredirparser_send_cancel_data_packet(g->fake->parser, g->asked[arg % g->n].id);
        }
        break;
    }
}

void hostile_guest_act(HostileGuest *g, Reader *r)
{
    uint8_t what = reader_u8(r), arg = reader_u8(r);
    unsigned before = g->n;

    if (!full(g))
        act(g, r, what, arg);
    if (g->fake->errors > 0) /* the library does not send that: hostile_guest_raw() may */
        g->n = before;
    g->fake->errors = 0;
    fake_guest_flush(g->fake);
}

void hostile_guest_configure(HostileGuest *g)
{
    if (!full(g))
        set_configuration(g, 1);
    fake_guest_flush(g->fake);
}

void hostile_guest_cancel_all(HostileGuest *g)
{
    for (unsigned i = 0; i < g->n; i++)
        if (g->asked[i].answers == 0 && (g->asked[i].type == usb_redir_control_packet ||
                                         g->asked[i].type == usb_redir_bulk_packet ||
                                         g->asked[i].type == usb_redir_interrupt_packet))
            usbredirparser_send_cancel_data_packet(g->fake->parser, g->asked[i].id);
    fake_guest_flush(g->fake);
}

void hostile_guest_raw(HostileGuest *g, const uint8_t *data, size_t len)
{
    g->raw = true;
    if (g->fake->out_len + len > g->fake->out_cap) {
        g->fake->out_cap = (g->fake->out_len + len) * 2;
        g->fake->out = realloc(g->fake->out, g->fake->out_cap);
    }
    memcpy(g->fake->out + g->fake->out_len, data, len);
    g->fake->out_len += len;
}

uint8_t *hostile_guest_take(HostileGuest *g, size_t max, size_t *len)
{
    FakeGuest *f = g->fake;

    size_t left = f->out_len - g->taken;
    *len = left < max ? left : max;
    if (*len == 0)
        return NULL;
    uint8_t *copy = malloc(*len);
    memcpy(copy, f->out + g->taken, *len);
    g->taken += *len;
    if (g->taken == f->out_len)
        g->taken = f->out_len = 0;
    return copy;
}

HostileGuest *hostile_guest_new(void)
{
    HostileGuest *g = calloc(1, sizeof(*g));

    g->fake = fake_guest_new();
    return g;
}

void hostile_guest_free(HostileGuest *g)
{
    if (!g)
        return;
    fake_guest_free(g->fake);
    free(g);
}
