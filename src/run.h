/*
 * QEMU as our child: `qrdp run`.
 *
 * Adds the display, a QMP socket and USB redirection slots to the operator's command, starts it
 * with our standard streams, and ties the lifetimes both ways.
 *
 * Owner: main.c. Thread: main. Lifetime: run_free() after the child has ended; it kills a child
 * that has not.
 */
#ifndef QRDP_RUN_H
#define QRDP_RUN_H

#include <glib.h>

#include "config.h"

typedef struct Run Run;

typedef struct RunCallbacks {
    /** QEMU has ended. @status is what we should exit with: its own exit status, or 128 + signal.
     */
    void (*exited)(void *user, int status);
} RunCallbacks;

/** Starts Config.qemu_argv, with Config.usb_slots slots (0: no USB controllers either). @dir: a
 * private directory for the QMP socket. NULL and one sentence that says what to do (program not
 * found, conflicting -display) in @error. */
Run *run_start(const Config *config, const char *dir, const RunCallbacks *callbacks, void *user,
               GError **error);
/** The QMP socket: it can be connected to at once and greets when QEMU is up, so give the Qmp
 * patience (qmp_set_patience()). */
const char *run_qmp_path(const Run *run);
/** QEMU's process id, 0 once it has ended. */
GPid run_pid(const Run *run);
/** Asks QEMU to end (SIGTERM, then SIGKILL); .exited is called when it has. */
void run_stop(Run *run);
void run_free(Run *run);

#endif
