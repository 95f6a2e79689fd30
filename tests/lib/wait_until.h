/*
 * Waiting in a unit test that runs the default main context: with a deadline, and in the test's own
 * line if it passes. The includer defines DEADLINE_US.
 */
#ifndef QRDP_TESTS_WAIT_UNTIL_H
#define QRDP_TESTS_WAIT_UNTIL_H

#include <glib.h>

/* Waits, with a deadline, until @condition holds. */
#define wait_until(condition)                                                                      \
    do {                                                                                           \
        gint64 wait_end = g_get_monotonic_time() + DEADLINE_US;                                    \
        while (!(condition)) {                                                                     \
            g_assert_cmpint(g_get_monotonic_time(), <, wait_end);                                  \
            if (!g_main_context_iteration(NULL, FALSE))                                            \
                g_usleep(500);                                                                     \
        }                                                                                          \
    } while (0)

#endif
