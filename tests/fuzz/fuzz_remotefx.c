/*
 * RemoteFX of any pixels, of any part of a picture and at any level: FreeRDP decodes it, draws that
 * part and nothing else, and at the best level the pixels are close to what they were. The input is
 * the sizes, the level, a palette and two bits a pixel, which choose among the row above and the
 * palette.
 */
#include "remotefx.h"

#include <assert.h>
#include <freerdp/codec/color.h>
#include <freerdp/codec/rfx.h>
#include <stdlib.h>
#include <string.h>

#define SIDE 140u
#define PALETTE 3u
#define FILL 0xA5
#define MAX_MEAN_SQUARE 500 /* noise has 150 */

static void fill(uint8_t *bgrx, unsigned w, unsigned h, const uint32_t *palette,
                 const uint8_t *bits, size_t n)
{
    for (unsigned i = 0; i < w * h; i++) {
        unsigned choice = n > 0 ? bits[i / 4 % n] >> (2 * (i % 4)) & 3 : 0;
        uint32_t value = choice < PALETTE ? palette[choice] : 0;
        if (choice == PALETTE && i >= w)
            memcpy(&value, bgrx + (size_t)(i - w) * 4, 4);
        memcpy(bgrx + (size_t)i * 4, &value, 4);
    }
}

static void check(const uint8_t *want, const uint8_t *got, const RemotefxPicture *p, unsigned x,
                  unsigned y, unsigned w, unsigned h, unsigned level)
{
    double sum = 0;

    for (unsigned i = 0; i < (unsigned)p->width * p->height; i++) {
        unsigned column = i % p->width, row = i / p->width;
        bool inside = column >= x && column < x + w && row >= y && row < y + h;
        for (unsigned c = 0; c < 3; c++) {
            int d = got[i * 4 + c] - want[i * 4 + c];
            assert(inside || got[i * 4 + c] == FILL);
            sum += inside ? d * d : 0;
        }
    }
    assert(level > 0 || sum <= 3.0 * w * h * MAX_MEAN_SQUARE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t bgrx[SIDE * SIDE * 4], shown[SIDE * SIDE * 4];
    uint32_t palette[PALETTE];
    REGION16 drawn;
    Reader r;
    Writer out;

    reader_init(&r, data, size);
    unsigned width = 1 + reader_u8(&r) % SIDE, height = 1 + reader_u8(&r) % SIDE;
    unsigned x = reader_u8(&r) % width, y = reader_u8(&r) % height;
    unsigned w = 1 + reader_u8(&r) % (width - x), h = 1 + reader_u8(&r) % (height - y);
    unsigned level = reader_u8(&r) % REMOTEFX_LEVELS;
    for (unsigned i = 0; i < PALETTE; i++)
        palette[i] = reader_u32(&r);
    if (!reader_ok(&r))
        return 0;
    size_t n = reader_left(&r);
    fill(bgrx, width, height, palette, reader_bytes(&r, n), n);

    const RemotefxPicture picture = {bgrx, (size_t)width * 4, (uint16_t)width, (uint16_t)height};
    RFX_CONTEXT *decoder = rfx_context_new(FALSE);
    assert(decoder);
    rfx_context_set_pixel_format(decoder, PIXEL_FORMAT_BGRX32);
    writer_init(&out, 1u << 20);
    remotefx_write_headers(&picture, &out);
    remotefx_write(&picture, (uint16_t)x, (uint16_t)y, (uint16_t)w, (uint16_t)h, level, 0, &out);
    assert(writer_ok(&out));
    memset(shown, FILL, sizeof(shown));
    region16_init(&drawn);
    assert(rfx_process_message(decoder, out.data, (UINT32)out.len, 0, 0, shown, PIXEL_FORMAT_BGRX32,
                               width * 4, height, &drawn));
    region16_uninit(&drawn);
    check(bgrx, shown, &picture, x, y, w, h, level);
    writer_clear(&out);
    rfx_context_free(decoder);
    return 0;
}
