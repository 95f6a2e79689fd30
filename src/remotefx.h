/*
 * RemoteFX (MS-RDPRFX): pictures that move, for clients without H.264, at any quality.
 *
 * Owner: none, nothing is remembered from one call to the next. Thread: any.
 */
#ifndef QRDP_REMOTEFX_H
#define QRDP_REMOTEFX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"

#define REMOTEFX_TILE 64u
/** 0 is the best level. Each takes a bit from the values of one band or two, the finest details
 * first and the means last, so that seven levels double the quantiser as six steps of H.264's QP
 * do. */
#define REMOTEFX_LEVELS 43u

typedef struct RemotefxPicture {
    const uint8_t *bgrx; /* 4 bytes a pixel, the fourth is ignored */
    size_t stride;
    uint16_t width, height;
} RemotefxPicture;

/** Appends what a decoder has to be told before the first message (2.2.2.2). */
void remotefx_write_headers(const RemotefxPicture *picture, Writer *out);
/** Appends one message, a frame of its own with the number @frame: of the part of @picture that is
 * @w x @h at (@x, @y). The decoder draws that part and nothing else. Tiles hang on the corner of
 * the picture, and those that the part touches are coded whole: at most 18 KiB a tile. */
void remotefx_write(const RemotefxPicture *picture, uint16_t x, uint16_t y, uint16_t w, uint16_t h,
                    unsigned level, uint32_t frame, Writer *out);

#endif
