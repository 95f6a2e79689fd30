/*
 * RemoteFX of ours through FreeRDP's decoder: every kind of picture at every level, parts of
 * pictures, edges, and sizes that do not fit into tiles.
 */
#include "remotefx.h"

#include <freerdp/codec/color.h>
#include <freerdp/codec/rfx.h>
#include <freerdp/settings.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <winpr/wlog.h>

#include "pictures.h"

#define MAX_BYTES (64u << 20)

static RFX_CONTEXT *decoder_new(void)
{
    RFX_CONTEXT *rfx = rfx_context_new(FALSE);

    g_assert_nonnull(rfx);
    rfx_context_set_pixel_format(rfx, PIXEL_FORMAT_BGRX32);
    return rfx;
}

static void decode(RFX_CONTEXT *rfx, const Writer *w, Picture *onto)
{
    REGION16 drawn;

    region16_init(&drawn);
    g_assert_true(writer_ok(w));
    g_assert_true(rfx_process_message(rfx, w->data, (UINT32)w->len, 0, 0, onto->bgrx,
                                      PIXEL_FORMAT_BGRX32, (UINT32)onto->stride, onto->h, &drawn));
    region16_uninit(&drawn);
}

static Picture blank(unsigned w, unsigned h)
{
    return (Picture){w, h, (size_t)w * 4, calloc((size_t)w * h, 4)};
}

/* Mean square of what differs in a part. */
static double error(const Picture *a, const Picture *b, unsigned x, unsigned y, unsigned w,
                    unsigned h)
{
    double sum = 0;

    for (unsigned row = y; row < y + h; row++) {
        for (unsigned i = x * 4; i < (x + w) * 4; i++) {
            int d = a->bgrx[row * a->stride + i] - b->bgrx[row * b->stride + i];
            sum += i % 4 == 3 ? 0 : d * d;
        }
    }
    return sum / (3.0 * w * h);
}

static RemotefxPicture whole(const Picture *p)
{
    return (RemotefxPicture){p->bgrx, p->stride, (uint16_t)p->w, (uint16_t)p->h};
}

static double round_trip(const Picture *p, unsigned level, size_t *bytes)
{
    RFX_CONTEXT *rfx = decoder_new();
    RemotefxPicture picture = whole(p);
    Picture got = blank(p->w, p->h);
    Writer w;

    writer_init(&w, MAX_BYTES);
    remotefx_write_headers(&picture, &w);
    remotefx_write(&picture, 0, 0, picture.width, picture.height, level, 0, &w);
    decode(rfx, &w, &got);
    *bytes = w.len;
    double e = error(p, &got, 0, 0, p->w, p->h);
    writer_clear(&w);
    picture_clear(&got);
    rfx_context_free(rfx);
    return e;
}

/* FreeRDP's encoder, which has one quality. */
static double theirs(const Picture *p, size_t *bytes)
{
    RFX_CONTEXT *encoder = rfx_context_new(TRUE), *rfx = decoder_new();
    RFX_RECT rect = {0, 0, (UINT16)p->w, (UINT16)p->h};
    wStream *s = Stream_New(NULL, 65536);
    Picture got = blank(p->w, p->h);
    REGION16 drawn;

    rfx_context_set_pixel_format(encoder, PIXEL_FORMAT_BGRX32);
    g_assert_true(rfx_context_reset(encoder, p->w, p->h));
    g_assert_true(rfx_context_set_mode(encoder, RLGR3));
    g_assert_true(
        rfx_compose_message(encoder, s, &rect, 1, p->bgrx, p->w, p->h, (UINT32)p->stride));
    *bytes = Stream_GetPosition(s);
    region16_init(&drawn);
    g_assert_true(rfx_process_message(rfx, Stream_Buffer(s), (UINT32)*bytes, 0, 0, got.bgrx,
                                      PIXEL_FORMAT_BGRX32, (UINT32)got.stride, got.h, &drawn));
    region16_uninit(&drawn);
    double e = error(p, &got, 0, 0, p->w, p->h);
    picture_clear(&got);
    Stream_Free(s, TRUE);
    rfx_context_free(encoder);
    rfx_context_free(rfx);
    return e;
}

static void test_kinds(void)
{
    /* mean squares at level 0; 650 is a PSNR of 20 dB, 65 of 30, 6.5 of 40 */
    static const double most[PICTURE_KINDS] = {
        [PICTURE_TEXT] = 20,  [PICTURE_LISTING] = 20, [PICTURE_FLAT] = 10,  [PICTURE_GRADIENT] = 4,
        [PICTURE_PHOTO] = 10, [PICTURE_NOISE] = 200,  [PICTURE_MIXED] = 60,
    };
    uint32_t seed = 7;

    for (PictureKind kind = 0; kind < PICTURE_KINDS; kind++) {
        Picture p = picture_new(kind, 200, 130, &seed);
        size_t before = 0, their_bytes;
        double e_before = 0, their_error = theirs(&p, &their_bytes);

        g_test_message("kind %d FreeRDP: %zu bytes, mean square %.2f", kind, their_bytes,
                       their_error);
        for (unsigned level = 0; level < REMOTEFX_LEVELS; level++) {
            size_t bytes;
            double e = round_trip(&p, level, &bytes);
            if (level % 7 == 0)
                g_test_message("kind %d level %u: %zu bytes, mean square %.2f", kind, level, bytes,
                               e);
            if (level == 0)
                g_assert_cmpfloat(e, <, most[kind]);
            if (level % 7 == 0 && level > 0) {
                g_assert_cmpuint(bytes, <=, before); /* equal where only means are left */
                /* of noise nothing is left at last, and more of nothing may be nearer */
                g_assert_cmpfloat(e * 1.05, >=, e_before);
            }
            if (level % 7 == 0) {
                before = bytes;
                e_before = e;
            }
        }
        picture_clear(&p);
    }
}

/* What is flat stays flat, to the last pixels of each tile, in any colour and at any level. */
static void test_flat(void)
{
    static const uint32_t colours[] = {0x000000, 0x101010, 0x1e3a5f, 0xc08040, 0xffffff};

    for (unsigned i = 0; i < G_N_ELEMENTS(colours); i++) {
        Picture p = blank(130, 70);
        RemotefxPicture picture = whole(&p);

        for (unsigned at = 0; at < p.w * p.h; at++)
            memcpy(p.bgrx + at * 4u, &colours[i], 4);
        for (unsigned level = 0; level < REMOTEFX_LEVELS; level++) {
            RFX_CONTEXT *rfx = decoder_new();
            Picture got = blank(p.w, p.h);
            Writer w;

            writer_init(&w, MAX_BYTES);
            remotefx_write_headers(&picture, &w);
            remotefx_write(&picture, 0, 0, 130, 70, level, 0, &w);
            decode(rfx, &w, &got);
            for (unsigned at = 0; at < p.w * p.h * 4; at++)
                g_assert_true(at % 4 == 3 || got.bgrx[at] == got.bgrx[at % 4]);
            writer_clear(&w);
            picture_clear(&got);
            rfx_context_free(rfx);
        }
        picture_clear(&p);
    }
}

/* One pixel up to a tile and a bit, both ways. */
static void test_sizes(void)
{
    static const unsigned sides[] = {1, 2, 15, 63, 64, 65, 129};
    uint32_t seed = 3;

    for (unsigned i = 0; i < G_N_ELEMENTS(sides); i++) {
        for (unsigned j = 0; j < G_N_ELEMENTS(sides); j++) {
            Picture p = picture_new(PICTURE_PHOTO, sides[i], sides[j], &seed);
            size_t bytes;
            g_assert_cmpfloat(round_trip(&p, 0, &bytes), <, 12);
            picture_clear(&p);
        }
    }
}

/* A part changes that part and nothing else; the messages of one stream follow each other. */
static void test_parts(void)
{
    static const struct {
        uint16_t x, y, w, h;
    } parts[] = {
        {0, 0, 300, 64}, {16, 64, 48, 64}, {70, 80, 1, 1}, {0, 128, 300, 72}, {299, 199, 1, 1}};
    uint32_t seed = 5;
    Picture p = picture_new(PICTURE_PHOTO, 300, 200, &seed);
    RemotefxPicture picture = whole(&p);
    RFX_CONTEXT *rfx = decoder_new();

    for (unsigned i = 0; i < G_N_ELEMENTS(parts); i++) {
        Picture got = blank(300, 200), black = blank(300, 200);
        Writer w;

        writer_init(&w, MAX_BYTES);
        if (i == 0)
            remotefx_write_headers(&picture, &w);
        remotefx_write(&picture, parts[i].x, parts[i].y, parts[i].w, parts[i].h, 0, i, &w);
        decode(rfx, &w, &got);
        g_assert_cmpfloat(error(&p, &got, parts[i].x, parts[i].y, parts[i].w, parts[i].h), <, 20);
        for (unsigned y = 0; y < parts[i].h; y++)
            memset(got.bgrx + (parts[i].y + y) * got.stride + parts[i].x * 4u, 0, parts[i].w * 4u);
        g_assert_cmpfloat(error(&black, &got, 0, 0, 300, 200), ==, 0);
        writer_clear(&w);
        picture_clear(&got);
        picture_clear(&black);
    }
    rfx_context_free(rfx);
    picture_clear(&p);
}

static void test_speed(void)
{
    uint32_t seed = 1;
    Picture p = picture_new(PICTURE_PHOTO, 1280, 800, &seed);
    RemotefxPicture picture = whole(&p);
    Writer w;

    writer_init(&w, MAX_BYTES);
    for (unsigned level = 0; level < 22; level += 7) {
        clock_t start = clock();
        for (unsigned i = 0; i < 10; i++) {
            w.len = 0;
            remotefx_write(&picture, 0, 0, picture.width, picture.height, level, i, &w);
        }
        g_test_message("1280x800 of photograph, level %u: %zu bytes, %.1f ms", level, w.len,
                       (double)(clock() - start) / (10.0 * CLOCKS_PER_SEC / 1000));
    }
    RFX_CONTEXT *encoder = rfx_context_new_ex(TRUE, THREADING_FLAGS_DISABLE_THREADS);
    RFX_RECT rect = {0, 0, 1280, 800};
    wStream *s = Stream_New(NULL, 65536);

    rfx_context_set_pixel_format(encoder, PIXEL_FORMAT_BGRX32);
    g_assert_true(rfx_context_reset(encoder, p.w, p.h));
    g_assert_true(rfx_context_set_mode(encoder, RLGR3));
    clock_t start = clock();
    for (unsigned i = 0; i < 10; i++) {
        Stream_SetPosition(s, 0);
        g_assert_true(
            rfx_compose_message(encoder, s, &rect, 1, p.bgrx, p.w, p.h, (UINT32)p.stride));
    }
    g_test_message("FreeRDP: %zu bytes, %.1f ms", Stream_GetPosition(s),
                   (double)(clock() - start) / (10.0 * CLOCKS_PER_SEC / 1000));
    Stream_Free(s, TRUE);
    rfx_context_free(encoder);
    writer_clear(&w);
    picture_clear(&p);
}

int main(int argc, char **argv)
{
    WLog_SetLogLevel(WLog_GetRoot(), WLOG_OFF);
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/remotefx/kinds", test_kinds);
    g_test_add_func("/remotefx/flat", test_flat);
    g_test_add_func("/remotefx/sizes", test_sizes);
    g_test_add_func("/remotefx/parts", test_parts);
    if (g_test_perf())
        g_test_add_func("/remotefx/speed", test_speed);
    return g_test_run();
}
