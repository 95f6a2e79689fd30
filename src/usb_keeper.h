/*
 * Suspended devices: slots whose client is away and may be back in a moment with the same device.
 *
 * Owner: the Server. Thread: main. Lifetime: as the Server's UsbSlots; usb_keeper_free() unplugs
 * what is still kept.
 */
#ifndef QRDP_USB_KEEPER_H
#define QRDP_USB_KEEPER_H

#include "slot.h"

#define USB_KEEPER_MAX 64u /* devices kept at once: more than QEMU's controllers have ports */
/** A login renews the grace, so that there is time to announce the device, but without the device
 * itself back a guest waits no longer than this many times the grace. */
#define USB_KEEPER_MAX_GRACES 3u

typedef struct UsbKeeper UsbKeeper;

/** The device of @device_id was unplugged from the guest: nobody came, QEMU went, or the operator
 * wanted it away. @why is one sentence. */
typedef void (*UsbKeeperLost)(void *user, guint device_id, const char *why);

UsbKeeper *usb_keeper_new(unsigned grace_seconds, UsbKeeperLost lost, void *user);
void usb_keeper_free(UsbKeeper *keeper);
/** Takes a detached @slot with a suspended device for @login, the name its client logged in with.
 * False: it has been freed, because there is no room or it has been away for too long already. */
bool usb_keeper_keep(UsbKeeper *keeper, Slot *slot, guint device_id, const char *login);
/** @login is back: its devices get the whole grace again to be announced, as often as
 * USB_KEEPER_MAX_GRACES allows. */
void usb_keeper_renew(UsbKeeper *keeper, const char *login);
/** The detached slot of a device of @login's with the very same descriptors, and its number in
 * *device_id; NULL if there is none. */
Slot *usb_keeper_claim(UsbKeeper *keeper, const char *login, const UsbDescriptors *descriptors,
                       guint *device_id);
/** Unplugs it now. */
void usb_keeper_drop(UsbKeeper *keeper, guint device_id, const char *why);
/** Whole seconds that are left, rounded up; 0 if it is not kept. */
unsigned usb_keeper_seconds(const UsbKeeper *keeper, guint device_id);

#endif
