/*
 * The hub, on the main thread.
 *
 * A connection goes: listener -> throttle (server_admit.c) -> peer thread (TLS, login) ->
 * server_peer_login: the console changes hands -> server_peer_active: it becomes a viewer of the
 * framebuffer. Peers are named by id; what a peer's thread posts after its end finds no record and
 * falls on the floor. A record lives until the peer's thread has posted server_peer_ended(), which
 * is the last thing it does, so joining it there does not wait.
 *
 * One console: unless Config.share, a login stops every peer that logged in before. They are told
 * why. Their input counts no more, but for releases, so no key stays down in the guest. If it is
 * the same user again, a network that failed is the likely reason: the USB devices are kept for
 * them.
 *
 * Frames are pulled: damage -> the peer is told once -> it asks when it has a slot -> it gets what
 * changed since its last frame. So nothing queues here, however slow a client is.
 */
#include "server.h"

#include <malloc.h>
#include <string.h>

#include "handover.h"
#include "peer_library.h"
#include "server_priv.h"

#define STOP_PATIENCE_US 2000000
#define END_PATIENCE_US 2000000
#define TRIM_TICKS 2u

/* --- the inbox --- */

/** Outlives the Server: posts may still be on their way when it goes. */
typedef struct ServerInbox {
    gint refs;
    Server *server; /* main's; NULL once the Server is gone */
} ServerInbox;

typedef struct Letter {
    struct ServerInbox *inbox;
    guint peer_id;
    ServerFunc func;
    void *data;
    GDestroyNotify destroy;
} Letter;

static void inbox_unref(ServerInbox *inbox)
{
    if (g_atomic_int_dec_and_test(&inbox->refs))
        g_free(inbox);
}

static gboolean letter_deliver(gpointer data)
{
    Letter *letter = data;
    handover_take(letter);
    Server *server = letter->inbox->server;
    if (server && server_peer(server, letter->peer_id))
        letter->func(server, letter->peer_id, letter->data);
    return G_SOURCE_REMOVE;
}

static void letter_free(gpointer data)
{
    Letter *letter = data;
    handover_take(letter); /* it may not have been delivered */
    if (letter->destroy)
        letter->destroy(letter->data);
    inbox_unref(letter->inbox);
    g_free(letter);
}

void server_post(Server *server, guint peer_id, ServerFunc func, void *data, GDestroyNotify destroy)
{
    Letter *letter = g_new(Letter, 1);
    *letter = (Letter){
        .inbox = server->inbox, .peer_id = peer_id, .func = func, .data = data, .destroy = destroy};
    g_atomic_int_inc(&server->inbox->refs);

    GSource *source = g_idle_source_new();
    g_source_set_priority(source, G_PRIORITY_DEFAULT);
    g_source_set_callback(source, letter_deliver, letter, letter_free);
    handover_give(letter);
    g_source_attach(source, NULL);
    g_source_unref(source);
}

ServerPeer *server_peer(Server *server, guint id)
{
    return g_hash_table_lookup(server->peers, GUINT_TO_POINTER(id));
}

Peer *server_find_peer(Server *server, guint peer_id)
{
    ServerPeer *p = server_peer(server, peer_id);
    return p ? p->peer : NULL;
}

void server_peer_free(gpointer data)
{
    ServerPeer *p = data;
    stream_member_free(p->member);
    peer_free(p->peer);
    framebuffer_viewer_free(p->viewer);
    g_free(p->key);
    g_free(p->user);
    g_free(p->login);
    g_free(p->usb);
    g_free(p->flavour);
    g_free(p);
}

/* --- the VM --- */

void server_stop_peer(ServerPeer *p, PeerStop stop, const char *reason)
{
    if (p->stopping)
        return;
    p->stopping = true;
    p->stopped_us = g_get_monotonic_time();
    peer_stop(p->peer, stop, reason);
}

static void stop_all(Server *server, const char *reason)
{
    GHashTableIter iter;
    gpointer p;
    g_hash_table_iter_init(&iter, server->peers);
    while (g_hash_table_iter_next(&iter, NULL, &p))
        server_stop_peer(p, PEER_STOP_SHUTDOWN, reason);
}

static void on_vm_ready(void *user)
{
    Server *server = user;
    server->vm_ready = true;
    log_info("server", "attached to virtual machine \"%s\"", vm_name(server->vm));
}

static void on_vm_damaged(void *user)
{
    Server *server = user;
    GHashTableIter iter;
    gpointer value;

    if (server->streams)
        streams_damaged(server->streams);
    g_hash_table_iter_init(&iter, server->peers);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        ServerPeer *p = value;
        if (p->viewer && !p->told) {
            p->told = true;
            peer_damaged(p->peer);
        }
    }
}

static void on_vm_cursor(void *user, Cursor *cursor)
{
    Server *server = user;
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, server->peers);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        if (((ServerPeer *)value)->shown)
            peer_cursor(((ServerPeer *)value)->peer, cursor);
    }
}

static void on_vm_leds(void *user, uint32_t leds)
{
    Server *server = user;
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, server->peers);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        if (((ServerPeer *)value)->active) /* the others are told when they are */
            peer_leds(((ServerPeer *)value)->peer, leds);
    }
}

static void on_vm_mouse_mode(void *user, bool absolute)
{
    Server *server = user;
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, server->peers);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        if (((ServerPeer *)value)->active)
            peer_mouse_mode(((ServerPeer *)value)->peer, absolute);
    }
}

static void on_vm_usb_slots_changed(void *user)
{
    Server *server = user;
    if (server->usb)
        usb_slots_changed(server->usb);
}

static void on_vm_lost(void *user, const char *why)
{
    Server *server = user;
    bool was_ready = server->vm_ready;

    server->vm_ready = false;
    if (server->closing)
        return;
    if (server->config->mode == CONFIG_BUS) { /* it may come back */
        if (was_ready)
            log_info("server", "the virtual machine left: %s", why);
        stop_all(server, "the virtual machine has ended");
    } else {
        server_usb_machine_ends(server);
        server->callbacks.quit(server->user, 0, why);
    }
}

static const VmCallbacks vm_callbacks = {
    .ready = on_vm_ready,
    .damaged = on_vm_damaged,
    .cursor = on_vm_cursor,
    .leds = on_vm_leds,
    .mouse_mode = on_vm_mouse_mode,
    .usb_slots_changed = on_vm_usb_slots_changed,
    .lost = on_vm_lost,
};

static void attached(Server *server)
{
    server->streams = streams_new(vm_framebuffer(server->vm), STREAM_PATIENCE_US);
    server_usb_start(server);
}

void server_attach_p2p(Server *server, GDBusConnection *connection, Qmp *qmp)
{
    g_assert(!server->vm);
    server->qmp = qmp;
    server->vm = vm_new_p2p(connection, &vm_callbacks, server);
    attached(server);
    g_object_unref(connection);
}

void server_attach_bus(Server *server, GDBusConnection *connection)
{
    g_assert(!server->vm);
    server->vm = vm_new_bus(connection, &vm_callbacks, server);
    attached(server);
}

/* --- what peers say --- */

static bool is_same_user(const ServerPeer *a, const ServerPeer *b)
{
    return a->login && b->login && strcmp(a->login, b->login) == 0;
}

static void take_over(Server *server, const ServerPeer *winner)
{
    GHashTableIter iter;
    gpointer value;
    char *why = g_strdup_printf("%s took the console over", winner->user);

    g_hash_table_iter_init(&iter, server->peers);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        ServerPeer *p = value;
        if (p != winner && p->logged_in)
            server_stop_peer(p, is_same_user(p, winner) ? PEER_STOP_RECONNECT : PEER_STOP_TAKEOVER,
                             why);
    }
    g_free(why);
}

void server_warn_if_open(Server *server)
{
    if (server->warned_open || !auth_is_empty(server->auth))
        return;
    server->warned_open = true;
    log_warning("server", "there are no credentials: every user of this machine may log in; set "
                          "a password with `qrdp passwd USER`");
}

void server_peer_login(Server *server, guint id, void *data)
{
    ServerPeer *p = server_peer(server, id);
    const ServerLogin *login = data;
    char user[160];

    log_escape(user, sizeof(user), *login->user ? login->user : "somebody", SIZE_MAX);
    if (!login->ok) {
        throttle_failed(server->throttle, p->key, (uint64_t)g_get_monotonic_time());
        log_warning("server", "%s: login as %s refused: wrong user name or password", p->address,
                    user);
        return;
    }
    if (p->evicted) /* too late: it was told to go */
        return;
    throttle_succeeded(server->throttle, p->key);
    p->logged_in = true;
    p->user = g_strdup_printf("%s@%s", user, p->address);
    p->login = login->password ? g_strdup(login->user) : NULL;
    server_warn_if_open(server);
    log_info("server", "%s logged in", p->user);
    if (!server->config->share)
        take_over(server, p);
    server_grace_login(server, p);
}

/* A viewer that nobody asks would keep the framebuffer from lending the one that is shown. */
static void fit_viewer(Server *server, ServerPeer *p)
{
    const bool wanted = p->shown && !p->member;

    if (wanted && !p->viewer)
        p->viewer = framebuffer_viewer_new(vm_framebuffer(server->vm));
    else if (!wanted)
        g_clear_pointer(&p->viewer, framebuffer_viewer_free);
}

void server_peer_active(Server *server, guint id, void *unused)
{
    ServerPeer *p = server_peer(server, id);

    p->active = true;
    if (!server->vm || p->shown)
        return;
    p->shown = true;
    fit_viewer(server, p);
    peer_mouse_mode(p->peer, vm_mouse_is_absolute(server->vm));
    peer_leds(p->peer, vm_leds(server->vm));
    peer_cursor(p->peer, vm_cursor(server->vm));
    p->told = true;
    peer_damaged(p->peer);
}

static void on_encoded(void *user, EncodedFrame *encoded)
{
    peer_encoded(((ServerPeer *)user)->peer, encoded);
}

void server_peer_slot(Server *server, guint id, void *slot)
{
    ServerPeer *p = server_peer(server, id);

    if (!slot) {
        g_clear_pointer(&p->member, stream_member_free);
        p->told = false;
    } else if (p->member) {
        stream_member_slot(p->member, slot);
    } else if (server->streams) {
        p->member = stream_member_new(server->streams, slot, on_encoded, p);
    }
    fit_viewer(server, p);
}

void server_peer_want_frame(Server *server, guint id, void *unused)
{
    ServerPeer *p = server_peer(server, id);
    p->told = false;
    peer_frame(p->peer, p->viewer ? framebuffer_viewer_take(p->viewer) : NULL);
}

void server_peer_invalidate(Server *server, guint id, void *data)
{
    ServerPeer *p = server_peer(server, id);
    const ServerInvalid *invalid = data;
    if (!p->viewer)
        return;
    framebuffer_viewer_invalidate(p->viewer, invalid->all ? NULL : &invalid->rect);
    if (!p->told) {
        p->told = true;
        peer_damaged(p->peer);
    }
}

static void deliver(Vm *vm, const InputEvent *e)
{
    switch (e->type) {
    case INPUT_KEY:
        vm_key(vm, e->code, e->down);
        return;
    case INPUT_ABS:
        vm_mouse_abs(vm, e->x, e->y);
        return;
    case INPUT_REL:
        vm_mouse_rel(vm, e->x, e->y);
        return;
    case INPUT_BUTTON:
        vm_mouse_button(vm, (VmButton)e->code, e->down);
        return;
    }
    g_assert_not_reached();
}

void server_peer_input(Server *server, guint id, void *data)
{
    const ServerPeer *p = server_peer(server, id);
    const ServerInput *input = data;
    if (!server->vm_ready)
        return;
    for (size_t i = 0; i < input->n; i++) {
        const InputEvent *e = &input->events[i];
        bool release = (e->type == INPUT_KEY || e->type == INPUT_BUTTON) && !e->down;
        if (!p->stopping || release)
            deliver(server->vm, e);
    }
}

void server_peer_ui_size(Server *server, guint id, void *data)
{
    const ServerPeer *p = server_peer(server, id);
    const ServerUiSize *size = data;
    if (server->vm_ready && !p->stopping)
        vm_set_ui_info(server->vm, size->width, size->height, size->width_mm, size->height_mm);
}

void server_peer_status(Server *server, guint id, void *status)
{
    server_peer(server, id)->display = *(const PeerDisplayStatus *)status;
}

void server_peer_usb_latency(Server *server, guint id, void *latencies)
{
    ServerPeer *p = server_peer(server, id);
    g_free(p->usb);
    p->usb = g_memdup2(latencies, sizeof(*p->usb));
}

static void quit_if_empty(Server *server)
{
    if (!server->closing || server->quit_told || g_hash_table_size(server->peers) > 0)
        return;
    server->quit_told = true;
    server->callbacks.quit(server->user, server->status, server->reason);
}

void server_peer_ended(Server *server, guint id, void *reason)
{
    ServerPeer *p = server_peer(server, id);
    bool had_pictures = p->logged_in;

    log_line(p->logged_in ? LOG_LEVEL_INFO : LOG_LEVEL_DEBUG, "server", "%s: connection ended: %s",
             p->user ? p->user : p->address, (const char *)reason);
    if (!p->evicted)
        throttle_left(server->throttle, p->key, !p->logged_in);
    g_hash_table_remove(server->peers, GUINT_TO_POINTER(id));
    server_grace_peer_ended(server, id);
    if (had_pictures && server->trim_in == 0)
        server->trim_in = TRIM_TICKS;
    quit_if_empty(server);
}

/* --- life --- */

/* Pictures of megabytes came and went between small things, and glibc keeps the holes: 13 MiB more
 * after a dozen clients, of which nothing was in use (./dev soak). The last jobs of an encoder end
 * after its peer. */
static void trim_after_peers(Server *server)
{
    if (server->trim_in > 0 && --server->trim_in == 0)
        malloc_trim(0);
}

static gboolean on_watchdog(gpointer data)
{
    Server *server = data;
    gint64 now = g_get_monotonic_time();
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, server->peers);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        ServerPeer *p = value;
        if (p->stopping && now - p->stopped_us > STOP_PATIENCE_US)
            peer_cut(p->peer, "it did not end when asked to");
        else
            peer_watchdog(p->peer, now);
    }
    trim_after_peers(server);
    return G_SOURCE_CONTINUE;
}

/* What would make every client fail later is found now; server_listen() says it. */
static char *find_problem(Server *server)
{
    const char *library = peer_library_problem();
    if (library)
        return g_strdup(library);
    GError *error = NULL;
    InputMap *map = input_map_new(server->config->keymap ? server->config->keymap : "us", &error);
    if (map)
        server->cert = cert_new(server->config->cert_path, server->config->key_path, &error);
    input_map_free(map);
    char *problem = error ? g_strdup(error->message) : NULL;
    g_clear_error(&error);
    return problem;
}

Server *server_new(const Config *config, Auth *auth, const ServerCallbacks *callbacks, void *user)
{
    Server *server = g_new0(Server, 1);

    peer_library_init();
    server->config = config;
    server->auth = auth;
    server->callbacks = *callbacks;
    server->user = user;
    server->throttle = throttle_new(SERVER_MAX_PEERS, SERVER_MAX_PENDING_PER_ADDRESS);
    server->listeners = server_listeners_new();
    server->peers = g_hash_table_new_full(NULL, NULL, NULL, server_peer_free);
    server->inbox = g_new0(ServerInbox, 1);
    server->inbox->refs = 1;
    server->inbox->server = server;
    server->watchdog = g_timeout_add_seconds(SERVER_WATCHDOG_SECONDS, on_watchdog, server);
    server->unusable = find_problem(server);
    return server;
}

static gboolean on_quit_idle(gpointer data)
{
    Server *server = data;
    server->quit_idle = 0;
    quit_if_empty(server);
    return G_SOURCE_REMOVE;
}

void server_shutdown(Server *server, int status, const char *reason)
{
    if (server->closing)
        return;
    server->closing = true;
    server->status = status;
    server->reason = g_strdup(reason);
    server_listeners_close(server);
    server_usb_machine_ends(server);
    server_usb_give_back(server); /* before QEMU's end looks like the loss of a slot */
    stop_all(server, reason);
    /* Not from inside: the caller may be in the middle of something. */
    if (g_hash_table_size(server->peers) == 0)
        server->quit_idle = g_idle_add(on_quit_idle, server);
}

/* All threads at once have END_PATIENCE_US to end by themselves, and as long after their sockets
 * were cut; how many have not. */
static unsigned wait_for_threads(Server *server)
{
    unsigned left = 0;

    for (int cut = 0; cut < 2; cut++) {
        gint64 until = g_get_monotonic_time() + END_PATIENCE_US;
        GHashTableIter iter;
        gpointer value;
        left = 0;
        g_hash_table_iter_init(&iter, server->peers);
        while (g_hash_table_iter_next(&iter, NULL, &value)) {
            ServerPeer *p = value;
            if (peer_wait(p->peer, until))
                continue;
            left++;
            peer_cut(p->peer, "it did not end when asked to");
        }
    }
    return left;
}

bool server_free(Server *server)
{
    if (!server)
        return true;
    server->closing = true;
    server_listeners_close(server);
    stop_all(server, "qrdp is ending");
    unsigned stuck = wait_for_threads(server);
    if (stuck > 0) {
        log_error("server", "%u connections do not end: leaving them to the kernel", stuck);
        return false;
    }
    g_hash_table_unref(server->peers); /* joins their threads */
    server->inbox->server = NULL;
    inbox_unref(server->inbox);
    server_usb_stop(server);
    streams_free(server->streams);
    vm_free(server->vm);
    qmp_free(server->qmp);
    if (server->quit_idle)
        g_source_remove(server->quit_idle);
    g_source_remove(server->watchdog);
    g_ptr_array_unref(server->listeners);
    throttle_free(server->throttle);
    cert_free(server->cert);
    g_free(server->unusable);
    g_free(server->reason);
    g_free(server);
    return true;
}
