/* The credential store: hashes, the file and its permissions, snapshots. */
#include "auth.h"

#include <gio/gio.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>

static char *dir;

static char *file_path(const char *name)
{
    return g_build_filename(dir, name, NULL);
}

static void write_file(const char *path, const char *text, int mode)
{
    g_assert_true(g_file_set_contents(path, text, -1, NULL));
    g_assert_cmpint(g_chmod(path, (mode_t)mode), ==, 0);
}

/* NT hash of "password", a published value. */
static const char hash_of_password[] = "8846f7eaee8fb117ad06bdd830b7586c";

static void test_nt_hash(void)
{
    Auth *auth = auth_new(NULL, NULL);
    uint8_t hash[AUTH_HASH_SIZE];
    char hex[2 * AUTH_HASH_SIZE + 1];

    g_assert_true(auth_is_empty(auth));
    g_assert_true(auth_set_password(auth, "alice", "password", NULL));
    AuthSnapshot *s = auth_snapshot(auth);
    g_assert_true(auth_snapshot_nt_hash(s, "alice", hash));
    for (size_t i = 0; i < AUTH_HASH_SIZE; i++)
        g_snprintf(hex + 2 * i, 3, "%02x", hash[i]);
    g_assert_cmpstr(hex, ==, hash_of_password);

    uint8_t a[AUTH_HASH_SIZE], b[AUTH_HASH_SIZE];
    g_assert_false(auth_snapshot_nt_hash(s, "bob", a));
    g_assert_false(auth_snapshot_nt_hash(s, "bob", b));
    g_assert_cmpint(memcmp(a, b, sizeof(a)), !=, 0); /* useless to a client, each time */
    auth_snapshot_unref(s);
    auth_free(auth);
}

static void test_verify(void)
{
    Auth *auth = auth_new(NULL, NULL);
    g_assert_true(auth_set_password(auth, "alice", "pässwörd €", NULL));
    AuthSnapshot *s = auth_snapshot(auth);
    g_assert_true(auth_snapshot_verify(s, "alice", "pässwörd €"));
    g_assert_false(auth_snapshot_verify(s, "alice", "passwort"));
    g_assert_false(auth_snapshot_verify(s, "Alice", "pässwörd €"));
    g_assert_false(auth_snapshot_verify(s, "", "pässwörd €"));
    g_assert_false(auth_snapshot_verify(s, NULL, "pässwörd €"));
    g_assert_false(auth_snapshot_verify(s, "alice", ""));
    g_assert_false(auth_snapshot_verify(s, "alice", NULL));
    g_assert_false(auth_snapshot_verify(s, "alice", "\xff\xfe"));

    /* A snapshot stays what it was. */
    g_assert_true(auth_set_password(auth, "alice", "other", NULL));
    g_assert_true(auth_snapshot_verify(s, "alice", "pässwörd €"));
    auth_snapshot_unref(s);
    s = auth_snapshot(auth);
    g_assert_true(auth_snapshot_verify(s, "alice", "other"));
    g_assert_false(auth_snapshot_verify(s, "alice", "pässwörd €"));
    auth_snapshot_unref(s);
    auth_free(auth);
}

static void test_any_name(void)
{
    Auth *auth = auth_new(NULL, NULL);
    g_assert_true(auth_set_password(auth, NULL, "shared", NULL));
    g_assert_true(auth_set_password(auth, "root", "own", NULL));
    AuthSnapshot *s = auth_snapshot(auth);
    g_assert_true(auth_snapshot_verify(s, "whoever", "shared"));
    g_assert_true(auth_snapshot_verify(s, "", "shared"));
    g_assert_true(auth_snapshot_verify(s, NULL, "shared"));
    g_assert_true(auth_snapshot_verify(s, "root", "own"));
    g_assert_false(auth_snapshot_verify(s, "root", "shared"));
    auth_snapshot_unref(s);
    auth_clear(auth);
    g_assert_true(auth_is_empty(auth));
    auth_free(auth);
}

static void test_file_round_trip(void)
{
    char *path = file_path("sub/credentials");
    Auth *auth = auth_new(path, NULL);
    GStatBuf st;
    char *text;

    g_assert_nonnull(auth);
    g_assert_true(auth_set_password(auth, "alice", "password", NULL));
    g_assert_true(auth_set_password(auth, "bob", "b", NULL));
    g_assert_cmpint(g_stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_mode & 07777, ==, 0600);
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_assert_nonnull(strstr(text, hash_of_password));
    g_assert_null(strstr(text, "password\n"));
    g_free(text);

    Auth *other = auth_new(path, NULL);
    AuthSnapshot *s = auth_snapshot(other);
    g_assert_true(auth_snapshot_verify(s, "alice", "password"));
    auth_snapshot_unref(s);
    g_assert_true(auth_remove(auth, "alice", NULL));
    g_assert_false(auth_remove(auth, "alice", NULL));
    g_assert_true(auth_reload(other, NULL));
    s = auth_snapshot(other);
    g_assert_false(auth_snapshot_verify(s, "alice", "password"));
    g_assert_true(auth_snapshot_verify(s, "bob", "b"));
    auth_snapshot_unref(s);

    g_assert_cmpint(g_unlink(path), ==, 0);
    g_assert_true(auth_reload(other, NULL));
    g_assert_true(auth_is_empty(other));
    auth_free(auth);
    auth_free(other);
    g_free(path);
}

static void assert_refused(const char *text, int mode, const char *sentence)
{
    char *path = file_path("bad");
    GError *error = NULL;
    write_file(path, text, mode);
    Auth *auth = auth_new(path, &error);
    g_assert_null(auth);
    g_assert_nonnull(strstr(error->message, sentence));
    g_error_free(error);
    g_unlink(path);
    g_free(path);
}

static void test_file_refused(void)
{
    assert_refused("a:8846f7eaee8fb117ad06bdd830b7586c\n", 0640, "chmod 600");
    assert_refused("a:8846f7eaee8fb117ad06bdd830b7586c\n", 0604, "chmod 600");
    assert_refused("# ok\na:8846f7eaee8fb117ad06bdd830b7586\n", 0600, "line 2");
    assert_refused("a:8846f7eaee8fb117ad06bdd830b7586g\n", 0600, "line 1");
    assert_refused("no hash\n", 0600, "line 1");
    assert_refused("a:8846f7eaee8fb117ad06bdd830b7586c\na:8846f7eaee8fb117ad06bdd830b7586c\n", 0600,
                   "repeats");
    assert_refused("a:b:8846f7eaee8fb117ad06bdd830b7586c\n", 0600, "line 1");

    GString *many = g_string_new(NULL);
    for (unsigned i = 0; i <= AUTH_MAX_USERS; i++)
        g_string_append_printf(many, "u%u:%s\n", i, hash_of_password);
    assert_refused(many->str, 0600, "too many");
    g_string_free(many, TRUE);
}

static void test_limits(void)
{
    Auth *auth = auth_new(NULL, NULL);
    char *long_name = g_strnfill(AUTH_MAX_NAME + 1, 'n');
    char *long_password = g_strnfill(AUTH_MAX_PASSWORD + 1, 'p');

    g_assert_false(auth_set_password(auth, "a:b", "x", NULL));
    g_assert_false(auth_set_password(auth, "a\nb", "x", NULL));
    g_assert_false(auth_set_password(auth, "#a", "x", NULL));
    g_assert_false(auth_set_password(auth, long_name, "x", NULL));
    g_assert_false(auth_set_password(auth, "a", "", NULL));
    g_assert_false(auth_set_password(auth, "a", long_password, NULL));
    g_assert_false(auth_set_password(auth, "a", "\xff", NULL));
    g_assert_true(auth_is_empty(auth));
    for (unsigned i = 0; i < AUTH_MAX_USERS; i++) {
        char name[16];
        g_snprintf(name, sizeof(name), "u%u", i);
        g_assert_true(auth_set_password(auth, name, "x", NULL));
    }
    g_assert_false(auth_set_password(auth, "one more", "x", NULL));
    g_assert_true(auth_set_password(auth, "u3", "replaced", NULL));
    g_free(long_name);
    g_free(long_password);
    auth_free(auth);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("qrdp-auth-XXXXXX", NULL);
    g_test_add_func("/auth/nt-hash", test_nt_hash);
    g_test_add_func("/auth/verify", test_verify);
    g_test_add_func("/auth/any-name", test_any_name);
    g_test_add_func("/auth/file-round-trip", test_file_round_trip);
    g_test_add_func("/auth/file-refused", test_file_refused);
    g_test_add_func("/auth/limits", test_limits);
    int status = g_test_run();
    char *sub = file_path("sub");
    g_rmdir(sub);
    g_rmdir(dir);
    g_free(sub);
    g_free(dir);
    return status;
}
