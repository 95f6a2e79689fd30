/*
 * Theory of operation. Along a row of cells boxes are joined to runs; a run is joined to the
 * rectangle that ends above it. What a joint costs is the pixels that are covered for nothing; what
 * it saves is a PDU, some 40 bytes, which is what SPARE_PIXELS of ordinary content take.
 */
#include "cells.h"

#include <string.h>

#define SPARE_PIXELS 160

typedef struct Joint {
    const Mirror *mirror;
    bool exact;
    int64_t max_pixels;
} Joint;

static Rect united(const Rect *a, const Rect *b)
{
    int32_t x0 = MIN(a->x, b->x), y0 = MIN(a->y, b->y);
    int32_t x1 = MAX(a->x + a->w, b->x + b->w), y1 = MAX(a->y + a->h, b->y + b->h);

    return (Rect){x0, y0, x1 - x0, y1 - y0};
}

static int64_t pixels(const Rect *r)
{
    return (int64_t)r->w * r->h;
}

/* Whether the frame has all of @r. */
static bool valid(const Mirror *mirror, const Rect *r)
{
    uint32_t left = (uint32_t)r->x / CELL, right = (uint32_t)(r->x + r->w - 1) / CELL;

    for (uint32_t row = (uint32_t)r->y / CELL; row <= (uint32_t)(r->y + r->h - 1) / CELL; row++) {
        if (memchr(mirror->valid + (size_t)row * mirror->columns + left, 0, right - left + 1))
            return false;
    }
    return true;
}

/* Joins @more to @rect if that is worth it. */
static bool join(const Joint *joint, Rect *rect, const Rect *more)
{
    Rect both = united(rect, more);
    int64_t wasted = pixels(&both) - pixels(rect) - pixels(more);

    if (pixels(&both) > joint->max_pixels)
        return false;
    if (wasted != 0 &&
        (joint->exact || wasted > SPARE_PIXELS + pixels(more) / 4 || !valid(joint->mirror, &both)))
        return false;
    *rect = both;
    return true;
}

static Rect box_rect(uint32_t column, uint32_t row, const CellBox *box)
{
    return (Rect){(int32_t)(column * CELL) + box->x0, (int32_t)(row * CELL) + box->y0,
                  box->x1 - box->x0, box->y1 - box->y0};
}

static bool overlap(const Rect *a, const Rect *b)
{
    return a->x < b->x + b->w && b->x < a->x + a->w && a->y < b->y + b->h && b->y < a->y + a->h;
}

/* Joins the runs [row_start, len) to what ends above them, from @open on. */
static void join_rows(const Joint *joint, GArray *rects, guint open, guint row_start)
{
    guint kept = row_start;

    for (guint i = row_start; i < rects->len; i++) {
        Rect run = g_array_index(rects, Rect, i);
        bool joined = false;
        for (guint j = open; j < row_start && !joined; j++) {
            Rect *above = &g_array_index(rects, Rect, j), both = *above;
            if (above->y + above->h + (int32_t)CELL <= run.y || !join(joint, &both, &run))
                continue;
            /* the runs of this row that were looked at already lie in [row_start, kept), the
             * others behind i */
            bool hit = false;
            for (guint k = open; k < rects->len && !hit; k++) {
                if (k == j || k == i || (k >= kept && k < i))
                    continue;
                hit = overlap(&g_array_index(rects, Rect, k), &both);
            }
            if (hit)
                continue;
            *above = both;
            joined = true;
        }
        if (!joined)
            g_array_index(rects, Rect, kept++) = run;
    }
    g_array_set_size(rects, kept);
}

void cells_join(const Mirror *mirror, const CellBox *boxes, bool exact, uint32_t max_pixels,
                GArray *rects)
{
    const Joint joint = {mirror, exact, max_pixels};
    guint open = rects->len;

    for (uint32_t row = 0; row < mirror->rows; row++) {
        const CellBox *line = boxes + (size_t)row * mirror->columns;
        guint row_start = rects->len;
        for (uint32_t column = 0; column < mirror->columns; column++) {
            if (line[column].x1 == 0)
                continue;
            Rect box = box_rect(column, row, &line[column]);
            Rect *last =
                rects->len > row_start ? &g_array_index(rects, Rect, rects->len - 1) : NULL;
            if (!last || !join(&joint, last, &box))
                g_array_append_val(rects, box);
        }
        join_rows(&joint, rects, open, row_start);
        /* what does not reach this row cannot be joined to any more */
        while (open < rects->len &&
               g_array_index(rects, Rect, open).y + g_array_index(rects, Rect, open).h <=
                   (int32_t)(row * CELL))
            open++;
    }
}
