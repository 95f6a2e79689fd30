/*
 * What one client sees: picks the best path the client can take (GFX, RemoteFX or NSCodec surface
 * bits, plain bitmaps), says when it can take a frame, sends pointer shapes and follows mode
 * switches.
 *
 * Owner: the Peer. Thread: the peer's. Lifetime: peer_display_free() before the FreeRDP context
 * goes.
 *
 * Flow with GFX: slot (there is room) -> main makes a frame, maybe for others as well (stream.h) ->
 * peer_display_encoded -> out. Without: damaged -> (room?) want_frame -> main takes a Frame ->
 * peer_display_frame -> encoder_submit to the pool -> out. At most one frame is being encoded, and
 * unacknowledged ones are bounded by the pacer; damage accumulates in the Framebuffer meanwhile.
 */
#ifndef QRDP_PEER_DISPLAY_H
#define QRDP_PEER_DISPLAY_H

#include <freerdp/freerdp.h>
#include <glib.h>

#include "dvc.h"
#include "framebuffer.h"
#include "peer_link.h"
#include "stream.h"
#include "vm.h"

typedef struct PeerDisplay PeerDisplay;

typedef struct PeerDisplayCallbacks {
    /** GFX is there and takes part in main's streams like this; NULL: it is gone for good. */
    void (*slot)(void *user, const StreamSlot *slot);
    /** Without GFX: ask main for the next Frame; peer_display_frame() or peer_display_no_frame()
     * answers. */
    void (*want_frame)(void *user);
    /** Everything (NULL) or a rectangle must be shown again. */
    void (*invalidate)(void *user, const Rect *rect);
    /** The client's window has this size (display control). */
    void (*ui_size)(void *user, uint32_t width, uint32_t height, uint32_t width_mm,
                    uint32_t height_mm);
    /** The client broke the protocol on one of our channels beyond what closing it can mend. */
    void (*failed)(void *user, const char *why);
} PeerDisplayCallbacks;

/** @context: the peer's rdpContext, settings negotiated (call from PostConnect). @main_context: the
 * peer thread's GMainContext. */
PeerDisplay *peer_display_new(rdpContext *context, DvcManager *dvcs, GMainContext *main_context,
                              const char *subject, const PeerDisplayCallbacks *callbacks,
                              void *user);
void peer_display_free(PeerDisplay *display);
/** The size that the client asked for when it connected. */
void peer_display_connected_with(PeerDisplay *display, uint32_t width, uint32_t height);
/** The connection was (re)activated: drawing is allowed from here. */
void peer_display_activated(PeerDisplay *display);
/** drdynvc is ready: GFX and display control may be opened. */
void peer_display_dvc_ready(PeerDisplay *display);
/** Main has new damage for this peer: the cue to call want_frame when there is room. */
void peer_display_damaged(PeerDisplay *display);
/** GFX: the next frame of main's stream; takes the reference. NULL: there are none any more. */
void peer_display_encoded(PeerDisplay *display, EncodedFrame *encoded);
/** Takes the reference. */
void peer_display_frame(PeerDisplay *display, Frame *frame);
/** Nothing had changed after all. */
void peer_display_no_frame(PeerDisplay *display);
/** What the channels had for the client's socket was offered to it. */
void peer_display_sent(PeerDisplay *display);
/** NULL: hidden. Takes the reference. */
void peer_display_cursor(PeerDisplay *display, Cursor *cursor);
/** update->SuppressOutput and update->RefreshRect, for the Peer's callbacks; @n 0: everything. */
void peer_display_suppress(PeerDisplay *display, bool allow);
void peer_display_refresh(PeerDisplay *display, const Rect *rects, size_t n);
/** Since when the client owes an answer to a frame (monotonic microseconds), 0: it does not. A
 * client that is merely slow answers something; one that is frozen answers nothing, while the
 * kernel may still take bytes for it. */
uint64_t peer_display_waiting_since(const PeerDisplay *display);

/** For `qrdp status`: how the client is shown pictures, and how that goes. */
typedef struct PeerDisplayStatus {
    const char *codec;               /* "GFX", "RemoteFX"...: static; NULL: it is not decided yet */
    uint32_t version;                /* GFX capability version, else 0 */
    uint32_t width, height, bits;    /* per pixel */
    uint64_t frames, bytes;          /* sent so far */
    uint64_t plain_bytes;            /* GFX: those before bulk compression */
    unsigned unacknowledged, window; /* GFX: frames under way, and how many may be */
    bool silent;                     /* GFX: the client has said that it does not acknowledge */
    bool suppressed;                 /* the client does not want pictures now (minimized) */
    uint64_t rtt_us, encode_us;      /* GFX: frame to acknowledgement; mean of a frame */
    uint64_t rate_bps;               /* bytes a second that the link takes, 0: not known */
    uint64_t decoding_us;            /* what of .rtt_us is the client's own, 0: not known */
    PeerLinkStatus network;          /* what auto-detection has found */
    const char *film;       /* GFX: what films are coded with: static, "none", "H.264"... */
    uint64_t film_pictures; /* GFX: so many frames had a film's picture */
    uint32_t film_limit;    /* GFX: bytes it may take for the link's sake, 0: any */
    bool lossy;             /* GFX: something is shown that is not exact yet */
} PeerDisplayStatus;
void peer_display_status(const PeerDisplay *display, PeerDisplayStatus *status);

#endif
