#include "gfx_session.h"

#include <glib.h>
#include <string.h>

Session *session_new_for(FilmCodec film)
{
    const EncoderParams params = {.path = ENCODER_GFX, .bpp = 32, .film = film};
    Session *s = g_new0(Session, 1);

    s->pool = frame_pool_new();
    s->encoder = encoder_new(&params);
    s->player = gfx_player_new();
    s->seed = 1;
    s->now_ms = 1000;
    s->first = true;
    s->refine_at_us = INT64_MAX;
    gfx_player_surface(s->player, SURFACE, WIDTH, HEIGHT);
    return s;
}

Session *session_new(void)
{
    return session_new_for(FILM_NONE);
}

void session_free(Session *s)
{
    encoder_free(s->encoder);
    gfx_player_free(s->player);
    frame_pool_unref(s->pool);
    g_free(s);
}

uint32_t random_bits(Session *s)
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

void assert_shown_outside(const Session *s, const Rect *except)
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

Shown show_frame(Session *s)
{
    bool due = s->due;
    Frame *frame = take_frame(s);
    EncodedFrame *encoded = encoder_encode(s->encoder, frame, SURFACE, false);

    g_assert_nonnull(encoded);
    gfx_player_play(s->player, encoded->bytes.data, encoded->bytes.len,
                    MAX(ENCODER_MAX_PDU, encoded->film_bytes + 100));
    Shown shown = {encoded->bytes.len, encoded->film_bytes, encoded->lossy, encoded->rests};
    g_assert_cmpint(encoded->lossy, ==, encoded->rest.w > 0);
    s->rest = encoded->rest;
    s->refine_at_us = encoded_frame_refine_at(encoded, s->refine_at_us, due, s->now_ms * 1000);
    encoded_frame_unref(encoded);
    frame_unref(frame);
    s->now_ms += STEP_MS;
    return shown;
}

size_t show(Session *s)
{
    const Rect nothing = {0};
    Shown shown = show_frame(s);

    g_assert_false(shown.lossy);
    assert_shown_outside(s, &nothing);
    return shown.bytes;
}

/* ---- painting ---- */

void put(Session *s, int32_t x, int32_t y, uint32_t colour)
{
    if (x >= 0 && y >= 0 && x < (int32_t)WIDTH && y < (int32_t)HEIGHT)
        s->screen[y][x] = colour | (random_bits(s) & 0xFF) << 24;
}

void fill(Session *s, int32_t x, int32_t y, int32_t w, int32_t h, uint32_t colour)
{
    for (int32_t i = 0; i < h; i++) {
        for (int32_t j = 0; j < w; j++)
            put(s, x + j, y + i, colour);
    }
}

void glyph(Session *s, int32_t x, int32_t y, uint32_t letter, uint32_t colour)
{
    uint32_t bits = letter * 2654435761u;

    for (int32_t i = 0; i < 16; i++) {
        bits = bits * 1664525u + 1013904223u;
        for (int32_t j = 0; j < 8; j++)
            put(s, x + j, y + i,
                letter && i > 2 && i < 14 && j < 7 && (bits >> (10 + j)) & 1 ? colour : 0x102030);
    }
}

void text_line(Session *s, int32_t x, int32_t y, uint32_t columns, uint32_t number)
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

void photo_rect(Session *s, int32_t x, int32_t y, int32_t w, int32_t h)
{
    for (int32_t i = MAX(y, 0); i < MIN(y + h, (int32_t)HEIGHT); i++) {
        for (int32_t j = MAX(x, 0); j < MIN(x + w, (int32_t)WIDTH); j++)
            put(s, j, i, photo((uint32_t)j, (uint32_t)i));
    }
}

void page(Session *s, uint32_t first_line)
{
    for (uint32_t i = 0; i * 16 < HEIGHT; i++)
        text_line(s, 0, (int32_t)(i * 16), WIDTH / 8, first_line + i);
}

void window(Session *s, int32_t x, int32_t y)
{
    fill(s, x, y, 300, 200, 0x808080);
    fill(s, x + 2, y + 2, 296, 18, 0x0000A0);
    fill(s, x + 2, y + 20, 296, 178, 0x102030);
    for (uint32_t i = 0; i < 10; i++)
        text_line(s, x + 6, y + 24 + (int32_t)i * 16, 36, 90 + i);
}
