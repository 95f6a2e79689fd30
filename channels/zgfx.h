/*
 * The RDP 8.0 bulk compressor (MS-RDPEGFX 3.1.9.1), server to client: turns the messages of one
 * graphics channel into RDP_SEGMENTED_DATA (2.2.5.1).
 *
 * Pure: bytes in, bytes out. Owner: the Encoder. Thread: its owner's. Both ends keep the last 2.5
 * MB of the channel, ours from zgfx_new() or zgfx_forget() on: each client that gets all messages
 * since then, and nothing in between, can read them. Takes 8 MB.
 */
#ifndef QRDP_CHANNELS_ZGFX_H
#define QRDP_CHANNELS_ZGFX_H

#include <stddef.h>
#include <stdint.h>

#include "bytes.h"

#define ZGFX_SEGMENT_BYTES 65535u /* uncompressed bytes of one segment (3.1.9.1.2) */
#define ZGFX_HISTORY_BYTES 2500000u
/** Bytes that a single stored segment adds. */
#define ZGFX_STORED_BYTES 2u

typedef enum ZgfxEffort {
    ZGFX_STORE,    /* for what will not compress; the decoder remembers it all the same */
    ZGFX_COMPRESS, /* each segment that does not shrink is stored */
    ZGFX_FAST,     /* the same with less care, for what there is very much of */
} ZgfxEffort;

typedef struct Zgfx Zgfx;

/** Never NULL: aborts without memory. */
Zgfx *zgfx_new(void);
void zgfx_free(Zgfx *zgfx);
/** From here on nothing refers to what came before: somebody else may begin to listen. */
void zgfx_forget(Zgfx *zgfx);
/** The most that zgfx_wrap() appends for a message of @len bytes. */
size_t zgfx_bound(size_t len);
/** Appends one message of @len >= 1 bytes as one RDP_SEGMENTED_DATA: a single segment if it fits.
 * Every message has to be sent, in the order of wrapping. More than 65535 segments fail @out. */
void zgfx_wrap(Zgfx *zgfx, const uint8_t *data, size_t len, ZgfxEffort effort, Writer *out);
/** Appends one message of 1 to ZGFX_SEGMENT_BYTES bytes as it is: what one client alone is told,
 * before the messages of a Zgfx begin. */
void zgfx_store(const uint8_t *data, size_t len, Writer *out);

#endif
