#include "video_scene.h"

#include <freerdp/codec/color.h>
#include <freerdp/codec/h264.h>
#include <glib.h>
#include <math.h>
#include <string.h>

#include "bytes.h"

#define SIDE 1024u /* of a texture, which repeats */

struct VideoScene {
    uint32_t width, height, seed;
    uint8_t *texture[2];
    uint8_t *bgrx;
};

static uint32_t next(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static uint8_t clip(int v)
{
    return (uint8_t)CLAMP(v, 0, 255);
}

/* Adds noise whose grain is @cell pixels, smooth between its points. */
static void add_octave(float *sum, unsigned cell, double amplitude, uint32_t *seed)
{
    unsigned n = SIDE / cell;
    float *at = g_new(float, (size_t)n *n);

    for (unsigned i = 0; i < n * n; i++)
        at[i] = (float)(((int)(next(seed) % 2001) - 1000) / 1000.0 * amplitude);
    for (unsigned y = 0; y < SIDE; y++) {
        unsigned y0 = y / cell, y1 = (y0 + 1) % n;
        float v = (float)(y % cell) / (float)cell;
        v = v * v * (3 - 2 * v);
        for (unsigned x = 0; x < SIDE; x++) {
            unsigned x0 = x / cell, x1 = (x0 + 1) % n;
            float u = (float)(x % cell) / (float)cell;
            u = u * u * (3 - 2 * u);
            float top = at[y0 * n + x0] + (at[y0 * n + x1] - at[y0 * n + x0]) * u;
            float bottom = at[y1 * n + x0] + (at[y1 * n + x1] - at[y1 * n + x0]) * u;
            sum[y * SIDE + x] += top + (bottom - top) * v;
        }
    }
    g_free(at);
}

/* Light in all octaves, colour in the coarse ones only, as in photographs. */
static uint8_t *make_texture(double detail, uint32_t seed)
{
    float *light = g_new0(float, SIDE *SIDE), *tint[3];
    uint8_t *texture = g_malloc((size_t)SIDE * SIDE * 4);

    for (int c = 0; c < 3; c++)
        tint[c] = g_new0(float, SIDE *SIDE);
    double amplitude = 60;
    for (unsigned cell = 256; cell >= 2; cell /= 2, amplitude *= 0.62) {
        add_octave(light, cell, amplitude * (cell <= 8 ? detail : 1), &seed);
        for (int c = 0; c < 3 && cell >= 16; c++)
            add_octave(tint[c], cell, amplitude / 2, &seed);
    }
    for (size_t i = 0; i < (size_t)SIDE * SIDE; i++) {
        for (int c = 0; c < 3; c++)
            texture[i * 4 + (size_t)c] = clip(128 + (int)(light[i] + tint[c][i]));
    }
    for (int c = 0; c < 3; c++)
        g_free(tint[c]);
    g_free(light);
    return texture;
}

VideoScene *video_scene_new(uint32_t width, uint32_t height, double detail)
{
    VideoScene *scene = g_new0(VideoScene, 1);

    scene->width = width;
    scene->height = height;
    scene->seed = 7;
    scene->texture[0] = make_texture(detail, 1);
    scene->texture[1] = make_texture(detail, 99);
    scene->bgrx = g_malloc0((size_t)width * height * 4);
    return scene;
}

void video_scene_free(VideoScene *scene)
{
    g_free(scene->texture[0]);
    g_free(scene->texture[1]);
    g_free(scene->bgrx);
    g_free(scene);
}

static void draw_disc(VideoScene *scene, unsigned t, int disc)
{
    int w = (int)scene->width, h = (int)scene->height, r = h / 12;
    int cx = (int)(w / 2.0 + w / 3.0 * sin(t * 0.04 + disc * 2));
    int cy = (int)(h / 2.0 + h / 3.0 * cos(t * 0.053 + disc * 2));

    for (int y = MAX(cy - r, 0); y < MIN(cy + r, h); y++) {
        for (int x = MAX(cx - r, 0); x < MIN(cx + r, w); x++) {
            if ((x - cx) * (x - cx) + (y - cy) * (y - cy) > r * r)
                continue;
            uint8_t *to = scene->bgrx + ((size_t)y * scene->width + (size_t)x) * 4;
            int grain = (int)(next(&scene->seed) % 3) - 1;
            for (int c = 0; c < 3; c++)
                to[c] = clip((c == disc ? 220 : 30) + grain);
        }
    }
}

const uint8_t *video_scene_picture(VideoScene *scene, unsigned t)
{
    int blend = (int)(256 * (0.5 + 0.4 * sin(t * 0.05)));

    for (uint32_t y = 0; y < scene->height; y++) {
        uint8_t *to = scene->bgrx + (size_t)y * scene->width * 4;
        const uint8_t *a = scene->texture[0] + (size_t)((y + t) % SIDE) * SIDE * 4;
        const uint8_t *b = scene->texture[1] + (size_t)((y + 2 * t) % SIDE) * SIDE * 4;
        for (uint32_t x = 0; x < scene->width; x++, to += 4) {
            const uint8_t *p = a + (size_t)((x + 3 * t) % SIDE) * 4;
            const uint8_t *q = b + (size_t)((x - 2 * t) % SIDE) * 4;
            int grain = (int)(next(&scene->seed) % 3) - 1;
            for (int c = 0; c < 3; c++)
                to[c] = clip(((p[c] * blend + q[c] * (256 - blend)) >> 8) + grain);
        }
    }
    for (int disc = 0; disc < 3; disc++)
        draw_disc(scene, t, disc);
    return scene->bgrx;
}

/* --- a client --- */

struct VideoScreen {
    uint32_t width, height;
    H264_CONTEXT *h264;
    uint8_t *pixels;
    unsigned rects, qp;
};

VideoScreen *video_screen_new(uint32_t width, uint32_t height)
{
    H264_CONTEXT *h264 = h264_context_new(FALSE);

    if (!h264)
        return NULL;
    VideoScreen *screen = g_new0(VideoScreen, 1);
    *screen = (VideoScreen){.width = width, .height = height, .h264 = h264};
    screen->pixels = g_malloc0((size_t)width * height * 4);
    g_assert_true(h264_context_reset(h264, width, height));
    return screen;
}

void video_screen_free(VideoScreen *screen)
{
    if (!screen)
        return;
    h264_context_free(screen->h264);
    g_free(screen->pixels);
    g_free(screen);
}

bool video_screen_show(VideoScreen *screen, const uint8_t *stream, size_t len)
{
    Reader r;

    reader_init(&r, stream, len);
    uint32_t n = reader_u32(&r);
    if (n == 0 || n > len / 8)
        return false;
    RECTANGLE_16 *rects = g_new(RECTANGLE_16, n);
    bool ok = true;
    for (uint32_t i = 0; i < n; i++) {
        rects[i].left = reader_u16(&r);
        rects[i].top = reader_u16(&r);
        rects[i].right = reader_u16(&r);
        rects[i].bottom = reader_u16(&r);
        ok = ok && rects[i].left < rects[i].right && rects[i].right <= screen->width &&
             rects[i].top < rects[i].bottom && rects[i].bottom <= screen->height;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint8_t qp = reader_u8(&r), quality = reader_u8(&r);
        ok = ok && qp <= 51 && quality <= 100;
        screen->qp = i == 0 ? qp : screen->qp;
    }
    screen->rects = n;
    size_t left = reader_left(&r);
    const uint8_t *data = reader_bytes(&r, left);
    ok = ok && reader_ok(&r) && left > 0 &&
         avc420_decompress(screen->h264, data, (UINT32)left, screen->pixels, PIXEL_FORMAT_BGRX32,
                           screen->width * 4, screen->width, screen->height, rects, n) > 0;
    g_free(rects);
    return ok;
}

uint8_t *video_screen_pixels(VideoScreen *screen)
{
    return screen->pixels;
}

unsigned video_screen_rects(const VideoScreen *screen)
{
    return screen->rects;
}

unsigned video_screen_qp(const VideoScreen *screen)
{
    return screen->qp;
}

/* --- how far apart --- */

double video_psnr(const uint8_t *a, const uint8_t *b, uint32_t width, uint32_t height)
{
    double sum = 0;

    for (size_t i = 0; i < (size_t)width * height * 4; i++) {
        if (i % 4 != 3)
            sum += (a[i] - b[i]) * (a[i] - b[i]);
    }
    return sum == 0 ? 99 : 10 * log10(255.0 * 255 * 3 * width * height / sum);
}

static float luma(const uint8_t *p)
{
    return 0.2126f * p[2] + 0.7152f * p[1] + 0.0722f * p[0];
}

static double ssim_window(const uint8_t *a, const uint8_t *b, size_t stride)
{
    const double c1 = 6.5025, c2 = 58.5225; /* (0.01 * 255)^2, (0.03 * 255)^2 */
    double sa = 0, sb = 0, saa = 0, sbb = 0, sab = 0;

    for (size_t y = 0; y < 8; y++) {
        for (size_t x = 0; x < 8; x++) {
            double p = luma(a + y * stride + x * 4), q = luma(b + y * stride + x * 4);
            sa += p;
            sb += q;
            saa += p * p;
            sbb += q * q;
            sab += p * q;
        }
    }
    double ma = sa / 64, mb = sb / 64;
    double va = saa / 64 - ma * ma, vb = sbb / 64 - mb * mb, cov = sab / 64 - ma * mb;
    return (2 * ma * mb + c1) * (2 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2));
}

double video_ssim(const uint8_t *a, const uint8_t *b, uint32_t width, uint32_t height)
{
    size_t stride = width * 4u;
    double sum = 0;
    unsigned n = 0;

    for (uint32_t y = 0; y + 8 <= height; y += 4) {
        for (uint32_t x = 0; x + 8 <= width; x += 4, n++)
            sum += ssim_window(a + y * stride + x * 4u, b + y * stride + x * 4u, stride);
    }
    return n ? sum / n : 1;
}
