/*
 * The USB side of qrdp: what a redirected device is, without saying who has it or who sees it.
 *
 *      UsbSource  ------ UsbProbe ------> UsbDescriptors
 *  (URBDRC channel, host device)               |
 *      UsbSource  <----- UsbDevice (state machine, transfers, usbredir) -----> QEMU's usb-redir
 *
 * A UsbSource is where requests go and completions come from. A UsbProbe reads and checks the
 * descriptors of a fresh source. A UsbDevice is what one QEMU slot shows to the guest: it speaks
 * the usb-host side of usbredir on one end and UsbRequests on the other. The source of a UsbDevice
 * can be exchanged or absent, so a device outlives the client that brought it by construction.
 *
 * Nothing here knows FreeRDP, GIO, threads or file descriptors: bytes and events in, callbacks out,
 * time handed in as a monotonic microsecond count.
 *
 * Owner: the slot owns the UsbDevice; the channel that implements a source owns the UsbSource.
 * Thread: one at a time, the owner's. Lifetime: see each type.
 */
#ifndef QRDP_USB_USB_H
#define QRDP_USB_USB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "usb_limits.h"

/** Outcome of a request; the numbers are usbredir's usb_redir_* status values. */
typedef enum UsbStatus {
    USB_STATUS_SUCCESS = 0,
    USB_STATUS_CANCELLED = 1,
    USB_STATUS_INVAL = 2,
    USB_STATUS_IOERROR = 3,
    USB_STATUS_STALL = 4,
    USB_STATUS_TIMEOUT = 5,
    USB_STATUS_BABBLE = 6,
} UsbStatus;
const char *usb_status_name(UsbStatus status);

/** The numbers are usbredir's usb_redir_speed_* values. */
typedef enum UsbSpeed {
    USB_SPEED_LOW = 0,
    USB_SPEED_FULL = 1,
    USB_SPEED_HIGH = 2,
    USB_SPEED_SUPER = 3,
    USB_SPEED_UNKNOWN = 255,
} UsbSpeed;
const char *usb_speed_name(UsbSpeed speed);

/* ------------------------------------------------------------------------------------------------
 * Descriptors: checked once, then immutable. usb/descriptor.c
 */

typedef enum UsbEndpointType {
    USB_ENDPOINT_CONTROL = 0,
    USB_ENDPOINT_ISO = 1,
    USB_ENDPOINT_BULK = 2,
    USB_ENDPOINT_INTERRUPT = 3,
} UsbEndpointType;

typedef struct UsbEndpoint {
    uint8_t address; /* bEndpointAddress, bit 7 = IN */
    UsbEndpointType type;
    uint8_t interval;        /* bInterval as the device says, but never 0 for interrupt and iso */
    uint16_t max_packet_raw; /* wMaxPacketSize */
    uint16_t max_packet;     /* bytes per packet, bits 0-10 */
    uint8_t mult;            /* packets per microframe, 1..3 */
    uint32_t interval_bytes; /* interrupt and iso: most bytes per service interval, all packets and
                              * bursts of it together */
} UsbEndpoint;

typedef struct UsbAltSetting {
    uint8_t interface; /* bInterfaceNumber */
    uint8_t alt;       /* bAlternateSetting */
    uint8_t class_code, subclass, protocol;
    uint8_t n_endpoints;
    UsbEndpoint endpoints[USB_MAX_ENDPOINTS];
} UsbAltSetting;

typedef struct UsbConfiguration {
    uint8_t value; /* bConfigurationValue */
    uint8_t n_interfaces;
    uint8_t most_interfaces; /* of all configurations that the device has */
    uint8_t interface_numbers[USB_MAX_INTERFACES];
    uint16_t n_alts; /* alternate settings of all interfaces, in descriptor order */
    UsbAltSetting *alts;
    uint16_t raw_len; /* wTotalLength */
    uint8_t *raw;     /* as the device sent it: what SELECT_CONFIGURATION must carry */
} UsbConfiguration;

/** Reference counted (atomically), immutable once made. */
typedef struct UsbDescriptors UsbDescriptors;
struct UsbDescriptors {
    int refs;
    uint8_t device_raw[18];
    uint16_t vid, pid, bcd_device, bcd_usb;
    uint8_t class_code, subclass, protocol, max_packet0;
    UsbSpeed speed; /* derived, see usb_descriptors_derive_speed() */
    uint8_t n_configurations;
    UsbConfiguration *configurations;
    uint16_t bos_len; /* 0 if the device has none */
    uint8_t *bos;
    char product[64]; /* UTF-8, escaped, for people; "" if unknown */
    char serial[64];
    uint16_t strings_len; /* the string descriptors that were read, one after the other */
    uint8_t strings[USB_MAX_STRINGS * 255];
};
UsbDescriptors *usb_descriptors_ref(UsbDescriptors *d);
void usb_descriptors_unref(UsbDescriptors *d);
const UsbConfiguration *usb_descriptors_configuration(const UsbDescriptors *d, uint8_t value);
const UsbAltSetting *usb_configuration_alt(const UsbConfiguration *c, uint8_t interface,
                                           uint8_t alt);
/** Whether every byte that was read of them is the same, strings and derived speed included. */
bool usb_descriptors_same(const UsbDescriptors *a, const UsbDescriptors *b);
/** Whether it is storage that at its speed knows UAS alone, which RDP cannot carry
 * (docs/superspeed.md). */
bool usb_descriptors_need_streams(const UsbDescriptors *d);
/** "1234:5678 mass storage \"Foo Stick\"", for log lines and status. */
const char *usb_descriptors_describe(const UsbDescriptors *d, char *out, size_t size);

/* ------------------------------------------------------------------------------------------------
 * Requests and completions
 */

typedef enum UsbRequestKind {
    USB_REQUEST_CONTROL,
    USB_REQUEST_BULK,
    USB_REQUEST_INTERRUPT,
    USB_REQUEST_ISO,
    USB_REQUEST_SELECT_CONFIGURATION,
    USB_REQUEST_SELECT_INTERFACE,
    USB_REQUEST_CLEAR_HALT, /* clear the halt of .endpoint on both sides, reset its toggle */
    USB_REQUEST_RESET_PORT,
} UsbRequestKind;

typedef struct UsbSetup {
    uint8_t request_type; /* bmRequestType */
    uint8_t request;
    uint16_t value, index, length;
} UsbSetup;

typedef struct UsbIsoPacket {
    uint32_t length; /* request: room or bytes of this packet; completion: bytes transferred */
    UsbStatus status;
} UsbIsoPacket;

/** Everything a source needs to carry out one request. Borrowed by submit() for the call. */
typedef struct UsbRequest {
    uint32_t id; /* unique in the source while live or tombstoned, 1..USB_MAX_REQUEST_ID */
    UsbRequestKind kind;
    uint8_t endpoint;    /* address with direction bit; 0x00 / 0x80 for control */
    UsbSetup setup;      /* CONTROL */
    uint32_t length;     /* IN: bytes wanted; OUT: bytes in data */
    const uint8_t *data; /* OUT payload, NULL for IN */
    uint32_t n_packets;  /* ISO */
    const UsbIsoPacket *packets;
    const UsbConfiguration *configuration; /* SELECT_*: the configuration concerned, NULL = none */
    const UsbAltSetting *alt;              /* SELECT_INTERFACE */
    uint32_t timeout_ms;                   /* what the source may tell its client; our own timer
                                            * runs in the transfer table */
} UsbRequest;

/** The end of one request. Borrowed by the sink for the call. */
typedef struct UsbCompletion {
    uint32_t id;
    UsbStatus status;
    uint32_t length;     /* bytes moved; never more than was asked for, the source has checked, and
                          * no less than it believes: a client's 0 may mean all */
    const uint8_t *data; /* IN payload of .length bytes, for ISO the packets one after another */
    uint32_t n_packets;  /* ISO */
    const UsbIsoPacket *packets;
    bool retry_in; /* nothing was lost and the device is fine: an IN request may be issued again
                    * (client-side timeout, or cancelled as a side effect of another endpoint) */
} UsbCompletion;

/* ------------------------------------------------------------------------------------------------
 * UsbSource: who has the device
 */

typedef struct UsbSource UsbSource;

/** None of these calls the sink back from inside: completions and .gone come later, from the loop.
 */
typedef struct UsbSourceOps {
    /** Starts @request. True: exactly one completion follows, unless the source goes away or the
     * request is cancelled (then at most one). False: refused, no completion follows. */
    bool (*submit)(UsbSource *source, const UsbRequest *request);
    /** Asks for an early end. The table keeps a tombstone: a late completion is swallowed by it. */
    void (*cancel)(UsbSource *source, uint32_t id);
    /** We no longer want the device; @reason is one sentence for the log. The source goes away
     * soon after: .gone is called on the sink unless the sink was cleared before. */
    void (*retire)(UsbSource *source, const char *reason);
} UsbSourceOps;

typedef struct UsbSink {
    void (*complete)(void *user, const UsbCompletion *completion);
    /** The device was unplugged or the client left; no completion follows, the pointer dies. */
    void (*gone)(void *user, const char *why);
} UsbSink;

/** Quirks of the far side that change what the state machine may ask for. */
enum {
    /** CLEAR_HALT cancels every request of the device (FreeRDP: urbdrc.md 3.6). */
    USB_QUIRK_CLEAR_HALT_CANCELS_ALL = 1u << 0,
    /** RESET_PORT answers success and does nothing (FreeRDP: urbdrc.md 2.3). */
    USB_QUIRK_RESET_IS_NO_OP = 1u << 1,
    /** Bulk and interrupt requests may stay open as long as the device likes (Windows, host
     * devices), so no timer is run on them: device_alive.c asks the client instead. Without this
     * one that has no completion after USB_TIMEOUT_TRANSFER_US counts as lost: FreeRDP ends all of
     * them after 10 s itself. */
    USB_QUIRK_TRANSFERS_MAY_PEND = 1u << 2,
    /** All packets of an isochronous request have the same length (FreeRDP: urbdrc.md 3.5). */
    USB_QUIRK_EQUAL_ISO_PACKETS = 1u << 3,
    /** An isochronous request at high speed covers whole frames (Windows: _URB_ISOCH_TRANSFER,
     * NumberOfPackets). */
    USB_QUIRK_ISO_WHOLE_FRAMES = 1u << 4,
    /** A control request keeps the client from everything else, its picture included, until the
     * device has answered (FreeRDP: urbdrc.md 3.5). One that took long is followed by a rest as
     * long, so that a guest cannot freeze its user's screen with a device that NAKs. */
    USB_QUIRK_CONTROL_BLOCKS_CLIENT = 1u << 5,
};

/** Embedded as the first member of what implements a source. */
struct UsbSource {
    const UsbSourceOps *ops;
    const UsbSink *sink; /* NULL: completions are dropped */
    void *sink_user;
    uint32_t quirks;
    uint32_t last_id; /* see usb_source_next_id() */
    bool gone;        /* set before the sink's .gone is called: submit nothing, the pointer dies */
    bool as_is;       /* the guest is to see the device's own speed and descriptors: shown.c */
    bool high_speed_hint; /* USB_DEVICE_CAPABILITIES.DeviceIsHighSpeed or the host's word */
    char label[96];       /* who has it, for people: "alice@127.0.0.1 channel 3" (escaped) */
};
/** A fresh request id: never 0, wraps below USB_MAX_REQUEST_ID. The caller skips live ids. */
uint32_t usb_source_next_id(UsbSource *source);
void usb_source_set_sink(UsbSource *source, const UsbSink *sink, void *user);

/* ------------------------------------------------------------------------------------------------
 * UsbProbe: reads the descriptors of a fresh source. usb/probe.c
 */

typedef struct UsbProbe UsbProbe;

/** Called once: with descriptors (one reference is the callee's) or with NULL and one sentence that
 * says what was wrong. The probe may be freed from inside it. */
typedef void (*UsbProbeDone)(void *user, UsbDescriptors *descriptors, const char *error);

/** Takes the source's sink until it is done or freed. Asks nothing before the first tick, which is
 * due at once. */
UsbProbe *usb_probe_new(UsbSource *source, uint64_t now_us, UsbProbeDone done, void *user);
void usb_probe_free(UsbProbe *probe);
/** When usb_probe_tick() must be called next, UINT64_MAX for never. */
uint64_t usb_probe_deadline(const UsbProbe *probe);
void usb_probe_tick(UsbProbe *probe, uint64_t now_us);

/* ------------------------------------------------------------------------------------------------
 * Policy: allow and deny rules in usbredir filter syntax. usb/policy.c
 */

typedef struct UsbPolicy UsbPolicy;
/** @rules: "class,vid,pid,version,allow|..." (usbredirfilter). NULL: everything but hubs.
 * Returns NULL and sets *@error (static text) when the syntax is wrong. */
UsbPolicy *usb_policy_new(const char *rules, const char **error);
void usb_policy_free(UsbPolicy *policy);
/** True if the device may reach the guest; else *@why is "denied", or "not covered" if it is so
 * because no rule is about it. */
bool usb_policy_check(const UsbPolicy *policy, const UsbDescriptors *d, const char **why);

/* ------------------------------------------------------------------------------------------------
 * UsbDevice: one slot's state machine. usb/device.c, usb/transfer.c, usb/redir.c
 */

typedef struct UsbDevice UsbDevice;

typedef enum UsbDeviceState {
    USB_DEVICE_HELLO,     /* waiting for QEMU's usbredir hello */
    USB_DEVICE_CONNECTED, /* device_connect was sent, the guest has it; said again if QEMU's port
                           * cannot do the speed that it was shown at */
    USB_DEVICE_REJECTED,  /* QEMU's filter or port refused it */
    USB_DEVICE_BROKEN,    /* QEMU's stream made no sense; the owner must close the slot's fd */
    USB_DEVICE_GONE,      /* the source left; device_disconnect was sent */
} UsbDeviceState;

typedef struct UsbArrival {
    uint64_t arrived_us; /* they did not come before */
    uint64_t waited_us;  /* so long in all has this thread been ready to run without a processor */
} UsbArrival;

typedef struct UsbDeviceCallbacks {
    /** Takes up to @len usbredir bytes for QEMU. Returns how many, 0 when the fd would block (call
     * usb_device_guest_writable() later), -1 when the fd is dead. */
    ptrdiff_t (*guest_write)(void *user, const uint8_t *data, size_t len);
    /** The state changed; @why is one sentence. May not free the device. */
    void (*state_changed)(void *user, UsbDeviceState state, const char *why);
    /** The time now, in microseconds of the clock that is handed in elsewhere: when a completion
     * came is what a stream's timing rests on. NULL: the time last handed in must do. */
    uint64_t (*now)(void *user);
    /** Fills in what is known about the bytes that are being handed in. Asked only while an
     * isochronous OUT stream runs. NULL: they came now, and nobody had to wait for a processor. */
    void (*arrival)(void *user, UsbArrival *arrival);
} UsbDeviceCallbacks;

/** What isochronous streams of one direction have done. A gap is a time in which the device, in
 * the middle of a stream, had nothing to play or nobody to record for. Whose it is, is decided in
 * device_isogap.c for OUT; for IN all are the network's. */
typedef struct UsbIsoStats {
    uint64_t packets;      /* OUT: from the guest; IN: from the device */
    uint64_t delivered;    /* OUT: the device has them; IN: QEMU has */
    uint64_t failed;       /* were lost on the way or at the device */
    uint64_t dropped;      /* were given up by us: too many waited, or the stream ended */
    uint32_t gaps_guest;   /* QEMU had sent too little to go on */
    uint32_t gaps_own;     /* it was here in time, and we were too late */
    uint32_t gaps_host;    /* ... because we had no processor */
    uint32_t gaps_network; /* the requests came too late although all were on time here */
    uint32_t gaps_limit;   /* we held requests back because too many were under way */
    uint32_t lead_us;      /* OUT: what was collected before the last start */
} UsbIsoStats;

/** Counters for `qrdp status`, all since the device was made. */
typedef struct UsbDeviceStats {
    uint64_t requests, completions, errors, timeouts, cancelled, late;
    uint64_t bytes_in, bytes_out;
    uint32_t in_flight;
    uint32_t bytes_in_flight;
    uint32_t round_trip_us; /* to the client and back, 0 if unknown */
    UsbIsoStats iso_out, iso_in;
} UsbDeviceStats;

/** Starts the usbredir conversation for a device with @descriptors (a reference is taken) that
 * @source has. Takes the source's sink. Calls nothing back: the hello waits for
 * usb_device_guest_writable(). */
UsbDevice *usb_device_new(UsbDescriptors *descriptors, UsbSource *source, uint64_t now_us,
                          const UsbDeviceCallbacks *callbacks, void *user);
/** Cancels what is in flight at the source, clears its sink and frees. Sends nothing to QEMU. */
void usb_device_free(UsbDevice *device);

/** Bytes from QEMU's chardev. False: broken, state_changed was called. */
bool usb_device_guest_bytes(UsbDevice *device, const uint8_t *data, size_t len, uint64_t now_us);
/** Whether the owner should read the chardev now: false while byte or request caps are reached or
 * a change of configuration is under way. What was handed in and cannot be taken yet is kept. */
bool usb_device_wants_guest_bytes(const UsbDevice *device);
/** Whether bytes for QEMU are waiting for the fd to become writable, and the call to make then. */
bool usb_device_has_guest_bytes(const UsbDevice *device);
void usb_device_guest_writable(UsbDevice *device);
/** What the device has submitted to its source has been offered to the client's socket. */
void usb_device_sent(UsbDevice *device);

/** Asks the client for something that every client answers, unless it owes such an answer already.
 * The answer is a sign of life and changes nothing. */
void usb_device_ask(UsbDevice *device, uint64_t now_us);
/** Sends device_disconnect; the state becomes GONE. The owner closes the chardev afterwards. */
void usb_device_disconnect(UsbDevice *device, const char *why);
uint64_t usb_device_deadline(const UsbDevice *device);
void usb_device_tick(UsbDevice *device, uint64_t now_us);

UsbDeviceState usb_device_state(const UsbDevice *device);
const UsbDescriptors *usb_device_descriptors(const UsbDevice *device);
/** The speed that the guest sees: super for a high-speed memory stick, if QEMU's port can do that
 * (shown.c). */
UsbSpeed usb_device_shown_speed(const UsbDevice *device);
void usb_device_stats(const UsbDevice *device, UsbDeviceStats *stats);

/* ------------------------------------------------------------------------------------------------
 * Without a client for a while: usb/device_suspend.c, usb/replay.c
 */

/** Whether the guest may keep the device while its client is away; else *@why (static text). */
bool usb_device_can_suspend(const UsbDevice *device, const char **why);
/** The client is away: lets go of the source without a word to it. What is in flight ends with an
 * error for the guest, and nothing more is read from QEMU until usb_device_resume(). Only if
 * usb_device_can_suspend(). */
void usb_device_suspend(UsbDevice *device);
bool usb_device_is_suspended(const UsbDevice *device);
/** The same device is back in @source, configured as the guest had it (UsbReplay): takes the
 * source's sink and goes on. */
void usb_device_resume(UsbDevice *device, UsbSource *source, uint64_t now_us);

/** Brings the device of a fresh source into the state that the guest left it in, and makes sure
 * that a medium is still the same. */
typedef struct UsbReplay UsbReplay;
/** Called once, with NULL or with one sentence that says why the device is not the same. The replay
 * may be freed from inside it; usb_device_resume() may be called from inside it. */
typedef void (*UsbReplayDone)(void *user, const char *error);
/** Takes the source's sink until it is done or freed. @device is suspended and stays so until then.
 * Asks nothing before the first tick, which is due at once. */
UsbReplay *usb_replay_new(const UsbDevice *device, UsbSource *source, uint64_t now_us,
                          UsbReplayDone done, void *user);
void usb_replay_free(UsbReplay *replay);
uint64_t usb_replay_deadline(const UsbReplay *replay);
void usb_replay_tick(UsbReplay *replay, uint64_t now_us);

#endif
