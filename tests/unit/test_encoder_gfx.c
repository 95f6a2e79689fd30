/*
 * Whole sessions of the GFX encoder: a screen changes as screens do, frames with the damage that
 * QEMU would report go through the encoder, and after each one a client with FreeRDP's decoders
 * must show that screen, pixel by pixel. What something may cost in bytes is held too: that it is
 * cheap is the point of half of this code.
 */
#include <glib.h>
#include <string.h>

#include "encoder.h"
#include "frame.h"
#include "gfx.h"
#include "gfx_pdu.h"
#include "gfx_player.h"
#include "video.h"
#include "video_scene.h"

#define SURFACE 7
#define WIDTH 700u
#define HEIGHT 420u
#define STEP_MS 33

typedef struct Session {
    uint32_t screen[HEIGHT][WIDTH], shown[HEIGHT][WIDTH]; /* X bytes are rubbish */
    FramePool *pool;
    Encoder *encoder;
    GfxPlayer *player;
    uint32_t seed;
    int64_t now_ms;
    bool first;
    Rect rest; /* what the last frame left to be refined first */
    bool due;  /* the next frame is to have that */
} Session;

static Session *session_new_for(FilmCodec film)
{
    const EncoderParams params = {.path = ENCODER_GFX, .bpp = 32, .film = film};
    Session *s = g_new0(Session, 1);

    s->pool = frame_pool_new();
    s->encoder = encoder_new(&params);
    s->player = gfx_player_new();
    s->seed = 1;
    s->now_ms = 1000;
    s->first = true;
    gfx_player_surface(s->player, SURFACE, WIDTH, HEIGHT);
    return s;
}

/* All of it is exact. */
static Session *session_new(void)
{
    return session_new_for(FILM_NONE);
}

static void session_free(Session *s)
{
    encoder_free(s->encoder);
    gfx_player_free(s->player);
    frame_pool_unref(s->pool);
    g_free(s);
}

static uint32_t random_bits(Session *s)
{
    s->seed = s->seed * 1664525u + 1013904223u;
    return s->seed >> 8;
}

static bool tile_changed(const Session *s, uint32_t x, uint32_t y)
{
    for (uint32_t i = y; i < MIN(y + 64, HEIGHT); i++) {
        if (memcmp(&s->screen[i][x], &s->shown[i][x], (MIN(x + 64, WIDTH) - x) * 4) != 0)
            return true;
    }
    return false;
}

static bool tile_due(const Session *s, const Rect *tile)
{
    return s->due && s->rest.x < tile->x + tile->w && tile->x < s->rest.x + s->rest.w &&
           s->rest.y < tile->y + tile->h && tile->y < s->rest.y + s->rest.h;
}

/* What the framebuffer lends is there outside of its rectangles, too. */
static void fill_outside(const Session *s, Frame *frame, uint64_t area)
{
    frame->whole = area * 4 >= WIDTH * HEIGHT;
    for (uint32_t y = 0; y < HEIGHT && frame->whole; y++)
        memcpy(frame->pixels + (size_t)y * frame->stride, s->screen[y], WIDTH * 4);
}

/* The tiles that changed, each a rectangle, as the framebuffer hands them out. */
static Frame *take_frame(Session *s)
{
    Frame *frame = frame_new(s->pool, WIDTH, HEIGHT, 1);
    GArray *rects = g_array_new(FALSE, FALSE, sizeof(Rect));
    uint64_t area = 0;

    for (uint32_t y = 0; y < HEIGHT; y += 64) {
        for (uint32_t x = 0; x < WIDTH; x += 64) {
            Rect r = {(int32_t)x, (int32_t)y, (int32_t)MIN(64, WIDTH - x),
                      (int32_t)MIN(64, HEIGHT - y)};
            if (s->first || tile_due(s, &r) || tile_changed(s, x, y))
                g_array_append_val(rects, r);
        }
    }
    s->first = s->due = false;
    uint32_t n = rects->len;
    frame_set_rects(frame, (Rect *)(void *)g_array_free(rects, FALSE), n);
    memset(frame->pixels, 0xAB, (size_t)frame->stride * HEIGHT); /* what is not in a rectangle */
    for (uint32_t i = 0; i < n; i++) {
        const Rect *r = &frame->rects[i];
        for (int32_t y = r->y; y < r->y + r->h; y++)
            memcpy(frame->pixels + (size_t)y * frame->stride + r->x * 4, &s->screen[y][r->x],
                   (size_t)r->w * 4);
        area += (uint64_t)r->w * (uint64_t)r->h;
    }
    fill_outside(s, frame, area);
    frame->captured_us = s->now_ms * 1000;
    memcpy(s->shown, s->screen, sizeof(s->screen));
    return frame;
}

/* All of the screen but @except. */
static void assert_shown_outside(const Session *s, const Rect *except)
{
    const uint8_t *pixels = gfx_player_pixels(s->player, SURFACE);

    for (uint32_t y = 0; y < HEIGHT; y++) {
        for (uint32_t x = 0; x < WIDTH; x++) {
            if ((int32_t)x >= except->x && (int32_t)x < except->x + except->w &&
                (int32_t)y >= except->y && (int32_t)y < except->y + except->h)
                continue;
            const uint8_t *got = pixels + ((size_t)y * WIDTH + x) * 4;
            uint32_t want = s->screen[y][x] & 0xFFFFFF;
            uint32_t have = (uint32_t)got[0] | (uint32_t)got[1] << 8 | (uint32_t)got[2] << 16;
            if (want != have)
                g_error("at %u,%u: %06x for %06x", x, y, have, want);
        }
    }
}

typedef struct Shown {
    size_t bytes;
    uint32_t film_bytes;
    bool lossy, rests;
} Shown;

static Shown show_frame(Session *s)
{
    Frame *frame = take_frame(s);
    EncodedFrame *encoded = encoder_encode(s->encoder, frame, SURFACE, false);

    g_assert_nonnull(encoded);
    gfx_player_play(s->player, encoded->bytes.data, encoded->bytes.len,
                    MAX(ENCODER_MAX_PDU, encoded->film_bytes + 100));
    Shown shown = {encoded->bytes.len, encoded->film_bytes, encoded->lossy, encoded->rests};
    g_assert_cmpint(encoded->lossy, ==, encoded->rest.w > 0);
    s->rest = encoded->rest;
    encoded_frame_unref(encoded);
    frame_unref(frame);
    s->now_ms += STEP_MS;
    return shown;
}

/* Shows the screen, which must be exact then; returns the bytes it took. */
static size_t show(Session *s)
{
    const Rect nothing = {0};
    Shown shown = show_frame(s);

    g_assert_false(shown.lossy);
    assert_shown_outside(s, &nothing);
    return shown.bytes;
}

/* ---- painting ---- */

static void put(Session *s, int32_t x, int32_t y, uint32_t colour)
{
    if (x >= 0 && y >= 0 && x < (int32_t)WIDTH && y < (int32_t)HEIGHT)
        s->screen[y][x] = colour | (random_bits(s) & 0xFF) << 24;
}

static void fill(Session *s, int32_t x, int32_t y, int32_t w, int32_t h, uint32_t colour)
{
    for (int32_t i = 0; i < h; i++) {
        for (int32_t j = 0; j < w; j++)
            put(s, x + j, y + i, colour);
    }
}

/* A glyph of 8x16, always the same for the same letter; letter 0 is blank. */
static void glyph(Session *s, int32_t x, int32_t y, uint32_t letter, uint32_t colour)
{
    uint32_t bits = letter * 2654435761u;

    for (int32_t i = 0; i < 16; i++) {
        bits = bits * 1664525u + 1013904223u;
        for (int32_t j = 0; j < 8; j++)
            put(s, x + j, y + i,
                letter && i > 2 && i < 14 && j < 7 && (bits >> (10 + j)) & 1 ? colour : 0x102030);
    }
}

static void text_line(Session *s, int32_t x, int32_t y, uint32_t columns, uint32_t number)
{
    uint32_t letters = number * 40503u + 7;
    uint32_t length = columns / 2 + letters % (columns / 2);

    for (uint32_t i = 0; i < columns; i++) {
        letters = letters * 1103515245u + 12345u;
        glyph(s, x + (int32_t)i * 8, y, i < length ? 1 + (letters >> 16) % 60 : 0,
              number % 7 == 3 ? 0xFF5555 : 0xC0C0C0);
    }
}

static uint32_t photo(uint32_t x, uint32_t y)
{
    uint32_t n = (x * 374761393u + y * 668265263u) * 1274126177u;

    return ((x / 3 + (n >> 30)) & 255) | ((y / 2 + (n >> 27 & 3)) & 255) << 8 |
           (((x + y) / 5 + (n >> 24 & 3)) & 255) << 16;
}

static void photo_rect(Session *s, int32_t x, int32_t y, int32_t w, int32_t h)
{
    for (int32_t i = MAX(y, 0); i < MIN(y + h, (int32_t)HEIGHT); i++) {
        for (int32_t j = MAX(x, 0); j < MIN(x + w, (int32_t)WIDTH); j++)
            put(s, j, i, photo((uint32_t)j, (uint32_t)i));
    }
}

static void page(Session *s, uint32_t first_line)
{
    for (uint32_t i = 0; i * 16 < HEIGHT; i++)
        text_line(s, 0, (int32_t)(i * 16), WIDTH / 8, first_line + i);
}

static void window(Session *s, int32_t x, int32_t y)
{
    fill(s, x, y, 300, 200, 0x808080);
    fill(s, x + 2, y + 2, 296, 18, 0x0000A0);
    fill(s, x + 2, y + 20, 296, 178, 0x102030);
    for (uint32_t i = 0; i < 10; i++)
        text_line(s, x + 6, y + 24 + (int32_t)i * 16, 36, 90 + i);
}

/* ---- scenes ---- */

static void test_scroll(void)
{
    Session *s = session_new();
    size_t most = 0;
    unsigned copies;

    page(s, 0);
    size_t whole = show(s);
    for (uint32_t i = 1; i <= 20; i++) {
        page(s, i * 3);
        copies = gfx_player_count(s->player, GFX_SURFACETOSURFACE);
        size_t bytes = show(s);
        most = MAX(most, i > 2 ? bytes : 0);
        g_assert_cmpuint(gfx_player_count(s->player, GFX_SURFACETOSURFACE) - copies, >=, 1);
    }
    g_test_message("page %zu bytes, three new lines %zu", whole, most);
    g_assert_cmpuint(most * 4, <, whole);

    /* back by one line, and by an odd number of pixels, as a browser does */
    page(s, 59);
    g_assert_cmpuint(show(s) * 4, <, whole);
    memmove(s->screen[0], s->screen[37], sizeof(s->screen[0]) * (HEIGHT - 37));
    g_assert_cmpuint(show(s) * 4, <, whole);
    session_free(s);
}

/* What is blank before and after does not cut what moves to pieces. */
static void test_scroll_with_margin(void)
{
    Session *s = session_new();

    for (uint32_t i = 0; i < 6; i++) {
        for (uint32_t line = 0; line * 16 < HEIGHT; line++) {
            fill(s, 0, (int32_t)(line * 16), WIDTH, 16, 0x102030);
            text_line(s, 0, (int32_t)(line * 16), 16, i * 3 + line);
            text_line(s, 384, (int32_t)(line * 16), 32, i * 3 + line);
        }
        /* X bytes too, or the blank tiles would be said to have changed */
        for (uint32_t y = 0; y < HEIGHT; y++) {
            for (uint32_t x = 0; x < WIDTH; x++)
                s->screen[y][x] &= 0xFFFFFF;
        }
        unsigned copies = gfx_player_count(s->player, GFX_SURFACETOSURFACE);
        show(s);
        if (i > 1)
            g_assert_cmpuint(gfx_player_count(s->player, GFX_SURFACETOSURFACE) - copies, ==, 1);
    }
    session_free(s);
}

static void test_window(void)
{
    Session *s = session_new();
    size_t most = 0, sum = 0;
    int32_t x = 20, y = 30;

    photo_rect(s, 0, 0, WIDTH, HEIGHT);
    size_t whole = show(s);
    s->now_ms += 1000;
    window(s, x, y);
    show(s);
    s->now_ms += 1000;
    for (unsigned i = 0; i < 40; i++) {
        int32_t dx = i < 20 ? 7 : -5, dy = i % 10 < 5 ? 3 : -2;
        photo_rect(s, x, y, 300, 200);
        x += dx;
        y += dy;
        window(s, x, y);
        size_t bytes = show(s);
        most = MAX(most, bytes);
        sum += bytes;
    }
    g_test_message("photograph %zu bytes, a step of the window %zu on average, %zu at most", whole,
                   sum / 40, most);
    g_assert_cmpuint(sum / 40, <, 600);
    session_free(s);
}

/* A window that rests on its way takes with it what it covers. */
static void test_window_rests(void)
{
    Session *s = session_new();
    int32_t x = 100, y = 50;

    photo_rect(s, 0, 0, WIDTH, HEIGHT);
    show(s);
    s->now_ms += 1000;
    window(s, x, y);
    show(s);
    for (unsigned i = 0; i < 12; i++) {
        s->now_ms += 2000;
        photo_rect(s, x, y, 300, 200);
        x += 9;
        y += 4;
        window(s, x, y);
        g_assert_cmpuint(show(s), <, 900);
    }
    session_free(s);
}

static void test_alternating(void)
{
    Session *s = session_new();
    size_t bytes = 0;

    for (unsigned i = 0; i < 8; i++) {
        if (i % 2) {
            photo_rect(s, 0, 0, WIDTH, HEIGHT);
        } else {
            page(s, 5);
            glyph(s, 40, 40, 7, 0xFF8000); /* of a third colour */
        }
        bytes = show(s);
        s->now_ms += 1000;
        if (i >= 3)
            g_assert_cmpuint(bytes, <, 200);
    }
    session_free(s);
}

static void test_typing(void)
{
    Session *s = session_new();

    page(s, 0);
    fill(s, 0, 200, WIDTH, 16, 0x102030);
    show(s);
    for (uint32_t i = 0; i < 60; i++) {
        glyph(s, (int32_t)i * 8, 200, 1 + i % 40, 0xC0C0C0);
        fill(s, (int32_t)i * 8 + 8, 212, 8, 3, 0xC0C0C0);
        size_t bytes = show(s);
        g_assert_cmpuint(bytes, <, 330);
    }
    g_assert_cmpuint(show(s), ==, 0); /* nothing changed */
    session_free(s);
}

/* Black and white noise is more than a PDU takes of it at once; what comes after it is not cut as
 * small for long. */
static void test_dense(void)
{
    Session *s = session_new();

    page(s, 0);
    size_t text = show(s);
    for (unsigned i = 0; i < 3; i++) {
        for (int32_t y = 0; y < (int32_t)HEIGHT; y++) {
            for (int32_t x = 0; x < (int32_t)WIDTH; x++)
                put(s, x, y, random_bits(s) >> 20 & 1 ? 0xFFFFFF : 0);
        }
        g_assert_cmpuint(show(s), >, 2 * text);
    }
    page(s, 500);
    g_assert_cmpuint(show(s), <, text * 3 / 2);
    session_free(s);
}

/* Everything at once, at random places. */
static void test_random(void)
{
    Session *s = session_new();

    photo_rect(s, 0, 0, WIDTH, HEIGHT);
    for (unsigned i = 0; i < 150; i++) {
        int32_t x = (int32_t)(random_bits(s) % WIDTH) - 50,
                y = (int32_t)(random_bits(s) % HEIGHT) - 50;
        int32_t w = 1 + (int32_t)(random_bits(s) % 200), h = 1 + (int32_t)(random_bits(s) % 150);
        switch (random_bits(s) % 8) {
        case 0:
            photo_rect(s, x, y, w, h);
            break;
        case 1:
            fill(s, x, y, w, h, random_bits(s) & 0xFFFFFF);
            break;
        case 2:
            window(s, x, y);
            break;
        case 3:
            for (int32_t j = 0; j < 8; j++)
                text_line(s, x, y + j * 16, 20, random_bits(s) % 100);
            break;
        case 4: /* scroll some rows */
            y = MAX(y, 0);
            h = MIN(h, (int32_t)HEIGHT - y - 20);
            if (h > 0)
                memmove(s->screen[y], s->screen[y + 1 + i % 19], sizeof(s->screen[0]) * (size_t)h);
            break;
        case 5: /* noise */
            for (int32_t j = 0; j < h; j++) {
                for (int32_t k = 0; k < w; k++)
                    put(s, x + k, y + j, random_bits(s));
            }
            break;
        case 6:
            s->now_ms += 500;
            break;
        default: /* sideways */
            for (uint32_t j = 0; j < HEIGHT; j++)
                memmove(&s->screen[j][13], &s->screen[j][0], (WIDTH - 13) * 4);
            break;
        }
        show(s);
    }
    session_free(s);
}

static void test_blank(void)
{
    Session *s = session_new();

    page(s, 0);
    show(s);
    Frame *frame = frame_new(s->pool, WIDTH, HEIGHT, 1);
    frame->blank = true;
    EncodedFrame *encoded = encoder_encode(s->encoder, frame, SURFACE, false);
    gfx_player_play(s->player, encoded->bytes.data, encoded->bytes.len, ENCODER_MAX_PDU);
    encoded_frame_unref(encoded);
    frame_unref(frame);
    memset(s->screen, 0, sizeof(s->screen));
    assert_shown_outside(s, &(Rect){0});
    s->first = true;
    page(s, 0);
    show(s);
    session_free(s);
}

static const Rect film = {200, 100, 320, 200};

/* Only the first @w x @h pixels of it move. */
static void film_part(Session *s, VideoScene *scene, unsigned t, int32_t w, int32_t h)
{
    const uint8_t *picture = video_scene_picture(scene, t);

    for (int32_t y = 0; y < h; y++) {
        const uint8_t *p = picture + (size_t)y * (size_t)film.w * 4;
        for (int32_t x = 0; x < w; x++, p += 4)
            put(s, film.x + x, film.y + y, p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16);
    }
}

static void film_picture(Session *s, VideoScene *scene, unsigned t)
{
    film_part(s, scene, t, film.w, film.h);
}

/* The film as the client has it. */
static double film_psnr(const Session *s)
{
    const size_t size = (size_t)film.w * (size_t)film.h * 4;
    uint8_t *got = g_malloc(size), *want = g_malloc(size);
    const uint8_t *pixels = gfx_player_pixels(s->player, SURFACE);

    for (int32_t y = 0; y < film.h; y++) {
        memcpy(got + y * film.w * 4, pixels + ((film.y + y) * (int32_t)WIDTH + film.x) * 4,
               (size_t)film.w * 4);
        memcpy(want + y * film.w * 4, &s->screen[film.y + y][film.x], (size_t)film.w * 4);
    }
    double psnr = video_psnr(got, want, (uint32_t)film.w, (uint32_t)film.h);
    g_free(got);
    g_free(want);
    return psnr;
}

static bool have_video(void)
{
    VideoScreen *screen = video_screen_new(64, 64);

    if (video_available() && screen) {
        video_screen_free(screen);
        return true;
    }
    g_test_skip(screen ? video_text() : "this FreeRDP has no H.264 decoder");
    video_screen_free(screen);
    return false;
}

/* After a moment of quiet everything is shown again, in parts; then it must be exact. */
static void refine(Session *s)
{
    unsigned frames = 0;
    bool lossy = true;

    s->now_ms += 170 - STEP_MS;
    while (lossy) {
        s->due = true;
        Shown shown = show_frame(s);
        lossy = shown.lossy;
        g_assert_cmpuint(shown.bytes, >, 0); /* else the next one is due at once, and so on */
        g_assert_cmpint(shown.rests, ==, lossy);
        g_assert_cmpuint(++frames, <, 10);
    }
    s->first = true;
    g_assert_cmpuint(show(s), ==, 0);
}

static void check_film(FilmCodec codec)
{
    Session *s = session_new_for(codec);
    VideoScene *scene = video_scene_new((uint32_t)film.w, (uint32_t)film.h, 2);
    /* the film's cells: what it may touch */
    const Rect around = {192, 96, 336, 208};
    unsigned coded = 0, resting = 0;
    double worst = 99;

    page(s, 0);
    show(s);
    for (unsigned t = 0; t < 60; t++) {
        film_picture(s, scene, t);
        glyph(s, (int32_t)(t % 20) * 8, 0, t % 50, 0xC0C0C0); /* somebody types beside it */
        Shown shown = show_frame(s);
        assert_shown_outside(s, &around);
        if (!shown.lossy) {
            assert_shown_outside(s, &(Rect){0});
            continue;
        }
        resting += shown.rests; /* what a smaller film left that came before */
        coded += shown.film_bytes > 0;
        worst = MIN(worst, film_psnr(s));
    }
    g_test_message("%u of 60 pictures as video, %u beside a rest, at worst %.1f dB", coded, resting,
                   worst);
    g_assert_cmpuint(coded, >=, 50);
    g_assert_cmpuint(resting, <, 10);
    g_assert_cmpfloat(worst, >, 28);
    refine(s);

    /* it goes on elsewhere while a window is drawn over it, and is dragged */
    for (unsigned t = 60; t < 80; t++) {
        film_picture(s, scene, t);
        window(s, (int32_t)(t - 60) * 11, 150);
        show_frame(s);
    }
    refine(s);
    video_scene_free(scene);
    session_free(s);
}

static void test_film_h264(void)
{
    if (have_video())
        check_film(FILM_H264);
}

static void test_film_rfx(void)
{
    check_film(FILM_RFX);
}

static double film_bytes(Session *s, VideoScene *scene, unsigned from, unsigned n)
{
    double sum = 0;

    for (unsigned t = from; t < from + n; t++) {
        film_picture(s, scene, t);
        sum += show_frame(s).film_bytes;
    }
    return sum / n;
}

/* Without H.264, too, a slow link gets coarser pictures and not fewer; and fine ones again later.
 */
static void test_film_limited(void)
{
    Session *s = session_new_for(FILM_RFX);
    VideoScene *scene = video_scene_new((uint32_t)film.w, (uint32_t)film.h, 2);

    page(s, 0);
    show(s);
    film_bytes(s, scene, 0, 10);
    double free = film_bytes(s, scene, 10, 20), psnr = film_psnr(s);
    encoder_limit_film(s->encoder, (uint32_t)(free / 4));
    double at_once = film_bytes(s, scene, 30, 1);
    film_bytes(s, scene, 31, 9);
    double limited = film_bytes(s, scene, 40, 20), limited_psnr = film_psnr(s);
    for (unsigned t = 60; t < 90; t++) {
        film_part(s, scene, t, 112, 96);
        show_frame(s);
    }
    double whole_again = film_bytes(s, scene, 90, 1);
    encoder_limit_film(s->encoder, 0);
    film_bytes(s, scene, 60, 10);
    double again = film_bytes(s, scene, 70, 20);
    g_test_message("%.0f bytes a picture, %.1f dB; limited %.0f, %.1f dB; then %.0f", free, psnr,
                   limited, limited_psnr, again);
    g_assert_cmpfloat(at_once, <, free / 4 * 2);
    g_assert_cmpfloat(limited, <, free / 4 * 1.15);
    g_assert_cmpfloat(limited, >, free / 4 * 0.7);
    g_assert_cmpfloat(whole_again, <, free / 4 * 2);
    g_assert_cmpfloat(limited_psnr, >, 25);
    g_assert_cmpfloat(again, >, free * 0.85);
    refine(s);
    video_scene_free(scene);
    session_free(s);
}

/* After a dark scene nobody knows what the next one takes; a slow link does not wait for it all the
 * same. */
static void test_film_cut(void)
{
    Session *s = session_new_for(FILM_RFX);
    VideoScene *scene = video_scene_new((uint32_t)film.w, (uint32_t)film.h, 2);

    page(s, 0);
    show(s);
    film_bytes(s, scene, 0, 10);
    const double may = film_bytes(s, scene, 10, 20) / 4;
    const Rect around = {192, 96, 336, 208}; /* whole cells */
    encoder_limit_film(s->encoder, (uint32_t)may);
    for (uint32_t t = 0; t < 40; t++) {
        for (int32_t y = around.y; y < around.y + around.h; y++)
            for (int32_t x = around.x; x < around.x + around.w; x++)
                put(s, x, y, t % 8 * 0x10101);
        show_frame(s);
    }
    const double cut = film_bytes(s, scene, 30, 1);
    g_test_message("%.0f bytes, %.0f wanted", cut, may);
    g_assert_cmpfloat(cut, <, may * 2);
    g_assert_cmpfloat(film_psnr(s), >, 22);
    refine(s);
    video_scene_free(scene);
    session_free(s);
}

/* A film of which each exact picture takes so long that the next one comes late is found all the
 * same. */
static void test_slow_film(void)
{
    Session *s = session_new_for(FILM_RFX);
    VideoScene *scene = video_scene_new((uint32_t)film.w, (uint32_t)film.h, 2);
    unsigned coded = 0;

    page(s, 0);
    show(s);
    for (unsigned t = 0; t < 8; t++) {
        film_picture(s, scene, t);
        Shown shown = show_frame(s);
        coded += shown.film_bytes > 0;
        s->now_ms += 200 - STEP_MS + (int64_t)shown.bytes / 10000 - 1;
    }
    g_assert_cmpuint(coded, >=, 5);
    video_scene_free(scene);
    session_free(s);
}

/* A film that has been stopped, and a cursor in it that blinks as fast as frames come: it is shown
 * exactly all the same, as PeerDisplay asks for it. */
static void test_cursor_over_film(void)
{
    Session *s = session_new_for(FILM_RFX);
    VideoScene *scene = video_scene_new((uint32_t)film.w, (uint32_t)film.h, 2);
    Shown shown = {0};
    unsigned frames = 0;

    page(s, 0);
    show(s);
    for (unsigned t = 0; t < 20; t++) {
        film_picture(s, scene, t);
        shown = show_frame(s);
    }
    g_assert_cmpuint(shown.film_bytes, >, 0);
    while (shown.lossy) {
        for (int32_t y = 0; y < 20; y++)
            for (int32_t x = 0; x < 12; x++)
                put(s, film.x + 100 + x, film.y + 60 + y, frames % 2 ? 0xFFFFFF : 0);
        s->due = shown.film_bytes == 0;
        shown = show_frame(s);
        g_assert_cmpuint(++frames, <, 30);
    }
    assert_shown_outside(s, &(Rect){0});
    video_scene_free(scene);
    session_free(s);
}

/* Text that scrolls fast is no film. */
static void test_text_is_no_film(void)
{
    Session *s = session_new_for(FILM_H264);

    for (uint32_t i = 0; i < 30; i++) {
        page(s, i * 1000);
        show(s);
    }
    session_free(s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    video_load(false);
    g_test_add_func("/encoder-gfx/film/h264", test_film_h264);
    g_test_add_func("/encoder-gfx/film/rfx", test_film_rfx);
    g_test_add_func("/encoder-gfx/film/limited", test_film_limited);
    g_test_add_func("/encoder-gfx/film/cut", test_film_cut);
    g_test_add_func("/encoder-gfx/film/slow", test_slow_film);
    g_test_add_func("/encoder-gfx/film/cursor", test_cursor_over_film);
    g_test_add_func("/encoder-gfx/text-is-no-film", test_text_is_no_film);
    g_test_add_func("/encoder-gfx/scroll", test_scroll);
    g_test_add_func("/encoder-gfx/scroll-with-margin", test_scroll_with_margin);
    g_test_add_func("/encoder-gfx/window", test_window);
    g_test_add_func("/encoder-gfx/window-rests", test_window_rests);
    g_test_add_func("/encoder-gfx/alternating", test_alternating);
    g_test_add_func("/encoder-gfx/typing", test_typing);
    g_test_add_func("/encoder-gfx/dense", test_dense);
    g_test_add_func("/encoder-gfx/random", test_random);
    g_test_add_func("/encoder-gfx/blank", test_blank);
    return g_test_run();
}
