#include "mutate.h"

#include <stdlib.h>
#include <string.h>

#define EXHAUSTIVE 4096u /* bytes up to which every position is tried */
#define MAX_GROWTH 64u   /* bytes one insertion may add */
#define MAX_CHANGES 4u

static void run_copy(const uint8_t *data, size_t len, MutateCase run, void *user)
{
    uint8_t *copy = malloc(len ? len : 1);

    if (!copy)
        abort();
    if (len > 0)
        memcpy(copy, data, len);
    run(copy, len, user);
    free(copy);
}

uint32_t mutate_next(uint32_t *state)
{
    /* xorshift32; 0 would be a fixed point */
    uint32_t x = *state ? *state : 0x9e3779b9u;

    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return *state = x;
}

void mutate_none(const uint8_t *data, size_t len, MutateCase run, void *user)
{
    run_copy(data, len, run, user);
}

void mutate_truncations(const uint8_t *data, size_t len, MutateCase run, void *user)
{
    size_t step = len / EXHAUSTIVE + 1;

    for (size_t n = 0; n < len; n += step)
        run_copy(data, n, run, user);
}

void mutate_bit_flips(const uint8_t *data, size_t len, MutateCase run, void *user)
{
    uint8_t *work = malloc(len ? len : 1);

    if (!work)
        abort();
    if (len > 0)
        memcpy(work, data, len);
    for (size_t i = 0; i < len && i < EXHAUSTIVE; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            work[i] ^= (uint8_t)(1u << bit);
            run_copy(work, len, run, user);
            work[i] = data[i];
        }
    }
    free(work);
}

static uint32_t telling_value(uint32_t *rng)
{
    static const uint32_t values[] = {
        0,      1,      2,       0x7f,       0x80,       0xff,       0x100,      0x7fff,
        0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xfffffff0, 0xfffffffe, 0xffffffff};

    return values[mutate_next(rng) % (sizeof(values) / sizeof(values[0]))];
}

/* One change in place; returns the new length, at most @len + MAX_GROWTH. */
static size_t change(uint8_t *data, size_t len, uint32_t *rng)
{
    size_t at = len ? mutate_next(rng) % len : 0;
    size_t n = 1 + mutate_next(rng) % MAX_GROWTH;
    uint32_t value;

    switch (mutate_next(rng) % 7) {
    case 0:
        if (len > 0)
            data[at] ^= (uint8_t)(1u << (mutate_next(rng) % 8));
        return len;
    case 1:
        if (len > 0)
            data[at] = (uint8_t)telling_value(rng);
        return len;
    case 2:
    case 3:
        /* length and count fields are 2 or 4 bytes and mostly aligned */
        at &= ~(size_t)3;
        value = telling_value(rng);
        for (size_t i = 0; i < (n & 1 ? 2u : 4u) && at + i < len; i++)
            data[at + i] = (uint8_t)(value >> (8 * i));
        return len;
    case 4: /* remove a run */
        if (n > len - at)
            n = len - at;
        memmove(data + at, data + at + n, len - at - n);
        return len - n;
    case 5: /* insert a run of one value */
        memmove(data + at + n, data + at, len - at);
        memset(data + at, (int)(telling_value(rng) & 0xff), n);
        return len + n;
    default: /* repeat a run */
        if (n > len - at)
            n = len - at;
        memmove(data + at + n, data + at, len - at);
        return len + n;
    }
}

void mutate_random(const uint8_t *data, size_t len, uint32_t seed, unsigned count, MutateCase run,
                   void *user)
{
    uint8_t *work = malloc(len + MAX_CHANGES * MAX_GROWTH);

    if (!work)
        abort();
    for (unsigned i = 0; i < count; i++) {
        uint32_t rng = seed + i * 2654435761u;
        unsigned changes = 1 + mutate_next(&rng) % MAX_CHANGES;
        size_t n = len;

        if (len > 0)
            memcpy(work, data, len);
        while (changes-- > 0)
            n = change(work, n, &rng);
        run_copy(work, n, run, user);
    }
    free(work);
}
