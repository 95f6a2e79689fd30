/*
 * FreeRDP as a library. Thread: main, before the first peer.
 */
#ifndef QRDP_PEER_LIBRARY_H
#define QRDP_PEER_LIBRARY_H

/** Once per process: OpenSSL's providers, and FreeRDP's log into ours. */
void peer_library_init(void);
/** A sentence if this FreeRDP cannot be used as a server, NULL if it can. */
const char *peer_library_problem(void);

#endif
