/*
 * Loading a module and choosing among its codecs, with one whose codecs fail in every way
 * (tests/lib/fake_video), and keeping to a number of bytes. Loading is once per process, so each
 * way runs in a process of its own.
 */
#include <glib.h>
#include <math.h>
#include <string.h>

#include "log.h"
#include "video.h"
#include "video_rate.h"

static bool in_child(const char *mode)
{
    if (!g_test_subprocess()) {
        g_test_trap_subprocess(NULL, 0, G_TEST_SUBPROCESS_DEFAULT);
        g_test_trap_assert_passed();
        return false;
    }
    log_set_level(LOG_LEVEL_DEBUG);
    g_setenv("FAKE_VIDEO", mode, TRUE);
    return true;
}

static void test_no_codec(void)
{
    if (in_child("none")) {
        video_load(true);
        g_assert_false(video_available());
        g_assert_nonnull(strstr(video_text(), "install libx264"));
        g_assert_null(video_encoder_new(640, 480));
    } else {
        g_test_trap_assert_stderr("*absent: not there*none (no encoder works*");
    }
}

static void test_other_version(void)
{
    if (in_child("abi")) {
        video_load(true);
        g_assert_false(video_available());
        g_assert_nonnull(strstr(video_text(), "another version"));
    }
}

static void test_no_module(void)
{
    if (in_child("")) {
        g_setenv("QRDP_MODULE_DIR", "/nonexistent", TRUE);
        video_load(true);
        g_assert_false(video_available());
        g_assert_false(video_needs_gpu());
        g_assert_nonnull(strstr(video_text(), "libavcodec-dev"));
        g_assert_null(video_encoder_new(640, 480));
    }
}

static bool encode_as(VideoEncoder *encoder, const VideoWant *want, VideoInfo *info)
{
    static uint8_t bgrx[64 * 64 * 4];
    const GfxRect all = {0, 0, 64, 64};
    const VideoPicture picture = {bgrx, 64 * 4, &all, 1};
    Writer w;

    writer_init(&w, 1 << 20);
    bool ok = video_encode(encoder, &picture, want, &w, info);
    g_assert_cmpint(ok, ==, w.len > 0);
    writer_clear(&w);
    return ok;
}

static bool encode(VideoEncoder *encoder, bool key, VideoInfo *info)
{
    const VideoWant want = {.qp = 20, .key = key};

    return encode_as(encoder, &want, info);
}

/* Only what passed the trial is used; what breaks later is left for the next. */
static void test_choice(void)
{
    VideoInfo info;

    if (!in_child("")) {
        g_test_trap_assert_stderr("*rubbish: what it encodes does not decode*"
                                  "*no key: what it encodes does not decode*"
                                  "*unconfined: it needs --sandbox=off*"
                                  "*16x16 not with breaks: too small*16x16 with good*"
                                  "*breaks is not used any more: it broke*");
        return;
    }
    video_load(true);
    g_assert_true(video_available());
    g_assert_null(strstr(video_text(), "rubbish"));
    g_assert_null(strstr(video_text(), "delays"));
    VideoEncoder *first = video_encoder_new(16, 16), *second = video_encoder_new(64, 64);
    g_assert_nonnull(first); /* with another kind, and the one that refused is used as before */
    video_encoder_free(first);
    first = video_encoder_new(64, 64);
    g_assert_true(encode(second, false, &info));
    for (unsigned i = 0; i < 7; i++) {
        g_assert_true(encode(first, i == 3, &info));
        g_assert_cmpstr(info.codec, ==, "breaks");
        g_assert_cmpint(info.key, ==, i == 0 || i == 3);
    }
    g_assert_false(encode(first, false, &info));
    g_assert_false(encode(first, true, &info)); /* stays broken */
    video_encoder_free(first);
    g_assert_true(encode(second, false, &info)); /* has the same kind, and goes on */
    video_encoder_free(second);
    g_assert_true(video_available());
    first = video_encoder_new(64, 64);
    g_assert_true(encode(first, false, &info));
    g_assert_cmpstr(info.codec, ==, "good");
    g_assert_true(info.key);
    video_encoder_free(first);
}

static void check(VideoEncoder *encoder, const VideoWant *want, const char *codec, bool key)
{
    VideoInfo info;

    g_assert_true(encode_as(encoder, want, &info));
    g_assert_cmpstr(info.codec, ==, codec);
    g_assert_cmpint(info.key, ==, key);
}

/* A steady kind makes the usual pictures, and gives way once for others. */
static void test_steady(void)
{
    const VideoWant usual = {.qp = VIDEO_GOOD_QP}, coarse = {.qp = 30};
    const VideoWant enough = {.qp = VIDEO_GOOD_QP, .frame_bytes = 64 * 64},
                    few = {.qp = VIDEO_GOOD_QP, .frame_bytes = 64 * 64 / 4};

    if (!in_child("steady"))
        return;
    video_load(true);
    VideoEncoder *encoder = video_encoder_new(64, 64), *other = video_encoder_new(64, 64);
    check(encoder, &usual, "steady", true);
    check(encoder, &usual, "steady", false);
    check(encoder, &enough, "steady", false);
    check(encoder, &few, "breaks", true);
    check(encoder, &few, "breaks", false);
    check(encoder, &usual, "breaks", false);
    video_encoder_free(encoder);
    check(other, &coarse, "breaks", true);
    video_encoder_free(other);
}

static void test_unconfined(void)
{
    VideoInfo info;

    if (in_child("")) {
        video_load(false);
        VideoEncoder *encoder = video_encoder_new(64, 64);
        g_assert_true(encode(encoder, false, &info));
        g_assert_cmpstr(info.codec, ==, "unconfined");
        video_encoder_free(encoder);
    }
}

/* A codec in numbers: @need bytes at QP 0, less by half every six steps; key pictures four times.
 */
static double run_rate(VideoRate *rate, double need, uint32_t target, unsigned n, double *most)
{
    double sum = 0;

    for (unsigned i = 0; i < n; i++) {
        bool key = i == 0;
        double qp = video_rate_next(rate, key, 15, target);
        g_assert_cmpfloat(qp, >=, 15);
        g_assert_cmpfloat(qp, <=, VIDEO_MAX_QP);
        double bytes = need * (key ? 4 : 1) * pow(2, -qp / 6) * (1 + 0.2 * sin(i * 1.7));
        video_rate_coded(rate, key, qp, (uint32_t)bytes, target);
        *most = MAX(*most, bytes);
        sum += bytes;
    }
    return sum / n;
}

static void test_rate(void)
{
    double most = 0;
    VideoRate rate;

    video_rate_init(&rate, 640, 360);
    double mean = run_rate(&rate, 400000, 10000, 200, &most); /* harder, key picture included */
    g_assert_cmpfloat(mean, >, 9000);
    g_assert_cmpfloat(mean, <, 11500);
    g_assert_cmpfloat(most, <, 100000); /* no picture was seen before */
    most = 0;
    mean = run_rate(&rate, 1600000, 10000, 200, &most); /* the scene becomes harder at once */
    g_assert_cmpfloat(mean, <, 12500);
    most = 0;
    mean = run_rate(&rate, 20000, 10000, 100, &most); /* easy: the quality asked for, and no more */
    g_assert_cmpfloat(rate.qp, ==, 15);
    g_assert_cmpfloat(mean, <, 5000);
    g_assert_cmpfloat(video_rate_next(&rate, false, 30, 0), ==, 30); /* no limit */
    video_rate_coded(&rate, false, 30, 0, 0); /* nothing at all is no less than a byte */
    g_assert_true(isfinite(video_rate_next(&rate, false, 15, 1)));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/video-backend/no-codec", test_no_codec);
    g_test_add_func("/video-backend/other-version", test_other_version);
    g_test_add_func("/video-backend/no-module", test_no_module);
    g_test_add_func("/video-backend/choice", test_choice);
    g_test_add_func("/video-backend/steady", test_steady);
    g_test_add_func("/video-backend/unconfined", test_unconfined);
    g_test_add_func("/video-backend/rate", test_rate);
    return g_test_run();
}
