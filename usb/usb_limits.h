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
#define USB_MAX_STRINGS 3u                 /* languages, product, serial */
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

#define USB_ISO_MAX_PACKETS_PER_URB 32u /* QEMU asks for 1 to 32 */
#define USB_ISO_MAX_URBS 16u            /* and for up to 16 URBs */
#define USB_ISO_MAX_REQUESTS 160u       /* of all isochronous streams of a device */
#define USB_ISO_MAX_URB_BYTES (256u << 10)
#define USB_ISO_MAX_BYTES (4u << 20) /* of one stream, waiting or asked for */
#define USB_ISO_MIN_LEAD_US 60000u   /* of packets that an OUT stream collects at first */
#define USB_ISO_MAX_LEAD_US 400000u
#define USB_ISO_MAX_EXCESS_US 400000u /* beyond the lead: then packets are dropped */
#define USB_ISO_DRAIN_US 1500000u     /* for what is left when the guest stops */
#define USB_ISO_FLUSH_US 500000u      /* no packet for so long: what was collected goes */

#define USB_CONTROL_SLOW_US 500000u /* what a control request may take without a rest after it */
#define USB_CONTROL_REST_US                                                                        \
    2000000u /* the longest rest: no request keeps the client longer (3.5) */
#define USB_TIMEOUT_CONTROL_US 6000000u   /* client limit 2 s, plus queueing (urbdrc.md 3.4) */
#define USB_TIMEOUT_TRANSFER_US 12000000u /* after the client's own 10 s */
#define USB_TIMEOUT_ISO_US 3000000u
#define USB_TIMEOUT_SILENT_US 2000000u /* any request of a device that answers nothing */
#define USB_TIMEOUT_IOCTL_US 2000000u
#define USB_TIMEOUT_PEND_US 60000000u /* of a request that may pend: then its client is asked */
#define USB_TOMBSTONE_US 15000000u

#endif
