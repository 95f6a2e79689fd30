/*
 * A histogram of durations: fixed size, eight buckets to the octave, so a percentile is right
 * within 9 %. Owner and thread: whoever embeds it; copy it to hand it to another thread.
 */
#ifndef QRDP_BASE_LATENCY_H
#define QRDP_BASE_LATENCY_H

#include <stdint.h>

#define LATENCY_BUCKETS 256u

typedef struct Latency {
    uint64_t count;
    uint64_t max_us;
    uint32_t buckets[LATENCY_BUCKETS];
} Latency;

void latency_add(Latency *latency, uint64_t us);
/** The duration that @permille of the samples do not exceed (500: median), 0 without samples. */
uint64_t latency_permille(const Latency *latency, unsigned permille);
/** The longest duration that bucket number @bucket counts. */
uint64_t latency_bucket_end(unsigned bucket);

#endif
