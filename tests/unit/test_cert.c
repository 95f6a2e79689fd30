/* Certificates: made on first start, told apart when wrong, read again when replaced. */
#include "cert.h"

#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *dir;

static char *in_dir(const char *name)
{
    return g_build_filename(dir, name, NULL);
}

static void copy(const char *from, const char *to)
{
    char *text;
    gsize len;
    g_assert_true(g_file_get_contents(from, &text, &len, NULL));
    g_assert_true(g_file_set_contents(to, text, (gssize)len, NULL));
    g_free(text);
}

static void test_made_once(void)
{
    GError *error = NULL;
    Cert *first = cert_new(NULL, NULL, &error);
    g_assert_no_error(error);
    char *key = in_dir("qrdp/server-key.pem");
    GStatBuf st;
    g_assert_cmpint(g_stat(key, &st), ==, 0);
    g_assert_cmpint(st.st_mode & 07777, ==, 0600);
    g_assert_nonnull(strstr(cert_pem(first), "BEGIN CERTIFICATE"));
    g_assert_nonnull(strstr(cert_key_pem(first), "PRIVATE KEY"));
    g_assert_cmpuint(strlen(cert_fingerprint(first)), ==, 32 * 3 - 1);

    Cert *second = cert_new(NULL, NULL, NULL);
    g_assert_cmpstr(cert_fingerprint(first), ==, cert_fingerprint(second));
    cert_free(first);
    cert_free(second);
    g_free(key);
}

static void assert_refused(const char *cert, const char *key, const char *sentence)
{
    GError *error = NULL;
    g_assert_null(cert_new(cert, key, &error));
    g_assert_nonnull(strstr(error->message, sentence));
    g_error_free(error);
}

static void test_refused(void)
{
    char *cert = in_dir("qrdp/server-cert.pem"), *key = in_dir("qrdp/server-key.pem");
    char *junk = in_dir("junk"), *missing = in_dir("missing");

    g_assert_true(g_file_set_contents(junk, "no PEM\n", -1, NULL));
    assert_refused(missing, key, "does not exist");
    assert_refused(cert, missing, "does not exist");
    assert_refused(junk, key, "holds no PEM certificate");
    assert_refused(cert, junk, "holds no PEM private key");
    assert_refused(cert, NULL, "both --cert and --key");
    assert_refused(dir, key, "not a PEM file");
    g_free(cert);
    g_free(key);
    g_free(junk);
    g_free(missing);
}

static void test_reload(void)
{
    char *cert = in_dir("qrdp/server-cert.pem"), *key = in_dir("qrdp/server-key.pem");
    char *cert2 = in_dir("c.pem"), *key2 = in_dir("k.pem");
    GError *error = NULL;

    copy(cert, cert2);
    copy(key, key2);
    Cert *c = cert_new(cert2, key2, &error);
    g_assert_no_error(error);
    char *before = g_strdup(cert_fingerprint(c));

    /* A new pair, of which only the certificate has arrived. */
    g_assert_cmpint(g_unlink(cert), ==, 0);
    g_assert_cmpint(g_unlink(key), ==, 0);
    Cert *other = cert_new(NULL, NULL, NULL);
    copy(cert, cert2);
    g_assert_false(cert_reload(c, &error));
    g_assert_nonnull(strstr(error->message, "does not belong"));
    g_clear_error(&error);
    g_assert_cmpstr(cert_fingerprint(c), ==, before);

    copy(key, key2);
    g_assert_true(cert_reload(c, &error));
    g_assert_cmpstr(cert_fingerprint(c), ==, cert_fingerprint(other));
    g_assert_cmpstr(cert_fingerprint(c), !=, before);
    cert_free(c);
    cert_free(other);
    g_unlink(cert2);
    g_unlink(key2);
    g_free(before);
    g_free(cert);
    g_free(key);
    g_free(cert2);
    g_free(key2);
}

int main(int argc, char **argv)
{
    dir = g_dir_make_tmp("qrdp-cert-XXXXXX", NULL);
    g_setenv("XDG_STATE_HOME", dir, TRUE); /* before GLib reads it */
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/cert/made-once", test_made_once);
    g_test_add_func("/cert/refused", test_refused);
    g_test_add_func("/cert/reload", test_reload);
    int status = g_test_run();
    static const char *const names[] = {"qrdp/server-cert.pem", "qrdp/server-key.pem", "junk",
                                        "qrdp", ""};
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        char *path = in_dir(names[i]);
        remove(path);
        g_free(path);
    }
    g_free(dir);
    return status;
}
