/*
 * The graphics pipeline of one client (MS-RDPEGFX): channel life, capabilities, one surface, frames
 * and their acknowledgements. Knows nothing about pixels: frames come ready (gfx_frame.h), and
 * other clients may get the same ones.
 *
 * Owner: PeerDisplay. Thread: the peer's. Lifetime: gfx_free() at any time, also from a callback
 * (no callback follows it).
 */
#ifndef QRDP_CHANNELS_GFX_H
#define QRDP_CHANNELS_GFX_H

#include "dvc.h"
#include "gfx_frame.h"
#include "pacer.h"

#define GFX_CHANNEL "Microsoft::Windows::RDS::Graphics"
#define GFX_MAX_MESSAGE                                                                            \
    (128u * 1024u)                 /* one DVC message from the client: an import offer is 64 KiB */
#define GFX_ADVERTISE_US 10000000u /* open and CapsAdvertise, or there is no GFX (6.1) */
#define GFX_MAX_READVERTISES 32u   /* in GFX_READVERTISE_WINDOW_US: each costs a full frame */
#define GFX_READVERTISE_WINDOW_US 60000000u
/** The most that waits for one client. */
#define GFX_OUTBOX(width, height) (GFX_LOW_WATER + GFX_FRAME(width, height))
/** Frames wait for this much of the bulk queue to drain. */
#define GFX_LOW_WATER (2u * DVC_SLICE)

typedef struct Gfx Gfx;

typedef struct GfxCallbacks {
    /** Capabilities are confirmed, maybe not for the first time: the client shows nothing now.
     * Call gfx_start() and send a full frame. */
    void (*ready)(void *user);
    /** Something must be said between two frames that refer to each other: gfx_start() says it. */
    void (*interrupt)(void *user);
    /** An acknowledgement or a drained queue: gfx_may_send() may have become true. */
    void (*slot)(void *user);
    /** There is no graphics pipeline (any more); called at most once. The channel is gone. */
    void (*unavailable)(void *user, const char *why);
} GfxCallbacks;

typedef struct GfxStatus {
    uint32_t version; /* 0: not confirmed */
    uint64_t frames, acked;
    unsigned in_flight, window;
    uint64_t rtt_us;
    uint64_t bytes, plain_bytes; /* sent, and before bulk compression */
    uint64_t rate_bps;           /* bytes a second that the link was seen to take, 0: not known */
    size_t picture_bytes;        /* that a film's picture may take (pacer_picture()) */
    uint64_t decoding_us;        /* what of .rtt_us is the client's own, 0: not known */
    bool suspended;
} GfxStatus;

/** Asks the client for the channel. NULL if dvc_open() fails. @now: a monotonic clock in
 * microseconds. @callbacks is borrowed. */
Gfx *gfx_new(DvcManager *manager, const char *subject, uint64_t (*now)(void),
             const GfxCallbacks *callbacks, void *user);
void gfx_free(Gfx *gfx);
uint64_t gfx_deadline(const Gfx *gfx);
/** Since when the client owes an acknowledgement, 0: it does not (pacer_waiting_since()). */
uint64_t gfx_waiting_since(const Gfx *gfx);
void gfx_tick(Gfx *gfx);
/** Capabilities are confirmed. */
bool gfx_ready(const Gfx *gfx);
/** The confirmed capabilities let us send AVC420 (2.2.4.4). May change with each ready(). */
bool gfx_avc420(const Gfx *gfx);

/** Makes the surface the client's whole output (ResetGraphics when the size is new), deletes those
 * that earlier frames have made, and brings the decoder's sequence number to where the frames'
 * begins. False if not ready, or the channel broke. */
bool gfx_start(Gfx *gfx, const GfxStart *start);
/** The surface's id; 0: none. */
uint16_t gfx_surface(const Gfx *gfx);
/** There is a surface, the pacer's window has room and the bulk queue is short. */
bool gfx_may_send(const Gfx *gfx);
/** Sends the next frame of the sequence, if there is anything in it. @clear_streams: ClearCodec
 * streams in it. @owner: of the frame (dvc_send_held()). False if the channel broke. */
bool gfx_send_frame(Gfx *gfx, const GfxFrame *frame, unsigned clear_streams, const DvcOwner *owner);
/** What is known of the network (pacer_network()). */
void gfx_network(Gfx *gfx, uint64_t rtt_us, uint64_t rate_bps);
GfxStatus gfx_status(const Gfx *gfx);

#endif
