/*
 * Theory of operation
 *
 * A client that has lost its network may be back in a moment with the same device. Until then the
 * UsbDevice lives on without a source: suspended. The guest keeps the device.
 *
 * On suspension every packet of the guest's that has no answer yet gets one, an I/O error: whether
 * the device has carried it out nobody can know, so nothing is ever sent again by us. Streams that
 * had requests out report one error, too, since what they had read is lost. Then nothing more is
 * read from QEMU: what the guest asks next waits in the socket, in order, and its own timers and
 * resets wait there behind it.
 *
 * On resumption UsbReplay (replay.c) has brought the device into the guest's configuration. Reading
 * goes on, and streams are started again.
 *
 * Mass storage takes more care. A command that was cut in two must not meet the guest's next
 * transfer half way: replay.c does a reset recovery (BBB 5.3.4), after which the device expects a
 * command. The guest may still believe to be in the middle of one. So after resumption its bulk
 * pipes stall, as a device's do that needs reset recovery (BBB 6.6.1), until the guest begins with
 * a command. Its driver sees the stall, resets, and repeats the command or reports an error: that
 * is its decision, with the knowledge that the command did not end.
 */
#include <assert.h>
#include <libusb.h>
#include <stdlib.h>

#include "device_priv.h"

#define PROTOCOL_BULK_ONLY 0x50u

/* ---- mass storage ---- */

void storage_rebuild(UsbDevice *d)
{
    const UsbConfiguration *c = d->configuration;

    d->storage_kind = STORAGE_NONE;
    for (unsigned i = 0; c && i < c->n_interfaces; i++) {
        const UsbAltSetting *alt = usb_configuration_alt(c, c->interface_numbers[i], d->alts[i]);

        if (alt->class_code != LIBUSB_CLASS_MASS_STORAGE)
            continue;
        bool known = d->storage_kind == STORAGE_NONE && alt->protocol == PROTOCOL_BULK_ONLY;
        d->storage_kind = known ? STORAGE_BULK_ONLY : STORAGE_OTHER;
        d->storage_interface = alt->interface;
        d->storage_in = d->storage_out = 0;
        for (unsigned e = 0; e < alt->n_endpoints; e++) {
            const UsbEndpoint *ep = &alt->endpoints[e];

            if (ep->type == USB_ENDPOINT_BULK)
                *(ep->address & 0x80 ? &d->storage_in : &d->storage_out) = ep->address;
        }
        if (!d->storage_in || !d->storage_out)
            d->storage_kind = STORAGE_OTHER;
    }
    if (d->storage_kind == STORAGE_BULK_ONLY && !d->storage) {
        d->storage = calloc(1, sizeof(*d->storage));
        if (!d->storage)
            abort();
    }
}

void storage_watch(UsbDevice *d, const Packet *p, UsbStatus status, const uint8_t *data,
                   uint32_t length)
{
    if (d->storage_kind != STORAGE_BULK_ONLY)
        return;
    if (status != USB_STATUS_SUCCESS && status != USB_STATUS_STALL) {
        if (p->endpoint == d->storage_in || p->endpoint == d->storage_out)
            storage_identity_abort(d->storage);
    } else if (p->endpoint == d->storage_in) {
        storage_identity_in(d->storage, data, status == USB_STATUS_SUCCESS ? length : 0);
    } else if (p->endpoint == d->storage_out && status == USB_STATUS_SUCCESS) {
        storage_identity_out(d->storage, p->data, length);
    }
}

bool storage_out_of_step(UsbDevice *d, const RedirEvent *e)
{
    if (!d->storage_resync || d->storage_kind != STORAGE_BULK_ONLY ||
        (e->endpoint != d->storage_in && e->endpoint != d->storage_out))
        return false;
    if (e->endpoint == d->storage_in || !e->data || !storage_is_command(e->data, e->length))
        return true;
    d->storage_resync = false;
    return false;
}

/* ---- suspending ---- */

bool usb_device_can_suspend(const UsbDevice *d, const char **why)
{
    *why = NULL;
    if (d->state != USB_DEVICE_CONNECTED || d->retired)
        *why = "the guest does not have it";
    else if (!d->descriptors->serial[0])
        *why = "it has no serial number";
    else if (!state_can_be_restored(d))
        *why = "its driver has set it up in a way that only the driver knows";
    else if (d->storage_kind == STORAGE_OTHER)
        *why = "it is mass storage of another kind than Bulk-Only Transport";
    else if (d->storage_kind == STORAGE_BULK_ONLY &&
             (!d->selected || !storage_identity_complete(d->storage)))
        *why = "the guest has not asked for the size of its medium yet";
    return !*why;
}

void usb_device_suspend(UsbDevice *d)
{
    device_enter(d);
    assert(!d->suspended && d->state == USB_DEVICE_CONNECTED);
    device_let_go_of_source(d);
    transfer_table_clear(&d->table);
    d->suspended = true;
    d->silent_since = 0;
    d->starved = d->deaf = false;
    for (unsigned i = 0; i < DEVICE_PIPES; i++) {
        stream_suspend(d, &d->pipes[i]);
        iso_abort(d, &d->pipes[i]); /* QEMU starts it again with the guest's next packet */
        pipe_fail_all(d, &d->pipes[i]);
    }
    control_fail_all(d);
    if (d->storage)
        storage_identity_abort(d->storage);
    device_leave(d);
}

bool usb_device_is_suspended(const UsbDevice *d)
{
    return d->suspended;
}

void usb_device_resume(UsbDevice *d, UsbSource *source, uint64_t now_us)
{
    device_enter_at(d, now_us);
    assert(d->suspended && !source->gone);
    d->suspended = false;
    d->storage_resync = d->storage_kind == STORAGE_BULK_ONLY;
    device_take_source(d, source);
    if (d->state == USB_DEVICE_CONNECTED)
        device_pump(d);
    device_leave(d);
}
