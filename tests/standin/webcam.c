/*
 * A webcam (USB Video Class 1.0): uncompressed YUY2, 160x120, 5 pictures a second, isochronous IN
 * 81 in three alternate settings of different bandwidth, of which the host chooses by what the
 * probe control says.
 *
 * Picture N begins with N (32 bits, little endian); its other bytes are made from N and their
 * place, so that whoever gets it can tell that it is whole.
 */
#include "bus.h"
#include <stdlib.h>
#include <string.h>

#define WIDTH 160
#define HEIGHT 120
#define PICTURE (WIDTH * HEIGHT * 2)
#define PICTURE_MS 200
#define PAYLOAD 512 /* a packet's, header and all */
#define HEADER 2
#define PROBE_BYTES 26

enum { SET_CUR = 0x01, GET_CUR = 0x81, GET_MIN, GET_MAX, GET_RES, GET_LEN, GET_INFO, GET_DEF };
enum { VS_PROBE = 0x0100, VS_COMMIT = 0x0200 };
enum { FRAME_ID = 0x01, END_OF_FRAME = 0x02, END_OF_HEADER = 0x80 };

#define WORD(v) ((v)&0xff), ((v) >> 8 & 0xff)
#define LONG(v) WORD(v), WORD((v) >> 16)

typedef struct Webcam {
    uint32_t number; /* of the picture under way */
    size_t at;       /* bytes of it that were sent; PICTURE: it is over */
    uint64_t commits;
} Webcam;

static const uint8_t association[] = {8, 0x0b, 0, 2, LIBUSB_CLASS_VIDEO, 3, 0, 0};

static const uint8_t control_descs[] = {
    13,
    0x24,
    1,
    WORD(0x0100),
    WORD(40),
    LONG(6000000),
    1,
    1, /* header */
    18,
    0x24,
    2,
    1,
    WORD(0x0201),
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    3,
    0,
    0,
    0, /* 1: camera */
    9,
    0x24,
    3,
    2,
    WORD(0x0101),
    0,
    1,
    0, /* 2: to the host */
};

static const uint8_t stream_descs[] = {
    14,
    0x24,
    1,
    1,
    WORD(77),
    0x81,
    0,
    2,
    0,
    0,
    0,
    1,
    0, /* input header: one format */
    27,
    0x24,
    4,
    1,
    1,
    'Y',
    'U',
    'Y',
    '2',
    0,
    0,
    0x10,
    0,
    0x80,
    0,
    0,
    0xaa,
    0,
    0x38,
    0x9b,
    0x71,
    16,
    1,
    0,
    0,
    0,
    0, /* 16 bits per pixel */
    30,
    0x24,
    5,
    1,
    0,
    WORD(WIDTH),
    WORD(HEIGHT),
    LONG(PICTURE * 8 * 1000 / PICTURE_MS),
    LONG(PICTURE * 8 * 1000 / PICTURE_MS),
    LONG(PICTURE),
    LONG(PICTURE_MS * 10000),
    1,
    LONG(PICTURE_MS * 10000), /* the one picture size and rate */
    6,
    0x24,
    13,
    1,
    1,
    4, /* colours */
};

static const uint8_t streaming[PROBE_BYTES] = {
    0,
    0,
    1,
    1,
    LONG(PICTURE_MS * 10000),
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    LONG(PICTURE),
    LONG(PAYLOAD),
};

static bool webcam_create(Device *d, Options *o, char *err, size_t errsize)
{
    static const uint16_t sizes[] = {192, PAYLOAD, 1020};
    uint8_t interval = d->speed == LIBUSB_SPEED_HIGH ? 4 : 1; /* a millisecond */

    d->state = calloc(1, sizeof(Webcam));
    if (!d->state)
        abort();
    if (d->speed != LIBUSB_SPEED_HIGH && d->speed != LIBUSB_SPEED_FULL) {
        snprintf(err, errsize, "the webcam is full or high speed");
        return false;
    }
    d->device_desc[4] = LIBUSB_CLASS_MISCELLANEOUS; /* with an interface association */
    d->device_desc[5] = 2;
    d->device_desc[6] = 1;
    desc_config(d, 0x80, 250);
    desc_raw(d, association, sizeof(association));
    desc_interface(d, 0, 0, 0, LIBUSB_CLASS_VIDEO, 1, 0);
    desc_raw(d, control_descs, sizeof(control_descs));
    desc_interface(d, 1, 0, 0, LIBUSB_CLASS_VIDEO, 2, 0);
    desc_raw(d, stream_descs, sizeof(stream_descs));
    for (uint8_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        desc_interface(d, 1, i + 1, 1, LIBUSB_CLASS_VIDEO, 2, 0);
        desc_endpoint(d, 0x81, LIBUSB_ENDPOINT_TRANSFER_TYPE_ISOCHRONOUS | 4, sizes[i], interval);
    }
    return true;
}

static void webcam_destroy(Device *d)
{
    free(d->state);
}

static int webcam_control(Device *d, const Setup *s, uint8_t *data)
{
    Webcam *w = d->state;
    size_t n = s->length < PROBE_BYTES ? s->length : PROBE_BYTES;

    if (s->index != 1 || (s->value != VS_PROBE && s->value != VS_COMMIT))
        return IO_STALL;
    if (s->type == 0x21 && s->request == SET_CUR) { /* there is one choice */
        w->commits += s->value == VS_COMMIT;
        return s->length == PROBE_BYTES ? s->length : IO_STALL;
    }
    if (s->type != 0xa1)
        return IO_STALL;
    switch (s->request) {
    case GET_CUR:
    case GET_MIN:
    case GET_MAX:
    case GET_DEF:
        memcpy(data, streaming, n);
        return (int)n;
    case GET_LEN:
        data[0] = PROBE_BYTES;
        data[1] = 0;
        return 2;
    case GET_INFO:
        data[0] = 3; /* it can be read and set */
        return 1;
    default:
        return IO_STALL;
    }
}

static uint8_t pixel_byte(uint32_t number, size_t at)
{
    return at < 4 ? (uint8_t)(number >> 8 * at) : (uint8_t)(at * 7 + (at >> 8) + number * 13);
}

static size_t webcam_iso_in(Device *d, Endpoint *ep, uint8_t *buf, size_t room)
{
    Webcam *w = d->state;
    uint64_t due = ep->iso.slot / PICTURE_MS; /* a slot is a millisecond */
    size_t n = 0;

    if (room < HEADER)
        return 0;
    if (ep->iso.slot == 0 || (w->at == PICTURE && due != w->number)) {
        w->number = (uint32_t)due;
        w->at = 0;
    }
    if (room > PAYLOAD)
        room = PAYLOAD;
    for (; HEADER + n < room && w->at < PICTURE; n++, w->at++)
        buf[HEADER + n] = pixel_byte(w->number, w->at);
    buf[0] = HEADER;
    buf[1] =
        END_OF_HEADER | (w->number & 1 ? FRAME_ID : 0) | (n && w->at == PICTURE ? END_OF_FRAME : 0);
    return HEADER + n;
}

static bool webcam_command(Device *d, const char *verb, char *args, FILE *answer)
{
    Webcam *w = d->state;

    if (strcmp(verb, "state"))
        return false;
    fprintf(answer, "ok picture=%u commits=%llu", w->number, (unsigned long long)w->commits);
    return true;
}

const DeviceOps webcam_ops = {
    .kind = "webcam",
    .product_id = 0x0009,
    .speed = "high",
    .kernel_driver = true,
    .create = webcam_create,
    .destroy = webcam_destroy,
    .control = webcam_control,
    .iso_in = webcam_iso_in,
    .command = webcam_command,
};
