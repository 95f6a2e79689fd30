/*
 * The clients we know, and the two translations that depend on them or on the specification's
 * tables: SETUP packets to TS_URBs and UsbdStatus to usbredir status.
 */
#include "urbdrc_flavour.h"

#include <stdio.h>
#include <string.h>

enum {
    REQUEST_GET_STATUS = 0,
    REQUEST_CLEAR_FEATURE = 1,
    REQUEST_SET_FEATURE = 3,
    REQUEST_SET_ADDRESS = 5,
    REQUEST_GET_DESCRIPTOR = 6,
    REQUEST_SET_DESCRIPTOR = 7,
    REQUEST_GET_CONFIGURATION = 8,
    REQUEST_SET_CONFIGURATION = 9,
    REQUEST_GET_INTERFACE = 10,
    REQUEST_SET_INTERFACE = 11,
};

#define TYPE_MASK 0x60u
#define TYPE_STANDARD 0x00u
#define TYPE_CLASS 0x20u
#define TYPE_VENDOR 0x40u
#define RECIPIENT_MASK 0x1fu
#define DIRECTION_IN 0x80u

/* What FreeRDP's announcement looks like, and IronRDP's, which follows it: MessageId 0, these
 * versions, always this jitter buffer. They count UsbDevice from different numbers (FreeRDP
 * libusb_udevman.c, IronRDP client.rs InterfaceAlloc). */
#define FREERDP_FIRST_DEVICE 5u
#define FREERDP_JITTER_MS 0x50u
#define FREERDP_BUS_INTERFACE 2u
#define FREERDP_USBDI 0x600u
#define IRONRDP_FIRST_DEVICE 4u
/* clientBuild: FreeRDP claims to be a Windows, 2600 or later; IronRDP makes it of its own version,
 * which is 0.x (ironrdp-viewer cli.rs). */
#define OLDEST_WINDOWS_BUILD 2600u

static const UrbdrcFlavour freerdp2 = {
    .name = "freerdp2",
    .quirks = USB_QUIRK_CLEAR_HALT_CANCELS_ALL | USB_QUIRK_RESET_IS_NO_OP |
              USB_QUIRK_EQUAL_ISO_PACKETS | USB_QUIRK_CONTROL_BLOCKS_CLIENT,
    .typed_set_requests = false,
    .pipe_request_needs_barrier = false, /* it answers each */
    .pad_configurations = true,
};

static const UrbdrcFlavour freerdp3 = {
    .name = "freerdp3",
    .quirks = USB_QUIRK_CLEAR_HALT_CANCELS_ALL | USB_QUIRK_RESET_IS_NO_OP |
              USB_QUIRK_EQUAL_ISO_PACKETS | USB_QUIRK_CONTROL_BLOCKS_CLIENT,
    .typed_set_requests = false,
    .pipe_request_needs_barrier = true,
    .pad_configurations = true,
};

static const UrbdrcFlavour windows = {
    .name = "windows",
    /* no time-out of its own is known */
    .quirks = USB_QUIRK_TRANSFERS_MAY_PEND | USB_QUIRK_ISO_WHOLE_FRAMES,
    .typed_set_requests = true,
    .pipe_request_needs_barrier = false,
};

/* By the letter of the specification, as its own server side is (usb.rs). Not run by us: its client
 * has no stock program with USB yet. */
static const UrbdrcFlavour ironrdp = {
    .name = "ironrdp",
    .quirks = USB_QUIRK_TRANSFERS_MAY_PEND,
    .typed_set_requests = true,
    .pipe_request_needs_barrier = false,
};

/* Asks for the least: CONTROL_TRANSFER carries any request, the barrier does no harm. */
static const UrbdrcFlavour unknown = {
    .name = "unknown",
    .quirks = USB_QUIRK_CLEAR_HALT_CANCELS_ALL | USB_QUIRK_RESET_IS_NO_OP |
              USB_QUIRK_TRANSFERS_MAY_PEND | USB_QUIRK_EQUAL_ISO_PACKETS |
              USB_QUIRK_CONTROL_BLOCKS_CLIENT,
    .typed_set_requests = false,
    .pipe_request_needs_barrier = true,
};

static bool announced_as_freerdp_does(const UrbdrcAddDevice *d, uint32_t message_id)
{
    return message_id == 0 && d->no_ack_jitter_ms == FREERDP_JITTER_MS &&
           d->bus_interface_version == FREERDP_BUS_INTERFACE && d->usbdi_version == FREERDP_USBDI;
}

const UrbdrcFlavour *urbdrc_flavour_detect(UrbdrcEvidence *e, const UrbdrcAddDevice *d,
                                           uint32_t message_id)
{
    const bool as_freerdp = announced_as_freerdp_does(d, message_id);

    if (as_freerdp && d->usb_device == IRONRDP_FIRST_DEVICE)
        e->counts_from_four = true;
    if (as_freerdp && d->usb_device >= IRONRDP_FIRST_DEVICE) {
        if (e->counts_from_four || (e->known && e->client_build < OLDEST_WINDOWS_BUILD))
            return &ironrdp;
        /* The row of FreeRDP 3 does for 2 as well, if nothing is known. */
        return e->known && !(e->early_flags & URBDRC_EARLY_SKIP_CHANNELJOIN) ? &freerdp2
                                                                             : &freerdp3;
    }
    if (d->usb_device == 0)
        return &windows;
    return &unknown;
}

const char *urbdrc_flavour_evidence(const UrbdrcEvidence *e, const UrbdrcAddDevice *d,
                                    uint32_t message_id, char *out, size_t size)
{
    char core[64] = "client unknown";

    if (e->known)
        snprintf(core, sizeof(core), "client build %u, early flags 0x%04x", e->client_build,
                 e->early_flags);
    snprintf(out, size, "UsbDevice %u, MessageId %u, jitter buffer %u ms, %s", d->usb_device,
             message_id, d->no_ack_jitter_ms, core);
    return out;
}

/* ---- control ---- */

/* URB functions by recipient: device, interface, endpoint, other; 0 where there is none. */
static const uint8_t get_status_urb[4] = {URB_GET_STATUS_FROM_DEVICE, URB_GET_STATUS_FROM_INTERFACE,
                                          URB_GET_STATUS_FROM_ENDPOINT, URB_GET_STATUS_FROM_OTHER};
static const uint8_t set_feature_urb[4] = {URB_SET_FEATURE_TO_DEVICE, URB_SET_FEATURE_TO_INTERFACE,
                                           URB_SET_FEATURE_TO_ENDPOINT, URB_SET_FEATURE_TO_OTHER};
static const uint8_t clear_feature_urb[4] = {
    URB_CLEAR_FEATURE_TO_DEVICE, URB_CLEAR_FEATURE_TO_INTERFACE, URB_CLEAR_FEATURE_TO_ENDPOINT,
    URB_CLEAR_FEATURE_TO_OTHER};
static const uint8_t get_descriptor_urb[4] = {URB_GET_DESCRIPTOR_FROM_DEVICE,
                                              URB_GET_DESCRIPTOR_FROM_INTERFACE,
                                              URB_GET_DESCRIPTOR_FROM_ENDPOINT, 0};
static const uint8_t set_descriptor_urb[4] = {URB_SET_DESCRIPTOR_TO_DEVICE,
                                              URB_SET_DESCRIPTOR_TO_INTERFACE,
                                              URB_SET_DESCRIPTOR_TO_ENDPOINT, 0};
static const uint8_t class_urb[4] = {URB_CLASS_DEVICE, URB_CLASS_INTERFACE, URB_CLASS_ENDPOINT,
                                     URB_CLASS_OTHER};
static const uint8_t vendor_urb[4] = {URB_VENDOR_DEVICE, URB_VENDOR_INTERFACE, URB_VENDOR_ENDPOINT,
                                      URB_VENDOR_OTHER};

static void plain_control(const UsbSetup *s, UrbdrcUrb *urb)
{
    const uint8_t setup[8] = {s->request_type,    s->request,
                              (uint8_t)s->value,  (uint8_t)(s->value >> 8),
                              (uint8_t)s->index,  (uint8_t)(s->index >> 8),
                              (uint8_t)s->length, (uint8_t)(s->length >> 8)};

    urb->function = URB_CONTROL_TRANSFER;
    urb->control.pipe = 0;
    urb->control.flags = URB_FLAG_DEFAULT_PIPE |
                         (s->request_type & DIRECTION_IN ? URB_FLAG_IN | URB_FLAG_SHORT_OK : 0);
    memcpy(urb->control.setup, setup, sizeof(setup));
}

static void vendor_or_class(const UsbSetup *s, uint16_t function, UrbdrcUrb *urb)
{
    urb->function = function;
    urb->vendor_class.flags = s->request_type & DIRECTION_IN ? URB_FLAG_IN | URB_FLAG_SHORT_OK : 0;
    urb->vendor_class.reserved_bits = 0;
    urb->vendor_class.request = s->request;
    urb->vendor_class.value = s->value;
    urb->vendor_class.index = s->index;
}

/* A standard request as a typed URB; false if it has to be a CONTROL_TRANSFER. */
static bool typed_standard(const UrbdrcFlavour *flavour, const UsbSetup *s, uint32_t recipient,
                           UrbdrcUrb *urb, bool *as_out)
{
    const bool in = (s->request_type & DIRECTION_IN) != 0;

    switch (s->request) {
    case REQUEST_GET_STATUS:
        urb->function = get_status_urb[recipient];
        urb->status.index = s->index;
        return in && s->length == 2;
    case REQUEST_SET_FEATURE:
    case REQUEST_CLEAR_FEATURE:
        urb->function = s->request == REQUEST_SET_FEATURE ? set_feature_urb[recipient]
                                                          : clear_feature_urb[recipient];
        urb->feature.selector = s->value;
        urb->feature.index = s->index;
        *as_out = false; /* 2.2.9.10: sent with TRANSFER_IN_REQUEST */
        return flavour->typed_set_requests && !in && s->length == 0;
    case REQUEST_GET_DESCRIPTOR:
    case REQUEST_SET_DESCRIPTOR:
        urb->function = s->request == REQUEST_GET_DESCRIPTOR ? get_descriptor_urb[recipient]
                                                             : set_descriptor_urb[recipient];
        urb->descriptor.index = (uint8_t)s->value;
        urb->descriptor.type = (uint8_t)(s->value >> 8);
        urb->descriptor.language = s->index;
        if (s->request == REQUEST_GET_DESCRIPTOR)
            return in && urb->function != 0;
        return flavour->typed_set_requests && !in && urb->function != 0;
    case REQUEST_GET_CONFIGURATION:
        urb->function = URB_GET_CONFIGURATION;
        return in && recipient == 0 && s->length == 1;
    case REQUEST_GET_INTERFACE:
        urb->function = URB_GET_INTERFACE;
        urb->get_interface.interface = s->index;
        return in && recipient == 1 && s->length == 1;
    default:
        return false;
    }
}

static bool forbidden(const UsbSetup *s)
{
    return (s->request_type & TYPE_MASK) == TYPE_STANDARD &&
           (s->request == REQUEST_SET_ADDRESS || s->request == REQUEST_SET_CONFIGURATION ||
            s->request == REQUEST_SET_INTERFACE);
}

bool urbdrc_flavour_control(const UrbdrcFlavour *flavour, const UsbSetup *s, UrbdrcUrb *urb,
                            bool *as_out)
{
    const uint32_t recipient = s->request_type & RECIPIENT_MASK;
    const uint32_t type = s->request_type & TYPE_MASK;
    const bool out = (s->request_type & DIRECTION_IN) == 0;

    if (forbidden(s))
        return false;
    *as_out = out;
    if (recipient <= 3 && type == TYPE_STANDARD &&
        typed_standard(flavour, s, recipient, urb, as_out))
        return true;
    *as_out = out;
    if (recipient <= 3 && (type == TYPE_CLASS || type == TYPE_VENDOR))
        vendor_or_class(s, type == TYPE_CLASS ? class_urb[recipient] : vendor_urb[recipient], urb);
    else
        plain_control(s, urb);
    return true;
}

/* ---- status ---- */

static const struct {
    uint32_t usbd;
    UsbStatus status;
} statuses[] = {
    {USBD_STATUS_SUCCESS, USB_STATUS_SUCCESS},
    {USBD_STATUS_SHORT_TRANSFER, USB_STATUS_SUCCESS},
    {USBD_STATUS_DATA_UNDERRUN, USB_STATUS_SUCCESS},
    {USBD_STATUS_STALL_PID, USB_STATUS_STALL},
    {USBD_STATUS_ENDPOINT_HALTED, USB_STATUS_STALL},
    {USBD_LIBUSB_STALL, USB_STATUS_STALL},
    {USBD_STATUS_CANCELED, USB_STATUS_CANCELLED},
    {USBD_LIBUSB_CANCELLED, USB_STATUS_CANCELLED},
    {USBD_STATUS_TIMEOUT, USB_STATUS_TIMEOUT},
    {USBD_LIBUSB_TIMED_OUT, USB_STATUS_TIMEOUT},
    {USBD_STATUS_BABBLE, USB_STATUS_BABBLE},
    {USBD_STATUS_DATA_OVERRUN, USB_STATUS_BABBLE},
    {USBD_STATUS_BUFFER_OVERRUN, USB_STATUS_BABBLE},
    {USBD_LIBUSB_OVERFLOW, USB_STATUS_BABBLE},
    {USBD_STATUS_INVALID_URB_FUNCTION, USB_STATUS_INVAL},
    {USBD_STATUS_INVALID_PARAMETER, USB_STATUS_INVAL},
    {USBD_STATUS_INVALID_PIPE_HANDLE, USB_STATUS_INVAL},
};

UrbdrcOutcome urbdrc_flavour_outcome(uint32_t usbd_status, uint32_t hresult, uint32_t length,
                                     bool stream_in)
{
    UrbdrcOutcome outcome = {.status = USB_STATUS_IOERROR};

    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++)
        if (statuses[i].usbd == usbd_status)
            outcome.status = statuses[i].status;
    if (usbd_status == USBD_STATUS_SUCCESS && (hresult & 0x80000000u))
        outcome.status = hresult == URBDRC_E_INVALIDARG ? USB_STATUS_INVAL : USB_STATUS_IOERROR;

    if (outcome.status == USB_STATUS_TIMEOUT || outcome.status == USB_STATUS_CANCELLED) {
        /* The client gave up waiting (FreeRDP after 10 s), or cancelled this one because another
         * pipe was reset. What has arrived is a short transfer, nothing is a reason to ask again.
         */
        if (stream_in && length > 0)
            outcome.status = USB_STATUS_SUCCESS;
        else if (stream_in)
            outcome.retry_in = true;
        else if (outcome.status == USB_STATUS_CANCELLED)
            outcome.status = USB_STATUS_IOERROR;
    }
    return outcome;
}
