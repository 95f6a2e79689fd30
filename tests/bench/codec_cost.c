/*
 * codec-cost: bytes and time of the ClearCodec encoder on pictures made from a seed, before ZGFX.
 * "lz" is what zlib at its fastest leaves of the stream, for an idea of what ZGFX will see.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <zlib.h>

#include "clearcodec.h"
#include "clearcodec_priv.h"
#include "pictures.h"

#define STREAM_MAX (64u << 20)
#define ROUNDS 5

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static size_t deflated(const Writer *w)
{
    uLongf n = compressBound(w->len);
    uint8_t *out = malloc(n);

    if (!out || compress2(out, &n, w->data, w->len, 1) != Z_OK)
        abort();
    free(out);
    return n;
}

static void encode(ClearEncoder *e, const char *name, const Picture *p, Writer *out)
{
    out->len = 0;
    double start = now_ms();
    size_t n = clear_encode(e, p->bgrx, p->stride, p->w, p->h, SIZE_MAX, out);
    double ms = now_ms() - start;

    printf(
        "%-28s %8zu bytes (residual %zu, bands %zu, subcodecs %zu; lz %zu) %7.3f ms %6.0f MB/s\n",
        name, n, n == 4 ? 0 : e->residual.out.len, n == 4 ? 0 : e->bands.len,
        n == 4 ? 0 : e->subcodecs.len, deflated(out), ms, p->w * p->h * 4 / ms / 1e3);
}

/* @rounds different pictures of a kind. */
static void scene(ClearEncoder *e, const char *name, PictureKind kind, unsigned w, unsigned h,
                  unsigned rounds, uint32_t *seed, Writer *out)
{
    char label[64];

    for (unsigned i = 0; i < rounds; i++) {
        Picture p = picture_new(kind, w, h, seed);
        snprintf(label, sizeof(label), "%s %ux%u #%u", name, w, h, i + 1);
        encode(e, label, &p, out);
        picture_clear(&p);
    }
}

int main(void)
{
    static const char *const names[PICTURE_KINDS] = {"text",  "listing", "flat", "gradient",
                                                     "photo", "noise",   "mixed"};
    Writer out;

    writer_init(&out, STREAM_MAX);
    for (unsigned kind = 0; kind < PICTURE_KINDS; kind++) {
        ClearEncoder *e = clear_encoder_new();
        uint32_t seed = 1;
        scene(e, names[kind], kind, 1280, 800, ROUNDS, &seed, &out);
        scene(e, names[kind], kind, 1280, 48, ROUNDS, &seed, &out);
        scene(e, names[kind], kind, 64, 64, 3, &seed, &out);
        clear_encoder_free(e);
    }

    ClearEncoder *e = clear_encoder_new();
    uint32_t seed = 1;
    Picture glyph = picture_new(PICTURE_FLAT, 8, 16, &seed);
    picture_put_glyph(&glyph, 0, 0, 'e', 0xAAAAAA, 0);
    encode(e, "glyph, nothing known", &glyph, &out);
    encode(e, "glyph, again", &glyph, &out);
    scene(e, "text", PICTURE_TEXT, 1280, 800, 1, &seed, &out);
    picture_put_glyph(&glyph, 0, 0, 'q', 0xAAAAAA, 0);
    encode(e, "glyph, its columns known", &glyph, &out);
    encode(e, "glyph, again", &glyph, &out);
    picture_clear(&glyph);
    clear_encoder_free(e);
    writer_clear(&out);
    return 0;
}
