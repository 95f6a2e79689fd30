/* Shared by peer_display*.c only. Everything here is the peer thread's. */
#ifndef QRDP_PEER_DISPLAY_PRIV_H
#define QRDP_PEER_DISPLAY_PRIV_H

#include "encoder.h"
#include "pacer.h"
#include "peer_display.h"

/** A tile has rested this long: show losslessly what was shown with loss. */
#define LEGACY_REST_US 250000
/** Tiles shown again at a time, so that the pointer and typing are not held up. */
#define LEGACY_REFINE_TILES 128u
/** A frame of so few tiles goes losslessly at once: typing, a blinking cursor. */
#define LEGACY_SMALL_TILES 8u
/** The socket and acknowledgements are looked at this often while a frame waits for them. */
#define LEGACY_POLL_US 8000
#define LEGACY_FRAME_US 33000 /* from frame to frame of clients that do not acknowledge, on average */
#define LEGACY_LARGEST_UPDATE (256u * 1024u)

/* How frames reach a client without a graphics pipeline. */
typedef struct Legacy {
    rdpContext *context;
    EncoderParams params;
    size_t max_update; /* largest update the client reassembles, less headers */
    bool markers, acks;
    uint32_t frame_id, seen_ack;
    Pacer pacer;
    int64_t next_us; /* no frame before */
    uint64_t frames, bytes;

    uint32_t columns, rows;
    int64_t *lossy; /* per tile: when it was last shown with loss, 0: it is exact */
    uint32_t n_lossy;
} Legacy;

/** Reads the client's settings. False, with *@why, if it can show nothing. */
bool legacy_init(Legacy *legacy, rdpContext *context, const char **why);
void legacy_clear(Legacy *legacy);
/** Forgets what the client shows (activation, new size). */
void legacy_reset(Legacy *legacy, uint32_t width, uint32_t height);
bool legacy_may_send(Legacy *legacy, int64_t now);
/** When to ask legacy_may_send() again. */
int64_t legacy_look_at(const Legacy *legacy, int64_t now);
/** False: the connection is broken. */
bool legacy_send(Legacy *legacy, const EncodedFrame *encoded, int64_t now);
/** When refining may begin; INT64_MAX: nothing to refine. */
int64_t legacy_refine_at(const Legacy *legacy);
/** Calls @invalidate for some of the tiles that have rested; returns how many tiles. */
uint32_t legacy_refine(Legacy *legacy, int64_t now,
                       void (*invalidate)(void *user, const Rect *rect), void *user);
/** Whether a lossy path should show @frame exactly: it was asked for to refine, and is not much
 * more than that, or it is small. */
bool legacy_worth_exactness(const Frame *frame, bool refining);
/** Deactivates the client and sends it capabilities anew; peer_display_activated() follows. */
bool legacy_reactivate(rdpContext *context, uint32_t width, uint32_t height);
const char *legacy_name(const Legacy *legacy);

#endif
