/*
 * The URBDRC server and a scripted client on fake channels, for the tests of urbdrc.h: the client
 * takes what the server has said, message by message, and answers as the test wants it.
 *
 * A Fixture owns everything. It is used on the test's thread.
 */
#ifndef QRDP_TESTS_URBDRC_RIG_H
#define QRDP_TESTS_URBDRC_RIG_H

#include <glib.h>

#include "fake_dvc.h"
#include "urbdrc.h"
#include "urbdrc_source.h"

#define SECOND 1000000u

/* What the server's user has of a device. */
typedef struct Device {
    UsbSource *source;
    UsbCompletion last;
    uint8_t data[65536];
    UsbIsoPacket packets[8];
    unsigned n_completions;
    unsigned gone;
    char why[200];
    uint32_t resubmit; /* id to submit from inside .complete */
} Device;

typedef struct Fixture {
    DvcManager *manager;
    Urbdrc *urbdrc;
    uint64_t now;
    Device devices[URBDRC_MAX_DEVICES];
    unsigned n_devices;
    unsigned n_unavailable;
    bool retire_at_once;
    UrbdrcScratch scratch;
    uint8_t *taken;
} Fixture;

extern const UrbdrcCallbacks callbacks; /* of a Fixture */
/* Bulk 0x81 and 0x02 in alternate setting 0, an isochronous endpoint in 1. */
extern const UsbConfiguration stick;
extern const UsbSetup get_device;

/** The @n-th channel that the server has opened; the first is the control channel. */
Dvc *dvc(Fixture *f, size_t n);
/** The client says @m on channel @n. */
void client_send(Fixture *f, size_t n, const UrbdrcMessage *m);
/** The next message of the server, which must be of @kind. Valid until the next call. */
UrbdrcMessage client_take(Fixture *f, size_t n, UrbdrcKind kind);
/** The server has said nothing more on channel @n. */
void assert_quiet(Fixture *f, size_t n);
/** The client answers the capabilities; that the channel is created. */
void client_caps(Fixture *f, size_t n);
void client_created(Fixture *f, size_t n);
/** Accepts channel @n and takes it through the handshake, RIMCALL_RELEASE included. */
void client_handshake(Fixture *f, size_t n);
/** ADD_VIRTUAL_CHANNEL: there is a device. */
void client_announce(Fixture *f);
/** ADD_DEVICE as FreeRDP (@usb_device from 5) or Windows (0) sends it. */
UrbdrcMessage add_device(uint32_t usb_device);
/** The client sends it on channel @n and has its callback registered. */
void client_add_device(Fixture *f, size_t n, uint32_t usb_device);
/** An answer to request @id; sent on channel @n: without data; with @len bytes, ca fe and zeros. */
UrbdrcMessage completion(UrbdrcKind kind, uint32_t id, uint32_t status);
void client_no_data(Fixture *f, size_t n, uint32_t id, uint32_t status, uint32_t written);
void client_data(Fixture *f, size_t n, uint32_t id, uint32_t status, size_t len);

/** The server's user asks the device for @r; as UsbSourceOps.submit(). */
bool submit(Device *d, UsbRequest r);
/** Requests, to the stick. */
UsbRequest bulk(uint32_t id, uint8_t endpoint, uint32_t length);
UsbRequest control(uint32_t id, UsbSetup setup);
UsbRequest select_configuration(uint32_t id);
UsbRequest select_interface(uint32_t id, uint8_t alt);
UsbRequest clear_halt(uint32_t id, uint8_t endpoint);
/** What a client says of the stick's setting @alt; and sends after SELECT_CONFIGURATION. */
UrbdrcInterfaceResult interface_result(uint8_t alt);
void client_selected(Fixture *f, size_t n, uint32_t id, const UrbdrcInterfaceResult *r,
                     uint32_t count);

/** A server that has just opened its control channel. */
Fixture *new_fixture(void);
/** @us pass. */
void tick(Fixture *f, uint64_t us);
/** Every device must have been told that it is gone, once. */
void free_fixture(Fixture *f);
/** Control channel up, one device on channel 1. */
Fixture *fixture_with_device(uint32_t usb_device);
/** And the stick configured. */
Fixture *fixture_with_stick(uint32_t usb_device);
/** Channel 1 was closed by the server, and no other. */
void assert_device_closed(Fixture *f);
/** What status says of the first device. */
void status_is(Fixture *f, const char *state, const char *flavour);

#endif
