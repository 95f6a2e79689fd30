/*
 * Descriptor parsing: raw bytes of a device in, UsbDescriptors out. See usb.h for the result.
 *
 * Owner: the caller, until the UsbDescriptors are complete; immutable and shared from then on.
 * Thread: any, one at a time. Every function that can refuse writes one sentence to @why.
 */
#ifndef QRDP_USB_DESCRIPTOR_H
#define QRDP_USB_DESCRIPTOR_H

#include "bytes.h"
#include "usb.h"

#define USB_DESCRIPTOR_SUPERSPEED_COMPANION 0x30u
#define USB_DEVICE_DESCRIPTOR_LEN 18u
#define USB_CONFIG_HEADER_LEN 9u
#define USB_BOS_HEADER_LEN 5u

/** Starts from a device descriptor. NULL if it is not one. */
UsbDescriptors *usb_descriptors_new(const uint8_t *raw, size_t len, char *why, size_t size);
/** wTotalLength of a configuration (or BOS) header, 0 and a sentence if it is not one. */
uint16_t usb_descriptor_config_length(const uint8_t *raw, size_t len, char *why, size_t size);
uint16_t usb_descriptor_bos_length(const uint8_t *raw, size_t len, char *why, size_t size);
/** Checks one whole configuration and appends it. */
bool usb_descriptors_add_configuration(UsbDescriptors *d, const uint8_t *raw, size_t len, char *why,
                                       size_t size);
bool usb_descriptors_set_bos(UsbDescriptors *d, const uint8_t *raw, size_t len, char *why,
                             size_t size);
/** Keeps a string descriptor as it came, for usb_descriptors_same(). */
void usb_descriptors_add_string(UsbDescriptors *d, const uint8_t *raw, size_t len);
/** Converts a string descriptor into escaped UTF-8 of at most @size bytes; "" if it is not one. */
void usb_descriptor_string(const uint8_t *raw, size_t len, char *out, size_t size);
/** Sets d->speed from what only one speed allows (urbdrc.md 4.2); the hint decides what is left. */
void usb_descriptors_derive_speed(UsbDescriptors *d, bool high_speed_hint);
/** Steps to the next descriptor of a configuration or BOS: its type, and what follows that in
 * @body. False at the end, and on a length that cannot be (then @r has failed). */
bool usb_descriptor_next(Reader *r, uint8_t *type, Reader *body);

#endif
