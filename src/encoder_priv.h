/* Shared by encoder*.c only. */
#ifndef QRDP_ENCODER_PRIV_H
#define QRDP_ENCODER_PRIV_H

#include <freerdp/codec/interleaved.h>
#include <freerdp/codec/nsc.h>
#include <freerdp/codec/planar.h>
#include <freerdp/codec/rfx.h>
#include <freerdp/settings.h>

#include "encoder.h"

#define TILE FRAMEBUFFER_TILE

struct Encoder {
    EncoderParams params;
    BITMAP_PLANAR_CONTEXT *planar;     /* run-length coded */
    BITMAP_PLANAR_CONTEXT *planar_raw; /* GFX: for what run lengths make larger */
    BITMAP_INTERLEAVED_CONTEXT *interleaved;
    RFX_CONTEXT *rfx;
    NSC_CONTEXT *nsc;
    uint32_t rfx_width, rfx_height; /* that rfx was reset for */
    uint8_t *scratch;               /* GFX: planar output; legacy: one bitmap */
};

static inline const uint8_t *frame_at(const Frame *frame, int32_t x, int32_t y)
{
    return frame->pixels + (size_t)y * frame->stride + (size_t)x * 4;
}

bool encoder_gfx_init(Encoder *encoder);
bool encoder_gfx_encode(Encoder *encoder, EncodedFrame *encoded);
bool encoder_legacy_init(Encoder *encoder);
bool encoder_legacy_encode(Encoder *encoder, EncodedFrame *encoded);

#endif
