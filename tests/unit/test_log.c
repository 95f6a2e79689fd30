#include "log.h"

#include <glib.h>
#include <string.h>
#include <unistd.h>

static void assert_escaped(const char *in, size_t len, const char *expected)
{
    char out[128];

    g_assert_cmpstr(log_escape(out, sizeof(out), in, len), ==, expected);
    g_assert_true(g_utf8_validate(out, -1, NULL));
}

static void test_escape(void)
{
    assert_escaped("plain text", SIZE_MAX, "plain text");
    assert_escaped("a\nb\x1b[31m", SIZE_MAX, "a\\x0ab\\x1b[31m");
    assert_escaped("back\\slash", SIZE_MAX, "back\\x5cslash");
    assert_escaped("nul\0in", 6, "nul\\x00in");
    assert_escaped("\x7f", SIZE_MAX, "\\x7f");
    assert_escaped("M\xc3\xbcller \xe2\x82\xac \xf0\x9f\x98\x80", SIZE_MAX,
                   "M\xc3\xbcller \xe2\x82\xac \xf0\x9f\x98\x80");
    assert_escaped("\xc2\x9b", SIZE_MAX, "\\xc2\\x9b");                   /* C1 control CSI */
    assert_escaped("\xe2\x80\xae", SIZE_MAX, "\\xe2\\x80\\xae");          /* direction override */
    assert_escaped("\xed\xa0\x80", SIZE_MAX, "\\xed\\xa0\\x80");          /* surrogate */
    assert_escaped("\xc0\xaf", SIZE_MAX, "\\xc0\\xaf");                   /* overlong */
    assert_escaped("\xe2\x82", SIZE_MAX, "\\xe2\\x82");                   /* cut off */
    assert_escaped("\xf4\x90\x80\x80", SIZE_MAX, "\\xf4\\x90\\x80\\x80"); /* past U+10FFFF */
}

static void test_escape_truncates(void)
{
    char out[6];

    g_assert_cmpstr(log_escape(out, sizeof(out), "abcdefgh", SIZE_MAX), ==, "abcde");
    g_assert_cmpstr(log_escape(out, sizeof(out), "ab\n", SIZE_MAX), ==, "ab"); /* no half escapes */
    g_assert_cmpstr(log_escape(out, sizeof(out), "abcd\xc3\xbc", SIZE_MAX), ==, "abcd");
    out[0] = 'x';
    log_escape(out, 1, "abc", SIZE_MAX);
    g_assert_cmpint(out[0], ==, 0);
}

static void test_level_names(void)
{
    LogLevel level = LOG_LEVEL_INFO;

    g_assert_true(log_level_from_string("trace", &level));
    g_assert_cmpint(level, ==, LOG_LEVEL_TRACE);
    g_assert_false(log_level_from_string("TRACE", &level));
    g_assert_false(log_level_from_string("", &level));
    g_assert_cmpint(level, ==, LOG_LEVEL_TRACE);
}

static void test_limit(void)
{
    LogLimit limit = {0};

    for (int i = 0; i < 3; i++)
        g_assert_true(log_limit(&limit, 1000, 100, 3));
    g_assert_false(log_limit(&limit, 1050, 100, 3));
    g_assert_true(log_limit(&limit, 1100, 100, 3));
}

/* Standard error goes to a pipe, so that the line can be looked at. */
static void test_line(void)
{
    char line[2048] = "", expected[1200];
    char text[3000];
    int fds[2], saved = dup(STDERR_FILENO);

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    g_assert_cmpint(pipe(fds), ==, 0);
    dup2(fds[1], STDERR_FILENO);
    log_set_level(LOG_LEVEL_WARNING);
    log_info("x", "not written");
    log_warning("alice", "%s", "hello");
    log_warning(NULL, "%s", text);
    dup2(saved, STDERR_FILENO);
    close(fds[1]);
    ssize_t n = read(fds[0], line, sizeof(line) - 1);
    close(fds[0]);
    close(saved);
    g_assert_cmpint((int)n, >, 0);
    line[n] = '\0';
    g_snprintf(expected, sizeof(expected), "qrdp: warning: [alice] hello\nqrdp: warning: xxxx");
    g_assert_true(g_str_has_prefix(line, expected));
    g_assert_cmpint(line[n - 1], ==, '\n');
    g_assert_cmpint((int)n, <=, 29 + 1024); /* the long one was cut, its newline kept */
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/log/escape", test_escape);
    g_test_add_func("/log/escape-truncates", test_escape_truncates);
    g_test_add_func("/log/level-names", test_level_names);
    g_test_add_func("/log/limit", test_limit);
    g_test_add_func("/log/line", test_line);
    return g_test_run();
}
