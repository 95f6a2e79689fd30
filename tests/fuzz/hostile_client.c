#include "hostile_client.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "urbdrc.h"
#include "urbdrc_pdu.h"

#define MAX_REQUESTS 2048u
#define MAX_CHANNELS DVC_MAX_OPENS
#define CBW_BYTES 31u
#define CSW_BYTES 13u
#define CSW_STATUS 12u /* its last byte */
#define SENSE_BYTES 18u
/* Bytes of one completion: more than any request may ask for. */
#define DATA_BYTES (USB_MAX_TRANSFER_BYTES + 65536u)

typedef struct Profile {
    uint8_t device[18];
    uint16_t len;
    const uint8_t *config;
} Profile;

typedef struct Request {
    size_t channel;
    uint32_t id;
    bool cancelled;
    uint8_t *raw; /* the server's message */
    size_t len;
} Request;

/* What the client remembers of one channel. */
typedef struct Channel {
    unsigned profile;
    uint16_t patch_at;
    uint8_t patch, config;
    uint32_t completions; /* RequestCompletion, once registered */
    uint32_t tag;         /* of the last command block */
    uint8_t command;      /* its first byte */
    bool announced;
} Channel;

struct HostileClient {
    DvcManager *manager;
    unsigned profile;
    uint32_t usb_device;
    uint16_t patch_at;
    uint8_t patch;
    Channel channels[MAX_CHANNELS];
    Request requests[MAX_REQUESTS];
    unsigned n;
    UrbdrcScratch scratch;
};

/* --- the devices --- */

#define CONFIG(bytes, interfaces, value) 9, 2, (bytes), 0, (interfaces), (value), 0, 0x80, 50
#define INTERFACE(n, alt, eps, class, sub, protocol)                                               \
    9, 4, (n), (alt), (eps), (class), (sub), (protocol), 0
#define ENDPOINT(address, type, size, interval)                                                    \
    7, 5, (address), (type), (size)&0xff, (size) >> 8, (interval)

static const uint8_t stick[] = {CONFIG(32, 1, 1), INTERFACE(0, 0, 2, 8, 6, 0x50),
                                ENDPOINT(0x81, 2, 512, 0), ENDPOINT(0x02, 2, 512, 0)};
static const uint8_t keyboard[] = {
    CONFIG(34, 1, 1),        INTERFACE(0, 0, 1, 3, 1, 1), 9, 0x21, 0x11, 1, 0, 1, 0x22, 63, 0,
    ENDPOINT(0x81, 3, 8, 10)};
static const uint8_t headset[] = {CONFIG(84, 4, 1),
                                  INTERFACE(0, 0, 0, 1, 1, 0),
                                  INTERFACE(1, 0, 0, 1, 2, 0),
                                  INTERFACE(1, 1, 1, 1, 2, 0),
                                  ENDPOINT(0x01, 9, 192, 4),
                                  INTERFACE(2, 0, 0, 1, 2, 0),
                                  INTERFACE(2, 1, 1, 1, 2, 0),
                                  ENDPOINT(0x82, 5, 96, 4),
                                  INTERFACE(3, 0, 1, 3, 0, 0),
                                  ENDPOINT(0x83, 3, 4, 8)};
static const uint8_t serial[] = {CONFIG(32, 1, 1), INTERFACE(0, 0, 2, 255, 255, 255),
                                 ENDPOINT(0x81, 2, 64, 0), ENDPOINT(0x02, 2, 64, 0)};
/* Everything at once, and settings that have the same endpoint with another type. */
static const uint8_t composite[] = {CONFIG(101, 2, 1),
                                    INTERFACE(0, 0, 3, 2, 2, 1),
                                    ENDPOINT(0x81, 3, 16, 1),
                                    ENDPOINT(0x82, 2, 512, 0),
                                    ENDPOINT(0x02, 2, 512, 0),
                                    INTERFACE(1, 0, 0, 14, 2, 0),
                                    INTERFACE(1, 1, 2, 14, 2, 0),
                                    ENDPOINT(0x83, 5, 0x1400, 1),
                                    ENDPOINT(0x03, 3, 64, 1),
                                    INTERFACE(1, 2, 3, 14, 2, 0),
                                    ENDPOINT(0x83, 2, 512, 0),
                                    ENDPOINT(0x03, 1, 188, 1),
                                    ENDPOINT(0x04, 2, 512, 0)};

#define DEVICE(vid, pid)                                                                           \
    {                                                                                              \
        18, 1, 0, 2, 0, 0, 0, 64, (vid)&0xff, (vid) >> 8, (pid)&0xff, (pid) >> 8, 0, 1, 1, 2, 3, 1 \
    }
static const Profile profiles[HOSTILE_PROFILES] = {
    {DEVICE(0x1209, 1), sizeof(stick), stick},
    {DEVICE(0x1209, 2), sizeof(keyboard), keyboard},
    {DEVICE(0x1209, 3), sizeof(headset), headset},
    {DEVICE(0x0403, 0x6001), sizeof(serial), serial},
    {DEVICE(0x1209, 5), sizeof(composite), composite},
};

/* --- sending --- */

static const uint8_t *filling(void)
{
    static uint8_t *bytes;

    if (!bytes) {
        bytes = malloc(DATA_BYTES);
        for (size_t i = 0; i < DATA_BYTES; i++)
            bytes[i] = (uint8_t)(i * 7);
    }
    return bytes;
}

static void send_bytes(HostileClient *c, size_t channel, const uint8_t *data, size_t len)
{
    fake_dvc_receive(fake_dvc_nth(c->manager, channel), data, len);
}

static void send_message(HostileClient *c, size_t channel, const UrbdrcMessage *m)
{
    Writer w;

    writer_init(&w, URBDRC_MAX_MESSAGE);
    urbdrc_write_message(&w, m);
    assert(writer_ok(&w));
    send_bytes(c, channel, w.data, w.len);
    writer_clear(&w);
}

void hostile_client_announce(HostileClient *c)
{
    send_message(c, 0,
                 &(UrbdrcMessage){.kind = URBDRC_ADD_VIRTUAL_CHANNEL,
                                  .interface_id = URBDRC_INTERFACE_DEVICE_SINK});
}

static void add_device(HostileClient *c, size_t channel)
{
    Channel *ch = &c->channels[channel];
    static const UrbdrcString id = {(const uint8_t *)"U\0S\0B\0\\\0V\0I\0D\0\0\0\0", 9};

    ch->announced = true;
    ch->profile = c->profile;
    ch->patch_at = c->patch_at;
    ch->patch = c->patch;
    send_message(c, channel,
                 &(UrbdrcMessage){.kind = URBDRC_ADD_DEVICE,
                                  .interface_id = URBDRC_INTERFACE_DEVICE_SINK,
                                  .add_device = {.usb_device = c->usb_device,
                                                 .hardware_ids = id,
                                                 .bus_interface_version = 2,
                                                 .usbdi_version = 0x600,
                                                 .supported_usb_version = 0x200,
                                                 .is_high_speed = 1,
                                                 .no_ack_jitter_ms = c->usb_device >= 5 ? 80 : 0}});
}

/* --- what a proper answer holds --- */

/* An interface of the profile as SELECT_* answers it. */
static bool interface_result(const Channel *ch, uint8_t number, uint8_t alt,
                             UrbdrcInterfaceResult *r)
{
    const Profile *p = &profiles[ch->profile];
    bool inside = false, found = false;

    *r = (UrbdrcInterfaceResult){.number = number, .alt = alt, .handle = 0x77u + number};
    for (uint16_t at = 0; at + 2 <= p->len && p->config[at] >= 2; at += p->config[at]) {
        const uint8_t *d = p->config + at;
        if (d[1] == 4) {
            inside = d[2] == number && d[3] == alt;
            found |= inside;
        } else if (d[1] == 5 && inside) {
            r->pipes[r->n_pipes++] = (UrbdrcPipeResult){
                .endpoint = d[2], .handle = 0xabc00000u | (uint32_t)alt << 8 | d[2]};
        }
    }
    return found;
}

static void select_result(const Channel *ch, const UrbdrcUrb *urb, Writer *w)
{
    static UrbdrcInterfaceResult results[URBDRC_MAX_INTERFACES];
    uint32_t n = 0;

    if (urb->function == URB_SELECT_INTERFACE) {
        const UrbdrcInterface *i = urb->select_interface.interface;
        interface_result(ch, i->number, i->alt, &results[0]);
        urbdrc_write_interface_result(w, &results[0]);
        return;
    }
    for (uint32_t i = 0; i < urb->select_configuration.n_interfaces; i++) {
        const UrbdrcInterface *asked = &urb->select_configuration.interfaces[i];
        if (interface_result(ch, asked->number, asked->alt, &results[n]))
            n++;
    }
    urbdrc_write_select_configuration_result(w, 0xc0c0, n, results);
}

static uint32_t descriptor(Channel *ch, uint8_t type, uint8_t index, uint8_t *out, uint32_t room)
{
    static const uint8_t text[] = {10, 3, 'f', 0, 'u', 0, 'z', 0, 'z', 0},
                         languages[] = {4, 3, 9, 4};
    const Profile *p = &profiles[ch->profile];
    const uint8_t *from = text;
    uint32_t len = sizeof(text);

    if (type == 1) {
        from = p->device;
        len = sizeof(p->device);
    } else if (type == 2) {
        from = p->config;
        len = p->len;
    } else if (type == 3 && index == 0) {
        from = languages;
        len = sizeof(languages);
    } else if (type != 3) {
        return 0;
    }
    len = len < room ? len : room;
    memcpy(out, from, len);
    if (type == 2 && ch->patch_at < len && ch->patch_at > 0)
        out[ch->patch_at] ^= ch->patch;
    return len;
}

/* An answer of mass storage that is told by what it says; false: any bytes will do. */
static bool storage_data(Channel *ch, uint32_t wanted, uint8_t *own)
{
    static const uint8_t was_reset[SENSE_BYTES] = {0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 2};

    if (ch->profile != 0 || !ch->tag)
        return false;
    if (wanted == SENSE_BYTES && ch->command == 3) {
        memcpy(own, was_reset, SENSE_BYTES);
        return true;
    }
    if (wanted != CSW_BYTES)
        return false;
    memcpy(own, "USBS", 4);
    memcpy(own + 4, &ch->tag, 4); /* back as it came */
    memset(own + 8, 0, 5);
    ch->tag = 0;
    return true;
}

/* The bytes of an IN transfer; most are the filling, at once or from @own. */
static const uint8_t *in_data(Channel *ch, const UrbdrcMessage *m, uint8_t *own, uint32_t *len)
{
    const UrbdrcUrb *u = &m->transfer.urb;

    *len = m->transfer.output_size;
    if (u->function == URB_GET_DESCRIPTOR_FROM_DEVICE) {
        *len =
            descriptor(ch, u->descriptor.type, u->descriptor.index, own, *len < 4096 ? *len : 4096);
        return own;
    }
    if (u->function == URB_CONTROL_TRANSFER || u->function == URB_CONTROL_TRANSFER_EX) {
        const uint8_t *s = u->control.setup;
        if (s[0] == 0x80 && s[1] == 6) {
            *len = descriptor(ch, s[3], s[2], own, *len < 4096 ? *len : 4096);
            return own;
        }
    }
    return u->function == URB_BULK_OR_INTERRUPT_TRANSFER && storage_data(ch, *len, own) ? own
                                                                                        : filling();
}

typedef struct Answer {
    UrbdrcMessage message;
    Writer result;
    UrbdrcIsoPacket packets[URBDRC_MAX_ISO_PACKETS];
    uint8_t own[4096];
} Answer;

static void proper_transfer(HostileClient *c, const Request *q, const UrbdrcMessage *m, Answer *a)
{
    Channel *ch = &c->channels[q->channel];
    const UrbdrcUrb *u = &m->transfer.urb;
    UrbdrcMessage *r = &a->message;

    r->kind = URBDRC_URB_COMPLETION_NO_DATA;
    if (m->kind == URBDRC_TRANSFER_OUT) {
        r->completion.output_size = m->transfer.output_size;
        if (m->transfer.output_size == CBW_BYTES && memcmp(m->transfer.output, "USBC", 4) == 0) {
            memcpy(&ch->tag, m->transfer.output + 4, 4);
            ch->command = m->transfer.output[15];
        }
    }
    if (u->function == URB_SELECT_CONFIGURATION || u->function == URB_SELECT_INTERFACE)
        select_result(ch, u, &a->result);
    else if (u->function == URB_ISOCH_TRANSFER) {
        for (uint32_t i = 0; i < u->iso.n_packets; i++)
            a->packets[i] =
                (UrbdrcIsoPacket){.offset = u->iso.packets[i].offset,
                                  .length = (i + 1 < u->iso.n_packets ? u->iso.packets[i + 1].offset
                                                                      : m->transfer.output_size) -
                                            u->iso.packets[i].offset};
        urbdrc_write_isoch_result(&a->result, 0, 0, u->iso.n_packets, a->packets);
    }
    if (m->kind == URBDRC_TRANSFER_IN && u->function != URB_SELECT_CONFIGURATION &&
        u->function != URB_SELECT_INTERFACE) {
        uint32_t len;
        r->completion.data = in_data(ch, m, a->own, &len);
        r->completion.data_len = r->completion.output_size = len;
        r->kind = len ? URBDRC_URB_COMPLETION : URBDRC_URB_COMPLETION_NO_DATA;
    }
    r->completion.result = a->result.data;
    r->completion.result_len = a->result.len;
}

/* A proper answer to @q. */
static void proper(HostileClient *c, const Request *q, const UrbdrcMessage *m, Answer *a)
{
    Channel *ch = &c->channels[q->channel];

    a->message = (UrbdrcMessage){.interface_id = ch->completions,
                                 .message_id = m->message_id,
                                 .completion = {.request_id = q->id}};
    if (m->kind == URBDRC_TRANSFER_IN || m->kind == URBDRC_TRANSFER_OUT)
        proper_transfer(c, q, m, a);
    else
        a->message.kind = URBDRC_IOCONTROL_COMPLETION;
    if (q->cancelled) {
        a->message.completion.usbd_status = USBD_STATUS_CANCELED;
        a->message.completion.output_size = 0;
        a->message.completion.data_len = 0;
    }
}

/* --- answering --- */

static void spoil(Answer *a, const UrbdrcMessage *m, HostileHow how, uint16_t arg)
{
    static const uint32_t errors[] = {USBD_LIBUSB_ERROR,
                                      USBD_LIBUSB_TIMED_OUT,
                                      USBD_LIBUSB_CANCELLED,
                                      USBD_LIBUSB_STALL,
                                      USBD_LIBUSB_NO_DEVICE,
                                      USBD_LIBUSB_OVERFLOW,
                                      USBD_STATUS_DEV_NOT_RESPONDING,
                                      USBD_STATUS_DATA_OVERRUN,
                                      USBD_STATUS_BABBLE,
                                      USBD_STATUS_NOT_SUPPORTED,
                                      USBD_STATUS_TIMEOUT,
                                      USBD_STATUS_DEVICE_GONE,
                                      USBD_STATUS_CANCELED,
                                      USBD_STATUS_INVALID_PIPE_HANDLE,
                                      USBD_STATUS_SHORT_TRANSFER,
                                      0xffffffffu,
                                      7};
    UrbdrcMessage *r = &a->message;
    bool data = r->kind == URBDRC_URB_COMPLETION;

    switch (how) {
    case HOSTILE_SHORT:
        r->completion.output_size =
            (uint32_t)((uint64_t)r->completion.output_size * (arg & 255) / 256);
        if (data)
            r->completion.data_len = r->completion.output_size;
        break;
    case HOSTILE_STALL:
        r->completion.usbd_status = USBD_STATUS_STALL_PID;
        r->completion.output_size = 0;
        r->completion.data_len = 0;
        break;
    case HOSTILE_ERROR:
        r->completion.usbd_status = errors[arg % (sizeof(errors) / sizeof(errors[0]))];
        r->completion.hresult = arg & 0x100 ? 0x80004005u : 0;
        if (!(arg & 0x200))
            r->completion.output_size = 0, r->completion.data_len = 0;
        break;
    case HOSTILE_OVERSIZE:
        r->kind = URBDRC_URB_COMPLETION;
        r->completion.data = filling();
        r->completion.output_size = m->transfer.output_size % USB_MAX_TRANSFER_BYTES + 1 + arg;
        r->completion.data_len = r->completion.output_size;
        break;
    case HOSTILE_CLAIM:
        r->completion.output_size += 1u + ((uint32_t)arg << (arg & 15));
        break;
    case HOSTILE_WRONG_KIND:
        r->kind = r->kind == URBDRC_IOCONTROL_COMPLETION ? URBDRC_URB_COMPLETION_NO_DATA
                                                         : URBDRC_IOCONTROL_COMPLETION;
        break;
    case HOSTILE_FAILED:
        if (data && r->completion.data_len == CSW_BYTES && memcmp(a->own, "USBS", 4) == 0)
            a->own[CSW_STATUS] = 1;
        break;
    case HOSTILE_WRONG_ID:
        r->completion.request_id = (r->completion.request_id + 1 + arg) & 0x7fffffffu;
        break;
    default:
        break;
    }
}

static void send_spoilt(HostileClient *c, size_t channel, const UrbdrcMessage *m, HostileHow how,
                        uint16_t arg)
{
    Writer w;

    writer_init(&w, URBDRC_MAX_MESSAGE);
    urbdrc_write_message(&w, m);
    assert(writer_ok(&w));
    size_t len = w.len;
    if (how == HOSTILE_MUTATED)
        w.data[(arg >> 8) % w.len] ^= (uint8_t)(arg | 1);
    if (how == HOSTILE_CUT)
        len = arg % w.len;
    send_bytes(c, channel, w.data, len);
    writer_clear(&w);
}

static void forget(HostileClient *c, unsigned index)
{
    free(c->requests[index].raw);
    memmove(&c->requests[index], &c->requests[index + 1],
            (c->n - index - 1) * sizeof(c->requests[0]));
    c->n--;
}

void hostile_client_answer(HostileClient *c, unsigned index, HostileHow how, uint16_t arg)
{
    static Answer a;
    UrbdrcMessage m;
    Request q = c->requests[index];

    assert(index < c->n);
    c->requests[index].raw = NULL; /* answering may bring new ones */
    forget(c, index);
    assert(!urbdrc_parse_from_server(q.raw, q.len, &m, &c->scratch));
    writer_init(&a.result, 1 << 16);
    proper(c, &q, &m, &a);
    spoil(&a, &m, how, arg);
    if (how != HOSTILE_NEVER && !fake_dvc_dead(fake_dvc_nth(c->manager, q.channel))) {
        send_spoilt(c, q.channel, &a.message, how, arg);
        if (how == HOSTILE_TWICE)
            send_spoilt(c, q.channel, &a.message, how, arg);
    }
    writer_clear(&a.result);
    free(q.raw);
}

unsigned hostile_client_pending(const HostileClient *c)
{
    return c->n;
}

/* --- reading --- */

/* Whatever happened before, a server keeps within its limits and its ids. Twice the limit on
 * requests: the channel adds some of its own (barriers). */
static void check_request(const HostileClient *c, size_t channel, const UrbdrcMessage *m,
                          uint32_t id)
{
    unsigned live = 0;

    assert(id > 0 && id <= USB_MAX_REQUEST_ID);
    for (unsigned i = 0; i < c->n; i++) {
        const Request *q = &c->requests[i];
        if (q->channel == channel && !q->cancelled) {
            assert(q->id != id);
            live++;
        }
    }
    if (m->kind == URBDRC_TRANSFER_IN || m->kind == URBDRC_TRANSFER_OUT)
        assert(m->transfer.output_size <= USB_MAX_TRANSFER_BYTES);
    assert(live <= 2 * USB_MAX_IN_FLIGHT);
}

static void keep(HostileClient *c, size_t channel, const UrbdrcMessage *m, uint32_t id,
                 uint8_t *raw, size_t len)
{
    check_request(c, channel, m, id);
    if (c->n == MAX_REQUESTS)
        forget(c, 0);
    c->requests[c->n++] = (Request){.channel = channel, .id = id, .raw = raw, .len = len};
}

static void cancelled(HostileClient *c, size_t channel, uint32_t id)
{
    for (unsigned i = 0; i < c->n; i++)
        if (c->requests[i].channel == channel && c->requests[i].id == id)
            c->requests[i].cancelled = true;
}

/* Takes one message; false if its memory was kept. */
static bool take(HostileClient *c, size_t channel, uint8_t *raw, size_t len)
{
    Channel *ch = &c->channels[channel];
    UrbdrcMessage m;
    const char *wrong = urbdrc_parse_from_server(raw, len, &m, &c->scratch);

    assert(!wrong);
    switch (m.kind) {
    case URBDRC_CAPS_REQUEST:
        send_message(c, channel,
                     &(UrbdrcMessage){
                         .kind = URBDRC_CAPS_RESPONSE, .message_id = m.message_id, .caps = {1, 0}});
        break;
    case URBDRC_CHANNEL_CREATED:
        send_message(c, channel,
                     &(UrbdrcMessage){.kind = URBDRC_CHANNEL_CREATED,
                                      .interface_id = URBDRC_INTERFACE_TO_SERVER,
                                      .created.major = 1});
        if (channel == 0)
            hostile_client_announce(c);
        else if (!ch->announced && !fake_dvc_dead(fake_dvc_nth(c->manager, channel)))
            add_device(c, channel);
        break;
    case URBDRC_REGISTER_CALLBACK:
        ch->completions = m.callback.n ? m.callback.request_completion : 0;
        break;
    case URBDRC_CANCEL_REQUEST:
        cancelled(c, channel, m.cancel.request_id);
        break;
    case URBDRC_TRANSFER_IN:
    case URBDRC_TRANSFER_OUT:
        keep(c, channel, &m, m.transfer.urb.request_id, raw, len);
        return false;
    case URBDRC_IO_CONTROL:
    case URBDRC_INTERNAL_IO_CONTROL:
        keep(c, channel, &m, m.io_control.request_id, raw, len);
        return false;
    case URBDRC_RETRACT_DEVICE:
        fake_dvc_end(fake_dvc_nth(c->manager, channel), DVC_CLOSED_BY_CLIENT);
        break;
    default:
        break;
    }
    return true;
}

bool hostile_client_read(HostileClient *c)
{
    bool any = false;

    for (size_t i = 0; i < fake_dvc_count(c->manager); i++) {
        Dvc *dvc = fake_dvc_nth(c->manager, i);
        size_t len;
        uint8_t *raw;
        while ((raw = fake_dvc_take(dvc, &len))) {
            any = true;
            if (fake_dvc_dead(dvc) || take(c, i, raw, len))
                free(raw);
        }
    }
    return any;
}

void hostile_client_patch(HostileClient *c, uint16_t offset, uint8_t value)
{
    c->patch_at = offset;
    c->patch = value;
}

void hostile_client_profile(HostileClient *c, unsigned profile)
{
    c->profile = profile % HOSTILE_PROFILES;
}

HostileClient *hostile_client_new(DvcManager *manager, unsigned profile, uint32_t usb_device)
{
    HostileClient *c = calloc(1, sizeof(*c));

    assert(c);
    c->manager = manager;
    c->usb_device = usb_device;
    hostile_client_profile(c, profile);
    return c;
}

void hostile_client_free(HostileClient *c)
{
    while (c->n > 0)
        forget(c, c->n - 1);
    free(c);
}
