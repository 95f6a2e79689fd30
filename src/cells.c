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

/* The rectangles, and which of them end in the row at hand. These end with the box of a cell of it,
 * so they are at most as many as it has cells, however many there are above: a hostile guest's
 * picture must not take the square of that. */
typedef struct Rows {
    GArray *rects;
    guint *open, n_open; /* indices, ascending */
    guint start;         /* of this row's runs in .rects */
} Rows;

/* Whether @run may be joined to @above at all: each column between the two is waste. */
static bool near(const Rect *above, const Rect *run)
{
    const int32_t far = SPARE_PIXELS + run->w / 4;

    return above->y + above->h + (int32_t)CELL > run->y && above->x <= run->x + run->w + far &&
           run->x <= above->x + above->w + far;
}

/* Whether @r lies over an open rectangle other than @above, or over one of this row's runs other
 * than @run: those that were looked at lie in [start, kept), the others behind @run. */
static bool hits(const Rows *rows, const Rect *r, guint above, guint run, guint kept)
{
    for (guint i = 0; i < rows->n_open; i++) {
        if (rows->open[i] != above && overlap(&g_array_index(rows->rects, Rect, rows->open[i]), r))
            return true;
    }
    for (guint i = rows->start; i < rows->rects->len; i++) {
        if (i != run && (i < kept || i > run) && overlap(&g_array_index(rows->rects, Rect, i), r))
            return true;
    }
    return false;
}

/* Joins run @i to a rectangle above it. */
static bool join_above(const Joint *joint, const Rows *rows, guint i, guint kept)
{
    const Rect run = g_array_index(rows->rects, Rect, i);

    for (guint j = 0; j < rows->n_open; j++) {
        Rect *above = &g_array_index(rows->rects, Rect, rows->open[j]), both = *above;
        if (!near(above, &run) || !join(joint, &both, &run))
            continue;
        /* what is no larger than the two together lies over nothing else */
        if (pixels(&both) > pixels(above) + pixels(&run) &&
            hits(rows, &both, rows->open[j], i, kept))
            continue;
        *above = both;
        return true;
    }
    return false;
}

/* Joins this row's runs to what ends above them. */
static void join_rows(const Joint *joint, const Rows *rows)
{
    guint kept = rows->start;

    for (guint i = rows->start; i < rows->rects->len; i++) {
        if (!join_above(joint, rows, i, kept))
            g_array_index(rows->rects, Rect, kept++) = g_array_index(rows->rects, Rect, i);
    }
    g_array_set_size(rows->rects, kept);
}

/* What does not reach @row cannot be joined to any more; this row's runs can. */
static void update_open(Rows *rows, uint32_t row)
{
    guint n = 0;

    for (guint i = 0; i < rows->n_open; i++) {
        const Rect *r = &g_array_index(rows->rects, Rect, rows->open[i]);
        if (r->y + r->h > (int32_t)(row * CELL))
            rows->open[n++] = rows->open[i];
    }
    for (guint i = rows->start; i < rows->rects->len; i++)
        rows->open[n++] = i;
    rows->n_open = n;
}

void cells_join(const Mirror *mirror, const CellBox *boxes, bool exact, uint32_t max_pixels,
                GArray *rects)
{
    const Joint joint = {mirror, exact, max_pixels};
    Rows rows = {.rects = rects, .open = g_new(guint, mirror->columns)};

    for (uint32_t row = 0; row < mirror->rows; row++) {
        const CellBox *line = boxes + (size_t)row * mirror->columns;
        rows.start = rects->len;
        for (uint32_t column = 0; column < mirror->columns; column++) {
            if (line[column].x1 == 0)
                continue;
            Rect box = box_rect(column, row, &line[column]);
            Rect *last =
                rects->len > rows.start ? &g_array_index(rects, Rect, rects->len - 1) : NULL;
            if (!last || !join(&joint, last, &box))
                g_array_append_val(rects, box);
        }
        join_rows(&joint, &rows);
        update_open(&rows, row);
    }
    g_free(rows.open);
}
