/*
 * Theory of operation
 *
 * Interrupt IN endpoints are read ahead: from start_interrupt_receiving on, a window of requests is
 * kept at the source, and every report that comes is passed on at once. The window covers one
 * and a half times the way to the client and back, as measured, and a little. Ids of the packets
 * count up from 0 in the order of delivery, which is what usbredirhost's ids amount to. Bulk IN
 * endpoints of serial adapters are read by the same engine; what is different for them, how it is
 * asked for and what QEMU is told, is in device_bulkin.c.
 *
 * A request that its client gave up on without harm (retry_in, urbdrc.md 3.5) is issued again
 * silently. One that we gave up on, because its answer is late, is issued again too: what the late
 * answer brings is passed on when it comes, before what was read after it. Only where none has come
 * when its tombstone goes is the guest told of an error, because the device may have said something
 * that is lost. After a stall the halt is cleared and reading starts over with id 0, as
 * usbredirhost does without telling the guest; a few stalls or errors in a row end the stream.
 * While QEMU does not read (its VM is paused) nothing is issued again, so that our queue stays
 * bounded.
 */
#include "device_priv.h"

#define SLACK_US 5000u /* a client looks at its USB from time to time */
#define MIN_WINDOW 2u
#define MAX_WINDOW 32u
#define MAX_STALLS 3u
#define MAX_ERRORS 8u

static uint8_t window_for(const UsbDevice *d, const UsbEndpoint *e)
{
    uint64_t cover = device_round_trip(d) + device_round_trip(d) / 2 + SLACK_US;
    uint32_t period =
        d->descriptors->speed >= USB_SPEED_HIGH && d->descriptors->speed != USB_SPEED_UNKNOWN
            ? 125u << ((e->interval > 16 ? 16 : e->interval) - 1)
            : 1000u * e->interval;
    uint64_t window = (cover + period - 1) / period + 1;

    return (uint8_t)(window < MIN_WINDOW ? MIN_WINDOW : window > MAX_WINDOW ? MAX_WINDOW : window);
}

static void withdraw_all(UsbDevice *d, Pipe *pipe)
{
    uint32_t cursor = 0;
    const Transfer *t;

    while (pipe->stream.live > 0 && (t = transfer_next(&d->table, &cursor))) {
        if (!t->owner && t->endpoint == pipe->endpoint->address) {
            pipe->stream.live--;
            d->stream_requests--;
            device_withdraw(d, t->id);
        }
    }
}

static bool is_bulk(const Pipe *pipe)
{
    return pipe->endpoint->type == USB_ENDPOINT_BULK;
}

void stream_end(UsbDevice *d, Pipe *pipe)
{
    if (pipe->stream.running)
        withdraw_all(d, pipe);
    pipe->stream = (Stream){0};
}

void stream_abort(UsbDevice *d, Pipe *pipe)
{
    iso_abort(d, pipe);
    if (!pipe->stream.running)
        return;
    stream_end(d, pipe);
    if (is_bulk(pipe))
        redir_send_bulk_receiving_status(d->redir, 0, USB_STATUS_STALL, pipe->endpoint->address, 0);
    else
        redir_send_interrupt_status(d->redir, 0, USB_STATUS_STALL, pipe->endpoint->address);
}

/* Passes on how a request ended. */
static void report(UsbDevice *d, Pipe *pipe, UsbStatus status, const UsbCompletion *c)
{
    uint32_t length = c ? c->length : 0;

    if (is_bulk(pipe))
        bulkin_report(d, pipe, status, length ? c->data : NULL, length);
    else if (status == USB_STATUS_SUCCESS)
        redir_send_interrupt(d->redir, pipe->stream.next_id++, status, pipe->endpoint->address,
                             length ? c->data : NULL, length);
    else
        redir_send_interrupt(d->redir, pipe->stream.next_id++, status, pipe->endpoint->address,
                             NULL, 0);
}

/* It cannot go on. The guest's read that waits must be told: QEMU does not end it when the stream
 * ends (a packet wakes its xHCI, a status does not). */
static void give_up(UsbDevice *d, Pipe *pipe, UsbStatus status)
{
    report(d, pipe, status, NULL);
    stream_abort(d, pipe);
}

void stream_refill(UsbDevice *d, Pipe *pipe)
{
    Stream *s = &pipe->stream;

    if (redir_congested(d->redir))
        d->streams_paused = true;
    while (s->running && !s->recovering && !d->streams_paused && s->live < s->window) {
        UsbRequest request = {
            .kind = is_bulk(pipe) ? USB_REQUEST_BULK : USB_REQUEST_INTERRUPT,
            .endpoint = pipe->endpoint->address,
            .length = s->request_bytes,
        };

        if (d->table.in_flight + DEVICE_CONTROL_RESERVE >= USB_MAX_IN_FLIGHT ||
            d->stream_requests >= DEVICE_MAX_STREAM_REQUESTS) {
            d->starved = true;
            return;
        }
        if (!device_submit(d, &request, device_data_timer(d), NULL)) {
            if (s->live == 0)
                give_up(d, pipe, USB_STATUS_IOERROR);
            return;
        }
        s->live++;
        d->stream_requests++;
    }
}

void stream_run(UsbDevice *d, Pipe *pipe, uint8_t window, uint32_t request_bytes)
{
    if (!pipe->stream.running)
        pipe->stream = (Stream){.running = true,
                                .window = window,
                                .request_bytes = request_bytes,
                                .since = d->table.last_order,
                                .missed = d->table.last_order};
    stream_refill(d, pipe);
}

void stream_start(UsbDevice *d, uint64_t id, uint8_t endpoint)
{
    Pipe *pipe = &d->pipes[pipe_index(endpoint)];
    const UsbEndpoint *e = pipe->endpoint;

    if (!d->selected || !e || e->address != endpoint || e->type != USB_ENDPOINT_INTERRUPT ||
        !(endpoint & 0x80) || e->max_packet == 0) {
        redir_send_interrupt_status(d->redir, id, USB_STATUS_STALL, endpoint);
        return;
    }
    redir_send_interrupt_status(d->redir, id, USB_STATUS_SUCCESS, endpoint);
    stream_run(d, pipe, window_for(d, e), e->interval_bytes);
}

void stream_stop(UsbDevice *d, uint64_t id, uint8_t endpoint)
{
    Pipe *pipe = &d->pipes[pipe_index(endpoint)];

    if (pipe->endpoint && pipe->endpoint->address == endpoint && !is_bulk(pipe))
        stream_end(d, pipe);
    redir_send_interrupt_status(d->redir, id, USB_STATUS_SUCCESS, endpoint);
}

static void recover(UsbDevice *d, Pipe *pipe)
{
    if (++pipe->stream.stalls >= MAX_STALLS) {
        give_up(d, pipe, USB_STATUS_STALL);
        return;
    }
    withdraw_all(d, pipe);
    pipe->stream.recovering = true;
    control_clear_halt(d, pipe->endpoint->address);
}

void stream_recovered(UsbDevice *d, uint8_t endpoint, UsbStatus status)
{
    Pipe *pipe = &d->pipes[pipe_index(endpoint)];

    if (!pipe->stream.running || !pipe->stream.recovering)
        return; /* stopped, or stopped and started again meanwhile */
    pipe->stream.recovering = false;
    pipe->stream.next_id = 0;
    if (status == USB_STATUS_SUCCESS)
        stream_refill(d, pipe);
    else
        give_up(d, pipe, USB_STATUS_STALL);
}

void stream_complete(UsbDevice *d, const Transfer *transfer, const UsbCompletion *c)
{
    Pipe *pipe = &d->pipes[pipe_index(transfer->endpoint)];
    Stream *s = &pipe->stream;
    UsbStatus status = c->status;

    s->live--;
    d->stream_requests--;
    if (c->retry_in && c->length > 0)
        status = USB_STATUS_SUCCESS; /* some of it came before the client's timeout */
    d->stats.bytes_in += c->length;
    if (status == USB_STATUS_SUCCESS) {
        s->stalls = s->errors = 0;
        report(d, pipe, status, c);
    } else if (status == USB_STATUS_STALL) {
        if (c->length > 0 && is_bulk(pipe)) /* a stall ends a transfer, it does not undo it */
            report(d, pipe, USB_STATUS_SUCCESS, c);
        if (!s->recovering)
            recover(d, pipe);
        return;
    } else if (!c->retry_in) {
        report(d, pipe, status, c);
        if (++s->errors >= MAX_ERRORS) {
            stream_abort(d, pipe);
            return;
        }
    }
    stream_refill(d, pipe);
}

void stream_late(UsbDevice *d, const Transfer *transfer, const UsbCompletion *c)
{
    Pipe *pipe = &d->pipes[pipe_index(transfer->endpoint)];

    if (!pipe->stream.running || transfer->order <= pipe->stream.since || c->length == 0)
        return;
    d->stats.bytes_in += c->length;
    report(d, pipe, USB_STATUS_SUCCESS, c);
}

void stream_check_lost(UsbDevice *d, Pipe *pipe)
{
    Stream *s = &pipe->stream;

    if (!s->running || transfer_lost(&d->table, pipe->endpoint->address) <= s->missed)
        return;
    s->missed = d->table.last_order; /* one error for all that is out now */
    report(d, pipe, USB_STATUS_IOERROR, NULL);
}

void stream_suspend(UsbDevice *d, Pipe *pipe)
{
    Stream *s = &pipe->stream;
    bool lost = s->live > 0 || s->recovering;

    d->stream_requests -= s->live;
    s->live = s->stalls = s->errors = 0;
    s->recovering = false;
    if (s->running && lost)
        report(d, pipe, USB_STATUS_IOERROR, NULL);
}

void stream_refuse(UsbDevice *d, const RedirEvent *event)
{
    if (event->type == REDIR_ALLOC_STREAMS || event->type == REDIR_FREE_STREAMS)
        redir_send_streams_status(d->redir, event->id, USB_STATUS_INVAL, event->streams);
}
