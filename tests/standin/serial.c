/*
 * USB serial adapters with a loop-back plug on the serial side: what is sent comes back, RTS is
 * wired to CTS, DTR to DSR and DCD. Three chips as their Linux drivers know them:
 *
 *      ftdi    FT232R. Each IN packet begins with two status bytes, and every latency timer one
 *              comes without data.
 *      cp210x  CP2102. Silent until enabled.
 *      pl2303  PL2303HX. Modem lines come over an interrupt endpoint.
 *
 * What the chips do in common: bulk packets of 64 bytes, a buffer that fills and makes the OUT
 * endpoint NAK. The drivers: Linux drivers/usb/serial/{ftdi_sio,cp210x,pl2303}.c.
 */
#include "bus.h"
#include <stdlib.h>
#include <string.h>

#define MPS 64
#define FIFO 65536
#define EVENT_SIZE 10 /* of the PL2303's interrupt packets; byte 8 is the line state */

typedef struct Chip Chip;

typedef struct Serial {
    const Chip *chip;
    uint8_t fifo[FIFO];
    size_t head, len;
    size_t flood; /* bytes still to come from the far side */
    bool enabled, dtr, rts;
    bool owes_zero; /* what was sent ended with a full packet */
    uint8_t told;   /* the lines as the host knows them */
    uint32_t baud;
    uint8_t format[7]; /* pl2303: CDC line coding */
    uint8_t registers[256];
    uint16_t bits; /* cp210x: line control */
    uint8_t flow[16];
    uint8_t latency; /* ftdi, ms */
    int64_t sent;
} Serial;

struct Chip {
    uint8_t in, out;
    uint16_t release;
    uint8_t subclass, protocol;
    bool starts_enabled;
    uint8_t cts, dsr, dcd; /* bits of the line state */
};

static const Chip ft232r = {0x81, 0x02, 0x0600, 0xff, 0xff, true, 0x10, 0x20, 0x80};
static const Chip cp2102 = {0x81, 0x01, 0x0100, 0, 0, false, 0x10, 0x20, 0x80};
static const Chip pl2303 = {0x83, 0x02, 0x0300, 0, 0, true, 0x80, 0x02, 0x01};

static uint8_t lines(const Serial *s)
{
    return (uint8_t)((s->rts ? s->chip->cts : 0) | (s->dtr ? s->chip->dsr | s->chip->dcd : 0));
}

static void serial_reset(Device *d)
{
    Serial *s = d->state;

    s->len = s->head = s->flood = 0;
    s->enabled = s->chip->starts_enabled;
    s->dtr = s->rts = s->owes_zero = false;
    s->told = 0xff;
    s->latency = 16;
    s->sent = now_ns();
}

static bool create(Device *d, const Chip *chip, char *err, size_t errsize)
{
    Serial *s = calloc(1, sizeof(*s));

    if (!s)
        abort();
    d->state = s;
    s->chip = chip;
    if (d->speed != LIBUSB_SPEED_FULL) {
        snprintf(err, errsize, "the chip knows full speed only");
        return false;
    }
    desc_device(d, 0, chip->release);
    desc_config(d, 0xa0, 45);
    desc_interface(d, 0, 0, chip == &pl2303 ? 3 : 2, LIBUSB_CLASS_VENDOR_SPEC, chip->subclass,
                   chip->protocol);
    if (chip == &pl2303)
        desc_endpoint(d, 0x81, LIBUSB_ENDPOINT_TRANSFER_TYPE_INTERRUPT, EVENT_SIZE, 1);
    desc_endpoint(d, chip->out, LIBUSB_ENDPOINT_TRANSFER_TYPE_BULK, MPS, 0);
    desc_endpoint(d, chip->in, LIBUSB_ENDPOINT_TRANSFER_TYPE_BULK, MPS, 0);
    return true;
}

static bool ftdi_create(Device *d, Options *o, char *err, size_t errsize)
{
    return create(d, &ft232r, err, errsize);
}

static bool cp210x_create(Device *d, Options *o, char *err, size_t errsize)
{
    return create(d, &cp2102, err, errsize);
}

static bool pl2303_create(Device *d, Options *o, char *err, size_t errsize)
{
    return create(d, &pl2303, err, errsize);
}

static void serial_destroy(Device *d)
{
    free(d->state);
}

/* ---- the serial line ---- */

static void push(Serial *s, const uint8_t *data, size_t n)
{
    for (size_t i = 0; i < n; i++)
        s->fifo[(s->head + s->len++) % FIFO] = data[i];
}

static void pull(Serial *s, uint8_t *data, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        data[i] = s->fifo[s->head];
        s->head = (s->head + 1) % FIFO;
    }
    s->len -= n;
}

/* What the far side has to send moves up as far as there is room. */
static void let_come(Serial *s)
{
    static const uint8_t text[] = "0123456789abcdef";

    while (s->flood > 0 && s->len < FIFO / 2) {
        size_t n = s->flood < 16 ? s->flood : 16;

        push(s, text, n);
        s->flood -= n;
    }
}

static ssize_t serial_out(Device *d, Endpoint *ep, const uint8_t *data, size_t len)
{
    Serial *s = d->state;
    size_t room = FIFO - s->len;

    if (!s->enabled)
        return IO_NAK;
    if (len > room)
        len = room - room % MPS;
    if (len == 0 && room < MPS)
        return IO_NAK;
    push(s, data, len);
    return (ssize_t)len;
}

static ssize_t serial_in_avail(Device *d, Endpoint *ep)
{
    Serial *s = d->state;

    if (ep->address != s->chip->in)
        return lines(s) == s->told ? IO_NAK : EVENT_SIZE;
    if (s->chip == &ft232r) {
        if (s->len == 0)
            return lines(s) == s->told && s->sent + s->latency * MS > now_ns() ? IO_NAK : 2;
        return (ssize_t)(s->len + (s->len + MPS - 3) / (MPS - 2) * 2);
    }
    if (!s->enabled)
        return IO_NAK;
    return s->len ? (ssize_t)s->len : s->owes_zero ? 0 : IO_NAK;
}

static void serial_in_take(Device *d, Endpoint *ep, uint8_t *buf, size_t n)
{
    Serial *s = d->state;

    s->sent = now_ns();
    if (ep->address != s->chip->in) {
        memset(buf, 0, n);
        buf[8] = s->told = lines(s);
        return;
    }
    if (s->chip != &ft232r) {
        s->owes_zero = n > 0 && n == s->len && n % MPS == 0;
        pull(s, buf, n);
        let_come(s);
        return;
    }
    for (size_t at = 0; at < n; at += MPS) {
        size_t packet = n - at < MPS ? n - at : MPS;

        buf[at] = 0x01 | lines(s);
        buf[at + 1] = 0x60; /* the transmitter is empty */
        pull(s, buf + at + 2, packet - 2);
    }
    s->told = lines(s);
    let_come(s);
}

static int64_t ftdi_due(Device *d)
{
    Serial *s = d->state;

    return TAILQ_EMPTY(&device_ep(d, s->chip->in)->queue) ? NEVER : s->sent + s->latency * MS;
}

/* ---- requests ---- */

static int reply(uint8_t *data, const Setup *setup, const void *bytes, size_t n)
{
    if (n > setup->length)
        n = setup->length;
    memcpy(data, bytes, n);
    return (int)n;
}

static uint32_t get32(const uint8_t *p)
{
    return p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put32(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

/* FTDI's divisor of 3 MHz, with eighths in an order of its own. */
static uint32_t ftdi_baud(uint16_t value, uint16_t index)
{
    static const uint8_t eighths[8] = {0, 4, 2, 1, 3, 5, 6, 7};
    uint32_t divisor = (value & 0x3fffu) * 8 + eighths[value >> 14 | (index & 1) << 2];

    return divisor ? 24000000 / divisor : 3000000;
}

static int ftdi_control(Device *d, const Setup *r, uint8_t *data)
{
    Serial *s = d->state;
    uint8_t status[2] = {0x01 | lines(s), 0x60}, erased[2] = {0xff, 0xff};

    switch (r->type << 8 | r->request) {
    case 0x4000: /* RESET: all, or a buffer; the loop has only the receiving one */
        if (r->value <= 1)
            s->len = 0;
        return 0;
    case 0x4001: /* MODEM_CTRL: new values, and above them which */
        s->dtr = r->value & 0x100 ? r->value & 1 : s->dtr;
        s->rts = r->value & 0x200 ? r->value & 2 : s->rts;
        return 0;
    case 0x4003: /* SET_BAUD_RATE */
        s->baud = ftdi_baud(r->value, r->index);
        return 0;
    case 0x4009: /* SET_LATENCY_TIMER */
        if (r->value < 1 || r->value > 255)
            return IO_STALL;
        s->latency = (uint8_t)r->value;
        return 0;
    case 0x4002: /* SET_FLOW_CTRL */
    case 0x4004: /* SET_DATA */
    case 0x4006: /* SET_EVENT_CHAR */
    case 0x4007: /* SET_ERROR_CHAR */
        return r->length ? IO_STALL : 0;
    case 0xc005: /* GET_MODEM_STATUS */
        return reply(data, r, status, 2);
    case 0xc00a: /* GET_LATENCY_TIMER */
        return reply(data, r, &s->latency, 1);
    case 0xc090: /* READ_EEPROM */
        return reply(data, r, erased, 2);
    default:
        return IO_STALL;
    }
}

static int cp210x_set(Serial *s, const Setup *r, const uint8_t *data)
{
    switch (r->request) {
    case 0x00: /* IFC_ENABLE */
        s->enabled = r->value & 1;
        s->len = 0;
        return 0;
    case 0x03: /* SET_LINE_CTL */
        s->bits = r->value;
        return 0;
    case 0x07: /* SET_MHS */
        s->dtr = r->value & 0x100 ? r->value & 1 : s->dtr;
        s->rts = r->value & 0x200 ? r->value & 2 : s->rts;
        return 0;
    case 0x12: /* PURGE */
        if (r->value & 0x0a)
            s->len = 0;
        return 0;
    case 0x13: /* SET_FLOW */
        if (r->length != sizeof(s->flow))
            return IO_STALL;
        memcpy(s->flow, data, sizeof(s->flow));
        return r->length;
    case 0x1e: /* SET_BAUDRATE */
        if (r->length != 4)
            return IO_STALL;
        s->baud = get32(data);
        return 4;
    case 0x05: /* SET_BREAK */
    case 0x15: /* EMBED_EVENTS */
        return 0;
    case 0x19: /* SET_CHARS */
        return r->length == 6 ? 6 : IO_STALL;
    default:
        return IO_STALL;
    }
}

static int cp210x_control(Device *d, const Setup *r, uint8_t *data)
{
    Serial *s = d->state;
    uint8_t bytes[19] = {0}, part = 0x02;

    if (r->type == 0x41)
        return r->index ? IO_STALL : cp210x_set(s, r, data);
    switch (r->type << 8 | r->request) {
    case 0xc0ff: /* VENDOR_SPECIFIC: GET_PARTNUM */
        return r->value == 0x370b ? reply(data, r, &part, 1) : IO_STALL;
    case 0xc104: /* GET_LINE_CTL */
        bytes[0] = s->bits & 0xff;
        bytes[1] = (uint8_t)(s->bits >> 8);
        return reply(data, r, bytes, 2);
    case 0xc108: /* GET_MDMSTS */
        bytes[0] = (uint8_t)(lines(s) | s->dtr | s->rts << 1);
        return reply(data, r, bytes, 1);
    case 0xc110: /* GET_COMM_STATUS: nothing waits */
        return reply(data, r, bytes, 19);
    case 0xc114: /* GET_FLOW */
        return reply(data, r, s->flow, sizeof(s->flow));
    case 0xc11d: /* GET_BAUDRATE */
        put32(bytes, s->baud);
        return reply(data, r, bytes, 4);
    default:
        return IO_STALL;
    }
}

static int pl2303_control(Device *d, const Setup *r, uint8_t *data)
{
    Serial *s = d->state;

    switch (r->type << 8 | r->request) {
    case 0x4001: /* vendor write; 8 and 9 reset the two directions */
        s->registers[r->value & 0xff] = r->index & 0xff;
        if (r->value == 8 || r->value == 9)
            s->len = 0;
        return 0;
    case 0xc001: /* vendor read */
        return reply(data, r, &s->registers[r->value & 0x7f], 1);
    case 0x2120: /* SET_LINE_CODING */
        if (r->length != sizeof(s->format))
            return IO_STALL;
        memcpy(s->format, data, sizeof(s->format));
        s->baud = get32(data);
        return r->length;
    case 0xa121: /* GET_LINE_CODING */
        return reply(data, r, s->format, sizeof(s->format));
    case 0x2122: /* SET_CONTROL_LINE_STATE */
        s->dtr = r->value & 1;
        s->rts = r->value & 2;
        return 0;
    case 0x2123: /* SEND_BREAK */
        return 0;
    default:
        return IO_STALL;
    }
}

/* ---- commands ---- */

static bool serial_command(Device *d, const char *verb, char *args, FILE *answer)
{
    Serial *s = d->state;

    if (!strcmp(verb, "send")) { /* a line of text arrives */
        size_t n = strlen(args);

        if (n + 1 > FIFO - s->len) {
            fputs("error the buffer is full", answer);
            return true;
        }
        push(s, (const uint8_t *)args, n);
        push(s, (const uint8_t *)"\n", 1);
        fprintf(answer, "ok sent=%zu", n + 1);
    } else if (!strcmp(verb, "flood")) { /* so many bytes arrive, as fast as they are fetched */
        s->flood = strtoul(args, NULL, 10);
        let_come(s);
        fprintf(answer, "ok flood=%zu", s->flood);
    } else if (!strcmp(verb, "state")) {
        fprintf(answer, "ok baud=%u dtr=%d rts=%d waiting=%zu", s->baud, s->dtr, s->rts,
                s->len + s->flood);
    } else {
        return false;
    }
    return true;
}

#define SERIAL_OPS(NAME, VID, PID, DUE)                                                            \
    const DeviceOps NAME##_ops = {                                                                 \
        .kind = #NAME,                                                                             \
        .vendor_id = VID,                                                                          \
        .product_id = PID,                                                                         \
        .speed = "full",                                                                           \
        .kernel_driver = true,                                                                     \
        .create = NAME##_create,                                                                   \
        .destroy = serial_destroy,                                                                 \
        .reset = serial_reset,                                                                     \
        .control = NAME##_control,                                                                 \
        .out = serial_out,                                                                         \
        .in_avail = serial_in_avail,                                                               \
        .in_take = serial_in_take,                                                                 \
        .due = DUE,                                                                                \
        .command = serial_command,                                                                 \
    }

SERIAL_OPS(ftdi, 0x0403, 0x6001, ftdi_due);
SERIAL_OPS(cp210x, 0x10c4, 0xea60, NULL);
SERIAL_OPS(pl2303, 0x067b, 0x2303, NULL);
