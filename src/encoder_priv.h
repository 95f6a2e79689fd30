/* Shared by encoder*.c only. */
#ifndef QRDP_ENCODER_PRIV_H
#define QRDP_ENCODER_PRIV_H

#include <freerdp/codec/nsc.h>
#include <freerdp/codec/planar.h>
#include <freerdp/settings.h>

#include "clearcodec.h"
#include "encoder.h"
#include "history.h"
#include "motion.h"
#include "region.h"
#include "video.h"
#include "video_rate.h"

#define TILE FRAMEBUFFER_TILE

/* What the GFX path knows about its clients. */
typedef struct GfxState {
    Mirror mirror; /* .pixels == NULL: there was no frame yet */
    Motion *motion;
    History *history;
    bool layer_made[HISTORY_LAYERS];
    Region *region;      /* NULL: everything is exact */
    Rect film;           /* that plays; .w == 0: none does */
    VideoEncoder *video; /* its H.264; NULL: it is RemoteFX */
    bool film_surface;   /* the client has the surface of a film, of this or of the last one */
    VideoRate tile_rate; /* of RemoteFX, of all films: as if a picture were one tile */
    size_t bytes_before; /* of the last frame */
    uint8_t *moved;      /* per cell: its content goes elsewhere in this frame */
    CellBox *boxes;      /* per cell: of the mirror's, what is to be painted now */
    GArray *copies;      /* of HistoryCopy, scratch */
    GArray *rects;       /* of Rect, scratch */
    GfxPacker packer;
} GfxState;

struct Encoder {
    EncoderParams params;
    BITMAP_PLANAR_CONTEXT *planar;     /* run-length coded */
    BITMAP_PLANAR_CONTEXT *planar_raw; /* GFX: for what nothing makes smaller */
    ClearEncoder *clear;               /* GFX */
    uint64_t text_density; /* GFX: bytes of 1024 pixels of the last large block of text */
    NSC_CONTEXT *nsc;
    uint32_t rfx_width, rfx_height; /* legacy: of the last RemoteFX headers */
    uint32_t rfx_frame;
    uint8_t *scratch;    /* GFX: planar output; legacy: one bitmap */
    uint32_t film_bytes; /* GFX: a film's picture may take, 0: any number */
    GfxState gfx;
};

bool encoder_gfx_init(Encoder *encoder);
void encoder_gfx_clear(Encoder *encoder);
/** Turns the PDUs into .packed and lets go of what nobody needs any more. */
bool encoder_gfx_pack(Encoder *encoder, EncodedFrame *encoded, uint32_t frame_id);
bool encoder_gfx_encode(Encoder *encoder, EncodedFrame *encoded);
/** Sends the film that plays, if one does, and clears its boxes. */
void encoder_film(Encoder *encoder, EncodedFrame *encoded);
void encoder_film_init(Encoder *encoder);
void encoder_film_end(Encoder *encoder);
/** Paints @rects of the frame, smallest first, with whatever takes the fewest bytes. */
bool encoder_paint_init(Encoder *encoder);
bool encoder_paint(Encoder *encoder, EncodedFrame *encoded, GArray *rects);
bool encoder_legacy_init(Encoder *encoder);
bool encoder_legacy_encode(Encoder *encoder, EncodedFrame *encoded);

#endif
