/*
 * Theory of operation. Clients compute R = Y + 403/256 (V - 128), and so on, with 8 fractional bits
 * (3.3.8.3.1). The document's own forward formula truncates and its luma weights add up to 255, so
 * white comes back as 254 and everything darker by half a step. Here the same matrix is rounded,
 * with weights that add up to 256: black, white and every grey come back exactly.
 *
 * Luma, per pixel: 54 R + 183 G + 19 B. The weights do not fit signed bytes, but with 128 taken off
 * the pixels those do, and no sum of a dot product then passes 16 bits (256 * -128 + 128). Chroma,
 * per 2x2 block: the four pixels are added first, so that rounding happens once.
 */
#include "video_convert.h"

#include <assert.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define WB 19
#define WG 183
#define WR 54

/* U and V of a block's four pixels: weights in 1/256, sums of four, so 10 fractional bits. */
enum { UB = 128, UG = -99, UR = -29, VB = -12, VG = -116, VR = 128 };

static uint8_t luma(const uint8_t *p)
{
    return (uint8_t)((WB * p[0] + WG * p[1] + WR * p[2] + 128) >> 8);
}

static uint8_t chroma(int sum)
{
    int c = ((sum + 512) >> 10) + 128;

    return (uint8_t)(c > 255 ? 255 : c);
}

/* Two rows of @n pixels, @n even, to two rows of luma and one of chroma. @b may be @a. */
static void rows_plain(const uint8_t *a, const uint8_t *b, uint8_t *y0, uint8_t *y1, uint8_t *u,
                       uint8_t *v, uint32_t n)
{
    for (uint32_t x = 0; x < n; x += 2, a += 8, b += 8) {
        int sum[3];
        for (int c = 0; c < 3; c++)
            sum[c] = a[c] + a[c + 4] + b[c] + b[c + 4];
        y0[x] = luma(a);
        y0[x + 1] = luma(a + 4);
        y1[x] = luma(b);
        y1[x + 1] = luma(b + 4);
        u[x / 2] = chroma(UB * sum[0] + UG * sum[1] + UR * sum[2]);
        v[x / 2] = chroma(VB * sum[0] + VG * sum[1] + VR * sum[2]);
    }
}

#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2")))

/* 32 pixels to 32 bytes of luma. hadd works within halves; the last permutation puts in order. */
AVX2 static void luma_32(const __m256i px[4], uint8_t *out)
{
    const __m256i weights = _mm256_set1_epi32(WB | WG << 8 | WR << 16);
    const __m256i sign = _mm256_set1_epi8((char)0x80), half = _mm256_set1_epi16(128);
    __m256i dot[4], low, high;

    for (int i = 0; i < 4; i++)
        dot[i] = _mm256_maddubs_epi16(weights, _mm256_xor_si256(px[i], sign));
    low = _mm256_add_epi16(_mm256_hadd_epi16(dot[0], dot[1]), half);
    high = _mm256_add_epi16(_mm256_hadd_epi16(dot[2], dot[3]), half);
    low = _mm256_packs_epi16(_mm256_srai_epi16(low, 8), _mm256_srai_epi16(high, 8));
    low = _mm256_permutevar8x32_epi32(low, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)(void *)out, _mm256_xor_si256(low, sign));
}

/* Sums of 2x2 blocks: 8 pixels of each row to 4 blocks of four 16-bit sums (B, G, R, X). */
AVX2 static __m256i block_sums(__m256i a, __m256i b)
{
    const __m256i zero = _mm256_setzero_si256();
    __m256i low = _mm256_add_epi16(_mm256_unpacklo_epi8(a, zero), _mm256_unpacklo_epi8(b, zero));
    __m256i high = _mm256_add_epi16(_mm256_unpackhi_epi8(a, zero), _mm256_unpackhi_epi8(b, zero));

    return _mm256_add_epi16(_mm256_unpacklo_epi64(low, high), _mm256_unpackhi_epi64(low, high));
}

/* 16 blocks, as block_sums() leaves them, to 16 bytes. */
AVX2 static void chroma_16(const __m256i sums[4], __m256i weights, uint8_t *out)
{
    const __m256i half = _mm256_set1_epi32(512), middle = _mm256_set1_epi16(128);
    __m256i a =
        _mm256_hadd_epi32(_mm256_madd_epi16(sums[0], weights), _mm256_madd_epi16(sums[1], weights));
    __m256i b =
        _mm256_hadd_epi32(_mm256_madd_epi16(sums[2], weights), _mm256_madd_epi16(sums[3], weights));

    a = _mm256_srai_epi32(_mm256_add_epi32(a, half), 10);
    b = _mm256_srai_epi32(_mm256_add_epi32(b, half), 10);
    a = _mm256_add_epi16(_mm256_packs_epi32(a, b), middle);
    a = _mm256_packus_epi16(a, a);
    /* halves hold blocks 0 1 4 5 8 9 12 13 and 2 3 6 7 10 11 14 15: pairs, to be interleaved */
    __m128i even = _mm256_castsi256_si128(a), odd = _mm256_extracti128_si256(a, 1);
    _mm_storeu_si128((__m128i *)(void *)out, _mm_unpacklo_epi16(even, odd));
}

AVX2 static void rows_avx2(const uint8_t *a, const uint8_t *b, uint8_t *y0, uint8_t *y1, uint8_t *u,
                           uint8_t *v, uint32_t n)
{
    const __m256i to_u =
        _mm256_set1_epi64x((int64_t)((uint64_t)(uint16_t)UB | (uint64_t)(uint16_t)UG << 16 |
                                     (uint64_t)(uint16_t)UR << 32));
    const __m256i to_v =
        _mm256_set1_epi64x((int64_t)((uint64_t)(uint16_t)VB | (uint64_t)(uint16_t)VG << 16 |
                                     (uint64_t)(uint16_t)VR << 32));
    uint32_t x = 0;

    for (; x + 32 <= n; x += 32) {
        __m256i pa[4], pb[4], sums[4];
        for (int i = 0; i < 4; i++) {
            pa[i] = _mm256_loadu_si256((const __m256i *)(const void *)(a + x * 4 + (size_t)i * 32));
            pb[i] = _mm256_loadu_si256((const __m256i *)(const void *)(b + x * 4 + (size_t)i * 32));
            sums[i] = block_sums(pa[i], pb[i]);
        }
        luma_32(pa, y0 + x);
        luma_32(pb, y1 + x);
        chroma_16(sums, to_u, u + x / 2);
        chroma_16(sums, to_v, v + x / 2);
    }
    rows_plain(a + (size_t)x * 4, b + (size_t)x * 4, y0 + x, y1 + x, u + x / 2, v + x / 2, n - x);
}
#endif

typedef void (*Rows)(const uint8_t *, const uint8_t *, uint8_t *, uint8_t *, uint8_t *, uint8_t *,
                     uint32_t);

static uint32_t up16(uint32_t n)
{
    return (n + 15) & ~15u;
}

/* The last column and row of the picture, repeated to multiples of 16. Odd sizes have converted
 * their last column and row by then. */
static void pad_plane(uint8_t *plane, uint32_t stride, uint32_t width, uint32_t height,
                      uint32_t to_width, uint32_t to_height, uint32_t top, uint32_t bottom)
{
    for (uint32_t y = top; y < bottom && to_width > width; y++) {
        uint8_t *row = plane + (size_t)y * stride;
        memset(row + width, row[width - 1], to_width - width);
    }
    for (uint32_t y = height; bottom == height && y < to_height; y++)
        memcpy(plane + (size_t)y * stride, plane + (size_t)(height - 1) * stride, to_width);
}

static void convert(VideoPlanes *planes, const uint8_t *bgrx, size_t stride, uint32_t width,
                    uint32_t height, const GfxRect *rect, Rows rows)
{
    uint32_t n = (rect->right - rect->left) & ~1u;

    assert(rect->left < rect->right && rect->right <= width);
    assert(rect->top < rect->bottom && rect->bottom <= height);
    assert(rect->left % 2 == 0 && (rect->right % 2 == 0 || rect->right == width));
    assert(rect->top % 2 == 0 && (rect->bottom % 2 == 0 || rect->bottom == height));
    for (uint32_t y = rect->top; y < rect->bottom; y += 2) {
        const uint8_t *a = bgrx + y * stride + rect->left * 4u;
        const uint8_t *b = y + 1 < rect->bottom ? a + stride : a;
        uint8_t *y0 = planes->data[0] + (size_t)y * planes->stride[0] + rect->left;
        uint8_t *y1 = y0 + planes->stride[0]; /* there even if it is padding */
        uint8_t *u = planes->data[1] + (size_t)(y / 2) * planes->stride[1] + rect->left / 2;
        uint8_t *v = planes->data[2] + (size_t)(y / 2) * planes->stride[2] + rect->left / 2;
        rows(a, b, y0, y1, u, v, n);
        if (n <
            (uint32_t)(rect->right - rect->left)) { /* an odd last column is its own neighbour */
            uint8_t pair[2][8];
            memcpy(pair[0], a + (size_t)n * 4, 4);
            memcpy(pair[0] + 4, a + (size_t)n * 4, 4);
            memcpy(pair[1], b + (size_t)n * 4, 4);
            memcpy(pair[1] + 4, b + (size_t)n * 4, 4);
            rows_plain(pair[0], pair[1], y0 + n, y1 + n, u + n / 2, v + n / 2, 2);
        }
    }
    if (rect->right < width && rect->bottom < height)
        return;
    for (int p = 0; p < 3; p++) {
        uint32_t s = p ? 1 : 0;
        pad_plane(planes->data[p], planes->stride[p],
                  rect->right == width ? (width + s) >> s : up16(width) >> s, (height + s) >> s,
                  up16(width) >> s, up16(height) >> s, rect->top >> s,
                  ((uint32_t)rect->bottom + s) >> s);
    }
}

void video_convert(VideoPlanes *planes, const uint8_t *bgrx, size_t stride, uint32_t width,
                   uint32_t height, const GfxRect *rect)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) {
        convert(planes, bgrx, stride, width, height, rect, rows_avx2);
        return;
    }
#endif
    video_convert_plain(planes, bgrx, stride, width, height, rect);
}

void video_convert_plain(VideoPlanes *planes, const uint8_t *bgrx, size_t stride, uint32_t width,
                         uint32_t height, const GfxRect *rect)
{
    convert(planes, bgrx, stride, width, height, rect, rows_plain);
}
