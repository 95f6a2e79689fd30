/*
 * Descriptors: the bytes a device serves, built by the kinds from the calls below, and libusb's
 * parsed form of them.
 *
 * The endpoint table that the core works from is filled by the same call that writes the endpoint's
 * bytes, so the two cannot differ.
 */
#include "bus.h"
#include <stdlib.h>
#include <string.h>

static void put16(uint8_t *p, unsigned v)
{
    p[0] = v & 0xff;
    p[1] = v >> 8 & 0xff;
}

static void bos(Device *d)
{
    static const uint8_t bytes[] = {
        5,  LIBUSB_DT_BOS, 22, 0, 2,                /* two capabilities */
        7,  0x10,          2,  2, 0, 0, 0,          /* USB 2.0 extension: LPM */
        10, 0x10,          3,  0, 8, 0, 3, 0, 0, 0, /* SuperSpeed only */
    };

    memcpy(d->bos, bytes, sizeof(bytes));
    d->bos_len = sizeof(bytes);
}

void desc_device(Device *d, uint8_t class_code, uint16_t release)
{
    uint8_t *p = d->device_desc;
    bool super = d->speed == LIBUSB_SPEED_SUPER;

    p[0] = 18;
    p[1] = LIBUSB_DT_DEVICE;
    put16(p + 2, super ? 0x0300 : d->speed == LIBUSB_SPEED_HIGH ? 0x0200 : 0x0110);
    p[4] = class_code;
    p[7] = super ? 9 : d->speed == LIBUSB_SPEED_LOW ? 8 : 64;
    put16(p + 12, release);
    if (super)
        bos(d);
}

uint8_t desc_string(Device *d, const char *text)
{
    if (!*text || d->n_strings == MAX_STRINGS)
        return 0;
    snprintf(d->strings[d->n_strings], sizeof(d->strings[0]), "%s", text);
    return (uint8_t)++d->n_strings;
}

static Config *last_config(Device *d)
{
    return &d->configs[d->n_configs - 1];
}

void desc_raw(Device *d, const void *bytes, size_t n)
{
    Config *c = last_config(d);

    if (c->len + n > sizeof(c->bytes))
        abort();
    memcpy(c->bytes + c->len, bytes, n);
    c->len += n;
    put16(c->bytes + 2, (unsigned)c->len);
}

void desc_config(Device *d, uint8_t attributes, uint8_t max_power)
{
    uint8_t p[9] = {9, LIBUSB_DT_CONFIG, 0,        0, 0, (uint8_t)(d->n_configs + 1),
                    0, attributes,       max_power};

    if (d->n_configs++ == MAX_CONFIGS)
        abort();
    d->device_desc[17] = (uint8_t)d->n_configs;
    desc_raw(d, p, sizeof(p));
}

void desc_interface(Device *d, uint8_t number, uint8_t alt, uint8_t n_eps, uint8_t class_code,
                    uint8_t subclass, uint8_t protocol)
{
    uint8_t p[9] = {9, LIBUSB_DT_INTERFACE, number, alt, n_eps, class_code, subclass, protocol, 0};
    Config *c = last_config(d);

    if (number >= c->n_interfaces)
        c->n_interfaces = number + 1u;
    c->n_alts[number] = alt + 1;
    c->bytes[4] = (uint8_t)c->n_interfaces;
    desc_raw(d, p, sizeof(p));
}

void desc_name(Device *d, const char *text)
{
    Config *c = last_config(d);

    c->bytes[c->len == 9 ? 6 : c->len - 1] = desc_string(d, text);
}

void desc_endpoint(Device *d, uint8_t address, uint8_t attributes, uint16_t mps, uint8_t interval)
{
    uint8_t p[7] = {7, LIBUSB_DT_ENDPOINT, address, attributes, 0, 0, interval};
    EndpointDesc *e = &d->eps_desc[d->n_eps_desc++];

    if (d->n_eps_desc > MAX_ENDPOINT_DESCS)
        abort();
    e->configuration = (uint8_t)d->n_configs;
    e->interface = (uint8_t)(last_config(d)->n_interfaces - 1);
    e->alt = last_config(d)->n_alts[e->interface] - 1;
    e->address = address;
    e->attributes = attributes;
    e->mps = mps;
    if ((attributes & 3) == LIBUSB_ENDPOINT_TRANSFER_TYPE_INTERRUPT)
        e->interval = d->speed >= LIBUSB_SPEED_HIGH ? (125000LL << (interval - 1)) : interval * MS;
    if ((attributes & 3) == LIBUSB_ENDPOINT_TRANSFER_TYPE_ISOCHRONOUS)
        e->interval = (d->speed >= LIBUSB_SPEED_HIGH ? 125000LL : MS) << (interval - 1);
    e->payload = (mps & 0x7ffu) * (1 + (mps >> 11 & 3u));
    put16(p + 4, mps);
    desc_raw(d, p, sizeof(p));
    if (d->speed == LIBUSB_SPEED_SUPER) {
        bool bulk = (attributes & 3) == LIBUSB_ENDPOINT_TRANSFER_TYPE_BULK;
        uint8_t companion[6] = {6, LIBUSB_DT_SS_ENDPOINT_COMPANION, bulk ? 15 : 0, 0, 0, 0};

        if (!bulk)
            put16(companion + 4, mps);
        desc_raw(d, companion, sizeof(companion));
    }
}

void desc_streams(Device *d, uint8_t exponent)
{
    Config *c = last_config(d);

    if (d->speed == LIBUSB_SPEED_SUPER)
        c->bytes[c->len - 3] = exponent; /* bmAttributes of its companion */
}

uint16_t desc_bulk_mps(const Device *d)
{
    return d->speed == LIBUSB_SPEED_SUPER ? 1024 : d->speed == LIBUSB_SPEED_HIGH ? 512 : 64;
}

/* ---- libusb's parsed form ---- */

typedef struct Extra {
    const unsigned char **bytes;
    int *length;
} Extra;

static void *grow(const void *old, size_t n, size_t size)
{
    void *p = realloc((void *)old, n * size);

    if (!p)
        abort();
    memset((char *)p + (n - 1) * size, 0, size);
    return p;
}

/* Appends a descriptor that libusb has no field for to whatever came before it. */
static void add_extra(Extra x, const uint8_t *p)
{
    unsigned char *all = realloc((void *)*x.bytes, (size_t)*x.length + p[0]);

    if (!all)
        abort();
    memcpy(all + *x.length, p, p[0]);
    *x.bytes = all;
    *x.length += p[0];
}

static void parse_interface(struct libusb_config_descriptor *c, const uint8_t *p,
                            struct libusb_interface_descriptor **current)
{
    struct libusb_interface *itf = (struct libusb_interface *)&c->interface[p[2]];
    struct libusb_interface_descriptor *alt;

    itf->num_altsetting++;
    itf->altsetting = grow(itf->altsetting, (size_t)itf->num_altsetting, sizeof(*itf->altsetting));
    alt = (struct libusb_interface_descriptor *)&itf->altsetting[itf->num_altsetting - 1];
    memcpy(alt, p, 9);
    *current = alt;
}

/* The endpoints of one alternate sit together: counted by bNumEndpoints, allocated at once. */
static struct libusb_endpoint_descriptor *parse_endpoint(struct libusb_interface_descriptor *alt,
                                                         unsigned index, const uint8_t *p)
{
    struct libusb_endpoint_descriptor *ep;

    if (!alt->endpoint)
        alt->endpoint = calloc(alt->bNumEndpoints, sizeof(*alt->endpoint));
    if (!alt->endpoint || index >= alt->bNumEndpoints)
        abort();
    ep = (struct libusb_endpoint_descriptor *)&alt->endpoint[index];
    ep->bLength = p[0];
    ep->bDescriptorType = p[1];
    ep->bEndpointAddress = p[2];
    ep->bmAttributes = p[3];
    ep->wMaxPacketSize = (uint16_t)(p[4] | p[5] << 8);
    ep->bInterval = p[6];
    return ep;
}

static struct libusb_config_descriptor *parse_config(const uint8_t *p, size_t len)
{
    struct libusb_config_descriptor *c = calloc(1, sizeof(*c));
    struct libusb_interface_descriptor *alt = NULL;
    unsigned n_eps = 0;
    Extra extra;

    if (!c)
        abort();
    c->bLength = p[0];
    c->bDescriptorType = p[1];
    c->wTotalLength = (uint16_t)(p[2] | p[3] << 8);
    c->bNumInterfaces = p[4];
    c->bConfigurationValue = p[5];
    c->iConfiguration = p[6];
    c->bmAttributes = p[7];
    c->MaxPower = p[8];
    c->interface = calloc(c->bNumInterfaces, sizeof(*c->interface));
    if (!c->interface)
        abort();
    extra = (Extra){&c->extra, &c->extra_length};
    for (size_t at = p[0]; at < len; at += p[at]) {
        if (p[at + 1] == LIBUSB_DT_INTERFACE) {
            parse_interface(c, p + at, &alt);
            n_eps = 0;
            extra = (Extra){&alt->extra, &alt->extra_length};
        } else if (p[at + 1] == LIBUSB_DT_ENDPOINT && alt) {
            struct libusb_endpoint_descriptor *ep = parse_endpoint(alt, n_eps++, p + at);

            extra = (Extra){&ep->extra, &ep->extra_length};
        } else {
            add_extra(extra, p + at);
        }
    }
    return c;
}

void libusb_free_config_descriptor(struct libusb_config_descriptor *c)
{
    if (!c)
        return;
    for (unsigned i = 0; i < c->bNumInterfaces; i++) {
        const struct libusb_interface *itf = &c->interface[i];

        for (int a = 0; a < itf->num_altsetting; a++) {
            const struct libusb_interface_descriptor *alt = &itf->altsetting[a];

            for (unsigned e = 0; alt->endpoint && e < alt->bNumEndpoints; e++)
                free((void *)alt->endpoint[e].extra);
            free((void *)alt->endpoint);
            free((void *)alt->extra);
        }
        free((void *)itf->altsetting);
    }
    free((void *)c->interface);
    free((void *)c->extra);
    free(c);
}

struct libusb_config_descriptor *desc_parsed(const Config *c)
{
    return parse_config(c->bytes, c->len);
}

int libusb_get_ss_endpoint_companion_descriptor(
    libusb_context *ctx, const struct libusb_endpoint_descriptor *ep,
    struct libusb_ss_endpoint_companion_descriptor **out)
{
    for (int at = 0; at + 2 <= ep->extra_length; at += ep->extra[at]) {
        const unsigned char *p = ep->extra + at;

        if (p[1] != LIBUSB_DT_SS_ENDPOINT_COMPANION)
            continue;
        *out = calloc(1, sizeof(**out));
        if (!*out)
            return LIBUSB_ERROR_NO_MEM;
        (*out)->bLength = p[0];
        (*out)->bDescriptorType = p[1];
        (*out)->bMaxBurst = p[2];
        (*out)->bmAttributes = p[3];
        (*out)->wBytesPerInterval = (uint16_t)(p[4] | p[5] << 8);
        return 0;
    }
    return LIBUSB_ERROR_NOT_FOUND;
}

void libusb_free_ss_endpoint_companion_descriptor(
    struct libusb_ss_endpoint_companion_descriptor *companion)
{
    free(companion);
}

int libusb_get_bos_descriptor(libusb_device_handle *h, struct libusb_bos_descriptor **out)
{
    uint8_t p[64];
    struct libusb_bos_descriptor *b;
    int n = libusb_get_descriptor(h, LIBUSB_DT_BOS, 0, p, sizeof(p));
    unsigned caps = 0;

    if (n < 5)
        return n < 0 ? n : LIBUSB_ERROR_IO;
    b = calloc(1, sizeof(*b) + p[4] * sizeof(b->dev_capability[0]));
    if (!b)
        return LIBUSB_ERROR_NO_MEM;
    b->bLength = p[0];
    b->bDescriptorType = p[1];
    b->wTotalLength = (uint16_t)(p[2] | p[3] << 8);
    for (int at = p[0]; at + 3 <= n && caps < p[4]; at += p[at]) {
        b->dev_capability[caps] = malloc(p[at]);
        if (!b->dev_capability[caps])
            abort();
        memcpy(b->dev_capability[caps++], p + at, p[at]);
    }
    b->bNumDeviceCaps = (uint8_t)caps;
    *out = b;
    return 0;
}

void libusb_free_bos_descriptor(struct libusb_bos_descriptor *b)
{
    if (!b)
        return;
    for (unsigned i = 0; i < b->bNumDeviceCaps; i++)
        free(b->dev_capability[i]);
    free(b);
}

int libusb_get_usb_2_0_extension_descriptor(libusb_context *ctx,
                                            struct libusb_bos_dev_capability_descriptor *cap,
                                            struct libusb_usb_2_0_extension_descriptor **out)
{
    const uint8_t *p = (const uint8_t *)cap;

    if (p[2] != LIBUSB_BT_USB_2_0_EXTENSION || p[0] < 7)
        return LIBUSB_ERROR_INVALID_PARAM;
    *out = calloc(1, sizeof(**out));
    if (!*out)
        return LIBUSB_ERROR_NO_MEM;
    memcpy(*out, p, 3);
    (*out)->bmAttributes = p[3] | p[4] << 8 | p[5] << 16 | (uint32_t)p[6] << 24;
    return 0;
}

void libusb_free_usb_2_0_extension_descriptor(struct libusb_usb_2_0_extension_descriptor *e)
{
    free(e);
}

int libusb_get_ss_usb_device_capability_descriptor(
    libusb_context *ctx, struct libusb_bos_dev_capability_descriptor *cap,
    struct libusb_ss_usb_device_capability_descriptor **out)
{
    const uint8_t *p = (const uint8_t *)cap;

    if (p[2] != LIBUSB_BT_SS_USB_DEVICE_CAPABILITY || p[0] < 10)
        return LIBUSB_ERROR_INVALID_PARAM;
    *out = calloc(1, sizeof(**out));
    if (!*out)
        return LIBUSB_ERROR_NO_MEM;
    memcpy(*out, p, 4);
    (*out)->wSpeedSupported = (uint16_t)(p[4] | p[5] << 8);
    (*out)->bFunctionalitySupport = p[6];
    (*out)->bU1DevExitLat = p[7];
    (*out)->bU2DevExitLat = (uint16_t)(p[8] | p[9] << 8);
    return 0;
}

void libusb_free_ss_usb_device_capability_descriptor(
    struct libusb_ss_usb_device_capability_descriptor *c)
{
    free(c);
}

int libusb_get_container_id_descriptor(libusb_context *ctx,
                                       struct libusb_bos_dev_capability_descriptor *cap,
                                       struct libusb_container_id_descriptor **out)
{
    return LIBUSB_ERROR_NOT_SUPPORTED; /* none of our devices has one */
}

void libusb_free_container_id_descriptor(struct libusb_container_id_descriptor *c)
{
    free(c);
}
