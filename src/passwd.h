/*
 * `qrdp passwd USER`: sets or removes a password in the credential store.
 *
 * A process of its own; the running qrdp sees the file change at the next connection.
 */
#ifndef QRDP_PASSWD_H
#define QRDP_PASSWD_H

#include "config.h"

/** Asks, writes the store, and says on standard error what was done. The exit status: 0, or 1. */
int passwd_run(const Config *config);

#endif
