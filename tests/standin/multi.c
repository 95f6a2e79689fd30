/*
 * A composite vendor device with two configurations, for everything a driver may ask of a device:
 *
 *      configuration 1   interface 0   alternate 0 without endpoints
 *                                      alternate 1 bulk 01 to 81
 *                                      alternate 2 bulk 01 to 81, interrupt 02 to 82
 *                        interface 1   bulk 03 to 83
 *      configuration 2   interface 0   bulk 04 to 84
 *
 * What goes into an OUT endpoint comes back. Class and vendor requests to any recipient: 10 OUT
 * keeps its setup packet and data, 11 IN answers with its own setup packet and what was kept.
 * Others stall. Configurations and interfaces have names, and there is a BOS.
 */
#include "bus.h"
#include "echo.h"
#include <stdlib.h>
#include <string.h>

typedef struct Multi {
    Echoes echoes; /* first */
    uint8_t kept[8 + MAX_CONTROL_DATA];
    size_t kept_len;
} Multi;

static void pair(Device *d, uint8_t number, uint8_t attributes, uint16_t mps, uint8_t interval)
{
    desc_endpoint(d, number, attributes, mps, interval);
    desc_endpoint(d, number | 0x80, attributes, mps, interval);
}

static bool multi_create(Device *d, Options *o, char *err, size_t errsize)
{
    static const uint8_t bos[] = {5, LIBUSB_DT_BOS, 12, 0, 1, 7, 0x10, 2, 2, 0, 0, 0};
    const uint8_t bulk = LIBUSB_ENDPOINT_TRANSFER_TYPE_BULK,
                  interrupt = LIBUSB_ENDPOINT_TRANSFER_TYPE_INTERRUPT;
    uint16_t mps = desc_bulk_mps(d);
    Multi *m = calloc(1, sizeof(*m));

    if (!m)
        abort();
    d->state = m;
    echoes_init(&m->echoes);
    if (d->speed != LIBUSB_SPEED_HIGH) {
        snprintf(err, errsize, "it is a high-speed device");
        return false;
    }
    d->device_desc[2] = 0x01; /* USB 2.01: it has a BOS */
    memcpy(d->bos, bos, sizeof(bos));
    d->bos_len = sizeof(bos);
    desc_config(d, 0xe0, 50); /* self-powered, remote wake-up */
    desc_name(d, "first");
    desc_interface(d, 0, 0, 0, LIBUSB_CLASS_VENDOR_SPEC, 1, 2);
    desc_name(d, "settings");
    desc_interface(d, 0, 1, 2, LIBUSB_CLASS_VENDOR_SPEC, 1, 3);
    pair(d, 1, bulk, mps, 0);
    desc_interface(d, 0, 2, 4, LIBUSB_CLASS_VENDOR_SPEC, 1, 4);
    pair(d, 1, bulk, mps, 0);
    pair(d, 2, interrupt, 64, 4);
    desc_interface(d, 1, 0, 2, LIBUSB_CLASS_VENDOR_SPEC, 2, 0);
    pair(d, 3, bulk, mps, 0);
    desc_config(d, 0x80, 250);
    desc_name(d, "second");
    desc_interface(d, 0, 0, 2, LIBUSB_CLASS_VENDOR_SPEC, 3, 0);
    pair(d, 4, bulk, mps, 0);
    return true;
}

static void put_setup(uint8_t *p, const Setup *s)
{
    const uint16_t words[3] = {s->value, s->index, s->length};

    p[0] = s->type;
    p[1] = s->request;
    for (unsigned i = 0; i < 3; i++) {
        p[2 + 2 * i] = words[i] & 0xff;
        p[3 + 2 * i] = (uint8_t)(words[i] >> 8);
    }
}

static int multi_control(Device *d, const Setup *s, uint8_t *data)
{
    uint8_t answer[8 + sizeof(((Multi *)0)->kept)];
    Multi *m = d->state;
    size_t n = s->length;

    if (!(s->type & 0x60) || (s->type & 0x1f) > LIBUSB_RECIPIENT_OTHER)
        return IO_STALL;
    if (s->request == 0x10 && !(s->type & 0x80)) {
        put_setup(m->kept, s);
        memcpy(m->kept + 8, data, n);
        m->kept_len = 8 + n;
        return (int)n;
    }
    if (s->request != 0x11 || !(s->type & 0x80))
        return IO_STALL;
    put_setup(answer, s);
    memcpy(answer + 8, m->kept, m->kept_len);
    if (n > 8 + m->kept_len)
        n = 8 + m->kept_len;
    memcpy(data, answer, n);
    return (int)n;
}

const DeviceOps multi_ops = {
    .kind = "multi",
    .product_id = 0x0004,
    .speed = "high",
    .create = multi_create,
    .destroy = echoes_destroy,
    .reset = echoes_reset,
    .control = multi_control,
    .out = echoes_out,
    .in_avail = echoes_in_avail,
    .in_take = echoes_in_take,
};
