/*
 * Shared by the files of isochronous streams: device_iso.c (beginning, end, time, IN),
 * device_isoout.c (OUT), device_isogap.c (whose fault gaps are). device_iso.c says how they work.
 *
 * Owner, thread: as UsbDevice.
 */
#ifndef QRDP_USB_DEVICE_ISO_PRIV_H
#define QRDP_USB_DEVICE_ISO_PRIV_H

#include "device_priv.h"

#define ISO_MAX_ERRORS 8u
#define ISO_SLACK_US 5000u /* a client looks at its USB from time to time */

typedef enum IsoState {
    ISO_FILLING,
    ISO_RUNNING,
    ISO_DRAINING,
} IsoState;

/* One URB of an OUT stream, from its first packet to its completion. */
typedef struct IsoUrb IsoUrb;
struct IsoUrb {
    IsoUrb *next;
    uint32_t id;              /* of its request, once it has one */
    uint64_t end;             /* when its completion is due */
    uint64_t due;             /* when it has to have left, 0 if nothing was playing */
    uint64_t arrived, waited; /* as UsbDevice's, of what completed it */
    uint64_t first;           /* number of its first packet */
    bool offered;             /* to the client's socket */
    uint32_t length;
    uint32_t n_packets;
    uint32_t n_padding; /* the last ones: empty, not the guest's */
    UsbIsoPacket packets[USB_ISO_MAX_PACKETS_PER_URB];
    uint8_t *data; /* NULL once the source has it */
};

typedef struct IsoList {
    IsoUrb *head, *tail;
    uint32_t packets;
    uint64_t bytes;
} IsoList;

/* How late completions are against what was computed. Late alone says nothing: a client looks at
 * its USB from time to time, and a network delays, many completions at once even. But nothing is
 * ever early, so the least lateness within a while is what the computation was wrong by. */
typedef struct IsoClock {
    int64_t least;
    unsigned n;     /* 0: the window has not begun */
    uint64_t since; /* it did then */
    bool settled;   /* the first window is over: it finds what the round trip really is */
    bool late;      /* the last one was: what a second one adds belongs to the same gap */
} IsoClock;

struct IsoStream {
    IsoState state;
    bool in;
    bool dropping;         /* OUT: until the lead is normal again */
    bool held_back;        /* OUT: something waited for a place at the source */
    bool starting;         /* OUT: what goes now is the lead */
    uint32_t period;       /* us per packet */
    uint32_t packet_bytes; /* room of a packet: a service interval's bytes */
    uint32_t per_urb;
    uint32_t multiple; /* of which each request has a number of packets */
    uint32_t live;     /* requests */
    uint32_t window;   /* IN: requests to keep outstanding */
    unsigned errors;   /* in a row */
    uint64_t next_id;
    uint64_t lead;                  /* OUT: us to collect before it starts */
    uint64_t came;                  /* OUT: packets that were not dropped */
    uint64_t base_at, base_packets; /* OUT: when the lead was complete, and .came then */
    uint32_t not_offered;           /* OUT: of .sent */
    uint64_t play_end; /* when the completion of the last request is due, 0 if none was made */
    uint64_t flush_at, drain_until;
    IsoClock clock;
    IsoUrb *open;          /* last of .waiting, takes more packets */
    IsoList waiting, sent; /* OUT */
};

static inline UsbIsoStats *iso_stats(UsbDevice *d, const IsoStream *s)
{
    return s->in ? &d->stats.iso_in : &d->stats.iso_out;
}

/* device_iso.c */
/** Withdraws what is at the source and forgets the stream. */
void iso_end(UsbDevice *d, Pipe *pipe);
/** Whether another request may be made; otherwise the device will pump again. */
bool iso_room(UsbDevice *d);
/** A completion came that had been expected at @due. */
void iso_observe(UsbDevice *d, IsoStream *s, uint64_t due);

/* device_isogap.c */
/** The lead is complete: QEMU's lateness counts from here. */
void iso_gap_lead_complete(const UsbDevice *d, IsoStream *s);
/** When a request that goes on with what is there has to leave. */
uint64_t iso_gap_due(const UsbDevice *d, const IsoStream *s);
/** The first request that waits is too late: counts the gap. */
void iso_gap_too_late(UsbDevice *d, IsoStream *s);

/* device_isoout.c */
/** Returns how many packets of the guest's were in it. */
uint32_t iso_list_clear(IsoList *list);
/** Sends what may go. */
void iso_out_pump(UsbDevice *d, Pipe *pipe);
void iso_out_complete(UsbDevice *d, Pipe *pipe, const UsbCompletion *completion);
/** The guest has stopped it: what is left is still played. */
void iso_out_stop(UsbDevice *d, Pipe *pipe);
uint64_t iso_out_deadline(const IsoStream *s);
void iso_out_tick(UsbDevice *d, Pipe *pipe);

#endif
