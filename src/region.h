/*
 * Which part of the screen is a film: found by how often its cells change, and what they look like.
 *
 * Owner: the Encoder of one client, as with its Mirror. Pure arithmetic, time is handed in.
 */
#ifndef QRDP_REGION_H
#define QRDP_REGION_H

#include "mirror.h"

typedef struct Region Region;

Region *region_new(uint32_t columns, uint32_t rows);
void region_free(Region *region);
/** @region, new and of the same size, knows what @other does. */
void region_take(Region *region, const Region *other);

/** Takes note of a frame, after what moved and what was fetched is off the mirror's boxes. True:
 * the part at @rect (whole cells, cut off at the surface's edges) is a film in this frame. It stays
 * the same rectangle until it grows or ends; between two of its pictures it goes on. @eager: the
 * link is slow, so that a large photograph is a film from its first picture on. @bytes_before: of
 * the last frame, which delay this one. */
bool region_note(Region *region, const Mirror *mirror, const Frame *frame, bool eager,
                 size_t bytes_before, Rect *rect);

/** How long after its last picture a film has ended, microseconds: time to show it exactly. */
int64_t region_rest_us(const Region *region);

#endif
