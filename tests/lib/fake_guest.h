/*
 * QEMU's side of usbredir for tests: what a guest does becomes usbredir packets through the
 * library, what the device answers is kept in a log. UsbRig puts a UsbDevice between a FakeGuest
 * and a FakeSource under a clock of its own.
 */
#ifndef QRDP_TESTS_FAKE_GUEST_H
#define QRDP_TESTS_FAKE_GUEST_H

#include <usbredirproto.h>

#include "fake_source.h"
#include "usb.h"

/** One packet from the device. */
typedef struct GuestPacket {
    int type; /* usb_redir_* */
    uint64_t id;
    uint8_t endpoint, status, value, interface, alt;
    uint32_t length; /* as the header says */
    uint8_t *data;
    int data_len;
    struct usb_redir_device_connect_header connect;
    struct usb_redir_ep_info_header ep;
    struct usb_redir_interface_info_header info;
} GuestPacket;

typedef struct FakeGuest {
    struct usbredirparser *parser;
    uint8_t *out; /* for the device */
    size_t out_len, out_cap;
    const uint8_t *in;
    size_t in_len;
    GuestPacket *log;
    unsigned n_log, log_cap;
    uint64_t next_id;
    unsigned errors; /* the library complained about what the device sent */
} FakeGuest;

FakeGuest *fake_guest_new(void);
void fake_guest_free(FakeGuest *g);
void fake_guest_receive(FakeGuest *g, const uint8_t *data, size_t len);
void fake_guest_clear_log(FakeGuest *g);
/** The first packet of @type with @id (UINT64_MAX: any) in the log, NULL for none. */
const GuestPacket *fake_guest_find(const FakeGuest *g, int type, uint64_t id);
unsigned fake_guest_count(const FakeGuest *g, int type);

/* Each returns the packet's id. */
uint64_t fake_guest_control(FakeGuest *g, uint8_t request_type, uint8_t request, uint16_t value,
                            uint16_t index, uint16_t length, const void *data);
uint64_t fake_guest_bulk_in(FakeGuest *g, uint8_t endpoint, uint32_t length);
uint64_t fake_guest_bulk_out(FakeGuest *g, uint8_t endpoint, const void *data, uint32_t length);
uint64_t fake_guest_interrupt_out(FakeGuest *g, uint8_t endpoint, const void *data,
                                  uint32_t length);
uint64_t fake_guest_set_configuration(FakeGuest *g, uint8_t value);
uint64_t fake_guest_set_alt(FakeGuest *g, uint8_t interface, uint8_t alt);
uint64_t fake_guest_start_interrupt(FakeGuest *g, uint8_t endpoint);
uint64_t fake_guest_stop_interrupt(FakeGuest *g, uint8_t endpoint);
uint64_t fake_guest_start_bulk(FakeGuest *g, uint8_t endpoint, uint32_t bytes, uint8_t transfers);
uint64_t fake_guest_stop_bulk(FakeGuest *g, uint8_t endpoint);
uint64_t fake_guest_start_iso(FakeGuest *g, uint8_t endpoint, uint8_t per_urb, uint8_t urbs);
uint64_t fake_guest_stop_iso(FakeGuest *g, uint8_t endpoint);
uint64_t fake_guest_iso_out(FakeGuest *g, uint8_t endpoint, const void *data, uint32_t length);
void fake_guest_cancel(FakeGuest *g, uint64_t id);
void fake_guest_reset(FakeGuest *g);
/** QEMU lets go of the device: filter_reject. */
void fake_guest_reject(FakeGuest *g);
/** Queues the packet's bytes as the library writes them. */
void fake_guest_flush(FakeGuest *g);

typedef struct UsbRig {
    FakeSource *source;
    FakeGuest *guest;
    UsbDevice *device;
    uint64_t now;
    bool blocked;         /* guest_write takes nothing */
    bool dead;            /* guest_write fails */
    uint64_t backlog_cap; /* what a slow reader takes per run, 0 for all */
    size_t chunk;         /* bytes per usb_device_guest_bytes(), 0 for all */
    uint64_t late_offer;  /* us after which what was submitted is offered to the client's socket */
    void (*arrival)(void *user, UsbArrival *arrival); /* NULL: bytes come when they are read */
    void *arrival_user;
    UsbDeviceState states[8];
    unsigned n_states;
    char why[256];
} UsbRig;

UsbRig *usb_rig_new(FakeKind kind, UsbSpeed speed, uint32_t quirks);
/** Takes @source. */
UsbRig *usb_rig_with(FakeSource *source, uint32_t quirks);
void usb_rig_free(UsbRig *r);
/** Lets all three run until nothing moves any more. */
void usb_rig_run(UsbRig *r);
/** Time passes; the device's deadlines are met on the way. */
void usb_rig_wait(UsbRig *r, uint64_t us);
/** Hello, configuration 1: what a guest does when a device is plugged in. */
void usb_rig_enumerate(UsbRig *r);

#endif
