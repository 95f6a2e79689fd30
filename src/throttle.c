/*
 * One record per address, in a table of fixed size. A record with live connections is never
 * dropped; there are at most max_total of those. When the table is full the record that matters
 * least goes: first those whose failures are old, then the one seen longest ago.
 */
#include "throttle.h"

#include <glib.h>

typedef struct Entry {
    unsigned pending, connected;
    unsigned failures;
    uint64_t last_failure_us;
    uint64_t last_seen_us;
    uint64_t second_us; /* start of the current rate window */
    unsigned attempts;  /* in that window */
} Entry;

struct Throttle {
    GHashTable *entries; /* char * -> Entry * */
    unsigned max_total, max_pending;
    unsigned total;
};

Throttle *throttle_new(unsigned max_total, unsigned max_pending)
{
    Throttle *t = g_new0(Throttle, 1);
    t->entries = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    t->max_total = max_total;
    t->max_pending = max_pending;
    return t;
}

void throttle_free(Throttle *throttle)
{
    if (!throttle)
        return;
    g_hash_table_unref(throttle->entries);
    g_free(throttle);
}

static void make_room(Throttle *t, uint64_t now_us)
{
    GHashTableIter iter;
    gpointer key, value;
    const char *victim = NULL;
    uint64_t victim_seen = 0;

    g_hash_table_iter_init(&iter, t->entries);
    while (g_hash_table_iter_next(&iter, &key, &value)) {
        Entry *e = value;
        if (e->pending + e->connected > 0)
            continue;
        if (now_us - e->last_seen_us >= THROTTLE_FORGET_US) {
            g_hash_table_iter_remove(&iter);
            continue;
        }
        /* One that failed counts as seen later, so that a flood of new addresses does not wash out
         * the pauses of those that guess. */
        uint64_t seen = e->last_seen_us + (e->failures ? THROTTLE_FORGET_US : 0);
        if (!victim || seen < victim_seen) {
            victim = key;
            victim_seen = seen;
        }
    }
    if (victim && g_hash_table_size(t->entries) >= THROTTLE_MAX_ADDRESSES)
        g_hash_table_remove(t->entries, victim);
}

static Entry *entry_get(Throttle *t, const char *key, uint64_t now_us)
{
    Entry *e = g_hash_table_lookup(t->entries, key);
    if (e)
        return e;
    if (g_hash_table_size(t->entries) >= THROTTLE_MAX_ADDRESSES)
        make_room(t, now_us);
    e = g_new0(Entry, 1);
    e->second_us = now_us;
    g_hash_table_insert(t->entries, g_strdup(key), e);
    return e;
}

static uint64_t pause_of(const Entry *e)
{
    if (e->failures < THROTTLE_FREE_FAILURES)
        return 0;
    unsigned doublings = e->failures - THROTTLE_FREE_FAILURES;
    if (doublings > 16)
        return THROTTLE_MAX_PAUSE_US;
    return MIN((uint64_t)THROTTLE_FIRST_PAUSE_US << doublings, (uint64_t)THROTTLE_MAX_PAUSE_US);
}

uint64_t throttle_pause_left(const Throttle *throttle, const char *key, uint64_t now_us)
{
    const Entry *e = g_hash_table_lookup(throttle->entries, key);
    uint64_t pause = e ? pause_of(e) : 0;
    uint64_t since = e ? now_us - e->last_failure_us : 0;
    return pause > since ? pause - since : 0;
}

/* The address with the most pending connections, if it has more than @than. */
static const char *find_crowd(const Throttle *t, unsigned than)
{
    GHashTableIter iter;
    gpointer key, value;
    const char *found = NULL;

    g_hash_table_iter_init(&iter, t->entries);
    while (g_hash_table_iter_next(&iter, &key, &value)) {
        const Entry *e = value;
        if (e->pending > than) {
            than = e->pending;
            found = key;
        }
    }
    return found;
}

ThrottleVerdict throttle_admit(Throttle *throttle, const char *key, uint64_t now_us,
                               const char **crowd)
{
    Entry *e = entry_get(throttle, key, now_us);

    *crowd = NULL;

    e->last_seen_us = now_us;
    if (e->failures && now_us - e->last_failure_us >= THROTTLE_FORGET_US)
        e->failures = 0;
    if (now_us - e->second_us >= 1000000u) {
        e->second_us = now_us;
        e->attempts = 0;
    }
    if (e->attempts >= THROTTLE_MAX_ATTEMPTS)
        return THROTTLE_RATE;
    e->attempts++;
    if (throttle_pause_left(throttle, key, now_us) > 0)
        return THROTTLE_PAUSE;
    if (e->pending >= throttle->max_pending)
        return THROTTLE_PENDING;
    if (throttle->total >= throttle->max_total && !(*crowd = find_crowd(throttle, e->pending)))
        return THROTTLE_FULL;
    e->pending++;
    throttle->total++;
    return THROTTLE_ADMIT;
}

void throttle_succeeded(Throttle *throttle, const char *key)
{
    Entry *e = g_hash_table_lookup(throttle->entries, key);
    g_assert(e && e->pending > 0);
    e->pending--;
    e->connected++;
    e->failures = 0;
}

void throttle_failed(Throttle *throttle, const char *key, uint64_t now_us)
{
    Entry *e = entry_get(throttle, key, now_us); /* it may have given up its place meanwhile */
    e->failures++;
    e->last_failure_us = now_us;
}

void throttle_left(Throttle *throttle, const char *key, bool pending)
{
    Entry *e = g_hash_table_lookup(throttle->entries, key);
    unsigned *count = e ? (pending ? &e->pending : &e->connected) : NULL;
    g_assert(count && *count > 0 && throttle->total > 0);
    (*count)--;
    throttle->total--;
}

const char *throttle_verdict_text(ThrottleVerdict verdict)
{
    switch (verdict) {
    case THROTTLE_ADMIT:
        return "admitted";
    case THROTTLE_PENDING:
        return "too many connections of this address have not logged in yet";
    case THROTTLE_RATE:
        return "too many connections per second from this address";
    case THROTTLE_PAUSE:
        return "too many failed logins from this address";
    case THROTTLE_FULL:
        return "too many connections";
    }
    return "";
}
