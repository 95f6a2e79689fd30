/*
 * The delay proxy's test of itself: a thread that is both ends of a connection through the proxy
 * and compares clocks. Everything happens in one process, so both ends read the same one.
 */
#ifndef QRDP_TEST_SELFTEST_H
#define QRDP_TEST_SELFTEST_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    /* In. */
    int proxy_port;  /* where the proxy listens for the test */
    int target_fd;   /* the listener that the proxy connects to then */
    int64_t half_ns; /* what to expect */
    double bytes_per_second;
    int done_fd; /* gets a byte when the test is over */
    /* Out. */
    char error[200];            /* empty: no byte was early, and what else was measured is below */
    int64_t round_trip_ns;      /* median */
    int64_t least_ns[2];        /* shortest time one way: to the target, and back */
    double measured_per_second; /* bytes, the slower way */
} Selftest;

/* A thread's function; arg is a Selftest that stays until done_fd was written to. */
void *selftest_run(void *arg);

#endif
