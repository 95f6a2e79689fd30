/*
 * One pass over a strip for all that planning needs to know of its columns. Four columns at a time
 * go down the rows with their sums in registers.
 */
#include "clearcodec_priv.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

void clear_columns_scalar(const Bitmap *b, unsigned y, unsigned rows, unsigned x0, unsigned x1,
                          uint32_t background, Columns *c)
{
    for (unsigned x = x0; x < x1; x++) {
        uint32_t hash = rows, edges = 0, ink = 0;
        for (unsigned i = 0; i < rows; i++) {
            uint32_t pixel = bitmap_pixel(b, x, y + i);
            c->pixels[(size_t)i * c->cap + x] = pixel;
            hash = hash_pixel(hash, pixel);
            ink += pixel != background;
            edges += x > 0 && pixel != bitmap_pixel(b, x - 1, y + i);
        }
        c->hash[x] = hash;
        c->ink[x] = ink;
        c->edges[x] = x > 0 ? edges : ink;
    }
}

#ifdef __SSE2__

static void four_columns(const Bitmap *b, unsigned y, unsigned rows, unsigned x,
                         uint32_t background, Columns *c)
{
    const uint8_t *src = b->bgrx + y * b->stride + (size_t)x * 4;
    const __m128i mask = _mm_set1_epi32(0xFFFFFF);
    const __m128i paper = _mm_set1_epi32((int)background);
    __m128i hash = _mm_set1_epi32((int)rows);
    __m128i same = _mm_setzero_si128(), blank = _mm_setzero_si128();
    __m128i all = _mm_set1_epi32((int)rows);

    for (unsigned i = 0; i < rows; i++, src += b->stride) {
        __m128i p = _mm_and_si128(_mm_loadu_si128((const __m128i *)src), mask);
        __m128i left = _mm_and_si128(_mm_loadu_si128((const __m128i *)(src - 4)), mask);
        __m128i turned = _mm_or_si128(_mm_slli_epi32(hash, 9), _mm_srli_epi32(hash, 23));
        hash = _mm_add_epi32(_mm_add_epi32(turned, _mm_slli_epi32(turned, 2)), p);
        same = _mm_sub_epi32(same, _mm_cmpeq_epi32(p, left));
        blank = _mm_sub_epi32(blank, _mm_cmpeq_epi32(p, paper));
        _mm_storeu_si128((__m128i *)(c->pixels + (size_t)i * c->cap + x), p);
    }
    _mm_storeu_si128((__m128i *)(c->hash + x), hash);
    _mm_storeu_si128((__m128i *)(c->edges + x), _mm_sub_epi32(all, same));
    _mm_storeu_si128((__m128i *)(c->ink + x), _mm_sub_epi32(all, blank));
}

#endif

void clear_columns(const Bitmap *b, unsigned y, unsigned rows, uint32_t background, Columns *c)
{
    unsigned x = 1;

    clear_columns_scalar(b, y, rows, 0, 1, background, c);
#ifdef __SSE2__
    for (; x + 4 <= b->w; x += 4)
        four_columns(b, y, rows, x, background, c);
#endif
    clear_columns_scalar(b, y, rows, x, b->w, background, c);
}
