/*
 * codec-cost: bytes and processor time of the ClearCodec encoder on pictures made from a seed, and
 * what ZGFX, which has seen the pictures before, leaves of these bytes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "clearcodec.h"
#include "clearcodec_priv.h"
#include "pictures.h"
#include "zgfx.h"

#define STREAM_MAX (64u << 20)
#define ROUNDS 5

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

typedef struct Bench {
    ClearEncoder *encoder;
    Zgfx *zgfx;
    uint32_t seed;
    Writer stream;
    Writer sent;
} Bench;

static Bench bench_new(void)
{
    Bench b = {clear_encoder_new(), zgfx_new(), 1, {0}, {0}};

    writer_init(&b.stream, STREAM_MAX);
    writer_init(&b.sent, 2 * STREAM_MAX);
    return b;
}

static void bench_clear(Bench *b)
{
    clear_encoder_free(b->encoder);
    zgfx_free(b->zgfx);
    writer_clear(&b->stream);
    writer_clear(&b->sent);
}

static void encode(Bench *b, const char *name, const Picture *p)
{
    const ClearEncoder *e = b->encoder;

    b->stream.len = b->sent.len = 0;
    double start = now_ms();
    size_t n = clear_encode(b->encoder, p->bgrx, p->stride, p->w, p->h, SIZE_MAX, &b->stream);
    double ms = now_ms() - start;
    zgfx_wrap(b->zgfx, b->stream.data, n, ZGFX_COMPRESS, &b->sent);
    printf("%-26s %8zu bytes, %7zu after ZGFX %7.3f ms %5.0f MB/s", name, n, b->sent.len, ms,
           p->w * p->h * 4 / ms / 1e3);
    if (n > 4)
        printf(" (residual %zu, bands %zu, subcodecs %zu)", e->residual.out.len, e->bands.len,
               e->subcodecs.len);
    printf("\n");
}

/* @rounds different pictures of a kind. */
static void scene(Bench *b, const char *name, PictureKind kind, unsigned w, unsigned h,
                  unsigned rounds)
{
    char label[64];

    for (unsigned i = 0; i < rounds; i++) {
        Picture p = picture_new(kind, w, h, &b->seed);
        snprintf(label, sizeof(label), "%s %ux%u #%u", name, w, h, i + 1);
        encode(b, label, &p);
        picture_clear(&p);
    }
}

int main(void)
{
    static const char *const names[PICTURE_KINDS] = {"text",  "listing", "flat", "gradient",
                                                     "photo", "noise",   "mixed"};

    for (unsigned kind = 0; kind < PICTURE_KINDS; kind++) {
        Bench b = bench_new();
        scene(&b, names[kind], kind, 1280, 800, ROUNDS);
        scene(&b, names[kind], kind, 1280, 48, ROUNDS);
        scene(&b, names[kind], kind, 64, 64, ROUNDS);
        bench_clear(&b);
    }

    Bench b = bench_new();
    Picture glyph = picture_new(PICTURE_FLAT, 8, 16, &b.seed);
    picture_put_glyph(&glyph, 0, 0, 'e', 0xAAAAAA, 0);
    encode(&b, "glyph, nothing known", &glyph);
    encode(&b, "glyph, again", &glyph);
    scene(&b, "text", PICTURE_TEXT, 1280, 800, 1);
    picture_put_glyph(&glyph, 0, 0, 'q', 0xAAAAAA, 0);
    encode(&b, "glyph, its columns known", &glyph);
    encode(&b, "glyph, again", &glyph);
    picture_clear(&glyph);
    bench_clear(&b);
    return 0;
}
