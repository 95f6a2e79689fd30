/*
 * A boot keyboard (HID 1.11, appendix B).
 *
 * Reports typed by the test wait in a queue and leave one per poll; with nothing to say the
 * endpoint NAKs, or repeats the present state at the idle rate if the host has set one.
 */
#include "bus.h"
#include <stdlib.h>
#include <string.h>

#define EP_IN 0x81
#define REPORT_SIZE 8
#define MAX_QUEUE 4096
#define SHIFT 0x02

typedef struct Report {
    TAILQ_ENTRY(Report) link;
    uint8_t bytes[REPORT_SIZE];
} Report;

typedef struct Keyboard {
    TAILQ_HEAD(, Report) queue;
    unsigned queued;
    uint8_t now[REPORT_SIZE]; /* as last sent */
    uint8_t leds;
    uint8_t idle; /* 4 ms each, 0: only changes */
    uint8_t protocol;
    int64_t sent;
} Keyboard;

static const uint8_t report_desc[] = {
    0x05, 0x01,       /* usage page: generic desktop */
    0x09, 0x06,       /* usage: keyboard */
    0xa1, 0x01,       /* collection: application */
    0x05, 0x07,       /*   usage page: keyboard */
    0x19, 0xe0,       /*   usage minimum: left control */
    0x29, 0xe7,       /*   usage maximum: right GUI */
    0x15, 0x00,       /*   logical minimum 0 */
    0x25, 0x01,       /*   logical maximum 1 */
    0x75, 0x01,       /*   report size 1 */
    0x95, 0x08,       /*   report count 8 */
    0x81, 0x02,       /*   input: data, variable: the modifiers */
    0x75, 0x08,       /*   report size 8 */
    0x95, 0x01,       /*   report count 1 */
    0x81, 0x01,       /*   input: constant */
    0x05, 0x08,       /*   usage page: LEDs */
    0x19, 0x01,       /*   usage minimum: num lock */
    0x29, 0x05,       /*   usage maximum: kana */
    0x75, 0x01,       /*   report size 1 */
    0x95, 0x05,       /*   report count 5 */
    0x91, 0x02,       /*   output: data, variable */
    0x75, 0x03,       /*   report size 3 */
    0x95, 0x01,       /*   report count 1 */
    0x91, 0x01,       /*   output: constant */
    0x05, 0x07,       /*   usage page: keyboard */
    0x19, 0x00,       /*   usage minimum 0 */
    0x2a, 0xff, 0x00, /*   usage maximum 255 */
    0x15, 0x00,       /*   logical minimum 0 */
    0x26, 0xff, 0x00, /*   logical maximum 255 */
    0x75, 0x08,       /*   report size 8 */
    0x95, 0x06,       /*   report count 6 */
    0x81, 0x00,       /*   input: data, array: the keys */
    0xc0,             /* end collection */
};

static const uint8_t hid_desc[9] = {
    9, LIBUSB_DT_HID, 0x11, 0x01, 0, 1, LIBUSB_DT_REPORT, sizeof(report_desc), 0,
};

static bool keyboard_create(Device *d, Options *o, char *err, size_t errsize)
{
    Keyboard *k = calloc(1, sizeof(*k));
    bool fast = d->speed >= LIBUSB_SPEED_HIGH;

    if (!k)
        abort();
    d->state = k;
    TAILQ_INIT(&k->queue);
    k->protocol = 1;
    desc_config(d, 0xa0, 50);
    desc_interface(d, 0, 0, 1, LIBUSB_CLASS_HID, 1, 1);
    desc_raw(d, hid_desc, sizeof(hid_desc));
    desc_endpoint(d, EP_IN, LIBUSB_ENDPOINT_TRANSFER_TYPE_INTERRUPT, REPORT_SIZE, fast ? 7 : 10);
    return true;
}

static void clear_queue(Keyboard *k)
{
    Report *r;

    while ((r = TAILQ_FIRST(&k->queue))) {
        TAILQ_REMOVE(&k->queue, r, link);
        free(r);
    }
    k->queued = 0;
}

static void keyboard_destroy(Device *d)
{
    clear_queue(d->state);
    free(d->state);
}

static void keyboard_reset(Device *d)
{
    Keyboard *k = d->state;

    k->leds = 0;
    k->idle = 125; /* 500 ms, as HID 7.2.4 recommends for keyboards */
    k->protocol = 1;
    memset(k->now, 0, sizeof(k->now));
    k->sent = now_ns();
}

static int send_bytes(uint8_t *data, const Setup *s, const void *bytes, size_t n)
{
    if (n > s->length)
        n = s->length;
    memcpy(data, bytes, n);
    return (int)n;
}

static int keyboard_control(Device *d, const Setup *s, uint8_t *data)
{
    Keyboard *k = d->state;

    if (s->index)
        return IO_STALL;
    switch (s->type << 8 | s->request) {
    case 0x8106: /* GET_DESCRIPTOR of the interface */
        if (s->value == LIBUSB_DT_REPORT << 8)
            return send_bytes(data, s, report_desc, sizeof(report_desc));
        if (s->value == LIBUSB_DT_HID << 8)
            return send_bytes(data, s, hid_desc, sizeof(hid_desc));
        return IO_STALL;
    case 0xa101: /* GET_REPORT */
        if (s->value == 0x0100)
            return send_bytes(data, s, k->now, sizeof(k->now));
        return s->value == 0x0200 ? send_bytes(data, s, &k->leds, 1) : IO_STALL;
    case 0xa102: /* GET_IDLE */
        return s->value || s->length != 1 ? IO_STALL : send_bytes(data, s, &k->idle, 1);
    case 0xa103: /* GET_PROTOCOL */
        return s->value || s->length != 1 ? IO_STALL : send_bytes(data, s, &k->protocol, 1);
    case 0x2109: /* SET_REPORT: the LEDs */
        if (s->value != 0x0200 || s->length != 1 || data[0] & 0xe0)
            return IO_STALL;
        k->leds = data[0];
        return 1;
    case 0x210a: /* SET_IDLE */
        if (s->value & 0xff || s->length)
            return IO_STALL;
        k->idle = (uint8_t)(s->value >> 8);
        k->sent = now_ns();
        return 0;
    case 0x210b: /* SET_PROTOCOL */
        if (s->value > 1 || s->length)
            return IO_STALL;
        k->protocol = (uint8_t)s->value;
        return 0;
    default:
        return IO_STALL;
    }
}

static int64_t idle_due(const Keyboard *k)
{
    return k->idle ? k->sent + k->idle * 4 * MS : NEVER;
}

static int64_t keyboard_due(Device *d)
{
    return TAILQ_EMPTY(&device_ep(d, EP_IN)->queue) ? NEVER : idle_due(d->state);
}

static ssize_t keyboard_in_avail(Device *d, Endpoint *ep)
{
    Keyboard *k = d->state;

    return TAILQ_EMPTY(&k->queue) && idle_due(k) > now_ns() ? IO_NAK : REPORT_SIZE;
}

static void keyboard_in_take(Device *d, Endpoint *ep, uint8_t *buf, size_t n)
{
    Keyboard *k = d->state;
    Report *r = TAILQ_FIRST(&k->queue);

    if (r) {
        memcpy(k->now, r->bytes, sizeof(k->now));
        TAILQ_REMOVE(&k->queue, r, link);
        k->queued--;
        free(r);
    }
    memcpy(buf, k->now, n);
    k->sent = now_ns();
}

static ssize_t keyboard_out(Device *d, Endpoint *ep, const uint8_t *data, size_t len)
{
    return IO_STALL; /* there is no OUT endpoint */
}

/* ---- commands ---- */

static bool push(Keyboard *k, uint8_t modifiers, uint8_t usage)
{
    Report *r;

    if (k->queued == MAX_QUEUE)
        return false;
    r = calloc(1, sizeof(*r));
    if (!r)
        abort();
    r->bytes[0] = modifiers;
    r->bytes[2] = usage;
    TAILQ_INSERT_TAIL(&k->queue, r, link);
    k->queued++;
    return true;
}

static bool stroke(Keyboard *k, uint8_t modifiers, uint8_t usage)
{
    return push(k, modifiers, usage) && push(k, 0, 0);
}

/* US layout: HID usage of a character, with SHIFT in the upper byte; 0 if there is none. */
static unsigned usage_of(char c)
{
    static const char plain[] = "\n\x1b\b\t -=[]\\\x01;'`,./";
    static const char shifted[] = "\x01\x01\x01\x01\x01_+{}|\x01:\"~<>?";
    static const char digits[] = "1234567890", symbols[] = "!@#$%^&*()";
    const char *p;

    if (c >= 'a' && c <= 'z')
        return (unsigned)(0x04 + c - 'a');
    if (c >= 'A' && c <= 'Z')
        return (unsigned)(0x04 + c - 'A') | SHIFT << 8;
    if (c > 1 && (p = strchr(digits, c)))
        return (unsigned)(0x1e + p - digits);
    if (c > 1 && (p = strchr(symbols, c)))
        return (unsigned)(0x1e + p - symbols) | SHIFT << 8;
    if (c > 1 && (p = strchr(plain, c)))
        return (unsigned)(0x28 + p - plain);
    if (c > 1 && (p = strchr(shifted, c)))
        return (unsigned)(0x28 + p - shifted) | SHIFT << 8;
    return 0;
}

static void type_text(Keyboard *k, const char *text, FILE *answer)
{
    unsigned n = 0;

    for (; *text; text++, n++) {
        char c = *text;
        unsigned usage;

        if (c == '\\' && strchr("ntebr\\", text[1]) && text[1]) {
            static const char escapes[] = "n\nt\te\x1b"
                                          "b\br\n\\\\";
            c = strchr(escapes, *++text)[1];
        }
        usage = usage_of(c);
        if (!usage || !stroke(k, usage >> 8 & 0xff, usage & 0xff)) {
            fprintf(answer, "error %s after %u characters", usage ? "the queue is full" : "no key",
                    n);
            return;
        }
    }
    fprintf(answer, "ok typed=%u", n);
}

static void type_keys(Keyboard *k, char *args, FILE *answer)
{
    char *end;
    unsigned long modifiers = strtoul(args, &end, 16);
    unsigned n = 0;

    for (char *p = end; *p; p = end, n++) {
        unsigned long usage = strtoul(p, &end, 16);

        if (end == p || usage > 255 || modifiers > 255 ||
            !stroke(k, (uint8_t)modifiers, (uint8_t)usage)) {
            fprintf(answer, "error key NAME MODIFIERS USAGE..., all hexadecimal");
            return;
        }
    }
    fprintf(answer, "ok typed=%u", n);
}

/* Goes down and stays down. */
static void hold_key(Keyboard *k, char *args, FILE *answer)
{
    unsigned long modifiers = strtoul(args, &args, 16);
    unsigned long usage = strtoul(args, NULL, 16);

    fputs(push(k, (uint8_t)modifiers, (uint8_t)usage) ? "ok" : "error the queue is full", answer);
}

static bool keyboard_command(Device *d, const char *verb, char *args, FILE *answer)
{
    Keyboard *k = d->state;

    if (!strcmp(verb, "type"))
        type_text(k, args, answer);
    else if (!strcmp(verb, "key"))
        type_keys(k, args, answer);
    else if (!strcmp(verb, "hold"))
        hold_key(k, args, answer);
    else if (!strcmp(verb, "leds"))
        fprintf(answer, "ok leds=%02x num=%d caps=%d scroll=%d queued=%u", k->leds, k->leds & 1,
                k->leds >> 1 & 1, k->leds >> 2 & 1, k->queued);
    else
        return false;
    return true;
}

const DeviceOps keyboard_ops = {
    .kind = "keyboard",
    .product_id = 0x0002,
    .speed = "full",
    .kernel_driver = true,
    .create = keyboard_create,
    .destroy = keyboard_destroy,
    .reset = keyboard_reset,
    .control = keyboard_control,
    .out = keyboard_out,
    .in_avail = keyboard_in_avail,
    .in_take = keyboard_in_take,
    .due = keyboard_due,
    .command = keyboard_command,
};
