/*
 * The USB devices of one client: from ADD_DEVICE over the probe to a slot of the VM.
 *
 * Owner: the Peer. Thread: the peer's. Lifetime: peer_usb_free() before the DvcManager goes; it
 * closes every slot, so the guest sees the devices unplugged.
 */
#ifndef QRDP_PEER_USB_H
#define QRDP_PEER_USB_H

#include <glib.h>

#include "dvc.h"
#include "server.h"
#include "slot.h"

typedef struct PeerUsb PeerUsb;

/** Opens the URBDRC control channel; call once, when drdynvc is ready. @context: the peer thread's
 * GMainContext. @as_is: Config.usb_as_is. @label: "alice@192.0.2.7", escaped. NULL (which the
 * others accept) if the client can have no USB. */
PeerUsb *peer_usb_new(Server *server, guint peer_id, DvcManager *dvcs, GMainContext *context,
                      bool as_is, const char *label);
void peer_usb_free(PeerUsb *usb);
/** What the client's core data said (urbdrc_set_client()); at once after peer_usb_new(). */
void peer_usb_set_client(PeerUsb *usb, guint32 client_build, guint32 early_capability_flags);
/** main's answer to a request (UsbSlotsCallbacks.grant), on the peer's thread. Takes @fd. */
void peer_usb_granted(PeerUsb *usb, guint device_id, int fd, const char *slot_id,
                      const char *error);
/** The client's input is about to be handled, or has been: what it brings for QEMU is timed. */
void peer_usb_receiving(PeerUsb *usb, bool on);
/** The client's socket was offered what waits for it. */
void peer_usb_sent(PeerUsb *usb);
/** Tells main how long qrdp held USB bytes (server_peer_usb_latency), if there is news. */
void peer_usb_report(PeerUsb *usb);
/** Makes the client answer something, if it is there and has a device in a slot. */
void peer_usb_ask(PeerUsb *usb);
/** The client is away without having meant to go: hands the devices that can wait for it to main,
 * which keeps them. To be followed by peer_usb_free(). */
void peer_usb_suspend(PeerUsb *usb);
/** Takes the detached @slot: its suspended device is the client's @device_id. */
void peer_usb_resume(PeerUsb *usb, guint device_id, Slot *slot);
/** main's word for a device to leave the guest (UsbSlotsCallbacks.detach), on the peer's thread. */
void peer_usb_detach(PeerUsb *usb, guint device_id, bool close, const char *why);

#endif
