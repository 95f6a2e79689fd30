#include <glib.h>

#include "latency.h"

static void test_empty(void)
{
    Latency l = {0};

    g_assert_cmpuint(latency_permille(&l, 500), ==, 0);
}

static void test_within_nine_percent(void)
{
    for (uint64_t us = 1; us < 20000000; us += 1 + us / 7) {
        Latency l = {0};
        latency_add(&l, us);
        latency_add(&l, us * 4);
        uint64_t median = latency_permille(&l, 500);
        g_assert_cmpuint(median, >=, us);
        g_assert_cmpuint(median, <=, us + us / 8);
        g_assert_cmpuint(latency_permille(&l, 1000), ==, us * 4);
    }
}

static void test_order(void)
{
    Latency l = {0};

    for (unsigned i = 1; i <= 1000; i++)
        latency_add(&l, i);
    g_assert_cmpuint(latency_permille(&l, 500), >=, 500);
    g_assert_cmpuint(latency_permille(&l, 500), <, 563);
    g_assert_cmpuint(latency_permille(&l, 990), >=, 990);
    latency_add(&l, UINT64_MAX);
    g_assert_cmpuint(latency_permille(&l, 1000), >=, 1000);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/latency/empty", test_empty);
    g_test_add_func("/latency/within-nine-percent", test_within_nine_percent);
    g_test_add_func("/latency/order", test_order);
    return g_test_run();
}
