/*
 * A redirection slot in use: QEMU's chardev fd and the UsbDevice that speaks over it.
 *
 * Owner: exactly one thread at a time, the one whose GMainContext it is attached to: the peer's
 * while a peer feeds it, main while its device is suspended (usb_keeper.c). Between slot_detach()
 * and slot_attach() it is nobody's: whoever has the pointer may hand it on or free it.
 * Lifetime: slot_free() closes the fd, which makes QEMU unplug whatever it still shows.
 */
#ifndef QRDP_SLOT_H
#define QRDP_SLOT_H

#include <glib.h>

#include "usb.h"

typedef struct Slot Slot;

typedef struct SlotCallbacks {
    /** The device is connected, rejected, broken or gone; @why is one sentence. For every state but
     * HELLO and CONNECTED the owner frees the slot (not from inside this call: use an idle). */
    void (*state_changed)(void *user, Slot *slot, UsbDeviceState state, const char *why);
    /** Whether USB bytes may be queued towards the client now (the peer's byte cap). */
    bool (*may_send)(void *user);
    /** What QEMU's socket has to read now did not come before (monotonic, us). */
    uint64_t (*arrived)(void *user);
    /** What QEMU sent was read and handled. */
    void (*read)(void *user);
    /** QEMU's socket took all of a message. */
    void (*written)(void *user);
} SlotCallbacks;

/** Takes @fd (non-blocking). Starts showing the device of @source with @descriptors to the guest.
 */
Slot *slot_new(GMainContext *context, const char *id, int fd, UsbDescriptors *descriptors,
               UsbSource *source, const SlotCallbacks *callbacks, void *user);
void slot_free(Slot *slot);
/** Leaves its thread. Its device must be suspended. */
void slot_detach(Slot *slot);
/** Joins this one: its device's events go to @callbacks from now on. */
void slot_attach(Slot *slot, GMainContext *context, const SlotCallbacks *callbacks, void *user);
/** When its device lost its client (monotonic, us). Another client that does not bring it back all
 * the way, slot_back(), does not change that. */
int64_t slot_away_since(const Slot *slot);
void slot_back(Slot *slot);
const char *slot_id(const Slot *slot);
UsbDevice *slot_device(Slot *slot);
/** The peer's queue has drained: read QEMU's side again if may_send says so. */
void slot_kick(Slot *slot);

#endif
