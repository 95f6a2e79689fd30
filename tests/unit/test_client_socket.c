/* What the watchdog sees of a client that stops reading, over TCP and over a unix socket. */
#include "client_socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <glib.h>
#include <sys/socket.h>
#include <unistd.h>

static void tcp_pair(int pair[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    g_assert_cmpint(bind(listener, (struct sockaddr *)&address, len), ==, 0);
    g_assert_cmpint(listen(listener, 1), ==, 0);
    g_assert_cmpint(getsockname(listener, (struct sockaddr *)&address, &len), ==, 0);
    pair[1] = socket(AF_INET, SOCK_STREAM, 0);
    g_assert_cmpint(connect(pair[1], (struct sockaddr *)&address, len), ==, 0);
    pair[0] = accept(listener, NULL, NULL);
    g_assert_cmpint(pair[0], >=, 0);
    close(listener);
}

static void fill(int fd)
{
    static const char junk[65536];
    g_assert_cmpint(fcntl(fd, F_SETFL, O_NONBLOCK), ==, 0);
    while (write(fd, junk, sizeof(junk)) > 0) {
    }
}

static uint64_t mark_of(int fd, int *queued)
{
    uint64_t mark = 0;
    g_assert_true(client_socket_progress(fd, queued, &mark));
    return mark;
}

/* The other side's kernel takes what fits before it goes quiet: wait until nothing moves. */
static uint64_t settle(int fd)
{
    int queued;
    uint64_t mark = mark_of(fd, &queued), last;
    gint64 until = g_get_monotonic_time() + 10 * G_USEC_PER_SEC;
    do {
        g_assert_cmpint(g_get_monotonic_time(), <, until);
        last = mark;
        g_usleep(50000);
        fill(fd);
        mark = mark_of(fd, &queued);
    } while (mark != last);
    g_assert_cmpint(queued, >, 0);
    return mark;
}

static void check(int pair[2])
{
    char drain[65536];
    int queued = -1;

    client_socket_setup(pair[0]);
    mark_of(pair[0], &queued);
    g_assert_cmpint(queued, ==, 0);
    fill(pair[0]);
    uint64_t stuck = settle(pair[0]);

    gint64 until = g_get_monotonic_time() + 10 * G_USEC_PER_SEC;
    while (mark_of(pair[0], &queued) == stuck) {
        g_assert_cmpint(g_get_monotonic_time(), <, until);
        g_assert_cmpint(recv(pair[1], drain, sizeof(drain), MSG_DONTWAIT), !=, 0);
    }
    close(pair[0]);
    close(pair[1]);
}

static void test_tcp(void)
{
    int pair[2];
    tcp_pair(pair);
    check(pair);
}

static void test_unix(void)
{
    int pair[2];
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), ==, 0);
    check(pair);
}

static void test_dead(void)
{
    const struct linger reset = {.l_onoff = 1};
    int pair[2];
    char byte;

    tcp_pair(pair);
    g_assert_false(client_socket_is_dead(pair[0]));
    g_assert_cmpint(write(pair[1], "x", 1), ==, 1);
    while (recv(pair[0], &byte, 1, MSG_PEEK) != 1)
        ;
    g_assert_false(client_socket_is_dead(pair[0]));
    close(pair[1]);
    g_assert_false(client_socket_is_dead(pair[0])); /* there is something to read still */
    g_assert_cmpint(read(pair[0], &byte, 1), ==, 1);
    g_assert_cmpint(read(pair[0], &byte, 1), ==, 0);
    g_assert_true(client_socket_is_dead(pair[0]));
    close(pair[0]);

    tcp_pair(pair);
    setsockopt(pair[1], SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    close(pair[1]);
    g_assert_cmpint(read(pair[0], &byte, 1), ==, -1); /* FreeRDP has seen the error */
    g_assert_true(client_socket_is_dead(pair[0]));
    close(pair[0]);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/client-socket/tcp", test_tcp);
    g_test_add_func("/client-socket/unix", test_unix);
    g_test_add_func("/client-socket/dead", test_dead);
    return g_test_run();
}
