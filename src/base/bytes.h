/*
 * Reader and Writer: the only way to touch wire bytes.
 *
 * Owner: the caller, usually on its stack. Thread: any, one at a time.
 * Lifetime: a Reader borrows the bytes it reads; a Writer owns what it has written until
 * writer_steal() or writer_clear().
 *
 * Failure is sticky: read or write on, check once at the end. A failed Reader returns zeros and
 * NULL; a failed Writer drops what it is given. All multi-byte values are little endian unless
 * the name says otherwise.
 */
#ifndef QRDP_BASE_BYTES_H
#define QRDP_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Reader {
    const uint8_t *data;
    size_t len;
    size_t pos;
    bool failed;
} Reader;

/** Starts reading the @len bytes at @data (may be NULL when @len is 0). */
void reader_init(Reader *r, const void *data, size_t len);
uint8_t reader_u8(Reader *r);
uint16_t reader_u16(Reader *r);
uint32_t reader_u32(Reader *r);
uint64_t reader_u64(Reader *r);
uint16_t reader_u16be(Reader *r);
uint32_t reader_u32be(Reader *r);
/** Takes @n bytes: a pointer into the borrowed bytes, or NULL (and failure) if fewer are left. */
const uint8_t *reader_bytes(Reader *r, size_t n);
void reader_skip(Reader *r, size_t n);
/** Takes @n bytes as a Reader of their own; the result has failed if fewer are left. */
Reader reader_sub(Reader *r, size_t n);
/** Bytes left, 0 after a failure. */
size_t reader_left(const Reader *r);
bool reader_ok(const Reader *r);
/** True if nothing failed and every byte has been read: trailing bytes are an error. */
bool reader_done(const Reader *r);

typedef struct Writer {
    uint8_t *data;
    size_t len;
    size_t cap;
    size_t max;
    bool failed;
} Writer;

/** An empty Writer that refuses to grow past @max bytes (it allocates as it goes). */
void writer_init(Writer *w, size_t max);
void writer_clear(Writer *w);
void writer_u8(Writer *w, uint8_t v);
void writer_u16(Writer *w, uint16_t v);
void writer_u32(Writer *w, uint32_t v);
void writer_u64(Writer *w, uint64_t v);
void writer_u16be(Writer *w, uint16_t v);
void writer_u32be(Writer *w, uint32_t v);
void writer_bytes(Writer *w, const void *data, size_t n);
void writer_zero(Writer *w, size_t n);
/** Reserves @n uninitialised bytes and returns where they are (valid until the next write), or
 * NULL on failure. */
uint8_t *writer_reserve(Writer *w, size_t n);
/** Overwrites bytes written earlier at offset @at; fails if they were not written yet. */
void writer_patch_u16(Writer *w, size_t at, uint16_t v);
void writer_patch_u32(Writer *w, size_t at, uint32_t v);
/** Takes back all that was written from offset @at on. */
void writer_truncate(Writer *w, size_t at);
bool writer_ok(const Writer *w);
/** Hands the bytes to the caller, who frees them with free(); NULL if the Writer failed. The
 * Writer is empty afterwards and may be used again. */
uint8_t *writer_steal(Writer *w, size_t *len);

#endif
