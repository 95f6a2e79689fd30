/*
 * H.264 from the real module to FreeRDP's own decoder, which is what a client has. What the system
 * cannot encode or decode is skipped, with the reason.
 */
#include <glib.h>
#include <string.h>

#include "log.h"
#include "sandbox.h"
#include "video.h"
#include "video_scene.h"

#define MAX_STREAM (8u << 20)

typedef struct Pair {
    uint32_t width, height;
    VideoEncoder *encoder;
    VideoScreen *screen;
    VideoInfo info;
} Pair;

static bool usable(void)
{
    if (!video_available()) {
        g_test_skip(video_text());
        return false;
    }
    VideoScreen *screen = video_screen_new(64, 64);
    if (!screen)
        g_test_skip("this FreeRDP has no H.264 decoder");
    video_screen_free(screen);
    return screen != NULL;
}

static void pair_init(Pair *pair, uint32_t width, uint32_t height)
{
    *pair = (Pair){.width = width, .height = height};
    pair->encoder = video_encoder_new(width, height);
    pair->screen = video_screen_new(width, height);
    g_assert_nonnull(pair->encoder);
    g_assert_nonnull(pair->screen);
}

static void pair_clear(Pair *pair)
{
    video_encoder_free(pair->encoder);
    video_screen_free(pair->screen);
}

/* Encodes and shows; the length of the stream. */
static size_t play(Pair *pair, const uint8_t *bgrx, const GfxRect *rects, unsigned n,
                   const VideoWant *want)
{
    const GfxRect all = {0, 0, (uint16_t)pair->width, (uint16_t)pair->height};
    VideoPicture picture = {
        .bgrx = bgrx, .stride = pair->width * 4u, .rects = n ? rects : &all, .n_rects = n ? n : 1};
    Writer w;

    writer_init(&w, MAX_STREAM);
    writer_u8(&w, 0xAB); /* streams are appended */
    g_assert_true(video_encode(pair->encoder, &picture, want, &w, &pair->info));
    g_assert_cmpuint(w.data[0], ==, 0xAB);
    g_assert_cmpuint(pair->info.len, ==, w.len - 1);
    g_assert_true(video_screen_show(pair->screen, w.data + 1, w.len - 1));
    g_assert_cmpuint(video_screen_rects(pair->screen), ==, picture.n_rects);
    g_assert_cmpuint(video_screen_qp(pair->screen), ==, pair->info.qp);
    size_t len = w.len - 1;
    writer_clear(&w);
    return len;
}

static double psnr(const Pair *pair, const uint8_t *bgrx)
{
    return video_psnr(bgrx, video_screen_pixels(pair->screen), pair->width, pair->height);
}

static const uint32_t sizes[][2] = {{640, 360}, {64, 64}, {100, 75}, {33, 17},
                                    {2, 2},     {1, 1},   {1280, 24}};

/* A moving picture of every size: also odd ones, and smaller than a macroblock. */
static void test_sizes(void)
{
    if (!usable())
        return;
    for (unsigned s = 0; s < G_N_ELEMENTS(sizes); s++) {
        VideoScene *scene = video_scene_new(sizes[s][0], sizes[s][1], 1);
        const VideoWant want = {.qp = s % 2 ? 18 : VIDEO_GOOD_QP};
        Pair pair;

        pair_init(&pair, sizes[s][0], sizes[s][1]);
        for (unsigned t = 0; t < 6; t++) {
            const uint8_t *bgrx = video_scene_picture(scene, t);
            size_t len = play(&pair, bgrx, NULL, 0, &want);
            g_assert_cmpint(pair.info.key, ==, t == 0);
            double db = psnr(&pair, bgrx);
            if (t == 5)
                g_test_message("%ux%u: %zu bytes, %.1f dB, %s", sizes[s][0], sizes[s][1], len, db,
                               pair.info.codec);
            /* colour has half the resolution: the edges of saturated discs weigh in small ones */
            g_assert_cmpfloat(db, >, sizes[s][0] >= 640 ? 36 : 26);
        }
        pair_clear(&pair);
        video_scene_free(scene);
    }
}

/* Only the rectangles are read, and only they are painted. */
static void test_rects(void)
{
    const uint32_t w = 201, h = 135;
    const GfxRect rects[] = {{0, 0, 64, 64}, {128, 64, 201, 128}, {64, 128, 128, 135}};
    const VideoWant want = {.qp = 16};

    if (!usable())
        return;
    VideoScene *scene = video_scene_new(w, h, 1);
    Pair pair;
    pair_init(&pair, w, h);
    uint8_t *shown = g_memdup2(video_scene_picture(scene, 0), (size_t)w * h * 4);
    play(&pair, shown, NULL, 0, &want);
    for (unsigned t = 1; t < 5; t++) {
        const uint8_t *now = video_scene_picture(scene, t * 9);
        uint8_t *partly = g_malloc((size_t)w * h * 4);
        uint8_t *before = g_memdup2(video_screen_pixels(pair.screen), (size_t)w * h * 4);
        memset(partly, (int)(t * 50), (size_t)w * h * 4); /* rubbish outside */
        for (unsigned i = 0; i < G_N_ELEMENTS(rects); i++) {
            for (uint32_t y = rects[i].top; y < rects[i].bottom; y++) {
                size_t at = ((size_t)y * w + rects[i].left) * 4;
                size_t n = (size_t)(rects[i].right - rects[i].left) * 4;
                memcpy(partly + at, now + at, n);
                memcpy(shown + at, now + at, n);
            }
        }
        play(&pair, partly, rects, G_N_ELEMENTS(rects), &want);
        g_assert_cmpfloat(psnr(&pair, shown), >, 32);
        const uint8_t *after = video_screen_pixels(pair.screen);
        for (uint32_t y = 0; y < h; y++) {
            for (uint32_t x = 0; x < w; x++) {
                bool inside = false;
                for (unsigned i = 0; i < G_N_ELEMENTS(rects); i++)
                    inside |= x >= rects[i].left && x < rects[i].right && y >= rects[i].top &&
                              y < rects[i].bottom;
                if (!inside)
                    g_assert_cmpmem(before + ((size_t)y * w + x) * 4, 3,
                                    after + ((size_t)y * w + x) * 4, 3);
            }
        }
        g_free(before);
        g_free(partly);
    }
    /* a decoder has what was never painted, too: all of it, and nothing of the rubbish */
    play(&pair, shown, NULL, 0, &want);
    g_assert_cmpfloat(psnr(&pair, shown), >, 32);
    g_free(shown);
    pair_clear(&pair);
    video_scene_free(scene);
}

/* A key picture when one is asked for and never else; a decoder that starts there needs no more. */
static void test_keys(void)
{
    VideoWant want = {.qp = VIDEO_GOOD_QP};

    if (!usable())
        return;
    VideoScene *scene = video_scene_new(320, 200, 1);
    Pair pair;
    pair_init(&pair, 320, 200);
    for (unsigned t = 0; t < 40; t++) {
        /* every tenth picture is a cut, for which encoders like to make one */
        const uint8_t *bgrx = video_scene_picture(scene, t + t / 10 * 300);
        want.key = t == 13 || t == 14 || t == 30;
        if (t == 30) {
            video_screen_free(pair.screen);
            pair.screen = video_screen_new(320, 200);
        }
        play(&pair, bgrx, NULL, 0, &want);
        g_assert_cmpint(pair.info.key, ==, t == 0 || want.key);
        g_assert_cmpfloat(psnr(&pair, bgrx), >, 30);
    }
    pair_clear(&pair);
    video_scene_free(scene);
}

/* Better and worse from one picture to the next. */
static void test_quality(void)
{
    static const double qps[] = {38, 18, 30};
    double db[3];
    size_t bytes[3];

    if (!usable())
        return;
    VideoScene *scene = video_scene_new(320, 200, 1);
    Pair pair;
    pair_init(&pair, 320, 200);
    for (unsigned q = 0; q < 3; q++) {
        VideoWant want = {.qp = qps[q], .key = true};
        const uint8_t *bgrx = NULL;
        bytes[q] = 0;
        for (unsigned t = 0; t < 8; t++, want.key = false) {
            bgrx = video_scene_picture(scene, t);
            bytes[q] += play(&pair, bgrx, NULL, 0, &want);
        }
        db[q] = psnr(&pair, bgrx);
        g_test_message("qp %.0f: %.1f dB, %zu bytes a picture", qps[q], db[q], bytes[q] / 8);
    }
    g_assert_cmpfloat(db[0], <, db[2]);
    g_assert_cmpfloat(db[2], <, db[1]);
    g_assert_cmpuint(bytes[0], <, bytes[2]);
    g_assert_cmpuint(bytes[2], <, bytes[1]);
    pair_clear(&pair);
    video_scene_free(scene);
}

/* Bytes follow what is asked for: from the first picture on not far over, and on average close. */
static void test_bytes(void)
{
    static const uint32_t targets[] = {12000, 3000, 8000};

    if (!usable())
        return;
    VideoScene *scene = video_scene_new(320, 200, 6);
    Pair pair;
    pair_init(&pair, 320, 200);
    for (unsigned i = 0; i < G_N_ELEMENTS(targets); i++) {
        VideoWant want = {.qp = 12, .frame_bytes = targets[i]};
        size_t sum = 0;
        for (unsigned t = 0; t < 60; t++) {
            size_t len = play(&pair, video_scene_picture(scene, i * 60 + t), NULL, 0, &want);
            g_assert_cmpuint(len, <, (pair.info.key ? 8u : 4u) * targets[i]);
            sum += t < 20 ? 0 : len;
        }
        g_test_message("%u asked, %zu on average, qp %u", targets[i], sum / 40, pair.info.qp);
        g_assert_cmpuint(sum / 40, <, targets[i] * 115 / 100);
        g_assert_cmpuint(sum / 40, >, targets[i] * 70 / 100);
    }
    pair_clear(&pair);
    video_scene_free(scene);
}

/* A surface of another size is another encoder; sizes that cannot be are refused. */
static void test_limits(void)
{
    if (!usable())
        return;
    g_assert_null(video_encoder_new(0, 10));
    g_assert_null(video_encoder_new(10, VIDEO_MAX_SIDE + 1));
    VideoEncoder *most = video_encoder_new(VIDEO_MAX_SIDE, 16);
    g_assert_nonnull(most);
    video_encoder_free(most);
    video_encoder_free(NULL);

    /* a Writer without room: nothing is half written, and the encoder says so from then on */
    uint8_t *bgrx = g_malloc0(64 * 64 * 4);
    const GfxRect all = {0, 0, 64, 64};
    const VideoPicture picture = {bgrx, 64 * 4, &all, 1};
    const VideoWant want = {.qp = 20};
    VideoInfo info;
    VideoEncoder *encoder = video_encoder_new(64, 64);
    Writer w;
    writer_init(&w, 20);
    g_assert_false(video_encode(encoder, &picture, &want, &w, &info));
    g_assert_cmpuint(w.len, ==, 0);
    writer_clear(&w);
    writer_init(&w, MAX_STREAM);
    g_assert_false(video_encode(encoder, &picture, &want, &w, &info));
    writer_clear(&w);
    video_encoder_free(encoder);
    g_free(bgrx);
}

static gpointer encode_confined(gpointer data)
{
    static uint8_t bgrx[640 * 360 * 4];
    const GfxRect all = {0, 0, 640, 360};
    const VideoPicture picture = {bgrx, 640 * 4, &all, 1};
    const VideoWant want = {.qp = VIDEO_GOOD_QP};
    VideoEncoder *encoder = video_encoder_new(640, 360);
    VideoInfo info;
    Writer w;

    g_assert_nonnull(encoder);
    writer_init(&w, MAX_STREAM);
    for (unsigned t = 0; t < 5; t++) {
        memset(bgrx, (int)t * 40, sizeof(bgrx));
        g_assert_true(video_encode(encoder, &picture, &want, &w, &info));
    }
    writer_clear(&w);
    video_encoder_free(encoder);
    return data;
}

/* What was loaded before the process confined itself works afterwards, on a thread of later, and
 * leaves no thread behind that the sandbox would miss. */
static void test_confined(void)
{
    if (!sandbox_possible()) {
        g_test_skip("this build has sanitizers in it");
    } else if (!video_available()) {
        g_test_skip(video_text());
    } else if (!g_test_subprocess()) {
        g_test_trap_subprocess(NULL, 0, G_TEST_SUBPROCESS_DEFAULT);
        g_test_trap_assert_passed();
        g_test_trap_assert_stderr_unmatched("*keep their rights*");
    } else {
        const SandboxCalls calls = {.gpu = video_needs_gpu()};
        sandbox_confine();
        sandbox_filter(&calls);
        int done = 0;
        g_assert_true(g_thread_join(g_thread_new("encode", encode_confined, &done)) == &done);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_set_level(LOG_LEVEL_DEBUG);
    video_load(true);
    g_test_add_func("/video/sizes", test_sizes);
    g_test_add_func("/video/rects", test_rects);
    g_test_add_func("/video/keys", test_keys);
    g_test_add_func("/video/quality", test_quality);
    g_test_add_func("/video/bytes", test_bytes);
    g_test_add_func("/video/limits", test_limits);
    g_test_add_func("/video/confined", test_confined);
    return g_test_run();
}
