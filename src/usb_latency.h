/*
 * How long USB bytes stay inside qrdp, each way: from the poll that found them on one socket to the
 * return of the write that put the last of them into the other. For `qrdp status` and ./dev bench.
 *
 * Owner: PeerUsb. Thread: the peer's.
 */
#ifndef QRDP_USB_LATENCY_H
#define QRDP_USB_LATENCY_H

#include <glib.h>
#include <stdbool.h>

#include "latency.h"

typedef struct UsbLatency UsbLatency;

/** A sample for each time that bytes went on. */
typedef struct UsbLatencies {
    Latency out; /* QEMU to client */
    Latency in;  /* client to QEMU */
} UsbLatencies;

UsbLatency *usb_latency_new(GMainContext *context);
void usb_latency_free(UsbLatency *latency);

/** What QEMU sent in this pass of the loop waits for the client's socket. */
void usb_latency_out_waits(UsbLatency *latency);
/** The client's socket has taken everything. */
void usb_latency_out_gone(UsbLatency *latency);
/** What the client sent is being handled (true), or is no longer. */
void usb_latency_receiving(UsbLatency *latency, bool on);
/** QEMU's socket has taken everything. */
void usb_latency_in_gone(UsbLatency *latency);

/** What is there to be read in this pass of the loop did not come before. */
uint64_t usb_latency_arrived(const UsbLatency *latency);

const UsbLatencies *usb_latency_get(const UsbLatency *latency);

#endif
