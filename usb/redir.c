/*
 * Theory of operation
 *
 * libusbredirparser does the parsing and writing of packets. Around it stands a small framing of
 * our own which knows only packet headers, for two things that the library does not do:
 *
 * - It allocates whatever a header announces, up to 128 MiB. Here a packet meets its limit first: a
 *   bulk OUT packet that is too long is stepped over and reported without its data (it can be
 *   refused like any other request), any other packet that is too long ends the stream.
 * - It cannot stop between two packets. Here each packet waits for .ready, so that the caps of
 *   usb_limits.h hold however many packets one read has brought.
 *
 * Whatever the library refuses to parse ends the stream as well (urbdrc.md 6.2): QEMU never sends
 * it, so the other end is no QEMU, or one in the hands of its guest.
 */
#include "redir.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <usbredirparser.h>

#include "bytes.h"
#include "log.h"

#define HEADER_LEN_32 12u /* with 32-bit ids: before both sides' hello */
#define HEADER_LEN_64 16u
#define BULK_HEADER_LEN 10u
#define MAX_DATA_PACKET (USB_MAX_TRANSFER_BYTES + 16u)
#define MAX_QUEUED_PACKETS                                                                         \
    1000u                       /* the library walks its queue to append; QEMU holds 1000 reports */
#define MAX_OTHER_PACKET 65536u /* the largest are filter rules, 20 to 30 bytes each */

struct Redir {
    struct usbredirparser *parser;
    const RedirCallbacks *callbacks;
    void *user;
    const uint8_t *span; /* what the parser may read now */
    size_t span_len;
    uint8_t head[HEADER_LEN_64 + BULK_HEADER_LEN];
    size_t head_len;
    uint64_t body_left; /* of the packet that is being passed on or stepped over */
    bool skipping;
    bool dead; /* the write function failed */
    char error[192];
};

static void fail(Redir *redir, const char *why)
{
    if (!redir->error[0])
        snprintf(redir->error, sizeof(redir->error), "QEMU's usbredir stream is broken: %s", why);
}

static void emit(void *priv, RedirEvent event)
{
    Redir *redir = priv;

    redir->callbacks->event(redir->user, &event);
    if (event.data)
        usbredirparser_free_packet_data(redir->parser, event.data);
}

/* The library's callbacks, in the order of the protocol's packet numbers. */

static void on_hello(void *priv, struct usb_redir_hello_header *h)
{
    emit(priv, (RedirEvent){.type = REDIR_HELLO});
}

static void on_reset(void *priv)
{
    emit(priv, (RedirEvent){.type = REDIR_RESET});
}

static void on_set_configuration(void *priv, uint64_t id,
                                 struct usb_redir_set_configuration_header *h)
{
    emit(priv, (RedirEvent){.type = REDIR_SET_CONFIGURATION, .id = id, .value = h->configuration});
}

static void on_get_configuration(void *priv, uint64_t id)
{
    emit(priv, (RedirEvent){.type = REDIR_GET_CONFIGURATION, .id = id});
}

static void on_set_alt(void *priv, uint64_t id, struct usb_redir_set_alt_setting_header *h)
{
    emit(priv,
         (RedirEvent){.type = REDIR_SET_ALT, .id = id, .interface = h->interface, .alt = h->alt});
}

static void on_get_alt(void *priv, uint64_t id, struct usb_redir_get_alt_setting_header *h)
{
    emit(priv, (RedirEvent){.type = REDIR_GET_ALT, .id = id, .interface = h->interface});
}

static void on_start_iso(void *priv, uint64_t id, struct usb_redir_start_iso_stream_header *h)
{
    emit(priv, (RedirEvent){.type = REDIR_START_ISO,
                            .id = id,
                            .endpoint = h->endpoint,
                            .per_urb = h->pkts_per_urb,
                            .urbs = h->no_urbs});
}

static void on_stop_iso(void *priv, uint64_t id, struct usb_redir_stop_iso_stream_header *h)
{
    emit(priv, (RedirEvent){.type = REDIR_STOP_ISO, .id = id, .endpoint = h->endpoint});
}

static void on_start_interrupt(void *priv, uint64_t id,
                               struct usb_redir_start_interrupt_receiving_header *h)
{
    emit(priv, (RedirEvent){.type = REDIR_START_INTERRUPT, .id = id, .endpoint = h->endpoint});
}

static void on_stop_interrupt(void *priv, uint64_t id,
                              struct usb_redir_stop_interrupt_receiving_header *h)
{
    emit(priv, (RedirEvent){.type = REDIR_STOP_INTERRUPT, .id = id, .endpoint = h->endpoint});
}

static void on_alloc_streams(void *priv, uint64_t id, struct usb_redir_alloc_bulk_streams_header *h)
{
    emit(priv, (RedirEvent){.type = REDIR_ALLOC_STREAMS, .id = id, .streams = h->endpoints});
}

static void on_free_streams(void *priv, uint64_t id, struct usb_redir_free_bulk_streams_header *h)
{
    emit(priv, (RedirEvent){.type = REDIR_FREE_STREAMS, .id = id, .streams = h->endpoints});
}

static void on_cancel(void *priv, uint64_t id)
{
    emit(priv, (RedirEvent){.type = REDIR_CANCEL, .id = id});
}

static void on_filter_reject(void *priv)
{
    emit(priv, (RedirEvent){.type = REDIR_FILTER_REJECT});
}

static void on_filter_filter(void *priv, struct usbredirfilter_rule *rules, int n)
{
    emit(priv, (RedirEvent){.type = REDIR_FILTER_RULES, .rules = rules, .n_rules = n});
    usbredirfilter_free(rules);
}

static void on_disconnect_ack(void *priv)
{
    /* QEMU has not this capability; another peer's is of no use since the stream ends anyway. */
}

static void on_start_bulk(void *priv, uint64_t id, struct usb_redir_start_bulk_receiving_header *h)
{
    emit(priv, (RedirEvent){.type = REDIR_START_BULK,
                            .id = id,
                            .endpoint = h->endpoint,
                            .stream = h->stream_id,
                            .length = h->bytes_per_transfer,
                            .transfers = h->no_transfers});
}

static void on_stop_bulk(void *priv, uint64_t id, struct usb_redir_stop_bulk_receiving_header *h)
{
    emit(priv,
         (RedirEvent){
             .type = REDIR_STOP_BULK, .id = id, .endpoint = h->endpoint, .stream = h->stream_id});
}

static void on_control(void *priv, uint64_t id, struct usb_redir_control_packet_header *h,
                       uint8_t *data, int len)
{
    emit(priv, (RedirEvent){.type = REDIR_CONTROL,
                            .id = id,
                            .endpoint = h->endpoint,
                            .setup = {.request_type = h->requesttype,
                                      .request = h->request,
                                      .value = h->value,
                                      .index = h->index,
                                      .length = h->length},
                            .length = h->length,
                            .data = data});
}

static bool peer_has(Redir *redir, int cap)
{
    return usbredirparser_have_peer_caps(redir->parser) &&
           usbredirparser_peer_has_cap(redir->parser, cap);
}

static void on_bulk(void *priv, uint64_t id, struct usb_redir_bulk_packet_header *h, uint8_t *data,
                    int len)
{
    uint32_t high = peer_has(priv, usb_redir_cap_32bits_bulk_length) ? h->length_high : 0;

    emit(priv, (RedirEvent){.type = REDIR_BULK,
                            .id = id,
                            .endpoint = h->endpoint,
                            .stream = h->stream_id,
                            .length = high << 16 | h->length,
                            .data = data});
}

static void on_iso(void *priv, uint64_t id, struct usb_redir_iso_packet_header *h, uint8_t *data,
                   int len)
{
    emit(priv, (RedirEvent){.type = REDIR_ISO,
                            .id = id,
                            .endpoint = h->endpoint,
                            .length = h->length,
                            .data = data});
}

static void on_interrupt(void *priv, uint64_t id, struct usb_redir_interrupt_packet_header *h,
                         uint8_t *data, int len)
{
    emit(priv, (RedirEvent){.type = REDIR_INTERRUPT,
                            .id = id,
                            .endpoint = h->endpoint,
                            .length = h->length,
                            .data = data});
}

static void on_log(void *priv, int level, const char *message)
{
    Redir *redir = priv;
    char text[128];

    if (level != usbredirparser_error)
        return;
    log_escape(text, sizeof(text), message, SIZE_MAX);
    log_debug("usbredir", "%s", text);
    if (redir->span)
        fail(redir, text); /* the library reads on after some errors; we do not */
}

static int on_read(void *priv, uint8_t *data, int count)
{
    Redir *redir = priv;
    size_t n = (size_t)count < redir->span_len ? (size_t)count : redir->span_len;

    memcpy(data, redir->span, n);
    redir->span += n;
    redir->span_len -= n;
    return (int)n;
}

static int on_write(void *priv, uint8_t *data, int count)
{
    Redir *redir = priv;
    ptrdiff_t n = redir->callbacks->write(redir->user, data, (size_t)count);

    if (n < 0)
        redir->dead = true;
    return (int)n;
}

static void set_callbacks(struct usbredirparser *p)
{
    p->log_func = on_log;
    p->read_func = on_read;
    p->write_func = on_write;
    p->hello_func = on_hello;
    p->reset_func = on_reset;
    p->set_configuration_func = on_set_configuration;
    p->get_configuration_func = on_get_configuration;
    p->set_alt_setting_func = on_set_alt;
    p->get_alt_setting_func = on_get_alt;
    p->start_iso_stream_func = on_start_iso;
    p->stop_iso_stream_func = on_stop_iso;
    p->start_interrupt_receiving_func = on_start_interrupt;
    p->stop_interrupt_receiving_func = on_stop_interrupt;
    p->alloc_bulk_streams_func = on_alloc_streams;
    p->free_bulk_streams_func = on_free_streams;
    p->cancel_data_packet_func = on_cancel;
    p->filter_reject_func = on_filter_reject;
    p->filter_filter_func = on_filter_filter;
    p->device_disconnect_ack_func = on_disconnect_ack;
    p->start_bulk_receiving_func = on_start_bulk;
    p->stop_bulk_receiving_func = on_stop_bulk;
    p->control_packet_func = on_control;
    p->bulk_packet_func = on_bulk;
    p->iso_packet_func = on_iso;
    p->interrupt_packet_func = on_interrupt;
}

Redir *redir_new(const RedirCallbacks *callbacks, void *user)
{
    /* urbdrc.md 4.1. Not bulk_streams: URBDRC has none, and QEMU drops a device whose host
     * advertises them and then refuses. */
    static const int advertised[] = {
        usb_redir_cap_connect_device_version,
        usb_redir_cap_filter,
        usb_redir_cap_device_disconnect_ack,
        usb_redir_cap_ep_info_max_packet_size,
        usb_redir_cap_64bits_ids,
        usb_redir_cap_32bits_bulk_length,
        usb_redir_cap_bulk_receiving,
    };
    uint32_t caps[USB_REDIR_CAPS_SIZE] = {0};
    Redir *redir = calloc(1, sizeof(*redir));

    if (!redir || !(redir->parser = usbredirparser_create()))
        abort();
    redir->callbacks = callbacks;
    redir->user = user;
    redir->parser->priv = redir;
    set_callbacks(redir->parser);
    for (size_t i = 0; i < sizeof(advertised) / sizeof(advertised[0]); i++)
        usbredirparser_caps_set_cap(caps, advertised[i]);
    usbredirparser_init(redir->parser, "qrdp " QRDP_VERSION, caps, USB_REDIR_CAPS_SIZE,
                        usbredirparser_fl_usb_host);
    return redir;
}

void redir_free(Redir *redir)
{
    if (!redir)
        return;
    usbredirparser_destroy(redir->parser);
    free(redir);
}

const char *redir_error(const Redir *redir)
{
    return redir->error[0] ? redir->error : NULL;
}

void redir_free_data(Redir *redir, uint8_t *data)
{
    usbredirparser_free_packet_data(redir->parser, data);
}

static void parse(Redir *redir, const uint8_t *data, size_t len)
{
    redir->span = data;
    redir->span_len = len;
    int r = usbredirparser_do_read(redir->parser);
    redir->span = NULL;
    if (r != 0)
        fail(redir, "a packet cannot be parsed");
}

/* A bulk OUT packet above the limit: its header is in .head, its payload was never looked at. What
 * the header says of it must still fit: an event of an acceptable length must have its data. */
static void report_too_long(Redir *redir, size_t header_len)
{
    Reader r;

    reader_init(&r, redir->head, redir->head_len);
    reader_skip(&r, 8);
    uint64_t id = header_len == HEADER_LEN_64 ? reader_u64(&r) : reader_u32(&r);
    RedirEvent event = {.type = REDIR_BULK, .id = id, .endpoint = reader_u8(&r)};
    reader_skip(&r, 1);
    event.length = reader_u16(&r);
    event.stream = reader_u32(&r);
    event.length |= (uint32_t)reader_u16(&r) << 16;
    if (event.endpoint & 0x80 || event.length <= USB_MAX_TRANSFER_BYTES)
        fail(redir, "a packet's payload is not of the length that it gives");
    else
        emit(redir, event);
}

static size_t header_length(Redir *redir)
{
    return peer_has(redir, usb_redir_cap_64bits_ids) ? HEADER_LEN_64 : HEADER_LEN_32;
}

/* A whole header has arrived: what is to become of the packet? */
static void begin_packet(Redir *redir, size_t header_len)
{
    Reader r;

    reader_init(&r, redir->head, header_len);
    uint32_t type = reader_u32(&r);
    redir->body_left = reader_u32(&r);
    bool is_data = type >= usb_redir_control_packet && type <= usb_redir_buffered_bulk_packet;
    if (redir->body_left > (is_data ? MAX_DATA_PACKET : MAX_OTHER_PACKET)) {
        if (type != usb_redir_bulk_packet || header_len != HEADER_LEN_64)
            fail(redir, "a packet is too long");
        redir->skipping = true;
        return;
    }
    parse(redir, redir->head, header_len);
    redir->head_len = 0;
}

size_t redir_feed(Redir *redir, const uint8_t *data, size_t len)
{
    size_t at = 0;

    while (at < len && !redir->error[0]) {
        size_t header_len = header_length(redir);
        size_t head_want = redir->skipping ? header_len + BULK_HEADER_LEN : header_len;
        size_t n = len - at;

        if (redir->body_left == 0 || (redir->skipping && redir->head_len < head_want)) {
            if (redir->head_len == 0 && !redir->callbacks->ready(redir->user))
                break;
            if (n > head_want - redir->head_len)
                n = head_want - redir->head_len;
            memcpy(redir->head + redir->head_len, data + at, n);
            redir->head_len += n;
            at += n;
            if (redir->skipping)
                redir->body_left -= n;
            else if (redir->head_len == header_len)
                begin_packet(redir, header_len);
            continue;
        }
        if (n > redir->body_left)
            n = (size_t)redir->body_left;
        if (!redir->skipping)
            parse(redir, data + at, n);
        at += n;
        redir->body_left -= n;
        if (redir->skipping && redir->body_left == 0) {
            redir->skipping = false;
            report_too_long(redir, header_len);
            redir->head_len = 0;
        }
    }
    return at;
}

bool redir_flush(Redir *redir)
{
    if (!redir->dead && usbredirparser_has_data_to_write(redir->parser))
        usbredirparser_do_write(redir->parser);
    return !redir->dead;
}

uint64_t redir_backlog(const Redir *redir)
{
    return usbredirparser_get_bufferered_output_size(redir->parser);
}

static bool queue_above(const Redir *redir, unsigned divisor)
{
    return redir_backlog(redir) > USB_MAX_GUEST_BACKLOG / divisor ||
           usbredirparser_has_data_to_write(redir->parser) > (int)(MAX_QUEUED_PACKETS / divisor);
}

bool redir_congested(const Redir *redir)
{
    return queue_above(redir, 1);
}

bool redir_relieved(const Redir *redir)
{
    return !queue_above(redir, 2);
}

void redir_send_device_connect(Redir *redir, const UsbDescriptors *d)
{
    struct usb_redir_device_connect_header h = {
        .speed = (uint8_t)d->speed,
        .device_class = d->class_code,
        .device_subclass = d->subclass,
        .device_protocol = d->protocol,
        .vendor_id = d->vid,
        .product_id = d->pid,
        .device_version_bcd = d->bcd_device,
    };

    usbredirparser_send_device_connect(redir->parser, &h);
}

void redir_send_device_disconnect(Redir *redir)
{
    usbredirparser_send_device_disconnect(redir->parser);
}

/* QEMU paces and sizes an isochronous stream by this number, which it takes for frames, or for
 * microframes of a high-speed device. bInterval is an exponent at every speed (USB 2.0, 9.6.6);
 * passed on as it is, a period of 4 becomes 1 ms for the guest and 375 us for QEMU, whose buffer of
 * 60 ms is then filled or empty at the wrong time. Not of interest for interrupt endpoints. */
static uint8_t qemu_interval(const UsbDescriptors *d, const UsbEndpoint *e)
{
    unsigned exponent = (e->interval > 16 ? 16u : e->interval) - 1u;

    if (e->type != USB_ENDPOINT_ISO)
        return e->interval;
    if (d->speed == USB_SPEED_SUPER) /* QEMU divides 1000 by it for all but high speed */
        exponent = exponent > 3 ? exponent - 3 : 0;
    return (uint8_t)(exponent > 7 ? 255 : 1u << exponent);
}

static void fill_endpoint(struct usb_redir_ep_info_header *ep, const UsbDescriptors *d,
                          const UsbAltSetting *alt, const UsbEndpoint *e)
{
    unsigned i = (e->address & 0x80) >> 3 | (e->address & 0x0f);
    bool periodic = e->type == USB_ENDPOINT_ISO || e->type == USB_ENDPOINT_INTERRUPT;
    uint32_t size = periodic && d->speed >= USB_SPEED_HIGH ? e->interval_bytes : e->max_packet;

    /* QEMU before 10.0.13 loops or divides by zero on a packet size of 0 (urbdrc.md 6.3). */
    if (e->type == USB_ENDPOINT_CONTROL || e->max_packet == 0)
        return;
    ep->type[i] = (uint8_t)e->type;
    ep->interval[i] = qemu_interval(d, e);
    ep->interface[i] = alt->interface;
    ep->max_packet_size[i] = (uint16_t)(size > UINT16_MAX ? UINT16_MAX : size);
}

/* A port without super speed takes a super-speed device all the same and calls it high speed: QEMU
 * believes a device to be compatible with both lower speeds unless an endpoint speaks against it,
 * as an isochronous one does (hw/usb/redirect.c, usbredir_mark_speed_incompatible). So one is named
 * that does not exist. Nobody can use it: a guest goes by the descriptors. */
static void add_incompatible_endpoint(struct usb_redir_ep_info_header *ep)
{
    for (unsigned i = 31; i > 16; i--) {
        if (ep->type[i] == usb_redir_type_invalid) {
            ep->type[i] = usb_redir_type_iso;
            ep->interval[i] = 1;
            ep->max_packet_size[i] = 1;
            return;
        }
    }
}

void redir_send_topology(Redir *redir, const UsbDescriptors *d, const UsbConfiguration *c,
                         const uint8_t *alts, bool only_its_speed)
{
    struct usb_redir_interface_info_header info = {0};
    struct usb_redir_ep_info_header ep = {0};

    memset(ep.type, usb_redir_type_invalid, sizeof(ep.type));
    ep.type[0] = ep.type[16] = usb_redir_type_control;
    ep.max_packet_size[0] = ep.max_packet_size[16] = d->max_packet0;
    for (unsigned i = 0; c && i < c->n_interfaces; i++) {
        const UsbAltSetting *alt = usb_configuration_alt(c, c->interface_numbers[i], alts[i]);

        info.interface[i] = alt->interface;
        info.interface_class[i] = alt->class_code;
        info.interface_subclass[i] = alt->subclass;
        info.interface_protocol[i] = alt->protocol;
        for (unsigned e = 0; e < alt->n_endpoints; e++)
            fill_endpoint(&ep, d, alt, &alt->endpoints[e]);
    }
    info.interface_count = c ? c->n_interfaces : 0;
    if (only_its_speed)
        add_incompatible_endpoint(&ep);
    usbredirparser_send_interface_info(redir->parser, &info);
    usbredirparser_send_ep_info(redir->parser, &ep);
}

void redir_send_configuration_status(Redir *redir, uint64_t id, UsbStatus status, uint8_t value)
{
    struct usb_redir_configuration_status_header h = {.status = (uint8_t)status,
                                                      .configuration = value};

    usbredirparser_send_configuration_status(redir->parser, id, &h);
}

void redir_send_alt_status(Redir *redir, uint64_t id, UsbStatus status, uint8_t interface,
                           uint8_t alt)
{
    struct usb_redir_alt_setting_status_header h = {
        .status = (uint8_t)status, .interface = interface, .alt = alt};

    usbredirparser_send_alt_setting_status(redir->parser, id, &h);
}

void redir_send_interrupt_status(Redir *redir, uint64_t id, UsbStatus status, uint8_t endpoint)
{
    struct usb_redir_interrupt_receiving_status_header h = {.status = (uint8_t)status,
                                                            .endpoint = endpoint};

    usbredirparser_send_interrupt_receiving_status(redir->parser, id, &h);
}

void redir_send_iso_status(Redir *redir, uint64_t id, UsbStatus status, uint8_t endpoint)
{
    struct usb_redir_iso_stream_status_header h = {.status = (uint8_t)status, .endpoint = endpoint};

    usbredirparser_send_iso_stream_status(redir->parser, id, &h);
}

void redir_send_bulk_receiving_status(Redir *redir, uint64_t id, UsbStatus status, uint8_t endpoint,
                                      uint32_t stream)
{
    struct usb_redir_bulk_receiving_status_header h = {
        .stream_id = stream, .endpoint = endpoint, .status = (uint8_t)status};

    usbredirparser_send_bulk_receiving_status(redir->parser, id, &h);
}

void redir_send_streams_status(Redir *redir, uint64_t id, UsbStatus status, uint32_t endpoints)
{
    struct usb_redir_bulk_streams_status_header h = {.endpoints = endpoints,
                                                     .status = (uint8_t)status};

    usbredirparser_send_bulk_streams_status(redir->parser, id, &h);
}

/* The library copies the payload but does not take it as const. */
static uint8_t *payload(const uint8_t *data)
{
    return (uint8_t *)(uintptr_t)data;
}

void redir_send_control(Redir *redir, uint64_t id, UsbStatus status, const UsbSetup *setup,
                        const uint8_t *data, uint32_t length)
{
    struct usb_redir_control_packet_header h = {
        .endpoint = setup->request_type & 0x80,
        .request = setup->request,
        .requesttype = setup->request_type,
        .status = (uint8_t)status,
        .value = setup->value,
        .index = setup->index,
        .length = (uint16_t)length,
    };

    usbredirparser_send_control_packet(redir->parser, id, &h, payload(data),
                                       data ? (int)length : 0);
}

void redir_send_bulk(Redir *redir, uint64_t id, UsbStatus status, uint8_t endpoint,
                     const uint8_t *data, uint32_t length)
{
    struct usb_redir_bulk_packet_header h = {
        .endpoint = endpoint,
        .status = (uint8_t)status,
        .length = (uint16_t)length,
        .length_high = (uint16_t)(length >> 16),
    };

    usbredirparser_send_bulk_packet(redir->parser, id, &h, payload(data), data ? (int)length : 0);
}

void redir_send_interrupt(Redir *redir, uint64_t id, UsbStatus status, uint8_t endpoint,
                          const uint8_t *data, uint32_t length)
{
    struct usb_redir_interrupt_packet_header h = {
        .endpoint = endpoint, .status = (uint8_t)status, .length = (uint16_t)length};

    usbredirparser_send_interrupt_packet(redir->parser, id, &h, payload(data),
                                         data ? (int)length : 0);
}

void redir_send_buffered_bulk(Redir *redir, uint64_t id, UsbStatus status, uint8_t endpoint,
                              const uint8_t *data, uint32_t length)
{
    struct usb_redir_buffered_bulk_packet_header h = {
        .length = data ? length : 0, .endpoint = endpoint, .status = (uint8_t)status};

    usbredirparser_send_buffered_bulk_packet(redir->parser, id, &h, payload(data), (int)h.length);
}

void redir_send_iso(Redir *redir, uint64_t id, UsbStatus status, uint8_t endpoint,
                    const uint8_t *data, uint32_t length)
{
    struct usb_redir_iso_packet_header h = {
        .endpoint = endpoint, .status = (uint8_t)status, .length = (uint16_t)length};

    usbredirparser_send_iso_packet(redir->parser, id, &h, payload(data), data ? (int)length : 0);
}
