/*
 * What a person reads when qrdp starts: where to connect and how, with each client's own words.
 */
#ifndef QRDP_ANNOUNCE_H
#define QRDP_ANNOUNCE_H

#include <stdbool.h>

#include "server.h"

/** Prints to standard error. @run_dir may be NULL. */
void announce_print(const Server *server, bool has_credentials, const char *run_dir);
/** "READY rdp=ADDR:PORT" on standard output, a line per listener, flushed. */
void announce_ready(const Server *server);

#endif
