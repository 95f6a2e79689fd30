/*
 * Divides a strip into spans of columns, each for the layer where it is cheapest. Prices are
 * quarters of a byte, estimated per column and then minimised exactly over all divisions, from
 * left to right (four layers, the cheapest way to be in each, one column after the other).
 *
 *  - residual: a run of 4 bytes per edge;
 *  - band: what the caches say. A V-bar that is new is charged a part of its bytes only, if there
 *    are few colours: text comes back, and then every column costs 2. A column that is the same as
 *    its neighbour's counts half, because what follows on the wire (ZGFX) sees to that;
 *  - RLEX: one and a half bytes per edge;
 *  - raw: 3 bytes per pixel.
 *
 * Beginning a span costs its header. Subcodecs begin and end at multiples of GROUP columns, so
 * that those of one strip continue in the next and share the header.
 */
#include "clearcodec_priv.h"

#define BYTE 4u
#define GROUP 16u
#define TEXT_COLOURS 16u
#define TEXT_DISCOUNT 6u
#define UNCOUNTED 0xFFFFu
#define PHOTO_SAMPLES 64u
#define PHOTO_DIFFERENT 48u

/* Columns of this strip that will be in the cache when they come again, by hash. */
typedef struct Seen {
    uint32_t hash[512];
} Seen;

/* What a column costs that is no V-bar the client has; its ends are taken for the background. */
static uint32_t price_new(const ClearEncoder *e, const uint32_t *column, unsigned rows,
                          uint32_t hash, Seen *seen)
{
    uint32_t *place = &seen->hash[(hash * 0x9E3779B1u) >> 23];
    unsigned from = 0, to = rows;

    if (*place == hash)
        return 2 * BYTE;
    *place = hash;
    while (from < rows && column[from] == column[0])
        from++;
    while (to > from && column[rows - 1] == column[0] && column[to - 1] == column[0])
        to--;
    if (from < to && cache_find(&e->shorts, &e->columns_ring, clear_hash(column + from, to - from),
                                1, column + from, to - from) >= 0)
        return 3 * BYTE;
    return (2 + 3 * (to - from)) * BYTE;
}

/* Colours of the group, or more than CLEAR_PALETTE. */
static unsigned count_colours(const Columns *c, unsigned x0, unsigned x1, unsigned rows)
{
    uint32_t table[256];
    unsigned n = 0;
    uint32_t last = 0xFFFFFFFF;

    memset(table, 0xFF, sizeof(table));
    for (unsigned y = 0; y < rows; y++) {
        const uint32_t *row = c->pixels + (size_t)y * c->cap;
        for (unsigned x = x0; x < x1; x++) {
            if (row[x] == last)
                continue;
            last = row[x];
            unsigned at = (last * 0x9E3779B1u) >> 24;
            while (table[at] != last && table[at] != 0xFFFFFFFF)
                at = (at + 1) & 255;
            if (table[at] == 0xFFFFFFFF) {
                table[at] = last;
                if (++n > CLEAR_PALETTE)
                    return n;
            }
        }
    }
    return n;
}

/* What each column costs in a band; -1 in found: not in the cache. */
static bool price_group(ClearEncoder *e, unsigned x0, unsigned x1, unsigned rows, Seen *seen)
{
    const Columns *c = &e->columns;
    uint32_t column[CLEAR_BAND_ROWS];
    bool misses = false;

    for (unsigned x = x0; x < x1; x++) {
        e->found[x] = -1;
        if (x > 0 && c->edges[x] == 0) {
            e->found[x] = e->found[x - 1];
            e->price[x] = BYTE / 4;
            continue;
        }
        column_gather(c, x, rows, column);
        e->found[x] = cache_find(&e->vbars, &e->columns_ring, c->hash[x], 1, column, rows);
        e->price[x] = 2 * BYTE;
        if (e->found[x] < 0) {
            e->price[x] = price_new(e, column, rows, c->hash[x], seen);
            misses = misses || e->price[x] > 3 * BYTE;
        }
    }
    return misses;
}

/* True if nearly every pixel is an edge and most of 64 of them have colours of their own. No cache
 * will see these columns again, and no palette holds them. */
static bool photographic(const Columns *c, unsigned x0, unsigned x1, unsigned rows)
{
    unsigned area = (x1 - x0) * rows, edges = 0, different = 0;
    uint8_t seen[256] = {0};

    for (unsigned x = x0; x < x1; x++)
        edges += c->edges[x];
    if (area < PHOTO_SAMPLES || edges * 2 < area)
        return false;
    for (unsigned i = 0; i < PHOTO_SAMPLES; i++) {
        unsigned at = i * area / PHOTO_SAMPLES;
        uint32_t pixel = c->pixels[(size_t)(at / (x1 - x0)) * c->cap + x0 + at % (x1 - x0)];
        uint8_t *place = &seen[(pixel * 0x9E3779B1u) >> 24];
        different += *place == 0;
        *place = 1;
    }
    return different >= PHOTO_DIFFERENT;
}

/* Prices of a group, and its colours if they may matter. */
static void price_columns(ClearEncoder *e, unsigned x0, unsigned x1, unsigned rows, bool reusable,
                          Seen *seen)
{
    uint16_t *colours = &e->colours[x0 / GROUP];

    *colours = UNCOUNTED;
    if (photographic(&e->columns, x0, x1, rows)) {
        for (unsigned x = x0; x < x1; x++) {
            e->found[x] = -1;
            e->price[x] = (2 + 3 * rows) * BYTE * 2; /* what it would drive out has a price too */
        }
        return;
    }
    if (!price_group(e, x0, x1, rows, seen))
        return;
    *colours = (uint16_t)count_colours(&e->columns, x0, x1, rows);
    if (*colours > TEXT_COLOURS || !reusable)
        return;
    for (unsigned x = x0; x < x1; x++) {
        if (e->price[x] > 3 * BYTE)
            e->price[x] = 2 * BYTE + (e->price[x] - 2 * BYTE) / TEXT_DISCOUNT;
    }
}

#define NEVER 0x3FFFFFFFu

/* The cheapest of the layers other than @layer. */
static unsigned cheapest_other(const uint32_t *cost, unsigned layer)
{
    unsigned best = layer == 0 ? 1 : 0;

    for (unsigned i = best + 1; i < N_LAYERS; i++) {
        if (i != layer && cost[i] < cost[best])
            best = i;
    }
    return best;
}

/* A column where no subcodec begins or ends. Nothing here is a branch: they would be guessed
 * wrong. */
static uint8_t advance_within(const Columns *c, const uint32_t *stay, unsigned x, uint32_t *cost)
{
    uint32_t residual = cost[RESIDUAL] + stay[RESIDUAL];
    uint32_t to_residual = cost[BAND] + 4 * BYTE * c->ink[x];
    uint32_t band = cost[BAND] + stay[BAND];
    uint32_t to_band = cost[RESIDUAL] + CLEAR_BAND_HEADER * BYTE + stay[BAND];
    unsigned residual_from = to_residual < residual ? BAND : RESIDUAL;
    unsigned band_from = to_band < band ? RESIDUAL : BAND;

    cost[RESIDUAL] = to_residual < residual ? to_residual : residual;
    cost[BAND] = to_band < band ? to_band : band;
    cost[RLEX] += stay[RLEX];
    cost[RLEX] = cost[RLEX] > NEVER ? NEVER : cost[RLEX];
    cost[RAW] += stay[RAW];
    cost[RAW] = cost[RAW] > NEVER ? NEVER : cost[RAW];
    return (uint8_t)(RAW << 2 * RAW | RLEX << 2 * RLEX | band_from << 2 * BAND | residual_from);
}

/* One column more: updates @cost; returns 2 bits per layer that say where it came from. */
static uint8_t advance(const ClearEncoder *e, unsigned x, unsigned rows, uint32_t *cost)
{
    const Columns *c = &e->columns;
    unsigned colours = e->colours[x / GROUP];
    const uint32_t stay[N_LAYERS] = {
        4 * BYTE * c->edges[x],
        e->price[x],
        colours <= CLEAR_PALETTE ? 3 * BYTE / 2 * c->edges[x] : NEVER,
        3 * BYTE * rows,
    };
    if (x % GROUP != 0)
        return advance_within(c, stay, x, cost);

    const uint32_t enter[N_LAYERS] = {
        4 * BYTE * c->ink[x],
        CLEAR_BAND_HEADER * BYTE + stay[BAND],
        (CLEAR_SUBCODEC_HEADER + 1 + 3 * colours) * BYTE + stay[RLEX],
        CLEAR_SUBCODEC_HEADER * BYTE + stay[RAW],
    };
    uint32_t next[N_LAYERS];
    uint8_t from = 0;

    for (unsigned i = 0; i < N_LAYERS; i++) {
        unsigned other = cheapest_other(cost, i), source = i;
        next[i] = cost[i] + stay[i];
        if (cost[other] + enter[i] < next[i]) {
            next[i] = cost[other] + enter[i];
            source = other;
        }
        if (next[i] > NEVER)
            next[i] = NEVER;
        from |= (uint8_t)(source << 2 * i);
    }
    memcpy(cost, next, sizeof(next));
    return from;
}

void clear_plan_strip(ClearEncoder *e, unsigned w, unsigned rows, uint32_t background,
                      bool reusable)
{
    /* before the first column: in the residual, whose run is the background */
    uint32_t cost[N_LAYERS] = {0, NEVER, NEVER, NEVER};
    Seen seen = {{0}};

    for (unsigned x0 = 0; x0 < w; x0 += GROUP) {
        unsigned x1 = x0 + GROUP < w ? x0 + GROUP : w;
        price_columns(e, x0, x1, rows, reusable, &seen);
        for (unsigned x = x0; x < x1; x++)
            e->back[x] = advance(e, x, rows, cost);
    }

    unsigned layer = 0;
    for (unsigned i = 1; i < N_LAYERS; i++) {
        if (cost[i] < cost[layer])
            layer = i;
    }
    /* backwards, into the end of the array */
    unsigned at = w, end = w;
    for (unsigned x = w; x-- > 0;) {
        unsigned source = e->back[x] >> (2 * layer) & 3;
        if (source != layer || x == 0) {
            e->spans[--at] = (Span){(Layer)layer, x, end};
            end = x;
            layer = source;
        }
    }
    e->n_spans = w - at;
    memmove(e->spans, e->spans + at, e->n_spans * sizeof(Span));
}
