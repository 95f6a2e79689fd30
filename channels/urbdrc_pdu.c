/*
 * Messages of MS-RDPEUSB (2.2.1 to 2.2.8, 2.2.11).
 *
 * The header's interface id does not say what a message is: UsbDevice and RequestCompletion are
 * chosen by the peers and Windows chooses 0, so they collide with the fixed ids. Messages are
 * therefore told apart by mask, FunctionId and length, and by whether the channel has a device yet
 * (UrbdrcPhase); a response has no FunctionId at all.
 */
#include "urbdrc_pdu.h"

#include <string.h>

enum {
    FN_RELEASE = 0x001,
    FN_QUERY_INTERFACE = 0x002,
    FN_100 = 0x100, /* capability request, CHANNEL_CREATED, ADD_VIRTUAL_CHANNEL, CANCEL_REQUEST,
                     * IOCONTROL_COMPLETION */
    FN_101 = 0x101, /* ADD_DEVICE, REGISTER_REQUEST_CALLBACK, URB_COMPLETION */
    FN_102 = 0x102, /* IO_CONTROL, URB_COMPLETION_NO_DATA */
    FN_INTERNAL_IO_CONTROL = 0x103,
    FN_QUERY_DEVICE_TEXT = 0x104,
    FN_TRANSFER_IN = 0x105,
    FN_TRANSFER_OUT = 0x106,
    FN_RETRACT_DEVICE = 0x107,
};

#define RESPONSE_HEADER_BYTES 8u
#define REQUEST_HEADER_BYTES 12u
#define RESULT_HEADER_BYTES 8u
#define DEVICE_CAPABILITIES_BYTES 28u
#define CHANNEL_CREATED_BYTES 24u
#define CAPS_BYTES 16u
#define GUID_BYTES 16u

/* How each kind goes out: with FunctionId or, for a response, without. */
static const struct KindInfo {
    const char *name;
    UrbdrcMask mask;
    uint32_t function; /* 0: a response */
} kinds[] = {
    [URBDRC_RELEASE] = {"RIMCALL_RELEASE", URBDRC_STREAM_ID_PROXY, FN_RELEASE},
    [URBDRC_QUERY_INTERFACE] = {"RIMCALL_QUERYINTERFACE", URBDRC_STREAM_ID_PROXY,
                                FN_QUERY_INTERFACE},
    [URBDRC_QUERY_INTERFACE_RSP] = {"QI_RSP", URBDRC_STREAM_ID_STUB, 0},
    [URBDRC_CAPS_REQUEST] = {"RIM_EXCHANGE_CAPABILITY_REQUEST", URBDRC_STREAM_ID_NONE, FN_100},
    [URBDRC_CAPS_RESPONSE] = {"RIM_EXCHANGE_CAPABILITY_RESPONSE", URBDRC_STREAM_ID_NONE, 0},
    [URBDRC_CHANNEL_CREATED] = {"CHANNEL_CREATED", URBDRC_STREAM_ID_PROXY, FN_100},
    [URBDRC_ADD_VIRTUAL_CHANNEL] = {"ADD_VIRTUAL_CHANNEL", URBDRC_STREAM_ID_PROXY, FN_100},
    [URBDRC_ADD_DEVICE] = {"ADD_DEVICE", URBDRC_STREAM_ID_PROXY, FN_101},
    [URBDRC_CANCEL_REQUEST] = {"CANCEL_REQUEST", URBDRC_STREAM_ID_PROXY, FN_100},
    [URBDRC_REGISTER_CALLBACK] = {"REGISTER_REQUEST_CALLBACK", URBDRC_STREAM_ID_PROXY, FN_101},
    [URBDRC_IO_CONTROL] = {"IO_CONTROL", URBDRC_STREAM_ID_PROXY, FN_102},
    [URBDRC_INTERNAL_IO_CONTROL] = {"INTERNAL_IO_CONTROL", URBDRC_STREAM_ID_PROXY,
                                    FN_INTERNAL_IO_CONTROL},
    [URBDRC_QUERY_DEVICE_TEXT] = {"QUERY_DEVICE_TEXT", URBDRC_STREAM_ID_PROXY,
                                  FN_QUERY_DEVICE_TEXT},
    [URBDRC_QUERY_DEVICE_TEXT_RSP] = {"QUERY_DEVICE_TEXT_RSP", URBDRC_STREAM_ID_STUB, 0},
    [URBDRC_TRANSFER_IN] = {"TRANSFER_IN_REQUEST", URBDRC_STREAM_ID_PROXY, FN_TRANSFER_IN},
    [URBDRC_TRANSFER_OUT] = {"TRANSFER_OUT_REQUEST", URBDRC_STREAM_ID_PROXY, FN_TRANSFER_OUT},
    [URBDRC_RETRACT_DEVICE] = {"RETRACT_DEVICE", URBDRC_STREAM_ID_PROXY, FN_RETRACT_DEVICE},
    [URBDRC_IOCONTROL_COMPLETION] = {"IOCONTROL_COMPLETION", URBDRC_STREAM_ID_PROXY, FN_100},
    [URBDRC_URB_COMPLETION] = {"URB_COMPLETION", URBDRC_STREAM_ID_PROXY, FN_101},
    [URBDRC_URB_COMPLETION_NO_DATA] = {"URB_COMPLETION_NO_DATA", URBDRC_STREAM_ID_PROXY, FN_102},
};

const char *urbdrc_kind_name(UrbdrcKind kind)
{
    return (size_t)kind < sizeof(kinds) / sizeof(kinds[0]) ? kinds[kind].name : "?";
}

/* ---- strings ---- */

static uint32_t string_unit(UrbdrcString s, uint32_t i)
{
    return (uint32_t)s.units[2 * i] | (uint32_t)s.units[2 * i + 1] << 8;
}

const char *urbdrc_string_text(UrbdrcString s, char *out, size_t size)
{
    size_t o = 0;

    for (uint32_t i = 0; i < s.n_units; i++) {
        uint32_t c = string_unit(s, i);
        char utf8[4];
        size_t n;

        if (c == 0)
            break;
        if (c >= 0xd800 && c < 0xdc00 && i + 1 < s.n_units) {
            uint32_t low = string_unit(s, i + 1);
            if (low >= 0xdc00 && low < 0xe000) {
                c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
                i++;
            }
        }
        if (c >= 0xd800 && c < 0xe000)
            c = 0xfffd;
        if (c < 0x80) {
            utf8[0] = (char)c;
            n = 1;
        } else if (c < 0x800) {
            utf8[0] = (char)(0xc0 | c >> 6);
            n = 2;
        } else if (c < 0x10000) {
            utf8[0] = (char)(0xe0 | c >> 12);
            n = 3;
        } else {
            utf8[0] = (char)(0xf0 | c >> 18);
            n = 4;
        }
        for (size_t k = 1; k < n; k++)
            utf8[k] = (char)(0x80 | (c >> (6 * (n - 1 - k)) & 0x3f));
        if (o + n + 1 > size)
            break;
        memcpy(out + o, utf8, n);
        o += n;
    }
    if (size > 0)
        out[o] = '\0';
    return out;
}

static const char *parse_string(Reader *r, UrbdrcString *s)
{
    uint32_t n = reader_u32(r);

    if (n > URBDRC_MAX_STRING_UNITS)
        return "a string is longer than 4096 characters";
    s->units = reader_bytes(r, (size_t)n * 2);
    s->n_units = n;
    return reader_ok(r) ? NULL : "a string is cut off";
}

static void write_string(Writer *w, UrbdrcString s)
{
    writer_u32(w, s.n_units);
    writer_bytes(w, s.units, (size_t)s.n_units * 2);
}

/* ---- bodies that both directions share ---- */

static const char *parse_header(Reader *r, UrbdrcMessage *m)
{
    memset(m, 0, sizeof(*m));
    uint32_t id = reader_u32(r);
    m->interface_id = id & URBDRC_INTERFACE_MASK;
    m->mask = (UrbdrcMask)(id >> 30);
    m->message_id = reader_u32(r);
    return reader_ok(r) ? NULL : "SHARED_MSG_HEADER is cut off";
}

/* Every message that has a fixed length or ends with its last field comes through here. */
static const char *finish(const Reader *r, const char *error)
{
    return reader_done(r) ? NULL : error;
}

static const char *parse_created(Reader *r, UrbdrcMessage *m)
{
    m->kind = URBDRC_CHANNEL_CREATED;
    m->created.major = reader_u32(r);
    m->created.minor = reader_u32(r);
    m->created.capabilities = reader_u32(r);
    return finish(r, "CHANNEL_CREATED has the wrong length");
}

static const char *parse_query_interface(Reader *r, UrbdrcMessage *m)
{
    m->kind = URBDRC_QUERY_INTERFACE;
    reader_skip(r, GUID_BYTES);
    return finish(r, "RIMCALL_QUERYINTERFACE has the wrong length");
}

/* ---- from the client ---- */

static const char *parse_add_device(Reader *r, UrbdrcMessage *m)
{
    UrbdrcAddDevice *d = &m->add_device;
    const char *error;

    m->kind = URBDRC_ADD_DEVICE;
    if (reader_u32(r) != 1)
        return "ADD_DEVICE.NumUsbDevice is not 1";
    d->usb_device = reader_u32(r);
    if (d->usb_device & ~URBDRC_INTERFACE_MASK)
        return "ADD_DEVICE.UsbDevice has mask bits set";
    if ((error = parse_string(r, &d->instance_id)) || (error = parse_string(r, &d->hardware_ids)) ||
        (error = parse_string(r, &d->compatibility_ids)) ||
        (error = parse_string(r, &d->container_id)))
        return error;
    if (reader_u32(r) != DEVICE_CAPABILITIES_BYTES)
        return "USB_DEVICE_CAPABILITIES.CbSize is not 28";
    d->bus_interface_version = reader_u32(r);
    d->usbdi_version = reader_u32(r);
    d->supported_usb_version = reader_u32(r);
    d->hcd_capabilities = reader_u32(r);
    d->is_high_speed = reader_u32(r);
    d->no_ack_jitter_ms = reader_u32(r);
    return finish(r, "ADD_DEVICE has the wrong length");
}

static const char *parse_io_completion(Reader *r, UrbdrcMessage *m)
{
    m->kind = URBDRC_IOCONTROL_COMPLETION;
    m->completion.request_id = reader_u32(r);
    m->completion.hresult = reader_u32(r);
    m->completion.information = reader_u32(r);
    m->completion.output_size = reader_u32(r);
    if (!reader_ok(r))
        return "IOCONTROL_COMPLETION is cut off";
    /* FreeRDP up to 3.30 claims bytes that it does not send. */
    size_t n = reader_left(r);
    if (n > m->completion.output_size)
        n = m->completion.output_size;
    m->completion.data = reader_bytes(r, n);
    m->completion.data_len = n;
    m->completion.trailing = reader_left(r);
    return NULL;
}

static const char *parse_urb_completion(Reader *r, UrbdrcMessage *m, bool with_data)
{
    m->kind = with_data ? URBDRC_URB_COMPLETION : URBDRC_URB_COMPLETION_NO_DATA;
    m->completion.request_id = reader_u32(r);
    uint32_t cb = reader_u32(r);
    if (!reader_ok(r) || cb > reader_left(r))
        return "CbTsUrbResult is more than the message holds";
    if (cb < RESULT_HEADER_BYTES)
        return "CbTsUrbResult is less than TS_URB_RESULT_HEADER";
    Reader result = reader_sub(r, cb);
    /* Size repeats CbTsUrbResult; FreeRDP has got it wrong, and nothing depends on it. */
    reader_skip(&result, 4);
    m->completion.usbd_status = reader_u32(&result);
    m->completion.result_len = reader_left(&result);
    m->completion.result = reader_bytes(&result, m->completion.result_len);
    m->completion.hresult = reader_u32(r);
    m->completion.output_size = reader_u32(r);
    if (!reader_ok(r))
        return "URB completion is cut off";
    if (with_data) {
        m->completion.data = reader_bytes(r, m->completion.output_size);
        if (!reader_ok(r))
            return "URB_COMPLETION.OutputBufferSize is more than the message holds";
        m->completion.data_len = m->completion.output_size;
    }
    m->completion.trailing = reader_left(r);
    return NULL;
}

static const char *parse_client_response(Reader *r, UrbdrcPhase phase, UrbdrcMessage *m)
{
    const char *error;

    if (phase == URBDRC_PHASE_SETUP) {
        m->kind = URBDRC_CAPS_RESPONSE;
        m->caps.value = reader_u32(r);
        m->caps.hresult = reader_u32(r);
        return finish(r, "a response that is not RIM_EXCHANGE_CAPABILITY_RESPONSE");
    }
    if (reader_left(r) == 0) {
        m->kind = URBDRC_QUERY_INTERFACE_RSP;
        return NULL;
    }
    m->kind = URBDRC_QUERY_DEVICE_TEXT_RSP;
    if ((error = parse_string(r, &m->text.text)))
        return error;
    m->text.hresult = reader_u32(r);
    return finish(r, "QUERY_DEVICE_TEXT_RSP has the wrong length");
}

const char *urbdrc_parse_from_client(const uint8_t *data, size_t len, UrbdrcPhase phase,
                                     UrbdrcMessage *m)
{
    Reader r;
    const char *error;

    reader_init(&r, data, len);
    if ((error = parse_header(&r, m)))
        return error;
    if (m->mask != URBDRC_STREAM_ID_PROXY)
        return parse_client_response(&r, phase, m);

    uint32_t function = reader_u32(&r);
    if (!reader_ok(&r))
        return "a request without FunctionId";
    switch (function) {
    case FN_RELEASE:
        m->kind = URBDRC_RELEASE;
        return finish(&r, "RIMCALL_RELEASE has the wrong length");
    case FN_QUERY_INTERFACE:
        return parse_query_interface(&r, m);
    case FN_100:
        if (len == REQUEST_HEADER_BYTES) {
            m->kind = URBDRC_ADD_VIRTUAL_CHANNEL;
            return NULL;
        }
        /* An IOCONTROL_COMPLETION has at least 28 bytes. */
        if (len == CHANNEL_CREATED_BYTES)
            return parse_created(&r, m);
        if (phase == URBDRC_PHASE_IO)
            return parse_io_completion(&r, m);
        return "FunctionId 0x100 with a length that fits no message of the handshake";
    case FN_101:
        return phase == URBDRC_PHASE_IO ? parse_urb_completion(&r, m, true)
                                        : parse_add_device(&r, m);
    case FN_102:
        if (phase == URBDRC_PHASE_IO)
            return parse_urb_completion(&r, m, false);
        return "URB_COMPLETION_NO_DATA on a channel without a device";
    default:
        return "unknown FunctionId";
    }
}

/* ---- from the server ---- */

static const char *parse_io_control(Reader *r, UrbdrcMessage *m, UrbdrcKind kind)
{
    m->kind = kind;
    m->io_control.code = reader_u32(r);
    m->io_control.input_len = reader_u32(r);
    if (m->io_control.input_len > URBDRC_MAX_IOCTL_BYTES)
        return "InputBufferSize is more than 65536";
    m->io_control.input = reader_bytes(r, m->io_control.input_len);
    m->io_control.output_size = reader_u32(r);
    m->io_control.request_id = reader_u32(r);
    return finish(r, "IO_CONTROL has the wrong length");
}

static const char *parse_transfer(Reader *r, UrbdrcMessage *m, UrbdrcScratch *scratch, bool out)
{
    const char *error;

    m->kind = out ? URBDRC_TRANSFER_OUT : URBDRC_TRANSFER_IN;
    uint32_t cb = reader_u32(r);
    const uint8_t *urb = reader_bytes(r, cb);
    if (!urb)
        return "CbTsUrb is more than the message holds";
    if ((error = urbdrc_parse_urb(urb, cb, &m->transfer.urb, scratch)))
        return error;
    m->transfer.output_size = reader_u32(r);
    if (out)
        m->transfer.output = reader_bytes(r, m->transfer.output_size);
    return finish(r, out ? "OutputBufferSize is not what TRANSFER_OUT_REQUEST holds"
                         : "TRANSFER_IN_REQUEST has the wrong length");
}

static const char *parse_callback(Reader *r, UrbdrcMessage *m)
{
    m->kind = URBDRC_REGISTER_CALLBACK;
    m->callback.n = reader_u32(r);
    if (m->callback.n > 1)
        return "NumRequestCompletion is more than 1";
    if (m->callback.n == 1)
        m->callback.request_completion = reader_u32(r);
    return finish(r, "REGISTER_REQUEST_CALLBACK has the wrong length");
}

static const char *parse_server_100(Reader *r, size_t len, UrbdrcMessage *m)
{
    if (m->mask == URBDRC_STREAM_ID_NONE) {
        m->kind = URBDRC_CAPS_REQUEST;
        m->caps.value = reader_u32(r);
        return finish(r, "RIM_EXCHANGE_CAPABILITY_REQUEST has the wrong length");
    }
    if (len == CHANNEL_CREATED_BYTES)
        return parse_created(r, m);
    m->kind = URBDRC_CANCEL_REQUEST;
    m->cancel.request_id = reader_u32(r);
    return finish(r, "CANCEL_REQUEST has the wrong length");
}

const char *urbdrc_parse_from_server(const uint8_t *data, size_t len, UrbdrcMessage *m,
                                     UrbdrcScratch *scratch)
{
    Reader r;
    const char *error;

    reader_init(&r, data, len);
    if ((error = parse_header(&r, m)))
        return error;
    if (m->mask == URBDRC_STREAM_ID_STUB && len == RESPONSE_HEADER_BYTES) {
        m->kind = URBDRC_QUERY_INTERFACE_RSP;
        return NULL;
    }
    uint32_t function = reader_u32(&r);
    if (!reader_ok(&r))
        return "a request without FunctionId";
    if (m->mask != URBDRC_STREAM_ID_PROXY &&
        !(m->mask == URBDRC_STREAM_ID_NONE && function == FN_100))
        return "a server sends requests only";
    switch (function) {
    case FN_RELEASE:
        m->kind = URBDRC_RELEASE;
        return finish(&r, "RIMCALL_RELEASE has the wrong length");
    case FN_QUERY_INTERFACE:
        return parse_query_interface(&r, m);
    case FN_100:
        return parse_server_100(&r, len, m);
    case FN_101:
        return parse_callback(&r, m);
    case FN_102:
        return parse_io_control(&r, m, URBDRC_IO_CONTROL);
    case FN_INTERNAL_IO_CONTROL:
        return parse_io_control(&r, m, URBDRC_INTERNAL_IO_CONTROL);
    case FN_QUERY_DEVICE_TEXT:
        m->kind = URBDRC_QUERY_DEVICE_TEXT;
        m->query_text.type = reader_u32(&r);
        m->query_text.locale = reader_u32(&r);
        return finish(&r, "QUERY_DEVICE_TEXT has the wrong length");
    case FN_TRANSFER_IN:
        return parse_transfer(&r, m, scratch, false);
    case FN_TRANSFER_OUT:
        return parse_transfer(&r, m, scratch, true);
    case FN_RETRACT_DEVICE:
        m->kind = URBDRC_RETRACT_DEVICE;
        m->retract.reason = reader_u32(&r);
        return finish(&r, "RETRACT_DEVICE has the wrong length");
    default:
        return "unknown FunctionId";
    }
}

/* ---- out ---- */

static void write_add_device(Writer *w, const UrbdrcAddDevice *d)
{
    writer_u32(w, 1);
    writer_u32(w, d->usb_device);
    write_string(w, d->instance_id);
    write_string(w, d->hardware_ids);
    write_string(w, d->compatibility_ids);
    write_string(w, d->container_id);
    writer_u32(w, DEVICE_CAPABILITIES_BYTES);
    writer_u32(w, d->bus_interface_version);
    writer_u32(w, d->usbdi_version);
    writer_u32(w, d->supported_usb_version);
    writer_u32(w, d->hcd_capabilities);
    writer_u32(w, d->is_high_speed);
    writer_u32(w, d->no_ack_jitter_ms);
}

static void write_transfer(Writer *w, const UrbdrcMessage *m)
{
    size_t at = w->len;

    writer_u32(w, 0); /* CbTsUrb */
    urbdrc_write_urb(w, &m->transfer.urb);
    writer_patch_u32(w, at, (uint32_t)(w->len - at - 4));
    writer_u32(w, m->transfer.output_size);
    if (m->kind == URBDRC_TRANSFER_OUT)
        writer_bytes(w, m->transfer.output, m->transfer.output_size);
}

static void write_urb_completion(Writer *w, const UrbdrcMessage *m)
{
    uint32_t cb = (uint32_t)(RESULT_HEADER_BYTES + m->completion.result_len);

    writer_u32(w, m->completion.request_id);
    writer_u32(w, cb);
    writer_u16(w, (uint16_t)cb);
    writer_u16(w, 0);
    writer_u32(w, m->completion.usbd_status);
    writer_bytes(w, m->completion.result, m->completion.result_len);
    writer_u32(w, m->completion.hresult);
    writer_u32(w, m->completion.output_size);
    if (m->kind == URBDRC_URB_COMPLETION)
        writer_bytes(w, m->completion.data, m->completion.data_len);
}

static void write_message_body(Writer *w, const UrbdrcMessage *m)
{
    switch (m->kind) {
    case URBDRC_RELEASE:
    case URBDRC_QUERY_INTERFACE_RSP:
    case URBDRC_ADD_VIRTUAL_CHANNEL:
        break;
    case URBDRC_QUERY_INTERFACE:
        writer_zero(w, GUID_BYTES);
        break;
    case URBDRC_CAPS_REQUEST:
        writer_u32(w, m->caps.value);
        break;
    case URBDRC_CAPS_RESPONSE:
        writer_u32(w, m->caps.value);
        writer_u32(w, m->caps.hresult);
        break;
    case URBDRC_CHANNEL_CREATED:
        writer_u32(w, m->created.major);
        writer_u32(w, m->created.minor);
        writer_u32(w, m->created.capabilities);
        break;
    case URBDRC_ADD_DEVICE:
        write_add_device(w, &m->add_device);
        break;
    case URBDRC_CANCEL_REQUEST:
        writer_u32(w, m->cancel.request_id);
        break;
    case URBDRC_REGISTER_CALLBACK:
        writer_u32(w, m->callback.n);
        if (m->callback.n > 0)
            writer_u32(w, m->callback.request_completion);
        break;
    case URBDRC_IO_CONTROL:
    case URBDRC_INTERNAL_IO_CONTROL:
        writer_u32(w, m->io_control.code);
        writer_u32(w, m->io_control.input_len);
        writer_bytes(w, m->io_control.input, m->io_control.input_len);
        writer_u32(w, m->io_control.output_size);
        writer_u32(w, m->io_control.request_id);
        break;
    case URBDRC_QUERY_DEVICE_TEXT:
        writer_u32(w, m->query_text.type);
        writer_u32(w, m->query_text.locale);
        break;
    case URBDRC_QUERY_DEVICE_TEXT_RSP:
        write_string(w, m->text.text);
        writer_u32(w, m->text.hresult);
        break;
    case URBDRC_TRANSFER_IN:
    case URBDRC_TRANSFER_OUT:
        write_transfer(w, m);
        break;
    case URBDRC_RETRACT_DEVICE:
        writer_u32(w, m->retract.reason);
        break;
    case URBDRC_IOCONTROL_COMPLETION:
        writer_u32(w, m->completion.request_id);
        writer_u32(w, m->completion.hresult);
        writer_u32(w, m->completion.information);
        writer_u32(w, m->completion.output_size);
        writer_bytes(w, m->completion.data, m->completion.data_len);
        break;
    case URBDRC_URB_COMPLETION:
    case URBDRC_URB_COMPLETION_NO_DATA:
        write_urb_completion(w, m);
        break;
    }
}

void urbdrc_write_message(Writer *w, const UrbdrcMessage *m)
{
    const struct KindInfo *info = &kinds[m->kind];

    writer_u32(w, (m->interface_id & URBDRC_INTERFACE_MASK) | (uint32_t)info->mask << 30);
    writer_u32(w, m->message_id);
    if (info->function != 0)
        writer_u32(w, info->function);
    write_message_body(w, m);
}
