/*
 * Pictures that QEMU hands over as dma-bufs: with gl=on the guest is drawn by the host's GPU, and
 * only a driver can read what it made. Needs a render node and a module (dmabuf_backend.h), which are
 * opened before the process confines itself; the driver is loaded when the first picture comes.
 *
 * Thread: main for dmabuf_open(); everything else on the display listener's. A Dmabuf belongs to
 * who imported it.
 */
#ifndef QRDP_DMABUF_H
#define QRDP_DMABUF_H

#include "dmabuf_backend.h"
#include "framebuffer.h"

/** Opens the render nodes in @folder ("/dev/dri"), whose descriptors are kept until dmabuf_close(),
 * and loads the module if there is one. Else every import is refused. Once. */
void dmabuf_open(const char *folder);
/** There is a render node: the sandbox must let it be used. */
bool dmabuf_has_node(void);
/** Closes the nodes; nothing is imported any more. For tests. */
void dmabuf_close(void);

typedef struct Dmabuf Dmabuf;

/** @y0_top: the first row is the upper one. NULL if it cannot be read; *@why (g_free()) is a
 * sentence for the operator, with what failed and what to do. */
Dmabuf *dmabuf_import(const DmabufImage *image, bool y0_top, char **why);
void dmabuf_free(Dmabuf *dmabuf);
/** Copies a rectangle, upper row first, @stride bytes apart, as bytes that are the caller's. NULL:
 * nothing of the rectangle is in the picture (*@why is NULL), or it cannot be read. @rect is
 * clipped. */
GBytes *dmabuf_read(Dmabuf *dmabuf, Rect *rect, uint32_t *stride, char **why);
/** The picture's pixels as a pixman format. */
uint32_t dmabuf_format(const Dmabuf *dmabuf);

#endif
