/*
 * The bouncer between a client's virtual-channel chunks and FreeRDP (design 5): it bounds static
 * channel messages, takes drdynvc PDUs apart (MS-RDPEDYC 2.2) and reassembles dynamic-channel
 * messages itself, so that FreeRDP never allocates what a client merely claims.
 *
 * Owner: the DvcManager. Thread: the peer's. Pure: no FreeRDP, no I/O. Lifetime: the caller's; a
 * DvcAssembly lives inside the channel it belongs to and must be cleared with
 * dvc_guard_forget() before it goes.
 */
#ifndef QRDP_CHANNELS_DVC_GUARD_H
#define QRDP_CHANNELS_DVC_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"

/** Largest drdynvc PDU. Clients cut at 1600 bytes (MS-RDPEDYC 3.1.5.1.1); this is generous. */
#define DVC_GUARD_MAX_PDU (64u * 1024u)
/** Largest message of any other static channel. */
#define DVC_GUARD_MAX_STATIC (16u << 20)
/** Most bytes of unfinished dynamic-channel messages of one connection. */
#define DVC_GUARD_MAX_PARTIAL (64u << 20)

/** Chunk flags (MS-RDPBCGR 2.2.6.1.1). */
enum {
    DVC_CHUNK_FIRST = 0x00000001,
    DVC_CHUNK_LAST = 0x00000002,
    DVC_CHUNK_COMPRESSED = 0x00200000,
};

/** The unfinished message of one dynamic channel; set .max, leave the rest zero. */
typedef struct DvcAssembly {
    size_t max;     /* largest message */
    uint32_t total; /* length claimed by DATA_FIRST, 0: nothing is unfinished */
    Writer bytes;
} DvcAssembly;

/** The unfinished message of one static channel that FreeRDP reassembles. Zero-initialise. */
typedef struct DvcGuardStatic {
    size_t total, got;
    bool open;
} DvcGuardStatic;

typedef struct DvcGuard {
    /** The channel with that id if data is allowed on it now, else NULL. */
    DvcAssembly *(*channel)(void *user, uint32_t id);
    void *user;
    DvcGuardStatic pdu; /* of the drdynvc channel itself */
    Writer pdu_bytes;
    size_t partial;        /* sum of unfinished bytes */
    uint64_t data_unknown; /* data PDUs for channels that are not open */
} DvcGuard;

typedef enum DvcGuardVerdict {
    DVC_GUARD_NOTHING,   /* kept or dropped; nothing to do */
    DVC_GUARD_CAPS,      /* .data: capability response, for FreeRDP */
    DVC_GUARD_CREATED,   /* .data: create response, for FreeRDP; .id, .status */
    DVC_GUARD_CLOSED,    /* .data: close, for FreeRDP; .id */
    DVC_GUARD_MESSAGE,   /* .data: one whole message of .id */
    DVC_GUARD_OVERSIZE,  /* a message of .id passes its maximum: close that channel */
    DVC_GUARD_VIOLATION, /* .why: end the connection */
} DvcGuardVerdict;

typedef struct DvcGuardEvent {
    DvcGuardVerdict verdict;
    uint32_t id;
    int32_t status;
    const uint8_t *data; /* valid until the next call or dvc_guard_message_done() */
    size_t len;
    const char *why;
} DvcGuardEvent;

void dvc_guard_init(DvcGuard *guard, DvcAssembly *(*channel)(void *user, uint32_t id), void *user);
void dvc_guard_clear(DvcGuard *guard);
/** Takes one chunk of the drdynvc static channel: @total is the length the chunk header claims for
 * the whole PDU. One chunk gives at most one event. */
DvcGuardEvent dvc_guard_chunk(DvcGuard *guard, const uint8_t *data, size_t size, uint32_t flags,
                              size_t total);
/** After a DVC_GUARD_MESSAGE has been handled: gives large buffers back. */
void dvc_guard_message_done(DvcAssembly *assembly);
/** Drops what is unfinished, when a channel closes. */
void dvc_guard_forget(DvcGuard *guard, DvcAssembly *assembly);

/** Begins a data PDU of channel @id (MS-RDPEDYC 2.2.3.1, 2.2.3.2). @total: the length of a message
 * that this PDU is the first part of; 0: it is a whole one or a later part. At most 9 bytes. */
void dvc_guard_write_data_header(Writer *w, uint32_t id, uint32_t total);

/** Bounds a chunk of a static channel that FreeRDP reassembles itself. False: end the connection,
 * *@why says why. */
bool dvc_guard_static(DvcGuardStatic *message, size_t size, uint32_t flags, size_t total,
                      size_t max, const char **why);

#endif
