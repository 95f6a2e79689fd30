/*
 * What we ask of the kernel for a client's socket. Thread: any.
 */
#ifndef QRDP_CLIENT_SOCKET_H
#define QRDP_CLIENT_SOCKET_H

#include <stdbool.h>
#include <stdint.h>

/** Options for low latency and for noticing a dead network, but not before the watchdog has waited
 * @stall_seconds. To be called when FreeRDP has the socket: it sets options of its own, with which
 * the kernel gives a client up that takes nothing for 9 s (freerdp_tcp_set_keep_alive_mode()). */
void client_socket_setup(int fd, unsigned stall_seconds);
/** Whether nothing can come from there any more: it was closed or reset, or the network is gone. */
bool client_socket_is_dead(int fd);
/** How many bytes wait in the kernel, and a number that changes whenever the other side takes some.
 * False if the kernel does not tell. */
bool client_socket_progress(int fd, int *queued, uint64_t *mark);

#endif
