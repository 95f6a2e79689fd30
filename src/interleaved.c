/*
 * Theory of operation. The bitmap is one sequence of pixels from the bottom row up, and is
 * described by runs of four kinds: equal to the row before ("background"), that or different from
 * it by one colour in exclusive or (a bit per pixel: text), one colour, and pixels as they are. At
 * each place the kind that takes the fewest bytes per pixel wins, and pixels are sent as they are
 * until one pays for its own header and that of what follows.
 *
 * Before the first row everything is black, and a decoder asks once per run whether it is still in
 * the first row: so a run that looks at the row before ends with the first row at the latest.
 * A background run right after another would begin with a foreground pixel, but for one that begins
 * with the second row; a run is as long as it can be, so no other follows one.
 */
#include "interleaved.h"

#include <assert.h>
#include <stdbool.h>

enum { BACKGROUND = 0, MIXED = 2, COLOUR = 3, IMAGE = 4 }; /* order codes, regular form */

#define SET_MIXED 0xD0u /* "SET_FG_FGBG": MIXED with a new colour */
#define MEGA_SET_MIXED 0xF7u
#define NO_COLOUR UINT32_MAX
/* A mixed run ends before so many pixels that are only background. */
#define MIXED_REST 32u

typedef struct Coder {
    uint32_t pixels[INTERLEAVED_MAX_PIXELS];
    uint32_t n, w;
    uint32_t bytes; /* of a pixel */
    uint32_t foreground;
    Writer *out;
} Coder;

typedef struct Run {
    unsigned kind;
    uint32_t len, cost;
    uint32_t colour; /* COLOUR, MIXED */
} Run;

static uint32_t pixel(const uint8_t *p, unsigned bpp)
{
    switch (bpp) {
    case 15:
        return (uint32_t)(p[2] >> 3) << 10 | (uint32_t)(p[1] >> 3) << 5 | p[0] >> 3;
    case 16:
        return (uint32_t)(p[2] >> 3) << 11 | (uint32_t)(p[1] >> 2) << 5 | p[0] >> 3;
    default:
        return (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
    }
}

static void write_pixel(const Coder *c, uint32_t value)
{
    writer_u16(c->out, (uint16_t)value);
    if (c->bytes == 3)
        writer_u8(c->out, (uint8_t)(value >> 16));
}

/* What is different from the row before. */
static uint32_t change(const Coder *c, uint32_t at)
{
    return c->pixels[at] ^ (at < c->w ? 0 : c->pixels[at - c->w]);
}

static uint32_t header_bytes(uint32_t len)
{
    return len < 32 ? 1 : len < 32 + 256 ? 2 : 3;
}

static void write_header(const Coder *c, unsigned kind, uint32_t len)
{
    if (len < 32) {
        writer_u8(c->out, (uint8_t)(kind << 5 | len));
    } else if (len < 32 + 256) {
        writer_u8(c->out, (uint8_t)(kind << 5));
        writer_u8(c->out, (uint8_t)(len - 32));
    } else {
        writer_u8(c->out, (uint8_t)(0xF0 | kind));
        writer_u16(c->out, (uint16_t)len);
    }
}

/* Lengths of mixed runs count in eights, or to 256 (2.2.9.1.1.3.1.2.4). */
static void write_mixed_header(const Coder *c, bool set, uint32_t len)
{
    if (len % 8 == 0 && len / 8 <= (set ? 15 : 31)) {
        writer_u8(c->out, (uint8_t)((set ? SET_MIXED : MIXED << 5) | len / 8));
    } else if (len <= 256) {
        writer_u8(c->out, set ? SET_MIXED : MIXED << 5);
        writer_u8(c->out, (uint8_t)(len - 1));
    } else {
        writer_u8(c->out, set ? MEGA_SET_MIXED : 0xF0 | MIXED);
        writer_u16(c->out, (uint16_t)len);
    }
}

static Run background_run(const Coder *c, uint32_t at, uint32_t end)
{
    Run run = {.kind = BACKGROUND};

    while (at + run.len < end && change(c, at + run.len) == 0)
        run.len++;
    run.cost = header_bytes(run.len);
    return run;
}

static Run colour_run(const Coder *c, uint32_t at)
{
    Run run = {.kind = COLOUR, .colour = c->pixels[at]};

    while (at + run.len < c->n && c->pixels[at + run.len] == run.colour)
        run.len++;
    run.cost = header_bytes(run.len) + c->bytes;
    return run;
}

static Run mixed_run(const Coder *c, uint32_t at, uint32_t end)
{
    Run run = {.kind = MIXED, .colour = NO_COLOUR};
    uint32_t rest = 0;

    for (uint32_t i = at; i < end && rest < MIXED_REST; i++) {
        uint32_t x = change(c, i);
        if (x == 0) {
            rest++;
            continue;
        }
        if (run.colour == NO_COLOUR)
            run.colour = x;
        if (x != run.colour)
            break;
        rest = 0;
        run.len = i + 1 - at;
    }
    run.cost = 3 + (run.len + 7) / 8 + (run.colour == c->foreground ? 0 : c->bytes);
    return run;
}

static void prefer(Run *best, Run other)
{
    if (other.len > 0 && other.cost * best->len < best->cost * other.len)
        *best = other;
}

static Run best_run(const Coder *c, uint32_t at)
{
    const uint32_t end = at < c->w ? c->w : c->n;
    Run best = colour_run(c, at);

    prefer(&best, background_run(c, at, end));
    prefer(&best, mixed_run(c, at, end));
    return best;
}

static void write_image(const Coder *c, uint32_t at, uint32_t len)
{
    if (len == 0)
        return;
    write_header(c, IMAGE, len);
    for (uint32_t i = at; i < at + len; i++)
        write_pixel(c, c->pixels[i]);
}

static void write_mixed(Coder *c, uint32_t at, const Run *run)
{
    bool set = run->colour != c->foreground;

    write_mixed_header(c, set, run->len);
    if (set)
        write_pixel(c, run->colour);
    c->foreground = run->colour;
    for (uint32_t i = 0; i < run->len; i += 8) {
        unsigned mask = 0;
        for (uint32_t bit = 0; bit < 8 && i + bit < run->len; bit++)
            mask |= (unsigned)(change(c, at + i + bit) != 0) << bit;
        writer_u8(c->out, (uint8_t)mask);
    }
}

void interleaved_encode(const uint8_t *bgrx, size_t stride, uint32_t w, uint32_t h, unsigned bpp,
                        Writer *out)
{
    Coder c = {.n = w * h, .w = w, .bytes = (bpp + 7) / 8, .foreground = NO_COLOUR, .out = out};
    uint32_t image = 0, at = 0; /* pixels before at that are to be sent as they are */

    assert(w > 0 && h > 0 && w <= INTERLEAVED_MAX_PIXELS / h);
    for (uint32_t y = 0; y < h; y++) {
        for (uint32_t x = 0; x < w; x++)
            c.pixels[y * w + x] = pixel(bgrx + (h - 1 - y) * stride + (size_t)x * 4, bpp);
    }
    while (at < c.n) {
        Run run = best_run(&c, at);
        if (run.cost + 3 > run.len * c.bytes) { /* 3: an image's header */
            image++;
            at++;
            continue;
        }
        write_image(&c, at - image, image);
        image = 0;
        if (run.kind == MIXED) {
            write_mixed(&c, at, &run);
        } else {
            write_header(&c, run.kind, run.len);
            if (run.kind == COLOUR)
                write_pixel(&c, run.colour);
        }
        at += run.len;
    }
    write_image(&c, at - image, image);
}
