/*
 * Theory of operation. Each picture is imported once and read by rectangles, when QEMU says that
 * they have changed; QEMU holds the guest back until that call is answered (rdp-server.md 21.3), so
 * reading at once is all the pacing there is. What comes out is bytes, and goes the way of copies
 * from a QEMU without shared memory.
 *
 * Which of several GPUs QEMU renders on is not said: the first one that can import a picture is
 * used, and asked first from then on.
 */
#include "dmabuf.h"

#include <errno.h>
#include <fcntl.h>
#include <pixman.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "module.h"

#define SUBJECT "display"
#define MAX_NODES 4u
#define FIRST_NODE                                                                                 \
    128u /* renderD128: minor numbers of render nodes begin there (Linux drm_drv.c) */
#define FIX                                                                                        \
    "start QEMU without gl=on in its -display dbus option, with virtio-vga instead of "            \
    "virtio-vga-gl (libvirt: <gl enable='no'/> in the dbus <graphics>)"

#define FOURCC(a, b, c, d)                                                                         \
    ((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)

struct Dmabuf {
    DmabufBuffer *buffer;
    uint32_t width, height, format, pixel_bytes;
    bool y0_top;
};

typedef struct Node {
    int fd;
    char *path;
    DmabufDevice *device; /* NULL: not opened yet, or it cannot be */
} Node;

static Node nodes[MAX_NODES];
static unsigned n_nodes;
static char *missing; /* what there is not, node or module, and why */
static const DmabufBackend *backend;

void dmabuf_open(const char *folder)
{
    g_return_if_fail(n_nodes == 0 && !missing);
    for (unsigned i = 0; i < MAX_NODES; i++) {
        g_autofree char *path = g_strdup_printf("%s/renderD%u", folder, FIRST_NODE + i);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0 && (errno != ENOENT || i == 0)) {
            g_free(missing);
            missing = g_strdup_printf("no GPU: %s: %s", path, g_strerror(errno));
        }
        if (fd < 0)
            continue;
        nodes[n_nodes++] = (Node){.fd = fd, .path = g_steal_pointer(&path)};
    }
    if (n_nodes == 0)
        return;
    g_clear_pointer(&missing, g_free);
    if (!backend)
        backend =
            module_open("qrdp-gbm", QRDP_DMABUF_BACKEND, DMABUF_BACKEND_ABI, "libgbm", &missing);
}

bool dmabuf_has_node(void)
{
    return n_nodes > 0;
}

void dmabuf_close(void)
{
    for (unsigned i = 0; i < n_nodes; i++) {
        if (nodes[i].device)
            backend->close(nodes[i].device);
        close(nodes[i].fd);
        g_free(nodes[i].path);
        nodes[i] = (Node){0};
    }
    n_nodes = 0;
    g_clear_pointer(&missing, g_free);
}

/* Alpha is read as padding. 0: not one that a guest's screen has. */
static uint32_t pixman_format(uint32_t fourcc)
{
    switch (fourcc) {
    case FOURCC('A', 'R', '2', '4'):
    case FOURCC('X', 'R', '2', '4'):
        return PIXMAN_x8r8g8b8;
    case FOURCC('A', 'B', '2', '4'):
    case FOURCC('X', 'B', '2', '4'):
        return PIXMAN_x8b8g8r8;
    case FOURCC('B', 'A', '2', '4'):
    case FOURCC('B', 'X', '2', '4'):
        return PIXMAN_b8g8r8x8;
    case FOURCC('R', 'A', '2', '4'):
    case FOURCC('R', 'X', '2', '4'):
        return PIXMAN_r8g8b8x8;
    case FOURCC('A', 'R', '3', '0'):
    case FOURCC('X', 'R', '3', '0'):
        return PIXMAN_x2r10g10b10;
    case FOURCC('R', 'G', '1', '6'):
        return PIXMAN_r5g6b5;
    default:
        return 0;
    }
}

/* @what: the object and what is wrong with it. */
static char *refusal(const char *what)
{
    return g_strdup_printf("QEMU renders with OpenGL and offers the picture as a dma-buf, which "
                           "cannot be read here (%s): " FIX,
                           what);
}

static DmabufBuffer *import_on(Node *node, const DmabufImage *image, char *why, size_t why_size)
{
    if (!node->device)
        node->device = backend->open(node->fd, why, why_size);
    return node->device ? backend->import(node->device, image, why, why_size) : NULL;
}

/* On the first node that can; it becomes the first. */
static DmabufBuffer *import_somewhere(const DmabufImage *image, GString *what)
{
    static bool told;

    for (unsigned i = 0; i < n_nodes; i++) {
        char reason[256] = "";
        DmabufBuffer *buffer = import_on(&nodes[i], image, reason, sizeof(reason));
        if (buffer) {
            Node used = nodes[i];
            nodes[i] = nodes[0];
            nodes[0] = used;
            if (!told)
                log_info(SUBJECT, "QEMU renders with OpenGL: its pictures are read through %s",
                         used.path);
            told = true;
            return buffer;
        }
        g_string_append_printf(what, "%s%s: %s", i > 0 ? "; " : "", nodes[i].path, reason);
    }
    return NULL;
}

Dmabuf *dmabuf_import(const DmabufImage *image, bool y0_top, char **why)
{
    g_autoptr(GString) what = g_string_new(NULL);
    uint32_t format = pixman_format(image->fourcc);
    DmabufBuffer *buffer = NULL;

    *why = NULL;
    if (format == 0)
        g_string_printf(what, "pixel format 0x%08x is not known", image->fourcc);
    else if (image->width == 0 || image->height == 0 || image->width > FRAMEBUFFER_MAX_SIDE ||
             image->height > FRAMEBUFFER_MAX_SIDE)
        g_string_printf(what, "%ux%u is out of range", image->width, image->height);
    else if (n_nodes == 0 || !backend)
        g_string_assign(what, missing ? missing : "no GPU was looked for");
    else
        buffer = import_somewhere(image, what);
    if (!buffer) {
        *why = refusal(what->str);
        return NULL;
    }
    Dmabuf *dmabuf = g_new0(Dmabuf, 1);
    *dmabuf = (Dmabuf){.buffer = buffer,
                       .width = image->width,
                       .height = image->height,
                       .format = format,
                       .pixel_bytes = PIXMAN_FORMAT_BPP(format) / 8,
                       .y0_top = y0_top};
    return dmabuf;
}

void dmabuf_free(Dmabuf *dmabuf)
{
    if (!dmabuf)
        return;
    backend->release(dmabuf->buffer);
    g_free(dmabuf);
}

uint32_t dmabuf_format(const Dmabuf *dmabuf)
{
    return dmabuf->format;
}

static bool clip(const Dmabuf *dmabuf, Rect *rect)
{
    int64_t x0 = MAX(rect->x, 0), y0 = MAX(rect->y, 0);
    int64_t x1 = MIN((int64_t)rect->x + rect->w, dmabuf->width);
    int64_t y1 = MIN((int64_t)rect->y + rect->h, dmabuf->height);

    if (x0 >= x1 || y0 >= y1)
        return false;
    *rect = (Rect){(int32_t)x0, (int32_t)y0, (int32_t)(x1 - x0), (int32_t)(y1 - y0)};
    return true;
}

GBytes *dmabuf_read(Dmabuf *dmabuf, Rect *rect, uint32_t *stride, char **why)
{
    char reason[256] = "";
    uint32_t from;

    *why = NULL;
    if (!clip(dmabuf, rect))
        return NULL;
    const uint32_t w = (uint32_t)rect->w, h = (uint32_t)rect->h, row = w * dmabuf->pixel_bytes;
    const uint32_t top =
        dmabuf->y0_top ? (uint32_t)rect->y : dmabuf->height - (uint32_t)rect->y - h;
    const uint8_t *pixels =
        backend->map(dmabuf->buffer, (uint32_t)rect->x, top, w, h, &from, reason, sizeof(reason));
    if (!pixels) {
        *why = refusal(reason);
        return NULL;
    }
    *stride = (row + 3) & ~3u; /* pixman's rule */
    uint8_t *out = g_malloc((size_t)*stride * h);
    for (uint32_t y = 0; y < h; y++)
        memcpy(out + (size_t)*stride * y, pixels + (size_t)from * (dmabuf->y0_top ? y : h - 1 - y),
               row);
    backend->unmap(dmabuf->buffer);
    return g_bytes_new_take(out, (gsize)*stride * h);
}
