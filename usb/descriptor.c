/*
 * Theory of operation
 *
 * A redirected device describes itself with bytes that its client relays and may have invented.
 * They are walked once, here, with a bounds-checked Reader, and everything later uses the checked
 * result. What would make a later stage misbehave is refused with a sentence (lengths that do not
 * add up, counts above usb_limits.h, an endpoint twice in one setting, an interface without setting
 * 0); what real devices merely get wrong is repaired (bInterval 0, reserved bits of wMaxPacketSize)
 * or left out of account (bNumInterfaces, bNumEndpoints: the descriptors that are there count).
 * Descriptors that are not needed here (IAD, class and vendor specific) are stepped over.
 *
 * The bytes are kept as they came, since SELECT_CONFIGURATION carries them back to the client. What
 * the guest sees instead is made in shown.c.
 */
#include "descriptor.h"

#include <libusb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "log.h"

static void *must(void *p)
{
    if (!p)
        abort(); /* every size here is bounded by usb_limits.h */
    return p;
}

static uint8_t *copy_bytes(const uint8_t *data, size_t len)
{
    return memcpy(must(malloc(len ? len : 1)), data, len);
}

UsbDescriptors *usb_descriptors_new(const uint8_t *raw, size_t len, char *why, size_t size)
{
    if (len < USB_DEVICE_DESCRIPTOR_LEN || raw[0] < USB_DEVICE_DESCRIPTOR_LEN ||
        raw[1] != LIBUSB_DT_DEVICE) {
        snprintf(why, size, "the device descriptor is cut short or not one (%zu bytes)", len);
        return NULL;
    }

    UsbDescriptors *d = must(calloc(1, sizeof(*d)));
    Reader r;

    d->refs = 1;
    memcpy(d->device_raw, raw, sizeof(d->device_raw));
    d->device_raw[0] = sizeof(d->device_raw);
    reader_init(&r, raw + 2, USB_DEVICE_DESCRIPTOR_LEN - 2);
    d->bcd_usb = reader_u16(&r);
    d->class_code = reader_u8(&r);
    d->subclass = reader_u8(&r);
    d->protocol = reader_u8(&r);
    d->max_packet0 = reader_u8(&r);
    d->vid = reader_u16(&r);
    d->pid = reader_u16(&r);
    d->bcd_device = reader_u16(&r);
    d->speed = USB_SPEED_UNKNOWN;
    return d;
}

UsbDescriptors *usb_descriptors_ref(UsbDescriptors *d)
{
    __atomic_add_fetch(&d->refs, 1, __ATOMIC_RELAXED);
    return d;
}

void usb_descriptors_unref(UsbDescriptors *d)
{
    if (!d || __atomic_sub_fetch(&d->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (unsigned i = 0; i < d->n_configurations; i++) {
        free(d->configurations[i].alts);
        free(d->configurations[i].raw);
    }
    free(d->configurations);
    free(d->bos);
    free(d);
}

static uint16_t total_length(const uint8_t *raw, size_t len, uint8_t type, size_t header,
                             size_t max, const char *what, char *why, size_t size)
{
    if (len < header || raw[0] < header || raw[1] != type) {
        snprintf(why, size, "the %s descriptor is cut short or not one (%zu bytes)", what, len);
        return 0;
    }
    uint16_t total = (uint16_t)(raw[2] | raw[3] << 8);
    if (total < header || total > max) {
        snprintf(why, size, "the %s descriptor claims %u bytes (%zu to %zu are possible)", what,
                 total, header, max);
        return 0;
    }
    return total;
}

uint16_t usb_descriptor_config_length(const uint8_t *raw, size_t len, char *why, size_t size)
{
    return total_length(raw, len, LIBUSB_DT_CONFIG, USB_CONFIG_HEADER_LEN, USB_MAX_CONFIG_BYTES,
                        "configuration", why, size);
}

uint16_t usb_descriptor_bos_length(const uint8_t *raw, size_t len, char *why, size_t size)
{
    return total_length(raw, len, LIBUSB_DT_BOS, USB_BOS_HEADER_LEN, USB_MAX_BOS_BYTES, "BOS", why,
                        size);
}

static bool note_interface_number(UsbConfiguration *c, uint8_t number)
{
    for (unsigned i = 0; i < c->n_interfaces; i++) {
        if (c->interface_numbers[i] == number)
            return true;
    }
    if (c->n_interfaces == USB_MAX_INTERFACES)
        return false;
    c->interface_numbers[c->n_interfaces++] = number;
    return true;
}

static UsbAltSetting *add_alt(UsbConfiguration *c, Reader *r, char *why, size_t size)
{
    UsbAltSetting alt = {0};

    alt.interface = reader_u8(r);
    alt.alt = reader_u8(r);
    reader_skip(r, 1); /* bNumEndpoints: the endpoints that follow count */
    alt.class_code = reader_u8(r);
    alt.subclass = reader_u8(r);
    alt.protocol = reader_u8(r);
    reader_skip(r, 1);
    if (!reader_ok(r)) {
        snprintf(why, size, "an interface descriptor is cut short");
        return NULL;
    }
    if (usb_configuration_alt(c, alt.interface, alt.alt)) {
        snprintf(why, size, "interface %u has its alternate setting %u twice", alt.interface,
                 alt.alt);
        return NULL;
    }
    if (c->n_alts == USB_MAX_ALT_SETTINGS) {
        snprintf(why, size, "more than %u alternate settings", USB_MAX_ALT_SETTINGS);
        return NULL;
    }
    if (!note_interface_number(c, alt.interface)) {
        snprintf(why, size, "more than %u interfaces", USB_MAX_INTERFACES);
        return NULL;
    }
    c->alts = must(realloc(c->alts, (c->n_alts + 1u) * sizeof(*c->alts)));
    c->alts[c->n_alts] = alt;
    return &c->alts[c->n_alts++];
}

static bool add_endpoint(UsbAltSetting *alt, Reader *r, char *why, size_t size)
{
    UsbEndpoint e = {0};

    e.address = reader_u8(r);
    e.type = reader_u8(r) & 3;
    e.max_packet_raw = reader_u16(r);
    e.interval = reader_u8(r);
    if (!reader_ok(r)) {
        snprintf(why, size, "an endpoint descriptor is cut short");
        return false;
    }
    if ((e.address & 0x0f) == 0 || (e.address & 0x70) != 0) {
        snprintf(why, size, "interface %u has an endpoint with the address 0x%02x", alt->interface,
                 e.address);
        return false;
    }
    for (unsigned i = 0; i < alt->n_endpoints; i++) {
        if (alt->endpoints[i].address == e.address) {
            snprintf(why, size, "interface %u, setting %u has endpoint 0x%02x twice",
                     alt->interface, alt->alt, e.address);
            return false;
        }
    }
    /* 15 addresses each way without duplicates: USB_MAX_ENDPOINTS cannot be exceeded */
    e.max_packet = e.max_packet_raw & 0x7ff;
    unsigned mult = 1 + ((e.max_packet_raw >> 11) & 3);
    e.mult = (uint8_t)(mult > 3 ? 3 : mult);
    e.interval_bytes = (uint32_t)e.max_packet * e.mult;
    if (e.interval == 0 && (e.type == USB_ENDPOINT_INTERRUPT || e.type == USB_ENDPOINT_ISO))
        e.interval = 1;
    alt->endpoints[alt->n_endpoints++] = e;
    return true;
}

/* SuperSpeed: a service interval holds bursts of packets (USB 3.2, 9.6.7). The device's own sum is
 * taken if it is possible. */
static void add_companion(UsbEndpoint *e, Reader *r)
{
    uint32_t burst = reader_u8(r), attributes = reader_u8(r), bytes = reader_u16(r);
    uint32_t mult = e->type == USB_ENDPOINT_ISO ? attributes & 3 : 0;

    if (!reader_ok(r) || burst > 15 || mult > 2)
        return;
    uint32_t most = e->max_packet * (burst + 1) * (mult + 1);

    if (most > UINT16_MAX) /* no real one; usbredir could not tell its length */
        most = UINT16_MAX;
    e->interval_bytes = bytes > 0 && bytes < most ? bytes : most;
}

bool usb_descriptor_next(Reader *r, uint8_t *type, Reader *body)
{
    if (reader_left(r) == 0)
        return false;
    uint8_t length = reader_u8(r);
    *type = reader_u8(r);
    if (length < 2) {
        reader_skip(r, SIZE_MAX); /* sticky failure */
        return false;
    }
    *body = reader_sub(r, length - 2u);
    return reader_ok(r);
}

static bool walk_configuration(UsbConfiguration *c, char *why, size_t size)
{
    UsbAltSetting *alt = NULL;
    uint8_t type;
    Reader r, body;

    reader_init(&r, c->raw, c->raw_len);
    while (usb_descriptor_next(&r, &type, &body)) {
        if (type == LIBUSB_DT_INTERFACE) {
            alt = add_alt(c, &body, why, size);
            if (!alt)
                return false;
        } else if (type == LIBUSB_DT_ENDPOINT && alt) {
            if (!add_endpoint(alt, &body, why, size))
                return false;
        } else if (type == LIBUSB_DT_SS_ENDPOINT_COMPANION && alt && alt->n_endpoints > 0) {
            add_companion(&alt->endpoints[alt->n_endpoints - 1], &body);
        }
    }
    if (!reader_done(&r)) {
        snprintf(why, size, "configuration %u holds a descriptor with an impossible length",
                 c->value);
        return false;
    }
    if (c->n_interfaces == 0) {
        snprintf(why, size, "configuration %u has no interface", c->value);
        return false;
    }
    for (unsigned i = 0; i < c->n_interfaces; i++) {
        if (!usb_configuration_alt(c, c->interface_numbers[i], 0)) {
            snprintf(why, size, "interface %u has no alternate setting 0", c->interface_numbers[i]);
            return false;
        }
    }
    return true;
}

bool usb_descriptors_add_configuration(UsbDescriptors *d, const uint8_t *raw, size_t len, char *why,
                                       size_t size)
{
    uint16_t total = usb_descriptor_config_length(raw, len, why, size);
    uint8_t most = 0;

    if (!total)
        return false;
    if (total != len) {
        snprintf(why, size, "the configuration descriptor has %zu bytes but claims %u", len, total);
        return false;
    }
    if (d->n_configurations == USB_MAX_CONFIGURATIONS) {
        snprintf(why, size, "more than %u configurations", USB_MAX_CONFIGURATIONS);
        return false;
    }
    UsbConfiguration c = {.value = raw[5], .raw_len = total};
    if (c.value == 0 || usb_descriptors_configuration(d, c.value)) {
        snprintf(why, size, "the configuration value %u is 0 or used twice", c.value);
        return false;
    }
    c.raw = copy_bytes(raw, len);
    if (!walk_configuration(&c, why, size)) {
        free(c.alts);
        free(c.raw);
        return false;
    }
    d->configurations =
        must(realloc(d->configurations, (d->n_configurations + 1u) * sizeof(*d->configurations)));
    d->configurations[d->n_configurations++] = c;
    for (unsigned i = 0; i < d->n_configurations; i++) {
        if (d->configurations[i].n_interfaces > most)
            most = d->configurations[i].n_interfaces;
    }
    for (unsigned i = 0; i < d->n_configurations; i++)
        d->configurations[i].most_interfaces = most;
    return true;
}

bool usb_descriptors_set_bos(UsbDescriptors *d, const uint8_t *raw, size_t len, char *why,
                             size_t size)
{
    uint16_t total = usb_descriptor_bos_length(raw, len, why, size);
    uint8_t type;
    Reader r, body;

    if (!total)
        return false;
    reader_init(&r, raw, len);
    while (usb_descriptor_next(&r, &type, &body))
        ;
    if (total != len || !reader_done(&r)) {
        snprintf(why, size, "the BOS descriptor's lengths do not add up");
        return false;
    }
    free(d->bos);
    d->bos = copy_bytes(raw, len);
    d->bos_len = total;
    return true;
}

void usb_descriptors_add_string(UsbDescriptors *d, const uint8_t *raw, size_t len)
{
    if (len > sizeof(d->strings) - d->strings_len)
        return; /* a string has at most 255 bytes, and there are USB_MAX_STRINGS of them */
    memcpy(d->strings + d->strings_len, raw, len);
    d->strings_len = (uint16_t)(d->strings_len + len);
}

bool usb_descriptors_same(const UsbDescriptors *a, const UsbDescriptors *b)
{
    if (memcmp(a->device_raw, b->device_raw, sizeof(a->device_raw)) != 0 ||
        a->n_configurations != b->n_configurations || a->speed != b->speed ||
        a->bos_len != b->bos_len || a->strings_len != b->strings_len ||
        memcmp(a->strings, b->strings, a->strings_len) != 0 ||
        (a->bos_len && memcmp(a->bos, b->bos, a->bos_len) != 0))
        return false;
    for (unsigned i = 0; i < a->n_configurations; i++) {
        const UsbConfiguration *x = &a->configurations[i], *y = &b->configurations[i];

        if (x->raw_len != y->raw_len || memcmp(x->raw, y->raw, x->raw_len) != 0)
            return false;
    }
    return true;
}

void usb_descriptor_string(const uint8_t *raw, size_t len, char *out, size_t size)
{
    char utf8[127 * 3];
    size_t n = 0;

    if (len >= 2 && raw[0] < len)
        len = raw[0];
    if (len < 2 || raw[1] != LIBUSB_DT_STRING)
        len = 0;
    if (len > 255)
        len = 255;
    for (size_t i = 2; i + 1 < len; i += 2) {
        unsigned u = raw[i] | (unsigned)raw[i + 1] << 8;

        if (u == 0)
            break;
        if (u < 0x80) {
            utf8[n++] = (char)u;
        } else if (u < 0x800) {
            utf8[n++] = (char)(0xc0 | u >> 6);
            utf8[n++] = (char)(0x80 | (u & 0x3f));
        } else {
            if (u >= 0xd800 && u < 0xe000)
                u = 0xfffd; /* a name for people: no surrogates */
            utf8[n++] = (char)(0xe0 | u >> 12);
            utf8[n++] = (char)(0x80 | (u >> 6 & 0x3f));
            utf8[n++] = (char)(0x80 | (u & 0x3f));
        }
    }
    while (n > 0 && utf8[n - 1] == ' ')
        n--;
    log_escape(out, size, utf8, n);
}

/* What one endpoint proves about the speed, USB_SPEED_UNKNOWN for nothing. */
static UsbSpeed endpoint_speed(const UsbEndpoint *e)
{
    bool extra = (e->max_packet_raw & 0x1800) != 0;

    switch (e->type) {
    case USB_ENDPOINT_BULK:
        if (e->max_packet == 1024)
            return USB_SPEED_SUPER;
        if (e->max_packet == 512)
            return USB_SPEED_HIGH;
        if (e->max_packet > 0 && e->max_packet <= 64)
            return USB_SPEED_FULL;
        return USB_SPEED_UNKNOWN;
    case USB_ENDPOINT_INTERRUPT:
        return e->max_packet > 64 || extra ? USB_SPEED_HIGH : USB_SPEED_UNKNOWN;
    case USB_ENDPOINT_ISO:
        return e->max_packet > 1023 || extra ? USB_SPEED_HIGH : USB_SPEED_UNKNOWN;
    default:
        return USB_SPEED_UNKNOWN;
    }
}

static bool has_companions(const UsbConfiguration *c)
{
    uint8_t type;
    Reader r, body;

    reader_init(&r, c->raw, c->raw_len);
    while (usb_descriptor_next(&r, &type, &body)) {
        if (type == USB_DESCRIPTOR_SUPERSPEED_COMPANION)
            return true;
    }
    return false;
}

void usb_descriptors_derive_speed(UsbDescriptors *d, bool high_speed_hint)
{
    bool super = d->max_packet0 == 9 && d->bcd_usb >= 0x0300;
    bool high = false, full = false, low = d->max_packet0 == 8 && d->bcd_usb < 0x0200;

    for (unsigned i = 0; i < d->n_configurations; i++) {
        const UsbConfiguration *c = &d->configurations[i];

        super |= has_companions(c);
        for (unsigned a = 0; a < c->n_alts; a++) {
            for (unsigned e = 0; e < c->alts[a].n_endpoints; e++) {
                const UsbEndpoint *ep = &c->alts[a].endpoints[e];
                UsbSpeed s = endpoint_speed(ep);

                super |= s == USB_SPEED_SUPER;
                high |= s == USB_SPEED_HIGH;
                full |= s == USB_SPEED_FULL;
                low &= ep->type == USB_ENDPOINT_INTERRUPT && ep->max_packet <= 8;
            }
        }
    }
    if (super)
        d->speed = USB_SPEED_SUPER;
    else if (high)
        d->speed = USB_SPEED_HIGH;
    else if (full)
        d->speed = USB_SPEED_FULL;
    else if (low)
        d->speed = USB_SPEED_LOW;
    else
        d->speed = high_speed_hint ? USB_SPEED_HIGH : USB_SPEED_FULL;
}

const UsbConfiguration *usb_descriptors_configuration(const UsbDescriptors *d, uint8_t value)
{
    for (unsigned i = 0; i < d->n_configurations; i++) {
        if (d->configurations[i].value == value)
            return &d->configurations[i];
    }
    return NULL;
}

const UsbAltSetting *usb_configuration_alt(const UsbConfiguration *c, uint8_t interface,
                                           uint8_t alt)
{
    for (unsigned i = 0; i < c->n_alts; i++) {
        if (c->alts[i].interface == interface && c->alts[i].alt == alt)
            return &c->alts[i];
    }
    return NULL;
}

static const char *class_name(uint8_t code)
{
    switch (code) {
    case LIBUSB_CLASS_AUDIO:
        return "audio";
    case LIBUSB_CLASS_COMM:
    case LIBUSB_CLASS_DATA:
        return "communications";
    case LIBUSB_CLASS_HID:
        return "input";
    case LIBUSB_CLASS_IMAGE:
        return "camera or scanner";
    case LIBUSB_CLASS_PRINTER:
        return "printer";
    case LIBUSB_CLASS_MASS_STORAGE:
        return "mass storage";
    case LIBUSB_CLASS_HUB:
        return "hub";
    case LIBUSB_CLASS_SMART_CARD:
        return "smart card reader";
    case LIBUSB_CLASS_VIDEO:
        return "video";
    case LIBUSB_CLASS_WIRELESS:
        return "wireless";
    default:
        return "device";
    }
}

const char *usb_descriptors_describe(const UsbDescriptors *d, char *out, size_t size)
{
    uint8_t code = d->class_code;

    if ((code == LIBUSB_CLASS_PER_INTERFACE || code == LIBUSB_CLASS_MISCELLANEOUS) &&
        d->n_configurations)
        code = d->configurations[0].alts[0].class_code;
    snprintf(out, size, "%04x:%04x %s%s%s%s", d->vid, d->pid, class_name(code),
             d->product[0] ? " \"" : "", d->product, d->product[0] ? "\"" : "");
    return out;
}
