/*
 * dmabuf-probe FOLDER CARD: reads a dma-buf as qrdp does, confined as qrdp is, with the real
 * driver.
 *
 * CARD is a DRM device (/dev/dri/card0) that makes the buffer; the node to read it through is
 * FOLDER/renderD128. Prints what the driver did, and "exact" when every pixel was read as it was
 * written, before and after it changed, upright and upside down.
 */
#include <drm.h>
#include <drm_mode.h>
#include <fcntl.h>
#include <pixman.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "dmabuf.h"
#include "sandbox.h"

#define WIDTH 300u
#define HEIGHT 200u
#define XR24 0x34325258u
#define MODIFIER_INVALID 0x00FFFFFFFFFFFFFFull

typedef struct Buffer {
    DmabufImage image;
    uint8_t *pixels;
} Buffer;

static void need(bool ok, const char *what)
{
    if (ok)
        return;
    perror(what);
    exit(1);
}

static Buffer make_buffer(const char *path)
{
    int card = open(path, O_RDWR | O_CLOEXEC);
    struct drm_mode_create_dumb create = {.width = WIDTH, .height = HEIGHT, .bpp = 32};

    need(card >= 0, path);
    need(ioctl(card, DRM_IOCTL_MODE_CREATE_DUMB, &create) == 0, "creating a buffer");
    struct drm_mode_map_dumb map = {.handle = create.handle};
    struct drm_prime_handle prime = {.handle = create.handle, .flags = O_RDWR | O_CLOEXEC};
    need(ioctl(card, DRM_IOCTL_MODE_MAP_DUMB, &map) == 0, "asking for its place");
    need(ioctl(card, DRM_IOCTL_PRIME_HANDLE_TO_FD, &prime) == 0, "exporting it");
    Buffer made = {.image = {prime.fd, WIDTH, HEIGHT, create.pitch, XR24, MODIFIER_INVALID}};
    made.pixels =
        mmap(NULL, create.size, PROT_READ | PROT_WRITE, MAP_SHARED, card, (off_t)map.offset);
    need(made.pixels != MAP_FAILED, "mapping it");
    return made;
}

static void draw(const Buffer *buffer, uint32_t seed)
{
    for (uint32_t y = 0; y < HEIGHT; y++) {
        for (uint32_t x = 0; x < WIDTH; x++) {
            uint32_t value = (x * 2654435761u ^ y * 40503u) + seed;
            memcpy(buffer->pixels + (size_t)y * buffer->image.stride + (size_t)x * 4, &value, 4);
        }
    }
}

static void check(Dmabuf *dmabuf, const Buffer *buffer, bool y0_top, Rect rect)
{
    uint32_t stride;
    char *why;
    g_autoptr(GBytes) read = dmabuf_read(dmabuf, &rect, &stride, &why);

    if (!read) {
        fprintf(stderr, "%s\n", why);
        exit(1);
    }
    const uint8_t *got = g_bytes_get_data(read, NULL);
    for (int32_t y = 0; y < rect.h; y++) {
        uint32_t row = (uint32_t)(rect.y + y);
        const uint8_t *want = buffer->pixels +
                              (size_t)(y0_top ? row : HEIGHT - 1 - row) * buffer->image.stride +
                              (size_t)rect.x * 4;
        for (int32_t x = 0; x < rect.w * 4; x++) {
            if (x % 4 != 3 && got[(size_t)y * stride + (size_t)x] != want[x]) {
                fprintf(stderr, "byte %d of row %u: %02x instead of %02x\n", x, row,
                        got[(size_t)y * stride + (size_t)x], want[x]);
                exit(1);
            }
        }
    }
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    Buffer buffer = make_buffer(argv[2]);
    dmabuf_open(argv[1]);
    sandbox_allow_gpu_facts();
    sandbox_confine();
    sandbox_filter(&(SandboxCalls){.gpu = dmabuf_has_node()});
    printf("sandbox: %s\n", sandbox_text());

    for (unsigned y0_top = 0; y0_top < 2; y0_top++) {
        char *why;
        draw(&buffer, 1 + y0_top);
        Dmabuf *dmabuf = dmabuf_import(&buffer.image, y0_top, &why);
        if (!dmabuf) {
            fprintf(stderr, "%s\n", why);
            return 1;
        }
        check(dmabuf, &buffer, y0_top, (Rect){0, 0, WIDTH, HEIGHT});
        draw(&buffer, 77);
        check(dmabuf, &buffer, y0_top, (Rect){13, 50, 100, 60});
        check(dmabuf, &buffer, y0_top, (Rect){0, 0, WIDTH, HEIGHT});
        dmabuf_free(dmabuf);
    }
    printf("exact\n");
    return 0;
}
