#include "unzgfx.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HISTORY 2500000u
#define SEGMENT 65535u

struct Unzgfx {
    uint8_t history[HISTORY];
    uint64_t total; /* bytes decoded so far */
};

/* Not assert(): release builds check as well. */
static void need(int condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "unzgfx: %s\n", what);
        abort();
    }
}

Unzgfx *unzgfx_new(void)
{
    Unzgfx *u = calloc(1, sizeof(*u));

    need(u != NULL, "memory");
    return u;
}

void unzgfx_free(Unzgfx *u)
{
    free(u);
}

static void output(Unzgfx *u, uint8_t byte, Writer *out)
{
    u->history[u->total++ % HISTORY] = byte;
    writer_u8(out, byte);
}

typedef struct BitReader {
    const uint8_t *data;
    size_t at, end; /* in bits */
} BitReader;

static uint32_t get(BitReader *b, unsigned n)
{
    uint32_t v = 0;

    need(b->end - b->at >= n, "a token is cut off");
    while (n > 0) {
        unsigned left = 8 - b->at % 8, take = n < left ? n : left;
        v = v << take | (b->data[b->at / 8] >> (left - take) & ((1u << take) - 1));
        b->at += take;
        n -= take;
    }
    return v;
}

/* The table of 3.1.9.1.2 as text: the prefix, then a literal or how a distance goes on. */
static const struct {
    const char *prefix;
    int literal; /* -1: a distance */
    uint32_t base;
    unsigned bits;
} tokens[] = {
    {"11000", 0x00, 0, 0},       {"11001", 0x01, 0, 0},         {"110100", 0x02, 0, 0},
    {"110101", 0x03, 0, 0},      {"110110", 0xFF, 0, 0},        {"1101110", 0x04, 0, 0},
    {"1101111", 0x05, 0, 0},     {"1110000", 0x06, 0, 0},       {"1110001", 0x07, 0, 0},
    {"1110010", 0x08, 0, 0},     {"1110011", 0x09, 0, 0},       {"1110100", 0x0A, 0, 0},
    {"1110101", 0x0B, 0, 0},     {"1110110", 0x3A, 0, 0},       {"1110111", 0x3B, 0, 0},
    {"1111000", 0x3C, 0, 0},     {"1111001", 0x3D, 0, 0},       {"1111010", 0x3E, 0, 0},
    {"1111011", 0x3F, 0, 0},     {"1111100", 0x40, 0, 0},       {"1111101", 0x80, 0, 0},
    {"11111100", 0x0C, 0, 0},    {"11111101", 0x38, 0, 0},      {"11111110", 0x39, 0, 0},
    {"11111111", 0x66, 0, 0},    {"10001", -1, 0, 5},           {"10010", -1, 32, 7},
    {"10011", -1, 160, 9},       {"10100", -1, 672, 10},        {"10101", -1, 1696, 12},
    {"101100", -1, 5792, 14},    {"101101", -1, 22176, 15},     {"1011100", -1, 54944, 18},
    {"1011101", -1, 317088, 20}, {"10111100", -1, 1365664, 20}, {"10111101", -1, 2414240, 21},
};
#define N_TOKENS (sizeof(tokens) / sizeof(tokens[0]))

static size_t get_token(BitReader *b)
{
    char prefix[9] = "";

    for (unsigned n = 0; n < 8; n++) {
        prefix[n] = get(b, 1) ? '1' : '0';
        for (size_t i = 0; i < N_TOKENS; i++) {
            if (strcmp(tokens[i].prefix, prefix) == 0)
                return i;
        }
    }
    need(0, "no such token");
    return 0;
}

static uint32_t get_length(BitReader *b)
{
    unsigned bits = 1;

    if (get(b, 1) == 0)
        return 3;
    do {
        bits++;
    } while (bits < 17 && get(b, 1) == 1);
    need(bits < 16, "a match is longer than a segment");
    return (1u << bits) + get(b, bits);
}

static void copy_raw(Unzgfx *u, BitReader *b, Writer *out)
{
    uint32_t n = get(b, 15);

    while (b->at % 8 != 0)
        need(get(b, 1) == 0, "padding of an unencoded run");
    need(n > 0, "an empty unencoded run");
    for (; n > 0; n--)
        output(u, (uint8_t)get(b, 8), out);
}

static void decompress(Unzgfx *u, BitReader *b, Writer *out)
{
    while (b->at < b->end) {
        if ((b->data[b->at / 8] >> (7 - b->at % 8) & 1) == 0) {
            get(b, 1);
            output(u, (uint8_t)get(b, 8), out);
            continue;
        }
        size_t token = get_token(b);
        if (tokens[token].literal >= 0) {
            output(u, (uint8_t)tokens[token].literal, out);
            continue;
        }
        uint32_t distance = tokens[token].base + get(b, tokens[token].bits);
        if (distance == 0) {
            copy_raw(u, b, out);
            continue;
        }
        need(distance <= HISTORY && distance <= u->total, "a match before the history");
        for (uint32_t n = get_length(b); n > 0; n--)
            output(u, u->history[(u->total - distance) % HISTORY], out);
    }
}

static void segment(Unzgfx *u, const uint8_t *data, size_t len, Writer *out)
{
    size_t before = out->len;

    need(len >= 2, "an empty segment");
    need(data[0] == 0x04 || data[0] == 0x24, "header of a segment");
    if (data[0] == 0x04) {
        for (size_t i = 1; i < len; i++)
            output(u, data[i], out);
    } else {
        need(data[len - 1] <= 7 && len >= 3, "count of unused bits");
        BitReader b = {data + 1, 0, 8 * (len - 2) - data[len - 1]};
        decompress(u, &b, out);
        need(len - 1 < out->len - before, "a compressed segment that did not shrink");
    }
    need(writer_ok(out) && out->len - before <= SEGMENT, "a segment is too long");
}

void unzgfx_unwrap(Unzgfx *u, const uint8_t *data, size_t len, Writer *out)
{
    size_t before = out->len;
    Reader r;

    reader_init(&r, data, len);
    uint8_t descriptor = reader_u8(&r);
    if (descriptor == 0xE0) {
        segment(u, data + 1, len - 1, out);
        return;
    }
    need(descriptor == 0xE1, "descriptor");
    uint16_t count = reader_u16(&r);
    uint32_t total = reader_u32(&r);
    for (uint16_t i = 0; i < count; i++) {
        uint32_t n = reader_u32(&r);
        const uint8_t *bytes = reader_bytes(&r, n);
        need(bytes != NULL, "a segment is cut off");
        segment(u, bytes, n, out);
    }
    need(reader_done(&r) && out->len - before == total, "length of a multipart message");
}
