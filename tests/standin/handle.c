/*
 * Open devices: what usbfs and the client's kernel do with claims, drivers and configurations.
 *
 * The answers follow Linux: a bound kernel driver or another owner makes a claim BUSY, a change of
 * configuration is refused while anything is claimed and binds the kernel's drivers again, setting
 * the configuration that is active already is a light reset, and releasing an interface ends its
 * transfers and puts alternate 0 back.
 */
#include "host.h"
#include <stdlib.h>

Device *handle_hw(libusb_device_handle *h)
{
    return h && h->dev->hw->plugged ? h->dev->hw : NULL;
}

int libusb_open(libusb_device *dev, libusb_device_handle **out)
{
    libusb_device_handle *h;

    bus_lock();
    if (!dev->hw->plugged) {
        bus_unlock();
        return LIBUSB_ERROR_NO_DEVICE;
    }
    if (dev->hw->forbidden) {
        bus_unlock();
        return LIBUSB_ERROR_ACCESS;
    }
    h = calloc(1, sizeof(*h));
    if (!h)
        abort();
    h->dev = dev;
    dev->refs++;
    dev->hw->opens++;
    trace(dev->hw, "open");
    bus_unlock();
    *out = h;
    return 0;
}

libusb_device_handle *libusb_open_device_with_vid_pid(libusb_context *ctx, uint16_t vid,
                                                      uint16_t pid)
{
    libusb_device_handle *h = NULL;
    libusb_device **list;
    ssize_t n = libusb_get_device_list(ctx, &list);

    for (ssize_t i = 0; i < n && !h; i++) {
        struct libusb_device_descriptor desc;

        libusb_get_device_descriptor(list[i], &desc);
        if (desc.idVendor == vid && desc.idProduct == pid && libusb_open(list[i], &h) != 0)
            h = NULL;
    }
    libusb_free_device_list(list, 1);
    return h;
}

int libusb_wrap_sys_device(libusb_context *ctx, intptr_t sys_dev, libusb_device_handle **out)
{
    return LIBUSB_ERROR_NOT_SUPPORTED;
}

libusb_device *libusb_get_device(libusb_device_handle *h)
{
    return h->dev;
}

static void release(Device *d, unsigned interface)
{
    d->owner[interface] = NULL;
    for (unsigned i = 1; i < 32; i++) {
        Endpoint *ep = &d->eps[i];

        if (ep->desc && ep->desc->interface == interface)
            device_flush(d, ep, LIBUSB_TRANSFER_CANCELLED);
    }
    if (d->plugged && d->alt[interface])
        device_set_alt(d, (uint8_t)interface, 0);
}

/* libusb forgets the transfers of a closed handle: their callbacks never run. */
static void forget_transfers(libusb_device_handle *h)
{
    libusb_context *ctx = h->dev->ctx;
    Xfer *x, *next;

    for (x = TAILQ_FIRST(&ctx->flying); x; x = next) {
        next = TAILQ_NEXT(x, flight);
        if (x->handle != h)
            continue;
        violation(h->dev->hw, V_CLOSED_IN_FLIGHT);
        if (x->state == XFER_QUEUED)
            xfer_finish(x, LIBUSB_TRANSFER_CANCELLED);
        TAILQ_REMOVE(&ctx->done, x, link);
        TAILQ_REMOVE(&ctx->flying, x, flight);
        x->state = XFER_IDLE;
    }
}

void libusb_close(libusb_device_handle *h)
{
    libusb_device *dev;
    Device *d;

    if (!h)
        return;
    bus_lock();
    dev = h->dev;
    d = dev->hw;
    trace(d, "close");
    for (unsigned i = 0; i < MAX_INTERFACES; i++) {
        if (d->owner[i] != h)
            continue;
        release(d, i);
        if (h->auto_detach)
            d->kernel_bound[i] = d->ops->kernel_driver;
    }
    forget_transfers(h);
    d->opens--;
    bus_unlock();
    libusb_unref_device(dev);
    free(h);
}

int libusb_get_configuration(libusb_device_handle *h, int *config)
{
    Device *d;

    bus_lock();
    d = handle_hw(h);
    if (d)
        *config = d->configuration;
    bus_unlock();
    return d ? 0 : LIBUSB_ERROR_NO_DEVICE;
}

static bool any_claimed(const Device *d)
{
    for (unsigned i = 0; i < device_config(d)->n_interfaces; i++) {
        if (d->owner[i] || d->kernel_bound[i])
            return true;
    }
    return false;
}

int libusb_set_configuration(libusb_device_handle *h, int value)
{
    int result = 0;
    Device *d;

    bus_lock();
    d = handle_hw(h);
    if (!d) {
        result = LIBUSB_ERROR_NO_DEVICE;
    } else if (value < -1 || value > (int)d->n_configs) {
        result = LIBUSB_ERROR_NOT_FOUND;
    } else if (any_claimed(d)) {
        result = LIBUSB_ERROR_BUSY;
    } else {
        bool same = d->configuration == value;

        device_configure(d, value > 0 ? (uint8_t)value : 0);
        for (unsigned i = 0; !same && value > 0 && i < device_config(d)->n_interfaces; i++)
            d->kernel_bound[i] = d->ops->kernel_driver;
    }
    trace(d, "set_configuration %d: %d", value, result);
    bus_unlock();
    return result;
}

static int claim(libusb_device_handle *h, Device *d, unsigned interface)
{
    if (!d->configuration || interface >= device_config(d)->n_interfaces)
        return LIBUSB_ERROR_NOT_FOUND;
    if (d->owner[interface] == h)
        return 0;
    if (d->kernel_bound[interface] && h->auto_detach)
        d->kernel_bound[interface] = false;
    if (d->owner[interface] || d->kernel_bound[interface])
        return LIBUSB_ERROR_BUSY;
    d->owner[interface] = h;
    return 0;
}

bool handle_may_use(libusb_device_handle *h, unsigned interface, bool implicit)
{
    Device *d = h->dev->hw;

    if (interface < device_config(d)->n_interfaces && d->owner[interface] == h)
        return true;
    return implicit && claim(h, d, interface) == 0;
}

int libusb_claim_interface(libusb_device_handle *h, int interface)
{
    int result = LIBUSB_ERROR_NO_DEVICE;
    Device *d;

    if (interface < 0 || interface >= 32)
        return LIBUSB_ERROR_INVALID_PARAM;
    bus_lock();
    d = handle_hw(h);
    if (d) {
        result = claim(h, d, (unsigned)interface);
        trace(d, "claim_interface %d: %d", interface, result);
    }
    bus_unlock();
    return result;
}

int libusb_release_interface(libusb_device_handle *h, int interface)
{
    int result = LIBUSB_ERROR_NOT_FOUND;
    Device *d;

    if (interface < 0 || interface >= 32)
        return LIBUSB_ERROR_INVALID_PARAM;
    bus_lock();
    d = h->dev->hw;
    if (interface < MAX_INTERFACES && d->owner[interface] == h) {
        release(d, (unsigned)interface);
        if (h->auto_detach)
            d->kernel_bound[interface] = d->ops->kernel_driver;
        result = d->plugged ? 0 : LIBUSB_ERROR_NO_DEVICE;
    }
    trace(d, "release_interface %d: %d", interface, result);
    bus_unlock();
    return result;
}

int libusb_set_interface_alt_setting(libusb_device_handle *h, int interface, int alt)
{
    int result = 0;
    Device *d;

    if (interface < 0 || interface >= 32 || alt < 0 || alt > 255)
        return LIBUSB_ERROR_INVALID_PARAM;
    bus_lock();
    d = handle_hw(h);
    if (!d)
        result = LIBUSB_ERROR_NO_DEVICE;
    else if (interface >= MAX_INTERFACES || d->owner[interface] != h)
        result = LIBUSB_ERROR_NOT_FOUND;
    else if (!device_set_alt(d, (uint8_t)interface, (uint8_t)alt))
        result = LIBUSB_ERROR_NOT_FOUND;
    trace(d, "set_interface_alt_setting %d %d: %d", interface, alt, result);
    bus_unlock();
    return result;
}

int libusb_clear_halt(libusb_device_handle *h, unsigned char address)
{
    int result = LIBUSB_ERROR_NOT_FOUND;
    Endpoint *ep;
    Device *d;

    bus_lock();
    d = handle_hw(h);
    ep = d ? device_ep(d, address) : NULL;
    if (!d) {
        result = LIBUSB_ERROR_NO_DEVICE;
    } else if (ep && ep->desc) {
        result = LIBUSB_ERROR_OTHER; /* usbfs: EBUSY, which libusb has no case for */
        if (handle_may_use(h, ep->desc->interface, true)) {
            device_clear_halt(d, ep);
            ep->host_seq = 0;
            device_run(d);
            result = 0;
        }
    }
    trace(d, "clear_halt %02x: %d", address, result);
    bus_unlock();
    return result;
}

int libusb_reset_device(libusb_device_handle *h)
{
    Device *d;

    bus_lock();
    d = handle_hw(h);
    if (d) {
        device_reset(d);
        trace(d, "reset_device");
    }
    bus_unlock();
    return d ? 0 : LIBUSB_ERROR_NO_DEVICE;
}

int libusb_kernel_driver_active(libusb_device_handle *h, int interface)
{
    int result = LIBUSB_ERROR_NO_DEVICE;
    Device *d;

    if (interface < 0 || interface >= 32)
        return LIBUSB_ERROR_INVALID_PARAM;
    bus_lock();
    d = handle_hw(h);
    if (d)
        result = (unsigned)interface < device_config(d)->n_interfaces && d->kernel_bound[interface];
    bus_unlock();
    return result;
}

static int set_kernel_driver(libusb_device_handle *h, int interface, bool bind)
{
    int result = 0;
    Device *d;

    if (interface < 0 || interface >= 32)
        return LIBUSB_ERROR_INVALID_PARAM;
    bus_lock();
    d = handle_hw(h);
    if (!d)
        result = LIBUSB_ERROR_NO_DEVICE;
    else if ((unsigned)interface >= device_config(d)->n_interfaces || !d->configuration)
        result = bind ? LIBUSB_ERROR_NOT_FOUND : LIBUSB_ERROR_INVALID_PARAM;
    else if (bind && (d->owner[interface] || d->kernel_bound[interface]))
        result = LIBUSB_ERROR_BUSY;
    else if (bind ? !d->ops->kernel_driver : !d->kernel_bound[interface])
        result = LIBUSB_ERROR_NOT_FOUND;
    else
        d->kernel_bound[interface] = bind;
    trace(d, "%stach_kernel_driver %d: %d", bind ? "at" : "de", interface, result);
    bus_unlock();
    return result;
}

int libusb_detach_kernel_driver(libusb_device_handle *h, int interface)
{
    return set_kernel_driver(h, interface, false);
}

int libusb_attach_kernel_driver(libusb_device_handle *h, int interface)
{
    return set_kernel_driver(h, interface, true);
}

int libusb_set_auto_detach_kernel_driver(libusb_device_handle *h, int enable)
{
    h->auto_detach = enable != 0;
    return 0;
}

/* No emulated device has streams. */
int libusb_alloc_streams(libusb_device_handle *h, uint32_t n, unsigned char *eps, int n_eps)
{
    return LIBUSB_ERROR_INVALID_PARAM;
}

int libusb_free_streams(libusb_device_handle *h, unsigned char *eps, int n_eps)
{
    return LIBUSB_ERROR_INVALID_PARAM;
}

unsigned char *libusb_dev_mem_alloc(libusb_device_handle *h, size_t length)
{
    return NULL; /* libusb's documented answer where the platform has none: use malloc */
}

int libusb_dev_mem_free(libusb_device_handle *h, unsigned char *buffer, size_t length)
{
    return LIBUSB_ERROR_NOT_SUPPORTED;
}
