/*
 * One client's session: FreeRDP's life from accept to the last byte, on the peer's thread.
 *
 * open -> X.224, TLS, NLA inside CheckFileDescriptor -> Capabilities (login judged at the latest)
 * -> PostConnect (what the client can do is known: make the display) -> Activate (draw) -> drdynvc
 * ready (GFX, display control, USB) -> peer_end() -> close.
 *
 * A callback never tears anything down: it says peer_end() or returns FALSE, and the loop leaves
 * after the dispatch. Closing goes in reverse: keys are released in the guest, USB devices leave,
 * the display and the channels go, then the client hears why (error info, disconnect), and the
 * socket is closed only after the client had a moment to read that: a close with unread input
 * would be a reset, which throws away what is still on its way.
 *
 * Only a client that did not mean to go keeps its USB devices in the guest for a while: the network
 * failed, or the same user is back on another connection. One that signs off sends a Disconnect
 * Provider Ultimatum (MS-RDPBCGR 1.3.1.4.1; FreeRDP 3.10 does not) or at least closes TLS as
 * one should; one that breaks the protocol leaves a connection that still stands.
 */
#include <freerdp/freerdp.h>
#include <freerdp/input.h>
#include <freerdp/settings.h>
#include <freerdp/update.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client_socket.h"
#include "peer_priv.h"
#include "peer_quirks.h"
#include "rdploop.h"
#include "tls_connection.h"

#define RECEIVE_BURST 64 /* PDUs handled before channels and output get their turn */
#define STATUS_SECONDS 2
#define LINGER_US 500000
#define MAX_REFRESH_RECTS 16u
#define POSTS_PER_MARK 16u
#define MAX_POSTS 64u /* to main and not heard by it: then the client waits */
/* Output that the client has not taken, besides what a legacy client's largest picture needs. USB
 * and graphics hold themselves to far less; what is left is what a client makes us answer. */
#define MAX_BACKLOG (16u << 20)
#define PROTOCOL_SSL 0x00000001u       /* MS-RDPBCGR 2.2.1.1.1: TLS without NLA */
#define NEGOTIATION_FAILED 0x80000000u /* FreeRDP's mark (libfreerdp/core/nego.h) */

/* --- posts to main ---
 *
 * A client can send input faster than main handles it: 255 events in half a kilobyte. Every
 * POSTS_PER_MARK-th post is followed by a mark that main sends back; while too many posts are
 * unheard nothing is read from the client, and TCP tells it to wait. */

static void on_heard(Peer *peer, void *unused)
{
    peer->unheard -= POSTS_PER_MARK;
}

static void main_mark(Server *server, guint peer_id, void *unused)
{
    peer_post(server_find_peer(server, peer_id), on_heard, NULL, NULL);
}

static void post_main(Peer *peer, ServerFunc func, void *data)
{
    server_post(peer->server, peer->id, func, data, data ? g_free : NULL);
    if (++peer->unheard % POSTS_PER_MARK == 0)
        server_post(peer->server, peer->id, main_mark, NULL, NULL);
}

static bool main_is_behind(const Peer *peer)
{
    return peer->unheard >= MAX_POSTS;
}

/* --- display --- */

static void on_slot(void *user, const StreamSlot *slot)
{
    post_main(user, server_peer_slot, slot ? g_memdup2(slot, sizeof(*slot)) : NULL);
}

static void on_want_frame(void *user)
{
    Peer *peer = user;
    post_main(peer, server_peer_want_frame, NULL);
}

static void on_invalidate(void *user, const Rect *rect)
{
    Peer *peer = user;
    ServerInvalid *invalid = g_new0(ServerInvalid, 1);
    invalid->all = !rect;
    if (rect)
        invalid->rect = *rect;
    post_main(peer, server_peer_invalidate, invalid);
}

static void on_ui_size(void *user, uint32_t width, uint32_t height, uint32_t width_mm,
                       uint32_t height_mm)
{
    Peer *peer = user;
    ServerUiSize *size = g_new0(ServerUiSize, 1);
    *size = (ServerUiSize){width, height, width_mm, height_mm};
    post_main(peer, server_peer_ui_size, size);
}

static void on_display_failed(void *user, const char *why)
{
    peer_end(user, ERRINFO_GRAPHICS_SUBSYSTEM_FAILED, "%s", why);
}

static const PeerDisplayCallbacks display_callbacks = {
    .slot = on_slot,
    .want_frame = on_want_frame,
    .invalidate = on_invalidate,
    .ui_size = on_ui_size,
    .failed = on_display_failed,
};

static BOOL on_suppress_output(rdpContext *context, BYTE allow, const RECTANGLE_16 *area)
{
    Peer *peer = peer_of_context(context);
    if (peer->display)
        peer_display_suppress(peer->display, allow != 0);
    return TRUE;
}

static BOOL on_refresh_rect(rdpContext *context, BYTE count, const RECTANGLE_16 *areas)
{
    Peer *peer = peer_of_context(context);
    Rect rects[MAX_REFRESH_RECTS];
    size_t n = 0;

    if (!peer->display)
        return TRUE;
    if (count > MAX_REFRESH_RECTS) { /* so many: everything */
        peer_display_refresh(peer->display, NULL, 0);
        return TRUE;
    }
    for (size_t i = 0; i < count; i++) {
        const RECTANGLE_16 *a = &areas[i]; /* inclusive edges (MS-RDPBCGR 2.2.11.1) */
        if (a->right >= a->left && a->bottom >= a->top)
            rects[n++] = (Rect){a->left, a->top, a->right - a->left + 1, a->bottom - a->top + 1};
    }
    if (n > 0)
        peer_display_refresh(peer->display, rects, n);
    return TRUE;
}

/* The watchdog on main sees a client whose socket takes nothing more. One that is frozen while the
 * picture hardly changes fills no socket: everything was delivered, and no acknowledgement comes.
 */
static void end_if_frozen(Peer *peer)
{
    uint64_t now = (uint64_t)g_get_monotonic_time(), mark;
    uint64_t since = peer->display ? peer_display_waiting_since(peer->display) : 0;
    int queued = 0;

    if (dvc_manager_queued(peer->dvcs, DVC_BULK) > 0 ||
        !client_socket_progress(peer->watch_fd, &queued, &mark) || queued > 0)
        peer->undelivered_us = now;
    if (since && now - MAX(since, peer->undelivered_us) >
                     (uint64_t)peer->config->stall_seconds * G_USEC_PER_SEC) {
        peer->frozen = true;
        peer_end(peer, ERRINFO_GRAPHICS_SUBSYSTEM_FAILED,
                 "it acknowledged no picture for %u seconds", peer->config->stall_seconds);
    }
}

static gboolean on_status_timer(gpointer data)
{
    Peer *peer = data;
    PeerDisplayStatus status;

    if (peer->display) {
        peer_display_status(peer->display, &status);
        server_post(peer->server, peer->id, server_peer_status, g_memdup2(&status, sizeof(status)),
                    g_free);
    }
    peer_usb_report(peer->usb);
    end_if_frozen(peer);
    return G_SOURCE_CONTINUE;
}

/* --- input: nothing counts before the login --- */

static Input *input_of(rdpInput *input)
{
    Peer *peer = peer_of_context(input->context);
    return peer->authenticated && peer->active ? peer->input : NULL;
}

static BOOL on_synchronize(rdpInput *input, UINT32 flags)
{
    Input *in = input_of(input);
    if (in)
        input_synchronize(in, flags);
    return TRUE;
}

static BOOL on_keyboard(rdpInput *input, UINT16 flags, UINT8 code)
{
    Input *in = input_of(input);
    if (in)
        input_keyboard(in, flags, code);
    return TRUE;
}

static BOOL on_unicode(rdpInput *input, UINT16 flags, UINT16 code)
{
    Input *in = input_of(input);
    if (in)
        input_unicode(in, flags, code);
    return TRUE;
}

static BOOL on_mouse(rdpInput *input, UINT16 flags, UINT16 x, UINT16 y)
{
    Input *in = input_of(input);
    if (in)
        input_mouse(in, flags, x, y);
    return TRUE;
}

static BOOL on_mouse_extended(rdpInput *input, UINT16 flags, UINT16 x, UINT16 y)
{
    Input *in = input_of(input);
    if (in)
        input_mouse_extended(in, flags, x, y);
    return TRUE;
}

static BOOL on_mouse_relative(rdpInput *input, UINT16 flags, INT16 dx, INT16 dy)
{
    Input *in = input_of(input);
    if (in)
        input_mouse_relative(in, flags, dx, dy);
    return TRUE;
}

static void on_input_events(void *user, const InputEvent *events, size_t n)
{
    Peer *peer = user;
    ServerInput *input = g_malloc(sizeof(*input) + n * sizeof(*events));
    input->n = n;
    memcpy(input->events, events, n * sizeof(*events));
    post_main(peer, server_peer_input, input);
}

/* --- FreeRDP's milestones --- */

static BOOL on_capabilities(freerdp_peer *client)
{
    Peer *peer = peer_of_client(client);
    rdpSettings *s = client->context->settings;
    bool first = !peer->mcs_ready;

    peer->mcs_ready = true;
    if (!peer_login_check(peer)) {
        peer_end(peer, ERRINFO_SERVER_INSUFFICIENT_PRIVILEGES, "wrong user name or password");
        return FALSE;
    }
    if (!first) /* a reactivation: the display has set the size */
        return TRUE;
    peer->client_width = freerdp_settings_get_uint32(s, FreeRDP_DesktopWidth);
    peer->client_height = freerdp_settings_get_uint32(s, FreeRDP_DesktopHeight);
    return peer_check_capabilities(peer);
}

/* One monitor of the guest's size, whatever the client has. */
static BOOL on_monitors(freerdp_peer *client)
{
    return freerdp_settings_set_uint32(client->context->settings, FreeRDP_MonitorCount, 0);
}

static BOOL on_post_connect(freerdp_peer *client)
{
    Peer *peer = peer_of_client(client);
    rdpSettings *s = client->context->settings;

    /* FreeRDP calls Capabilities first, but which state it is in the client decides. */
    if (!peer->authenticated) {
        peer_end(peer, ERRINFO_SERVER_INSUFFICIENT_PRIVILEGES, "it skipped the login");
        return FALSE;
    }
    if (!freerdp_settings_get_bool(s, FreeRDP_DesktopResize) &&
        !freerdp_settings_get_bool(s, FreeRDP_SupportGraphicsPipeline))
        log_warning(peer->subject, "%s: the client cannot follow mode switches", peer->label);
    peer->display = peer_display_new(client->context, peer->dvcs, peer->main_context, peer->subject,
                                     &display_callbacks, peer);
    if (!peer->display) {
        peer_end(peer, ERRINFO_GRAPHICS_SUBSYSTEM_FAILED, "no way to show it pictures");
        return FALSE;
    }
    char name[64];
    const char *host = freerdp_settings_get_string(s, FreeRDP_ClientHostname);
    log_info(peer->subject, "%s: session started, client \"%s\" build %u", peer->label,
             log_escape(name, sizeof(name), host ? host : "", SIZE_MAX),
             freerdp_settings_get_uint32(s, FreeRDP_ClientBuild));
    return TRUE;
}

static BOOL on_activate(freerdp_peer *client)
{
    Peer *peer = peer_of_client(client);

    if (!peer->active) {
        peer->active = true;
        atomic_store(&peer->handshaken, true);
        server_post(peer->server, peer->id, server_peer_active, NULL, NULL);
        peer_display_connected_with(peer->display, peer->client_width, peer->client_height);
        peer->status_timer = g_timeout_source_new_seconds(STATUS_SECONDS);
        g_source_set_callback(peer->status_timer, on_status_timer, peer, NULL);
        g_source_attach(peer->status_timer, peer->main_context);
    }
    peer_display_activated(peer->display);
    return TRUE;
}

/* drdynvc finished its handshake: channels may be opened. */
static void on_dvc_ready(Peer *peer)
{
    peer->dvc_ready = true;
    peer_display_dvc_ready(peer->display);
    rdpSettings *s = peer->client->context->settings;
    peer->usb = peer_usb_new(peer->server, peer->id, peer->dvcs, peer->main_context,
                             peer->config->usb_as_is, peer->label);
    peer_usb_set_client(peer->usb, freerdp_settings_get_uint32(s, FreeRDP_ClientBuild),
                        freerdp_settings_get_uint32(s, FreeRDP_EarlyCapabilityFlags));
}

static void on_violation(void *user, const char *why)
{
    peer_end(user, ERRINFO_VCHANNEL_DATA_TOO_SHORT, "%s", why);
}

/* --- the loop --- */

/* Pumping the channels before drdynvc is joined would use up its one start (FreeRDP fact 6), and
 * FreeRDP sends nothing for them between a Deactivate All and the client's answer to it. Then they
 * are not even waited for: they would be ready all the time. */
static bool channels_run(const Peer *peer)
{
    return peer->active && peer->client->activated;
}

static bool is_deaf(void *user)
{
    Peer *peer = user;
    return peer->ended || main_is_behind(peer);
}

static DWORD loop_handles(void *user, HANDLE *handles, DWORD max)
{
    Peer *peer = user;
    DWORD n = 0;
    if (!main_is_behind(peer))
        n = peer->client->GetEventHandles(peer->client, handles, max - 1);
    if (channels_run(peer))
        handles[n++] = dvc_manager_handle(peer->dvcs);
    return n;
}

static bool loop_ready(void *user)
{
    Peer *peer = user;
    return (channels_run(peer) && dvc_manager_has_pdus(peer->dvcs)) ||
           (dvc_manager_holds_input(peer->dvcs) && !is_deaf(peer));
}

static bool loop_wants_write(void *user)
{
    Peer *peer = user;
    return peer->client->IsWriteBlocked(peer->client) ||
           (channels_run(peer) && dvc_manager_has_outbox(peer->dvcs));
}

static bool receive(Peer *peer)
{
    freerdp_peer *client = peer->client;

    uint64_t until = dvc_manager_received(peer->dvcs) + RECEIVE_BURST;

    for (int i = 0; i < RECEIVE_BURST && dvc_manager_received(peer->dvcs) < until && !is_deaf(peer);
         i++) {
        if (!client->CheckFileDescriptor(client))
            return false;
        if (!client->HasMoreToRead(client))
            break;
    }
    return true;
}

static bool send_waiting(Peer *peer)
{
    freerdp_peer *client = peer->client;

    if (client->IsWriteBlocked(client) && client->DrainOutputBuffer(client) < 0)
        return false;
    if (!channels_run(peer))
        return true;
    if (!dvc_manager_dispatch(peer->dvcs))
        return false;
    if (peer->display)
        peer_display_sent(peer->display);
    if (!peer->dvc_ready && dvc_manager_ready(peer->dvcs))
        on_dvc_ready(peer);
    return true;
}

/* The watchdog is satisfied by a client that takes a byte now and then; memory is not. FreeRDP's
 * buffer has no bound and no size to ask for, so what it was given since it was last empty counts,
 * and what waits for it in the channels. */
static void check_backlog(Peer *peer)
{
    UINT64 sent = 0;

    freerdp_get_stats(peer->client->context->rdp, NULL, &sent, NULL, NULL);
    if (!peer->client->IsWriteBlocked(peer->client))
        peer->sent_mark = sent;
    uint64_t waits = sent - peer->sent_mark + dvc_manager_queued(peer->dvcs, DVC_URGENT);
    if (waits > MAX_BACKLOG + 2 * (uint64_t)peer->picture_bytes)
        peer_end(peer, 0, "it takes too little of what it makes us send");
}

/* Whatever comes is a sign of life. */
static void check_heard(Peer *peer)
{
    uint64_t heard = dvc_manager_received(peer->dvcs);

    if (peer->asked && heard != peer->heard) {
        peer->asked = false;
        server_post(peer->server, peer->id, server_peer_heard, NULL, NULL);
    }
    peer->heard = heard;
}

/* FreeRDP answers a client that offers nothing we accept by itself (MS-RDPBCGR 2.2.1.2.2) and then
 * says no more than that the connection is over. */
static const char *refused_protocol(const Peer *peer)
{
    const rdpSettings *s = peer->client->context->settings;

    if (!(freerdp_settings_get_uint32(s, FreeRDP_SelectedProtocol) & NEGOTIATION_FAILED))
        return NULL;
    return freerdp_settings_get_uint32(s, FreeRDP_RequestedProtocols) & PROTOCOL_SSL
               ? "the client cannot do NLA; --tls-login lets such clients in"
               : "the client can do neither NLA nor TLS";
}

static void end_left(Peer *peer)
{
    const char *refused = refused_protocol(peer);

    if (refused)
        server_post(peer->server, peer->id, server_peer_refused, g_strdup(refused), g_free);
    peer_end(peer, 0, "%s",
             refused                                     ? refused
             : peer->login_tried && !peer->authenticated ? "wrong user name or password"
             : peer->active                              ? "the client left"
                            : "the client left before the session began");
}

static bool loop_dispatch(void *user)
{
    Peer *peer = user;

    atomic_store(&peer->busy_us, g_get_monotonic_time());
    peer_usb_receiving(peer->usb, true);
    bool ok = receive(peer);
    peer_usb_receiving(peer->usb, false);
    input_flush(peer->input);
    ok = ok && (peer->ended || send_waiting(peer));
    peer_usb_sent(peer->usb);
    check_heard(peer);
    if (ok)
        check_backlog(peer);
    if (!ok)
        end_left(peer);
    atomic_store(&peer->busy_us, 0);
    return !peer->ended;
}

static const RdpLoopCallbacks loop_callbacks = {
    .handles = loop_handles,
    .ready = loop_ready,
    .wants_write = loop_wants_write,
    .dispatch = loop_dispatch,
};

/* --- open and close --- */

static BOOL on_context_new(freerdp_peer *client, rdpContext *context)
{
    return TRUE;
}

static void install_callbacks(Peer *peer)
{
    freerdp_peer *client = peer->client;
    rdpInput *input = client->context->input;
    rdpUpdate *update = client->context->update;

    client->Capabilities = on_capabilities;
    client->AdjustMonitorsLayout = on_monitors;
    client->PostConnect = on_post_connect;
    client->Activate = on_activate;
    peer_login_install(peer);
    input->SynchronizeEvent = on_synchronize;
    input->KeyboardEvent = on_keyboard;
    input->UnicodeKeyboardEvent = on_unicode;
    input->MouseEvent = on_mouse;
    input->ExtendedMouseEvent = on_mouse_extended;
    input->RelMouseEvent = on_mouse_relative;
    update->SuppressOutput = on_suppress_output;
    update->RefreshRect = on_refresh_rect;
}

/* One at a time: FreeRDP makes its kind of BIO ("SimpleSocket", libfreerdp/core/tcp.c) when it is
 * first needed, without a lock, and of two threads that do so one leaks what it made. */
static bool new_context(freerdp_peer *client)
{
    static GMutex lock;

    g_mutex_lock(&lock);
    bool ok = freerdp_peer_context_new(client);
    g_mutex_unlock(&lock);
    return ok;
}

static bool open_client(Peer *peer)
{
    peer->client = freerdp_peer_new(peer->fd);
    if (!peer->client) {
        close(peer->fd);
        return false;
    }
    peer->client->ContextSize = sizeof(PeerContext);
    peer->client->ContextNew = on_context_new;
    if (!new_context(peer->client))
        return false;
    client_socket_setup(peer->watch_fd);
    ((PeerContext *)peer->client->context)->peer = peer;
    if (!peer_apply_settings(peer))
        return false;
    peer_link_prepare(peer->client->context);
    install_callbacks(peer);
    if (!peer->client->Initialize(peer->client) || !peer_quirks_install(peer->client->context))
        return false;
    peer->dvcs = dvc_manager_new(peer->client, on_violation, is_deaf, peer);
    return peer->dvcs;
}

bool peer_session_open(Peer *peer)
{
    peer->input = input_new(peer->config->keymap, peer->subject, on_input_events, peer);
    if (!open_client(peer)) {
        peer_end(peer, 0, "FreeRDP could not set up the connection");
        return false;
    }
    peer->source = rdploop_source_new(peer->watch_fd, &loop_callbacks, peer);
    g_source_attach(peer->source, peer->main_context);
    return true;
}

static void destroy_source(GSource **source)
{
    if (!*source)
        return;
    g_source_destroy(*source);
    g_clear_pointer(source, g_source_unref);
}

/* Gives the socket a moment to take @peer's last words and the client to read them. */
static void linger(Peer *peer)
{
    int64_t until = g_get_monotonic_time() + LINGER_US;
    struct pollfd p = {.fd = peer->watch_fd, .events = POLLOUT};
    char drop[4096];

    while (peer->client->IsWriteBlocked(peer->client) && g_get_monotonic_time() < until) {
        if (poll(&p, 1, 50) < 0 || peer->client->DrainOutputBuffer(peer->client) < 0)
            return;
    }
    shutdown(peer->watch_fd, SHUT_WR);
    p.events = POLLIN;
    while (g_get_monotonic_time() < until && poll(&p, 1, 50) >= 0) {
        if (p.revents && recv(peer->watch_fd, drop, sizeof(drop), MSG_DONTWAIT) <= 0)
            return;
    }
}

/* Only once the MCS channels are joined, which the client's capabilities tell. MS-RDPBCGR 2.2.5.1
 * wants it sent only to clients that announce it, but FreeRDP's has not announced it since 3.0 and
 * understands it; to one that does not it is a last unknown PDU before the end. */
static void send_error_info(Peer *peer)
{
    rdpRdp *rdp = peer->client->context->rdp;
    if (!peer->mcs_ready)
        return;
    freerdp_set_error_info(rdp, peer->error_info);
    freerdp_send_error_info(rdp);
}

static void say_goodbye(Peer *peer)
{
    freerdp_peer *client = peer->client;

    /* Before the session is active a client would not understand a Deactivate All PDU. After one,
     * xfreerdp no longer listens to an error info, so that goes first. */
    if (peer->error_info)
        send_error_info(peer);
    if (peer->active && peer->error_info)
        client->Close(client);
    if (peer->error_info)
        linger(peer);
}

static bool signed_off(const Peer *peer)
{
    return tls_connection_has_closed() || (peer->client && peer->client->context &&
                                           freerdp_shall_disconnect_context(peer->client->context));
}

static bool was_cut(Peer *peer)
{
    g_mutex_lock(&peer->cut_lock);
    bool cut = peer->cut_reason;
    g_mutex_unlock(&peer->cut_lock);
    return cut;
}

/* Whether the client may be about to come back. */
static bool may_return(Peer *peer)
{
    int stop = atomic_load(&peer->stop);

    if (!peer->authenticated || auth_snapshot_is_empty(peer->auth) || peer->config->usb_grace == 0)
        return false;
    if (stop)
        return stop == (int)PEER_STOP_RECONNECT + 1;
    if (peer->frozen || was_cut(peer))
        return true;
    return !peer->error_info && !signed_off(peer) && client_socket_is_dead(peer->watch_fd);
}

void peer_session_close(Peer *peer)
{
    freerdp_peer *client = peer->client;

    atomic_store(&peer->busy_us, 0);
    destroy_source(&peer->source);
    destroy_source(&peer->status_timer);
    if (peer->input)
        input_release_all(peer->input);
    if (peer->login_tried && !peer->authenticated)
        peer_login_report(peer, false);
    if (peer->usb && may_return(peer))
        peer_usb_suspend(peer->usb);
    g_clear_pointer(&peer->usb, peer_usb_free);
    g_clear_pointer(&peer->display, peer_display_free);
    g_clear_pointer(&peer->dvcs, dvc_manager_free);
    g_clear_pointer(&peer->input, input_free);
    if (!client)
        return;
    if (client->context) {
        say_goodbye(peer);
        client->Disconnect(client);
        freerdp_peer_context_free(client);
    }
    freerdp_peer_free(client);
    peer->client = NULL;
}
