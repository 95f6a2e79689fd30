/*
 * Theory of operation. Rectangles are cut into 64x64 tiles. Tiles of one colour become SolidFills:
 * neighbours are joined, one PDU per colour. The others are joined into runs along a row of tiles,
 * and rows of equal extent into blocks, because planar run lengths code against the line above and
 * pay per line and control byte. A block whose planar form passes ENCODER_MAX_PDU is halved until
 * it fits; a single tile always does. Where run lengths fail or make it larger (noise), the three
 * planes go raw.
 */
#include "encoder_priv.h"
#include "gfx_pdu.h"

#include <stdlib.h>
#include <string.h>

/* A block of this many pixels is the most that is tried at once. */
#define BLOCK_PIXELS (TILE * TILE * 64u)
#define BLOCK_MAX_ROWS 8
/* The most that may go raw: what run lengths made larger, and still fits a PDU. */
#define RAW_PIXELS (ENCODER_MAX_PDU / 3 / TILE * TILE)

typedef struct Fill {
    uint32_t colour;
    GfxRect rect;
} Fill;

typedef struct Plan {
    GArray *fills;  /* of Fill */
    GArray *blocks; /* of Rect */
} Plan;

bool encoder_paint_init(Encoder *encoder)
{
    /* width and height only give the largest plane: a run is at most BLOCK_PIXELS whatever shape */
    encoder->planar =
        freerdp_bitmap_planar_context_new(PLANAR_FORMAT_HEADER_NA | PLANAR_FORMAT_HEADER_RLE,
                                          TILE * TILE, BLOCK_PIXELS / TILE / TILE);
    encoder->planar_raw =
        freerdp_bitmap_planar_context_new(PLANAR_FORMAT_HEADER_NA, TILE, RAW_PIXELS / TILE);
    if (!encoder->planar || !encoder->planar_raw)
        return false;
    freerdp_planar_topdown_image(encoder->planar, TRUE);
    freerdp_planar_topdown_image(encoder->planar_raw, TRUE);
    encoder->scratch = g_malloc(BLOCK_PIXELS * 4 + 64);
    return true;
}

static uint32_t pixel(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16;
}

/* True if every pixel of the rectangle has the same colour; the X byte does not count. */
static bool solid(const Frame *frame, const Rect *rect, uint32_t *colour)
{
    const uint8_t *first = frame_at(frame, rect->x, rect->y);
    uint32_t want = pixel(first);

    for (int32_t x = 1; x < rect->w; x++) {
        if (pixel(first + x * 4) != want)
            return false;
    }
    for (int32_t y = 1; y < rect->h; y++) {
        const uint8_t *row = frame_at(frame, rect->x, rect->y + y);
        if (memcmp(row, first, (size_t)rect->w * 4) == 0)
            continue;
        for (int32_t x = 0; x < rect->w; x++) {
            if (pixel(row + x * 4) != want)
                return false;
        }
    }
    *colour = want;
    return true;
}

/* Joins @fill to one that ends where it begins, if that makes a rectangle. */
static void add_fill(GArray *fills, uint32_t colour, const Rect *rect)
{
    Fill fill = {colour,
                 {(uint16_t)rect->x, (uint16_t)rect->y, (uint16_t)(rect->x + rect->w),
                  (uint16_t)(rect->y + rect->h)}};

    if (fills->len > 0) {
        Fill *last = &g_array_index(fills, Fill, fills->len - 1);
        if (last->colour == colour && last->rect.top == fill.rect.top &&
            last->rect.bottom == fill.rect.bottom && last->rect.right == fill.rect.left) {
            last->rect.right = fill.rect.right;
            return;
        }
    }
    g_array_append_val(fills, fill);
}

static void add_tile(GArray *blocks, guint row_start, const Rect *tile)
{
    if (blocks->len > row_start) {
        Rect *last = &g_array_index(blocks, Rect, blocks->len - 1);
        if (last->x + last->w == tile->x &&
            (uint32_t)(last->w + tile->w) * (uint32_t)tile->h <= BLOCK_PIXELS) {
            last->w += tile->w;
            return;
        }
    }
    g_array_append_val(blocks, *tile);
}

/* Joins the blocks of the row just finished to blocks above of the same extent. */
static void join_rows(GArray *blocks, guint rect_start, guint row_start)
{
    guint kept = row_start;

    for (guint i = row_start; i < blocks->len; i++) {
        Rect now = g_array_index(blocks, Rect, i);
        bool joined = false;
        for (guint j = rect_start; j < row_start && !joined; j++) {
            Rect *above = &g_array_index(blocks, Rect, j);
            if (above->x == now.x && above->w == now.w && above->y + above->h == now.y &&
                above->h + now.h <= (int32_t)(BLOCK_MAX_ROWS * TILE) &&
                (uint32_t)now.w * (uint32_t)(above->h + now.h) <= BLOCK_PIXELS) {
                above->h += now.h;
                joined = true;
            }
        }
        if (!joined)
            g_array_index(blocks, Rect, kept++) = now;
    }
    g_array_set_size(blocks, kept);
}

static void plan_rect(const Frame *frame, const Rect *rect, Plan *plan)
{
    guint rect_start = plan->blocks->len;

    for (int32_t y = rect->y; y < rect->y + rect->h;) {
        int32_t h = MIN((int32_t)TILE - y % (int32_t)TILE, rect->y + rect->h - y);
        guint row_start = plan->blocks->len;
        for (int32_t x = rect->x; x < rect->x + rect->w;) {
            int32_t w = MIN((int32_t)TILE - x % (int32_t)TILE, rect->x + rect->w - x);
            Rect tile = {x, y, w, h};
            uint32_t colour;
            if (solid(frame, &tile, &colour))
                add_fill(plan->fills, colour, &tile);
            else
                add_tile(plan->blocks, row_start, &tile);
            x += w;
        }
        join_rows(plan->blocks, rect_start, row_start);
        y += h;
    }
}

static gint by_colour(gconstpointer a, gconstpointer b)
{
    const Fill *x = a, *y = b;

    if (x->colour != y->colour)
        return x->colour < y->colour ? -1 : 1;
    if (x->rect.left != y->rect.left)
        return x->rect.left - y->rect.left;
    return x->rect.top - y->rect.top;
}

static void write_fills(EncodedFrame *encoded, GArray *fills)
{
    const guint max = (ENCODER_MAX_PDU - 64) / sizeof(GfxRect);
    GArray *rects = g_array_new(FALSE, FALSE, sizeof(GfxRect));

    g_array_sort(fills, by_colour);
    for (guint i = 0; i < fills->len; i++) {
        const Fill *fill = &g_array_index(fills, Fill, i);
        GfxRect *last = rects->len ? &g_array_index(rects, GfxRect, rects->len - 1) : NULL;

        if (last && last->left == fill->rect.left && last->right == fill->rect.right &&
            last->bottom == fill->rect.top)
            last->bottom = fill->rect.bottom;
        else
            g_array_append_val(rects, fill->rect);
        if (i + 1 == fills->len || fill[1].colour != fill->colour || rects->len == max) {
            uint8_t bgrx[4] = {(uint8_t)fill->colour, (uint8_t)(fill->colour >> 8),
                               (uint8_t)(fill->colour >> 16), 0xFF};
            gfx_write_solid_fill(&encoded->bytes, encoded->surface, bgrx,
                                 (const GfxRect *)(void *)rects->data, (uint16_t)rects->len);
            g_array_set_size(rects, 0);
        }
    }
    g_array_unref(rects);
}

static bool write_block(Encoder *encoder, EncodedFrame *encoded, const Rect *block)
{
    const Frame *frame = encoded->frame;
    const uint8_t *data = frame_at(frame, block->x, block->y);
    uint32_t w = (uint32_t)block->w, h = (uint32_t)block->h, len = 0;
    GfxRect rect = {(uint16_t)block->x, (uint16_t)block->y, (uint16_t)(block->x + block->w),
                    (uint16_t)(block->y + block->h)};
    bool one_tile = w <= TILE && h <= TILE;
    bool ok = freerdp_bitmap_compress_planar(encoder->planar, data, PIXEL_FORMAT_BGRX32, w, h,
                                             frame->stride, encoder->scratch, &len) != NULL;

    if (!one_tile && (!ok || len > ENCODER_MAX_PDU - GFX_WIRE_TO_SURFACE_BYTES)) {
        Rect a = *block, b = *block;
        if (h > TILE) {
            a.h = (int32_t)((h / TILE + 1) / 2 * TILE);
            b.y += a.h;
            b.h -= a.h;
        } else {
            a.w = (int32_t)((w / TILE + 1) / 2 * TILE);
            b.x += a.w;
            b.w -= a.w;
        }
        return write_block(encoder, encoded, &a) && write_block(encoder, encoded, &b);
    }
    bool raw = !ok || len > w * h * 3 + 2;
    g_assert(!raw || w * h <= RAW_PIXELS);
    if (raw && !freerdp_bitmap_compress_planar(encoder->planar_raw, data, PIXEL_FORMAT_BGRX32, w, h,
                                               frame->stride, encoder->scratch, &len))
        return false;
    gfx_write_wire_to_surface_1(&encoded->bytes, encoded->surface, GFX_CODEC_PLANAR, GFX_PIXEL_XRGB,
                                &rect, encoder->scratch, len);
    return true;
}

static gint by_size(gconstpointer a, gconstpointer b)
{
    const Rect *x = a, *y = b;

    return x->w * x->h - y->w * y->h;
}

bool encoder_paint(Encoder *encoder, EncodedFrame *encoded, GArray *rects)
{
    Plan plan = {g_array_new(FALSE, FALSE, sizeof(Fill)), g_array_new(FALSE, FALSE, sizeof(Rect))};
    bool ok = true;

    g_array_sort(rects, by_size);
    for (guint i = 0; i < rects->len; i++)
        plan_rect(encoded->frame, &g_array_index(rects, Rect, i), &plan);
    write_fills(encoded, plan.fills);
    for (guint i = 0; i < plan.blocks->len && ok; i++)
        ok = write_block(encoder, encoded, &g_array_index(plan.blocks, Rect, i));
    g_array_unref(plan.fills);
    g_array_unref(plan.blocks);
    return ok;
}
