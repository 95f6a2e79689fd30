/* Shared by encoder*.c only. */
#ifndef QRDP_ENCODER_PRIV_H
#define QRDP_ENCODER_PRIV_H

#include <freerdp/codec/interleaved.h>
#include <freerdp/codec/nsc.h>
#include <freerdp/codec/planar.h>
#include <freerdp/codec/rfx.h>
#include <freerdp/settings.h>

#include "clearcodec.h"
#include "encoder.h"
#include "history.h"
#include "motion.h"

#define TILE FRAMEBUFFER_TILE

/* What the GFX path knows about its client. */
typedef struct GfxState {
    Mirror mirror; /* .pixels == NULL: there was no frame yet */
    Motion *motion;
    History *history;
    bool layer_made[HISTORY_LAYERS];
    uint8_t *moved; /* per cell: its content goes elsewhere in this frame */
    GArray *copies; /* of HistoryCopy, scratch */
    GArray *rects;  /* of Rect, scratch */
} GfxState;

struct Encoder {
    EncoderParams params;
    BITMAP_PLANAR_CONTEXT *planar;     /* legacy: run-length coded */
    BITMAP_PLANAR_CONTEXT *planar_raw; /* GFX: for what nothing makes smaller */
    ClearEncoder *clear;               /* GFX */
    BITMAP_INTERLEAVED_CONTEXT *interleaved;
    RFX_CONTEXT *rfx;
    NSC_CONTEXT *nsc;
    uint32_t rfx_width, rfx_height; /* that rfx was reset for */
    uint8_t *scratch;               /* GFX: planar output; legacy: one bitmap */
    GfxState gfx;
};

bool encoder_gfx_init(Encoder *encoder);
void encoder_gfx_clear(Encoder *encoder);
void encoder_gfx_restart(Encoder *encoder);
bool encoder_gfx_encode(Encoder *encoder, EncodedFrame *encoded);
/** Paints @rects of the frame, smallest first, with whatever takes the fewest bytes. */
bool encoder_paint_init(Encoder *encoder);
bool encoder_paint(Encoder *encoder, EncodedFrame *encoded, GArray *rects);
bool encoder_legacy_init(Encoder *encoder);
bool encoder_legacy_encode(Encoder *encoder, EncodedFrame *encoded);

#endif
