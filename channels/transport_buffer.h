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
#include <stddef.h>
#include <stdint.h>

typedef struct TransportBuffer TransportBuffer;

/** NULL if this FreeRDP does not let us. */
TransportBuffer *transport_buffer_new(freerdp_peer *peer);
/** Nothing is read through the transport afterwards. */
void transport_buffer_free(TransportBuffer *buffer);
/** Serves the chunks of the static @channel to @chunk, inside peer->CheckFileDescriptor, instead of
 * leaving them to FreeRDP: as many of them as possible, in order with the others, while @ready says
 * so. @data: valid until @chunk returns. @total: what the client claims for all chunks of the
 * message. False: end the connection. */
void transport_buffer_serve(TransportBuffer *buffer, uint16_t channel, bool (*ready)(void *user),
                            bool (*chunk)(void *user, const uint8_t *data, size_t len,
                                          uint32_t flags, size_t total),
                            void *user);
/** Whether something was read that has not been handed on: while @ready says no, nothing is. The
 * socket need not become readable for it. */
bool transport_buffer_holds_input(const TransportBuffer *buffer);
/** How many were served: FreeRDP's statistics do not know them. */
uint64_t transport_buffer_served(const TransportBuffer *buffer);
/** From here on PDUs are collected... */
void transport_buffer_collect(TransportBuffer *buffer);
/** ...from here on no more of them, those that were are kept... */
void transport_buffer_hold(TransportBuffer *buffer);
/** (whether there are any) */
bool transport_buffer_waits(const TransportBuffer *buffer);
/** ...and here they are written. False: the connection is broken. */
bool transport_buffer_write(TransportBuffer *buffer);

#endif
