/*
 * The TLS connection of the calling thread's client, below FreeRDP. Thread: the peer's, whose
 * connection it is; but for tls_connection_init(), which is called once before there are peers.
 */
#ifndef QRDP_CHANNELS_TLS_CONNECTION_H
#define QRDP_CHANNELS_TLS_CONNECTION_H

#include <openssl/types.h>
#include <stdbool.h>

void tls_connection_init(void);
/** FreeRDP's, which frees it; NULL before TLS and after it. */
SSL *tls_connection(void);
/** Whether the client of this thread has said that it sends nothing more: a close_notify (RFC 8446,
 * 6.1), which no broken network and no killed client sends. To be asked before FreeRDP frees the
 * connection. */
bool tls_connection_has_closed(void);

#endif
