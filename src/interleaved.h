/*
 * Interleaved run lengths: compressed bitmaps of 15, 16 and 24 bits per pixel (MS-RDPBCGR
 * 2.2.9.1.1.3.1.2.4), lossless at the depth they are for. Knows neither FreeRDP nor GLib.
 *
 * FreeRDP has such a compressor, but at 24 bits it sends other memory than the pixels meant
 * (out_copy_count_3(), from 3.10 to after 3.30).
 */
#ifndef QRDP_INTERLEAVED_H
#define QRDP_INTERLEAVED_H

#include "bytes.h"

/** Pixels of a bitmap at most; so a run's length always fits the 16 bits that it has. */
#define INTERLEAVED_MAX_PIXELS 4096u
/** Bytes of a bitmap of @pixels at most. */
#define INTERLEAVED_BOUND(pixels, bpp) ((size_t)(pixels) * (((bpp) + 7u) / 8u) + 4u)

/** Appends the bitmap of @w x @h pixels (B, G, R, X) at @bgrx, rows @stride bytes apart, bottom row
 * first as the format wants. @bpp: 15, 16 or 24; colours lose their lowest bits. */
void interleaved_encode(const uint8_t *bgrx, size_t stride, uint32_t w, uint32_t h, unsigned bpp,
                        Writer *out);

#endif
