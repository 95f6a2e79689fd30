/*
 * Inside the Server: its record of each client, and what a peer's thread may post to it.
 *
 * Thread: main throughout; the server_peer_* functions are ServerFuncs for server_post().
 */
#ifndef QRDP_SERVER_PRIV_H
#define QRDP_SERVER_PRIV_H

#include "cert.h"
#include "host_usb.h"
#include "input.h"
#include "peer.h"
#include "peer_display.h"
#include "qmp.h"
#include "server.h"
#include "throttle.h"
#include "usb_keeper.h"
#include "usb_latency.h"
#include "usb_slots.h"

#define SERVER_WATCHDOG_SECONDS 1u
/** So long may a client take to answer peer_ask() when the same device was brought on another
 * connection: less than the guest waits for a transfer (USB_TIMEOUT_TRANSFER_US), more than a slow
 * link with a picture under way takes. */
#define SERVER_SILENCE_US 6000000

/** What kind of USB redirection a client does, and what that rests on. */
typedef struct ServerUsbFlavour {
    char name[16];
    char evidence[160];
} ServerUsbFlavour;

/** One admitted connection, from accept to the end of its thread. */
typedef struct ServerPeer {
    guint id;
    Peer *peer;
    char address[96];  /* for people */
    char *key;         /* for the throttle */
    char *user;        /* escaped; NULL until logged in */
    char *login;       /* the name whose password it gave; NULL: none, or nobody needs one */
    bool logged_in;    /* its password was right */
    bool active;       /* it can be shown pictures */
    bool shown;        /* it is shown the machine's */
    bool evicted;      /* its place went to somebody else before it had logged in */
    bool stopping;     /* it was told to go: of its input only releases count */
    bool told;         /* it knows of the damage and has not asked for a frame since */
    gint64 since_us;   /* wall clock */
    gint64 stopped_us; /* monotonic, once .stopping */
    gint64 heard_us;   /* monotonic: something came in answer to peer_ask() */
    bool asked;        /* peer_ask() is under way */
    PeerDisplayStatus display;
    UsbLatencies *usb; /* NULL: none told yet */

    ServerUsbFlavour *flavour; /* NULL: it has brought no USB device */
    FramebufferViewer *viewer; /* what it is shown without GFX; NULL with .member */
    StreamMember *member;      /* with; NULL: it has none, or not yet */
} ServerPeer;

typedef struct ServerListener {
    Server *server;
    char *text; /* as status shows it: "127.0.0.1:3389", "unix:/path" */
    GSocket *socket;
    GSource *source;
    char *unix_path; /* to unlink */
} ServerListener;

struct ServerInbox;

struct Server {
    const Config *config;
    Auth *auth; /* borrowed */
    Cert *cert;
    Throttle *throttle;
    ServerCallbacks callbacks;
    void *user;
    char *unusable; /* why no client can be served, NULL: all is well */

    Vm *vm;
    Streams *streams; /* of its pictures */
    Qmp *qmp;
    UsbSlots *usb; /* from server_attach_*() on, as the next */
    HostUsb *host_usb;
    UsbKeeper *keeper; /* server_grace.c */
    GPtrArray *claims;
    guint claims_timer;
    gint64 silence_us; /* SERVER_SILENCE_US */
    bool vm_ready;

    GPtrArray *listeners; /* ServerListener */
    GHashTable *peers;    /* id -> ServerPeer */
    guint next_id;
    guint watchdog, quit_idle;
    guint trim_in; /* ticks of the watchdog; 0: nothing to do */
    LogLimit refused; /* lines about connections turned away */
    bool warned_open; /* the line about serving without credentials was printed */

    struct ServerInbox *inbox;
    bool closing, quit_told;
    int status;
    char *reason;
};

ServerPeer *server_peer(Server *server, guint id); /* NULL: gone */
/* server_usb.c */
void server_usb_start(Server *server);
void server_usb_machine_ends(Server *server);
void server_usb_give_back(Server *server); /* this host's devices */
void server_usb_stop(Server *server);
/* server_grace.c */
void server_grace_start(Server *server);
void server_grace_stop(Server *server);
/** @p has logged in. */
void server_grace_login(Server *server, const ServerPeer *p);
/** All devices of peer @id are gone, but for those that are kept. */
void server_grace_peer_ended(Server *server, guint id);
/* server_listen.c */
GPtrArray *server_listeners_new(void);
void server_listeners_close(Server *server);
/** Warns once if nobody needs a password. server.c */
void server_warn_if_open(Server *server);
/* server_admit.c, for server_listen.c: a client connected. */
void server_accept(Server *server, GSocket *socket);
/* server.c */
/** Tells @p to go, once. */
void server_stop_peer(ServerPeer *p, PeerStop stop, const char *reason);
void server_peer_free(gpointer peer); /* joins its thread */

/* --- from a peer's thread --- */

typedef struct ServerLogin {
    bool ok;
    bool password;  /* there is one, and it was right */
    char user[256]; /* as the client gave it */
} ServerLogin;
void server_peer_login(Server *server, guint id, void *login);
/** It was turned away before it could log in. @why: text. server_admit.c */
void server_peer_refused(Server *server, guint id, void *why);

/** The session is active: pictures, cursor and the rest may be sent. */
void server_peer_active(Server *server, guint id, void *unused);
/** @slot: StreamSlot; NULL: it has no graphics pipeline any more. */
void server_peer_slot(Server *server, guint id, void *slot);
void server_peer_want_frame(Server *server, guint id, void *unused);

typedef struct ServerInvalid {
    bool all;
    Rect rect;
} ServerInvalid;
void server_peer_invalidate(Server *server, guint id, void *invalid);

typedef struct ServerInput {
    size_t n;
    InputEvent events[];
} ServerInput;
void server_peer_input(Server *server, guint id, void *input);

typedef struct ServerUiSize {
    uint32_t width, height, width_mm, height_mm;
} ServerUiSize;
void server_peer_ui_size(Server *server, guint id, void *size);
void server_peer_status(Server *server, guint id, void *status);
void server_peer_usb_latency(Server *server, guint id, void *latencies);
/** @flavour: ServerUsbFlavour. */
void server_peer_usb_flavour(Server *server, guint id, void *flavour);

/** What peer_usb.c posts. */
typedef struct ServerUsb {
    guint device_id;
    UsbDescriptors *descriptors; /* request */
    char *label, *why;
    const char *state; /* note */
    Slot *slot;        /* suspended: detached; NULL once taken */
    UsbDeviceStats figures;
} ServerUsb;
void server_usb_free_word(void *usb);
/** A probed device wants in. */
void server_peer_usb_request(Server *server, guint id, void *usb);
/** Its client is away: .slot may be kept for it. */
void server_peer_usb_suspended(Server *server, guint id, void *usb);
void server_peer_usb_forget(Server *server, guint id, void *usb);

/** Something has come from a client that peer_ask() was about. */
void server_peer_heard(Server *server, guint id, void *unused);

/** @reason: text; the last thing a peer posts. */
void server_peer_ended(Server *server, guint id, void *reason);

#endif
