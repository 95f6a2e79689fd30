/*
 * Every frame's buffer addresses the whole surface, so that encoders need no second way to count;
 * only damaged rows are ever touched. A buffer of megabytes fresh from the kernel costs a page
 * fault every 4 KiB, hence the pool. It keeps buffers of one size: today's, and none when nobody
 * looks at the picture.
 */
#include "frame.h"

#include <stdlib.h>
#include <string.h>

#include "handover.h"
#include "pages.h"

#define POOL_MAX_BUFFERS 4u

struct FramePool {
    gint refs;
    GMutex lock; /* frames are unreferenced where they were encoded */
    size_t size; /* of every buffer in .free */
    bool idle;   /* keeps none */
    uint8_t *free[POOL_MAX_BUFFERS];
    unsigned n_free;
};

typedef struct PooledFrame {
    Frame frame; /* first: frame_unref() casts back */
    FramePool *pool;
    size_t size;
} PooledFrame;

static void drop_buffers(FramePool *pool)
{
    while (pool->n_free > 0)
        free(pool->free[--pool->n_free]);
}

FramePool *frame_pool_new(void)
{
    FramePool *pool = g_new0(FramePool, 1);

    pool->refs = 1;
    g_mutex_init(&pool->lock);
    return pool;
}

void frame_pool_unref(FramePool *pool)
{
    if (!g_atomic_int_dec_and_test(&pool->refs))
        return;
    drop_buffers(pool);
    g_mutex_clear(&pool->lock);
    g_free(pool);
}

static void lock(FramePool *pool)
{
    g_mutex_lock(&pool->lock);
    handover_take(&pool->lock);
}

static void unlock(FramePool *pool)
{
    handover_give(&pool->lock);
    g_mutex_unlock(&pool->lock);
}

void frame_pool_set_idle(FramePool *pool, bool idle)
{
    lock(pool);
    pool->idle = idle;
    if (idle)
        drop_buffers(pool);
    unlock(pool);
}

static uint8_t *pool_get(FramePool *pool, size_t size)
{
    uint8_t *buffer = NULL;

    lock(pool);
    if (pool->size != size) {
        drop_buffers(pool);
        pool->size = size;
    }
    if (pool->n_free > 0)
        buffer = pool->free[--pool->n_free];
    unlock(pool);
    return buffer ? buffer : pages_alloc(size);
}

static void pool_put(FramePool *pool, uint8_t *buffer, size_t size)
{
    lock(pool);
    if (!pool->idle && pool->size == size && pool->n_free < POOL_MAX_BUFFERS) {
        pool->free[pool->n_free++] = buffer;
        buffer = NULL;
    }
    unlock(pool);
    free(buffer);
}

Frame *frame_ref(Frame *frame)
{
    g_atomic_int_inc(&frame->refs);
    return frame;
}

void frame_unref(Frame *frame)
{
    PooledFrame *pooled = (PooledFrame *)frame;

    if (!frame || !g_atomic_int_dec_and_test(&frame->refs))
        return;
    if (frame->pixels)
        pool_put(pooled->pool, frame->pixels, pooled->size);
    frame_pool_unref(pooled->pool);
    g_free((void *)frame->rects);
    g_free(pooled);
}

Frame *frame_new(FramePool *pool, uint32_t width, uint32_t height, uint32_t generation)
{
    PooledFrame *pooled = g_new0(PooledFrame, 1);

    g_atomic_int_inc(&pool->refs);
    pooled->pool = pool;
    pooled->frame.refs = 1;
    pooled->frame.width = width;
    pooled->frame.height = height;
    pooled->frame.stride = (width * 4 + 63u) & ~63u;
    pooled->frame.generation = generation;
    pooled->frame.captured_us = g_get_monotonic_time();
    return &pooled->frame;
}

void frame_set_rects(Frame *frame, Rect *rects, uint32_t n_rects)
{
    PooledFrame *pooled = (PooledFrame *)frame;

    g_assert(!frame->pixels);
    pooled->size = (size_t)frame->stride * frame->height;
    frame->pixels = pool_get(pooled->pool, pooled->size);
    frame->rects = rects;
    frame->n_rects = n_rects;
}

void frame_lend(Frame *frame, uint8_t *pixels, Rect *rects, uint32_t n_rects)
{
    PooledFrame *pooled = (PooledFrame *)frame;

    g_assert(!frame->pixels);
    pooled->size = (size_t)frame->stride * frame->height;
    frame->pixels = pixels;
    frame->rects = rects;
    frame->n_rects = n_rects;
}

bool frame_is_back(const Frame *frame)
{
    return g_atomic_int_get(&frame->refs) == 1;
}

uint8_t *frame_reclaim(Frame *frame)
{
    PooledFrame *pooled = (PooledFrame *)frame;
    uint8_t *pixels = frame->pixels;

    if (!frame_is_back(frame)) {
        uint8_t *copy = pool_get(pooled->pool, pooled->size);
        memcpy(copy, pixels, pooled->size);
        pixels = copy;
    } else {
        frame->pixels = NULL;
    }
    frame_unref(frame);
    return pixels;
}
