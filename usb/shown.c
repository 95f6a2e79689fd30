/*
 * Theory of operation
 *
 * A guest reads a device's descriptors from us and not from the device, so what it sees can differ
 * where that helps. Requests go to the device as they are; all that depends on descriptors there
 * (configurations, settings, what a client is told) rests on the device's own. The guest's are made
 * once, as bytes, and walked by descriptor.c like a device's: what does not pass there is not
 * shown.
 *
 * Two things are changed. Why is in docs/superspeed.md.
 *
 * 1. A super-speed device loses its streams: MS-RDPEUSB has no stream ids. Zeroing MaxStreams in
 *    the endpoint companions is not enough for UAS: Linux takes any alternate setting 08/06/62 on a
 *    controller that can do streams, keeps usb-storage off the device, and then fails to allocate
 *    them; Windows does alike. So such a setting is shown as vendor specific, which leaves
 * Bulk-Only Transport on the interface's other setting. At high speed UAS does without streams and
 * stays.
 *
 * 2. A high-speed memory stick becomes a super-speed one. How much a guest asks of a stick at once
 *    goes by its speed (Linux: 120 KiB at high speed, 1 MiB at super speed), and each command takes
 *    three round trips to the client, whatever its size.
 *
 * The second is right only where nobody can tell the difference between packets of 512 and of 1024
 * bytes, which are the client's controller's business: QEMU's xHCI hands over whole transfers, and
 * so do usbredir and MS-RDPEUSB. What is left of packets is how a transfer ends early. IN: after
 * any packet that is not full, so the guest just learns how many bytes have come; that 512 of 1024
 * do not fill one of its packets and do fill one of the device's changes nothing, since the device
 * must have sent a short or empty packet to end there. OUT: a driver whose protocol ends its
 * transfers with a short packet adds an empty one when the length is a multiple of the packet size,
 * and would do so at the wrong lengths. Bulk-Only Transport knows all lengths beforehand
 * (BBB 5.1, 6.7) and has no such thing. Hence the conditions: one configuration with one
 * interface with one setting that is SCSI over Bulk-Only Transport and has one bulk endpoint each
 * way, and nothing else.
 *
 * What super speed asks for (USB 3.2): bcdUSB 3.0 and bMaxPacketSize0 as an exponent (9.6.1); a BOS
 * with the capabilities USB 2.0 EXTENSION and SUPERSPEED_USB (9.6.2), which a USB 3 stick that is
 * plugged into a USB 2 port has already; bMaxPower in units of 8 mA (9.6.3), or 500 mA would become
 * 2 A, which no port gives; bulk packets of 1024 bytes (9.6.6); a companion right behind each
 * endpoint descriptor (9.6.7). Bursts are none: they are the link's, and ours is not one. Exit
 * latencies of 0 say that link power states are not worth having; a driver that wants them all the
 * same is answered by device_control.c.
 */
#include "shown.h"

#include <assert.h>
#include <libusb.h>
#include <stdlib.h>
#include <string.h>

#include "descriptor.h"

#define SUBCLASS_SCSI 0x06u
#define PROTOCOL_BULK_ONLY 0x50u
#define PROTOCOL_UAS 0x62u

#define HIGH_SPEED_BULK_PACKET 512u
#define SUPER_SPEED_BULK_PACKET 1024u
#define SUPER_SPEED_BCD_USB 0x0300u
#define SUPER_SPEED_MAX_PACKET0 9u
#define SPEEDS_HIGH_AND_SUPER 0x000cu /* wSpeedsSupported */
#define FULL_AT_HIGH_SPEED 2u         /* bFunctionalitySupport */
#define EXTENSION_HAS_LPM 0x02u       /* which a super-speed device must say: 9.6.2.1 */

#define EXTENSION_LEN 7u
#define SUPERSPEED_CAPABILITY_LEN 10u
#define COMPANION_LEN 6u

typedef bool (*WriteConfiguration)(Writer *w, const UsbConfiguration *c);

/* The device with these bytes for its own, NULL if they do not pass. */
static UsbDescriptors *rewritten(const UsbDescriptors *d, const uint8_t *device_raw, Writer *bos,
                                 WriteConfiguration write)
{
    char why[160];
    UsbDescriptors *shown =
        usb_descriptors_new(device_raw, USB_DEVICE_DESCRIPTOR_LEN, why, sizeof(why));
    bool ok = shown != NULL;

    for (unsigned i = 0; ok && i < d->n_configurations; i++) {
        size_t len = 0;
        Writer w;

        writer_init(&w, USB_MAX_CONFIG_BYTES);
        ok = write(&w, &d->configurations[i]);
        uint8_t *raw = writer_steal(&w, &len);
        ok = ok && raw && usb_descriptors_add_configuration(shown, raw, len, why, sizeof(why));
        free(raw);
    }
    if (ok && bos->len > 0)
        ok = usb_descriptors_set_bos(shown, bos->data, bos->len, why, sizeof(why));
    writer_clear(bos);
    if (ok) {
        shown->speed = USB_SPEED_SUPER;
        return shown;
    }
    usb_descriptors_unref(shown);
    return NULL;
}

/* ---- a super-speed device without streams ---- */

static bool write_without_streams(Writer *w, const UsbConfiguration *c)
{
    unsigned last_endpoint_type = USB_ENDPOINT_CONTROL;

    writer_bytes(w, c->raw, c->raw_len);
    if (!writer_ok(w))
        return false;
    /* The walk has succeeded before: every bLength is at least 2 and inside. */
    for (size_t at = 0; at < w->len; at += w->data[at]) {
        uint8_t *p = w->data + at;

        if (p[1] == LIBUSB_DT_INTERFACE && p[0] >= 9) {
            if (p[5] == LIBUSB_CLASS_MASS_STORAGE && p[6] == SUBCLASS_SCSI &&
                p[7] == PROTOCOL_UAS) {
                p[5] = LIBUSB_CLASS_VENDOR_SPEC;
                p[6] = p[7] = 0;
            }
        } else if (p[1] == LIBUSB_DT_ENDPOINT && p[0] >= 7) {
            last_endpoint_type = p[3] & 3;
        } else if (p[1] == USB_DESCRIPTOR_SUPERSPEED_COMPANION && p[0] >= COMPANION_LEN &&
                   last_endpoint_type == USB_ENDPOINT_BULK) {
            p[3] &= 0xe0; /* MaxStreams; for iso the same byte holds Mult and stays */
        }
    }
    return true;
}

UsbDescriptors *usb_shown_as_is(UsbDescriptors *d)
{
    Writer bos;

    if (d->speed != USB_SPEED_SUPER)
        return usb_descriptors_ref(d);
    writer_init(&bos, USB_MAX_BOS_BYTES);
    writer_bytes(&bos, d->bos, d->bos_len);
    UsbDescriptors *shown = rewritten(d, d->device_raw, &bos, write_without_streams);
    assert(shown); /* no length has changed */
    return shown;
}

bool usb_descriptors_need_streams(const UsbDescriptors *d)
{
    bool uas = false;

    if (d->speed != USB_SPEED_SUPER || d->n_configurations == 0)
        return false;
    for (unsigned a = 0; a < d->configurations[0].n_alts; a++) {
        const UsbAltSetting *alt = &d->configurations[0].alts[a];

        if (alt->class_code != LIBUSB_CLASS_MASS_STORAGE)
            continue;
        if (alt->protocol != PROTOCOL_UAS)
            return false;
        uas = true;
    }
    return uas;
}

/* ---- a high-speed stick at super speed ---- */

static bool is_plain_stick(const UsbDescriptors *d)
{
    const UsbConfiguration *c = d->configurations;
    unsigned in = 0, out = 0;

    if (d->speed != USB_SPEED_HIGH || d->class_code != LIBUSB_CLASS_PER_INTERFACE ||
        d->n_configurations != 1 || d->device_raw[17] != 1 || c->n_alts != 1)
        return false;
    const UsbAltSetting *alt = &c->alts[0];
    for (unsigned e = 0; e < alt->n_endpoints; e++) {
        if (alt->endpoints[e].type != USB_ENDPOINT_BULK ||
            alt->endpoints[e].max_packet_raw != HIGH_SPEED_BULK_PACKET)
            return false;
        ++*(alt->endpoints[e].address & LIBUSB_ENDPOINT_IN ? &in : &out);
    }
    return alt->class_code == LIBUSB_CLASS_MASS_STORAGE && alt->subclass == SUBCLASS_SCSI &&
           alt->protocol == PROTOCOL_BULK_ONLY && in == 1 && out == 1;
}

static void write_header(Writer *w, size_t len, uint8_t type)
{
    writer_u8(w, (uint8_t)len);
    writer_u8(w, type);
}

static void write_rest(Writer *w, Reader *body)
{
    size_t left = reader_left(body);

    writer_bytes(w, reader_bytes(body, left), left);
}

/* In units of 2 mA; at super speed in units of 8 mA. */
static uint8_t power_at_super_speed(uint8_t power)
{
    return (uint8_t)((power + 3u) / 4u);
}

static void write_endpoint(Writer *w, Reader *body)
{
    writer_bytes(w, reader_bytes(body, 2), 2); /* address and type */
    reader_skip(body, 2);
    writer_u16(w, SUPER_SPEED_BULK_PACKET);
    write_rest(w, body);
    write_header(w, COMPANION_LEN, USB_DESCRIPTOR_SUPERSPEED_COMPANION);
    writer_u8(w, 0); /* bMaxBurst */
    writer_u8(w, 0); /* bmAttributes: no streams */
    writer_u16(w, 0);
}

static bool write_at_super_speed(Writer *w, const UsbConfiguration *c)
{
    Reader r, body;
    uint8_t type;

    reader_init(&r, c->raw, c->raw_len);
    while (usb_descriptor_next(&r, &type, &body)) {
        size_t len = reader_left(&body);
        bool first = w->len == 0;

        write_header(w, len + 2, type);
        if (first) {
            writer_bytes(w, reader_bytes(&body, 6), 6);
            writer_u8(w, power_at_super_speed(reader_u8(&body)));
            write_rest(w, &body);
        } else if (type == LIBUSB_DT_ENDPOINT && len >= 5) {
            write_endpoint(w, &body);
        } else {
            write_rest(w, &body);
        }
    }
    if (w->len <= USB_MAX_CONFIG_BYTES)
        writer_patch_u16(w, 2, (uint16_t)w->len); /* wTotalLength */
    return writer_ok(w);
}

/* What the device has in its BOS, and what it lacks. */
static bool write_bos(Writer *w, const UsbDescriptors *d)
{
    bool extension = false, super = false;
    unsigned n = 0;
    Reader r, body;
    uint8_t type;

    write_header(w, USB_BOS_HEADER_LEN, LIBUSB_DT_BOS);
    writer_zero(w, 3); /* wTotalLength, bNumDeviceCaps: below */
    reader_init(&r, d->bos, d->bos_len);
    while (usb_descriptor_next(&r, &type, &body)) {
        size_t len = reader_left(&body) + 2;
        Reader peek = body;
        uint8_t capability = reader_u8(&peek);

        if (type != LIBUSB_DT_DEVICE_CAPABILITY || !reader_ok(&peek))
            continue;
        extension |= capability == LIBUSB_BT_USB_2_0_EXTENSION && len >= EXTENSION_LEN;
        super |=
            capability == LIBUSB_BT_SS_USB_DEVICE_CAPABILITY && len >= SUPERSPEED_CAPABILITY_LEN;
        write_header(w, len, type);
        write_rest(w, &body);
        n++;
    }
    if (!extension) {
        write_header(w, EXTENSION_LEN, LIBUSB_DT_DEVICE_CAPABILITY);
        writer_u8(w, LIBUSB_BT_USB_2_0_EXTENSION);
        writer_u32(w, EXTENSION_HAS_LPM);
        n++;
    }
    if (!super) {
        write_header(w, SUPERSPEED_CAPABILITY_LEN, LIBUSB_DT_DEVICE_CAPABILITY);
        writer_u8(w, LIBUSB_BT_SS_USB_DEVICE_CAPABILITY);
        writer_u8(w, 0); /* bmAttributes: no latency tolerance messages */
        writer_u16(w, SPEEDS_HIGH_AND_SUPER);
        writer_u8(w, FULL_AT_HIGH_SPEED);
        writer_u8(w, 0);
        writer_u16(w, 0);
        n++;
    }
    if (!writer_ok(w) || n > UINT8_MAX)
        return false;
    writer_patch_u16(w, 2, (uint16_t)w->len);
    w->data[4] = (uint8_t)n;
    return true;
}

UsbDescriptors *usb_shown_as_super(const UsbDescriptors *d)
{
    uint8_t device_raw[USB_DEVICE_DESCRIPTOR_LEN];
    Writer bos;

    if (!is_plain_stick(d))
        return NULL;
    memcpy(device_raw, d->device_raw, sizeof(device_raw));
    device_raw[2] = SUPER_SPEED_BCD_USB & 0xff;
    device_raw[3] = SUPER_SPEED_BCD_USB >> 8;
    device_raw[7] = SUPER_SPEED_MAX_PACKET0;
    writer_init(&bos, USB_MAX_BOS_BYTES);
    if (!write_bos(&bos, d)) {
        writer_clear(&bos);
        return NULL;
    }
    return rewritten(d, device_raw, &bos, write_at_super_speed);
}
