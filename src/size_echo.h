/*
 * Tells a user's wish for a screen size from a client's echo of the size that it was shown.
 *
 * Owner: PeerDisplay, which embeds it, zeroed. Thread: the peer's. No lifetime of its own.
 */
#ifndef QRDP_SIZE_ECHO_H
#define QRDP_SIZE_ECHO_H

#include <stdbool.h>
#include <stdint.h>

#include "disp.h"

/** A client echoes a picture's size within this time of its last frame, in microseconds. */
#define SIZE_ECHO_US 10000000
#define SIZE_ECHO_SHOWN 4u /* sizes remembered: that many mode switches within SIZE_ECHO_US */

typedef struct SizeEcho {
    struct {
        uint32_t width, height;
        int64_t since;        /* it was shown; of all but the first: it was shown no longer */
        bool expected;        /* its echo has not come yet */
    } shown[SIZE_ECHO_SHOWN]; /* the newest first */
    uint32_t width, height;   /* of the last report */
} SizeEcho;

/** The client is shown a picture of this size from @now (monotonic, microseconds) on. */
void size_echo_shown(SizeEcho *echo, uint32_t width, uint32_t height, int64_t now);
/** The client reports @layout. True: it is its user's wish. */
bool size_echo_report(SizeEcho *echo, const DispLayout *layout, int64_t now);

#endif
