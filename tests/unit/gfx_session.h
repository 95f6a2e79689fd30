/*
 * A session of the GFX encoder for its tests: a screen, the frames with the damage that QEMU would
 * report, the encoder, and a client with FreeRDP's decoders. And what is painted on such screens.
 */
#ifndef QRDP_TESTS_GFX_SESSION_H
#define QRDP_TESTS_GFX_SESSION_H

#include "encoder.h"
#include "frame.h"
#include "gfx_player.h"

#define SURFACE 7
#define WIDTH 700u
#define HEIGHT 420u
#define STEP_MS 33 /* from frame to frame */

typedef struct Session {
    uint32_t screen[HEIGHT][WIDTH], shown[HEIGHT][WIDTH]; /* X bytes are rubbish */
    FramePool *pool;
    Encoder *encoder;
    GfxPlayer *player;
    uint32_t seed;
    int64_t now_ms;
    bool first;
    Rect rest;            /* what the last frame left to be refined first */
    bool due;             /* the next frame is to have that */
    int64_t refine_at_us; /* when it would be; INT64_MAX: never */
} Session;

typedef struct Shown {
    size_t bytes;
    uint32_t film_bytes;
    bool lossy, rests;
} Shown;

/** Films go as @film. */
Session *session_new_for(FilmCodec film);
/** All of it is exact. */
Session *session_new(void);
void session_free(Session *s);
uint32_t random_bits(Session *s);

/** Sends what has changed on the screen, and plays it. */
Shown show_frame(Session *s);
/** The same, after which the picture must be exact; returns the bytes it took. */
size_t show(Session *s);
/** All of the screen but @except. */
void assert_shown_outside(const Session *s, const Rect *except);

void put(Session *s, int32_t x, int32_t y, uint32_t colour);
void fill(Session *s, int32_t x, int32_t y, int32_t w, int32_t h, uint32_t colour);
/** 8x16 pixels, always the same for the same letter; letter 0 is blank. */
void glyph(Session *s, int32_t x, int32_t y, uint32_t letter, uint32_t colour);
void text_line(Session *s, int32_t x, int32_t y, uint32_t columns, uint32_t number);
void photo_rect(Session *s, int32_t x, int32_t y, int32_t w, int32_t h);
/** A screen full of text. */
void page(Session *s, uint32_t first_line);
void window(Session *s, int32_t x, int32_t y);

#endif
