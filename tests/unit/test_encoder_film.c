/*
 * Films in sessions of the GFX encoder: they may be shown with some loss and must be shown exactly
 * once they rest, and what is beside them is always exact.
 */
#include <glib.h>
#include <string.h>

#include "gfx_session.h"
#include "video.h"
#include "video_scene.h"

static const Rect film = {200, 100, 320, 200};

/* The part of the scene that fits into @at, there; the scene is as wide as @scene_w. */
static void film_at(Session *s, VideoScene *scene, unsigned t, int32_t scene_w, const Rect *at)
{
    const uint8_t *picture = video_scene_picture(scene, t);

    for (int32_t y = 0; y < at->h; y++) {
        const uint8_t *p = picture + (size_t)y * (size_t)scene_w * 4;
        for (int32_t x = 0; x < at->w; x++, p += 4)
            put(s, at->x + x, at->y + y, p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16);
    }
}

/* Only the first @w x @h pixels of it move. */
static void film_part(Session *s, VideoScene *scene, unsigned t, int32_t w, int32_t h)
{
    film_at(s, scene, t, film.w, &(Rect){film.x, film.y, w, h});
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

typedef struct Played {
    unsigned pictures, films, changes; /* .films: shown with loss; from one to the other */
    unsigned frames, empty;
} Played;

/* A picture @at every @period_ms, and what rests in between when it is due; until all is exact. */
static Played play(Session *s, VideoScene *scene, const Rect *at, int64_t period_ms,
                   unsigned pictures)
{
    int64_t next = s->now_ms;
    Played played = {0};
    bool was_film = false;

    while (played.pictures < pictures || s->refine_at_us != INT64_MAX) {
        bool picture = played.pictures < pictures && s->now_ms >= next;
        s->due = s->now_ms * 1000 >= s->refine_at_us;
        if (!picture && !s->due) {
            s->now_ms++;
            continue;
        }
        if (picture) {
            film_at(s, scene, played.pictures++, at->w, at);
            next += period_ms;
        }
        Shown shown = show_frame(s);
        s->now_ms -= STEP_MS - 1;
        played.frames++;
        played.empty += shown.bytes == 0;
        if (!picture)
            continue;
        played.films += shown.film_bytes > 0;
        played.changes += (shown.film_bytes > 0) != was_film;
        was_film = shown.film_bytes > 0;
        g_assert_cmpuint(played.frames, <, 10000);
    }
    assert_shown_outside(s, &(Rect){0});
    return played;
}

/* However slow: it is a film or it is not, and does not become one with every other picture. */
static void test_paces(void)
{
    VideoScene *scene = video_scene_new((uint32_t)film.w, (uint32_t)film.h, 2);

    for (int64_t period = 20; period < 400; period += 10) {
        Session *s = session_new_for(FILM_RFX);
        page(s, 0);
        show(s);
        Played p = play(s, scene, &film, period, 40);
        g_test_message("%d ms: %u of 40 with loss, %u changes, %u empty of %u frames", (int)period,
                       p.films, p.changes, p.empty, p.frames);
        g_assert_cmpuint(p.changes, <=, 1);
        g_assert_true(p.films == 0 || p.films >= 38);
        g_assert_true(period > 200 || p.films > 0);
        g_assert_cmpuint(p.empty, ==, 0);
        session_free(s);
    }
    video_scene_free(scene);
}

/* What one film has left is refined while another one plays: that says when there is nothing left.
 */
static void test_two_films(void)
{
    Session *s = session_new_for(FILM_RFX);
    const Rect before = {0, 0, 240, 192}, now = {400, 208, 240, 192};
    VideoScene *scene = video_scene_new(240, 192, 2);

    page(s, 0);
    show(s);
    for (unsigned i = 0; i < 20; i++) {
        film_at(s, scene, i, before.w, &before);
        show_frame(s);
    }
    Played p = play(s, scene, &now, 33, 60);
    g_test_message("%u frames, %u of them empty", p.frames, p.empty);
    g_assert_cmpuint(p.films, >, 50);
    g_assert_cmpuint(p.empty, <=, 1);
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
    g_test_add_func("/encoder-film/h264", test_film_h264);
    g_test_add_func("/encoder-film/rfx", test_film_rfx);
    g_test_add_func("/encoder-film/limited", test_film_limited);
    g_test_add_func("/encoder-film/cut", test_film_cut);
    g_test_add_func("/encoder-film/slow", test_slow_film);
    g_test_add_func("/encoder-film/paces", test_paces);
    g_test_add_func("/encoder-film/two", test_two_films);
    g_test_add_func("/encoder-film/cursor", test_cursor_over_film);
    g_test_add_func("/encoder-film/not-text", test_text_is_no_film);
    return g_test_run();
}
