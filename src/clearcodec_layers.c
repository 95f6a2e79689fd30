/*
 * The bands and residual layers. Bands overwrite the residual and subcodecs overwrite both, so the
 * residual goes on with whatever colour it has beneath them.
 */
#include "clearcodec_priv.h"

void clear_put_run(Writer *w, uint32_t run)
{
    if (run < 0xFF) {
        writer_u8(w, (uint8_t)run);
        return;
    }
    writer_u8(w, 0xFF);
    if (run < 0xFFFF) {
        writer_u16(w, (uint16_t)run);
        return;
    }
    writer_u16(w, 0xFFFF);
    writer_u32(w, run);
}

/* The colour above and below most columns (a majority, if there is one). */
static uint32_t band_background(const Columns *c, const Span *span, unsigned rows)
{
    const uint32_t *ends[2] = {c->pixels, c->pixels + (size_t)(rows - 1) * c->cap};
    uint32_t best = ends[0][span->x0];
    unsigned lead = 0;

    for (unsigned i = 0; i < 2; i++) {
        for (unsigned x = span->x0; x < span->x1; x++) {
            if (lead == 0)
                best = ends[i][x];
            lead = ends[i][x] == best ? lead + 1 : lead - 1;
        }
    }
    return best;
}

/* A V-bar the client does not have: from a short V-bar it has, or in full (2.2.4.1.1.2.1.1.2 and
 * .3). Both store it, and the second the short V-bar too. Returns its index. */
static uint32_t put_new(ClearEncoder *e, const uint32_t *column, unsigned rows, uint32_t hash,
                        uint32_t background)
{
    unsigned on = 0, off = rows;

    while (on < rows && column[on] == background)
        on++;
    while (off > on && column[off - 1] == background)
        off--;
    if (on == off)
        on = off = 0;

    uint64_t pos = pixel_ring_put(&e->columns_ring, column, rows);
    uint32_t short_hash = clear_hash(column + on, off - on);
    int found =
        on == off ? -1
                  : cache_find(&e->shorts, &e->columns_ring, short_hash, 1, column + on, off - on);
    if (found >= 0) {
        writer_u16(&e->bands, (uint16_t)(0x4000 | found));
        writer_u8(&e->bands, (uint8_t)on);
    } else {
        writer_u16(&e->bands, (uint16_t)(off << 8 | on));
        for (unsigned y = on; y < off; y++)
            put_colour(&e->bands, column[y]);
        cache_push(&e->shorts, short_hash, 1, pos + on, off - on);
    }
    return cache_push(&e->vbars, hash, 1, pos, rows);
}

/* The V-bar of column @x, if the client has it: as planned, unless that place has been overwritten
 * since (@pushes is the count then). */
static int find_vbar(const ClearEncoder *e, const uint32_t *column, unsigned x, unsigned rows,
                     uint64_t pushes)
{
    if (e->found[x] >= 0) {
        uint32_t age = (e->vbars.cursor + CLEAR_VBARS - 1 - (uint32_t)e->found[x]) % CLEAR_VBARS;
        if (age >= e->vbars.pushes - pushes)
            return e->found[x];
    } else if (e->vbars.pushes == pushes) {
        return -1;
    }
    return cache_find(&e->vbars, &e->columns_ring, e->columns.hash[x], 1, column, rows);
}

void clear_put_band(ClearEncoder *e, const Span *span, unsigned y, unsigned rows, uint64_t pushes)
{
    const Columns *c = &e->columns;
    uint32_t background = band_background(c, span, rows);
    uint32_t column[CLEAR_BAND_ROWS];
    int index = -1;

    writer_u16(&e->bands, (uint16_t)span->x0);
    writer_u16(&e->bands, (uint16_t)(span->x1 - 1));
    writer_u16(&e->bands, (uint16_t)y);
    writer_u16(&e->bands, (uint16_t)(y + rows - 1));
    put_colour(&e->bands, background);
    for (unsigned x = span->x0; x < span->x1; x++) {
        if (x == span->x0 || c->edges[x] > 0) {
            column_gather(c, x, rows, column);
            index = find_vbar(e, column, x, rows, pushes);
            if (index < 0) {
                index = (int)put_new(e, column, rows, c->hash[x], background);
                continue;
            }
        }
        writer_u16(&e->bands, (uint16_t)(0x8000 | index));
    }
}

static void flush_run(Residual *r)
{
    put_colour(&r->out, r->colour);
    clear_put_run(&r->out, r->run);
    r->run = 0;
}

static void residual_pixels(Residual *r, const uint32_t *pixels, unsigned n)
{
    unsigned i = 0;

    if (!r->coloured) {
        r->coloured = true;
        r->colour = pixels[0];
    }
    while (i < n) {
        unsigned from = i;
        while (i < n && pixels[i] == r->colour)
            i++;
        r->run += i - from;
        if (i < n) {
            flush_run(r);
            r->colour = pixels[i];
        }
    }
}

void clear_put_residual(ClearEncoder *e, unsigned w, unsigned rows)
{
    const Columns *c = &e->columns;

    if (e->n_spans == 1 && e->spans[0].layer != RESIDUAL) {
        e->residual.run += w * rows;
        return;
    }
    for (unsigned y = 0; y < rows; y++) {
        for (unsigned i = 0; i < e->n_spans; i++) {
            const Span *s = &e->spans[i];
            if (s->layer == RESIDUAL)
                residual_pixels(&e->residual, c->pixels + (size_t)y * c->cap + s->x0,
                                s->x1 - s->x0);
            else
                e->residual.run += s->x1 - s->x0;
        }
    }
}

void clear_end_residual(ClearEncoder *e)
{
    if (e->residual.coloured) /* otherwise the layers above cover everything */
        flush_run(&e->residual);
}
