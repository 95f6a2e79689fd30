/*
 * One PDU of a static virtual channel as it comes from a client over TLS: TPKT, X.224 Data, MCS
 * Send Data Request and the channel header (MS-RDPBCGR 2.2.6.1, without a security header, 5.3.8).
 *
 * Owner: the caller, on its stack. Thread: any. Pure. Lifetime: borrows the bytes it was read from.
 */
#ifndef QRDP_CHANNELS_CHANNEL_PDU_H
#define QRDP_CHANNELS_CHANNEL_PDU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct ChannelPdu {
    size_t size; /* of the whole PDU, with all headers */
    uint16_t channel;
    uint32_t flags; /* DVC_CHUNK_* */
    uint32_t total; /* what the channel header claims for all chunks together */
    const uint8_t *data;
    size_t len;
} ChannelPdu;

/** Reads the PDU at the beginning of the @len bytes at @bytes. False: it is not all there, or it is
 * anything else than such a PDU in the form that clients write it; for others to judge. */
bool channel_pdu_read(ChannelPdu *pdu, const uint8_t *bytes, size_t len);

#endif
