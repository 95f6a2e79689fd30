/*
 * BGRX to the 4:2:0 planes that RDP clients expect of AVC420 (MS-RDPEGFX 3.3.8.3.1): BT.709, full
 * range, the mean colour of each 2x2 block.
 *
 * Pure; any thread. There are two of each, with the same results to the bit: one in plain C, one
 * for AVX2.
 */
#ifndef QRDP_VIDEO_CONVERT_H
#define QRDP_VIDEO_CONVERT_H

#include "gfx_pdu.h"
#include "video_backend.h"

/** Converts @rect of a picture of @width x @height whose top left pixel is at @bgrx. Its edges are
 * even, except at the picture's right and bottom; there the planes are filled up to multiples of 16
 * with the last column and row. */
void video_convert(VideoPlanes *planes, const uint8_t *bgrx, size_t stride, uint32_t width,
                   uint32_t height, const GfxRect *rect);
/** The same, in plain C whatever the processor. For tests. */
void video_convert_plain(VideoPlanes *planes, const uint8_t *bgrx, size_t stride, uint32_t width,
                         uint32_t height, const GfxRect *rect);

#endif
