/*
 * What we ask of the kernel for a client's socket. Thread: any.
 */
#ifndef QRDP_CLIENT_SOCKET_H
#define QRDP_CLIENT_SOCKET_H

#include <stdbool.h>
#include <stdint.h>

/** Options for low latency and for noticing a dead network. */
void client_socket_setup(int fd);
/** Whether nothing can come from there any more: it was closed or reset, or the network is gone. */
bool client_socket_is_dead(int fd);
/** How many bytes wait in the kernel, and a number that changes whenever the other side takes some.
 * False if the kernel does not tell. */
bool client_socket_progress(int fd, int *queued, uint64_t *mark);

#endif
