/*
 * Theory of operation. A channel's data travels in PDUs of 1600 bytes. FreeRDP reads the header of
 * each byte by byte and asks after each read whether it was told to stop, a poll() every time: five
 * reads and six polls for a PDU. And it writes each PDU on its own: a TLS record, a system call and
 * a wake-up of the client for 1600 bytes.
 *
 * Its transport may be given other functions. Reading: what TLS has decrypted is taken in large
 * pieces, from which the small reads are served. Only once the session is active: before that
 * FreeRDP changes what is below the transport (TLS, CredSSP), and may read in blocking mode, where
 * asking for more than is wanted would wait for ever. FreeRDP goes on reading until it is told that
 * nothing is left, so a whole PDU never stays here unnoticed. OpenSSL is asked directly for as long
 * as it has something, because FreeRDP would poll after each record; what ends that (an error, the
 * client's goodbye) is left to FreeRDP's own function, which meets it again.
 *
 * The chunks of one static channel, that of all dynamic ones, do not even become FreeRDP's PDUs:
 * whole ones are served to the owner from where TLS left them (channel_pdu.h). FreeRDP asks whether
 * it was told to stop before and after each PDU, copies it, and looks up its channel twice by its
 * name, which was a third of what receiving costs. What is cut off at the buffer's end, is not
 * quite as expected, or comes while the session is not active, takes the usual way; so the order
 * stays. SERVE_PDUS are served at a time, and then one goes to FreeRDP, which reports that there
 * may be more.
 *
 * Writing: from transport_buffer_collect() on PDUs are joined into records of up to RECORD_BYTES,
 * whose limits mean nothing to the client: it reads a stream of bytes. What was collected goes out
 * with transport_buffer_write(), or before the next PDU that is written while nobody collects, so
 * that PDUs never overtake each other.
 */
#include "transport_buffer.h"

#include <freerdp/transport_io.h>
#include <glib.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string.h>
#include <winpr/stream.h>

#include "channel_pdu.h"
#include "tls_connection.h"

#define READ_BYTES 65536u
#define SERVE_PDUS 64u
#define RECORD_BYTES 16384u /* the most that a TLS record holds (RFC 8446, 5.1) */

struct TransportBuffer {
    freerdp_peer *peer;
    rdpTransport *transport;
    rdpTransportIo original;
    bool collecting;
    wStream *out;
    uint16_t channel; /* whose chunks are served, 0: none */
    bool (*ready)(void *user);
    bool (*chunk)(void *user, const uint8_t *data, size_t len, uint32_t flags, size_t total);
    void *user;
    uint64_t served;
    bool dry;        /* TLS had nothing more when it was last asked */
    size_t at, have; /* of in */
    uint8_t in[READ_BYTES];
};

static TransportBuffer *buffer_of(rdpTransport *transport)
{
    return freerdp_get_io_callback_context(transport_get_context(transport));
}

static SSIZE_T original_ahead(TransportBuffer *b, rdpTransport *transport)
{
    SSIZE_T got = b->original.ReadBytes(transport, b->in, READ_BYTES);

    b->have = got > 0 ? (size_t)got : 0;
    b->dry = b->have < READ_BYTES;
    return got;
}

/* Fills b->in with what there is. Like the original: how much, 0: nothing now, < 0: the connection
 * is broken. */
static SSIZE_T read_ahead(TransportBuffer *b, rdpTransport *transport)
{
    SSL *tls = tls_connection();

    b->at = b->have = 0;
    b->dry = false;
    if (!tls)
        return original_ahead(b, transport);
    ERR_clear_error(); /* SSL_get_error() looks at what others have left */
    while (b->have < READ_BYTES) {
        int n = SSL_read(tls, b->in + b->have, (int)(READ_BYTES - b->have));
        if (n > 0) {
            b->have += (size_t)n;
            continue;
        }
        b->dry = SSL_get_error(tls, n) == SSL_ERROR_WANT_READ;
        if (b->have == 0 && !b->dry)
            return original_ahead(b, transport);
        break;
    }
    return (SSIZE_T)b->have;
}

/* False: the connection is to end. */
static bool serve(TransportBuffer *b)
{
    ChannelPdu pdu;

    for (unsigned i = 0; i < SERVE_PDUS && b->peer->activated && b->ready(b->user); i++) {
        if (!channel_pdu_read(&pdu, b->in + b->at, b->have - b->at) || pdu.channel != b->channel)
            break;
        b->at += pdu.size;
        b->served++;
        if (!b->chunk(b->user, pdu.data, pdu.len, pdu.flags, pdu.total))
            return false;
    }
    return true;
}

static int read_pdu(rdpTransport *transport, wStream *s)
{
    TransportBuffer *b = buffer_of(transport);

    if (b->channel == 0 || !b->peer->activated)
        return b->original.ReadPdu(transport, s);
    if (freerdp_shall_disconnect_context(b->peer->context))
        return -1; /* the client has signed off: what it says now is not heard */
    if (!b->ready(b->user))
        return 0;
    if (Stream_GetPosition(s) > 0)
        return b->original.ReadPdu(transport, s);
    if (b->at == b->have) {
        SSIZE_T got = read_ahead(b, transport);
        if (got <= 0)
            return (int)got;
    }
    if (!serve(b))
        return -1;
    if (!b->ready(b->user) || (b->at == b->have && b->dry))
        return 0;
    return b->original.ReadPdu(transport, s);
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
        SSIZE_T got = ahead ? read_ahead(b, transport)
                            : b->original.ReadBytes(transport, data + done, bytes - done);
        if (got < 0)
            return got;
        if (!ahead)
            b->dry = (size_t)got < bytes - done; /* FreeRDP's own reading, too, says so */
        if (got == 0)
            break;
        if (!ahead)
            done += (size_t)got;
    }
    return (SSIZE_T)done;
}

static bool write_out(TransportBuffer *b)
{
    if (Stream_GetPosition(b->out) == 0)
        return true;
    int status = b->original.WritePdu(b->transport, b->out);
    Stream_SetPosition(b->out, 0);
    return status >= 0;
}

static int write_pdu(rdpTransport *transport, wStream *s)
{
    TransportBuffer *b = buffer_of(transport);
    size_t length = s ? Stream_GetPosition(s) : 0;

    if (length == 0)
        return b->original.WritePdu(transport, s);
    if (!b->collecting)
        return write_out(b) ? b->original.WritePdu(transport, s) : -1;
    if (Stream_GetPosition(b->out) + length > RECORD_BYTES && !write_out(b))
        return -1;
    if (length > RECORD_BYTES)
        return b->original.WritePdu(transport, s);
    Stream_Write(b->out, Stream_Buffer(s), length);
    return (int)length;
}

TransportBuffer *transport_buffer_new(freerdp_peer *peer)
{
    const rdpTransportIo *io = freerdp_get_io_callbacks(peer->context);

    if (!io)
        return NULL;
    TransportBuffer *b = g_new0(TransportBuffer, 1);
    b->peer = peer;
    b->transport = freerdp_get_transport(peer->context);
    b->original = *io;
    b->dry = true;
    b->out = Stream_New(NULL, RECORD_BYTES);
    rdpTransportIo ours = *io;
    ours.ReadPdu = read_pdu;
    ours.ReadBytes = read_bytes;
    ours.WritePdu = write_pdu;
    if (!b->out || !freerdp_set_io_callback_context(peer->context, b) ||
        !freerdp_set_io_callbacks(peer->context, &ours)) {
        if (b->out)
            Stream_Free(b->out, TRUE);
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
    Stream_Free(buffer->out, TRUE);
    g_free(buffer);
}

void transport_buffer_serve(TransportBuffer *buffer, uint16_t channel, bool (*ready)(void *user),
                            bool (*chunk)(void *user, const uint8_t *data, size_t len,
                                          uint32_t flags, size_t total),
                            void *user)
{
    buffer->channel = channel;
    buffer->ready = ready;
    buffer->chunk = chunk;
    buffer->user = user;
}

bool transport_buffer_holds_input(const TransportBuffer *buffer)
{
    return buffer->at < buffer->have || !buffer->dry;
}

uint64_t transport_buffer_served(const TransportBuffer *buffer)
{
    return buffer->served;
}

void transport_buffer_collect(TransportBuffer *buffer)
{
    buffer->collecting = true;
}

void transport_buffer_hold(TransportBuffer *buffer)
{
    buffer->collecting = false;
}

bool transport_buffer_waits(const TransportBuffer *buffer)
{
    return Stream_GetPosition(buffer->out) > 0;
}

bool transport_buffer_write(TransportBuffer *buffer)
{
    buffer->collecting = false;
    return write_out(buffer);
}
