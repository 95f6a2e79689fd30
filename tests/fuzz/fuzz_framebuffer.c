/*
 * A guest that changes its mode and its pixels as it likes, and a QEMU that lies about both:
 * scanouts by value and in shared memory, updates, damage, cursors, and viewers that take frames.
 * Every pixel of a frame is touched, so that a wrong size shows; a cursor goes on to what a client
 * is sent.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bytes.h"
#include "framebuffer.h"
#include "log.h"
#include "peer_cursor.h"

#define MAX_SHARED 65536u
#define VIEWERS 2u

/* Formats of pixman that QEMU sends, and words that are none. */
static const uint32_t formats[] = {0x20020888, 0x20028888, 0x20030888, 0x20038888, 0x18020888,
                                   0x10020565, 0x10020555, 0x20080888, 0,          0xffffffff};

static void damaged(void *user)
{
}

/* Small sizes mostly: the interesting ones are those that do not fit. */
static uint32_t side(Reader *r)
{
    uint8_t v = reader_u8(r);
    return v < 200 ? v : v < 240 ? (v - 199u) * 13u : v == 255 ? 0xffffffffu : reader_u16(r) % 300u;
}

static Rect rectangle(Reader *r)
{
    Rect rect = {(int16_t)reader_u16(r) >> 4, (int16_t)reader_u16(r) >> 4, (int32_t)side(r),
                 (int32_t)side(r)};
    return rect;
}

static void map(Framebuffer *fb, Reader *r)
{
    uint32_t width = side(r), height = side(r), stride = side(r) * 4,
             format = formats[reader_u8(r) % 10];
    uint32_t offset = reader_u16(r), size = reader_u16(r);
    int fd = memfd_create("fuzz", MFD_CLOEXEC);

    assert(fd >= 0);
    if (ftruncate(fd, size % MAX_SHARED) != 0)
        abort();
    framebuffer_set_map(fb, fd, offset & 0x3fff, width, height, stride, format);
}

static void by_value(Framebuffer *fb, Reader *r, bool whole)
{
    Rect rect = rectangle(r);
    uint32_t stride = reader_u16(r), format = formats[reader_u8(r) % 10];
    size_t len = (size_t)reader_u16(r) * (reader_u8(r) & 3);
    uint8_t *data = calloc(1, len ? len : 1); /* of its own: overreads are seen */

    if (whole)
        framebuffer_set_scanout(fb, (uint32_t)rect.w, (uint32_t)rect.h, stride, format, data, len);
    else
        framebuffer_update(fb, &rect, stride, format, data, len);
    free(data);
}

static void cursor(Reader *r)
{
    int32_t width = (int32_t)side(r), height = (int32_t)side(r);
    int32_t hot_x = (int32_t)reader_u32(r), hot_y = (int32_t)reader_u32(r);
    uint8_t how = reader_u8(r), fill = reader_u8(r);
    bool honest = how & 1 && width > 0 && height > 0 && width < 1024 && height < 1024;
    size_t len = honest ? (size_t)width * (size_t)height * 4 : reader_u16(r);
    uint8_t *data = malloc(len ? len : 1); /* of its own: overreads are seen */

    memset(data, fill, len ? len : 1);
    Cursor *c = cursor_new(width, height, hot_x, hot_y, data, len);
    free(data);
    if (!c)
        return;
    assert(honest || len == (size_t)width * (size_t)height * 4);
    uint32_t most = how & 2 ? 384 : how & 4 ? 96 : 32;
    CursorImage *image = cursor_image_new(c, most, how & 8 ? 24 : 32);
    cursor_unref(c);
    if (!image)
        return;
    assert(image->width > 0 && image->width <= most && image->height > 0 && image->height <= most);
    assert(image->hot_x < image->width && image->hot_y < image->height);
    assert(image->xor_len >= image->width * image->height * (how & 8 ? 3 : 4));
    cursor_image_free(image);
}

static void take(FramebufferViewer *viewer)
{
    Frame *frame = framebuffer_viewer_take(viewer);

    for (uint32_t i = 0; frame && i < frame->n_rects; i++) {
        const Rect *rect = &frame->rects[i];
        assert(rect->x >= 0 && rect->y >= 0 && rect->w > 0 && rect->h > 0);
        assert((uint32_t)(rect->x + rect->w) <= frame->width);
        assert((uint32_t)(rect->y + rect->h) <= frame->height);
        for (int32_t y = rect->y; y < rect->y + rect->h; y++) {
            const uint8_t *row = frame->pixels + (size_t)y * frame->stride;
            volatile uint8_t touch =
                (uint8_t)(row[(size_t)rect->x * 4] + row[(size_t)(rect->x + rect->w) * 4 - 1]);
            (void)touch;
        }
    }
    if (frame)
        frame_unref(frame);
}

static void step(Framebuffer *fb, FramebufferViewer *const *viewers, Reader *r)
{
    uint8_t op = reader_u8(r);
    Rect rect;

    switch (op % 8) {
    case 0:
        map(fb, r);
        break;
    case 1:
        by_value(fb, r, true);
        break;
    case 2:
        by_value(fb, r, false);
        break;
    case 3:
        rect = rectangle(r);
        framebuffer_update_map(fb, &rect);
        break;
    case 4: {
        uint32_t width = side(r), height = side(r);
        framebuffer_resize(fb, width, height);
        break;
    }
    case 5:
        if (op & 0x80)
            cursor(r);
        else
            framebuffer_disable(fb);
        break;
    case 6:
        rect = rectangle(r);
        framebuffer_viewer_invalidate(viewers[op >> 7], op & 0x40 ? NULL : &rect);
        break;
    default:
        take(viewers[op >> 7]);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FramebufferViewer *viewers[VIEWERS];
    Reader r;

    if (size > 4096)
        return 0;
    log_set_level(LOG_LEVEL_ERROR);
    Framebuffer *fb = framebuffer_new(damaged, NULL);
    for (unsigned i = 0; i < VIEWERS; i++)
        viewers[i] = framebuffer_viewer_new(fb);
    reader_init(&r, data, size);
    while (reader_left(&r) > 0)
        step(fb, viewers, &r);
    for (unsigned i = 0; i < VIEWERS; i++) {
        take(viewers[i]);
        framebuffer_viewer_free(viewers[i]);
    }
    framebuffer_free(fb);
    return 0;
}
