/*
 * Theory of operation. Pictures of text and windows go through ClearCodec, which is exact and made
 * for them; what has no two equal pixels side by side (photographs, noise) goes as planes, with run
 * lengths if it is a gradient, else raw, which is all an exact codec of RDP can do for it; one
 * colour is a SolidFill.
 *
 * Small rectangles are judged whole. Large ones are cut into pieces of TILE pixels a side, counted
 * from their own corner so that a line of text is not cut in two, and equal neighbours are joined
 * again. A piece that turns out larger than ENCODER_MAX_PDU is halved until it fits; a single
 * tile always does.
 */
#include "encoder_priv.h"

#include <stdlib.h>
#include <string.h>

#include "gfx_pdu.h"
#include "pixels.h"

/* A block of this many pixels is the most that is tried at once. */
#define BLOCK_PIXELS (TILE * TILE * 64u)
#define BLOCK_MAX_ROWS 8
/* The most that may go raw: what run lengths made larger, and still fits a PDU. */
#define RAW_PIXELS ((ENCODER_MAX_PDU - 64) / 3)
/* Rectangles up to this size are judged as one. */
#define SMALL_PIXELS (TILE * TILE * 2u)
/* A piece is a photograph if fewer than one in this many pixels equal their left neighbour. */
#define PHOTO_EQUAL 4u

#define DENSITY_PIXELS 1024u /* to which Encoder.text_density refers */

typedef enum Class { CLASS_SOLID, CLASS_TEXT, CLASS_PHOTO } Class;

typedef struct Fill {
    uint32_t colour;
    GfxRect rect;
} Fill;

typedef struct Plan {
    GArray *fills;  /* of Fill */
    GArray *texts;  /* of Rect */
    GArray *photos; /* of Rect */
} Plan;

bool encoder_paint_init(Encoder *encoder)
{
    encoder->planar = freerdp_bitmap_planar_context_new(
        PLANAR_FORMAT_HEADER_NA | PLANAR_FORMAT_HEADER_RLE, TILE, RAW_PIXELS / TILE + 1);
    encoder->planar_raw =
        freerdp_bitmap_planar_context_new(PLANAR_FORMAT_HEADER_NA, TILE, RAW_PIXELS / TILE + 1);
    if (!encoder->planar || !encoder->planar_raw)
        return false;
    freerdp_planar_topdown_image(encoder->planar, TRUE);
    freerdp_planar_topdown_image(encoder->planar_raw, TRUE);
    encoder->scratch = g_malloc(BLOCK_PIXELS * 4 + 64);
    encoder->clear = clear_encoder_new();
    return true;
}

/* True if every pixel of the rectangle has the same colour; the X byte does not count. */
static bool solid(const Frame *frame, const Rect *rect, uint32_t *colour)
{
    const uint8_t *first = frame_at(frame, rect->x, rect->y);
    uint32_t want = pixel_at(first);

    for (int32_t x = 1; x < rect->w; x++) {
        if (pixel_at(first + x * 4) != want)
            return false;
    }
    for (int32_t y = 1; y < rect->h; y++) {
        if (!pixels_equal(frame_at(frame, rect->x, rect->y + y), first, (unsigned)rect->w))
            return false;
    }
    *colour = want;
    return true;
}

/* Every second row tells. */
static bool photo(const Frame *frame, const Rect *rect)
{
    uint32_t equal = 0, seen = 0;

    if (rect->w < 8 || rect->h < 8)
        return false;
    for (int32_t y = rect->y; y < rect->y + rect->h; y += 2) {
        const uint8_t *row = frame_at(frame, rect->x, y);
        for (int32_t x = 1; x < rect->w; x++)
            equal += pixel_at(row + x * 4) == pixel_at(row + (x - 1) * 4);
        seen += (uint32_t)rect->w - 1;
    }
    return equal * PHOTO_EQUAL < seen;
}

static Class classify(const Frame *frame, const Rect *rect, uint32_t *colour)
{
    if (solid(frame, rect, colour))
        return CLASS_SOLID;
    return photo(frame, rect) ? CLASS_PHOTO : CLASS_TEXT;
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

static void add_piece(GArray *blocks, guint row_start, const Rect *piece)
{
    if (blocks->len > row_start) {
        Rect *last = &g_array_index(blocks, Rect, blocks->len - 1);
        if (last->x + last->w == piece->x &&
            (uint32_t)(last->w + piece->w) * (uint32_t)piece->h <= BLOCK_PIXELS) {
            last->w += piece->w;
            return;
        }
    }
    g_array_append_val(blocks, *piece);
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

static void plan_piece(const Frame *frame, const Rect *piece, Plan *plan, guint text_row,
                       guint photo_row)
{
    uint32_t colour = 0;

    switch (classify(frame, piece, &colour)) {
    case CLASS_SOLID:
        add_fill(plan->fills, colour, piece);
        break;
    case CLASS_TEXT:
        add_piece(plan->texts, text_row, piece);
        break;
    case CLASS_PHOTO:
        add_piece(plan->photos, photo_row, piece);
        break;
    }
}

/* Where the piece that begins at @at ends: what is left beyond a tile and a half stays whole. */
static int32_t piece_end(int32_t at, int32_t end)
{
    return end - at <= (int32_t)(TILE + TILE / 2) ? end : at + (int32_t)TILE;
}

static void plan_rect(const Frame *frame, const Rect *rect, Plan *plan)
{
    guint texts = plan->texts->len, photos = plan->photos->len;

    if (rect->w * rect->h <= (int32_t)SMALL_PIXELS) {
        plan_piece(frame, rect, plan, texts, photos);
        return;
    }
    for (int32_t y = rect->y; y < rect->y + rect->h;) {
        int32_t bottom = piece_end(y, rect->y + rect->h);
        guint text_row = plan->texts->len, photo_row = plan->photos->len;
        for (int32_t x = rect->x; x < rect->x + rect->w;) {
            int32_t right = piece_end(x, rect->x + rect->w);
            Rect piece = {x, y, right - x, bottom - y};
            plan_piece(frame, &piece, plan, text_row, photo_row);
            x = right;
        }
        join_rows(plan->texts, texts, text_row);
        join_rows(plan->photos, photos, photo_row);
        y = bottom;
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

static bool divisible(const Rect *block)
{
    return block->w > (int32_t)TILE || block->h > (int32_t)TILE;
}

/* Two halves of a block that is more than a tile, cut between tiles. */
static void halve(const Rect *block, Rect *a, Rect *b)
{
    const int32_t tile = (int32_t)TILE;

    *a = *b = *block;
    if (block->h > tile) {
        a->h = (block->h / tile + 1) / 2 * tile;
        b->y += a->h;
        b->h -= a->h;
    } else {
        a->w = (block->w / tile + 1) / 2 * tile;
        b->x += a->w;
        b->w -= a->w;
    }
}

static GfxRect gfx_rect(const Rect *r)
{
    return (GfxRect){(uint16_t)r->x, (uint16_t)r->y, (uint16_t)(r->x + r->w),
                     (uint16_t)(r->y + r->h)};
}

/* Whether rows are much like the rows above them: then planar run lengths, which code differences
 * between rows, have something to count. Every eighth row tells. */
static bool gradient(const Frame *frame, const Rect *block)
{
    uint32_t steady = 0, seen = 0;

    for (int32_t y = block->y + 1; y < block->y + block->h; y += 8) {
        const uint8_t *row = frame_at(frame, block->x, y), *above = row - frame->stride;
        for (int32_t x = 4; x < block->w * 4; x += 4) {
            steady += (uint8_t)(row[x] - above[x]) == (uint8_t)(row[x - 4] - above[x - 4]);
            seen++;
        }
    }
    return steady * 4 > seen * 3;
}

static bool write_photo(Encoder *encoder, EncodedFrame *encoded, const Rect *block)
{
    const Frame *frame = encoded->frame;
    uint32_t w = (uint32_t)block->w, h = (uint32_t)block->h, len = 0;
    GfxRect rect = gfx_rect(block);

    if (w * h > RAW_PIXELS) {
        Rect a, b;
        halve(block, &a, &b);
        return write_photo(encoder, encoded, &a) && write_photo(encoder, encoded, &b);
    }
    const uint8_t *data = frame_at(frame, block->x, block->y);
    bool rle = gradient(frame, block) &&
               freerdp_bitmap_compress_planar(encoder->planar, data, PIXEL_FORMAT_BGRX32, w, h,
                                              frame->stride, encoder->scratch, &len) &&
               len < w * h * 3;
    if (!rle && !freerdp_bitmap_compress_planar(encoder->planar_raw, data, PIXEL_FORMAT_BGRX32, w,
                                                h, frame->stride, encoder->scratch, &len))
        return false;
    gfx_write_wire_to_surface_1(&encoded->bytes, encoded->surface, GFX_CODEC_PLANAR, GFX_PIXEL_XRGB,
                                &rect, encoder->scratch, len);
    return true;
}

/* Whether a block will pass @limit if it is like the last one. To find out by trying costs 60 KiB
 * of output that is thrown away, at each halving: more than half of the time of a picture of noise.
 */
static bool too_dense(const Encoder *encoder, const Rect *block, size_t limit)
{
    return divisible(block) &&
           encoder->text_density * (uint64_t)block->w * (uint64_t)block->h / DENSITY_PIXELS > limit;
}

static bool write_text(Encoder *encoder, EncodedFrame *encoded, const Rect *block)
{
    const Frame *frame = encoded->frame;
    const uint32_t w = (uint32_t)block->w, h = (uint32_t)block->h;
    const size_t limit = MIN((size_t)w * h * 3, ENCODER_MAX_PDU - GFX_WIRE_TO_SURFACE_BYTES);
    const GfxRect rect = gfx_rect(block);

    if (!too_dense(encoder, block, limit)) {
        const size_t at = gfx_begin_wire_to_surface_1(&encoded->bytes, encoded->surface,
                                                      GFX_CODEC_CLEARCODEC, GFX_PIXEL_XRGB, &rect);
        const size_t len = clear_encode(encoder->clear, frame_at(frame, block->x, block->y),
                                        frame->stride, w, h, limit, &encoded->bytes);
        if (len > 0) {
            gfx_end_wire_to_surface_1(&encoded->bytes, at);
            encoded->clear_streams++;
            if (w * h >= TILE * TILE)
                encoder->text_density = (uint64_t)len * DENSITY_PIXELS / (w * h);
            return true;
        }
        writer_truncate(&encoded->bytes, at);
    }
    if (!divisible(block))
        return write_photo(encoder, encoded, block);
    Rect a, b;
    halve(block, &a, &b);
    return write_text(encoder, encoded, &a) && write_text(encoder, encoded, &b);
}

static gint by_size(gconstpointer a, gconstpointer b)
{
    const Rect *x = a, *y = b;

    return x->w * x->h - y->w * y->h;
}

bool encoder_paint(Encoder *encoder, EncodedFrame *encoded, GArray *rects)
{
    Plan plan = {g_array_new(FALSE, FALSE, sizeof(Fill)), g_array_new(FALSE, FALSE, sizeof(Rect)),
                 g_array_new(FALSE, FALSE, sizeof(Rect))};
    bool ok = true;

    g_array_sort(rects, by_size);
    for (guint i = 0; i < rects->len; i++)
        plan_rect(encoded->frame, &g_array_index(rects, Rect, i), &plan);
    write_fills(encoded, plan.fills);
    for (guint i = 0; i < plan.texts->len && ok; i++)
        ok = write_text(encoder, encoded, &g_array_index(plan.texts, Rect, i));
    for (guint i = 0; i < plan.photos->len && ok; i++)
        ok = write_photo(encoder, encoded, &g_array_index(plan.photos, Rect, i));
    g_array_unref(plan.fills);
    g_array_unref(plan.texts);
    g_array_unref(plan.photos);
    return ok;
}
