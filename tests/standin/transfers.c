/*
 * Transfers: allocate, submit, cancel, and the synchronous calls on top.
 *
 * A submit lets the device work at once, in the caller's thread, but the callback always waits for
 * an event handler: that is also what the real thing looks like when the hardware is very fast.
 */
#include "host.h"
#include <stdlib.h>
#include <string.h>

struct libusb_transfer *libusb_alloc_transfer(int iso_packets)
{
    Xfer *x;
    size_t size = sizeof(struct libusb_transfer) + 16 + sizeof(*x);

    if (iso_packets < 0)
        return NULL;
    x = calloc(1, size + (size_t)iso_packets * sizeof(struct libusb_iso_packet_descriptor));
    if (!x)
        abort();
    xfer_public(x)->num_iso_packets = iso_packets;
    return xfer_public(x);
}

void libusb_free_transfer(struct libusb_transfer *t)
{
    Xfer *x;

    if (!t)
        return;
    x = xfer_private(t);
    bus_lock();
    if (x->state != XFER_IDLE) {
        violation(x->dev, V_FREED_IN_FLIGHT);
        if (x->state == XFER_QUEUED)
            xfer_finish(x, LIBUSB_TRANSFER_CANCELLED);
        TAILQ_REMOVE(&x->ctx->done, x, link);
        TAILQ_REMOVE(&x->ctx->flying, x, flight);
    }
    bus_unlock();
    if (t->flags & LIBUSB_TRANSFER_FREE_BUFFER)
        free(t->buffer);
    free(x);
}

void libusb_transfer_set_stream_id(struct libusb_transfer *t, uint32_t stream_id)
{
    xfer_private(t)->stream_id = stream_id;
}

uint32_t libusb_transfer_get_stream_id(struct libusb_transfer *t)
{
    return xfer_private(t)->stream_id;
}

/* usbfs lets a request through if its recipient is the device, or an interface (directly, or the
 * one an endpoint belongs to) that the caller has or can get; vendor requests always pass. */
static bool control_allowed(libusb_device_handle *h, const uint8_t *setup)
{
    Device *d = h->dev->hw;
    unsigned recipient = setup[0] & 0x1f, index = setup[4];
    Endpoint *ep;

    if ((setup[0] & 0x60) == LIBUSB_REQUEST_TYPE_VENDOR)
        return true;
    if (recipient == LIBUSB_RECIPIENT_INTERFACE)
        return handle_may_use(h, index, true);
    if (recipient != LIBUSB_RECIPIENT_ENDPOINT || !(index & 15))
        return true;
    ep = device_ep(d, (uint8_t)index);
    return ep && ep->desc && handle_may_use(h, ep->desc->interface, true);
}

static int check_control(libusb_device_handle *h, const struct libusb_transfer *t)
{
    unsigned length;

    if (t->length < 8)
        return LIBUSB_ERROR_INVALID_PARAM;
    length = t->buffer[6] | (unsigned)t->buffer[7] << 8;
    if (t->length - 8 > MAX_CONTROL_DATA || length > (unsigned)t->length - 8)
        return LIBUSB_ERROR_INVALID_PARAM;
    if (control_allowed(h, t->buffer))
        return 0;
    violation(h->dev->hw, V_UNCLAIMED);
    return LIBUSB_ERROR_IO;
}

static int check_data(libusb_device_handle *h, const struct libusb_transfer *t)
{
    Device *d = h->dev->hw;
    Endpoint *ep = device_ep(d, t->endpoint);
    unsigned type;

    if (t->length < 0)
        return LIBUSB_ERROR_INVALID_PARAM;
    if (!ep || !ep->desc) {
        violation(d, V_BAD_ENDPOINT);
        return LIBUSB_ERROR_IO;
    }
    if (!handle_may_use(h, ep->desc->interface, false)) {
        violation(d, V_UNCLAIMED);
        return LIBUSB_ERROR_IO;
    }
    type = ep->desc->attributes & 3;
    /* usbfs turns a bulk URB for an interrupt endpoint into an interrupt one, but not the reverse.
     */
    if (t->type != type && !(t->type == LIBUSB_TRANSFER_TYPE_BULK &&
                             type == LIBUSB_ENDPOINT_TRANSFER_TYPE_INTERRUPT)) {
        violation(d, V_BAD_ENDPOINT);
        return LIBUSB_ERROR_IO;
    }
    return 0;
}

static int check(libusb_device_handle *h, const struct libusb_transfer *t)
{
    int result;

    switch (t->type) {
    case LIBUSB_TRANSFER_TYPE_CONTROL:
        result = check_control(h, t);
        break;
    case LIBUSB_TRANSFER_TYPE_BULK:
    case LIBUSB_TRANSFER_TYPE_INTERRUPT:
        result = check_data(h, t);
        break;
    case LIBUSB_TRANSFER_TYPE_ISOCHRONOUS:
        result = check_data(h, t);
        if (!result)
            result = iso_check(device_ep(h->dev->hw, t->endpoint), t);
        break;
    default:
        result = LIBUSB_ERROR_NOT_SUPPORTED; /* no emulated device has streams */
    }
    if (!result && *bus_memory() + (uint64_t)t->length > USBFS_MEMORY)
        result = LIBUSB_ERROR_NO_MEM;
    return result;
}

static void queue(Xfer *x, libusb_device_handle *h, struct libusb_transfer *t)
{
    Device *d = h->dev->hw;

    x->ctx = h->dev->ctx;
    x->handle = h;
    x->dev = d;
    x->ep = t->type == LIBUSB_TRANSFER_TYPE_CONTROL ? &d->eps[0] : device_ep(d, t->endpoint);
    x->data = t->buffer;
    x->len = (size_t)t->length;
    x->pos = 0;
    x->iso_packets = t->type == LIBUSB_TRANSFER_TYPE_ISOCHRONOUS ? t->num_iso_packets : 0;
    x->iso_at = 0;
    x->iso_offset = 0;
    x->zero_packet =
        t->flags & LIBUSB_TRANSFER_ADD_ZERO_PACKET && x->ep->desc && x->len % x->ep->desc->mps == 0;
    x->submitted = now_ns();
    x->due = x->submitted + x->ep->faults.delay;
    x->deadline = t->timeout ? x->submitted + t->timeout * MS : NEVER;
    x->state = XFER_QUEUED;
    *bus_memory() += x->len;
    TAILQ_INSERT_TAIL(&x->ep->queue, x, link);
    TAILQ_INSERT_TAIL(&x->ctx->flying, x, flight);
    /* Whoever sleeps in handle_events chose how long before it knew of this deadline. */
    if (x->deadline < x->ctx->sleeping_until)
        context_wake(x->ctx);
}

int libusb_submit_transfer(struct libusb_transfer *t)
{
    libusb_device_handle *h = t->dev_handle;
    Xfer *x = xfer_private(t);
    int result;

    bus_lock();
    if (x->state != XFER_IDLE) {
        violation(x->dev, V_RESUBMITTED);
        result = LIBUSB_ERROR_BUSY;
    } else if (!handle_hw(h)) {
        result = LIBUSB_ERROR_NO_DEVICE;
    } else {
        result = check(h, t);
        if (!result) {
            t->actual_length = 0;
            queue(x, h, t);
            device_run(h->dev->hw);
        }
    }
    bus_unlock();
    return result;
}

int libusb_cancel_transfer(struct libusb_transfer *t)
{
    Xfer *x = xfer_private(t);
    int result = LIBUSB_ERROR_NOT_FOUND;

    bus_lock();
    if (x->state == XFER_QUEUED && x->iso_packets)
        device_run(x->dev); /* some of its slots may be over */
    if (x->state == XFER_QUEUED) {
        Device *d = x->dev;

        xfer_finish(x, LIBUSB_TRANSFER_CANCELLED);
        device_run(d); /* the one behind it may be able to move */
        result = 0;
    }
    bus_unlock();
    return result;
}

static void LIBUSB_CALL sync_done(struct libusb_transfer *t)
{
    __atomic_store_n((int *)t->user_data, 1, __ATOMIC_RELEASE);
}

static int sync_result(const struct libusb_transfer *t)
{
    switch (t->status) {
    case LIBUSB_TRANSFER_COMPLETED:
        return 0;
    case LIBUSB_TRANSFER_TIMED_OUT:
        return LIBUSB_ERROR_TIMEOUT;
    case LIBUSB_TRANSFER_STALL:
        return LIBUSB_ERROR_PIPE;
    case LIBUSB_TRANSFER_NO_DEVICE:
        return LIBUSB_ERROR_NO_DEVICE;
    case LIBUSB_TRANSFER_OVERFLOW:
        return LIBUSB_ERROR_OVERFLOW;
    default:
        return LIBUSB_ERROR_IO;
    }
}

/* Submits @t and handles events until it has come back. */
static int sync_run(struct libusb_transfer *t, int *completed)
{
    int result = events_in_callback() ? LIBUSB_ERROR_BUSY : libusb_submit_transfer(t);

    if (result)
        return result;
    while (!__atomic_load_n(completed, __ATOMIC_ACQUIRE)) {
        result = libusb_handle_events_completed(t->dev_handle->dev->ctx, completed);
        if (result && result != LIBUSB_ERROR_INTERRUPTED)
            libusb_cancel_transfer(t);
    }
    return sync_result(t);
}

int libusb_control_transfer(libusb_device_handle *h, uint8_t type, uint8_t request, uint16_t value,
                            uint16_t index, unsigned char *data, uint16_t length,
                            unsigned int timeout)
{
    struct libusb_transfer *t = libusb_alloc_transfer(0);
    unsigned char *buffer = calloc(1, 8u + length);
    int completed = 0, result;

    if (!buffer)
        abort();
    libusb_fill_control_setup(buffer, type, request, value, index, length);
    if (!(type & 0x80) && length)
        memcpy(buffer + 8, data, length);
    libusb_fill_control_transfer(t, h, buffer, sync_done, &completed, timeout);
    result = sync_run(t, &completed);
    if (result == 0) {
        result = t->actual_length;
        if (type & 0x80)
            memcpy(data, buffer + 8, (size_t)t->actual_length);
    }
    libusb_free_transfer(t);
    free(buffer);
    return result;
}

static int sync_data(libusb_device_handle *h, unsigned char endpoint, unsigned char type,
                     unsigned char *data, int length, int *moved, unsigned int timeout)
{
    struct libusb_transfer *t = libusb_alloc_transfer(0);
    int completed = 0, result;

    libusb_fill_bulk_transfer(t, h, endpoint, data, length, sync_done, &completed, timeout);
    t->type = type;
    result = sync_run(t, &completed);
    if (moved)
        *moved = t->actual_length;
    libusb_free_transfer(t);
    return result;
}

int libusb_bulk_transfer(libusb_device_handle *h, unsigned char endpoint, unsigned char *data,
                         int length, int *moved, unsigned int timeout)
{
    return sync_data(h, endpoint, LIBUSB_TRANSFER_TYPE_BULK, data, length, moved, timeout);
}

int libusb_interrupt_transfer(libusb_device_handle *h, unsigned char endpoint, unsigned char *data,
                              int length, int *moved, unsigned int timeout)
{
    return sync_data(h, endpoint, LIBUSB_TRANSFER_TYPE_INTERRUPT, data, length, moved, timeout);
}

int libusb_get_string_descriptor_ascii(libusb_device_handle *h, uint8_t index, unsigned char *data,
                                       int length)
{
    uint8_t p[255];
    int n = index ? libusb_get_string_descriptor(h, index, 0x0409, p, sizeof(p))
                  : LIBUSB_ERROR_INVALID_PARAM;
    int out = 0;

    if (n < 2)
        return n < 0 ? n : LIBUSB_ERROR_IO;
    for (int i = 2; i + 1 < n && i + 1 < p[0] && out + 1 < length; i += 2)
        data[out++] = p[i + 1] || p[i] > 127 ? '?' : p[i];
    data[out] = 0;
    return out;
}
