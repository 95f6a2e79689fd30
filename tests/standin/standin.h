/*
 * What the stand-in offers besides libusb's own API: the command line of its control socket, for
 * tests that link the library instead of preloading it.
 *
 * Thread: any. Needs no libusb context. The commands are listed in docs/testing-standin.md.
 */
#ifndef QRDP_TESTS_STANDIN_H
#define QRDP_TESTS_STANDIN_H

#include <stdbool.h>
#include <stddef.h>

/** Runs one command (without its newline) and writes the answer, "ok ..." or "error ...", into
 * the @size bytes at @answer. True if it is "ok". */
__attribute__((visibility("default"))) bool standin_command(const char *line, char *answer,
                                                            size_t size);

#endif
