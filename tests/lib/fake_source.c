#include "fake_source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "descriptor.h"

#define STICK_IN 0x81
#define STICK_OUT 0x02
#define KEYBOARD_IN 0x81
#define HEADSET_OUT 0x03
#define HEADSET_IN 0x84

static void violation(FakeSource *f, const char *what)
{
    f->violations++;
    snprintf(f->violation, sizeof(f->violation), "%s", what);
}

/* ---- descriptors ---- */

static void put(FakeSource *f, const uint8_t *bytes, size_t n)
{
    memcpy(f->config_raw + f->config_len, bytes, n);
    f->config_len = (uint16_t)(f->config_len + n);
}

static void put_endpoint(FakeSource *f, uint8_t address, uint8_t type, uint16_t max,
                         uint8_t interval, uint8_t streams)
{
    put(f, (uint8_t[]){7, 5, address, type, max & 0xff, (uint8_t)(max >> 8), interval}, 7);
    if (f->speed == USB_SPEED_SUPER)
        put(f, (uint8_t[]){6, 0x30, 0, streams, 0, 0}, 6);
}

static void put_uas(FakeSource *f, uint16_t max)
{
    put(f, (uint8_t[]){9, 4, 0, 1, 4, 8, 6, 0x62, 0}, 9);
    for (uint8_t i = 0; i < 4; i++) {
        static const uint8_t endpoints[] = {0x04, 0x83, 0x81, 0x02};

        put_endpoint(f, endpoints[i], 2, max, 0, i ? 5 : 0);
        put(f, (uint8_t[]){4, 0x24, (uint8_t)(i + 1), 0}, 4);
    }
}

static void put_headset(FakeSource *f)
{
    uint8_t interval = f->speed == USB_SPEED_FULL ? 1 : 4; /* 1 ms */

    put(f, (uint8_t[]){9, 4, 0, 0, 0, 1, 1, 0, 0}, 9);
    for (uint8_t i = 1; i < 3; i++) {
        put(f, (uint8_t[]){9, 4, i, 0, 0, 1, 2, 0, 0}, 9);
        put(f, (uint8_t[]){9, 4, i, 1, 1, 1, 2, 0, 0}, 9);
        put_endpoint(f, i == 1 ? HEADSET_OUT : HEADSET_IN, i == 1 ? 9 : 5, 196, interval, 0);
    }
    f->config_raw[4] = 3;
}

static void make_descriptors(FakeSource *f)
{
    bool stick = f->kind == FAKE_STICK, super = f->speed == USB_SPEED_SUPER;
    uint16_t bcd = super ? 0x0300 : f->speed == USB_SPEED_LOW ? 0x0110 : 0x0200;
    uint16_t max = super ? 1024 : f->speed == USB_SPEED_HIGH ? 512 : 64;
    const uint8_t device[18] = {18,
                                1,
                                bcd & 0xff,
                                (uint8_t)(bcd >> 8),
                                0,
                                0,
                                0,
                                super                       ? 9
                                : f->speed == USB_SPEED_LOW ? 8
                                                            : 64,
                                0x34,
                                0x12,
                                stick ? 0x78 : 0x79,
                                0x56,
                                0x00,
                                0x01,
                                1,
                                2,
                                3,
                                1};

    memcpy(f->device_raw, device, sizeof(device));
    put(f, (uint8_t[]){9, 2, 0, 0, 1, 1, 0, 0x80, 50}, 9);
    if (stick) {
        put(f, (uint8_t[]){9, 4, 0, 0, 2, 8, 6, 0x50, 0}, 9);
        put_endpoint(f, STICK_IN, 2, max, 0, 5);
        put_endpoint(f, STICK_OUT, 2, max, 0, 5);
        if (super)
            put_uas(f, max);
    } else if (f->kind == FAKE_HEADSET) {
        put_headset(f);
    } else {
        put(f, (uint8_t[]){9, 4, 0, 0, 1, 3, 1, 1, 0}, 9);
        put(f, (uint8_t[]){9, 0x21, 0x11, 1, 0, 1, 0x22, 63, 0}, 9);
        put_endpoint(f, KEYBOARD_IN, 3, 8, f->speed >= USB_SPEED_HIGH ? 4 : 10, 0);
    }
    f->config_raw[2] = (uint8_t)f->config_len;
    f->config_raw[3] = (uint8_t)(f->config_len >> 8);
    if (super) {
        static const uint8_t bos[] = {5, 0x0f, 22,   0, 2, 7,    0x10, 2, 0,  0,    0,
                                      0, 10,   0x10, 3, 0, 0x0e, 0,    1, 10, 0xff, 7};
        memcpy(f->bos_raw, bos, sizeof(bos));
        f->bos_len = sizeof(bos);
    }
}

static unsigned string_descriptor(uint8_t index, uint8_t *out)
{
    static const char *const strings[] = {NULL, "qrdp tests", "Fake \"device\" \x1b",
                                          "0123456789AB"};

    if (index == 0) {
        memcpy(out, (uint8_t[]){4, 3, 9, 4}, 4);
        return 4;
    }
    if (index >= 4)
        return 0;
    unsigned n = 2;
    for (const char *s = strings[index]; *s; s++) {
        out[n++] = (uint8_t)*s;
        out[n++] = 0;
    }
    out[0] = (uint8_t)n;
    out[1] = 3;
    return n;
}

UsbDescriptors *fake_source_descriptors(FakeSource *f)
{
    char why[160];
    UsbDescriptors *d = usb_descriptors_new(f->device_raw, sizeof(f->device_raw), why, sizeof(why));

    if (!d || !usb_descriptors_add_configuration(d, f->config_raw, f->config_len, why, sizeof(why)))
        abort();
    if (f->bos_len && !usb_descriptors_set_bos(d, f->bos_raw, f->bos_len, why, sizeof(why)))
        abort();
    for (uint8_t i = 0; i < 3 && !f->no_bos; i++) {
        uint8_t raw[255];
        unsigned n = string_descriptor(i ? f->device_raw[14 + i] : 0, raw);

        usb_descriptors_add_string(d, raw, n);
        if (i == 1)
            usb_descriptor_string(raw, n, d->product, sizeof(d->product));
        if (i == 2)
            usb_descriptor_string(raw, n, d->serial, sizeof(d->serial));
    }
    usb_descriptors_derive_speed(d, f->speed == USB_SPEED_HIGH);
    return d;
}

/* ---- the source ---- */

static void remove_pending(FakeSource *f, unsigned index)
{
    free(f->pending[index].data);
    f->n_pending--;
    memmove(&f->pending[index], &f->pending[index + 1],
            (f->n_pending - index) * sizeof(f->pending[0]));
}

/* What was cancelled counts no more, for a client may never end it: when there is no place left the
 * oldest of that is forgotten. False if the limit is exceeded without it. */
static bool make_room(FakeSource *f)
{
    unsigned live = 0, oldest = f->n_pending;

    for (unsigned i = f->n_pending; i-- > 0;) {
        if (f->pending[i].cancelled || f->pending[i].unwanted)
            oldest = i;
        else
            live++;
    }
    if (live >= USB_MAX_IN_FLIGHT) {
        violation(f, "too many requests");
        return false;
    }
    if (f->n_pending == FAKE_MAX_PENDING)
        remove_pending(f, oldest);
    return true;
}

static bool on_submit(UsbSource *source, const UsbRequest *request)
{
    FakeSource *f = (FakeSource *)source;

    if (f->refuse)
        return false;
    f->submitted++;
    if (source->gone)
        violation(f, "a request to a source that is gone");
    if (request->id == 0 || request->id > USB_MAX_REQUEST_ID)
        violation(f, "an id out of range");
    for (unsigned i = 0; i < f->n_pending; i++) {
        if (f->pending[i].request.id == request->id)
            violation(f, "an id that is in use");
    }
    if (!make_room(f))
        return false;
    FakeRequest *r = &f->pending[f->n_pending++];
    *r = (FakeRequest){.request = *request};
    if (request->data && request->length) {
        r->data = malloc(request->length);
        memcpy(r->data, request->data, request->length);
        r->request.data = r->data;
    }
    if (request->n_packets > USB_ISO_MAX_PACKETS_PER_URB) {
        violation(f, "too many packets in a request");
        r->request.n_packets = 0;
    }
    if (request->n_packets)
        memcpy(r->packets, request->packets, request->n_packets * sizeof(r->packets[0]));
    return true;
}

static void on_cancel(UsbSource *source, uint32_t id)
{
    FakeSource *f = (FakeSource *)source;

    f->cancels++;
    for (unsigned i = 0; i < f->n_pending; i++) {
        if (f->pending[i].request.id != id)
            continue;
        f->in_doubt |= f->pending[i].request.kind == USB_REQUEST_SELECT_CONFIGURATION ||
                       f->pending[i].request.kind == USB_REQUEST_SELECT_INTERFACE;
        if (f->cancel_mode == FAKE_CANCEL_SILENT)
            remove_pending(f, i);
        else if (f->cancel_mode == FAKE_CANCEL_LATE)
            f->pending[i].cancelled = true;
        else
            f->pending[i].unwanted = true;
        return;
    }
}

static void on_retire(UsbSource *source, const char *reason)
{
    ((FakeSource *)source)->retired++;
}

FakeSource *fake_source_new(FakeKind kind, UsbSpeed speed)
{
    static const UsbSourceOps ops = {.submit = on_submit, .cancel = on_cancel, .retire = on_retire};
    FakeSource *f = calloc(1, sizeof(*f));

    f->base.ops = &ops;
    f->base.high_speed_hint = speed == USB_SPEED_HIGH;
    snprintf(f->base.label, sizeof(f->base.label), "fake");
    f->kind = kind;
    f->speed = speed;
    f->blocks = FAKE_BLOCKS;
    snprintf(f->name, sizeof(f->name), "FAKE STICK      ");
    if (kind == FAKE_STICK)
        f->disk = calloc(FAKE_BLOCKS, FAKE_BLOCK);
    make_descriptors(f);
    return f;
}

void fake_source_free(FakeSource *f)
{
    if (!f)
        return;
    while (f->n_pending)
        remove_pending(f, 0);
    free(f->disk);
    free(f);
}

void fake_source_complete(FakeSource *f, unsigned index, UsbStatus status, const void *data,
                          uint32_t length, bool retry_in)
{
    UsbCompletion c = {
        .id = f->pending[index].request.id,
        .status = status,
        .length = length,
        .data = data,
        .retry_in = retry_in,
    };

    remove_pending(f, index);
    if (f->base.sink)
        f->base.sink->complete(f->base.sink_user, &c);
}

void fake_source_complete_iso(FakeSource *f, unsigned index, const UsbIsoPacket *packets,
                              uint32_t n, const void *data)
{
    UsbCompletion c = {
        .id = f->pending[index].request.id, .data = data, .n_packets = n, .packets = packets};

    for (uint32_t i = 0; i < n; i++)
        c.length += packets[i].status == USB_STATUS_SUCCESS ? packets[i].length : 0;
    remove_pending(f, index);
    if (f->base.sink)
        f->base.sink->complete(f->base.sink_user, &c);
}

void fake_source_stray(FakeSource *f, uint32_t id)
{
    UsbCompletion c = {.id = id, .status = USB_STATUS_SUCCESS};

    if (f->base.sink)
        f->base.sink->complete(f->base.sink_user, &c);
}

int fake_source_find(const FakeSource *f, uint8_t endpoint)
{
    for (unsigned i = 0; i < f->n_pending; i++) {
        if (f->pending[i].request.endpoint == endpoint && !f->pending[i].cancelled)
            return (int)i;
    }
    return -1;
}

unsigned fake_source_count(const FakeSource *f, uint8_t endpoint)
{
    unsigned n = 0;

    for (unsigned i = 0; i < f->n_pending; i++)
        n += f->pending[i].request.endpoint == endpoint && !f->pending[i].cancelled;
    return n;
}

void fake_source_unplug(FakeSource *f)
{
    f->base.gone = true;
    if (f->base.sink)
        f->base.sink->gone(f->base.sink_user, "it was unplugged");
}

void fake_source_key(FakeSource *f, uint8_t code)
{
    memset(f->reports[f->n_reports], 0, 8);
    f->reports[f->n_reports++][2] = code;
}

/* ---- endpoint 0 ---- */

static const uint8_t keyboard_report[63] = {
    5,    1, 9,    6, 0xa1, 1,    5,    7, 0x19, 0xe0, 0x29, 0xe7, 0x15, 0, 0x25, 1,
    0x75, 1, 0x95, 8, 0x81, 2,    0x95, 1, 0x75, 8,    0x81, 1,    0x95, 5, 0x75, 1,
    5,    8, 0x19, 1, 0x29, 5,    0x91, 2, 0x95, 1,    0x75, 3,    0x91, 1, 0x95, 6,
    0x75, 8, 0x15, 0, 0x25, 0x65, 5,    7, 0x19, 0,    0x29, 0x65, 0x81, 0, 0xc0};

static bool control(FakeSource *f, const UsbRequest *r, uint8_t *out, unsigned *n)
{
    const UsbSetup *s = &r->setup;
    unsigned what = (unsigned)s->request_type << 8 | s->request;

    *n = 0;
    switch (what) {
    case 0x8006:
        if (s->value >> 8 == 1)
            memcpy(out, f->device_raw, *n = 18);
        else if (s->value == 0x0600 && f->speed == USB_SPEED_HIGH)
            *n = 10;
        else if (s->value == 0x0200)
            memcpy(out, f->config_raw, *n = f->config_len);
        else if (s->value == 0x0f00 && f->bos_len && !f->no_bos)
            memcpy(out, f->bos_raw, *n = f->bos_len);
        else if (s->value >> 8 == 3 && !f->no_bos)
            *n = string_descriptor(s->value & 0xff, out);
        return *n > 0;
    case 0x8106:
        if (f->kind == FAKE_KEYBOARD && s->value == 0x2200)
            memcpy(out, keyboard_report, *n = 63);
        return *n > 0;
    case 0x8000:
    case 0x8100:
    case 0x8200:
        out[0] = out[1] = 0;
        *n = 2;
        return true;
    case 0xa1fe:
        out[0] = 0;
        *n = 1;
        return f->kind == FAKE_STICK;
    case 0x21ff:
        f->bulk_resets++;
        f->phase = FAKE_CBW;
        return f->kind == FAKE_STICK;
    case 0x210a:
    case 0x210b:
        return f->kind == FAKE_KEYBOARD;
    case 0x2109:
        f->leds = r->data ? r->data[0] : 0;
        return f->kind == FAKE_KEYBOARD;
    case 0x0005:
    case 0x0009:
    case 0x010b:
        violation(f, "a raw standard request that must be a request of its own");
        return false;
    case 0x0201:
        if (s->value == 0 && (s->index & 0x0f) != 0)
            violation(f, "a raw CLEAR_FEATURE(ENDPOINT_HALT), which leaves the host's toggle");
        return false;
    default:
        return false;
    }
}

/* ---- the stick ---- */

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint32_t le32(const uint8_t *p)
{
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

static void reply(FakeSource *f, uint32_t wanted, uint32_t have)
{
    f->data = f->reply;
    f->data_len = have < wanted ? have : wanted;
}

static void scsi(FakeSource *f, const uint8_t *cb, uint32_t wanted, bool in)
{
    uint32_t lba = be32(cb + 2), blocks = (uint32_t)cb[7] << 8 | cb[8];
    bool ok = true;

    memset(f->reply, 0, sizeof(f->reply));
    f->data_len = f->data_pos = 0;
    f->csw_status = 0;
    f->commands++;
    if (f->attention && cb[0] != 0x03 && cb[0] != 0x12) {
        f->sense = f->attention;
        f->attention = 0;
        f->csw_status = 1;
        f->phase = FAKE_CSW;
        f->residue = wanted;
        f->halted_in = in && wanted;
        return;
    }
    switch (cb[0]) {
    case 0x00: /* TEST UNIT READY */
    case 0x1b:
    case 0x1e:
    case 0x35:
        break;
    case 0x03: /* REQUEST SENSE */
        f->reply[0] = 0x70;
        f->reply[2] = f->sense == 0 ? 0 : f->sense == 0x3a ? 2 : 6;
        f->reply[7] = 10;
        f->reply[12] = f->sense;
        f->reply[13] = f->sense == 0x3a ? 0 : f->qualifier;
        f->sense = 0;
        reply(f, wanted, 18);
        break;
    case 0x12: /* INQUIRY */
        memcpy(f->reply, "\0\x80\4\2\x1f\0\0\0QRDP                    1.0 ", 36);
        memcpy(f->reply + 16, f->name, 16);
        reply(f, wanted, 36);
        break;
    case 0x1a: /* MODE SENSE(6) */
        f->reply[0] = 3;
        reply(f, wanted, 4);
        break;
    case 0x25: /* READ CAPACITY(10) */
        f->reply[2] = (f->blocks - 1) >> 8 & 0xff;
        f->reply[3] = (f->blocks - 1) & 0xff;
        f->reply[6] = FAKE_BLOCK >> 8;
        reply(f, wanted, 8);
        if (f->no_medium) {
            f->sense = 0x3a;
            ok = false;
        }
        break;
    case 0x28: /* READ(10) */
        ok = in && lba + blocks <= FAKE_BLOCKS && blocks * FAKE_BLOCK == wanted;
        f->data = f->disk + (size_t)lba * FAKE_BLOCK;
        f->data_len = wanted;
        break;
    case 0x2a: /* WRITE(10) */
        f->writes++;
        ok = !in && lba + blocks <= FAKE_BLOCKS && blocks * FAKE_BLOCK == wanted;
        f->write_to = f->disk + (size_t)lba * FAKE_BLOCK;
        f->data_len = wanted;
        break;
    default:
        ok = false;
    }
    if (!ok) {
        f->csw_status = 1;
        f->data_len = 0;
    }
    f->residue = wanted - f->data_len;
    if (f->data_len)
        f->phase = in ? FAKE_DATA_IN : FAKE_DATA_OUT;
    else
        f->phase = FAKE_CSW;
    if (wanted && !f->data_len)
        *(in ? &f->halted_in : &f->halted_out) = true;
}

static UsbStatus stick_out(FakeSource *f, const UsbRequest *r, uint32_t *moved)
{
    if (f->halted_out || f->phase == FAKE_PHASE_ERROR)
        return USB_STATUS_STALL;
    switch (f->phase) {
    case FAKE_CBW:
        if (r->length != 31 || memcmp(r->data, "USBC", 4) != 0) {
            f->phase = FAKE_PHASE_ERROR;
            f->halted_in = f->halted_out = true;
            return USB_STATUS_STALL;
        }
        f->tag = le32(r->data + 4);
        *moved = 31;
        scsi(f, r->data + 15, le32(r->data + 8), (r->data[12] & 0x80) != 0);
        return USB_STATUS_SUCCESS;
    case FAKE_DATA_OUT:
        if (r->length > f->data_len - f->data_pos) {
            f->phase = FAKE_PHASE_ERROR;
            f->halted_in = f->halted_out = true;
            return USB_STATUS_STALL;
        }
        memcpy(f->write_to + f->data_pos, r->data, r->length);
        f->data_pos += r->length;
        *moved = r->length;
        if (f->data_pos == f->data_len)
            f->phase = FAKE_CSW;
        return USB_STATUS_SUCCESS;
    default: /* not the time for OUT: a real stick NAKs for ever or stalls */
        f->halted_out = true;
        return USB_STATUS_STALL;
    }
}

/* False: nothing to send now, the request stays. */
static bool stick_in(FakeSource *f, const UsbRequest *r, UsbStatus *status, uint8_t *out,
                     uint32_t *n)
{
    *n = 0;
    if (f->halted_in || f->phase == FAKE_PHASE_ERROR) {
        *status = USB_STATUS_STALL;
        return true;
    }
    if (f->phase == FAKE_DATA_IN) {
        *n = f->data_len - f->data_pos < r->length ? f->data_len - f->data_pos : r->length;
        memcpy(out, f->data + f->data_pos, *n);
        f->data_pos += *n;
        if (f->data_pos == f->data_len)
            f->phase = FAKE_CSW;
        return true;
    }
    if (f->phase != FAKE_CSW)
        return false;
    memcpy(out, "USBS", 4);
    memcpy(out + 4,
           (uint8_t[]){(uint8_t)f->tag, (uint8_t)(f->tag >> 8), (uint8_t)(f->tag >> 16),
                       (uint8_t)(f->tag >> 24), (uint8_t)f->residue, (uint8_t)(f->residue >> 8),
                       (uint8_t)(f->residue >> 16), (uint8_t)(f->residue >> 24), f->csw_status},
           9);
    *n = r->length < 13 ? r->length : 13;
    f->phase = FAKE_CBW;
    return true;
}

/* ---- carrying out ---- */

static bool known_endpoint(const FakeSource *f, uint8_t e)
{
    if (f->kind == FAKE_KEYBOARD)
        return e == KEYBOARD_IN;
    if (f->kind == FAKE_HEADSET)
        return (e == HEADSET_OUT && f->alt[1] == 1) || (e == HEADSET_IN && f->alt[2] == 1);
    return e == STICK_IN || e == STICK_OUT || (f->alt[0] == 1 && (e == 0x83 || e == 0x04));
}

/* A change of setting ends what its endpoints do: those of a headset's @interface, or all (-1). */
static void check_idle(FakeSource *f, int interface)
{
    uint8_t endpoint = interface == 1 ? HEADSET_OUT : interface == 2 ? HEADSET_IN : 0;

    for (unsigned k = 0; k < f->n_pending; k++) {
        if (f->pending[k].request.kind == USB_REQUEST_ISO && !f->pending[k].cancelled &&
            (interface < 0 || f->pending[k].request.endpoint == endpoint) &&
            !f->pending[k].unwanted && f->cancel_mode != FAKE_CANCEL_SILENT)
            violation(f, "a SELECT_* under a running stream");
    }
}

static void select_request(FakeSource *f, unsigned i, const UsbRequest *r)
{
    bool ok = !f->fail_select;

    if (r->kind == USB_REQUEST_SELECT_CONFIGURATION)
        check_idle(f, -1);
    else if (r->alt && r->alt->alt == 0)
        check_idle(f, r->alt->interface);
    if (r->kind == USB_REQUEST_SELECT_CONFIGURATION) {
        f->selects++;
        if (!r->configuration || r->configuration->raw_len != f->config_len ||
            memcmp(r->configuration->raw, f->config_raw, f->config_len) != 0)
            violation(f, "SELECT_CONFIGURATION without the descriptor as the device sent it");
        else if (ok)
            f->selected = r->configuration->value;
        f->halted_in = f->halted_out = false;
        memset(f->alt, 0, sizeof(f->alt));
    } else {
        if (!f->selected && !f->in_doubt)
            violation(f, "SELECT_INTERFACE before SELECT_CONFIGURATION");
        if (!r->alt || r->alt->interface >= 4)
            violation(f, "SELECT_INTERFACE without a setting");
        else if (ok)
            f->alt[r->alt->interface] = r->alt->alt;
    }
    fake_source_complete(f, i, ok ? USB_STATUS_SUCCESS : USB_STATUS_IOERROR, NULL, 0, false);
}

static void clear_halt(FakeSource *f, unsigned i, uint8_t endpoint)
{
    uint32_t id = f->pending[i].request.id;

    f->clear_halts++;
    if (!known_endpoint(f, endpoint) && !f->in_doubt && !f->pending[i].unwanted)
        violation(f, "CLEAR_HALT of an unknown endpoint");
    if (f->base.quirks & USB_QUIRK_CLEAR_HALT_CANCELS_ALL) {
        uint32_t ids[FAKE_MAX_PENDING];
        unsigned n = 0;

        for (unsigned k = 0; k < f->n_pending; k++) {
            if (f->pending[k].request.kind == USB_REQUEST_BULK ||
                f->pending[k].request.kind == USB_REQUEST_INTERRUPT ||
                f->pending[k].request.kind == USB_REQUEST_ISO)
                ids[n++] = f->pending[k].request.id;
        }
        for (unsigned a = 0; a < n; a++) {
            for (unsigned k = 0; k < f->n_pending; k++) {
                if (f->pending[k].request.id == ids[a]) {
                    fake_source_complete(f, k, USB_STATUS_CANCELLED, NULL, 0,
                                         (f->pending[k].request.endpoint & 0x80) != 0);
                    break;
                }
            }
        }
    }
    *(endpoint & 0x80 ? &f->halted_in : &f->halted_out) = false;
    for (unsigned k = 0; k < f->n_pending; k++) {
        if (f->pending[k].request.id == id) {
            fake_source_complete(f, k, USB_STATUS_SUCCESS, NULL, 0, false);
            return;
        }
    }
}

static bool data_request(FakeSource *f, unsigned i, const UsbRequest *r)
{
    static uint8_t buffer[USB_MAX_TRANSFER_BYTES];
    UsbStatus status = USB_STATUS_SUCCESS;
    uint32_t n = 0;

    if (!f->selected || !known_endpoint(f, r->endpoint)) {
        if (!f->in_doubt && !f->pending[i].unwanted)
            violation(f, "a data request without its endpoint");
        fake_source_complete(f, i, USB_STATUS_IOERROR, NULL, 0, false);
        return true;
    }
    if (f->kind == FAKE_HEADSET)
        return false; /* the test has the clock */
    if (r->endpoint & 0x80 && f->stall_in) {
        f->stall_in--;
        f->halted_in = true;
    }
    if (!(r->endpoint & 0x80)) {
        status = stick_out(f, r, &n);
        fake_source_complete(f, i, status, NULL, n, false);
        return true;
    }
    if (f->kind == FAKE_STICK) {
        if (!stick_in(f, r, &status, buffer, &n))
            return false;
    } else if (f->halted_in) {
        status = USB_STATUS_STALL;
    } else if (f->n_reports > 0) {
        memcpy(buffer, f->reports[0], n = 8);
        memmove(f->reports, f->reports + 1, --f->n_reports * sizeof(f->reports[0]));
    } else {
        return false;
    }
    fake_source_complete(f, i, status, n ? buffer : NULL, n, false);
    return true;
}

/* True if the pending request @i has come to its end. */
static bool carry_out(FakeSource *f, unsigned i)
{
    UsbRequest r = f->pending[i].request;
    uint8_t out[512] = {0};
    unsigned n;

    if (f->pending[i].cancelled) {
        fake_source_complete(f, i, USB_STATUS_CANCELLED, NULL, 0, false);
        return true;
    }
    switch (r.kind) {
    case USB_REQUEST_CONTROL:
        if (f->mute_control)
            return false;
        if (r.length != r.setup.length)
            violation(f, "a control request whose lengths differ");
        if (!control(f, &r, out, &n)) {
            fake_source_complete(f, i, USB_STATUS_STALL, NULL, 0, false);
        } else if (r.setup.request_type & 0x80) {
            n = n < r.length ? n : r.length;
            fake_source_complete(f, i, USB_STATUS_SUCCESS, n ? out : NULL, n, false);
        } else {
            fake_source_complete(f, i, USB_STATUS_SUCCESS, NULL, r.length, false);
        }
        return true;
    case USB_REQUEST_SELECT_CONFIGURATION:
    case USB_REQUEST_SELECT_INTERFACE:
        select_request(f, i, &r);
        return true;
    case USB_REQUEST_CLEAR_HALT:
        clear_halt(f, i, r.endpoint);
        return true;
    case USB_REQUEST_RESET_PORT:
        f->port_resets++;
        if (!(f->base.quirks & USB_QUIRK_RESET_IS_NO_OP)) {
            f->phase = FAKE_CBW;
            f->halted_in = f->halted_out = false;
            f->selected = 0;
        }
        fake_source_complete(f, i, USB_STATUS_SUCCESS, NULL, 0, false);
        return true;
    default:
        return data_request(f, i, &r);
    }
}

unsigned fake_source_run(FakeSource *f)
{
    unsigned n = 0;

    for (unsigned i = 0; i < f->n_pending && !f->hold && !f->base.gone && n < 10000;) {
        if (carry_out(f, i)) {
            n++;
            i = 0; /* the list has changed */
        } else {
            i++;
        }
    }
    return n;
}
