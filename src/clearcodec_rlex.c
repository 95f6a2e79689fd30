/*
 * Subcodec rectangles (MS-RDPEGFX 2.2.4.1.1.3.1): RLEX for up to 127 colours, raw pixels for the
 * rest. NSCodec, the third, is not lossless.
 *
 * An RLEX segment is a run of one palette entry followed by a suite: this entry and the ones after
 * it, one pixel each. So every segment takes the whole run and as much of a suite as the pixels and
 * the bits allow, which is never worse than to stop earlier: what the suite takes from the next run
 * makes that shorter or saves its segment. The palette is in the order in which colours appear,
 * which makes suites of gradients and of edges that are drawn alike.
 */
#include "clearcodec_priv.h"

typedef struct Palette {
    uint32_t colours[CLEAR_PALETTE];
    unsigned n;
    uint32_t key[256];
    uint8_t index[256];
} Palette;

#define NO_KEY 0xFFFFFFFFu /* not a colour: the top byte of one is zero */

static int palette_index(Palette *p, uint32_t colour)
{
    unsigned at = (colour * 0x9E3779B1u) >> 24;

    while (p->key[at] != colour) {
        if (p->key[at] == NO_KEY) {
            if (p->n == CLEAR_PALETTE)
                return -1;
            p->colours[p->n] = colour;
            p->key[at] = colour;
            p->index[at] = (uint8_t)p->n++;
            break;
        }
        at = (at + 1) & 255;
    }
    return p->index[at];
}

static bool index_pixels(const Bitmap *b, const Region *r, Palette *p, uint8_t *out)
{
    uint32_t last = NO_KEY;
    int index = 0;

    p->n = 0;
    memset(p->key, 0xFF, sizeof(p->key));
    for (unsigned y = r->y0; y < r->y1; y++) {
        for (unsigned x = r->x0; x < r->x1; x++) {
            uint32_t pixel = bitmap_pixel(b, x, y);
            if (pixel != last) {
                last = pixel;
                if ((index = palette_index(p, pixel)) < 0)
                    return false;
            }
            *out++ = (uint8_t)index;
        }
    }
    return true;
}

static void put_palette(Writer *w, const Palette *p)
{
    writer_u8(w, (uint8_t)(p->n < 2 ? 2 : p->n));
    for (unsigned i = 0; i < p->n; i++)
        put_colour(w, p->colours[i]);
    if (p->n == 1) /* the width of an index is not defined for one colour */
        put_colour(w, p->colours[0]);
}

/* Writes the segments; false when there are more than @max bytes of them. */
static bool put_segments(Writer *w, const uint8_t *indices, unsigned n, unsigned colours,
                         size_t max)
{
    unsigned bits = 1;
    size_t start = w->len;

    while (colours > 1u << bits)
        bits++;
    unsigned deepest = (1u << (8 - bits)) - 1;
    for (unsigned at = 0; at < n;) {
        unsigned first = indices[at], run = 0, depth = 0;
        while (at < n && indices[at] == first) {
            at++;
            run++;
        }
        while (depth < deepest && at < n && indices[at] == first + depth + 1) {
            at++;
            depth++;
        }
        writer_u8(w, (uint8_t)(depth << bits | (first + depth)));
        clear_put_run(w, run - 1);
        if (w->len - start > max)
            return false;
    }
    return true;
}

static size_t put_header(Writer *w, const Region *r, uint8_t id)
{
    writer_u16(w, (uint16_t)r->x0);
    writer_u16(w, (uint16_t)r->y0);
    writer_u16(w, (uint16_t)(r->x1 - r->x0));
    writer_u16(w, (uint16_t)(r->y1 - r->y0));
    writer_u32(w, 0);
    writer_u8(w, id);
    return w->len;
}

static bool put_rlex(ClearEncoder *e, const Bitmap *b, const Region *r, size_t raw)
{
    Writer *w = &e->subcodecs;
    Palette palette;
    size_t start = w->len;

    if (!index_pixels(b, r, &palette, e->indices))
        return false;
    size_t body = put_header(w, r, 2);
    put_palette(w, &palette);
    if (!put_segments(w, e->indices, (r->x1 - r->x0) * (r->y1 - r->y0), palette.n, raw) ||
        w->len - body > raw) {
        w->len = start;
        return false;
    }
    writer_patch_u32(w, body - 5, (uint32_t)(w->len - body));
    return true;
}

static void put_raw(ClearEncoder *e, const Bitmap *b, const Region *r, size_t raw)
{
    Writer *w = &e->subcodecs;
    size_t body = put_header(w, r, 0);
    uint8_t *p = writer_reserve(w, raw);

    if (!p)
        return;
    for (unsigned y = r->y0; y < r->y1; y++) {
        for (unsigned x = r->x0; x < r->x1; x++, p += 3)
            memcpy(p, b->bgrx + y * b->stride + (size_t)x * 4, 3);
    }
    writer_patch_u32(w, body - 5, (uint32_t)raw);
}

void clear_put_region(ClearEncoder *e, const Bitmap *b, const Region *r)
{
    size_t raw = (size_t)(r->x1 - r->x0) * (r->y1 - r->y0) * 3;

    if (r->layer != RLEX || !put_rlex(e, b, r, raw))
        put_raw(e, b, r, raw);
}
