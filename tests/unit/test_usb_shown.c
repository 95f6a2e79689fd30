/*
 * What the guest is shown of a device: the bytes, who is shown otherwise than it is, and a device
 * that is shown at another speed than it has, between an emulated stick and a guest.
 */
#include <glib.h>
#include <string.h>

#include "descriptor.h"
#include "fake_guest.h"
#include "mutate.h"
#include "shown.h"

#define FREERDP (USB_QUIRK_CLEAR_HALT_CANCELS_ALL | USB_QUIRK_RESET_IS_NO_OP)

static const uint8_t device[18] = {18,   1,    0x10, 2, 0, 0, 0, 64, 0x34,
                                   0x12, 0x78, 0x56, 1, 2, 1, 2, 3,  1};
static const uint8_t stick[] = {
    9, 2,    37,   0, 1, 1, 0, 0x80, 250, /* configuration, 500 mA */
    9, 4,    0,    0, 2, 8, 6, 0x50, 0,   /* mass storage, SCSI, Bulk-Only */
    7, 5,    0x81, 2, 0, 2, 0,            /* bulk IN, 512 bytes */
    7, 5,    0x02, 2, 0, 2, 1,            /* bulk OUT, 512 bytes */
    5, 0xff, 1,    2, 3,                  /* a vendor's own */
};

static UsbDescriptors *parse(const uint8_t *device_raw, const uint8_t *raw, size_t len)
{
    char why[160];
    UsbDescriptors *d = usb_descriptors_new(device_raw, 18, why, sizeof(why));

    g_assert_nonnull(d);
    if (!usb_descriptors_add_configuration(d, raw, len, why, sizeof(why))) {
        usb_descriptors_unref(d);
        return NULL;
    }
    usb_descriptors_derive_speed(d, false);
    return d;
}

/* ---- bytes ---- */

static void test_bytes(void)
{
    static const uint8_t shown_device[18] = {18,   1,    0,    3, 0, 0, 0, 9, 0x34,
                                             0x12, 0x78, 0x56, 1, 2, 1, 2, 3, 1};
    static const uint8_t shown_stick[] = {
        9, 2,    49,   0, 1, 1, 0, 0x80, 63,                              /* 504 mA in steps of 8 */
        9, 4,    0,    0, 2, 8, 6, 0x50, 0,    7, 5, 0x81, 2, 0, 4,    0, /* 1024 bytes */
        6, 0x30, 0,    0, 0, 0, /* no bursts, no streams */
        7, 5,    0x02, 2, 0, 4, 1, 6,    0x30, 0, 0, 0,    0, 5, 0xff, 1, 2, 3,
    };
    static const uint8_t shown_bos[] = {5, 0x0f, 22,   0, 2, 7,    0x10, 2, 2, 0, 0,
                                        0, 10,   0x10, 3, 0, 0x0c, 0,    2, 0, 0, 0};
    UsbDescriptors *d = parse(device, stick, sizeof(stick));
    UsbDescriptors *super = usb_shown_as_super(d), *as_is = usb_shown_as_is(d);

    g_assert_nonnull(super);
    g_assert_cmpint(super->speed, ==, USB_SPEED_SUPER);
    g_assert_cmpmem(super->device_raw, 18, shown_device, sizeof(shown_device));
    g_assert_cmpuint(super->n_configurations, ==, 1);
    g_assert_cmpmem(super->configurations[0].raw, super->configurations[0].raw_len, shown_stick,
                    sizeof(shown_stick));
    g_assert_cmpmem(super->bos, super->bos_len, shown_bos, sizeof(shown_bos));
    g_assert_true(as_is == d); /* at high speed there is nothing to change */
    g_assert_cmpmem(d->configurations[0].raw, d->configurations[0].raw_len, stick, sizeof(stick));
    usb_descriptors_unref(super);
    usb_descriptors_unref(as_is);
    usb_descriptors_unref(d);
}

/* What the device says of itself stays, and comes once. */
static void test_bos(void)
{
    static const uint8_t usb3_stick[] = {
        5, 0x0f, 42,   0, 3, 7, 0x10, 2, 6, 0, 0, 0, 10, 0x10, 3,  0,  0x0e, 0,  1,  10, 0xff,
        7, 20,   0x10, 4, 0, 1, 2,    3, 4, 5, 6, 7, 8,  9,    10, 11, 12,   13, 14, 15, 16};
    static const uint8_t odd[] = {5,    0x0f, 18, 0, 3, 3, 0x10, 3, 6,
                                  0x10, 2,    0,  0, 0, 4, 0x24, 1, 1};
    UsbDescriptors *d = parse(device, stick, sizeof(stick));
    char why[160];

    g_assert_true(usb_descriptors_set_bos(d, usb3_stick, sizeof(usb3_stick), why, sizeof(why)));
    UsbDescriptors *super = usb_shown_as_super(d);
    g_assert_cmpmem(super->bos, super->bos_len, usb3_stick, sizeof(usb3_stick));
    usb_descriptors_unref(super);

    /* capabilities that are cut short do not count, what is none goes */
    g_assert_true(usb_descriptors_set_bos(d, odd, sizeof(odd), why, sizeof(why)));
    super = usb_shown_as_super(d);
    g_assert_cmpuint(super->bos_len, ==, 5 + 3 + 6 + 7 + 10);
    g_assert_cmpuint(super->bos[4], ==, 4);
    g_assert_cmpmem(super->bos + 5, 9, odd + 5, 9);
    usb_descriptors_unref(super);

    /* too many to be counted, or too long: shown as it is */
    static uint8_t many[5 + 255 * 3] = {5, 0x0f, 0x02, 0x03, 255},
                                  full[USB_MAX_BOS_BYTES] = {5, 0x0f, 0, 0x10, 17};
    for (unsigned i = 5; i < sizeof(many); i += 3)
        memcpy(many + i, "\3\20\11", 3);
    g_assert_true(usb_descriptors_set_bos(d, many, sizeof(many), why, sizeof(why)));
    g_assert_null(usb_shown_as_super(d));
    for (unsigned i = 5; i < sizeof(full); i += full[i]) {
        full[i] = (uint8_t)(sizeof(full) - i < 250 ? sizeof(full) - i : 240);
        full[i + 1] = 0x10;
    }
    g_assert_true(usb_descriptors_set_bos(d, full, sizeof(full), why, sizeof(why)));
    g_assert_null(usb_shown_as_super(d));
    usb_descriptors_unref(d);
}

/* One byte of the stick is another. */
static bool raised_with(size_t device_at, uint8_t device_value, size_t at, uint8_t value)
{
    uint8_t device_raw[18], raw[sizeof(stick)];

    memcpy(device_raw, device, 18);
    memcpy(raw, stick, sizeof(stick));
    device_raw[device_at] = device_value;
    raw[at] = value;
    UsbDescriptors *d = parse(device_raw, raw, sizeof(raw));
    g_assert_nonnull(d);
    UsbDescriptors *super = usb_shown_as_super(d);
    bool raised = super != NULL;

    usb_descriptors_unref(super);
    usb_descriptors_unref(d);
    return raised;
}

static void test_conditions(void)
{
    static const struct {
        size_t at;
        uint8_t value;
        const char *why;
    } rows[] = {
        {14, 3, "not storage"}, {15, 5, "not SCSI"},      {16, 0x62, "UAS"},
        {16, 0x00, "CBI"},      {23, 0, "a full packet"}, {30, 4, "packets of 1024"},
        {21, 3, "interrupt"},   {27, 0x82, "two IN"},     {28, 1, "isochronous"},
    };

    g_assert_true(raised_with(0, 18, 0, 9));
    g_assert_true(raised_with(3, 1, 0, 9));   /* whatever USB it speaks of */
    g_assert_false(raised_with(4, 8, 0, 9));  /* a class for the whole device */
    g_assert_false(raised_with(17, 2, 0, 9)); /* a configuration that could not be read */
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        if (raised_with(0, 18, rows[i].at, rows[i].value))
            g_error("shown at super speed: %s", rows[i].why);
    }
}

static void test_more_than_a_stick(void)
{
    uint8_t two[sizeof(stick) + 16];
    static const uint8_t second[2][16] = {
        {9, 4, 1, 0, 1, 3, 1, 1, 0, 7, 5, 0x83, 3, 8, 0, 4},    /* another interface */
        {9, 4, 0, 1, 2, 8, 6, 0x62, 0, 7, 5, 0x83, 2, 0, 2, 0}, /* another setting */
    };

    for (unsigned i = 0; i < 2; i++) {
        memcpy(two, stick, sizeof(stick));
        memcpy(two + sizeof(stick), second[i], 16);
        two[2] = sizeof(two);
        UsbDescriptors *d = parse(device, two, sizeof(two));
        g_assert_cmpint(d->speed, ==, USB_SPEED_HIGH);
        g_assert_null(usb_shown_as_super(d));
        usb_descriptors_unref(d);
    }
    /* there is no room for the companions */
    static uint8_t full[USB_MAX_CONFIG_BYTES - 8];
    memcpy(full, stick, sizeof(stick));
    for (unsigned i = sizeof(stick), n; i < sizeof(full); i += n) {
        n = sizeof(full) - i < 250 ? (unsigned)(sizeof(full) - i) : 240;
        full[i] = (uint8_t)n;
        full[i + 1] = 0xff;
    }
    full[2] = sizeof(full) & 0xff;
    full[3] = (uint8_t)(sizeof(full) >> 8);
    UsbDescriptors *d = parse(device, full, sizeof(full));
    g_assert_nonnull(d);
    g_assert_null(usb_shown_as_super(d));
    usb_descriptors_unref(d);
}

/* Whatever comes of mutated bytes: it is shown as a super-speed device through and through, and
 * nothing but that has been added. */
static void check_any(uint8_t *data, size_t len, void *user)
{
    unsigned *raised = user;

    if (len < 18 || data[0] < 18 || data[1] != 1)
        return;
    UsbDescriptors *d = parse(data, data + 18, len - 18);
    UsbDescriptors *super = d ? usb_shown_as_super(d) : NULL;

    if (super) {
        const UsbConfiguration *own = &d->configurations[0], *c = &super->configurations[0];

        ++*raised;
        g_assert_cmpuint(c->value, ==, own->value);
        g_assert_cmpuint(c->n_alts, ==, 1);
        g_assert_cmpuint(c->raw_len, >=, own->raw_len + 12);
        g_assert_cmpuint(c->alts[0].interface, ==, own->alts[0].interface);
        g_assert_cmpuint(c->alts[0].n_endpoints, ==, 2);
        for (unsigned e = 0; e < 2; e++) {
            g_assert_cmpuint(c->alts[0].endpoints[e].address, ==,
                             own->alts[0].endpoints[e].address);
            g_assert_cmpuint(c->alts[0].endpoints[e].max_packet_raw, ==, 1024);
        }
        g_assert_cmpuint(super->max_packet0, ==, 9);
        super->speed = USB_SPEED_UNKNOWN;
        usb_descriptors_derive_speed(super, false);
        g_assert_cmpint(super->speed, ==, USB_SPEED_SUPER);
        g_assert_null(usb_shown_as_super(super));
    }
    usb_descriptors_unref(super);
    usb_descriptors_unref(d);
}

static void test_mutations(void)
{
    uint8_t bytes[18 + sizeof(stick)];
    unsigned raised = 0;

    memcpy(bytes, device, 18);
    memcpy(bytes + 18, stick, sizeof(stick));
    mutate_none(bytes, sizeof(bytes), check_any, &raised);
    g_assert_cmpuint(raised, ==, 1);
    mutate_truncations(bytes, sizeof(bytes), check_any, &raised);
    g_assert_cmpuint(raised, ==, 1);
    mutate_bit_flips(bytes, sizeof(bytes), check_any, &raised);
    g_assert_cmpuint(raised, >, 100);
    mutate_random(bytes, sizeof(bytes), 1, 30000, check_any, &raised);
}

/* ---- the device ---- */

static void end(UsbRig *r)
{
    g_assert_cmpstr(r->source->violation, ==, "");
    g_assert_cmpuint(r->guest->errors, ==, 0);
    usb_rig_free(r);
}

static const GuestPacket *answer(UsbRig *r, int type, uint64_t id, UsbStatus status)
{
    usb_rig_run(r);
    const GuestPacket *p = fake_guest_find(r->guest, type, id);
    g_assert_nonnull(p);
    g_assert_cmpuint(p->status, ==, status);
    return p;
}

static const GuestPacket *last(UsbRig *r, int type)
{
    for (unsigned i = r->guest->n_log; i-- > 0;)
        if (r->guest->log[i].type == type)
            return &r->guest->log[i];
    return NULL;
}

static unsigned iso_endpoints(const GuestPacket *ep)
{
    unsigned n = 0;

    for (unsigned i = 0; i < 32; i++)
        n += ep->ep.type[i] == usb_redir_type_iso;
    return n;
}

/* QEMU is told of an endpoint that keeps the device from a slower port, until it has taken it. */
static void test_connect(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

    usb_rig_run(r);
    g_assert_cmpint(usb_device_state(r->device), ==, USB_DEVICE_CONNECTED);
    g_assert_cmpint(usb_device_shown_speed(r->device), ==, USB_SPEED_SUPER);
    g_assert_cmpint(usb_device_descriptors(r->device)->speed, ==, USB_SPEED_HIGH);
    const GuestPacket *ep = last(r, usb_redir_ep_info);
    g_assert_cmpuint(last(r, usb_redir_device_connect)->connect.speed, ==, usb_redir_speed_super);
    g_assert_cmpuint(ep->ep.max_packet_size[2], ==, 1024);
    g_assert_cmpuint(ep->ep.max_packet_size[17], ==, 1024);
    g_assert_cmpuint(ep->ep.type[31], ==, usb_redir_type_iso);
    g_assert_cmpuint(ep->ep.interval[31], ==, 1);
    g_assert_cmpuint(iso_endpoints(ep), ==, 1);

    fake_guest_reset(r->guest);
    usb_rig_run(r);
    ep = last(r, usb_redir_ep_info);
    g_assert_cmpuint(iso_endpoints(ep), ==, 0);
    g_assert_cmpuint(ep->ep.max_packet_size[17], ==, 1024);
    g_assert_cmpuint(fake_guest_count(r->guest, usb_redir_ep_info), ==, 2);
    g_assert_cmpuint(fake_guest_count(r->guest, usb_redir_device_connect), ==, 1);
    end(r);
}

/* The port has no super speed: QEMU gets the device as it is, over the same stream. */
static void test_refused(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

    usb_rig_run(r);
    fake_guest_clear_log(r->guest);
    fake_guest_reject(r->guest);
    usb_rig_run(r);
    g_assert_cmpint(usb_device_state(r->device), ==, USB_DEVICE_CONNECTED);
    g_assert_cmpint(usb_device_shown_speed(r->device), ==, USB_SPEED_HIGH);
    g_assert_cmpuint(last(r, usb_redir_device_connect)->connect.speed, ==, usb_redir_speed_high);
    g_assert_cmpuint(last(r, usb_redir_ep_info)->ep.max_packet_size[17], ==, 512);
    g_assert_cmpuint(iso_endpoints(last(r, usb_redir_ep_info)), ==, 0);
    g_assert_cmpint(r->guest->log[r->guest->n_log - 1].type, ==, usb_redir_device_connect);

    uint64_t id = fake_guest_control(r->guest, 0x80, 6, 0x0100, 0, 18, NULL);
    const GuestPacket *p = answer(r, usb_redir_control_packet, id, USB_STATUS_SUCCESS);
    g_assert_cmpmem(p->data, p->length, r->source->device_raw, 18);
    id = fake_guest_control(r->guest, 0x80, 6, 0x0200, 0, 255, NULL);
    p = answer(r, usb_redir_control_packet, id, USB_STATUS_SUCCESS);
    g_assert_cmpmem(p->data, p->length, r->source->config_raw, r->source->config_len);
    usb_rig_enumerate(r);
    g_assert_cmpuint(r->source->selects, ==, 1);

    fake_guest_reject(r->guest); /* now it means what it says */
    usb_rig_run(r);
    g_assert_cmpint(usb_device_state(r->device), ==, USB_DEVICE_REJECTED);
    end(r);

    /* a filter refuses both */
    r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);
    usb_rig_run(r);
    fake_guest_reject(r->guest);
    fake_guest_reject(r->guest);
    usb_rig_run(r);
    g_assert_cmpint(usb_device_state(r->device), ==, USB_DEVICE_REJECTED);
    end(r);

    /* and once the guest has had it, it is not plugged in a second time behind its back */
    r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);
    usb_rig_enumerate(r);
    fake_guest_reject(r->guest);
    usb_rig_run(r);
    g_assert_cmpint(usb_device_state(r->device), ==, USB_DEVICE_REJECTED);
    end(r);
}

static void test_every_length(void)
{
    static const uint16_t kinds[] = {0x0100, 0x0200, 0x0f00};
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

    usb_rig_run(r);
    for (unsigned k = 0; k < 3; k++) {
        uint8_t whole[256];
        uint64_t id = fake_guest_control(r->guest, 0x80, 6, kinds[k], 0, 256, NULL);
        const GuestPacket *p = answer(r, usb_redir_control_packet, id, USB_STATUS_SUCCESS);
        uint16_t total = p->length;

        const unsigned expected[] = {18, r->source->config_len + 12u, 22};
        g_assert_cmpuint(total, ==, expected[k]);
        memcpy(whole, p->data, total);
        if (k > 0)
            g_assert_cmpuint(whole[2], ==, total);
        for (uint16_t n = 0; n <= total + 1; n++) {
            fake_guest_clear_log(r->guest);
            id = fake_guest_control(r->guest, 0x80, 6, kinds[k], 0, n, NULL);
            p = answer(r, usb_redir_control_packet, id, USB_STATUS_SUCCESS);
            g_assert_cmpuint(p->length, ==, n < total ? n : total);
            g_assert_cmpmem(p->data, (size_t)p->data_len, whole, p->length);
        }
    }
    g_assert_cmpuint(r->source->submitted, ==, 0);
    end(r);
}

/* What only a super-speed device is asked never reaches one of high speed. */
static void test_requests(void)
{
    static const struct {
        uint8_t type, request;
        uint16_t value, index, length;
        UsbStatus status;
    } rows[] = {
        {0x80, 6, 0x0600, 0, 10, USB_STATUS_STALL},  /* device qualifier */
        {0x80, 6, 0x0700, 0, 255, USB_STATUS_STALL}, /* other speed configuration */
        {0x00, 0x30, 0, 0, 6, USB_STATUS_SUCCESS},   /* SET_SEL */
        {0x00, 0x31, 40, 0, 0, USB_STATUS_SUCCESS},  /* SET_ISOCH_DELAY */
        {0x00, 3, 48, 0, 0, USB_STATUS_SUCCESS},     /* U1_ENABLE */
        {0x00, 3, 49, 0, 0, USB_STATUS_SUCCESS},     /* U2_ENABLE */
        {0x00, 3, 50, 0, 0, USB_STATUS_SUCCESS},     /* LTM_ENABLE */
        {0x00, 1, 48, 0, 0, USB_STATUS_SUCCESS},
        {0x01, 3, 0, 0x0300, 0, USB_STATUS_SUCCESS}, /* FUNCTION_SUSPEND */
        {0x01, 1, 0, 0, 0, USB_STATUS_SUCCESS},
    };
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

    usb_rig_enumerate(r);
    unsigned before = r->source->submitted;
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        uint64_t id = fake_guest_control(
            r->guest, rows[i].type, rows[i].request, rows[i].value, rows[i].index, rows[i].length,
            rows[i].length && !(rows[i].type & 0x80) ? "123456" : NULL);
        answer(r, usb_redir_control_packet, id, rows[i].status);
    }
    g_assert_cmpuint(r->source->submitted, ==, before);
    end(r);

    /* as it is, the device answers for its qualifier itself, and for its interface */
    FakeSource *source = fake_source_new(FAKE_STICK, USB_SPEED_HIGH);
    source->base.as_is = true;
    r = usb_rig_with(source, FREERDP);
    usb_rig_enumerate(r);
    before = r->source->submitted;
    fake_guest_control(r->guest, 0x80, 6, 0x0600, 0, 10, NULL);
    fake_guest_control(r->guest, 0x01, 3, 0, 0x0300, 0, NULL);
    usb_rig_run(r);
    g_assert_cmpuint(r->source->submitted, ==, before + 2);
    end(r);
}

/* How a transfer ends is passed on as it is, wherever it falls in the guest's packets of 1024 bytes
 * or the device's of 512. */
static void test_transfers(void)
{
    static uint8_t bytes[1 << 20];
    static const struct {
        uint32_t wanted, came;
        UsbStatus status;
    } rows[] = {
        {1024, 512, USB_STATUS_SUCCESS},        {1536, 1536, USB_STATUS_SUCCESS},
        {512, 512, USB_STATUS_SUCCESS},         {4096, 1536, USB_STATUS_SUCCESS},
        {1024, 0, USB_STATUS_SUCCESS},          {13, 13, USB_STATUS_SUCCESS},
        {1 << 20, 1 << 20, USB_STATUS_SUCCESS}, {65536, 512, USB_STATUS_STALL},
        {65536, 0, USB_STATUS_STALL},           {1024, 1023, USB_STATUS_IOERROR},
    };
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 7 ^ i >> 9);
    usb_rig_enumerate(r);
    r->source->hold = true;
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        fake_guest_clear_log(r->guest);
        uint64_t id = fake_guest_bulk_in(r->guest, 0x81, rows[i].wanted);
        usb_rig_run(r);
        g_assert_cmpuint(r->source->n_pending, ==, 1); /* never cut */
        g_assert_cmpuint(r->source->pending[0].request.length, ==, rows[i].wanted);
        fake_source_complete(r->source, 0, rows[i].status, bytes, rows[i].came, false);
        const GuestPacket *p = answer(r, usb_redir_bulk_packet, id, rows[i].status);
        g_assert_cmpuint(p->length, ==, rows[i].came);
        g_assert_cmpmem(p->data, (size_t)p->data_len, bytes, rows[i].came);
    }
    /* an empty transfer of the guest's is one for the device */
    uint64_t id = fake_guest_bulk_out(r->guest, 0x02, NULL, 0);
    usb_rig_run(r);
    g_assert_cmpuint(r->source->n_pending, ==, 1);
    g_assert_cmpuint(r->source->pending[0].request.length, ==, 0);
    fake_source_complete(r->source, 0, USB_STATUS_SUCCESS, NULL, 0, false);
    answer(r, usb_redir_bulk_packet, id, USB_STATUS_SUCCESS);
    end(r);
}

/* A guest that resets its port in mid-command finds the same device again, and the client's gets
 * its own configuration. */
static void test_reset(void)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_HIGH, FREERDP);

    usb_rig_enumerate(r);
    r->source->hold = true;
    fake_guest_bulk_in(r->guest, 0x81, 1 << 20);
    usb_rig_run(r);
    r->source->hold = false;
    fake_guest_reset(r->guest);
    usb_rig_run(r);
    uint64_t id = fake_guest_control(r->guest, 0x80, 6, 0x0100, 0, 18, NULL);
    g_assert_cmpuint(answer(r, usb_redir_control_packet, id, USB_STATUS_SUCCESS)->data[7], ==, 9);
    fake_guest_clear_log(r->guest);
    id = fake_guest_set_configuration(r->guest, 1);
    answer(r, usb_redir_configuration_status, id, USB_STATUS_SUCCESS);
    g_assert_cmpuint(last(r, usb_redir_ep_info)->ep.max_packet_size[17], ==, 1024);
    g_assert_cmpuint(r->source->selects, ==, 2);
    g_assert_cmpuint(r->source->bulk_resets, ==, 1);
    end(r);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/usb-shown/bytes", test_bytes);
    g_test_add_func("/usb-shown/bos", test_bos);
    g_test_add_func("/usb-shown/conditions", test_conditions);
    g_test_add_func("/usb-shown/more-than-a-stick", test_more_than_a_stick);
    g_test_add_func("/usb-shown/mutations", test_mutations);
    g_test_add_func("/usb-shown/connect", test_connect);
    g_test_add_func("/usb-shown/refused", test_refused);
    g_test_add_func("/usb-shown/every-length", test_every_length);
    g_test_add_func("/usb-shown/requests", test_requests);
    g_test_add_func("/usb-shown/transfers", test_transfers);
    g_test_add_func("/usb-shown/reset", test_reset);
    return g_test_run();
}
