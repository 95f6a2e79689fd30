/*
 * A guest and its QEMU for the session fuzzer: any usbredir packet at any time, and a check of
 * everything that comes back. What a client or guest does must never make qrdp send QEMU something
 * that it dies of (docs/threat-model.md).
 */
#ifndef QRDP_TESTS_HOSTILE_GUEST_H
#define QRDP_TESTS_HOSTILE_GUEST_H

#include "bytes.h"
#include "fake_guest.h"

#define HOSTILE_MAX_PACKETS 512u

typedef struct HostileGuest HostileGuest;

HostileGuest *hostile_guest_new(void);
void hostile_guest_free(HostileGuest *guest);
/** Reads an operation from @r and does it. */
void hostile_guest_act(HostileGuest *guest, Reader *r);
/** Bytes that no usbredir library would send: from now on answers are not counted. */
void hostile_guest_raw(HostileGuest *guest, const uint8_t *data, size_t len);
/** What a well-meaning guest does first. */
void hostile_guest_configure(HostileGuest *guest);
/** Bytes for the device, of its own allocation; NULL for none. */
uint8_t *hostile_guest_take(HostileGuest *guest, size_t max, size_t *len);
void hostile_guest_receive(HostileGuest *guest, const uint8_t *data, size_t len);
/** Asserts that each request has had at most one answer; with @all exactly one. */
void hostile_guest_check(HostileGuest *guest, bool all);
/** Gives up every request that has no answer yet. */
void hostile_guest_cancel_all(HostileGuest *guest);

#endif
