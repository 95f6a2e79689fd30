/*
 * Moving transfers through endpoints, packet by packet.
 *
 * A transfer waits in its endpoint's queue; device_run() lets each queue's head move as far as the
 * device goes along. It is called when something changed: a submit, a control request, a command,
 * or the clock. A device never sees transfers, only packets: what it sends runs on across transfer
 * boundaries, and a transfer ends when it is full or a short packet arrives, so a read too many
 * swallows whatever comes next, as on the wire.
 *
 * Both ends count packets: the data toggle (one bit) or the SuperSpeed sequence number (five bits).
 * libusb_clear_halt() and the like set back both ends, a raw CLEAR_FEATURE only the device's. When
 * they disagree a USB 2 receiver takes the packet for a repeated one and drops it; SuperSpeed
 * fails.
 */
#include "bus.h"
#include <string.h>

void xfer_finish(Xfer *x, int status)
{
    Counters *c = &x->ep->count;

    TAILQ_REMOVE(&x->ep->queue, x, link);
    *bus_memory() -= x->len;
    x->status = status;
    x->state = XFER_DONE;
    switch (status) {
    case LIBUSB_TRANSFER_COMPLETED:
        c->transfers++;
        c->bytes += x->pos;
        break;
    case LIBUSB_TRANSFER_STALL:
        c->stalls++;
        break;
    case LIBUSB_TRANSFER_CANCELLED:
        c->cancelled++;
        break;
    case LIBUSB_TRANSFER_TIMED_OUT:
        c->timeouts++;
        break;
    default:
        c->errors++;
    }
    if (x->ep->address)
        trace(x->dev, "ep %02x %zu of %zu bytes, status %d", x->ep->address, x->pos, x->len,
              status);
    context_done(x);
}

void device_flush(Device *d, Endpoint *ep, int status)
{
    for (unsigned i = 0; i < 32; i++) {
        Xfer *x;

        if (ep && ep != &d->eps[i])
            continue;
        while ((x = TAILQ_FIRST(&d->eps[i].queue)))
            xfer_finish(x, status);
    }
}

static void advance(const Device *d, Endpoint *ep, size_t bytes, bool host, bool device)
{
    size_t packets = bytes ? (bytes + ep->desc->mps - 1) / ep->desc->mps : 1;
    uint8_t mask = d->speed == LIBUSB_SPEED_SUPER ? 31 : 1;

    if (host)
        ep->host_seq = (uint8_t)((ep->host_seq + packets) & mask);
    if (device)
        ep->device_seq = (uint8_t)((ep->device_seq + packets) & mask);
}

static bool out_of_step(Device *d, Endpoint *ep)
{
    if (ep->host_seq == ep->device_seq)
        return false;
    violation(d, V_TOGGLE);
    return true;
}

static void finish_in(Xfer *x, int status)
{
    Faults *f = &x->ep->faults;

    if (status == LIBUSB_TRANSFER_COMPLETED && f->clip) {
        f->clip = false;
        if (x->pos > f->clip_len)
            x->pos = f->clip_len;
    }
    xfer_finish(x, status);
}

/* True if the transfer came to its end. */
static bool run_in(Device *d, Endpoint *ep, Xfer *x)
{
    uint8_t dropped[1024];

    for (;;) {
        size_t room = x->len - x->pos, n;
        ssize_t avail = ep->halted ? IO_STALL : d->ops->in_avail(d, ep);

        if (avail == IO_NAK)
            return false;
        if (avail == IO_STALL) {
            ep->halted = true;
            finish_in(x, LIBUSB_TRANSFER_STALL);
            return true;
        }
        n = (size_t)avail < room ? (size_t)avail : room;
        if (n < (size_t)avail)
            n -= n % ep->desc->mps;
        ep->taken = x->pos;
        if (out_of_step(d, ep)) {
            if (d->speed == LIBUSB_SPEED_SUPER) {
                finish_in(x, LIBUSB_TRANSFER_ERROR);
                return true;
            }
            n = (size_t)avail < ep->desc->mps ? (size_t)avail : ep->desc->mps;
            d->ops->in_take(d, ep, dropped, n);
            advance(d, ep, n, false, true);
            continue;
        }
        if (n == 0 && avail > 0) {
            n = (size_t)avail < ep->desc->mps ? (size_t)avail : ep->desc->mps;
            d->ops->in_take(d, ep, dropped, n);
            violation(d, V_BABBLE);
            finish_in(x, LIBUSB_TRANSFER_OVERFLOW);
            return true;
        }
        d->ops->in_take(d, ep, x->data + x->pos, n);
        advance(d, ep, n, true, true);
        x->pos += n;
        if (n == 0 || n % ep->desc->mps || x->pos == x->len) {
            finish_in(x, LIBUSB_TRANSFER_COMPLETED);
            return true;
        }
    }
}

static bool run_out(Device *d, Endpoint *ep, Xfer *x)
{
    for (;;) {
        size_t left = x->len - x->pos;
        ssize_t n;

        if (ep->halted) {
            xfer_finish(x, LIBUSB_TRANSFER_STALL);
            return true;
        }
        if (out_of_step(d, ep)) {
            if (d->speed == LIBUSB_SPEED_SUPER) {
                xfer_finish(x, LIBUSB_TRANSFER_ERROR);
                return true;
            }
            n = (ssize_t)(left < ep->desc->mps ? left : ep->desc->mps);
            advance(d, ep, (size_t)n, true, false);
        } else {
            n = d->ops->out(d, ep, x->data + x->pos, left);
            if (n == IO_NAK)
                return false;
            if (n == IO_STALL) {
                ep->halted = true;
                continue;
            }
            advance(d, ep, (size_t)n, true, true);
        }
        x->pos += (size_t)n;
        if (x->pos < x->len)
            continue;
        if (!left || !x->zero_packet) {
            xfer_finish(x, LIBUSB_TRANSFER_COMPLETED);
            return true;
        }
        x->zero_packet = false;
    }
}

static bool run_control(Device *d, Xfer *x)
{
    const uint8_t *p = x->data;
    Setup s = {p[0], p[1], (uint16_t)(p[2] | p[3] << 8), (uint16_t)(p[4] | p[5] << 8),
               (uint16_t)(p[6] | p[7] << 8)};
    int n = device_control(d, &s, x->data + 8);

    /* A request may have flushed every transfer, this one too: never the case for endpoint 0. */
    x->pos = n > 0 ? (size_t)n : 0;
    xfer_finish(x, n == IO_STALL ? LIBUSB_TRANSFER_STALL : LIBUSB_TRANSFER_COMPLETED);
    return true;
}

/* An injected fault that ends the transfer, true if there was one. */
static bool run_fault(Device *d, Endpoint *ep, Xfer *x)
{
    Faults *f = &ep->faults;

    if (f->stall) {
        f->stall--;
        ep->halted = ep->address != 0; /* a control endpoint recovers with the next SETUP */
        if (ep->halted && d->ops->stalled)
            d->ops->stalled(d, ep);
        xfer_finish(x, LIBUSB_TRANSFER_STALL);
    } else if (f->error) {
        f->error--;
        xfer_finish(x, LIBUSB_TRANSFER_ERROR);
    } else if (f->babble) {
        f->babble--;
        xfer_finish(x, LIBUSB_TRANSFER_OVERFLOW);
    } else {
        return false;
    }
    return true;
}

static int64_t head_due(const Endpoint *ep, const Xfer *x)
{
    return x->due > ep->next_poll ? x->due : ep->next_poll;
}

static bool run_head(Device *d, Endpoint *ep, int64_t now)
{
    Xfer *x = TAILQ_FIRST(&ep->queue);
    bool ended;

    if (x && !ep->faults.hang && x->iso_packets)
        return iso_run(d, ep, now);
    if (!x || ep->faults.hang || head_due(ep, x) > now)
        return false;
    if (run_fault(d, ep, x))
        return true;
    if (ep == &d->eps[0])
        ended = run_control(d, x);
    else if (!ep->desc)
        return false; /* cannot be: activate() flushed it */
    else if (ep->address & 0x80)
        ended = run_in(d, ep, x);
    else
        ended = run_out(d, ep, x);
    if (ended && ep->desc && ep->desc->interval)
        ep->next_poll = now + ep->desc->interval;
    return ended;
}

int64_t device_due(Device *d)
{
    int64_t due = d->ops->due ? d->ops->due(d) : NEVER, now = now_ns();

    for (unsigned i = 0; i < 32; i++) {
        Endpoint *ep = &d->eps[i];
        Xfer *x = TAILQ_FIRST(&ep->queue);

        if (x && x->iso_packets && !ep->faults.hang && iso_due(ep) < due)
            due = iso_due(ep);
        if (x && x->iso_packets)
            continue;
        /* What is due already and still queued waits for the device, not for the clock. */
        if (x && !ep->faults.hang && head_due(ep, x) > now && head_due(ep, x) < due)
            due = head_due(ep, x);
    }
    return due;
}

void device_run(Device *d)
{
    int64_t now = now_ns(), due;
    bool moved;

    do {
        moved = false;
        for (unsigned i = 0; i < 32; i++) {
            while (run_head(d, &d->eps[i], now))
                moved = true;
        }
    } while (moved);
    due = device_due(d);
    if (due != NEVER)
        machine_alarm(due);
}
