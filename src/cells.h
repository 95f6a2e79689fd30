/*
 * From marked cells to few rectangles.
 *
 * A box of pixels per cell (mirror.h) comes in, rectangles that cover them come out, with little
 * between them that nobody asked for, and little that two of them cover.
 */
#ifndef QRDP_CELLS_H
#define QRDP_CELLS_H

#include "mirror.h"

/** Joins the @boxes (as many as @mirror has cells, x1 == 0: none) to rectangles, appended to @rects
 * (of Rect). @exact: nothing is covered but the boxes, and nothing twice; else up to about as much
 * again where that saves a rectangle and the frame has its pixels. None is larger than @max_pixels,
 * unless one cell is. */
void cells_join(const Mirror *mirror, const CellBox *boxes, bool exact, uint32_t max_pixels,
                GArray *rects);

#endif
