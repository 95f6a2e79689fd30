/*
 * Streams from the framebuffer to what clients show: each client is a graphics channel with
 * FreeRDP's decoders behind it, that says of itself what PeerDisplay does. However they come, stop,
 * fall behind and lose what they show, in the end each one shows the guest's picture, pixel by
 * pixel.
 */
#include "stream.h"

#include <pixman.h>
#include <string.h>

#include "fake_dvc.h"
#include "gfx.h"
#include "gfx_player.h"
#include "unzgfx.h"

#define PATIENCE_US 5000
#define MAX_SIDE 512u
#define MAX_CLIENTS 4u

typedef struct Client {
    struct Rig *rig;
    DvcManager *manager;
    Dvc *dvc;
    Gfx *gfx;
    Unzgfx *unzgfx;
    GfxPlayer *player;
    StreamMember *member;
    StreamSlot told;
    StreamNeed need;
    uint32_t handled, film_limit;
    FilmCodec film;
    GQueue inbox;   /* of EncodedFrame: what was delivered to its thread */
    bool stopped;   /* the thread hangs */
    bool silent;    /* it acknowledges nothing */
    uint16_t shown; /* the mapped surface */
    uint32_t frames, fresh_starts;
    uint32_t last, ended; /* id of the last frame that was sent, and that it has played */
    bool lossy;
    unsigned film_pictures, replies;
} Client;

typedef struct Rig {
    Framebuffer *fb;
    Streams *streams;
    uint32_t width, height;
    uint32_t screen[MAX_SIDE][MAX_SIDE];
    Client *clients[MAX_CLIENTS];
    uint32_t seed;
} Rig;

static uint64_t now(void)
{
    return (uint64_t)g_get_monotonic_time();
}

static uint32_t random_bits(Rig *rig)
{
    rig->seed = rig->seed * 1664525u + 1013904223u;
    return rig->seed >> 8;
}

/* ---- a client ---- */

static void tell(Client *c)
{
    const StreamSlot slot = {.film = c->film,
                             .need = c->need,
                             .ready = gfx_surface(c->gfx) == 0 || gfx_may_send(c->gfx),
                             .handled = c->handled,
                             .film_limit = c->film_limit};

    if (slot.film == c->told.film && slot.need == c->told.need && slot.ready == c->told.ready &&
        (!slot.ready || slot.handled == c->told.handled))
        return;
    c->told = slot;
    stream_member_slot(c->member, &slot);
}

static void acknowledge(Client *c, uint32_t frame)
{
    Writer w;

    writer_init(&w, 64);
    writer_u16(&w, GFX_FRAMEACKNOWLEDGE);
    writer_u16(&w, 0);
    writer_u32(&w, 20);
    writer_u32(&w, 0);
    writer_u32(&w, frame);
    writer_u32(&w, frame);
    fake_dvc_receive(c->dvc, w.data, w.len);
    writer_clear(&w);
}

static void play_pdu(Client *c, const uint8_t *pdu, size_t len)
{
    Reader r;

    reader_init(&r, pdu, len);
    uint16_t cmd = reader_u16(&r);
    reader_skip(&r, GFX_HEADER_BYTES - 2);
    switch (cmd) {
    case GFX_CAPSCONFIRM:
    case GFX_RESETGRAPHICS:
    case GFX_STARTFRAME:
        break;
    case GFX_CACHEIMPORTREPLY:
        c->replies++;
        break;
    case GFX_MAPSURFACETOOUTPUT:
        c->shown = reader_u16(&r);
        break;
    case GFX_ENDFRAME:
        c->ended = reader_u32(&r);
        if (!c->silent)
            acknowledge(c, c->ended);
        break;
    default:
        gfx_player_play(c->player, pdu, len, SIZE_MAX);
    }
}

/* What the channel has for the client. */
static void play(Client *c)
{
    uint8_t *message;
    size_t len;

    while ((message = fake_dvc_take(c->dvc, &len))) {
        Writer w;
        writer_init(&w, 1 << 24);
        unzgfx_unwrap(c->unzgfx, message, len, &w);
        for (size_t at = 0; at < w.len;) {
            size_t n = gfx_pdu_length(w.data + at, w.len - at);
            g_assert_cmpuint(n, >, 0);
            play_pdu(c, w.data + at, n);
            at += n;
        }
        writer_clear(&w);
        free(message);
    }
}

static void handle(Client *c, EncodedFrame *encoded)
{
    c->handled++;
    if (encoded->starts && !(c->need == STREAM_FRESH && !encoded->start.fresh)) {
        c->need = STREAM_GOES_ON;
        c->fresh_starts += encoded->start.fresh;
        g_assert_true(gfx_start(c->gfx, &encoded->start));
    }
    if (c->need != STREAM_FRESH) {
        g_assert_true(gfx_send_frame(c->gfx, &encoded->packed, encoded->clear_streams));
        c->frames++;
        c->last = encoded->packed.id;
        c->lossy = encoded->lossy;
        c->film_pictures += encoded->film_bytes > 0;
    }
    encoded_frame_unref(encoded);
    play(c);
}

/* What its thread does when it runs; whether it did anything. */
static bool run_client(Client *c)
{
    EncodedFrame *encoded;
    bool busy = false;

    while (!c->stopped && (encoded = g_queue_pop_head(&c->inbox))) {
        handle(c, encoded);
        tell(c);
        busy = true;
    }
    return busy;
}

static void on_deliver(void *user, EncodedFrame *encoded)
{
    Client *c = user;

    g_assert_nonnull(encoded);
    g_queue_push_tail(&c->inbox, encoded);
}

static void on_ready(void *user)
{
    ((Client *)user)->need = STREAM_FRESH;
}

static void on_interrupt(void *user)
{
    Client *c = user;
    c->need = MAX(c->need, STREAM_START);
}

static void on_slot(void *user)
{
    (void)user; /* who acknowledges tells afterwards */
}

static void on_unavailable(void *user, const char *why)
{
    (void)user;
    g_error("the channel broke: %s", why);
}

static const GfxCallbacks gfx_callbacks = {on_ready, on_interrupt, on_slot, on_unavailable};

static Client *client_new(Rig *rig, FilmCodec film)
{
    Client *c = g_new0(Client, 1);

    c->rig = rig;
    c->film = film;
    c->manager = fake_dvc_manager_new();
    c->gfx = gfx_new(c->manager, "test", now, &gfx_callbacks, c);
    c->dvc = fake_dvc_nth(c->manager, 0);
    c->unzgfx = unzgfx_new();
    c->player = gfx_player_new();
    g_queue_init(&c->inbox);
    fake_dvc_accept(c->dvc);
    fake_dvc_receive(c->dvc, "\x12\0\0\0\x16\0\0\0\x01\0\0\x04\x0a\0\x04\0\0\0\0\0\0\0", 22);
    play(c);
    c->told = (StreamSlot){.film = film, .need = c->need, .ready = true};
    c->member = stream_member_new(rig->streams, &c->told, on_deliver, c);
    for (unsigned i = 0; i < MAX_CLIENTS; i++) {
        if (!rig->clients[i]) {
            rig->clients[i] = c;
            break;
        }
    }
    return c;
}

static void client_free(Client *c)
{
    for (unsigned i = 0; i < MAX_CLIENTS; i++) {
        if (c->rig->clients[i] == c)
            c->rig->clients[i] = NULL;
    }
    stream_member_free(c->member);
    g_queue_clear_full(&c->inbox, (GDestroyNotify)encoded_frame_unref);
    gfx_free(c->gfx);
    fake_dvc_manager_free(c->manager);
    unzgfx_free(c->unzgfx);
    gfx_player_free(c->player);
    g_free(c);
}

/* It acknowledges what it has not. */
static void catch_up(Client *c)
{
    c->silent = false;
    acknowledge(c, c->ended);
    tell(c);
}

static void lose(Client *c)
{
    c->need = STREAM_FRESH;
    tell(c);
}

static bool exact(const Client *c)
{
    const Rig *rig = c->rig;

    if (c->need == STREAM_FRESH || c->lossy || gfx_surface(c->gfx) == 0)
        return false;
    g_assert_cmpuint(c->shown, ==, gfx_surface(c->gfx));
    const uint8_t *pixels = gfx_player_pixels(c->player, c->shown);
    for (uint32_t y = 0; y < rig->height; y++) {
        for (uint32_t x = 0; x < rig->width; x++) {
            uint32_t have;
            memcpy(&have, pixels + ((size_t)y * rig->width + x) * 4, 4);
            if ((have ^ rig->screen[y][x]) & 0xFFFFFF)
                return false;
        }
    }
    return true;
}

/* ---- the guest ---- */

static void on_damaged(void *user)
{
    Rig *rig = user;
    if (rig->streams)
        streams_damaged(rig->streams);
}

static void set_scanout(Rig *rig, uint32_t width, uint32_t height)
{
    rig->width = width;
    rig->height = height;
    g_assert_true(framebuffer_set_scanout(rig->fb, width, height, MAX_SIDE * 4, PIXMAN_x8r8g8b8,
                                          (const uint8_t *)rig->screen,
                                          (size_t)MAX_SIDE * 4 * height));
}

static void update(Rig *rig, int32_t x, int32_t y, int32_t w, int32_t h)
{
    const Rect rect = {x, y, w, h};
    g_assert_true(framebuffer_update(rig->fb, &rect, MAX_SIDE * 4, PIXMAN_x8r8g8b8,
                                     (const uint8_t *)&rig->screen[y][x],
                                     (size_t)MAX_SIDE * 4 * (uint32_t)h));
}

/* Blocks of few colours, like text; or something like a photograph. */
static void draw(Rig *rig, int32_t x, int32_t y, int32_t w, int32_t h, bool photo)
{
    uint32_t seed = random_bits(rig);

    for (int32_t i = y; i < y + h; i++) {
        for (int32_t j = x; j < x + w; j++) {
            uint32_t n = ((uint32_t)j * 374761393u + (uint32_t)i * 668265263u + seed) * 1274126177u;
            uint32_t block = (uint32_t)(j / 3) * 2654435761u + (uint32_t)(i / 4) * 40503u + seed;
            rig->screen[i][j] =
                photo ? ((uint32_t)(j + i + (int32_t)seed % 64) & 0xFF) * 0x10101 + (n >> 28)
                      : ((block >> 13) % 3) * 0x405060;
        }
    }
    update(rig, x, y, w, h);
}

static void draw_anywhere(Rig *rig)
{
    int32_t x = (int32_t)(random_bits(rig) % (rig->width - 40));
    int32_t y = (int32_t)(random_bits(rig) % (rig->height - 40));

    draw(rig, x, y, 8 + (int32_t)(random_bits(rig) % 32), 8 + (int32_t)(random_bits(rig) % 32),
         random_bits(rig) % 4 == 0);
}

/* A line of text, and the rest of it scrolls. */
static void scroll(Rig *rig)
{
    memmove(rig->screen[0], rig->screen[16], (rig->height - 16) * sizeof(rig->screen[0]));
    draw(rig, 0, (int32_t)rig->height - 16, (int32_t)rig->width, 16, false);
    update(rig, 0, 0, (int32_t)rig->width, (int32_t)rig->height);
}

static void rig_init_for(Rig *rig, int64_t patience_us)
{
    memset(rig, 0, sizeof(*rig));
    rig->seed = 1;
    rig->fb = framebuffer_new(on_damaged, rig);
    rig->streams = streams_new(rig->fb, patience_us);
    set_scanout(rig, 400, 300);
    draw(rig, 0, 0, 400, 300, false);
}

static void rig_init(Rig *rig)
{
    rig_init_for(rig, PATIENCE_US);
}

static void rig_clear(Rig *rig)
{
    for (unsigned i = 0; i < MAX_CLIENTS; i++) {
        if (rig->clients[i])
            client_free(rig->clients[i]);
    }
    streams_free(rig->streams);
    framebuffer_free(rig->fb);
}

/* ---- waiting ---- */

typedef bool (*Condition)(Rig *rig);

static void run_once(Rig *rig)
{
    bool busy = g_main_context_iteration(NULL, FALSE);

    for (unsigned i = 0; i < MAX_CLIENTS; i++)
        busy |= rig->clients[i] && run_client(rig->clients[i]);
    if (!busy)
        g_usleep(200);
}

static void run_until(Rig *rig, Condition condition, const char *what)
{
    gint64 deadline = g_get_monotonic_time() + 60 * G_USEC_PER_SEC;

    while (!condition(rig)) {
        run_once(rig);
        if (g_get_monotonic_time() > deadline)
            g_error("waited in vain for %s", what);
    }
}

static bool all_exact(Rig *rig)
{
    for (unsigned i = 0; i < MAX_CLIENTS; i++) {
        const Client *c = rig->clients[i];
        if (c && !c->stopped && !c->silent && !exact(c))
            return false;
    }
    return true;
}

static void settle(Rig *rig)
{
    run_until(rig, all_exact, "exact pictures");
}

static bool share(Rig *rig)
{
    const Client *first = NULL;

    for (unsigned i = 0; i < MAX_CLIENTS; i++) {
        const Client *c = rig->clients[i];
        if (c && first && !stream_members_share(first->member, c->member))
            return false;
        if (c)
            first = c;
    }
    return true;
}

/* Two clients that share, and have got a frame that way. */
static void share_two(Rig *rig)
{
    Client *a = client_new(rig, FILM_NONE);
    settle(rig);
    Client *b = client_new(rig, FILM_NONE);
    settle(rig);
    run_until(rig, share, "the two to share");
    draw_anywhere(rig);
    settle(rig);
    g_assert_true(a->last == b->last);
}

/* ---- tests ---- */

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
