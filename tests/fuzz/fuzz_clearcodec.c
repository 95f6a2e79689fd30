/*
 * ClearCodec streams of any pictures, in any order, with limits, resets and losses: FreeRDP decodes
 * to the same pixels. A case is a list of pictures: how to make it, size, and a seed or pixels.
 */
#include "clearcodec.h"

#include <assert.h>
#include <freerdp/codec/clear.h>
#include <freerdp/codec/color.h>
#include <stdlib.h>
#include <string.h>

#include "pictures.h"

#define STREAM_MAX (1u << 20)
#define MAX_PICTURES 12
#define FROM_INPUT PICTURE_KINDS /* pixels from a palette of 4, by the bits that follow */
#define KINDS (PICTURE_KINDS + 1)

static Picture take_picture(Reader *r)
{
    unsigned kind = reader_u8(r) % KINDS;
    unsigned w = 1 + reader_u8(r), h = 1 + reader_u8(r) % 80;
    uint32_t seed = reader_u16(r);
    Picture p = picture_new(kind == FROM_INPUT ? PICTURE_NOISE : kind, w, h, &seed);

    if (kind == FROM_INPUT) {
        size_t n = reader_left(r) < 200 ? reader_left(r) : 200;
        const uint8_t *bits = reader_bytes(r, n);
        for (size_t i = 0; bits && n > 0 && i < (size_t)w * h; i++) {
            uint32_t colour = (uint32_t)(bits[i / 4 % n] >> (2 * (i % 4)) & 3) * 0x402010 ^ seed;
            memcpy(p.bgrx + i / w * p.stride + i % w * 4, &colour, 4);
        }
    }
    return p;
}

static void show(CLEAR_CONTEXT *decoder, const Writer *out, const Picture *p)
{
    uint8_t *canvas = calloc((size_t)p->w * p->h, 4);

    assert(canvas);
    assert(clear_decompress(decoder, out->data, (UINT32)out->len, p->w, p->h, canvas,
                            PIXEL_FORMAT_BGRX32, p->w * 4, 0, 0, p->w, p->h, NULL) == 0);
    for (unsigned y = 0; y < p->h; y++) {
        for (unsigned x = 0; x < p->w; x++)
            assert(memcmp(canvas + ((size_t)y * p->w + x) * 4,
                          p->bgrx + y * p->stride + (size_t)x * 4, 3) == 0);
    }
    free(canvas);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ClearEncoder *encoder = clear_encoder_new();
    CLEAR_CONTEXT *decoder = clear_context_new(FALSE);
    Reader r;
    Writer out;

    assert(decoder);
    reader_init(&r, data, size);
    writer_init(&out, STREAM_MAX);
    for (unsigned i = 0; i < MAX_PICTURES && reader_left(&r) >= 8; i++) {
        unsigned what = reader_u8(&r);
        size_t limit = what & 1 ? SIZE_MAX : reader_u16(&r);
        Picture p = take_picture(&r);
        out.len = 0;
        size_t n = clear_encode(encoder, p.bgrx, p.stride, p.w, p.h, limit, &out);
        assert(n == out.len && n <= limit);
        assert(n > 0 || limit < (size_t)p.w * p.h * 3 + 29);
        if (n > 0 && what % 16 == 15)
            clear_encoder_reset(encoder, (uint8_t)(clear_encoder_sequence(encoder) - 1));
        else if (n > 0)
            show(decoder, &out, &p);
        picture_clear(&p);
    }
    writer_clear(&out);
    clear_context_free(decoder);
    clear_encoder_free(encoder);
    return 0;
}
