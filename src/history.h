/*
 * What the screen showed before: pictures that were covered and may come back.
 *
 * Owner: the Encoder of one client, as with its Mirror.
 *
 * The client keeps it, on surfaces that are not mapped to its output: before something that stood
 * still is drawn over, it is copied there (RDPGFX_SURFACE_TO_SURFACE, MS-RDPEGFX 2.2.2.5), and when
 * the same pixels are to be shown at the same place again, copied back. A few dozen bytes then
 * stand for what a dragged window uncovers, or for the other of two alternating screens.
 */
#ifndef QRDP_HISTORY_H
#define QRDP_HISTORY_H

#include "mirror.h"

/** Layers: surfaces of the client's, each as large as the screen. */
#define HISTORY_LAYERS 2u
/** Larger screens do without: a layer takes 4 bytes a pixel of the client's memory, and of ours where
 * something is kept. 4096x2304 is the largest screen people have. */
#define HISTORY_MAX_PIXELS (4096u * 2304u)

typedef struct History History;

/** One copy: @rect of the screen to the same place of @layer, or back. */
typedef struct HistoryCopy {
    Rect rect;
    unsigned layer;
} HistoryCopy;

History *history_new(uint32_t width, uint32_t height);
void history_free(History *history);
/** What is to be kept of the screen before any of this frame is drawn. @moved: per cell, its
 * content goes elsewhere on the screen and need not be kept. Appends to @copies (of HistoryCopy).
 */
void history_save(History *history, const Mirror *mirror, const Frame *frame, const uint8_t *moved,
                  uint32_t now_ms, GArray *copies);
/** What can be copied back of that which differs still: it is drawn on the mirror, and its boxes
 * are cleared. Appends to @copies. To be sent after those of history_save(). */
void history_restore(History *history, Mirror *mirror, const Frame *frame, GArray *copies);

#endif
