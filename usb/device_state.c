/*
 * Theory of operation
 *
 * What a driver has set over endpoint 0 (a baud rate, modem lines, a sampling rate) is lost when
 * the client's system resets a device, and FreeRDP does so with each device that it lets go. A
 * device that comes back must have these settings again, or a serial port would go on at the wrong
 * speed without anybody noticing.
 *
 * So the class and vendor requests that a device has carried out are remembered, the latest of each
 * kind, in their order, and replay.c repeats those that only set something to a value:
 *
 *      CDC     SET_LINE_CODING, SET_CONTROL_LINE_STATE (PSTN 6.3.10, 6.3.12),
 *              SET_ETHERNET_MULTICAST_FILTERS, SET_ETHERNET_PACKET_FILTER (ECM 6.2.1, 6.2.4)
 *      audio   SET_CUR: sampling rate, volume, mute (UAC1 5.2.1.1, UAC2 5.2.1)
 *      HID     SET_IDLE, SET_PROTOCOL (7.2.4, 7.2.6); reports are no settings
 *      serial adapters, which QEMU knows by their ids (FTDI, CP210x, PL2303): all they get
 *
 * Storage has no settings. Everything else makes a device one that is not kept:
 *
 *   - Vendor requests: nobody here knows what they do; some load firmware.
 *   - Video: PROBE and COMMIT are negotiated before the alternate setting is chosen (UVC 4.3.1.1),
 *     and the camera's answers decide the next question.
 *   - NCM and MBIM: the format is set while the data interface is in its setting 0 (NCM 6.2), and
 *     sequence numbers and the network's session are in the device. RNDIS and the other
 *     encapsulated protocols: a dialogue, not settings.
 *   - Smart-card readers: what the card has been told is gone with its power. Printers: half a
 * page.
 *
 * A setting of an endpoint belongs to the alternate setting that has it: it is repeated only while
 * that is the active one. A driver sets it again when it goes back there.
 */
#include <libusb.h>
#include <string.h>

#include "device_priv.h"

#define TYPE_MASK 0x60u
#define RECIPIENT_MASK 0x1fu
#define HID_SET_IDLE 0x0au
#define HID_SET_PROTOCOL 0x0bu
#define CDC_SET_LINE_CODING 0x20u
#define CDC_SET_CONTROL_LINE_STATE 0x22u
#define CDC_SEND_BREAK 0x23u
#define ECM_SET_MULTICAST_FILTERS 0x40u
#define ECM_SET_PACKET_FILTER 0x43u
#define AUDIO_SET_CUR 0x01u

typedef enum Meaning { MEANS_NOTHING, MEANS_SETTING, MEANS_UNKNOWN } Meaning;

static int class_of(const UsbDevice *d, uint8_t interface)
{
    const UsbConfiguration *c = d->configuration;

    for (unsigned i = 0; c && i < c->n_interfaces; i++)
        if (c->interface_numbers[i] == interface)
            return usb_configuration_alt(c, interface, d->alts[i])->class_code;
    return -1;
}

/* The class of the interface that a class request concerns, -1 for none. */
static int class_addressed(const UsbDevice *d, const UsbSetup *s)
{
    const Pipe *pipe = &d->pipes[pipe_index(s->index & 0x8f)];

    switch (s->request_type & RECIPIENT_MASK) {
    case LIBUSB_RECIPIENT_INTERFACE:
        return class_of(d, s->index & 0xff);
    case LIBUSB_RECIPIENT_ENDPOINT: /* nobody but audio knows such requests */
        return pipe->endpoint && class_of(d, pipe->interface) == LIBUSB_CLASS_AUDIO
                   ? LIBUSB_CLASS_AUDIO
                   : -1;
    default:
        return -1;
    }
}

static Meaning meaning(const UsbDevice *d, const UsbSetup *s)
{
    bool is_class = (s->request_type & TYPE_MASK) == LIBUSB_REQUEST_TYPE_CLASS;

    if ((s->request_type & TYPE_MASK) == LIBUSB_REQUEST_TYPE_STANDARD)
        return MEANS_NOTHING;
    if (is_class) {
        switch (class_addressed(d, s)) {
        case LIBUSB_CLASS_MASS_STORAGE:
            return MEANS_NOTHING;
        case LIBUSB_CLASS_HID:
            return s->request == HID_SET_IDLE || s->request == HID_SET_PROTOCOL ? MEANS_SETTING
                                                                                : MEANS_NOTHING;
        case LIBUSB_CLASS_COMM:
        case LIBUSB_CLASS_DATA:
            return s->request == CDC_SET_LINE_CODING || s->request == CDC_SET_CONTROL_LINE_STATE ||
                           s->request == ECM_SET_MULTICAST_FILTERS ||
                           s->request == ECM_SET_PACKET_FILTER
                       ? MEANS_SETTING
                   : s->request == CDC_SEND_BREAK ? MEANS_NOTHING
                                                  : MEANS_UNKNOWN;
        case LIBUSB_CLASS_AUDIO:
            return s->request == AUDIO_SET_CUR ? MEANS_SETTING : MEANS_UNKNOWN;
        default:
            break;
        }
    }
    return MEANS_UNKNOWN; /* but for a serial adapter, see state_can_be_restored() */
}

static bool same_kind(const UsbDevice *d, const UsbSetup *a, const UsbSetup *b)
{
    /* The high byte of the value often says what is set (FTDI, CP210x: which modem lines), audio's
     * low byte of which channel. */
    unsigned what = class_addressed(d, b) == LIBUSB_CLASS_AUDIO ? 0xffff : 0xff00;

    return a->request_type == b->request_type && a->request == b->request && a->index == b->index &&
           (a->value & what) == (b->value & what);
}

void state_note(UsbDevice *d, const Packet *p)
{
    DeviceState *s = &d->settings;
    Meaning m = meaning(d, &p->setup);

    if (m == MEANS_NOTHING)
        return;
    s->unknown |= m == MEANS_UNKNOWN;
    for (unsigned i = 0; i < s->n; i++) {
        if (same_kind(d, &s->settings[i].setup, &p->setup)) {
            s->n--;
            memmove(&s->settings[i], &s->settings[i + 1], (s->n - i) * sizeof(s->settings[0]));
            break;
        }
    }
    if (s->n == DEVICE_MAX_SETTINGS || p->length > DEVICE_MAX_SETTING_BYTES) {
        s->overflow = true;
        return;
    }
    DeviceSetting *setting = &s->settings[s->n++];
    setting->setup = p->setup;
    if (p->length)
        memcpy(setting->data, p->data, p->length);
}

void state_forget(UsbDevice *d)
{
    d->settings.n = 0;
    d->settings.unknown = d->settings.overflow = false;
}

bool state_applies(const UsbDevice *d, const DeviceSetting *s)
{
    return (s->setup.request_type & RECIPIENT_MASK) != LIBUSB_RECIPIENT_ENDPOINT ||
           d->pipes[pipe_index(s->setup.index & 0x8f)].endpoint;
}

bool state_can_be_restored(const UsbDevice *d)
{
    return !d->settings.overflow && (!d->settings.unknown || d->settings.serial_adapter);
}
