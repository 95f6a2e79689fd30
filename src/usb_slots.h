/*
 * Which device may have which redirection slot: policy, allocation, the table that `qrdp usb list`
 * and `qrdp status` show, and the operator's verbs.
 *
 * Owner: the Server. Thread: main. Lifetime: from server_attach_*() on; usb_slots_free() drops
 * pending requests without an answer.
 *
 * A peer's device is named by (peer id, device id), both never reused in a process. The peer's
 * thread asks through server_post(); the answer goes back through .grant, which posts to the peer.
 */
#ifndef QRDP_USB_SLOTS_H
#define QRDP_USB_SLOTS_H

#include <glib.h>

#include "config.h"
#include "qmp.h"
#include "usb.h"
#include "vm.h"

typedef struct UsbSlots UsbSlots;

#define USB_SLOTS_HOST 0u /* the "peer" that has this host's own devices: real ids start with 1 */
/** The peer of a device whose client is away (usb_keeper.h). */
#define USB_SLOTS_AWAY G_MAXUINT

typedef struct UsbSlotsCallbacks {
    /** The answer to usb_slots_request(): @fd is the slot's socket (the callee's) and @slot_id its
     * chardev, or @fd is -1 and @error one sentence; the device is then parked. May be called more
     * than once for a parked device (`qrdp usb allow`). False: the peer is gone, and the caller
     * keeps @fd. */
    bool (*grant)(void *user, guint peer_id, guint device_id, int fd, const char *slot_id,
                  const char *error);
    /** The operator wants the device away from the guest: parked, so that it can come back, or with
     * @close its channel is closed (FreeRDP then forgets the device until it is plugged in again).
     */
    void (*detach)(void *user, guint peer_id, guint device_id, bool close, const char *why);
    /** Seconds that the client of a device of USB_SLOTS_AWAY has to come back. */
    unsigned (*seconds_left)(void *user, guint device_id);
} UsbSlotsCallbacks;

/** @qmp may be NULL: then only the VM's existing chardevs are used. Both are borrowed. */
UsbSlots *usb_slots_new(Vm *vm, Qmp *qmp, const Config *config, const UsbSlotsCallbacks *callbacks,
                        void *user);
void usb_slots_free(UsbSlots *slots);
/** The machine is ending: what its devices lose is neither replaced nor complained about. */
void usb_slots_stop(UsbSlots *slots);
/** The VM's chardevs changed: requests refused for want of a slot may fit now. */
void usb_slots_changed(UsbSlots *slots);
/** A probed device wants in. @descriptors: a reference is taken. @label: who has it. */
void usb_slots_request(UsbSlots *slots, guint peer_id, guint device_id, UsbDescriptors *descriptors,
                       const char *label);
/** A device that never got as far as a request, or whose state changed: one line for the table. */
void usb_slots_note(UsbSlots *slots, guint peer_id, guint device_id, const char *label,
                    const char *state, const char *why);
/** What the device's streams have done so far. */
void usb_slots_figures(UsbSlots *slots, guint peer_id, guint device_id,
                       const UsbDeviceStats *figures);
/** The peer has closed the fd it was granted, but still has the device. */
void usb_slots_released(UsbSlots *slots, guint peer_id, guint device_id);
/** The device is gone (@device_id) or all of that peer's are (@device_id 0). */
void usb_slots_forget(UsbSlots *slots, guint peer_id, guint device_id);

/** What the operator calls a device, 0: there is none. */
guint usb_slots_number(UsbSlots *slots, guint peer_id, guint device_id);
/** Why a device was refused, valid until the next call into @slots; NULL: it was not. */
const char *usb_slots_refusal(UsbSlots *slots, guint peer_id, guint device_id);
/** The client is away, the device stays in its slot: it is USB_SLOTS_AWAY's now. False if it is
 * unknown, or the operator has denied or detached it meanwhile. */
bool usb_slots_suspend(UsbSlots *slots, guint peer_id, guint device_id);
/** The suspended @old_id is @peer_id's @device_id, whose row it replaces. */
void usb_slots_resume(UsbSlots *slots, guint old_id, guint peer_id, guint device_id,
                      const char *label);
/** Whether one of @peer_id's devices in a slot has these descriptors. */
bool usb_slots_holds(UsbSlots *slots, guint peer_id, const UsbDescriptors *descriptors);

/** Verb and arguments of `qrdp usb`; the answer's text, g_free() it. *ok is false for an error. */
char *usb_slots_command(UsbSlots *slots, char **words, bool *ok);

/** One row of the table, strings valid until the next call into @slots. */
typedef struct UsbSlotsRow {
    guint number;       /* what `qrdp usb detach` takes */
    guint peer_id;      /* 0: its client is away */
    const char *device; /* "1234:5678 mass storage \"Foo\"" */
    const char *label;  /* "alice@192.0.2.7", "this host's 1-4" */
    const char *slot;   /* "" if it has none */
    const char *state;  /* "probing", "connected", "refused", "rejected", "suspended" */
    const char *why;
    UsbDeviceStats figures; /* 0 for a device that has no isochronous streams */
} UsbSlotsRow;
/** Fills at most @max rows and returns how many it filled. */
guint usb_slots_rows(UsbSlots *slots, UsbSlotsRow *rows, guint max);
/** Free and total slots of the VM. */
void usb_slots_count(UsbSlots *slots, guint *free_slots, guint *total);
/** Whether slots are added when there are too few. */
bool usb_slots_can_grow(const UsbSlots *slots);

#endif
