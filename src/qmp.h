/*
 * QMP, one operation at a time: connect, negotiate, run the commands of one operation, close. The
 * socket serves one client at a time (libvirt, Proxmox or a person may want it next), so it is
 * never kept open.
 *
 * Owner: the caller. Thread: main; all calls are asynchronous on the default main context.
 */
#ifndef QRDP_QMP_H
#define QRDP_QMP_H

#include <gio/gio.h>
#include <stdbool.h>

typedef struct Qmp Qmp;

/** @path: the monitor's unix socket. Nothing is connected yet. */
Qmp *qmp_new(const char *path);
/** How long a monitor that has not greeted yet may take (default 5 s): a QEMU that is just starting
 * up needs longer. */
void qmp_set_patience(Qmp *qmp, unsigned seconds);
void qmp_free(Qmp *qmp); /* pending operations end with an error before this returns */

/** Attaches to `-display dbus,p2p=yes`: getfd + add_client "@dbus-display", then D-Bus
 * authentication. @done: the connection (one reference is the callee's) or NULL and a sentence that
 * names the option to add when the VM has no D-Bus display. */
typedef void (*QmpAttached)(void *user, GDBusConnection *connection, const char *error);
void qmp_attach_display(Qmp *qmp, QmpAttached done, void *user);

/** Plugs one more redirection slot: chardev-add dbus/org.qemu.usbredir and device_add usb-redir on
 * a free port of our controllers (or of the only one there is). @boot: the bootindex of the first
 * slot there can be, which this one counts on from; negative: none. @done: the chardev id, or NULL
 * and why; "no free USB port" is told apart from other errors in the sentence. */
typedef void (*QmpSlotAdded)(void *user, const char *chardev_id, const char *error);
void qmp_add_usb_slot(Qmp *qmp, int boot, QmpSlotAdded done, void *user);

#endif
