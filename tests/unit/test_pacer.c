/*
 * The pacer on simulated links: it keeps a link busy, bounds what is queued on it, and survives
 * lost acknowledgements and clients that suspend them.
 */
#include "pacer.h"

#include <glib.h>

typedef struct Link {
    uint64_t one_way_us, bytes_per_second;
} Link;

typedef struct Result {
    unsigned frames;
    unsigned most_in_flight;
    uint64_t worst_delay_us; /* send to acknowledgement, after the first second */
    uint64_t bytes;
} Result;

/* A guest that always has a new frame of @bytes every 33 ms; a client that acknowledges at once. */
static Result simulate(const Link *link, size_t bytes, unsigned seconds)
{
    struct {
        uint64_t sent, acked;
        uint32_t id;
    } flight[64];
    unsigned head = 0, tail = 0;
    uint64_t link_free = 0;
    Result result = {0};
    uint32_t id = 0;
    Pacer pacer;

    pacer_init(&pacer);
    for (uint64_t now = 1000000; now < 1000000 + seconds * 1000000ull; now += 1000) {
        while (head != tail && flight[head % 64].acked <= now) {
            pacer_acked(&pacer, flight[head % 64].id, false, now);
            if (now > 2000000)
                result.worst_delay_us = MAX(result.worst_delay_us, now - flight[head % 64].sent);
            head++;
        }
        if (now / 1000 % 33 == 0 && pacer_may_send(&pacer, now)) {
            uint64_t start = MAX(now, link_free);
            link_free = start + bytes * 1000000ull / link->bytes_per_second;
            pacer_sent(&pacer, ++id, bytes, now);
            flight[tail % 64].sent = now;
            flight[tail % 64].acked = link_free + 2 * link->one_way_us;
            flight[tail++ % 64].id = id;
            result.frames++;
            result.bytes += bytes;
        }
        result.most_in_flight = MAX(result.most_in_flight, pacer.n);
        g_assert_cmpuint(pacer.n, <=, PACER_MAX_WINDOW);
        g_assert_cmpuint(pacer_window(&pacer), >=, PACER_MIN_WINDOW);
        g_assert_cmpuint(pacer_window(&pacer), <=, PACER_MAX_WINDOW);
    }
    return result;
}

/* What auto-detection says: round trips, twice a second, that have waited behind the film. */
static void probe_link(Pacer *pacer, const Link *link, uint64_t now, uint64_t link_free,
                       uint64_t *trips, unsigned n)
{
    uint64_t least = UINT64_MAX;

    trips[n % 16] = 2 * link->one_way_us + (link_free > now ? link_free - now : 0);
    for (unsigned i = 0; i < MIN(n + 1, 16); i++)
        least = MIN(least, trips[i]);
    pacer_network(pacer, least, link->bytes_per_second);
}

/* A film whose pictures want @wanted bytes and may take what the link carries. @probed: the client
 * takes part in auto-detection. Returns how long the last picture was on its way. */
static uint64_t play_film(Pacer *pacer, const Link *link, bool probed, size_t wanted,
                          unsigned pictures)
{
    uint64_t now = pacer->last_ack_us + 1000000, link_free = now, acked[64] = {0}, trips[16];
    uint32_t id = 0, done = 0;
    unsigned probes = 0;

    for (uint64_t next = now, ask = now; id < pictures; now += 1000) {
        for (; done < id && acked[done % 64] <= now; done++)
            pacer_acked(pacer, done, false, now);
        if (probed && now >= ask) {
            probe_link(pacer, link, now, link_free, trips, probes++);
            ask += 500000;
        }
        if (now < next || !pacer_may_send(pacer, now))
            continue;
        size_t may = pacer_picture(pacer, now), bytes = may == 0 || may > wanted ? wanted : may;
        link_free = MAX(now, link_free) + bytes * 1000000ull / link->bytes_per_second;
        pacer_sent(pacer, id, bytes, now);
        acked[id++ % 64] = link_free + 2 * link->one_way_us;
        next = now + 1000000 / PACER_FPS;
    }
    pacer_forget(pacer);
    return acked[(id - 1) % 64] - now;
}

/* A long link is not taken for a slow one. A slow one is, and what queues there goes away, however
 * long it plays. That it has become faster is noticed. */
static void test_rate(void)
{
    const Link far_away = {50000, 2500000}, slow = {25000, 300000};
    Pacer pacer;

    pacer_init(&pacer);
    g_assert_cmpuint(play_film(&pacer, &far_away, true, 20000, 60), <, 115000);
    g_assert_cmpuint(pacer_picture(&pacer, 0), >, 60000);
    g_assert_cmpuint(play_film(&pacer, &slow, true, 60000, 3000), <, 150000);
    g_assert_cmpuint(pacer_picture(&pacer, 0), <, 300000 / PACER_FPS);
    g_assert_cmpuint(pacer_picture(&pacer, 0), >, 300000 / PACER_FPS / 2);
    g_assert_cmpuint(play_film(&pacer, &far_away, true, 60000, 3000), <, 150000);
    g_assert_cmpuint(pacer_picture(&pacer, 0), >, 60000);
}

/* The same, less well, of a client that takes no part in auto-detection. */
static void test_rate_alone(void)
{
    const Link fast = {10000, 10000000}, slow = {10000, 300000};
    Pacer pacer;

    pacer_init(&pacer);
    play_film(&pacer, &fast, false, 60000, 300);
    g_assert_cmpuint(play_film(&pacer, &slow, false, 60000, 300), <, 400000);
    play_film(&pacer, &fast, false, 60000, 3000);
    g_assert_cmpuint(pacer_picture(&pacer, 0), >, 60000);
}

/* A client that decodes slowly is not sent ever smaller pictures, which would take it as long. */
static void test_slow_client(void)
{
    uint64_t now = 1000000;
    Pacer p;

    pacer_init(&p);
    pacer_network(&p, 1000, 100000000);
    for (uint32_t id = 1; id < 200; id++) {
        size_t may = pacer_picture(&p, now);
        pacer_sent(&p, id, may == 0 || may > 60000 ? 60000 : may, now);
        now += 46000;
        pacer_acked(&p, id, false, now);
    }
    g_assert_cmpuint(pacer_picture(&p, now), >=, PACER_TIMED_BYTES);
}

static void test_lan(void)
{
    Link lan = {500, 100000000};
    Result r = simulate(&lan, 30000, 10);

    g_assert_cmpuint(r.frames, >=, 295); /* every frame of 30 a second */
    g_assert_cmpuint(r.most_in_flight, <=, 2);
}

static void test_long(void)
{
    Link far_away = {100000, 12500000}; /* 200 ms round trip, 100 Mbit/s */
    Result r = simulate(&far_away, 30000, 20);

    g_assert_cmpuint(r.frames, >=, 500); /* a window of two would give 200 */
    g_assert_cmpuint(r.worst_delay_us, <, 260000);
}

static void test_slow(void)
{
    Link modem = {20000, 250000}; /* 2 Mbit/s, frames of 60 kB: 4 a second fit */
    Result r = simulate(&modem, 60000, 20);

    g_assert_cmpuint(r.bytes, >=, 20 * 250000 * 8 / 10); /* 80% used */
    /* not more than the window's frames may ever wait: no queue builds up */
    g_assert_cmpuint(r.worst_delay_us, <, 2000000);
    g_assert_cmpuint(r.most_in_flight, <=, 9);
}

static void test_suspend(void)
{
    Pacer p;

    pacer_init(&p);
    for (uint32_t i = 1; i <= PACER_MAX_WINDOW && pacer_may_send(&p, 1000); i++)
        pacer_sent(&p, i, 1000, 1000);
    g_assert_false(pacer_may_send(&p, 1000));
    pacer_acked(&p, 1, true, 2000);
    for (uint32_t i = 100; i < 200; i++) {
        g_assert_true(pacer_may_send(&p, 3000));
        pacer_sent(&p, i, 1000000, 3000);
    }
    pacer_acked(&p, 199, false, 4000); /* counts again */
    pacer_sent(&p, 200, 1000, 5000);
    pacer_sent(&p, 201, 1000, 5000);
    g_assert_false(pacer_may_send(&p, 5000));
    g_assert_cmpuint(p.n, ==, 2);
}

static void test_lost(void)
{
    Pacer p;

    pacer_init(&p);
    pacer_sent(&p, 1, 1000, 0);
    pacer_sent(&p, 2, 1000, 0);
    g_assert_false(pacer_may_send(&p, 1000));
    g_assert_cmpuint(pacer_deadline(&p, 1000), ==, PACER_LOST_US);
    g_assert_true(pacer_may_send(&p, PACER_LOST_US));
    g_assert_cmpuint(pacer_deadline(&p, PACER_LOST_US), ==, UINT64_MAX);
    pacer_sent(&p, 3, 1000, PACER_LOST_US);
    g_assert_cmpuint(p.n, ==, 1);
}

static void test_odd_acks(void)
{
    Pacer p;

    pacer_init(&p);
    pacer_acked(&p, 5, false, 10); /* nothing was sent */
    pacer_sent(&p, 1, 500, 100);
    pacer_sent(&p, 2, 700, 200);
    pacer_acked(&p, 77, false, 300); /* never sent */
    g_assert_cmpuint(p.n, ==, 2);
    pacer_acked(&p, 2, false, 400); /* covers 1 */
    g_assert_cmpuint(p.n, ==, 0);
    g_assert_cmpuint(p.bytes, ==, 0);
    pacer_acked(&p, 2, false, 500); /* again */
    pacer_sent(&p, 3, 500, 600);
    pacer_forget(&p);
    g_assert_true(pacer_may_send(&p, 700));
}

static void test_bytes(void)
{
    Pacer p;

    pacer_init(&p);
    pacer_sent(&p, 1, 100000, 0);
    pacer_acked(&p, 1, false, 1000000); /* 100 kB/s */
    pacer_sent(&p, 2, 8 << 20, 1000000);
    g_assert_false(pacer_may_send(&p, 1000000)); /* one large frame fills it */
    pacer_forget(&p);
    pacer_sent(&p, 3, 1000, 1000000);
    g_assert_true(pacer_may_send(&p, 1000000)); /* small ones pass */
}

/* How slow the link is shows before the first acknowledgement. */
static void test_overdue(void)
{
    Pacer p;

    pacer_init(&p);
    pacer_network(&p, 50000, 0);
    g_assert_cmpuint(pacer_rate(&p, 1000000), ==, 0);
    pacer_sent(&p, 1, 700000, 1000000);
    g_assert_cmpuint(pacer_rate(&p, 1010000), ==, 0); /* not known */
    g_assert_cmpuint(pacer_rate(&p, 2450000) / 1000, ==, 500);
    pacer_acked(&p, 1, false, 2450000);
    g_assert_cmpuint(pacer_rate(&p, 2450000) / 1000, ==, 500);
    g_assert_cmpuint(pacer_picture(&p, 2450000), ==, 500000 / PACER_FPS);
    pacer_sent(&p, 2, 100, 2460000); /* small ones tell nothing */
    g_assert_cmpuint(pacer_rate(&p, 4000000) / 1000, ==, 500);

    pacer_init(&p);
    g_assert_cmpuint(pacer_picture(&p, 1000000), ==, 0); /* not known */
    pacer_sent(&p, 1, 20000, 1000000);
    g_assert_cmpuint(pacer_picture(&p, 3600000000000), ==, 1); /* known, however slow */
}

/* The network stops for a moment: what waited comes all at once then. That is no slow link. */
static void test_stall(void)
{
    uint64_t now = 1000000;
    Pacer p;

    pacer_init(&p);
    pacer_network(&p, 2000, 0);
    for (uint32_t id = 1; id <= 20; id++) {
        bool stalls = id == 15;
        pacer_sent(&p, id, 20000, now);
        now += stalls ? 300000 : 10000;
        pacer_acked(&p, id, false, now);
        g_assert_cmpuint(pacer_rate(&p, now) / 1000, ==, 20000 / 8);
    }
}

static void test_silence(void)
{
    Pacer p;

    pacer_init(&p);
    pacer_sent(&p, 1, 1000, 1000);
    g_assert_cmpuint(pacer_waiting_since(&p), ==, 0); /* it may be one that never answers */
    pacer_acked(&p, 1, false, 2000);
    g_assert_cmpuint(pacer_waiting_since(&p), ==, 0); /* nothing is owed */
    pacer_sent(&p, 2, 1000, 3000);
    pacer_sent(&p, 3, 1000, 4000);
    g_assert_cmpuint(pacer_waiting_since(&p), ==, 3000);
    pacer_acked(&p, 2, false, 5000);
    g_assert_cmpuint(pacer_waiting_since(&p), ==, 5000); /* slow, but not silent */
    pacer_sent(&p, 4, 1000, 5000 + 60000000);            /* 3 is given up as lost */
    g_assert_cmpuint(pacer_waiting_since(&p), ==, 5000);
    pacer_acked(&p, 4, true, 70000000);
    g_assert_cmpuint(pacer_waiting_since(&p), ==, 0);
}

/* What auto-detection says of the network: slow decoding fills no queue, and a client that
 * acknowledges nothing is sent what the link takes. */
static void test_network(void)
{
    uint64_t now = 1000000;
    Pacer pacer;

    pacer_init(&pacer);
    for (uint32_t id = 1; id <= 50; id++) { /* 10 ms of network, 290 ms of decoding */
        pacer_sent(&pacer, id, 20000, now);
        now += 300000;
        pacer_acked(&pacer, id, false, now);
    }
    g_assert_cmpuint(pacer_window(&pacer), >, 9);
    g_assert_cmpuint(pacer_decoding(&pacer), ==, 0); /* nobody knows */
    pacer_network(&pacer, 10000, 0);
    g_assert_cmpuint(pacer_window(&pacer), ==, PACER_MIN_WINDOW);
    g_assert_cmpuint(pacer_decoding(&pacer), ==, 290000);
    pacer_network(&pacer, 9000000, 0); /* longer than a frame has taken: not believed */
    g_assert_cmpuint(pacer_window(&pacer), >, 9);
    g_assert_cmpuint(pacer_window(&pacer), <=, PACER_MAX_WINDOW);

    pacer_network(&pacer, 10000, 1000000);
    g_assert_cmpuint(pacer_rate(&pacer, now), ==, 1000000);
    pacer_sent(&pacer, 60, 20000, now);
    now += 300000;
    pacer_acked(&pacer, 60, false, now);
    g_assert_cmpuint(pacer_rate(&pacer, now) / 1000, ==, 20000 / 290);
    pacer_sent(&pacer, 100, 20000, now);
    pacer_acked(&pacer, 100, true, now);
    g_assert_cmpuint(pacer_rate(&pacer, now), ==, 1000000);
    uint64_t bytes = 0, start = now;
    for (; now < start + 10000000; now += 1000) {
        if (pacer_may_send(&pacer, now)) {
            pacer_sent(&pacer, 101, 100000, now);
            bytes += 100000;
        }
        g_assert_true(pacer_may_send(&pacer, now) || pacer_deadline(&pacer, now) > now);
        g_assert_cmpuint(pacer_deadline(&pacer, now) - now >= 500000, ==,
                         pacer_may_send(&pacer, now));
    }
    g_assert_cmpuint(bytes, >, 9500000);
    g_assert_cmpuint(bytes, <, 10500000);

    pacer_network(&pacer, 1, 1); /* whatever is said, it goes on */
    pacer_sent(&pacer, 102, 100000, now);
    g_assert_false(pacer_may_send(&pacer, now));
    g_assert_true(pacer_may_send(&pacer, now + PACER_LOST_US));

    pacer_init(&pacer);
    pacer_never_acked(&pacer);
    pacer_forget(&pacer);
    for (uint32_t id = 1; id < 1000; id++) { /* nothing known: the socket decides */
        g_assert_true(pacer_may_send(&pacer, now));
        pacer_sent(&pacer, id, 1000000, now);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/pacer/lan", test_lan);
    g_test_add_func("/pacer/long", test_long);
    g_test_add_func("/pacer/slow", test_slow);
    g_test_add_func("/pacer/suspend", test_suspend);
    g_test_add_func("/pacer/lost", test_lost);
    g_test_add_func("/pacer/odd-acks", test_odd_acks);
    g_test_add_func("/pacer/bytes", test_bytes);
    g_test_add_func("/pacer/rate", test_rate);
    g_test_add_func("/pacer/rate-alone", test_rate_alone);
    g_test_add_func("/pacer/slow-client", test_slow_client);
    g_test_add_func("/pacer/overdue", test_overdue);
    g_test_add_func("/pacer/stall", test_stall);
    g_test_add_func("/pacer/silence", test_silence);
    g_test_add_func("/pacer/network", test_network);
    return g_test_run();
}
