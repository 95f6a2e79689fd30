/*
 * The bulk compressor against FreeRDP's decoder and a strict one of ours: whatever was sent comes
 * out, at every size that is a boundary, over several turns of the history, stored or not; and it
 * compresses what it is there for.
 */
#include "zgfx.h"

#include <freerdp/codec/zgfx.h>
#include <glib.h>
#include <string.h>

#include "mutate.h"
#include "unzgfx.h"

typedef struct Pipe {
    Zgfx *zgfx;
    Unzgfx *strict;
    ZGFX_CONTEXT *freerdp;
} Pipe;

static void pipe_init(Pipe *pipe)
{
    *pipe = (Pipe){zgfx_new(), unzgfx_new(), zgfx_context_new(FALSE)};
    g_assert_nonnull(pipe->freerdp);
}

static void pipe_clear(Pipe *pipe)
{
    zgfx_free(pipe->zgfx);
    unzgfx_free(pipe->strict);
    zgfx_context_free(pipe->freerdp);
}

/* Sends one message; returns its size on the wire. */
static size_t send(Pipe *pipe, const void *data, size_t len, ZgfxEffort effort)
{
    Writer wire, plain;
    BYTE *out = NULL;
    UINT32 out_len = 0;

    writer_init(&wire, zgfx_bound(len));
    zgfx_wrap(pipe->zgfx, data, len, effort, &wire);
    g_assert_true(writer_ok(&wire));
    g_assert_cmphex(wire.data[0], ==, len <= 65535 ? 0xE0 : 0xE1);
    if (effort == ZGFX_STORE)
        g_assert_cmpuint(wire.len, ==, zgfx_bound(len));
    writer_init(&plain, len);
    unzgfx_unwrap(pipe->strict, wire.data, wire.len, &plain);
    g_assert_true(plain.len == len && memcmp(plain.data, data, len) == 0);
    g_assert_cmpint(zgfx_decompress(pipe->freerdp, wire.data, (UINT32)wire.len, &out, &out_len, 0),
                    >=, 0);
    g_assert_true(out_len == len && memcmp(out, data, len) == 0);
    free(out);
    size_t sent = wire.len;
    writer_clear(&wire);
    writer_clear(&plain);
    return sent;
}

typedef enum Kind { RANDOM, TEXT, ZEROS, PERIOD, PDUS, BURSTS, N_KINDS } Kind;

static void fill(uint8_t *data, size_t len, Kind kind, uint32_t *seed)
{
    static const char *const words[] = {"kernel: ", "usb 1-1: ",  "[    1.0", "systemd[1]: ",
                                        "Started ", ".service\n", "device ",  "\x1b[0;32m"};
    static const uint8_t header[] = "\x01\0\0\0\x40\0\0\0\x07\0\x08\0\x20";
    size_t at = 0;

    while (at < len) {
        uint32_t r = mutate_next(seed);
        uint8_t piece[32] = {0};
        size_t n = 1;
        switch (kind) {
        case RANDOM:
            piece[0] = (uint8_t)(r >> 16);
            break;
        case TEXT:
            n = strlen(words[r >> 16 & 7]);
            memcpy(piece, words[r >> 16 & 7], n);
            break;
        case PERIOD:
            piece[0] = (uint8_t)(at % 37 * 7);
            break;
        case PDUS: /* a header and a few bytes of its own */
            n = 13 + (r >> 16) % 8;
            memcpy(piece, header, 13);
            for (size_t i = 13; i < n; i++)
                piece[i] = (uint8_t)(mutate_next(seed) >> 16);
            break;
        case BURSTS: /* what unencoded runs are for */
            n = 32;
            for (size_t i = 0; i < n && at / 100 % 2; i++)
                piece[i] = (uint8_t)(mutate_next(seed) >> 16);
            break;
        default:
            break;
        }
        n = MIN(n, len - at);
        memcpy(data + at, piece, n);
        at += n;
    }
}

static void test_sizes_with(ZgfxEffort effort)
{
    static const size_t sizes[] = {1,     2,     3,     4,     5,      7,      8,      9,
                                   12,    63,    64,    65,    1000,   32767,  32768,  32769,
                                   65534, 65535, 65536, 65537, 131070, 131071, 3000000};
    uint8_t *data = g_malloc(3000000);

    for (Kind kind = 0; kind < N_KINDS; kind++) {
        uint32_t seed = 1 + kind;
        Pipe pipe;
        pipe_init(&pipe);
        for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
            if (sizes[i] == 3000000 && kind != TEXT && kind != BURSTS)
                continue; /* takes its time, and interleaved does the rest */
            fill(data, sizes[i], kind, &seed);
            size_t sent = send(&pipe, data, sizes[i], effort);
            if (kind == RANDOM && sizes[i] > 1000 && sizes[i] <= 65535)
                g_assert_cmpuint(sent, ==, sizes[i] + 2); /* stored */
            if (kind != RANDOM && sizes[i] >= 1000)
                g_assert_cmpuint(sent, <, sizes[i] * 4 / 5);
            if (kind == ZEROS && sizes[i] == 65535)
                g_assert_cmpuint(sent, <, 16);
        }
        pipe_clear(&pipe);
    }
    g_free(data);
}

static void test_sizes(void)
{
    test_sizes_with(ZGFX_COMPRESS);
}

static void test_sizes_fast(void)
{
    test_sizes_with(ZGFX_FAST);
}

static void test_interleaved(void)
{
    uint8_t *data = g_malloc(200000);
    uint32_t seed = 77;
    size_t total = 0;
    Pipe pipe;

    pipe_init(&pipe);
    while (total < 6000000) {
        uint32_t r = mutate_next(&seed) >> 8;
        size_t len = 1 + (r % 7 == 0 ? mutate_next(&seed) % 200000 : mutate_next(&seed) % 5000);
        if (r % 3 != 0) /* else much of the last message again */
            fill(data, len, r % N_KINDS, &seed);
        data[mutate_next(&seed) % len] ^= 1;
        send(&pipe, data, len, r % 5 == 0 ? ZGFX_STORE : r % 5 == 1 ? ZGFX_FAST : ZGFX_COMPRESS);
        total += len;
    }
    pipe_clear(&pipe);
    g_free(data);
}

/* A small frame that resembles the last one. */
static void test_small(void)
{
    uint8_t frame[60];
    uint32_t seed = 5;
    Pipe pipe;

    pipe_init(&pipe);
    fill(frame, sizeof(frame), RANDOM, &seed);
    send(&pipe, frame, sizeof(frame), ZGFX_COMPRESS);
    for (unsigned i = 0; i < 10; i++) {
        frame[8]++;  /* time */
        frame[12]++; /* frame number */
        frame[30] += 8;
        frame[34] += 8;
        g_assert_cmpuint(send(&pipe, frame, sizeof(frame), ZGFX_COMPRESS), <=, 22);
    }
    pipe_clear(&pipe);
}

/* What was sent nearly a history ago is found, what is older is not used. */
static void test_far(ZgfxEffort effort)
{
    const size_t block = 20000;
    uint8_t *first = g_malloc(block), *filler = g_malloc(60000);
    uint32_t seed = 9;
    Pipe pipe;

    pipe_init(&pipe);
    fill(first, block, RANDOM, &seed);
    for (unsigned turn = 0; turn < 2; turn++) {
        send(&pipe, first, block, ZGFX_COMPRESS);
        for (unsigned i = 0; i < 41; i++) {
            fill(filler, 60000, RANDOM, &seed);
            send(&pipe, filler, 60000, effort);
        }
        g_assert_cmpuint(send(&pipe, first, block, ZGFX_COMPRESS), <, block / 20);
        for (unsigned i = 0; i < 42; i++) {
            fill(filler, 60000, RANDOM, &seed);
            send(&pipe, filler, 60000, effort);
        }
        g_assert_cmpuint(send(&pipe, first, block, ZGFX_COMPRESS), ==, block + 2);
        fill(first, block, RANDOM, &seed);
    }
    pipe_clear(&pipe);
    g_free(first);
    g_free(filler);
}

static void test_far_stored(void)
{
    test_far(ZGFX_STORE);
}

static void test_far_compressed(void)
{
    test_far(ZGFX_COMPRESS);
}

/* A match never costs more than literals: nothing gets longer for being searched. */
static void test_no_growth(void)
{
    uint8_t data[64];
    uint32_t seed = 3;
    Pipe pipe;

    pipe_init(&pipe);
    for (unsigned i = 0; i < 3000; i++) {
        size_t len = 1 + mutate_next(&seed) % sizeof(data);
        for (size_t k = 0; k < len; k++)
            data[k] = (uint8_t)("abcdefgh"[mutate_next(&seed) >> 16 & 7]);
        g_assert_cmpuint(send(&pipe, data, len, i % 2 ? ZGFX_FAST : ZGFX_COMPRESS), <=, len + 2);
    }
    pipe_clear(&pipe);
}

/* `test-zgfx -m perf --verbose -p /zgfx/speed`: megabytes a second of a release build. */
static void test_speed(void)
{
    static const char *const names[] = {"random", "text", "zeros", "period", "pdus", "bursts"};
    const size_t len = 60000, rounds = 500;
    uint8_t *data = g_malloc(len * rounds);

    if (!g_test_perf()) {
        g_test_skip("only with -m perf");
        g_free(data);
        return;
    }
    for (unsigned turn = 0; turn < 2 * N_KINDS; turn++) {
        const Kind kind = turn / 2;
        const ZgfxEffort effort = turn % 2 ? ZGFX_FAST : ZGFX_COMPRESS;
        uint32_t seed = 1;
        Zgfx *zgfx = zgfx_new();
        Writer wire;
        fill(data, len * rounds, kind, &seed);
        writer_init(&wire, 2 * len * rounds);
        g_test_timer_start();
        for (size_t i = 0; i < rounds; i++)
            zgfx_wrap(zgfx, data + i * len, len, effort, &wire);
        double speed = (double)(len * rounds) / 1e6 / g_test_timer_elapsed();
        g_test_maximized_result(speed, "%s%s: %.0f MB/s, to %.1f %%", names[kind],
                                effort == ZGFX_FAST ? " in haste" : "", speed,
                                100.0 * (double)wire.len / (double)(len * rounds));
        writer_clear(&wire);
        zgfx_free(zgfx);
    }
    g_free(data);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/zgfx/sizes", test_sizes);
    g_test_add_func("/zgfx/sizes-fast", test_sizes_fast);
    g_test_add_func("/zgfx/interleaved", test_interleaved);
    g_test_add_func("/zgfx/small", test_small);
    g_test_add_func("/zgfx/far-stored", test_far_stored);
    g_test_add_func("/zgfx/far-compressed", test_far_compressed);
    g_test_add_func("/zgfx/no-growth", test_no_growth);
    g_test_add_func("/zgfx/speed", test_speed);
    return g_test_run();
}
