/*
 * How a client's TLS connection has ended. Thread: the peer's, whose connection it is; but for
 * peer_tls_init(), which is called once before there are peers.
 */
#ifndef QRDP_PEER_TLS_H
#define QRDP_PEER_TLS_H

#include <stdbool.h>

void peer_tls_init(void);
/** Whether the client of this thread has said that it sends nothing more: a close_notify (RFC 8446,
 * 6.1), which no broken network and no killed client sends. To be asked before FreeRDP frees the
 * connection. */
bool peer_tls_has_closed(void);

#endif
