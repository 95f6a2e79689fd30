/*
 * What stock clients send that FreeRDP's server would end the connection for.
 *
 * Thread: the peer's.
 */
#ifndef QRDP_PEER_QUIRKS_H
#define QRDP_PEER_QUIRKS_H

#include <freerdp/freerdp.h>
#include <stdbool.h>

/** Looks at each PDU before FreeRDP does, from the peer's Initialize on. */
bool peer_quirks_install(rdpContext *context);

#endif
