/*
 * Interleaved bitmaps against FreeRDP's decoder: pictures of every kind and pictures made of runs,
 * at all depths, come back to the bit of their depth and never take more than the bound.
 */
#include "interleaved.h"

#include <freerdp/codec/color.h>
#include <freerdp/codec/interleaved.h>
#include <glib.h>
#include <string.h>

#include "pictures.h"

static const unsigned depths[] = {15, 16, 24};

/* A pixel as the format has it. */
static uint32_t coded(const uint8_t *p, unsigned bpp)
{
    if (bpp == 24)
        return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16;
    if (bpp == 15)
        return (uint32_t)(p[2] >> 3) << 10 | (uint32_t)(p[1] >> 3) << 5 | p[0] >> 3;
    return (uint32_t)(p[2] >> 3) << 11 | (uint32_t)(p[1] >> 2) << 5 | p[0] >> 3;
}

/* Decoded without widening: FreeRDP's makes 173 of green 42 at 16 bits, which is not 42 any more.
 */
static size_t check(const Picture *p, unsigned bpp)
{
    BITMAP_INTERLEAVED_CONTEXT *decoder = bitmap_interleaved_context_new(FALSE);
    const unsigned bytes = bpp == 24 ? 4 : 2;
    const UINT32 format = bpp == 24   ? PIXEL_FORMAT_BGRX32
                          : bpp == 16 ? PIXEL_FORMAT_RGB16
                                      : PIXEL_FORMAT_RGB15;
    uint8_t *shown = g_malloc0((size_t)p->w * p->h * bytes);
    Writer out;

    writer_init(&out, INTERLEAVED_BOUND(p->w * p->h, bpp));
    interleaved_encode(p->bgrx, p->stride, p->w, p->h, bpp, &out);
    g_assert_true(writer_ok(&out));
    g_assert_true(interleaved_decompress(decoder, out.data, (UINT32)out.len, p->w, p->h, bpp, shown,
                                         format, p->w * bytes, 0, 0, p->w, p->h, NULL));
    for (unsigned y = 0; y < p->h; y++) {
        for (unsigned x = 0; x < p->w; x++) {
            uint32_t got = 0;
            memcpy(&got, shown + ((size_t)y * p->w + x) * bytes, bpp == 24 ? 3 : 2);
            g_assert_cmphex(got, ==, coded(p->bgrx + y * p->stride + (size_t)x * 4, bpp));
        }
    }
    size_t len = out.len;
    writer_clear(&out);
    g_free(shown);
    bitmap_interleaved_context_free(decoder);
    return len;
}

static void test_pictures(void)
{
    const unsigned sizes[][2] = {{64, 64}, {64, 32}, {4, 64}, {64, 1}, {4, 1}, {20, 33}};
    uint32_t seed = 1;

    for (PictureKind kind = 0; kind < PICTURE_KINDS; kind++) {
        for (unsigned s = 0; s < G_N_ELEMENTS(sizes); s++) {
            Picture p = picture_new(kind, sizes[s][0], sizes[s][1], &seed);
            for (unsigned d = 0; d < G_N_ELEMENTS(depths); d++)
                check(&p, depths[d]);
            picture_clear(&p);
        }
    }
}

/* Runs of all lengths, of few colours, and of what was above: every header and its borders. */
static void draw_runs(Picture *p, uint32_t *seed)
{
    const uint32_t palette[] = {0, 0xFFFFFF, picture_random(seed), picture_random(seed)};
    unsigned longest = 1u << (1 + picture_random(seed) % 12), left = 0, kind = 0;
    uint32_t colour = 0;

    for (unsigned i = 0; i < p->w * p->h; i++) {
        /* from the bottom, as they are coded */
        uint8_t *at = p->bgrx + (p->h - 1 - i / p->w) * p->stride + (size_t)(i % p->w) * 4;
        if (left == 0) {
            left = 1 + picture_random(seed) % longest;
            kind = picture_random(seed) % 4;
            colour = palette[picture_random(seed) % G_N_ELEMENTS(palette)];
        }
        left--;
        uint32_t above = 0, value = colour;
        if (i >= p->w)
            memcpy(&above, at + p->stride, 4);
        if (kind == 1)
            value = above;
        else if (kind == 2)
            value = above ^ (picture_random(seed) & 1 ? colour : 0);
        else if (kind == 3)
            value = picture_random(seed);
        memcpy(at, &value, 4);
    }
}

static void test_runs(void)
{
    uint32_t seed = 7;

    for (unsigned round = 0; round < 400; round++) {
        unsigned w = 4 * (1 + picture_random(&seed) % 16), h = 1 + picture_random(&seed) % 64;
        Picture p = picture_new(PICTURE_NOISE, w, h, &seed);
        draw_runs(&p, &seed);
        for (unsigned d = 0; d < G_N_ELEMENTS(depths); d++)
            check(&p, depths[d]);
        picture_clear(&p);
    }
}

/* No larger than what FreeRDP makes of it at 16 bits, where its compressor is right. */
static void test_size(void)
{
    BITMAP_INTERLEAVED_CONTEXT *theirs = bitmap_interleaved_context_new(TRUE);
    static uint8_t out[INTERLEAVED_BOUND(4096, 32)];
    size_t ours = 0, others = 0;
    uint32_t seed = 3;

    for (PictureKind kind = 0; kind < PICTURE_KINDS; kind++) {
        Picture p = picture_new(kind, 64, 64, &seed);
        UINT32 len = sizeof out;
        size_t n = check(&p, 16);
        g_assert_true(interleaved_compress(theirs, out, &len, 64, 64, p.bgrx, PIXEL_FORMAT_BGRX32,
                                           (UINT32)p.stride, 0, 0, NULL, 16));
        g_test_message("kind %u: %zu bytes, FreeRDP %u", kind, n, len);
        ours += n;
        others += len;
        picture_clear(&p);
    }
    g_assert_cmpuint(ours, <=, others);
    bitmap_interleaved_context_free(theirs);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/interleaved/pictures", test_pictures);
    g_test_add_func("/interleaved/runs", test_runs);
    g_test_add_func("/interleaved/size", test_size);
    return g_test_run();
}
