/*
 * Fewer and larger steps between FreeRDP's transport and the client's TLS connection.
 *
 * Owner: the DvcManager. Thread: the peer's. Lifetime: from before the session is active until
 * before the peer's context is freed.
 */
#ifndef QRDP_CHANNELS_TRANSPORT_BUFFER_H
#define QRDP_CHANNELS_TRANSPORT_BUFFER_H

#include <freerdp/freerdp.h>
#include <freerdp/peer.h>
#include <stdbool.h>

typedef struct TransportBuffer TransportBuffer;

/** NULL if this FreeRDP does not let us. */
TransportBuffer *transport_buffer_new(freerdp_peer *peer);
/** Nothing is read through the transport afterwards. */
void transport_buffer_free(TransportBuffer *buffer);
/** From here on PDUs are collected... */
void transport_buffer_collect(TransportBuffer *buffer);
/** ...from here on no more of them, those that were are kept... */
void transport_buffer_hold(TransportBuffer *buffer);
/** (whether there are any) */
bool transport_buffer_waits(const TransportBuffer *buffer);
/** ...and here they are written. False: the connection is broken. */
bool transport_buffer_write(TransportBuffer *buffer);

#endif
