/*
 * Interleaved bitmaps of any pixels: FreeRDP decodes to the same, in no more than the bound. The
 * input is the width, the depth, a palette and, from its bits, pixels: two bits choose among the
 * row before and the palette, so that runs come about.
 */
#include "interleaved.h"

#include <assert.h>
#include <freerdp/codec/color.h>
#include <freerdp/codec/interleaved.h>
#include <stdlib.h>
#include <string.h>

#define SIDE 64u
#define PALETTE 3u

static void fill(uint8_t *bgrx, uint32_t w, uint32_t h, const uint32_t *palette,
                 const uint8_t *bits, size_t n)
{
    for (uint32_t i = 0; i < w * h; i++) {
        /* from the bottom, as they are coded */
        uint8_t *at = bgrx + ((size_t)(h - 1 - i / w) * w + i % w) * 4;
        unsigned choice = n > 0 ? bits[i / 4 % n] >> (2 * (i % 4)) & 3 : 0;
        uint32_t value = choice < PALETTE ? palette[choice] : 0;
        if (choice == PALETTE && i >= w)
            memcpy(&value, at + (size_t)w * 4, 4);
        memcpy(at, &value, 4);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const unsigned depths[] = {15, 16, 24};
    static const UINT32 formats[] = {PIXEL_FORMAT_RGB15, PIXEL_FORMAT_RGB16, PIXEL_FORMAT_BGRX32};
    static uint8_t bgrx[SIDE * SIDE * 4], shown[SIDE * SIDE * 4], wanted[SIDE * SIDE * 4];
    uint32_t palette[PALETTE];
    Reader r;
    Writer out;

    reader_init(&r, data, size);
    uint32_t w = 4 + reader_u8(&r) % (SIDE / 4) * 4, h = 1 + reader_u8(&r) % SIDE;
    unsigned d = reader_u8(&r) % 3, bytes = d == 2 ? 4 : 2;
    for (unsigned i = 0; i < PALETTE; i++)
        palette[i] = reader_u32(&r) & 0xFFFFFF;
    if (!reader_ok(&r))
        return 0;
    w = w > SIDE ? SIDE : w;
    size_t n = reader_left(&r);
    fill(bgrx, w, h, palette, reader_bytes(&r, n), n);

    BITMAP_INTERLEAVED_CONTEXT *decoder = bitmap_interleaved_context_new(FALSE);
    assert(decoder);
    writer_init(&out, INTERLEAVED_BOUND(w * h, depths[d]));
    interleaved_encode(bgrx, (size_t)w * 4, w, h, depths[d], &out);
    assert(writer_ok(&out));
    memset(shown, 0, sizeof(shown));
    memset(wanted, 0, sizeof(wanted));
    assert(interleaved_decompress(decoder, out.data, (UINT32)out.len, w, h, depths[d], shown,
                                  formats[d], w * bytes, 0, 0, w, h, NULL));
    assert(freerdp_image_copy(wanted, formats[d], w * bytes, 0, 0, w, h, bgrx, PIXEL_FORMAT_BGRX32,
                              w * 4, 0, 0, NULL, FREERDP_FLIP_NONE));
    for (size_t i = 0; i < (size_t)w * h * bytes; i++)
        assert((bytes == 4 && i % 4 == 3) || shown[i] == wanted[i]);
    writer_clear(&out);
    bitmap_interleaved_context_free(decoder);
    return 0;
}
