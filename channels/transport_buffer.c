/*
 * Theory of operation. A channel's data travels in PDUs of 1600 bytes. FreeRDP reads the header of
 * each byte by byte and asks after each read whether it was told to stop, a poll() every time: five
 * reads and six polls for a PDU.
 *
 * Its transport may be given other functions: what has been decrypted is taken in large pieces,
 * from which the small reads are served. Only once the session is active: before that FreeRDP
 * changes what is below the transport (TLS, CredSSP), and may read in blocking mode, where asking
 * for more than is wanted would wait for ever. FreeRDP goes on reading until it is told that
 * nothing is left, so a whole PDU never stays here unnoticed.
 */
#include "transport_buffer.h"

#include <freerdp/transport_io.h>
#include <glib.h>
#include <string.h>

#define READ_BYTES 65536u

struct TransportBuffer {
    freerdp_peer *peer;
    rdpTransportIo original;
    size_t at, have; /* of in */
    uint8_t in[READ_BYTES];
};

static TransportBuffer *buffer_of(rdpTransport *transport)
{
    return freerdp_get_io_callback_context(transport_get_context(transport));
}

/* Like the original, short only if there is no more: a short answer makes FreeRDP wait for the
 * socket, where what TLS has already read will not show up. */
static SSIZE_T read_bytes(rdpTransport *transport, BYTE *data, size_t bytes)
{
    TransportBuffer *b = buffer_of(transport);
    size_t done = 0;

    while (done < bytes) {
        size_t n = MIN(bytes - done, b->have - b->at);

        memcpy(data + done, b->in + b->at, n);
        b->at += n;
        done += n;
        if (done == bytes)
            break;
        bool ahead = b->peer->activated && bytes - done < READ_BYTES;
        SSIZE_T got = b->original.ReadBytes(transport, ahead ? b->in : data + done,
                                            ahead ? READ_BYTES : bytes - done);
        if (got < 0)
            return got;
        if (got == 0)
            break;
        if (ahead) {
            b->at = 0;
            b->have = (size_t)got;
        } else {
            done += (size_t)got;
        }
    }
    return (SSIZE_T)done;
}

TransportBuffer *transport_buffer_new(freerdp_peer *peer)
{
    const rdpTransportIo *io = freerdp_get_io_callbacks(peer->context);

    if (!io)
        return NULL;
    TransportBuffer *b = g_new0(TransportBuffer, 1);
    b->peer = peer;
    b->original = *io;
    rdpTransportIo ours = *io;
    ours.ReadBytes = read_bytes;
    if (!freerdp_set_io_callback_context(peer->context, b) ||
        !freerdp_set_io_callbacks(peer->context, &ours)) {
        g_free(b);
        return NULL;
    }
    return b;
}

void transport_buffer_free(TransportBuffer *buffer)
{
    if (!buffer)
        return;
    freerdp_set_io_callbacks(buffer->peer->context, &buffer->original);
    freerdp_set_io_callback_context(buffer->peer->context, NULL);
    g_free(buffer);
}
