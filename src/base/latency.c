#include "latency.h"

/* Values below 8 have a bucket each; above, the three bits after the leading one choose among the
 * eight buckets of an octave. */
static unsigned bucket_of(uint64_t us)
{
    if (us < 8)
        return (unsigned)us;
    unsigned octave = 63u - (unsigned)__builtin_clzll(us);
    unsigned bucket = (octave - 2) * 8 + (unsigned)(us >> (octave - 3) & 7);
    return bucket < LATENCY_BUCKETS ? bucket : LATENCY_BUCKETS - 1;
}

uint64_t latency_bucket_end(unsigned bucket)
{
    if (bucket < 8)
        return bucket;
    unsigned octave = bucket / 8 + 2;
    return ((uint64_t)(8 + bucket % 8 + 1) << (octave - 3)) - 1;
}

void latency_add(Latency *latency, uint64_t us)
{
    latency->count++;
    latency->buckets[bucket_of(us)]++;
    if (us > latency->max_us)
        latency->max_us = us;
}

uint64_t latency_permille(const Latency *latency, unsigned permille)
{
    uint64_t seen = 0, wanted = (latency->count * permille + 999) / 1000;

    for (unsigned i = 0; latency->count && i < LATENCY_BUCKETS; i++) {
        seen += latency->buckets[i];
        if (seen >= wanted && seen > 0)
            return latency_bucket_end(i) < latency->max_us ? latency_bucket_end(i)
                                                           : latency->max_us;
    }
    return latency->max_us;
}
