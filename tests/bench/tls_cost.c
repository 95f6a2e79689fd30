/*
 * tls-cost SIZE MBYTES: what TLS alone costs. Two threads send MBYTES over a TCP connection on
 * loopback with TLS as FreeRDP negotiates it, in records of SIZE bytes, one SSL_write() and
 * SSL_read() each. Prints the processor seconds per GB of the thread that sends and of the one that
 * receives.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SIZE_MAX_BYTES 16384

static size_t record_size;
static uint64_t total;

typedef struct {
    SSL *ssl;
    double seconds; /* per GB */
} End;

static void die(const char *what)
{
    fprintf(stderr, "tls-cost: %s\n", what);
    exit(1);
}

static double thread_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void *send_all(void *arg)
{
    static uint8_t data[SIZE_MAX_BYTES];
    End *end = arg;
    double start;

    if (SSL_connect(end->ssl) != 1)
        die("connecting");
    start = thread_seconds();
    for (uint64_t sent = 0; sent < total; sent += record_size)
        if (SSL_write(end->ssl, data, (int)record_size) != (int)record_size)
            die("sending");
    end->seconds = (thread_seconds() - start) / ((double)total / 1e9);
    SSL_shutdown(end->ssl);
    return NULL;
}

static void *receive_all(void *arg)
{
    static uint8_t data[SIZE_MAX_BYTES];
    End *end = arg;
    double start;

    if (SSL_accept(end->ssl) != 1)
        die("accepting");
    start = thread_seconds();
    for (uint64_t got = 0; got < total;) {
        int n = SSL_read(end->ssl, data, sizeof(data));

        if (n <= 0)
            die("receiving");
        got += (uint64_t)n;
    }
    end->seconds = (thread_seconds() - start) / ((double)total / 1e9);
    return NULL;
}

static void make_certificate(SSL_CTX *context)
{
    EVP_PKEY *key = EVP_RSA_gen(2048);
    X509 *x = X509_new();

    X509_gmtime_adj(X509_getm_notBefore(x), 0);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_set_pubkey(x, key);
    if (!X509_sign(x, key, EVP_sha256()) || SSL_CTX_use_certificate(context, x) != 1 ||
        SSL_CTX_use_PrivateKey(context, key) != 1)
        die("making a certificate");
    X509_free(x);
    EVP_PKEY_free(key);
}

static void connect_both(int fd[2])
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    const int on = 1;
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    fd[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || fd[0] < 0 || bind(listener, (struct sockaddr *)&a, len) ||
        listen(listener, 1) || getsockname(listener, (struct sockaddr *)&a, &len) ||
        connect(fd[0], (struct sockaddr *)&a, len) || (fd[1] = accept(listener, NULL, NULL)) < 0)
        die("loopback");
    for (int i = 0; i < 2; i++)
        setsockopt(fd[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    close(listener);
}

int main(int argc, char **argv)
{
    SSL_CTX *server = SSL_CTX_new(TLS_server_method()), *client = SSL_CTX_new(TLS_client_method());
    End ends[2] = {{SSL_new(client), 0}, {NULL, 0}};
    pthread_t sender;
    int fd[2];

    record_size = argc == 3 ? (size_t)atoi(argv[1]) : 0;
    total = argc == 3 ? (uint64_t)atoi(argv[2]) * 1000000 : 0;
    if (record_size < 1 || record_size > SIZE_MAX_BYTES || !total)
        die("usage: tls-cost SIZE MBYTES");
    total = total / record_size * record_size;
    make_certificate(server);
    ends[1].ssl = SSL_new(server);
    connect_both(fd);
    SSL_set_fd(ends[0].ssl, fd[0]);
    SSL_set_fd(ends[1].ssl, fd[1]);
    if (pthread_create(&sender, NULL, send_all, &ends[0]))
        die("a thread");
    receive_all(&ends[1]);
    pthread_join(sender, NULL);
    printf("%s %.3f %.3f\n", SSL_get_cipher(ends[1].ssl), ends[0].seconds, ends[1].seconds);
    return 0;
}
