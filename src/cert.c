/*
 * Certificates come from the operator (libvirt gives paths) or are made on first start: RSA with
 * 2048 bits, because that is what every RDP client accepts, old ones and TLS 1.2 hardware included;
 * ECDSA works with today's clients but buys nothing for one handshake per session.
 *
 * A made certificate is self-signed for ten years; clients remember it, so it must not change
 * without need. Both files are checked to belong together before they are used, since FreeRDP would
 * fail only when a client connects. Changed files are picked up by the next connection; if the new
 * pair is broken (half-copied, perhaps) the old one stays and the log says why.
 */
#include "cert.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

struct Cert {
    char *cert_path, *key_path;
    struct stat cert_seen, key_seen;
    char *pem, *key_pem;
    char *fingerprint;
};

char *cert_state_dir(void)
{
    if (geteuid() == 0 && !g_getenv("XDG_STATE_HOME"))
        return g_strdup("/var/lib/qrdp");
    return g_build_filename(g_get_user_state_dir(), "qrdp", NULL);
}

/* --- reading --- */

/* Nobody is there to type a passphrase. */
static int no_passphrase(char *buffer, int size, int rwflag, void *user)
{
    *(bool *)user = true;
    return -1;
}

static char *read_pem(const char *path, const char *what, GError **error)
{
    char *text = NULL;
    gsize len = 0;
    struct stat st;

    if (stat(path, &st) == 0 && (!S_ISREG(st.st_mode) || st.st_size > CERT_MAX_FILE)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "%s %s is not a PEM file (a regular file of at most %u bytes)", what, path,
                    CERT_MAX_FILE);
        return NULL;
    }
    GError *why = NULL;
    if (!g_file_get_contents(path, &text, &len, &why)) {
        bool missing = g_error_matches(why, G_FILE_ERROR, G_FILE_ERROR_NOENT);
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND, "%s %s %s", what, path,
                    missing
                        ? "does not exist: give its path, or leave out both --cert and --key to "
                          "have one made"
                        : "cannot be read: check its permissions");
        g_error_free(why);
    }
    return text;
}

static char *hex_fingerprint(const X509 *x509)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    GString *text = g_string_new(NULL);

    if (X509_digest(x509, EVP_sha256(), digest, &len) == 1) {
        for (unsigned i = 0; i < len; i++)
            g_string_append_printf(text, "%s%02x", i ? ":" : "", digest[i]);
    }
    return g_string_free(text, FALSE);
}

static void warn_if_expired(const Cert *c, const X509 *x509)
{
    if (X509_cmp_current_time(X509_get0_notAfter(x509)) < 0)
        log_warning("cert", "certificate %s has expired: clients will warn or refuse",
                    c->cert_path);
}

/* Checks the pair; the fingerprint, or NULL and why. */
static char *check_pair(const Cert *c, const char *pem, const char *key_pem, GError **error)
{
    bool encrypted = false;
    BIO *cert_bio = BIO_new_mem_buf(pem, -1);
    BIO *key_bio = BIO_new_mem_buf(key_pem, -1);
    X509 *x509 = PEM_read_bio_X509(cert_bio, NULL, NULL, NULL);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(key_bio, NULL, no_passphrase, &encrypted);
    char *fingerprint = NULL;

    if (!x509)
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "certificate %s holds no PEM certificate", c->cert_path);
    else if (!key && encrypted)
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "key %s has a passphrase: remove it with `openssl pkey -in %s -out NEW`",
                    c->key_path, c->key_path);
    else if (!key)
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "key %s holds no PEM private key",
                    c->key_path);
    else if (X509_check_private_key(x509, key) != 1)
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "key %s does not belong to certificate %s", c->key_path, c->cert_path);
    else {
        warn_if_expired(c, x509);
        fingerprint = hex_fingerprint(x509);
    }
    X509_free(x509);
    EVP_PKEY_free(key);
    BIO_free(cert_bio);
    BIO_free(key_bio);
    ERR_clear_error();
    return fingerprint;
}

static void wipe(char *text)
{
    if (text)
        explicit_bzero(text, strlen(text));
    g_free(text);
}

static bool unchanged(const char *path, const struct stat *seen, struct stat *now)
{
    if (stat(path, now) < 0)
        memset(now, 0, sizeof(*now));
    return now->st_ino == seen->st_ino && now->st_dev == seen->st_dev &&
           now->st_size == seen->st_size && now->st_mtim.tv_sec == seen->st_mtim.tv_sec &&
           now->st_mtim.tv_nsec == seen->st_mtim.tv_nsec;
}

bool cert_reload(Cert *cert, GError **error)
{
    struct stat cert_now, key_now;
    bool same = unchanged(cert->cert_path, &cert->cert_seen, &cert_now);
    same = unchanged(cert->key_path, &cert->key_seen, &key_now) && same;
    if (same && cert->pem)
        return true;

    char *pem = read_pem(cert->cert_path, "certificate", error);
    char *key_pem = pem ? read_pem(cert->key_path, "key", error) : NULL;
    char *fingerprint = key_pem ? check_pair(cert, pem, key_pem, error) : NULL;
    if (!fingerprint) {
        g_free(pem);
        wipe(key_pem);
        return false;
    }
    g_free(cert->pem);
    wipe(cert->key_pem);
    g_free(cert->fingerprint);
    cert->pem = pem;
    cert->key_pem = key_pem;
    cert->fingerprint = fingerprint;
    cert->cert_seen = cert_now;
    cert->key_seen = key_now;
    return true;
}

/* --- making --- */

static bool add_extension(X509 *x509, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, x509, x509, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    bool ok = extension && X509_add_ext(x509, extension, -1) == 1;
    X509_EXTENSION_free(extension);
    return ok;
}

/* The host's name where it can stand in a certificate, else "localhost". */
static const char *certificate_name(void)
{
    const char *name = g_get_host_name();
    size_t len = strlen(name);
    if (len == 0 || len > 63 ||
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                     "0123456789-.") != len)
        return "localhost";
    return name;
}

static X509 *make_certificate(EVP_PKEY *key)
{
    const char *name = certificate_name();
    char *alternatives = g_strdup_printf("DNS:%s,DNS:localhost,IP:127.0.0.1,IP:::1", name);
    X509 *x509 = X509_new();
    X509_NAME *subject = X509_get_subject_name(x509);
    uint64_t serial = (uint64_t)g_random_int() << 31 | g_random_int() | 1;

    bool ok = X509_set_version(x509, 2) == 1 &&
              ASN1_INTEGER_set_uint64(X509_get_serialNumber(x509), serial) == 1 &&
              X509_gmtime_adj(X509_getm_notBefore(x509), -86400) &&
              X509_time_adj_ex(X509_getm_notAfter(x509), 3650, 0, NULL) &&
              X509_set_pubkey(x509, key) == 1 &&
              X509_NAME_add_entry_by_NID(subject, NID_commonName, MBSTRING_UTF8,
                                         (const unsigned char *)name, -1, -1, 0) == 1 &&
              X509_set_issuer_name(x509, subject) == 1 &&
              add_extension(x509, NID_basic_constraints, "critical,CA:FALSE") &&
              add_extension(x509, NID_key_usage, "critical,digitalSignature,keyEncipherment") &&
              add_extension(x509, NID_ext_key_usage, "serverAuth") &&
              add_extension(x509, NID_subject_alt_name, alternatives) &&
              add_extension(x509, NID_subject_key_identifier, "hash") &&
              X509_sign(x509, key, EVP_sha256()) > 0;
    g_free(alternatives);
    if (!ok)
        g_clear_pointer(&x509, X509_free);
    return x509;
}

static bool write_bio(const char *path, BIO *bio, int mode, GError **error)
{
    char *data = NULL;
    long len = BIO_get_mem_data(bio, &data);
    return g_file_set_contents_full(
        path, data, len, G_FILE_SET_CONTENTS_CONSISTENT | G_FILE_SET_CONTENTS_DURABLE, mode, error);
}

static bool make_pair(const Cert *c, GError **error)
{
    EVP_PKEY *key = EVP_RSA_gen(2048);
    X509 *x509 = key ? make_certificate(key) : NULL;
    BIO *cert_bio = BIO_new(BIO_s_mem()), *key_bio = BIO_new(BIO_s_secmem());
    bool ok = x509 && PEM_write_bio_X509(cert_bio, x509) == 1 &&
              PEM_write_bio_PrivateKey(key_bio, key, NULL, NULL, 0, NULL, NULL) == 1;

    if (!ok)
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                    "OpenSSL could not make a certificate: %s",
                    ERR_reason_error_string(ERR_peek_last_error()));
    /* The key first: a certificate without its key would look like an operator's mistake. */
    ok = ok && write_bio(c->key_path, key_bio, 0600, error) &&
         write_bio(c->cert_path, cert_bio, 0644, error);
    BIO_free(cert_bio);
    BIO_free(key_bio);
    X509_free(x509);
    EVP_PKEY_free(key);
    ERR_clear_error();
    return ok;
}

static bool make_if_missing(const Cert *c, const char *dir, GError **error)
{
    if (access(c->cert_path, F_OK) == 0)
        return true;
    if (g_mkdir_with_parents(dir, 0700) < 0) {
        g_set_error(
            error, G_IO_ERROR, g_io_error_from_errno(errno),
            "cannot create %s for the certificate: %s; set XDG_STATE_HOME or give --cert and "
            "--key",
            dir, g_strerror(errno));
        return false;
    }
    if (!make_pair(c, error))
        return false;
    log_info("cert", "made a certificate for %s in %s", certificate_name(), c->cert_path);
    return true;
}

Cert *cert_new(const char *cert_path, const char *key_path, GError **error)
{
    if (!cert_path != !key_path) {
        g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                            "give both --cert and --key, or neither to have a certificate made");
        return NULL;
    }
    Cert *c = g_new0(Cert, 1);
    bool ok = true;

    if (cert_path) {
        c->cert_path = g_strdup(cert_path);
        c->key_path = g_strdup(key_path);
    } else {
        char *dir = cert_state_dir();
        c->cert_path = g_build_filename(dir, "server-cert.pem", NULL);
        c->key_path = g_build_filename(dir, "server-key.pem", NULL);
        ok = make_if_missing(c, dir, error);
        g_free(dir);
    }
    if (!ok || !cert_reload(c, error))
        g_clear_pointer(&c, cert_free);
    return c;
}

void cert_free(Cert *cert)
{
    if (!cert)
        return;
    g_free(cert->cert_path);
    g_free(cert->key_path);
    g_free(cert->pem);
    wipe(cert->key_pem);
    g_free(cert->fingerprint);
    g_free(cert);
}

const char *cert_pem(const Cert *cert)
{
    return cert->pem;
}

const char *cert_key_pem(const Cert *cert)
{
    return cert->key_pem;
}

const char *cert_fingerprint(const Cert *cert)
{
    return cert->fingerprint;
}
