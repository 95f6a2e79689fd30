/*
 * Theory of operation. The Mirror is what its clients show; what is sent is what turns it into the
 * frame, cheapest first:
 *
 *   1. what is about to be drawn over and may come back is put aside (history.c);
 *   2. what has moved is copied where it now is (motion.c);
 *   3. what was put aside is fetched;
 *   4. a film goes through a codec of its kind (encoder_film.c);
 *   5. the rest is painted (encoder_paint.c), small pieces first.
 *
 * Each step is played on the mirror as the client will play it, and the next one starts from what
 * then still differs. So a wrong guess costs bytes, never the picture. All of it is lossless but
 * films, and these are shown exactly once they rest.
 */
#include "encoder_priv.h"

#include <string.h>

#include "cells.h"
#include "gfx.h"
#include "gfx_pdu.h"

#define REFINE_PIXELS 16384u        /* painted at a time, */
#define REFINE_BYTES (256u * 1024u) /* until a frame has so much of it, or what the link takes */
/* A frame's worth of refinement where it takes less than the 3 bytes a pixel of a photograph. */
#define REFINE_AREA (4 * REFINE_BYTES / 3)

bool encoder_gfx_init(Encoder *encoder)
{
    GfxState *gfx = &encoder->gfx;

    gfx->motion = motion_new();
    gfx->copies = g_array_new(FALSE, FALSE, sizeof(HistoryCopy));
    gfx->rects = g_array_new(FALSE, FALSE, sizeof(Rect));
    gfx_packer_init(&gfx->packer);
    encoder_film_init(encoder);
    return encoder_paint_init(encoder);
}

void encoder_begin(Encoder *encoder)
{
    GfxState *gfx = &encoder->gfx;

    g_clear_pointer(&gfx->history, history_free);
    encoder_film_end(encoder);
    gfx->film_surface = false;
    memset(gfx->layer_made, 0, sizeof(gfx->layer_made));
    if (!encoder->clear) /* it ends */
        return;
    clear_encoder_reset(encoder->clear, clear_encoder_sequence(encoder->clear));
    gfx_packer_begin(&gfx->packer);
}

void encoder_restart(Encoder *encoder)
{
    GfxState *gfx = &encoder->gfx;

    encoder_begin(encoder);
    if (gfx->mirror.pixels)
        mirror_clear(&gfx->mirror);
    g_clear_pointer(&gfx->region, region_free);
    g_clear_pointer(&gfx->moved, g_free);
    g_clear_pointer(&gfx->boxes, g_free);
}

void encoder_gfx_clear(Encoder *encoder)
{
    GfxState *gfx = &encoder->gfx;

    encoder_restart(encoder);
    motion_free(gfx->motion);
    gfx_packer_clear(&gfx->packer);
    if (gfx->copies)
        g_array_unref(gfx->copies);
    if (gfx->rects)
        g_array_unref(gfx->rects);
}

/* What is as large as the picture. */
static void make_room(Encoder *encoder, uint32_t width, uint32_t height)
{
    GfxState *gfx = &encoder->gfx;

    mirror_init(&gfx->mirror, width, height);
    if (encoder->params.film != FILM_NONE)
        gfx->region = region_new(gfx->mirror.columns, gfx->mirror.rows);
    gfx->boxes = g_new(CellBox, (size_t)gfx->mirror.columns * gfx->mirror.rows);
    gfx->moved = g_malloc((size_t)gfx->mirror.columns * gfx->mirror.rows);
}

static void prepare(Encoder *encoder, const Frame *frame)
{
    GfxState *gfx = &encoder->gfx;

    if (!gfx->mirror.pixels)
        make_room(encoder, frame->width, frame->height);
    g_assert(gfx->mirror.width == frame->width && gfx->mirror.height == frame->height);
    if (!gfx->history && (uint64_t)frame->width * frame->height <= HISTORY_MAX_PIXELS)
        gfx->history = history_new(frame->width, frame->height);
}

/* The pictures are one and the same for both; caches, layers and films begin again. */
Encoder *encoder_fork(const Encoder *encoder)
{
    const GfxState *from = &encoder->gfx;
    Encoder *fork = encoder_new(&encoder->params);

    if (!fork)
        return NULL;
    clear_encoder_reset(fork->clear, clear_encoder_sequence(encoder->clear));
    if (from->mirror.pixels) {
        make_room(fork, from->mirror.width, from->mirror.height);
        mirror_take(&fork->gfx.mirror, &from->mirror);
        if (from->region)
            region_take(fork->gfx.region, from->region);
    }
    return fork;
}

bool encoder_join(Encoder *encoder, const Encoder *other)
{
    return mirror_join(&encoder->gfx.mirror, &other->gfx.mirror);
}

static GfxRect gfx_rect(const Rect *r)
{
    return (GfxRect){(uint16_t)r->x, (uint16_t)r->y, (uint16_t)(r->x + r->w),
                     (uint16_t)(r->y + r->h)};
}

static void write_copy(EncodedFrame *encoded, uint16_t from, uint16_t to, const Rect *rect,
                       int32_t x, int32_t y)
{
    GfxRect source = gfx_rect(rect);
    GfxPoint point = {(uint16_t)x, (uint16_t)y};

    gfx_write_surface_to_surface(&encoded->bytes, from, to, &source, &point, 1);
}

static Rect move_source(const Move *move)
{
    return (Rect){move->dest.x - move->dx, move->dest.y - move->dy, move->dest.w, move->dest.h};
}

/* Cells whose content is somewhere else on the screen after the moves. */
static void mark_moved(GfxState *gfx, const Move *moves, unsigned n)
{
    const Mirror *mirror = &gfx->mirror;

    memset(gfx->moved, 0, (size_t)mirror->columns * mirror->rows);
    for (unsigned i = 0; i < n; i++) {
        Rect r = move_source(&moves[i]);
        uint32_t left = (uint32_t)r.x / CELL, right = (uint32_t)(r.x + r.w - 1) / CELL;
        for (uint32_t row = (uint32_t)r.y / CELL; row <= (uint32_t)(r.y + r.h - 1) / CELL; row++)
            memset(gfx->moved + (size_t)row * mirror->columns + left, 1, right - left + 1);
    }
}

static void write_saves(GfxState *gfx, EncodedFrame *encoded)
{
    for (guint i = 0; i < gfx->copies->len; i++) {
        const HistoryCopy *copy = &g_array_index(gfx->copies, HistoryCopy, i);
        uint16_t layer = (uint16_t)(GFX_AUX_SURFACE + copy->layer);
        if (!gfx->layer_made[copy->layer]) {
            gfx->layer_made[copy->layer] = true;
            gfx_write_create_surface(&encoded->bytes, layer, (uint16_t)gfx->mirror.width,
                                     (uint16_t)gfx->mirror.height, GFX_PIXEL_XRGB);
        }
        write_copy(encoded, encoded->surface, layer, &copy->rect, copy->rect.x, copy->rect.y);
    }
}

static bool overlap(const Rect *a, const Rect *b)
{
    return a->x < b->x + b->w && b->x < a->x + a->w && a->y < b->y + b->h && b->y < a->y + a->h;
}

/* Whether each move takes what the frame before showed: nothing that an earlier one has drawn. */
static bool independent(const Move *moves, unsigned n)
{
    for (unsigned i = 1; i < n; i++) {
        const Rect source = move_source(&moves[i]);
        for (unsigned j = 0; j < i; j++) {
            if (overlap(&moves[j].dest, &source))
                return false;
        }
    }
    return true;
}

static void write_moves(GfxState *gfx, EncodedFrame *encoded, const Move *moves, unsigned n)
{
    /* what was found equal need not be compared once more */
    bool exact = independent(moves, n) && gfx->mirror.n_lossy == 0;

    for (unsigned i = 0; i < n; i++) {
        const Rect source = move_source(&moves[i]);
        write_copy(encoded, encoded->surface, encoded->surface, &source, moves[i].dest.x,
                   moves[i].dest.y);
        mirror_copy(&gfx->mirror, &source, moves[i].dest.x, moves[i].dest.y);
    }
    for (unsigned i = 0; i < n; i++)
        mirror_compare_again(&gfx->mirror, encoded->frame, &moves[i].dest, exact);
}

static void write_restores(GfxState *gfx, EncodedFrame *encoded)
{
    for (guint i = 0; i < gfx->copies->len; i++) {
        const HistoryCopy *copy = &g_array_index(gfx->copies, HistoryCopy, i);
        write_copy(encoded, (uint16_t)(GFX_AUX_SURFACE + copy->layer), encoded->surface,
                   &copy->rect, copy->rect.x, copy->rect.y);
    }
}

static bool encode_blank(EncodedFrame *encoded, Mirror *mirror)
{
    const uint8_t black[4] = {0, 0, 0, 0xFF};
    GfxRect all = {0, 0, (uint16_t)mirror->width, (uint16_t)mirror->height};

    gfx_write_solid_fill(&encoded->bytes, encoded->surface, black, &all, 1);
    memset(mirror->pixels, 0, mirror->stride * mirror->height);
    memset(mirror->known, 1, (size_t)mirror->columns * mirror->rows);
    memset(mirror->lossy, 0, (size_t)mirror->columns * mirror->rows);
    mirror->n_lossy = 0;
    return true;
}

/* Paints the rectangles of gfx->rects, here and on the mirror. */
static bool paint(Encoder *encoder, EncodedFrame *encoded)
{
    GfxState *gfx = &encoder->gfx;
    bool ok = encoder_paint(encoder, encoded, gfx->rects);

    for (guint i = 0; i < gfx->rects->len; i++)
        mirror_draw(&gfx->mirror, encoded->frame, &g_array_index(gfx->rects, Rect, i));
    return ok;
}

/* Cells that only need to be made exact; the others' boxes are what changed. */
static bool only_lossy(const Mirror *mirror, size_t at)
{
    return mirror->lossy[at] && !mirror->damaged[at];
}

static bool paint_changes(Encoder *encoder, EncodedFrame *encoded)
{
    GfxState *gfx = &encoder->gfx;
    const size_t n = (size_t)gfx->mirror.columns * gfx->mirror.rows;

    memcpy(gfx->boxes, gfx->mirror.boxes, n * sizeof(CellBox));
    for (size_t at = 0; at < n && gfx->mirror.n_lossy > 0; at++) {
        if (only_lossy(&gfx->mirror, at))
            gfx->boxes[at] = (CellBox){0};
    }
    g_array_set_size(gfx->rects, 0);
    cells_join(&gfx->mirror, gfx->boxes, false, UINT32_MAX, gfx->rects);
    return paint(encoder, encoded);
}

/* Shows exactly what a film has left behind, a part in each frame: what is typed meanwhile must not
 * wait for all of it. */
static bool refine(Encoder *encoder, EncodedFrame *encoded)
{
    GfxState *gfx = &encoder->gfx;
    const size_t n = (size_t)gfx->mirror.columns * gfx->mirror.rows, start = encoded->bytes.len;
    GArray *parts = g_array_new(FALSE, FALSE, sizeof(Rect));
    const size_t most =
        encoder->film_bytes > 0 ? MIN(2 * encoder->film_bytes, REFINE_BYTES) : REFINE_BYTES;
    bool ok = true;

    for (size_t at = 0; at < n; at++)
        gfx->boxes[at] = only_lossy(&gfx->mirror, at) ? gfx->mirror.boxes[at] : (CellBox){0};
    if (gfx->mirror.n_lossy > 0)
        cells_join(&gfx->mirror, gfx->boxes, true, REFINE_PIXELS, parts);
    for (guint i = 0; i < parts->len && ok && encoded->bytes.len - start < most; i++) {
        g_array_set_size(gfx->rects, 0);
        g_array_append_val(gfx->rects, g_array_index(parts, Rect, i));
        ok = paint(encoder, encoded);
    }
    g_array_unref(parts);
    return ok;
}

/* @film begins at a cell, or there is none. */
static uint32_t cells_of(const Rect *film)
{
    return ((uint32_t)film->w + CELL - 1) / CELL * (((uint32_t)film->h + CELL - 1) / CELL);
}

static bool within(const Rect *film, uint32_t column, uint32_t row)
{
    const int32_t x = (int32_t)(column * CELL), y = (int32_t)(row * CELL);

    return x >= film->x && x < film->x + film->w && y >= film->y && y < film->y + film->h;
}

/* What is to be refined next: from the top, as much as a frame may take of it, so that a large
 * screen is not copied and compared as a whole for every step. @beside: but the film that plays. */
static Rect next_rest(const GfxState *gfx, bool beside)
{
    const Mirror *mirror = &gfx->mirror;
    uint32_t left = mirror->columns, right = 0, top = mirror->rows, bottom = 0, n = 0;

    for (uint32_t row = 0; row < mirror->rows && n * CELL * CELL < REFINE_AREA; row++) {
        for (uint32_t column = 0; column < mirror->columns; column++) {
            if (!mirror->lossy[(size_t)row * mirror->columns + column] ||
                (beside && within(&gfx->film, column, row)))
                continue;
            n++;
            left = MIN(left, column);
            right = MAX(right, column + 1);
            top = MIN(top, row);
            bottom = row + 1;
        }
    }
    if (n == 0)
        return (Rect){0};
    return (Rect){(int32_t)(left * CELL), (int32_t)(top * CELL), (int32_t)((right - left) * CELL),
                  (int32_t)((bottom - top) * CELL)};
}

/* Whether what differs is the film that plays, and hardly anything else: nothing will be found to
 * have moved then, and looking for it costs as much as the rest. */
static bool film_is_all(const GfxState *gfx)
{
    const Mirror *mirror = &gfx->mirror;
    const int32_t cell = (int32_t)CELL;
    uint32_t inside = 0;

    for (int32_t y = gfx->film.y; y < gfx->film.y + gfx->film.h; y += cell) {
        for (int32_t x = gfx->film.x; x < gfx->film.x + gfx->film.w; x += cell)
            inside +=
                mirror->boxes[(size_t)(y / cell) * mirror->columns + (size_t)(x / cell)].x1 > 0;
    }
    return inside > 0 && (mirror->differing - inside) * 8 < inside;
}

bool encoder_gfx_encode(Encoder *encoder, EncodedFrame *encoded)
{
    GfxState *gfx = &encoder->gfx;
    const Frame *frame = encoded->frame;
    uint32_t now_ms = (uint32_t)(frame->captured_us / 1000);
    Move moves[MOTION_MAX_MOVES];

    encoded->clear_sequence = clear_encoder_sequence(encoder->clear);
    prepare(encoder, frame);
    if (frame->blank)
        return encode_blank(encoded, &gfx->mirror);
    mirror_compare(&gfx->mirror, frame);
    unsigned n_moves = film_is_all(gfx) ? 0 : motion_find(gfx->motion, &gfx->mirror, frame, moves);
    mark_moved(gfx, moves, n_moves);

    g_array_set_size(gfx->copies, 0);
    if (gfx->history)
        history_save(gfx->history, &gfx->mirror, frame, gfx->moved, now_ms, gfx->copies);
    write_saves(gfx, encoded);
    write_moves(gfx, encoded, moves, n_moves);
    mirror_measure(&gfx->mirror, frame);
    g_array_set_size(gfx->copies, 0);
    if (gfx->history)
        history_restore(gfx->history, &gfx->mirror, frame, gfx->copies);
    write_restores(gfx, encoded);

    encoder_film(encoder, encoded);
    bool ok = paint_changes(encoder, encoded) && refine(encoder, encoded);
    gfx->bytes_before = encoded->bytes.len;
    mirror_settle(&gfx->mirror, now_ms);
    encoded->lossy = gfx->mirror.n_lossy > 0;
    encoded->rests = gfx->mirror.n_lossy > cells_of(&gfx->film);
    if (encoded->lossy) {
        encoded->rest = next_rest(gfx, encoded->rests);
        encoded->film_rest_us = region_rest_us(gfx->region);
    }
    return ok;
}

bool encoder_gfx_pack(Encoder *encoder, EncodedFrame *encoded, uint32_t frame_id)
{
    int64_t start = g_get_monotonic_time();
    bool ok = true;

    g_clear_pointer(&encoded->frame, frame_unref);
    if (encoded->bytes.len > 0)
        ok = gfx_frame_pack(&encoder->gfx.packer, &encoded->packed, frame_id,
                            gfx_timestamp((uint64_t)start / 1000), encoded->bytes.data,
                            encoded->bytes.len);
    writer_clear(&encoded->bytes);
    encoded->encode_us += g_get_monotonic_time() - start;
    return ok;
}
