/*
 * What the guest is shown of a device, made from what the device is: shown.c says what differs, and
 * why.
 *
 * The results are descriptors like any others, of which only what QEMU and the guest are told
 * counts: speed, device descriptor, configurations, BOS. They have no strings. One reference is the
 * caller's.
 */
#ifndef QRDP_USB_SHOWN_H
#define QRDP_USB_SHOWN_H

#include "usb.h"

/** The device as it is, but without bulk streams. May be @d itself. */
UsbDescriptors *usb_shown_as_is(UsbDescriptors *d);
/** The device as if it were one of super speed; NULL if it is not of the kind that may be. */
UsbDescriptors *usb_shown_as_super(const UsbDescriptors *d);

#endif
