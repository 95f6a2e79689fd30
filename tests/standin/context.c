/*
 * Contexts and the devices they see.
 *
 * As in libusb a context has its own libusb_device for each device on the bus, because
 * libusb_open() finds the context through it. The context holds a reference while the device is
 * plugged, and one more goes with each hotplug message that was not delivered yet.
 */
#include "host.h"
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static TAILQ_HEAD(, libusb_context) contexts = TAILQ_HEAD_INITIALIZER(contexts);
static libusb_context *default_context;

libusb_context *context_get(libusb_context *ctx)
{
    return ctx ? ctx : default_context;
}

static libusb_device *add_device(libusb_context *ctx, Device *hw)
{
    libusb_device *dev = calloc(1, sizeof(*dev));

    if (!dev)
        abort();
    dev->ctx = ctx;
    dev->hw = hw;
    dev->refs = 1;
    device_ref(hw);
    TAILQ_INSERT_TAIL(&ctx->devices, dev, link);
    return dev;
}

static void unref_locked(libusb_device *dev)
{
    if (--dev->refs)
        return;
    device_unref(dev->hw);
    free(dev);
}

static void post(libusb_context *ctx, libusb_device *dev, libusb_hotplug_event event)
{
    Message *m = calloc(1, sizeof(*m));

    if (!m)
        abort();
    m->dev = dev;
    m->event = event;
    dev->refs++;
    TAILQ_INSERT_TAIL(&ctx->messages, m, link);
    context_wake(ctx);
}

void contexts_plugged(Device *d)
{
    libusb_context *ctx;

    TAILQ_FOREACH(ctx, &contexts, link)
    post(ctx, add_device(ctx, d), LIBUSB_HOTPLUG_EVENT_DEVICE_ARRIVED);
}

void contexts_unplugged(Device *d)
{
    libusb_context *ctx;

    TAILQ_FOREACH(ctx, &contexts, link)
    {
        libusb_device *dev;

        TAILQ_FOREACH(dev, &ctx->devices, link)
        {
            if (dev->hw == d)
                break;
        }
        if (!dev)
            continue;
        TAILQ_REMOVE(&ctx->devices, dev, link);
        post(ctx, dev, LIBUSB_HOTPLUG_EVENT_DEVICE_LEFT);
        unref_locked(dev);
    }
}

static libusb_context *context_new(void)
{
    libusb_context *ctx = calloc(1, sizeof(*ctx));
    Device *d;

    if (!ctx)
        abort();
    ctx->refs = 1;
    ctx->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (ctx->wake_fd < 0)
        abort();
    pthread_mutex_init(&ctx->events_lock, NULL);
    pthread_mutex_init(&ctx->waiters_lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&ctx->waiters_cond, &attr);
    pthread_condattr_destroy(&attr);
    TAILQ_INIT(&ctx->done);
    TAILQ_INIT(&ctx->flying);
    TAILQ_INIT(&ctx->devices);
    TAILQ_INIT(&ctx->hotplugs);
    TAILQ_INIT(&ctx->messages);
    TAILQ_FOREACH(d, bus_devices(), link)
    add_device(ctx, d);
    TAILQ_INSERT_TAIL(&contexts, ctx, link);
    return ctx;
}

int libusb_init(libusb_context **out)
{
    bus_start();
    bus_lock();
    if (out) {
        *out = context_new();
        if (!default_context)
            default_context = *out;
    } else if (default_context) {
        default_context->refs++;
    } else {
        default_context = context_new();
    }
    bus_unlock();
    return 0;
}

#if LIBUSB_API_VERSION >= 0x0100010A
int libusb_init_context(libusb_context **ctx, const struct libusb_init_option options[], int n)
{
    return libusb_init(ctx);
}
#else
__attribute__((visibility("default"))) int libusb_init_context(libusb_context **ctx,
                                                               const void *options, int n);

int libusb_init_context(libusb_context **ctx, const void *options, int n)
{
    return libusb_init(ctx);
}
#endif

static void drop_lists(libusb_context *ctx)
{
    Message *m;
    Hotplug *h;
    libusb_device *dev;

    while ((m = TAILQ_FIRST(&ctx->messages))) {
        TAILQ_REMOVE(&ctx->messages, m, link);
        unref_locked(m->dev);
        free(m);
    }
    while ((h = TAILQ_FIRST(&ctx->hotplugs))) {
        TAILQ_REMOVE(&ctx->hotplugs, h, link);
        free(h);
    }
    while ((dev = TAILQ_FIRST(&ctx->devices))) {
        TAILQ_REMOVE(&ctx->devices, dev, link);
        unref_locked(dev);
    }
}

void libusb_exit(libusb_context *ctx)
{
    bus_lock();
    ctx = context_get(ctx);
    if (ctx && !--ctx->refs) {
        drop_lists(ctx);
        TAILQ_REMOVE(&contexts, ctx, link);
        if (ctx == default_context)
            default_context = NULL;
        close(ctx->wake_fd);
        pthread_cond_destroy(&ctx->waiters_cond);
        pthread_mutex_destroy(&ctx->waiters_lock);
        pthread_mutex_destroy(&ctx->events_lock);
        free(ctx);
    }
    bus_unlock();
}

ssize_t libusb_get_device_list(libusb_context *ctx, libusb_device ***out)
{
    libusb_device **list, *dev;
    ssize_t n = 0;

    bus_lock();
    ctx = context_get(ctx);
    TAILQ_FOREACH(dev, &ctx->devices, link)
    n++;
    list = calloc((size_t)n + 1, sizeof(*list));
    if (!list)
        abort();
    n = 0;
    TAILQ_FOREACH(dev, &ctx->devices, link)
    {
        dev->refs++;
        list[n++] = dev;
    }
    bus_unlock();
    *out = list;
    return n;
}

void libusb_free_device_list(libusb_device **list, int unref_devices)
{
    if (!list)
        return;
    for (size_t i = 0; unref_devices && list[i]; i++)
        libusb_unref_device(list[i]);
    free(list);
}

libusb_device *libusb_ref_device(libusb_device *dev)
{
    bus_lock();
    dev->refs++;
    bus_unlock();
    return dev;
}

void libusb_unref_device(libusb_device *dev)
{
    if (!dev)
        return;
    bus_lock();
    unref_locked(dev);
    bus_unlock();
}

uint8_t libusb_get_bus_number(libusb_device *dev)
{
    return dev->hw->bus;
}

uint8_t libusb_get_port_number(libusb_device *dev)
{
    return dev->hw->port;
}

int libusb_get_port_numbers(libusb_device *dev, uint8_t *numbers, int n)
{
    if (n < 1)
        return n < 0 ? LIBUSB_ERROR_INVALID_PARAM : LIBUSB_ERROR_OVERFLOW;
    numbers[0] = dev->hw->port;
    return 1;
}

int libusb_get_port_path(libusb_context *ctx, libusb_device *dev, uint8_t *path, uint8_t n)
{
    return libusb_get_port_numbers(dev, path, n);
}

libusb_device *libusb_get_parent(libusb_device *dev)
{
    return NULL; /* root hubs are not modelled */
}

uint8_t libusb_get_device_address(libusb_device *dev)
{
    return dev->hw->address;
}

int libusb_get_device_speed(libusb_device *dev)
{
    return dev->hw->speed;
}

static const EndpointDesc *find_endpoint(libusb_device *dev, unsigned char address)
{
    for (unsigned i = 0; i < dev->hw->n_eps_desc; i++) {
        if (dev->hw->eps_desc[i].address == address)
            return &dev->hw->eps_desc[i];
    }
    return NULL;
}

int libusb_get_max_packet_size(libusb_device *dev, unsigned char address)
{
    const EndpointDesc *e = find_endpoint(dev, address);

    return e ? e->mps : LIBUSB_ERROR_NOT_FOUND;
}

int libusb_get_max_iso_packet_size(libusb_device *dev, unsigned char address)
{
    return libusb_get_max_packet_size(dev, address);
}

int libusb_get_device_descriptor(libusb_device *dev, struct libusb_device_descriptor *desc)
{
    memcpy(desc, dev->hw->device_desc, sizeof(dev->hw->device_desc));
    return 0;
}

int libusb_get_active_config_descriptor(libusb_device *dev, struct libusb_config_descriptor **out)
{
    int result = LIBUSB_ERROR_NOT_FOUND;

    bus_lock();
    if (dev->hw->configuration) {
        *out = desc_parsed(device_config(dev->hw));
        result = 0;
    }
    bus_unlock();
    return result;
}

int libusb_get_config_descriptor(libusb_device *dev, uint8_t index,
                                 struct libusb_config_descriptor **out)
{
    if (index >= dev->hw->device_desc[17])
        return LIBUSB_ERROR_NOT_FOUND;
    *out = desc_parsed(&dev->hw->configs[index]);
    return 0;
}

int libusb_get_config_descriptor_by_value(libusb_device *dev, uint8_t value,
                                          struct libusb_config_descriptor **out)
{
    return libusb_get_config_descriptor(dev, (uint8_t)(value - 1), out);
}
