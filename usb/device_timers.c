/*
 * Theory of operation. Everything that ends by the clock: usb_device_deadline() says when something
 * is due, usb_device_tick() does it. A request that runs out of time is cancelled at its source,
 * and its packet is answered with an error; a stream's is made again (device_stream.c). The table
 * keeps a tombstone, so that an answer that comes later is known for what it is.
 */
#include "device_priv.h"

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t usb_device_deadline(const UsbDevice *d)
{
    uint64_t deadline = transfer_table_deadline(&d->table);
    uint64_t full_since = transfer_tombstones_full_since(&d->table);

    if (!device_is_active(d))
        return UINT64_MAX;
    deadline = earlier(deadline, iso_deadline(d));
    deadline = earlier(deadline, alive_deadline(d));
    deadline = earlier(deadline, control_deadline(d));
    if (full_since != UINT64_MAX && d->now < full_since + DEVICE_CANCEL_PERIOD_US)
        deadline = earlier(deadline, full_since + DEVICE_CANCEL_PERIOD_US);
    if (d->over_cap && d->now < d->over_cap_since + USB_TIMEOUT_TRANSFER_US)
        deadline = earlier(deadline, d->over_cap_since + USB_TIMEOUT_TRANSFER_US);
    return deadline;
}

static void time_out(UsbDevice *d, const Transfer *t)
{
    const Packet *p = t->owner;
    bool read_ahead = !p;
    UsbCompletion c = {
        .id = t->id,
        .status = p && p->type == PACKET_CONTROL ? USB_STATUS_TIMEOUT : USB_STATUS_IOERROR,
        .retry_in = read_ahead,
    };

    alive_timed_out(d, t);
    control_took(d, t);
    d->stats.timeouts++;
    if (!d->silent_since)
        d->silent_since = d->now;
    if (d->source && !d->source->gone)
        d->source->ops->cancel(d->source, t->id);
    device_finish_transfer(d, t, &c);
}

void usb_device_tick(UsbDevice *d, uint64_t now_us)
{
    Transfer t;

    if (d->state == USB_DEVICE_BROKEN)
        return;
    device_enter_at(d, now_us);
    while (transfer_expire(&d->table, &t) || alive_expire(d, &t))
        time_out(d, &t);
    for (unsigned i = 0; i < DEVICE_PIPES; i++)
        stream_check_lost(d, &d->pipes[i]);
    alive_tick(d);
    control_pump(d);
    iso_tick(d);
    device_leave(d);
}
