/*
 * Isochronous endpoints: the frame clock.
 *
 * From the first transfer after its alternate was set an endpoint has a slot in each service
 * interval, whether somebody uses it or not. Packets take the slots one after another; a transfer
 * ends with the slot of its last packet. When a transfer is submitted after its first slot has
 * begun, the slots until then have passed unused: that is a gap. What comes after the last transfer
 * is none. Nobody wakes up per slot: what has happened is worked out when a transfer ends or comes.
 */
#include "host.h"

static size_t packet_in(Device *d, Endpoint *ep, uint8_t *buf, size_t room)
{
    return d->ops->iso_in ? d->ops->iso_in(d, ep, buf, room) : 0;
}

/* The packet's own slot is over. */
static void run_packet(Device *d, Endpoint *ep, Xfer *x, uint64_t slot)
{
    struct libusb_transfer *t = xfer_public(x);
    struct libusb_iso_packet_descriptor *p = &t->iso_packet_desc[x->iso_at];

    ep->iso.packets++;
    p->status = LIBUSB_TRANSFER_COMPLETED;
    p->actual_length = p->length;
    if (ep->faults.error) {
        ep->faults.error--;
        p->status = LIBUSB_TRANSFER_ERROR;
        p->actual_length = 0;
    } else if (ep->address & 0x80) {
        p->actual_length = (unsigned)packet_in(d, ep, x->data + x->iso_offset, p->length);
    } else if (d->ops->iso_out) {
        d->ops->iso_out(d, ep, x->data + x->iso_offset, p->length, slot);
    }
    x->iso_offset += p->length;
    x->pos += p->actual_length;
    x->iso_at++;
}

static void begin(Endpoint *ep, const Xfer *x)
{
    IsoState *s = &ep->iso;

    if (!s->running) {
        s->running = true;
        s->next = x->submitted + ep->desc->interval;
        s->slot = 0;
    } else if (x->submitted > s->next) {
        int64_t missed = (x->submitted - s->next) / ep->desc->interval + 1;

        trace(x->dev, "ep %02x GAP of %lld slots at %llu, before packet %llu, dry since %.6f",
              ep->address, (long long)missed, (unsigned long long)s->slot,
              (unsigned long long)s->packets, (double)s->next / 1e9);
        s->gaps++;
        s->missed += (uint64_t)missed;
        s->next += missed * ep->desc->interval;
        s->slot += (uint64_t)missed;
    }
}

bool iso_run(Device *d, Endpoint *ep, int64_t now)
{
    Xfer *x = TAILQ_FIRST(&ep->queue);

    if (x->iso_at == 0)
        begin(ep, x);
    while (x->iso_at < x->iso_packets) {
        if (ep->iso.next + ep->desc->interval > now)
            return false;
        run_packet(d, ep, x, ep->iso.slot++);
        ep->iso.next += ep->desc->interval;
    }
    xfer_finish(x, LIBUSB_TRANSFER_COMPLETED);
    return true;
}

int64_t iso_due(const Endpoint *ep)
{
    const Xfer *x = TAILQ_FIRST(&ep->queue);
    int64_t next = ep->iso.running ? ep->iso.next : x->submitted + ep->desc->interval;

    return next + (x->iso_packets - x->iso_at) * ep->desc->interval;
}

/* What the kernel's usbfs and USB core refuse. */
int iso_check(const Endpoint *ep, const struct libusb_transfer *t)
{
    uint64_t sum = 0;

    if (t->num_iso_packets < 1 || t->num_iso_packets > 128)
        return LIBUSB_ERROR_INVALID_PARAM;
    for (int i = 0; i < t->num_iso_packets; i++) {
        if (t->iso_packet_desc[i].length > ep->desc->payload)
            return LIBUSB_ERROR_INVALID_PARAM;
        sum += t->iso_packet_desc[i].length;
    }
    return sum > (uint64_t)t->length ? LIBUSB_ERROR_INVALID_PARAM : 0;
}
