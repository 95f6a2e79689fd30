/*
 * The usb-host end of one usbredir stream: QEMU's bytes in, typed events out, packets to QEMU.
 *
 * Owner: the UsbDevice. Thread: its owner's. Event functions may send packets and change what
 * .ready says; they may not free the Redir nor feed it.
 */
#ifndef QRDP_USB_REDIR_H
#define QRDP_USB_REDIR_H

#include <usbredirfilter.h>
#include <usbredirproto.h>

#include "usb.h"

typedef struct Redir Redir;

typedef enum RedirEventType {
    REDIR_HELLO,
    REDIR_RESET,
    REDIR_SET_CONFIGURATION,
    REDIR_GET_CONFIGURATION,
    REDIR_SET_ALT,
    REDIR_GET_ALT,
    REDIR_START_INTERRUPT,
    REDIR_STOP_INTERRUPT,
    REDIR_START_ISO,
    REDIR_STOP_ISO,
    REDIR_START_BULK,
    REDIR_STOP_BULK,
    REDIR_ALLOC_STREAMS,
    REDIR_FREE_STREAMS,
    REDIR_CANCEL,
    REDIR_FILTER_REJECT,
    REDIR_FILTER_RULES,
    REDIR_CONTROL,
    REDIR_BULK,
    REDIR_ISO,
    REDIR_INTERRUPT,
} RedirEventType;

/** One packet of QEMU's. Valid for the call, but for .data as said there. */
typedef struct RedirEvent {
    RedirEventType type;
    uint64_t id;       /* QEMU's packet id; not unique after a cancel */
    uint8_t endpoint;  /* data and stream packets, address with direction bit */
    UsbSetup setup;    /* CONTROL */
    uint32_t length;   /* data packets: bytes wanted or brought. BULK: may be above
                        * USB_MAX_TRANSFER_BYTES, then an OUT packet has no data.
                        * START_BULK: bytes per transfer */
    uint8_t transfers; /* START_BULK: how many at a time */
    uint32_t stream;   /* BULK, START_BULK, STOP_BULK: stream id */
    uint32_t streams;  /* ALLOC_STREAMS, FREE_STREAMS: endpoint bits */
    uint8_t value;     /* SET_CONFIGURATION: bConfigurationValue */
    uint8_t per_urb;   /* START_ISO: packets per URB that QEMU suggests */
    uint8_t urbs;      /* START_ISO: URBs that it suggests, half of them to be collected for OUT */
    uint8_t interface; /* SET_ALT, GET_ALT */
    uint8_t alt;       /* SET_ALT */
    uint8_t *data;     /* OUT payload of .length bytes or NULL. Freed after the call unless the
                        * callee sets it to NULL; then it goes to redir_free_data() */
    const struct usbredirfilter_rule *rules; /* FILTER_RULES */
    int n_rules;
} RedirEvent;

typedef struct RedirCallbacks {
    void (*event)(void *user, RedirEvent *event);
    /** Asked before each packet: false leaves it and all that follows unread. */
    bool (*ready)(void *user);
    /** As UsbDeviceCallbacks.guest_write. */
    ptrdiff_t (*write)(void *user, const uint8_t *data, size_t len);
} RedirCallbacks;

/** Queues the hello. */
Redir *redir_new(const RedirCallbacks *callbacks, void *user);
void redir_free(Redir *redir);

/** Parses up to @len bytes and returns how many it has taken: fewer when .ready says no, or when
 * the stream broke, see redir_error(). */
size_t redir_feed(Redir *redir, const uint8_t *data, size_t len);
/** One sentence once the stream is beyond repair, else NULL. */
const char *redir_error(const Redir *redir);
void redir_free_data(Redir *redir, uint8_t *data);

/** Writes what is queued until it is gone or the write function takes no more. False: dead. */
bool redir_flush(Redir *redir);
/** Bytes that are queued for QEMU. */
uint64_t redir_backlog(const Redir *redir);
/** QEMU does not read: the queue is above USB_MAX_GUEST_BACKLOG bytes, or so many packets that
 * queueing another one is slow. */
bool redir_congested(const Redir *redir);
/** The queue is at most half of that. */
bool redir_relieved(const Redir *redir);

void redir_send_device_connect(Redir *redir, const UsbDescriptors *d);
void redir_send_device_disconnect(Redir *redir);
/** Reports interfaces and endpoints of @c with the setting numbers of @alts (per
 * c->interface_numbers), or that nothing is configured when @c is NULL. With @only_its_speed QEMU
 * will refuse the device on a port that has not exactly its speed. */
void redir_send_topology(Redir *redir, const UsbDescriptors *d, const UsbConfiguration *c,
                         const uint8_t *alts, bool only_its_speed);
void redir_send_configuration_status(Redir *redir, uint64_t id, UsbStatus status, uint8_t value);
void redir_send_alt_status(Redir *redir, uint64_t id, UsbStatus status, uint8_t interface,
                           uint8_t alt);
void redir_send_interrupt_status(Redir *redir, uint64_t id, UsbStatus status, uint8_t endpoint);
void redir_send_iso_status(Redir *redir, uint64_t id, UsbStatus status, uint8_t endpoint);
void redir_send_bulk_receiving_status(Redir *redir, uint64_t id, UsbStatus status, uint8_t endpoint,
                                      uint32_t stream);
void redir_send_streams_status(Redir *redir, uint64_t id, UsbStatus status, uint32_t endpoints);
/** Data packets. @data is the payload of an IN endpoint, of @length bytes; NULL and the count of
 * bytes moved for OUT. */
void redir_send_control(Redir *redir, uint64_t id, UsbStatus status, const UsbSetup *setup,
                        const uint8_t *data, uint32_t length);
void redir_send_bulk(Redir *redir, uint64_t id, UsbStatus status, uint8_t endpoint,
                     const uint8_t *data, uint32_t length);
void redir_send_interrupt(Redir *redir, uint64_t id, UsbStatus status, uint8_t endpoint,
                          const uint8_t *data, uint32_t length);
void redir_send_iso(Redir *redir, uint64_t id, UsbStatus status, uint8_t endpoint,
                    const uint8_t *data, uint32_t length);

/** For a bulk IN endpoint that QEMU has started to receive from: @length bytes of @data, none for
 * NULL. */
void redir_send_buffered_bulk(Redir *redir, uint64_t id, UsbStatus status, uint8_t endpoint,
                              const uint8_t *data, uint32_t length);

#endif
