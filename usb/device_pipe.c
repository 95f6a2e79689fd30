/*
 * Theory of operation
 *
 * Bulk packets of both directions and interrupt OUT packets. A pipe answers its packets in the
 * order they came in; a result that is early waits in its packet.
 *
 * IN: one request per packet, at once and never split, since a short packet would let the next part
 * swallow the following transfer; never more requests than the guest has packets, since reading
 * ahead on a bulk pipe steals it the next answer. A request that the client gave up on without harm
 * (retry_in: FreeRDP does so after 10 s) is issued again while the guest still waits. If other
 * requests of the pipe are outstanding then, the new one stands behind them at the client, and what
 * comes first must go to the packet that has waited longest: see give_to_first().
 *
 * OUT: one request, unless it is longer than USB_OUT_CHUNK_BYTES (a multiple of every packet size):
 * then it is cut, and a chunk is made when the one before it has ended well. They cannot be sent
 * together: what follows a chunk that failed must never reach the device, because the guest's host
 * controller repeats the whole transfer then, and a device that has seen its middle is out of step.
 * When a chunk fails the sum of what was written is reported with the error.
 */
#include "device_priv.h"

#include <stdlib.h>
#include <string.h>

static void answer(UsbDevice *d, const Packet *p, UsbStatus status, const uint8_t *data,
                   uint32_t length)
{
    storage_watch(d, p, status, data, length);
    if (p->type == PACKET_BULK)
        redir_send_bulk(d->redir, p->guest_id, status, p->endpoint, length ? data : NULL, length);
    else
        redir_send_interrupt(d->redir, p->guest_id, status, p->endpoint, NULL, length);
}

static void refuse(UsbDevice *d, const RedirEvent *e, UsbStatus status)
{
    d->stats.errors++;
    if (e->type == REDIR_BULK)
        redir_send_bulk(d->redir, e->id, status, e->endpoint, NULL, 0);
    else
        redir_send_interrupt(d->redir, e->id, status, e->endpoint, NULL, 0);
}

/* SUCCESS if the packet may be carried out. */
static UsbStatus check(UsbDevice *d, const RedirEvent *e)
{
    const UsbEndpoint *ep = d->pipes[pipe_index(e->endpoint)].endpoint;
    bool out = !(e->endpoint & 0x80);
    UsbEndpointType type = e->type == REDIR_BULK ? USB_ENDPOINT_BULK : USB_ENDPOINT_INTERRUPT;

    if (!ep || ep->address != e->endpoint || ep->type != type || ep->max_packet == 0)
        return USB_STATUS_INVAL;
    if (!d->selected)
        return USB_STATUS_STALL;
    if (e->type == REDIR_BULK && (e->stream != 0 || e->length > USB_MAX_TRANSFER_BYTES))
        return USB_STATUS_INVAL;
    if (d->pipes[pipe_index(e->endpoint)].stream.running) /* device_bulkin.c reads it */
        return USB_STATUS_INVAL;
    if (e->type == REDIR_INTERRUPT && (!out || e->length > ep->interval_bytes))
        return USB_STATUS_INVAL;
    if (device_over_cap(d))
        return USB_STATUS_IOERROR;
    if (storage_out_of_step(d, e))
        return USB_STATUS_STALL;
    return USB_STATUS_SUCCESS;
}

void pipe_event(UsbDevice *d, RedirEvent *e)
{
    UsbStatus status = check(d, e);

    if (status != USB_STATUS_SUCCESS) {
        refuse(d, e, status);
        return;
    }
    Pipe *pipe = &d->pipes[pipe_index(e->endpoint)];
    Packet *p = packet_new(d, e->type == REDIR_BULK ? PACKET_BULK : PACKET_INTERRUPT, e->id);
    p->endpoint = e->endpoint;
    p->out = !(e->endpoint & 0x80);
    p->length = e->length;
    p->data = e->data;
    e->data = NULL;
    d->packet_bytes += p->length;
    queue_append(&pipe->queue, p);
    if (!pipe->unsent)
        pipe->unsent = p;
    pipe_pump(d, pipe);
}

/* Takes the packet out of its pipe; it has no live requests any more. */
static void leave(UsbDevice *d, Pipe *pipe, Packet *p)
{
    if (pipe->unsent == p)
        pipe->unsent = p->next;
    queue_remove(&pipe->queue, p);
    packet_free(d, p);
}

static void answer_in_order(UsbDevice *d, Pipe *pipe)
{
    Packet *p;

    while ((p = pipe->queue.head) && p->done) {
        answer(d, p, p->status, p->out ? NULL : p->data, p->moved);
        leave(d, pipe, p);
    }
}

static void settle(UsbDevice *d, Pipe *pipe, Packet *p, UsbStatus status)
{
    if (status != USB_STATUS_SUCCESS)
        d->stats.errors++;
    p->status = status;
    p->done = true;
    if (pipe->unsent == p)
        pipe->unsent = p->next;
    answer_in_order(d, pipe);
}

static bool submit(UsbDevice *d, Pipe *pipe, Packet *p, const uint8_t *data, uint32_t length)
{
    UsbRequest request = {
        .kind = p->type == PACKET_BULK ? USB_REQUEST_BULK : USB_REQUEST_INTERRUPT,
        .endpoint = p->endpoint,
        .length = length,
        .data = data,
    };
    uint32_t id = device_submit(d, &request, device_data_timer(d), p);

    if (!id)
        return false;
    p->submitted = true;
    p->live++;
    p->request = id;
    p->order = d->table.last_order;
    pipe->live_requests++;
    pipe->live_bytes += length;
    d->bulk_used |= p->type == PACKET_BULK;
    return true;
}

static bool room(UsbDevice *d, const Pipe *pipe, const Packet *p)
{
    if (d->table.in_flight + DEVICE_CONTROL_RESERVE >= USB_MAX_IN_FLIGHT) {
        d->starved = true;
        return false;
    }
    return !p->out || (pipe->live_requests < DEVICE_OUT_WINDOW_REQUESTS &&
                       pipe->live_bytes < DEVICE_OUT_WINDOW_BYTES);
}

void pipe_pump(UsbDevice *d, Pipe *pipe)
{
    Packet *p;

    while ((p = pipe->unsent) && d->source && room(d, pipe, p)) {
        uint32_t length = p->length - p->sent;

        if (p->out && p->live > 0)
            return;
        if (p->out && length > USB_OUT_CHUNK_BYTES)
            length = USB_OUT_CHUNK_BYTES;
        if (!submit(d, pipe, p, p->data ? p->data + p->sent : NULL, length)) {
            pipe->unsent = p->next;
            p->status = USB_STATUS_IOERROR;
            p->sent = p->length;
            if (p->live == 0)
                settle(d, pipe, p, USB_STATUS_IOERROR);
            continue;
        }
        p->sent += length;
        if (p->sent == p->length)
            pipe->unsent = p->next;
    }
}

static void withdraw(UsbDevice *d, Pipe *pipe, Packet *p)
{
    uint32_t cursor = 0;
    const Transfer *t;

    while (p->live > 0 && (t = transfer_next(&d->table, &cursor))) {
        if (t->owner == p) {
            p->live--;
            pipe->live_requests--;
            pipe->live_bytes -= t->length;
            device_withdraw(d, t->id);
        }
    }
}

static void complete_out(UsbDevice *d, Pipe *pipe, Packet *p, const Transfer *t,
                         const UsbCompletion *c)
{
    bool failed = c->status != USB_STATUS_SUCCESS || c->length < t->length;

    p->moved += c->length;
    d->stats.bytes_out += c->length;
    if (failed && p->status == USB_STATUS_SUCCESS) {
        p->status = c->status != USB_STATUS_SUCCESS ? c->status : USB_STATUS_IOERROR;
        p->sent = p->length;
        if (pipe->unsent == p)
            pipe->unsent = p->next;
    }
    if (p->live == 0 && p->sent == p->length)
        settle(d, pipe, p, p->status);
    pipe_pump(d, pipe);
}

/* A request has ended that was made before the one of the first waiting packet: that packet was
 * retried, and what has ended is the next transfer of the pipe, so it is the first packet's. The
 * two swap requests. Not if their lengths differ: a request must not be answered with more or seem
 * shorter than the guest asked for. */
static Packet *give_to_first(UsbDevice *d, Pipe *pipe, Packet *p, const Transfer *t)
{
    Packet *first = pipe->queue.head;

    if (first == p || first->live == 0 || first->length != p->length || first->order < t->order)
        return p;
    transfer_reassign(&d->table, first->request, p);
    p->request = first->request;
    p->order = first->order;
    p->live = 1;
    first->live = 0;
    return first;
}

static void complete_in(UsbDevice *d, Pipe *pipe, Packet *p, const Transfer *t,
                        const UsbCompletion *c)
{
    UsbStatus status = c->status;

    if (c->retry_in && c->length == 0) {
        if (!submit(d, pipe, p, NULL, p->length))
            settle(d, pipe, p, USB_STATUS_IOERROR);
        return;
    }
    if (c->retry_in)
        status = USB_STATUS_SUCCESS; /* a short transfer: what came before the client's timeout */
    p = give_to_first(d, pipe, p, t);
    p->moved = c->length;
    d->stats.bytes_in += c->length;
    if (p == pipe->queue.head) { /* the usual case: no copy */
        if (status != USB_STATUS_SUCCESS)
            d->stats.errors++;
        answer(d, p, status, c->data, c->length);
        leave(d, pipe, p);
        answer_in_order(d, pipe);
    } else {
        if (c->length > 0) {
            p->data = malloc(c->length);
            if (!p->data)
                abort();
            memcpy(p->data, c->data, c->length);
        }
        settle(d, pipe, p, status);
    }
    pipe_pump(d, pipe);
}

void pipe_complete(UsbDevice *d, const Transfer *t, const UsbCompletion *c)
{
    Pipe *pipe = &d->pipes[pipe_index(t->endpoint)];
    Packet *p = t->owner;

    p->live--;
    pipe->live_requests--;
    pipe->live_bytes -= t->length;
    if (p->out)
        complete_out(d, pipe, p, t, c);
    else
        complete_in(d, pipe, p, t, c);
}

static void cancel(UsbDevice *d, Pipe *pipe, Packet *p)
{
    withdraw(d, pipe, p);
    d->stats.cancelled++;
    answer(d, p, USB_STATUS_CANCELLED, NULL, 0);
    leave(d, pipe, p);
}

bool pipe_cancel(UsbDevice *d, uint64_t guest_id)
{
    for (unsigned i = 0; i < DEVICE_PIPES; i++) {
        Pipe *pipe = &d->pipes[i];

        for (Packet *p = pipe->queue.head; p; p = p->next) {
            if (p->guest_id != guest_id)
                continue;
            cancel(d, pipe, p);
            answer_in_order(d, pipe);
            pipe_pump(d, pipe);
            return true;
        }
    }
    return false;
}

void pipe_cancel_all(UsbDevice *d, Pipe *pipe)
{
    pipe->unsent = NULL;
    while (pipe->queue.head)
        cancel(d, pipe, pipe->queue.head);
}

void pipe_drop_all(UsbDevice *d, Pipe *pipe)
{
    pipe->unsent = NULL;
    while (pipe->queue.head)
        leave(d, pipe, pipe->queue.head);
    pipe->live_requests = pipe->live_bytes = 0;
}

void pipe_fail_all(UsbDevice *d, Pipe *pipe)
{
    pipe->unsent = NULL;
    pipe->live_requests = pipe->live_bytes = 0;
    for (Packet *p = pipe->queue.head; p; p = p->next) {
        if (p->done)
            continue; /* its result has come, only its turn has not */
        d->stats.errors++;
        p->done = true;
        p->live = 0;
        p->status = USB_STATUS_IOERROR;
    }
    answer_in_order(d, pipe);
}
