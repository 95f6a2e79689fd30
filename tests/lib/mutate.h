/*
 * Deterministic mutations of golden bytes, for unit tests and for replaying fuzz corpora.
 *
 * Every case is handed over in an allocation of exactly its length, so that AddressSanitizer sees
 * the first byte read past the end. The same input always gives the same cases.
 */
#ifndef QRDP_TESTS_MUTATE_H
#define QRDP_TESTS_MUTATE_H

#include <stddef.h>
#include <stdint.h>

/** Called once per case; @data is valid for the call and may be changed. */
typedef void (*MutateCase)(uint8_t *data, size_t len, void *user);

/** The bytes as they are. */
void mutate_none(const uint8_t *data, size_t len, MutateCase run, void *user);
/** Every proper prefix, from empty to all but the last byte; inputs over 4 KiB in larger steps. */
void mutate_truncations(const uint8_t *data, size_t len, MutateCase run, void *user);
/** Every single-bit flip of the first 4 KiB. */
void mutate_bit_flips(const uint8_t *data, size_t len, MutateCase run, void *user);
/** @count cases with one to four random changes each: bytes set to telling values, 16 and 32-bit
 * little-endian fields set to boundary values, runs removed, repeated or inserted. */
void mutate_random(const uint8_t *data, size_t len, uint32_t seed, unsigned count, MutateCase run,
                   void *user);

/** A small generator for tests that need reproducible choices. */
uint32_t mutate_next(uint32_t *state);

#endif
