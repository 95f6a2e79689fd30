/*
 * OUT streams: from the guest's packets to requests. The theory is in device_iso.c.
 */
#include "device_iso_priv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- lists of URBs ---- */

static void list_append(IsoList *list, IsoUrb *urb)
{
    urb->next = NULL;
    if (list->tail)
        list->tail->next = urb;
    else
        list->head = urb;
    list->tail = urb;
    list->packets += urb->n_packets;
    list->bytes += urb->length;
}

static IsoUrb *list_take(IsoList *list, uint32_t id)
{
    IsoUrb *before = NULL, *urb = list->head;

    while (urb && urb->id != id) { /* nearly always the first */
        before = urb;
        urb = urb->next;
    }
    if (!urb)
        return NULL;
    if (before)
        before->next = urb->next;
    else
        list->head = urb->next;
    if (list->tail == urb)
        list->tail = before;
    list->packets -= urb->n_packets;
    list->bytes -= urb->length;
    return urb;
}

static void urb_free(IsoUrb *urb)
{
    free(urb->data);
    free(urb);
}

uint32_t iso_list_clear(IsoList *list)
{
    uint32_t n = 0;
    IsoUrb *urb;

    while ((urb = list->head)) {
        n += urb->n_packets - urb->n_padding;
        urb_free(list_take(list, urb->id));
    }
    return n;
}

/* OUT: how long the device goes on with what will have reached the client when a request that is
 * made now does. */
static uint64_t lead_at_client(const UsbDevice *d, const IsoStream *s)
{
    uint64_t arrival = d->now + device_round_trip(d);

    return s->play_end > arrival ? s->play_end - arrival : 0;
}

/* ---- sending ---- */

static bool submit_out(UsbDevice *d, Pipe *pipe, IsoUrb *urb)
{
    IsoStream *s = pipe->iso;
    UsbRequest request = {
        .kind = USB_REQUEST_ISO,
        .endpoint = pipe->endpoint->address,
        .length = urb->length,
        .data = urb->data,
        .n_packets = urb->n_packets,
        .packets = urb->packets,
    };
    uint64_t arrival = d->now + device_round_trip(d);

    urb->due = s->state == ISO_RUNNING && !s->starting ? iso_gap_due(d, s) : 0;
    urb->id = device_submit(d, &request, TRANSFER_TIMER_ISO, NULL);
    if (!urb->id) {
        iso_stats(d, s)->dropped += urb->n_packets - urb->n_padding;
        urb_free(urb);
        return false;
    }
    if (s->play_end < arrival) {
        s->play_end = arrival; /* the device begins, or begins again, with this one */
        s->clock = (IsoClock){0};
    }
    s->play_end += (uint64_t)urb->n_packets * s->period;
    urb->end = s->play_end;
    urb->first = d->iso_sent;
    d->iso_sent += urb->n_packets;
    free(urb->data);
    urb->data = NULL;
    list_append(&s->sent, urb);
    s->not_offered++;
    s->live++;
    d->iso_requests++;
    return true;
}

/* Whether what waits may go; the states of the stream change here. */
static bool may_go(UsbDevice *d, IsoStream *s)
{
    uint32_t closed = s->waiting.packets - (s->open ? s->open->n_packets : 0);

    if (s->state == ISO_RUNNING && lead_at_client(d, s) <= ISO_SLACK_US) {
        s->state = ISO_FILLING;
        iso_gap_too_late(d, s);
    }
    s->held_back = s->starting = false;
    if (s->state == ISO_FILLING) {
        if ((uint64_t)closed * s->period + lead_at_client(d, s) < s->lead)
            return false;
        s->state = ISO_RUNNING;
        s->starting = true;
        iso_gap_lead_complete(d, s);
        iso_stats(d, s)->lead_us = (uint32_t)((uint64_t)closed * s->period);
    }
    return true;
}

static void send_waiting(UsbDevice *d, Pipe *pipe)
{
    IsoStream *s = pipe->iso;

    while (s->waiting.head && s->waiting.head != s->open) {
        if (!iso_room(d) || s->sent.bytes > USB_ISO_MAX_BYTES) {
            s->held_back = true; /* until something of it is done */
            return;
        }
        if (!submit_out(d, pipe, list_take(&s->waiting, 0)) && s->live == 0) {
            iso_abort(d, pipe);
            control_pump(d); /* something may have waited for it to be drained */
            return;
        }
    }
}

void iso_out_pump(UsbDevice *d, Pipe *pipe)
{
    IsoStream *s = pipe->iso;

    if (s->waiting.head && s->waiting.head != s->open && may_go(d, s))
        send_waiting(d, pipe);
}

/* No packet comes for the open URB: it may go as it is. */
static void close_open(IsoStream *s)
{
    IsoUrb *urb = s->open;

    s->open = NULL;
    while (urb && urb->n_packets % s->multiple != 0) { /* .per_urb is a multiple, too */
        urb->packets[urb->n_packets++].length = 0;
        urb->n_padding++;
        s->waiting.packets++;
    }
}

static void came(const UsbDevice *d, IsoUrb *urb)
{
    urb->arrived = d->arrived;
    urb->waited = d->arrived_waited;
}

static IsoUrb *open_urb(UsbDevice *d, IsoStream *s, uint32_t length)
{
    bool equal = d->source && d->source->quirks & USB_QUIRK_EQUAL_ISO_PACKETS;
    IsoUrb *urb = s->open;

    if (urb && equal && urb->packets[0].length != length) {
        came(d, urb); /* that it is complete is known only now */
        close_open(s);
        urb = NULL;
    }
    if (!urb) {
        urb = calloc(1, sizeof(*urb));
        if (!urb ||
            !(urb->data = malloc((size_t)s->per_urb * (equal ? length : s->packet_bytes) + 1)))
            abort(); /* at most USB_ISO_MAX_URB_BYTES, or one packet */
        list_append(&s->waiting, urb);
        s->open = urb;
    }
    return urb;
}

/* Too much has piled up: nothing more until it is normal. */
static bool must_drop(const UsbDevice *d, IsoStream *s)
{
    uint64_t ahead = (uint64_t)s->waiting.packets * s->period + lead_at_client(d, s);

    if (ahead > s->lead + USB_ISO_MAX_EXCESS_US || s->waiting.bytes > USB_ISO_MAX_BYTES)
        s->dropping = true;
    else if (s->dropping && ahead <= s->lead) {
        s->dropping = false;
        iso_gap_lead_complete(d, s);
    }
    return s->dropping;
}

void iso_packet(UsbDevice *d, const RedirEvent *event)
{
    Pipe *pipe = &d->pipes[pipe_index(event->endpoint)];
    IsoStream *s = pipe->iso;

    if (!s || s->in || pipe->endpoint->address != event->endpoint || s->state == ISO_DRAINING)
        return; /* no stream, no answer */
    d->stats.iso_out.packets++;
    if (event->length > s->packet_bytes || (event->length > 0 && !event->data)) {
        d->stats.iso_out.failed++;
        redir_send_iso_status(d->redir, 0, USB_STATUS_INVAL, event->endpoint);
        return;
    }
    if (must_drop(d, s)) {
        d->stats.iso_out.dropped++;
        return;
    }
    IsoUrb *urb = open_urb(d, s, event->length);
    if (event->length > 0)
        memcpy(urb->data + urb->length, event->data, event->length);
    urb->packets[urb->n_packets++].length = event->length;
    urb->length += event->length;
    came(d, urb);
    s->came++;
    s->waiting.packets++;
    s->waiting.bytes += event->length;
    if (urb->n_packets == s->per_urb)
        s->open = NULL;
    s->flush_at = d->now + USB_ISO_FLUSH_US;
    iso_out_pump(d, pipe);
}

/* The end of a stopped stream that has nothing left. */
static void end_if_drained(UsbDevice *d, Pipe *pipe)
{
    const IsoStream *s = pipe->iso;

    if (!s || s->state != ISO_DRAINING || s->waiting.head || s->live > 0)
        return;
    iso_end(d, pipe);
    control_pump(d);
}

void iso_out_complete(UsbDevice *d, Pipe *pipe, const UsbCompletion *c)
{
    IsoStream *s = pipe->iso;
    UsbStatus status = c->status;
    IsoUrb *urb = list_take(&s->sent, c->id);
    uint32_t failed = 0;

    assert(urb);
    s->not_offered -= !urb->offered;
    const uint32_t guest_packets = urb->n_packets - urb->n_padding;
    if (status == USB_STATUS_SUCCESS) {
        s->errors = 0;
        iso_observe(d, s, urb->end);
        for (uint32_t i = 0; i < c->n_packets && i < guest_packets; i++) {
            if (c->packets[i].status == USB_STATUS_SUCCESS)
                continue;
            status = c->packets[i].status;
            failed++;
        }
        d->stats.bytes_out += urb->length;
    } else {
        s->errors++;
        failed = guest_packets;
    }
    d->stats.iso_out.failed += failed;
    d->stats.iso_out.delivered += guest_packets - failed;
    urb_free(urb);
    if (s->errors >= ISO_MAX_ERRORS) {
        iso_abort(d, pipe);
        control_pump(d);
        return;
    }
    if (status != USB_STATUS_SUCCESS && s->state != ISO_DRAINING)
        redir_send_iso_status(d->redir, 0, status == USB_STATUS_STALL ? USB_STATUS_IOERROR : status,
                              pipe->endpoint->address);
    iso_out_pump(d, pipe);
    end_if_drained(d, pipe);
}

/* ---- ends ---- */

void iso_out_stop(UsbDevice *d, Pipe *pipe)
{
    IsoStream *s = pipe->iso;

    s->state = ISO_DRAINING;
    close_open(s);
    s->drain_until = d->now + USB_ISO_DRAIN_US;
    iso_out_pump(d, pipe);
    end_if_drained(d, pipe);
}

/* When the guest has gone quiet: what it has sent will not become more. */
static uint64_t flush_deadline(const IsoStream *s)
{
    return !s->waiting.head || s->held_back ? UINT64_MAX : s->flush_at;
}

uint64_t iso_out_deadline(const IsoStream *s)
{
    return s->state == ISO_DRAINING ? s->drain_until : flush_deadline(s);
}

void iso_out_tick(UsbDevice *d, Pipe *pipe)
{
    IsoStream *s = pipe->iso;

    if (d->now < iso_out_deadline(s))
        return;
    if (s->state == ISO_DRAINING) {
        iso_end(d, pipe);
        control_pump(d);
        return;
    }
    close_open(s);
    s->state = ISO_FILLING;
    s->flush_at = d->now + USB_ISO_FLUSH_US;
    send_waiting(d, pipe);
}
