/*
 * Theory of operation. FreeRDP 3.10 believes the lengths a client claims: a DATA_FIRST reserves up
 * to 4 GiB, a static message grows until LAST arrives, a truncated header underflows a length, and
 * a DATA_FIRST that already holds the whole message is mishandled (urbdrc.md 1.3). So every chunk
 * passes here first. Static messages are counted against what their first chunk claimed and a
 * maximum. The drdynvc channel is reassembled here, its PDUs are parsed here, and data is
 * collected per channel in buffers that grow with what arrived, never with what was claimed.
 * FreeRDP is shown only what its own state needs: capabilities, create responses and closes, each
 * as one whole and well-formed PDU.
 *
 * What a client may do is read off the specification, not off what FreeRDP tolerates: interleaved
 * fragments of one channel, more bytes than claimed or compression in version 1 end the
 * connection. Data for a channel that has just been closed is normal and dropped.
 */
#include "dvc_guard.h"

#include <string.h>

/* Buffers up to this size are kept between messages. */
#define KEEP_BYTES (64u * 1024u)

enum { /* MS-RDPEDYC 2.2.1, the Cmd field */
       CMD_CREATE = 1,
       CMD_DATA_FIRST = 2,
       CMD_DATA = 3,
       CMD_CLOSE = 4,
       CMD_CAPS = 5,
       CMD_SOFT_SYNC_RESPONSE = 9,
};

static DvcGuardEvent violation(const char *why)
{
    return (DvcGuardEvent){.verdict = DVC_GUARD_VIOLATION, .why = why};
}

static DvcGuardEvent nothing(void)
{
    return (DvcGuardEvent){.verdict = DVC_GUARD_NOTHING};
}

void dvc_guard_init(DvcGuard *guard, DvcAssembly *(*channel)(void *user, uint32_t id), void *user)
{
    *guard = (DvcGuard){.channel = channel, .user = user};
    writer_init(&guard->pdu_bytes, DVC_GUARD_MAX_PDU);
}

void dvc_guard_clear(DvcGuard *guard)
{
    writer_clear(&guard->pdu_bytes);
}

void dvc_guard_message_done(DvcAssembly *assembly)
{
    if (assembly->bytes.cap > KEEP_BYTES)
        writer_clear(&assembly->bytes);
    assembly->bytes.len = 0;
}

void dvc_guard_forget(DvcGuard *guard, DvcAssembly *assembly)
{
    if (assembly->total > 0)
        guard->partial -= assembly->bytes.len;
    assembly->total = 0;
    writer_clear(&assembly->bytes);
}

/* A field of 1, 2 or 4 bytes, and what its length is called in a header (MS-RDPEDYC 2.2.3.1). */
static uint8_t size_code(uint32_t value)
{
    return value <= UINT8_MAX ? 0 : value <= UINT16_MAX ? 1 : 2;
}

static void write_sized(Writer *w, uint32_t value)
{
    if (size_code(value) == 0)
        writer_u8(w, (uint8_t)value);
    else if (size_code(value) == 1)
        writer_u16(w, (uint16_t)value);
    else
        writer_u32(w, value);
}

void dvc_guard_write_data_header(Writer *w, uint32_t id, uint32_t total)
{
    uint8_t cmd = total ? CMD_DATA_FIRST : CMD_DATA;

    writer_u8(w, (uint8_t)(cmd << 4 | (total ? size_code(total) << 2 : 0) | size_code(id)));
    write_sized(w, id);
    if (total)
        write_sized(w, total);
}

bool dvc_guard_static(DvcGuardStatic *message, size_t size, uint32_t flags, size_t total,
                      size_t max, const char **why)
{
    if (flags & DVC_CHUNK_COMPRESSED) {
        *why = "compressed channel chunk, which was not negotiated";
        return false;
    }
    if (flags & DVC_CHUNK_FIRST) {
        if (message->open) {
            *why = "channel message begun before the last one ended";
            return false;
        }
        if (total > max) {
            *why = "channel message longer than allowed";
            return false;
        }
        *message = (DvcGuardStatic){.total = total, .open = true};
    } else if (!message->open) {
        *why = "channel chunk outside of a message";
        return false;
    }
    if (size > message->total - message->got) {
        *why = "channel message longer than it claimed";
        return false;
    }
    message->got += size;
    if (flags & DVC_CHUNK_LAST) {
        if (message->got != message->total) {
            *why = "channel message shorter than it claimed";
            return false;
        }
        message->open = false;
    }
    return true;
}

/* The length fields of drdynvc: 1, 2 or 4 bytes by a two-bit code. */
static uint32_t read_variable(Reader *r, unsigned code)
{
    switch (code) {
    case 0:
        return reader_u8(r);
    case 1:
        return reader_u16(r);
    case 2:
        return reader_u32(r);
    default:
        r->failed = true;
        return 0;
    }
}

static DvcGuardEvent oversize(DvcGuard *guard, DvcAssembly *assembly, uint32_t id)
{
    dvc_guard_forget(guard, assembly);
    return (DvcGuardEvent){.verdict = DVC_GUARD_OVERSIZE, .id = id};
}

static DvcGuardEvent message(uint32_t id, const uint8_t *data, size_t len)
{
    if (len == 0)
        return nothing();
    return (DvcGuardEvent){.verdict = DVC_GUARD_MESSAGE, .id = id, .data = data, .len = len};
}

/* Adds @len bytes to the unfinished message and delivers it if that was the rest. */
static DvcGuardEvent collect(DvcGuard *guard, DvcAssembly *assembly, uint32_t id,
                             const uint8_t *data, size_t len)
{
    if (len > assembly->total - assembly->bytes.len)
        return violation("dynamic channel data beyond the announced length");
    if (len > DVC_GUARD_MAX_PARTIAL - guard->partial)
        return violation("too many bytes of unfinished dynamic channel messages");
    writer_bytes(&assembly->bytes, data, len);
    guard->partial += len;
    if (assembly->bytes.len < assembly->total)
        return nothing();

    guard->partial -= assembly->bytes.len;
    assembly->total = 0;
    return message(id, assembly->bytes.data, assembly->bytes.len);
}

static DvcGuardEvent on_data_first(DvcGuard *guard, DvcAssembly *assembly, uint32_t id,
                                   unsigned code, Reader *r)
{
    uint32_t total = read_variable(r, code);
    size_t len = reader_left(r);
    const uint8_t *data = reader_bytes(r, len);

    if (!reader_ok(r))
        return violation("truncated DYNVC_DATA_FIRST");
    if (assembly->total > 0)
        return violation("DYNVC_DATA_FIRST inside an unfinished message");
    if (total > assembly->max)
        return oversize(guard, assembly, id);
    if (len > total)
        return violation("DYNVC_DATA_FIRST with more data than it announces");
    if (len == total) /* legal, and what FreeRDP would wait on forever */
        return message(id, data, len);

    dvc_guard_message_done(assembly);
    assembly->bytes.max = total; /* doubling does not go past it */
    assembly->total = total;
    return collect(guard, assembly, id, data, len);
}

static DvcGuardEvent on_data(DvcGuard *guard, DvcAssembly *assembly, uint32_t id, Reader *r)
{
    size_t len = reader_left(r);
    const uint8_t *data = reader_bytes(r, len);

    if (assembly->total > 0)
        return collect(guard, assembly, id, data, len);
    if (len > assembly->max)
        return oversize(guard, assembly, id);
    return message(id, data, len);
}

static DvcGuardEvent on_pdu(DvcGuard *guard, const uint8_t *data, size_t len)
{
    DvcGuardEvent event = {.data = data, .len = len};
    DvcAssembly *assembly;
    Reader r;

    reader_init(&r, data, len);
    uint8_t head = reader_u8(&r);
    unsigned cmd = head >> 4;
    if (!reader_ok(&r))
        return violation("empty dynamic channel PDU");
    if (cmd == CMD_CAPS) {
        reader_skip(&r, 1); /* pad */
        uint16_t version = reader_u16(&r);
        if (!reader_ok(&r) || version < 1)
            return violation("malformed DYNVC_CAPS_RSP");
        event.verdict = DVC_GUARD_CAPS;
        return event;
    }
    if (cmd == CMD_SOFT_SYNC_RESPONSE)
        return nothing(); /* never asked for */

    event.id = read_variable(&r, head & 3);
    if (!reader_ok(&r))
        return violation("dynamic channel PDU with a truncated channel id");
    switch (cmd) {
    case CMD_CREATE:
        event.status = (int32_t)reader_u32(&r);
        if (!reader_ok(&r))
            return violation("truncated DYNVC_CREATE_RSP");
        event.verdict = DVC_GUARD_CREATED;
        return event;
    case CMD_CLOSE:
        event.verdict = DVC_GUARD_CLOSED;
        return event;
    case CMD_DATA_FIRST:
    case CMD_DATA:
        assembly = guard->channel(guard->user, event.id);
        if (!assembly) {
            guard->data_unknown++;
            return nothing();
        }
        if (cmd == CMD_DATA_FIRST)
            return on_data_first(guard, assembly, event.id, head >> 2 & 3, &r);
        return on_data(guard, assembly, event.id, &r);
    default:
        return violation("dynamic channel PDU of an unknown or unsupported kind");
    }
}

DvcGuardEvent dvc_guard_chunk(DvcGuard *guard, const uint8_t *data, size_t size, uint32_t flags,
                              size_t total)
{
    const char *why = NULL;

    if (!dvc_guard_static(&guard->pdu, size, flags, total, DVC_GUARD_MAX_PDU, &why))
        return violation(why);
    if ((flags & DVC_CHUNK_FIRST) && (flags & DVC_CHUNK_LAST))
        return on_pdu(guard, data, size);

    if (flags & DVC_CHUNK_FIRST)
        guard->pdu_bytes.len = 0;
    writer_bytes(&guard->pdu_bytes, data, size);
    if (!(flags & DVC_CHUNK_LAST))
        return nothing();
    return on_pdu(guard, guard->pdu_bytes.data, guard->pdu_bytes.len);
}
