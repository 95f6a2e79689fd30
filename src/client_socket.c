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
#define DEAD_AFTER_S 60u           /* data unacknowledged for so long: the network is gone */
#define WATCHDOG_FIRST_S 10u       /* what the watchdog has to say says more */
#define PROBE_AFTER_S 20           /* nothing heard: ask, so that an idle connection dies, too */
#define PROBE_EVERY_S 10

void client_socket_setup(int fd, unsigned stall_seconds)
{
    int on = 1, lowat = NOTSENT_LOWAT, idle = PROBE_AFTER_S, every = PROBE_EVERY_S;
    unsigned dead_s = stall_seconds + WATCHDOG_FIRST_S;
    unsigned dead = (dead_s > DEAD_AFTER_S ? dead_s : DEAD_AFTER_S) * 1000;

    /* Unix sockets refuse most of these, which is all right. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof(lowat));
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &dead, sizeof(dead));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof(every));
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
