/*
 * Every number from a client, guest or QEMU meets one of these before it allocates or loops.
 */
#ifndef QRDP_USB_USB_LIMITS_H
#define QRDP_USB_USB_LIMITS_H

#define USB_MAX_INTERFACES 32u             /* usbredir interface_info arrays */
#define USB_MAX_ENDPOINTS 30u              /* per alternate setting: 15 IN and 15 OUT */
#define USB_MAX_ALT_SETTINGS 255u          /* per configuration, all interfaces together */
#define USB_MAX_CONFIGURATIONS 8u          /* real devices have 1 or 2 */
#define USB_MAX_CONFIG_BYTES 16384u        /* wTotalLength */
#define USB_MAX_BOS_BYTES 4096u            /* QEMU's EP0 buffer */
#define USB_MAX_CONTROL_BYTES 4096u        /* QEMU's EP0 buffer */
#define USB_MAX_TRANSFER_BYTES (4u << 20)  /* one bulk transfer, either direction */
#define USB_OUT_CHUNK_BYTES (256u << 10)   /* a longer bulk OUT is cut, one piece after the other */
#define USB_MAX_BULKIN_BYTES 65536u        /* start_bulk_receiving: bytes per transfer */
#define USB_MAX_BULKIN_TRANSFERS 16u       /* and transfers at a time */
#define USB_MAX_IN_FLIGHT 256u             /* requests per device */
#define USB_MAX_BYTES_IN_FLIGHT (8u << 20) /* per device, both directions */
#define USB_MAX_TOMBSTONES 256u
#define USB_MAX_REQUEST_ID 0x3fffffffu /* FreeRDP masks with this (urbdrc.md 2.3) */
#define USB_MAX_GUEST_BACKLOG                                                                      \
    (4u << 20) /* usbredir bytes waiting for QEMU before streams pause                             \
                */

#define USB_TIMEOUT_CONTROL_US 6000000u   /* client limit 2 s, plus queueing (urbdrc.md 3.4) */
#define USB_TIMEOUT_TRANSFER_US 12000000u /* after the client's own 10 s */
#define USB_TIMEOUT_ISO_US 3000000u
#define USB_TIMEOUT_IOCTL_US 2000000u
#define USB_TOMBSTONE_US 15000000u

#endif
