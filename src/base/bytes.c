#include "bytes.h"

#include <stdlib.h>
#include <string.h>

void reader_init(Reader *r, const void *data, size_t len)
{
    *r = (Reader){.data = data, .len = len};
}

const uint8_t *reader_bytes(Reader *r, size_t n)
{
    if (r->failed || n > r->len - r->pos) {
        r->failed = true;
        return NULL;
    }
    const uint8_t *p = r->data ? r->data + r->pos : (const uint8_t *)"";
    r->pos += n;
    return p;
}

static uint64_t read_le(Reader *r, size_t n)
{
    const uint8_t *p = reader_bytes(r, n);
    uint64_t v = 0;

    for (size_t i = 0; p && i < n; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static uint64_t read_be(Reader *r, size_t n)
{
    const uint8_t *p = reader_bytes(r, n);
    uint64_t v = 0;

    for (size_t i = 0; p && i < n; i++)
        v = v << 8 | p[i];
    return v;
}

uint8_t reader_u8(Reader *r)
{
    return (uint8_t)read_le(r, 1);
}

uint16_t reader_u16(Reader *r)
{
    return (uint16_t)read_le(r, 2);
}

uint32_t reader_u32(Reader *r)
{
    return (uint32_t)read_le(r, 4);
}

uint64_t reader_u64(Reader *r)
{
    return read_le(r, 8);
}

uint16_t reader_u16be(Reader *r)
{
    return (uint16_t)read_be(r, 2);
}

uint32_t reader_u32be(Reader *r)
{
    return (uint32_t)read_be(r, 4);
}

void reader_skip(Reader *r, size_t n)
{
    reader_bytes(r, n);
}

Reader reader_sub(Reader *r, size_t n)
{
    Reader sub = {.data = reader_bytes(r, n)};

    if (sub.data)
        sub.len = n;
    else
        sub.failed = true;
    return sub;
}

size_t reader_left(const Reader *r)
{
    return r->failed ? 0 : r->len - r->pos;
}

bool reader_ok(const Reader *r)
{
    return !r->failed;
}

bool reader_done(const Reader *r)
{
    return !r->failed && r->pos == r->len;
}

void writer_init(Writer *w, size_t max)
{
    *w = (Writer){.max = max};
}

void writer_clear(Writer *w)
{
    free(w->data);
    *w = (Writer){.max = w->max};
}

uint8_t *writer_reserve(Writer *w, size_t n)
{
    if (w->failed || n > w->max - w->len) {
        w->failed = true;
        return NULL;
    }
    if (n > w->cap - w->len) {
        size_t cap = w->cap ? w->cap : 64;
        while (cap - w->len < n)
            cap *= 2;
        if (cap > w->max)
            cap = w->max;
        uint8_t *data = realloc(w->data, cap ? cap : 1);
        if (!data)
            abort(); /* all sizes are bounded: nothing sensible can be done without memory */
        w->data = data;
        w->cap = cap;
    }
    if (!w->data && !(w->data = malloc(1)))
        abort();
    uint8_t *p = w->data + w->len;
    w->len += n;
    return p;
}

static void write_le(Writer *w, uint64_t v, size_t n)
{
    uint8_t *p = writer_reserve(w, n);

    for (size_t i = 0; p && i < n; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static void write_be(Writer *w, uint64_t v, size_t n)
{
    uint8_t *p = writer_reserve(w, n);

    for (size_t i = 0; p && i < n; i++)
        p[i] = (uint8_t)(v >> (8 * (n - 1 - i)));
}

void writer_u8(Writer *w, uint8_t v)
{
    write_le(w, v, 1);
}

void writer_u16(Writer *w, uint16_t v)
{
    write_le(w, v, 2);
}

void writer_u32(Writer *w, uint32_t v)
{
    write_le(w, v, 4);
}

void writer_u64(Writer *w, uint64_t v)
{
    write_le(w, v, 8);
}

void writer_u16be(Writer *w, uint16_t v)
{
    write_be(w, v, 2);
}

void writer_u32be(Writer *w, uint32_t v)
{
    write_be(w, v, 4);
}

void writer_bytes(Writer *w, const void *data, size_t n)
{
    uint8_t *p = writer_reserve(w, n);

    if (p && n)
        memcpy(p, data, n);
}

void writer_zero(Writer *w, size_t n)
{
    uint8_t *p = writer_reserve(w, n);

    if (p && n)
        memset(p, 0, n);
}

static void patch_le(Writer *w, size_t at, uint64_t v, size_t n)
{
    if (w->failed || at > w->len || n > w->len - at) {
        w->failed = true;
        return;
    }
    for (size_t i = 0; i < n; i++)
        w->data[at + i] = (uint8_t)(v >> (8 * i));
}

void writer_patch_u16(Writer *w, size_t at, uint16_t v)
{
    patch_le(w, at, v, 2);
}

void writer_patch_u32(Writer *w, size_t at, uint32_t v)
{
    patch_le(w, at, v, 4);
}

void writer_truncate(Writer *w, size_t at)
{
    if (at < w->len)
        w->len = at;
}

bool writer_ok(const Writer *w)
{
    return !w->failed;
}

uint8_t *writer_steal(Writer *w, size_t *len)
{
    uint8_t *data = NULL;

    *len = 0;
    if (!w->failed) {
        writer_reserve(w, 0); /* an empty message is not a failed one */
        data = w->data;
        *len = w->len;
        w->data = NULL;
    }
    writer_clear(w);
    return data;
}
