/*
 * Server side of MS-RDPEUSB for one client: the control channel, one channel per device, and for
 * each device a UsbSource (usb/usb.h) that turns UsbRequests into TS_URBs and back.
 *
 * Owner: the Peer. Thread: the peer's. Lifetime: urbdrc_free() ends every source (.gone is called
 * on sinks) and closes every channel. A UsbSource lives until its sink's .gone returns.
 *
 * What differs between clients is in a flavour table (urbdrc_flavour.c), never in the data path.
 */
#ifndef QRDP_CHANNELS_URBDRC_H
#define QRDP_CHANNELS_URBDRC_H

#include "dvc.h"
#include "usb.h"

#define URBDRC_MAX_DEVICES 32u           /* device channels of one connection */
#define URBDRC_MAX_MESSAGE (16u << 20)   /* one DVC message from the client */
#define URBDRC_HANDSHAKE_US 10000000u    /* each WAIT_* state, urbdrc.md 1.4 */
#define URBDRC_RETRACT_GRACE_US 2000000u /* between RETRACT_DEVICE and closing the channel */
#define URBDRC_SERIAL_US 2000000u /* the next device channel waits this long for ADD_DEVICE */
#define URBDRC_BEGIN_US 3000000u  /* announced so soon after the start: was there already */
#define URBDRC_SETTLE_US 1000000u /* a device plugged in later: for the client's drivers */
#define URBDRC_MAX_IGNORED 32u    /* out-of-order messages of one channel */
#define URBDRC_EVIDENCE_SIZE 160u /* the text of urbdrc_flavour() */

typedef struct Urbdrc Urbdrc;

typedef struct UrbdrcCallbacks {
    /** A device announced itself (ADD_DEVICE). Take the source's sink before returning. */
    void (*device_added)(void *user, UsbSource *source);
    /** The client has no USB redirection, or broke the control channel; called at most once. */
    void (*unavailable)(void *user, const char *why);
} UrbdrcCallbacks;

/** What `qrdp status` shows of one device channel. */
typedef struct UrbdrcDeviceStatus {
    uint32_t channel_id;
    const char *flavour; /* "freerdp3", ... (urbdrc_flavour.c); "" before ADD_DEVICE */
    const char *state;   /* "opening", "caps", "created", "device", "active", "retracting" */
    char hardware_id[96];
} UrbdrcDeviceStatus;

/** Opens the control channel; the peer's drdynvc must be ready. @label names the client in log
 * lines and in UsbSource.label. @callbacks is borrowed. */
Urbdrc *urbdrc_new(DvcManager *manager, const char *label, uint64_t now_us,
                   const UrbdrcCallbacks *callbacks, void *user);
/** What the client's core data said (MS-RDPBCGR 2.2.1.3.2): evidence for its flavour. At once after
 * urbdrc_new(). */
void urbdrc_set_client(Urbdrc *urbdrc, uint32_t client_build, uint32_t early_capability_flags);
/** The flavour that the last device spoke for, "" before the first, and in *@evidence why. Both
 * are valid until the next device. */
const char *urbdrc_flavour(const Urbdrc *urbdrc, const char **evidence);
/** Not from inside a callback or a sink of its own. NULL is accepted. */
void urbdrc_free(Urbdrc *urbdrc);
/** When urbdrc_tick() must be called next, UINT64_MAX for never. Ask again after every message: a
 * timer that a message has started is armed by the next tick, so the answer is 0 until then. */
uint64_t urbdrc_deadline(const Urbdrc *urbdrc);
void urbdrc_tick(Urbdrc *urbdrc, uint64_t now_us);
/** Fills up to @max entries, returns how many there are. */
size_t urbdrc_status(const Urbdrc *urbdrc, UrbdrcDeviceStatus *out, size_t max);

#endif
