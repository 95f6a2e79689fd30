/*
 * From a Frame to bytes: RDPGFX PDUs, RemoteFX or NSCodec messages, or bitmaps.
 *
 * An Encoder holds codec contexts and, for GFX, what its clients' surfaces show: there each frame
 * that it encodes is sent to all of them, or encoder_restart() called. Owner: for GFX the Stream
 * (stream.h), else PeerDisplay, except while a job is out: it moves into the job and comes back
 * with the result, so it needs no lock and there is at most one job for each. Thread: whoever owns
 * it; encoder_submit() and encoder_abandon() are the owner's.
 */
#ifndef QRDP_ENCODER_H
#define QRDP_ENCODER_H

#include <glib.h>
#include <stdbool.h>

#include "bytes.h"
#include "dvc.h"
#include "framebuffer.h"
#include "gfx_frame.h"

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
    unsigned bpp;    /* of bitmaps: 32, 24, 16 or 15 */
    bool skip_alpha; /* the client takes planar bitmaps without an alpha plane */
    size_t max_part; /* largest RemoteFX or NSCodec message, largest bitmap */
    FilmCodec film;  /* GFX: the best that the client decodes */
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

/** Immutable once it is shared. */
typedef struct EncodedFrame {
    gint refs;
    EncoderPath path;       /* ENCODER_BITMAP if lossless bitmaps were asked for */
    Frame *frame;           /* what was encoded; GFX: NULL once packed */
    uint16_t surface;       /* GFX: that the PDUs are for */
    Writer bytes;           /* GFX: whole PDUs, none once packed; else the parts' data */
    GfxFrame packed;        /* GFX, by a job: what is to be sent; no messages: nothing is */
    uint8_t clear_sequence; /* GFX: of the first ClearCodec stream in it, or after it */
    unsigned clear_streams; /* GFX: how many there are */
    bool starts;            /* GFX: a sequence of frames begins with it, */
    GfxStart start;         /* like this */
    bool lossy;             /* GFX: something is shown that is not exact, */
    bool rests;             /* not all of it because of the film that plays, */
    Rect rest;              /* GFX: and where the next frame that shows it exactly begins with it */
    uint32_t film_bytes;    /* GFX: of a film's picture, */
    int64_t film_rest_us;   /* which is to be shown exactly if it has rested for so long */
    const char *film_codec; /* GFX: that it was coded with; static */
    GArray *parts;          /* of EncodedPart, legacy paths; else NULL */
    int64_t encode_us;
} EncodedFrame;
EncodedFrame *encoded_frame_ref(EncodedFrame *encoded);
/** May be NULL. */
void encoded_frame_unref(EncodedFrame *encoded);
/** When what films have left behind is to be shown exactly, on a monotonic clock in microseconds;
 * INT64_MAX: nothing is left. @before_us: the same of the frame before; @due: @encoded was made to
 * show it. */
int64_t encoded_frame_refine_at(const EncodedFrame *encoded, int64_t before_us, bool due,
                                int64_t now_us);
/** For dvc_send_held(). */
DvcOwner encoded_frame_owner(EncodedFrame *encoded);

typedef struct Encoder Encoder;

/** NULL if FreeRDP cannot make the contexts. */
Encoder *encoder_new(const EncoderParams *params);
void encoder_free(Encoder *encoder);
/** Encodes now, on this thread. @lossless: bitmaps even on a lossy path. NULL: a codec failed. */
EncodedFrame *encoder_encode(Encoder *encoder, Frame *frame, uint16_t surface, bool lossless);

/** GFX: nothing is known of what the next frame's clients show: it must be a whole one, of any
 * size.
 */
void encoder_restart(Encoder *encoder);
/** GFX: the next frame's clients show the picture, and nothing else of what they have is known. */
void encoder_begin(Encoder *encoder);
/** GFX: an encoder for clients that show what @encoder's do, as after encoder_begin(). NULL if
 * FreeRDP cannot make the contexts. */
Encoder *encoder_fork(const Encoder *encoder);
/** GFX: whether the clients of both show the same, all of it; then @encoder takes note of what
 * @other's do not show exactly. */
bool encoder_join(Encoder *encoder, const Encoder *other);

/** GFX: how many bytes a film's picture may take on average from now on; 0: what it needs. */
void encoder_limit_film(Encoder *encoder, uint32_t bytes);

typedef struct EncoderJob EncoderJob;

/** The job is over: the encoder comes back; @encoded (the callee's) is NULL if a codec failed. */
typedef void (*EncoderDone)(void *user, Encoder *encoder, EncodedFrame *encoded);

/** What a job is to make. */
typedef struct EncoderOrder {
    uint16_t surface;  /* GFX */
    uint32_t frame_id; /* GFX: of the packed frame */
    bool lossless;     /* bitmaps even on a lossy path */
} EncoderOrder;

/** Encodes in the pool, and packs for GFX; takes @encoder and @frame. @done runs on @context (NULL:
 * main's), unless the job is abandoned: then everything is freed. */
EncoderJob *encoder_submit(Encoder *encoder, Frame *frame, const EncoderOrder *order,
                           GMainContext *context, EncoderDone done, void *user);
/** Called on @context's thread before @done ran: it will not. */
void encoder_abandon(EncoderJob *job);

#endif
