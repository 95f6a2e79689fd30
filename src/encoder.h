/*
 * From a Frame to bytes for one client: RDPGFX PDUs, RemoteFX or NSCodec messages, or bitmaps.
 *
 * An Encoder holds the codec contexts of one client and, for GFX, what the client's surface shows:
 * there each frame that it encodes is sent, or encoder_restart() called. Owner: PeerDisplay, except
 * while a job is out: it moves into the job and comes back with the result, so it needs no lock and
 * there is at most one job per client. Thread: whoever owns it; encoder_submit() and
 * encoder_abandon() are the peer's.
 */
#ifndef QRDP_ENCODER_H
#define QRDP_ENCODER_H

#include <glib.h>
#include <stdbool.h>

#include "bytes.h"
#include "framebuffer.h"

typedef enum EncoderPath {
    ENCODER_GFX,    /* RDPGFX PDUs, lossless */
    ENCODER_RFX,    /* RemoteFX messages for stream surface bits */
    ENCODER_NSC,    /* NSCodec messages for set surface bits */
    ENCODER_BITMAP, /* bitmaps: lossless at 32 and 24 bits per pixel */
} EncoderPath;

/** What may be shown with loss while it moves, and how. */
typedef enum FilmCodec { FILM_NONE, FILM_RFX, FILM_H264 } FilmCodec;

typedef struct EncoderParams {
    EncoderPath path;
    unsigned bpp;       /* of bitmaps: 32, 24, 16 or 15 */
    bool skip_alpha;    /* the client takes planar bitmaps without an alpha plane */
    size_t max_part;    /* largest RemoteFX or NSCodec message, largest bitmap */
    FilmCodec film;     /* GFX: the best that the client decodes */
    uint32_t rlgr_mode; /* RemoteFX entropy coder, FreeRDP's RLGR_MODE */
} EncoderParams;

/** Least .max_part: half a tile must fit as a raw bitmap (clients without multifragment updates
 * take 16256 bytes, which a whole one passes). */
#define ENCODER_MIN_PART (64u * 32u * 4u + 64u)
/** Largest RDPGFX PDU made, so that every PDU fits into one slice with its frame's markers; but for
 * a film's picture, which is one PDU. */
#define ENCODER_MAX_PDU (60u * 1024u)

/** One update of the legacy paths. */
typedef struct EncodedPart {
    Rect dest;              /* what it paints */
    uint32_t width, height; /* of the coded picture: bitmaps are padded to multiples of four */
    bool compressed;        /* bitmaps only */
    size_t offset, len;     /* in .bytes */
} EncodedPart;

typedef struct EncodedFrame {
    EncoderPath path;       /* ENCODER_BITMAP if lossless bitmaps were asked for */
    Frame *frame;           /* what was encoded */
    uint16_t surface;       /* GFX: that the PDUs are for */
    Writer bytes;           /* GFX: whole PDUs; else the parts' data */
    unsigned clear_streams; /* GFX: ClearCodec streams in .bytes */
    bool lossy;             /* GFX: something is shown that is not exact, */
    bool rests;             /* not all of it because of the film that plays, */
    Rect rest;              /* GFX: and where the next frame that shows it exactly begins with it */
    uint32_t film_bytes;    /* GFX: of a film's picture */
    const char *film_codec; /* GFX: that it was coded with; static */
    GArray *parts;          /* of EncodedPart, legacy paths; else NULL */
    int64_t encode_us;
} EncodedFrame;
void encoded_frame_free(EncodedFrame *encoded);

typedef struct Encoder Encoder;

/** NULL if FreeRDP cannot make the contexts. */
Encoder *encoder_new(const EncoderParams *params);
void encoder_free(Encoder *encoder);
/** Encodes now, on this thread. @lossless: bitmaps even on a lossy path. NULL: a codec failed. */
EncodedFrame *encoder_encode(Encoder *encoder, Frame *frame, uint16_t surface, bool lossless);

/** GFX: the client has a new surface, or @unsent (may be NULL), the last frame, will not reach it.
 * The next frame must be a whole one, of any size. */
void encoder_restart(Encoder *encoder, const EncodedFrame *unsent);

/** GFX: how many bytes a film's picture may take on average from now on; 0: what it needs. */
void encoder_limit_film(Encoder *encoder, uint32_t bytes);

typedef struct EncoderJob EncoderJob;

/** The job is over: the encoder comes back; @encoded (the callee's) is NULL if a codec failed. */
typedef void (*EncoderDone)(void *user, Encoder *encoder, EncodedFrame *encoded);

/** Encodes in the pool; takes @encoder and @frame. @done runs on @context, unless the job is
 * abandoned: then everything is freed. */
EncoderJob *encoder_submit(Encoder *encoder, Frame *frame, uint16_t surface, bool lossless,
                           GMainContext *context, EncoderDone done, void *user);
/** Called on @context's thread before @done ran: it will not. */
void encoder_abandon(EncoderJob *job);

#endif
