/*
 * Theory of operation. Some clients let a bulk or interrupt request stay open for as long as the
 * device likes (USB_QUIRK_TRANSFERS_MAY_PEND), so such a request has no timer: a keyboard that
 * nobody touches and a printer that is out of paper are in order. What must not be is a request
 * that waits for a client which has forgotten the device. So when one has waited for
 * USB_TIMEOUT_PEND_US and nothing at all was answered for the device meanwhile, the client is asked
 * for the device descriptor. It answers: the request may go on waiting. It does not, within the
 * timer of a control request, nor anything else: every request that it had when it was asked ends,
 * the device counts as silent, and the rest of the story is that of any other time-out.
 *
 * A request made after the question has its own a minute later at the latest. So none waits for
 * more than USB_TIMEOUT_PEND_US + USB_TIMEOUT_CONTROL_US since it was made or something was last
 * answered, whichever came later; and as long behind a control request of the guest's, which has
 * a timer itself.
 *
 * A device of which nothing but time-outs has come for DEVICE_SILENCE_US is given back, whatever
 * its client's requests may do. A guest that has stopped asking must not keep it: half way there it
 * is asked the same question, so that one request that a device has swallowed is not the end of it.
 *
 * The same question serves who doubts that the client is still there at all: usb_device_ask().
 */
#include <libusb.h>

#include "device_priv.h"

static bool is_question(const Packet *p)
{
    return p && p->type == PACKET_INTERNAL && p->kind == USB_REQUEST_CONTROL &&
           p->setup.request_type == LIBUSB_ENDPOINT_IN &&
           p->setup.request == LIBUSB_REQUEST_GET_DESCRIPTOR;
}

/* When the question is due. A control request that is out or waits is as good as the question. */
static uint64_t question_due(const UsbDevice *d)
{
    uint64_t since = transfer_pending_since(&d->table);
    uint64_t due = UINT64_MAX;

    if (d->control.head)
        return UINT64_MAX;
    if (since != UINT64_MAX)
        due = (since > d->heard ? since : d->heard) + USB_TIMEOUT_PEND_US;
    if (d->silent_since) {
        since = (d->silent_since > d->heard ? d->silent_since : d->heard) + DEVICE_SILENCE_US / 2;
        due = since < due ? since : due;
    }
    return due;
}

uint64_t alive_deadline(const UsbDevice *d)
{
    uint64_t due;

    if (!d->source || d->source->gone || d->retired)
        return UINT64_MAX;
    due = question_due(d);
    if (d->silent_since && d->silent_since + DEVICE_SILENCE_US < due)
        due = d->silent_since + DEVICE_SILENCE_US;
    return due;
}

void alive_tick(UsbDevice *d)
{
    if (alive_deadline(d) > d->now)
        return;
    if (d->silent_since && d->now - d->silent_since >= DEVICE_SILENCE_US) {
        d->retired = true;
        d->source->ops->retire(d->source, "the client has not answered for a minute");
        return;
    }
    d->heard = d->now; /* refused or not, once in a while is enough */
    control_ask(d);
}

void usb_device_ask(UsbDevice *d, uint64_t now_us)
{
    if (d->state != USB_DEVICE_CONNECTED || !d->source || d->retired)
        return;
    device_enter_at(d, now_us);
    if (!d->control.head)
        control_ask(d);
    device_leave(d);
}

void alive_timed_out(UsbDevice *d, const Transfer *t)
{
    if (is_question(t->owner) && d->heard <= t->t0)
        d->deaf = true;
}

bool alive_expire(UsbDevice *d, Transfer *out)
{
    /* .heard is when it was asked; what is made now, in place of what ends, is younger. */
    if (d->deaf && transfer_expire_pending(&d->table, d->now - d->heard, out))
        return true;
    d->deaf = false;
    return false;
}
