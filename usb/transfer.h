/*
 * The in-flight table of one device: every request at the source, from submit to its end.
 *
 * Owner: the UsbDevice. Thread: its owner's. A Transfer is inserted once and leaves by exactly one
 * of transfer_complete(), transfer_cancel(), transfer_expire() and transfer_table_clear(); each of
 * the first three hands back a copy, so nothing points into the table once a Transfer has left.
 */
#ifndef QRDP_USB_TRANSFER_H
#define QRDP_USB_TRANSFER_H

#include "usb.h"

#define TRANSFER_POOL (USB_MAX_IN_FLIGHT + USB_MAX_TOMBSTONES)
#define TRANSFER_BUCKETS 1024u

/** Which timer a Transfer runs under; all of a class have the same patience. */
typedef enum TransferTimer {
    TRANSFER_TIMER_NONE,
    TRANSFER_TIMER_CONTROL,
    TRANSFER_TIMER_DATA,
    TRANSFER_TIMER_ISO,
    TRANSFER_TIMER_SILENT, /* after a time-out, until the client answers anything */
    TRANSFER_TIMERS,
} TransferTimer;

typedef struct Transfer {
    uint32_t id;
    TransferTimer timer;
    uint8_t endpoint;
    uint32_t length; /* bytes asked for or sent */
    uint64_t t0;     /* when it was inserted, see transfer_table_time() */
    uint64_t order;  /* of insertion: what was sent to the source earlier has the smaller one */
    void *owner;     /* the packet it serves, NULL for a stream's */
    bool expired;    /* its time ran out: what is answered late may still be wanted */
} Transfer;

typedef struct TransferSlot {
    Transfer transfer;
    uint8_t state;       /* TransferSlotState */
    uint16_t next_hash;  /* in its bucket, or of the free list */
    uint16_t prev, next; /* in its list */
} TransferSlot;

typedef struct TransferList {
    uint16_t head, tail;
    uint16_t unstamped; /* the first one inserted since the time was last known */
    uint32_t count;
} TransferList;

typedef struct TransferTable {
    TransferSlot slots[TRANSFER_POOL];
    uint16_t buckets[TRANSFER_BUCKETS];
    uint16_t free;
    TransferList live[TRANSFER_TIMERS];
    TransferList tombstones;
    uint32_t in_flight;
    uint32_t bytes; /* sum of .length of what is live */
    uint64_t last_order;
    uint64_t lost[16]; /* see transfer_lost() */
    uint64_t now;
    bool now_known; /* else .now is some time ago */
} TransferTable;

typedef enum TransferFate {
    TRANSFER_WAS_LIVE,
    TRANSFER_WAS_CANCELLED, /* the completion is late: there was a tombstone */
    TRANSFER_WAS_UNKNOWN,
} TransferFate;

void transfer_table_init(TransferTable *table, uint64_t now_us);
/** Forgets everything: the source is gone. */
void transfer_table_clear(TransferTable *table);

/** The time is known: stamps what was inserted while it was not, and drops old tombstones. */
void transfer_table_time(TransferTable *table, uint64_t now_us);
/** From here on time passes unnoticed, until transfer_table_time() is called again. */
void transfer_table_time_unknown(TransferTable *table);
/** When something expires, UINT64_MAX for never. May be early, never late. */
uint64_t transfer_table_deadline(const TransferTable *table);

bool transfer_full(const TransferTable *table);
/** True if the id is live or a tombstone: it must not be used again now. */
bool transfer_known(const TransferTable *table, uint32_t id);
/** Inserts @transfer (.t0 and .order are set here). The table must not be full, the id not known.
 */
void transfer_insert(TransferTable *table, const Transfer *transfer);
/** A completion came. Its Transfer is in @out if it was known. Of the .owner of one that was not
 * live only NULL or not means anything. */
TransferFate transfer_complete(TransferTable *table, uint32_t id, Transfer *out);
/** Nobody waits for it any more: it becomes a tombstone. False if it was not live. The oldest
 * tombstone makes room when there are too many. */
bool transfer_cancel(TransferTable *table, uint32_t id);
/** Takes the next one that has run out of time into @out; it leaves a tombstone. */
bool transfer_expire(TransferTable *table, Transfer *out);
/** The .order of the youngest stream's request on IN endpoint @endpoint that expired and whose
 * tombstone has gone without a late completion: what it had read, if anything, is lost. 0: none. */
uint64_t transfer_lost(const TransferTable *table, uint8_t endpoint);
/** The submission was refused: leaves without a trace. */
void transfer_undo(TransferTable *table, uint32_t id);
/** A live one now serves @owner. */
void transfer_reassign(TransferTable *table, uint32_t id, void *owner);
/** The live ones in unspecified order: @cursor starts at 0. For cancellation and errors only: it
 * walks the whole pool. The one returned may be removed meanwhile. */
const Transfer *transfer_next(const TransferTable *table, uint32_t *cursor);
/** When the oldest of the Transfers without a timer was inserted, UINT64_MAX for none. */
uint64_t transfer_pending_since(const TransferTable *table);
/** As transfer_expire(), for one without a timer that is at least @age_us old. */
bool transfer_expire_pending(TransferTable *table, uint64_t age_us, Transfer *out);
/** When the oldest tombstone was made, UINT64_MAX if there are fewer than USB_MAX_TOMBSTONES. */
uint64_t transfer_tombstones_full_since(const TransferTable *table);

#endif
