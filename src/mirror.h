/*
 * What a client's surface shows, pixel by pixel, and how it differs from what the guest shows. All
 * clients of one Encoder show the same.
 *
 * Owner: the Encoder, and like it handed from thread to thread, never shared.
 *
 * The client draws exactly what it is told, so every PDU that is sent to it is played on the
 * Mirror as well (a copy of a copy that went wrong included). Whatever then differs from the frame
 * is sent; no planner has to be right for the picture to be right.
 */
#ifndef QRDP_MIRROR_H
#define QRDP_MIRROR_H

#include "framebuffer.h"

/** Differences are kept for cells of this many pixels a side; a divisor of FRAMEBUFFER_TILE. */
#define CELL 16u

/** The extent of what differs in a cell, relative to the cell; x1 == 0: nothing does. */
typedef struct CellBox {
    uint8_t x0, y0, x1, y1;
} CellBox;

typedef struct Mirror {
    uint32_t width, height;
    size_t stride;
    uint8_t *pixels;        /* B, G, R, X */
    uint32_t columns, rows; /* of cells */
    uint8_t *known;         /* per cell: the client shows .pixels there, */
    uint8_t *lossy;         /* but not exactly */
    uint32_t n_lossy;
    uint32_t *changed_ms; /* per cell: when it last differed before this frame; wraps */

    /* From mirror_compare() on, about the frame at hand. */
    uint8_t *valid;     /* per cell: the frame has its pixels */
    uint8_t *damaged;   /* per cell: it differed when the frame came, or after a copy */
    CellBox *boxes;     /* per cell: what differs still; all of a lossy one */
    uint32_t differing; /* cells with a box */
    bool all_known;     /* every cell of the surface is */
} Mirror;

void mirror_init(Mirror *mirror, uint32_t width, uint32_t height);
void mirror_clear(Mirror *mirror);
/** @mirror, new and of the same size, becomes the mirror of another client that shows the same. */
void mirror_take(Mirror *mirror, const Mirror *other);
/** Whether both are complete and of the same picture, X bytes aside; then what is not exact at one
 * of the two is not exact in @mirror. */
bool mirror_join(Mirror *mirror, const Mirror *other);

/** Finds the cells that differ between @frame (of the mirror's size) and the client's picture;
 * their boxes are whole cells. */
void mirror_compare(Mirror *mirror, const Frame *frame);
/** Clears @same, a flag for each column, of those cells of @row in which @frame, which has them,
 * differs from what the client shows @dx, @dy pixels before them, and where that is outside of its
 * picture. What is clear is not looked at. Returns how many are left. */
unsigned mirror_match(const Mirror *mirror, const Frame *frame, uint32_t row, int32_t dx,
                      int32_t dy, uint8_t *same);
/** Makes the boxes as small as what differs. */
void mirror_measure(Mirror *mirror, const Frame *frame);
/** Measures the cells of @area that the frame has, after something was drawn there. @exact:
 * @area itself is known to equal the frame, only cells that reach beyond it are looked at. */
void mirror_compare_again(Mirror *mirror, const Frame *frame, const Rect *area, bool exact);

/** The cells that @rect touches need nothing more in this frame. */
void mirror_clear_boxes(Mirror *mirror, const Rect *rect);
/** The frame is done with: its damage becomes the past. @now_ms: of a monotonic clock. */
void mirror_settle(Mirror *mirror, uint32_t now_ms);

/** The client is sent @rect of @frame exactly. */
void mirror_draw(Mirror *mirror, const Frame *frame, const Rect *rect);
/** The client shows something like @rect of @frame, as far as the frame has it. */
void mirror_draw_lossy(Mirror *mirror, const Frame *frame, const Rect *rect);
/** The client copies @rect to @x, @y, as if through a buffer; both are inside. */
void mirror_copy(Mirror *mirror, const Rect *rect, int32_t x, int32_t y);

static inline uint8_t *mirror_at(const Mirror *mirror, int32_t x, int32_t y)
{
    return mirror->pixels + (size_t)y * mirror->stride + (size_t)x * 4;
}

static inline const uint8_t *frame_at(const Frame *frame, int32_t x, int32_t y)
{
    return frame->pixels + (size_t)y * frame->stride + (size_t)x * 4;
}

static inline int32_t cell_width(const Mirror *mirror, uint32_t column)
{
    return (int32_t)MIN(CELL, mirror->width - column * CELL);
}

static inline int32_t cell_height(const Mirror *mirror, uint32_t row)
{
    return (int32_t)MIN(CELL, mirror->height - row * CELL);
}

#endif
