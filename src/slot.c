/*
 * A slot is a GSource over QEMU's chardev socket that drives a UsbDevice.
 *
 * The conditions are decided anew before each poll: readable is asked for only while the device and
 * the peer's byte cap have room, so back-pressure reaches the guest through the socket; writable
 * only while usbredir bytes wait. The device's next timer bounds the poll. Completions
 * reach the device from the peer's channel on the same thread, and what they produce is written to
 * the socket at once: between the two sockets lies no queue, lock or wake-up.
 */
#include "slot.h"

#include <errno.h>
#include <glib-unix.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loop_timeout.h"
#include "thread_wait.h"

#define SLOT_READ_BYTES (64u * 1024u)
#define SLOT_READS_PER_DISPATCH 16u /* then the other sources get their turn */

typedef struct SlotSource {
    GSource base;
    struct Slot *slot;
    gpointer tag;
    GIOCondition want; /* what tag waits for */
    uint64_t deadline; /* of the device */
} SlotSource;

struct Slot {
    SlotSource *source;
    char *id;
    int fd;
    bool closed; /* QEMU's end is gone */
    UsbDevice *device;
    const SlotCallbacks *callbacks;
    void *user;
    GThread *owner;       /* NULL: on its way from one to the next */
    ThreadWait *wait;     /* of .owner, NULL until a device asks for it */
    int64_t away_since;   /* 0: it is not */
    uint64_t blind_since; /* QEMU's socket was not watched from then on; 0: it is */
    uint8_t buffer[SLOT_READ_BYTES];
};

static void slot_closed(Slot *slot, const char *why)
{
    if (slot->closed)
        return;
    slot->closed = true;
    slot->callbacks->state_changed(slot->user, slot, USB_DEVICE_BROKEN, why);
}

static ptrdiff_t on_guest_write(void *user, const uint8_t *data, size_t len)
{
    Slot *slot = user;

    if (slot->closed)
        return -1;
    for (;;) {
        ssize_t n = send(slot->fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0) {
            if ((size_t)n == len)
                slot->callbacks->written(slot->user);
            return n;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return 0;
        if (errno != EINTR)
            return -1; /* the next read sees the end and reports it */
    }
}

static void on_state_changed(void *user, UsbDeviceState state, const char *why)
{
    Slot *slot = user;

    slot->callbacks->state_changed(slot->user, slot, state, why);
}

static uint64_t on_now(void *user)
{
    return (uint64_t)g_get_monotonic_time();
}

static void on_arrival(void *user, UsbArrival *arrival)
{
    Slot *slot = user;
    uint64_t seen = slot->callbacks->arrived(slot->user);

    arrival->arrived_us = slot->blind_since ? MIN(seen, slot->blind_since) : seen;
    if (!slot->wait)
        slot->wait = thread_wait_new();
    arrival->waited_us = thread_wait_us(slot->wait);
}

static bool slot_wants_input(Slot *slot)
{
    return !slot->closed && usb_device_wants_guest_bytes(slot->device) &&
           slot->callbacks->may_send(slot->user);
}

/* GLib wakes up the context at each call, that is, us. */
static void watch(SlotSource *source, GIOCondition want)
{
    if (source->want != want)
        g_source_modify_unix_fd(&source->base, source->tag, want);
    source->want = want;
}

static gboolean slot_prepare(GSource *base, gint *timeout)
{
    SlotSource *source = (SlotSource *)base;
    Slot *slot = source->slot;
    GIOCondition want = 0;

    if (slot_wants_input(slot))
        want |= G_IO_IN;
    else if (!slot->blind_since)
        slot->blind_since = (uint64_t)g_get_monotonic_time();
    if (!slot->closed && usb_device_has_guest_bytes(slot->device))
        want |= G_IO_OUT;
    /* After the end only silence helps: HUP would be reported for ever. */
    if (slot->closed && source->tag) {
        g_source_remove_unix_fd(base, source->tag);
        source->tag = NULL;
    } else if (!slot->closed) {
        watch(source, want);
    }
    source->deadline = usb_device_deadline(slot->device);
    *timeout = loop_timeout(base, source->deadline);
    return *timeout == 0;
}

static void slot_read(Slot *slot)
{
    for (unsigned i = 0; i < SLOT_READS_PER_DISPATCH && slot_wants_input(slot); i++) {
        ssize_t n = recv(slot->fd, slot->buffer, sizeof(slot->buffer), MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (n <= 0) {
            slot_closed(slot, "QEMU closed the redirection slot");
            return;
        }
        uint64_t now = (uint64_t)g_get_monotonic_time();
        if (!usb_device_guest_bytes(slot->device, slot->buffer, (size_t)n, now))
            return;
        if ((size_t)n < sizeof(slot->buffer)) {
            slot->blind_since = 0;
            return; /* a stream socket had no more: save the call that says so */
        }
    }
}

static gboolean slot_check(GSource *base)
{
    SlotSource *source = (SlotSource *)base;

    return (source->tag && g_source_query_unix_fd(base, source->tag) != 0) ||
           loop_timeout(base, source->deadline) == 0;
}

static gboolean slot_dispatch(GSource *base, GSourceFunc callback, gpointer user_data)
{
    SlotSource *source = (SlotSource *)base;
    Slot *slot = source->slot;
    GIOCondition got = source->tag ? g_source_query_unix_fd(base, source->tag) : 0;

    g_assert(slot->owner == g_thread_self());
    if (got & G_IO_OUT)
        usb_device_guest_writable(slot->device);
    if (got & G_IO_IN)
        slot_read(slot);
    else if (got & (G_IO_HUP | G_IO_ERR))
        slot_closed(slot, "QEMU closed the redirection slot");
    usb_device_tick(slot->device, (uint64_t)g_get_monotonic_time());
    if (got & G_IO_IN)
        slot->callbacks->read(slot->user);
    return G_SOURCE_CONTINUE;
}

static GSourceFuncs slot_funcs = {
    .prepare = slot_prepare,
    .check = slot_check,
    .dispatch = slot_dispatch,
};

Slot *slot_new(GMainContext *context, const char *id, int fd, UsbDescriptors *descriptors,
               UsbSource *source, const SlotCallbacks *callbacks, void *user)
{
    static const UsbDeviceCallbacks device_callbacks = {
        .guest_write = on_guest_write,
        .state_changed = on_state_changed,
        .now = on_now,
        .arrival = on_arrival,
    };
    Slot *slot = g_new0(Slot, 1);

    slot->id = g_strdup(id);
    slot->fd = fd;
    slot->device = usb_device_new(descriptors, source, (uint64_t)g_get_monotonic_time(),
                                  &device_callbacks, slot);
    slot_attach(slot, context, callbacks, user);
    return slot;
}

void slot_attach(Slot *slot, GMainContext *context, const SlotCallbacks *callbacks, void *user)
{
    g_assert(!slot->owner);
    slot->owner = g_thread_self();
    slot->callbacks = callbacks;
    slot->user = user;
    slot->source = (SlotSource *)g_source_new(&slot_funcs, sizeof(SlotSource));
    slot->source->slot = slot;
    slot->source->want = G_IO_IN;
    slot->source->deadline = UINT64_MAX;
    slot->source->tag = g_source_add_unix_fd(&slot->source->base, slot->fd, G_IO_IN);
    /* Nothing here recurses. GLib would take our descriptors out of the poll during each dispatch,
     * and wake us up to put them back. */
    g_source_set_can_recurse(&slot->source->base, TRUE);
    g_source_attach(&slot->source->base, context);
}

void slot_detach(Slot *slot)
{
    g_assert(slot->owner == g_thread_self());
    if (!slot->away_since)
        slot->away_since = g_get_monotonic_time();
    g_clear_pointer(&slot->wait, thread_wait_free);
    g_source_destroy(&slot->source->base);
    g_source_unref(&slot->source->base);
    slot->source = NULL;
    slot->owner = NULL;
}

void slot_free(Slot *slot)
{
    if (!slot)
        return;
    if (slot->owner)
        slot_detach(slot);
    usb_device_free(slot->device);
    close(slot->fd);
    g_free(slot->id);
    g_free(slot);
}

int64_t slot_away_since(const Slot *slot)
{
    return slot->away_since;
}

void slot_back(Slot *slot)
{
    slot->away_since = 0;
}

const char *slot_id(const Slot *slot)
{
    return slot->id;
}

UsbDevice *slot_device(Slot *slot)
{
    return slot->device;
}

void slot_kick(Slot *slot)
{
    g_assert(slot->owner == g_thread_self());
    slot_read(slot);
}
