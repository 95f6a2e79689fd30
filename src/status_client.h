/*
 * `qrdp status` and `qrdp usb`: asks a running qrdp over its control socket or, with
 * --dbus-address, over the bus that libvirt gave it. A process of its own.
 */
#ifndef QRDP_STATUS_CLIENT_H
#define QRDP_STATUS_CLIENT_H

#include "config.h"

/** Prints the answer on standard output, or what went wrong on standard error. The exit status. */
int status_client_run(const Config *config);

#endif
