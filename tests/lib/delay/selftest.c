/*
 * Two measurements. Pings: 16 bytes there and back, the median of the rounds is the round trip
 * time. A stream each way: blocks that begin with the time just before they were written; the
 * read() that brings a block's first byte must not return earlier than half the RTT after that. The
 * writer's clock is read before the write and the reader's after the read, so that a byte that was
 * early by any amount the clock can show is found, and no load of the machine can make a false
 * alarm.
 */
#include "selftest.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "line.h"

#define PINGS 21
#define BLOCK 4096
#define STREAM_BYTES (4u << 20)
#define TIMEOUT_MS 60000

typedef struct {
    Selftest *test;
    int near, far;
} Ends;

static bool fail(Selftest *test, const char *what)
{
    snprintf(test->error, sizeof(test->error), "%s: %s", what, strerror(errno));
    return false;
}

static bool read_all(int fd, void *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        struct pollfd p = {fd, POLLIN, 0};
        ssize_t n;

        if (poll(&p, 1, TIMEOUT_MS) <= 0)
            return false;
        n = read(fd, (char *)data + done, size - done);
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

static bool ping_once(Ends *e, int64_t *round_trip)
{
    const int fds[3] = {e->near, e->far, e->near};
    int64_t start = line_now();

    for (int way = 0; way < 2; way++) {
        int64_t sent[2] = {line_now(), way}, received[2];
        int64_t took;

        if (write(fds[way], sent, sizeof(sent)) != sizeof(sent) ||
            !read_all(fds[way + 1], received, sizeof(received)))
            return fail(e->test, "a ping");
        took = line_now() - received[0];
        if (took < e->test->half_ns) {
            snprintf(e->test->error, sizeof(e->test->error),
                     "a ping took %lld ns one way, not %lld", (long long)took,
                     (long long)e->test->half_ns);
            return false;
        }
        if (took < e->test->least_ns[way])
            e->test->least_ns[way] = took;
    }
    *round_trip = line_now() - start;
    return true;
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static bool pings(Ends *e)
{
    int64_t times[PINGS];

    for (int i = 0; i < PINGS; i++)
        if (!ping_once(e, &times[i]))
            return false;
    qsort(times, PINGS, sizeof(*times), compare);
    e->test->round_trip_ns = times[PINGS / 2];
    return true;
}

typedef struct {
    uint8_t block[BLOCK];
    size_t at;          /* bytes of the block so far */
    int64_t first_seen; /* when its first byte was */
    uint64_t total;
} Reader;

/* Takes what is there; checks each block that has become whole. */
static bool take(Ends *e, int way, Reader *r, int fd)
{
    ssize_t n = read(fd, r->block + r->at, BLOCK - r->at);
    int64_t now = line_now(), sent, took;

    if (n <= 0)
        return n < 0 && errno == EAGAIN ? true : fail(e->test, "reading the stream");
    if (!r->at)
        r->first_seen = now;
    r->at += (size_t)n;
    r->total += (size_t)n;
    if (r->at < BLOCK)
        return true;
    r->at = 0;
    memcpy(&sent, r->block, sizeof(sent));
    took = r->first_seen - sent;
    if (took < e->test->least_ns[way])
        e->test->least_ns[way] = took;
    if (took >= e->test->half_ns)
        return true;
    snprintf(e->test->error, sizeof(e->test->error),
             "a byte of the stream took %lld ns one way, not %lld", (long long)took,
             (long long)e->test->half_ns);
    return false;
}

static bool stream(Ends *e, int way, uint64_t size)
{
    int from = way ? e->far : e->near, to = way ? e->near : e->far;
    uint8_t block[BLOCK] = {0};
    size_t block_at = 0;
    uint64_t sent = 0;
    int64_t start = line_now(), took;
    Reader reader = {.at = 0};
    double rate;

    while (reader.total < size) {
        struct pollfd p[2] = {{to, POLLIN, 0}, {sent < size ? from : -1, POLLOUT, 0}};

        if (poll(p, 2, TIMEOUT_MS) <= 0)
            return fail(e->test, "the stream");
        if (p[1].revents) {
            int64_t now = line_now();
            ssize_t n;

            if (!block_at)
                memcpy(block, &now, sizeof(now));
            n = send(from, block + block_at, BLOCK - block_at, MSG_DONTWAIT);
            if (n < 0 && errno != EAGAIN)
                return fail(e->test, "writing the stream");
            sent += n > 0 ? (uint64_t)n : 0;
            block_at = (block_at + (n > 0 ? (size_t)n : 0)) % BLOCK;
        }
        if (p[0].revents && !take(e, way, &reader, to))
            return false;
    }
    took = line_now() - start - e->test->half_ns;
    rate = (double)size * 1e9 / (double)(took > 0 ? took : 1);
    if (e->test->bytes_per_second > 0 && rate > e->test->bytes_per_second) {
        snprintf(e->test->error, sizeof(e->test->error), "%.0f bytes/s passed, not %.0f", rate,
                 e->test->bytes_per_second);
        return false;
    }
    if (rate < e->test->measured_per_second)
        e->test->measured_per_second = rate;
    return true;
}

static bool run(Ends *e)
{
    Selftest *test = e->test;
    struct sockaddr_in proxy = {.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)test->proxy_port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int on = 1;
    uint64_t size = STREAM_BYTES;

    e->near = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (e->near < 0 || connect(e->near, (struct sockaddr *)&proxy, sizeof(proxy)))
        return fail(test, "connecting to the proxy");
    e->far = accept(test->target_fd, NULL, NULL);
    if (e->far < 0)
        return fail(test, "the proxy's connection");
    setsockopt(e->near, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(e->far, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (test->bytes_per_second > 0 && test->bytes_per_second / 10 < size)
        size = (uint64_t)(test->bytes_per_second / 10) / BLOCK * BLOCK + BLOCK;
    return pings(e) && stream(e, 0, size) && stream(e, 1, size);
}

void *selftest_run(void *arg)
{
    Selftest *test = arg;
    Ends ends = {test, -1, -1};
    ssize_t n;

    test->error[0] = 0;
    test->least_ns[0] = test->least_ns[1] = INT64_MAX;
    test->measured_per_second = 1e18;
    run(&ends);
    if (ends.near >= 0)
        close(ends.near);
    if (ends.far >= 0)
        close(ends.far);
    n = write(test->done_fd, "", 1);
    (void)n;
    return NULL;
}
