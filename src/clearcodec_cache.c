/*
 * The client's V-bar, short V-bar and glyph storages as the server knows them. All of them are
 * rings: what is new overwrites the oldest, hit or not (MS-RDPEGFX 3.3.8.1). The pixels are kept to
 * compare with, so that a hash decides nothing, in a ring of their own that holds the V-bars of
 * text-high bands in full and forgets the oldest of taller ones: the server may know less than the
 * client has, never more. A short V-bar is a part of the V-bar that was stored along with it.
 *
 * A set of the hash table has four places, and whatever finds none displaces the oldest. Nothing
 * is ever deleted: an entry that was overwritten no longer has the hash that leads to its place.
 */
#include <assert.h>
#include <stdlib.h>

#include "clearcodec_priv.h"

static void *zeroed(size_t n, size_t size)
{
    void *p = calloc(n, size);

    if (!p)
        abort();
    return p;
}

uint32_t clear_hash(const uint32_t *pixels, unsigned n)
{
    uint32_t hash = n;

    for (unsigned i = 0; i < n; i++)
        hash = hash_pixel(hash, pixels[i]);
    return hash;
}

void pixel_ring_init(PixelRing *ring, uint64_t size)
{
    *ring = (PixelRing){.pixels = zeroed(size, sizeof(uint32_t)), .size = size};
}

uint64_t pixel_ring_put(PixelRing *ring, const uint32_t *pixels, unsigned n)
{
    uint64_t at = ring->head & (ring->size - 1);

    assert(n <= ring->size);
    if (n > ring->size - at) { /* in one piece */
        ring->head += ring->size - at;
        at = 0;
    }
    memcpy(ring->pixels + at, pixels, n * sizeof(uint32_t));
    ring->head += n;
    return ring->head - n;
}

void cache_init(Cache *cache, uint32_t size, unsigned set_bits)
{
    *cache = (Cache){.entries = zeroed(size, sizeof(CacheEntry)),
                     .sets = zeroed((size_t)1 << set_bits, sizeof(*cache->sets)),
                     .set_bits = set_bits,
                     .size = size};
}

void cache_forget(Cache *cache)
{
    memset(cache->entries, 0, cache->size * sizeof(CacheEntry));
    cache->cursor = 0;
}

static uint32_t set_of(const Cache *cache, uint32_t hash)
{
    return (hash * 0x9E3779B1u) >> (32 - cache->set_bits);
}

int cache_find(const Cache *cache, const PixelRing *ring, uint32_t hash, uint16_t shape,
               const uint32_t *pixels, unsigned len)
{
    const uint16_t *set = cache->sets[set_of(cache, hash)];

    for (unsigned i = 0; i < 4; i++) {
        const CacheEntry *entry = &cache->entries[set[i]];
        if (entry->hash == hash && entry->shape == shape && entry->len == len &&
            ring->head - entry->pos <= ring->size &&
            memcmp(ring->pixels + (entry->pos & (ring->size - 1)), pixels,
                   len * sizeof(uint32_t)) == 0)
            return set[i];
    }
    return -1;
}

uint32_t cache_push(Cache *cache, uint32_t hash, uint16_t shape, uint64_t pos, unsigned len)
{
    uint32_t index = cache->cursor;
    uint32_t set_index = set_of(cache, hash);
    uint16_t *set = cache->sets[set_index];
    unsigned place = 0;
    uint32_t oldest = 0;

    cache->entries[index].shape = 0;
    for (unsigned i = 0; i < 4; i++) {
        const CacheEntry *entry = &cache->entries[set[i]];
        if (entry->shape == 0 || set_of(cache, entry->hash) != set_index) {
            place = i;
            break;
        }
        uint32_t age = index >= set[i] ? index - set[i] : index + cache->size - set[i];
        if (age > oldest) {
            oldest = age;
            place = i;
        }
    }
    set[place] = (uint16_t)index;
    cache->entries[index] =
        (CacheEntry){.pos = pos, .hash = hash, .len = (uint16_t)len, .shape = shape};
    cache->cursor = index + 1 == cache->size ? 0 : index + 1;
    cache->pushes++;
    return index;
}

void cache_rewind(Cache *cache, uint32_t cursor, uint64_t pushes)
{
    uint64_t n = cache->pushes - pushes;

    for (uint64_t i = 0; i < n && i < cache->size; i++)
        cache->entries[(cursor + i) % cache->size].shape = 0;
    cache->cursor = cursor;
    cache->pushes = pushes;
}
