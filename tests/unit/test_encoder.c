/*
 * The encoders against FreeRDP's own decoders: what a client decodes is compared with the guest's
 * pixels, exactly where the path is lossless. Also the pool: delivery, abandonment, a context that
 * dies first.
 */
#include "encoder.h"

#include <freerdp/codec/interleaved.h>
#include <freerdp/codec/nsc.h>
#include <freerdp/codec/planar.h>
#include <freerdp/codec/rfx.h>
#include <freerdp/settings.h>
#include <glib.h>
#include <string.h>

#include "gfx_player.h"

/* FreeRDP 3.33 deprecates planar_decompress() for one that 3.10 does not have. */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

#define SURFACE 7

typedef struct Picture {
    Frame frame;
    Rect *rects;
} Picture;

static gint live_frames;

/* Frames of this test are freed by the test, so that a reference too many or few shows. */
Frame *frame_ref(Frame *frame)
{
    g_atomic_int_inc(&frame->refs);
    return frame;
}

void frame_unref(Frame *frame)
{
    if (g_atomic_int_dec_and_test(&frame->refs)) {
        Picture *picture = (Picture *)frame;
        g_free(picture->rects);
        g_free(frame->pixels);
        g_free(picture);
        g_atomic_int_add(&live_frames, -1);
    }
}

typedef enum Pattern { SOLID, TEXT, NOISE, GRADIENT, MIXED, N_PATTERNS } Pattern;

static uint32_t colour_at(Pattern pattern, uint32_t x, uint32_t y, uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    switch (pattern) {
    case SOLID:
        return 0x204060;
    case TEXT: /* glyph-like: 8x16 cells, most of the right half empty */
        if (x > 400 || (y / 16 * 31 + x / 8 * 17) % 5 == 0)
            return 0;
        return ((x * 7 + y * 13 + x * y / 3) % 4 == 0) ? 0xAAAAAA : 0;
    case NOISE:
        return *seed >> 8;
    case GRADIENT:
        return (x & 255) | (y & 255) << 8 | ((x + y) & 255) << 16;
    default:
        return x / 64 % 3 == 0 ? 0x0000FF : y / 64 % 2 ? *seed >> 8 : (x ^ y) & 8 ? 0xFFFFFF : 0;
    }
}

/* A picture all of which is valid; the X bytes are rubbish on purpose. */
static Frame *picture_new(Pattern pattern, uint32_t width, uint32_t height)
{
    Picture *p = g_new0(Picture, 1);
    uint32_t seed = 1;

    g_atomic_int_inc(&live_frames);
    p->frame = (Frame){.refs = 1, .width = width, .height = height, .stride = width * 4 + 64};
    p->frame.pixels = g_malloc((size_t)p->frame.stride * height);
    memset(p->frame.pixels, 0xEE, (size_t)p->frame.stride * height);
    for (uint32_t y = 0; y < height; y++) {
        for (uint32_t x = 0; x < width; x++) {
            uint32_t c = colour_at(pattern, x, y, &seed);
            uint8_t *to = p->frame.pixels + (size_t)y * p->frame.stride + x * 4;
            to[0] = (uint8_t)c;
            to[1] = (uint8_t)(c >> 8);
            to[2] = (uint8_t)(c >> 16);
            to[3] = (uint8_t)(seed >> 24);
        }
    }
    p->rects = g_new(Rect, 1);
    p->rects[0] = (Rect){0, 0, (int32_t)width, (int32_t)height};
    p->frame.rects = p->rects;
    p->frame.n_rects = 1;
    return &p->frame;
}

static uint8_t *canvas_new(const Frame *frame)
{
    uint8_t *canvas = g_malloc((size_t)frame->width * frame->height * 4);
    memset(canvas, 0x55, (size_t)frame->width * frame->height * 4);
    return canvas;
}

/* Largest difference of a colour channel inside the frame's rectangles; outside, the canvas must
 * be untouched. */
static unsigned difference(const Frame *frame, const uint8_t *canvas)
{
    uint8_t *inside = g_malloc0((size_t)frame->width * frame->height);
    unsigned worst = 0;

    for (uint32_t i = 0; i < frame->n_rects; i++) {
        const Rect *r = &frame->rects[i];
        for (int32_t y = r->y; y < r->y + r->h; y++)
            memset(inside + (size_t)y * frame->width + r->x, 1, (size_t)r->w);
    }
    for (uint32_t y = 0; y < frame->height; y++) {
        for (uint32_t x = 0; x < frame->width; x++) {
            const uint8_t *want = frame->pixels + (size_t)y * frame->stride + x * 4;
            const uint8_t *got = canvas + ((size_t)y * frame->width + x) * 4;
            if (!inside[(size_t)y * frame->width + x]) {
                g_assert_cmpuint(got[0], ==, 0x55);
                continue;
            }
            for (unsigned c = 0; c < 3; c++)
                worst = MAX(worst, (unsigned)ABS((int)want[c] - (int)got[c]));
        }
    }
    g_free(inside);
    return worst;
}

static void play_gfx(const EncodedFrame *encoded, uint8_t *canvas)
{
    const Frame *frame = encoded->frame;
    GfxPlayer *player = gfx_player_new();

    gfx_player_surface(player, SURFACE, frame->width, frame->height);
    gfx_player_play(player, encoded->bytes.data, encoded->bytes.len, ENCODER_MAX_PDU);
    memcpy(canvas, gfx_player_pixels(player, SURFACE), (size_t)frame->width * frame->height * 4);
    gfx_player_free(player);
}

static const uint32_t sizes[][2] = {{1, 1}, {64, 64}, {65, 67}, {720, 400}, {1366, 130}};

static void test_gfx_lossless(void)
{
    EncoderParams params = {.path = ENCODER_GFX, .bpp = 32};

    for (unsigned p = 0; p < N_PATTERNS; p++) {
        for (unsigned s = 0; s < G_N_ELEMENTS(sizes); s++) {
            Encoder *encoder = encoder_new(&params);
            Frame *frame = picture_new(p, sizes[s][0], sizes[s][1]);
            EncodedFrame *encoded = encoder_encode(encoder, frame, SURFACE, false);
            uint8_t *canvas = canvas_new(frame);

            g_assert_nonnull(encoded);
            play_gfx(encoded, canvas);
            g_assert_cmpuint(difference(frame, canvas), ==, 0);
            g_test_message("pattern %u %ux%u: %zu bytes, %d us", p, frame->width, frame->height,
                           encoded->bytes.len, (int)encoded->encode_us);
            if (p == SOLID)
                g_assert_cmpuint(encoded->bytes.len, <, 64);
            if (p == NOISE) /* never larger than raw planes and headers */
                g_assert_cmpuint(encoded->bytes.len, <=,
                                 frame->width * frame->height * 33 / 10 + 128);
            g_free(canvas);
            encoded_frame_unref(encoded);
            frame_unref(frame);
            encoder_free(encoder);
        }
    }
    g_assert_cmpint(g_atomic_int_get(&live_frames), ==, 0);
}

static void test_gfx_parts_only(void)
{
    EncoderParams params = {.path = ENCODER_GFX, .bpp = 32};
    Encoder *encoder = encoder_new(&params);
    Frame *frame = picture_new(MIXED, 700, 300);
    Picture *p = (Picture *)frame;
    uint8_t *canvas = canvas_new(frame);

    g_free(p->rects);
    p->rects = g_new(Rect, 3);
    p->rects[0] = (Rect){64, 0, 128, 64};
    p->rects[1] = (Rect){640, 64, 60, 192};
    p->rects[2] = (Rect){0, 256, 192, 44};
    frame->rects = p->rects;
    frame->n_rects = 3;
    EncodedFrame *encoded = encoder_encode(encoder, frame, SURFACE, false);
    play_gfx(encoded, canvas);
    g_assert_cmpuint(difference(frame, canvas), ==, 0);
    g_free(canvas);
    encoded_frame_unref(encoded);
    frame_unref(frame);
    encoder_free(encoder);
}

static void test_gfx_blank(void)
{
    EncoderParams params = {.path = ENCODER_GFX, .bpp = 32};
    Encoder *encoder = encoder_new(&params);
    Frame *frame = picture_new(NOISE, 300, 200);
    uint8_t *canvas = canvas_new(frame);

    frame->blank = true;
    frame->n_rects = 0;
    EncodedFrame *encoded = encoder_encode(encoder, frame, SURFACE, false);
    play_gfx(encoded, canvas);
    for (size_t i = 0; i < (size_t)300 * 200 * 4; i += 4)
        g_assert_true(canvas[i] == 0 && canvas[i + 1] == 0 && canvas[i + 2] == 0);
    g_free(canvas);
    encoded_frame_unref(encoded);
    frame_unref(frame);
    encoder_free(encoder);
}

/* A client's side of the legacy paths. */

static void play_bitmap(const EncodedFrame *encoded, const EncodedPart *part, unsigned bpp,
                        BITMAP_PLANAR_CONTEXT *planar, BITMAP_INTERLEAVED_CONTEXT *interleaved,
                        uint8_t *canvas)
{
    const uint8_t *data = encoded->bytes.data + part->offset;
    uint32_t stride = part->width * 4;
    uint8_t *tile = g_malloc0((size_t)stride * part->height);

    g_assert_cmpuint(part->width % 4, ==, 0);
    g_assert_cmpuint(part->width, <=, 64);
    g_assert_cmpuint(part->height, ==, (uint32_t)part->dest.h);
    if (!part->compressed) {
        g_assert_cmpuint(part->len, ==, (size_t)stride * part->height);
        for (uint32_t y = 0; y < part->height; y++)
            memcpy(tile + (size_t)y * stride, data + (size_t)(part->height - 1 - y) * stride,
                   stride);
    } else if (bpp == 32) {
        g_assert_true(planar_decompress(planar, data, (UINT32)part->len, part->width, part->height,
                                        tile, PIXEL_FORMAT_BGRX32, stride, 0, 0, part->width,
                                        part->height, TRUE));
    } else {
        g_assert_true(interleaved_decompress(interleaved, data, (UINT32)part->len, part->width,
                                             part->height, bpp, tile, PIXEL_FORMAT_BGRX32, stride,
                                             0, 0, part->width, part->height, NULL));
    }
    for (int32_t y = 0; y < part->dest.h; y++)
        memcpy(canvas + ((size_t)(part->dest.y + y) * encoded->frame->width + part->dest.x) * 4,
               tile + (size_t)y * stride, (size_t)part->dest.w * 4);
    g_free(tile);
}

static void play_bitmaps(const EncodedFrame *encoded, unsigned bpp, size_t max, uint8_t *canvas)
{
    BITMAP_PLANAR_CONTEXT *planar = freerdp_bitmap_planar_context_new(0, 64, 64);
    BITMAP_INTERLEAVED_CONTEXT *interleaved = bitmap_interleaved_context_new(FALSE);

    for (guint i = 0; i < encoded->parts->len; i++) {
        const EncodedPart *part = &g_array_index(encoded->parts, EncodedPart, i);
        g_assert_cmpuint(part->len, <=, max);
        play_bitmap(encoded, part, bpp, planar, interleaved, canvas);
    }
    freerdp_bitmap_planar_context_free(planar);
    bitmap_interleaved_context_free(interleaved);
}

static void check_bitmaps(unsigned bpp, bool skip_alpha, size_t max, unsigned tolerance)
{
    EncoderParams params = {
        .path = ENCODER_BITMAP, .bpp = bpp, .skip_alpha = skip_alpha, .max_part = max};
    Encoder *encoder = encoder_new(&params);

    for (unsigned p = 0; p < N_PATTERNS; p++) {
        for (unsigned s = 0; s < G_N_ELEMENTS(sizes); s++) {
            Frame *frame = picture_new(p, sizes[s][0], sizes[s][1]);
            EncodedFrame *encoded = encoder_encode(encoder, frame, 0, false);
            uint8_t *canvas = canvas_new(frame);

            g_assert_nonnull(encoded);
            play_bitmaps(encoded, bpp, max, canvas);
            g_assert_cmpuint(difference(frame, canvas), <=, tolerance);
            g_free(canvas);
            encoded_frame_unref(encoded);
            frame_unref(frame);
        }
    }
    encoder_free(encoder);
}

static void test_bitmap_32(void)
{
    check_bitmaps(32, true, 65536, 0);
    check_bitmaps(32, false, 16000, 0); /* rdesktop: no alpha skipping, no multifragment */
}

static void test_bitmap_low_depth(void)
{
    check_bitmaps(24, false, 65536, 0);
    check_bitmaps(16, false, 16000, 8); /* five bits per channel */
    check_bitmaps(15, false, 16000, 8);
}

static void play_rfx(RFX_CONTEXT *decoder, const EncodedFrame *encoded, uint8_t *canvas)
{
    const Frame *frame = encoded->frame;
    REGION16 region;

    g_assert_cmpint(encoded->path, ==, ENCODER_RFX);
    region16_init(&region);
    for (guint i = 0; i < encoded->parts->len; i++) {
        const EncodedPart *part = &g_array_index(encoded->parts, EncodedPart, i);
        g_assert_cmpuint(part->len, <=, 65536);
        g_assert_true(rfx_process_message(decoder, encoded->bytes.data + part->offset,
                                          (UINT32)part->len, 0, 0, canvas, PIXEL_FORMAT_BGRX32,
                                          frame->width * 4, frame->height, &region));
    }
    region16_uninit(&region);
}

static void test_rfx(void)
{
    EncoderParams params = {.path = ENCODER_RFX, .bpp = 32, .max_part = 65536};
    Encoder *encoder = encoder_new(&params);
    RFX_CONTEXT *decoder = rfx_context_new(FALSE);

    for (unsigned s = 0; s < G_N_ELEMENTS(sizes); s++) {
        Frame *frame = picture_new(TEXT, sizes[s][0], sizes[s][1]);
        EncodedFrame *encoded = encoder_encode(encoder, frame, 0, false);
        uint8_t *canvas = canvas_new(frame);

        g_assert_true(rfx_context_reset(decoder, frame->width, frame->height));
        play_rfx(decoder, encoded, canvas);
        g_assert_cmpuint(difference(frame, canvas), <, 200); /* lossy: the right picture, roughly */
        g_free(canvas);
        encoded_frame_unref(encoded);

        /* the refinement of the same encoder is exact */
        canvas = canvas_new(frame);
        encoded = encoder_encode(encoder, frame, 0, true);
        g_assert_cmpint(encoded->path, ==, ENCODER_BITMAP);
        play_bitmaps(encoded, 32, 65536, canvas);
        g_assert_cmpuint(difference(frame, canvas), ==, 0);
        g_free(canvas);
        encoded_frame_unref(encoded);
        frame_unref(frame);
    }
    rfx_context_free(decoder);
    encoder_free(encoder);
}

/* The first message of all is so long that it is made in parts: they decode all the same. */
static void test_rfx_noise(void)
{
    EncoderParams params = {.path = ENCODER_RFX, .bpp = 32, .max_part = 65536};
    Encoder *encoder = encoder_new(&params);
    RFX_CONTEXT *decoder = rfx_context_new(FALSE);
    Frame *frame = picture_new(NOISE, 1000, 300);
    EncodedFrame *encoded = encoder_encode(encoder, frame, 0, false);
    uint8_t *canvas = canvas_new(frame);

    g_assert_cmpuint(encoded->parts->len, >, 4);
    play_rfx(decoder, encoded, canvas);
    g_assert_cmpuint(difference(frame, canvas), <, 200);
    g_free(canvas);
    encoded_frame_unref(encoded);
    frame_unref(frame);
    rfx_context_free(decoder);
    encoder_free(encoder);
}

static void test_nsc(void)
{
    EncoderParams params = {.path = ENCODER_NSC, .bpp = 32, .max_part = 65536};
    Encoder *encoder = encoder_new(&params);
    NSC_CONTEXT *decoder = nsc_context_new();

    for (unsigned p = 0; p < N_PATTERNS; p++) {
        Frame *frame = picture_new(p, 720, 400);
        EncodedFrame *encoded = encoder_encode(encoder, frame, 0, false);
        uint8_t *canvas = canvas_new(frame);

        g_assert_nonnull(encoded);
        for (guint i = 0; i < encoded->parts->len; i++) {
            const EncodedPart *part = &g_array_index(encoded->parts, EncodedPart, i);
            g_assert_cmpuint(part->len, <=, 65536);
            /* at the origin of its own picture: newer FreeRDP checks the place against the size */
            uint8_t *tile = g_malloc0((size_t)part->width * part->height * 4);
            g_assert_true(nsc_process_message(decoder, 32, part->width, part->height,
                                              encoded->bytes.data + part->offset, (UINT32)part->len,
                                              tile, PIXEL_FORMAT_BGRX32, part->width * 4u, 0, 0,
                                              part->width, part->height, FREERDP_FLIP_VERTICAL));
            for (uint32_t y = 0; y < part->height; y++)
                memcpy(canvas + ((uint32_t)part->dest.y + y) * frame->width * 4 +
                           (uint32_t)part->dest.x * 4,
                       tile + (size_t)y * part->width * 4, part->width * 4u);
            g_free(tile);
        }
        g_test_message("nsc pattern %u: difference %u, %zu bytes", p, difference(frame, canvas),
                       encoded->bytes.len);
        g_assert_cmpuint(difference(frame, canvas), <=, 4);
        g_free(canvas);
        encoded_frame_unref(encoded);
        frame_unref(frame);
    }
    nsc_context_free(decoder);
    encoder_free(encoder);
}

/* The pool */

typedef struct Wait {
    Encoder *encoder;
    EncodedFrame *encoded;
    unsigned done;
} Wait;

static void on_done(void *user, Encoder *encoder, EncodedFrame *encoded)
{
    Wait *wait = user;

    wait->encoder = encoder;
    wait->encoded = encoded;
    wait->done++;
}

static void spin(GMainContext *context, const gint *value, gint want)
{
    gint64 deadline = g_get_monotonic_time() + 20 * G_USEC_PER_SEC;

    while (g_atomic_int_get(value) != want) {
        g_main_context_iteration(context, FALSE);
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
    }
}

static void test_pool(void)
{
    EncoderParams params = {.path = ENCODER_GFX, .bpp = 32};
    GMainContext *context = g_main_context_new();
    const EncoderOrder order = {.surface = SURFACE, .frame_id = 1};
    Wait wait = {0};

    encoder_submit(encoder_new(&params), picture_new(TEXT, 640, 480), &order, context, on_done,
                   &wait);
    spin(context, (const gint *)&wait.done, 1);
    g_assert_nonnull(wait.encoder);
    g_assert_nonnull(wait.encoded);
    encoded_frame_unref(wait.encoded);

    /* abandoned: not delivered, everything freed */
    EncoderJob *job =
        encoder_submit(wait.encoder, picture_new(TEXT, 640, 480), &order, context, on_done, &wait);
    encoder_abandon(job);
    spin(context, &live_frames, 0);
    g_assert_cmpuint(wait.done, ==, 1);

    /* the loop dies before the job is delivered: still everything is freed */
    encoder_submit(encoder_new(&params), picture_new(NOISE, 640, 480), &order, context, on_done,
                   &wait);
    g_main_context_unref(context);
    spin(NULL, &live_frames, 0);
    g_assert_cmpuint(wait.done, ==, 1);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/encoder/gfx/lossless", test_gfx_lossless);
    g_test_add_func("/encoder/gfx/parts-only", test_gfx_parts_only);
    g_test_add_func("/encoder/gfx/blank", test_gfx_blank);
    g_test_add_func("/encoder/bitmap/32", test_bitmap_32);
    g_test_add_func("/encoder/bitmap/low-depth", test_bitmap_low_depth);
    g_test_add_func("/encoder/rfx", test_rfx);
    g_test_add_func("/encoder/rfx-noise", test_rfx_noise);
    g_test_add_func("/encoder/nsc", test_nsc);
    g_test_add_func("/encoder/pool", test_pool);
    return g_test_run();
}
