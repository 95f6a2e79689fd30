/*
 * One direction of a connection through the delay proxy: bytes that were read from one socket and
 * may be written to the other when their time has come. Owner: a connection of proxy.c; one thread.
 */
#ifndef QRDP_TEST_LINE_H
#define QRDP_TEST_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a direction holds at most when no rate is given. A real network without a limit would be
 * bounded by TCP's windows, which Linux lets grow to 6 MiB. */
#define LINE_BOUND (8u << 20)
/* With a rate: one bandwidth-delay product and this. */
#define LINE_SLACK (64u << 10)
#define LINE_BOUND_MAX (256u << 20)

/* A segment is what shares one due time. With a rate it is a packet of Ethernet's size. */
#define LINE_PACKET 1448
#define LINE_SEGMENTS (1u << 16)

/* The network between both ends; shared by all directions, may change at any time. */
typedef struct {
    int64_t half_ns;         /* delay of each direction */
    double bytes_per_second; /* of each direction, 0: as fast as it goes */
} LineNetwork;

/* What was seen, since the start. */
typedef struct {
    uint64_t bytes;
    uint64_t early;        /* bytes that left before their time: must stay 0 */
    int64_t least_ns;      /* shortest time a byte was held, INT64_MAX before the first */
    int64_t latest_ns;     /* longest time a byte left after it was due, if its way was free */
    uint64_t largest_held; /* bytes */
} LineStats;

typedef enum { LINE_OPEN, LINE_FINISHED, LINE_RESET } LineEnd;

typedef struct Line Line;

Line *line_new(const LineNetwork *network);
void line_free(Line *line);

/* CLOCK_MONOTONIC in nanoseconds. */
int64_t line_now(void);
/* The most a direction may hold with this network. */
size_t line_bound(const LineNetwork *network);

size_t line_held(const Line *line);
/* Whether it takes more bytes now. */
bool line_wants(const Line *line);
/* Reads from fd what fits; its end or error is kept, with a due time of its own. */
void line_read(Line *line, int fd);
/* When the next byte (or the end) is due, INT64_MAX: nothing is waiting. */
int64_t line_due(const Line *line);
/* Writes what is due. False: fd is full, or gone (which *broken tells). */
bool line_write(Line *line, int fd, bool *broken);
/* Whether the last write found fd full: worth a try only when poll() says so. */
bool line_blocked(const Line *line);
/* The end of the stream, once everything before it has been written and its time has come. */
LineEnd line_end(const Line *line, int64_t now);
void line_add_stats(const Line *line, LineStats *sum);

#endif
