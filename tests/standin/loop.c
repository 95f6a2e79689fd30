/*
 * A vendor device that sends back what it gets: bulk OUT 01 to bulk IN 81, and in alternate 1
 * also interrupt OUT 02 to interrupt IN 82. Packets keep their boundaries.
 *
 * Vendor requests to the device: 01 OUT stores up to 4096 bytes, 02 IN reads them back, 03 IN
 * tells how many bytes wait in the bulk loop (32 bits), 04 drops them.
 */
#include "bus.h"
#include "echo.h"
#include <stdlib.h>
#include <string.h>

typedef struct Loop {
    Echoes echoes; /* first */
    uint8_t stored[MAX_CONTROL_DATA];
    size_t stored_len;
} Loop;

static bool loop_create(Device *d, Options *o, char *err, size_t errsize)
{
    Loop *l = calloc(1, sizeof(*l));
    uint16_t mps = desc_bulk_mps(d), small = d->speed == LIBUSB_SPEED_LOW ? 8 : 64;

    if (!l)
        abort();
    d->state = l;
    echoes_init(&l->echoes);
    if (d->speed == LIBUSB_SPEED_LOW) {
        snprintf(err, errsize, "low speed has no bulk endpoints");
        return false;
    }
    desc_config(d, 0x80, 50);
    for (uint8_t alt = 0; alt < 2; alt++) {
        desc_interface(d, 0, alt, alt ? 4 : 2, LIBUSB_CLASS_VENDOR_SPEC, 0, 0);
        desc_endpoint(d, 0x81, LIBUSB_ENDPOINT_TRANSFER_TYPE_BULK, mps, 0);
        desc_endpoint(d, 0x01, LIBUSB_ENDPOINT_TRANSFER_TYPE_BULK, mps, 0);
        if (alt) {
            desc_endpoint(d, 0x82, LIBUSB_ENDPOINT_TRANSFER_TYPE_INTERRUPT, small, 1);
            desc_endpoint(d, 0x02, LIBUSB_ENDPOINT_TRANSFER_TYPE_INTERRUPT, small, 1);
        }
    }
    return true;
}

static int loop_control(Device *d, const Setup *s, uint8_t *data)
{
    Loop *l = d->state;
    uint32_t waiting;

    if (s->value || s->index)
        return IO_STALL;
    switch (s->type << 8 | s->request) {
    case 0x4001:
        memcpy(l->stored, data, s->length);
        l->stored_len = s->length;
        return s->length;
    case 0xc002:
        waiting = (uint32_t)(s->length < l->stored_len ? s->length : l->stored_len);
        memcpy(data, l->stored, waiting);
        return (int)waiting;
    case 0xc003:
        if (s->length != 4)
            return IO_STALL;
        waiting = (uint32_t)l->echoes.pipes[0].waiting;
        for (unsigned i = 0; i < 4; i++)
            data[i] = waiting >> 8 * i & 0xff;
        return 4;
    case 0x4004:
        echo_drop(&l->echoes.pipes[0]);
        return s->length ? IO_STALL : 0;
    default:
        return IO_STALL;
    }
}

const DeviceOps loop_ops = {
    .kind = "loop",
    .product_id = 0x0003,
    .speed = "high",
    .create = loop_create,
    .destroy = echoes_destroy,
    .reset = echoes_reset,
    .control = loop_control,
    .out = echoes_out,
    .in_avail = echoes_in_avail,
    .in_take = echoes_in_take,
};
