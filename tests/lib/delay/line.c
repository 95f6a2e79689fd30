/*
 * The bytes are in a ring. Beside it a ring of segments says until which byte of the stream which
 * due time holds: the time of the read() that brought them, taken after it returned, and half the
 * RTT. That is never less than what a byte would have waited had it been read the moment it
 * arrived.
 *
 * With a rate, each packet leaves when the one before it has left and its own bytes have passed.
 */
#include "line.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define READ_MAX (256u << 10) /* so that one busy direction does not hold up the others */

typedef struct {
    uint64_t end; /* stream position after its last byte */
    int64_t read_ns;
    int64_t due_ns;
} Segment;

struct Line {
    const LineNetwork *network;
    uint8_t *ring;
    size_t capacity;
    uint64_t head, tail; /* stream positions: read so far, written so far */
    Segment *segments;
    uint64_t first, last; /* segment numbers: oldest not wholly written, next to be made */
    int64_t last_due_ns;
    int64_t wire_free_ns; /* with a rate: when the packets before have left */
    LineEnd end;
    int64_t end_due_ns;
    bool blocked; /* the last write did not take everything */
    LineStats stats;
};

int64_t line_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

size_t line_bound(const LineNetwork *network)
{
    double product;

    if (network->bytes_per_second <= 0)
        return LINE_BOUND;
    product = network->bytes_per_second * 2 * (double)network->half_ns / 1e9;
    return product > LINE_BOUND_MAX - LINE_SLACK ? LINE_BOUND_MAX : (size_t)product + LINE_SLACK;
}

Line *line_new(const LineNetwork *network)
{
    Line *line = calloc(1, sizeof(*line));

    if (!line || !(line->segments = calloc(LINE_SEGMENTS, sizeof(*line->segments))))
        abort();
    line->network = network;
    line->stats.least_ns = INT64_MAX;
    return line;
}

void line_free(Line *line)
{
    if (!line)
        return;
    free(line->ring);
    free(line->segments);
    free(line);
}

size_t line_held(const Line *line)
{
    return line->head - line->tail;
}

static size_t room(const Line *line)
{
    size_t bound = line_bound(line->network);
    uint64_t free_segments = LINE_SEGMENTS - (line->last - line->first);
    size_t most = free_segments * LINE_PACKET;

    if (line->end != LINE_OPEN || line_held(line) >= bound)
        return 0;
    bound -= line_held(line);
    if (bound > most)
        bound = most;
    return bound > READ_MAX ? READ_MAX : bound;
}

bool line_wants(const Line *line)
{
    return room(line) > 0;
}

/* Makes the ring hold size bytes; it only grows when the network has become longer or faster. */
static void reserve(Line *line, size_t size)
{
    uint8_t *ring;

    if (size <= line->capacity)
        return;
    ring = malloc(size);
    if (!ring)
        abort();
    for (uint64_t at = line->tail; at < line->head; at++)
        ring[at % size] = line->ring[at % line->capacity];
    free(line->ring);
    line->ring = ring;
    line->capacity = size;
}

/* The bytes [from, from + size) of the stream as at most two pieces of the ring. */
static int pieces(Line *line, uint64_t from, size_t size, struct iovec out[2])
{
    size_t start = from % line->capacity;
    size_t until_edge = line->capacity - start;

    out[0].iov_base = line->ring + start;
    out[0].iov_len = size < until_edge ? size : until_edge;
    out[1].iov_base = line->ring;
    out[1].iov_len = size - out[0].iov_len;
    return out[1].iov_len ? 2 : 1;
}

static void add_segment(Line *line, size_t size, int64_t now)
{
    int64_t leaves = now;
    int64_t due;
    Segment *s = &line->segments[line->last++ % LINE_SEGMENTS];

    if (line->network->bytes_per_second > 0) {
        if (leaves < line->wire_free_ns)
            leaves = line->wire_free_ns;
        leaves += (int64_t)((double)size * 1e9 / line->network->bytes_per_second) + 1;
        line->wire_free_ns = leaves;
    }
    due = leaves + line->network->half_ns;
    if (due < line->last_due_ns) /* the network became shorter: nothing overtakes */
        due = line->last_due_ns;
    line->last_due_ns = due;
    line->head += size;
    *s = (Segment){line->head, now, due};
}

static void set_end(Line *line, LineEnd end)
{
    line->end = end;
    line->end_due_ns = line_now() + line->network->half_ns;
    if (line->end_due_ns < line->last_due_ns)
        line->end_due_ns = line->last_due_ns;
}

void line_read(Line *line, int fd)
{
    struct iovec into[2];
    size_t size = room(line);
    ssize_t n;
    int64_t now;

    if (!size)
        return;
    reserve(line, line_bound(line->network));
    n = readv(fd, into, pieces(line, line->head, size, into));
    now = line_now();
    if (n > 0 && line->network->bytes_per_second > 0) {
        for (size_t left = (size_t)n; left;) {
            size_t packet = left < LINE_PACKET ? left : LINE_PACKET;

            add_segment(line, packet, now);
            left -= packet;
        }
    } else if (n > 0)
        add_segment(line, (size_t)n, now);
    else if (n == 0)
        set_end(line, LINE_FINISHED);
    else if (errno != EAGAIN && errno != EINTR)
        set_end(line, LINE_RESET);
    line->stats.bytes += n > 0 ? (uint64_t)n : 0;
    if (line_held(line) > line->stats.largest_held)
        line->stats.largest_held = line_held(line);
}

int64_t line_due(const Line *line)
{
    if (line->first != line->last)
        return line->segments[line->first % LINE_SEGMENTS].due_ns;
    return line->end == LINE_OPEN ? INT64_MAX : line->end_due_ns;
}

/* Stream position up to which everything is due. */
static uint64_t due_until(const Line *line, int64_t now)
{
    uint64_t until = line->tail;

    for (uint64_t i = line->first; i != line->last; i++) {
        const Segment *s = &line->segments[i % LINE_SEGMENTS];

        if (s->due_ns > now)
            break;
        until = s->end;
    }
    return until;
}

/* Accounts for what was written between the times before and after. */
static void written(Line *line, size_t size, int64_t before, int64_t after)
{
    LineStats *stats = &line->stats;

    line->tail += size;
    while (line->first != line->last) {
        const Segment *s = &line->segments[line->first % LINE_SEGMENTS];
        int64_t held = before - s->read_ns;

        if (held < stats->least_ns)
            stats->least_ns = held;
        if (before < s->due_ns)
            stats->early += size;
        if (!line->blocked && after - s->due_ns > stats->latest_ns)
            stats->latest_ns = after - s->due_ns;
        if (s->end > line->tail)
            break;
        line->first++;
        if (s->end == line->tail)
            break;
    }
}

bool line_write(Line *line, int fd, bool *broken)
{
    *broken = false;
    while (line->first != line->last) {
        struct iovec from[2];
        int64_t now = line_now();
        uint64_t until = due_until(line, now);
        ssize_t n;

        if (until == line->tail)
            break;
        n = writev(fd, from, pieces(line, line->tail, until - line->tail, from));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            *broken = errno != EAGAIN;
            line->blocked = true;
            return false;
        }
        written(line, (size_t)n, now, line_now());
    }
    line->blocked = false;
    return true;
}

bool line_blocked(const Line *line)
{
    return line->blocked;
}

LineEnd line_end(const Line *line, int64_t now)
{
    if (line->end == LINE_OPEN || line->first != line->last || now < line->end_due_ns)
        return LINE_OPEN;
    return line->end;
}

void line_add_stats(const Line *line, LineStats *sum)
{
    sum->bytes += line->stats.bytes;
    sum->early += line->stats.early;
    if (line->stats.least_ns < sum->least_ns)
        sum->least_ns = line->stats.least_ns;
    if (line->stats.latest_ns > sum->latest_ns)
        sum->latest_ns = line->stats.latest_ns;
    if (line->stats.largest_held > sum->largest_held)
        sum->largest_held = line->stats.largest_held;
}
