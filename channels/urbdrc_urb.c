/*
 * TS_URB and TS_URB_RESULT (MS-RDPEUSB 2.2.9, 2.2.10).
 *
 * A URB function says which of a dozen bodies follows the 8-byte header; one table gives the body
 * of each function and one switch per direction knows how a body looks.
 */
#include "urbdrc_pdu.h"

#define URB_HEADER_BYTES 8u
#define NO_ACK_BIT 0x80000000u

typedef enum Body {
    BODY_NONE = 0, /* not a function we know */
    BODY_EMPTY,
    BODY_SELECT_CONFIGURATION,
    BODY_SELECT_INTERFACE,
    BODY_PIPE,
    BODY_CONTROL,
    BODY_CONTROL_EX,
    BODY_TRANSFER,
    BODY_ISOCH,
    BODY_DESCRIPTOR,
    BODY_FEATURE,
    BODY_STATUS,
    BODY_VENDOR_CLASS,
    BODY_GET_INTERFACE,
    BODY_OS_FEATURE,
} Body;

static const uint8_t bodies[] = {
    [URB_SELECT_CONFIGURATION] = BODY_SELECT_CONFIGURATION,
    [URB_SELECT_INTERFACE] = BODY_SELECT_INTERFACE,
    [URB_ABORT_PIPE] = BODY_PIPE,
    [URB_GET_CURRENT_FRAME_NUMBER] = BODY_EMPTY,
    [URB_CONTROL_TRANSFER] = BODY_CONTROL,
    [URB_BULK_OR_INTERRUPT_TRANSFER] = BODY_TRANSFER,
    [URB_ISOCH_TRANSFER] = BODY_ISOCH,
    [URB_GET_DESCRIPTOR_FROM_DEVICE] = BODY_DESCRIPTOR,
    [URB_SET_DESCRIPTOR_TO_DEVICE] = BODY_DESCRIPTOR,
    [URB_SET_FEATURE_TO_DEVICE] = BODY_FEATURE,
    [URB_SET_FEATURE_TO_INTERFACE] = BODY_FEATURE,
    [URB_SET_FEATURE_TO_ENDPOINT] = BODY_FEATURE,
    [URB_CLEAR_FEATURE_TO_DEVICE] = BODY_FEATURE,
    [URB_CLEAR_FEATURE_TO_INTERFACE] = BODY_FEATURE,
    [URB_CLEAR_FEATURE_TO_ENDPOINT] = BODY_FEATURE,
    [URB_GET_STATUS_FROM_DEVICE] = BODY_STATUS,
    [URB_GET_STATUS_FROM_INTERFACE] = BODY_STATUS,
    [URB_GET_STATUS_FROM_ENDPOINT] = BODY_STATUS,
    [URB_VENDOR_DEVICE] = BODY_VENDOR_CLASS,
    [URB_VENDOR_INTERFACE] = BODY_VENDOR_CLASS,
    [URB_VENDOR_ENDPOINT] = BODY_VENDOR_CLASS,
    [URB_CLASS_DEVICE] = BODY_VENDOR_CLASS,
    [URB_CLASS_INTERFACE] = BODY_VENDOR_CLASS,
    [URB_CLASS_ENDPOINT] = BODY_VENDOR_CLASS,
    [URB_SYNC_RESET_PIPE_AND_CLEAR_STALL] = BODY_PIPE,
    [URB_CLASS_OTHER] = BODY_VENDOR_CLASS,
    [URB_VENDOR_OTHER] = BODY_VENDOR_CLASS,
    [URB_GET_STATUS_FROM_OTHER] = BODY_STATUS,
    [URB_CLEAR_FEATURE_TO_OTHER] = BODY_FEATURE,
    [URB_SET_FEATURE_TO_OTHER] = BODY_FEATURE,
    [URB_GET_DESCRIPTOR_FROM_ENDPOINT] = BODY_DESCRIPTOR,
    [URB_SET_DESCRIPTOR_TO_ENDPOINT] = BODY_DESCRIPTOR,
    [URB_GET_CONFIGURATION] = BODY_EMPTY,
    [URB_GET_INTERFACE] = BODY_GET_INTERFACE,
    [URB_GET_DESCRIPTOR_FROM_INTERFACE] = BODY_DESCRIPTOR,
    [URB_SET_DESCRIPTOR_TO_INTERFACE] = BODY_DESCRIPTOR,
    [URB_GET_MS_FEATURE_DESCRIPTOR] = BODY_OS_FEATURE,
    [URB_SYNC_RESET_PIPE] = BODY_PIPE,
    [URB_SYNC_CLEAR_STALL] = BODY_PIPE,
    [URB_CONTROL_TRANSFER_EX] = BODY_CONTROL_EX,
};

static Body body_of(uint16_t function)
{
    return function < sizeof(bodies) ? (Body)bodies[function] : BODY_NONE;
}

/* ---- interfaces and packets ---- */

static void write_interface(Writer *w, const UrbdrcInterface *interface)
{
    if (interface->n_pipes > URBDRC_MAX_PIPES) {
        w->failed = true;
        return;
    }
    writer_u16(w, (uint16_t)(12 + 12 * interface->n_pipes));
    writer_u16(w, (uint16_t)interface->n_pipes); /* NumberOfPipesExpected */
    writer_u8(w, interface->number);
    writer_u8(w, interface->alt);
    writer_u16(w, 0);
    writer_u32(w, interface->n_pipes);
    for (uint32_t i = 0; i < interface->n_pipes; i++) {
        writer_u16(w, interface->pipes[i].max_packet);
        writer_u16(w, 0);
        writer_u32(w, interface->pipes[i].max_transfer);
        writer_u32(w, interface->pipes[i].flags);
    }
}

static const char *parse_interface(Reader *r, UrbdrcInterface *interface)
{
    *interface = (UrbdrcInterface){0};
    reader_skip(r, 4); /* Length, NumberOfPipesExpected: NumberOfPipes decides */
    interface->number = reader_u8(r);
    interface->alt = reader_u8(r);
    reader_skip(r, 2);
    interface->n_pipes = reader_u32(r);
    if (interface->n_pipes > URBDRC_MAX_PIPES)
        return "NumberOfPipes is more than 30";
    for (uint32_t i = 0; i < interface->n_pipes; i++) {
        interface->pipes[i].max_packet = reader_u16(r);
        reader_skip(r, 2);
        interface->pipes[i].max_transfer = reader_u32(r);
        interface->pipes[i].flags = reader_u32(r);
    }
    return reader_ok(r) ? NULL : "TS_USBD_INTERFACE_INFORMATION is cut off";
}

static void write_packets(Writer *w, uint32_t n, const UrbdrcIsoPacket *packets)
{
    if (n > URBDRC_MAX_ISO_PACKETS) {
        w->failed = true;
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        writer_u32(w, packets[i].offset);
        writer_u32(w, packets[i].length);
        writer_u32(w, packets[i].status);
    }
}

static const char *parse_packets(Reader *r, uint32_t n, UrbdrcIsoPacket *packets)
{
    if (n > URBDRC_MAX_ISO_PACKETS)
        return "NumberOfPackets is more than 256";
    for (uint32_t i = 0; i < n; i++) {
        packets[i].offset = reader_u32(r);
        packets[i].length = reader_u32(r);
        packets[i].status = reader_u32(r);
    }
    return reader_ok(r) ? NULL : "the isochronous packet table is cut off";
}

/* ---- TS_URB ---- */

static void write_select_configuration(Writer *w, const UrbdrcUrb *urb)
{
    const bool valid = urb->select_configuration.descriptor != NULL;

    if (urb->select_configuration.n_interfaces > URBDRC_MAX_INTERFACES) {
        w->failed = true;
        return;
    }
    writer_u8(w, valid);
    writer_zero(w, 3);
    writer_u32(w, urb->select_configuration.n_interfaces);
    for (uint32_t i = 0; i < urb->select_configuration.n_interfaces; i++)
        write_interface(w, &urb->select_configuration.interfaces[i]);
    if (valid)
        writer_bytes(w, urb->select_configuration.descriptor,
                     urb->select_configuration.descriptor_len);
}

static void write_body(Writer *w, const UrbdrcUrb *urb, Body body)
{
    switch (body) {
    case BODY_NONE:
        w->failed = true;
        break;
    case BODY_EMPTY:
        break;
    case BODY_SELECT_CONFIGURATION:
        write_select_configuration(w, urb);
        break;
    case BODY_SELECT_INTERFACE:
        writer_u32(w, urb->select_interface.configuration_handle);
        write_interface(w, urb->select_interface.interface);
        break;
    case BODY_PIPE:
        writer_u32(w, urb->pipe.handle);
        break;
    case BODY_CONTROL:
    case BODY_CONTROL_EX:
        writer_u32(w, urb->control.pipe);
        writer_u32(w, urb->control.flags);
        if (body == BODY_CONTROL_EX)
            writer_u32(w, urb->control.timeout_ms);
        writer_bytes(w, urb->control.setup, sizeof(urb->control.setup));
        break;
    case BODY_TRANSFER:
        writer_u32(w, urb->transfer.pipe);
        writer_u32(w, urb->transfer.flags);
        break;
    case BODY_ISOCH:
        writer_u32(w, urb->iso.pipe);
        writer_u32(w, urb->iso.flags);
        writer_u32(w, urb->iso.start_frame);
        writer_u32(w, urb->iso.n_packets);
        writer_u32(w, urb->iso.error_count);
        write_packets(w, urb->iso.n_packets, urb->iso.packets);
        break;
    case BODY_DESCRIPTOR:
        writer_u8(w, urb->descriptor.index);
        writer_u8(w, urb->descriptor.type);
        writer_u16(w, urb->descriptor.language);
        break;
    case BODY_FEATURE:
        writer_u16(w, urb->feature.selector);
        writer_u16(w, urb->feature.index);
        break;
    case BODY_STATUS:
        writer_u16(w, urb->status.index);
        writer_u16(w, 0);
        break;
    case BODY_VENDOR_CLASS:
        writer_u32(w, urb->vendor_class.flags);
        writer_u8(w, urb->vendor_class.reserved_bits);
        writer_u8(w, urb->vendor_class.request);
        writer_u16(w, urb->vendor_class.value);
        writer_u16(w, urb->vendor_class.index);
        writer_u16(w, 0);
        break;
    case BODY_GET_INTERFACE:
        writer_u16(w, urb->get_interface.interface);
        writer_u16(w, 0);
        break;
    case BODY_OS_FEATURE:
        writer_u8(w, urb->os_feature.recipient & 0x1f);
        writer_u8(w, urb->os_feature.interface);
        writer_u8(w, urb->os_feature.page);
        writer_u16(w, urb->os_feature.index);
        writer_zero(w, 3);
        break;
    }
}

void urbdrc_write_urb(Writer *w, const UrbdrcUrb *urb)
{
    size_t start = w->len;

    writer_u16(w, 0); /* Size, patched below */
    writer_u16(w, urb->function);
    writer_u32(w, (urb->request_id & ~NO_ACK_BIT) | (urb->no_ack ? NO_ACK_BIT : 0));
    write_body(w, urb, body_of(urb->function));
    if (w->len - start > UINT16_MAX)
        w->failed = true;
    writer_patch_u16(w, start, (uint16_t)(w->len - start));
}

static const char *parse_select_configuration(Reader *r, UrbdrcUrb *urb, UrbdrcScratch *scratch)
{
    const char *error;
    bool valid = reader_u8(r) != 0;

    reader_skip(r, 3);
    uint32_t n = reader_u32(r);
    if (n > URBDRC_MAX_INTERFACES)
        return "NumInterfaces is more than 32";
    for (uint32_t i = 0; i < n; i++)
        if ((error = parse_interface(r, &scratch->interfaces[i])))
            return error;
    urb->select_configuration.n_interfaces = n;
    urb->select_configuration.interfaces = scratch->interfaces;
    urb->select_configuration.descriptor = NULL;
    urb->select_configuration.descriptor_len = 0;
    if (valid) {
        size_t len = reader_left(r);
        urb->select_configuration.descriptor = reader_bytes(r, len);
        urb->select_configuration.descriptor_len = len;
    }
    return NULL;
}

static const char *parse_control(Reader *r, UrbdrcUrb *urb, bool extended)
{
    urb->control.pipe = reader_u32(r);
    urb->control.flags = reader_u32(r);
    urb->control.timeout_ms = extended ? reader_u32(r) : 0;
    for (size_t i = 0; i < sizeof(urb->control.setup); i++)
        urb->control.setup[i] = reader_u8(r);
    return NULL;
}

static const char *parse_body(Reader *r, UrbdrcUrb *urb, UrbdrcScratch *scratch)
{
    switch (body_of(urb->function)) {
    case BODY_NONE:
        return "unknown URB function";
    case BODY_EMPTY:
        return NULL;
    case BODY_SELECT_CONFIGURATION:
        return parse_select_configuration(r, urb, scratch);
    case BODY_SELECT_INTERFACE:
        urb->select_interface.configuration_handle = reader_u32(r);
        urb->select_interface.interface = scratch->interfaces;
        return parse_interface(r, scratch->interfaces);
    case BODY_PIPE:
        urb->pipe.handle = reader_u32(r);
        return NULL;
    case BODY_CONTROL:
        return parse_control(r, urb, false);
    case BODY_CONTROL_EX:
        return parse_control(r, urb, true);
    case BODY_TRANSFER:
        urb->transfer.pipe = reader_u32(r);
        urb->transfer.flags = reader_u32(r);
        return NULL;
    case BODY_ISOCH:
        urb->iso.pipe = reader_u32(r);
        urb->iso.flags = reader_u32(r);
        urb->iso.start_frame = reader_u32(r);
        urb->iso.n_packets = reader_u32(r);
        urb->iso.error_count = reader_u32(r);
        urb->iso.packets = scratch->packets;
        return parse_packets(r, urb->iso.n_packets, scratch->packets);
    case BODY_DESCRIPTOR:
        urb->descriptor.index = reader_u8(r);
        urb->descriptor.type = reader_u8(r);
        urb->descriptor.language = reader_u16(r);
        return NULL;
    case BODY_FEATURE:
        urb->feature.selector = reader_u16(r);
        urb->feature.index = reader_u16(r);
        return NULL;
    case BODY_STATUS:
        urb->status.index = reader_u16(r);
        reader_skip(r, 2);
        return NULL;
    case BODY_VENDOR_CLASS:
        urb->vendor_class.flags = reader_u32(r);
        urb->vendor_class.reserved_bits = reader_u8(r);
        urb->vendor_class.request = reader_u8(r);
        urb->vendor_class.value = reader_u16(r);
        urb->vendor_class.index = reader_u16(r);
        reader_skip(r, 2);
        return NULL;
    case BODY_GET_INTERFACE:
        urb->get_interface.interface = reader_u16(r);
        reader_skip(r, 2);
        return NULL;
    case BODY_OS_FEATURE:
        urb->os_feature.recipient = reader_u8(r) & 0x1f;
        urb->os_feature.interface = reader_u8(r);
        urb->os_feature.page = reader_u8(r);
        urb->os_feature.index = reader_u16(r);
        reader_skip(r, 3);
        return NULL;
    }
    return "unknown URB function";
}

const char *urbdrc_parse_urb(const uint8_t *data, size_t len, UrbdrcUrb *urb,
                             UrbdrcScratch *scratch)
{
    Reader r;
    const char *error;

    *urb = (UrbdrcUrb){0};
    reader_init(&r, data, len);
    uint16_t size = reader_u16(&r);
    urb->function = reader_u16(&r);
    uint32_t id = reader_u32(&r);
    if (!reader_ok(&r))
        return "TS_URB_HEADER is cut off";
    if (size != len)
        return "TS_URB_HEADER.Size differs from CbTsUrb";
    urb->request_id = id & ~NO_ACK_BIT;
    urb->no_ack = (id & NO_ACK_BIT) != 0;
    if ((error = parse_body(&r, urb, scratch)))
        return error;
    return reader_done(&r) ? NULL : "TS_URB has the wrong length for its function";
}

/* ---- TS_URB_RESULT ---- */

static const char *parse_interface_result(Reader *r, UrbdrcInterfaceResult *interface)
{
    reader_skip(r, 2); /* Length */
    interface->number = reader_u8(r);
    interface->alt = reader_u8(r);
    interface->class_code = reader_u8(r);
    interface->subclass = reader_u8(r);
    interface->protocol = reader_u8(r);
    reader_skip(r, 1);
    interface->handle = reader_u32(r);
    interface->n_pipes = reader_u32(r);
    if (interface->n_pipes > URBDRC_MAX_PIPES) {
        interface->n_pipes = 0;
        return "NumberOfPipes is more than 30";
    }
    for (uint32_t i = 0; i < interface->n_pipes; i++) {
        UrbdrcPipeResult *pipe = &interface->pipes[i];

        pipe->max_packet = reader_u16(r);
        pipe->endpoint = reader_u8(r);
        pipe->interval = reader_u8(r);
        pipe->type = reader_u32(r);
        pipe->handle = reader_u32(r);
        pipe->max_transfer = reader_u32(r);
        pipe->flags = reader_u32(r);
    }
    return reader_ok(r) ? NULL : "TS_USBD_INTERFACE_INFORMATION_RESULT is cut off";
}

const char *urbdrc_parse_select_configuration_result(const uint8_t *data, size_t len,
                                                     uint32_t *configuration_handle,
                                                     uint32_t *n_interfaces,
                                                     UrbdrcInterfaceResult *interfaces)
{
    Reader r;
    const char *error;

    *n_interfaces = 0;
    reader_init(&r, data, len);
    *configuration_handle = reader_u32(&r);
    uint32_t n = reader_u32(&r);
    if (!reader_ok(&r))
        return "TS_URB_SELECT_CONFIGURATION_RESULT is cut off";
    if (n > URBDRC_MAX_INTERFACES)
        return "NumInterfaces is more than 32";
    for (uint32_t i = 0; i < n; i++)
        if ((error = parse_interface_result(&r, &interfaces[i])))
            return error;
    *n_interfaces = n;
    return NULL;
}

const char *urbdrc_parse_select_interface_result(const uint8_t *data, size_t len,
                                                 UrbdrcInterfaceResult *interface)
{
    Reader r;

    reader_init(&r, data, len);
    return parse_interface_result(&r, interface);
}

const char *urbdrc_parse_frame_number_result(const uint8_t *data, size_t len, uint32_t *frame)
{
    Reader r;

    reader_init(&r, data, len);
    *frame = reader_u32(&r);
    return reader_ok(&r) ? NULL : "TS_URB_GET_CURRENT_FRAME_NUMBER_RESULT is cut off";
}

const char *urbdrc_parse_isoch_result(const uint8_t *data, size_t len, uint32_t *start_frame,
                                      uint32_t *error_count, uint32_t *n_packets,
                                      UrbdrcIsoPacket *packets)
{
    Reader r;
    const char *error;

    *n_packets = 0;
    reader_init(&r, data, len);
    *start_frame = reader_u32(&r);
    uint32_t n = reader_u32(&r);
    *error_count = reader_u32(&r);
    if (!reader_ok(&r))
        return "TS_URB_ISOCH_TRANSFER_RESULT is cut off";
    if ((error = parse_packets(&r, n, packets)))
        return error;
    *n_packets = n;
    return NULL;
}

void urbdrc_write_interface_result(Writer *w, const UrbdrcInterfaceResult *interface)
{
    if (interface->n_pipes > URBDRC_MAX_PIPES) {
        w->failed = true;
        return;
    }
    writer_u16(w, (uint16_t)(16 + 20 * interface->n_pipes));
    writer_u8(w, interface->number);
    writer_u8(w, interface->alt);
    writer_u8(w, interface->class_code);
    writer_u8(w, interface->subclass);
    writer_u8(w, interface->protocol);
    writer_u8(w, 0);
    writer_u32(w, interface->handle);
    writer_u32(w, interface->n_pipes);
    for (uint32_t i = 0; i < interface->n_pipes; i++) {
        const UrbdrcPipeResult *pipe = &interface->pipes[i];

        writer_u16(w, pipe->max_packet);
        writer_u8(w, pipe->endpoint);
        writer_u8(w, pipe->interval);
        writer_u32(w, pipe->type);
        writer_u32(w, pipe->handle);
        writer_u32(w, pipe->max_transfer);
        writer_u32(w, pipe->flags);
    }
}

void urbdrc_write_select_configuration_result(Writer *w, uint32_t configuration_handle,
                                              uint32_t n_interfaces,
                                              const UrbdrcInterfaceResult *interfaces)
{
    writer_u32(w, configuration_handle);
    writer_u32(w, n_interfaces);
    for (uint32_t i = 0; i < n_interfaces; i++)
        urbdrc_write_interface_result(w, &interfaces[i]);
}

void urbdrc_write_isoch_result(Writer *w, uint32_t start_frame, uint32_t error_count,
                               uint32_t n_packets, const UrbdrcIsoPacket *packets)
{
    writer_u32(w, start_frame);
    writer_u32(w, n_packets);
    writer_u32(w, error_count);
    write_packets(w, n_packets, packets);
}
