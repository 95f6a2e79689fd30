/*
 * Theory of operation. A tile of 64x64 pixels becomes three planes with 5 fractional bits
 * (3.1.8.1.3), each of these three times a quarter as large and three bands of differences
 * (3.1.8.1.4, the 5/3 wavelet), whose coefficients are divided by a power of two for each band
 * (3.1.8.1.5) and written by RLGR1 (3.1.8.1.7.3), which adapts to runs of zeros as it goes. Not by
 * RLGR3: FreeRDP 3.33's decoder refuses some of its streams ("val2Shift"), which 2.11 to 3.30
 * decode to the same values as these. Every decoder knows both.
 *
 * FreeRDP has an encoder, with one quality. This one takes the powers of two from a level, so that
 * a slow link gets coarser pictures instead of fewer. They grow one band after the other, the
 * finest details first. Quotients are rounded towards zero a little (DEAD_ZONE): what is in between
 * costs more bits than it is worth, but for the mean values of the last band.
 *
 * A run of zeros always ends in a value, and the last one of a plane has none. Windows' encoder
 * goes on with a -1 behind the last coefficient (the tile of example 4.2.4 does, decoded), and
 * decoders drop it; so do we. FreeRDP's encoder makes the last zero a 1 instead, a coloured square
 * in each tile of a flat picture.
 */
#include "remotefx.h"

#include <assert.h>
#include <string.h>

#define PIXELS (REMOTEFX_TILE * REMOTEFX_TILE)
/* Bytes of a plane. Of 9 bits with sign, as which level 0 leaves the largest coefficients, no
 * sequence makes RLGR write more than 5511 bytes (a search over all states of its two parameters).
 */
#define MAX_COMPONENT 8192u
#define DEAD_ZONE(step) ((step) / 2 - (step) / 8)

enum { /* block types (2.2.2.1.1) */
       WBT_SYNC = 0xCCC0,
       WBT_CODEC_VERSIONS = 0xCCC1,
       WBT_CHANNELS = 0xCCC2,
       WBT_CONTEXT = 0xCCC3,
       WBT_FRAME_BEGIN = 0xCCC4,
       WBT_FRAME_END = 0xCCC5,
       WBT_REGION = 0xCCC6,
       WBT_EXTENSION = 0xCCC7,
       CBT_REGION = 0xCAC1,
       CBT_TILESET = 0xCAC2,
       CBT_TILE = 0xCAC3,
};

/* cct 1 (ICT), xft 1 (5/3), et 1 (RLGR1), qt 1 (scalar); video mode (2.2.2.2.4); the same behind lt
 * (2.2.2.3.4) */
#define PROPERTIES (1u << 3 | 1u << 5 | 1u << 9 | 1u << 13)
#define TILESET_PROPERTIES (PROPERTIES << 1 | 1u)

/* Bands in the order of TS_RFX_CODEC_QUANT (2.2.2.1.5). */
typedef enum Band { LL3, LH3, HL3, HH3, LH2, HL2, HH2, LH1, HL1, HH1, BANDS } Band;

static const struct {
    uint16_t at, n;  /* of a plane's coefficients (3.1.8.1.4) */
    uint8_t best[2]; /* quantiser of level 0: luma, chroma */
    uint8_t turn;    /* who becomes coarser first */
} bands[BANDS] = {
    [LL3] = {4032, 64, {6, 6}, 6},  [LH3] = {3904, 64, {6, 6}, 5},
    [HL3] = {3840, 64, {6, 6}, 5},  [HH3] = {3968, 64, {6, 7}, 4},
    [LH2] = {3328, 256, {7, 8}, 3}, [HL2] = {3072, 256, {7, 8}, 3},
    [HH2] = {3584, 256, {8, 9}, 2}, [LH1] = {1024, 1024, {8, 9}, 1},
    [HL1] = {0, 1024, {8, 9}, 1},   [HH1] = {2048, 1024, {9, 10}, 0},
};
#define TURNS 7u
#define MOST_QUANT 15u

static unsigned quant_of(Band band, unsigned chroma, unsigned level)
{
    unsigned q = bands[band].best[chroma] + (level + TURNS - 1 - bands[band].turn) / TURNS;

    return q > MOST_QUANT ? MOST_QUANT : q;
}

/* --- planes --- */

static int16_t clamp(int v)
{
    return (int16_t)(v < -4096 ? -4096 : v > 4095 ? 4095 : v);
}

/* 64x64 pixels to planes; what is beyond the picture is its last column and row. */
static void to_planes(const RemotefxPicture *p, unsigned x, unsigned y, int16_t planes[3][PIXELS])
{
    unsigned columns = p->width - x < REMOTEFX_TILE ? p->width - x : REMOTEFX_TILE;

    for (unsigned row = 0; row < REMOTEFX_TILE; row++) {
        unsigned from = y + row < p->height ? y + row : p->height - 1u;
        uint8_t line[REMOTEFX_TILE * 4];
        int16_t *luma = planes[0] + row * REMOTEFX_TILE, *cb = planes[1] + row * REMOTEFX_TILE,
                *cr = planes[2] + row * REMOTEFX_TILE;

        const uint8_t *pixels = p->bgrx + from * p->stride + x * 4;
        if (columns == REMOTEFX_TILE)
            memcpy(line, pixels, sizeof(line)); /* of a size that the compiler knows */
        else
            memcpy(line, pixels, columns * 4);
        for (unsigned i = columns; i < REMOTEFX_TILE; i++)
            memcpy(line + i * 4, line + i * 4 - 4, 4);
        for (unsigned i = 0; i < REMOTEFX_TILE; i++) {
            int b = line[i * 4], g = line[i * 4 + 1], r = line[i * 4 + 2];
            luma[i] = clamp(((r * 9798 + g * 19235 + b * 3735) >> 10) - 4096);
            cb[i] = clamp((b * 16403 - r * 5535 - g * 10868) >> 10);
            cr[i] = clamp((r * 16377 - g * 13714 - b * 2663) >> 10);
        }
    }
}

/* --- wavelet --- */

/* Rows of @side values to their lower half in @out and the differences behind them. */
static void split_columns(const int16_t *in, int16_t *out, unsigned side)
{
    unsigned half = side / 2;

    for (unsigned y = 0; y < half; y++) {
        const int16_t *a = in + (size_t)2 * y * side, *b = a + side,
                      *c = y + 1 < half ? b + side : a;
        int16_t *low = out + (size_t)y * side, *high = low + (size_t)half * side;
        const int16_t *before = y > 0 ? high - side : high;

        for (unsigned x = 0; x < side; x++)
            high[x] = (int16_t)((b[x] - ((a[x] + c[x]) >> 1)) >> 1);
        for (unsigned x = 0; x < side; x++)
            low[x] = (int16_t)(a[x] + ((before[x] + high[x]) >> 1));
    }
}

static void split_row(const int16_t *in, int16_t *low, int16_t *high, unsigned half)
{
    int16_t even[REMOTEFX_TILE / 2 + 1], odd[REMOTEFX_TILE / 2];

    for (unsigned n = 0; n < half; n++) {
        even[n] = in[2 * n];
        odd[n] = in[2 * n + 1];
    }
    even[half] = even[half - 1];
    for (unsigned n = 0; n < half; n++)
        high[n] = (int16_t)((odd[n] - ((even[n] + even[n + 1]) >> 1)) >> 1);
    low[0] = (int16_t)(even[0] + high[0]);
    for (unsigned n = 1; n < half; n++)
        low[n] = (int16_t)(even[n] + ((high[n - 1] + high[n]) >> 1));
}

/* One step: HL, LH, HH and LL, each of half the side, in place of the values. */
static void split(int16_t *values, unsigned side)
{
    int16_t tmp[PIXELS];
    unsigned half = side / 2, quarter = half * half;

    split_columns(values, tmp, side);
    for (unsigned y = 0; y < half; y++) {
        split_row(tmp + (size_t)y * side, values + 3 * quarter + y * half, values + y * half, half);
        split_row(tmp + (size_t)(half + y) * side, values + quarter + y * half,
                  values + 2 * quarter + y * half, half);
    }
}

/* --- quantisation --- */

static void divide(int16_t *values, unsigned n, unsigned shift, int add)
{
    for (unsigned i = 0; i < n; i++) {
        int sign = values[i] >> 15, magnitude = (values[i] ^ sign) - sign;
        values[i] = (int16_t)((((magnitude + add) >> shift) ^ sign) - sign);
    }
}

static void quantise(int16_t *values, unsigned chroma, unsigned level)
{
    for (Band band = 0; band < BANDS; band++) {
        unsigned shift = quant_of(band, chroma, level) - 1; /* 6 takes the 5 fractional bits */
        int step = 1 << shift;
        divide(values + bands[band].at, bands[band].n, shift,
               band == LL3 ? step / 2 : DEAD_ZONE(step));
    }
    int16_t *mean = values + bands[LL3].at; /* as differences (3.1.8.1.6) */
    for (unsigned i = bands[LL3].n - 1; i > 0; i--)
        mean[i] = (int16_t)(mean[i] - mean[i - 1]);
}

/* --- RLGR --- */

typedef struct Bits {
    uint8_t *at, *end;
    uint64_t waiting; /* the last .n bits, n < 32 */
    unsigned n;
} Bits;

static void put(Bits *b, unsigned n, uint32_t value)
{
    b->waiting = b->waiting << n | value;
    b->n += n;
    if (b->n >= 32) {
        uint32_t word = __builtin_bswap32((uint32_t)(b->waiting >> (b->n - 32)));
        assert(b->end - b->at >= 4);
        memcpy(b->at, &word, 4);
        b->at += 4;
        b->n -= 32;
    }
}

static void put_ones(Bits *b, unsigned n)
{
    for (; n > 24; n -= 24)
        put(b, 24, 0xFFFFFF);
    put(b, n, (1u << n) - 1);
}

static void flush(Bits *b)
{
    unsigned bytes = (b->n + 7) / 8;

    put(b, bytes * 8 - b->n, 0);
    for (; b->n > 0; b->n -= 8) {
        assert(b->at < b->end);
        *b->at++ = (uint8_t)(b->waiting >> (b->n - 8));
    }
}

#define BEYOND (-1) /* what comes behind the last coefficient */

enum { LSGR = 3, KPMAX = 80, UP_GR = 4, DN_GR = 6, UQ_GR = 3, DQ_GR = 3 };

static void adapt(int *parameter, int by)
{
    int p = *parameter + by;

    *parameter = p < 0 ? 0 : p > KPMAX ? KPMAX : p;
}

/* Golomb-Rice: the quotient by 2^kr in ones, a zero, the rest in kr bits. */
static void put_gr(Bits *b, int *krp, uint32_t value)
{
    unsigned kr = (unsigned)*krp >> LSGR;
    const uint32_t ones = value >> kr;

    put_ones(b, ones);
    put(b, 1 + kr, value & ((1u << kr) - 1));
    if (ones == 0)
        adapt(krp, -2);
    else if (ones > 1)
        adapt(krp, (int)ones);
}

static uint32_t twice_with_sign(int v)
{
    return v >= 0 ? (uint32_t)(2 * v) : (uint32_t)(-2 * v - 1);
}

static unsigned zeros_at(const int16_t *values, unsigned n)
{
    unsigned zeros = 0;

    for (uint64_t four; zeros + 4 <= n; zeros += 4) {
        memcpy(&four, values + zeros, sizeof(four));
        if (four)
            break;
    }
    while (zeros < n && values[zeros] == 0)
        zeros++;
    return zeros;
}

/* A run of zeros, and the value behind it. Returns how many values that took. */
static unsigned put_run(Bits *b, const int16_t *values, unsigned n, int *kp, int *krp)
{
    unsigned zeros = zeros_at(values, n), left = zeros, k = (unsigned)*kp >> LSGR;
    for (; left >= 1u << k; k = (unsigned)*kp >> LSGR) {
        put(b, 1, 0);
        left -= 1u << k;
        adapt(kp, UP_GR);
    }
    put(b, 1 + k, 1u << k | left);
    int value = zeros < n ? values[zeros] : BEYOND;
    put(b, 1, value < 0);
    uint32_t magnitude = (uint32_t)(value < 0 ? -value : value);
    put_gr(b, krp, magnitude - 1);
    adapt(kp, -DN_GR);
    return zeros + 1;
}

/* The document has the two changes of kp the wrong way round. */
static void put_single(Bits *b, int value, int *kp, int *krp)
{
    uint32_t twice = twice_with_sign(value);

    put_gr(b, krp, twice);
    adapt(kp, twice ? -DQ_GR : UQ_GR);
}

static size_t put_values(const int16_t *values, uint8_t *out)
{
    Bits bits = {.at = out, .end = out + MAX_COMPONENT};
    int kp = 1 << LSGR, krp = 1 << LSGR;

    for (unsigned i = 0; i < PIXELS;) {
        if (kp >> LSGR)
            i += put_run(&bits, values + i, PIXELS - i, &kp, &krp);
        else
            put_single(&bits, values[i++], &kp, &krp);
    }
    flush(&bits);
    return (size_t)(bits.at - out);
}

/* --- messages --- */

static void write_tile(const RemotefxPicture *p, unsigned column, unsigned row, unsigned level,
                       Writer *out)
{
    int16_t planes[3][PIXELS];
    size_t start = out->len, at;

    to_planes(p, column * REMOTEFX_TILE, row * REMOTEFX_TILE, planes);
    writer_u16(out, CBT_TILE);
    writer_u32(out, 0);
    writer_u8(out, 0); /* quantiser of luma, of chroma twice */
    writer_u8(out, 1);
    writer_u8(out, 1);
    writer_u16(out, (uint16_t)column);
    writer_u16(out, (uint16_t)row);
    at = out->len;
    writer_zero(out, 6);
    for (unsigned i = 0; i < 3; i++) {
        split(planes[i], 64);
        split(planes[i] + 3072, 32);
        split(planes[i] + 3840, 16);
        quantise(planes[i], i > 0, level);
        size_t data = out->len;
        uint8_t *space = writer_reserve(out, MAX_COMPONENT);
        if (!space)
            return;
        size_t len = put_values(planes[i], space);
        writer_truncate(out, data + len);
        writer_patch_u16(out, at + i * 2, (uint16_t)len);
    }
    writer_patch_u32(out, start + 2, (uint32_t)(out->len - start));
}

static void write_quants(unsigned level, Writer *out)
{
    for (unsigned chroma = 0; chroma < 2; chroma++) {
        for (Band band = 0; band < BANDS; band += 2)
            writer_u8(out, (uint8_t)(quant_of(band, chroma, level) |
                                     quant_of(band + 1, chroma, level) << 4));
    }
}

static void begin_block(Writer *out, uint16_t type, uint32_t len)
{
    writer_u16(out, type);
    writer_u32(out, len);
}

static void begin_channel_block(Writer *out, uint16_t type, uint32_t len, uint8_t channel)
{
    begin_block(out, type, len);
    writer_u8(out, 1); /* codecId */
    writer_u8(out, channel);
}

/* The document wants a channel no higher than 2048 (2.2.2.1.3), which a film on a 4K screen may be.
 * Decoders go by the surface: FreeRDP's ignores the size, and there is no other way to say it. */
void remotefx_write_headers(const RemotefxPicture *picture, Writer *out)
{
    begin_block(out, WBT_SYNC, 12);
    writer_u32(out, 0xCACCACCA); /* magic */
    writer_u16(out, 0x0100);     /* version */
    begin_channel_block(out, WBT_CONTEXT, 13, 0xFF);
    writer_u8(out, 0); /* ctxId */
    writer_u16(out, REMOTEFX_TILE);
    writer_u16(out, PROPERTIES);
    begin_block(out, WBT_CODEC_VERSIONS, 10);
    writer_u8(out, 1); /* numCodecs */
    writer_u8(out, 1); /* codecId */
    writer_u16(out, 0x0100);
    begin_block(out, WBT_CHANNELS, 12);
    writer_u8(out, 1); /* numChannels */
    writer_u8(out, 0); /* channelId */
    writer_u16(out, picture->width);
    writer_u16(out, picture->height);
}

void remotefx_write(const RemotefxPicture *picture, uint16_t x, uint16_t y, uint16_t w, uint16_t h,
                    unsigned level, uint32_t frame, Writer *out)
{
    unsigned left = x / REMOTEFX_TILE, right = (x + w + REMOTEFX_TILE - 1) / REMOTEFX_TILE;
    unsigned top = y / REMOTEFX_TILE, bottom = (y + h + REMOTEFX_TILE - 1) / REMOTEFX_TILE;

    assert(w > 0 && h > 0 && x + w <= picture->width && y + h <= picture->height);
    assert(level < REMOTEFX_LEVELS);
    begin_channel_block(out, WBT_FRAME_BEGIN, 14, 0);
    writer_u32(out, frame);
    writer_u16(out, 1); /* numRegions */

    begin_channel_block(out, WBT_REGION, 15 + 8, 0);
    writer_u8(out, 1);  /* regionFlags: lrf */
    writer_u16(out, 1); /* numRects */
    writer_u16(out, x);
    writer_u16(out, y);
    writer_u16(out, w);
    writer_u16(out, h);
    writer_u16(out, CBT_REGION);
    writer_u16(out, 1); /* numTilesets */

    size_t start = out->len;
    begin_channel_block(out, WBT_EXTENSION, 0, 0);
    writer_u16(out, CBT_TILESET);
    writer_u16(out, 0); /* idx */
    writer_u16(out, TILESET_PROPERTIES);
    writer_u8(out, 2); /* numQuant */
    writer_u8(out, REMOTEFX_TILE);
    writer_u16(out, (uint16_t)((right - left) * (bottom - top)));
    size_t at = out->len;
    writer_u32(out, 0);
    write_quants(level, out);
    size_t tiles = out->len;
    for (unsigned row = top; row < bottom; row++) {
        for (unsigned column = left; column < right; column++)
            write_tile(picture, column, row, level, out);
    }
    writer_patch_u32(out, at, (uint32_t)(out->len - tiles));
    writer_patch_u32(out, start + 2, (uint32_t)(out->len - start));

    begin_channel_block(out, WBT_FRAME_END, 8, 0);
}
