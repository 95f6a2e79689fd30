/* A sentence as a picture, for the user of a client where the guest's picture cannot be shown. */
#ifndef QRDP_NOTICE_H
#define QRDP_NOTICE_H

#include "framebuffer.h"

/** Pixels B, G, R, X without gaps between rows. *@width and *@height: of the guest's picture; what
 * no screen can have becomes 800x600. ASCII; what does not fit is cut off. */
GBytes *notice_draw(const char *text, uint32_t *width, uint32_t *height);

#endif
