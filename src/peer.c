/*
 * One client: the object, its thread and the two ways across.
 *
 * A Peer has a thread with a GMainContext of its own, in which everything about this client
 * happens: FreeRDP's handles (rdploop.c), its dynamic channels, its USB devices and what main
 * posts. Main never touches FreeRDP. It holds one hand on the client: a dup of the socket, which it
 * may shut down at any time. That gets the thread out of wherever FreeRDP waits for the network
 * (TLS and NLA are read with blocking calls), so a silent client costs a thread and nothing else.
 *
 * The watchdog looks at the socket, not at our own bookkeeping: if bytes wait in the kernel and the
 * other side acknowledges none of them for Config.stall_seconds, the client has stopped reading.
 * A client that is merely slow acknowledges something. One whose network is gone does not even
 * acknowledge that it has no room; it goes sooner, while its USB devices can still be kept for it.
 */
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client_socket.h"
#include "handover.h"
#include "peer_priv.h"

#define STOP_PATIENCE_US 1000000

/* --- across --- */

typedef struct Post {
    Peer *peer;
    PeerFunc func;
    void *data;
    GDestroyNotify destroy;
} Post;

static gboolean post_run(gpointer data)
{
    Post *post = data;
    handover_take(post);
    if (!post->peer->ended)
        post->func(post->peer, post->data);
    return G_SOURCE_REMOVE;
}

static void post_free(gpointer data)
{
    Post *post = data;
    handover_take(post); /* it may not have run */
    if (post->destroy)
        post->destroy(post->data);
    g_free(post);
}

void peer_post(Peer *peer, PeerFunc func, void *data, GDestroyNotify destroy)
{
    Post *post = g_new(Post, 1);
    *post = (Post){.peer = peer, .func = func, .data = data, .destroy = destroy};

    /* Sources of one priority run in the order they were attached. What the thread does not run
     * any more is freed with its context. */
    GSource *source = g_idle_source_new();
    g_source_set_priority(source, G_PRIORITY_DEFAULT);
    g_source_set_callback(source, post_run, post, post_free);
    handover_give(post);
    g_source_attach(source, peer->main_context);
    g_source_unref(source);
}

void peer_end(Peer *peer, uint32_t error_info, const char *format, ...)
{
    ASSERT_PEER(peer);
    if (peer->ended)
        return;
    va_list args;
    va_start(args, format);
    peer->reason = g_strdup_vprintf(format, args);
    va_end(args);
    peer->error_info = error_info;
    peer->ended = true;
}

typedef struct Stop {
    PeerStop stop;
    char *reason;
} Stop;

static void stop_free(gpointer data)
{
    Stop *stop = data;
    g_free(stop->reason);
    g_free(stop);
}

static void on_stop(Peer *peer, void *data)
{
    const Stop *stop = data;
    peer_end(peer,
             stop->stop == PEER_STOP_SHUTDOWN ? ERRINFO_RPC_INITIATED_DISCONNECT
                                              : ERRINFO_DISCONNECTED_BY_OTHER_CONNECTION,
             "%s", stop->reason);
}

void peer_stop(Peer *peer, PeerStop stop, const char *reason)
{
    Stop *s = g_new(Stop, 1);
    *s = (Stop){.stop = stop, .reason = g_strdup(reason)};
    atomic_store(&peer->stop, (int)stop + 1);
    peer_post(peer, on_stop, s, stop_free);
}

void peer_cut(Peer *peer, const char *reason)
{
    g_mutex_lock(&peer->cut_lock);
    if (!peer->cut_reason)
        peer->cut_reason = g_strdup(reason);
    g_mutex_unlock(&peer->cut_lock);
    shutdown(peer->watch_fd, SHUT_RDWR);
}

/* --- watchdog --- */

void peer_watchdog(Peer *peer, int64_t now_us)
{
    int64_t limit_us = (int64_t)peer->config->stall_seconds * G_USEC_PER_SEC;
    int queued = 0;
    uint64_t mark = 0;
    char why[96];

    if (!atomic_load(&peer->handshaken) && now_us - peer->started_us > PEER_HANDSHAKE_US) {
        peer_cut(peer, "the handshake was not finished in time");
        return;
    }
    if (!client_socket_progress(peer->watch_fd, &queued, &mark))
        return;
    if (queued == 0 || mark != peer->progress_mark || peer->progress_us == 0) {
        peer->progress_mark = mark;
        peer->progress_us = now_us;
    } else if (now_us - peer->progress_us > limit_us) {
        g_snprintf(why, sizeof(why), "it read nothing for %u seconds", peer->config->stall_seconds);
        peer_cut(peer, why);
        return;
    } else if (now_us - peer->progress_us > (int64_t)CLIENT_SOCKET_LOST_S * G_USEC_PER_SEC &&
               client_socket_is_lost(peer->watch_fd)) {
        peer_cut(peer, "its network does not answer");
        return;
    }
    /* A thread that long in one dispatch waits for a client in a way we did not foresee. */
    int64_t busy_us = atomic_load(&peer->busy_us);
    if (atomic_load(&peer->handshaken) && busy_us && now_us - busy_us > limit_us)
        peer_cut(peer, "its thread is stuck");
}

/* --- news of the guest --- */

static void on_damaged(Peer *peer, void *unused)
{
    if (peer->display)
        peer_display_damaged(peer->display);
}

void peer_damaged(Peer *peer)
{
    peer_post(peer, on_damaged, NULL, NULL);
}

static void note_size(Peer *peer, uint32_t width, uint32_t height)
{
    peer->picture_bytes = (size_t)width * height * 4;
    if (peer->input)
        input_set_size(peer->input, width, height);
}

static void on_encoded(Peer *peer, void *data)
{
    EncodedFrame *encoded = data;
    if (encoded && encoded->starts)
        note_size(peer, encoded->start.width, encoded->start.height);
    if (peer->display)
        peer_display_encoded(peer->display, encoded ? encoded_frame_ref(encoded) : NULL);
}

void peer_encoded(Peer *peer, EncodedFrame *encoded)
{
    peer_post(peer, on_encoded, encoded, encoded ? (GDestroyNotify)encoded_frame_unref : NULL);
}

static void on_frame(Peer *peer, void *data)
{
    Frame *frame = data;
    note_size(peer, frame->width, frame->height);
    if (peer->display)
        peer_display_frame(peer->display, frame_ref(frame));
}

static void on_no_frame(Peer *peer, void *unused)
{
    if (peer->display)
        peer_display_no_frame(peer->display);
}

void peer_frame(Peer *peer, Frame *frame)
{
    if (frame)
        peer_post(peer, on_frame, frame, (GDestroyNotify)frame_unref);
    else
        peer_post(peer, on_no_frame, NULL, NULL);
}

static void on_cursor(Peer *peer, void *data)
{
    Cursor *cursor = data;
    if (peer->display)
        peer_display_cursor(peer->display, cursor ? cursor_ref(cursor) : NULL);
}

void peer_cursor(Peer *peer, Cursor *cursor)
{
    peer_post(peer, on_cursor, cursor ? cursor_ref(cursor) : NULL,
              cursor ? (GDestroyNotify)cursor_unref : NULL);
}

static void on_leds(Peer *peer, void *data)
{
    uint32_t leds = GPOINTER_TO_UINT(data);
    if (peer->input)
        input_set_leds(peer->input, leds);
    if (peer->active && peer->client->activated) {
        rdpUpdate *update = peer->client->context->update;
        update->SetKeyboardIndicators(update->context, (UINT16)leds); /* same bits on both sides */
    }
}

void peer_leds(Peer *peer, uint32_t leds)
{
    peer_post(peer, on_leds, GUINT_TO_POINTER(leds), NULL);
}

static void on_mouse_mode(Peer *peer, void *data)
{
    if (peer->input)
        input_set_absolute(peer->input, GPOINTER_TO_UINT(data));
}

void peer_mouse_mode(Peer *peer, bool absolute)
{
    peer_post(peer, on_mouse_mode, GUINT_TO_POINTER(absolute), NULL);
}

/* --- USB --- */

typedef struct UsbWord {
    guint device_id;
    int fd; /* -1: none, or handed on */
    bool close;
    char *slot_id, *text;
} UsbWord;

static void usb_word_free(gpointer data)
{
    UsbWord *word = data;
    if (word->fd >= 0)
        close(word->fd); /* nobody took it: the slot is free again */
    g_free(word->slot_id);
    g_free(word->text);
    g_free(word);
}

static void on_usb_grant(Peer *peer, void *data)
{
    UsbWord *word = data;
    int fd = word->fd;
    word->fd = -1;
    if (peer->usb)
        peer_usb_granted(peer->usb, word->device_id, fd, word->slot_id, word->text);
    else if (fd >= 0)
        close(fd);
}

void peer_usb_grant(Peer *peer, guint device_id, int fd, const char *slot_id, const char *error)
{
    UsbWord *word = g_new(UsbWord, 1);
    *word = (UsbWord){
        .device_id = device_id, .fd = fd, .slot_id = g_strdup(slot_id), .text = g_strdup(error)};
    peer_post(peer, on_usb_grant, word, usb_word_free);
}

typedef struct UsbReturn {
    guint device_id;
    Slot *slot;
} UsbReturn;

static void usb_return_free(gpointer data)
{
    UsbReturn *r = data;
    slot_free(r->slot); /* nobody took it */
    g_free(r);
}

static void on_usb_return(Peer *peer, void *data)
{
    UsbReturn *r = data;
    if (peer->usb)
        peer_usb_resume(peer->usb, r->device_id, g_steal_pointer(&r->slot));
}

void peer_usb_take_back(Peer *peer, guint device_id, Slot *slot)
{
    UsbReturn *r = g_new0(UsbReturn, 1);
    *r = (UsbReturn){.device_id = device_id, .slot = slot};
    peer_post(peer, on_usb_return, r, usb_return_free);
}

static void on_ask(Peer *peer, void *unused)
{
    peer->asked = true;
    peer_usb_ask(peer->usb);
}

void peer_ask(Peer *peer)
{
    peer_post(peer, on_ask, NULL, NULL);
}

static void on_usb_leave(Peer *peer, void *data)
{
    const UsbWord *word = data;
    if (peer->usb)
        peer_usb_detach(peer->usb, word->device_id, word->close, word->text);
}

void peer_usb_leave(Peer *peer, guint device_id, bool close, const char *why)
{
    UsbWord *word = g_new(UsbWord, 1);
    *word = (UsbWord){.device_id = device_id, .fd = -1, .close = close, .text = g_strdup(why)};
    peer_post(peer, on_usb_leave, word, usb_word_free);
}

/* --- the thread --- */

static char *end_reason(Peer *peer)
{
    g_mutex_lock(&peer->cut_lock);
    char *reason = g_strdup(peer->cut_reason);
    g_mutex_unlock(&peer->cut_lock);
    return reason ? reason : g_strdup(peer->reason ? peer->reason : "the client left");
}

static gpointer peer_thread(gpointer data)
{
    Peer *peer = data;

    handover_take(peer);
    g_main_context_acquire(peer->main_context);
    g_main_context_push_thread_default(peer->main_context);
    if (peer_session_open(peer)) {
        while (!peer->ended)
            g_main_context_iteration(peer->main_context, TRUE);
    }
    peer->ended = true;
    peer_session_close(peer);
    server_post(peer->server, peer->id, server_peer_ended, end_reason(peer), g_free);
    g_main_context_pop_thread_default(peer->main_context);
    g_main_context_release(peer->main_context);
    handover_give(peer);

    g_mutex_lock(&peer->cut_lock);
    peer->done = true;
    g_cond_signal(&peer->cut_done);
    g_mutex_unlock(&peer->cut_lock);
    return NULL;
}

Peer *peer_new(const PeerParams *params)
{
    Peer *peer = g_new0(Peer, 1);

    peer->id = params->id;
    peer->server = params->server;
    peer->config = params->config;
    g_strlcpy(peer->address, params->address, sizeof(peer->address));
    g_snprintf(peer->subject, sizeof(peer->subject), "peer %u", params->id);
    peer->label = g_strdup(params->address);
    peer->auth = auth_snapshot_ref(params->auth);
    peer->cert_pem = g_strdup(params->cert_pem);
    peer->key_pem = g_strdup(params->key_pem);
    peer->width = params->width;
    peer->height = params->height;
    peer->started_us = g_get_monotonic_time();
    peer->fd = params->fd;
    peer->watch_fd = fcntl(peer->fd, F_DUPFD_CLOEXEC, 3);
    g_mutex_init(&peer->cut_lock);
    g_cond_init(&peer->cut_done);
    peer->main_context = g_main_context_new();

    GError *error = NULL;
    handover_give(peer);
    if (peer->watch_fd >= 0)
        peer->thread = g_thread_try_new(peer->subject, peer_thread, peer, &error);
    if (!peer->thread) {
        log_warning(peer->subject, "%s: no thread or file descriptor is left: %s", peer->address,
                    error ? error->message : g_strerror(errno));
        g_clear_error(&error);
        close(peer->fd);
        peer_free(peer);
        return NULL;
    }
    return peer;
}

bool peer_wait(Peer *peer, gint64 until_us)
{
    g_mutex_lock(&peer->cut_lock);
    while (!peer->done && g_cond_wait_until(&peer->cut_done, &peer->cut_lock, until_us)) {
    }
    bool done = peer->done;
    g_mutex_unlock(&peer->cut_lock);
    return done;
}

void peer_free(Peer *peer)
{
    if (!peer)
        return;
    if (peer->thread) {
        if (!peer_wait(peer, g_get_monotonic_time() + STOP_PATIENCE_US))
            peer_cut(peer, "it did not end when asked to");
        g_thread_join(peer->thread);
        handover_take(peer);
    }
    g_main_context_unref(peer->main_context); /* frees what was posted too late */
    if (peer->watch_fd >= 0)
        close(peer->watch_fd);
    auth_snapshot_unref(peer->auth);
    g_free(peer->cert_pem);
    if (peer->key_pem)
        explicit_bzero(peer->key_pem, strlen(peer->key_pem));
    g_free(peer->key_pem);
    g_free(peer->cut_reason);
    g_free(peer->reason);
    g_free(peer->user);
    g_free(peer->label);
    g_mutex_clear(&peer->cut_lock);
    g_cond_clear(&peer->cut_done);
    g_free(peer);
}

guint peer_id(const Peer *peer)
{
    return peer->id;
}
