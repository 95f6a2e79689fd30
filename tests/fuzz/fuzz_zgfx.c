/*
 * The bulk compressor's round trip. The input is a list of messages: a control byte and a length
 * byte, then as many bytes of the input, which are sent as they are or repeated up to three
 * segments. FreeRDP's decoder and the strict one must both give back every message, after any
 * others.
 */
#include "zgfx.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <freerdp/codec/zgfx.h>

#include "unzgfx.h"

#define MAX_MESSAGE 150000u
#define MAX_TOTAL 6000000u /* of one input: over two histories */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t message[MAX_MESSAGE];
    ZGFX_CONTEXT *freerdp = zgfx_context_new(FALSE);
    Unzgfx *strict = unzgfx_new();
    Zgfx *zgfx = zgfx_new();
    size_t total = 0;
    Reader r;

    reader_init(&r, data, size);
    while (reader_left(&r) >= 3 && total < MAX_TOTAL) {
        uint8_t control = reader_u8(&r);
        size_t n = 1u + reader_u8(&r);
        if (n > reader_left(&r))
            n = reader_left(&r);
        const uint8_t *bytes = reader_bytes(&r, n);
        size_t len = control & 2 ? 1 + (size_t)n * (control >> 2) * 9 : n;
        for (size_t at = 0; at < len; at += n)
            memcpy(message + at, bytes, len - at < n ? len - at : n);
        total += len;

        Writer wire, plain;
        BYTE *out;
        UINT32 out_len;
        writer_init(&wire, zgfx_bound(len));
        writer_init(&plain, len);
        zgfx_wrap(zgfx, message, len,
                  control & 1    ? ZGFX_STORE
                  : control & 64 ? ZGFX_FAST
                                 : ZGFX_COMPRESS,
                  &wire);
        assert(writer_ok(&wire));
        unzgfx_unwrap(strict, wire.data, wire.len, &plain);
        assert(plain.len == len && memcmp(plain.data, message, len) == 0);
        assert(zgfx_decompress(freerdp, wire.data, (UINT32)wire.len, &out, &out_len, 0) >= 0);
        assert(out_len == len && memcmp(out, message, len) == 0);
        free(out);
        writer_clear(&wire);
        writer_clear(&plain);
    }
    zgfx_free(zgfx);
    unzgfx_free(strict);
    zgfx_context_free(freerdp);
    return 0;
}
