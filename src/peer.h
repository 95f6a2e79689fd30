/*
 * One client: its thread, FreeRDP peer, channels and USB devices.
 *
 * Owner: the Server, by id. Thread: the functions below are main's, except where they say
 * otherwise; everything else about a peer happens on the peer's own thread.
 * Lifetime: peer_stop() asks, server_peer_ended() is posted when the thread is about to end,
 * peer_free() joins.
 */
#ifndef QRDP_PEER_H
#define QRDP_PEER_H

#include "auth.h"
#include "config.h"
#include "framebuffer.h"
#include "server.h"
#include "slot.h"
#include "stream.h"

#define PEER_HANDSHAKE_US 30000000 /* from accept to an active session */

typedef struct Peer Peer;

/** Immutable for the life of the peer. */
typedef struct PeerParams {
    Server *server;
    const Config *config;
    guint id;
    int fd;                         /* the client's socket, taken */
    char address[96];               /* for people */
    AuthSnapshot *auth;             /* a reference is taken; empty: whoever comes may in */
    const char *cert_pem, *key_pem; /* copied */
    uint32_t width, height;         /* the guest's picture now */
} PeerParams;

/** What the client is told when we end its session. */
typedef enum PeerStop {
    PEER_STOP_SHUTDOWN,  /* qrdp or the VM ends */
    PEER_STOP_TAKEOVER,  /* another client took the console */
    PEER_STOP_RECONNECT, /* and it is the same user, who will want the USB devices back */
} PeerStop;

Peer *peer_new(const PeerParams *params);
/** Ends the connection; @reason goes to the log, and @stop to the client where the protocol allows.
 */
void peer_stop(Peer *peer, PeerStop stop, const char *reason);
/** Waits until the thread is about to end, or @until_us (monotonic): whether it is. */
bool peer_wait(Peer *peer, gint64 until_us);
/** Joins the thread; cuts the socket first if it did not end within a second. */
void peer_free(Peer *peer);
guint peer_id(const Peer *peer);
/** Cuts the socket at once. Any thread. */
void peer_cut(Peer *peer, const char *reason);
/** Cuts a client that does not finish its handshake in time, or that took nothing of what waits for
 * it for Config.stall_seconds. To be called about once a second. */
void peer_watchdog(Peer *peer, int64_t now_us);

typedef void (*PeerFunc)(Peer *peer, void *data);
/** Runs @func on the peer's thread, in order, unless it has ended; @destroy then frees @data in any
 * case. Any thread. */
void peer_post(Peer *peer, PeerFunc func, void *data, GDestroyNotify destroy);

/* News of the guest, each a peer_post(). */

/** There is something new to look at. */
void peer_damaged(Peer *peer);
/** The next frame of its stream; takes the reference; NULL: there are none any more. */
void peer_encoded(Peer *peer, EncodedFrame *encoded);
/** The answer to server_peer_want_frame(); takes the reference; NULL: nothing had changed. */
void peer_frame(Peer *peer, Frame *frame);
/** NULL: hidden. Borrowed. */
void peer_cursor(Peer *peer, Cursor *cursor);
void peer_leds(Peer *peer, uint32_t leds);
void peer_mouse_mode(Peer *peer, bool absolute);

/* main's answers about USB devices (usb_slots.h), each a peer_post(). */

/** Makes the client answer something: server_peer_heard() is posted when anything comes from it. */
void peer_ask(Peer *peer);
/** @fd is taken, also if the peer has ended meanwhile. */
void peer_usb_grant(Peer *peer, guint device_id, int fd, const char *slot_id, const char *error);
/** Takes the detached @slot of a suspended device, which is the peer's @device_id. */
void peer_usb_take_back(Peer *peer, guint device_id, Slot *slot);
void peer_usb_leave(Peer *peer, guint device_id, bool close, const char *why);

#endif
