/*
 * What differs between RDP clients that redirect USB, as a table (urbdrc.md 3, 4.4, 4.10).
 *
 * MS-RDPEUSB carries no version, so a row is chosen by what the client's ADD_DEVICE looks like and
 * by the core data of its connection (docs/protocol-urbdrc.md says which evidence speaks for
 * whom); a client that fits no row gets the one whose demands every known client meets. The data
 * path asks the row and never the client's name.
 *
 * Thread: any. Lifetime: rows are static.
 */
#ifndef QRDP_CHANNELS_URBDRC_FLAVOUR_H
#define QRDP_CHANNELS_URBDRC_FLAVOUR_H

#include "urbdrc_pdu.h"
#include "usb.h"

typedef struct UrbdrcFlavour {
    const char *name;
    uint32_t quirks; /* USB_QUIRK_* */
    /** SET_FEATURE, CLEAR_FEATURE and SET_DESCRIPTOR as the typed URBs of 2.2.9.9 and 2.2.9.10;
     * otherwise as CONTROL_TRANSFER. FreeRDP puts the typed ones on the bus with the wrong
     * direction and the wrong bRequest. */
    bool typed_set_requests;
    /** PIPE_REQUEST may go unanswered: FreeRDP 3.13-3.22 drop the reply. A GET_DESCRIPTOR right
     * behind it tells when it has been executed. */
    bool pipe_request_needs_barrier;
    /** FreeRDP up to 3.21 looks each interface of a new configuration up in the list of the old
     * one, without a look at its length: a change to a configuration with more interfaces crashes
     * it. So all lists are made as long as the longest, by repeating the first interface. From 3.22
     * on it refuses such a list, with an empty result, and gets the right one then. */
    bool pad_configurations;
} UrbdrcFlavour;

/** earlyCapabilityFlags RNS_UD_CS_SUPPORT_SKIP_CHANNELJOIN (MS-RDPBCGR 2.2.1.3.2): FreeRDP 3 sets
 * it, FreeRDP 2 does not know it. */
#define URBDRC_EARLY_SKIP_CHANNELJOIN 0x0800u

/** What is known of a connection's client besides its ADD_DEVICE. All zero: nothing. */
typedef struct UrbdrcEvidence {
    bool known; /* client_build and early_flags are */
    uint32_t client_build, early_flags;
    bool counts_from_four; /* a device 4 has been seen: urbdrc_flavour_detect() remembers it here */
} UrbdrcEvidence;

/** Which row @add_device, sent with @message_id, speaks for. */
const UrbdrcFlavour *urbdrc_flavour_detect(UrbdrcEvidence *evidence,
                                           const UrbdrcAddDevice *add_device, uint32_t message_id);
/** What that rests on, for `qrdp status` and the log. Returns @out. */
const char *urbdrc_flavour_evidence(const UrbdrcEvidence *evidence,
                                    const UrbdrcAddDevice *add_device, uint32_t message_id,
                                    char *out, size_t size);

/** Fills the function and body of @urb for a control transfer and says in *@as_out whether it goes
 * into a TRANSFER_OUT_REQUEST. False for what must never be forwarded raw: SET_ADDRESS,
 * SET_CONFIGURATION, SET_INTERFACE. */
bool urbdrc_flavour_control(const UrbdrcFlavour *flavour, const UsbSetup *setup, UrbdrcUrb *urb,
                            bool *as_out);

/** The end of a request as usbredir sees it. */
typedef struct UrbdrcOutcome {
    UsbStatus status;
    bool retry_in; /* UsbCompletion.retry_in */
} UrbdrcOutcome;
/** Maps UsbdStatus and HResult of a completion that moved @length bytes. The values 1..6 are
 * libusb's and cannot be anybody else's: every other failure has bit 31 set. @stream_in: a bulk,
 * interrupt or isochronous IN, which may be asked again when it merely ran out of time. */
UrbdrcOutcome urbdrc_flavour_outcome(uint32_t usbd_status, uint32_t hresult, uint32_t length,
                                     bool stream_in);

#endif
