/*
 * The seam between qrdp and a module that reads dma-bufs, which is loaded where there is a GPU.
 *
 * A module is a shared object that exports QRDP_DMABUF_BACKEND, a function that returns a
 * DmabufBackend. It sees this header and nothing else of qrdp's. open() loads the graphics driver,
 * tens of megabytes that only a machine with gl=on is worth.
 *
 * Owner: the DmabufBackend is static in the module, which is never unloaded. Thread: one at a time.
 */
#ifndef QRDP_DMABUF_BACKEND_H
#define QRDP_DMABUF_BACKEND_H

#include <stddef.h>
#include <stdint.h>

/** Changes with anything below. */
#define DMABUF_BACKEND_ABI 1u

/** A picture of one plane as QEMU describes it. */
typedef struct DmabufImage {
    int fd; /* borrowed for the call */
    uint32_t width, height, stride;
    uint32_t fourcc;   /* DRM_FORMAT_* */
    uint64_t modifier; /* DRM_FORMAT_MOD_* */
} DmabufImage;

typedef struct DmabufDevice DmabufDevice;
typedef struct DmabufBuffer DmabufBuffer;

typedef struct DmabufBackend {
    uint32_t abi; /* DMABUF_BACKEND_ABI */

    /** The device of the render node @node, which stays the caller's, and open until close(). NULL:
     * no driver, with a reason in @why. */
    DmabufDevice *(*open)(int node, char *why, size_t why_size);
    void (*close)(DmabufDevice *device);
    /** NULL if this device cannot read that; with a reason. */
    DmabufBuffer *(*import)(DmabufDevice *device, const DmabufImage *image, char *why,
                            size_t why_size);
    void (*release)(DmabufBuffer *buffer);
    /** The pixels of a rectangle inside the picture as they are now, in rows *@stride bytes apart,
     * until unmap(). NULL, with a reason, if that failed. */
    const uint8_t *(*map)(DmabufBuffer *buffer, uint32_t x, uint32_t y, uint32_t width,
                          uint32_t height, uint32_t *stride, char *why, size_t why_size);
    void (*unmap)(DmabufBuffer *buffer);
} DmabufBackend;

/** The function that a module exports; it returns a const DmabufBackend *. */
#define QRDP_DMABUF_BACKEND "qrdp_dmabuf_backend"

#endif
