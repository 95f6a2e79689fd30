/*
 * Clients whose network fails and that come back: whose devices are kept, and who gets them.
 *
 * A peer that ends without having meant to hands its devices to the keeper. When one of the same
 * user announces a device, it is looked for there first. It may be early: during a network failure
 * the old connection looks alive, so it is the new one's login that ends it, and its thread may be
 * stuck in a write. So a device that a connection on its way out still holds is waited for: a
 * Claim. Each time something leaves, claims are looked at again.
 *
 * With Config.share a login ends nothing, and a connection of the same user that holds the very
 * same device may be a live one: two sticks can be alike to the serial number. So its client is
 * asked something; whatever comes after the question shows that it is there, and the device is a
 * second one. If nothing comes for SERVER_SILENCE_US, the connection is ended as a login
 * would have done it. What counts is what passes through FreeRDP, not what TCP acknowledges: a
 * proxy or a tunnel on the way acknowledges for a client that is long gone.
 */
#include <string.h>

#include "log.h"
#include "server_priv.h"

typedef struct Claim {
    guint peer_id, device_id;
    gint64 since_us;
    UsbDescriptors *descriptors;
    char *label;
} Claim;

static void claim_free(gpointer data)
{
    Claim *claim = data;

    usb_descriptors_unref(claim->descriptors);
    g_free(claim->label);
    g_free(claim);
}

void server_usb_free_word(void *data)
{
    ServerUsb *word = data;

    if (word->descriptors)
        usb_descriptors_unref(word->descriptors);
    slot_free(word->slot); /* nobody took it: QEMU unplugs the device */
    g_free(word->label);
    g_free(word->why);
    g_free(word);
}

static bool give_back(Server *server, const ServerPeer *p, guint device_id,
                      const UsbDescriptors *descriptors, const char *label)
{
    guint old_id = 0;
    Slot *slot = usb_keeper_claim(server->keeper, p->login, descriptors, &old_id);

    if (!slot)
        return false;
    usb_slots_resume(server->usb, old_id, p->id, device_id, label);
    peer_usb_take_back(p->peer, device_id, slot);
    return true;
}

/* Whether @old, who has the same device, may be about to lose it: it is told to go if its client
 * has been silent for too long since @claim was made. */
static bool may_leave(Server *server, ServerPeer *old, const Claim *claim)
{
    if (old->stopping)
        return true;
    if (old->heard_us > claim->since_us)
        return false;
    if (g_get_monotonic_time() - claim->since_us >= server->silence_us) {
        server_stop_peer(old, PEER_STOP_RECONNECT,
                         "it is silent, and its user is back with the same device");
    } else if (!old->asked) {
        old->asked = true;
        peer_ask(old->peer);
    }
    return true;
}

/* Whether another connection of the same user still has the device, and may lose it. */
static bool is_still_held(Server *server, const ServerPeer *p, const Claim *claim)
{
    GHashTableIter iter;
    gpointer value;
    bool held = false;

    g_hash_table_iter_init(&iter, server->peers);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        ServerPeer *old = value;
        if (old != p && old->login && strcmp(old->login, p->login) == 0 &&
            usb_slots_holds(server->usb, old->id, claim->descriptors))
            held = may_leave(server, old, claim) || held;
    }
    return held;
}

/* True if @claim needs nothing any more. */
static bool settle(Server *server, const Claim *claim)
{
    const ServerPeer *p = server_peer(server, claim->peer_id);

    if (!p || give_back(server, p, claim->device_id, claim->descriptors, claim->label))
        return true;
    if (is_still_held(server, p, claim))
        return false;
    usb_slots_request(server->usb, claim->peer_id, claim->device_id, claim->descriptors,
                      claim->label);
    return true;
}

static void settle_claims(Server *server)
{
    for (guint i = 0; i < server->claims->len;) {
        Claim *claim = server->claims->pdata[i];
        if (settle(server, claim))
            g_ptr_array_remove_index(server->claims, i);
        else
            i++;
    }
}

/* Each claim ends within the silence it was made for, or hangs on a connection that is ending. */
static gboolean on_claims_timer(gpointer data)
{
    Server *server = data;

    settle_claims(server);
    if (server->claims->len > 0)
        return G_SOURCE_CONTINUE;
    server->claims_timer = 0;
    return G_SOURCE_REMOVE;
}

void server_peer_heard(Server *server, guint id, void *unused)
{
    ServerPeer *p = server_peer(server, id);

    p->asked = false;
    p->heard_us = g_get_monotonic_time();
    settle_claims(server);
}

static void drop_claims(Server *server, guint peer_id, guint device_id)
{
    for (guint i = server->claims->len; i-- > 0;) {
        const Claim *claim = server->claims->pdata[i];
        if (claim->peer_id == peer_id && (device_id == 0 || claim->device_id == device_id))
            g_ptr_array_remove_index(server->claims, i);
    }
}

void server_peer_usb_request(Server *server, guint id, void *data)
{
    const ServerUsb *word = data;
    const ServerPeer *p = server_peer(server, id);

    if (!p->login || server->config->usb_grace == 0) {
        usb_slots_request(server->usb, id, word->device_id, word->descriptors, word->label);
        return;
    }
    Claim *claim = g_new0(Claim, 1);
    *claim = (Claim){.peer_id = id,
                     .device_id = word->device_id,
                     .since_us = g_get_monotonic_time(),
                     .descriptors = usb_descriptors_ref(word->descriptors),
                     .label = g_strdup(word->label)};
    if (settle(server, claim)) {
        claim_free(claim);
        return;
    }
    usb_slots_note(server->usb, id, word->device_id, word->label, "waiting",
                   "another connection of the user has it");
    g_ptr_array_add(server->claims, claim);
    if (!server->claims_timer)
        server->claims_timer =
            g_timeout_add((guint)(server->silence_us / 1000 / 8), on_claims_timer, server);
}

void server_peer_usb_suspended(Server *server, guint id, void *data)
{
    ServerUsb *word = data;
    const ServerPeer *p = server_peer(server, id);

    if (!p->login || !usb_slots_suspend(server->usb, id, word->device_id))
        return; /* word's end closes the slot */
    char *subject = g_strdup_printf("usb %u %s", word->device_id, word->label);
    log_info(subject, "stays in the guest for %u s: its client may come back",
             server->config->usb_grace);
    g_free(subject);
    if (!usb_keeper_keep(server->keeper, g_steal_pointer(&word->slot), word->device_id, p->login))
        usb_slots_forget(server->usb, USB_SLOTS_AWAY, word->device_id);
    settle_claims(server);
}

static void on_lost(void *user, guint device_id, const char *why)
{
    Server *server = user;
    char subject[32];

    g_snprintf(subject, sizeof(subject), "usb %u", device_id);
    log_info(subject, "unplugged from the guest: %s", why);
    usb_slots_forget(server->usb, USB_SLOTS_AWAY, device_id);
}

void server_peer_usb_forget(Server *server, guint id, void *data)
{
    guint device_id = ((const ServerUsb *)data)->device_id;

    drop_claims(server, id, device_id);
    usb_slots_forget(server->usb, id, device_id);
    settle_claims(server);
}

void server_grace_peer_ended(Server *server, guint id)
{
    if (!server->usb)
        return;
    drop_claims(server, id, 0);
    usb_slots_forget(server->usb, id, 0);
    settle_claims(server);
}

void server_grace_login(Server *server, const ServerPeer *p)
{
    if (server->keeper && p->login)
        usb_keeper_renew(server->keeper, p->login);
}

void server_grace_start(Server *server)
{
    server->keeper = usb_keeper_new(server->config->usb_grace, on_lost, server);
    server->claims = g_ptr_array_new_with_free_func(claim_free);
    server->silence_us = SERVER_SILENCE_US;
}

void server_grace_stop(Server *server)
{
    g_clear_handle_id(&server->claims_timer, g_source_remove);
    g_clear_pointer(&server->keeper, usb_keeper_free);
    g_clear_pointer(&server->claims, g_ptr_array_unref);
}
