#include "fake_guest.h"

#include <stdlib.h>
#include <string.h>
#include <usbredirparser.h>

/* ---- the log ---- */

static GuestPacket *record(FakeGuest *g, int type, uint64_t id)
{
    if (g->n_log == g->log_cap) {
        g->log_cap = g->log_cap ? g->log_cap * 2 : 64;
        g->log = realloc(g->log, g->log_cap * sizeof(*g->log));
    }
    GuestPacket *p = &g->log[g->n_log++];
    *p = (GuestPacket){.type = type, .id = id};
    return p;
}

void fake_guest_clear_log(FakeGuest *g)
{
    for (unsigned i = 0; i < g->n_log; i++)
        free(g->log[i].data);
    g->n_log = 0;
}

const GuestPacket *fake_guest_find(const FakeGuest *g, int type, uint64_t id)
{
    for (unsigned i = 0; i < g->n_log; i++) {
        if (g->log[i].type == type && (id == UINT64_MAX || g->log[i].id == id))
            return &g->log[i];
    }
    return NULL;
}

unsigned fake_guest_count(const FakeGuest *g, int type)
{
    unsigned n = 0;

    for (unsigned i = 0; i < g->n_log; i++)
        n += g->log[i].type == type;
    return n;
}

/* ---- what the device sends ---- */

static void on_log(void *priv, int level, const char *message)
{
    if (level == usbredirparser_error)
        ((FakeGuest *)priv)->errors++;
}

static int on_read(void *priv, uint8_t *data, int count)
{
    FakeGuest *g = priv;
    size_t n = (size_t)count < g->in_len ? (size_t)count : g->in_len;

    memcpy(data, g->in, n);
    g->in += n;
    g->in_len -= n;
    return (int)n;
}

static int on_write(void *priv, uint8_t *data, int count)
{
    FakeGuest *g = priv;

    if (g->out_len + (size_t)count > g->out_cap) {
        g->out_cap = (g->out_len + (size_t)count) * 2;
        g->out = realloc(g->out, g->out_cap);
    }
    memcpy(g->out + g->out_len, data, (size_t)count);
    g->out_len += (size_t)count;
    return count;
}

static void on_hello(void *priv, struct usb_redir_hello_header *h)
{
    record(priv, usb_redir_hello, 0);
}

static void on_connect(void *priv, struct usb_redir_device_connect_header *h)
{
    record(priv, usb_redir_device_connect, 0)->connect = *h;
}

static void on_disconnect(void *priv)
{
    record(priv, usb_redir_device_disconnect, 0);
}

static void on_interface_info(void *priv, struct usb_redir_interface_info_header *h)
{
    record(priv, usb_redir_interface_info, 0)->info = *h;
}

static void on_ep_info(void *priv, struct usb_redir_ep_info_header *h)
{
    record(priv, usb_redir_ep_info, 0)->ep = *h;
}

static void on_configuration_status(void *priv, uint64_t id,
                                    struct usb_redir_configuration_status_header *h)
{
    GuestPacket *p = record(priv, usb_redir_configuration_status, id);

    p->status = h->status;
    p->value = h->configuration;
}

static void on_alt_status(void *priv, uint64_t id, struct usb_redir_alt_setting_status_header *h)
{
    GuestPacket *p = record(priv, usb_redir_alt_setting_status, id);

    p->status = h->status;
    p->interface = h->interface;
    p->alt = h->alt;
}

static void on_iso_status(void *priv, uint64_t id, struct usb_redir_iso_stream_status_header *h)
{
    GuestPacket *p = record(priv, usb_redir_iso_stream_status, id);

    p->status = h->status;
    p->endpoint = h->endpoint;
}

static void on_interrupt_status(void *priv, uint64_t id,
                                struct usb_redir_interrupt_receiving_status_header *h)
{
    GuestPacket *p = record(priv, usb_redir_interrupt_receiving_status, id);

    p->status = h->status;
    p->endpoint = h->endpoint;
}

static void on_streams_status(void *priv, uint64_t id,
                              struct usb_redir_bulk_streams_status_header *h)
{
    record(priv, usb_redir_bulk_streams_status, id)->status = h->status;
}

static void on_bulk_receiving_status(void *priv, uint64_t id,
                                     struct usb_redir_bulk_receiving_status_header *h)
{
    GuestPacket *p = record(priv, usb_redir_bulk_receiving_status, id);

    p->status = h->status;
    p->endpoint = h->endpoint;
}

static void data_packet(FakeGuest *g, int type, uint64_t id, uint8_t endpoint, uint8_t status,
                        uint32_t length, uint8_t *data, int data_len)
{
    GuestPacket *p = record(g, type, id);

    p->endpoint = endpoint;
    p->status = status;
    p->length = length;
    p->data = data;
    p->data_len = data_len;
}

static void on_control(void *priv, uint64_t id, struct usb_redir_control_packet_header *h,
                       uint8_t *data, int len)
{
    data_packet(priv, usb_redir_control_packet, id, h->endpoint, h->status, h->length, data, len);
}

static void on_bulk(void *priv, uint64_t id, struct usb_redir_bulk_packet_header *h, uint8_t *data,
                    int len)
{
    data_packet(priv, usb_redir_bulk_packet, id, h->endpoint, h->status,
                (uint32_t)h->length_high << 16 | h->length, data, len);
}

static void on_interrupt(void *priv, uint64_t id, struct usb_redir_interrupt_packet_header *h,
                         uint8_t *data, int len)
{
    data_packet(priv, usb_redir_interrupt_packet, id, h->endpoint, h->status, h->length, data, len);
}

static void on_buffered_bulk(void *priv, uint64_t id,
                             struct usb_redir_buffered_bulk_packet_header *h, uint8_t *data,
                             int len)
{
    data_packet(priv, usb_redir_buffered_bulk_packet, id, h->endpoint, h->status, h->length, data,
                len);
}

static void on_iso(void *priv, uint64_t id, struct usb_redir_iso_packet_header *h, uint8_t *data,
                   int len)
{
    data_packet(priv, usb_redir_iso_packet, id, h->endpoint, h->status, h->length, data, len);
}

FakeGuest *fake_guest_new(void)
{
    uint32_t caps[USB_REDIR_CAPS_SIZE] = {0};
    FakeGuest *g = calloc(1, sizeof(*g));
    struct usbredirparser *p = g->parser = usbredirparser_create();

    p->priv = g;
    p->log_func = on_log;
    p->read_func = on_read;
    p->write_func = on_write;
    p->hello_func = on_hello;
    p->device_connect_func = on_connect;
    p->device_disconnect_func = on_disconnect;
    p->interface_info_func = on_interface_info;
    p->ep_info_func = on_ep_info;
    p->configuration_status_func = on_configuration_status;
    p->alt_setting_status_func = on_alt_status;
    p->iso_stream_status_func = on_iso_status;
    p->interrupt_receiving_status_func = on_interrupt_status;
    p->bulk_streams_status_func = on_streams_status;
    p->bulk_receiving_status_func = on_bulk_receiving_status;
    p->control_packet_func = on_control;
    p->bulk_packet_func = on_bulk;
    p->interrupt_packet_func = on_interrupt;
    p->iso_packet_func = on_iso;
    p->buffered_bulk_packet_func = on_buffered_bulk;
    for (int cap = usb_redir_cap_bulk_streams; cap <= usb_redir_cap_bulk_receiving; cap++) {
        if (cap != usb_redir_cap_device_disconnect_ack)
            usbredirparser_caps_set_cap(caps, cap);
    }
    usbredirparser_init(p, "fake QEMU", caps, USB_REDIR_CAPS_SIZE, 0);
    fake_guest_flush(g);
    g->next_id = 1;
    return g;
}

void fake_guest_free(FakeGuest *g)
{
    if (!g)
        return;
    fake_guest_clear_log(g);
    usbredirparser_destroy(g->parser);
    free(g->log);
    free(g->out);
    free(g);
}

void fake_guest_receive(FakeGuest *g, const uint8_t *data, size_t len)
{
    g->in = data;
    g->in_len = len;
    while (g->in_len > 0) {
        if (usbredirparser_do_read(g->parser) != 0)
            g->errors++;
    }
}

void fake_guest_flush(FakeGuest *g)
{
    while (usbredirparser_has_data_to_write(g->parser))
        usbredirparser_do_write(g->parser);
}

/* ---- what the guest does ---- */

uint64_t fake_guest_control(FakeGuest *g, uint8_t request_type, uint8_t request, uint16_t value,
                            uint16_t index, uint16_t length, const void *data)
{
    struct usb_redir_control_packet_header h = {
        .endpoint = request_type & 0x80,
        .request = request,
        .requesttype = request_type,
        .value = value,
        .index = index,
        .length = length,
    };
    uint64_t id = g->next_id++;

    usbredirparser_send_control_packet(g->parser, id, &h, (uint8_t *)(uintptr_t)data,
                                       data ? length : 0);
    fake_guest_flush(g);
    return id;
}

static uint64_t bulk(FakeGuest *g, uint8_t endpoint, const void *data, uint32_t length)
{
    struct usb_redir_bulk_packet_header h = {
        .endpoint = endpoint,
        .length = (uint16_t)length,
        .length_high = (uint16_t)(length >> 16),
    };
    uint64_t id = g->next_id++;

    usbredirparser_send_bulk_packet(g->parser, id, &h, (uint8_t *)(uintptr_t)data,
                                    data ? (int)length : 0);
    fake_guest_flush(g);
    return id;
}

uint64_t fake_guest_bulk_in(FakeGuest *g, uint8_t endpoint, uint32_t length)
{
    return bulk(g, endpoint, NULL, length);
}

uint64_t fake_guest_bulk_out(FakeGuest *g, uint8_t endpoint, const void *data, uint32_t length)
{
    return bulk(g, endpoint, length ? data : NULL, length);
}

uint64_t fake_guest_interrupt_out(FakeGuest *g, uint8_t endpoint, const void *data, uint32_t length)
{
    struct usb_redir_interrupt_packet_header h = {.endpoint = endpoint, .length = (uint16_t)length};
    uint64_t id = g->next_id++;

    usbredirparser_send_interrupt_packet(g->parser, id, &h, (uint8_t *)(uintptr_t)data,
                                         (int)length);
    fake_guest_flush(g);
    return id;
}

uint64_t fake_guest_set_configuration(FakeGuest *g, uint8_t value)
{
    struct usb_redir_set_configuration_header h = {.configuration = value};

    usbredirparser_send_set_configuration(g->parser, g->next_id, &h);
    fake_guest_flush(g);
    return g->next_id++;
}

uint64_t fake_guest_set_alt(FakeGuest *g, uint8_t interface, uint8_t alt)
{
    struct usb_redir_set_alt_setting_header h = {.interface = interface, .alt = alt};

    usbredirparser_send_set_alt_setting(g->parser, g->next_id, &h);
    fake_guest_flush(g);
    return g->next_id++;
}

uint64_t fake_guest_start_interrupt(FakeGuest *g, uint8_t endpoint)
{
    struct usb_redir_start_interrupt_receiving_header h = {.endpoint = endpoint};

    usbredirparser_send_start_interrupt_receiving(g->parser, g->next_id, &h);
    fake_guest_flush(g);
    return g->next_id++;
}

uint64_t fake_guest_start_bulk(FakeGuest *g, uint8_t endpoint, uint32_t bytes, uint8_t transfers)
{
    struct usb_redir_start_bulk_receiving_header h = {
        .endpoint = endpoint, .bytes_per_transfer = bytes, .no_transfers = transfers};

    usbredirparser_send_start_bulk_receiving(g->parser, g->next_id, &h);
    fake_guest_flush(g);
    return g->next_id++;
}

uint64_t fake_guest_stop_bulk(FakeGuest *g, uint8_t endpoint)
{
    struct usb_redir_stop_bulk_receiving_header h = {.endpoint = endpoint};

    usbredirparser_send_stop_bulk_receiving(g->parser, g->next_id, &h);
    fake_guest_flush(g);
    return g->next_id++;
}

uint64_t fake_guest_stop_interrupt(FakeGuest *g, uint8_t endpoint)
{
    struct usb_redir_stop_interrupt_receiving_header h = {.endpoint = endpoint};

    usbredirparser_send_stop_interrupt_receiving(g->parser, g->next_id, &h);
    fake_guest_flush(g);
    return g->next_id++;
}

uint64_t fake_guest_start_iso(FakeGuest *g, uint8_t endpoint, uint8_t per_urb, uint8_t urbs)
{
    struct usb_redir_start_iso_stream_header h = {
        .endpoint = endpoint, .pkts_per_urb = per_urb, .no_urbs = urbs};

    usbredirparser_send_start_iso_stream(g->parser, g->next_id, &h);
    fake_guest_flush(g);
    return g->next_id++;
}

uint64_t fake_guest_stop_iso(FakeGuest *g, uint8_t endpoint)
{
    struct usb_redir_stop_iso_stream_header h = {.endpoint = endpoint};

    usbredirparser_send_stop_iso_stream(g->parser, g->next_id, &h);
    fake_guest_flush(g);
    return g->next_id++;
}

uint64_t fake_guest_iso_out(FakeGuest *g, uint8_t endpoint, const void *data, uint32_t length)
{
    struct usb_redir_iso_packet_header h = {.endpoint = endpoint, .length = (uint16_t)length};

    usbredirparser_send_iso_packet(g->parser, g->next_id, &h, (uint8_t *)(uintptr_t)data,
                                   (int)length);
    fake_guest_flush(g);
    return g->next_id++;
}

void fake_guest_cancel(FakeGuest *g, uint64_t id)
{
    usbredirparser_send_cancel_data_packet(g->parser, id);
    fake_guest_flush(g);
}

void fake_guest_reset(FakeGuest *g)
{
    usbredirparser_send_reset(g->parser);
    fake_guest_flush(g);
}

void fake_guest_reject(FakeGuest *g)
{
    usbredirparser_send_filter_reject(g->parser);
    fake_guest_flush(g);
}

/* ---- the rig ---- */

static ptrdiff_t rig_write(void *user, const uint8_t *data, size_t len)
{
    UsbRig *r = user;

    if (r->dead)
        return -1;
    if (r->blocked)
        return 0;
    fake_guest_receive(r->guest, data, len);
    return (ptrdiff_t)len;
}

static void rig_state(void *user, UsbDeviceState state, const char *why)
{
    UsbRig *r = user;

    if (r->n_states < 8)
        r->states[r->n_states++] = state;
    strncpy(r->why, why, sizeof(r->why) - 1);
}

static uint64_t rig_now(void *user)
{
    return ((UsbRig *)user)->now;
}

UsbRig *usb_rig_new(FakeKind kind, UsbSpeed speed, uint32_t quirks)
{
    return usb_rig_with(fake_source_new(kind, speed), quirks);
}

static void rig_arrival(void *user, UsbArrival *arrival)
{
    const UsbRig *r = user;

    if (r->arrival)
        r->arrival(r->arrival_user, arrival);
}

UsbRig *usb_rig_with(FakeSource *source, uint32_t quirks)
{
    static const UsbDeviceCallbacks callbacks = {.guest_write = rig_write,
                                                 .state_changed = rig_state,
                                                 .now = rig_now,
                                                 .arrival = rig_arrival};
    UsbRig *r = calloc(1, sizeof(*r));

    r->now = 1000000;
    r->source = source;
    r->source->base.quirks = quirks;
    r->guest = fake_guest_new();
    UsbDescriptors *d = fake_source_descriptors(r->source);
    r->device = usb_device_new(d, &r->source->base, r->now, &callbacks, r);
    usb_descriptors_unref(d);
    return r;
}

void usb_rig_free(UsbRig *r)
{
    usb_device_free(r->device);
    fake_source_free(r->source);
    fake_guest_free(r->guest);
    free(r);
}

void usb_rig_run(UsbRig *r)
{
    for (bool moved = true; moved;) {
        moved = false;
        if (r->guest->out_len && usb_device_wants_guest_bytes(r->device)) {
            size_t n = r->guest->out_len;

            if (r->chunk && n > r->chunk)
                n = r->chunk;
            uint8_t *copy = malloc(n); /* its own allocation: overreads are seen */
            memcpy(copy, r->guest->out, n);
            r->guest->out_len -= n;
            memmove(r->guest->out, r->guest->out + n, r->guest->out_len);
            usb_device_guest_bytes(r->device, copy, n, r->now);
            free(copy);
            r->now += r->late_offer;
            usb_device_sent(r->device);
            moved = true;
        }
        if (!r->blocked && usb_device_has_guest_bytes(r->device))
            usb_device_guest_writable(r->device);
        moved |= fake_source_run(r->source) > 0;
    }
}

void usb_rig_wait(UsbRig *r, uint64_t us)
{
    uint64_t until = r->now + us;

    usb_rig_run(r);
    while (r->now < until) {
        uint64_t next = usb_device_deadline(r->device);

        r->now = next < until ? (next > r->now ? next : r->now + 1) : until;
        usb_device_tick(r->device, r->now);
        usb_rig_run(r);
    }
}

void usb_rig_enumerate(UsbRig *r)
{
    usb_rig_run(r);
    fake_guest_set_configuration(r->guest, 1);
    usb_rig_run(r);
    fake_guest_clear_log(r->guest);
}
