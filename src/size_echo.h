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

/** A client answers a new picture size with a report of it within this time, in microseconds. */
#define SIZE_ECHO_US 2000000
#define SIZE_ECHO_SHOWN 4u /* sizes remembered: that many mode switches within SIZE_ECHO_US */

typedef struct SizeEcho {
    struct {
        uint32_t width, height;
        int64_t until; /* a report of it is an echo; of the first, counted from its showing */
    } shown[SIZE_ECHO_SHOWN]; /* the newest first */
    DispLayout held;
    int64_t held_until; /* 0: nothing is held */
} SizeEcho;

/** The client is shown a picture of this size from @now (monotonic, microseconds) on. */
void size_echo_shown(SizeEcho *echo, uint32_t width, uint32_t height, int64_t now);
/** The client reports @layout. True: it is its user's wish. False: it is an echo, or may be one and
 * is held until size_echo_due(). */
bool size_echo_report(SizeEcho *echo, const DispLayout *layout, int64_t now);
/** When size_echo_take() has something to say, monotonic microseconds; INT64_MAX: never. */
int64_t size_echo_due(const SizeEcho *echo);
/** The report that was held and turned out to be a wish. False: none, or not yet. */
bool size_echo_take(SizeEcho *echo, int64_t now, DispLayout *layout);

#endif
