/*
 * What QEMU's display listener has been told and the framebuffer has not: scanouts, updates,
 * damage.
 *
 * Owner: one Session of vm_display.c; ops_push() on its thread and ops_take() on main, under its
 * lock. An Op belongs to who has it.
 *
 * The queue is ordered, and short by construction: a new scanout makes everything before it
 * pointless, damage is merged with damage, an update replaces the updates it covers.
 */
#ifndef QRDP_VM_OPS_H
#define QRDP_VM_OPS_H

#include "framebuffer.h"

typedef enum OpKind { OP_MAP, OP_SCANOUT, OP_UPDATE, OP_DAMAGE, OP_DISABLE } OpKind;

typedef struct Op {
    OpKind kind;
    int fd; /* OP_MAP, else -1 */
    uint32_t offset, width, height, stride, format;
    Rect rect;
    GVariant *data; /* OP_SCANOUT, OP_UPDATE */
} Op;

Op *op_new(OpKind kind);
void op_free(Op *op);
/** OP_DAMAGE of a rectangle that may lie anywhere; NULL if it is empty or out of range. */
Op *op_new_damage(const Rect *rect);

typedef struct OpQueue {
    GQueue ops; /* of Op */
    size_t bytes;
    unsigned n_damage;
} OpQueue;

void ops_init(OpQueue *queue);
void ops_clear(OpQueue *queue);
/** Takes @op. False: the queue is full, and @op is lost. *@news: something is there that was not.
 */
bool ops_push(OpQueue *queue, Op *op, bool *news);
/** All of it, in a queue of its own. */
OpQueue ops_take(OpQueue *queue);
/** Tells @fb all of it, in order. */
void ops_apply(OpQueue *queue, Framebuffer *fb);

#endif
