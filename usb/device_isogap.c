/*
 * Theory of operation: whose fault is a gap in an OUT stream?
 *
 * A request has to leave for the client before the device there runs dry, and a little earlier,
 * because it has a way to go and a client that looks at its USB from time to time: that is its
 * deadline (.due: .play_end less the round trip and ISO_SLACK_US). For one that misses it, or could
 * not be made in time at all, three times are known:
 *
 *   - when the packet that completed it had come from QEMU: no earlier than the poll before the one
 * that found it if that one did not have to wait (UsbArrival.arrived_us), so time in which we were
 * busy with something else and did not look is ours;
 *   - when it had been offered to the client's socket (usb_device_sent()): what the socket does not
 *     take then waits for the network;
 *   - how long of that our thread was ready to run and had no processor: the kernel counts it
 *     (UsbArrival.waited_us).
 *
 *      gaps_own    it was here in time, and out too late
 *      gaps_host   the same, but in time had there been a processor
 *      gaps_limit  it was held back: USB_ISO_MAX_REQUESTS and such
 *      gaps_guest  it came too late, and QEMU's packets were late by USB_ISO_MIN_LEAD_US or more
 *      gaps_network  it came too late for a device that had less left than it should have had: the
 *                  round trip became longer, or the device is quicker than QEMU's bus; and what
 *                  iso_observe() finds, gaps after requests that left in time
 *
 * QEMU's lateness is measured on what it sent alone. When the lead is complete, the packets until
 * then and the time are noted; from there on QEMU owes one packet per period. Its 60 ms are what
 * the lead is made for; the round trip, the time in which a request fills up, and the slack come on
 * top of them, so nothing of ours is paid out of the guest's part.
 */
#include <inttypes.h>

#include "device_iso_priv.h"
#include "log.h"

void iso_gap_arrival(UsbDevice *d)
{
    UsbArrival a = {.arrived_us = d->now};

    if (d->callbacks->arrival)
        d->callbacks->arrival(d->user, &a);
    uint64_t waited = a.waited_us - d->arrival.waited_us;
    /* The thread may have been made ready by these bytes, and have had to wait for a processor. */
    d->arrived = a.arrived_us > d->now ? d->now : a.arrived_us;
    d->arrived -= waited < d->arrived ? waited : d->arrived;
    d->arrived_waited = d->arrival.waited_us;
    d->arrival = a;
}

void iso_gap_lead_complete(const UsbDevice *d, IsoStream *s)
{
    s->base_at = d->arrived;
    s->base_packets = s->came;
}

/* How late QEMU's packets were when the last one came. */
static int64_t lateness(const UsbDevice *d, const IsoStream *s)
{
    return (int64_t)(d->arrived - s->base_at) - (int64_t)((s->came - s->base_packets) * s->period);
}

static uint64_t waited_since(UsbDevice *d, uint64_t before)
{
    UsbArrival a = d->arrival;

    if (d->callbacks->arrival)
        d->callbacks->arrival(d->user, &a);
    return a.waited_us - before;
}

uint64_t iso_gap_due(const UsbDevice *d, const IsoStream *s)
{
    uint64_t needed = device_round_trip(d) + ISO_SLACK_US;

    return s->play_end > needed ? s->play_end - needed : 0;
}

/* What had come at .arrived of @urb should have left at @due, and it is later. */
static uint32_t *blame(UsbDevice *d, IsoStream *s, const IsoUrb *urb, uint64_t due)
{
    UsbIsoStats *stats = iso_stats(d, s);

    if (urb->arrived > due)
        return lateness(d, s) >= (int64_t)USB_ISO_MIN_LEAD_US ? &stats->gaps_guest
                                                              : &stats->gaps_network;
    return d->now - due <= waited_since(d, urb->waited) ? &stats->gaps_host : &stats->gaps_own;
}

void iso_gap_too_late(UsbDevice *d, IsoStream *s)
{
    const IsoUrb *urb = s->waiting.head;
    uint64_t due = iso_gap_due(d, s);

    log_debug(d->source->label,
              "packet %" PRIu64 ": too late by %" PRIu64 " us, QEMU by %" PRId64
              " us, here for %" PRIu64 " us, no processor for %" PRIu64
              " us; the stream is filled anew",
              d->iso_sent, d->now - due, lateness(d, s), d->now - urb->arrived,
              waited_since(d, urb->waited));
    *(s->held_back ? &iso_stats(d, s)->gaps_limit : blame(d, s, urb, due)) += 1;
}

static void offered(UsbDevice *d, IsoStream *s)
{
    bool missed = false;

    for (IsoUrb *urb = s->sent.head; urb && s->not_offered > 0; urb = urb->next) {
        if (urb->offered)
            continue;
        urb->offered = true;
        s->not_offered--;
        log_debug(d->source->label,
                  "packets %" PRIu64 " to %" PRIu64 ": came at %" PRIu64 ", left at %" PRIu64
                  ", due at %" PRIu64 ", no processor for %" PRIu64 " us",
                  urb->first, urb->first + urb->n_packets - 1, urb->arrived, d->now, urb->due,
                  waited_since(d, urb->waited));
        if (urb->due && d->now > urb->due && !missed) /* what follows belongs to the same gap */
            *blame(d, s, urb, urb->due) += 1;
        missed |= urb->due && d->now > urb->due;
    }
}

void usb_device_sent(UsbDevice *d)
{
    for (unsigned i = 0; i < DEVICE_PIPES / 2; i++) {
        IsoStream *s = d->pipes[i].iso;

        if (!s || s->not_offered == 0 || !d->source)
            continue;
        device_enter_at(d, d->callbacks->now ? d->callbacks->now(d->user) : d->now);
        offered(d, s);
        device_leave(d);
    }
}
