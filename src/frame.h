/*
 * Where Frames (framebuffer.h) come from: pixel buffers that went round once are used again.
 *
 * Owner: the Framebuffer; a Frame holds a reference, because it may outlive it. Thread: any.
 */
#ifndef QRDP_FRAME_H
#define QRDP_FRAME_H

#include "framebuffer.h"

typedef struct FramePool FramePool;

FramePool *frame_pool_new(void);
void frame_pool_unref(FramePool *pool);
/** Whether buffers are given back at once instead of kept for the next frame. */
void frame_pool_set_idle(FramePool *pool, bool idle);
/** A frame of that size with one reference, captured now, without rectangles or pixels. */
Frame *frame_new(FramePool *pool, uint32_t width, uint32_t height, uint32_t generation);
/** Gives @frame its rectangles (taken, g_free()d with it) and a buffer for the whole surface, whose
 * pixels are undefined. */
void frame_set_rects(Frame *frame, Rect *rects, uint32_t n_rects);

/** As frame_set_rects(), but the pixels are @pixels, stride times height bytes from pages_alloc(),
 * which are the frame's from now on. The lender keeps a reference and must not write to them before
 * frame_reclaim(). */
void frame_lend(Frame *frame, uint8_t *pixels, Rect *rects, uint32_t n_rects);
/** Whether nobody but the lender has it any more: frame_reclaim() will not copy. */
bool frame_is_back(const Frame *frame);
/** Takes the lender's reference on a lent frame and returns its pixels to write to: the same ones
 * if nobody else has the frame any more, else a copy. They are the caller's (free()). */
uint8_t *frame_reclaim(Frame *frame);

#endif
