/*
 * Theory of operation. The format is LZ77 with fixed prefix codes, so the size in bits of every
 * literal and every match is known beforehand, and the cheapest way through a segment can be
 * computed: node i holds the fewest bits that reach byte i and the last step taken to get there.
 * From each byte a literal and the matches found there are tried. Three things bound the time: a
 * few candidates per byte, a match of a nice length is taken without looking inside it, and where
 * nothing matches the search takes ever longer steps. How few and how nice is the effort.
 *
 * Candidates come from three hash tables: the newest place of 3 bytes (worth it only nearby), the
 * newest four of 4 bytes, and for what is far back every fourth place by 8 bytes, which reaches
 * over the whole history and is extended backwards. An entry is a place modulo PLACES with some
 * bits more of its hash. Whatever an entry says, the distance is checked and the bytes are
 * compared, so stale and zeroed entries need no care. The tables are 3 MB that other programs have
 * put out of the caches since the last message, so what a byte will ask is fetched before its turn.
 *
 * History is a flat buffer: the segment is appended first and searched in place, so a match that
 * overlaps what it produces is no special case. When it is full the last ZGFX_HISTORY_BYTES move
 * to its front. Decoders write a ring of that size, and read before they write; before the first
 * byte theirs holds zeros, which are never referred to.
 */
#include "zgfx.h"

#include <assert.h>
#include <endian.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define SLACK (1u << 20)   /* bytes between two moves of the history, more than a segment */
#define READ_AHEAD 8u      /* bytes read at a place to hash it */
#define FETCH_AHEAD 8u     /* places from which on the tables are fetched */
#define SKIP_SHIFT 5u      /* every 32 bytes without a match lengthen the step by one */
#define MAX_SKIP 24u       /* the longest step */
#define MAX_RAW 32767u     /* bytes of one unencoded run: 15 bits */
#define RAW_BITS (10 + 15) /* token and length of an unencoded run, before its padding */

#define PLACES (1u << 22) /* entries tell this many places apart: more than the history */
#define HASH3_BITS 13
#define HASH4_BITS 16
#define HASH8_BITS 18
#define WAYS4 4
#define WAYS8 2
#define STRIDE8 4u

enum { /* 2.2.5.1, 2.2.5.3 */
       DESCRIPTOR_SINGLE = 0xE0,
       DESCRIPTOR_MULTIPART = 0xE1,
       HEADER_STORED = 0x04,
       HEADER_COMPRESSED = 0x24,
};

typedef struct Node {
    uint32_t bits;     /* to get here */
    uint32_t distance; /* of the step */
    uint32_t length;   /* of the step; 1: a literal */
} Node;

struct Zgfx {
    size_t end;     /* bytes in history */
    size_t indexed; /* places before this one are in the tables */
    uint32_t base;  /* the place of history[0] */
    uint8_t history[ZGFX_HISTORY_BYTES + SLACK + FETCH_AHEAD + READ_AHEAD];
    uint32_t table3[1u << HASH3_BITS];
    uint32_t table4[1u << HASH4_BITS][WAYS4]; /* newest first */
    uint32_t table8[1u << HASH8_BITS][WAYS8];
    Node nodes[ZGFX_SEGMENT_BYTES + 1];
    uint8_t literal_bits[256], literal_code[256];
    uint8_t scratch[ZGFX_SEGMENT_BYTES / 8 * 9 + 32]; /* a segment of nothing but literals */
};

/* 3.1.9.1.2: bytes with a code of their own; all others are a 0 bit and the byte. */
static const struct {
    uint8_t byte, bits, code;
} literals[] = {
    {0x00, 5, 0x18}, {0x01, 5, 0x19}, {0x02, 6, 0x34}, {0x03, 6, 0x35}, {0xFF, 6, 0x36},
    {0x04, 7, 0x6E}, {0x05, 7, 0x6F}, {0x06, 7, 0x70}, {0x07, 7, 0x71}, {0x08, 7, 0x72},
    {0x09, 7, 0x73}, {0x0A, 7, 0x74}, {0x0B, 7, 0x75}, {0x3A, 7, 0x76}, {0x3B, 7, 0x77},
    {0x3C, 7, 0x78}, {0x3D, 7, 0x79}, {0x3E, 7, 0x7A}, {0x3F, 7, 0x7B}, {0x40, 7, 0x7C},
    {0x80, 7, 0x7D}, {0x0C, 8, 0xFC}, {0x38, 8, 0xFD}, {0x39, 8, 0xFE}, {0x66, 8, 0xFF},
};

/* 3.1.9.1.2: distances from .base on. Distance 0 stands for an unencoded run. */
typedef struct DistanceClass {
    uint32_t base;
    uint8_t bits, code, value_bits;
} DistanceClass;
static const DistanceClass distances[] = {
    {0, 5, 0x11, 5},       {32, 5, 0x12, 7},       {160, 5, 0x13, 9},      {672, 5, 0x14, 10},
    {1696, 5, 0x15, 12},   {5792, 6, 0x2C, 14},    {22176, 6, 0x2D, 15},   {54944, 7, 0x5C, 18},
    {317088, 7, 0x5D, 20}, {1365664, 8, 0xBC, 20}, {2414240, 8, 0xBD, 21},
};
#define N_DISTANCES (sizeof(distances) / sizeof(distances[0]))

Zgfx *zgfx_new(void)
{
    Zgfx *z = calloc(1, sizeof(*z));

    if (!z)
        abort();
    for (unsigned i = 0; i < 256; i++) {
        z->literal_bits[i] = 9;
        z->literal_code[i] = (uint8_t)i;
    }
    for (unsigned i = 0; i < sizeof(literals) / sizeof(literals[0]); i++) {
        z->literal_bits[literals[i].byte] = literals[i].bits;
        z->literal_code[literals[i].byte] = literals[i].code;
    }
    return z;
}

void zgfx_free(Zgfx *z)
{
    free(z);
}

/* Entries of the tables now lie before the first byte, where no distance reaches. */
void zgfx_forget(Zgfx *z)
{
    z->base += (uint32_t)z->end;
    z->end = z->indexed = 0;
}

static const DistanceClass *distance_class(uint32_t distance)
{
    unsigned i = 1;

    while (i < N_DISTANCES && distance >= distances[i].base)
        i++;
    return &distances[i - 1];
}

static unsigned log2_of(uint32_t v)
{
    return 31 - (unsigned)__builtin_clz(v);
}

/* 3 is a 0 bit; else as many 1 bits as the second highest bit's number, a 0, and the lower bits. */
static unsigned length_bits(uint32_t length)
{
    return length == 3 ? 1 : 2 * log2_of(length);
}

/* ---- tables ---- */

static uint64_t load(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return le64toh(v);
}

/* The upper half of each is well mixed: the slot, then the bits kept in the entry. */
static uint32_t hash3(uint64_t v)
{
    return (uint32_t)(v & 0xFFFFFF) * 2654435761u;
}

static uint32_t hash4(uint64_t v)
{
    return (uint32_t)v * 2654435761u;
}

static uint32_t hash8(uint64_t v)
{
    return (uint32_t)(v * 0x9E3779B97F4A7C15u >> 32);
}

static uint32_t entry(uint32_t place, uint32_t hash, unsigned slot_bits)
{
    return hash << slot_bits >> 22 << 22 | (place & (PLACES - 1));
}

static void index_place(Zgfx *z, size_t at)
{
    uint64_t v = load(z->history + at);
    uint32_t place = z->base + (uint32_t)at;
    uint32_t h3 = hash3(v), h4 = hash4(v);
    uint32_t *ways = z->table4[h4 >> (32 - HASH4_BITS)];

    z->table3[h3 >> (32 - HASH3_BITS)] = entry(place, h3, HASH3_BITS);
    memmove(ways + 1, ways, (WAYS4 - 1) * sizeof(ways[0]));
    ways[0] = entry(place, h4, HASH4_BITS);
}

static void index_place_8(Zgfx *z, size_t at)
{
    uint32_t h8 = hash8(load(z->history + at));
    uint32_t *ways = z->table8[h8 >> (32 - HASH8_BITS)];

    memmove(ways + 1, ways, (WAYS8 - 1) * sizeof(ways[0]));
    ways[0] = entry(z->base + (uint32_t)at, h8, HASH8_BITS);
}

/* Indexes up to @to, every @step places by 3 and 4 bytes, except those whose bytes are not all
 * there yet: the next segment does them. */
static void index_until(Zgfx *z, size_t to, size_t end, size_t step)
{
    size_t at = z->indexed;

    if (to + READ_AHEAD > end)
        to = end < READ_AHEAD ? 0 : end - READ_AHEAD;
    if (at >= to)
        return;
    for (size_t i = at; i < to; i += step)
        index_place(z, i);
    for (size_t i = at; i < to; i++) {
        uint32_t place = z->base + (uint32_t)i;
        i += (STRIDE8 - place % STRIDE8) % STRIDE8;
        if (i < to)
            index_place_8(z, i);
    }
    z->indexed = to;
}

/* ---- the cheapest way ---- */

static size_t match_length(const uint8_t *a, const uint8_t *b, size_t limit)
{
    size_t n = 0;

    while (n + 8 <= limit) {
        uint64_t diff = load(a + n) ^ load(b + n);
        if (diff != 0)
            return n + (unsigned)__builtin_ctzll(diff) / 8;
        n += 8;
    }
    while (n < limit && a[n] == b[n])
        n++;
    return n;
}

static void relax(Node *from, uint32_t length, uint32_t distance, uint32_t bits)
{
    Node *to = from + length;

    if (from->bits + bits < to->bits)
        *to = (Node){from->bits + bits, distance, length};
}

typedef struct Effort {
    size_t nice; /* a match this long is taken */
    unsigned ways4, ways8;
    bool near; /* also matches of 3 bytes */
} Effort;

static const Effort efforts[] = {
    [ZGFX_COMPRESS] = {24, WAYS4, WAYS8, true},
    [ZGFX_FAST] = {8, 1, 1, false},
};

typedef struct Search {
    const Zgfx *zgfx;
    const Effort *effort;
    Node *node;      /* of the byte that is looked at */
    size_t at;       /* that byte in the history */
    size_t limit;    /* bytes left in the segment */
    size_t backward; /* bytes a match may begin earlier */
    size_t best;     /* length of the longest match so far */
} Search;

/* Tries what @candidate points to, if @wanted has the same hash bits and it is longer than what
 * was found. */
static void try_candidate(Search *s, uint32_t candidate, uint32_t wanted)
{
    uint32_t distance = (wanted - candidate) & (PLACES - 1);
    const uint8_t *here = s->zgfx->history + s->at;

    if (candidate >> 22 != wanted >> 22 || distance == 0 || distance > ZGFX_HISTORY_BYTES ||
        distance > s->at)
        return;
    if (s->best >= s->limit || here[s->best] != (here - distance)[s->best])
        return;
    size_t length = match_length(here, here - distance, s->limit);
    if (length < 3 || length <= s->best)
        return;
    const DistanceClass *class = distance_class(distance);
    uint32_t bits = class->bits + class->value_bits;
    for (size_t n = length >= s->effort->nice ? length
                    : s->best < 3             ? 3
                                              : s->best + 1;
         n <= length; n++)
        relax(s->node, (uint32_t)n, distance, bits + length_bits((uint32_t)n));
    s->best = length;

    size_t back = 0;
    while (back < s->backward && distance + back < s->at &&
           here[-1 - (ptrdiff_t)back] == (here - distance)[-1 - (ptrdiff_t)back])
        back++;
    if (back > 0)
        relax(s->node - back, (uint32_t)(length + back), distance,
              bits + length_bits((uint32_t)(length + back)));
}

static size_t find_matches(Search *s)
{
    const Zgfx *z = s->zgfx;
    uint64_t v = load(z->history + s->at);
    uint32_t place = z->base + (uint32_t)s->at;

    s->best = 0;
    if (s->effort->near && s->limit >= 3) {
        uint32_t h = hash3(v);
        try_candidate(s, z->table3[h >> (32 - HASH3_BITS)], entry(place, h, HASH3_BITS));
    }
    if (s->limit >= 4) {
        uint32_t h = hash4(v);
        const uint32_t *ways = z->table4[h >> (32 - HASH4_BITS)];
        for (unsigned i = 0; i < s->effort->ways4; i++)
            try_candidate(s, ways[i], entry(place, h, HASH4_BITS));
    }
    if (s->limit >= 8) {
        uint32_t h = hash8(v);
        const uint32_t *ways = z->table8[h >> (32 - HASH8_BITS)];
        for (unsigned i = 0; i < s->effort->ways8; i++)
            try_candidate(s, ways[i], entry(place, h, HASH8_BITS));
    }
    return s->best;
}

static void fetch_tables(const Zgfx *z, size_t at)
{
    uint64_t v = load(z->history + at);

    __builtin_prefetch(z->table4[hash4(v) >> (32 - HASH4_BITS)]);
    __builtin_prefetch(z->table8[hash8(v) >> (32 - HASH8_BITS)]);
}

/* Fills nodes[1..n] for the @n bytes at history + @start. */
static void find_way(Zgfx *z, size_t start, size_t n, const Effort *effort)
{
    const uint8_t *data = z->history + start;
    Node *nodes = z->nodes;
    size_t floor = 0; /* the end of the last match that was taken without looking inside */
    size_t missed = 0;

    nodes[0] = (Node){0};
    for (size_t i = 1; i <= n; i++)
        nodes[i].bits = UINT32_MAX;
    for (size_t i = 0; i < n;) {
        Search s = {z, effort, &nodes[i], start + i, n - i, i - floor, 0};
        fetch_tables(z, start + i + FETCH_AHEAD);
        size_t length = find_matches(&s);
        size_t step = 1;
        if (length >= effort->nice) {
            index_until(z, start + i + length, start + n, STRIDE8);
            i += length;
            floor = i;
            missed = 0;
            continue;
        }
        missed = length > 0 ? 0 : missed + 1;
        step += missed >> SKIP_SHIFT;
        if (step > MAX_SKIP)
            step = MAX_SKIP;
        index_until(z, start + i + step, start + n, step);
        for (; step > 0 && i < n; step--, i++)
            relax(&nodes[i], 1, 0, z->literal_bits[data[i]]);
    }
}

/* Makes each node on the way say which step leaves it instead of which one reached it. */
static void turn_way(Node *nodes, size_t n)
{
    uint32_t length = nodes[n].length, distance = nodes[n].distance;

    for (size_t i = n; i > 0;) {
        uint32_t next_length, next_distance;
        i -= length;
        next_length = nodes[i].length;
        next_distance = nodes[i].distance;
        nodes[i].length = length;
        nodes[i].distance = distance;
        length = next_length;
        distance = next_distance;
    }
}

/* ---- bits ---- */

typedef struct Bits {
    uint8_t *at;
    uint64_t waiting; /* its lowest n bits */
    unsigned n;       /* less than 8 */
} Bits;

static void put(Bits *b, uint32_t value, unsigned count)
{
    b->waiting = b->waiting << count | value;
    b->n += count;
    while (b->n >= 8) {
        b->n -= 8;
        *b->at++ = (uint8_t)(b->waiting >> b->n);
    }
}

static unsigned pad(Bits *b)
{
    unsigned unused = (8 - b->n) % 8;

    put(b, 0, unused);
    return unused;
}

static void put_distance(Bits *b, uint32_t distance)
{
    const DistanceClass *class = distance_class(distance);

    put(b, class->code, class->bits);
    put(b, distance - class->base, class->value_bits);
}

static void put_match(Bits *b, uint32_t distance, uint32_t length)
{
    unsigned log = log2_of(length);

    put_distance(b, distance);
    if (length == 3) {
        put(b, 0, 1);
        return;
    }
    put(b, (1u << log) - 2, log);
    put(b, length - (1u << log), log);
}

/* Bytes without a match, of @bits as literals: those, or unencoded runs if they are shorter. */
static void put_literals(const Zgfx *z, Bits *b, const uint8_t *data, size_t n, uint32_t bits)
{
    size_t runs = (n + MAX_RAW - 1) / MAX_RAW;

    if (bits <= runs * (RAW_BITS + 7) + 8 * n) {
        for (size_t i = 0; i < n; i++)
            put(b, z->literal_code[data[i]], z->literal_bits[data[i]]);
        return;
    }
    while (n > 0) {
        size_t run = n < MAX_RAW ? n : MAX_RAW;
        put_distance(b, 0);
        put(b, (uint32_t)run, 15);
        pad(b);
        memcpy(b->at, data, run);
        b->at += run;
        data += run;
        n -= run;
    }
}

/* Writes the way of nodes[0..n] to scratch; returns its bytes, the last one being the count of
 * unused bits before it. */
static size_t put_way(Zgfx *z, const uint8_t *data, size_t n)
{
    const Node *nodes = z->nodes;
    Bits b = {z->scratch, 0, 0};
    size_t literals_from = 0;

    for (size_t i = 0;; i += nodes[i].length) {
        if (i < n && nodes[i].length == 1)
            continue;
        put_literals(z, &b, data + literals_from, i - literals_from,
                     nodes[i].bits - nodes[literals_from].bits);
        if (i == n)
            break;
        put_match(&b, nodes[i].distance, nodes[i].length);
        literals_from = i + nodes[i].length;
    }
    unsigned unused = pad(&b);
    *b.at++ = (uint8_t)unused;
    size_t len = (size_t)(b.at - z->scratch);
    assert(len <= sizeof(z->scratch));
    return len;
}

/* ---- segments ---- */

/* Appends to the history; returns where. */
static size_t remember(Zgfx *z, const uint8_t *data, size_t n)
{
    size_t start;

    if (z->end + n > ZGFX_HISTORY_BYTES + SLACK) {
        size_t away = z->end - ZGFX_HISTORY_BYTES;
        memmove(z->history, z->history + away, ZGFX_HISTORY_BYTES);
        z->base += (uint32_t)away;
        z->end -= away;
        z->indexed -= away;
    }
    start = z->end;
    memcpy(z->history + start, data, n);
    z->end += n;
    return start;
}

static void wrap_segment(Zgfx *z, const uint8_t *data, size_t n, ZgfxEffort effort, Writer *out)
{
    size_t start = remember(z, data, n);

    if (effort != ZGFX_STORE) {
        index_until(z, start, z->end, 1);
        find_way(z, start, n, &efforts[effort]);
        turn_way(z->nodes, n);
        size_t len = put_way(z, data, n);
        if (len < n) {
            writer_u8(out, HEADER_COMPRESSED);
            writer_bytes(out, z->scratch, len);
            return;
        }
    } else {
        z->indexed = z->end;
    }
    writer_u8(out, HEADER_STORED);
    writer_bytes(out, data, n);
}

void zgfx_store(const uint8_t *data, size_t len, Writer *out)
{
    assert(len > 0 && len <= ZGFX_SEGMENT_BYTES);
    writer_u8(out, DESCRIPTOR_SINGLE);
    writer_u8(out, HEADER_STORED);
    writer_bytes(out, data, len);
}

static size_t segments_of(size_t len)
{
    return (len + ZGFX_SEGMENT_BYTES - 1) / ZGFX_SEGMENT_BYTES;
}

size_t zgfx_bound(size_t len)
{
    if (len <= ZGFX_SEGMENT_BYTES)
        return len + ZGFX_STORED_BYTES;
    return 7 + 5 * segments_of(len) + len;
}

void zgfx_wrap(Zgfx *z, const uint8_t *data, size_t len, ZgfxEffort effort, Writer *out)
{
    assert(len > 0); /* FreeRDP refuses an empty segment */
    if (len <= ZGFX_SEGMENT_BYTES) {
        writer_u8(out, DESCRIPTOR_SINGLE);
        wrap_segment(z, data, len, effort, out);
        return;
    }
    if (segments_of(len) > UINT16_MAX) {
        out->failed = true;
        return;
    }
    writer_u8(out, DESCRIPTOR_MULTIPART);
    writer_u16(out, (uint16_t)segments_of(len));
    writer_u32(out, (uint32_t)len);
    while (len > 0) {
        size_t n = len < ZGFX_SEGMENT_BYTES ? len : ZGFX_SEGMENT_BYTES;
        size_t at = out->len;
        writer_u32(out, 0);
        wrap_segment(z, data, n, effort, out);
        writer_patch_u32(out, at, (uint32_t)(out->len - at - 4));
        data += n;
        len -= n;
    }
}
