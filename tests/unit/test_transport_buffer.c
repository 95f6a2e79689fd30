/*
 * TransportBuffer between FreeRDP's real transport and a real TLS connection: whatever pieces the
 * bytes come in, every PDU is handed on once and in order, by one of the two ways, and only while
 * it is wanted.
 */
#include "transport_buffer.h"

#include <freerdp/transport_io.h>
#include <gio/gio.h>
#include <glib-unix.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <string.h>
#include <winpr/stream.h>

#include "bytes.h"
#include "channel_pdu.h"
#include "mutate.h"
#include "tls_connection.h"

#define OURS 1006u
#define THEIRS 1003u
#define PDUS 600u
#define MAX_DATA 1600u
#define DEAF_AFTER 7u /* chunks, in the test of that */

static SSL *server_tls;

/* In place of tls_connection.c, which takes what FreeRDP makes. */
SSL *tls_connection(void)
{
    return server_tls;
}

typedef struct Rig {
    freerdp_peer *peer;
    TransportBuffer *buffer;
    rdpTransport *transport;
    SSL_CTX *context;
    SSL *client;
    int client_fd;
    uint32_t next;               /* number of the PDU that comes next */
    unsigned served, by_freerdp; /* PDUs */
    unsigned budget;             /* chunks until it is deaf, 0: it is */
    wStream *stream;             /* FreeRDP's, with a part of a PDU or none */
} Rig;

static bool ready(void *user)
{
    return ((Rig *)user)->budget > 0;
}

static void take(Rig *rig, const uint8_t *data, size_t len)
{
    Reader r;

    reader_init(&r, data, len);
    g_assert_cmpuint(reader_u32(&r), ==, rig->next);
    g_assert_true(reader_ok(&r));
    rig->next++;
}

static bool chunk(void *user, const uint8_t *data, size_t len, uint32_t flags, size_t total)
{
    Rig *rig = user;

    g_assert_cmpuint(rig->budget, >, 0);
    rig->budget--;
    rig->served++;
    take(rig, data, len);
    return true;
}

static void connect_sockets(int fds[2])
{
    g_autoptr(GSocket) listener =
        g_socket_new(G_SOCKET_FAMILY_IPV4, G_SOCKET_TYPE_STREAM, G_SOCKET_PROTOCOL_TCP, NULL);
    g_autoptr(GInetAddress) loopback = g_inet_address_new_loopback(G_SOCKET_FAMILY_IPV4);
    g_autoptr(GSocketAddress) any = g_inet_socket_address_new(loopback, 0);
    g_autoptr(GSocket) client =
        g_socket_new(G_SOCKET_FAMILY_IPV4, G_SOCKET_TYPE_STREAM, G_SOCKET_PROTOCOL_TCP, NULL);

    g_assert_true(g_socket_bind(listener, any, TRUE, NULL) && g_socket_listen(listener, NULL));
    g_autoptr(GSocketAddress) address = g_socket_get_local_address(listener, NULL);
    g_assert_true(g_socket_connect(client, address, NULL, NULL));
    g_autoptr(GSocket) server = g_socket_accept(listener, NULL, NULL);
    g_assert_nonnull(server);
    g_assert_true(g_socket_set_option(client, IPPROTO_TCP, TCP_NODELAY, 1, NULL));
    fds[0] = dup(g_socket_get_fd(server));
    fds[1] = dup(g_socket_get_fd(client));
    for (unsigned i = 0; i < 2; i++)
        g_unix_set_fd_nonblocking(fds[i], TRUE, NULL);
}

/* Without certificates: a cipher suite in which nobody proves who they are. */
static SSL *tls_new(Rig *rig, int fd, bool accepts)
{
    SSL *tls = SSL_new(rig->context);

    g_assert_nonnull(tls);
    SSL_set_fd(tls, fd);
    if (accepts)
        SSL_set_accept_state(tls);
    else
        SSL_set_connect_state(tls);
    return tls;
}

static void shake_hands(Rig *rig)
{
    while (!SSL_is_init_finished(rig->client) || !SSL_is_init_finished(server_tls)) {
        SSL_do_handshake(rig->client);
        SSL_do_handshake(server_tls);
    }
}

static void rig_init(Rig *rig)
{
    int fds[2];

    *rig = (Rig){.budget = UINT_MAX};
    connect_sockets(fds);
    rig->client_fd = fds[1];
    rig->peer = freerdp_peer_new(fds[0]);
    g_assert_true(rig->peer && freerdp_peer_context_new(rig->peer));
    rig->context = SSL_CTX_new(TLS_method());
    SSL_CTX_set_max_proto_version(rig->context, TLS1_2_VERSION);
    SSL_CTX_set_security_level(rig->context, 0);
    SSL_CTX_set_dh_auto(rig->context, 1);
    SSL_CTX_set_mode(rig->context, SSL_MODE_ENABLE_PARTIAL_WRITE);
    g_assert_true(SSL_CTX_set_cipher_list(rig->context, "aNULL"));
    rig->client = tls_new(rig, fds[1], false);
    server_tls = tls_new(rig, fds[0], true);
    shake_hands(rig);

    rig->transport = freerdp_get_transport(rig->peer->context);
    rig->buffer = transport_buffer_new(rig->peer);
    g_assert_nonnull(rig->buffer);
    transport_buffer_serve(rig->buffer, OURS, ready, chunk, rig);
    rig->peer->activated = TRUE;
    rig->stream = Stream_New(NULL, 4096);
}

static void rig_clear(Rig *rig)
{
    transport_buffer_free(rig->buffer);
    Stream_Free(rig->stream, TRUE);
    SSL_free(rig->client);
    SSL_free(server_tls);
    server_tls = NULL;
    SSL_CTX_free(rig->context);
    close(rig->client_fd);
    freerdp_peer_context_free(rig->peer);
    freerdp_peer_free(rig->peer);
}

/* PDU number @n, with @len bytes of data from 4 on. */
static void add_pdu(GByteArray *bytes, uint16_t channel, uint32_t n, size_t len)
{
    Writer w;

    writer_init(&w, 4096);
    writer_u8(&w, 3);
    writer_u8(&w, 0);
    writer_u16be(&w, (uint16_t)(4 + 3 + 6 + 2 + 8 + len));
    writer_bytes(&w, "\x02\xf0\x80\x64\x00\x06", 6);
    writer_u16be(&w, channel);
    writer_u8(&w, 0x70);
    writer_u16be(&w, (uint16_t)(0x8000 | (8 + len)));
    writer_u32(&w, (uint32_t)len);
    writer_u32(&w, 3);
    writer_u32(&w, n);
    writer_zero(&w, len - 4);
    g_byte_array_append(bytes, w.data, (guint)w.len);
    writer_clear(&w);
}

/* What FreeRDP's transport does with a PDU and without one. False: nothing is there now. */
static bool read_once(Rig *rig)
{
    int status = freerdp_get_io_callbacks(rig->peer->context)->ReadPdu(rig->transport, rig->stream);
    ChannelPdu pdu;

    g_assert_cmpint(status, >=, 0);
    if (status == 0)
        return false;
    g_assert_cmpuint(rig->budget, >, 0);
    g_assert_true(channel_pdu_read(&pdu, Stream_Buffer(rig->stream), Stream_Length(rig->stream)));
    rig->by_freerdp++;
    take(rig, pdu.data, pdu.len);
    Stream_Free(rig->stream, TRUE);
    rig->stream = Stream_New(NULL, 4096);
    return true;
}

/* Sends @bytes in pieces of at most @piece, and reads them all. */
static void exchange(Rig *rig, const GByteArray *bytes, size_t piece, unsigned deaf_after)
{
    uint32_t seed = 1;
    size_t n = 0;

    for (size_t at = 0; at < bytes->len || rig->next < PDUS;) {
        if (n == 0) { /* what the socket did not take has to be tried again as it was */
            const size_t some = 1 + mutate_next(&seed) % piece;
            n = MIN(bytes->len - at, some);
        }
        int sent = n > 0 ? SSL_write(rig->client, bytes->data + at, (int)n) : 0;
        if (sent > 0) {
            at += (size_t)sent;
            n = 0;
        }
        do {
            rig->budget = deaf_after;
            while (read_once(rig))
                ;
            /* only what the buffer tells about may be left, and only if nobody listens */
            g_assert_true(rig->budget == 0 || !transport_buffer_holds_input(rig->buffer));
        } while (transport_buffer_holds_input(rig->buffer));
    }
    g_assert_cmpuint(rig->next, ==, PDUS);
    g_assert_cmpuint(transport_buffer_served(rig->buffer), ==, rig->served);
}

static void check_order(size_t piece, unsigned deaf_after, unsigned theirs_of_16)
{
    GByteArray *bytes = g_byte_array_new();
    uint32_t seed = 5;
    Rig rig;

    for (uint32_t n = 0; n < PDUS; n++) {
        bool theirs = mutate_next(&seed) % 16 < theirs_of_16;
        size_t len = mutate_next(&seed) % 4 ? MAX_DATA : 4 + mutate_next(&seed) % MAX_DATA;
        add_pdu(bytes, theirs ? THEIRS : OURS, n, MIN(len, MAX_DATA));
    }
    rig_init(&rig);
    exchange(&rig, bytes, piece, deaf_after);
    g_test_message("pieces of %zu: %u served, %u by FreeRDP", piece, rig.served, rig.by_freerdp);
    g_assert_true(rig.served > 0 || piece < MAX_DATA);
    rig_clear(&rig);
    g_byte_array_unref(bytes);
}

static void test_order(void)
{
    static const size_t pieces[] = {40, 700, 1645, 16384, 65536, 200000};

    for (unsigned i = 0; i < G_N_ELEMENTS(pieces); i++) {
        check_order(pieces[i], UINT_MAX, 0);
        check_order(pieces[i], UINT_MAX, 5);
    }
}

static void test_deaf(void)
{
    check_order(1645, 1, 5);
    check_order(65536, DEAF_AFTER, 0);
    check_order(200000, DEAF_AFTER, 5);
}

/* A session that is reactivated reads FreeRDP's way: nothing is said to be left that is not. As
 * many bytes as the buffer holds, so that it was filled without hearing that there are no more. */
static void test_deactivated(void)
{
    const uint32_t whole = 65536 / (23 + MAX_DATA);
    GByteArray *bytes = g_byte_array_new();
    Rig rig;

    for (uint32_t n = 0; n < whole; n++)
        add_pdu(bytes, OURS, n, MAX_DATA);
    add_pdu(bytes, OURS, whole, 65536 - bytes->len - 23);
    g_assert_cmpuint(bytes->len, ==, 65536);
    rig_init(&rig);
    for (size_t at = 0; at < bytes->len;) {
        int sent = SSL_write(rig.client, bytes->data + at, (int)(bytes->len - at));
        g_assert_cmpint(sent, >, 0);
        at += (size_t)sent;
    }
    rig.budget = DEAF_AFTER;
    read_once(&rig);
    g_assert_true(transport_buffer_holds_input(rig.buffer));
    rig.peer->activated = FALSE;
    rig.budget = UINT_MAX;
    while (read_once(&rig))
        ;
    g_assert_cmpuint(rig.next, ==, whole + 1);
    g_assert_false(transport_buffer_holds_input(rig.buffer));
    rig_clear(&rig);
    g_byte_array_unref(bytes);
}

/* FreeRDP sets this when the client says goodbye: nothing that follows is heard. */
static void test_signed_off(void)
{
    GByteArray *bytes = g_byte_array_new();
    Rig rig;

    add_pdu(bytes, OURS, 0, 100);
    rig_init(&rig);
    g_assert_cmpint(SSL_write(rig.client, bytes->data, (int)bytes->len), >, 0);
    freerdp_abort_connect_context(rig.peer->context);
    g_assert_cmpint(freerdp_get_io_callbacks(rig.peer->context)->ReadPdu(rig.transport, rig.stream),
                    <, 0);
    g_assert_cmpuint(rig.served, ==, 0);
    rig_clear(&rig);
    g_byte_array_unref(bytes);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/transport-buffer/order", test_order);
    g_test_add_func("/transport-buffer/deaf", test_deaf);
    g_test_add_func("/transport-buffer/deactivated", test_deactivated);
    g_test_add_func("/transport-buffer/signed-off", test_signed_off);
    return g_test_run();
}
