/*
 * Pixels compared: 32 bits each, bytes B, G, R, X, and X does not count (guests leave anything in
 * it). For inner loops only, hence inline.
 */
#ifndef QRDP_PIXELS_H
#define QRDP_PIXELS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define PIXEL_MASK 0x00FFFFFFu

static inline uint32_t pixel_at(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, 4);
    return v & PIXEL_MASK;
}

/* The scalar twin of pixels_difference(), for what is left over and for the unit test. */
static inline uint32_t pixels_difference_scalar(const uint8_t *a, const uint8_t *b, unsigned n)
{
    uint32_t mask = 0;

    for (unsigned i = 0; i < n; i++)
        mask |= (uint32_t)(pixel_at(a + i * 4) != pixel_at(b + i * 4)) << i;
    return mask;
}

/** A bit for each of @n pixels (at most 32) that differs, the first one lowest. */
static inline uint32_t pixels_difference(const uint8_t *a, const uint8_t *b, unsigned n)
{
#ifdef __SSE2__
    const __m128i keep = _mm_set1_epi32((int)PIXEL_MASK), zero = _mm_setzero_si128();
    uint32_t mask = 0;
    unsigned i = 0;

    for (; i + 4 <= n; i += 4) {
        __m128i x = _mm_loadu_si128((const __m128i *)(const void *)(a + i * 4));
        __m128i y = _mm_loadu_si128((const __m128i *)(const void *)(b + i * 4));
        __m128i same = _mm_cmpeq_epi32(_mm_and_si128(_mm_xor_si128(x, y), keep), zero);
        mask |= (~(uint32_t)_mm_movemask_ps(_mm_castsi128_ps(same)) & 15u) << i;
    }
    if (i < n)
        mask |= pixels_difference_scalar(a + i * 4, b + i * 4, n - i) << i;
    return mask;
#else
    return pixels_difference_scalar(a, b, n);
#endif
}

/** Whether 16 pixels are equal: pixels_difference() of them is 0. */
static inline bool pixels_equal_16(const uint8_t *a, const uint8_t *b)
{
#ifdef __SSE2__
    __m128i any = _mm_setzero_si128();

    for (unsigned i = 0; i < 64; i += 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)(const void *)(a + i));
        __m128i y = _mm_loadu_si128((const __m128i *)(const void *)(b + i));
        any = _mm_or_si128(any, _mm_xor_si128(x, y));
    }
    any = _mm_and_si128(any, _mm_set1_epi32((int)PIXEL_MASK));
    return _mm_movemask_epi8(_mm_cmpeq_epi8(any, _mm_setzero_si128())) == 0xFFFF;
#else
    return pixels_difference_scalar(a, b, 16) == 0;
#endif
}

static inline bool pixels_equal(const uint8_t *a, const uint8_t *b, unsigned n)
{
    for (; n >= 16; a += 64, b += 64, n -= 16) {
        if (!pixels_equal_16(a, b))
            return false;
    }
    return pixels_difference(a, b, n) == 0;
}

#endif
