/*
 * Network auto-detection: when something is asked, which answers count, and what a client can do to
 * the estimate by not answering, answering twice, or lying.
 */
#include "link_probe.h"

#include <glib.h>

#define MS 1000u
#define SECOND 1000000u

/* Asks as often as is due until @until, with answers @rtt_us later; how many questions. */
static unsigned run(LinkProbe *p, uint64_t *now, uint64_t until, uint32_t rtt_us)
{
    unsigned asked = 0;
    uint64_t due;

    while ((due = link_probe_deadline(p, *now)) < until) {
        uint16_t sequence;
        *now = MAX(*now, due);
        g_assert_true(link_probe_ask(p, *now, &sequence));
        g_assert_cmpuint(link_probe_deadline(p, *now), ==, UINT64_MAX); /* one at a time */
        asked++;
        *now += rtt_us;
        g_assert_true(link_probe_answered(p, sequence, *now));
    }
    *now = MAX(*now, until);
    return asked;
}

static void test_round_trip(void)
{
    uint64_t now = 5 * SECOND;
    LinkProbe p;

    link_probe_init(&p);
    g_assert_cmpuint(link_probe_rtt(&p), ==, 0);
    link_probe_picture(&p, 100, now);
    g_assert_cmpuint(run(&p, &now, now + SECOND, 60 * MS), ==, LINK_FIRST);
    g_assert_cmpuint(link_probe_rtt(&p), ==, 60 * MS);

    /* A queue in front of some questions: the least is the network's. A longer way is learnt. */
    for (unsigned i = 0; i < 8; i++) {
        link_probe_picture(&p, LINK_MUCH_BYTES, now);
        run(&p, &now, now + SECOND, 400 * MS);
    }
    g_assert_cmpuint(link_probe_base_rtt(&p), ==, 60 * MS);
    g_assert_cmpuint(link_probe_rtt(&p), >, 60 * MS);
    for (unsigned i = 0; i < LINK_SAMPLES; i++) {
        link_probe_picture(&p, LINK_MUCH_BYTES, now);
        run(&p, &now, now + SECOND, 150 * MS);
    }
    g_assert_cmpuint(link_probe_base_rtt(&p), ==, 150 * MS);
    g_assert_cmpuint(link_probe_rtt(&p), ==, 150 * MS);
}

/* Little is asked with little to show, and nothing without a change. */
static void test_idle(void)
{
    uint64_t now = 5 * SECOND;
    unsigned asked = 0;
    LinkProbe p;

    link_probe_init(&p);
    g_assert_cmpuint(link_probe_deadline(&p, now), ==, UINT64_MAX);
    for (unsigned i = 0; i < 120; i++) { /* a cursor blinks for a minute */
        link_probe_picture(&p, 60, now);
        asked += run(&p, &now, now + SECOND / 2, 1 * MS);
    }
    g_assert_cmpuint(asked, >=, LINK_FIRST + 5);
    g_assert_cmpuint(asked, <=, LINK_FIRST + 6);

    asked = 0;
    for (unsigned i = 0; i < 300; i++) { /* a film for ten seconds */
        link_probe_picture(&p, 20000, now);
        asked += run(&p, &now, now + SECOND / 30, 1 * MS);
    }
    g_assert_cmpuint(asked, >=, 18);
    g_assert_cmpuint(asked, <=, 21);
    asked = run(&p, &now, now + 3600ull * SECOND, 1 * MS); /* it has ended */
    g_assert_cmpuint(asked, <=, LINK_QUIET_US / LINK_ASK_US);
    g_assert_cmpuint(link_probe_deadline(&p, now), ==, UINT64_MAX);
}

static void test_answers_that_do_not_count(void)
{
    uint64_t now = 5 * SECOND;
    uint16_t first, second;
    LinkProbe p;

    link_probe_init(&p);
    g_assert_false(link_probe_answered(&p, 0, now)); /* nobody asked */
    g_assert_false(link_probe_answered(&p, 1, now));
    link_probe_picture(&p, 100, now);
    g_assert_true(link_probe_ask(&p, now, &first));
    g_assert_false(link_probe_ask(&p, now, &second));
    g_assert_false(link_probe_answered(&p, (uint16_t)(first + 1), now + MS));
    g_assert_true(link_probe_answered(&p, first, now + 10 * MS));
    g_assert_false(link_probe_answered(&p, first, now + 11 * MS)); /* twice */
    g_assert_true(link_probe_ask(&p, now + 20 * MS, &second));
    g_assert_cmpuint(second, !=, first);
    g_assert_false(link_probe_answered(&p, first, now + 21 * MS)); /* old */
    g_assert_true(link_probe_answered(&p, second, now + 40 * MS));
    g_assert_cmpuint(link_probe_rtt(&p), ==, 15 * MS);
    g_assert_cmpuint(p.strays, ==, 5);

    /* After a network that stood still the answer is one, but no round trip. */
    g_assert_true(link_probe_ask(&p, now + 50 * MS, &first));
    g_assert_false(link_probe_answered(&p, first, now + 3600ull * SECOND));
    g_assert_cmpuint(link_probe_rtt(&p), ==, 15 * MS);
    link_probe_picture(&p, 100, now + 3600ull * SECOND);
    g_assert_true(link_probe_ask(&p, now + 3600ull * SECOND, &first));

    /* No answer: no other question, ever. */
    for (unsigned i = 0; i < 1000; i++) {
        now += SECOND;
        link_probe_picture(&p, LINK_MUCH_BYTES, now);
        g_assert_false(link_probe_ask(&p, now, &second));
        g_assert_cmpuint(link_probe_deadline(&p, now), ==, UINT64_MAX);
    }
}

/* The 16 bits of the number wrap; each answer still counts once. */
static void test_wrap(void)
{
    uint64_t now = SECOND;
    LinkProbe p;

    link_probe_init(&p);
    for (unsigned i = 0; i < 70000; i++) {
        link_probe_picture(&p, LINK_MUCH_BYTES, now);
        run(&p, &now, now + SECOND, 2 * MS);
    }
    g_assert_cmpuint(p.requests, >, 65536);
    g_assert_cmpuint(p.requests, ==, p.answers);
    g_assert_cmpuint(link_probe_rtt(&p), ==, 2 * MS);
}

/* A frame of @bytes on a link of @rate bytes a second, of which the client says @took_ms (0: the
 * truth) and @said bytes (0: the truth). */
static bool measure(LinkProbe *p, uint64_t *now, uint64_t rate, uint32_t bytes, uint32_t took_ms,
                    uint32_t said)
{
    uint64_t mark = *now; /* any number */
    uint32_t true_ms = (uint32_t)(bytes * 1000ull / rate);
    uint16_t begin, end;

    *now += LINK_MEASURE_US;
    if (!link_probe_measure(p, bytes, mark, *now, &begin))
        return false;
    g_assert_false(link_probe_measure(p, bytes, mark, *now, &end)); /* one at a time */
    g_assert_false(link_probe_measured(p, begin, 1, bytes, *now));  /* before it has ended */
    g_assert_true(link_probe_measure_end(p, mark + bytes, &end));
    g_assert_false(link_probe_measure_end(p, mark + bytes, &end));
    g_assert_cmpuint(begin, ==, end);
    *now += true_ms * 1000ull + 50 * MS;
    g_assert_false(link_probe_measured(p, (uint16_t)(end + 1), 1, bytes, *now));
    return link_probe_measured(p, end, took_ms ? took_ms : true_ms, said ? said : bytes, *now);
}

static void test_bandwidth(void)
{
    uint64_t now = SECOND;
    LinkProbe p;

    link_probe_init(&p);
    g_assert_cmpuint(link_probe_rate(&p), ==, 0);
    g_assert_false(measure(&p, &now, 2500000, LINK_MEASURE_BYTES - 1, 0, 0)); /* too small */
    for (unsigned i = 0; i < 10; i++)
        g_assert_true(measure(&p, &now, 2500000, 100000, 0, 0));
    g_assert_cmpuint(link_probe_rate(&p), ==, 2500000);

    /* A client that was busy twice, and one that measures in whole milliseconds. */
    g_assert_true(measure(&p, &now, 2500000, 100000, 1, 0));
    g_assert_true(measure(&p, &now, 2500000, 100000, 1, 0));
    g_assert_cmpuint(link_probe_rate(&p), ==, 2500000);
    for (unsigned i = 0; i < LINK_RATES; i++)
        g_assert_true(measure(&p, &now, UINT32_MAX, 100000, 0, 0));
    g_assert_cmpuint(link_probe_rate(&p), ==, 100000000);
}

static void test_lies(void)
{
    static const uint32_t absurd[] = {1, LINK_MIN_BYTES - 1, 100001, UINT32_MAX};
    uint64_t now = SECOND;
    LinkProbe p;

    link_probe_init(&p);
    for (unsigned i = 0; i < G_N_ELEMENTS(absurd); i++)
        g_assert_false(measure(&p, &now, 2500000, 100000, 0, absurd[i]));
    g_assert_false(measure(&p, &now, 2500000, 100000, UINT32_MAX, 0));
    g_assert_false(measure(&p, &now, 2500000, 100000, 100, 0)); /* more time than there was */
    g_assert_cmpuint(link_probe_rate(&p), ==, 0);
    g_assert_true(measure(&p, &now, 100, 100000, 0, 0)); /* it did take a quarter of an hour */
    g_assert_cmpuint(link_probe_rate(&p), ==, LINK_MIN_RATE);
}

static void test_tell(void)
{
    uint64_t now = 5 * SECOND;
    LinkResult r;
    LinkProbe p;

    link_probe_init(&p);
    g_assert_false(link_probe_tell(&p, now, &r));
    link_probe_picture(&p, 100, now);
    run(&p, &now, now + SECOND, 60 * MS);
    g_assert_true(link_probe_tell(&p, now, &r));
    g_assert_cmpuint(r.base_rtt_ms, ==, 60);
    g_assert_cmpuint(r.average_rtt_ms, ==, 60);
    g_assert_cmpuint(r.kbit, ==, 0);
    g_assert_true(measure(&p, &now, 2500000, 100000, 0, 0));
    g_assert_false(link_probe_tell(&p, now, &r)); /* not so soon */
    now += LINK_TELL_US;
    g_assert_true(link_probe_tell(&p, now, &r));
    g_assert_cmpuint(r.kbit, ==, 20000);
    now += LINK_TELL_US;
    g_assert_false(link_probe_tell(&p, now, &r)); /* nothing new */
}

/* A client that says anything at any time: the estimate stays within its bounds, and no more is
 * asked than of others. */
static void test_anything(void)
{
    GRand *random = g_rand_new_with_seed(4);
    uint64_t now = SECOND;
    uint16_t sequence;
    LinkResult r;
    LinkProbe p;

    link_probe_init(&p);
    for (unsigned i = 0; i < 200000; i++) {
        uint16_t said = g_rand_boolean(random) ? p.asked_sequence : p.measure_sequence;
        uint32_t number = g_rand_int(random) >> g_rand_int_range(random, 0, 32);
        now += number % 100000;
        switch (g_rand_int_range(random, 0, 6)) {
        case 0:
            link_probe_picture(&p, number % 200000, now);
            break;
        case 1:
            link_probe_ask(&p, now, &sequence);
            break;
        case 2:
            link_probe_answered(&p, said, now);
            break;
        case 3:
            if (link_probe_measure(&p, number, now, now, &sequence))
                g_assert_true(link_probe_measure_end(&p, now + number, &sequence));
            break;
        case 4:
            link_probe_measured(&p, said, number, g_rand_int(random), now);
            break;
        default:
            link_probe_tell(&p, now, &r);
        }
        g_assert_cmpuint(link_probe_base_rtt(&p), <=, link_probe_rtt(&p));
        g_assert_cmpuint(link_probe_rtt(&p), <=, LINK_MAX_RTT_US);
        g_assert_true(link_probe_rate(&p) == 0 || (link_probe_rate(&p) >= LINK_MIN_RATE &&
                                                   link_probe_rate(&p) <= LINK_MAX_RATE));
        g_assert_cmpuint(p.requests, <=, LINK_FIRST + now / LINK_ASK_US);
    }
    g_assert_cmpuint(p.answers, >, 1000);
    g_assert_cmpuint(p.n_rates, >, 10);
    g_rand_free(random);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/link-probe/round-trip", test_round_trip);
    g_test_add_func("/link-probe/idle", test_idle);
    g_test_add_func("/link-probe/not-counting", test_answers_that_do_not_count);
    g_test_add_func("/link-probe/wrap", test_wrap);
    g_test_add_func("/link-probe/bandwidth", test_bandwidth);
    g_test_add_func("/link-probe/lies", test_lies);
    g_test_add_func("/link-probe/tell", test_tell);
    g_test_add_func("/link-probe/anything", test_anything);
    return g_test_run();
}
