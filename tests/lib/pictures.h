/*
 * Pictures to encode: what a guest's screen is made of, from a seed. The fourth byte of every pixel
 * is rubbish on purpose.
 *
 * Owner and thread: the test. Lifetime: a Picture owns its pixels until picture_clear().
 */
#ifndef QRDP_TESTS_PICTURES_H
#define QRDP_TESTS_PICTURES_H

#include <stddef.h>
#include <stdint.h>

typedef enum PictureKind {
    PICTURE_TEXT,     /* 8x16 cells, two colours */
    PICTURE_LISTING,  /* the same in 16 colours, some cells with a background */
    PICTURE_FLAT,     /* areas, borders, buttons */
    PICTURE_GRADIENT, /* both ways */
    PICTURE_PHOTO,    /* smooth, with grain */
    PICTURE_NOISE,
    PICTURE_MIXED, /* some of each, side by side */
    PICTURE_KINDS,
} PictureKind;

typedef struct Picture {
    unsigned w, h;
    size_t stride;
    uint8_t *bgrx;
} Picture;

uint32_t picture_random(uint32_t *seed);
/** Lines of text begin at the top and every 16 rows. */
Picture picture_new(PictureKind kind, unsigned w, unsigned h, uint32_t *seed);
void picture_clear(Picture *p);
/** One cell of text at (@x, @y): printable ASCII, in any two colours. */
void picture_put_glyph(Picture *p, unsigned x, unsigned y, char c, uint32_t ink, uint32_t paper);

#endif
