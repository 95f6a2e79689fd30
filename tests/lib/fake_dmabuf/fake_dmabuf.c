/*
 * A module for tests: a "dma-buf" is a memfd, a "render node" a file. A node that has bytes in it
 * is the GPU of another: it imports nothing. Modifier 1 is a tiling that nobody knows, modifier 2
 * one that can be imported and not read. Rows come back further apart than they are.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dmabuf_backend.h"

#define GAP 20u

struct DmabufDevice {
    int other;
};

struct DmabufBuffer {
    DmabufImage image;
    uint8_t *copy;
};

static DmabufDevice *fake_open(int node, char *why, size_t why_size)
{
    struct stat st;
    DmabufDevice *device = calloc(1, sizeof(*device));

    if (!device || fstat(node, &st) < 0) {
        free(device);
        snprintf(why, why_size, "no node");
        return NULL;
    }
    device->other = st.st_size > 0;
    return device;
}

static void fake_close(DmabufDevice *device)
{
    free(device);
}

static DmabufBuffer *fake_import(DmabufDevice *device, const DmabufImage *image, char *why,
                                 size_t why_size)
{
    struct stat st;

    if (device->other || image->modifier == 1 || fstat(image->fd, &st) < 0 ||
        (uint64_t)st.st_size < (uint64_t)image->stride * image->height) {
        snprintf(why, why_size, "%s", device->other ? "another's" : "unknown tiling");
        return NULL;
    }
    DmabufBuffer *buffer = calloc(1, sizeof(*buffer));
    buffer->image = *image;
    buffer->image.fd = dup(image->fd);
    return buffer;
}

static void fake_release(DmabufBuffer *buffer)
{
    close(buffer->image.fd);
    free(buffer);
}

static const uint8_t *fake_map(DmabufBuffer *buffer, uint32_t x, uint32_t y, uint32_t width,
                               uint32_t height, uint32_t *stride, char *why, size_t why_size)
{
    const uint32_t bytes = buffer->image.fourcc == 0x36314752u ? 2 : 4; /* RG16 */

    if (buffer->image.modifier == 2) {
        snprintf(why, why_size, "lost");
        return NULL;
    }
    *stride = width * bytes + GAP;
    buffer->copy = malloc((size_t)*stride * height);
    for (uint32_t i = 0; i < height; i++) {
        uint8_t *row = buffer->copy + (size_t)i * *stride;
        off_t at = (off_t)(y + i) * buffer->image.stride + (off_t)x * bytes;
        memset(row + width * bytes, 0x77, GAP);
        if (pread(buffer->image.fd, row, width * bytes, at) != (ssize_t)(width * bytes))
            abort();
    }
    return buffer->copy;
}

static void fake_unmap(DmabufBuffer *buffer)
{
    free(buffer->copy);
}

__attribute__((visibility("default"))) const DmabufBackend *qrdp_dmabuf_backend(void);

const DmabufBackend *qrdp_dmabuf_backend(void)
{
    static const DmabufBackend backend = {.abi = DMABUF_BACKEND_ABI,
                                          .open = fake_open,
                                          .close = fake_close,
                                          .import = fake_import,
                                          .release = fake_release,
                                          .map = fake_map,
                                          .unmap = fake_unmap};
    return &backend;
}
