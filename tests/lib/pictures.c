#include "pictures.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const uint32_t console_colours[16] = {
    0x000000, 0xAA0000, 0x00AA00, 0xAA5500, 0x0000AA, 0xAA00AA, 0x00AAAA, 0xAAAAAA,
    0x555555, 0xFF5555, 0x55FF55, 0xFFFF55, 0x5555FF, 0xFF55FF, 0x55FFFF, 0xFFFFFF};

uint32_t picture_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static void put(Picture *p, unsigned x, unsigned y, uint32_t colour)
{
    if (x >= p->w || y >= p->h)
        return;
    uint8_t *to = p->bgrx + y * p->stride + (size_t)x * 4;
    to[0] = (uint8_t)colour;
    to[1] = (uint8_t)(colour >> 8);
    to[2] = (uint8_t)(colour >> 16);
    to[3] ^= (uint8_t)(x * 7 + y * 13 + 1);
}

static void fill(Picture *p, unsigned x0, unsigned y0, unsigned w, unsigned h, uint32_t colour)
{
    for (unsigned y = y0; y < y0 + h && y < p->h; y++) {
        for (unsigned x = x0; x < x0 + w && x < p->w; x++)
            put(p, x, y, colour);
    }
}

/* Strokes of one or two pixels in a box of 5 to 7 by 10, as in a console font. */
void picture_put_glyph(Picture *p, unsigned x, unsigned y, char c, uint32_t ink, uint32_t paper)
{
    uint32_t seed = (uint32_t)c * 2654435761u;
    unsigned top = c >= 'a' && c <= 'z' && picture_random(&seed) % 2 ? 5 : 2;
    unsigned bottom = picture_random(&seed) % 6 == 0 ? 14 : 12;
    unsigned width = 5 + picture_random(&seed) % 3;

    fill(p, x, y, 8, 16, paper);
    if (c <= ' ')
        return;
    for (unsigned i = 0; i < 4; i++) {
        uint32_t r = picture_random(&seed);
        if (i % 2)
            fill(p, x + 1, y + top + r % (bottom - top), width - 1, 1, ink);
        else
            fill(p, x + r % (width - 1), y + top + (r >> 8) % 3, 2, bottom - top - (r >> 4) % 3,
                 ink);
    }
}

static char next_letter(uint32_t *seed)
{
    static const char often[] = "eeeeeetttttaaaaooooiiinnnsssrrhhlldducmfpgwybvk./-_=:0123456789";
    uint32_t r = picture_random(seed);

    if (r % 16 == 0)
        return (char)('!' + (r >> 8) % 94);
    return often[(r >> 8) % (sizeof(often) - 1)];
}

static void text(Picture *p, unsigned x0, unsigned w, uint32_t *seed, bool colours)
{
    for (unsigned y = 0; y < p->h; y += 16) {
        uint32_t r = picture_random(seed);
        unsigned end = w / 8 * (30 + r % 70) / 100;
        unsigned word = 0;
        uint32_t ink = console_colours[7], paper = console_colours[0];

        fill(p, x0, y, w, 16, paper);
        for (unsigned i = 0; i < end || i < 1; i++) {
            if (word == 0) {
                word = 2 + picture_random(seed) % 9;
                if (colours) {
                    r = picture_random(seed);
                    ink = console_colours[1 + r % 15];
                    paper = console_colours[(r >> 8) % 12 == 0 ? 4 : 0];
                }
                continue; /* a space */
            }
            word--;
            picture_put_glyph(p, x0 + i * 8, y, next_letter(seed), ink, paper);
        }
    }
}

static void flat(Picture *p, unsigned x0, unsigned w, uint32_t *seed)
{
    fill(p, x0, 0, w, p->h, 0xF0F0F0);
    for (unsigned i = 0; i < 1 + w * p->h / 4096; i++) {
        uint32_t r = picture_random(seed), s = picture_random(seed);
        unsigned x = x0 + r % w, y = (r >> 12) % p->h;
        unsigned bw = 8 + s % 120, bh = 6 + (s >> 8) % 40;
        if (bw > x0 + w - x)
            bw = x0 + w - x;
        fill(p, x, y, bw, bh, 0x808080);
        if (bw > 2)
            fill(p, x + 1, y + 1, bw - 2, bh - 2, i % 3 ? 0xE0E0E0 : 0x3465A4);
    }
}

static void dots(Picture *p, unsigned x0, unsigned w, PictureKind kind, uint32_t *seed)
{
    for (unsigned y = 0; y < p->h; y++) {
        for (unsigned x = x0; x < x0 + w; x++) {
            uint32_t r = picture_random(seed);
            if (kind == PICTURE_GRADIENT)
                put(p, x, y, x / 4 % 256 | (y & 255) << 8 | 0x400000);
            else if (kind == PICTURE_NOISE)
                put(p, x, y, r & 0xFFFFFF);
            else
                put(p, x, y,
                    (x * x / 300 + y + r % 8) % 256 | (x + y * y / 200 + (r >> 4) % 8) % 256 << 8 |
                        (128 + (x * y / 400 + (r >> 8) % 8) % 128) << 16);
        }
    }
}

static void part(Picture *p, PictureKind kind, unsigned x0, unsigned w, uint32_t *seed)
{
    if (kind == PICTURE_TEXT || kind == PICTURE_LISTING)
        text(p, x0, w, seed, kind == PICTURE_LISTING);
    else if (kind == PICTURE_FLAT)
        flat(p, x0, w, seed);
    else
        dots(p, x0, w, kind, seed);
}

Picture picture_new(PictureKind kind, unsigned w, unsigned h, uint32_t *seed)
{
    size_t stride = (size_t)w * 4 + 20;
    Picture p = {w, h, stride, calloc(h, stride)};

    if (!p.bgrx)
        abort();
    if (kind != PICTURE_MIXED) {
        part(&p, kind, 0, w, seed);
        return p;
    }
    for (unsigned x = 0; x < w;) {
        unsigned n = 8 + picture_random(seed) % 200;
        if (n > w - x)
            n = w - x;
        part(&p, (PictureKind)(picture_random(seed) % PICTURE_MIXED), x, n, seed);
        x += n;
    }
    return p;
}

void picture_clear(Picture *p)
{
    free(p->bgrx);
    *p = (Picture){0};
}
