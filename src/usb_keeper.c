/*
 * A kept slot is attached to main's context, so that what waits for QEMU is written and QEMU's end
 * is noticed; its device being suspended, nothing is read. One timer per slot ends the grace.
 *
 * Nothing is freed from inside a callback of a slot's: it is marked, and an idle frees it.
 */
#include "usb_keeper.h"

#include <string.h>

#include "log.h"

typedef struct Kept {
    UsbKeeper *keeper;
    Slot *slot;
    guint device_id;
    char *login;
    gint64 until;
    guint timer; /* of the grace, or the idle that ends it early */
    char *why;   /* it is over, and why */
} Kept;

struct UsbKeeper {
    unsigned grace_seconds;
    UsbKeeperLost lost;
    void *user;
    GPtrArray *kept;
};

static void kept_free(void *data)
{
    Kept *k = data;

    g_source_remove(k->timer);
    slot_free(k->slot); /* closing its socket makes QEMU unplug it */
    g_free(k->login);
    g_free(k->why);
    g_free(k);
}

static unsigned k_seconds(const Kept *k)
{
    gint64 away = k->until - slot_away_since(k->slot);

    return (unsigned)((away + G_USEC_PER_SEC / 2) / G_USEC_PER_SEC);
}

static gboolean on_over(gpointer data)
{
    Kept *k = data;
    UsbKeeper *keeper = k->keeper;
    guint device_id = k->device_id;
    char *why = k->why ? g_steal_pointer(&k->why)
                       : g_strdup_printf("its client was not back within %u s", k_seconds(k));

    g_ptr_array_remove(keeper->kept, k);
    keeper->lost(keeper->user, device_id, why);
    g_free(why);
    return G_SOURCE_CONTINUE; /* removed already */
}

static void start_grace(Kept *k)
{
    gint64 now = g_get_monotonic_time(), grace = k->keeper->grace_seconds * G_USEC_PER_SEC;

    k->until = MIN(now + grace, slot_away_since(k->slot) + USB_KEEPER_MAX_GRACES * grace);
    k->timer = g_timeout_add((guint)(MAX(k->until - now, 0) / 1000), on_over, k);
}

static void end_soon(Kept *k, const char *why)
{
    if (k->why)
        return;
    k->why = g_strdup(why);
    g_source_remove(k->timer);
    k->timer = g_idle_add_full(G_PRIORITY_DEFAULT, on_over, k, NULL);
}

/* --- the slot's --- */

static void on_state(void *user, Slot *slot, UsbDeviceState state, const char *why)
{
    end_soon(user, why);
}

static bool on_may_send(void *user)
{
    return true;
}

static uint64_t on_arrived(void *user)
{
    return (uint64_t)g_get_monotonic_time();
}

static void on_nothing(void *user)
{
}

static const SlotCallbacks slot_callbacks = {
    .state_changed = on_state,
    .may_send = on_may_send,
    .arrived = on_arrived,
    .read = on_nothing,
    .written = on_nothing,
};

/* --- the Server's --- */

UsbKeeper *usb_keeper_new(unsigned grace_seconds, UsbKeeperLost lost, void *user)
{
    UsbKeeper *keeper = g_new0(UsbKeeper, 1);

    keeper->grace_seconds = grace_seconds;
    keeper->lost = lost;
    keeper->user = user;
    keeper->kept = g_ptr_array_new_with_free_func(kept_free);
    return keeper;
}

void usb_keeper_free(UsbKeeper *keeper)
{
    if (!keeper)
        return;
    g_ptr_array_unref(keeper->kept);
    g_free(keeper);
}

bool usb_keeper_keep(UsbKeeper *keeper, Slot *slot, guint device_id, const char *login)
{
    gint64 grace = keeper->grace_seconds * G_USEC_PER_SEC;
    gint64 away = g_get_monotonic_time() - slot_away_since(slot);

    if (keeper->kept->len >= USB_KEEPER_MAX || away >= USB_KEEPER_MAX_GRACES * grace) {
        slot_free(slot);
        return false;
    }
    Kept *k = g_new0(Kept, 1);
    k->keeper = keeper;
    k->slot = slot;
    k->device_id = device_id;
    k->login = g_strdup(login);
    g_ptr_array_add(keeper->kept, k);
    slot_attach(slot, NULL, &slot_callbacks, k);
    start_grace(k);
    return true;
}

void usb_keeper_renew(UsbKeeper *keeper, const char *login)
{
    for (guint i = 0; i < keeper->kept->len; i++) {
        Kept *k = keeper->kept->pdata[i];
        if (k->why || strcmp(k->login, login) != 0)
            continue;
        g_source_remove(k->timer);
        start_grace(k);
    }
}

Slot *usb_keeper_claim(UsbKeeper *keeper, const char *login, const UsbDescriptors *descriptors,
                       guint *device_id)
{
    for (guint i = 0; i < keeper->kept->len; i++) {
        Kept *k = keeper->kept->pdata[i];
        Slot *slot = k->slot;
        if (k->why || strcmp(k->login, login) != 0 ||
            !usb_descriptors_same(usb_device_descriptors(slot_device(slot)), descriptors))
            continue;
        *device_id = k->device_id;
        slot_detach(slot);
        k->slot = NULL;
        g_ptr_array_remove_index(keeper->kept, i);
        return slot;
    }
    return NULL;
}

static Kept *find(const UsbKeeper *keeper, guint device_id)
{
    for (guint i = 0; i < keeper->kept->len; i++) {
        Kept *k = keeper->kept->pdata[i];
        if (k->device_id == device_id)
            return k;
    }
    return NULL;
}

void usb_keeper_drop(UsbKeeper *keeper, guint device_id, const char *why)
{
    Kept *k = find(keeper, device_id);

    if (k)
        end_soon(k, why);
}

unsigned usb_keeper_seconds(const UsbKeeper *keeper, guint device_id)
{
    const Kept *k = find(keeper, device_id);
    gint64 left = k ? k->until - g_get_monotonic_time() : 0;

    return left <= 0 ? 0 : (unsigned)((left + G_USEC_PER_SEC - 1) / G_USEC_PER_SEC);
}
