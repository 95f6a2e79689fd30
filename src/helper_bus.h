/*
 * What libvirt's qemu-rdp helper owes its bus: the name org.QemuDisplay.RDP, SetCredentials and
 * Leaving (libvirt 11.3, src/qemu/qemu_rdp.c). The same object answers `qrdp status` and `qrdp usb`
 * through an interface of our own, org.qrdp.Control1, because libvirt promises its helper no
 * directory it could write a control socket to.
 *
 * Owner: main.c. Thread: main. Lifetime: the callbacks stop when helper_bus_free() returns.
 */
#ifndef QRDP_HELPER_BUS_H
#define QRDP_HELPER_BUS_H

#include <gio/gio.h>
#include <stdbool.h>

#define HELPER_BUS_NAME "org.QemuDisplay.RDP"
#define HELPER_BUS_PATH "/org/qemu_display/rdp"

typedef struct HelperBus HelperBus;

typedef struct HelperBusCallbacks {
    /** New credentials replace the old ones. @name NULL: any user name. @password "": nobody may
     * log in. False: @error is what the caller reads. */
    bool (*credentials)(void *user, const char *name, const char *password, GError **error);
    /** As ControlHandler. */
    char *(*command)(void *user, char **words, bool *ok);
    /** The bus is gone, or QEMU was on it and has left. */
    void (*closed)(void *user, const char *why);
} HelperBusCallbacks;

/** Connects to @address (waiting up to 3 s for a bus that is just being started), exports the
 * object, then takes the name. Blocks; do it before anything slow. */
HelperBus *helper_bus_new(const char *address, const HelperBusCallbacks *callbacks, void *user,
                          GError **error);
void helper_bus_free(HelperBus *bus);
/** Borrowed. */
GDBusConnection *helper_bus_connection(HelperBus *bus);
/** From now on SetCredentials fails with @sentence: the only way an operator of libvirt reads it.
 */
void helper_bus_fail(HelperBus *bus, const char *sentence);
/** True once SetCredentials was called after helper_bus_fail(). */
bool helper_bus_failure_told(const HelperBus *bus);
/** Emits Leaving(@reason) and waits (half a second at most) until it is written. */
void helper_bus_leave(HelperBus *bus, const char *reason);

/** The asking side of org.qrdp.Control1, as control_call(). */
char *helper_bus_call(const char *address, char **words, bool *ok, GError **error);

#endif
