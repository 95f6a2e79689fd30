/*
 * The server certificate and its key as PEM text, read again when the files change.
 *
 * Owner: the Server. Thread: main; peers get copies of the text. Lifetime: the process.
 */
#ifndef QRDP_CERT_H
#define QRDP_CERT_H

#include <glib.h>
#include <stdbool.h>

#define CERT_MAX_FILE (256u * 1024u)

typedef struct Cert Cert;

/** Loads the pair. With both paths NULL the pair "server-cert.pem" and "server-key.pem" in
 * cert_state_dir() is used and made there if it does not exist. NULL and one sentence that says
 * what to do on failure. */
Cert *cert_new(const char *cert_path, const char *key_path, GError **error);
void cert_free(Cert *cert);
/** Reads the files again if they changed. On failure the old pair stays in use. */
bool cert_reload(Cert *cert, GError **error);
const char *cert_pem(const Cert *cert);
const char *cert_key_pem(const Cert *cert);
/** SHA-256 of the certificate, "ab:cd:..." as clients show it. */
const char *cert_fingerprint(const Cert *cert);
/** Where qrdp keeps its own files: $XDG_STATE_HOME/qrdp, ~/.local/state/qrdp, for root
 * /var/lib/qrdp. Free with g_free(). */
char *cert_state_dir(void);

#endif
