/*
 * One device that is plugged into this host, and the thread that serves it.
 *
 * Owner: HostUsb. Thread: main calls what is declared here; the callbacks come from the bridge's
 * own thread. Lifetime: host_bridge_free() gives the device back to the host and joins the thread,
 * which may take as long as the device likes unless the last event has come.
 */
#ifndef QRDP_HOST_BRIDGE_H
#define QRDP_HOST_BRIDGE_H

#include <glib.h>
#include <stdbool.h>

#include "usb.h"

typedef struct HostBridge HostBridge;

typedef enum HostEvent {
    HOST_PROBED,    /* its descriptors are known: it wants a slot */
    HOST_CONNECTED, /* QEMU has it */
    HOST_REJECTED,  /* QEMU does not want it */
    HOST_LOST_SLOT, /* QEMU closed the slot: the device is with the host again */
    HOST_RELEASED,  /* as was asked for: the slot's socket is closed */
    HOST_FAILED,    /* it could not be opened or claimed: the host keeps it */
    HOST_UNPLUGGED, /* from the host: the thread has ended */
    HOST_ENDED,     /* the thread has ended; one of these two is always the last event */
} HostEvent;

/** @descriptors: HOST_PROBED's (one reference is the callee's), else NULL. @why: one sentence or
 * "". */
typedef void (*HostBridgeEvent)(void *user, HostEvent event, UsbDescriptors *descriptors,
                                const char *why);

/** The device at @bus and @address. @subject names it in the log. */
HostBridge *host_bridge_new(unsigned bus, unsigned address, const char *subject,
                            HostBridgeEvent event, void *user);
/** Shows the device to QEMU over a slot's socket, which is the bridge's from here on. */
void host_bridge_give(HostBridge *bridge, int fd);
/** Takes the device from QEMU and gives it back to the host; HOST_RELEASED follows if it had it. */
void host_bridge_release(HostBridge *bridge);
/** Asks the thread to give the device back to the host and to end. */
void host_bridge_quit(HostBridge *bridge);
void host_bridge_free(HostBridge *bridge);

/** Why libusb refused to do something with a device, and what to do: into @out. */
const char *host_bridge_explain(int libusb_error, unsigned bus, unsigned address, char *out,
                                size_t size);

#endif
