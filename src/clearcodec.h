/*
 * ClearCodec (MS-RDPEGFX 2.2.4.1, 3.3.8.1): rectangles of pixels to CLEARCODEC_BITMAP_STREAMs,
 * lossless, made for text and user interfaces.
 *
 * Owner: whoever encodes for one client: a ClearEncoder mirrors the caches of that client's
 * decoder. Thread: any, one at a time. Lifetime: that of the client's graphics channel.
 *
 * What the client has depends on every stream before: streams are sent in the order in which they
 * were made, and all of them. The same calls give the same bytes.
 */
#ifndef QRDP_CLEARCODEC_H
#define QRDP_CLEARCODEC_H

#include <stddef.h>
#include <stdint.h>

#include "bytes.h"

/* The format allows 65535; no more is needed, and the encoder's scratch grows with the width. */
#define CLEAR_MAX_SIDE 16384u

typedef struct ClearEncoder ClearEncoder;

/** For a client whose decoder has not had a stream yet. Never NULL. */
ClearEncoder *clear_encoder_new(void);
void clear_encoder_free(ClearEncoder *encoder);

/** Nothing is assumed to be cached any more; the next stream says so, and has the number @sequence:
 * that which the client's decoder expects, as decoders reject a gap. */
void clear_encoder_reset(ClearEncoder *encoder, uint8_t sequence);
/** The number of the next stream. */
uint8_t clear_encoder_sequence(const ClearEncoder *encoder);

/**
 * Appends one stream for the @w x @h pixels at @bgrx (4 bytes each, the fourth is ignored; @stride
 * bytes from row to row) to @out. Sides are 1 to CLEAR_MAX_SIDE. Returns the bytes appended, at
 * most 3 a pixel and 29. If more than @limit would be needed it returns 0, and @out and what is
 * known of the client are as before: the caller can compare with another codec at no other cost
 * than time, which is less if the limit is passed early. What @out has left is a limit too.
 */
size_t clear_encode(ClearEncoder *encoder, const uint8_t *bgrx, size_t stride, unsigned w,
                    unsigned h, size_t limit, Writer *out);

#endif
