/*
 * A smart-card reader (CCID 1.1) with one slot, and a card that answers to power on and gives back
 * the data of each APDU followed by 90 00. Slot changes are told over the interrupt endpoint.
 */
#include "bus.h"
#include <stdlib.h>
#include <string.h>

#define HEADER 10
#define MAX_BLOCK 261 /* a short APDU */
#define MAX_MESSAGE (HEADER + MAX_BLOCK + 2)
#define EP_EVENT 0x83

enum { POWER_ON = 0x62, POWER_OFF = 0x63, SLOT_STATUS = 0x65, TRANSFER_BLOCK = 0x6f };
enum { DATA_BLOCK = 0x80, SLOT_STATUS_REPLY = 0x81, NOTIFY_SLOT_CHANGE = 0x50 };
enum { CARD_ACTIVE, CARD_INACTIVE, CARD_ABSENT }; /* bmICCStatus */
enum { FAILED = 0x40, ERROR_MUTE = 0xfe, ERROR_UNSUPPORTED = 0x00, ERROR_LENGTH = 0x01 };

typedef struct Ccid {
    uint8_t status; /* of the card */
    bool notify;
    uint8_t in[MAX_MESSAGE]; /* what the host is sending */
    size_t in_len;
    uint8_t out[MAX_MESSAGE]; /* the answer */
    size_t out_len, out_at;
} Ccid;

static const uint8_t atr[] = {0x3b, 0x84, 0x80, 0x01, 'q', 'r', 'd', 'p', 0x01};

static const uint8_t ccid_desc[54] = {
    54,
    0x21,
    0x10,
    0x01,
    0,
    7, /* one slot, 5 V, 3 V and 1.8 V */
    2,
    0,
    0,
    0, /* T=1 */
    0xa0,
    0x0f,
    0,
    0,
    0xa0,
    0x0f,
    0,
    0,
    0, /* 4 MHz */
    0x80,
    0x25,
    0,
    0,
    0x80,
    0x25,
    0,
    0,
    0, /* 9600 bit/s */
    254,
    0,
    0,
    0, /* IFSD */
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0xba,
    0x04,
    2,
    0, /* automatic parameters, short APDUs */
    (HEADER + MAX_BLOCK) & 0xff,
    (HEADER + MAX_BLOCK) >> 8,
    0,
    0,
    0xff,
    0xff,
    0,
    0,
    0,
    1,
};

static bool ccid_create(Device *d, Options *o, char *err, size_t errsize)
{
    d->state = calloc(1, sizeof(Ccid));
    if (!d->state)
        abort();
    if (d->speed != LIBUSB_SPEED_FULL) {
        snprintf(err, errsize, "the reader knows full speed only");
        return false;
    }
    desc_config(d, 0x80, 50);
    desc_interface(d, 0, 0, 3, LIBUSB_CLASS_SMART_CARD, 0, 0);
    desc_raw(d, ccid_desc, sizeof(ccid_desc));
    desc_endpoint(d, 0x01, LIBUSB_ENDPOINT_TRANSFER_TYPE_BULK, 64, 0);
    desc_endpoint(d, 0x82, LIBUSB_ENDPOINT_TRANSFER_TYPE_BULK, 64, 0);
    desc_endpoint(d, EP_EVENT, LIBUSB_ENDPOINT_TRANSFER_TYPE_INTERRUPT, 8, 16);
    return true;
}

static void ccid_destroy(Device *d)
{
    free(d->state);
}

static void ccid_reset(Device *d)
{
    Ccid *c = d->state;

    if (c->status == CARD_ACTIVE)
        c->status = CARD_INACTIVE;
    c->notify = true;
    c->in_len = c->out_len = c->out_at = 0;
}

static int ccid_control(Device *d, const Setup *s, uint8_t *data)
{
    static const uint8_t clock[4] = {0xa0, 0x0f}, rate[4] = {0x80, 0x25};
    size_t n = s->length < 4 ? s->length : 4;

    if (s->type == 0x21 && s->request == 0x01 && !s->length) /* ABORT */
        return 0;
    if (s->type != 0xa1 || (s->request != 0x02 && s->request != 0x03))
        return IO_STALL;
    memcpy(data, s->request == 0x02 ? clock : rate, n);
    return (int)n;
}

static void answer(Ccid *c, uint8_t type, uint8_t failure, const uint8_t *data, size_t len)
{
    uint8_t *p = c->out;

    memset(p, 0, HEADER);
    p[0] = type;
    p[1] = len & 0xff;
    p[2] = (uint8_t)(len >> 8);
    p[6] = c->in[6]; /* sequence */
    p[7] = c->status | (failure != 0xff ? FAILED : 0);
    p[8] = failure != 0xff ? failure : 0;
    if (len)
        memcpy(p + HEADER, data, len);
    c->out_len = HEADER + len;
    c->out_at = 0;
}

static void carry_out(Ccid *c)
{
    size_t len = c->in_len - HEADER;
    uint8_t reply[MAX_BLOCK + 2] = {0};

    c->in_len = 0;
    if (c->in[0] == SLOT_STATUS) {
        answer(c, SLOT_STATUS_REPLY, 0xff, NULL, 0);
    } else if (c->in[0] == POWER_OFF) {
        c->status = c->status == CARD_ACTIVE ? CARD_INACTIVE : c->status;
        answer(c, SLOT_STATUS_REPLY, 0xff, NULL, 0);
    } else if (c->in[0] == POWER_ON && c->status != CARD_ABSENT) {
        c->status = CARD_ACTIVE;
        answer(c, DATA_BLOCK, 0xff, atr, sizeof(atr));
    } else if (c->in[0] == POWER_ON || (c->in[0] == TRANSFER_BLOCK && c->status != CARD_ACTIVE)) {
        answer(c, DATA_BLOCK, ERROR_MUTE, NULL, 0);
    } else if (c->in[0] == TRANSFER_BLOCK) {
        size_t n = len > 5 ? len - 5 : 0; /* behind CLA INS P1 P2 Lc */

        memcpy(reply, c->in + HEADER + 5, n);
        reply[n] = 0x90;
        answer(c, DATA_BLOCK, 0xff, reply, n + 2);
    } else {
        answer(c, SLOT_STATUS_REPLY, ERROR_UNSUPPORTED, NULL, 0);
    }
}

static ssize_t ccid_out(Device *d, Endpoint *ep, const uint8_t *data, size_t len)
{
    Ccid *c = d->state;

    if (c->out_len) /* one at a time */
        return IO_NAK;
    if (len > HEADER + MAX_BLOCK - c->in_len)
        return IO_STALL;
    memcpy(c->in + c->in_len, data, len);
    c->in_len += len;
    if (c->in_len >= HEADER && c->in_len >= HEADER + (size_t)(c->in[1] | c->in[2] << 8))
        carry_out(c);
    return (ssize_t)len;
}

static ssize_t ccid_in_avail(Device *d, Endpoint *ep)
{
    Ccid *c = d->state;

    if (ep->address == EP_EVENT)
        return c->notify ? 2 : IO_NAK;
    return c->out_len ? (ssize_t)(c->out_len - c->out_at) : IO_NAK;
}

static void ccid_in_take(Device *d, Endpoint *ep, uint8_t *buf, size_t n)
{
    Ccid *c = d->state;

    if (ep->address == EP_EVENT) {
        buf[0] = NOTIFY_SLOT_CHANGE;
        buf[1] = c->status == CARD_ABSENT ? 2 : 3; /* changed, and present */
        c->notify = false;
        return;
    }
    memcpy(buf, c->out + c->out_at, n);
    c->out_at += n;
    if (c->out_at == c->out_len)
        c->out_len = 0;
}

static bool ccid_command(Device *d, const char *verb, char *args, FILE *f)
{
    Ccid *c = d->state;

    if (strcmp(verb, "card"))
        return false;
    c->status = strcmp(args, "out") ? CARD_INACTIVE : CARD_ABSENT;
    c->notify = true;
    fputs("ok", f);
    return true;
}

const DeviceOps ccid_ops = {
    .kind = "ccid",
    .product_id = 0x0006,
    .speed = "full",
    .create = ccid_create,
    .destroy = ccid_destroy,
    .reset = ccid_reset,
    .control = ccid_control,
    .out = ccid_out,
    .in_avail = ccid_in_avail,
    .in_take = ccid_in_take,
    .command = ccid_command,
};
