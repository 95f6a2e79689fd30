/*
 * What has moved: scrolled text, dragged windows. Exact matches only.
 *
 * Owner: the Encoder of one client, as with its Mirror. Pure arithmetic over the two.
 */
#ifndef QRDP_MOTION_H
#define QRDP_MOTION_H

#include "mirror.h"

#define MOTION_MAX_MOVES 32u

/** The client's picture at dest - (dx, dy) equals the frame's at dest. */
typedef struct Move {
    Rect dest;
    int32_t dx, dy;
} Move;

typedef struct Motion Motion;

Motion *motion_new(void);
void motion_free(Motion *motion);
/** Looks for moves that cover cells that differ, after mirror_compare() on the same frame. Returns
 * how many are in @moves, in an order in which no copy of one vector takes what an earlier copy of
 * the same vector overwrote. Destinations are made of pixels that the frame has. */
unsigned motion_find(Motion *motion, const Mirror *mirror, const Frame *frame,
                     Move moves[MOTION_MAX_MOVES]);

#endif
