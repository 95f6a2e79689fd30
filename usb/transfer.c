/*
 * Theory of operation
 *
 * A fixed pool of slots, a hash from request id to slot, and one list per timer class. All of a
 * class have the same patience and are inserted in the order of time, so the head of a list is
 * always the next to expire and no heap is needed: every operation but transfer_next() is O(1) plus
 * a short hash chain (512 slots, 1024 buckets).
 *
 * A cancelled or expired request stays as a tombstone: its client may answer late or never, and its
 * id must not be given to another request meanwhile. Tombstones go when their completion comes,
 * when they are USB_TOMBSTONE_US old, or oldest first when there are too many. The last is
 * harmless: ids are handed out in a circle of 2^30, and the completion of an unknown id is dropped
 * like a late one.
 *
 * Completions carry no time. What is inserted from within one is stamped with the last known time
 * at first (too early) and again when the time is next known (a little late), before anything is
 * expired. So a timer may run up to twice its time, but never short, and the data path needs no
 * clock and no extra wake-up.
 */
#include "transfer.h"

#include <assert.h>
#include <string.h>

#define NIL 0xffffu

typedef enum TransferSlotState {
    SLOT_FREE,
    SLOT_LIVE,
    SLOT_TOMBSTONE,
} TransferSlotState;

_Static_assert(TRANSFER_POOL < NIL, "slots are numbered with 16 bits");

static uint64_t patience(TransferTimer timer)
{
    switch (timer) {
    case TRANSFER_TIMER_CONTROL:
        return USB_TIMEOUT_CONTROL_US;
    case TRANSFER_TIMER_DATA:
        return USB_TIMEOUT_TRANSFER_US;
    case TRANSFER_TIMER_ISO:
        return USB_TIMEOUT_ISO_US;
    case TRANSFER_TIMER_SILENT:
        return USB_TIMEOUT_SILENT_US;
    default:
        return UINT64_MAX;
    }
}

static unsigned bucket_of(uint32_t id)
{
    return id % TRANSFER_BUCKETS; /* ids are consecutive */
}

static void list_init(TransferList *list)
{
    *list = (TransferList){.head = NIL, .tail = NIL, .unstamped = NIL};
}

static void list_append(TransferTable *table, TransferList *list, uint16_t i)
{
    TransferSlot *slot = &table->slots[i];

    slot->prev = list->tail;
    slot->next = NIL;
    if (list->tail != NIL)
        table->slots[list->tail].next = i;
    else
        list->head = i;
    list->tail = i;
    if (list->unstamped == NIL && !table->now_known)
        list->unstamped = i;
    list->count++;
}

static void list_remove(TransferTable *table, TransferList *list, uint16_t i)
{
    TransferSlot *slot = &table->slots[i];

    if (slot->prev != NIL)
        table->slots[slot->prev].next = slot->next;
    else
        list->head = slot->next;
    if (slot->next != NIL)
        table->slots[slot->next].prev = slot->prev;
    else
        list->tail = slot->prev;
    if (list->unstamped == i)
        list->unstamped = slot->next;
    list->count--;
}

void transfer_table_init(TransferTable *table, uint64_t now_us)
{
    memset(table, 0, sizeof(*table));
    table->now = now_us;
    transfer_table_clear(table);
}

void transfer_table_clear(TransferTable *table)
{
    for (unsigned i = 0; i < TRANSFER_BUCKETS; i++)
        table->buckets[i] = NIL;
    for (unsigned i = 0; i < TRANSFER_POOL; i++) {
        table->slots[i].state = SLOT_FREE;
        table->slots[i].next_hash = (uint16_t)(i + 1 < TRANSFER_POOL ? i + 1 : NIL);
    }
    table->free = 0;
    for (unsigned i = 0; i < TRANSFER_TIMERS; i++)
        list_init(&table->live[i]);
    list_init(&table->tombstones);
    memset(table->lost, 0, sizeof(table->lost));
    table->in_flight = table->bytes = 0;
}

static uint16_t find(const TransferTable *table, uint32_t id)
{
    uint16_t i = table->buckets[bucket_of(id)];

    while (i != NIL && table->slots[i].transfer.id != id)
        i = table->slots[i].next_hash;
    return i;
}

static void release(TransferTable *table, uint16_t i)
{
    TransferSlot *slot = &table->slots[i];
    uint16_t *link = &table->buckets[bucket_of(slot->transfer.id)];

    while (*link != i)
        link = &table->slots[*link].next_hash;
    *link = slot->next_hash;
    slot->state = SLOT_FREE;
    slot->next_hash = table->free;
    table->free = i;
}

static void leave_live(TransferTable *table, uint16_t i)
{
    TransferSlot *slot = &table->slots[i];

    list_remove(table, &table->live[slot->transfer.timer], i);
    table->in_flight--;
    table->bytes -= slot->transfer.length;
}

static void drop_tombstone(TransferTable *table, uint16_t i)
{
    list_remove(table, &table->tombstones, i);
    release(table, i);
}

/* No completion came for it. */
static void forget_tombstone(TransferTable *table, uint16_t i)
{
    const Transfer *t = &table->slots[i].transfer;
    uint64_t *lost = &table->lost[t->endpoint & 0x0f];

    if (t->expired && !t->owner && t->endpoint & 0x80 && t->order > *lost)
        *lost = t->order;
    drop_tombstone(table, i);
}

static void bury(TransferTable *table, uint16_t i)
{
    leave_live(table, i);
    if (table->tombstones.count == USB_MAX_TOMBSTONES)
        forget_tombstone(table, table->tombstones.head);
    table->slots[i].state = SLOT_TOMBSTONE;
    table->slots[i].transfer.t0 = table->now;
    list_append(table, &table->tombstones, i);
}

static void stamp(TransferTable *table, TransferList *list)
{
    for (uint16_t i = list->unstamped; i != NIL; i = table->slots[i].next)
        table->slots[i].transfer.t0 = table->now;
    list->unstamped = NIL;
}

void transfer_table_time(TransferTable *table, uint64_t now_us)
{
    if (now_us > table->now)
        table->now = now_us;
    table->now_known = true;
    for (unsigned i = 0; i < TRANSFER_TIMERS; i++)
        stamp(table, &table->live[i]);
    stamp(table, &table->tombstones);
    while (table->tombstones.head != NIL &&
           table->now - table->slots[table->tombstones.head].transfer.t0 >= USB_TOMBSTONE_US)
        forget_tombstone(table, table->tombstones.head);
}

void transfer_table_time_unknown(TransferTable *table)
{
    table->now_known = false;
}

uint64_t transfer_table_deadline(const TransferTable *table)
{
    uint64_t deadline = UINT64_MAX;

    for (unsigned i = TRANSFER_TIMER_CONTROL; i < TRANSFER_TIMERS; i++) {
        uint16_t head = table->live[i].head;

        if (head != NIL && table->slots[head].transfer.t0 + patience(i) < deadline)
            deadline = table->slots[head].transfer.t0 + patience(i);
    }
    if (table->tombstones.head != NIL) {
        uint64_t t = table->slots[table->tombstones.head].transfer.t0 + USB_TOMBSTONE_US;
        if (t < deadline)
            deadline = t;
    }
    return deadline;
}

bool transfer_full(const TransferTable *table)
{
    return table->in_flight == USB_MAX_IN_FLIGHT;
}

bool transfer_known(const TransferTable *table, uint32_t id)
{
    return find(table, id) != NIL;
}

void transfer_insert(TransferTable *table, const Transfer *transfer)
{
    uint16_t i = table->free;

    assert(!transfer_full(table) && i != NIL && !transfer_known(table, transfer->id));
    TransferSlot *slot = &table->slots[i];
    table->free = slot->next_hash;
    slot->transfer = *transfer;
    slot->transfer.t0 = table->now;
    slot->transfer.order = ++table->last_order;
    slot->state = SLOT_LIVE;
    slot->next_hash = table->buckets[bucket_of(transfer->id)];
    table->buckets[bucket_of(transfer->id)] = i;
    list_append(table, &table->live[transfer->timer], i);
    table->in_flight++;
    table->bytes += transfer->length;
}

TransferFate transfer_complete(TransferTable *table, uint32_t id, Transfer *out)
{
    uint16_t i = find(table, id);

    if (i == NIL)
        return TRANSFER_WAS_UNKNOWN;
    *out = table->slots[i].transfer;
    if (table->slots[i].state == SLOT_TOMBSTONE) {
        drop_tombstone(table, i);
        return TRANSFER_WAS_CANCELLED;
    }
    leave_live(table, i);
    release(table, i);
    return TRANSFER_WAS_LIVE;
}

bool transfer_cancel(TransferTable *table, uint32_t id)
{
    uint16_t i = find(table, id);

    if (i == NIL || table->slots[i].state != SLOT_LIVE)
        return false;
    bury(table, i);
    return true;
}

bool transfer_expire(TransferTable *table, Transfer *out)
{
    for (unsigned timer = TRANSFER_TIMER_CONTROL; timer < TRANSFER_TIMERS; timer++) {
        uint16_t i = table->live[timer].head;

        if (i == NIL || i == table->live[timer].unstamped ||
            table->now - table->slots[i].transfer.t0 < patience(timer))
            continue;
        *out = table->slots[i].transfer;
        table->slots[i].transfer.expired = true;
        bury(table, i);
        return true;
    }
    return false;
}

uint64_t transfer_lost(const TransferTable *table, uint8_t endpoint)
{
    return table->lost[endpoint & 0x0f];
}

uint64_t transfer_pending_since(const TransferTable *table)
{
    const TransferList *list = &table->live[TRANSFER_TIMER_NONE];

    return list->head == NIL || list->head == list->unstamped
               ? UINT64_MAX
               : table->slots[list->head].transfer.t0;
}

bool transfer_expire_pending(TransferTable *table, uint64_t age_us, Transfer *out)
{
    uint64_t since = transfer_pending_since(table);

    if (since == UINT64_MAX || table->now - since < age_us)
        return false;
    uint16_t i = table->live[TRANSFER_TIMER_NONE].head;
    *out = table->slots[i].transfer;
    table->slots[i].transfer.expired = true;
    bury(table, i);
    return true;
}

void transfer_undo(TransferTable *table, uint32_t id)
{
    Transfer ignored;
    TransferFate fate = transfer_complete(table, id, &ignored);

    assert(fate == TRANSFER_WAS_LIVE);
    (void)fate;
}

void transfer_reassign(TransferTable *table, uint32_t id, void *owner)
{
    uint16_t i = find(table, id);

    assert(i != NIL && table->slots[i].state == SLOT_LIVE);
    table->slots[i].transfer.owner = owner;
}

const Transfer *transfer_next(const TransferTable *table, uint32_t *cursor)
{
    while (*cursor < TRANSFER_POOL) {
        const TransferSlot *slot = &table->slots[(*cursor)++];
        if (slot->state == SLOT_LIVE)
            return &slot->transfer;
    }
    return NULL;
}

uint64_t transfer_tombstones_full_since(const TransferTable *table)
{
    if (table->tombstones.count < USB_MAX_TOMBSTONES)
        return UINT64_MAX;
    return table->slots[table->tombstones.head].transfer.t0;
}
