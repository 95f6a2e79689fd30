/*
 * Pointer shapes of one client (rdp-server.md 9): conversion, the client's cache, hiding.
 *
 * Owner: PeerDisplay. Thread: the peer's.
 */
#ifndef QRDP_PEER_CURSOR_H
#define QRDP_PEER_CURSOR_H

#include <freerdp/freerdp.h>

#include "vm.h"

/** Slots of the client's cache that are used at most: each keeps a guest's shape in memory. */
#define PEER_CURSOR_MAX_SLOTS 25u

typedef struct PeerCursor PeerCursor;

/** The bits of a pointer PDU: bottom-up BGRA and a 1-bit mask with rows of whole 16-bit words. */
typedef struct CursorImage {
    uint32_t width, height, hot_x, hot_y;
    uint8_t *xor_mask;
    uint32_t xor_len;
    uint8_t *and_mask;
    uint32_t and_len;
} CursorImage;
/** Converts @cursor, scaled down if a side is over @max_side; @bpp is 32 (alpha) or 24 (alpha
 * becomes a mask). NULL if no pixel shows. Free with cursor_image_free(). */
CursorImage *cursor_image_new(const Cursor *cursor, uint32_t max_side, unsigned bpp);
void cursor_image_free(CursorImage *image);

PeerCursor *peer_cursor_new(rdpContext *context);
void peer_cursor_free(PeerCursor *pc);
/** The client forgot its cache (activation). */
void peer_cursor_reset(PeerCursor *pc);
/** Shows @cursor, NULL hides the pointer. Borrowed. False: the connection is broken. */
bool peer_cursor_show(PeerCursor *pc, Cursor *cursor);

#endif
