/*
 * Streams from the framebuffer to what clients show: however clients come, stop, fall behind and
 * lose what they show, in the end each one shows the guest's picture, pixel by pixel.
 */
#include <string.h>

#include "fake_dvc.h"
#include "stream_rig.h"

static void test_share(void)
{
    Rig *rig = g_new(Rig, 1);

    rig_init(rig);
    share_two(rig);
    Client *a = rig->clients[0], *b = rig->clients[1];
    g_assert_cmpuint(a->fresh_starts, ==, 1); /* nothing was painted again */
    g_assert_cmpuint(b->fresh_starts, ==, 1);
    for (unsigned i = 0; i < 120; i++) { /* ClearCodec's numbers wrap */
        if (i % 3)
            draw_anywhere(rig);
        else
            scroll(rig);
        settle(rig);
        g_assert_true(a->last == b->last);
    }
    Client *c = client_new(rig, FILM_NONE);
    settle(rig);
    run_until(rig, share, "three to share");
    scroll(rig);
    settle(rig);
    g_assert_true(a->last == b->last && a->last == c->last);
    client_free(a);
    scroll(rig);
    settle(rig);
    g_assert_true(share(rig));
    rig_clear(rig);
    g_free(rig);
}

static void test_other_codec(void)
{
    Rig *rig = g_new(Rig, 1);

    rig_init(rig);
    Client *a = client_new(rig, FILM_NONE), *b = client_new(rig, FILM_RFX);
    for (unsigned i = 0; i < 20; i++) {
        g_usleep(PATIENCE_US / 4);
        scroll(rig);
        settle(rig);
    }
    g_assert_false(share(rig));
    b->film = FILM_NONE; /* capabilities were advertised again */
    lose(b);
    settle(rig);
    run_until(rig, share, "the two to share");
    scroll(rig);
    settle(rig);
    g_assert_true(a->last == b->last);
    rig_clear(rig);
    g_free(rig);
}

/* One that hangs: the other one has every frame as soon as it is made. */
static void test_behind(void)
{
    Rig *rig = g_new(Rig, 1);

    rig_init(rig);
    share_two(rig);
    Client *a = rig->clients[0], *b = rig->clients[1];
    for (unsigned how = 0; how < 2; how++) {
        uint32_t frames = a->frames;
        if (how == 0)
            b->stopped = true;
        else
            b->silent = true;
        for (unsigned i = 0; i < 20; i++) {
            scroll(rig);
            settle(rig);
        }
        g_assert_cmpuint(a->frames - frames, >=, 20);
        g_assert_false(share(rig));
        g_assert_cmpuint(g_queue_get_length(&b->inbox), <=, 1);
        b->stopped = false;
        catch_up(b);
        settle(rig);
        run_until(rig, share, "the two to share again");
        draw_anywhere(rig);
        settle(rig);
        g_assert_true(a->last == b->last);
    }
    g_assert_cmpuint(b->fresh_starts, ==, 1); /* it went on from what it showed */
    g_assert_cmpuint(a->fresh_starts, ==, 1);
    rig_clear(rig);
    g_free(rig);
}

/* A hiccup of a frame or two is no reason to part. */
static void test_hiccup(void)
{
    Rig *rig = g_new(Rig, 1);

    rig_init(rig);
    share_two(rig);
    Client *a = rig->clients[0], *b = rig->clients[1];
    for (unsigned i = 0; i < 20; i++) {
        b->stopped = true;
        draw_anywhere(rig);
        settle(rig);
        draw_anywhere(rig);
        settle(rig);
        b->stopped = false;
        settle(rig);
        g_assert_true(share(rig));
        g_assert_true(a->last == b->last);
    }
    rig_clear(rig);
    g_free(rig);
}

static bool last_two_share(Rig *rig)
{
    return stream_members_share(rig->clients[1]->member, rig->clients[2]->member);
}

/* The stream of one that was away is older than that of two who share: it joins theirs, and ends
 * with the frame that was made for it in the middle of what goes on. */
static void test_one_joins_two(void)
{
    Rig *rig = g_new(Rig, 1);

    rig_init(rig);
    Client *a = client_new(rig, FILM_NONE);
    settle(rig);
    a->silent = true;
    for (unsigned i = 0; i < 20; i++) {
        scroll(rig);
        run_once(rig);
    }
    client_new(rig, FILM_NONE);
    client_new(rig, FILM_NONE);
    settle(rig);
    run_until(rig, last_two_share, "the later two to share");
    g_assert_false(share(rig));
    catch_up(a);
    for (unsigned i = 0; i < 400 && !share(rig); i++) {
        if (i % (1 + i / 40) == 0) /* ever slower, for a machine that is */
            draw_anywhere(rig);
        run_once(rig);
    }
    run_until(rig, share, "all three to share");
    draw_anywhere(rig);
    settle(rig);
    g_assert_true(a->last == rig->clients[1]->last);
    rig_clear(rig);
    g_free(rig);
}

static void test_lost(void)
{
    Rig *rig = g_new(Rig, 1);

    rig_init(rig);
    share_two(rig);
    Client *a = rig->clients[0], *b = rig->clients[1];
    for (unsigned i = 0; i < 10; i++) {
        scroll(rig);
        for (unsigned k = 0; k < i; k++) /* with a job out, or a frame on its way, or neither */
            run_once(rig);
        lose(b);
        settle(rig);
        run_until(rig, share, "the two to share again");
    }
    g_assert_cmpuint(a->fresh_starts, ==, 1);
    g_assert_cmpuint(b->fresh_starts, ==, 11);
    rig_clear(rig);
    g_free(rig);
}

/* Something has to be said to one of them between two frames. */
static void test_interrupt(void)
{
    Rig *rig = g_new(Rig, 1);

    rig_init(rig);
    share_two(rig);
    Client *b = rig->clients[1];
    fake_dvc_receive(b->dvc, "\x10\0\0\0\x16\0\0\0\x01\0kkkkkkkk\x10\0\0\0", 22);
    tell(b);
    while (b->replies == 0)
        run_once(rig);
    g_assert_cmpuint(b->fresh_starts, ==, 1);
    scroll(rig);
    settle(rig);
    run_until(rig, share, "the two to share again");
    scroll(rig);
    settle(rig);
    rig_clear(rig);
    g_free(rig);
}

static void test_mode_switch(void)
{
    Rig *rig = g_new(Rig, 1);

    rig_init(rig);
    share_two(rig);
    Client *a = rig->clients[0], *b = rig->clients[1];
    for (unsigned i = 0; i < 4; i++) {
        set_scanout(rig, i % 2 ? 400 : 320, i % 2 ? 300 : 240);
        settle(rig);
        scroll(rig);
        settle(rig);
        g_assert_true(a->last == b->last);
    }
    framebuffer_disable(rig->fb); /* black */
    memset(rig->screen, 0, sizeof(rig->screen));
    settle(rig);
    set_scanout(rig, 400, 300);
    scroll(rig);
    settle(rig);
    g_assert_true(share(rig));
    rig_clear(rig);
    g_free(rig);
}

/* One goes with a job out; the last one, too. */
static void test_leaves(void)
{
    Rig *rig = g_new(Rig, 1);

    rig_init(rig);
    for (unsigned i = 0; i < 6; i++) {
        share_two(rig);
        scroll(rig);
        for (unsigned k = 0; k < i; k++)
            g_main_context_iteration(NULL, FALSE);
        client_free(rig->clients[i % 2]);
        scroll(rig);
        settle(rig);
        scroll(rig);
        for (unsigned k = 0; k < i; k++)
            g_main_context_iteration(NULL, FALSE);
        client_free(rig->clients[(i + 1) % 2]);
    }
    rig_clear(rig);
    g_free(rig);
}

static void play_film(Rig *rig, unsigned pictures)
{
    for (unsigned i = 0; i < pictures; i++) {
        uint32_t frames = rig->clients[0]->frames;
        gint64 deadline = g_get_monotonic_time() + 20 * G_USEC_PER_SEC;
        draw(rig, 64, 32, 160, 128, true);
        while (rig->clients[0]->frames == frames && g_get_monotonic_time() < deadline)
            run_once(rig);
        g_assert_cmpuint(rig->clients[0]->frames, >, frames);
    }
}

static bool film_plays(Rig *rig)
{
    play_film(rig, 1);
    return rig->clients[0]->film_pictures > 0;
}

static bool film_parted(Rig *rig)
{
    play_film(rig, 1);
    return !share(rig);
}

static bool film_shared(Rig *rig)
{
    play_film(rig, 1);
    return share(rig) && rig->clients[0]->film_pictures > 0 &&
           rig->clients[0]->last == rig->clients[1]->last;
}

/* It plays when the second one comes: what neither shows exactly is exact for both in the end. */
static void test_film(void)
{
    Rig *rig = g_new(Rig, 1);

    rig_init(rig);
    Client *a = client_new(rig, FILM_RFX);
    settle(rig);
    run_until(rig, film_plays, "a film");
    g_assert_true(a->lossy);
    Client *b = client_new(rig, FILM_RFX);
    run_until(rig, film_shared, "the film to be shared");
    settle(rig);
    b->stopped = true; /* and one that leaves while it plays */
    run_until(rig, film_parted, "the two to part");
    b->stopped = false;
    settle(rig);
    g_assert_true(exact(a) && exact(b));
    rig_clear(rig);
    g_free(rig);
}

/* The film's pictures are larger than the second one's link takes. */
static void test_film_limit(void)
{
    Rig *rig = g_new(Rig, 1);

    rig_init(rig);
    client_new(rig, FILM_RFX);
    Client *b = client_new(rig, FILM_RFX);
    b->film_limit = 200;
    settle(rig);
    run_until(rig, share, "the two to share"); /* what is no film */
    run_until(rig, film_parted, "the two to part");
    settle(rig);
    rig_clear(rig);
    g_free(rig);
}

static void happen(Rig *rig, uint32_t what)
{
    Client **at = &rig->clients[random_bits(rig) % MAX_CLIENTS];
    Client *c = *at;

    switch (c ? what % 8 : 7) {
    case 0:
        c->stopped = !c->stopped;
        break;
    case 1:
        if (c->silent)
            catch_up(c);
        else
            c->silent = true;
        break;
    case 2:
        if (!c->stopped)
            lose(c);
        break;
    case 3:
        client_free(c);
        break;
    case 4:
        if (what % 5 == 0)
            set_scanout(rig, 200 + random_bits(rig) % 300, 200 + random_bits(rig) % 300);
        break;
    case 7:
        if (!c)
            client_new(rig, what % 3 ? FILM_NONE : FILM_RFX);
        break;
    default:
        break;
    }
}

/* Anything may happen at any time. */
static void test_anything(void)
{
    Rig *rig = g_new(Rig, 1);
    unsigned shared = 0;

    rig_init_for(rig, 500);
    for (unsigned i = 0; i < 200; i++) {
        if (i % 4)
            draw_anywhere(rig);
        else
            scroll(rig);
        if (random_bits(rig) % 6 == 0)
            happen(rig, random_bits(rig));
        for (unsigned k = random_bits(rig) % 8; k > 0; k--)
            run_once(rig);
        if (i % 16 == 0)
            settle(rig);
        shared += rig->clients[0] && rig->clients[1] &&
                  stream_members_share(rig->clients[0]->member, rig->clients[1]->member);
    }
    for (unsigned i = 0; i < MAX_CLIENTS; i++) {
        if (!rig->clients[i])
            continue;
        rig->clients[i]->stopped = false;
        catch_up(rig->clients[i]);
    }
    settle(rig);
    g_test_message("shared at %u of 200 times", shared);
    rig_clear(rig);
    g_free(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/stream/share", test_share);
    g_test_add_func("/stream/other-codec", test_other_codec);
    g_test_add_func("/stream/behind", test_behind);
    g_test_add_func("/stream/hiccup", test_hiccup);
    g_test_add_func("/stream/one-joins-two", test_one_joins_two);
    g_test_add_func("/stream/lost", test_lost);
    g_test_add_func("/stream/interrupt", test_interrupt);
    g_test_add_func("/stream/mode-switch", test_mode_switch);
    g_test_add_func("/stream/leaves", test_leaves);
    g_test_add_func("/stream/film", test_film);
    g_test_add_func("/stream/film-limit", test_film_limit);
    g_test_add_func("/stream/anything", test_anything);
    return g_test_run();
}
