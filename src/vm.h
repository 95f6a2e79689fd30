/*
 * QEMU over D-Bus: display, input and character devices of one virtual machine.
 *
 * Owner: the Server. Thread: main for everything declared here. The display listener's socket is
 * served by a thread of its own inside vm_display.c, because QEMU authenticates synchronously on
 * its main loop when a listener registers and calls ScanoutMap synchronously (rdp-server.md 21.2);
 * that thread never blocks and hands everything to main.
 * Lifetime: callbacks stop when vm_free() returns.
 *
 * Never includes FreeRDP.
 */
#ifndef QRDP_VM_H
#define QRDP_VM_H

#include <gio/gio.h>

#include "framebuffer.h"

typedef struct Vm Vm;

#define VM_MAX_CURSOR_SIDE 512u

/** A cursor shape: ARGB words as QEMU sends them, top-down. Immutable, any thread may unref. */
typedef struct Cursor {
    gint refs;
    uint32_t width, height;
    int32_t hot_x, hot_y;
    uint32_t *argb;
} Cursor;
/** @argb: @len bytes, copied. NULL if they are not a shape of this size, of at most
 * VM_MAX_CURSOR_SIDE a side. The hot spot is put inside. */
Cursor *cursor_new(int32_t width, int32_t height, int32_t hot_x, int32_t hot_y, const uint8_t *argb,
                   size_t len);
Cursor *cursor_ref(Cursor *cursor);
void cursor_unref(Cursor *cursor);

typedef enum VmButton { /* qapi InputButton order (rdp-server.md 11) */
    VM_BUTTON_LEFT = 0,
    VM_BUTTON_MIDDLE = 1,
    VM_BUTTON_RIGHT = 2,
    VM_BUTTON_WHEEL_UP = 3,
    VM_BUTTON_WHEEL_DOWN = 4,
    VM_BUTTON_SIDE = 5,
    VM_BUTTON_EXTRA = 6,
} VmButton;

enum { VM_LED_SCROLL = 1, VM_LED_NUM = 2, VM_LED_CAPS = 4 }; /* Keyboard.Modifiers */

typedef struct VmCallbacks {
    /** QEMU's display is there: the console has been found and its listener registered. */
    void (*ready)(void *user);
    /** There is something new in vm_framebuffer(). */
    void (*damaged)(void *user);
    /** NULL: the guest hides its pointer. Borrowed. */
    void (*cursor)(void *user, Cursor *cursor);
    void (*leds)(void *user, uint32_t leds);
    void (*mouse_mode)(void *user, bool absolute);
    /** A redirection chardev came, went or became free. */
    void (*usb_slots_changed)(void *user);
    /** QEMU went away (or, bus mode, left the bus); nothing works until ready again, if ever. */
    void (*lost)(void *user, const char *why);
} VmCallbacks;

/** @connection: a peer-to-peer connection made with QMP add_client "@dbus-display". */
Vm *vm_new_p2p(GDBusConnection *connection, const VmCallbacks *callbacks, void *user);
/** @connection: a message bus on which org.qemu appears sooner or later. */
Vm *vm_new_bus(GDBusConnection *connection, const VmCallbacks *callbacks, void *user);
void vm_free(Vm *vm);

Framebuffer *vm_framebuffer(Vm *vm);
/** From the VM object, "" until known. */
const char *vm_name(const Vm *vm);
bool vm_mouse_is_absolute(const Vm *vm);
uint32_t vm_leds(const Vm *vm);
Cursor *vm_cursor(const Vm *vm); /* borrowed, NULL: hidden or none yet */

/* Input: sent in order without waiting for replies. */
void vm_key(Vm *vm, uint32_t qnum, bool down);
/** Clamped to the guest's picture. Ignored while the mouse is relative. */
void vm_mouse_abs(Vm *vm, int32_t x, int32_t y);
void vm_mouse_rel(Vm *vm, int32_t dx, int32_t dy);
void vm_mouse_button(Vm *vm, VmButton button, bool down);

/** Asks the guest for a display of that size (pixels, millimetres or 0). Debounced here. */
void vm_set_ui_info(Vm *vm, uint32_t width, uint32_t height, uint32_t width_mm,
                    uint32_t height_mm);

/* Redirection slots: chardevs named org.qemu.usbredir that have a device. */

typedef struct VmUsbSlot {
    char *id;      /* the chardev's id: "charredir0" */
    bool busy;     /* we or, as far as is known, somebody else attached to it */
    bool ours;     /* we did, and vm_usb_slot_release() was not called yet */
} VmUsbSlot;
/** The slots there are now; free with g_ptr_array_unref() (elements are VmUsbSlot). */
GPtrArray *vm_usb_slots(Vm *vm);
/** Attaches to slot @id; @done gets the fd (the callee's, non-blocking) or -1 and why: possibly
 * before this returns, and at the latest before vm_free() does. */
typedef void (*VmUsbOpened)(void *user, int fd, const char *error);
void vm_usb_slot_open(Vm *vm, const char *id, VmUsbOpened done, void *user);
/** The fd of slot @id is closed, or about to be: the slot can be opened again. */
void vm_usb_slot_release(Vm *vm, const char *id);

#endif
