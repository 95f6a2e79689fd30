/*
 * Devices that are plugged into this host itself: `qrdp usb attach`.
 *
 * Owner: the Server. Thread: main. Lifetime: as long as its UsbSlots, freed first; host_usb_free()
 * gives every device back to the host.
 */
#ifndef QRDP_HOST_USB_H
#define QRDP_HOST_USB_H

#include "usb_slots.h"

typedef struct HostUsb HostUsb;

HostUsb *host_usb_new(UsbSlots *slots);
void host_usb_free(HostUsb *host);
/** Starts to give the guest the device @which, "VID:PID" or "BUS-ADDRESS" as lsusb shows them. The
 * answer for the operator (g_free() it), which starts with the device's number if *ok. */
char *host_usb_attach(HostUsb *host, const char *which, bool *ok);
/** UsbSlotsCallbacks.grant and .detach for USB_SLOTS_HOST. */
bool host_usb_granted(HostUsb *host, guint id, int fd, const char *slot_id, const char *error);
void host_usb_leave(HostUsb *host, guint id, bool close, const char *why);

#endif
