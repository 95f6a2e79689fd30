/* Admission: limits per address and in total, pauses after failures, a bounded table. */
#include "throttle.h"

#include <glib.h>

#define SECOND 1000000u

/* Where nobody is to be sent away. */
static ThrottleVerdict admit(Throttle *t, const char *key, uint64_t now)
{
    const char *crowd;
    ThrottleVerdict verdict = throttle_admit(t, key, now, &crowd);
    g_assert_null(crowd);
    return verdict;
}

static void test_pending(void)
{
    Throttle *t = throttle_new(16, 2);
    uint64_t now = 5 * SECOND;
    g_assert_cmpint(admit(t, "a", now), ==, THROTTLE_ADMIT);
    g_assert_cmpint(admit(t, "a", now), ==, THROTTLE_ADMIT);
    g_assert_cmpint(admit(t, "a", now), ==, THROTTLE_PENDING);
    g_assert_cmpint(admit(t, "b", now), ==, THROTTLE_ADMIT);
    throttle_succeeded(t, "a");
    g_assert_cmpint(admit(t, "a", now), ==, THROTTLE_ADMIT);
    throttle_left(t, "a", true);
    throttle_left(t, "a", true);
    throttle_left(t, "a", false);
    g_assert_cmpint(admit(t, "a", now), ==, THROTTLE_ADMIT);
    throttle_free(t);
}

static void test_total(void)
{
    Throttle *t = throttle_new(3, 5);
    g_assert_cmpint(admit(t, "a", 1), ==, THROTTLE_ADMIT);
    g_assert_cmpint(admit(t, "b", 1), ==, THROTTLE_ADMIT);
    g_assert_cmpint(admit(t, "c", 1), ==, THROTTLE_ADMIT);
    throttle_succeeded(t, "a");
    throttle_succeeded(t, "b");
    throttle_succeeded(t, "c");
    g_assert_cmpint(admit(t, "d", 1), ==, THROTTLE_FULL);
    throttle_left(t, "b", false);
    g_assert_cmpint(admit(t, "d", 1), ==, THROTTLE_ADMIT);
    throttle_free(t);
}

/* Four addresses hold every place without logging in: a fifth gets one, from the largest crowd. */
static void test_crowd(void)
{
    Throttle *t = throttle_new(16, 5);
    static const char *const keys[] = {"a", "b", "c", "d"};
    const char *crowd;

    for (unsigned i = 0; i < 16; i++)
        g_assert_cmpint(admit(t, keys[i % 4], 1 + i * SECOND), ==, THROTTLE_ADMIT);
    throttle_left(t, "c", true);
    g_assert_cmpint(admit(t, "b", 17 * SECOND), ==, THROTTLE_ADMIT); /* five of b, three of c */
    g_assert_cmpint(throttle_admit(t, "e", 17 * SECOND, &crowd), ==, THROTTLE_ADMIT);
    g_assert_cmpstr(crowd, ==, "b");
    throttle_left(t, crowd, true);
    throttle_succeeded(t, "e");
    /* b is not worse than a and d now, and c only has fewer. */
    g_assert_cmpint(admit(t, "a", 18 * SECOND), ==, THROTTLE_FULL);
    g_assert_cmpint(throttle_admit(t, "c", 18 * SECOND, &crowd), ==, THROTTLE_ADMIT);
    g_assert_nonnull(crowd);
    throttle_left(t, crowd, true);
    throttle_free(t);
}

/* Who has logged in is no crowd. */
static void test_crowd_of_users(void)
{
    Throttle *t = throttle_new(3, 5);

    for (unsigned i = 0; i < 3; i++) {
        g_assert_cmpint(admit(t, "a", 1), ==, THROTTLE_ADMIT);
        throttle_succeeded(t, "a");
    }
    g_assert_cmpint(admit(t, "b", 1), ==, THROTTLE_FULL);
    throttle_left(t, "a", false);
    g_assert_cmpint(admit(t, "b", 1), ==, THROTTLE_ADMIT);
    throttle_free(t);
}

static void test_rate(void)
{
    Throttle *t = throttle_new(1000, 1000);
    uint64_t now = 7 * SECOND;
    for (unsigned i = 0; i < THROTTLE_MAX_ATTEMPTS; i++)
        g_assert_cmpint(admit(t, "a", now + i), ==, THROTTLE_ADMIT);
    g_assert_cmpint(admit(t, "a", now + 20), ==, THROTTLE_RATE);
    g_assert_cmpint(admit(t, "a", now + SECOND), ==, THROTTLE_ADMIT);
    throttle_free(t);
}

static void fail_once(Throttle *t, const char *key, uint64_t now)
{
    g_assert_cmpint(admit(t, key, now), ==, THROTTLE_ADMIT);
    throttle_failed(t, key, now);
    throttle_left(t, key, true);
}

static void test_pause_grows(void)
{
    Throttle *t = throttle_new(16, 5);
    uint64_t now = SECOND;
    for (unsigned i = 0; i < THROTTLE_FREE_FAILURES; i++)
        fail_once(t, "a", now);
    uint64_t expected = THROTTLE_FIRST_PAUSE_US;
    for (int i = 0; i < 30; i++) {
        g_assert_cmpuint(throttle_pause_left(t, "a", now), ==, expected);
        g_assert_cmpint(admit(t, "a", now + expected - 1), ==, THROTTLE_PAUSE);
        g_assert_cmpint(admit(t, "b", now + expected - 1), ==, THROTTLE_ADMIT);
        throttle_left(t, "b", true);
        now += expected;
        fail_once(t, "a", now);
        expected = MIN(2 * expected, THROTTLE_MAX_PAUSE_US);
    }
    g_assert_cmpuint(expected, ==, THROTTLE_MAX_PAUSE_US);

    /* Right in the end: all is forgiven. */
    now += THROTTLE_MAX_PAUSE_US;
    g_assert_cmpint(admit(t, "a", now), ==, THROTTLE_ADMIT);
    throttle_succeeded(t, "a");
    throttle_left(t, "a", false);
    fail_once(t, "a", now);
    g_assert_cmpuint(throttle_pause_left(t, "a", now), ==, 0);
    throttle_free(t);
}

static void test_forgets(void)
{
    Throttle *t = throttle_new(16, 5);
    uint64_t now = SECOND;
    for (unsigned i = 0; i < THROTTLE_FREE_FAILURES; i++)
        fail_once(t, "a", now);
    now += THROTTLE_FORGET_US;
    fail_once(t, "a", now);
    g_assert_cmpuint(throttle_pause_left(t, "a", now), ==, 0);
    throttle_free(t);
}

/* A flood of addresses neither grows the table nor washes out a guesser's pause. */
static void test_bounded(void)
{
    Throttle *t = throttle_new(16, 5);
    uint64_t now = SECOND;
    char key[32];
    for (unsigned i = 0; i < THROTTLE_FREE_FAILURES + 12; i++) {
        fail_once(t, "guesser", now);
        now += throttle_pause_left(t, "guesser", now);
    }
    throttle_failed(t, "guesser", now);
    g_assert_cmpint(admit(t, "held", now), ==, THROTTLE_ADMIT);
    for (unsigned i = 0; i < 10 * THROTTLE_MAX_ADDRESSES; i++) {
        g_snprintf(key, sizeof(key), "f%u", i);
        g_assert_cmpint(admit(t, key, now), ==, THROTTLE_ADMIT);
        throttle_left(t, key, true);
    }
    g_assert_cmpint(admit(t, "guesser", now + 1), ==, THROTTLE_PAUSE);
    g_assert_cmpuint(throttle_pause_left(t, "f1", now), ==, 0);
    throttle_left(t, "held", true); /* its record is still there */
    throttle_free(t);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/throttle/pending", test_pending);
    g_test_add_func("/throttle/total", test_total);
    g_test_add_func("/throttle/crowd", test_crowd);
    g_test_add_func("/throttle/crowd-of-users", test_crowd_of_users);
    g_test_add_func("/throttle/rate", test_rate);
    g_test_add_func("/throttle/pause-grows", test_pause_grows);
    g_test_add_func("/throttle/forgets", test_forgets);
    g_test_add_func("/throttle/bounded", test_bounded);
    return g_test_run();
}
