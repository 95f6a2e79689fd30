/*
 * Descriptor walk: what is taken, what is repaired, what is refused; every truncation and bit flip.
 */
#include <glib.h>
#include <string.h>

#include "descriptor.h"
#include "fake_source.h"
#include "mutate.h"
#include "shown.h"

static const uint8_t device[18] = {18,   1,    0,    2, 0, 0, 0, 64, 0x34,
                                   0x12, 0x78, 0x56, 1, 2, 1, 2, 3,  1};

/* A camera with IAD, class descriptors, iso settings, an interrupt endpoint with bInterval 0. */
static const uint8_t camera[] = {
    9,  2,    0,    0,  2,  1,    0, 0x80, 250,             /* configuration */
    8,  11,   0,    2,  14, 3,    0, 0,                     /* IAD */
    9,  4,    0,    0,  1,  14,   1, 0,    0,               /* VideoControl */
    13, 0x24, 1,    0,  1,  0,    0, 0,    0,   0, 0, 0, 1, /* class specific */
    7,  5,    0x83, 3,  16, 0,    0,                        /* interrupt, bInterval 0 */
    5,  0x25, 3,    16, 0,                                  /* class specific endpoint */
    9,  4,    1,    0,  0,  14,   2, 0,    0,               /* VideoStreaming, no bandwidth */
    9,  4,    1,    1,  1,  14,   2, 0,    0,               /* and some */
    7,  5,    0x81, 5,  0,  0x14, 1,                        /* 1024 bytes three times */
    2,  0xff,                                               /* the shortest there is */
};

static uint8_t *with_length(const uint8_t *bytes, size_t len)
{
    uint8_t *copy = g_memdup2(bytes, len);

    copy[2] = len & 0xff;
    copy[3] = (uint8_t)(len >> 8);
    return copy;
}

static UsbDescriptors *new_device(void)
{
    char why[160];
    UsbDescriptors *d = usb_descriptors_new(device, sizeof(device), why, sizeof(why));

    g_assert_nonnull(d);
    return d;
}

static bool add(UsbDescriptors *d, const uint8_t *bytes, size_t len)
{
    char why[160] = "";
    uint8_t *copy = with_length(bytes, len);
    bool ok = usb_descriptors_add_configuration(d, copy, len, why, sizeof(why));

    g_assert_cmpint(ok, ==, why[0] == '\0');
    g_free(copy);
    return ok;
}

static void test_device(void)
{
    char why[160], text[160];
    UsbDescriptors *d = new_device();
    uint8_t wrong[18];

    g_assert_cmpuint(d->vid, ==, 0x1234);
    g_assert_cmpuint(d->pid, ==, 0x5678);
    g_assert_cmpuint(d->bcd_usb, ==, 0x0200);
    g_assert_cmpuint(d->bcd_device, ==, 0x0201);
    g_assert_cmpuint(d->max_packet0, ==, 64);
    g_assert_cmpstr(usb_descriptors_describe(d, text, sizeof(text)), ==, "1234:5678 device");
    g_assert_true(usb_descriptors_ref(d) == d);
    usb_descriptors_unref(d);
    usb_descriptors_unref(d);
    usb_descriptors_unref(NULL);
    for (size_t n = 0; n < 18; n++)
        g_assert_null(usb_descriptors_new(device, n, why, sizeof(why)));
    memcpy(wrong, device, 18);
    wrong[0] = 17;
    g_assert_null(usb_descriptors_new(wrong, 18, why, sizeof(why)));
    wrong[0] = 18;
    wrong[1] = 2;
    g_assert_null(usb_descriptors_new(wrong, 18, why, sizeof(why)));
}

static void test_configuration(void)
{
    UsbDescriptors *d = new_device();
    char text[160];

    g_assert_true(add(d, camera, sizeof(camera)));
    const UsbConfiguration *c = usb_descriptors_configuration(d, 1);
    g_assert_nonnull(c);
    g_assert_null(usb_descriptors_configuration(d, 2));
    g_assert_cmpuint(c->n_interfaces, ==, 2);
    g_assert_cmpuint(c->n_alts, ==, 3);
    g_assert_cmpuint(c->raw_len, ==, sizeof(camera));
    const UsbAltSetting *control = usb_configuration_alt(c, 0, 0);
    g_assert_cmpuint(control->n_endpoints, ==, 1);
    g_assert_cmpuint(control->endpoints[0].interval, ==, 1); /* repaired */
    const UsbAltSetting *video = usb_configuration_alt(c, 1, 1);
    g_assert_cmpuint(video->n_endpoints, ==, 1);
    g_assert_cmpuint(video->endpoints[0].type, ==, USB_ENDPOINT_ISO);
    g_assert_cmpuint(video->endpoints[0].max_packet, ==, 1024);
    g_assert_cmpuint(video->endpoints[0].mult, ==, 3);
    g_assert_cmpuint(video->endpoints[0].max_packet_raw, ==, 0x1400);
    g_assert_cmpuint(video->endpoints[0].interval_bytes, ==, 3072);
    g_assert_null(usb_configuration_alt(c, 1, 2));
    g_assert_null(usb_configuration_alt(c, 2, 0));
    usb_descriptors_derive_speed(d, false);
    g_assert_cmpint(d->speed, ==, USB_SPEED_HIGH);
    g_assert_cmpstr(usb_descriptors_describe(d, text, sizeof(text)), ==, "1234:5678 video");
    g_assert_false(add(d, camera, sizeof(camera))); /* the same value again */
    usb_descriptors_unref(d);
}

/* SuperSpeed: what fits into a service interval is in the companion, and held against itself. */
static void test_companion(void)
{
    static const struct {
        uint8_t type, burst, attributes;
        uint16_t bytes, max_packet;
        uint32_t expected;
    } rows[] = {
        {5, 15, 2, 48 * 1024 - 1, 1024, 48 * 1024 - 1},
        {5, 15, 2, 0xffff, 1024, 48 * 1024},
        {5, 3, 0, 4096, 1024, 4096},
        {5, 3, 0, 0, 1024, 4096},
        {3, 2, 2, 3072, 1024, 3072},
        {5, 16, 0, 4096, 1024, 1024},
        {5, 0, 3, 4096, 1024, 1024},
        {5, 15, 2, 0, 0x7ff, 0xffff}, /* usbredir counts with 16 bits */
    };

    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        const uint16_t max = rows[i].max_packet;
        const uint8_t bytes[] = {9,
                                 2,
                                 31,
                                 0,
                                 1,
                                 1,
                                 0,
                                 0x80,
                                 50, /* configuration */
                                 9,
                                 4,
                                 0,
                                 0,
                                 1,
                                 14,
                                 2,
                                 0,
                                 0, /* interface */
                                 7,
                                 5,
                                 0x81,
                                 rows[i].type,
                                 max & 0xff,
                                 (uint8_t)(max >> 8),
                                 1,
                                 6,
                                 0x30,
                                 rows[i].burst,
                                 rows[i].attributes,
                                 rows[i].bytes & 0xff,
                                 (uint8_t)(rows[i].bytes >> 8)};
        UsbDescriptors *d = new_device();

        g_assert_true(add(d, bytes, sizeof(bytes)));
        const UsbAltSetting *alt = usb_configuration_alt(&d->configurations[0], 0, 0);
        g_assert_cmpuint(alt->endpoints[0].interval_bytes, ==, rows[i].expected);
        usb_descriptors_unref(d);
    }
}

/* Changes one byte of the camera: it must be refused. */
static void refused(size_t at, uint8_t value)
{
    UsbDescriptors *d = new_device();
    uint8_t *copy = with_length(camera, sizeof(camera));
    char why[160] = "";

    copy[at] = value;
    g_assert_false(usb_descriptors_add_configuration(d, copy, sizeof(camera), why, sizeof(why)));
    g_assert_cmpuint(strlen(why), >, 10);
    g_assert_cmpuint(d->n_configurations, ==, 0);
    g_free(copy);
    usb_descriptors_unref(d);
}

static void test_refused(void)
{
    refused(0, 8);     /* bLength of the configuration */
    refused(1, 4);     /* its type */
    refused(2, 9);     /* wTotalLength too small */
    refused(2, 0xff);  /* too large */
    refused(3, 0x50);  /* above the cap */
    refused(5, 0);     /* value 0 */
    refused(9, 0);     /* bLength 0: no endless loop */
    refused(9, 1);     /* bLength 1 */
    refused(9, 200);   /* past the end */
    refused(17, 8);    /* a short interface */
    refused(19, 1);    /* then interface 1, setting 0 is there twice */
    refused(20, 1);    /* no setting 0 */
    refused(39, 6);    /* a short endpoint */
    refused(41, 0x80); /* endpoint 0 */
    refused(41, 0x93); /* reserved bits */
    refused(sizeof(camera) - 2, 3);
}

static void test_limits(void)
{
    static uint8_t big[USB_MAX_CONFIG_BYTES + 16];
    const uint8_t head[9] = {9, 2, 0, 0, 1, 1, 0, 0x80, 50};
    UsbDescriptors *d = new_device();
    size_t n;

    g_assert_false(add(d, head, 9)); /* no interface */

    /* one interface with endpoints: all 30, then a duplicate */
    memcpy(big, head, 9);
    memcpy(big + 9, (uint8_t[]){9, 4, 0, 0, 30, 255, 0, 0, 0}, 9);
    n = 18;
    for (uint8_t i = 1; i < 16; i++) {
        memcpy(big + n, (uint8_t[]){7, 5, i, 2, 64, 0, 0}, 7);
        memcpy(big + n + 7, (uint8_t[]){7, 5, 0x80 | i, 2, 64, 0, 0}, 7);
        n += 14;
    }
    g_assert_true(add(d, big, n));
    g_assert_cmpuint(d->configurations[0].alts[0].n_endpoints, ==, USB_MAX_ENDPOINTS);
    memcpy(big + n, (uint8_t[]){7, 5, 3, 2, 64, 0, 0}, 7);
    big[5] = 2;
    g_assert_false(add(d, big, n + 7));

    /* 32 interfaces and no more */
    n = 9;
    for (uint8_t i = 0; i < 33; i++, n += 9)
        memcpy(big + n, (uint8_t[]){9, 4, i, 0, 0, 255, 0, 0, 0}, 9);
    g_assert_false(add(d, big, n));
    g_assert_true(add(d, big, n - 9));
    g_assert_cmpuint(d->configurations[1].n_interfaces, ==, USB_MAX_INTERFACES);

    /* 255 settings and no more */
    n = 9;
    for (unsigned i = 0; i < 256; i++, n += 9)
        memcpy(big + n, (uint8_t[]){9, 4, i == 255, (uint8_t)i, 0, 255, 0, 0, 0}, 9);
    big[5] = 3;
    big[n - 6] = 0;
    g_assert_false(add(d, big, n));
    g_assert_true(add(d, big, n - 9));
    g_assert_cmpuint(d->configurations[2].n_alts, ==, USB_MAX_ALT_SETTINGS);

    /* the most bytes, the most configurations */
    memcpy(big + 9, (uint8_t[]){9, 4, 0, 0, 0, 255, 0, 0, 0}, 9);
    for (n = 18; n < USB_MAX_CONFIG_BYTES; n += 2)
        memcpy(big + n, "\2\xff", 2);
    for (uint8_t value = 4; value <= USB_MAX_CONFIGURATIONS; value++) {
        big[5] = value;
        g_assert_true(add(d, big, USB_MAX_CONFIG_BYTES));
    }
    big[5] = 99;
    g_assert_false(add(d, big, 18));
    g_assert_false(add(d, big, USB_MAX_CONFIG_BYTES + 2));
    usb_descriptors_unref(d);
}

static void test_bos(void)
{
    const uint8_t bos[] = {5, 15, 12, 0, 1, 7, 16, 2, 2, 0, 0, 0};
    uint8_t wrong[sizeof(bos)];
    UsbDescriptors *d = new_device();
    char why[160];

    for (size_t n = 0; n < sizeof(bos); n++)
        g_assert_false(usb_descriptors_set_bos(d, bos, n, why, sizeof(why)));
    memcpy(wrong, bos, sizeof(bos));
    wrong[5] = 0;
    g_assert_false(usb_descriptors_set_bos(d, wrong, sizeof(wrong), why, sizeof(why)));
    wrong[5] = 8;
    g_assert_false(usb_descriptors_set_bos(d, wrong, sizeof(wrong), why, sizeof(why)));
    wrong[5] = 7;
    wrong[3] = 0x11; /* 4 KiB and more */
    g_assert_false(usb_descriptors_set_bos(d, wrong, sizeof(wrong), why, sizeof(why)));
    g_assert_cmpuint(d->bos_len, ==, 0);
    g_assert_true(usb_descriptors_set_bos(d, bos, sizeof(bos), why, sizeof(why)));
    g_assert_cmpmem(d->bos, d->bos_len, bos, sizeof(bos));
    usb_descriptors_unref(d);
}

static void test_strings(void)
{
    static const struct {
        const char *raw;
        size_t len;
        const char *text;
    } cases[] = {
        {"\x08\x03"
         "A\0b\0 \0",
         8, "Ab"},
        {"\x06\x03\xe9\x00\xac\x20", 6, "\xc3\xa9\xe2\x82\xac"},
        {"\x06\x03\x3d\xd8\x00\xde", 6, "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\x06\x03\x1b\x00[\0", 6, "\\x1b["},
        {"\x06\x03"
         "a\0\0\0",
         6, "a"},
        {"\xff\x03"
         "a\0b\0",
         6, "ab"}, /* shorter than it says */
        {"\x05\x03"
         "a\0b",
         5, "a"}, /* half a character */
        {"\x06\x02"
         "a\0b\0",
         6, ""},
        {"\x06", 1, ""},
        {"", 0, ""},
    };
    char out[64];

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        uint8_t *raw = g_memdup2(cases[i].raw, cases[i].len);

        usb_descriptor_string(raw, cases[i].len, out, sizeof(out));
        g_assert_cmpstr(out, ==, cases[i].text);
        g_free(raw);
    }
    uint8_t longest[300];
    memset(longest, 'x', sizeof(longest));
    longest[0] = 255;
    longest[1] = 3;
    usb_descriptor_string(longest, sizeof(longest), out, sizeof(out));
    g_assert_cmpuint(strlen(out), <, sizeof(out));
}

/* urbdrc.md 4.2, one row each: device bytes, one endpoint, the hint, the speed. */
static void test_speed(void)
{
    static const struct {
        uint16_t bcd;
        uint8_t max0, type, hint;
        uint16_t max;
        UsbSpeed speed;
    } rows[] = {
        {0x0300, 9, 3, 0, 8, USB_SPEED_SUPER},    {0x0200, 64, 2, 0, 1024, USB_SPEED_SUPER},
        {0x0200, 64, 2, 0, 512, USB_SPEED_HIGH},  {0x0110, 64, 2, 0, 512, USB_SPEED_HIGH},
        {0x0200, 64, 3, 0, 65, USB_SPEED_HIGH},   {0x0200, 64, 3, 0, 0x0840, USB_SPEED_HIGH},
        {0x0200, 64, 1, 0, 1024, USB_SPEED_HIGH}, {0x0200, 64, 1, 0, 0x0a00, USB_SPEED_HIGH},
        {0x0200, 64, 2, 1, 64, USB_SPEED_FULL},   {0x0200, 8, 2, 1, 8, USB_SPEED_FULL},
        {0x0110, 8, 3, 1, 8, USB_SPEED_LOW},      {0x0110, 8, 3, 0, 4, USB_SPEED_LOW},
        {0x0110, 8, 3, 0, 16, USB_SPEED_FULL},    {0x0200, 8, 3, 0, 8, USB_SPEED_FULL},
        {0x0200, 64, 3, 1, 64, USB_SPEED_HIGH},   {0x0200, 64, 3, 0, 64, USB_SPEED_FULL},
        {0x0200, 64, 1, 0, 1023, USB_SPEED_FULL},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        uint8_t raw[18], conf[25];
        char why[160];

        memcpy(raw, device, 18);
        raw[2] = rows[i].bcd & 0xff;
        raw[3] = (uint8_t)(rows[i].bcd >> 8);
        raw[7] = rows[i].max0;
        memcpy(conf, (uint8_t[]){9, 2, 25, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 1, 255, 0, 0, 0}, 18);
        memcpy(conf + 18,
               (uint8_t[]){7, 5, 0x81, rows[i].type, rows[i].max & 0xff,
                           (uint8_t)(rows[i].max >> 8), 4},
               7);
        UsbDescriptors *d = usb_descriptors_new(raw, 18, why, sizeof(why));
        g_assert_true(usb_descriptors_add_configuration(d, conf, 25, why, sizeof(why)));
        usb_descriptors_derive_speed(d, rows[i].hint);
        g_assert_cmpint(d->speed, ==, rows[i].speed);
        usb_descriptors_unref(d);
    }
    g_assert_cmpstr(usb_speed_name(USB_SPEED_SUPER), ==, "super");
    g_assert_cmpstr(usb_speed_name(USB_SPEED_UNKNOWN), ==, "unknown");
}

/* Storage that has UAS as its only way needs streams at super speed, with Bulk-Only beside it not.
 */
static void test_need_streams(void)
{
    uint8_t both[] = {9, 2, 27,   0, 1, 1, 0, 0x80, 50, 9, 4, 0,    0, 0,
                      8, 6, 0x50, 0, 9, 4, 0, 1,    0,  8, 6, 0x62, 0};

    for (unsigned i = 0; i < 4; i++) {
        UsbDescriptors *d = new_device();
        char why[160];

        both[16] = i & 1 ? 0x62 : 0x50;
        g_assert_true(usb_descriptors_add_configuration(d, both, sizeof(both), why, sizeof(why)));
        d->speed = i & 2 ? USB_SPEED_SUPER : USB_SPEED_HIGH;
        g_assert_cmpint(usb_descriptors_need_streams(d), ==, i == 3);
        usb_descriptors_unref(d);
    }
}

/* Whatever comes of mutated bytes must be consistent in itself. */
static void check_any(uint8_t *data, size_t len, void *user)
{
    UsbDescriptors *d = new_device();
    char why[160] = "", text[160];
    unsigned *taken = user;

    if (usb_descriptors_add_configuration(d, data, len, why, sizeof(why))) {
        const UsbConfiguration *c = &d->configurations[0];

        ++*taken;
        g_assert_cmpuint(c->raw_len, ==, len);
        g_assert_cmpuint(c->n_interfaces, >, 0);
        for (unsigned a = 0; a < c->n_alts; a++) {
            for (unsigned e = 0; e < c->alts[a].n_endpoints; e++) {
                const UsbEndpoint *ep = &c->alts[a].endpoints[e];
                g_assert_true((ep->address & 0x70) == 0 && (ep->address & 0x0f) != 0);
                g_assert_true(ep->mult >= 1 && ep->mult <= 3);
                g_assert_true(ep->interval > 0 ||
                              (ep->type != USB_ENDPOINT_ISO && ep->type != USB_ENDPOINT_INTERRUPT));
            }
        }
        d->speed = USB_SPEED_SUPER;
        UsbDescriptors *shown = usb_shown_as_is(d);
        g_assert_cmpuint(shown->configurations[0].raw_len, ==, len);
        usb_descriptors_unref(shown);
        usb_descriptors_derive_speed(d, true);
        usb_descriptors_describe(d, text, sizeof(text));
    } else {
        g_assert_cmpstr(why, !=, "");
    }
    usb_descriptors_unref(d);
}

static void test_mutations(void)
{
    FakeSource *stick = fake_source_new(FAKE_STICK, USB_SPEED_SUPER);
    uint8_t *bytes = with_length(camera, sizeof(camera));
    unsigned taken = 0;

    mutate_none(bytes, sizeof(camera), check_any, &taken);
    mutate_none(stick->config_raw, stick->config_len, check_any, &taken);
    g_assert_cmpuint(taken, ==, 2);
    mutate_truncations(bytes, sizeof(camera), check_any, &taken);
    mutate_truncations(stick->config_raw, stick->config_len, check_any, &taken);
    g_assert_cmpuint(taken, ==, 2); /* no truncation is a configuration */
    mutate_bit_flips(bytes, sizeof(camera), check_any, &taken);
    mutate_bit_flips(stick->config_raw, stick->config_len, check_any, &taken);
    g_assert_cmpuint(taken, >, 100); /* most bits do not matter */
    mutate_random(bytes, sizeof(camera), 1, 20000, check_any, &taken);
    mutate_random(stick->config_raw, stick->config_len, 2, 20000, check_any, &taken);
    g_free(bytes);
    fake_source_free(stick);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/descriptor/device", test_device);
    g_test_add_func("/descriptor/configuration", test_configuration);
    g_test_add_func("/descriptor/companion", test_companion);
    g_test_add_func("/descriptor/refused", test_refused);
    g_test_add_func("/descriptor/limits", test_limits);
    g_test_add_func("/descriptor/bos", test_bos);
    g_test_add_func("/descriptor/strings", test_strings);
    g_test_add_func("/descriptor/speed", test_speed);
    g_test_add_func("/descriptor/need-streams", test_need_streams);
    g_test_add_func("/descriptor/mutations", test_mutations);
    return g_test_run();
}
