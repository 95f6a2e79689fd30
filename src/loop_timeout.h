/*
 * Timers for a GSource that computes its deadline anew before each poll.
 *
 * g_source_set_ready_time() is for other threads: it wakes up the context, so that the poll that
 * follows returns at once, for nothing. A deadline that moves with every transfer would double the
 * number of polls.
 */
#ifndef QRDP_LOOP_TIMEOUT_H
#define QRDP_LOOP_TIMEOUT_H

#include <glib.h>
#include <stdint.h>

/** Milliseconds until @deadline_us (monotonic; UINT64_MAX: never) as prepare() tells them: rounded
 * up, 0 when it has passed, -1 for never. */
static inline gint loop_timeout(GSource *source, uint64_t deadline_us)
{
    if (deadline_us >= G_MAXINT64)
        return -1;
    gint64 left = (gint64)deadline_us - g_source_get_time(source);
    return left <= 0 ? 0 : (gint)MIN((left + 999) / 1000, G_MAXINT);
}

#endif
