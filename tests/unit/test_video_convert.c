/*
 * BGRX to 4:2:0: the SIMD twin equals the plain one to the bit, whatever the size and rectangle;
 * greys come back exactly through the client's formula; what is outside the rectangle and its
 * padding stays as it was.
 */
#include <glib.h>
#include <string.h>

#include "video_convert.h"
#include "video_trial.h"

static uint8_t *noise(uint32_t width, uint32_t height, uint32_t seed)
{
    size_t size = (size_t)width * height * 4;
    uint8_t *data = g_malloc(size);

    for (size_t i = 0; i < size; i++) {
        seed = seed * 1664525u + 1013904223u;
        /* a third of the bytes at the ends, where sums are largest */
        data[i] = seed >> 30 == 0 ? 0 : seed >> 30 == 1 ? 255 : (uint8_t)(seed >> 16);
    }
    return data;
}

static void planes_new(VideoPlanes *planes, uint32_t width, uint32_t height, int fill)
{
    uint32_t w = (width + 15) & ~15u, h = (height + 15) & ~15u;

    video_planes_init(planes, w, h);
    for (int p = 0; p < 3; p++)
        memset(planes->data[p], fill, (size_t)planes->stride[p] * (p ? h / 2 : h));
}

static void compare(const VideoPlanes *a, const VideoPlanes *b, uint32_t width, uint32_t height)
{
    uint32_t w = (width + 15) & ~15u, h = (height + 15) & ~15u;

    for (int p = 0; p < 3; p++) {
        for (uint32_t y = 0; y < (p ? h / 2 : h); y++)
            g_assert_cmpmem(a->data[p] + (size_t)y * a->stride[p], p ? w / 2 : w,
                            b->data[p] + (size_t)y * b->stride[p], p ? w / 2 : w);
    }
}

static const uint32_t sizes[][2] = {{1, 1},   {2, 2},    {15, 17},  {16, 16},  {31, 33},
                                    {64, 48}, {97, 101}, {640, 35}, {255, 255}};

static void test_twins(void)
{
    for (unsigned s = 0; s < G_N_ELEMENTS(sizes); s++) {
        uint32_t w = sizes[s][0], h = sizes[s][1];
        GfxRect all = {0, 0, (uint16_t)w, (uint16_t)h};
        uint8_t *data = noise(w, h, s);
        VideoPlanes a, b;

        planes_new(&a, w, h, 7);
        planes_new(&b, w, h, 99);
        video_convert(&a, data, w * 4, w, h, &all);
        video_convert_plain(&b, data, w * 4, w, h, &all);
        compare(&a, &b, w, h); /* every byte is written: 7 and 99 are gone */
        video_planes_clear(&a);
        video_planes_clear(&b);
        g_free(data);
    }
}

/* The picture in parts equals the picture at once, and a part leaves the rest alone. */
static void test_parts(void)
{
    const uint32_t w = 333, h = 201;
    const GfxRect parts[] = {{0, 0, 128, 64},     {128, 0, 333, 64},  {0, 64, 200, 128},
                             {200, 64, 333, 128}, {0, 128, 320, 201}, {320, 128, 333, 201}};
    GfxRect all = {0, 0, (uint16_t)w, (uint16_t)h};
    uint8_t *data = noise(w, h, 3);
    VideoPlanes whole, split;

    planes_new(&whole, w, h, 0);
    planes_new(&split, w, h, 1);
    video_convert(&whole, data, w * 4, w, h, &all);
    for (unsigned i = 0; i < G_N_ELEMENTS(parts); i++)
        video_convert(&split, data, w * 4, w, h, &parts[i]);
    compare(&whole, &split, w, h);

    video_planes_clear(&split);
    planes_new(&split, w, h, 1);
    video_convert(&split, data, w * 4, w, h, &parts[0]);
    for (int p = 0; p < 3; p++) {
        uint32_t right = p ? 64 : 128, bottom = p ? 32 : 64;
        for (uint32_t y = 0; y < (p ? 104u : 208u); y++) {
            for (uint32_t x = 0; x < (p ? 168u : 336u); x++) {
                if (x >= right || y >= bottom)
                    g_assert_cmpuint(split.data[p][(size_t)y * split.stride[p] + x], ==, 1);
            }
        }
    }
    video_planes_clear(&whole);
    video_planes_clear(&split);
    g_free(data);
}

/* The decoder's side, MS-RDPEGFX 3.3.8.3.1. */
static void to_rgb(int y, int u, int v, int rgb[3])
{
    rgb[0] = CLAMP((256 * y + 403 * (v - 128)) >> 8, 0, 255);
    rgb[1] = CLAMP((256 * y - 48 * (u - 128) - 120 * (v - 128)) >> 8, 0, 255);
    rgb[2] = CLAMP((256 * y + 475 * (u - 128)) >> 8, 0, 255);
}

static void test_colours(void)
{
    GfxRect all = {0, 0, 2, 2};
    VideoPlanes planes;

    planes_new(&planes, 2, 2, 0);
    for (unsigned c = 0; c < 0x1000; c++) {
        int want[3] = {(int)(c >> 8) * 17, (int)(c >> 4 & 15) * 17, (int)(c & 15) * 17}, got[3];
        uint8_t data[16];
        for (int i = 0; i < 4; i++) {
            data[i * 4] = (uint8_t)want[2];
            data[i * 4 + 1] = (uint8_t)want[1];
            data[i * 4 + 2] = (uint8_t)want[0];
            data[i * 4 + 3] = (uint8_t)(c * 7); /* rubbish */
        }
        video_convert(&planes, data, 8, 2, 2, &all);
        to_rgb(planes.data[0][0], planes.data[1][0], planes.data[2][0], got);
        bool grey = want[0] == want[1] && want[1] == want[2];
        for (int i = 0; i < 3; i++)
            g_assert_cmpint(ABS(got[i] - want[i]), <=, grey ? 0 : 3);
    }
    video_planes_clear(&planes);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/video-convert/twins", test_twins);
    g_test_add_func("/video-convert/parts", test_parts);
    g_test_add_func("/video-convert/colours", test_colours);
    return g_test_run();
}
