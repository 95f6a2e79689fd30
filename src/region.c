/*
 * Theory of operation. Each cell has a history, a bit for each frame: it changed by itself, not
 * because something was scrolled or dragged over it. Cells that changed twice in the last frames
 * are busy; the largest group of neighbouring busy cells that looks like a photograph is a film, if
 * it is large enough to be worth a codec. Text is never one, however fast it scrolls: it would lose
 * its sharpness and gain nothing.
 *
 * Once it runs, a film keeps its rectangle as long as it stays in it, because a new one costs a
 * key picture; it ends when hardly anything has changed there for a while: QUIET_US, or half as
 * long again as from one picture to the next, or else a slow film would end and begin with each. A
 * cursor or a clock over a film that has been stopped does not keep it from being shown exactly.
 */
#include "region.h"

#include <string.h>

#include "pixels.h"

#define HISTORY_MASK 0x0Fu   /* the last four frames count: */
#define BUSY_FRAMES 2u       /* of them, because each one before goes exactly, at 3 bytes a pixel */
#define GAP_US 200000        /* frames further apart are no film: history begins again, */
#define GAP_BYTES_PER_US 10u /* but for the time that the last one may have taken on its way */
#define QUIET_US 150000      /* without a picture the film has ended, */
#define MAX_QUIET_US 330000  /* at the latest */
#define REST_US 20000        /* after that */
#define LIVE_CELLS 16u       /* that change in a frame: a picture of the film */
#define MIN_CELLS 48u        /* 128x96 pixels */
#define MIN_FILL_PERCENT 50u /* of the rectangle's cells are busy */
#define PHOTO_EQUAL 3u       /* at most one pixel in so many equals its neighbour */

struct Region {
    uint32_t columns, rows;
    uint8_t *history;
    uint8_t *group; /* per cell: visited, while groups are counted */
    uint32_t *stack;
    int64_t last_us;
    unsigned busy_frames; /* of the last ones, that make a cell busy */

    bool active;
    uint32_t left, top, right, bottom; /* cells */
    int64_t changed_us, interval_us;   /* the last picture; smoothed */
};

Region *region_new(uint32_t columns, uint32_t rows)
{
    Region *region = g_new0(Region, 1);
    size_t n = (size_t)columns * rows;

    region->columns = columns;
    region->rows = rows;
    region->history = g_malloc0(n);
    region->group = g_malloc0(n);
    region->stack = g_new(uint32_t, n);
    return region;
}

void region_free(Region *region)
{
    if (!region)
        return;
    g_free(region->history);
    g_free(region->group);
    g_free(region->stack);
    g_free(region);
}

void region_take(Region *region, const Region *other)
{
    uint8_t *history = region->history, *group = region->group;
    uint32_t *stack = region->stack;

    memcpy(history, other->history, (size_t)region->columns * region->rows);
    *region = *other;
    region->history = history;
    region->group = group;
    region->stack = stack;
}

static bool busy(const Region *region, size_t at)
{
    return (unsigned)__builtin_popcount(region->history[at] & HISTORY_MASK) >= region->busy_frames;
}

/* A change of a few pixels (a cursor, a clock) does not count. */
static bool changed(const Mirror *mirror, size_t at)
{
    const CellBox *box = &mirror->boxes[at];

    return mirror->damaged[at] &&
           (box->x1 - box->x0) * (box->y1 - box->y0) >= (int)(CELL * CELL / 4);
}

/* A large film that goes exactly makes its own gaps, and would stay exact because of them. */
static void take_note(Region *region, const Mirror *mirror, int64_t now_us, size_t bytes_before)
{
    size_t n = (size_t)region->columns * region->rows;

    if (now_us - region->last_us > GAP_US + (int64_t)(bytes_before / GAP_BYTES_PER_US))
        memset(region->history, 0, n);
    region->last_us = now_us;
    for (size_t i = 0; i < n; i++)
        region->history[i] = (uint8_t)(region->history[i] << 1 | changed(mirror, i));
}

typedef struct Group {
    uint32_t n, left, top, right, bottom;
} Group;

/* The busy cells connected with @start, corners included. */
static Group flood(Region *region, uint32_t start)
{
    Group g = {0, region->columns, region->rows, 0, 0};
    uint32_t depth = 0;

    region->stack[depth++] = start;
    region->group[start] = 1;
    while (depth > 0) {
        uint32_t at = region->stack[--depth];
        uint32_t column = at % region->columns, row = at / region->columns;
        g.n++;
        g.left = MIN(g.left, column);
        g.right = MAX(g.right, column + 1);
        g.top = MIN(g.top, row);
        g.bottom = MAX(g.bottom, row + 1);
        for (uint32_t y = row > 0 ? row - 1 : 0; y < MIN(row + 2, region->rows); y++) {
            for (uint32_t x = column > 0 ? column - 1 : 0; x < MIN(column + 2, region->columns);
                 x++) {
                uint32_t next = y * region->columns + x;
                if (!region->group[next] && busy(region, next)) {
                    region->group[next] = 1;
                    region->stack[depth++] = next;
                }
            }
        }
    }
    return g;
}

static Group largest_group(Region *region)
{
    uint32_t n = region->columns * region->rows;
    Group largest = {0};

    memset(region->group, 0, n);
    for (uint32_t i = 0; i < n; i++) {
        if (region->group[i] || !busy(region, i))
            continue;
        Group g = flood(region, i);
        if (g.n > largest.n)
            largest = g;
    }
    return largest;
}

/* Looks at one row of each cell that the frame has. */
static bool like_photo(const Mirror *mirror, const Frame *frame, const Group *g)
{
    uint32_t equal = 0, seen = 0;

    for (uint32_t row = g->top; row < g->bottom; row++) {
        for (uint32_t column = g->left; column < g->right; column++) {
            if (!mirror->valid[(size_t)row * mirror->columns + column])
                continue;
            int32_t y = (int32_t)(row * CELL) + cell_height(mirror, row) / 2;
            const uint8_t *p = frame_at(frame, (int32_t)(column * CELL), y);
            for (int32_t x = 1; x < cell_width(mirror, column); x++)
                equal += pixel_at(p + x * 4) == pixel_at(p + (x - 1) * 4);
            seen += (uint32_t)cell_width(mirror, column) - 1;
        }
    }
    return seen > 0 && equal * PHOTO_EQUAL < seen;
}

static bool worth_it(const Group *g)
{
    uint32_t cells = (g->right - g->left) * (g->bottom - g->top);

    return g->n >= MIN_CELLS && g->n * 100 >= cells * MIN_FILL_PERCENT;
}

static bool inside(const Region *region, const Group *g)
{
    return g->left >= region->left && g->top >= region->top && g->right <= region->right &&
           g->bottom <= region->bottom;
}

static void begin(Region *region, const Group *g, int64_t now_us)
{
    region->active = true;
    region->left = g->left;
    region->top = g->top;
    region->right = g->right;
    region->bottom = g->bottom;
    region->changed_us = now_us;
}

static int64_t quiet_us(const Region *region)
{
    return CLAMP(region->interval_us * 3 / 2, QUIET_US, MAX_QUIET_US);
}

int64_t region_rest_us(const Region *region)
{
    return quiet_us(region) + REST_US;
}

/* A picture of the film. */
static void go_on(Region *region, int64_t now_us)
{
    region->interval_us = (region->interval_us * 3 + now_us - region->changed_us) / 4;
    region->changed_us = now_us;
}

/* Its history must not begin it again. */
static void end(Region *region)
{
    region->active = false;
    memset(region->history, 0, (size_t)region->columns * region->rows);
}

/* A film that grew, unless the two are far apart. */
static void grow(Region *region, const Group *g, int64_t now_us)
{
    Group both = {g->n, MIN(region->left, g->left), MIN(region->top, g->top),
                  MAX(region->right, g->right), MAX(region->bottom, g->bottom)};

    begin(region, worth_it(&both) ? &both : g, now_us);
}

static bool lives(const Region *region, const Mirror *mirror)
{
    uint32_t n = 0;

    for (uint32_t row = region->top; row < region->bottom && n < LIVE_CELLS; row++) {
        const uint8_t *damaged = mirror->damaged + (size_t)row * mirror->columns;
        for (uint32_t column = region->left; column < region->right; column++)
            n += damaged[column];
    }
    return n >= LIVE_CELLS;
}

bool region_note(Region *region, const Mirror *mirror, const Frame *frame, bool eager,
                 size_t bytes_before, Rect *rect)
{
    int64_t now_us = frame->captured_us, since_us = now_us - region->last_us;

    region->busy_frames = eager ? 1 : BUSY_FRAMES;
    take_note(region, mirror, now_us, bytes_before);
    if (region->active && lives(region, mirror))
        go_on(region, now_us);
    if (region->active && now_us - region->changed_us >= quiet_us(region))
        end(region);
    Group g = largest_group(region);
    if (worth_it(&g) && (!region->active || !inside(region, &g)) && like_photo(mirror, frame, &g)) {
        if (region->active) {
            grow(region, &g, now_us);
        } else {
            begin(region, &g, now_us);
            region->interval_us =
                since_us < MAX_QUIET_US ? since_us : 0; /* else it is the first one */
        }
    }
    if (!region->active)
        return false;
    rect->x = (int32_t)(region->left * CELL);
    rect->y = (int32_t)(region->top * CELL);
    rect->w = (int32_t)MIN(region->right * CELL, mirror->width) - rect->x;
    rect->h = (int32_t)MIN(region->bottom * CELL, mirror->height) - rect->y;
    return true;
}
