/* The framebuffer: what a viewer takes adds up to exactly the guest's picture. */
#include "framebuffer.h"

#include <pixman.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "log.h"

/* A guest: a memfd that QEMU would share. */
typedef struct Guest {
    int fd;
    uint32_t width, height, stride, offset;
    uint8_t *base, *pixels;
    size_t len;
} Guest;

static Guest guest_new(uint32_t width, uint32_t height, uint32_t stride, uint32_t offset)
{
    Guest g = {.width = width, .height = height, .stride = stride, .offset = offset};
    g.len = offset + (size_t)stride * height;
    g.fd = memfd_create("guest", MFD_CLOEXEC);
    g_assert_cmpint(ftruncate(g.fd, (off_t)g.len), ==, 0);
    g.base = mmap(NULL, g.len, PROT_READ | PROT_WRITE, MAP_SHARED, g.fd, 0);
    g_assert_true(g.base != MAP_FAILED);
    g.pixels = g.base + offset;
    return g;
}

static void guest_free(Guest *g)
{
    munmap(g->base, g->len);
    close(g->fd);
}

static bool guest_map(Framebuffer *fb, const Guest *g, uint32_t format)
{
    return framebuffer_set_map(fb, dup(g->fd), g->offset, g->width, g->height, g->stride, format);
}

/* A client: applies frames to its own picture, as RDP does, and checks their form. */
typedef struct Client {
    FramebufferViewer *viewer;
    uint32_t width, height, generation;
    bool blank;
    uint8_t *pixels;
    uint64_t pixels_taken;
    unsigned whole; /* frames */
} Client;

static void check_rects(const Frame *f)
{
    for (uint32_t i = 0; i < f->n_rects; i++) {
        const Rect *r = &f->rects[i];
        g_assert_cmpint(r->x % 64, ==, 0);
        g_assert_cmpint(r->y % 64, ==, 0);
        g_assert_true(r->w > 0 && r->h > 0);
        g_assert_cmpint(r->x + r->w, <=, (int)f->width);
        g_assert_cmpint(r->y + r->h, <=, (int)f->height);
        g_assert_true((r->x + r->w) % 64 == 0 || r->x + r->w == (int)f->width);
        g_assert_true((r->y + r->h) % 64 == 0 || r->y + r->h == (int)f->height);
        for (uint32_t j = i + 1; j < f->n_rects; j++) {
            const Rect *o = &f->rects[j];
            g_assert_cmpint(o->y, >=, r->y);
            g_assert_true(o->x >= r->x + r->w || r->x >= o->x + o->w || o->y >= r->y + r->h);
        }
    }
}

/* True if there was a frame. */
static bool client_take(Client *c)
{
    Frame *f = framebuffer_viewer_take(c->viewer);
    if (!f)
        return false;
    c->blank = f->blank;
    if (f->blank) {
        g_assert_cmpuint(f->n_rects, ==, 0);
        frame_unref(f);
        return true;
    }
    if (f->generation != c->generation || !c->pixels) {
        g_free(c->pixels);
        c->pixels = g_malloc0((size_t)f->width * f->height * 4);
        c->width = f->width;
        c->height = f->height;
        c->generation = f->generation;
    }
    g_assert_cmpuint(c->width, ==, f->width);
    g_assert_cmpuint(c->height, ==, f->height);
    g_assert_cmpuint(f->n_rects, >, 0);
    check_rects(f);
    for (uint32_t i = 0; i < f->n_rects; i++) {
        const Rect *r = &f->rects[i];
        c->pixels_taken += (uint64_t)r->w * (uint64_t)r->h;
        for (int y = r->y; y < r->y + r->h; y++)
            memcpy(c->pixels + ((size_t)y * c->width + (size_t)r->x) * 4,
                   f->pixels + (size_t)y * f->stride + (size_t)r->x * 4, (size_t)r->w * 4);
    }
    for (uint32_t y = 0; y < f->height && f->whole; y++)
        g_assert_cmpmem(f->pixels + (size_t)y * f->stride, f->width * 4,
                        c->pixels + (size_t)y * c->width * 4, c->width * 4);
    c->whole += f->whole;
    frame_unref(f);
    return true;
}

static void client_free(Client *c)
{
    framebuffer_viewer_free(c->viewer);
    g_free(c->pixels);
}

static void assert_shows(const Client *c, const Guest *g)
{
    g_assert_cmpuint(c->width, ==, g->width);
    g_assert_cmpuint(c->height, ==, g->height);
    g_assert_false(c->blank);
    for (uint32_t y = 0; y < g->height; y++)
        g_assert_cmpmem(c->pixels + (size_t)y * c->width * 4, c->width * 4,
                        g->pixels + (size_t)y * g->stride, g->width * 4);
}

static void noise(Guest *g, const Rect *r)
{
    for (int y = r->y; y < r->y + r->h; y++)
        for (int x = r->x * 4; x < (r->x + r->w) * 4; x++)
            g->pixels[(size_t)y * g->stride + (size_t)x] = (uint8_t)g_test_rand_int();
}

static Rect random_rect(const Guest *g, int max)
{
    Rect r;
    r.x = g_test_rand_int_range(0, (int)g->width);
    r.y = g_test_rand_int_range(0, (int)g->height);
    r.w = g_test_rand_int_range(1, max);
    r.h = g_test_rand_int_range(1, max);
    r.w = MIN(r.w, (int)g->width - r.x);
    r.h = MIN(r.h, (int)g->height - r.y);
    return r;
}

static void count(void *user)
{
    ++*(int *)user;
}

static void test_map_random(void)
{
    int calls = 0;
    Framebuffer *fb = framebuffer_new(count, &calls);
    Guest g = guest_new(333, 217, 333 * 4 + 20, 4096 + 64);
    g_assert_true(guest_map(fb, &g, PIXMAN_x8r8g8b8));
    g_assert_cmpint(calls, ==, 1);

    Client a = {.viewer = framebuffer_viewer_new(fb)}, b = {.viewer = framebuffer_viewer_new(fb)};
    for (int i = 0; i < 500; i++) {
        for (int n = g_test_rand_int_range(0, 5); n > 0; n--) {
            Rect r = random_rect(&g, 150);
            noise(&g, &r);
            framebuffer_update_map(fb, &r);
        }
        client_take(&a);
        assert_shows(&a, &g);
        g_assert_false(client_take(&a));
        if (i % 7 == 0) {
            client_take(&b);
            assert_shows(&b, &g);
        }
    }
    g_assert_cmpuint(a.whole, >, 10);
    client_free(&a);
    client_free(&b);
    framebuffer_free(fb);
    guest_free(&g);
}

/* Damages a tile or invalidates it, takes it, and returns where its picture is. */
static const uint8_t *take_tile(Framebuffer *fb, FramebufferViewer *v, Guest *g, bool damage)
{
    const Rect r = {70, 70, 10, 10};

    if (damage) {
        g->pixels[(size_t)r.y * g->stride + (size_t)r.x * 4]++;
        framebuffer_update_map(fb, &r);
    } else {
        framebuffer_viewer_invalidate(v, &r);
    }
    Frame *f = framebuffer_viewer_take(v);
    g_assert_nonnull(f);
    g_assert_cmpuint(f->n_rects, ==, 1);
    g_assert_false(f->whole);
    g_assert_cmpmem(f->pixels + (size_t)r.y * f->stride + (size_t)r.x * 4, 4,
                    g->pixels + (size_t)r.y * g->stride + (size_t)r.x * 4, 4);
    const uint8_t *pixels = f->pixels;
    frame_unref(f);
    return pixels;
}

/* One viewer is lent what there is, again and again; two get copies of small changes. */
static void test_lending(void)
{
    Framebuffer *fb = framebuffer_new(NULL, NULL);
    Guest g = guest_new(640, 480, 2560, 0);
    guest_map(fb, &g, PIXMAN_x8r8g8b8);
    FramebufferViewer *v = framebuffer_viewer_new(fb);
    Frame *first = framebuffer_viewer_take(v);
    g_assert_true(first->whole);
    const uint8_t *shadow = first->pixels;
    frame_unref(first);
    for (int i = 0; i < 4; i++)
        g_assert_true(take_tile(fb, v, &g, i % 2) == shadow);

    FramebufferViewer *other = framebuffer_viewer_copy(v);
    for (int i = 0; i < 4; i++)
        g_assert_true(take_tile(fb, v, &g, i % 2) != shadow);
    framebuffer_viewer_free(other);
    g_assert_true(take_tile(fb, v, &g, true) == shadow);
    framebuffer_viewer_free(v);
    framebuffer_free(fb);
    guest_free(&g);
}

static void test_false_damage(void)
{
    int calls = 0;
    Framebuffer *fb = framebuffer_new(count, &calls);
    Guest g = guest_new(640, 480, 2560, 0);
    guest_map(fb, &g, PIXMAN_x8r8g8b8);
    Client c = {.viewer = framebuffer_viewer_new(fb)};
    g_assert_true(client_take(&c));
    g_assert_cmpint(calls, ==, 1);

    for (int i = 0; i < 25; i++)
        framebuffer_update_map(fb, &(Rect){0, i * 16, 640, 16});
    g_assert_cmpint(calls, ==, 2); /* once per transition */
    g_assert_false(client_take(&c));

    /* The same picture in another buffer is no news either (page flipping). */
    Guest flip = guest_new(640, 480, 2560 + 64, 4096);
    guest_map(fb, &flip, PIXMAN_x8r8g8b8);
    g_assert_cmpint(calls, ==, 3);
    g_assert_false(client_take(&c));

    /* One pixel makes one tile. */
    flip.pixels[100 * flip.stride + 70 * 4] = 1;
    framebuffer_update_map(fb, &(Rect){0, 0, 640, 480});
    c.pixels_taken = 0;
    g_assert_true(client_take(&c));
    g_assert_cmpuint(c.pixels_taken, ==, 64 * 64);
    assert_shows(&c, &flip);

    /* The unused byte is no picture. */
    for (size_t at = 3; at < (size_t)flip.stride * 480; at += 4)
        flip.pixels[at] ^= 0x5A;
    framebuffer_update_map(fb, &(Rect){0, 0, 640, 480});
    g_assert_cmpint(calls, ==, 5);
    g_assert_false(client_take(&c));

    /* Damage that lies is clipped. */
    framebuffer_update_map(fb, &(Rect){-5, -5, 3, 3});
    framebuffer_update_map(fb, &(Rect){INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX});
    framebuffer_update_map(fb, &(Rect){INT32_MIN, INT32_MIN, INT32_MAX, INT32_MAX});
    framebuffer_update_map(fb, &(Rect){0, 0, -1, -1});
    g_assert_cmpint(calls, ==, 5);
    g_assert_false(client_take(&c));

    client_free(&c);
    framebuffer_free(fb);
    guest_free(&g);
    guest_free(&flip);
}

/* Vertically and horizontally adjacent tiles become one rectangle. */
static void test_rect_merge(void)
{
    Framebuffer *fb = framebuffer_new(NULL, NULL);
    Guest g = guest_new(640, 480, 2560, 0);
    guest_map(fb, &g, PIXMAN_x8r8g8b8);
    FramebufferViewer *v = framebuffer_viewer_new(fb);
    Frame *f = framebuffer_viewer_take(v);
    g_assert_cmpuint(f->n_rects, ==, 1);
    g_assert_cmpint(f->rects[0].w, ==, 640);
    g_assert_cmpint(f->rects[0].h, ==, 480);
    frame_unref(f);

    framebuffer_viewer_invalidate(v, &(Rect){64, 64, 128, 200}); /* a column 2 wide, 4 high */
    framebuffer_viewer_invalidate(v, &(Rect){320, 70, 10, 10});
    f = framebuffer_viewer_take(v);
    g_assert_cmpuint(f->n_rects, ==, 2);
    g_assert_cmpint(f->rects[0].x, ==, 64);
    g_assert_cmpint(f->rects[0].y, ==, 64);
    g_assert_cmpint(f->rects[0].w, ==, 128);
    g_assert_cmpint(f->rects[0].h, ==, 256);
    g_assert_cmpint(f->rects[1].x, ==, 320);
    frame_unref(f);
    g_assert_null(framebuffer_viewer_take(v));
    framebuffer_viewer_free(v);
    framebuffer_free(fb);
    guest_free(&g);
}

/* Frames are what they were when taken, also after the framebuffer is gone. */
static void test_frames_are_immutable(void)
{
    Framebuffer *fb = framebuffer_new(NULL, NULL);
    Guest g = guest_new(64, 64, 256, 0);
    guest_map(fb, &g, PIXMAN_x8r8g8b8);
    FramebufferViewer *v = framebuffer_viewer_new(fb);
    Frame *frames[8];
    for (int i = 0; i < 8; i++) {
        memset(g.pixels, i + 1, 256 * 64);
        framebuffer_update_map(fb, &(Rect){0, 0, 64, 64});
        frames[i] = framebuffer_viewer_take(v);
        g_assert_nonnull(frames[i]);
    }
    framebuffer_viewer_free(v);
    framebuffer_free(fb);
    for (int i = 0; i < 8; i++) {
        for (int y = 0; y < 64; y++)
            g_assert_cmpint(frames[i]->pixels[(size_t)y * frames[i]->stride], ==, i + 1);
        frame_unref(frames[i]);
    }
    guest_free(&g);
}

/* 7.2 to 9.1: whole pictures, parts, and a mode switch that only Width and Height tell. */
static void test_copy_path(void)
{
    int calls = 0;
    Framebuffer *fb = framebuffer_new(count, &calls);
    Guest g = guest_new(640, 480, 2560, 0);
    Rect all = {0, 0, 640, 480};
    noise(&g, &all);
    g_assert_true(framebuffer_set_scanout(fb, 640, 480, 2560, PIXMAN_x8r8g8b8, g.pixels, g.len));
    framebuffer_resize(fb, 640, 480);
    Client c = {.viewer = framebuffer_viewer_new(fb)};
    g_assert_true(client_take(&c));
    assert_shows(&c, &g);
    calls = 0;
    g_assert_true(framebuffer_set_scanout(fb, 640, 480, 2560, PIXMAN_x8r8g8b8, g.pixels, g.len));
    g_assert_cmpint(calls, ==, 0);

    for (int i = 0; i < 200; i++) {
        Rect r = random_rect(&g, 200);
        noise(&g, &r);
        const uint8_t *p = g.pixels + (size_t)r.y * g.stride + (size_t)r.x * 4;
        size_t len = (size_t)(r.h - 1) * g.stride + (size_t)r.w * 4;
        g_assert_true(framebuffer_update(fb, &r, g.stride, PIXMAN_x8r8g8b8, p, len));
        g_assert_true(client_take(&c));
        assert_shows(&c, &g);
        g_assert_true(framebuffer_update(fb, &r, g.stride, PIXMAN_x8r8g8b8, p, len));
        g_assert_false(client_take(&c));
    }

    /* Now 720x400 in rows of 16; the size becomes known after half of them. */
    Guest text = guest_new(720, 400, 2880, 0);
    all = (Rect){0, 0, 720, 400};
    noise(&text, &all);
    for (int y = 0; y < 400; y += 16) {
        if (y == 208)
            framebuffer_resize(fb, 720, 400);
        Rect r = {0, y, 720, 16};
        g_assert_true(framebuffer_update(fb, &r, 2880, PIXMAN_x8r8g8b8,
                                         text.pixels + (size_t)y * 2880, 16 * 2880));
        if (y % 48 == 0)
            client_take(&c);
    }
    client_take(&c);
    assert_shows(&c, &text);

    /* From a mapping to parts by value, size known before, and the other way round. */
    g_assert_true(guest_map(fb, &g, PIXMAN_x8r8g8b8));
    client_take(&c);
    assert_shows(&c, &g);
    framebuffer_resize(fb, 720, 400);
    g_assert_false(client_take(&c)); /* a mapping has its own size */
    for (int y = 0; y < 400; y += 16)
        framebuffer_update(fb, &(Rect){0, y, 720, 16}, 2880, PIXMAN_x8r8g8b8,
                           text.pixels + (size_t)y * 2880, 16 * 2880);
    client_take(&c);
    assert_shows(&c, &text);

    client_free(&c);
    framebuffer_free(fb);
    guest_free(&g);
    guest_free(&text);
}

/* Black pixels of a new surface must reach a client that shows something else. */
static void test_black_after_mode_switch(void)
{
    Framebuffer *fb = framebuffer_new(NULL, NULL);
    Guest g = guest_new(128, 128, 512, 0), black = guest_new(128, 128, 512, 0);
    memset(g.pixels, 0x55, 512 * 128);
    framebuffer_set_scanout(fb, 128, 128, 512, PIXMAN_x8r8g8b8, g.pixels, g.len);
    Client c = {.viewer = framebuffer_viewer_new(fb)};
    client_take(&c);
    /* Pixels beyond the size grow the shadow; the next whole picture shrinks it again. */
    framebuffer_update(fb, &(Rect){0, 128, 4, 4}, 16, PIXMAN_x8r8g8b8, g.pixels, 64);
    framebuffer_set_scanout(fb, 128, 128, 512, PIXMAN_x8r8g8b8, black.pixels, black.len);
    g_assert_true(client_take(&c));
    assert_shows(&c, &black);
    client_free(&c);
    framebuffer_free(fb);
    guest_free(&g);
    guest_free(&black);
}

static void test_disable(void)
{
    int calls = 0;
    Framebuffer *fb = framebuffer_new(count, &calls);
    Guest g = guest_new(100, 100, 400, 0);
    FramebufferViewer *early = framebuffer_viewer_new(fb);
    g_assert_null(framebuffer_viewer_take(early));
    framebuffer_disable(fb);
    g_assert_null(framebuffer_viewer_take(early));
    framebuffer_viewer_free(early);

    guest_map(fb, &g, PIXMAN_x8r8g8b8);
    Client c = {.viewer = framebuffer_viewer_new(fb)};
    client_take(&c);
    calls = 0;
    framebuffer_disable(fb);
    framebuffer_disable(fb);
    g_assert_cmpint(calls, ==, 1);
    g_assert_true(client_take(&c));
    g_assert_true(c.blank);
    g_assert_false(client_take(&c));
    framebuffer_update_map(fb, &(Rect){0, 0, 100, 100});
    g_assert_false(client_take(&c));

    Client late = {.viewer = framebuffer_viewer_new(fb)};
    g_assert_true(client_take(&late));
    g_assert_true(late.blank);
    client_free(&late);

    /* Back with the same picture: the client has been shown black and needs all of it. */
    guest_map(fb, &g, PIXMAN_x8r8g8b8);
    c.pixels_taken = 0;
    g_assert_true(client_take(&c));
    g_assert_cmpuint(c.pixels_taken, ==, 100 * 100);
    assert_shows(&c, &g);
    client_free(&c);
    framebuffer_free(fb);
    guest_free(&g);
}

static void test_formats(void)
{
    static const struct {
        uint32_t format;
        uint32_t bytes;
        uint8_t pixel[4];
    } cases[] = {
        {PIXMAN_x8r8g8b8, 4, {0x84, 0x41, 0xff, 0}},
        {PIXMAN_a8r8g8b8, 4, {0x84, 0x41, 0xff, 7}},
        {PIXMAN_x8b8g8r8, 4, {0xff, 0x41, 0x84, 0}},
        {PIXMAN_a8b8g8r8, 4, {0xff, 0x41, 0x84, 7}},
        {PIXMAN_b8g8r8x8, 4, {0, 0xff, 0x41, 0x84}},
        {PIXMAN_r8g8b8x8, 4, {0, 0x84, 0x41, 0xff}},
        {PIXMAN_r8g8b8, 3, {0x84, 0x41, 0xff}},
        {PIXMAN_b8g8r8, 3, {0xff, 0x41, 0x84}},
        {PIXMAN_r5g6b5, 2, {0x10, 0xfa}},
        {PIXMAN_x1r5g5b5, 2, {0x10, 0x7d}},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        for (int by_value = 0; by_value < 2; by_value++) {
            uint32_t width = 101, height = 67, bytes = cases[i].bytes;
            uint32_t stride = (width * bytes + 7) & ~3u;
            Guest g = guest_new(width, height, stride, 4);
            for (uint32_t y = 0; y < height; y++)
                for (uint32_t x = 0; x < width; x++)
                    memcpy(g.pixels + y * stride + x * bytes, cases[i].pixel, bytes);
            Framebuffer *fb = framebuffer_new(NULL, NULL);
            g_assert_true(by_value
                              ? framebuffer_set_scanout(fb, width, height, stride, cases[i].format,
                                                        g.pixels, (size_t)stride * height)
                              : guest_map(fb, &g, cases[i].format));
            Client c = {.viewer = framebuffer_viewer_new(fb)};
            g_assert_true(client_take(&c));
            for (uint32_t p = 0; p < width * height; p++) {
                g_assert_cmpint(c.pixels[p * 4], ==, 0x84);
                g_assert_cmpint(ABS(c.pixels[p * 4 + 1] - 0x41), <=, 1); /* 5 bits: 0x42 */
                g_assert_cmpint(c.pixels[p * 4 + 2], ==, 0xff);
            }
            client_free(&c);
            framebuffer_free(fb);
            guest_free(&g);
        }
    }
}

/* QEMU may be wrong or hostile: nothing out of bounds, and the screen goes black, not stale. */
static void test_limits(void)
{
    static const struct {
        uint32_t offset, width, height, stride, format;
    } bad[] = {
        {0, 0, 64, 256, PIXMAN_x8r8g8b8},
        {0, 64, 0, 256, PIXMAN_x8r8g8b8},
        {0, 8193, 1, 8193 * 4, PIXMAN_x8r8g8b8},
        {0, 1, 8193, 4, PIXMAN_x8r8g8b8},
        {0, UINT32_MAX, UINT32_MAX, UINT32_MAX, PIXMAN_x8r8g8b8},
        {0, 64, 64, 255, PIXMAN_x8r8g8b8},
        {0, 64, 64, 0, PIXMAN_x8r8g8b8},
        {0, 64, 65, 256, PIXMAN_x8r8g8b8},
        {4, 64, 64, 256, PIXMAN_x8r8g8b8},
        {UINT32_MAX - 3, 64, 64, 256, PIXMAN_x8r8g8b8},
        {0, 64, 64, UINT32_MAX, PIXMAN_x8r8g8b8},
        {1, 32, 32, 128, PIXMAN_x8r8g8b8},
        {0, 64, 64, 256, 0},
        {0, 64, 64, 256, UINT32_MAX},
        {0, 64, 64, 256, PIXMAN_yuy2},
        {0, 64, 64, 193, PIXMAN_r8g8b8},
    };
    Guest g = guest_new(64, 64, 256, 0);

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        Framebuffer *fb = framebuffer_new(NULL, NULL);
        guest_map(fb, &g, PIXMAN_x8r8g8b8);
        Client c = {.viewer = framebuffer_viewer_new(fb)};
        client_take(&c);
        g_assert_false(framebuffer_set_map(fb, dup(g.fd), bad[i].offset, bad[i].width,
                                           bad[i].height, bad[i].stride, bad[i].format));
        g_assert_true(client_take(&c));
        g_assert_true(c.blank);
        if (bad[i].offset == 0)
            g_assert_false(framebuffer_set_scanout(fb, bad[i].width, bad[i].height, bad[i].stride,
                                                   bad[i].format, g.pixels, g.len));
        client_free(&c);
        framebuffer_free(fb);
    }

    Framebuffer *fb = framebuffer_new(NULL, NULL);
    guest_map(fb, &g, PIXMAN_x8r8g8b8);
    g_assert_false(framebuffer_set_map(fb, -1, 0, 64, 64, 256, PIXMAN_x8r8g8b8));
    static const Rect wrong[] = {{-1, 0, 4, 4},
                                 {0, -1, 4, 4},
                                 {0, 0, 0, 4},
                                 {0, 0, 4, -4},
                                 {8190, 0, 4, 4},
                                 {0, INT32_MAX, 4, 4},
                                 {INT32_MAX, 0, INT32_MAX, 4}};
    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++)
        g_assert_false(framebuffer_update(fb, &wrong[i], 16, PIXMAN_x8r8g8b8, g.pixels, g.len));
    g_assert_false(framebuffer_update(fb, &(Rect){0, 0, 4, 4}, 16, PIXMAN_x8r8g8b8, g.pixels, 63));
    g_assert_true(framebuffer_update(fb, &(Rect){0, 0, 4, 4}, 16, PIXMAN_x8r8g8b8, g.pixels, 64));
    framebuffer_resize(fb, 0, 10);
    framebuffer_resize(fb, 10, 8193);
    uint32_t w, h;
    framebuffer_size(fb, &w, &h);
    g_assert_cmpuint(w, ==, 64);
    g_assert_cmpuint(h, ==, 64);
    framebuffer_free(fb);
    guest_free(&g);
}

/* Figures, printed: what the worst cases cost. */
static void test_speed(void)
{
    Framebuffer *fb = framebuffer_new(NULL, NULL);
    Guest g = guest_new(1280, 800, 5120, 0);
    Rect all = {0, 0, 1280, 800};
    noise(&g, &all);
    guest_map(fb, &g, PIXMAN_x8r8g8b8);
    FramebufferViewer *v = framebuffer_viewer_new(fb);
    frame_unref(framebuffer_viewer_take(v));
    gint64 same = G_MAXINT64, changed = G_MAXINT64;
    for (int i = 0; i < 50; i++) {
        framebuffer_update_map(fb, &all);
        gint64 start = g_get_monotonic_time();
        g_assert_null(framebuffer_viewer_take(v));
        same = MIN(same, g_get_monotonic_time() - start);
        for (size_t p = 0; p < g.len; p += 256)
            g.pixels[p]++;
        framebuffer_update_map(fb, &all);
        start = g_get_monotonic_time();
        Frame *f = framebuffer_viewer_take(v);
        changed = MIN(changed, g_get_monotonic_time() - start);
        g_assert_nonnull(f);
        frame_unref(f);
    }
    g_test_message("1280x800: compare %" G_GINT64_FORMAT
                   " us, compare, copy and take %" G_GINT64_FORMAT " us",
                   same, changed);
    framebuffer_viewer_free(v);
    framebuffer_free(fb);
    guest_free(&g);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_set_level(LOG_LEVEL_ERROR);
    g_test_add_func("/framebuffer/map-random", test_map_random);
    g_test_add_func("/framebuffer/lending", test_lending);
    g_test_add_func("/framebuffer/false-damage", test_false_damage);
    g_test_add_func("/framebuffer/rect-merge", test_rect_merge);
    g_test_add_func("/framebuffer/immutable-frames", test_frames_are_immutable);
    g_test_add_func("/framebuffer/copy-path", test_copy_path);
    g_test_add_func("/framebuffer/black-after-mode-switch", test_black_after_mode_switch);
    g_test_add_func("/framebuffer/disable", test_disable);
    g_test_add_func("/framebuffer/formats", test_formats);
    g_test_add_func("/framebuffer/limits", test_limits);
    g_test_add_func("/framebuffer/speed", test_speed);
    return g_test_run();
}
