/*
 * Theory of operation. A codec may be in the library and not work: a GPU without a driver, a driver
 * that encodes rubbish, a version that holds pictures back. So each kind has to show it, with what
 * is hard for codecs and common on screens: two layers that move apart, with grain. Its own output
 * is decoded and compared with the last picture.
 *
 * Processor time is measured, not the clock: the machine may be busy at start, and what counts
 * later is what the guest is left with.
 */
#include "video_trial.h"

#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "video_convert.h"

#define WIDTH 1280u
#define HEIGHT 720u
#define PICTURES 5u
#define TRAVEL 16u /* pixels, over all pictures and each way */
#define TRIAL_QP 22.0
#define MEAN_ERROR 8.0 /* of luma; at this QP it is 2 to 4 */
#define LAYER_STRIDE ((WIDTH + 2 * TRAVEL) * 4u)

void video_planes_init(VideoPlanes *planes, uint32_t width, uint32_t height)
{
    for (int p = 0; p < 3; p++) {
        planes->stride[p] = ((p ? width / 2 : width) + 63) & ~63u;
        size_t size = (size_t)planes->stride[p] * (p ? height / 2 : height);
        planes->data[p] = aligned_alloc(64, (size + 63) & ~(size_t)63);
        if (!planes->data[p])
            abort();
        memset(planes->data[p], p ? 128 : 0, size);
    }
}

void video_planes_clear(VideoPlanes *planes)
{
    for (int p = 0; p < 3; p++) {
        free(planes->data[p]);
        planes->data[p] = NULL;
    }
}

/* Blobs of @cell pixels with grain: @seed makes another one. */
static uint8_t *make_layer(uint32_t cell, uint32_t seed)
{
    size_t size = (size_t)LAYER_STRIDE * (HEIGHT + 2 * TRAVEL);
    uint8_t *layer = g_malloc(size);

    for (size_t i = 0; i < size; i++) {
        uint32_t x = (uint32_t)(i % LAYER_STRIDE), y = (uint32_t)(i / LAYER_STRIDE);
        uint32_t blob =
            ((x / 4 / cell) * 2654435761u) ^ ((y / cell) * 2246822519u) ^ (seed + x % 4 * 77u);
        seed = seed * 1664525u + 1013904223u;
        layer[i] = (uint8_t)(96 + (blob * 2654435761u >> 26) + (seed >> 30));
    }
    return layer;
}

static void make_pictures(VideoPlanes planes[PICTURES])
{
    uint8_t *a = make_layer(23, 1), *b = make_layer(9, 2);
    uint8_t *bgrx = g_malloc((size_t)WIDTH * HEIGHT * 4);
    const GfxRect all = {0, 0, WIDTH, HEIGHT};

    for (uint32_t i = 0; i < PICTURES; i++) {
        uint32_t far = TRAVEL * i / PICTURES;
        for (uint32_t y = 0; y < HEIGHT; y++) {
            const uint8_t *p = a + (size_t)LAYER_STRIDE * (y + far) + (size_t)(TRAVEL + far) * 4;
            const uint8_t *q = b + (size_t)LAYER_STRIDE * (y + TRAVEL) + (size_t)(TRAVEL - far) * 4;
            uint8_t *to = bgrx + (size_t)y * WIDTH * 4;
            for (uint32_t x = 0; x < WIDTH * 4; x++)
                to[x] = (uint8_t)((p[x] + q[x]) / 2);
        }
        video_planes_init(&planes[i], WIDTH, HEIGHT);
        video_convert(&planes[i], bgrx, WIDTH * 4u, WIDTH, HEIGHT, &all);
    }
    g_free(bgrx);
    g_free(a);
    g_free(b);
}

static bool looks_right(const VideoBackend *backend, const VideoCoded *units, unsigned n,
                        const VideoPlanes *want)
{
    uint8_t *luma = g_malloc((size_t)WIDTH * HEIGHT);
    uint64_t error = 0;
    bool ok = backend->decode(units, n, WIDTH, HEIGHT, luma);

    for (uint32_t y = 0; y < HEIGHT && ok; y++) {
        const uint8_t *row = want->data[0] + (size_t)y * want->stride[0];
        for (uint32_t x = 0; x < WIDTH; x++)
            error += (uint64_t)abs(row[x] - luma[(size_t)y * WIDTH + x]);
    }
    g_free(luma);
    return ok && (double)error < MEAN_ERROR * WIDTH * HEIGHT;
}

static int64_t cpu_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void try_kind(const VideoBackend *backend, unsigned kind, const VideoPlanes *pictures,
                     VideoTrial *trial)
{
    VideoCoded units[PICTURES] = {0};
    unsigned n = 0;
    int64_t start = g_get_monotonic_time(), cpu = 0;
    VideoCodec *codec =
        backend->open(kind, WIDTH, HEIGHT, TRIAL_QP, trial->why, sizeof(trial->why));
    bool ok = codec != NULL;

    while (ok && n < PICTURES && (n < 2 || g_get_monotonic_time() - start < VIDEO_TRIAL_US)) {
        int64_t before = cpu_us();
        ok = backend->encode(codec, &pictures[n], TRIAL_QP, n == 0, &units[n], trial->why,
                             sizeof(trial->why));
        if (ok && n > 0) /* the first pays for setting up, and is a key picture */
            cpu += cpu_us() - before;
        if (ok) {
            units[n].data = g_memdup2(units[n].data, units[n].len);
            n++;
        }
    }
    backend->close(codec);
    if (ok && !(units[0].key && looks_right(backend, units, n, &pictures[n - 1]))) {
        snprintf(trial->why, sizeof(trial->why), "what it encodes does not decode to the picture");
        ok = false;
    }
    for (unsigned i = 0; i < n; i++)
        g_free((gpointer)units[i].data);
    trial->works = ok;
    if (ok)
        trial->cpu_us_per_kpixel = (double)cpu * 1000 / ((n - 1) * (double)WIDTH * HEIGHT);
}

void video_trial(const VideoBackend *backend, bool sandbox, VideoTrial *trials)
{
    VideoPlanes pictures[PICTURES];

    make_pictures(pictures);
    for (unsigned kind = 0; kind < backend->n_kinds; kind++) {
        trials[kind] = (VideoTrial){0};
        if (sandbox && backend->kinds[kind].unconfined)
            snprintf(trials[kind].why, sizeof(trials[kind].why), "it needs --sandbox=off");
        else
            try_kind(backend, kind, pictures, &trials[kind]);
    }
    for (unsigned i = 0; i < PICTURES; i++)
        video_planes_clear(&pictures[i]);
}
