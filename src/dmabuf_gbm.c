/*
 * Theory of operation. Mesa's GBM imports the dma-buf on a render node and maps it for reading:
 * what is tiled or compressed is copied by the GPU into a linear buffer, and what is being rendered
 * is waited for. The mapping is made anew for each rectangle, because it is a copy of that moment.
 */
#include <errno.h>
#include <gbm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dmabuf_backend.h"

#define MODIFIER_INVALID 0x00FFFFFFFFFFFFFFull /* DRM_FORMAT_MOD_INVALID: only the driver knows */

struct DmabufDevice {
    struct gbm_device *gbm;
};

struct DmabufBuffer {
    struct gbm_bo *bo;
    void *mapping;
};

static void *fail(char *why, size_t why_size, const char *what)
{
    snprintf(why, why_size, "%s: %s", what,
             errno ? strerror(errno) : "the driver does not say why");
    return NULL;
}

static DmabufDevice *open_device(int node, char *why, size_t why_size)
{
    errno = 0;
    struct gbm_device *gbm = gbm_create_device(node);
    DmabufDevice *device = gbm ? calloc(1, sizeof(*device)) : NULL;

    if (!device) {
        fail(why, why_size, "no Mesa driver for it (libgl1-mesa-dri)");
        if (gbm)
            gbm_device_destroy(gbm);
        return NULL;
    }
    device->gbm = gbm;
    return device;
}

static void close_device(DmabufDevice *device)
{
    gbm_device_destroy(device->gbm);
    free(device);
}

static struct gbm_bo *import_bo(struct gbm_device *gbm, const DmabufImage *image)
{
    if (image->modifier == MODIFIER_INVALID) {
        struct gbm_import_fd_data plain = {
            .fd = image->fd,
            .width = image->width,
            .height = image->height,
            .stride = image->stride,
            .format = image->fourcc,
        };
        return gbm_bo_import(gbm, GBM_BO_IMPORT_FD, &plain, 0);
    }
    struct gbm_import_fd_modifier_data tiled = {
        .width = image->width,
        .height = image->height,
        .format = image->fourcc,
        .num_fds = 1,
        .fds = {image->fd},
        .strides = {(int)image->stride},
        .modifier = image->modifier,
    };
    return gbm_bo_import(gbm, GBM_BO_IMPORT_FD_MODIFIER, &tiled, 0);
}

static DmabufBuffer *import(DmabufDevice *device, const DmabufImage *image, char *why,
                            size_t why_size)
{
    errno = 0;
    struct gbm_bo *bo = import_bo(device->gbm, image);
    DmabufBuffer *buffer = bo ? calloc(1, sizeof(*buffer)) : NULL;

    if (!buffer) {
        fail(why, why_size, "gbm_bo_import");
        if (bo)
            gbm_bo_destroy(bo);
        return NULL;
    }
    buffer->bo = bo;
    return buffer;
}

static void release(DmabufBuffer *buffer)
{
    gbm_bo_destroy(buffer->bo);
    free(buffer);
}

static const uint8_t *map(DmabufBuffer *buffer, uint32_t x, uint32_t y, uint32_t width,
                          uint32_t height, uint32_t *stride, char *why, size_t why_size)
{
    errno = 0;
    const uint8_t *pixels =
        gbm_bo_map(buffer->bo, x, y, width, height, GBM_BO_TRANSFER_READ, stride, &buffer->mapping);
    return pixels ? pixels : fail(why, why_size, "gbm_bo_map");
}

static void unmap(DmabufBuffer *buffer)
{
    gbm_bo_unmap(buffer->bo, buffer->mapping);
    buffer->mapping = NULL;
}

__attribute__((visibility("default"))) const DmabufBackend *qrdp_dmabuf_backend(void);

const DmabufBackend *qrdp_dmabuf_backend(void)
{
    static const DmabufBackend backend = {.abi = DMABUF_BACKEND_ABI,
                                          .open = open_device,
                                          .close = close_device,
                                          .import = import,
                                          .release = release,
                                          .map = map,
                                          .unmap = unmap};
    return &backend;
}
