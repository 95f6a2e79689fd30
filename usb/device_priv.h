/*
 * Shared by the files of UsbDevice: device.c (states, events, completions), device_timers.c (what
 * ends by the clock), device_alive.c (clients that say nothing), device_control.c (what goes over
 * endpoint 0 or changes the configuration), device_pipe.c (bulk, interrupt OUT), device_stream.c
 * (reading ahead on interrupt IN, and the streams that are refused), device_bulkin.c (reading ahead
 * on bulk IN: serial adapters), device_iso.c (isochronous).
 *
 * Owner, thread: as UsbDevice.
 */
#ifndef QRDP_USB_DEVICE_PRIV_H
#define QRDP_USB_DEVICE_PRIV_H

#include "redir.h"
#include "shown.h"
#include "storage_identity.h"
#include "transfer.h"
#include "usb.h"

#define DEVICE_PIPES 32u                /* usbredir's endpoint index: OUT 0..15, IN 16..31 */
#define DEVICE_MAX_STREAM_REQUESTS 128u /* of all streams of device_stream.c together */
#define DEVICE_CONTROL_RESERVE 8u       /* table places that data requests leave free */
#define DEVICE_OUT_WINDOW_BYTES (2u * USB_OUT_CHUNK_BYTES) /* per OUT pipe at the source */
#define DEVICE_OUT_WINDOW_REQUESTS 32u
#define DEVICE_CANCEL_PERIOD_US 1000000u /* USB_MAX_TOMBSTONES cancels in this time are a flood */
#define DEVICE_SILENCE_US 60000000u      /* nothing but timeouts for so long: give it back */
#define DEVICE_ROUND_TRIP_US 60000u      /* until it has been measured */
#define DEVICE_MAX_INPUT (1u << 20)      /* bytes of QEMU's that wait for room */

typedef enum PacketType {
    PACKET_CONTROL,
    PACKET_SET_CONFIGURATION,
    PACKET_SET_ALT,
    PACKET_BULK,
    PACKET_INTERRUPT,
    PACKET_INTERNAL, /* a request of our own in the control queue: nobody waits for an answer */
} PacketType;

/** One packet of the guest that has not been answered yet. In exactly one queue. */
typedef struct Packet Packet;
struct Packet {
    Packet *next;
    PacketType type;
    uint64_t guest_id;
    uint8_t endpoint;
    uint32_t length; /* bytes wanted or brought */
    uint8_t *data;   /* OUT: the payload, redir_free_data(); IN: what came and waits, free() */
    bool out;

    /* control queue */
    UsbRequestKind kind;
    UsbSetup setup;
    const UsbConfiguration *configuration;
    const UsbAltSetting *alt;

    /* progress */
    bool submitted;   /* at least one request was made for it */
    bool done;        /* status and moved are final; waits for its turn to be answered */
    uint32_t sent;    /* OUT: bytes handed to the source so far */
    uint32_t moved;   /* bytes that completions have confirmed */
    uint32_t live;    /* requests at the source */
    uint32_t request; /* IN and control: id of the one request */
    uint64_t order;   /* IN: its Transfer.order */
    UsbStatus status;
};

typedef struct PacketQueue {
    Packet *head, *tail;
} PacketQueue;

/** An interrupt or bulk IN endpoint that is read ahead. */
typedef struct Stream {
    bool running;
    bool recovering;        /* a CLEAR_HALT of ours is under way */
    uint8_t window;         /* requests to keep outstanding */
    uint32_t request_bytes; /* that each of them asks for */
    uint8_t live;
    uint8_t stalls; /* without a packet in between */
    uint8_t errors;
    uint64_t next_id;
    uint64_t since;  /* requests of a greater Transfer.order are its own */
    uint64_t missed; /* and those of a greater one than this are not yet known to be lost */
} Stream;

/** A running isochronous stream; device_iso.c knows what is in it. */
typedef struct IsoStream IsoStream;

typedef struct Pipe {
    const UsbEndpoint *endpoint; /* in the active settings, NULL if there is none */
    uint8_t interface;
    PacketQueue queue;   /* answered in this order */
    Packet *unsent;      /* the first one of the queue that is not wholly at the source */
    uint32_t live_bytes; /* at the source */
    uint32_t live_requests;
    Stream stream;
    IsoStream *iso; /* owned, NULL if none runs */
} Pipe;

#define DEVICE_MAX_SETTINGS 32u
#define DEVICE_MAX_SETTING_BYTES 64u

/** A class or vendor request that the device has carried out. */
typedef struct DeviceSetting {
    UsbSetup setup;
    uint8_t data[DEVICE_MAX_SETTING_BYTES];
} DeviceSetting;

/** What a driver has set over endpoint 0 since the last reset: device_state.c. */
typedef struct DeviceState {
    DeviceSetting settings[DEVICE_MAX_SETTINGS];
    unsigned n;
    bool overflow;       /* there were more, or longer ones */
    bool unknown;        /* some may be more than settings, unless ... */
    bool serial_adapter; /* QEMU knows it as one: it has asked for buffered reading */
} DeviceState;

typedef enum StorageKind {
    STORAGE_NONE,
    STORAGE_BULK_ONLY, /* one interface, SCSI over Bulk-Only Transport */
    STORAGE_OTHER,
} StorageKind;

struct UsbDevice {
    UsbDescriptors *descriptors; /* the device's own */
    UsbDescriptors *shown;       /* what the guest sees of it: shown.c */
    bool unproven;               /* QEMU may still refuse the speed that it is shown at */
    UsbSource *source;           /* NULL once gone */
    const UsbDeviceCallbacks *callbacks;
    void *user;
    Redir *redir;
    UsbDeviceState state;
    bool busy; /* inside an entry point */
    uint64_t now;

    uint8_t *input; /* QEMU's bytes that wait for room */
    size_t input_len, input_cap;
    UsbArrival arrival;      /* the last one that was asked for */
    uint64_t arrived;        /* of the bytes that are being handled: not before */
    uint64_t arrived_waited; /* and how long had been waited for a processor until then */

    /* What the guest has configured, and whether the device has been told. */
    const UsbConfiguration *configuration; /* NULL: unconfigured */
    uint8_t alts[USB_MAX_INTERFACES];      /* per configuration->interface_numbers */
    bool selected;
    unsigned selecting; /* SELECT_* in the control queue: nothing is read from QEMU meanwhile */
    bool touched;       /* a request has reached the device since it was connected or reset */
    bool bulk_used;     /* a bulk one has */

    /* device_suspend.c */
    bool suspended; /* no source, and nothing is read from QEMU */
    StorageKind storage_kind;
    uint8_t storage_interface, storage_in, storage_out;
    bool storage_resync; /* the device waits for a command, the guest may not know */
    StorageIdentity *storage;
    DeviceState settings;

    TransferTable table;
    PacketQueue control; /* one at a time, the head is at the source */
    Pipe pipes[DEVICE_PIPES];
    uint32_t packets;      /* in all queues, internal ones excepted */
    uint64_t packet_bytes; /* sum of .length, internal ones excepted */
    uint32_t stream_requests;
    uint32_t iso_requests;
    uint64_t iso_sent;       /* packets of OUT streams that were submitted */
    uint64_t round_trip;     /* us, 0 if unknown: see device_note_round_trip() */
    bool starved;            /* something waits for a place in the table */
    bool streams_paused;     /* QEMU does not read */
    bool over_cap;           /* since .over_cap_since */
    uint64_t over_cap_since; /* then data packets are refused so that cancels get through */
    uint64_t silent_since;   /* first timeout since the last completion, 0 for none */
    uint64_t heard;          /* the last completion or question, see device_alive.c */
    bool deaf;               /* the client has just not answered the question whether it is alive */
    uint64_t control_rest;   /* no control request before this: USB_QUIRK_CONTROL_BLOCKS_CLIENT */
    bool retired;
    UsbDeviceStats stats;
};

/* device.c */
static inline unsigned pipe_index(uint8_t endpoint)
{
    return (unsigned)(endpoint & 0x80) >> 3 | (endpoint & 0x0f);
}
Packet *packet_new(UsbDevice *d, PacketType type, uint64_t guest_id);
void packet_free(UsbDevice *d, Packet *packet);
void queue_append(PacketQueue *queue, Packet *packet);
void queue_remove(PacketQueue *queue, Packet *packet);
/** Puts a request into the table and hands it to the source; .id and .timeout_ms are set here.
 * Returns its id, 0 if it was refused. */
uint32_t device_submit(UsbDevice *d, UsbRequest *request, TransferTimer timer, Packet *owner);
/** Withdraws one live request: it gets no completion any more. */
void device_withdraw(UsbDevice *d, uint32_t id);
/** Whether the guest sees it at another speed than the client has it. */
static inline bool device_is_raised(const UsbDevice *d)
{
    return d->shown->speed != d->descriptors->speed;
}
/** Tells QEMU the active settings as the guest sees them. */
void device_send_topology(UsbDevice *d);
bool device_over_cap(const UsbDevice *d);
void device_rebuild_pipes(UsbDevice *d);
TransferTimer device_data_timer(const UsbDevice *d);
/** Tries again whatever waited for room in the table. */
void device_pump(UsbDevice *d);
/** A request took @us, of which the device itself may have needed a part. The estimate follows the
 * quickest at once and slower ones by and by. */
void device_note_round_trip(UsbDevice *d, uint64_t us);
/** Microseconds to the client and back, a guess while nothing is known. */
uint64_t device_round_trip(const UsbDevice *d);

/** Whether the guest has it, or is about to. */
bool device_is_active(const UsbDevice *d);
/** Passes on how a request has ended. */
void device_finish_transfer(UsbDevice *d, const Transfer *transfer,
                            const UsbCompletion *completion);

void device_enter(UsbDevice *d);
void device_enter_at(UsbDevice *d, uint64_t now_us);
void device_leave(UsbDevice *d);
void device_take_source(UsbDevice *d, UsbSource *source);
void device_let_go_of_source(UsbDevice *d);

/* device_suspend.c */
/* device_state.c */
/** A control OUT of the guest's has been carried out. */
void state_note(UsbDevice *d, const Packet *packet);
/** The device has been reset, all settings are gone. */
void state_forget(UsbDevice *d);
/** Whether a setting's endpoint is there now; one that is not has no setting. */
bool state_applies(const UsbDevice *d, const DeviceSetting *setting);
/** Whether repeating the settings brings the device back where it was. */
bool state_can_be_restored(const UsbDevice *d);

/** The active settings have changed. */
void storage_rebuild(UsbDevice *d);
/** A data packet of the guest's is about to be answered. */
void storage_watch(UsbDevice *d, const Packet *packet, UsbStatus status, const uint8_t *data,
                   uint32_t length);
/** Whether a data packet belongs to a command that was cut off when the client left. */
bool storage_out_of_step(UsbDevice *d, const RedirEvent *event);

/* device_alive.c */
/** When the client is to be asked, or given up. UINT64_MAX: not as things are. */
uint64_t alive_deadline(const UsbDevice *d);
/** Asks, or gives the device back. */
void alive_tick(UsbDevice *d);
void alive_timed_out(UsbDevice *d, const Transfer *transfer);
/** Hands back one request that ends because its client is deaf. */
bool alive_expire(UsbDevice *d, Transfer *out);

/* device_control.c */
/** @transfer has been answered, or has run out of time. */
void control_took(UsbDevice *d, const Transfer *transfer);
/** When the rest after a slow one ends, UINT64_MAX if nothing waits for that. */
uint64_t control_deadline(const UsbDevice *d);
/** A request of our own for the device descriptor, whose answer nobody reads. */
void control_ask(UsbDevice *d);
void control_event(UsbDevice *d, RedirEvent *event);
void control_set_configuration(UsbDevice *d, uint64_t id, uint8_t value);
void control_get_configuration(UsbDevice *d, uint64_t id);
void control_set_alt(UsbDevice *d, uint64_t id, uint8_t interface, uint8_t alt);
void control_get_alt(UsbDevice *d, uint64_t id, uint8_t interface);
void control_reset(UsbDevice *d);
void control_clear_halt(UsbDevice *d, uint8_t endpoint);
void control_pump(UsbDevice *d);
void control_complete(UsbDevice *d, Packet *packet, const UsbCompletion *completion);
bool control_cancel(UsbDevice *d, uint64_t guest_id);
void control_drop_all(UsbDevice *d);
/** Answers everything with an I/O error; the source is gone. */
void control_fail_all(UsbDevice *d);

/* device_pipe.c */
void pipe_event(UsbDevice *d, RedirEvent *event);
void pipe_pump(UsbDevice *d, Pipe *pipe);
void pipe_complete(UsbDevice *d, const Transfer *transfer, const UsbCompletion *completion);
bool pipe_cancel(UsbDevice *d, uint64_t guest_id);
/** Answers everything on the pipe with `cancelled` and withdraws it from the source. */
void pipe_cancel_all(UsbDevice *d, Pipe *pipe);
void pipe_drop_all(UsbDevice *d, Pipe *pipe);
/** Answers everything that has no result yet with an I/O error; the source is gone. */
void pipe_fail_all(UsbDevice *d, Pipe *pipe);

/* device_stream.c */
void stream_start(UsbDevice *d, uint64_t id, uint8_t endpoint);
void stream_stop(UsbDevice *d, uint64_t id, uint8_t endpoint);
/** Begins reading ahead, unless that is under way. May end it at once, see stream_abort(). */
void stream_run(UsbDevice *d, Pipe *pipe, uint8_t window, uint32_t request_bytes);
/** Ends reading ahead without a word to the guest. */
void stream_end(UsbDevice *d, Pipe *pipe);
/** Ends a running stream that the guest did not stop, and tells it so. */
void stream_abort(UsbDevice *d, Pipe *pipe);
void stream_complete(UsbDevice *d, const Transfer *transfer, const UsbCompletion *completion);
/** A completion has come after its request was given up on for the time it took. */
void stream_late(UsbDevice *d, const Transfer *transfer, const UsbCompletion *completion);
/** Tells the guest of a running stream where nothing has come for such a request. */
void stream_check_lost(UsbDevice *d, Pipe *pipe);
void stream_recovered(UsbDevice *d, uint8_t endpoint, UsbStatus status);
void stream_refill(UsbDevice *d, Pipe *pipe);
/** The source is gone; the stream stays, and reports an error if it had requests there. */
void stream_suspend(UsbDevice *d, Pipe *pipe);
void stream_refuse(UsbDevice *d, const RedirEvent *event);

/* device_bulkin.c */
void bulkin_start(UsbDevice *d, const RedirEvent *event);
void bulkin_stop(UsbDevice *d, const RedirEvent *event);
/** Passes on what one request has brought: @length bytes of @data and how it ended. */
void bulkin_report(UsbDevice *d, Pipe *pipe, UsbStatus status, const uint8_t *data,
                   uint32_t length);

/* device_isogap.c */
/** Bytes of QEMU's are handed in. */
void iso_gap_arrival(UsbDevice *d);

/* device_iso.c */
/** Whether an OUT stream runs. */
bool iso_plays(const UsbDevice *d);
void iso_start(UsbDevice *d, const RedirEvent *event);
void iso_stop(UsbDevice *d, uint64_t id, uint8_t endpoint);
void iso_packet(UsbDevice *d, const RedirEvent *event);
void iso_complete(UsbDevice *d, const Transfer *transfer, const UsbCompletion *completion);
void iso_pump(UsbDevice *d, Pipe *pipe);
/** Ends a stream that the guest did not stop, and tells it so. */
void iso_abort(UsbDevice *d, Pipe *pipe);
/** Frees it; its requests are not withdrawn. */
void iso_forget(UsbDevice *d, Pipe *pipe);
/** Whether the guest has stopped the stream and its last packets are still being played. */
bool iso_pipe_draining(const Pipe *pipe);
bool iso_draining(const UsbDevice *d);
uint64_t iso_deadline(const UsbDevice *d);
void iso_tick(UsbDevice *d);

#endif
