/*
 * Each device of the client walks through these phases:
 *
 *   PROBING   a UsbProbe reads its descriptors; a device that answers nonsense is retired.
 *   WAITING   main judges the descriptors by policy and looks for a slot.
 *   PARKED    main said no. The channel stays open and silent, because FreeRDP forgets a device
 *             whose channel is closed; `qrdp usb allow` makes main answer again.
 *   RESUMING  main has kept a slot with the same device from an earlier connection of the same
 *             user (usb_keeper.h): a UsbReplay makes sure of it.
 *   ATTACHED  a Slot shows it to the guest.
 *
 * A device leaves when its source goes (unplug, client gone), when QEMU's end of the slot makes no
 * sense, or when the operator says so. Whatever happens inside a callback only marks it; the
 * removal itself runs from the loop, so nobody frees what is still on the stack.
 */
#include "peer_usb.h"

#include <string.h>
#include <unistd.h>

#include "log.h"
#include "loop_timeout.h"
#include "server_priv.h"
#include "slot.h"
#include "urbdrc.h"
#include "usb_latency.h"
#include "usb_slots.h"

/* USB bytes that may wait for the client's socket before QEMU's side is no longer read, and where
 * reading resumes: at 20 Mbit/s the first is 200 ms (urbdrc.md 5.3). */
#define PEER_USB_QUEUE_HIGH (512u * 1024u)
#define PEER_USB_MAX_BREAKS 3u /* slots a device may lose to QEMU before it stays parked */
#define PEER_USB_QUEUE_LOW (256u * 1024u)

typedef enum Phase {
    PHASE_PROBING,
    PHASE_WAITING,
    PHASE_PARKED,
    PHASE_RESUMING,
    PHASE_ATTACHED
} Phase;

typedef struct Device {
    PeerUsb *usb;
    guint id;
    Phase phase;
    bool doomed;       /* to be removed by the reaper */
    unsigned breaks;   /* slots lost to QEMU */
    bool ask_again;    /* for a slot, once the lost one is closed */
    bool close_slot;   /* the slot is over, the device itself may stay */
    UsbSource *source; /* NULL once it is gone */
    UsbProbe *probe;
    UsbReplay *replay; /* RESUMING */
    UsbDescriptors *descriptors;
    Slot *slot;
    char *subject;
    uint64_t reported; /* isochronous packets that main knows of */
} Device;

struct PeerUsb {
    Server *server;
    guint peer_id;
    DvcManager *dvcs;
    GMainContext *context;
    char *label;
    Urbdrc *urbdrc;
    UsbLatency *latency;
    const char *flavour; /* that main knows of; a name in the table of urbdrc_flavour.c */
    uint64_t reported;   /* samples that main knows of */
    GSource *timer;
    bool as_is; /* Config.usb_as_is */
    bool reap;
    GHashTable *devices; /* id -> Device */
};

static gint last_device_id; /* process-wide, atomic: ids are never reused */

/* --- what main is told ----------------------------------------------------------------------- */

static void main_note(Server *server, guint peer_id, void *data)
{
    ServerUsb *r = data;

    usb_slots_note(server_usb_slots(server), peer_id, r->device_id, r->label, r->state, r->why);
}

static void main_released(Server *server, guint peer_id, void *data)
{
    usb_slots_released(server_usb_slots(server), peer_id, ((ServerUsb *)data)->device_id);
}

static void main_figures(Server *server, guint peer_id, void *data)
{
    ServerUsb *r = data;

    usb_slots_figures(server_usb_slots(server), peer_id, r->device_id, &r->figures);
}

static ServerUsb *new_word(const Device *device)
{
    ServerUsb *word = g_new0(ServerUsb, 1);

    word->device_id = device->id;
    word->descriptors = device->descriptors ? usb_descriptors_ref(device->descriptors) : NULL;
    word->label = g_strdup(device->usb->label);
    return word;
}

static void tell_main(Device *device, ServerFunc func, const char *state, const char *why)
{
    ServerUsb *word = new_word(device);

    word->state = state;
    word->why = g_strdup(why ? why : "");
    server_post(device->usb->server, device->usb->peer_id, func, word, server_usb_free_word);
}

/* --- devices -----------------------------------------------------------------------------------
 */

static void reap_later(PeerUsb *usb)
{
    usb->reap = true; /* the timer sees it before the next poll */
}

static void doom(Device *device, const char *why)
{
    if (device->doomed)
        return;
    device->doomed = true;
    log_info(device->subject, "%s", why);
    reap_later(device->usb);
}

static void parked_complete(void *user, const UsbCompletion *completion)
{
    /* A late answer to something the probe or the guest no longer waits for. */
}

static void parked_gone(void *user, const char *why)
{
    Device *device = user;

    device->source = NULL;
    doom(device, why);
}

static const UsbSink parked_sink = {.complete = parked_complete, .gone = parked_gone};

static void park(Device *device)
{
    device->phase = PHASE_PARKED;
    usb_source_set_sink(device->source, &parked_sink, device);
}

/* The guest loses the device, we keep it. Not from inside a callback of the slot's. */
static void leave_slot(Device *device)
{
    device->close_slot = false;
    if (!device->slot)
        return;
    usb_replay_free(g_steal_pointer(&device->replay));
    slot_free(g_steal_pointer(&device->slot)); /* closing its fd makes QEMU unplug it */
    if (device->source)
        park(device);
    tell_main(device, main_released, NULL, NULL);
}

static void device_free(void *data)
{
    Device *device = data;

    usb_probe_free(device->probe);
    usb_replay_free(device->replay);
    slot_free(device->slot);
    if (device->source)
        usb_source_set_sink(device->source, NULL, NULL);
    if (device->descriptors)
        usb_descriptors_unref(device->descriptors);
    g_free(device->subject);
    g_free(device);
}

static void on_probed(void *user, UsbDescriptors *descriptors, const char *error)
{
    Device *device = user;
    UsbProbe *probe = g_steal_pointer(&device->probe);

    usb_probe_free(probe);
    if (!descriptors) {
        bool gone = device->source->gone;
        if (!gone) {
            tell_main(device, main_note, "refused", error);
            log_warning(device->subject, "not passed on: %s", error);
            usb_source_set_sink(device->source, NULL, NULL);
            device->source->ops->retire(device->source, error);
        }
        device->source = NULL;
        doom(device, gone ? error : "closed");
        return;
    }
    char text[160];
    device->descriptors = descriptors;
    log_info(device->subject, "is %s, %s speed",
             usb_descriptors_describe(descriptors, text, sizeof(text)),
             usb_speed_name(descriptors->speed));
    if (usb_descriptors_need_streams(descriptors))
        log_warning(device->subject,
                    "the guest will find no driver for it: at super speed this storage speaks UAS "
                    "alone, which needs streams, and RDP has none; plug it into a USB 2 port");
    park(device);
    device->phase = PHASE_WAITING;
    tell_main(device, server_peer_usb_request, NULL, NULL);
}

static void report_flavour(PeerUsb *usb)
{
    ServerUsbFlavour flavour = {0};
    const char *evidence, *name = urbdrc_flavour(usb->urbdrc, &evidence);

    if (g_strcmp0(name, usb->flavour) == 0)
        return;
    usb->flavour = name;
    g_strlcpy(flavour.name, name, sizeof(flavour.name));
    g_strlcpy(flavour.evidence, evidence, sizeof(flavour.evidence));
    server_post(usb->server, usb->peer_id, server_peer_usb_flavour,
                g_memdup2(&flavour, sizeof(flavour)), g_free);
}

static void on_device_added(void *user, UsbSource *source)
{
    PeerUsb *usb = user;
    Device *device = g_new0(Device, 1);

    device->usb = usb;
    device->id = (guint)g_atomic_int_add(&last_device_id, 1) + 1;
    device->source = source;
    source->as_is = usb->as_is;
    device->subject = g_strdup_printf("usb %u %s", device->id, source->label);
    g_hash_table_insert(usb->devices, GUINT_TO_POINTER(device->id), device);
    report_flavour(usb);
    tell_main(device, main_note, "probing", NULL);
    device->probe = usb_probe_new(source, (uint64_t)g_get_monotonic_time(), on_probed, device);
}

static void on_unavailable(void *user, const char *why)
{
    PeerUsb *usb = user;

    log_info(usb->label, "no USB redirection: %s", why);
}

/* For the operator, NULL if the guest sees the device as it is. */
static const char *shown_as(Slot *slot)
{
    const UsbDevice *device = slot_device(slot);
    UsbSpeed own = usb_device_descriptors(device)->speed;

    return usb_device_shown_speed(device) == own ? NULL : "shown at super speed";
}

static void on_slot_state(void *user, Slot *slot, UsbDeviceState state, const char *why)
{
    Device *device = user;

    if (device->close_slot && state != USB_DEVICE_GONE)
        return; /* the slot's end was told and counted: a write after it fails, too */
    switch (state) {
    case USB_DEVICE_HELLO:
        return;
    case USB_DEVICE_CONNECTED:
        log_info(device->subject, "connected to slot %s: %s", slot_id(slot), why);
        tell_main(device, main_note, "connected", shown_as(slot));
        return;
    case USB_DEVICE_GONE:
        device->source = NULL;
        doom(device, why);
        return;
    case USB_DEVICE_REJECTED:
        log_warning(device->subject, "not passed on: %s", why);
        tell_main(device, main_note, "rejected", why);
        break;
    case USB_DEVICE_BROKEN: /* QEMU wrong or the slot unplugged: the device deserves another */
        log_warning(device->subject, "slot %s: %s", slot_id(slot), why);
        tell_main(device, main_note, "parked", why);
        device->ask_again = device->breaks++ < PEER_USB_MAX_BREAKS;
        break;
    }
    device->close_slot = true;
    reap_later(device->usb);
}

static bool on_may_send(void *user)
{
    Device *device = user;

    return dvc_manager_queued(device->usb->dvcs, DVC_URGENT) < PEER_USB_QUEUE_HIGH;
}

static uint64_t on_arrived(void *user)
{
    return usb_latency_arrived(((Device *)user)->usb->latency);
}

static void on_slot_read(void *user)
{
    PeerUsb *usb = ((Device *)user)->usb;

    if (dvc_manager_queued(usb->dvcs, DVC_URGENT) == 0)
        return;
    usb_latency_out_waits(usb->latency);
    dvc_manager_flush(usb->dvcs);
    peer_usb_sent(usb);
}

static void on_slot_written(void *user)
{
    usb_latency_in_gone(((Device *)user)->usb->latency);
}

static const SlotCallbacks slot_callbacks = {
    .state_changed = on_slot_state,
    .may_send = on_may_send,
    .arrived = on_arrived,
    .read = on_slot_read,
    .written = on_slot_written,
};

static Device *find_device(PeerUsb *usb, guint id)
{
    Device *device = g_hash_table_lookup(usb->devices, GUINT_TO_POINTER(id));

    return device && !device->doomed ? device : NULL;
}

void peer_usb_granted(PeerUsb *usb, guint device_id, int fd, const char *slot_id, const char *error)
{
    Device *device = usb ? find_device(usb, device_id) : NULL;

    if (device && device->close_slot)
        leave_slot(device);
    if (!device || (device->phase != PHASE_WAITING && device->phase != PHASE_PARKED)) {
        if (fd >= 0)
            close(fd); /* it went while main was answering: the slot is free again */
        return;
    }
    if (fd < 0) {
        char text[160];
        log_warning(device->subject, "%s not passed on: %s",
                    usb_descriptors_describe(device->descriptors, text, sizeof(text)), error);
        device->phase = PHASE_PARKED;
        return;
    }
    device->phase = PHASE_ATTACHED;
    device->slot = slot_new(usb->context, slot_id, fd, device->descriptors, device->source,
                            &slot_callbacks, device);
}

void peer_usb_detach(PeerUsb *usb, guint device_id, bool close_channel, const char *why)
{
    Device *device = usb ? find_device(usb, device_id) : NULL;

    if (!device || !device->source)
        return;
    log_info(device->subject, device->slot ? "taken from the guest: %s" : "kept from the guest: %s",
             why);
    if (!close_channel) {
        leave_slot(device);
        return;
    }
    UsbSource *source = g_steal_pointer(&device->source);
    usb_probe_free(g_steal_pointer(&device->probe));
    usb_replay_free(g_steal_pointer(&device->replay));
    slot_free(g_steal_pointer(&device->slot)); /* cancels what is in flight */
    usb_source_set_sink(source, NULL, NULL);
    source->ops->retire(source, why);
    doom(device, "closed");
}

/* --- a client that is away for a moment ----------------------------------------------------------
 */

static void suspend(Device *device)
{
    UsbDevice *usb_device = slot_device(device->slot);
    const char *why = NULL;

    usb_replay_free(g_steal_pointer(&device->replay));
    if (!usb_device_is_suspended(usb_device)) {
        if (!usb_device_can_suspend(usb_device, &why)) {
            log_info(device->subject, "not kept for its client: %s", why);
            return;
        }
        usb_device_suspend(usb_device);
        if (usb_device_state(usb_device) != USB_DEVICE_CONNECTED)
            return; /* QEMU has gone, too */
    }
    ServerUsb *word = new_word(device);
    word->slot = g_steal_pointer(&device->slot);
    slot_detach(word->slot);
    device->phase = PHASE_PARKED;
    server_post(device->usb->server, device->usb->peer_id, server_peer_usb_suspended, word,
                server_usb_free_word);
}

void peer_usb_suspend(PeerUsb *usb)
{
    GHashTableIter iter;
    void *value;

    g_hash_table_iter_init(&iter, usb->devices);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        Device *device = value;
        if (device->slot && !device->doomed && !device->close_slot)
            suspend(device);
    }
}

void peer_usb_ask(PeerUsb *usb)
{
    GHashTableIter iter;
    void *value;

    if (!usb)
        return;
    g_hash_table_iter_init(&iter, usb->devices);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        if (((Device *)value)->slot)
            usb_device_ask(slot_device(((Device *)value)->slot), (uint64_t)g_get_monotonic_time());
    }
}

static void on_replayed(void *user, const char *error)
{
    Device *device = user;
    uint64_t now = (uint64_t)g_get_monotonic_time();

    usb_replay_free(g_steal_pointer(&device->replay));
    if (!error) {
        device->phase = PHASE_ATTACHED;
        log_info(device->subject, "given back to the guest on slot %s", slot_id(device->slot));
        tell_main(device, main_note, "connected", shown_as(device->slot));
        slot_back(device->slot);
        usb_device_resume(slot_device(device->slot), device->source, now);
        return;
    }
    if (device->source->gone) {
        device->source = NULL;
        doom(device, error);
        return;
    }
    log_warning(device->subject, "unplugged from the guest, and plugged in as a new device: %s",
                error);
    usb_source_set_sink(device->source, &parked_sink, device);
    device->ask_again = device->close_slot = true;
    reap_later(device->usb);
}

void peer_usb_resume(PeerUsb *usb, guint device_id, Slot *slot)
{
    Device *device = find_device(usb, device_id);

    if (!device || device->phase != PHASE_WAITING || !device->source) {
        slot_free(slot); /* the device has been unplugged at last */
        return;
    }
    device->phase = PHASE_RESUMING;
    device->slot = slot;
    slot_attach(slot, usb->context, &slot_callbacks, device);
    device->replay = usb_replay_new(slot_device(slot), device->source,
                                    (uint64_t)g_get_monotonic_time(), on_replayed, device);
}

/* --- how long it takes -------------------------------------------------------------------------
 */

void peer_usb_receiving(PeerUsb *usb, bool on)
{
    if (usb)
        usb_latency_receiving(usb->latency, on);
}

void peer_usb_sent(PeerUsb *usb)
{
    GHashTableIter iter;
    void *value;

    if (!usb)
        return;
    if (dvc_manager_queued(usb->dvcs, DVC_URGENT) == 0)
        usb_latency_out_gone(usb->latency);
    g_hash_table_iter_init(&iter, usb->devices);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        if (((Device *)value)->slot)
            usb_device_sent(slot_device(((Device *)value)->slot));
    }
}

/* What streams have done, if any runs. */
static void report_figures(Device *device)
{
    ServerUsb *r = g_new0(ServerUsb, 1);

    usb_device_stats(slot_device(device->slot), &r->figures);
    uint64_t packets =
        r->figures.iso_out.packets + r->figures.iso_out.delivered + r->figures.iso_in.packets;
    if (packets == device->reported) {
        g_free(r);
        return;
    }
    device->reported = packets;
    r->device_id = device->id;
    server_post(device->usb->server, device->usb->peer_id, main_figures, r, server_usb_free_word);
}

void peer_usb_report(PeerUsb *usb)
{
    GHashTableIter iter;
    void *value;

    if (!usb)
        return;
    g_hash_table_iter_init(&iter, usb->devices);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        if (((Device *)value)->slot)
            report_figures(value);
    }
    const UsbLatencies *sums = usb_latency_get(usb->latency);
    if (sums->out.count + sums->in.count == usb->reported)
        return;
    usb->reported = sums->out.count + sums->in.count;
    server_post(usb->server, usb->peer_id, server_peer_usb_latency, g_memdup2(sums, sizeof(*sums)),
                g_free);
}

/* --- the loop ----------------------------------------------------------------------------------
 */

static void reap(PeerUsb *usb)
{
    GHashTableIter iter;
    void *value;

    usb->reap = false;
    g_hash_table_iter_init(&iter, usb->devices);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        Device *device = value;
        if (device->doomed) {
            slot_free(g_steal_pointer(&device->slot)); /* before main hears that it is free */
            tell_main(device, server_peer_usb_forget, NULL, NULL);
            g_hash_table_iter_remove(&iter);
        } else if (device->close_slot) {
            leave_slot(device);
            if (device->ask_again && device->source) {
                device->ask_again = false;
                device->phase = PHASE_WAITING;
                tell_main(device, server_peer_usb_request, NULL, NULL);
            }
        }
    }
}

static uint64_t next_deadline(PeerUsb *usb)
{
    uint64_t next = usb->reap ? 0 : urbdrc_deadline(usb->urbdrc);
    GHashTableIter iter;
    void *value;

    g_hash_table_iter_init(&iter, usb->devices);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        Device *device = value;
        if (device->probe)
            next = MIN(next, usb_probe_deadline(device->probe));
        if (device->replay)
            next = MIN(next, usb_replay_deadline(device->replay));
    }
    return next;
}

static gboolean timer_prepare(GSource *source, gint *timeout)
{
    PeerUsb *usb = ((PeerUsb **)(source + 1))[0];

    *timeout = loop_timeout(source, next_deadline(usb));
    return *timeout == 0;
}

static gboolean timer_check(GSource *source)
{
    PeerUsb *usb = ((PeerUsb **)(source + 1))[0];

    return loop_timeout(source, next_deadline(usb)) == 0;
}

static gboolean timer_dispatch(GSource *source, GSourceFunc callback, gpointer user_data)
{
    PeerUsb *usb = ((PeerUsb **)(source + 1))[0];
    uint64_t now = (uint64_t)g_get_monotonic_time();
    GList *devices = g_hash_table_get_values(usb->devices);

    urbdrc_tick(usb->urbdrc, now);
    /* A tick may end a probe, which marks its device; nothing is freed before reap(). */
    for (GList *l = devices; l; l = l->next) {
        Device *device = l->data;
        if (device->probe && usb_probe_deadline(device->probe) <= now)
            usb_probe_tick(device->probe, now);
        if (device->replay && usb_replay_deadline(device->replay) <= now)
            usb_replay_tick(device->replay, now);
    }
    g_list_free(devices);
    if (usb->reap)
        reap(usb);
    return G_SOURCE_CONTINUE;
}

static GSourceFuncs timer_funcs = {
    .prepare = timer_prepare, .check = timer_check, .dispatch = timer_dispatch};

static void on_drained(void *user)
{
    PeerUsb *usb = user;
    GHashTableIter iter;
    void *value;

    g_hash_table_iter_init(&iter, usb->devices);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        Device *device = value;
        if (device->slot && !device->close_slot && !device->doomed)
            slot_kick(device->slot);
    }
}

static const UrbdrcCallbacks urbdrc_callbacks = {
    .device_added = on_device_added,
    .unavailable = on_unavailable,
};

PeerUsb *peer_usb_new(Server *server, guint peer_id, DvcManager *dvcs, GMainContext *context,
                      bool as_is, const char *label)
{
    PeerUsb *usb = g_new0(PeerUsb, 1);

    usb->server = server;
    usb->peer_id = peer_id;
    usb->dvcs = dvcs;
    usb->context = context;
    usb->as_is = as_is;
    usb->label = g_strdup(label);
    usb->devices = g_hash_table_new_full(NULL, NULL, NULL, device_free);
    usb->timer = g_source_new(&timer_funcs, sizeof(GSource) + sizeof(PeerUsb *));
    ((PeerUsb **)(usb->timer + 1))[0] = usb;
    usb->urbdrc = urbdrc_new(dvcs, label, (uint64_t)g_get_monotonic_time(), &urbdrc_callbacks, usb);
    if (!usb->urbdrc) {
        on_unavailable(usb, "the dynamic channels are not ready");
        g_hash_table_destroy(usb->devices);
        g_source_unref(usb->timer);
        g_free(usb->label);
        g_free(usb);
        return NULL;
    }
    usb->latency = usb_latency_new(context);
    dvc_manager_on_drained(dvcs, DVC_URGENT, PEER_USB_QUEUE_LOW, on_drained, usb);
    g_source_attach(usb->timer, context);
    return usb;
}

void peer_usb_set_client(PeerUsb *usb, guint32 client_build, guint32 early_capability_flags)
{
    if (usb)
        urbdrc_set_client(usb->urbdrc, client_build, early_capability_flags);
}

void peer_usb_free(PeerUsb *usb)
{
    if (!usb)
        return;
    dvc_manager_on_drained(usb->dvcs, DVC_URGENT, 0, NULL, NULL);
    /* Slots first: their devices disconnect and let go of the sources the channels own. */
    g_hash_table_destroy(usb->devices);
    urbdrc_free(usb->urbdrc);
    usb_latency_free(usb->latency);
    g_source_destroy(usb->timer);
    g_source_unref(usb->timer);
    g_free(usb->label);
    g_free(usb);
}
