/*
 * The credential store.
 *
 * The file is text: comment lines, then "name:NTHASH" with 32 hex digits, one user per line. It is
 * read whole, checked whole and replaced whole (temporary file, fsync, rename), so a crash or a
 * full disk leaves either the old or the new store. A file that others could read is refused,
 * because the NT hash is as good as the password: the sentence names the chmod to run.
 *
 * The users live in an immutable AuthSnapshot; a change makes a new one. Peers keep the one they
 * started with.
 *
 * Names are compared byte by byte. An entry with an empty name matches every name that has no entry
 * of its own: libvirt may configure a password without a user name.
 */
#include "auth.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <winpr/crypto.h>
#include <winpr/ntlm.h>
#include <winpr/ssl.h>

#define AUTH_MAX_FILE (64u * 1024u)

static const char auth_header[] =
    "# qrdp credentials: one user per line, name:NT-hash. Made by `qrdp passwd`.\n"
    "# The hash is as good as the password for a login: keep this file private.\n";

typedef struct AuthUser {
    char *name;
    uint8_t hash[AUTH_HASH_SIZE];
} AuthUser;

struct AuthSnapshot {
    gint refs;
    guint n;
    AuthUser users[];
};

struct Auth {
    char *path;
    AuthSnapshot *current;
    struct stat seen; /* of the file .current was read from; all zero: there was none */
};

/* --- snapshots --- */

static AuthSnapshot *snapshot_alloc(guint n)
{
    AuthSnapshot *s = g_malloc0(sizeof(*s) + n * sizeof(AuthUser));
    s->refs = 1;
    s->n = n;
    return s;
}

AuthSnapshot *auth_snapshot_ref(AuthSnapshot *snapshot)
{
    g_atomic_int_inc(&snapshot->refs);
    return snapshot;
}

void auth_snapshot_unref(AuthSnapshot *snapshot)
{
    if (!snapshot || !g_atomic_int_dec_and_test(&snapshot->refs))
        return;
    for (guint i = 0; i < snapshot->n; i++) {
        g_free(snapshot->users[i].name);
        explicit_bzero(snapshot->users[i].hash, AUTH_HASH_SIZE);
    }
    g_free(snapshot);
}

bool auth_snapshot_is_empty(const AuthSnapshot *snapshot)
{
    return snapshot->n == 0;
}

static const AuthUser *snapshot_find(const AuthSnapshot *snapshot, const char *name)
{
    for (guint i = 0; i < snapshot->n; i++) {
        if (strcmp(snapshot->users[i].name, name) == 0)
            return &snapshot->users[i];
    }
    return NULL;
}

/* A copy of @old without @name, and with (@name, @hash) at the end if @hash is given. */
static AuthSnapshot *snapshot_with(const AuthSnapshot *old, const char *name, const uint8_t *hash)
{
    guint keep = old->n - (snapshot_find(old, name) ? 1 : 0);
    AuthSnapshot *s = snapshot_alloc(keep + (hash ? 1 : 0));
    guint n = 0;

    for (guint i = 0; i < old->n; i++) {
        if (strcmp(old->users[i].name, name) == 0)
            continue;
        s->users[n].name = g_strdup(old->users[i].name);
        memcpy(s->users[n++].hash, old->users[i].hash, AUTH_HASH_SIZE);
    }
    if (hash) {
        s->users[n].name = g_strdup(name);
        memcpy(s->users[n].hash, hash, AUTH_HASH_SIZE);
    }
    return s;
}

static bool nt_hash(const char *password, uint8_t hash[AUTH_HASH_SIZE])
{
    glong units = 0;
    gunichar2 *wide = g_utf8_to_utf16(password, -1, NULL, &units, NULL);
    if (!wide)
        return false;
    bool ok = NTOWFv1W((LPWSTR)wide, (UINT32)units * sizeof(*wide), hash);
    explicit_bzero(wide, (size_t)units * sizeof(*wide));
    g_free(wide);
    return ok;
}

bool auth_snapshot_nt_hash(const AuthSnapshot *snapshot, const char *user,
                           uint8_t hash[AUTH_HASH_SIZE])
{
    const AuthUser *found = user ? snapshot_find(snapshot, user) : NULL;
    if (!found)
        found = snapshot_find(snapshot, "");
    if (!found) {
        winpr_RAND(hash, AUTH_HASH_SIZE);
        return false;
    }
    memcpy(hash, found->hash, AUTH_HASH_SIZE);
    return true;
}

bool auth_snapshot_verify(const AuthSnapshot *snapshot, const char *user, const char *password)
{
    uint8_t want[AUTH_HASH_SIZE], got[AUTH_HASH_SIZE] = {0};
    bool known = auth_snapshot_nt_hash(snapshot, user, want);
    bool usable = password && strlen(password) <= AUTH_MAX_PASSWORD && nt_hash(password, got);
    uint8_t different = 0;

    for (size_t i = 0; i < AUTH_HASH_SIZE; i++)
        different |= want[i] ^ got[i];
    explicit_bzero(want, sizeof(want));
    explicit_bzero(got, sizeof(got));
    return known && usable && different == 0;
}

/* --- the file --- */

static bool name_is_valid(const char *name)
{
    if (strlen(name) > AUTH_MAX_NAME || name[0] == '#' || !g_utf8_validate(name, -1, NULL))
        return false;
    for (const char *p = name; *p; p++) {
        if (*p == ':' || (unsigned char)*p < 0x20 || *p == 0x7f)
            return false;
    }
    return true;
}

/* One line "name:hash" (modified here). */
static bool parse_user(char *line, AuthUser *user)
{
    char *colon = strrchr(line, ':');
    if (!colon || strlen(colon + 1) != 2 * AUTH_HASH_SIZE)
        return false;
    for (size_t i = 0; i < AUTH_HASH_SIZE; i++) {
        gint high = g_ascii_xdigit_value(colon[1 + 2 * i]);
        gint low = g_ascii_xdigit_value(colon[2 + 2 * i]);
        if (high < 0 || low < 0)
            return false;
        user->hash[i] = (uint8_t)(high << 4 | low);
    }
    *colon = '\0';
    if (!name_is_valid(line))
        return false;
    user->name = g_strdup(line);
    return true;
}

static AuthSnapshot *parse_file(const char *path, const char *text, GError **error)
{
    char **lines = g_strsplit(text, "\n", -1);
    AuthSnapshot *s = snapshot_alloc(AUTH_MAX_USERS);
    const char *wrong = NULL;
    guint number = 0;

    s->n = 0;
    for (char **l = lines; *l && !wrong; l++) {
        AuthUser user = {0};
        number++;
        g_strchomp(*l);
        if (**l == '\0' || **l == '#')
            continue;
        if (!parse_user(*l, &user)) {
            wrong = "is not name:32-hex-digits";
        } else if (s->n == AUTH_MAX_USERS || snapshot_find(s, user.name)) {
            wrong = s->n == AUTH_MAX_USERS ? "is one user too many" : "repeats a name";
            g_free(user.name);
        } else {
            s->users[s->n++] = user;
        }
        explicit_bzero(user.hash, sizeof(user.hash));
    }
    for (char **l = lines; *l; l++)
        explicit_bzero(*l, strlen(*l));
    g_strfreev(lines);
    if (wrong) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "credentials file %s: line %u %s; set the password again with `qrdp passwd`",
                    path, number, wrong);
        g_clear_pointer(&s, auth_snapshot_unref);
    }
    return s;
}

static bool check_private(const char *path, const struct stat *st, GError **error)
{
    if (!S_ISREG(st->st_mode) || st->st_size > AUTH_MAX_FILE) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_REGULAR_FILE,
                    "credentials file %s is not a regular file of at most %u bytes", path,
                    AUTH_MAX_FILE);
        return false;
    }
    if (st->st_mode & 077) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED,
                    "credentials file %s can be read by others (mode %04o): run `chmod 600 %s` and "
                    "change the passwords in it",
                    path, st->st_mode & 07777, path);
        return false;
    }
    if (st->st_uid != geteuid() && st->st_uid != 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED,
                    "credentials file %s belongs to another user (uid %u): run `chown %u %s`", path,
                    (unsigned)st->st_uid, (unsigned)geteuid(), path);
        return false;
    }
    return true;
}

static bool read_all(int fd, char *text, size_t size)
{
    size_t got = 0;
    while (got < size) {
        ssize_t n = read(fd, text + got, size - got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        if (n == 0)
            break;
        got += (size_t)n;
    }
    text[got] = '\0';
    return true;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mode == b->st_mode && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
           a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static bool load_fd(Auth *auth, int fd, GError **error)
{
    struct stat st;
    if (fstat(fd, &st) < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno), "credentials file %s: %s",
                    auth->path, g_strerror(errno));
        return false;
    }
    if (same_file(&st, &auth->seen))
        return true;
    if (!check_private(auth->path, &st, error))
        return false;

    size_t size = (size_t)st.st_size;
    char *text = g_malloc(size + 1);
    AuthSnapshot *s = NULL;
    if (!read_all(fd, text, size))
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno), "credentials file %s: %s",
                    auth->path, g_strerror(errno));
    else
        s = parse_file(auth->path, text, error);
    explicit_bzero(text, size + 1);
    g_free(text);
    if (!s)
        return false;
    auth_snapshot_unref(auth->current);
    auth->current = s;
    auth->seen = st;
    return true;
}

bool auth_reload(Auth *auth, GError **error)
{
    if (!auth->path)
        return true;
    int fd = open(auth->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 && errno == ENOENT) {
        auth_clear(auth);
        memset(&auth->seen, 0, sizeof(auth->seen));
        return true;
    }
    if (fd < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno),
                    "credentials file %s cannot be read: %s", auth->path, g_strerror(errno));
        return false;
    }
    bool ok = load_fd(auth, fd, error);
    close(fd);
    return ok;
}

static bool store(Auth *auth, AuthSnapshot *s, GError **error)
{
    if (auth->path) {
        char *dir = g_path_get_dirname(auth->path);
        bool made = g_mkdir_with_parents(dir, 0700) == 0;
        int saved = errno;
        GString *text = g_string_new(auth_header);

        for (guint i = 0; i < s->n; i++) {
            g_string_append_printf(text, "%s:", s->users[i].name);
            for (size_t k = 0; k < AUTH_HASH_SIZE; k++)
                g_string_append_printf(text, "%02x", s->users[i].hash[k]);
            g_string_append_c(text, '\n');
        }
        bool ok = false;
        if (!made)
            g_set_error(error, G_IO_ERROR, g_io_error_from_errno(saved), "cannot create %s: %s",
                        dir, g_strerror(saved));
        else
            ok = g_file_set_contents_full(
                auth->path, text->str, (gssize)text->len,
                G_FILE_SET_CONTENTS_CONSISTENT | G_FILE_SET_CONTENTS_DURABLE, 0600, error);
        explicit_bzero(text->str, text->len);
        g_string_free(text, TRUE);
        g_free(dir);
        if (!ok) {
            auth_snapshot_unref(s);
            return false;
        }
        if (stat(auth->path, &auth->seen) < 0)
            memset(&auth->seen, 0, sizeof(auth->seen));
    }
    auth_snapshot_unref(auth->current);
    auth->current = s;
    return true;
}

/* --- the store --- */

Auth *auth_new(const char *path, GError **error)
{
    /* MD4 lives in OpenSSL's legacy provider, which this loads. */
    winpr_InitializeSSL(WINPR_SSL_INIT_DEFAULT);
    Auth *auth = g_new0(Auth, 1);
    auth->path = g_strdup(path);
    auth->current = snapshot_alloc(0);
    if (!auth_reload(auth, error))
        g_clear_pointer(&auth, auth_free);
    return auth;
}

void auth_free(Auth *auth)
{
    if (!auth)
        return;
    auth_snapshot_unref(auth->current);
    g_free(auth->path);
    g_free(auth);
}

bool auth_is_empty(const Auth *auth)
{
    return auth->current->n == 0;
}

bool auth_check_name(const char *name, GError **error)
{
    if (name_is_valid(name))
        return true;
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                "a user name has at most %u bytes of UTF-8, no colon and no control characters, "
                "and does not begin with #",
                AUTH_MAX_NAME);
    return false;
}

bool auth_set_password(Auth *auth, const char *user, const char *password, GError **error)
{
    const char *name = user ? user : "";
    size_t len = strlen(password);
    uint8_t hash[AUTH_HASH_SIZE];

    if (!auth_check_name(name, error))
        return false;
    if (len == 0 || len > AUTH_MAX_PASSWORD || !g_utf8_validate(password, -1, NULL)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "a password has 1 to %u bytes of UTF-8", AUTH_MAX_PASSWORD);
        return false;
    }
    if (!snapshot_find(auth->current, name) && auth->current->n >= AUTH_MAX_USERS) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NO_SPACE,
                    "there are %u users already, which is the maximum", AUTH_MAX_USERS);
        return false;
    }
    if (!nt_hash(password, hash)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
                    "MD4 is not available, so no NT hash can be made: install OpenSSL's legacy "
                    "provider (Debian 13: apt install openssl-provider-legacy)");
        return false;
    }
    bool ok = store(auth, snapshot_with(auth->current, name, hash), error);
    explicit_bzero(hash, sizeof(hash));
    return ok;
}

bool auth_remove(Auth *auth, const char *user, GError **error)
{
    const char *name = user ? user : "";
    if (!snapshot_find(auth->current, name)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND, "there is no user \"%s\"", name);
        return false;
    }
    return store(auth, snapshot_with(auth->current, name, NULL), error);
}

void auth_clear(Auth *auth)
{
    auth_snapshot_unref(auth->current);
    auth->current = snapshot_alloc(0);
}

AuthSnapshot *auth_snapshot(Auth *auth)
{
    return auth_snapshot_ref(auth->current);
}
