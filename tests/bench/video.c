/*
 * What a picture of video costs: processor time with conversion, bytes, and how like the original
 * it is, over qualities. See docs/graphics.md.
 *
 *      QRDP_MODULE_DIR=build/src build/tests/bench/video-figures [DETAIL [BYTES]]
 *
 * DETAIL: of the scene (video_scene.h). BYTES: of a picture of 640x360, scaled for other sizes;
 * without it the quality alone decides.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "video.h"
#include "video_scene.h"

#define PICTURES 30u
#define MAX_STREAM (16u << 20)

static double cpu_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void measure(uint32_t width, uint32_t height, double detail, double qp, uint32_t frame_bytes)
{
    VideoScene *scene = video_scene_new(width, height, detail);
    VideoEncoder *encoder = video_encoder_new(width, height);
    VideoScreen *screen = video_screen_new(width, height);
    const GfxRect all = {0, 0, (uint16_t)width, (uint16_t)height};
    double ms = 0, bytes = 0, ssim = 0;
    size_t key_bytes = 0;
    VideoInfo info = {0};

    if (!encoder || !screen) {
        printf("# no encoder or decoder: %s\n", video_text());
        exit(1);
    }
    for (unsigned t = 0; t < PICTURES; t++) {
        const uint8_t *bgrx = video_scene_picture(scene, t);
        VideoPicture picture = {bgrx, width * 4u, &all, 1};
        VideoWant want = {.qp = qp, .frame_bytes = frame_bytes};
        Writer w;
        writer_init(&w, MAX_STREAM);
        double start = cpu_ms();
        if (!video_encode(encoder, &picture, &want, &w, &info))
            exit(1);
        double took = cpu_ms() - start;
        if (!video_screen_show(screen, w.data, w.len))
            exit(1);
        if (t == 0) {
            key_bytes = w.len;
        } else {
            ms += took;
            bytes += (double)w.len;
            ssim += video_ssim(bgrx, video_screen_pixels(screen), width, height);
        }
        writer_clear(&w);
    }
    printf("%ux%u qp %4.1f: %5.2f ms  %7.0f bytes  ssim %.4f  key %zu bytes  last qp %u  %s\n",
           width, height, qp, ms / (PICTURES - 1), bytes / (PICTURES - 1), ssim / (PICTURES - 1),
           key_bytes, info.qp, info.codec);
    fflush(stdout);
    video_encoder_free(encoder);
    video_screen_free(screen);
    video_scene_free(scene);
}

int main(int argc, char **argv)
{
    static const uint32_t sizes[][2] = {{640, 360}, {1280, 800}, {1920, 1080}};
    static const double qps[] = {18, 21, VIDEO_GOOD_QP, 24};
    double detail = argc > 1 ? atof(argv[1]) : 1;
    uint32_t bytes = argc > 2 ? (uint32_t)atoi(argv[2]) : 0;

    video_load(true);
    for (unsigned s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        uint64_t scaled = (uint64_t)bytes * sizes[s][0] * sizes[s][1] / (640 * 360);
        for (unsigned q = 0; q < (bytes ? 1u : sizeof(qps) / sizeof(qps[0])); q++)
            measure(sizes[s][0], sizes[s][1], detail, bytes ? 12 : qps[q], (uint32_t)scaled);
    }
    return 0;
}
