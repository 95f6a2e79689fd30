/*
 * Theory of operation. FreeRDP's WTS API opens, writes and closes dynamic channels; receiving is
 * ours. WTSOpenServer installs peer->ReceiveChannelData, a public member; dvc_manager_new() puts
 * on_receive() in its place, which runs every chunk through the guard (dvc_guard.h). After the
 * first one of drdynvc most come to on_chunk() without having been FreeRDP's (transport_buffer.h).
 * Whole messages go from there straight to the Dvc's callback, inside peer->CheckFileDescriptor:
 * FreeRDP's own per-channel queues, with their quit messages that spin and zero-length messages
 * that stick (urbdrc.md 1.3), stay empty, and a client cannot fill memory faster than we handle
 * what it sends. FreeRDP is shown capabilities, create responses and closes only, and the callbacks
 * for these run after it has returned, so that they may open and close channels.
 *
 * Sending: FreeRDP's WTSVirtualChannelWrite copies every PDU into a queue that wakes up the loop
 * with a system call each, to send it from there; that was a third of what sending costs. So the
 * PDUs of open channels are made here and go to the peer's SendChannelData, where that queue leads
 * to, and are joined by the transport (transport_buffer.h). The queue is used, and then in order,
 * while the session is being reactivated, when no channel may send. The transport's buffer is
 * unbounded. An urgent message is written at once. A bulk message waits in the outbox; each
 * dispatch releases at most DVC_SLICE bytes (or one message, if that is larger), and only when the
 * queue has just been emptied and the socket took everything. So at most one slice of graphics is
 * ahead of an urgent message.
 *
 * "Queued" is the outbox plus what was handed on since the socket last took everything:
 * FreeRDP tells only whether its buffer is empty, not how full it is.
 */
#include "dvc_freerdp.h"

#include <freerdp/channels/channels.h>
#include <freerdp/channels/drdynvc.h>
#include <freerdp/channels/wtsvc.h>
#include <glib.h>
#include <winpr/wtsapi.h>

#include "dvc_guard.h"
#include "log.h"
#include "transport_buffer.h"

#define PDU_BYTES 1600u /* MS-RDPEDYC 2.2.3: no PDU is longer */

/* Bulk messages that may wait until dvc_manager_limit_bulk() knows better. */
#define DEFAULT_OUTBOX (1u << 20)
#define MAX_STATIC_CHANNELS 32u /* joined by one client (MS-RDPBCGR 2.2.1.3.4: 31) */

typedef enum DvcState {
    DVC_OPENING,
    DVC_OPEN,
    DVC_ABANDONED, /* closed by us before the client answered: closed on its answer */
    DVC_GONE,      /* freed when no callback is running */
} DvcState;

struct Dvc {
    DvcManager *manager;
    HANDLE handle;
    uint32_t id;
    DvcState state;
    DvcPriority priority;
    const DvcCallbacks *callbacks;
    void *user;
    DvcAssembly assembly;
    unsigned running; /* callbacks of this Dvc on the stack */
};

typedef struct OutMessage {
    Dvc *dvc; /* NULL: its channel was closed meanwhile */
    GBytes *bytes;
} OutMessage;

typedef struct StaticChannel {
    UINT16 id;
    DvcGuardStatic message;
} StaticChannel;

struct DvcManager {
    freerdp_peer *peer;
    TransportBuffer *transport;
    HANDLE vcm;
    DWORD session;
    psPeerReceiveChannelData receive; /* FreeRDP's own */
    void (*violation)(void *user, const char *why);
    bool (*deaf)(void *user);
    void *user;
    bool violated;

    DvcGuard guard;
    StaticChannel statics[MAX_STATIC_CHANNELS];
    unsigned n_statics;

    GHashTable *dvcs; /* id -> Dvc */
    unsigned opens;

    UINT16 drdynvc; /* the static channel's id, 0: nothing has come on it yet */
    Writer pdu;
    bool queueing; /* FreeRDP's queue has messages of ours */

    GQueue outbox; /* of OutMessage */
    size_t outbox_bytes, outbox_max;
    size_t handed[2]; /* per priority, since the socket last took everything */
    struct {
        size_t low_water;
        bool above;
        void (*func)(void *user);
        void *user;
    } drained[2];
};

/* FreeRDP 3.10's table of servers is not safe against two peers opening at once. */
static GMutex server_lock;

static void dvc_free(Dvc *dvc)
{
    dvc_guard_forget(&dvc->manager->guard, &dvc->assembly);
    g_free(dvc);
}

/* Takes @dvc off every list and FreeRDP's; the memory goes with the last running callback. */
static void dvc_drop(Dvc *dvc)
{
    DvcManager *m = dvc->manager;

    for (GList *l = m->outbox.head; l; l = l->next) {
        OutMessage *out = l->data;
        if (out->dvc == dvc)
            out->dvc = NULL;
    }
    g_hash_table_steal(m->dvcs, GUINT_TO_POINTER(dvc->id));
    WTSVirtualChannelClose(dvc->handle);
    dvc->handle = NULL;
    dvc->state = DVC_GONE;
    if (dvc->running == 0)
        dvc_free(dvc);
}

static void dvc_enter(Dvc *dvc)
{
    dvc->running++;
}

static void dvc_leave(Dvc *dvc)
{
    if (--dvc->running == 0 && dvc->state == DVC_GONE)
        dvc_free(dvc);
}

static void dvc_end(Dvc *dvc, DvcCloseReason reason)
{
    bool tell = dvc->state == DVC_OPENING || dvc->state == DVC_OPEN;

    dvc_enter(dvc);
    dvc_drop(dvc);
    if (tell && dvc->callbacks->closed)
        dvc->callbacks->closed(dvc, reason, dvc->user);
    dvc_leave(dvc);
}

Dvc *dvc_open(DvcManager *manager, const char *name, size_t max_message, DvcPriority priority,
              const DvcCallbacks *callbacks, void *user)
{
    if (!dvc_manager_ready(manager))
        return NULL;
    if (manager->opens >= DVC_MAX_OPENS) {
        log_warning("dvc", "the client used up its %u channel opens; %s is refused", DVC_MAX_OPENS,
                    name);
        return NULL;
    }
    HANDLE handle =
        WTSVirtualChannelOpenEx(manager->session, (LPSTR)name, WTS_CHANNEL_OPTION_DYNAMIC);
    if (!handle)
        return NULL;
    manager->opens++;

    Dvc *dvc = g_new0(Dvc, 1);
    dvc->manager = manager;
    dvc->handle = handle;
    dvc->id = WTSChannelGetIdByHandle(handle);
    dvc->priority = priority;
    dvc->callbacks = callbacks;
    dvc->user = user;
    dvc->assembly.max = max_message;
    g_hash_table_insert(manager->dvcs, GUINT_TO_POINTER(dvc->id), dvc);
    return dvc;
}

void dvc_close(Dvc *dvc)
{
    if (!dvc)
        return;
    g_assert(dvc->state == DVC_OPENING || dvc->state == DVC_OPEN);
    if (dvc->state == DVC_OPEN) {
        dvc_drop(dvc);
        return;
    }
    /* FreeRDP would forget the channel without telling the client, which may be opening it. */
    dvc->state = DVC_ABANDONED;
}

bool dvc_is_open(const Dvc *dvc)
{
    return dvc->state == DVC_OPEN;
}

uint32_t dvc_id(const Dvc *dvc)
{
    return dvc->id;
}

static bool send_pdus(DvcManager *m, uint32_t id, const uint8_t *data, size_t len)
{
    uint32_t total = (uint32_t)len;

    for (bool first = true; len > 0; first = false) {
        m->pdu.len = 0;
        dvc_guard_write_data_header(&m->pdu, id, first && len > PDU_BYTES - 5 ? total : 0);
        size_t n = MIN(len, PDU_BYTES - m->pdu.len);
        writer_bytes(&m->pdu, data, n);
        if (!m->peer->SendChannelData(m->peer, m->drdynvc, m->pdu.data, m->pdu.len))
            return false;
        data += n;
        len -= n;
    }
    return true;
}

static bool hand_over(DvcManager *m, Dvc *dvc, const uint8_t *data, size_t len)
{
    ULONG written = 0;
    bool ok;

    if (!m->peer->activated || m->queueing) {
        ok = WTSVirtualChannelWrite(dvc->handle, (PCHAR)data, (ULONG)len, &written);
        m->queueing = true;
    } else {
        transport_buffer_collect(m->transport);
        ok = send_pdus(m, dvc->id, data, len);
        transport_buffer_hold(m->transport);
    }
    if (ok)
        m->handed[dvc->priority] += len;
    return ok;
}

static void note_queued(DvcManager *m, DvcPriority priority)
{
    if (dvc_manager_queued(m, priority) > m->drained[priority].low_water)
        m->drained[priority].above = true;
}

static GBytes *hold(const uint8_t *data, size_t len, const DvcOwner *owner)
{
    if (!owner)
        return g_bytes_new(data, len);
    owner->ref(owner->owner);
    return g_bytes_new_with_free_func(data, len, owner->unref, owner->owner);
}

bool dvc_send(Dvc *dvc, const uint8_t *data, size_t len)
{
    return dvc_send_held(dvc, data, len, NULL);
}

bool dvc_send_held(Dvc *dvc, const uint8_t *data, size_t len, const DvcOwner *owner)
{
    DvcManager *m = dvc->manager;

    if (dvc->state != DVC_OPEN || len == 0 || len > UINT32_MAX)
        return false;
    if (dvc->priority == DVC_URGENT) {
        if (!hand_over(m, dvc, data, len))
            return false;
    } else {
        if (m->outbox_bytes > m->outbox_max || len > m->outbox_max - m->outbox_bytes)
            return false;
        OutMessage *out = g_new(OutMessage, 1);
        *out = (OutMessage){.dvc = dvc, .bytes = hold(data, len, owner)};
        g_queue_push_tail(&m->outbox, out);
        m->outbox_bytes += len;
    }
    note_queued(m, dvc->priority);
    return true;
}

size_t dvc_manager_queued(const DvcManager *manager, DvcPriority priority)
{
    return manager->handed[priority] + (priority == DVC_BULK ? manager->outbox_bytes : 0);
}

void dvc_manager_limit_bulk(DvcManager *manager, size_t bytes)
{
    manager->outbox_max = manager->outbox_bytes + bytes;
}

void dvc_manager_on_drained(DvcManager *manager, DvcPriority priority, size_t low_water,
                            void (*drained)(void *user), void *user)
{
    manager->drained[priority].low_water = low_water;
    manager->drained[priority].func = drained;
    manager->drained[priority].user = user;
    manager->drained[priority].above = dvc_manager_queued(manager, priority) > low_water;
}

/* Receiving */

static DvcAssembly *guard_channel(void *user, uint32_t id)
{
    DvcManager *m = user;
    Dvc *dvc = g_hash_table_lookup(m->dvcs, GUINT_TO_POINTER(id));

    return dvc && dvc->state == DVC_OPEN ? &dvc->assembly : NULL;
}

static BOOL refuse(DvcManager *m, const char *why)
{
    if (!m->violated) {
        m->violated = true;
        m->violation(m->user, why);
    }
    return FALSE;
}

static BOOL forward(DvcManager *m, const DvcGuardEvent *event)
{
    return m->receive(m->peer, m->drdynvc, event->data, event->len,
                      DVC_CHUNK_FIRST | DVC_CHUNK_LAST, event->len);
}

static BOOL on_created(DvcManager *m, const DvcGuardEvent *event)
{
    Dvc *dvc = g_hash_table_lookup(m->dvcs, GUINT_TO_POINTER(event->id));

    if (!dvc || dvc->state == DVC_OPEN)
        return TRUE; /* never asked for, or answered before */
    if (!forward(m, event))
        return FALSE;
    if (dvc->state == DVC_ABANDONED) {
        dvc_drop(dvc);
        return TRUE;
    }
    if (event->status < 0) {
        dvc_end(dvc, DVC_CLOSED_REFUSED);
        return TRUE;
    }
    dvc->state = DVC_OPEN;
    dvc_enter(dvc);
    if (dvc->callbacks->opened)
        dvc->callbacks->opened(dvc, dvc->user);
    dvc_leave(dvc);
    return TRUE;
}

static BOOL on_closed(DvcManager *m, const DvcGuardEvent *event)
{
    Dvc *dvc = g_hash_table_lookup(m->dvcs, GUINT_TO_POINTER(event->id));

    if (!dvc)
        return TRUE; /* the answer to our own close */
    if (!forward(m, event))
        return FALSE;
    dvc_end(dvc, DVC_CLOSED_BY_CLIENT);
    return TRUE;
}

static void on_message(DvcManager *m, const DvcGuardEvent *event)
{
    Dvc *dvc = g_hash_table_lookup(m->dvcs, GUINT_TO_POINTER(event->id));

    dvc_enter(dvc);
    if (dvc->callbacks->message)
        dvc->callbacks->message(dvc, event->data, event->len, dvc->user);
    dvc_guard_message_done(&dvc->assembly);
    dvc_leave(dvc);
}

static BOOL on_drdynvc(DvcManager *m, const BYTE *data, size_t size, UINT32 flags, size_t total)
{
    DvcGuardEvent event = dvc_guard_chunk(&m->guard, data, size, flags, total);
    Dvc *dvc;

    switch (event.verdict) {
    case DVC_GUARD_NOTHING:
        return TRUE;
    case DVC_GUARD_CAPS:
        return forward(m, &event);
    case DVC_GUARD_CREATED:
        return on_created(m, &event);
    case DVC_GUARD_CLOSED:
        return on_closed(m, &event);
    case DVC_GUARD_MESSAGE:
        on_message(m, &event);
        return TRUE;
    case DVC_GUARD_OVERSIZE:
        dvc = g_hash_table_lookup(m->dvcs, GUINT_TO_POINTER(event.id));
        log_warning("dvc", "channel %u: the client's message is longer than %zu bytes; closed",
                    event.id, dvc->assembly.max);
        dvc_end(dvc, DVC_CLOSED_OVERSIZE);
        return TRUE;
    case DVC_GUARD_VIOLATION:
        return refuse(m, event.why);
    }
    g_assert_not_reached();
}

static bool listens(void *user)
{
    DvcManager *m = user;

    return !m->violated && !m->deaf(m->user);
}

static bool on_chunk(void *user, const uint8_t *data, size_t len, uint32_t flags, size_t total)
{
    DvcManager *m = user;

    return on_drdynvc(m, data, len, flags, total);
}

static StaticChannel *static_channel(DvcManager *m, UINT16 id)
{
    for (unsigned i = 0; i < m->n_statics; i++) {
        if (m->statics[i].id == id)
            return &m->statics[i];
    }
    if (m->n_statics == MAX_STATIC_CHANNELS)
        return NULL;
    m->statics[m->n_statics].id = id;
    return &m->statics[m->n_statics++];
}

static BOOL on_receive(freerdp_peer *peer, UINT16 channel, const BYTE *data, size_t size,
                       UINT32 flags, size_t total)
{
    DvcManager *m = peer->ContextExtra;
    const char *why = NULL;

    if (m->violated)
        return FALSE;
    if (!WTSChannelGetHandleById(peer, channel))
        return TRUE; /* a channel that we have not opened: FreeRDP would log each chunk */
    if (m->drdynvc == 0 && channel == WTSChannelGetId(peer, DRDYNVC_SVC_CHANNEL_NAME)) {
        m->drdynvc = channel;
        transport_buffer_serve(m->transport, channel, listens, on_chunk, m);
    }
    if (channel == m->drdynvc)
        return on_drdynvc(m, data, size, flags, total);

    StaticChannel *sc = static_channel(m, channel);
    if (!sc)
        return refuse(m, "more static channels than the protocol allows");
    if (!dvc_guard_static(&sc->message, size, flags, total, DVC_GUARD_MAX_STATIC, &why))
        return refuse(m, why);
    return m->receive(peer, channel, data, size, flags, total);
}

/* The manager */

static DWORD session_of(HANDLE vcm)
{
    LPSTR buffer = NULL;
    DWORD len = 0, session = WTS_CURRENT_SESSION;

    if (WTSQuerySessionInformationA(vcm, WTS_CURRENT_SESSION, WTSSessionId, &buffer, &len) &&
        len == sizeof(session))
        memcpy(&session, buffer, sizeof(session));
    WTSFreeMemory(buffer);
    return session;
}

static void register_wts(void)
{
    static gsize once;

    if (g_once_init_enter(&once)) {
        WTSRegisterWtsApiFunctionTable(FreeRDP_InitWtsApi());
        g_once_init_leave(&once, 1);
    }
}

DvcManager *dvc_manager_new(freerdp_peer *peer, void (*violation)(void *user, const char *why),
                            bool (*deaf)(void *user), void *user)
{
    register_wts();
    g_mutex_lock(&server_lock);
    HANDLE vcm = WTSOpenServerA((LPSTR)peer->context);
    g_mutex_unlock(&server_lock);
    if (!vcm || vcm == INVALID_HANDLE_VALUE)
        return NULL;
    TransportBuffer *transport = transport_buffer_new(peer);
    if (!transport) {
        g_mutex_lock(&server_lock);
        WTSCloseServer(vcm);
        g_mutex_unlock(&server_lock);
        return NULL;
    }

    DvcManager *m = g_new0(DvcManager, 1);
    m->peer = peer;
    m->transport = transport;
    m->vcm = vcm;
    m->session = session_of(vcm);
    m->violation = violation;
    m->deaf = deaf;
    m->user = user;
    m->dvcs = g_hash_table_new(NULL, NULL);
    writer_init(&m->pdu, PDU_BYTES);
    g_queue_init(&m->outbox);
    m->outbox_max = DEFAULT_OUTBOX;
    dvc_guard_init(&m->guard, guard_channel, m);
    m->receive = peer->ReceiveChannelData;
    peer->ReceiveChannelData = on_receive;
    peer->ContextExtra = m;
    return m;
}

static void out_message_free(OutMessage *out)
{
    g_bytes_unref(out->bytes);
    g_free(out);
}

void dvc_manager_free(DvcManager *manager)
{
    GHashTableIter iter;
    gpointer dvc;

    if (!manager)
        return;
    /* a callback may close other channels: start over after each */
    while (g_hash_table_iter_init(&iter, manager->dvcs), g_hash_table_iter_next(&iter, NULL, &dvc))
        dvc_end(dvc, DVC_CLOSED_LOST);
    g_hash_table_unref(manager->dvcs);
    g_queue_clear_full(&manager->outbox, (GDestroyNotify)out_message_free);

    manager->peer->ReceiveChannelData = NULL;
    manager->peer->ContextExtra = NULL;
    g_mutex_lock(&server_lock);
    WTSCloseServer(manager->vcm);
    g_mutex_unlock(&server_lock);
    dvc_guard_clear(&manager->guard);
    writer_clear(&manager->pdu);
    transport_buffer_free(manager->transport);
    g_free(manager);
}

bool dvc_manager_holds_input(const DvcManager *manager)
{
    return transport_buffer_holds_input(manager->transport);
}

uint64_t dvc_manager_received(const DvcManager *manager)
{
    UINT64 packets = 0;

    freerdp_get_stats(manager->peer->context->rdp, NULL, NULL, &packets, NULL);
    return packets + transport_buffer_served(manager->transport);
}

HANDLE dvc_manager_handle(const DvcManager *manager)
{
    return WTSVirtualChannelManagerGetEventHandle(manager->vcm);
}

bool dvc_manager_ready(const DvcManager *manager)
{
    return WTSVirtualChannelManagerGetDrdynvcState(manager->vcm) == DRDYNVC_STATE_READY;
}

bool dvc_manager_has_pdus(const DvcManager *manager)
{
    return transport_buffer_waits(manager->transport);
}

bool dvc_manager_has_outbox(const DvcManager *manager)
{
    return manager->outbox_bytes > 0;
}

/* Moves FreeRDP's queue on to the transport. */
static bool pump(DvcManager *m)
{
    /* Its first call starts drdynvc, once and for all: not before the client joined it. */
    BOOL start = WTSVirtualChannelManagerIsChannelJoined(m->vcm, DRDYNVC_SVC_CHANNEL_NAME);

    transport_buffer_collect(m->transport);
    BOOL ok = WTSVirtualChannelManagerCheckFileDescriptorEx(m->vcm, start);
    if (ok)
        m->queueing = false;
    return transport_buffer_write(m->transport) && ok;
}

/* True if the socket has taken everything. */
static bool socket_idle(DvcManager *m)
{
    if (m->peer->IsWriteBlocked(m->peer))
        return false;
    m->handed[DVC_URGENT] = 0;
    m->handed[DVC_BULK] = 0;
    return true;
}

void dvc_manager_flush(DvcManager *manager)
{
    DvcManager *m = manager;

    /* A connection that breaks here is found broken by the next dispatch. */
    if (!m->violated && m->peer->activated && !m->peer->IsWriteBlocked(m->peer) && pump(m))
        socket_idle(m);
}

static bool release_slice(DvcManager *m)
{
    size_t released = 0;
    OutMessage *out;

    while ((out = g_queue_peek_head(&m->outbox))) {
        size_t len;
        const uint8_t *data = g_bytes_get_data(out->bytes, &len);
        bool ok = true;

        if (released > 0 && released + len > DVC_SLICE)
            break;
        g_queue_pop_head(&m->outbox);
        m->outbox_bytes -= len;
        if (out->dvc) {
            ok = hand_over(m, out->dvc, data, len);
            released += len;
        }
        out_message_free(out);
        if (!ok)
            return false;
    }
    return released == 0 || pump(m);
}

static void tell_drained(DvcManager *m)
{
    for (unsigned i = 0; i < 2; i++) {
        if (m->drained[i].above && dvc_manager_queued(m, i) <= m->drained[i].low_water) {
            m->drained[i].above = false;
            if (m->drained[i].func)
                m->drained[i].func(m->drained[i].user);
        }
    }
}

bool dvc_manager_dispatch(DvcManager *manager)
{
    if (manager->violated)
        return false;
    if (!manager->peer->activated)
        return transport_buffer_write(manager->transport);
    if (manager->peer->IsWriteBlocked(manager->peer) &&
        manager->peer->DrainOutputBuffer(manager->peer) < 0)
        return false;
    if (!pump(manager))
        return false;
    if (socket_idle(manager) && manager->outbox_bytes > 0) {
        if (!release_slice(manager))
            return false;
        socket_idle(manager);
    }
    tell_drained(manager);
    return true;
}
