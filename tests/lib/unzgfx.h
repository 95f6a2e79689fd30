/*
 * A strict decoder of RDP_SEGMENTED_DATA (MS-RDPEGFX 2.2.5.1, 3.1.9.1), written from the document
 * for the tests: aborts on whatever a compressor must not send, also where real decoders are
 * lenient.
 */
#ifndef QRDP_TESTS_UNZGFX_H
#define QRDP_TESTS_UNZGFX_H

#include "bytes.h"

typedef struct Unzgfx Unzgfx;

Unzgfx *unzgfx_new(void);
void unzgfx_free(Unzgfx *unzgfx);
/** Appends what one message carries to @out. */
void unzgfx_unwrap(Unzgfx *unzgfx, const uint8_t *data, size_t len, Writer *out);

#endif
