/*
 * Theory of operation. The module says which kinds of codec it knows, best first; the trial says
 * which of them work and what they cost. A stream gets the first kind that works and whose cost for
 * its size keeps to FRAME_BUDGET_US, else the cheapest. A kind that refuses a size leaves that one
 * to the next. A kind that fails later is not used again by anybody: the next stream gets the next
 * kind, and in the end there is none.
 *
 * A steady kind is for links that carry its pictures. It gives way to one that takes a new quality
 * with each picture as soon as another than the usual one is needed, and is not taken back for that
 * stream: each change costs a key picture.
 *
 * The planes live as long as the encoder, so only what changed is converted. The client is told to
 * paint that only; its decoder has all of the picture.
 */
#include "video.h"

#include <glib.h>
#include <malloc.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "module.h"
#include "video_convert.h"
#include "video_rate.h"
#include "video_trial.h"

#define SUBJECT "H.264"
#define NO_CODEC "none (no encoder works: install libx264 and a libavcodec that uses it)"
/* Processor time of a picture that is well spent on a better one. In the trial: its picture takes
 * 1.6 times what textured video does. 12 ms keep a full screen of 1280x800 below what SPICE takes
 * for its JPEGs there (./dev bench display, cpu.fullvideo 0.93; with twice as much it was 1.16). */
#define FRAME_BUDGET_US 12000.0
#define STEADY_QP 1.0 /* a difference that is not worth a key picture */

static const VideoBackend *backend;         /* NULL: none; constant once opened */
static VideoTrial trials[VIDEO_MAX_CODECS]; /* with .text constant once .ready */
static char *text;
static gint ready;                    /* atomic: a codec works */
static gint failed[VIDEO_MAX_CODECS]; /* atomic */
static GThread *trying;

struct VideoEncoder {
    unsigned kind;
    VideoCodec *codec;
    uint32_t width, height;
    VideoPlanes planes;
    VideoRate rate;
    bool started, broken;
};

/* --- loading --- */

static const VideoBackend *find_backend(char **why)
{
    const VideoBackend *found =
        module_open("qrdp-h264", QRDP_VIDEO_BACKEND, VIDEO_BACKEND_ABI, "libavcodec", why);

    return found && found->n_kinds <= VIDEO_MAX_CODECS ? found : NULL;
}

static void describe(void)
{
    GString *found = g_string_new(NULL);

    for (unsigned i = 0; i < backend->n_kinds; i++) {
        if (trials[i].works)
            g_string_append_printf(found, "%s%s (%.1f ms per megapixel)", found->len ? ", " : "",
                                   backend->kinds[i].name, trials[i].cpu_us_per_kpixel);
        else
            log_debug(SUBJECT, "%s: %s", backend->kinds[i].name, trials[i].why);
    }
    text = g_string_free(found, FALSE);
}

void video_open(void)
{
    g_autofree char *why = NULL;

    g_return_if_fail(!text && !backend);
    backend = find_backend(&why);
    if (!backend) {
        text = g_strdup_printf("none (%s)", why);
        log_info(SUBJECT, "%s", text);
    }
}

static void try_codecs(bool sandbox)
{
    if (!backend)
        return;
    video_trial(backend, sandbox, trials);
    malloc_trim(0); /* 5 MB of small pieces */
    describe();
    log_info(SUBJECT, "%s", *text ? text : NO_CODEC);
    if (*text)
        g_atomic_int_set(&ready, 1);
}

static gpointer try_codecs_confined(gpointer unused)
{
    (void)unused;
    try_codecs(true);
    return NULL;
}

void video_load(bool sandbox)
{
    video_open();
    try_codecs(sandbox);
}

void video_try_later(void)
{
    g_return_if_fail(!trying);
    trying = g_thread_new("video", try_codecs_confined, NULL);
}

void video_finish(void)
{
    if (trying)
        g_thread_join(g_steal_pointer(&trying));
}

static bool loaded(void)
{
    return g_atomic_int_get(&ready) != 0;
}

bool video_available(void)
{
    for (unsigned i = 0; loaded() && i < backend->n_kinds; i++)
        if (trials[i].works && !g_atomic_int_get(&failed[i]))
            return true;
    return false;
}

bool video_needs_gpu(void)
{
    for (unsigned i = 0; loaded() && i < backend->n_kinds; i++)
        if (trials[i].works && backend->kinds[i].gpu)
            return true;
    return false;
}

const char *video_text(void)
{
    if (!backend)
        return text ? text : "none";
    return loaded() ? text : NO_CODEC;
}

/* --- one stream --- */

static uint32_t up16(uint32_t n)
{
    return (n + 15) & ~15u;
}

/* The kind for pictures of that many pixels, -1: none. @refused: a bit for each that does not
 * want to. */
static int choose_kind(double pixels, uint32_t refused)
{
    int cheapest = -1;

    for (unsigned i = 0; loaded() && i < backend->n_kinds; i++) {
        if (!trials[i].works || g_atomic_int_get(&failed[i]) || refused & 1u << i)
            continue;
        if (trials[i].cpu_us_per_kpixel * pixels / 1000 <= FRAME_BUDGET_US)
            return (int)i;
        if (cheapest < 0 || trials[i].cpu_us_per_kpixel < trials[cheapest].cpu_us_per_kpixel)
            cheapest = (int)i;
    }
    return cheapest;
}

static void give_up_kind(unsigned kind, const char *why)
{
    if (g_atomic_int_compare_and_exchange(&failed[kind], 0, 1))
        log_warning(SUBJECT, "%s is not used any more: %s", backend->kinds[kind].name, why);
}

/* The best kind for that size, multiples of 16, but for those @refused (a bit for each). NULL: none
 * wants it. */
static VideoCodec *open_codec(uint32_t w, uint32_t h, uint32_t refused, unsigned *kind)
{
    char why[128] = "";
    int chosen;

    while ((chosen = choose_kind((double)w * h, refused)) >= 0) {
        const char *name = backend->kinds[chosen].name;
        VideoCodec *codec = backend->open((unsigned)chosen, w, h, VIDEO_GOOD_QP, why, sizeof(why));
        if (codec) {
            *kind = (unsigned)chosen;
            log_debug(SUBJECT, "%ux%u with %s", w, h, name);
            return codec;
        }
        /* GPUs have least sizes of their own: it may well work for the next */
        log_debug(SUBJECT, "%ux%u not with %s: %s", w, h, name, why);
        refused |= 1u << chosen;
    }
    return NULL;
}

VideoEncoder *video_encoder_new(uint32_t width, uint32_t height)
{
    const uint32_t w = up16(width), h = up16(height);
    unsigned kind = 0;

    if (width < 1 || height < 1 || width > VIDEO_MAX_SIDE || height > VIDEO_MAX_SIDE)
        return NULL;
    VideoCodec *codec = open_codec(w, h, 0, &kind);
    if (!codec)
        return NULL;
    VideoEncoder *encoder = g_new0(VideoEncoder, 1);
    encoder->kind = kind;
    encoder->codec = codec;
    encoder->width = width;
    encoder->height = height;
    video_planes_init(&encoder->planes, w, h);
    video_rate_init(&encoder->rate, w, h);
    return encoder;
}

/* Takes a kind that follows what is asked for; false: there is none. */
static bool follow(VideoEncoder *encoder)
{
    uint32_t steady = 0;

    for (unsigned i = 0; i < backend->n_kinds; i++)
        steady |= (uint32_t)backend->kinds[i].steady << i;
    VideoCodec *codec =
        open_codec(up16(encoder->width), up16(encoder->height), steady, &encoder->kind);
    if (!codec)
        return false;
    backend->close(encoder->codec);
    encoder->codec = codec;
    return true;
}

void video_encoder_free(VideoEncoder *encoder)
{
    if (!encoder)
        return;
    backend->close(encoder->codec);
    video_planes_clear(&encoder->planes);
    g_free(encoder);
}

/* RFX_AVC420_BITMAP_STREAM (2.2.4.4): RFX_AVC420_METABLOCK and the access unit. The same quantiser
 * holds for every rectangle; its quality is said as FreeRDP's and others' servers do. */
static void write_stream(Writer *out, const VideoPicture *picture, const VideoCoded *coded)
{
    writer_u32(out, picture->n_rects);
    for (unsigned i = 0; i < picture->n_rects; i++) {
        writer_u16(out, picture->rects[i].left);
        writer_u16(out, picture->rects[i].top);
        writer_u16(out, picture->rects[i].right);
        writer_u16(out, picture->rects[i].bottom);
    }
    for (unsigned i = 0; i < picture->n_rects; i++) {
        writer_u8(out, (uint8_t)coded->qp); /* r and p are 0: not progressive */
        writer_u8(out, (uint8_t)(100 - coded->qp));
    }
    writer_bytes(out, coded->data, coded->len);
}

static void convert(VideoEncoder *encoder, const VideoPicture *picture)
{
    for (unsigned i = 0; i < picture->n_rects; i++)
        video_convert(&encoder->planes, picture->bgrx, picture->stride, encoder->width,
                      encoder->height, &picture->rects[i]);
}

bool video_encode(VideoEncoder *encoder, const VideoPicture *picture, const VideoWant *want,
                  Writer *out, VideoInfo *info)
{
    bool key = want->key || !encoder->started;
    double best = fmin(fmax(want->qp, VIDEO_MIN_QP), VIDEO_MAX_QP);
    double qp = video_rate_next(&encoder->rate, key, best, want->frame_bytes);
    VideoCoded coded = {0};
    char why[128] = "";
    size_t start = out->len;

    g_assert(picture->n_rects >= 1 && picture->n_rects <= VIDEO_MAX_RECTS);
    if (encoder->broken)
        return false;
    if (backend->kinds[encoder->kind].steady && fabs(qp - VIDEO_GOOD_QP) > STEADY_QP &&
        follow(encoder)) {
        key = true;
        qp = video_rate_next(&encoder->rate, key, best, want->frame_bytes);
    }
    convert(encoder, picture);
    if (!backend->encode(encoder->codec, &encoder->planes, qp, key, &coded, why, sizeof(why)) ||
        coded.len == 0) {
        encoder->broken = true;
        give_up_kind(encoder->kind, *why ? why : "it gave nothing");
        return false;
    }
    encoder->started = true;
    video_rate_coded(&encoder->rate, coded.key, qp, (uint32_t)coded.len, want->frame_bytes);
    write_stream(out, picture, &coded);
    if (!writer_ok(out)) {
        out->len = start;
        encoder->broken = true; /* the client's decoder will lack this picture */
        return false;
    }
    *info = (VideoInfo){.key = coded.key,
                        .qp = (uint8_t)coded.qp,
                        .len = out->len - start,
                        .codec = backend->kinds[encoder->kind].name};
    return true;
}
