/*
 * The guest's picture: QEMU's scanout on one side, what each viewer still has to be shown on the
 * other.
 *
 * Owner: the Vm. Thread: main. Lifetime: a Frame is reference counted and immutable, it may be
 * unreferenced on any thread; a FramebufferViewer belongs to the server's record of one peer and
 * is freed before the Framebuffer.
 *
 * QEMU over-reports damage (a text cursor is a 30 ms stream of 25 full-width rectangles), so damage
 * only says where to look: 64x64 tiles are compared with a shadow copy, and only tiles that changed
 * become dirty for the viewers. Damage accumulates until a viewer takes a frame; frames are never
 * queued here.
 */
#ifndef QRDP_FRAMEBUFFER_H
#define QRDP_FRAMEBUFFER_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define FRAMEBUFFER_TILE 64u
#define FRAMEBUFFER_MAX_SIDE 8192u /* RDP's and our own limit, per side in pixels */

typedef struct Rect {
    int32_t x, y, w, h;
} Rect;

/** An immutable picture of which only the pixels inside .rects are valid, unless .whole. Format: 32
 * bits per pixel, bytes B, G, R, X; rows .stride bytes apart, the whole surface is addressed. */
typedef struct Frame {
    gint refs;
    uint32_t width, height, stride;
    uint32_t generation; /* counts mode switches: a new value means a new surface */
    bool blank;          /* the guest's display is off: nothing in .rects, show black */
    bool whole;          /* all pixels are the guest's; those outside of .rects were shown before */
    uint32_t n_rects;
    const Rect *rects; /* disjoint, inside the surface, top to bottom; edges on tile borders except
                        * at the surface's own right and bottom edge */
    uint8_t *pixels;
    int64_t captured_us; /* g_get_monotonic_time() when the pixels were copied */
} Frame;
Frame *frame_ref(Frame *frame);
void frame_unref(Frame *frame);

typedef struct Framebuffer Framebuffer;
typedef struct FramebufferViewer FramebufferViewer;

/** @damaged is called (main thread) when there is something new to look at after there was nothing:
 * the cue to ask framebuffer_viewer_take() for the viewers that have a slot free. */
Framebuffer *framebuffer_new(void (*damaged)(void *user), void *user);
void framebuffer_free(Framebuffer *fb);

/** A scanout in shared memory. Takes @fd. @format: a pixman format code. False (with a log line) if
 * size, stride, offset or format are out of range. */
bool framebuffer_set_map(Framebuffer *fb, int fd, uint32_t offset, uint32_t width, uint32_t height,
                         uint32_t stride, uint32_t format);
/** A whole scanout by value; @data is borrowed. */
bool framebuffer_set_scanout(Framebuffer *fb, uint32_t width, uint32_t height, uint32_t stride,
                             uint32_t format, const uint8_t *data, size_t len);
/** Pixels of a part by value. */
bool framebuffer_update(Framebuffer *fb, const Rect *rect, uint32_t stride, uint32_t format,
                        const uint8_t *data, size_t len);
/** Damage in the mapped scanout. */
void framebuffer_update_map(Framebuffer *fb, const Rect *rect);
/** Without Unix.Map a mode switch shows only in the console's Width and Height. */
void framebuffer_resize(Framebuffer *fb, uint32_t width, uint32_t height);
void framebuffer_disable(Framebuffer *fb);
void framebuffer_size(const Framebuffer *fb, uint32_t *width, uint32_t *height);

/** A viewer that has seen nothing yet. */
FramebufferViewer *framebuffer_viewer_new(Framebuffer *fb);
void framebuffer_viewer_free(FramebufferViewer *viewer);
/** Marks @rect (NULL: everything) as not shown. */
void framebuffer_viewer_invalidate(FramebufferViewer *viewer, const Rect *rect);
/** A viewer that has seen what @viewer has. */
FramebufferViewer *framebuffer_viewer_copy(const FramebufferViewer *viewer);
/** Looks at pending damage and returns whether there is something to take. */
bool framebuffer_viewer_look(FramebufferViewer *viewer);
/** Looks at pending damage and returns what changed since this viewer's last frame, or NULL if
 * nothing did. One reference is the caller's. */
Frame *framebuffer_viewer_take(FramebufferViewer *viewer);

#endif
