/*
 * One client: its thread, FreeRDP peer, channels and USB devices.
 *
 * Owner: the Server, by id. Thread: the functions below are main's, except where they say
 * otherwise; everything else about a peer happens on the peer's own thread.
 * Lifetime: peer_stop() asks, on_ended is posted when the thread is about to end, peer_free() joins.
 */
#ifndef QRDP_PEER_H
#define QRDP_PEER_H

#include "auth.h"
#include "config.h"
#include "framebuffer.h"
#include "server.h"

typedef struct Peer Peer;

/** Immutable for the life of the peer. */
typedef struct PeerParams {
    Server *server;
    const Config *config;
    guint id;
    int fd;                /* the client's socket, taken */
    char address[96];      /* for people */
    AuthSnapshot *auth;    /* a reference is taken */
    char *cert_pem, *key_pem; /* copied */
    uint32_t width, height;   /* the guest's picture now */
} PeerParams;

Peer *peer_new(const PeerParams *params);
/** Ends the connection; @reason goes to the client where the protocol allows and to the log. */
void peer_stop(Peer *peer, const char *reason);
/** Joins the thread; cuts the socket first if it did not end within a second. */
void peer_free(Peer *peer);
guint peer_id(const Peer *peer);
/** Cuts the socket of a client that made no progress: the watchdog's hand. Any thread. */
void peer_cut(Peer *peer, const char *reason);

typedef void (*PeerFunc)(Peer *peer, void *data);
/** Runs @func on the peer's thread, in order, unless it has ended; @destroy then frees @data in any
 * case. Any thread. */
void peer_post(Peer *peer, PeerFunc func, void *data, GDestroyNotify destroy);

#endif
