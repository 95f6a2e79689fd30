/*
 * Whole sessions of the GFX encoder: a screen changes as screens do, frames with the damage that
 * QEMU would report go through the encoder, and after each one a client with FreeRDP's decoders
 * must show that screen, pixel by pixel. What something may cost in bytes is held too: that it is
 * cheap is the point of half of this code.
 */
#include <glib.h>
#include <string.h>

#include "gfx.h"
#include "gfx_pdu.h"
#include "gfx_session.h"

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

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
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
