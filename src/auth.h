/*
 * Our own credential store: user names and NT hashes, no system account.
 *
 * On disk (0600, made by `qrdp passwd`) only the NT hash is kept; it is password-equivalent for
 * NTLM, and the manual says so. In memory the same. FreeRDP asks for the hash through its NTLM
 * callback (peer_login.c), so no SAM text exists anywhere, not even in a memfd.
 *
 * Owner: the Server. Thread: main writes; auth_snapshot_ref() gives a peer's thread an immutable
 * copy for the life of its connection.
 */
#ifndef QRDP_AUTH_H
#define QRDP_AUTH_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define AUTH_MAX_USERS 64u
#define AUTH_MAX_NAME 256u /* bytes of UTF-8 */
#define AUTH_MAX_PASSWORD 1024u
#define AUTH_HASH_SIZE 16u

typedef struct Auth Auth;
typedef struct AuthSnapshot AuthSnapshot;

/** An empty store; @path NULL keeps it in memory (bus mode). A missing file is an empty store. */
Auth *auth_new(const char *path, GError **error);
void auth_free(Auth *auth);
/** Reads the file again if it changed since; call before a new connection is served. */
bool auth_reload(Auth *auth, GError **error);
bool auth_is_empty(const Auth *auth);
/** Whether a user may be called @name. */
bool auth_check_name(const char *name, GError **error);
/** Adds or replaces @user. Only the hash of @password is kept; the caller wipes @password. @user
 * NULL or "" (libvirt without username=): any name logs in with that password. */
bool auth_set_password(Auth *auth, const char *user, const char *password, GError **error);
bool auth_remove(Auth *auth, const char *user, GError **error);
/** Forgets every user (SetCredentials replaces what was there). Memory only: the file stays. */
void auth_clear(Auth *auth);

AuthSnapshot *auth_snapshot(Auth *auth);
AuthSnapshot *auth_snapshot_ref(AuthSnapshot *snapshot);
void auth_snapshot_unref(AuthSnapshot *snapshot);
bool auth_snapshot_is_empty(const AuthSnapshot *snapshot);
/** NLA: the NT hash of @user, or of the entry without a name. False, and random bytes in @hash so
 * that a login with them cannot succeed, if there is neither. */
bool auth_snapshot_nt_hash(const AuthSnapshot *snapshot, const char *user,
                           uint8_t hash[AUTH_HASH_SIZE]);
/** TLS-only logins: constant-time comparison with the stored hash. */
bool auth_snapshot_verify(const AuthSnapshot *snapshot, const char *user, const char *password);

#endif
