/*
 * Theory of operation. A ClearCodec stream paints a rectangle in three layers: runs of one colour
 * over the whole of it (residual), above that bands of columns (V-bars) that the client keeps in a
 * ring of 32768 and that cost 2 bytes when they come again, and above that rectangles with a
 * palette or raw pixels (subcodecs). See MS-RDPEGFX 2.2.4.1.1.
 *
 * Text repeats: the same columns of the same glyphs in the same colours come again as long as they
 * are cut at the same height. So the rectangle is cut into strips as high as a line of text
 * (clearcodec_grid.c says where lines begin), each strip is divided into spans of columns, each
 * for the layer where it costs least (clearcodec_plan.c), and these are written
 * (clearcodec_layers.c, clearcodec_rlex.c). Rectangles of up to 1024 pixels are also kept whole,
 * as glyphs: the second time they cost 4 bytes.
 *
 * The caches of the client are mirrored (clearcodec_cache.c). A stream that turns out larger than
 * the caller wants, or than the pixels, is taken back: the cursors return to where they were, and
 * the entries it overwrote are forgotten.
 */
#include "clearcodec_priv.h"

#include <assert.h>
#include <stdlib.h>

#define FLAG_GLYPH_INDEX 0x01
#define FLAG_GLYPH_HIT 0x02
#define FLAG_CACHE_RESET 0x04

#define STREAM_HEADER 2u
#define PAYLOAD_HEADER 12u
#define GLYPH_INDEX_BYTES 2u
#define DEFAULT_PITCH 16u
/* Subcodec rectangles grow down to this many pixels. */
#define REGION_AREA 65536u
/* No rectangle makes more: its strips are raw at worst, and spans shorter than that. */
#define LAYER_MAX ((size_t)1 << 31)
/* Rows a power of two apart would all meet in the same set of the processor's cache. */
#define ROW_SKEW 16u
#define COLUMN_PIXELS (1u << 19)
#define GLYPH_PIXELS (1u << 18)

ClearEncoder *clear_encoder_new(void)
{
    ClearEncoder *e = calloc(1, sizeof(*e));

    if (!e || !(e->glyph = malloc(CLEAR_GLYPH_AREA * sizeof(uint32_t))))
        abort();
    pixel_ring_init(&e->columns_ring, COLUMN_PIXELS);
    pixel_ring_init(&e->glyphs_ring, GLYPH_PIXELS);
    cache_init(&e->vbars, CLEAR_VBARS, 14);
    cache_init(&e->shorts, CLEAR_SHORT_VBARS, 13);
    cache_init(&e->glyphs, CLEAR_GLYPHS, 11);
    writer_init(&e->residual.out, LAYER_MAX);
    writer_init(&e->bands, LAYER_MAX);
    writer_init(&e->subcodecs, LAYER_MAX);
    e->grid.pitch = DEFAULT_PITCH;
    e->forget = true;
    return e;
}

static void free_scratch(ClearEncoder *e)
{
    free(e->columns.pixels);
    free(e->columns.hash);
    free(e->columns.edges);
    free(e->columns.ink);
    free(e->found);
    free(e->price);
    free(e->colours);
    free(e->back);
    free(e->spans);
    free(e->regions[0]);
    free(e->regions[1]);
    free(e->indices);
}

static void cache_clear(Cache *cache)
{
    free(cache->entries);
    free(cache->sets);
}

void clear_encoder_free(ClearEncoder *e)
{
    if (!e)
        return;
    free_scratch(e);
    free(e->glyph);
    free(e->columns_ring.pixels);
    free(e->glyphs_ring.pixels);
    cache_clear(&e->vbars);
    cache_clear(&e->shorts);
    cache_clear(&e->glyphs);
    writer_clear(&e->residual.out);
    writer_clear(&e->bands);
    writer_clear(&e->subcodecs);
    free(e);
}

void clear_encoder_reset(ClearEncoder *e, uint8_t sequence)
{
    cache_forget(&e->vbars);
    cache_forget(&e->shorts);
    cache_forget(&e->glyphs);
    e->sequence = sequence;
    e->forget = true;
}

uint8_t clear_encoder_sequence(const ClearEncoder *e)
{
    return e->sequence;
}

static void *array(size_t n, size_t size)
{
    void *p = malloc(n * size);

    if (!p)
        abort();
    return p;
}

/* Scratch for rectangles of this width; kept for the next. */
static void grow_scratch(ClearEncoder *e, unsigned w)
{
    unsigned cap = 256;

    if (w <= e->columns.cap)
        return;
    while (cap < w)
        cap *= 2;
    cap += ROW_SKEW;
    free_scratch(e);
    e->columns = (Columns){.cap = cap,
                           .pixels = array((size_t)cap * CLEAR_BAND_ROWS, sizeof(uint32_t)),
                           .hash = array(cap, sizeof(uint32_t)),
                           .edges = array(cap, sizeof(uint32_t)),
                           .ink = array(cap, sizeof(uint32_t))};
    e->found = array(cap, sizeof(*e->found));
    e->price = array(cap, sizeof(*e->price));
    e->colours = array(cap, sizeof(*e->colours));
    e->back = array(cap, sizeof(*e->back));
    e->spans = array(cap, sizeof(*e->spans));
    e->regions[0] = array(cap, sizeof(Region));
    e->regions[1] = array(cap, sizeof(Region));
    e->indices_cap = (size_t)cap * CLEAR_BAND_ROWS;
    if (e->indices_cap < REGION_AREA)
        e->indices_cap = REGION_AREA;
    e->indices = array(e->indices_cap, 1);
}

/* The colour that most of the strip's first and last rows have (a majority, if there is one). */
static uint32_t strip_background(const Bitmap *b, unsigned y, unsigned rows)
{
    uint32_t best = bitmap_pixel(b, 0, y);
    unsigned lead = 0;

    for (unsigned i = 0; i < 2; i++) {
        for (unsigned x = 0; x < b->w; x += 3) {
            uint32_t pixel = bitmap_pixel(b, x, i ? y + rows - 1 : y);
            if (lead == 0)
                best = pixel;
            lead = pixel == best ? lead + 1 : lead - 1;
        }
    }
    return best;
}

/* Takes over the region above, or begins a new one. */
static void add_region(ClearEncoder *e, const Span *span, unsigned y, unsigned rows)
{
    Region now = {span->layer, span->x0, span->x1, y, y + rows};

    for (unsigned i = 0; i < e->n_regions[0]; i++) {
        Region *above = &e->regions[0][i];
        if (above->layer == now.layer && above->x0 == now.x0 && above->x1 == now.x1 &&
            above->y1 == y && (now.x1 - now.x0) * (now.y1 - above->y0) <= REGION_AREA) {
            now.y0 = above->y0;
            above->y1 = above->y0; /* empty: taken */
            break;
        }
    }
    e->regions[1][e->n_regions[1]++] = now;
}

/* Writes the regions that have ended; the others are those to continue. */
static void end_regions(ClearEncoder *e, const Bitmap *b)
{
    for (unsigned i = 0; i < e->n_regions[0]; i++) {
        const Region *r = &e->regions[0][i];
        if (r->y1 > r->y0)
            clear_put_region(e, b, r);
    }
    Region *swap = e->regions[0];
    e->regions[0] = e->regions[1];
    e->n_regions[0] = e->n_regions[1];
    e->regions[1] = swap;
    e->n_regions[1] = 0;
}

static void encode_strip(ClearEncoder *e, const Bitmap *b, unsigned y, unsigned rows)
{
    uint32_t background = strip_background(b, y, rows);
    uint64_t pushes = e->vbars.pushes;

    clear_columns(b, y, rows, background, &e->columns);
    clear_plan_strip(e, b->w, rows, background, b->w * b->h > CLEAR_GLYPH_AREA);
    for (unsigned i = 0; i < e->n_spans; i++) {
        const Span *span = &e->spans[i];
        if (span->layer == BAND)
            clear_put_band(e, span, y, rows, pushes);
        else if (span->layer != RESIDUAL)
            add_region(e, span, y, rows);
    }
    clear_put_residual(e, b->w, rows);
    end_regions(e, b);
}

static size_t layers_size(const ClearEncoder *e)
{
    return e->residual.out.len + e->bands.len + e->subcodecs.len;
}

/* Fills the three layers; gives up when they pass @max bytes. */
static bool encode_layers(ClearEncoder *e, const Bitmap *b, size_t max)
{
    Grid grid = clear_find_grid(e, b);

    e->residual.coloured = false;
    e->residual.run = 0;
    e->residual.out.len = e->bands.len = e->subcodecs.len = 0;
    e->n_regions[0] = e->n_regions[1] = 0;
    for (unsigned y = 0, end = grid.phase; y < b->h; y = end, end += grid.pitch) {
        if (end == 0)
            end = grid.pitch;
        if (end > b->h)
            end = b->h;
        encode_strip(e, b, y, end - y);
        if (layers_size(e) > max)
            return false;
    }
    end_regions(e, b);
    clear_end_residual(e);
    return layers_size(e) <= max;
}

static void encode_raw(ClearEncoder *e, const Bitmap *b)
{
    Region all = {RAW, 0, b->w, 0, b->h};

    e->residual.out.len = e->bands.len = e->subcodecs.len = 0;
    clear_put_region(e, b, &all);
}

/* The glyph that this rectangle is or becomes. */
static uint32_t glyph_index(ClearEncoder *e, const Bitmap *b, bool *hit)
{
    uint32_t *p = e->glyph;
    unsigned n = b->w * b->h;

    for (unsigned y = 0; y < b->h; y++) {
        for (unsigned x = 0; x < b->w; x++)
            *p++ = bitmap_pixel(b, x, y);
    }
    uint32_t hash = clear_hash(e->glyph, n);
    int found = cache_find(&e->glyphs, &e->glyphs_ring, hash, (uint16_t)b->w, e->glyph, n);
    if ((*hit = found >= 0))
        return (uint32_t)found;
    return cache_push(&e->glyphs, hash, (uint16_t)b->w,
                      pixel_ring_put(&e->glyphs_ring, e->glyph, n), n);
}

static void put_stream(const ClearEncoder *e, uint8_t flags, uint32_t glyph, Writer *out)
{
    writer_u8(out, (uint8_t)(flags | (e->forget ? FLAG_CACHE_RESET : 0)));
    writer_u8(out, e->sequence);
    if (flags & FLAG_GLYPH_INDEX)
        writer_u16(out, (uint16_t)glyph);
    if (flags & FLAG_GLYPH_HIT)
        return;
    writer_u32(out, (uint32_t)e->residual.out.len);
    writer_u32(out, (uint32_t)e->bands.len);
    writer_u32(out, (uint32_t)e->subcodecs.len);
    writer_bytes(out, e->residual.out.data, e->residual.out.len);
    writer_bytes(out, e->bands.data, e->bands.len);
    writer_bytes(out, e->subcodecs.data, e->subcodecs.len);
}

/* The three layers in at most @max bytes, as raw pixels if nothing else is smaller. */
static bool encode_payload(ClearEncoder *e, const Bitmap *b, size_t max)
{
    size_t raw = (size_t)b->w * b->h * 3 + CLEAR_SUBCODEC_HEADER;
    const Cache vbars = e->vbars, shorts = e->shorts;

    if (encode_layers(e, b, max < raw ? max : raw))
        return true;
    cache_rewind(&e->vbars, vbars.cursor, vbars.pushes);
    cache_rewind(&e->shorts, shorts.cursor, shorts.pushes);
    if (max >= raw)
        encode_raw(e, b);
    return max >= raw;
}

/* As clear_encode() for a rectangle that the client keeps as a glyph. */
static bool encode_glyph(ClearEncoder *e, const Bitmap *b, size_t limit, Writer *out)
{
    const Cache glyphs = e->glyphs;
    bool hit;
    uint32_t index = glyph_index(e, b, &hit);
    size_t header = STREAM_HEADER + GLYPH_INDEX_BYTES + (hit ? 0 : PAYLOAD_HEADER);

    if (limit < header || (!hit && !encode_payload(e, b, limit - header))) {
        cache_rewind(&e->glyphs, glyphs.cursor, glyphs.pushes);
        return false;
    }
    put_stream(e, (uint8_t)(FLAG_GLYPH_INDEX | (hit ? FLAG_GLYPH_HIT : 0)), index, out);
    return true;
}

static bool encode_composite(ClearEncoder *e, const Bitmap *b, size_t limit, Writer *out)
{
    size_t header = STREAM_HEADER + PAYLOAD_HEADER;

    if (limit < header || !encode_payload(e, b, limit - header))
        return false;
    put_stream(e, 0, 0, out);
    return true;
}

size_t clear_encode(ClearEncoder *e, const uint8_t *bgrx, size_t stride, unsigned w, unsigned h,
                    size_t limit, Writer *out)
{
    const Bitmap b = {bgrx, stride, w, h};
    size_t before = out->len;

    assert(w > 0 && h > 0 && w <= CLEAR_MAX_SIDE && h <= CLEAR_MAX_SIDE);
    if (!writer_ok(out))
        return 0;
    if (limit > out->max - out->len)
        limit = out->max - out->len;
    grow_scratch(e, w);
    if (w * h <= CLEAR_GLYPH_AREA ? !encode_glyph(e, &b, limit, out)
                                  : !encode_composite(e, &b, limit, out))
        return 0;
    e->sequence++;
    e->forget = false;
    return out->len - before;
}
