/* The control socket: questions and answers, bad callers, modes, and dead instances. */
#include <errno.h>
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "control.h"

typedef struct Fixture {
    char *base, *dir;
    Control *control;
    size_t answer_len; /* of the word "big" */
} Fixture;

static char *on_request(void *user, char **words, bool *ok)
{
    Fixture *f = user;
    *ok = strcmp(words[0], "fail") != 0;
    if (strcmp(words[0], "big") == 0)
        return g_strnfill(f->answer_len, 'x');
    return g_strjoinv("+", words);
}

static void set_up(Fixture *f, const void *data)
{
    g_autoptr(GError) error = NULL;
    f->base = g_dir_make_tmp("qrdp-control-XXXXXX", NULL);
    f->dir = g_build_filename(f->base, "one", NULL);
    g_assert_true(control_make_dir(f->dir, &error));
    f->control = control_new(f->dir, on_request, f, &error);
    g_assert_no_error(error);
}

static void tear_down(Fixture *f, const void *data)
{
    control_free(f->control);
    g_assert_false(g_file_test(f->dir, G_FILE_TEST_EXISTS)); /* socket and directory are gone */
    g_rmdir(f->base);
    g_free(f->base);
    g_free(f->dir);
}

typedef struct Call {
    const char *dir;
    char **words;
    char *text;
    bool ok;
    GError *error;
    gint done;
} Call;

static void *call_thread(void *data)
{
    Call *call = data;
    call->text = control_call(call->dir, call->words, &call->ok, &call->error);
    g_atomic_int_set(&call->done, 1);
    g_main_context_wakeup(NULL);
    return NULL;
}

/** control_call() blocks, so it runs in a thread while this one serves. */
static Call ask(const char *dir, const char *line)
{
    Call call = {.dir = dir, .words = g_strsplit(line, "|", -1)};
    GThread *thread = g_thread_new("call", call_thread, &call);
    while (!g_atomic_int_get(&call.done))
        g_main_context_iteration(NULL, TRUE);
    g_thread_join(thread);
    g_strfreev(call.words);
    return call;
}

static void call_clear(Call *call)
{
    g_free(call->text);
    g_clear_error(&call->error);
}

static void test_answers(Fixture *f, const void *data)
{
    Call call = ask(f->dir, "usb|allow|1");
    g_assert_no_error(call.error);
    g_assert_true(call.ok);
    g_assert_cmpstr(call.text, ==, "usb+allow+1");
    call_clear(&call);
    call = ask(f->dir, "fail");
    g_assert_false(call.ok);
    g_assert_cmpstr(call.text, ==, "fail");
    call_clear(&call);
}

static void test_big_answer(Fixture *f, const void *data)
{
    f->answer_len = 3u << 20;
    Call call = ask(f->dir, "big");
    g_assert_no_error(call.error);
    g_assert_cmpuint(strlen(call.text), ==, f->answer_len);
    call_clear(&call);
    f->answer_len = CONTROL_MAX_ANSWER + 100000;
    call = ask(f->dir, "big");
    g_assert_nonnull(call.error); /* the asking side has a limit too */
    call_clear(&call);
}

static void test_modes(Fixture *f, const void *data)
{
    struct stat st;
    g_autofree char *path = g_build_filename(f->dir, "control", NULL);
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpuint(st.st_mode & 07777, ==, 0600);
    g_assert_cmpint(stat(f->dir, &st), ==, 0);
    g_assert_cmpuint(st.st_mode & 07777, ==, 0700);
}

static int raw_connect(const char *dir)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    g_snprintf(address.sun_path, sizeof(address.sun_path), "%s/control", dir);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(connect(fd, (struct sockaddr *)&address, sizeof(address)), ==, 0);
    return fd;
}

/** Everything the server says until it hangs up. */
static char *raw_read(int fd)
{
    GString *out = g_string_new(NULL);
    char buffer[512];
    for (;;) {
        ssize_t n = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
        if (n > 0)
            g_string_append_len(out, buffer, n);
        else if (n == 0 || errno != EAGAIN)
            break;
        else
            g_main_context_iteration(NULL, TRUE);
    }
    close(fd);
    return g_string_free(out, FALSE);
}

static void assert_raw(Fixture *f, const char *bytes, size_t len, const char *expected)
{
    int fd = raw_connect(f->dir);
    g_assert_cmpint(send(fd, bytes, len, MSG_NOSIGNAL), ==, (ssize_t)len);
    g_autofree char *text = raw_read(fd);
    if (!g_str_has_prefix(text, expected))
        g_error("\"%s\" does not begin with \"%s\"", text, expected);
}

static void test_bad_callers(Fixture *f, const void *data)
{
    g_autofree char *endless = g_strnfill(CONTROL_MAX_REQUEST, 'a');
    assert_raw(f, endless, strlen(endless), "error\nThe request is too long");
    assert_raw(f, "\n", 1, "error\nThe request is not");
    assert_raw(f, "a\xff\n", 3, "error\nThe request is not");
    assert_raw(f, " a\n", 3, "error\n");
    assert_raw(f, "a b\nrest is ignored", 19, "ok\na+b");
    int fd = raw_connect(f->dir);
    close(fd); /* says nothing and leaves */
    Call call = ask(f->dir, "after");
    g_assert_cmpstr(call.text, ==, "after");
    call_clear(&call);
}

/** Silent callers fill the table; the next one is turned away; the deadline frees the table. */
static void test_deadline(Fixture *f, const void *data)
{
    int fds[CONTROL_MAX_CLIENTS];
    for (size_t i = 0; i < G_N_ELEMENTS(fds); i++) {
        fds[i] = raw_connect(f->dir);
        while (g_main_context_iteration(NULL, FALSE))
            ;
    }
    g_autofree char *refused = raw_read(raw_connect(f->dir));
    g_assert_cmpstr(refused, ==, "");
    gint64 start = g_get_monotonic_time();
    for (size_t i = 0; i < G_N_ELEMENTS(fds); i++) {
        g_autofree char *text = raw_read(fds[i]);
        g_assert_cmpstr(text, ==, "");
    }
    gint64 took = (g_get_monotonic_time() - start) / 1000;
    g_assert_cmpint(took, >, CONTROL_DEADLINE_MS / 2);
    g_assert_cmpint(took, <, CONTROL_DEADLINE_MS * 2);
    Call call = ask(f->dir, "again");
    g_assert_cmpstr(call.text, ==, "again");
    call_clear(&call);
}

/* No descriptor is left for the caller: qrdp waits, idle, and answers when there is one. */
static void test_no_descriptors(Fixture *f, const void *data)
{
    struct rlimit before, none;
    int fd = raw_connect(f->dir);
    int next = dup(fd);

    close(next);
    g_assert_cmpint(getrlimit(RLIMIT_NOFILE, &before), ==, 0);
    none = before;
    none.rlim_cur = (rlim_t)next;
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &none), ==, 0);
    g_main_context_iteration(NULL, TRUE);
    g_assert_false(g_main_context_pending(NULL));
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &before), ==, 0);
    g_assert_cmpint(send(fd, "late\n", 5, 0), ==, 5);
    char *text = raw_read(fd);
    g_assert_cmpstr(text, ==, "ok\nlate");
    g_free(text);
    close(fd);
}

static void test_bad_words(Fixture *f, const void *data)
{
    static const char *const lines[] = {"two words", "a|", "a\nb"};
    for (size_t i = 0; i < G_N_ELEMENTS(lines); i++) {
        Call call = ask(f->dir, lines[i]);
        g_assert_null(call.text);
        g_assert_nonnull(strstr(call.error->message, "single word"));
        call_clear(&call);
    }
}

static void test_instances(Fixture *f, const void *data)
{
    g_autoptr(GError) error = NULL;
    g_assert_null(control_new(f->dir, on_request, f, &error));
    g_assert_nonnull(strstr(error->message, "--run-dir"));

    /* What a killed qrdp leaves: a socket that nobody serves. */
    g_autofree char *dead = g_build_filename(f->base, "dead", NULL);
    g_autofree char *path = g_build_filename(dead, "control", NULL);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    g_assert_true(control_make_dir(dead, NULL));
    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(bind(fd, (struct sockaddr *)&address, sizeof(address)), ==, 0);
    close(fd);

    g_autoptr(GPtrArray) found = control_list(f->base);
    g_assert_cmpuint(found->len, ==, 1);
    g_assert_cmpstr(g_ptr_array_index(found, 0), ==, f->dir);
    g_assert_false(g_file_test(dead, G_FILE_TEST_EXISTS));

    bool ok;
    char *words[] = {(char *)"status", NULL};
    g_clear_error(&error);
    g_assert_null(control_call(dead, words, &ok, &error));
    g_assert_nonnull(strstr(error->message, "is it running"));
}

static void test_foreign_dir(Fixture *f, const void *data)
{
    g_autofree char *dir = g_build_filename(f->base, "open", NULL);
    g_autofree char *link = g_build_filename(f->base, "link", NULL);
    g_autoptr(GError) error = NULL;
    g_assert_cmpint(g_mkdir(dir, 0700), ==, 0);
    g_assert_cmpint(chmod(dir, 0777), ==, 0);
    g_assert_false(control_make_dir(dir, &error));
    g_assert_nonnull(strstr(error->message, "--run-dir"));
    g_clear_error(&error);
    g_assert_cmpint(symlink(f->dir, link), ==, 0);
    g_assert_false(control_make_dir(link, &error));
    g_assert_nonnull(error);
    g_unlink(link);
    g_rmdir(dir);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name, function) g_test_add("/control/" name, Fixture, NULL, set_up, function, tear_down)
    ADD("answers", test_answers);
    ADD("big-answer", test_big_answer);
    ADD("modes", test_modes);
    ADD("bad-callers", test_bad_callers);
    ADD("deadline", test_deadline);
    ADD("bad-words", test_bad_words);
    ADD("no-descriptors", test_no_descriptors);
    ADD("instances", test_instances);
    ADD("foreign-dir", test_foreign_dir);
    return g_test_run();
}
