/*
 * What the files of the ClearCodec encoder share. Pixels are 0x00RRGGBB here: the X byte is masked
 * where they are read from the picture.
 */
#ifndef QRDP_CLEARCODEC_PRIV_H
#define QRDP_CLEARCODEC_PRIV_H

#include <stdbool.h>
#include <string.h>

#include "clearcodec.h"

/* MS-RDPEGFX 2.2.4.1.1.2.1, 3.3.1.8 to 3.3.1.13, 2.2.4.1, 2.2.4.1.1.3.1.1. */
#define CLEAR_BAND_ROWS 52u
#define CLEAR_VBARS 32768u
#define CLEAR_SHORT_VBARS 16384u
#define CLEAR_GLYPHS 4000u
#define CLEAR_GLYPH_AREA 1024u
#define CLEAR_PALETTE 127u

#define CLEAR_BAND_HEADER 11u
#define CLEAR_SUBCODEC_HEADER 13u

typedef struct Bitmap {
    const uint8_t *bgrx;
    size_t stride;
    unsigned w, h;
} Bitmap;

static inline uint32_t bitmap_pixel(const Bitmap *b, unsigned x, unsigned y)
{
    uint32_t v;

    memcpy(&v, b->bgrx + y * b->stride + (size_t)x * 4, 4);
    return v & 0xFFFFFF;
}

/* One step of the hash of pixels, and where in a table of 2^bits a hash belongs. */
static inline uint32_t hash_pixel(uint32_t hash, uint32_t pixel)
{
    return (hash << 9 | hash >> 23) * 5 + pixel;
}

uint32_t clear_hash(const uint32_t *pixels, unsigned n);

/* --- clearcodec_cache.c: what the client has --- */

typedef struct PixelRing {
    uint32_t *pixels;
    uint64_t size; /* a power of two */
    uint64_t head; /* pixels ever written */
} PixelRing;

typedef struct CacheEntry {
    uint64_t pos; /* in the ring */
    uint32_t hash;
    uint16_t len;
    uint16_t shape; /* 0: not known */
} CacheEntry;

typedef struct Cache {
    CacheEntry *entries;
    uint16_t (*sets)[4]; /* entries by hash; may be stale */
    unsigned set_bits;
    uint32_t size;
    uint32_t cursor;
    uint64_t pushes;
} Cache;

void pixel_ring_init(PixelRing *ring, uint64_t size);
/** Copies @n pixels in and returns where they are. The oldest go. */
uint64_t pixel_ring_put(PixelRing *ring, const uint32_t *pixels, unsigned n);

void cache_init(Cache *cache, uint32_t size, unsigned set_bits);
void cache_forget(Cache *cache);
/** The index of the entry with these pixels and this shape (not 0), or -1. */
int cache_find(const Cache *cache, const PixelRing *ring, uint32_t hash, uint16_t shape,
               const uint32_t *pixels, unsigned len);
/** Puts an entry where the client's cursor is; returns the index. */
uint32_t cache_push(Cache *cache, uint32_t hash, uint16_t shape, uint64_t pos, unsigned len);
/** Goes back to when @cursor and @pushes were those of the cache. What has been overwritten since
 * is forgotten although the client has it: these were the oldest entries. */
void cache_rewind(Cache *cache, uint32_t cursor, uint64_t pushes);

/* --- clearcodec_columns.c: a strip of the picture, column by column --- */

typedef struct Columns {
    unsigned cap;
    uint32_t *pixels; /* rows of @cap pixels */
    uint32_t *hash;   /* clear_hash() of the column */
    uint32_t *edges;  /* rows in which the pixel differs from its left neighbour; 0: same column */
    uint32_t *ink;    /* rows in which the pixel is not the background */
} Columns;

/** Fills columns @x0 to @x1 of @rows rows; the first column of a strip has no left neighbour, its
 * edges are its ink. The second form is what the machine does best. */
void clear_columns_scalar(const Bitmap *b, unsigned y, unsigned rows, unsigned x0, unsigned x1,
                          uint32_t background, Columns *c);
void clear_columns(const Bitmap *b, unsigned y, unsigned rows, uint32_t background, Columns *c);

static inline void column_gather(const Columns *c, unsigned x, unsigned rows, uint32_t *out)
{
    for (unsigned y = 0; y < rows; y++)
        out[y] = c->pixels[(size_t)y * c->cap + x];
}

/* --- the encoder --- */

typedef enum Layer { RESIDUAL, BAND, RLEX, RAW, N_LAYERS } Layer;

typedef struct Span {
    Layer layer;
    unsigned x0, x1;
} Span;

/* A subcodec rectangle that the next strip may continue. */
typedef struct Region {
    Layer layer;
    unsigned x0, x1, y0, y1;
} Region;

typedef struct Residual {
    Writer out;
    uint32_t colour;
    uint32_t run; /* pixels not written yet */
    bool coloured;
} Residual;

/* How tall a line of text is, and where in the rectangle lines begin. */
typedef struct Grid {
    unsigned pitch;
    unsigned phase;
} Grid;

struct ClearEncoder {
    PixelRing columns_ring; /* V-bars; short V-bars are parts of them */
    PixelRing glyphs_ring;
    Cache vbars;
    Cache shorts;
    Cache glyphs;
    uint8_t sequence;
    bool forget; /* the next stream resets the client's cursors */
    Grid grid;   /* of the last rectangle with text */

    /* Scratch, grown with the width. */
    Columns columns;
    int32_t *found;    /* column -> V-bar, or -1 */
    uint32_t *price;   /* column -> quarter bytes in a band */
    uint16_t *colours; /* group of columns -> colours, if they were counted */
    uint8_t *back;     /* column -> where each layer came from */
    Span *spans;
    unsigned n_spans;
    Region *regions[2];
    unsigned n_regions[2];
    uint8_t *indices; /* palette indices of a region */
    uint32_t *glyph;
    size_t indices_cap;

    Residual residual;
    Writer bands;
    Writer subcodecs;
};

/** clearcodec_grid.c: where to cut the picture into strips. */
Grid clear_find_grid(ClearEncoder *e, const Bitmap *b);

/** clearcodec_plan.c: divides the strip in e->columns into spans. */
void clear_plan_strip(ClearEncoder *e, unsigned w, unsigned rows, uint32_t background,
                      bool reusable);

/** clearcodec_layers.c: the strip's spans to their layers. */
void clear_put_band(ClearEncoder *e, const Span *span, unsigned y, unsigned rows, uint64_t pushes);
void clear_put_residual(ClearEncoder *e, unsigned w, unsigned rows);
void clear_end_residual(ClearEncoder *e);
/** clearcodec_rlex.c: as RLEX if that is possible and smaller, otherwise raw. */
void clear_put_region(ClearEncoder *e, const Bitmap *b, const Region *r);

static inline void put_colour(Writer *w, uint32_t colour)
{
    uint8_t *p = writer_reserve(w, 3);

    if (p) {
        p[0] = (uint8_t)colour;
        p[1] = (uint8_t)(colour >> 8);
        p[2] = (uint8_t)(colour >> 16);
    }
}

/** The run length factors of residual and RLEX segments (2.2.4.1.1.1.1, 2.2.4.1.1.3.1.1.2). */
void clear_put_run(Writer *w, uint32_t run);

#endif
