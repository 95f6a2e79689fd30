/* Echoes of a screen size are dropped, late ones too; a user's wish goes through. */
#include <glib.h>

#include "size_echo.h"

#define MS 1000

static bool report(SizeEcho *echo, uint32_t width, uint32_t height, int64_t now)
{
    DispLayout layout = {.width = width, .height = height, .monitors = 1};

    return size_echo_report(echo, &layout, now);
}

static void test_wish(void)
{
    SizeEcho echo = {0};

    g_assert_true(report(&echo, 800, 600, 1));
    size_echo_shown(&echo, 1024, 768, 10 * MS);
    g_assert_true(report(&echo, 1024, 600, 20 * MS));
    g_assert_true(report(&echo, 800, 768, 20 * MS));
}

static void test_echo(void)
{
    SizeEcho echo = {0};

    size_echo_shown(&echo, 1024, 768, 10 * MS);
    g_assert_false(report(&echo, 1024, 768, 200 * MS));
    g_assert_true(report(&echo, 900, 700, 300 * MS));
    g_assert_true(report(&echo, 1024, 768, 400 * MS)); /* one echo is all it makes */
    size_echo_shown(&echo, 640, 480, 500 * MS);
    g_assert_true(report(&echo, 640, 480, 500 * MS + SIZE_ECHO_US));
}

/* The size at connection is answered after the guest has taken the wish sent with it; what the
 * client says of the new size then is no news, whichever way it is taken. */
static void test_late_echo(void)
{
    SizeEcho echo = {0};

    size_echo_shown(&echo, 1120, 630, 0);
    size_echo_shown(&echo, 1040, 700, 100 * MS);
    g_assert_false(report(&echo, 1120, 630, 5000 * MS));
    g_assert_false(report(&echo, 1040, 700, 5300 * MS));
}

/* Dragged to another size and back, at once or when the guest has followed. */
static void test_dragged_back(void)
{
    SizeEcho echo = {0};

    size_echo_shown(&echo, 800, 600, 0);
    g_assert_false(report(&echo, 800, 600, 200 * MS));
    g_assert_true(report(&echo, 900, 700, 1000 * MS));
    g_assert_true(report(&echo, 800, 600, 1100 * MS));
    g_assert_true(report(&echo, 900, 700, 1200 * MS));
    size_echo_shown(&echo, 900, 700, 1300 * MS);
    g_assert_true(report(&echo, 800, 600, 1400 * MS));
    size_echo_shown(&echo, 800, 600, 1500 * MS);
    g_assert_true(report(&echo, 900, 700, 1600 * MS));
}

static void test_many_switches(void)
{
    SizeEcho echo = {0};

    for (unsigned i = 0; i < 100; i++)
        size_echo_shown(&echo, 640 + i, 480, i);
    for (unsigned i = 0; i < 100; i++)
        g_assert_cmpint(report(&echo, 640 + i, 480, 100), ==, i < 100 - SIZE_ECHO_SHOWN);
    /* The same size again is no switch. */
    for (unsigned i = 0; i < 100; i++)
        size_echo_shown(&echo, 739, 480, 100);
    g_assert_true(report(&echo, 738, 480, 100));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/size-echo/wish", test_wish);
    g_test_add_func("/size-echo/echo", test_echo);
    g_test_add_func("/size-echo/late-echo", test_late_echo);
    g_test_add_func("/size-echo/dragged-back", test_dragged_back);
    g_test_add_func("/size-echo/many-switches", test_many_switches);
    return g_test_run();
}
