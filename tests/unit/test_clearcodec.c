/*
 * The ClearCodec encoder against FreeRDP's decoder: what a client shows after every stream is what
 * was encoded, in streams whose caches wrap, are reset, and are taken back. Also the two forms of
 * the column pass against each other.
 */
#include "clearcodec.h"

#include <freerdp/codec/clear.h>
#include <freerdp/codec/color.h>
#include <glib.h>
#include <string.h>

#include "clearcodec_priv.h"
#include "pictures.h"

#define STREAM_MAX (64u << 20)

/* A client and the server's side of it. */
typedef struct Pair {
    ClearEncoder *encoder;
    CLEAR_CONTEXT *decoder;
    Writer out;
    uint64_t streams;
} Pair;

static Pair pair_new(void)
{
    Pair p = {.encoder = clear_encoder_new(), .decoder = clear_context_new(FALSE)};

    g_assert_nonnull(p.decoder);
    writer_init(&p.out, STREAM_MAX);
    return p;
}

static void pair_clear(Pair *p)
{
    clear_encoder_free(p->encoder);
    clear_context_free(p->decoder);
    writer_clear(&p->out);
}

static void check_picture(const Picture *picture, const uint8_t *canvas, size_t stride, unsigned at)
{
    for (unsigned y = 0; y < picture->h; y++) {
        const uint8_t *want = picture->bgrx + y * picture->stride;
        const uint8_t *got = canvas + (y + at) * stride + (size_t)at * 4;
        for (unsigned x = 0; x < picture->w; x++) {
            if (memcmp(want + x * 4, got + x * 4, 3) != 0)
                g_error("pixel %u,%u of %ux%u differs", x, y, picture->w, picture->h);
        }
    }
}

/* Shows the bytes of p->out as the client does, on a larger screen, and compares. */
static void show(Pair *p, const Picture *picture)
{
    const unsigned at = 3;
    unsigned w = picture->w + 2 * at, h = picture->h + 2 * at;
    uint8_t *canvas = g_malloc((size_t)w * h * 4);

    memset(canvas, 0x55, (size_t)w * h * 4);
    g_assert_cmpint(clear_decompress(p->decoder, p->out.data, (UINT32)p->out.len, picture->w,
                                     picture->h, canvas, PIXEL_FORMAT_BGRX32, w * 4, at, at, w, h,
                                     NULL),
                    ==, 0);
    check_picture(picture, canvas, (size_t)w * 4, at);
    g_assert_cmphex(canvas[((size_t)at * w + at - 1) * 4], ==, 0x55);
    g_assert_cmphex(canvas[((size_t)at * w + at + picture->w) * 4], ==, 0x55);
    g_assert_cmphex(canvas[((size_t)(at + picture->h) * w + at) * 4], ==, 0x55);
    g_free(canvas);
    p->streams++;
}

static size_t encode(Pair *p, const Picture *picture, size_t limit)
{
    p->out.len = 0;
    size_t n = clear_encode(p->encoder, picture->bgrx, picture->stride, picture->w, picture->h,
                            limit, &p->out);
    g_assert_cmpuint(n, ==, p->out.len);
    g_assert_cmpuint(n, <=, limit);
    return n;
}

static size_t round_trip(Pair *p, const Picture *picture)
{
    size_t n = encode(p, picture, SIZE_MAX);

    g_assert_cmpuint(n, >, 0);
    g_assert_cmpuint(n, <=, (size_t)picture->w * picture->h * 3 + 29);
    show(p, picture);
    return n;
}

static size_t round_trip_new(Pair *p, PictureKind kind, unsigned w, unsigned h, uint32_t *seed)
{
    Picture picture = picture_new(kind, w, h, seed);
    size_t n = round_trip(p, &picture);

    picture_clear(&picture);
    return n;
}

/* Every size of a tile, with every kind in turn. */
static void test_sizes(void)
{
    Pair p = pair_new();
    uint32_t seed = 1;

    for (unsigned h = 1; h <= 64; h++) {
        for (unsigned w = 1; w <= 64; w++)
            round_trip_new(&p, (w + h * 3) % PICTURE_KINDS, w, h, &seed);
    }
    pair_clear(&p);
}

static void test_large(void)
{
    static const unsigned sizes[][2] = {{1280, 800}, {1280, 48}, {720, 400}, {1, 900},
                                        {900, 1},    {255, 255}, {256, 256}, {2999, 53}};
    Pair p = pair_new();
    uint32_t seed = 2;

    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        for (unsigned kind = 0; kind < PICTURE_KINDS; kind++)
            round_trip_new(&p, kind, sizes[i][0], sizes[i][1], &seed);
    }
    pair_clear(&p);
}

/* One client for thousands of streams: all three rings go round, and are reset in between. */
static void test_wraps(void)
{
    Pair p = pair_new();
    uint32_t seed = 3;
    unsigned resets = 0;

    while (p.encoder->shorts.pushes < CLEAR_SHORT_VBARS * 3 / 2 ||
           p.encoder->vbars.pushes < CLEAR_VBARS * 3 / 2 ||
           p.encoder->glyphs.pushes < CLEAR_GLYPHS * 3 / 2) {
        uint32_t r = picture_random(&seed);
        bool glyph = r % 8 != 0;
        round_trip_new(&p, (r >> 3) % (glyph ? PICTURE_KINDS : PICTURE_FLAT),
                       1 + (r >> 6) % (glyph ? 40 : 500), 1 + (r >> 15) % (glyph ? 30 : 90), &seed);
        if (r % 1000 == 0) {
            clear_encoder_reset(p.encoder, clear_encoder_sequence(p.encoder));
            resets++;
        }
    }
    g_assert_cmpuint(resets, >, 0);
    pair_clear(&p);
}

/* A limit that is too low changes nothing: the client never sees that stream. */
static void test_limit(void)
{
    Pair p = pair_new();
    uint32_t seed = 4;

    for (unsigned i = 0; i < 3000; i++) {
        uint32_t r = picture_random(&seed);
        Picture picture =
            picture_new(r % PICTURE_KINDS, 1 + (r >> 4) % 200, 1 + (r >> 12) % 70, &seed);
        size_t limit = picture_random(&seed) % ((size_t)picture.w * picture.h * 3 + 40);
        if (encode(&p, &picture, limit) > 0)
            show(&p, &picture);
        else if (r % 3 == 0)
            g_assert_cmpuint(round_trip(&p, &picture), >, limit);
        picture_clear(&picture);
    }
    /* what the Writer has left is a limit too, and it does not fail */
    Picture noise = picture_new(PICTURE_NOISE, 30, 30, &seed);
    Writer small;
    writer_init(&small, 100);
    g_assert_cmpuint(
        clear_encode(p.encoder, noise.bgrx, noise.stride, noise.w, noise.h, SIZE_MAX, &small), ==,
        0);
    g_assert_true(writer_ok(&small));
    round_trip(&p, &noise);
    writer_clear(&small);
    picture_clear(&noise);
    pair_clear(&p);
}

/* Streams that were made and not sent: the sequence goes on where the client is. */
static void test_unsent(void)
{
    Pair p = pair_new();
    uint32_t seed = 5;

    for (unsigned i = 0; i < 700; i++) {
        unsigned lost = i % 7 ? 0 : 1 + i % 5;
        for (unsigned k = 0; k < lost; k++) {
            Picture picture = picture_new(k % PICTURE_KINDS, 200, 40, &seed);
            g_assert_cmpuint(encode(&p, &picture, SIZE_MAX), >, 0);
            picture_clear(&picture);
        }
        if (lost > 0)
            clear_encoder_reset(p.encoder, (uint8_t)(clear_encoder_sequence(p.encoder) - lost));
        round_trip_new(&p, i % PICTURE_KINDS, 150, 48, &seed);
    }
    pair_clear(&p);
}

/* The fourth byte does not matter, and the same pictures make the same bytes. */
static void test_deterministic(void)
{
    Pair a = pair_new(), b = pair_new();
    uint32_t seed = 6;

    for (unsigned i = 0; i < 200; i++) {
        Picture picture = picture_new(i % PICTURE_KINDS, 1 + i, 1 + i % 64, &seed);
        size_t n = encode(&a, &picture, SIZE_MAX);
        for (unsigned y = 0; y < picture.h; y++) {
            for (unsigned x = 0; x < picture.w; x++)
                picture.bgrx[y * picture.stride + x * 4 + 3] = (uint8_t)picture_random(&seed);
        }
        g_assert_cmpmem(a.out.data, n, (encode(&b, &picture, SIZE_MAX), b.out.data), b.out.len);
        picture_clear(&picture);
    }
    pair_clear(&a);
    pair_clear(&b);
}

/* What the layers are for, with room to spare. */
static void test_sizes_of_streams(void)
{
    Pair p = pair_new();
    uint32_t seed = 7;
    Picture solid = {64, 64, 256, g_malloc0(64 * 256)};
    Picture glyph = {8, 16, 32, g_malloc0(16 * 32)};

    g_assert_cmpuint(round_trip(&p, &solid), ==, 2 + 12 + 6);
    picture_put_glyph(&glyph, 0, 0, 'e', 0xAAAAAA, 0);
    g_assert_cmpuint(round_trip(&p, &glyph), <, 150);
    g_assert_cmpuint(round_trip(&p, &glyph), ==, 4);
    round_trip_new(&p, PICTURE_TEXT, 1280, 800, &seed);
    /* two bytes a column and a header a line */
    size_t warm = round_trip_new(&p, PICTURE_TEXT, 1280, 48, &seed);
    g_assert_cmpuint(warm, <, 3 * (1280 * 2 + 11) + 14);
    g_free(solid.bgrx);
    g_free(glyph.bgrx);
    pair_clear(&p);
}

/* Lines of text are found wherever they begin: scrolled by less than a line, the cache still
 * hits. */
static void test_phase(void)
{
    for (unsigned phase = 1; phase < 16; phase += 2) {
        Pair p = pair_new();
        uint32_t seed = 8;
        Picture text = picture_new(PICTURE_TEXT, 640, 800, &seed);
        size_t first = round_trip(&p, &text);
        Picture moved = text;
        moved.bgrx += phase * moved.stride;
        moved.h -= 16;
        size_t second = round_trip(&p, &moved);
        g_assert_cmpuint(second, <, first);
        g_assert_cmpuint(p.encoder->grid.pitch, ==, 16);
        g_assert_cmpuint(p.encoder->grid.phase, ==, 16 - phase);
        picture_clear(&text);
        pair_clear(&p);
    }
}

static void test_columns(void)
{
    uint32_t seed = 9;
    const unsigned cap = 256;
    Columns columns[2];

    for (unsigned i = 0; i < 2; i++)
        columns[i] = (Columns){cap, g_new0(uint32_t, cap * CLEAR_BAND_ROWS), g_new0(uint32_t, cap),
                               g_new0(uint32_t, cap), g_new0(uint32_t, cap)};
    for (unsigned i = 0; i < 500; i++) {
        uint32_t r = picture_random(&seed);
        unsigned rows = 1 + r % CLEAR_BAND_ROWS, w = 1 + (r >> 6) % cap;
        Picture p = picture_new(i % PICTURE_KINDS, w, rows + 2, &seed);
        Bitmap b = {p.bgrx, p.stride, p.w, p.h};
        uint32_t background = bitmap_pixel(&b, w / 2, 1);

        clear_columns(&b, 1, rows, background, &columns[0]);
        clear_columns_scalar(&b, 1, rows, 0, w, background, &columns[1]);
        g_assert_cmpmem(columns[0].hash, w * 4, columns[1].hash, w * 4);
        g_assert_cmpmem(columns[0].edges, w * 4, columns[1].edges, w * 4);
        g_assert_cmpmem(columns[0].ink, w * 4, columns[1].ink, w * 4);
        for (unsigned y = 0; y < rows; y++)
            g_assert_cmpmem(columns[0].pixels + y * cap, w * 4, columns[1].pixels + y * cap, w * 4);
        uint32_t column[CLEAR_BAND_ROWS];
        column_gather(&columns[0], w - 1, rows, column);
        g_assert_cmphex(clear_hash(column, rows), ==, columns[0].hash[w - 1]);
        picture_clear(&p);
    }
    for (unsigned i = 0; i < 2; i++) {
        g_free(columns[i].pixels);
        g_free(columns[i].hash);
        g_free(columns[i].edges);
        g_free(columns[i].ink);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/clearcodec/columns", test_columns);
    g_test_add_func("/clearcodec/sizes", test_sizes);
    g_test_add_func("/clearcodec/large", test_large);
    g_test_add_func("/clearcodec/wraps", test_wraps);
    g_test_add_func("/clearcodec/limit", test_limit);
    g_test_add_func("/clearcodec/unsent", test_unsent);
    g_test_add_func("/clearcodec/deterministic", test_deterministic);
    g_test_add_func("/clearcodec/bytes", test_sizes_of_streams);
    g_test_add_func("/clearcodec/phase", test_phase);
    return g_test_run();
}
