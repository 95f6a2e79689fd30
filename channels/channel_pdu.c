#include "channel_pdu.h"

#include "bytes.h"

#define TPKT_VERSION 3             /* RFC 1006, section 6 */
#define TPKT_BYTES 4               /* its header, which its length includes */
#define X224_DATA 0xF0             /* X.224 13.7 */
#define X224_DATA_BYTES 2          /* what follows the length indicator */
#define X224_END 0x80              /* the last part of a TSDU: RDP knows no other */
#define MCS_SEND_DATA_REQUEST 0x64 /* T.125 7, choice 25 in aligned PER */
#define MCS_FIRST_USER 1001        /* T.125 7, DynamicChannelId */
#define PER_LONG 0x80              /* X.691 10.9.3.7: two bytes of length, 14 bits */
#define PER_FRAGMENTED 0x40

static size_t read_per_length(Reader *r)
{
    uint8_t first = reader_u8(r);

    if (!(first & PER_LONG))
        return first;
    if (first & PER_FRAGMENTED)
        r->failed = true;
    return (size_t)(first & 0x3F) << 8 | reader_u8(r);
}

bool channel_pdu_read(ChannelPdu *pdu, const uint8_t *bytes, size_t len)
{
    Reader all;

    reader_init(&all, bytes, len);
    if (reader_u8(&all) != TPKT_VERSION)
        return false;
    reader_skip(&all, 1); /* reserved */
    pdu->size = reader_u16be(&all);
    if (!reader_ok(&all) || pdu->size < TPKT_BYTES)
        return false;
    Reader r = reader_sub(&all, pdu->size - TPKT_BYTES);
    if (reader_u8(&r) != X224_DATA_BYTES || reader_u8(&r) != X224_DATA ||
        reader_u8(&r) != X224_END || reader_u8(&r) != MCS_SEND_DATA_REQUEST)
        return false;
    uint16_t user = reader_u16be(&r); /* this client, as an offset from MCS_FIRST_USER */
    pdu->channel = reader_u16be(&r);
    reader_skip(&r, 1); /* priority and segmentation, which RDP does not use */
    size_t rest = read_per_length(&r);
    if (!reader_ok(&r) || user > UINT16_MAX - MCS_FIRST_USER || rest != reader_left(&r))
        return false;
    pdu->total = reader_u32(&r);
    pdu->flags = reader_u32(&r);
    pdu->len = reader_left(&r);
    pdu->data = reader_bytes(&r, pdu->len);
    return reader_done(&r);
}
