/*
 * What we ask of the kernel for a client's socket. Thread: any.
 */
#ifndef QRDP_CLIENT_SOCKET_H
#define QRDP_CLIENT_SOCKET_H

#include <stdbool.h>
#include <stdint.h>

/* The network is lost when the client's kernel has acknowledged nothing for so long. Before the
 * guest's USB requests time out (USB_TIMEOUT_TRANSFER_US): then its devices can still be kept. */
#define CLIENT_SOCKET_LOST_S 8u

/** Options for low latency and for noticing a lost network while nothing is on its way there. To be
 * called when FreeRDP has the socket: it sets options of its own, with which the kernel gives up a
 * client that is there and reads nothing for 9 s (freerdp_tcp_set_keep_alive_mode()). */
void client_socket_setup(int fd);
/** Whether nothing can come from there any more: it was closed or reset, or the network is gone. */
bool client_socket_is_dead(int fd);
/** How many bytes wait in the kernel, and a number that changes whenever the other side takes some.
 * False if the kernel does not tell. */
bool client_socket_progress(int fd, int *queued, uint64_t *mark);
/** With bytes on their way for CLIENT_SOCKET_LOST_S: whether the other side's kernel is silent,
 * too. One whose program does not read says so. */
bool client_socket_is_lost(int fd);

#endif
