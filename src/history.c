/*
 * Theory of operation. Only what stood still for STILL_MS is kept: a film would churn through the
 * layers, and what a dragged window leaves behind was not there long enough to come back.
 * What is on its way to another place of the screen is not kept either, so a window that moves
 * again after a rest does not take the place of the picture it had covered.
 *
 * Two layers, because two screens that alternate need one for each: what is kept must not go where
 * this frame will be fetched from. Otherwise the layer that was used least recently is taken, cell
 * by cell. What a layer has already is not copied to it again, so from the second turn on only
 * the way back costs anything.
 *
 * Of each layer the pixels are known here too, or nothing could be compared; a cell takes memory
 * once something is kept there. Two screens of 1920x1080 are 17 MB, so cells of one or two colours,
 * which is most text and nearly all else that is no picture, take a bit a pixel.
 */
#include "history.h"

#include <string.h>

#include "cells.h"
#include "pixels.h"

#define STILL_MS 300u
#define MIN_SAVE_CELLS 12u    /* a copy of less is not worth its PDU */
#define MIN_RESTORE_PIXELS 96 /* nor is fetching less: painting it costs about the same */

typedef struct Duo {
    uint32_t colours[2];
    uint16_t second[CELL]; /* per row: the pixels of the second colour, the leftmost one lowest */
} Duo;

/* A cell's pixels, as one of the two or not at all. */
typedef struct Kept {
    uint8_t *pixels; /* CELL x CELL */
    Duo *duo;
    uint32_t saved_ms;
} Kept;

struct History {
    size_t n;
    Kept *layers[HISTORY_LAYERS]; /* per cell */
    CellBox *boxes[HISTORY_LAYERS];
    GArray *rects; /* scratch */
};

History *history_new(uint32_t width, uint32_t height)
{
    History *history = g_new0(History, 1);

    history->n = (size_t)((width + CELL - 1) / CELL) * ((height + CELL - 1) / CELL);
    for (unsigned i = 0; i < HISTORY_LAYERS; i++) {
        history->layers[i] = g_new0(Kept, history->n);
        history->boxes[i] = g_new0(CellBox, history->n);
    }
    history->rects = g_array_new(FALSE, FALSE, sizeof(Rect));
    return history;
}

void history_free(History *history)
{
    if (!history)
        return;
    for (unsigned i = 0; i < HISTORY_LAYERS; i++) {
        for (size_t at = 0; at < history->n; at++) {
            g_free(history->layers[i][at].pixels);
            g_free(history->layers[i][at].duo);
        }
        g_free(history->layers[i]);
        g_free(history->boxes[i]);
    }
    g_array_unref(history->rects);
    g_free(history);
}

static bool is_kept(const Kept *kept)
{
    return kept->pixels || kept->duo;
}

/* Pixels of row @y; @room is used if they have to be made. */
static const uint8_t *row_of(const Kept *kept, unsigned y, uint32_t room[CELL])
{
    static const uint16_t bits[CELL] = {1,     2,     4,     8,     0x10,   0x20,   0x40,   0x80,
                                        0x100, 0x200, 0x400, 0x800, 0x1000, 0x2000, 0x4000, 0x8000};

    if (kept->pixels)
        return kept->pixels + (size_t)y * CELL * 4;
    const uint32_t first = kept->duo->colours[0], change = first ^ kept->duo->colours[1];
    const uint16_t second = kept->duo->second[y];
    for (unsigned x = 0; x < CELL; x++)
        room[x] = first ^ (second & bits[x] ? change : 0);
    return (const uint8_t *)room;
}

/* Whether @kept has the pixels that lie at @from (rows of @stride bytes) for the box's corner. */
static bool has(const Kept *kept, const CellBox *box, const uint8_t *from, size_t stride)
{
    uint32_t room[CELL];

    if (!is_kept(kept))
        return false;
    for (unsigned y = box->y0; y < box->y1; y++, from += stride) {
        if (!pixels_equal(row_of(kept, y, room) + box->x0 * 4, from, (unsigned)(box->x1 - box->x0)))
            return false;
    }
    return true;
}

/* The largest box around @box, in @all, that @kept has of @frame: cells next to each other then fit
 * together, also where a pixel of the picture that is covered happens to equal the one beneath. */
static void widen(const Kept *kept, const Frame *frame, int32_t x, int32_t y, const CellBox *all,
                  CellBox *box)
{
    const CellBox tries[] = {{0, box->y0, box->x1, box->y1},
                             {box->x0, box->y0, all->x1, box->y1},
                             {box->x0, 0, box->x1, box->y1},
                             {box->x0, box->y0, box->x1, all->y1}};

    for (unsigned i = 0; i < G_N_ELEMENTS(tries); i++) {
        CellBox wide = {MIN(box->x0, tries[i].x0), MIN(box->y0, tries[i].y0),
                        MAX(box->x1, tries[i].x1), MAX(box->y1, tries[i].y1)};
        if (has(kept, &wide, frame_at(frame, x + wide.x0, y + wide.y0), frame->stride))
            *box = wide;
    }
}

/* False: there are more colours than two. */
static bool find_duo(const uint8_t *pixels, size_t stride, unsigned w, unsigned h, Duo *duo)
{
    bool two = false;

    *duo = (Duo){.colours = {pixel_at(pixels), pixel_at(pixels)}};
    for (unsigned y = 0; y < h; y++, pixels += stride) {
        for (unsigned x = 0; x < w; x++) {
            const uint32_t colour = pixel_at(pixels + x * 4);
            if (colour == duo->colours[0])
                continue;
            if (two && colour != duo->colours[1])
                return false;
            two = true;
            duo->colours[1] = colour;
            duo->second[y] |= (uint16_t)(1u << x);
        }
    }
    return true;
}

static void keep(Kept *kept, const Mirror *mirror, uint32_t column, uint32_t row, uint32_t now_ms)
{
    const int32_t x = (int32_t)(column * CELL), y = (int32_t)(row * CELL);
    const unsigned w = (unsigned)cell_width(mirror, column), h = (unsigned)cell_height(mirror, row);
    const uint8_t *from = mirror_at(mirror, x, y);
    Duo duo;

    kept->saved_ms = now_ms;
    if (find_duo(from, mirror->stride, w, h, &duo)) {
        g_clear_pointer(&kept->pixels, g_free);
        if (!kept->duo)
            kept->duo = g_new(Duo, 1);
        *kept->duo = duo;
        return;
    }
    g_clear_pointer(&kept->duo, g_free);
    if (!kept->pixels)
        kept->pixels = g_malloc0(CELL * CELL * 4);
    for (unsigned i = 0; i < h; i++)
        memcpy(kept->pixels + (size_t)i * CELL * 4, from + i * mirror->stride, (size_t)w * 4);
}

/* The layer for a cell that is about to be drawn over; HISTORY_LAYERS: it is kept already. */
static unsigned choose_layer(const History *history, const Mirror *mirror, const Frame *frame,
                             size_t at, uint32_t column, uint32_t row)
{
    const int32_t x = (int32_t)(column * CELL), y = (int32_t)(row * CELL);
    const CellBox *changed = &mirror->boxes[at];
    const CellBox all = {0, 0, (uint8_t)cell_width(mirror, column),
                         (uint8_t)cell_height(mirror, row)};
    unsigned chosen = HISTORY_LAYERS;

    for (unsigned i = 0; i < HISTORY_LAYERS; i++) {
        const Kept *kept = &history->layers[i][at];
        if (has(kept, &all, mirror_at(mirror, x, y), mirror->stride))
            return HISTORY_LAYERS;
        if (has(kept, changed, frame_at(frame, x + changed->x0, y + changed->y0), frame->stride))
            continue; /* it is about to be fetched */
        const Kept *best = chosen < HISTORY_LAYERS ? &history->layers[chosen][at] : NULL;
        if (!best ||
            (is_kept(best) && (!is_kept(kept) || (int32_t)(kept->saved_ms - best->saved_ms) < 0)))
            chosen = i;
    }
    return chosen;
}

static uint32_t cells_of(const Rect *r)
{
    return (((uint32_t)r->w + CELL - 1) / CELL) * (((uint32_t)r->h + CELL - 1) / CELL);
}

static void save_rect(History *history, const Mirror *mirror, unsigned layer, const Rect *r,
                      uint32_t now_ms)
{
    for (uint32_t row = (uint32_t)r->y / CELL; row <= (uint32_t)(r->y + r->h - 1) / CELL; row++) {
        for (uint32_t col = (uint32_t)r->x / CELL; col <= (uint32_t)(r->x + r->w - 1) / CELL; col++)
            keep(&history->layers[layer][(size_t)row * mirror->columns + col], mirror, col, row,
                 now_ms);
    }
}

void history_save(History *history, const Mirror *mirror, const Frame *frame, const uint8_t *moved,
                  uint32_t now_ms, GArray *copies)
{
    uint32_t wanted = 0;

    if (!mirror->all_known || mirror->differing < MIN_SAVE_CELLS)
        return;
    for (unsigned i = 0; i < HISTORY_LAYERS; i++)
        memset(history->boxes[i], 0, history->n * sizeof(CellBox));
    for (uint32_t row = 0; row < mirror->rows; row++) {
        for (uint32_t column = 0; column < mirror->columns; column++) {
            size_t at = (size_t)row * mirror->columns + column;
            if (!mirror->damaged[at] || mirror->lossy[at] || moved[at] ||
                now_ms - mirror->changed_ms[at] < STILL_MS)
                continue;
            unsigned layer = choose_layer(history, mirror, frame, at, column, row);
            if (layer == HISTORY_LAYERS)
                continue;
            history->boxes[layer][at] = (CellBox){0, 0, (uint8_t)cell_width(mirror, column),
                                                  (uint8_t)cell_height(mirror, row)};
            wanted++;
        }
    }
    for (unsigned i = 0; i < HISTORY_LAYERS && wanted > 0; i++) {
        g_array_set_size(history->rects, 0);
        cells_join(mirror, history->boxes[i], true, UINT32_MAX, history->rects);
        for (guint j = 0; j < history->rects->len; j++) {
            HistoryCopy copy = {g_array_index(history->rects, Rect, j), i};
            if (cells_of(&copy.rect) < MIN_SAVE_CELLS)
                continue;
            save_rect(history, mirror, i, &copy.rect, now_ms);
            g_array_append_val(copies, copy);
        }
    }
}

void history_restore(History *history, Mirror *mirror, const Frame *frame, GArray *copies)
{
    uint32_t found = 0;

    if (!mirror->all_known || mirror->differing == 0)
        return;
    for (unsigned i = 0; i < HISTORY_LAYERS; i++)
        memset(history->boxes[i], 0, history->n * sizeof(CellBox));
    for (size_t at = 0; at < history->n; at++) {
        const CellBox *box = &mirror->boxes[at];
        if (box->x1 == 0)
            continue;
        uint32_t column = (uint32_t)(at % mirror->columns), row = (uint32_t)(at / mirror->columns);
        int32_t x = (int32_t)(column * CELL), y = (int32_t)(row * CELL);
        const CellBox all = {0, 0, (uint8_t)cell_width(mirror, column),
                             (uint8_t)cell_height(mirror, row)};
        for (unsigned i = 0; i < HISTORY_LAYERS; i++) {
            const Kept *kept = &history->layers[i][at];
            if (!has(kept, box, frame_at(frame, x + box->x0, y + box->y0), frame->stride))
                continue;
            history->boxes[i][at] = *box;
            widen(kept, frame, x, y, &all, &history->boxes[i][at]);
            found++;
            break;
        }
    }
    for (unsigned i = 0; i < HISTORY_LAYERS && found > 0; i++) {
        g_array_set_size(history->rects, 0);
        cells_join(mirror, history->boxes[i], true, UINT32_MAX, history->rects);
        for (guint j = 0; j < history->rects->len; j++) {
            HistoryCopy copy = {g_array_index(history->rects, Rect, j), i};
            if (copy.rect.w * copy.rect.h < MIN_RESTORE_PIXELS)
                continue;
            mirror_draw(mirror, frame, &copy.rect);
            mirror_clear_boxes(mirror, &copy.rect);
            g_array_append_val(copies, copy);
        }
    }
}
