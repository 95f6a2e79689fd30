/*
 * FreeRDP tells its users neither how a TLS connection has ended nor where its SSL object is. But
 * OpenSSL calls whoever has registered extra data for SSL objects when it makes or frees one, on
 * the thread that does. A peer's thread makes exactly one.
 */
#include "tls_connection.h"

#include <openssl/ssl.h>

static _Thread_local SSL *connection;

static void on_new(void *parent, void *value, CRYPTO_EX_DATA *data, int index, long argl,
                   void *argp)
{
    connection = parent;
}

static void on_free(void *parent, void *value, CRYPTO_EX_DATA *data, int index, long argl,
                    void *argp)
{
    if (connection == parent)
        connection = NULL;
}

void tls_connection_init(void)
{
    CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL, 0, NULL, on_new, NULL, on_free);
}

SSL *tls_connection(void)
{
    return connection;
}

bool tls_connection_has_closed(void)
{
    return connection && (SSL_get_shutdown(connection) & SSL_RECEIVED_SHUTDOWN) != 0;
}
