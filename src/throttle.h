/*
 * Who may connect now: limits per address and in total, and a growing pause after failed logins.
 * Judged before any RDP or TLS byte is read.
 *
 * Pure: no sockets, no clock of its own. Owner: the Server. Thread: main. The table is bounded, so
 * connecting from many addresses costs the attacker, not us.
 */
#ifndef QRDP_THROTTLE_H
#define QRDP_THROTTLE_H

#include <stdbool.h>
#include <stdint.h>

#define THROTTLE_MAX_ADDRESSES 1024u
#define THROTTLE_FREE_FAILURES 3u        /* failed logins before the first pause */
#define THROTTLE_FIRST_PAUSE_US 1000000u /* doubles with each further failure */
#define THROTTLE_MAX_PAUSE_US 300000000u /* five minutes */
#define THROTTLE_FORGET_US 900000000u    /* quiet time after which failures are forgotten */
#define THROTTLE_MAX_ATTEMPTS 10u        /* connections per address and second */

typedef struct Throttle Throttle;

typedef enum ThrottleVerdict {
    THROTTLE_ADMIT,
    THROTTLE_PENDING, /* too many connections of that address have not logged in yet */
    THROTTLE_RATE,    /* too many connections per second */
    THROTTLE_PAUSE,   /* too many failed logins: come back later */
    THROTTLE_FULL,    /* too many connections in total */
} ThrottleVerdict;

/** @max_total: connections in all, @max_pending: not logged in, per address. */
Throttle *throttle_new(unsigned max_total, unsigned max_pending);
void throttle_free(Throttle *throttle);
/** Judges one connection from @key (an address without port). THROTTLE_ADMIT counts it as pending;
 * throttle_left() must follow in the end. @now_us: monotonic.
 *
 * When all places are taken, the address with the most connections that have not logged in gives
 * one of them up for an address that has fewer: *@crowd is then that address (valid until the next
 * call), and the caller ends its oldest such connection and calls throttle_left() for it at once.
 * Otherwise *@crowd is NULL. So a few addresses cannot hold all places until their deadlines, and
 * who has logged in is never sent away. */
ThrottleVerdict throttle_admit(Throttle *throttle, const char *key, uint64_t now_us,
                               const char **crowd);
/** An admitted connection logged in: it is no longer pending, and failures are forgotten. */
void throttle_succeeded(Throttle *throttle, const char *key);
/** A password was wrong. The connection stays as it is until throttle_left(). */
void throttle_failed(Throttle *throttle, const char *key, uint64_t now_us);
/** An admitted connection is gone. @pending: it never logged in. */
void throttle_left(Throttle *throttle, const char *key, bool pending);
/** Microseconds until @key is admitted again, 0 if it is not paused. */
uint64_t throttle_pause_left(const Throttle *throttle, const char *key, uint64_t now_us);
const char *throttle_verdict_text(ThrottleVerdict verdict);

#endif
