/*
 * Apart from peer.c because the kernel's tcp_info has what glibc's lacks (tcpi_bytes_acked), and
 * the two headers cannot be read together.
 */
#include "client_socket.h"

#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define NOTSENT_LOWAT (128 * 1024) /* more would only be a second queue, in front of input */
#define PROBE_AFTER_S 3            /* nothing heard: ask, so that an idle connection dies, too, */
#define PROBE_EVERY_S 2
#define PROBES 3        /* after 9 s */
#define ANSWER_MS 1000u /* longer than any round trip */

void client_socket_setup(int fd)
{
    int on = 1, lowat = NOTSENT_LOWAT, idle = PROBE_AFTER_S, every = PROBE_EVERY_S, n = PROBES;
    unsigned never = 0; /* what is not read is the watchdog's affair */

    /* Unix sockets refuse most of these, which is all right. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof(lowat));
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &never, sizeof(never));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof(every));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &n, sizeof(n));
}

bool client_socket_is_dead(int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

    return n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

bool client_socket_progress(int fd, int *queued, uint64_t *mark)
{
    struct tcp_info info;
    socklen_t len = sizeof(info);

    if (ioctl(fd, SIOCOUTQ, queued) < 0)
        return false;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
        len >= offsetof(struct tcp_info, tcpi_bytes_acked) + sizeof(info.tcpi_bytes_acked))
        *mark = info.tcpi_bytes_acked;
    else
        *mark = (uint64_t)*queued; /* unix socket */
    return true;
}

/* Each packet of ours with data is acknowledged, if only to say that there is no room. The kernel
 * repeats less and less often what is not: an old acknowledgement alone says nothing. */
bool client_socket_is_lost(int fd)
{
    struct tcp_info info;
    socklen_t len = sizeof(info);

    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
           info.tcpi_last_ack_recv >= CLIENT_SOCKET_LOST_S * 1000 &&
           info.tcpi_last_data_sent >= ANSWER_MS &&
           info.tcpi_last_ack_recv - ANSWER_MS >= info.tcpi_last_data_sent;
}
