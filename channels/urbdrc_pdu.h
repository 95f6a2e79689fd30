/*
 * MS-RDPEUSB on the wire: every message and TS_URB a server sends or receives, in both directions
 * (the client's half serves the tests). Pure: bytes in, structures out, and back.
 *
 * Owner: the caller owns all structures. Thread: any. Lifetime: what a parser returns points into
 * the bytes it was given and, for the arrays of TS_URBs, into the caller's UrbdrcScratch.
 *
 * Section numbers are those of MS-RDPEUSB v20180912; field names are its own, in our spelling.
 * Parsers reject what cannot be meant and report the rest as it is: whether a length is more than
 * was asked for is for the source to say, which knows the request.
 */
#ifndef QRDP_CHANNELS_URBDRC_PDU_H
#define QRDP_CHANNELS_URBDRC_PDU_H

#include "bytes.h"

#define URBDRC_MAX_INTERFACES 32u      /* NumInterfaces */
#define URBDRC_MAX_PIPES 30u           /* NumberOfPipes of one interface: 15 IN and 15 OUT */
#define URBDRC_MAX_ISO_PACKETS 256u    /* NumberOfPackets of one URB */
#define URBDRC_MAX_STRING_UNITS 4096u  /* each cch of ADD_DEVICE and QUERY_DEVICE_TEXT_RSP */
#define URBDRC_MAX_IOCTL_BYTES 65536u  /* InputBufferSize */
#define URBDRC_MAX_CONFIG_BYTES 65535u /* wTotalLength is 16 bits */

/** Interface ids that have a meaning of their own (2.2.1); all others are a UsbDevice or a
 * RequestCompletion, which may collide with these. */
enum {
    URBDRC_INTERFACE_CAPABILITIES = 0,
    URBDRC_INTERFACE_DEVICE_SINK = 1,
    URBDRC_INTERFACE_TO_CLIENT = 2, /* channel notification, sent by the server */
    URBDRC_INTERFACE_TO_SERVER = 3, /* channel notification, sent by the client */
};
#define URBDRC_INTERFACE_MASK 0x3fffffffu

typedef enum UrbdrcMask {
    URBDRC_STREAM_ID_NONE = 0,
    URBDRC_STREAM_ID_PROXY = 1, /* a request to the interface's owner */
    URBDRC_STREAM_ID_STUB = 2,  /* a response */
} UrbdrcMask;

typedef enum UrbdrcKind {
    URBDRC_RELEASE,                /* RIMCALL_RELEASE, either way */
    URBDRC_QUERY_INTERFACE,        /* RIMCALL_QUERYINTERFACE, either way; refused with _RSP */
    URBDRC_QUERY_INTERFACE_RSP,    /* 2.2.2 */
    URBDRC_CAPS_REQUEST,           /* 2.2.3.1 server */
    URBDRC_CAPS_RESPONSE,          /* 2.2.3.2 client */
    URBDRC_CHANNEL_CREATED,        /* 2.2.5.1 either way, told apart by the interface id */
    URBDRC_ADD_VIRTUAL_CHANNEL,    /* 2.2.4.1 client */
    URBDRC_ADD_DEVICE,             /* 2.2.4.2 client */
    URBDRC_CANCEL_REQUEST,         /* 2.2.6.1 server, and so on to RETRACT_DEVICE */
    URBDRC_REGISTER_CALLBACK,      /* 2.2.6.2 */
    URBDRC_IO_CONTROL,             /* 2.2.6.3 */
    URBDRC_INTERNAL_IO_CONTROL,    /* 2.2.6.4 */
    URBDRC_QUERY_DEVICE_TEXT,      /* 2.2.6.5 */
    URBDRC_QUERY_DEVICE_TEXT_RSP,  /* 2.2.6.6 client */
    URBDRC_TRANSFER_IN,            /* 2.2.6.7 */
    URBDRC_TRANSFER_OUT,           /* 2.2.6.8 */
    URBDRC_RETRACT_DEVICE,         /* 2.2.6.9 */
    URBDRC_IOCONTROL_COMPLETION,   /* 2.2.7.1 client */
    URBDRC_URB_COMPLETION,         /* 2.2.7.2 client */
    URBDRC_URB_COMPLETION_NO_DATA, /* 2.2.7.3 client */
} UrbdrcKind;
const char *urbdrc_kind_name(UrbdrcKind kind);

/** What an incoming id may mean. FunctionId 0x101 is ADD_DEVICE before the channel has a device and
 * URB_COMPLETION after, whatever the interface id: RequestCompletion may be 1. */
typedef enum UrbdrcPhase {
    URBDRC_PHASE_SETUP,
    URBDRC_PHASE_IO,
} UrbdrcPhase;

/* ------------------------------------------------------------------------------------------------
 * TS_URB, 2.2.9
 */

typedef enum UrbFunction {
    URB_SELECT_CONFIGURATION = 0x00,
    URB_SELECT_INTERFACE = 0x01,
    URB_ABORT_PIPE = 0x02, /* never sent: FreeRDP halts the endpoint */
    URB_GET_CURRENT_FRAME_NUMBER = 0x07,
    URB_CONTROL_TRANSFER = 0x08,
    URB_BULK_OR_INTERRUPT_TRANSFER = 0x09,
    URB_ISOCH_TRANSFER = 0x0a,
    URB_GET_DESCRIPTOR_FROM_DEVICE = 0x0b,
    URB_SET_DESCRIPTOR_TO_DEVICE = 0x0c,
    URB_SET_FEATURE_TO_DEVICE = 0x0d,
    URB_SET_FEATURE_TO_INTERFACE = 0x0e,
    URB_SET_FEATURE_TO_ENDPOINT = 0x0f,
    URB_CLEAR_FEATURE_TO_DEVICE = 0x10,
    URB_CLEAR_FEATURE_TO_INTERFACE = 0x11,
    URB_CLEAR_FEATURE_TO_ENDPOINT = 0x12,
    URB_GET_STATUS_FROM_DEVICE = 0x13,
    URB_GET_STATUS_FROM_INTERFACE = 0x14,
    URB_GET_STATUS_FROM_ENDPOINT = 0x15,
    URB_VENDOR_DEVICE = 0x17,
    URB_VENDOR_INTERFACE = 0x18,
    URB_VENDOR_ENDPOINT = 0x19,
    URB_CLASS_DEVICE = 0x1a,
    URB_CLASS_INTERFACE = 0x1b,
    URB_CLASS_ENDPOINT = 0x1c,
    URB_SYNC_RESET_PIPE_AND_CLEAR_STALL = 0x1e,
    URB_CLASS_OTHER = 0x1f,
    URB_VENDOR_OTHER = 0x20,
    URB_GET_STATUS_FROM_OTHER = 0x21,
    URB_CLEAR_FEATURE_TO_OTHER = 0x22,
    URB_SET_FEATURE_TO_OTHER = 0x23,
    URB_GET_DESCRIPTOR_FROM_ENDPOINT = 0x24,
    URB_SET_DESCRIPTOR_TO_ENDPOINT = 0x25,
    URB_GET_CONFIGURATION = 0x26,
    URB_GET_INTERFACE = 0x27,
    URB_GET_DESCRIPTOR_FROM_INTERFACE = 0x28,
    URB_SET_DESCRIPTOR_TO_INTERFACE = 0x29,
    URB_GET_MS_FEATURE_DESCRIPTOR = 0x2a,
    URB_SYNC_RESET_PIPE = 0x30,
    URB_SYNC_CLEAR_STALL = 0x31,
    URB_CONTROL_TRANSFER_EX = 0x32,
} UrbFunction;

/** TransferFlags (WDK). */
enum {
    URB_FLAG_IN = 1,
    URB_FLAG_SHORT_OK = 2,
    URB_FLAG_START_ISO_ASAP = 4,
    URB_FLAG_DEFAULT_PIPE = 8,
};

/** TS_USBD_PIPE_INFORMATION, 2.2.9.1.3. */
typedef struct UrbdrcPipe {
    uint16_t max_packet;
    uint32_t max_transfer;
    uint32_t flags;
} UrbdrcPipe;

/** TS_USBD_INTERFACE_INFORMATION, 2.2.9.1.2. */
typedef struct UrbdrcInterface {
    uint8_t number, alt;
    uint32_t n_pipes;
    UrbdrcPipe pipes[URBDRC_MAX_PIPES];
} UrbdrcInterface;

/** TS_USBD_ISO_PACKET_DESCRIPTOR, 2.2.9.8. */
typedef struct UrbdrcIsoPacket {
    uint32_t offset, length, status;
} UrbdrcIsoPacket;

/** Where parsers put the arrays of a TS_URB or of its result. */
typedef struct UrbdrcScratch {
    UrbdrcInterface interfaces[URBDRC_MAX_INTERFACES];
    UrbdrcIsoPacket packets[URBDRC_MAX_ISO_PACKETS];
} UrbdrcScratch;

typedef struct UrbdrcUrb {
    uint16_t function;   /* UrbFunction */
    uint32_t request_id; /* 31 bits */
    bool no_ack;
    union {
        struct {
            uint32_t n_interfaces;
            const UrbdrcInterface *interfaces;
            const uint8_t *descriptor; /* NULL: ConfigurationDescriptorIsValid is 0 */
            size_t descriptor_len;
        } select_configuration;
        struct {
            uint32_t configuration_handle;
            const UrbdrcInterface *interface;
        } select_interface;
        struct {
            uint32_t handle;
        } pipe;
        struct {
            uint32_t pipe, flags;
            uint32_t timeout_ms; /* CONTROL_TRANSFER_EX only */
            uint8_t setup[8];
        } control;
        struct {
            uint32_t pipe, flags;
        } transfer; /* BULK_OR_INTERRUPT */
        struct {
            uint32_t pipe, flags, start_frame, error_count, n_packets;
            const UrbdrcIsoPacket *packets;
        } iso;
        struct {
            uint8_t index, type;
            uint16_t language;
        } descriptor;
        struct {
            uint16_t selector, index;
        } feature;
        struct {
            uint16_t index;
        } status;
        struct {
            uint32_t flags;
            uint8_t reserved_bits, request;
            uint16_t value, index;
        } vendor_class;
        struct {
            uint16_t interface;
        } get_interface;
        struct {
            uint8_t recipient, interface, page;
            uint16_t index;
        } os_feature;
    };
} UrbdrcUrb;

/** Appends a TS_URB with its header; the Writer fails on a function that is not in UrbFunction. */
void urbdrc_write_urb(Writer *w, const UrbdrcUrb *urb);
/** Reads a TS_URB of exactly @len bytes. Returns NULL or what is wrong with it. */
const char *urbdrc_parse_urb(const uint8_t *data, size_t len, UrbdrcUrb *urb,
                             UrbdrcScratch *scratch);

/* ------------------------------------------------------------------------------------------------
 * TS_URB_RESULT, 2.2.10
 */

/** TS_USBD_PIPE_INFORMATION_RESULT, 2.2.10.1.3. */
typedef struct UrbdrcPipeResult {
    uint16_t max_packet;
    uint8_t endpoint; /* bEndpointAddress */
    uint8_t interval;
    uint32_t type; /* UsbdPipeType: 0 control, 1 isochronous, 2 bulk, 3 interrupt */
    uint32_t handle;
    uint32_t max_transfer;
    uint32_t flags;
} UrbdrcPipeResult;

/** TS_USBD_INTERFACE_INFORMATION_RESULT, 2.2.10.1.2. */
typedef struct UrbdrcInterfaceResult {
    uint8_t number, alt, class_code, subclass, protocol;
    uint32_t handle;
    uint32_t n_pipes;
    UrbdrcPipeResult pipes[URBDRC_MAX_PIPES];
} UrbdrcInterfaceResult;

/** The parsers of results take what follows TS_URB_RESULT_HEADER (UrbdrcMessage.completion.result)
 * and return NULL or what is wrong. Bytes after a result that is complete are ignored, and so is
 * the Length of an interface: FreeRDP has sent wrong ones, NumberOfPipes is authoritative. */

/** 2.2.10.2. @interfaces has room for URBDRC_MAX_INTERFACES. */
const char *urbdrc_parse_select_configuration_result(const uint8_t *data, size_t len,
                                                     uint32_t *configuration_handle,
                                                     uint32_t *n_interfaces,
                                                     UrbdrcInterfaceResult *interfaces);
/** 2.2.10.3. */
const char *urbdrc_parse_select_interface_result(const uint8_t *data, size_t len,
                                                 UrbdrcInterfaceResult *interface);
/** 2.2.10.4. */
const char *urbdrc_parse_frame_number_result(const uint8_t *data, size_t len, uint32_t *frame);
/** 2.2.10.5. @packets has room for URBDRC_MAX_ISO_PACKETS. */
const char *urbdrc_parse_isoch_result(const uint8_t *data, size_t len, uint32_t *start_frame,
                                      uint32_t *error_count, uint32_t *n_packets,
                                      UrbdrcIsoPacket *packets);

void urbdrc_write_select_configuration_result(Writer *w, uint32_t configuration_handle,
                                              uint32_t n_interfaces,
                                              const UrbdrcInterfaceResult *interfaces);
void urbdrc_write_interface_result(Writer *w, const UrbdrcInterfaceResult *interface);
void urbdrc_write_isoch_result(Writer *w, uint32_t start_frame, uint32_t error_count,
                               uint32_t n_packets, const UrbdrcIsoPacket *packets);

/** UsbdStatus, 2.2.10.1.1 and usb.h of the WDK. The values below 7 are FreeRDP's: it sends the raw
 * libusb_transfer_status of bulk and interrupt transfers. */
enum {
    USBD_STATUS_SUCCESS = 0,
    USBD_LIBUSB_ERROR = 1,
    USBD_LIBUSB_TIMED_OUT = 2,
    USBD_LIBUSB_CANCELLED = 3,
    USBD_LIBUSB_STALL = 4,
    USBD_LIBUSB_NO_DEVICE = 5,
    USBD_LIBUSB_OVERFLOW = 6,
};
#define USBD_STATUS_STALL_PID 0xc0000004u
#define USBD_STATUS_DEV_NOT_RESPONDING 0xc0000005u
#define USBD_STATUS_DATA_OVERRUN 0xc0000008u
#define USBD_STATUS_DATA_UNDERRUN 0xc0000009u
#define USBD_STATUS_BUFFER_OVERRUN 0xc000000cu
#define USBD_STATUS_BABBLE 0xc0000012u
#define USBD_STATUS_ENDPOINT_HALTED 0xc0000030u
#define USBD_STATUS_NOT_SUPPORTED 0xc0000e00u
#define USBD_STATUS_TIMEOUT 0xc0006000u
#define USBD_STATUS_DEVICE_GONE 0xc0007000u
#define USBD_STATUS_CANCELED 0xc0010000u
#define USBD_STATUS_INVALID_URB_FUNCTION 0x80000200u
#define USBD_STATUS_INVALID_PARAMETER 0x80000300u
#define USBD_STATUS_INVALID_PIPE_HANDLE 0x80000600u
#define USBD_STATUS_SHORT_TRANSFER 0x80000900u

#define URBDRC_E_INVALIDARG 0x80070057u

/* ------------------------------------------------------------------------------------------------
 * Messages
 */

/** A counted UTF-16LE string as it is on the wire; a multi-string for the id lists. */
typedef struct UrbdrcString {
    const uint8_t *units;
    uint32_t n_units;
} UrbdrcString;
/** The first string (up to a NUL) as UTF-8, lone surrogates replaced, cut to fit @size with its
 * terminator. Not escaped: that is log_escape()'s. Returns @out. */
const char *urbdrc_string_text(UrbdrcString string, char *out, size_t size);

/** IoControlCode, 2.2.12 and 2.2.13. */
enum {
    URBDRC_IOCTL_RESET_PORT = 0x220007,
    URBDRC_IOCTL_GET_PORT_STATUS = 0x220013,
    URBDRC_IOCTL_CYCLE_PORT = 0x22001f,
    URBDRC_IOCTL_QUERY_BUS_TIME = 0x224000, /* INTERNAL_IO_CONTROL */
};
enum {
    URBDRC_RETRACT_BLOCKED_BY_POLICY = 1, /* UsbRetractReason, 2.2.8 */
};

/** ADD_DEVICE with USB_DEVICE_CAPABILITIES (2.2.11). */
typedef struct UrbdrcAddDevice {
    uint32_t usb_device; /* the interface id of the device's requests, URBDRC_INTERFACE_MASK */
    UrbdrcString instance_id, hardware_ids, compatibility_ids, container_id;
    uint32_t bus_interface_version; /* 0..2 */
    uint32_t usbdi_version;         /* 0x500, 0x600 */
    uint32_t supported_usb_version; /* BCD */
    uint32_t hcd_capabilities;
    uint32_t is_high_speed;
    uint32_t no_ack_jitter_ms; /* 0: NoAck is not supported */
} UrbdrcAddDevice;

typedef struct UrbdrcMessage {
    UrbdrcKind kind;
    uint32_t interface_id; /* 30 bits */
    UrbdrcMask mask;
    uint32_t message_id;
    union {
        struct {
            uint32_t value, hresult; /* hresult: response only */
        } caps;
        struct {
            uint32_t major, minor, capabilities;
        } created;
        UrbdrcAddDevice add_device;
        struct {
            uint32_t request_id;
        } cancel;
        struct {
            uint32_t n;                  /* NumRequestCompletion */
            uint32_t request_completion; /* if n > 0 */
        } callback;
        struct {
            uint32_t code, output_size, request_id;
            const uint8_t *input;
            uint32_t input_len;
        } io_control;
        struct {
            uint32_t type, locale;
        } query_text;
        struct {
            UrbdrcString text;
            uint32_t hresult;
        } text;
        struct {
            uint32_t reason;
        } retract;
        struct {
            UrbdrcUrb urb;
            uint32_t output_size;  /* IN: bytes wanted; OUT: bytes in output */
            const uint8_t *output; /* OUT */
        } transfer;
        /* The three completions. */
        struct {
            uint32_t request_id;
            uint32_t hresult;
            uint32_t information;  /* IOCONTROL_COMPLETION */
            uint32_t usbd_status;  /* URB_* */
            const uint8_t *result; /* URB_*: TsUrbResult after its header */
            size_t result_len;
            uint32_t output_size; /* as claimed */
            const uint8_t *data;  /* what is there of it */
            size_t data_len;
            /* Bytes after the message. FreeRDP 3.14-3.22 puts them in the middle of a SELECT_-
             * INTERFACE result, so that hresult and output_size mean nothing then. */
            size_t trailing;
        } completion;
    };
} UrbdrcMessage;

/** Parses one message from a client. Returns NULL or what is wrong, a static text. */
const char *urbdrc_parse_from_client(const uint8_t *data, size_t len, UrbdrcPhase phase,
                                     UrbdrcMessage *message);
/** Parses one message from a server; @scratch receives the arrays of a TS_URB. */
const char *urbdrc_parse_from_server(const uint8_t *data, size_t len, UrbdrcMessage *message,
                                     UrbdrcScratch *scratch);
/** Appends one message of either side. The mask follows from the kind (message.mask is ignored). */
void urbdrc_write_message(Writer *w, const UrbdrcMessage *message);

#endif
