/*
 * Pictures that a fake QEMU offers as dma-bufs (memfds here): read through a fake driver as they
 * would be through a real one, and refused with a sentence where there is none.
 */
#include "dmabuf.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fake_qemu.h"
#include "vm.h"
#include "wait_until.h"

#define DEADLINE_US (20 * G_USEC_PER_SEC)
#define XR24 0x34325258u
#define XB24 0x34324258u
#define RG16 0x36314752u
#define WIDTH 200u
#define HEIGHT 100u
#define STRIDE (WIDTH * 4 + 64)

static char *folder; /* of render nodes */

static void make_node(const char *name, const char *content)
{
    g_autofree char *path = g_build_filename(folder, name, NULL);
    g_assert_true(g_file_set_contents(path, content, -1, NULL));
}

static void nodes_open(bool any)
{
    folder = g_dir_make_tmp("qrdp-dri-XXXXXX", NULL);
    if (any) {
        make_node("renderD128", "another GPU");
        make_node("renderD130", "");
    }
    dmabuf_open(folder);
    g_assert_true(dmabuf_has_node() == any);
}

static void nodes_close(void)
{
    static const char *const names[] = {"renderD128", "renderD130"};

    dmabuf_close();
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *path = g_build_filename(folder, names[i], NULL);
        g_unlink(path);
    }
    g_assert_cmpint(g_rmdir(folder), ==, 0);
    g_free(folder);
}

/* ---- a machine ---- */

typedef struct Fixture {
    FakeQemu *qemu;
    Vm *vm;
    FramebufferViewer *viewer;
    int ready;
    int fd; /* the buffer */
    uint8_t *pixels;
} Fixture;

static void on_ready(void *user)
{
    ((Fixture *)user)->ready++;
}

static void nothing(void *user)
{
}

static void no_cursor(void *user, Cursor *cursor)
{
}

static void no_leds(void *user, uint32_t leds)
{
}

static void no_mode(void *user, bool absolute)
{
}

static void no_loss(void *user, const char *why)
{
}

static Fixture fixture_open(void)
{
    static const VmCallbacks callbacks = {.ready = on_ready,
                                          .damaged = nothing,
                                          .cursor = no_cursor,
                                          .leds = no_leds,
                                          .mouse_mode = no_mode,
                                          .usb_slots_changed = nothing,
                                          .lost = no_loss};
    static Fixture f;
    bool map;

    memset(&f, 0, sizeof(f));
    f.qemu = fake_qemu_new();
    g_autoptr(GDBusConnection) connection = fake_qemu_connection(f.qemu);
    f.vm = vm_new_p2p(connection, &callbacks, &f);
    f.viewer = framebuffer_viewer_new(vm_framebuffer(f.vm));
    wait_until(f.ready == 1 && fake_qemu_listeners(f.qemu, &map) == 1);
    /* QEMU says the size of a dma-buf there, too (ui/dbus-console.c) */
    fake_qemu_set_property(f.qemu, "Console", "Width", g_variant_new_uint32(WIDTH));
    fake_qemu_set_property(f.qemu, "Console", "Height", g_variant_new_uint32(HEIGHT));
    f.fd = memfd_create("buffer", MFD_CLOEXEC);
    g_assert_cmpint(ftruncate(f.fd, STRIDE * HEIGHT), ==, 0);
    f.pixels = mmap(NULL, STRIDE * HEIGHT, PROT_READ | PROT_WRITE, MAP_SHARED, f.fd, 0);
    for (uint32_t y = 0; y < HEIGHT; y++)
        for (uint32_t x = 0; x < STRIDE; x++)
            f.pixels[y * STRIDE + x] = (uint8_t)(x * 3 + y * 5);
    return f;
}

static void fixture_close(Fixture *f)
{
    framebuffer_viewer_free(f->viewer);
    vm_free(f->vm);
    fake_qemu_free(f->qemu);
    munmap(f->pixels, STRIDE * HEIGHT);
    close(f->fd);
}

static void offer(Fixture *f, uint32_t fourcc, uint64_t modifier, bool y0_top)
{
    g_assert_true(fake_qemu_call(
        f->qemu, "Listener.ScanoutDMABUF",
        g_variant_new("(huuuutb)", 0, WIDTH, HEIGHT, STRIDE, fourcc, modifier, y0_top), f->fd,
        true));
}

static void update(Fixture *f, int32_t x, int32_t y, int32_t w, int32_t h)
{
    g_assert_true(fake_qemu_call(f->qemu, "Listener.UpdateDMABUF",
                                 g_variant_new("(iiii)", x, y, w, h), -1, true));
}

static Frame *next_frame(Fixture *f)
{
    Frame *frame = NULL;

    wait_until((frame = framebuffer_viewer_take(f->viewer)));
    return frame;
}

/* Whether the frame shows the buffer where it has pixels. @order: of B, G, R in the buffer. */
static void assert_shows(const Fixture *f, const Frame *frame, bool y0_top, const char *order)
{
    g_assert_cmpuint(frame->width, ==, WIDTH);
    g_assert_cmpuint(frame->height, ==, HEIGHT);
    g_assert_cmpuint(frame->n_rects, >, 0);
    for (uint32_t i = 0; i < frame->n_rects; i++) {
        const Rect *r = &frame->rects[i];
        for (uint32_t y = (uint32_t)r->y; y < (uint32_t)(r->y + r->h); y++) {
            const uint8_t *row = f->pixels + (y0_top ? y : HEIGHT - 1 - y) * STRIDE;
            for (uint32_t x = (uint32_t)r->x; x < (uint32_t)(r->x + r->w); x++)
                for (unsigned c = 0; c < 3; c++)
                    g_assert_cmpuint(frame->pixels[y * frame->stride + x * 4 + c], ==,
                                     row[x * 4 + (unsigned)(order[c] - '0')]);
        }
    }
}

static void check_picture(uint32_t fourcc, bool y0_top, const char *order)
{
    Fixture f = fixture_open();

    offer(&f, fourcc, 0, y0_top);
    Frame *frame = next_frame(&f);
    assert_shows(&f, frame, y0_top, order);
    frame_unref(frame);

    /* what has changed comes with the update, and no more than that is looked at */
    uint32_t row = y0_top ? 70 : HEIGHT - 1 - 70;
    f.pixels[row * STRIDE + 150 * 4 + 1] ^= 0xFF;
    f.pixels[(y0_top ? 5 : HEIGHT - 1 - 5) * STRIDE + 1] ^= 0xFF;
    update(&f, 140, 64, 1000, 20);
    frame = next_frame(&f);
    g_assert_cmpuint(frame->n_rects, ==, 1);
    g_assert_true(frame->rects[0].x == 128 && frame->rects[0].y == 64);
    assert_shows(&f, frame, y0_top, order);
    frame_unref(frame);
    update(&f, 0, 0, WIDTH, HEIGHT);
    frame = next_frame(&f);
    g_assert_true(frame->rects[0].x == 0 && frame->rects[0].y == 0);
    assert_shows(&f, frame, y0_top, order);
    frame_unref(frame);
    fixture_close(&f);
}

static void test_pictures(void)
{
    nodes_open(true);
    check_picture(XR24, true, "012");
    check_picture(XR24, false, "012");
    check_picture(XB24, true, "210");
    nodes_close();
}

static void test_565(void)
{
    nodes_open(true);
    Fixture f = fixture_open();
    uint16_t value = 0xF800;
    for (uint32_t i = 0; i < STRIDE * HEIGHT; i += 2)
        memcpy(f.pixels + i, &value, 2);
    offer(&f, RG16, 0, true);
    Frame *frame = next_frame(&f);
    g_assert_cmpint(memcmp(frame->pixels + 99 * frame->stride + 199 * 4, "\0\0\xFF", 3), ==, 0);
    frame_unref(frame);
    fixture_close(&f);
    nodes_close();
}

/* A sentence instead of the guest's picture: as large, light on black. */
static void assert_notice(Fixture *f, uint32_t width, uint32_t height)
{
    Frame *frame = next_frame(f);
    unsigned light = 0, other = 0;

    g_assert_cmpuint(frame->width, ==, width);
    g_assert_cmpuint(frame->height, ==, height);
    g_assert_cmpuint(frame->n_rects, ==, 1);
    for (uint32_t y = 0; y < height; y++) {
        for (uint32_t x = 0; x < width; x++) {
            const uint8_t *p = frame->pixels + y * frame->stride + x * 4;
            light += p[0] == 0xE0 && p[1] == 0xE0 && p[2] == 0xE0;
            other += p[0] != 0xE0 && p[0] != 0;
        }
    }
    g_assert_cmpuint(light, >, 1000);
    g_assert_cmpuint(other, ==, 0);
    frame_unref(frame);
}

static void assert_refused(const DmabufImage *image, const char *object, const char *reason)
{
    char *why;

    g_assert_null(dmabuf_import(image, true, &why));
    g_assert_nonnull(strstr(why, object));
    g_assert_nonnull(strstr(why, reason));
    g_assert_nonnull(strstr(why, "without gl=on"));
    g_free(why);
}

static void test_no_gpu(void)
{
    const DmabufImage image = {-1, WIDTH, HEIGHT, STRIDE, XR24, 0};

    nodes_open(false);
    assert_refused(&image, "renderD128", "No such file");
    Fixture f = fixture_open();
    fake_qemu_call(f.qemu, "Listener.ScanoutDMABUF",
                   g_variant_new("(huuuutb)", 0, 1024u, 768u, 4096u, XR24, (guint64)0, TRUE), f.fd,
                   true);
    assert_notice(&f, 1024, 768);
    update(&f, 0, 0, 1024, 768); /* is answered, or the guest would stand still */

    /* without OpenGL it goes on */
    g_autofree uint8_t *grey = g_malloc(64 * 64 * 4);
    memset(grey, 0x55, 64 * 64 * 4);
    fake_qemu_call(
        f.qemu, "Listener.Scanout",
        g_variant_new("(uuuu@ay)", 64u, 64u, 256u, 0x20020888u,
                      g_variant_new_fixed_array(G_VARIANT_TYPE_BYTE, grey, 64 * 64 * 4, 1)),
        -1, true);
    Frame *frame = next_frame(&f);
    g_assert_cmpuint(frame->width, ==, 64);
    g_assert_cmpuint(frame->pixels[0], ==, 0x55);
    frame_unref(frame);
    fixture_close(&f);
    nodes_close();
}

/* What is imported on this thread is so before a listener's thread begins. */
static void refuse_all(void)
{
    int fd = memfd_create("buffer", MFD_CLOEXEC);
    const DmabufImage good = {fd, WIDTH, HEIGHT, STRIDE, XR24, 0};
    DmabufImage bad = good;

    bad.fourcc = 0x3231564Eu; /* NV12 */
    assert_refused(&bad, "0x3231564e", "not known");
    bad = good;
    bad.width = 8193;
    assert_refused(&bad, "8193x100", "out of range");
    bad = good;
    bad.height = 0;
    assert_refused(&bad, "200x0", "out of range");
    bad = good;
    bad.modifier = 1;
    assert_refused(&bad, "renderD1", "unknown tiling");
    close(fd);
}

static void test_hostile(void)
{
    nodes_open(true);
    refuse_all();
    Fixture f = fixture_open();
    offer(&f, XR24, 2, true); /* imported, but the driver cannot read it */
    assert_notice(&f, 800, 600);
    offer(&f, XR24, 0, true);
    Frame *frame = next_frame(&f);
    assert_shows(&f, frame, true, "012");
    frame_unref(frame);
    f.pixels[0] ^= 0xFF;
    update(&f, -5, -5, 5, 5);
    update(&f, (int32_t)WIDTH, 0, 5, 5);
    update(&f, INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX);
    update(&f, 0, 0, -1, 0);
    update(&f, -2, -2, 3, 3);
    frame = next_frame(&f);
    assert_shows(&f, frame, true, "012");
    frame_unref(frame);
    /* no buffer came along */
    fake_qemu_call(f.qemu, "Listener.ScanoutDMABUF",
                   g_variant_new("(huuuutb)", 7, WIDTH, HEIGHT, STRIDE, XR24, (guint64)0, TRUE), -1,
                   true);
    /* after another picture an update of the old one is nothing */
    fake_qemu_call(f.qemu, "Listener.Disable", NULL, -1, true);
    update(&f, 0, 0, 10, 10);
    frame = next_frame(&f);
    g_assert_true(frame->blank);
    frame_unref(frame);
    fixture_close(&f);
    nodes_close();
}

/* The real module: a file is no GPU, and Mesa says so. */
static void test_gbm(void)
{
    folder = g_dir_make_tmp("qrdp-dri-XXXXXX", NULL);
    make_node("renderD128", "");
    dmabuf_open(folder);
    int fd = memfd_create("buffer", MFD_CLOEXEC);
    DmabufImage image = {fd, WIDTH, HEIGHT, STRIDE, XR24, 0};
    assert_refused(&image, "renderD128", "no Mesa driver for it");
    close(fd);
    nodes_close();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/dmabuf/pictures", test_pictures);
    g_test_add_func("/dmabuf/565", test_565);
    g_test_add_func("/dmabuf/no-gpu", test_no_gpu);
    g_test_add_func("/dmabuf/hostile", test_hostile);
    g_test_add_func("/gbm/no-gpu", test_gbm);
    return g_test_run();
}
