/*
 * A USB Audio 1.0 headset: a stereo speaker (interface 1, isochronous OUT 01) and a mono microphone
 * (interface 2, isochronous IN 82), 16 bits, 48 and 44.1 kHz, set per endpoint as UAC1 does it.
 *
 * The speaker keeps what it gets: with `record=PATH` each packet goes into that file as its slot
 * (32 bits), its length (16 bits) and its bytes, little endian. The microphone hears a tone of
 * 1 kHz, always beginning with the stream. With `sync=async` the speaker has a clock of its own and
 * a feedback endpoint (83) that tells its rate in 10.14 format; the default is adaptive.
 */
#include "bus.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define EP_SPEAKER 0x01
#define EP_MICROPHONE 0x82
#define EP_FEEDBACK 0x83
#define MAX_FRAMES 49 /* per millisecond: 48 and one for a host that catches up */
#define TONE_HZ 1000
#define TONE_LEVEL 8000
#define ADAPTIVE 0x08
#define ASYNCHRONOUS 0x04

enum { SET_CUR = 0x01, GET_CUR = 0x81, SAMPLING_FREQ_CONTROL = 0x01 };

typedef struct Stream {
    uint32_t rate;
    uint64_t packets, bytes, frames;
} Stream;

typedef struct Headset {
    bool async;
    Stream speaker, microphone;
    FILE *record;
} Headset;

static void audio_control(Device *d)
{
    static const uint8_t header[] = {10, 0x24, 1, 0x00, 0x01, 52, 0, 2, 1, 2};
    static const uint8_t terminals[] = {
        12, 0x24, 2, 1, 0x01, 0x01, 0, 2, 3, 0, 0, 0, /* 1: what the host plays, left and right */
        9,  0x24, 3, 2, 0x02, 0x04, 0, 1, 0,          /* 2: headset speaker, from 1 */
        12, 0x24, 2, 3, 0x02, 0x04, 0, 1, 0, 0, 0, 0, /* 3: headset microphone */
        9,  0x24, 3, 4, 0x01, 0x01, 0, 3, 0,          /* 4: what the host records, from 3 */
    };

    desc_interface(d, 0, 0, 0, LIBUSB_CLASS_AUDIO, 1, 0);
    desc_raw(d, header, sizeof(header));
    desc_raw(d, terminals, sizeof(terminals));
}

/* UAC1 endpoints have two bytes more than others. */
static void audio_endpoint(Device *d, uint8_t address, uint8_t sync, uint16_t size, uint8_t refresh,
                           uint8_t sync_address)
{
    const uint8_t more[] = {refresh, sync_address};
    uint8_t interval = d->speed >= LIBUSB_SPEED_HIGH ? 4 : 1;
    Config *c = &d->configs[d->n_configs - 1];

    desc_endpoint(d, address, LIBUSB_ENDPOINT_TRANSFER_TYPE_ISOCHRONOUS | sync, size, interval);
    c->bytes[c->len - 7] = 9;
    desc_raw(d, more, sizeof(more));
}

static void audio_stream(Device *d, uint8_t interface, uint8_t terminal, uint8_t channels,
                         uint8_t address, bool async)
{
    const uint8_t general[] = {7, 0x24, 1, terminal, 1, 1, 0}; /* PCM */
    const uint8_t format[] = {14, 0x24, 2,    1,    channels, 2,    16,
                              2,  0x44, 0xac, 0x00, 0x80,     0xbb, 0x00}; /* 44100, 48000 */
    static const uint8_t control[] = {7, 0x25, 1, SAMPLING_FREQ_CONTROL, 0, 0, 0};
    bool in = address & 0x80, feedback = async && !in;

    desc_interface(d, interface, 0, 0, LIBUSB_CLASS_AUDIO, 2, 0);
    desc_interface(d, interface, 1, feedback ? 2 : 1, LIBUSB_CLASS_AUDIO, 2, 0);
    desc_raw(d, general, sizeof(general));
    desc_raw(d, format, sizeof(format));
    audio_endpoint(d, address, in || async ? ASYNCHRONOUS : ADAPTIVE,
                   (uint16_t)(MAX_FRAMES * 2 * channels), 0, feedback ? EP_FEEDBACK : 0);
    desc_raw(d, control, sizeof(control));
    if (feedback)
        audio_endpoint(d, EP_FEEDBACK, 0, 3, 2, 0);
}

static bool headset_create(Device *d, Options *o, char *err, size_t errsize)
{
    Headset *h = calloc(1, sizeof(*h));
    char buf[1024];
    const char *value;

    if (!h)
        abort();
    d->state = h;
    h->speaker.rate = h->microphone.rate = 48000;
    if ((value = option_take(o, "sync", buf, sizeof(buf)))) {
        h->async = !strcmp(value, "async");
        if (!h->async && strcmp(value, "adaptive")) {
            snprintf(err, errsize, "sync is adaptive or async");
            return false;
        }
    }
    if ((value = option_take(o, "record", buf, sizeof(buf))) && !(h->record = fopen(value, "we"))) {
        snprintf(err, errsize, "cannot write %.200s", value);
        return false;
    }
    d->device_desc[2] = 0x00; /* USB 2.0, and full speed all the same: as most of them */
    d->device_desc[3] = 0x02;
    desc_config(d, 0x80, 50);
    audio_control(d);
    audio_stream(d, 1, 1, 2, EP_SPEAKER, h->async);
    audio_stream(d, 2, 4, 1, EP_MICROPHONE, true);
    return true;
}

static void headset_destroy(Device *d)
{
    Headset *h = d->state;

    if (h->record)
        fclose(h->record);
    free(h);
}

static void headset_reset(Device *d)
{
    Headset *h = d->state;

    h->speaker.rate = h->microphone.rate = 48000;
}

static int headset_control(Device *d, const Setup *s, uint8_t *data)
{
    Headset *h = d->state;
    Stream *stream = s->index == EP_SPEAKER      ? &h->speaker
                     : s->index == EP_MICROPHONE ? &h->microphone
                                                 : NULL;
    uint32_t rate;

    if (!stream || s->value != SAMPLING_FREQ_CONTROL << 8 || s->length != 3)
        return IO_STALL;
    switch (s->type << 8 | s->request) {
    case 0x2200 | SET_CUR:
        rate = data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16;
        if (rate != 44100 && rate != 48000)
            return IO_STALL;
        stream->rate = rate;
        return 3;
    case 0xa200 | GET_CUR:
        for (unsigned i = 0; i < 3; i++)
            data[i] = stream->rate >> 8 * i & 0xff;
        return 3;
    default:
        return IO_STALL;
    }
}

static void headset_iso_out(Device *d, Endpoint *ep, const uint8_t *data, size_t len, uint64_t slot)
{
    Headset *h = d->state;
    const uint8_t head[] = {slot & 0xff,       slot >> 8 & 0xff, slot >> 16 & 0xff,
                            slot >> 24 & 0xff, len & 0xff,       len >> 8 & 0xff};

    h->speaker.packets++;
    h->speaker.bytes += len;
    if (h->record) {
        fwrite(head, 1, sizeof(head), h->record);
        fwrite(data, 1, len, h->record);
    }
}

static size_t feedback(const Headset *h, uint8_t *buf)
{
    uint32_t value = (uint32_t)(((uint64_t)h->speaker.rate << 14) / 1000);

    for (unsigned i = 0; i < 3; i++)
        buf[i] = value >> 8 * i & 0xff;
    return 3;
}

static size_t headset_iso_in(Device *d, Endpoint *ep, uint8_t *buf, size_t room)
{
    Headset *h = d->state;
    Stream *m = &h->microphone;

    if (ep->address == EP_FEEDBACK)
        return room >= 3 ? feedback(h, buf) : 0;
    if (ep->iso.slot == 0)
        *m = (Stream){.rate = m->rate};
    /* as many as a clock of this rate has made by the end of the slot */
    uint64_t until = ++m->packets * m->rate / 1000;
    size_t n = (size_t)(until - m->frames);

    if (2 * n > room)
        return 0;
    for (size_t i = 0; i < n; i++, m->frames++) {
        double phase = 2 * M_PI * TONE_HZ * (double)(m->frames % m->rate) / m->rate;
        int16_t sample = (int16_t)lrint(TONE_LEVEL * sin(phase));

        buf[2 * i] = sample & 0xff;
        buf[2 * i + 1] = (uint16_t)sample >> 8;
    }
    m->bytes += 2 * n;
    return 2 * n;
}

static bool headset_command(Device *d, const char *verb, char *args, FILE *answer)
{
    Headset *h = d->state;

    if (strcmp(verb, "audio") != 0)
        return false;
    if (h->record)
        fflush(h->record);
    fprintf(answer, "ok speaker.rate=%u speaker.packets=%llu speaker.bytes=%llu", h->speaker.rate,
            (unsigned long long)h->speaker.packets, (unsigned long long)h->speaker.bytes);
    fprintf(answer, " microphone.rate=%u microphone.packets=%llu microphone.bytes=%llu",
            h->microphone.rate, (unsigned long long)h->microphone.packets,
            (unsigned long long)h->microphone.bytes);
    return true;
}

const DeviceOps headset_ops = {
    .kind = "headset",
    .product_id = 0x0008,
    .speed = "full",
    .kernel_driver = true,
    .create = headset_create,
    .destroy = headset_destroy,
    .reset = headset_reset,
    .control = headset_control,
    .iso_out = headset_iso_out,
    .iso_in = headset_iso_in,
    .command = headset_command,
};
