#include "vm_ops.h"

#include <unistd.h>

#define MAX_OPS 4096u
#define MAX_BYTES (256u * 1024 * 1024)
#define MAX_DAMAGE 64u /* rectangles; more are merged into the last */

Op *op_new(OpKind kind)
{
    Op *op = g_new0(Op, 1);

    op->kind = kind;
    op->fd = -1;
    return op;
}

void op_free(Op *op)
{
    if (op->fd >= 0)
        close(op->fd);
    if (op->data)
        g_variant_unref(op->data);
    g_free(op);
}

static size_t op_size(const Op *op)
{
    return sizeof(*op) + (op->data ? g_variant_get_size(op->data) : 0);
}

static bool rect_covers(const Rect *a, const Rect *b)
{
    return a->x <= b->x && a->y <= b->y && (int64_t)a->x + a->w >= (int64_t)b->x + b->w &&
           (int64_t)a->y + a->h >= (int64_t)b->y + b->h;
}

static Rect rect_union(const Rect *a, const Rect *b)
{
    int64_t x1 = MAX((int64_t)a->x + a->w, (int64_t)b->x + b->w);
    int64_t y1 = MAX((int64_t)a->y + a->h, (int64_t)b->y + b->h);
    Rect u = {.x = MIN(a->x, b->x), .y = MIN(a->y, b->y)};

    u.w = (int32_t)(x1 - u.x);
    u.h = (int32_t)(y1 - u.y);
    return u;
}

Op *op_new_damage(const Rect *rect)
{
    /* A surface's worth at most, so that unions stay in range. */
    const Rect all = {0, 0, (int32_t)FRAMEBUFFER_MAX_SIDE, (int32_t)FRAMEBUFFER_MAX_SIDE};

    if (rect->w <= 0 || rect->h <= 0 || !rect_covers(&all, rect))
        return NULL;
    Op *op = op_new(OP_DAMAGE);
    op->rect = *rect;
    return op;
}

void ops_init(OpQueue *queue)
{
    *queue = (OpQueue){.ops = G_QUEUE_INIT};
}

void ops_clear(OpQueue *queue)
{
    g_queue_clear_full(&queue->ops, (GDestroyNotify)op_free);
    ops_init(queue);
}

OpQueue ops_take(OpQueue *queue)
{
    OpQueue taken = *queue;

    ops_init(queue);
    return taken;
}

static void drop_link(OpQueue *queue, GList *link)
{
    Op *op = link->data;

    queue->bytes -= op_size(op);
    queue->n_damage -= op->kind == OP_DAMAGE;
    g_queue_delete_link(&queue->ops, link);
    op_free(op);
}

/* True if damage was merged into what is queued. Only damage behind the last other op counts. */
static bool merge_damage(OpQueue *queue, const Rect *rect)
{
    for (GList *l = queue->ops.tail; l; l = l->prev) {
        Op *queued = l->data;
        if (queued->kind != OP_DAMAGE)
            break;
        bool stacked = queued->rect.x == rect->x && queued->rect.w == rect->w &&
                       (int64_t)queued->rect.y + queued->rect.h >= rect->y &&
                       queued->rect.y <= rect->y;
        if (rect_covers(&queued->rect, rect))
            return true;
        if (stacked || queue->n_damage >= MAX_DAMAGE) {
            queued->rect = rect_union(&queued->rect, rect);
            return true;
        }
    }
    return false;
}

static void forget_covered_updates(OpQueue *queue, const Rect *rect)
{
    for (GList *l = queue->ops.head, *next; l; l = next) {
        const Op *queued = l->data;
        next = l->next;
        if (queued->kind == OP_UPDATE && rect_covers(rect, &queued->rect))
            drop_link(queue, l);
    }
}

bool ops_push(OpQueue *queue, Op *op, bool *news)
{
    *news = false;
    if (op->kind == OP_DAMAGE && merge_damage(queue, &op->rect)) {
        op_free(op);
        return true;
    }
    if (op->kind == OP_UPDATE)
        forget_covered_updates(queue, &op->rect);
    while (op->kind != OP_DAMAGE && op->kind != OP_UPDATE && queue->ops.head)
        drop_link(queue, queue->ops.head);
    if (queue->ops.length >= MAX_OPS || queue->bytes + op_size(op) > MAX_BYTES) {
        op_free(op);
        return false;
    }
    queue->bytes += op_size(op);
    queue->n_damage += op->kind == OP_DAMAGE;
    g_queue_push_tail(&queue->ops, op);
    *news = true;
    return true;
}

static void apply(Framebuffer *fb, Op *op)
{
    const uint8_t *data;
    gsize len = 0;

    switch (op->kind) {
    case OP_MAP:
        framebuffer_set_map(fb, op->fd, op->offset, op->width, op->height, op->stride, op->format);
        op->fd = -1;
        break;
    case OP_SCANOUT:
        data = g_variant_get_fixed_array(op->data, &len, 1);
        framebuffer_set_scanout(fb, op->width, op->height, op->stride, op->format, data, len);
        break;
    case OP_UPDATE:
        data = g_variant_get_fixed_array(op->data, &len, 1);
        framebuffer_update(fb, &op->rect, op->stride, op->format, data, len);
        break;
    case OP_DAMAGE:
        framebuffer_update_map(fb, &op->rect);
        break;
    case OP_DISABLE:
        framebuffer_disable(fb);
        break;
    }
}

void ops_apply(OpQueue *queue, Framebuffer *fb)
{
    for (GList *l = queue->ops.head; l; l = l->next)
        apply(fb, l->data);
}
