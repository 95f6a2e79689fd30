/*
 * A security key as a host sees it before any cryptography: the HID transport of CTAP (FIDO CTAP
 * 2.1, section 11.2). INIT hands out a channel, PING echoes, WINK is acknowledged, all else is an
 * invalid command. Messages of more than one report go both ways.
 */
#include "bus.h"
#include <stdlib.h>
#include <string.h>

#define REPORT 64
#define MAX_MESSAGE 7609 /* what 128 continuations hold */
#define MAX_REPORTS 256
#define FIRST_DATA (REPORT - 7)
#define NEXT_DATA (REPORT - 5)
#define CHANNEL 0x12090005u

enum { CMD_PING = 0x81, CMD_INIT = 0x86, CMD_WINK = 0x88, CMD_ERROR = 0xbf };
enum { ERR_INVALID_CMD = 1, ERR_INVALID_SEQ = 4 };

typedef struct Fido {
    uint8_t message[MAX_MESSAGE];
    size_t len, have; /* of the message that comes in; len 0: none */
    uint8_t command, sequence;
    uint8_t reports[MAX_REPORTS][REPORT]; /* on their way to the host */
    unsigned head, queued, winks;
} Fido;

static const uint8_t report_desc[] = {
    0x06, 0xd0,   0xf1, /* usage page: FIDO alliance */
    0x09, 0x01,         /* usage: U2F authenticator device */
    0xa1, 0x01,         /* collection: application */
    0x09, 0x20,         /*   usage: data in */
    0x15, 0x00,         /*   logical minimum 0 */
    0x26, 0xff,   0x00, /*   logical maximum 255 */
    0x75, 0x08,         /*   report size 8 */
    0x95, REPORT,       /*   report count */
    0x81, 0x02,         /*   input: data, variable */
    0x09, 0x21,         /*   usage: data out */
    0x15, 0x00,         /*   logical minimum 0 */
    0x26, 0xff,   0x00, /*   logical maximum 255 */
    0x75, 0x08,         /*   report size 8 */
    0x95, REPORT,       /*   report count */
    0x91, 0x02,         /*   output: data, variable */
    0xc0,               /* end collection */
};

static const uint8_t hid_desc[9] = {
    9, LIBUSB_DT_HID, 0x10, 0x01, 0, 1, LIBUSB_DT_REPORT, sizeof(report_desc), 0,
};

static bool fido_create(Device *d, Options *o, char *err, size_t errsize)
{
    d->state = calloc(1, sizeof(Fido));
    if (!d->state)
        abort();
    if (d->speed != LIBUSB_SPEED_FULL) {
        snprintf(err, errsize, "security keys are full speed");
        return false;
    }
    desc_config(d, 0x80, 15);
    desc_interface(d, 0, 0, 2, LIBUSB_CLASS_HID, 0, 0);
    desc_raw(d, hid_desc, sizeof(hid_desc));
    desc_endpoint(d, 0x01, LIBUSB_ENDPOINT_TRANSFER_TYPE_INTERRUPT, REPORT, 2);
    desc_endpoint(d, 0x81, LIBUSB_ENDPOINT_TRANSFER_TYPE_INTERRUPT, REPORT, 2);
    return true;
}

static void fido_destroy(Device *d)
{
    free(d->state);
}

static void fido_reset(Device *d)
{
    Fido *f = d->state;

    f->len = f->queued = f->head = 0;
}

static int fido_control(Device *d, const Setup *s, uint8_t *data)
{
    const void *bytes = s->value == LIBUSB_DT_REPORT << 8 ? (const void *)report_desc : hid_desc;
    size_t n = s->value == LIBUSB_DT_REPORT << 8 ? sizeof(report_desc) : sizeof(hid_desc);

    if (s->type == 0x21 && s->request == 0x0a && !s->length) /* SET_IDLE */
        return 0;
    if (s->type != 0x81 || s->request != LIBUSB_REQUEST_GET_DESCRIPTOR || s->index ||
        (s->value != LIBUSB_DT_REPORT << 8 && s->value != LIBUSB_DT_HID << 8))
        return IO_STALL;
    if (n > s->length)
        n = s->length;
    memcpy(data, bytes, n);
    return (int)n;
}

static void put_channel(uint8_t *p, uint32_t channel)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(channel >> (24 - 8 * i));
}

static uint8_t *next_report(Fido *f, uint32_t channel)
{
    uint8_t *report = f->reports[(f->head + f->queued++) % MAX_REPORTS];

    memset(report, 0, REPORT);
    put_channel(report, channel);
    return report;
}

static void respond(Fido *f, uint32_t channel, uint8_t command, const uint8_t *data, size_t len)
{
    size_t at = len < FIRST_DATA ? len : FIRST_DATA, n;
    uint8_t *report = next_report(f, channel);

    report[4] = command;
    report[5] = (uint8_t)(len >> 8);
    report[6] = len & 0xff;
    memcpy(report + 7, data, at);
    for (uint8_t sequence = 0; at < len; at += n, sequence++) {
        n = len - at < NEXT_DATA ? len - at : NEXT_DATA;
        report = next_report(f, channel);
        report[4] = sequence;
        memcpy(report + 5, data + at, n);
    }
}

static void respond_error(Fido *f, uint32_t channel, uint8_t code)
{
    f->len = 0;
    respond(f, channel, CMD_ERROR, &code, 1);
}

static void carry_out(Fido *f, uint32_t channel)
{
    uint8_t init[17] = {0};
    size_t len = f->len;

    f->len = 0;
    if (f->command == CMD_INIT && len == 8) {
        memcpy(init, f->message, 8); /* the nonce */
        put_channel(init + 8, CHANNEL);
        init[12] = 2; /* protocol */
        init[13] = 1; /* device version */
        init[16] = 1; /* it winks */
        respond(f, channel, CMD_INIT, init, sizeof(init));
    } else if (channel == CHANNEL && f->command == CMD_PING) {
        respond(f, channel, CMD_PING, f->message, len);
    } else if (channel == CHANNEL && f->command == CMD_WINK) {
        f->winks++;
        respond(f, channel, CMD_WINK, NULL, 0);
    } else {
        respond_error(f, channel, ERR_INVALID_CMD);
    }
}

static ssize_t fido_out(Device *d, Endpoint *ep, const uint8_t *data, size_t len)
{
    Fido *f = d->state;
    size_t n;

    if (len != REPORT)
        return IO_STALL;
    if (f->queued > MAX_REPORTS / 2) /* the longest answer must fit */
        return IO_NAK;
    uint32_t channel =
        (uint32_t)data[0] << 24 | (uint32_t)data[1] << 16 | (uint32_t)data[2] << 8 | data[3];
    if (data[4] & 0x80) {
        f->command = data[4];
        f->len = (size_t)(data[5] << 8 | data[6]);
        f->have = f->sequence = 0;
        if (f->len > MAX_MESSAGE) {
            respond_error(f, channel, ERR_INVALID_CMD);
            return REPORT;
        }
        if (f->len == 0) {
            carry_out(f, channel);
            return REPORT;
        }
        n = f->len < FIRST_DATA ? f->len : FIRST_DATA;
        memcpy(f->message, data + 7, n);
    } else {
        if (f->len == 0 || data[4] != f->sequence++) {
            respond_error(f, channel, ERR_INVALID_SEQ);
            return REPORT;
        }
        n = f->len - f->have < NEXT_DATA ? f->len - f->have : NEXT_DATA;
        memcpy(f->message + f->have, data + 5, n);
    }
    f->have += n;
    if (f->have == f->len)
        carry_out(f, channel);
    return REPORT;
}

static ssize_t fido_in_avail(Device *d, Endpoint *ep)
{
    Fido *f = d->state;

    return f->queued ? REPORT : IO_NAK;
}

static void fido_in_take(Device *d, Endpoint *ep, uint8_t *buf, size_t n)
{
    Fido *f = d->state;

    memcpy(buf, f->reports[f->head], n);
    f->head = (f->head + 1) % MAX_REPORTS;
    f->queued--;
}

static bool fido_command(Device *d, const char *verb, char *args, FILE *answer)
{
    Fido *f = d->state;

    if (strcmp(verb, "winks"))
        return false;
    fprintf(answer, "ok winks=%u", f->winks);
    return true;
}

const DeviceOps fido_ops = {
    .kind = "fido",
    .product_id = 0x0005,
    .speed = "full",
    .kernel_driver = true,
    .create = fido_create,
    .destroy = fido_destroy,
    .reset = fido_reset,
    .control = fido_control,
    .out = fido_out,
    .in_avail = fido_in_avail,
    .in_take = fido_in_take,
    .command = fido_command,
};
