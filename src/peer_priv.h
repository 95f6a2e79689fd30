/*
 * One client from the inside; for peer*.c only.
 *
 * Three kinds of fields: those set before the thread starts and never again, those any thread may
 * use, and those of the peer's own thread. Everything FreeRDP is of the last kind.
 */
#ifndef QRDP_PEER_PRIV_H
#define QRDP_PEER_PRIV_H

#include <freerdp/freerdp.h>
#include <freerdp/peer.h>
#include <stdatomic.h>

#include "dvc_freerdp.h"
#include "input.h"
#include "log.h"
#include "peer.h"
#include "peer_display.h"
#include "peer_usb.h"
#include "server_priv.h"

/** FreeRDP allocates this; the way from its callbacks to the Peer. */
typedef struct PeerContext {
    rdpContext context; /* first */
    Peer *peer;
} PeerContext;

struct Peer {
    /* Immutable once the thread runs. */
    guint id;
    Server *server;
    const Config *config;
    char address[96];
    char subject[32]; /* "peer 7" */
    AuthSnapshot *auth;
    char *cert_pem, *key_pem;
    uint32_t width, height; /* of the guest's picture when the client came */
    int fd;                 /* FreeRDP's once attached: not to be touched again */
    int watch_fd;           /* our dup of it, for poll, the watchdog and shutdown */
    int64_t started_us;
    GMainContext *main_context;
    GThread *thread;

    /* Any thread. */
    atomic_bool handshaken;       /* the session is active */
    atomic_int stop;              /* PeerStop + 1 once main has asked, also if nobody listens */
    atomic_int_least64_t busy_us; /* since when the loop is in one dispatch; 0: it waits */
    /* A reason may be set by main and read by the peer at its end: too small for a post, and the
     * peer may be stuck in FreeRDP when it is set. */
    GMutex cut_lock;
    GCond cut_done; /* with .done: peer_free() waits for the thread, but not for ever */
    atomic_bool done;
    char *cut_reason;

    /* Main: the watchdog's memory. */
    uint64_t progress_mark;
    int64_t progress_us;

    /* The peer's thread. */
    freerdp_peer *client;
    GSource *source;
    DvcManager *dvcs;
    PeerDisplay *display;
    Input *input;
    PeerUsb *usb;
    GSource *status_timer;
    unsigned unheard;   /* posts that main has not said it ran */
    bool asked;         /* main waits for a sign of life */
    uint64_t heard;     /* PDUs that have come, when last looked at */
    uint64_t sent_mark; /* bytes given to FreeRDP when the socket had last taken all of them */
    size_t picture_bytes;
    uint64_t undelivered_us; /* when graphics last waited for the socket to take them */
    bool dvc_ready;
    bool authenticated; /* input and pictures flow only then */
    bool login_tried;   /* a password was checked */
    bool login_reported;
    bool active;
    bool ended;
    bool frozen;                          /* it ended because the client seems to be unreachable */
    uint32_t error_info;                  /* for the client; 0: it left by itself */
    char *reason;                         /* for the log */
    char *user;                           /* as the client gave it */
    char *label;                          /* "alice@192.0.2.7", escaped */
    bool mcs_ready;                       /* the client is known, and can be sent an error info */
    uint32_t client_width, client_height; /* what the client asked for */
};

static inline Peer *peer_of_context(rdpContext *context)
{
    return ((PeerContext *)context)->peer;
}

static inline Peer *peer_of_client(freerdp_peer *client)
{
    return peer_of_context(client->context);
}

#define ASSERT_PEER(peer) g_assert(g_main_context_is_owner((peer)->main_context))

/** Ends the loop after this dispatch; the first reason counts. @error_info: ERRINFO_*, 0 for none.
 */
void peer_end(Peer *peer, uint32_t error_info, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* peer_session.c: the thread's work, in this order */
bool peer_session_open(Peer *peer);
void peer_session_close(Peer *peer);

/* peer_settings.c */
bool peer_apply_settings(Peer *peer);
/** The size in the Demand Active PDU, and what the client must support. */
bool peer_check_capabilities(Peer *peer);

/* peer_login.c */
void peer_login_install(Peer *peer);
/** TLS without NLA: judges the password in the client info. False: the login is refused. */
bool peer_login_check(Peer *peer);
void peer_login_report(Peer *peer, bool ok);

#endif
