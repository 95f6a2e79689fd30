/*
 * Who gets a device that another connection of the same user still has: src/server_grace.c with the
 * table, the keeper and the peers replaced.
 */
#include <string.h>

#include "fake_source.h"
#include "server_priv.h"

#define OLD 1u
#define NEW 2u
#define DEVICE 7u

typedef struct Stage {
    Server server;
    Config config;
    UsbDescriptors *descriptors;
    guint holder; /* the peer whose device is in a slot, 0: none */
    bool kept;    /* the keeper has it */
    unsigned asked, stopped, requested, given_back, waiting;
} Stage;

static Stage *stage;

/* --- what server_grace.c calls --- */

ServerPeer *server_peer(Server *server, guint id)
{
    return g_hash_table_lookup(server->peers, GUINT_TO_POINTER(id));
}

void server_stop_peer(ServerPeer *p, PeerStop stop, const char *reason)
{
    g_assert_cmpuint(stop, ==, PEER_STOP_RECONNECT);
    g_assert_false(p->stopping);
    p->stopping = true;
    stage->stopped++;
}

void peer_ask(Peer *peer)
{
    stage->asked++;
}

void peer_usb_take_back(Peer *peer, guint device_id, Slot *slot)
{
    stage->given_back++;
}

void slot_free(Slot *slot)
{
}

UsbKeeper *usb_keeper_new(unsigned grace_seconds, UsbKeeperLost lost, void *user)
{
    return NULL;
}

void usb_keeper_free(UsbKeeper *keeper)
{
}

bool usb_keeper_keep(UsbKeeper *keeper, Slot *slot, guint device_id, const char *login)
{
    stage->kept = true;
    return true;
}

void usb_keeper_renew(UsbKeeper *keeper, const char *login)
{
}

Slot *usb_keeper_claim(UsbKeeper *keeper, const char *login, const UsbDescriptors *descriptors,
                       guint *device_id)
{
    bool kept = stage->kept;

    stage->kept = false;
    return kept ? (Slot *)stage : NULL;
}

void usb_slots_request(UsbSlots *slots, guint peer_id, guint device_id, UsbDescriptors *descriptors,
                       const char *label)
{
    g_assert_cmpuint(peer_id, ==, NEW);
    stage->requested++;
}

void usb_slots_note(UsbSlots *slots, guint peer_id, guint device_id, const char *label,
                    const char *state, const char *why)
{
    g_assert_cmpstr(state, ==, "waiting");
    stage->waiting++;
}

void usb_slots_forget(UsbSlots *slots, guint peer_id, guint device_id)
{
}

bool usb_slots_suspend(UsbSlots *slots, guint peer_id, guint device_id)
{
    g_assert_cmpuint(peer_id, ==, stage->holder);
    stage->holder = 0;
    return true;
}

void usb_slots_resume(UsbSlots *slots, guint old_id, guint peer_id, guint device_id,
                      const char *label)
{
}

bool usb_slots_holds(UsbSlots *slots, guint peer_id, const UsbDescriptors *descriptors)
{
    return peer_id == stage->holder && usb_descriptors_same(descriptors, stage->descriptors);
}

/* --- a stage: OLD has the device in a slot, NEW announces one --- */

static void peer_record_free(gpointer data)
{
    ServerPeer *p = data;

    g_free(p->login);
    g_free(p);
}

static void add_peer(guint id, const char *login)
{
    ServerPeer *p = g_new0(ServerPeer, 1);

    p->id = id;
    p->login = g_strdup(login);
    g_hash_table_insert(stage->server.peers, GUINT_TO_POINTER(id), p);
}

static void set_up(int silence_us)
{
    FakeSource *source = fake_source_new(FAKE_KEYBOARD, USB_SPEED_FULL);

    stage = g_new0(Stage, 1);
    stage->config.usb_grace = 10;
    stage->descriptors = fake_source_descriptors(source);
    fake_source_free(source);
    stage->holder = OLD;
    stage->server.config = &stage->config;
    stage->server.usb = (UsbSlots *)stage; /* there is one */
    stage->server.peers = g_hash_table_new_full(NULL, NULL, NULL, peer_record_free);
    server_grace_start(&stage->server);
    stage->server.silence_us = silence_us;
    add_peer(OLD, "alice");
    add_peer(NEW, "alice");
}

static void tear_down(void)
{
    server_grace_stop(&stage->server);
    g_hash_table_unref(stage->server.peers);
    usb_descriptors_unref(stage->descriptors);
    g_free(stage);
}

static void announce(guint device_id)
{
    ServerUsb word = {.device_id = device_id, .descriptors = stage->descriptors, .label = "a"};

    server_peer_usb_request(&stage->server, NEW, &word);
}

static void hear(guint id)
{
    gint64 now = g_get_monotonic_time();

    while (g_get_monotonic_time() == now) {
    }
    server_peer_heard(&stage->server, id, NULL);
}

static void suspend_old(void)
{
    ServerUsb word = {.device_id = 1, .label = "a"};

    server_peer_usb_suspended(&stage->server, OLD, &word);
}

/* The other connection answers: its device stays, and there is a second one. */
static void test_alive(void)
{
    set_up(600 * G_USEC_PER_SEC);
    announce(DEVICE);
    g_assert_cmpuint(stage->asked, ==, 1);
    g_assert_cmpuint(stage->waiting, ==, 1);
    g_assert_cmpuint(stage->requested, ==, 0);
    hear(OLD);
    g_assert_cmpuint(stage->requested, ==, 1);
    g_assert_cmpuint(stage->stopped + stage->given_back, ==, 0);

    announce(DEVICE + 1); /* what it said before does not count for the next one */
    g_assert_cmpuint(stage->asked, ==, 2);
    g_assert_cmpuint(stage->requested, ==, 1);
    tear_down();
}

/* It does not: it is ended, and the claim gets its device. */
static void test_silent(void)
{
    set_up(20000);
    announce(DEVICE);
    announce(DEVICE + 1); /* one question is enough */
    g_assert_cmpuint(stage->asked, ==, 1);
    while (stage->stopped == 0) /* meson's time limit is the deadline */
        g_main_context_iteration(NULL, TRUE);
    g_assert_cmpuint(stage->requested, ==, 0);
    server_peer_heard(&stage->server, OLD, NULL); /* too late: it is leaving */
    g_assert_cmpuint(stage->requested, ==, 0);
    suspend_old();
    g_assert_cmpuint(stage->given_back, ==, 1);
    g_assert_cmpuint(stage->requested, ==, 1); /* the second device is one */
    g_assert_cmpuint(stage->stopped, ==, 1);
    while (stage->server.claims_timer) /* it ends with the claims */
        g_main_context_iteration(NULL, TRUE);
    tear_down();
}

/* Nobody is asked who is another user, has another device, or none. */
static void test_others(void)
{
    set_up(600 * G_USEC_PER_SEC);
    g_free(server_peer(&stage->server, OLD)->login);
    server_peer(&stage->server, OLD)->login = g_strdup("bob");
    announce(DEVICE);
    g_assert_cmpuint(stage->requested, ==, 1);
    tear_down();

    set_up(600 * G_USEC_PER_SEC);
    stage->holder = 0;
    announce(DEVICE);
    g_assert_cmpuint(stage->requested, ==, 1);
    g_assert_cmpuint(stage->asked, ==, 0);
    tear_down();
}

/* Who waits may go, and so may who is asked. */
static void test_gone(void)
{
    set_up(20000);
    announce(DEVICE);
    g_hash_table_remove(stage->server.peers, GUINT_TO_POINTER(NEW));
    server_grace_peer_ended(&stage->server, NEW);
    while (stage->server.claims_timer)
        g_main_context_iteration(NULL, TRUE);
    g_assert_cmpuint(stage->stopped + stage->requested + stage->given_back, ==, 0);
    tear_down();

    set_up(600 * G_USEC_PER_SEC);
    announce(DEVICE);
    g_hash_table_remove(stage->server.peers, GUINT_TO_POINTER(OLD));
    server_grace_peer_ended(&stage->server, OLD);
    g_assert_cmpuint(stage->requested, ==, 1);
    tear_down();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/server-grace/alive", test_alive);
    g_test_add_func("/server-grace/silent", test_silent);
    g_test_add_func("/server-grace/others", test_others);
    g_test_add_func("/server-grace/gone", test_gone);
    return g_test_run();
}
