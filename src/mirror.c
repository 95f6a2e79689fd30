/*
 * Theory of operation. QEMU over-reports damage and the framebuffer tells it in tiles of 64 pixels;
 * here the change itself is found: of each cell the smallest box that holds it. A glyph that was
 * typed is then a box of 8x16 whatever tile it is in. Cells, not rectangles, are the currency of
 * everything that looks for cheaper ways to send something (motion.c, history.c), because they can
 * be marked, counted and joined without geometry. First only whether a cell differs at all, which
 * the first row that does tells; boxes are measured for the few that are left when copies have
 * been found.
 *
 * What bounds all this is memory, not arithmetic: a frame and its mirror are 8 MB at 1280x800, and
 * other programs empty the caches between two frames. Where most cells differ (mirror_compare()) a
 * cell is left at its first row; where most are equal (mirror_match()) all cells of a row are gone
 * through together, row of pixels by row of pixels, which is three times as fast. Pictures are on
 * large pages (pages.h).
 */
#include "mirror.h"

#include <stdlib.h>
#include <string.h>

#include "pages.h"
#include "pixels.h"

void mirror_init(Mirror *mirror, uint32_t width, uint32_t height)
{
    *mirror = (Mirror){.width = width, .height = height};
    mirror->stride = ((size_t)width * 4 + 63u) & ~(size_t)63u;
    mirror->pixels = pages_alloc(mirror->stride * height);
    memset(mirror->pixels, 0, mirror->stride * height);
    mirror->columns = (width + CELL - 1) / CELL;
    mirror->rows = (height + CELL - 1) / CELL;
    size_t n = (size_t)mirror->columns * mirror->rows;
    mirror->known = g_malloc0(n);
    mirror->lossy = g_malloc0(n);
    mirror->valid = g_malloc0(n);
    mirror->damaged = g_malloc0(n);
    mirror->changed_ms = g_new0(uint32_t, n);
    mirror->boxes = g_new0(CellBox, n);
}

void mirror_clear(Mirror *mirror)
{
    free(mirror->pixels);
    g_free(mirror->known);
    g_free(mirror->lossy);
    g_free(mirror->valid);
    g_free(mirror->damaged);
    g_free(mirror->changed_ms);
    g_free(mirror->boxes);
    memset(mirror, 0, sizeof(*mirror));
}

void mirror_take(Mirror *mirror, const Mirror *other)
{
    size_t n = (size_t)mirror->columns * mirror->rows;

    memcpy(mirror->pixels, other->pixels, mirror->stride * mirror->height);
    memcpy(mirror->known, other->known, n);
    memcpy(mirror->lossy, other->lossy, n);
    memcpy(mirror->changed_ms, other->changed_ms, n * sizeof(mirror->changed_ms[0]));
    mirror->n_lossy = other->n_lossy;
}

bool mirror_join(Mirror *mirror, const Mirror *other)
{
    size_t n = (size_t)mirror->columns * mirror->rows;

    if (!mirror->pixels || mirror->width != other->width || mirror->height != other->height ||
        memchr(mirror->known, 0, n) || memchr(other->known, 0, n))
        return false;
    for (int32_t y = 0; y < (int32_t)mirror->height; y++) {
        if (!pixels_equal(mirror_at(mirror, 0, y), mirror_at(other, 0, y), mirror->width))
            return false;
    }
    for (size_t i = 0; i < n; i++) {
        mirror->n_lossy += !mirror->lossy[i] && other->lossy[i];
        mirror->lossy[i] |= other->lossy[i];
    }
    return true;
}

static CellBox whole_cell(const Mirror *mirror, uint32_t column, uint32_t row)
{
    return (CellBox){0, 0, (uint8_t)cell_width(mirror, column), (uint8_t)cell_height(mirror, row)};
}

unsigned mirror_match(const Mirror *mirror, const Frame *frame, uint32_t row, int32_t dx,
                      int32_t dy, uint8_t *same)
{
    const int32_t top = (int32_t)(row * CELL), bottom = top + cell_height(mirror, row);
    const uint32_t whole = mirror->width / CELL, rest = mirror->width % CELL;
    unsigned n = 0;

    for (uint32_t column = 0; column < mirror->columns; column++) {
        const int32_t x = (int32_t)(column * CELL) - dx;
        if (top - dy < 0 || bottom - dy > (int32_t)mirror->height || x < 0 ||
            x + cell_width(mirror, column) > (int32_t)mirror->width)
            same[column] = false;
        n += same[column];
    }
    for (int32_t y = top; y < bottom && n > 0; y++) {
        const uint8_t *now = frame_at(frame, 0, y);
        const uint8_t *then = mirror_at(mirror, 0, y - dy) - (ptrdiff_t)dx * 4;
        for (uint32_t column = 0; column < mirror->columns;
             column++, now += CELL * 4, then += CELL * 4) {
            if (!same[column])
                continue;
            if (column < whole ? pixels_equal_16(now, then) : pixels_equal(now, then, rest))
                continue;
            same[column] = false;
            n--;
        }
    }
    return n;
}

static CellBox compare_cell(const Mirror *mirror, const Frame *frame, uint32_t column, uint32_t row)
{
    const int32_t x = (int32_t)(column * CELL), y = (int32_t)(row * CELL);
    const int32_t w = cell_width(mirror, column), h = cell_height(mirror, row);
    uint32_t columns = 0;
    int32_t first = -1, last = -1;

    if (!mirror->known[(size_t)row * mirror->columns + column])
        return whole_cell(mirror, column, row);
    for (int32_t i = 0; i < h; i++) {
        uint32_t mask =
            pixels_difference(mirror_at(mirror, x, y + i), frame_at(frame, x, y + i), (unsigned)w);
        if (mask == 0)
            continue;
        columns |= mask;
        last = i;
        if (first < 0)
            first = i;
    }
    if (first < 0)
        return (CellBox){0};
    return (CellBox){(uint8_t)__builtin_ctz(columns), (uint8_t)first,
                     (uint8_t)(32 - __builtin_clz(columns)), (uint8_t)(last + 1)};
}

static bool cell_differs(const Mirror *mirror, const Frame *frame, uint32_t column, uint32_t row)
{
    const int32_t x = (int32_t)(column * CELL), y = (int32_t)(row * CELL);
    const unsigned w = (unsigned)cell_width(mirror, column);

    if (!mirror->known[(size_t)row * mirror->columns + column])
        return true;
    for (int32_t i = 0; i < cell_height(mirror, row); i++) {
        if (!pixels_equal(mirror_at(mirror, x, y + i), frame_at(frame, x, y + i), w))
            return true;
    }
    return false;
}

/* @first: of this frame: cells that do not differ are not damaged. Later on they may become so, by
 * a copy that went wrong. */
static void compare_area(Mirror *mirror, const Frame *frame, const Rect *area, bool first)
{
    uint32_t right = (uint32_t)(area->x + area->w - 1) / CELL;
    uint32_t bottom = (uint32_t)(area->y + area->h - 1) / CELL;

    for (uint32_t row = (uint32_t)area->y / CELL; row <= bottom; row++) {
        for (uint32_t column = (uint32_t)area->x / CELL; column <= right; column++) {
            size_t at = (size_t)row * mirror->columns + column;
            if (!mirror->valid[at])
                continue;
            CellBox box = {0};
            if (first)
                mirror->damaged[at] = cell_differs(mirror, frame, column, row);
            else if (mirror->lossy[at])
                mirror->damaged[at] |= cell_differs(mirror, frame, column, row);
            if (mirror->lossy[at] || (first && mirror->damaged[at])) {
                box = whole_cell(mirror, column, row);
            } else if (!first) {
                box = compare_cell(mirror, frame, column, row);
                mirror->damaged[at] |= box.x1 > 0;
            }
            mirror->differing -= mirror->boxes[at].x1 > 0;
            mirror->differing += box.x1 > 0;
            mirror->boxes[at] = box;
        }
    }
}

/* The frame has cells that are outside of its rectangles: they have not changed since they were
 * shown. With them, what moves is not cut to pieces by what looks the same afterwards. What is
 * shown with loss stays as it is: it is refined at a time of its own. */
static void add_unchanged(Mirror *mirror)
{
    const size_t n = (size_t)mirror->columns * mirror->rows;

    for (size_t at = 0; at < n; at++)
        mirror->valid[at] |= mirror->known[at] && !mirror->lossy[at];
}

void mirror_compare(Mirror *mirror, const Frame *frame)
{
    size_t n = (size_t)mirror->columns * mirror->rows;

    g_assert(frame->width == mirror->width && frame->height == mirror->height);
    memset(mirror->valid, 0, n);
    memset(mirror->damaged, 0, n);
    memset(mirror->boxes, 0, n * sizeof(mirror->boxes[0]));
    mirror->differing = 0;
    for (uint32_t i = 0; i < frame->n_rects; i++) {
        const Rect *r = &frame->rects[i];
        uint32_t left = (uint32_t)r->x / CELL, right = (uint32_t)(r->x + r->w - 1) / CELL;
        for (uint32_t row = (uint32_t)r->y / CELL; row <= (uint32_t)(r->y + r->h - 1) / CELL; row++)
            memset(mirror->valid + (size_t)row * mirror->columns + left, 1, right - left + 1);
        compare_area(mirror, frame, r, true);
    }
    if (frame->whole)
        add_unchanged(mirror);
    mirror->all_known = memchr(mirror->known, 0, n) == NULL;
}

void mirror_settle(Mirror *mirror, uint32_t now_ms)
{
    size_t n = (size_t)mirror->columns * mirror->rows;

    for (size_t i = 0; i < n; i++) {
        if (mirror->damaged[i])
            mirror->changed_ms[i] = now_ms;
    }
}

void mirror_measure(Mirror *mirror, const Frame *frame)
{
    for (uint32_t row = 0; row < mirror->rows && mirror->differing > 0; row++) {
        for (uint32_t column = 0; column < mirror->columns; column++) {
            size_t at = (size_t)row * mirror->columns + column;
            if (mirror->boxes[at].x1 == 0 || mirror->lossy[at])
                continue;
            mirror->boxes[at] = compare_cell(mirror, frame, column, row);
            mirror->differing -= mirror->boxes[at].x1 == 0;
        }
    }
}

void mirror_clear_boxes(Mirror *mirror, const Rect *rect)
{
    for (uint32_t row = (uint32_t)rect->y / CELL; row <= (uint32_t)(rect->y + rect->h - 1) / CELL;
         row++) {
        for (uint32_t col = (uint32_t)rect->x / CELL;
             col <= (uint32_t)(rect->x + rect->w - 1) / CELL; col++) {
            CellBox *box = &mirror->boxes[(size_t)row * mirror->columns + col];
            mirror->differing -= box->x1 > 0;
            *box = (CellBox){0};
        }
    }
}

/* The whole cells inside @area are equal. */
static void clear_inside(Mirror *mirror, const Rect *area)
{
    for (uint32_t row = ((uint32_t)area->y + CELL - 1) / CELL; row < mirror->rows; row++) {
        if ((int32_t)(row * CELL) + cell_height(mirror, row) > area->y + area->h)
            break;
        for (uint32_t col = ((uint32_t)area->x + CELL - 1) / CELL; col < mirror->columns; col++) {
            if ((int32_t)(col * CELL) + cell_width(mirror, col) > area->x + area->w)
                break;
            CellBox *box = &mirror->boxes[(size_t)row * mirror->columns + col];
            mirror->differing -= box->x1 > 0;
            *box = (CellBox){0};
        }
    }
}

void mirror_compare_again(Mirror *mirror, const Frame *frame, const Rect *area, bool exact)
{
    if (!exact) {
        compare_area(mirror, frame, area, false);
        return;
    }
    const int32_t right = area->x + area->w, bottom = area->y + area->h, cell = (int32_t)CELL;
    const struct {
        bool cuts; /* cells in two */
        Rect edge;
    } borders[] = {
        {area->y % cell != 0, {area->x, area->y, area->w, 1}},
        {bottom % cell != 0 && bottom < (int32_t)mirror->height, {area->x, bottom - 1, area->w, 1}},
        {area->x % cell != 0, {area->x, area->y, 1, area->h}},
        {right % cell != 0 && right < (int32_t)mirror->width, {right - 1, area->y, 1, area->h}},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(borders); i++) {
        if (borders[i].cuts)
            compare_area(mirror, frame, &borders[i].edge, false);
    }
    clear_inside(mirror, area);
}

static void set_lossy(Mirror *mirror, size_t at, bool lossy)
{
    mirror->n_lossy -= mirror->lossy[at];
    mirror->lossy[at] = lossy;
    mirror->n_lossy += lossy;
}

void mirror_draw(Mirror *mirror, const Frame *frame, const Rect *rect)
{
    for (int32_t y = rect->y; y < rect->y + rect->h; y++)
        memcpy(mirror_at(mirror, rect->x, y), frame_at(frame, rect->x, y), (size_t)rect->w * 4);

    /* A cell becomes known when all of it is drawn; boxes of others are whole cells. */
    for (uint32_t row = ((uint32_t)rect->y + CELL - 1) / CELL; row < mirror->rows; row++) {
        if ((int32_t)(row * CELL) + cell_height(mirror, row) > rect->y + rect->h)
            break;
        for (uint32_t col = ((uint32_t)rect->x + CELL - 1) / CELL; col < mirror->columns; col++) {
            if ((int32_t)(col * CELL) + cell_width(mirror, col) > rect->x + rect->w)
                break;
            mirror->known[(size_t)row * mirror->columns + col] = 1;
            set_lossy(mirror, (size_t)row * mirror->columns + col, false);
        }
    }
}

/* Takes the cells [@left, @right) of @row from the frame. */
static void copy_cells(Mirror *mirror, const Frame *frame, uint32_t row, uint32_t left,
                       uint32_t right)
{
    const int32_t x = (int32_t)(left * CELL), y = (int32_t)(row * CELL);
    const size_t bytes = ((size_t)MIN(right * CELL, mirror->width) - left * CELL) * 4;

    for (int32_t i = 0; i < cell_height(mirror, row); i++)
        memcpy(mirror_at(mirror, x, y + i), frame_at(frame, x, y + i), bytes);
}

void mirror_draw_lossy(Mirror *mirror, const Frame *frame, const Rect *rect)
{
    const uint32_t end = (uint32_t)(rect->x + rect->w - 1) / CELL + 1;

    for (uint32_t row = (uint32_t)rect->y / CELL; row <= (uint32_t)(rect->y + rect->h - 1) / CELL;
         row++) {
        const size_t start = (size_t)row * mirror->columns;
        for (uint32_t column = (uint32_t)rect->x / CELL; column < end; column++) {
            const uint32_t left = column;
            for (; column < end && mirror->valid[start + column]; column++)
                set_lossy(mirror, start + column, true);
            if (column > left)
                copy_cells(mirror, frame, row, left, column);
            if (column < end)
                set_lossy(mirror, start + column, true);
        }
    }
}

/* Whether a copy from (x, y) of the size of a cell takes anything that is not exact. */
static bool lossy_at(const Mirror *mirror, const uint8_t *lossy, int32_t x, int32_t y)
{
    const int32_t right = MIN(x + (int32_t)CELL, (int32_t)mirror->width) - 1;
    const int32_t bottom = MIN(y + (int32_t)CELL, (int32_t)mirror->height) - 1;

    for (int32_t row = MAX(y, 0) / (int32_t)CELL; row <= bottom / (int32_t)CELL; row++) {
        for (int32_t column = MAX(x, 0) / (int32_t)CELL; column <= right / (int32_t)CELL; column++)
            if (lossy[(size_t)row * mirror->columns + (size_t)column])
                return true;
    }
    return false;
}

/* What is copied is as exact as where it came from; a cell copied to in part is as bad as both. */
static void copy_lossy(Mirror *mirror, const Rect *rect, int32_t x, int32_t y)
{
    uint8_t *before = g_memdup2(mirror->lossy, (size_t)mirror->columns * mirror->rows);

    for (int32_t row = y / (int32_t)CELL; row <= (y + rect->h - 1) / (int32_t)CELL; row++) {
        for (int32_t col = x / (int32_t)CELL; col <= (x + rect->w - 1) / (int32_t)CELL; col++) {
            const size_t at = (size_t)row * mirror->columns + (size_t)col;
            const int32_t cx = col * (int32_t)CELL, cy = row * (int32_t)CELL;
            bool whole = cx >= x && cy >= y &&
                         cx + cell_width(mirror, (uint32_t)col) <= x + rect->w &&
                         cy + cell_height(mirror, (uint32_t)row) <= y + rect->h;
            set_lossy(mirror, at,
                      (before[at] && !whole) ||
                          lossy_at(mirror, before, cx - x + rect->x, cy - y + rect->y));
        }
    }
    g_free(before);
}

void mirror_copy(Mirror *mirror, const Rect *rect, int32_t x, int32_t y)
{
    const size_t bytes = (size_t)rect->w * 4;

    if (mirror->n_lossy > 0)
        copy_lossy(mirror, rect, x, y);
    for (int32_t i = 0; i < rect->h; i++) {
        int32_t row = y > rect->y ? rect->h - 1 - i : i; /* downwards: the last row first */
        memmove(mirror_at(mirror, x, y + row), mirror_at(mirror, rect->x, rect->y + row), bytes);
    }
}
