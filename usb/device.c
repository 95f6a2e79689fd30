/*
 * Theory of operation
 *
 * A UsbDevice is the usb-host end of one usbredir stream. It waits for QEMU's hello, announces the
 * device with its first configuration, and then turns packets into requests of its source and
 * completions into packets.
 *
 *      HELLO --hello--> CONNECTED --filter--> REJECTED
 *        |                 |
 *        +-----------------+---source gone---> GONE      (device_disconnect was sent)
 *        +-----------------+---parse error---> BROKEN
 *
 * A device that is shown at super speed without having it (shown.c) may be refused for that: it is
 * then announced once more as it is.
 *
 * In all states but the first two packets are read and dropped, nothing is at the source, and the
 * owner is about to free the device.
 *
 * A packet of the guest becomes a Packet in exactly one queue (control, or its pipe's), and a
 * Packet is answered exactly once: by its completion, timeout, cancellation, or never when the
 * device goes away as a whole (QEMU flushes its queues then). Each request of a Packet is a
 * Transfer in the table; only the table decides whether a completion still means anything.
 *
 * Every entry point is a bracket: enter() takes the time if it is known, leave() writes what was
 * queued and goes on with input that has waited. Reading from QEMU stops between two packets while
 * the configuration changes, while QEMU does not read itself, during a flood of cancels, and at the
 * caps of usb_limits.h. All of these end by themselves; for the caps this is enforced: after
 * USB_TIMEOUT_TRANSFER_US data packets are refused instead, so that the cancels behind them get
 * through and end the transfers that fill the caps.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device_priv.h"
#include "log.h"

static void stop(UsbDevice *d);

/* ---- packets and queues ---- */

Packet *packet_new(UsbDevice *d, PacketType type, uint64_t guest_id)
{
    Packet *p = calloc(1, sizeof(*p));

    if (!p)
        abort(); /* there are at most USB_MAX_IN_FLIGHT and a few */
    p->type = type;
    p->guest_id = guest_id;
    if (type != PACKET_INTERNAL)
        d->packets++;
    return p;
}

void packet_free(UsbDevice *d, Packet *p)
{
    if (p->type != PACKET_INTERNAL) {
        d->packets--;
        d->packet_bytes -= p->length;
    }
    if (p->out && p->data)
        redir_free_data(d->redir, p->data);
    else
        free(p->data);
    free(p);
}

void queue_append(PacketQueue *queue, Packet *p)
{
    if (queue->tail)
        queue->tail->next = p;
    else
        queue->head = p;
    queue->tail = p;
}

void queue_remove(PacketQueue *queue, Packet *p)
{
    Packet *before = NULL;

    if (queue->head == p) {
        queue->head = p->next;
    } else {
        before = queue->head;
        while (before->next != p)
            before = before->next;
        before->next = p->next;
    }
    if (queue->tail == p)
        queue->tail = before;
    p->next = NULL;
}

/* ---- requests ---- */

TransferTimer device_data_timer(const UsbDevice *d)
{
    return d->source && d->source->quirks & USB_QUIRK_TRANSFERS_MAY_PEND ? TRANSFER_TIMER_NONE
                                                                         : TRANSFER_TIMER_DATA;
}

uint32_t device_submit(UsbDevice *d, UsbRequest *request, TransferTimer timer, Packet *owner)
{
    if (!d->source || d->source->gone || d->retired || transfer_full(&d->table))
        return 0;
    do {
        request->id = usb_source_next_id(d->source);
    } while (transfer_known(&d->table, request->id));
    /* The guest's host controller repeats what failed three times before its driver is told. */
    if (d->silent_since && timer != TRANSFER_TIMER_NONE)
        timer = TRANSFER_TIMER_SILENT;
    if (!request->timeout_ms && timer != TRANSFER_TIMER_NONE)
        request->timeout_ms = USB_TIMEOUT_TRANSFER_US / 1000;

    Transfer t = {
        .id = request->id,
        .timer = timer,
        .endpoint = request->endpoint,
        .length = request->length,
        .owner = owner,
    };
    transfer_insert(&d->table, &t);
    if (!d->source->ops->submit(d->source, request)) {
        transfer_undo(&d->table, request->id);
        return 0;
    }
    d->stats.requests++;
    if (!owner || owner->type != PACKET_INTERNAL)
        d->touched = true;
    return request->id;
}

void device_withdraw(UsbDevice *d, uint32_t id)
{
    if (transfer_cancel(&d->table, id) && d->source && !d->source->gone)
        d->source->ops->cancel(d->source, id);
}

void device_rebuild_pipes(UsbDevice *d)
{
    const UsbConfiguration *c = d->configuration;
    const UsbEndpoint *endpoints[DEVICE_PIPES] = {NULL};
    uint8_t interfaces[DEVICE_PIPES] = {0};

    for (unsigned i = 0; c && i < c->n_interfaces; i++) {
        const UsbAltSetting *alt = usb_configuration_alt(c, c->interface_numbers[i], d->alts[i]);

        for (unsigned e = 0; e < alt->n_endpoints; e++) {
            unsigned at = pipe_index(alt->endpoints[e].address);

            endpoints[at] = &alt->endpoints[e];
            interfaces[at] = alt->interface;
        }
    }
    for (unsigned i = 0; i < DEVICE_PIPES; i++) {
        Pipe *pipe = &d->pipes[i];

        /* Usually idle by now, unless two interfaces claim one address. */
        if (pipe->endpoint != endpoints[i]) {
            stream_abort(d, pipe);
            pipe_cancel_all(d, pipe);
        }
        pipe->endpoint = endpoints[i];
        pipe->interface = interfaces[i];
    }
    storage_rebuild(d);
}

bool device_over_cap(const UsbDevice *d)
{
    return d->packets >= USB_MAX_IN_FLIGHT || d->packet_bytes >= USB_MAX_BYTES_IN_FLIGHT;
}

void device_note_round_trip(UsbDevice *d, uint64_t us)
{
    uint64_t slower = d->round_trip + d->round_trip / 16 + 250;

    if (us > (uint64_t)INT64_MAX) /* a correction that went below zero */
        us = 0;
    d->round_trip = d->round_trip == 0 || us < slower ? us + (us == 0) : slower;
    d->stats.round_trip_us = (uint32_t)(d->round_trip > UINT32_MAX ? UINT32_MAX : d->round_trip);
}

uint64_t device_round_trip(const UsbDevice *d)
{
    return d->round_trip ? d->round_trip : DEVICE_ROUND_TRIP_US;
}

void device_pump(UsbDevice *d)
{
    d->starved = false;
    control_pump(d);
    for (unsigned i = 0; i < DEVICE_PIPES; i++) {
        pipe_pump(d, &d->pipes[i]);
        stream_refill(d, &d->pipes[i]);
        iso_pump(d, &d->pipes[i]);
    }
}

void device_finish_transfer(UsbDevice *d, const Transfer *t, const UsbCompletion *c)
{
    Packet *p = t->owner;

    if (!p && d->pipes[pipe_index(t->endpoint)].iso)
        iso_complete(d, t, c);
    else if (!p)
        stream_complete(d, t, c);
    else if (p->type == PACKET_BULK || p->type == PACKET_INTERRUPT)
        pipe_complete(d, t, c);
    else
        control_complete(d, p, c);
    if (d->starved)
        device_pump(d);
}

/* ---- states and brackets ---- */

static void set_state(UsbDevice *d, UsbDeviceState state, const char *why)
{
    d->state = state;
    if (state != USB_DEVICE_CONNECTED)
        stop(d);
    d->callbacks->state_changed(d->user, state, why);
}

bool device_is_active(const UsbDevice *d)
{
    return d->state == USB_DEVICE_HELLO || d->state == USB_DEVICE_CONNECTED;
}

static void drop_all(UsbDevice *d)
{
    control_drop_all(d);
    for (unsigned i = 0; i < DEVICE_PIPES; i++) {
        pipe_drop_all(d, &d->pipes[i]);
        d->pipes[i].stream = (Stream){0};
        iso_forget(d, &d->pipes[i]);
    }
    d->stream_requests = 0;
}

/* Nothing is wanted any more: withdraws every request and forgets every packet. */
static void stop(UsbDevice *d)
{
    uint32_t cursor = 0;
    const Transfer *t;

    while ((t = transfer_next(&d->table, &cursor)))
        device_withdraw(d, t->id);
    drop_all(d);
}

static bool on_ready(void *user)
{
    const UsbDevice *d = user;
    uint64_t full_since = transfer_tombstones_full_since(&d->table);

    if (!device_is_active(d))
        return true;
    if (d->suspended || d->selecting > 0 || redir_congested(d->redir))
        return false;
    if (full_since != UINT64_MAX && d->now < full_since + DEVICE_CANCEL_PERIOD_US)
        return false;
    return !device_over_cap(d) ||
           (d->over_cap && d->now >= d->over_cap_since + USB_TIMEOUT_TRANSFER_US);
}

void device_enter(UsbDevice *d)
{
    assert(!d->busy); /* a source or owner has called back from inside a callback */
    d->busy = true;
}

void device_enter_at(UsbDevice *d, uint64_t now_us)
{
    device_enter(d);
    if (now_us > d->now)
        d->now = now_us;
    transfer_table_time(&d->table, d->now);
}

static void feed_waiting(UsbDevice *d)
{
    size_t n = redir_feed(d->redir, d->input, d->input_len);

    d->input_len -= n;
    if (n)
        memmove(d->input, d->input + n, d->input_len);
}

void device_leave(UsbDevice *d)
{
    size_t before;

    do {
        before = d->input_len;
        if (!redir_flush(d->redir) && d->state != USB_DEVICE_BROKEN)
            set_state(d, USB_DEVICE_BROKEN, "QEMU has closed its end of the stream");
        if (d->streams_paused && redir_relieved(d->redir)) {
            d->streams_paused = false;
            device_pump(d);
        }
        if (d->input_len && !redir_error(d->redir))
            feed_waiting(d);
    } while (d->input_len != before);
    if (redir_error(d->redir) && d->state != USB_DEVICE_BROKEN)
        set_state(d, USB_DEVICE_BROKEN, redir_error(d->redir));
    if (!device_over_cap(d)) {
        d->over_cap = false;
    } else if (!d->over_cap) {
        d->over_cap = true;
        d->over_cap_since = d->now;
    }
    transfer_table_time_unknown(&d->table);
    d->busy = false;
}

/* ---- events of QEMU's ---- */

void device_send_topology(UsbDevice *d)
{
    const UsbConfiguration *c =
        d->configuration ? usb_descriptors_configuration(d->shown, d->configuration->value) : NULL;

    redir_send_topology(d->redir, d->shown, c, d->alts, d->unproven);
}

static void connect_to_guest(UsbDevice *d, const char *how)
{
    device_send_topology(d);
    redir_send_device_connect(d->redir, d->shown);
    set_state(d, USB_DEVICE_CONNECTED, how);
}

static void on_hello(UsbDevice *d)
{
    d->unproven = device_is_raised(d);
    connect_to_guest(d, d->unproven ? "at super speed" : "the guest has it");
}

/* QEMU has let go of the device as if it had been unplugged, and takes another. */
static void on_reject(UsbDevice *d)
{
    if (!d->unproven) {
        set_state(d, USB_DEVICE_REJECTED,
                  "QEMU refused it: its usb-redir filter denies it, or the port has not its speed");
        return;
    }
    d->unproven = false;
    usb_descriptors_unref(d->shown);
    d->shown = usb_shown_as_is(d->descriptors);
    connect_to_guest(d, "not at super speed, which QEMU refused");
}

static void on_filter_rules(UsbDevice *d, const RedirEvent *e)
{
    const UsbDescriptors *all = d->descriptors;
    const UsbConfiguration *c = &all->configurations[0];
    uint8_t classes[USB_MAX_INTERFACES], subclasses[USB_MAX_INTERFACES],
        protocols[USB_MAX_INTERFACES];

    for (unsigned i = 0; i < c->n_interfaces; i++) {
        const UsbAltSetting *alt = usb_configuration_alt(c, c->interface_numbers[i], 0);

        classes[i] = alt->class_code;
        subclasses[i] = alt->subclass;
        protocols[i] = alt->protocol;
    }
    if (usbredirfilter_check(e->rules, e->n_rules, all->class_code, all->subclass, all->protocol,
                             classes, subclasses, protocols, c->n_interfaces, all->vid, all->pid,
                             all->bcd_device, 0) != 0)
        set_state(d, USB_DEVICE_REJECTED, "the filter of QEMU's usb-redir device denies it");
}

static void on_event(void *user, RedirEvent *e)
{
    UsbDevice *d = user;

    if (!device_is_active(d))
        return;
    if (d->unproven && e->type != REDIR_FILTER_REJECT && e->type != REDIR_FILTER_RULES) {
        d->unproven = false; /* the guest has begun to use it */
        device_send_topology(d);
    }
    switch (e->type) {
    case REDIR_HELLO:
        on_hello(d);
        break;
    case REDIR_RESET:
        control_reset(d);
        break;
    case REDIR_SET_CONFIGURATION:
        control_set_configuration(d, e->id, e->value);
        break;
    case REDIR_GET_CONFIGURATION:
        control_get_configuration(d, e->id);
        break;
    case REDIR_SET_ALT:
        control_set_alt(d, e->id, e->interface, e->alt);
        break;
    case REDIR_GET_ALT:
        control_get_alt(d, e->id, e->interface);
        break;
    case REDIR_START_INTERRUPT:
        stream_start(d, e->id, e->endpoint);
        break;
    case REDIR_STOP_INTERRUPT:
        stream_stop(d, e->id, e->endpoint);
        break;
    case REDIR_START_BULK:
        bulkin_start(d, e);
        break;
    case REDIR_STOP_BULK:
        bulkin_stop(d, e);
        break;
    case REDIR_START_ISO:
        iso_start(d, e);
        break;
    case REDIR_STOP_ISO:
        iso_stop(d, e->id, e->endpoint);
        break;
    case REDIR_ISO:
        iso_packet(d, e);
        break;
    case REDIR_CANCEL: /* an unknown id has been answered already */
        if (!control_cancel(d, e->id))
            pipe_cancel(d, e->id);
        break;
    case REDIR_FILTER_REJECT:
        on_reject(d);
        break;
    case REDIR_FILTER_RULES:
        on_filter_rules(d, e);
        break;
    case REDIR_CONTROL:
        control_event(d, e);
        break;
    case REDIR_BULK:
    case REDIR_INTERRUPT:
        pipe_event(d, e);
        break;
    default:
        stream_refuse(d, e);
        break;
    }
    if (d->starved)
        device_pump(d);
}

static ptrdiff_t on_write(void *user, const uint8_t *data, size_t len)
{
    UsbDevice *d = user;

    return d->callbacks->guest_write(d->user, data, len);
}

/* ---- events of the source's ---- */

/* How long requests take that do not wait for anything but the way and the device. */
static void time_request(UsbDevice *d, const Transfer *t, const UsbCompletion *c)
{
    const Packet *p = t->owner;

    if (d->callbacks->now && p && p->type != PACKET_BULK && p->type != PACKET_INTERRUPT &&
        c->status != USB_STATUS_TIMEOUT && d->now >= t->t0)
        device_note_round_trip(d, d->now - t->t0);
}

static void on_complete(void *user, const UsbCompletion *completion)
{
    UsbDevice *d = user;
    UsbCompletion c = *completion;
    Transfer t;

    if (d->callbacks->now)
        device_enter_at(d, d->callbacks->now(d->user));
    else
        device_enter(d);
    d->silent_since = 0;
    d->heard = d->now;
    TransferFate fate = transfer_complete(&d->table, c.id, &t);
    if (fate != TRANSFER_WAS_UNKNOWN && c.length > t.length) {
        c.length = t.length; /* the source has checked; QEMU must never get more */
        c.status = USB_STATUS_BABBLE;
    }
    if (fate == TRANSFER_WAS_LIVE) {
        d->stats.completions++;
        time_request(d, &t, &c);
        control_took(d, &t);
        device_finish_transfer(d, &t, &c);
    } else {
        d->stats.late++;
        if (fate == TRANSFER_WAS_CANCELLED && t.expired && !t.owner)
            stream_late(d, &t, &c);
    }
    device_leave(d);
}

static void on_gone(void *user, const char *why)
{
    UsbDevice *d = user;

    device_enter(d);
    d->source = NULL;
    transfer_table_clear(&d->table);
    if (device_is_active(d)) {
        if (d->state == USB_DEVICE_CONNECTED)
            redir_send_device_disconnect(d->redir);
        set_state(d, USB_DEVICE_GONE, why);
    }
    device_leave(d);
}

static const UsbSink device_sink = {.complete = on_complete, .gone = on_gone};

void device_let_go_of_source(UsbDevice *d)
{
    if (d->source && d->source->sink == &device_sink && d->source->sink_user == d)
        usb_source_set_sink(d->source, NULL, NULL);
    d->source = NULL;
}

void device_take_source(UsbDevice *d, UsbSource *source)
{
    d->source = source;
    usb_source_set_sink(source, &device_sink, d);
}

/* ---- the owner's calls ---- */

UsbDevice *usb_device_new(UsbDescriptors *descriptors, UsbSource *source, uint64_t now_us,
                          const UsbDeviceCallbacks *callbacks, void *user)
{
    static const RedirCallbacks redir_callbacks = {
        .event = on_event, .ready = on_ready, .write = on_write};
    UsbDevice *d = calloc(1, sizeof(*d));

    if (!d)
        abort();
    assert(descriptors->n_configurations > 0);
    d->descriptors = usb_descriptors_ref(descriptors);
    d->shown = source->as_is ? NULL : usb_shown_as_super(descriptors);
    if (!d->shown)
        d->shown = usb_shown_as_is(descriptors);
    d->callbacks = callbacks;
    d->user = user;
    d->now = now_us;
    d->configuration = &descriptors->configurations[0];
    d->redir = redir_new(&redir_callbacks, d);
    transfer_table_init(&d->table, now_us);
    device_rebuild_pipes(d);
    device_take_source(d, source);
    return d;
}

void usb_device_free(UsbDevice *d)
{
    if (!d)
        return;
    stop(d);
    device_let_go_of_source(d);
    redir_free(d->redir);
    usb_descriptors_unref(d->descriptors);
    usb_descriptors_unref(d->shown);
    free(d->input);
    free(d->storage);
    free(d);
}

static void keep_input(UsbDevice *d, const uint8_t *data, size_t len)
{
    if (len > DEVICE_MAX_INPUT - d->input_len) {
        set_state(d, USB_DEVICE_BROKEN, "QEMU's bytes were read faster than they could be taken");
        return;
    }
    if (len > d->input_cap - d->input_len) {
        d->input_cap = d->input_len + len;
        d->input = realloc(d->input, d->input_cap);
        if (!d->input)
            abort();
    }
    if (len)
        memcpy(d->input + d->input_len, data, len);
    d->input_len += len;
}

bool usb_device_guest_bytes(UsbDevice *d, const uint8_t *data, size_t len, uint64_t now_us)
{
    if (d->state == USB_DEVICE_BROKEN)
        return false;
    device_enter_at(d, now_us);
    if (iso_plays(d))
        iso_gap_arrival(d);
    size_t n = d->input_len ? 0 : redir_feed(d->redir, data, len);
    if (!redir_error(d->redir))
        keep_input(d, data + n, len - n);
    device_leave(d);
    return d->state != USB_DEVICE_BROKEN;
}

bool usb_device_wants_guest_bytes(const UsbDevice *d)
{
    return d->state != USB_DEVICE_BROKEN && d->input_len == 0 && on_ready((void *)(uintptr_t)d);
}

bool usb_device_has_guest_bytes(const UsbDevice *d)
{
    return d->state != USB_DEVICE_BROKEN && redir_backlog(d->redir) > 0;
}

void usb_device_guest_writable(UsbDevice *d)
{
    if (d->state == USB_DEVICE_BROKEN)
        return;
    device_enter(d);
    device_leave(d);
}

void usb_device_disconnect(UsbDevice *d, const char *why)
{
    device_enter(d);
    if (device_is_active(d)) {
        if (d->state == USB_DEVICE_CONNECTED)
            redir_send_device_disconnect(d->redir);
        set_state(d, USB_DEVICE_GONE, why);
        device_let_go_of_source(d);
    }
    device_leave(d);
}

UsbDeviceState usb_device_state(const UsbDevice *d)
{
    return d->state;
}

const UsbDescriptors *usb_device_descriptors(const UsbDevice *d)
{
    return d->descriptors;
}

UsbSpeed usb_device_shown_speed(const UsbDevice *d)
{
    return d->shown->speed;
}

void usb_device_stats(const UsbDevice *d, UsbDeviceStats *stats)
{
    *stats = d->stats;
    stats->in_flight = d->table.in_flight;
    stats->bytes_in_flight = d->table.bytes;
}
