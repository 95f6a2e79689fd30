/*
 * Who is it?
 *
 * NLA: FreeRDP's NTLM asks SspiNtlmHashCallback for the NTLMv2 key of the name the client gave. The
 * callback's return convention flipped: up to 3.23 non-zero means success, from 3.24 on zero does
 * (rdp-server.md 4.3), so the library's version decides. It fails safe either way: for a user that
 * does not exist the key is random, so even a misread "failure" could not be answered by a client.
 * Then Logon(automatic) says that the client proved its password.
 *
 * TLS without NLA: FreeRDP ignores what Logon returns before 3.22, so the password in the client
 * info is judged in the Capabilities callback, the first after it arrives and before anything is
 * shown. Until then input is thrown away (peer.authenticated).
 *
 * The password is wiped from FreeRDP's memory as soon as it was judged. A login is reported to main
 * once: right, or wrong so that the throttle learns of it. A client that leaves before a password
 * was checked (a person reading the certificate warning) is neither.
 */
#include <freerdp/settings.h>
#include <string.h>
#include <winpr/crypto.h>
#include <winpr/ntlm.h>

#include "peer_priv.h"

void peer_login_report(Peer *peer, bool ok)
{
    if (peer->login_reported)
        return;
    peer->login_reported = true;

    ServerLogin *login = g_new0(ServerLogin, 1);
    login->ok = ok;
    login->password = ok && !auth_snapshot_is_empty(peer->auth);
    g_strlcpy(login->user, peer->user ? peer->user : "", sizeof(login->user));
    server_post(peer->server, peer->id, server_peer_login, login, g_free);
}

/* Remembers the name for logs and status, escaped once. */
static void set_user(Peer *peer, const char *user)
{
    char text[160];

    g_free(peer->user);
    peer->user = g_strdup(user && *user ? user : "");
    if (g_utf8_validate(peer->user, -1, NULL) && strlen(peer->user) > AUTH_MAX_NAME) {
        /* nobody has such a name; keep what fits, on a character's border */
        char *end = g_utf8_find_prev_char(peer->user, peer->user + AUTH_MAX_NAME);
        if (end)
            *end = '\0';
    }
    log_escape(text, sizeof(text), *peer->user ? peer->user : "somebody", SIZE_MAX);
    g_free(peer->label);
    peer->label = g_strdup_printf("%s@%s", text, peer->address);
}

static char *identity_user(const SEC_WINNT_AUTH_IDENTITY *identity)
{
    if (!identity->User || identity->UserLength == 0)
        return g_strdup("");
    if (identity->Flags & SEC_WINNT_AUTH_IDENTITY_ANSI)
        return g_strndup((const char *)identity->User, identity->UserLength);
    return g_utf16_to_utf8((const gunichar2 *)identity->User, (glong)identity->UserLength, NULL,
                           NULL, NULL);
}

static SECURITY_STATUS hash_result(bool ok)
{
    int major = 0, minor = 0, revision = 0;
    freerdp_get_version(&major, &minor, &revision);
    if (major > 3 || minor >= 24)
        return ok ? SEC_E_OK : SEC_E_NO_CREDENTIALS;
    return ok ? 1 : 0;
}

static SECURITY_STATUS on_ntlm_hash(void *client, const SEC_WINNT_AUTH_IDENTITY *identity,
                                    const SecBuffer *proof, const BYTE *random_key, const BYTE *mic,
                                    const SecBuffer *mic_value, BYTE *ntlm_hash)
{
    Peer *peer = peer_of_client(client);
    uint8_t hash[AUTH_HASH_SIZE];
    char *user = identity_user(identity);

    peer->login_tried = true;
    set_user(peer, user ? user : "");
    bool ok =
        user && auth_snapshot_nt_hash(peer->auth, user, hash) &&
        NTOWFv2FromHashW(hash, (LPWSTR)identity->User, identity->UserLength * (UINT32)sizeof(WCHAR),
                         (LPWSTR)identity->Domain, identity->DomainLength * (UINT32)sizeof(WCHAR),
                         ntlm_hash);
    if (!ok)
        winpr_RAND(ntlm_hash, AUTH_HASH_SIZE);
    explicit_bzero(hash, sizeof(hash));
    g_free(user);
    return hash_result(ok);
}

static void wipe_identity(SEC_WINNT_AUTH_IDENTITY *identity)
{
    size_t unit = identity->Flags & SEC_WINNT_AUTH_IDENTITY_ANSI ? 1 : sizeof(WCHAR);
    if (identity->Password)
        explicit_bzero(identity->Password, identity->PasswordLength * unit);
}

static BOOL on_logon(freerdp_peer *client, const SEC_WINNT_AUTH_IDENTITY *identity, BOOL automatic)
{
    Peer *peer = peer_of_client(client);

    if (!automatic)
        return TRUE; /* TLS: the client info is still to come */
    /* TSPasswordCreds: some clients delegate the password in clear, and nobody needs it. */
    wipe_identity(&client->identity);
    if (!peer->login_tried)
        return FALSE;
    peer->authenticated = true;
    peer_login_report(peer, true);
    return TRUE;
}

static void wipe_password(rdpSettings *settings)
{
    char *password = freerdp_settings_get_string_writable(settings, FreeRDP_Password);
    if (password)
        explicit_bzero(password, strlen(password));
    freerdp_settings_set_string(settings, FreeRDP_Password, NULL);
}

bool peer_login_check(Peer *peer)
{
    rdpSettings *s = peer->client->context->settings;

    if (!peer->authenticated) {
        const char *user = freerdp_settings_get_string(s, FreeRDP_Username);
        set_user(peer, user);
        peer->login_tried = true;
        peer->authenticated =
            auth_snapshot_is_empty(peer->auth) ||
            auth_snapshot_verify(peer->auth, user,
                                 freerdp_settings_get_string(s, FreeRDP_Password));
    }
    wipe_password(s);
    peer_login_report(peer, peer->authenticated);
    return peer->authenticated;
}

void peer_login_install(Peer *peer)
{
    peer->client->Logon = on_logon;
    peer->client->SspiNtlmHashCallback = on_ntlm_hash;
}
