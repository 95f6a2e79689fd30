/*
 * For the tests of isochronous streams: a guest that sends a packet every millisecond, a client at
 * a distance, and a device there that plays one packet a millisecond and notices when there is
 * none.
 */
#ifndef QRDP_TESTS_ISO_SIM_H
#define QRDP_TESTS_ISO_SIM_H

#include <glib.h>

#include "fake_guest.h"

#define OUT 0x03
#define IN 0x84
#define PER_URB 10
#define URBS 12
#define FREERDP                                                                                    \
    (USB_QUIRK_CLEAR_HALT_CANCELS_ALL | USB_QUIRK_RESET_IS_NO_OP | USB_QUIRK_EQUAL_ISO_PACKETS)
#define MAX_URBS 8192u

typedef struct SimUrb {
    uint32_t id, n_packets;
    uint64_t arrival;  /* at the client */
    uint64_t finished; /* there, 0: not yet */
} SimUrb;

typedef struct Sim {
    UsbRig *rig;
    uint64_t trip;          /* us, each way */
    uint64_t blocked_until; /* nothing passes the network before */
    SimUrb urbs[MAX_URBS];
    unsigned n_urbs, playing, returned; /* indices: in order of their ids */
    uint32_t last_id, at_packet;
    bool started, dry;
    unsigned gaps, played;
    uint32_t lengths[MAX_URBS * 8]; /* of the packets that were played, */
    uint32_t numbers[MAX_URBS * 8]; /* and the number in them */
    unsigned sent;
} Sim;

/** The answer to a request of a stream, when all have run. */
const GuestPacket *status_of(UsbRig *r, uint64_t id);
void set_alt(UsbRig *r, uint8_t interface, uint8_t alt);
/** A configured one with both alternate settings chosen; @round_trip in us. */
UsbRig *headset(UsbSpeed speed, uint32_t quirks, uint64_t round_trip);
/** Frees @r. Nothing was asked of the device that a real one would mind. */
void finish(UsbRig *r);
UsbDeviceStats stats(const UsbRig *r);
/** The guest sends a packet of @length bytes that begins with @number. */
void send_packet(UsbRig *r, uint32_t number, uint32_t length);
void start_out(UsbRig *r);
/** The network, which takes @trip us each way, and the device behind it. g_free() it. */
Sim *sim_new(UsbRig *r, uint64_t trip);
/** A request that the device has, and its index in the fake source. */
FakeRequest *pending(const Sim *s, uint32_t id, unsigned *index);
/** A millisecond passes. */
void sim_step(Sim *s);
/** The guest plays @ms packets, one a millisecond; 44.1 kHz has a longer one in ten. */
void sim_play(Sim *s, unsigned ms);
/** Each packet that was sent was played once, in order, unchanged. */
void check_all_played(const Sim *s);
/** The guest stops; a second passes. */
void stop_out(Sim *s);

#endif
