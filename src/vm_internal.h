/*
 * What vm.c, vm_display.c and vm_usb.c share. Nobody else includes this, except tests and the
 * vm-probe.
 *
 * Owner: vm.c. Thread: main, except inside vm_display.c's listener thread.
 */
#ifndef QRDP_VM_INTERNAL_H
#define QRDP_VM_INTERNAL_H

#include "vm.h"

#define VM_BUS_NAME "org.qemu"
#define VM_ROOT_PATH "/org/qemu/Display1"
#define VM_LISTENER_PATH VM_ROOT_PATH "/Listener"
#define VM_IFACE_VM "org.qemu.Display1.VM"
#define VM_IFACE_CONSOLE "org.qemu.Display1.Console"
#define VM_IFACE_KEYBOARD "org.qemu.Display1.Keyboard"
#define VM_IFACE_MOUSE "org.qemu.Display1.Mouse"
#define VM_IFACE_CHARDEV "org.qemu.Display1.Chardev"
#define VM_IFACE_LISTENER "org.qemu.Display1.Listener"
#define VM_IFACE_LISTENER_MAP "org.qemu.Display1.Listener.Unix.Map"

/** Before the console is found: whether listeners offer Unix.Map (default true). For tests of the
 * path that QEMU up to 9.1 takes. */
void vm_set_offer_map(Vm *vm, bool offer);

/* ---- vm_display.c: the listener and its thread ---- */

typedef struct VmDisplay VmDisplay;

typedef struct VmDisplayCallbacks {
    /** Around the application of everything that has arrived since the last wake-up. */
    void (*drain_begin)(void *user);
    void (*drain_end)(void *user);
    /** The shape to show now, NULL: hidden. Borrowed. */
    void (*cursor)(void *user, Cursor *cursor);
    /** The listener's connection has ended, or was ended because of @why. */
    void (*closed)(void *user, const char *why);
} VmDisplayCallbacks;

/** Starts the thread. What arrives is applied to @fb and the callbacks are called on the caller's
 * thread-default main context. */
VmDisplay *vm_display_new(Framebuffer *fb, const VmDisplayCallbacks *callbacks, void *user);
/** Ends the thread; no callback comes afterwards. */
void vm_display_free(VmDisplay *display);
/** Starts to serve a new listener (instead of the last one) and returns the end of its socket to
 * give to RegisterListener, or -1 with @error. */
int vm_display_open(VmDisplay *display, bool offer_map, GError **error);
void vm_display_close(VmDisplay *display);

/* ---- vm_usb.c ---- */

typedef struct VmUsb VmUsb;

VmUsb *vm_usb_new(void);
/** Fails what is pending, then frees. */
void vm_usb_free(VmUsb *usb);
/** @manager: QEMU's objects, borrowed until replaced; NULL: QEMU is gone. Pending opens fail. */
void vm_usb_set_manager(VmUsb *usb, GDBusObjectManager *manager);
bool vm_usb_is_slot(GDBusProxy *proxy);
GPtrArray *vm_usb_list(VmUsb *usb);
void vm_usb_open(VmUsb *usb, const char *id, VmUsbOpened done, void *user);
/** The fd that .done got is closed. */
void vm_usb_release(VmUsb *usb, const char *id);

#endif
