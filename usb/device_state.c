/*
 * Theory of operation
 *
 * What a driver has set over endpoint 0 (a baud rate, modem lines, a sampling rate) is lost when
 * the client's system resets a device, and FreeRDP does so with each device that it lets go. A
 * device that comes back must have these settings again, or a serial port would go on at the wrong
 * speed without anybody noticing.
 *
 * So the class and vendor requests that a device has carried out are remembered, the latest of each
 * kind, in their order. For CDC ACM and for serial adapters, which QEMU knows by their ids (FTDI,
 * CP210x, PL2303), they only set things, so replay.c repeats them. Of a keyboard's and its like
 * SET_IDLE and SET_PROTOCOL count, its reports do not; storage has no settings. For everything else
 * nobody here knows what a request does: such a device is not kept once it got one.
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

typedef enum Meaning { MEANS_NOTHING, MEANS_SETTING, MEANS_UNKNOWN } Meaning;

static int class_of(const UsbDevice *d, uint8_t interface)
{
    const UsbConfiguration *c = d->configuration;

    for (unsigned i = 0; c && i < c->n_interfaces; i++)
        if (c->interface_numbers[i] == interface)
            return usb_configuration_alt(c, interface, d->alts[i])->class_code;
    return -1;
}

static Meaning meaning(const UsbDevice *d, const UsbSetup *s)
{
    bool to_interface = (s->request_type & RECIPIENT_MASK) == LIBUSB_RECIPIENT_INTERFACE;
    bool is_class = (s->request_type & TYPE_MASK) == LIBUSB_REQUEST_TYPE_CLASS;

    if ((s->request_type & TYPE_MASK) == LIBUSB_REQUEST_TYPE_STANDARD)
        return MEANS_NOTHING;
    if (is_class && to_interface) {
        switch (class_of(d, s->index & 0xff)) {
        case LIBUSB_CLASS_MASS_STORAGE:
            return MEANS_NOTHING;
        case LIBUSB_CLASS_HID:
            return s->request == HID_SET_IDLE || s->request == HID_SET_PROTOCOL ? MEANS_SETTING
                                                                                : MEANS_NOTHING;
        case LIBUSB_CLASS_COMM:
        case LIBUSB_CLASS_DATA:
            return s->request == CDC_SET_LINE_CODING || s->request == CDC_SET_CONTROL_LINE_STATE
                       ? MEANS_SETTING
                   : s->request == CDC_SEND_BREAK ? MEANS_NOTHING
                                                  : MEANS_UNKNOWN;
        default:
            break;
        }
    }
    return MEANS_UNKNOWN; /* but for a serial adapter, see state_can_be_restored() */
}

static bool same_kind(const UsbSetup *a, const UsbSetup *b)
{
    /* The high byte of the value often says what is set (FTDI, CP210x: which modem lines). */
    return a->request_type == b->request_type && a->request == b->request && a->index == b->index &&
           a->value >> 8 == b->value >> 8;
}

void state_note(UsbDevice *d, const Packet *p)
{
    DeviceState *s = &d->settings;
    Meaning m = meaning(d, &p->setup);

    if (m == MEANS_NOTHING)
        return;
    s->unknown |= m == MEANS_UNKNOWN;
    for (unsigned i = 0; i < s->n; i++) {
        if (same_kind(&s->settings[i].setup, &p->setup)) {
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

bool state_can_be_restored(const UsbDevice *d)
{
    return !d->settings.overflow && (!d->settings.unknown || d->settings.serial_adapter);
}
