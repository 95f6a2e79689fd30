/* What TLS brings, taken apart into chunks of a static channel. */
#include <assert.h>

#include "channel_pdu.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ChannelPdu pdu;

    while (channel_pdu_read(&pdu, data, size)) {
        assert(pdu.size <= size && pdu.len < pdu.size);
        assert(pdu.data + pdu.len == data + pdu.size);
        data += pdu.size;
        size -= pdu.size;
    }
    return 0;
}
