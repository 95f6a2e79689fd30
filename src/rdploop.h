/*
 * A GSource that waits for a client: FreeRDP's handles, and the socket's writability when output
 * waits. It lives in the peer thread's own GMainContext, so timers and posts share the loop.
 *
 * Owner: the Peer. Thread: the peer's. Lifetime: g_source_destroy() and g_source_unref() before the
 * FreeRDP peer goes.
 */
#ifndef QRDP_RDPLOOP_H
#define QRDP_RDPLOOP_H

#include <glib.h>
#include <stdbool.h>
#include <winpr/wtypes.h>

#define RDPLOOP_MAX_HANDLES 32u

typedef struct RdpLoopCallbacks {
    /** Fills @handles and returns how many there are; asked before every wait, because the set
     * changes when TLS starts and when channels come. */
    DWORD (*handles)(void *user, HANDLE *handles, DWORD max);
    /** Whether there is something to do without waiting. */
    bool (*ready)(void *user);
    /** Whether output waits for the socket. */
    bool (*wants_write)(void *user);
    /** Something is ready. False ends the source. */
    bool (*dispatch)(void *user);
} RdpLoopCallbacks;

/** @write_fd: a dup of the client's socket, polled for G_IO_OUT while .wants_write; borrowed.
 * @callbacks is borrowed and outlives the source. The caller attaches the source. */
GSource *rdploop_source_new(int write_fd, const RdpLoopCallbacks *callbacks, void *user);

#endif
