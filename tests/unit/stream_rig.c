/*
 * A client here is a graphics channel that leads to FreeRDP's decoders. It says of itself what
 * PeerDisplay does, and handles what is delivered to it when run_once() comes to it, which stands
 * for its thread.
 */
#include "stream_rig.h"

#include <pixman.h>
#include <string.h>

#include "fake_dvc.h"

static uint64_t now(void)
{
    return (uint64_t)g_get_monotonic_time();
}

uint32_t random_bits(Rig *rig)
{
    rig->seed = rig->seed * 1664525u + 1013904223u;
    return rig->seed >> 8;
}

/* ---- a client ---- */

void tell(Client *c)
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
        const DvcOwner owner = encoded_frame_owner(encoded);
        g_assert_true(gfx_send_frame(c->gfx, &encoded->packed, encoded->clear_streams, &owner));
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

Client *client_new(Rig *rig, FilmCodec film)
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

void client_free(Client *c)
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

void catch_up(Client *c)
{
    c->silent = false;
    acknowledge(c, c->ended);
    tell(c);
}

void lose(Client *c)
{
    c->need = STREAM_FRESH;
    tell(c);
}

bool exact(const Client *c)
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

void set_scanout(Rig *rig, uint32_t width, uint32_t height)
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

void draw(Rig *rig, int32_t x, int32_t y, int32_t w, int32_t h, bool photo)
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

void draw_anywhere(Rig *rig)
{
    int32_t x = (int32_t)(random_bits(rig) % (rig->width - 40));
    int32_t y = (int32_t)(random_bits(rig) % (rig->height - 40));

    draw(rig, x, y, 8 + (int32_t)(random_bits(rig) % 32), 8 + (int32_t)(random_bits(rig) % 32),
         random_bits(rig) % 4 == 0);
}

void scroll(Rig *rig)
{
    memmove(rig->screen[0], rig->screen[16], (rig->height - 16) * sizeof(rig->screen[0]));
    draw(rig, 0, (int32_t)rig->height - 16, (int32_t)rig->width, 16, false);
    update(rig, 0, 0, (int32_t)rig->width, (int32_t)rig->height);
}

void rig_init_for(Rig *rig, int64_t patience_us)
{
    memset(rig, 0, sizeof(*rig));
    rig->seed = 1;
    rig->fb = framebuffer_new(on_damaged, rig);
    rig->streams = streams_new(rig->fb, patience_us);
    set_scanout(rig, 400, 300);
    draw(rig, 0, 0, 400, 300, false);
}

void rig_init(Rig *rig)
{
    rig_init_for(rig, PATIENCE_US);
}

void rig_clear(Rig *rig)
{
    for (unsigned i = 0; i < MAX_CLIENTS; i++) {
        if (rig->clients[i])
            client_free(rig->clients[i]);
    }
    streams_free(rig->streams);
    framebuffer_free(rig->fb);
}

/* ---- waiting ---- */

void run_once(Rig *rig)
{
    bool busy = g_main_context_iteration(NULL, FALSE);

    for (unsigned i = 0; i < MAX_CLIENTS; i++)
        busy |= rig->clients[i] && run_client(rig->clients[i]);
    if (!busy)
        g_usleep(200);
}

void run_until(Rig *rig, Condition condition, const char *what)
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

void settle(Rig *rig)
{
    run_until(rig, all_exact, "exact pictures");
}

bool share(Rig *rig)
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

void share_two(Rig *rig)
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
