/*
 * The emulated machine: devices, endpoints, and the transfers that wait on them.
 *
 * Owner: the bus owns every plugged Device; a Device lives on while a libusb_device still refers to
 * it. Thread: any, with the bus lock held, unless a comment says otherwise. The lock is one mutex
 * for everything: this is test code whose transfers take microseconds.
 *
 * Time is CLOCK_MONOTONIC in nanoseconds; NEVER means "not by itself".
 */
#ifndef QRDP_TESTS_STANDIN_BUS_H
#define QRDP_TESTS_STANDIN_BUS_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/queue.h>
#include <sys/types.h>

/* Everything of libusb's own API is exported, and nothing else but standin_command(). */
#pragma GCC visibility push(default)
#include <libusb.h>
#pragma GCC visibility pop

#define NEVER INT64_MAX
#define MS 1000000LL

#define MAX_INTERFACES 4
#define MAX_ENDPOINT_DESCS 16
#define MAX_CONFIGS 2
#define MAX_CONFIG_BYTES 512
#define MAX_STRINGS 8
#define MAX_NAME 32
/* usbfs: a control transfer's data stage is at most a page, and all processes together may have
 * usbfs_memory_mb (16) megabytes in flight. */
#define MAX_CONTROL_DATA 4096
#define USBFS_MEMORY (16u << 20)

typedef struct Device Device;
typedef struct Endpoint Endpoint;
typedef struct Xfer Xfer;

TAILQ_HEAD(XferList, Xfer);
TAILQ_HEAD(DeviceList, Device);

/* What a device does instead of moving bytes. */
enum { IO_NAK = -1, IO_STALL = -2 };

typedef struct Setup {
    uint8_t type;
    uint8_t request;
    uint16_t value;
    uint16_t index;
    uint16_t length;
} Setup;

/* Mistakes of the host, counted per device and shown by the `log` command. */
typedef enum Violation {
    V_UNCLAIMED,        /* transfer to an interface the handle has not claimed */
    V_BAD_ENDPOINT,     /* transfer to an endpoint that the active alternate does not have */
    V_RESUBMITTED,      /* submit of a transfer that is in flight */
    V_FREED_IN_FLIGHT,  /* free of a transfer that is in flight */
    V_CLOSED_IN_FLIGHT, /* close of a handle with transfers in flight */
    V_DIRECTION,        /* standard request with the wrong direction bit */
    V_TOGGLE,           /* packet lost because host and device disagree on the data toggle */
    V_BABBLE,           /* IN buffer smaller than the packet the device had to send */
    V_BAD_CBW,          /* mass storage: not a valid command block wrapper */
    V_PHASE,            /* mass storage: host and device disagree on direction or length */
    V_LOST_CSW,         /* mass storage: the status word went into a data buffer */
    V_COUNT
} Violation;

typedef struct Faults {
    unsigned stall;  /* transfers that will stall */
    unsigned error;  /* transfers that will fail as if the wire were bad */
    unsigned babble; /* IN transfers that will overflow */
    bool clip;       /* the next IN transfer ends after clip_len bytes */
    uint32_t clip_len;
    bool hang;
    int64_t delay; /* ns that each transfer takes at least */
} Faults;

typedef struct Counters {
    uint64_t transfers; /* completed successfully */
    uint64_t bytes;
    uint64_t stalls;
    uint64_t cancelled;
    uint64_t timeouts;
    uint64_t errors;
} Counters;

typedef struct EndpointDesc {
    uint8_t configuration; /* bConfigurationValue */
    uint8_t interface;
    uint8_t alt;
    uint8_t address;
    uint8_t attributes;
    uint16_t mps;
    uint32_t payload; /* most bytes per service interval */
    int64_t interval; /* ns between polls of an interrupt endpoint, or isochronous slots */
} EndpointDesc;

/* bConfigurationValue counts from 1. */
typedef struct Config {
    uint8_t bytes[MAX_CONFIG_BYTES];
    size_t len;
    unsigned n_interfaces;
    uint8_t n_alts[MAX_INTERFACES];
} Config;

/* The slots of an isochronous endpoint, see iso.c. */
typedef struct IsoState {
    bool running;
    int64_t next;                   /* when the next slot begins */
    uint64_t slot;                  /* its number, from the beginning of the stream */
    uint64_t packets, gaps, missed; /* since the device was plugged in; slots in gaps */
} IsoState;

struct Endpoint {
    uint8_t address;
    const EndpointDesc *desc; /* NULL unless the active alternate has it; never set for ep 0 */
    bool halted;
    uint8_t host_seq; /* data toggle, or the sequence number at SuperSpeed */
    uint8_t device_seq;
    int64_t next_poll;
    size_t taken; /* bytes the transfer being filled already holds */
    struct XferList queue;
    Faults faults;
    Counters count;
    IsoState iso;
};

/* "key=value,key=value" of a device spec. */
typedef struct Options {
    char text[1024];
} Options;

/* What a kind of device does. All but kind, create and destroy may be NULL. */
typedef struct DeviceOps {
    const char *kind;
    uint16_t vendor_id; /* 0: 1209 */
    uint16_t product_id;
    const char *speed;
    bool kernel_driver; /* the client's kernel has a driver for it */
    /** Builds descriptors and state; on failure writes why into @err. */
    bool (*create)(Device *d, Options *o, char *err, size_t errsize);
    void (*destroy)(Device *d);
    /** Bus reset or SET_CONFIGURATION: the function goes back to its default state. */
    void (*reset)(Device *d);
    /** Class and vendor requests, and standard ones the core does not know. @data holds the OUT
     * data, or room for setup->length bytes. Returns the bytes moved or IO_STALL. */
    int (*control)(Device *d, const Setup *setup, uint8_t *data);
    /** Takes @len bytes (0: a zero-length packet) that begin on a packet boundary: returns how many
     * were taken, whole packets unless it is all, or IO_NAK or IO_STALL. */
    ssize_t (*out)(Device *d, Endpoint *ep, const uint8_t *data, size_t len);
    /** Bytes the device would send now up to its next short packet, IO_NAK or IO_STALL. */
    ssize_t (*in_avail)(Device *d, Endpoint *ep);
    /** Sends @n of them: all, or whole packets. */
    void (*in_take)(Device *d, Endpoint *ep, uint8_t *buf, size_t n);
    /** A stall that the test asked for was sent, and the endpoint is halted. May be NULL. */
    void (*stalled)(Device *d, Endpoint *ep);
    /** The host cleared a halt; the device may halt the endpoint again. */
    void (*halt_cleared)(Device *d, Endpoint *ep);
    /** Isochronous packets. @slot counts the service intervals of the stream. */
    void (*iso_out)(Device *d, Endpoint *ep, const uint8_t *data, size_t len, uint64_t slot);
    /** Fills up to @room bytes, returns how many. */
    size_t (*iso_in)(Device *d, Endpoint *ep, uint8_t *buf, size_t room);
    /** When the device will next have something to send by itself. */
    int64_t (*due)(Device *d);
    /** A control socket command of this kind of device: false if @verb is unknown. */
    bool (*command)(Device *d, const char *verb, char *args, FILE *answer);
} DeviceOps;

struct Device {
    TAILQ_ENTRY(Device) link;
    const DeviceOps *ops;
    void *state;
    char name[MAX_NAME];
    unsigned refs;
    bool plugged;
    int speed; /* enum libusb_speed */
    uint8_t bus, address, port;

    uint8_t device_desc[18];
    Config configs[MAX_CONFIGS];
    unsigned n_configs;
    uint8_t bos[64];
    size_t bos_len;
    char strings[MAX_STRINGS][64];
    unsigned n_strings;
    EndpointDesc eps_desc[MAX_ENDPOINT_DESCS];
    unsigned n_eps_desc;

    uint8_t configuration; /* 0: addressed only */
    uint8_t alt[MAX_INTERFACES];
    bool remote_wakeup;
    Endpoint eps[32]; /* number, plus 16 for IN; 0 is the control endpoint */

    /* The client's kernel. */
    bool kernel_bound[MAX_INTERFACES];
    libusb_device_handle *owner[MAX_INTERFACES];
    unsigned opens;
    bool forbidden; /* its file may not be opened */

    uint64_t resets, set_configurations, set_interfaces, clear_halts, stalled_requests;
    uint64_t violations[V_COUNT];
};

typedef enum XferState { XFER_IDLE, XFER_QUEUED, XFER_DONE } XferState;

/* Precedes every struct libusb_transfer. */
struct Xfer {
    TAILQ_ENTRY(Xfer) link;   /* endpoint queue, then the context's done list */
    TAILQ_ENTRY(Xfer) flight; /* the context's list, from submit to callback */
    XferState state;
    libusb_context *ctx;
    libusb_device_handle *handle;
    Device *dev;
    Endpoint *ep;
    uint8_t *data;
    size_t len, pos;
    bool zero_packet; /* an OUT transfer still owes its zero-length packet */
    int64_t submitted, due, deadline;
    int status;
    uint32_t stream_id;
    int iso_packets;   /* 0: not isochronous */
    int iso_at;        /* the packet whose slot comes next, */
    size_t iso_offset; /* and where it is in .data */
};

extern const DeviceOps ccid_ops, ecm_ops, fido_ops, stick_ops, keyboard_ops, loop_ops, ftdi_ops,
    cp210x_ops, pl2303_ops, multi_ops, headset_ops, webcam_ops;

/* bus.c */
void bus_lock(void);
void bus_unlock(void);
int64_t now_ns(void);
/** Plugs what QRDP_STANDIN_DEVICES names and starts the machine's thread, once per process. */
void bus_start(void);
/** Plugs the device that @spec describes; NULL, with the reason in @err, if it cannot be. */
Device *bus_plug(const char *spec, char *err, size_t errsize);
void bus_unplug(Device *d);
Device *bus_find(const char *name);
struct DeviceList *bus_devices(void);
void device_ref(Device *d);
void device_unref(Device *d);
/** Takes the value of @key out of the options: NULL if it was not given. */
const char *option_take(Options *o, const char *key, char *buf, size_t size);
uint64_t *bus_memory(void);
void violation(Device *d, Violation v);
const char *violation_name(Violation v);
/** One line to QRDP_STANDIN_TRACE, if that is set. */
void trace(const Device *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* descriptors.c: what a kind calls from create(). */
void desc_device(Device *d, uint8_t class_code, uint16_t release);
uint8_t desc_string(Device *d, const char *text);
/** Begins the next configuration; what is added afterwards belongs to it. */
void desc_config(Device *d, uint8_t attributes, uint8_t max_power);
void desc_interface(Device *d, uint8_t number, uint8_t alt, uint8_t n_eps, uint8_t class_code,
                    uint8_t subclass, uint8_t protocol);
void desc_raw(Device *d, const void *bytes, size_t n);
void desc_endpoint(Device *d, uint8_t address, uint8_t attributes, uint16_t mps, uint8_t interval);
/** MaxStreams of the bulk endpoint that was added last, at super speed: 2^@exponent. */
void desc_streams(Device *d, uint8_t exponent);
uint16_t desc_bulk_mps(const Device *d);
/** The name of what was added last, the configuration or an interface. */
void desc_name(Device *d, const char *text);
/** libusb's parsed form of a configuration; libusb_free_config_descriptor() frees it. */
struct libusb_config_descriptor *desc_parsed(const Config *c);

/* device.c */
Endpoint *device_ep(Device *d, uint8_t address);
/** The active configuration, or the first one. */
const Config *device_config(const Device *d);
/** The bus reset a host gives a port: everything but address and kernel state to defaults. */
void device_reset(Device *d);
void device_configure(Device *d, uint8_t value);
bool device_set_alt(Device *d, uint8_t interface, uint8_t alt);
/** CLEAR_FEATURE(ENDPOINT_HALT) on the device's side only. */
void device_clear_halt(Device *d, Endpoint *ep);
/** Executes a control request. Returns bytes moved or IO_STALL. */
int device_control(Device *d, const Setup *s, uint8_t *data);

/* endpoint.c */
/** Moves every transfer of @d that can move now, and asks for a wake-up for those that wait. */
void device_run(Device *d);
/** Ends a queued transfer: takes it off its endpoint and hands it to its context. */
void xfer_finish(Xfer *x, int status);
/** Ends every queued transfer of @ep (NULL: all of @d). */
void device_flush(Device *d, Endpoint *ep, int status);
int64_t device_due(Device *d);

/* iso.c */
/** Lets the head of @ep's queue use the slots that are over. True if it came to its end. */
bool iso_run(Device *d, Endpoint *ep, int64_t now);
/** When the head of the queue ends. */
int64_t iso_due(const Endpoint *ep);
/** What libusb_submit_transfer() says to it. */
int iso_check(const Endpoint *ep, const struct libusb_transfer *t);

/* machine.c: the thread that serves the control socket and delayed transfers. */
void machine_start(void);
/** Wakes the thread at @when, if it would sleep longer. */
void machine_alarm(int64_t when);
void machine_command(const char *line, FILE *answer);

/* context.c and events.c: the host's side. */
void contexts_plugged(Device *d);
void contexts_unplugged(Device *d);
void context_done(Xfer *x);

#endif
