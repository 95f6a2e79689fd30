/*
 * Theory of operation. OPENING -> WAIT_CAPS when the client opens the channel -> READY when it has
 * advertised and we have confirmed; GONE from anywhere. Nothing is sent before the confirmation:
 * mstsc disconnects over it. The client may advertise again whenever it likes (mstsc does after
 * a ResetGraphics); that wipes its screen, so everything is forgotten, confirmed again, and ready
 * is called again. A client that never advertises within ten seconds has no GFX.
 *
 * A frame is StartFrame, PDUs, EndFrame, packed into as few messages as DVC_SLICE allows, so that
 * USB and input wait for one slice at most. Each message is compressed against all that the channel
 * has carried (zgfx.h), unless most of it is video, and in haste where a frame is large. The pacer
 * counts the frame, by the bytes that are left, until it is acknowledged.
 */
#include "gfx.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "log.h"
#include "zgfx.h"

/* A frame's bytes that are compressed as well as can be, at some 10 ms of work: more than a screen
 * of text. A frame of 4K may have 100 times as much, and the client's USB waits for it. */
#define CAREFUL_BYTES (256u * 1024u)

typedef enum GfxState { OPENING, WAIT_CAPS, READY, GONE } GfxState;

struct Gfx {
    DvcManager *manager;
    Dvc *dvc;
    char subject[64];
    uint64_t (*now)(void);
    const GfxCallbacks *callbacks;
    void *user;

    GfxState state;
    uint64_t deadline;
    GfxCapset capset;
    uint64_t advertise_window;
    unsigned advertises;
    bool offer_answered; /* since the confirmation: a client offers its cache once */

    uint16_t surface, last_surface;
    uint16_t aux;           /* a bit for each of GFX_AUX_SURFACES that exists */
    uint32_t width, height; /* of the last ResetGraphics, 0: none since the confirmation */
    uint32_t frame_id;
    Zgfx *zgfx;
    uint64_t bytes, plain_bytes; /* sent, and before compression */
    Pacer pacer;

    unsigned running; /* our callbacks on the stack */
    bool freed;
};

/* Best first. All versions carry what is used, but for H.264. */
static const uint32_t versions[] = {
    GFX_VERSION_107, GFX_VERSION_106, GFX_VERSION_106_ERR, GFX_VERSION_105,
    GFX_VERSION_104, GFX_VERSION_103, GFX_VERSION_102,     GFX_VERSION_101,
    GFX_VERSION_10,  GFX_VERSION_81,  GFX_VERSION_8,
};

static void enter(Gfx *gfx)
{
    gfx->running++;
}

static void destroy(Gfx *gfx)
{
    zgfx_free(gfx->zgfx);
    free(gfx);
}

/* Not inlined: gcc cannot see that the nested calls never free, and warns. */
__attribute__((noinline)) static void leave(Gfx *gfx)
{
    if (--gfx->running == 0 && gfx->freed)
        destroy(gfx);
}

/* The channel is closed already or is closed here; tells the user once. */
static void give_up(Gfx *gfx, const char *why)
{
    if (gfx->state == GONE)
        return;
    gfx->state = GONE;
    gfx->surface = 0;
    gfx->deadline = UINT64_MAX;
    dvc_close(gfx->dvc);
    gfx->dvc = NULL;
    enter(gfx);
    gfx->callbacks->unavailable(gfx->user, why);
    leave(gfx);
}

/* For a message of @len bytes, of which @dense are of PDUs that are gfx_pdu_is_dense(); up to its
 * end the frame has @frame_bytes. */
static ZgfxEffort effort_for(size_t len, size_t dense, size_t frame_bytes)
{
    if (dense > len / 2)
        return ZGFX_STORE;
    return frame_bytes <= CAREFUL_BYTES ? ZGFX_COMPRESS : ZGFX_FAST;
}

/* Sends the PDUs in @pdus as one message and empties it. After a failure the channel must be given
 * up: the client has not got what the compressor believes it has. */
static bool flush(Gfx *gfx, Writer *pdus, ZgfxEffort effort)
{
    Writer w;
    bool ok = true;

    if (pdus->len > 0) {
        writer_init(&w, zgfx_bound(pdus->len));
        zgfx_wrap(gfx->zgfx, pdus->data, pdus->len, effort, &w);
        ok = writer_ok(pdus) && writer_ok(&w) && dvc_send(gfx->dvc, w.data, w.len);
        gfx->bytes += w.len;
        gfx->plain_bytes += pdus->len;
        writer_clear(&w);
    }
    pdus->len = 0;
    return ok;
}

static bool send_now(Gfx *gfx, Writer *pdus)
{
    bool ok = flush(gfx, pdus, ZGFX_COMPRESS);

    writer_clear(pdus);
    return ok;
}

/* 10.1 has no flags: FreeRDP lists it even where its 10 and 10.2 say AVC_DISABLED. */
static bool allows_avc420(const GfxCapset *set)
{
    switch (set->version) {
    case GFX_VERSION_8:
    case GFX_VERSION_101:
        return false;
    case GFX_VERSION_81:
        return set->flags & GFX_CAPS_AVC420_ENABLED;
    default:
        return !(set->flags & GFX_CAPS_AVC_DISABLED);
    }
}

static bool choose_best(const GfxClientPdu *pdu, bool avc420, GfxCapset *chosen)
{
    for (size_t v = 0; v < sizeof(versions) / sizeof(versions[0]); v++) {
        for (uint16_t i = 0; i < pdu->caps.n; i++) {
            const GfxCapset *set = &pdu->caps.sets[i];
            if (set->version == versions[v] && (!avc420 || allows_avc420(set))) {
                *chosen = *set;
                return true;
            }
        }
    }
    return false;
}

/* Later versions have nothing else that we use, so H.264 decides: a client may have it in 8.1 only.
 */
static bool choose(const GfxClientPdu *pdu, GfxCapset *chosen)
{
    return choose_best(pdu, true, chosen) || choose_best(pdu, false, chosen);
}

static bool too_often(Gfx *gfx)
{
    uint64_t now = gfx->now();

    if (now - gfx->advertise_window >= GFX_READVERTISE_WINDOW_US) {
        gfx->advertise_window = now;
        gfx->advertises = 0;
    }
    return ++gfx->advertises > GFX_MAX_READVERTISES;
}

static void on_caps_advertise(Gfx *gfx, const GfxClientPdu *pdu)
{
    Writer w;

    if (too_often(gfx)) {
        give_up(gfx, "the client advertises graphics capabilities over and over");
        return;
    }
    if (!choose(pdu, &gfx->capset)) {
        give_up(gfx, "the client's graphics pipeline has no version in common with ours");
        return;
    }
    gfx->state = READY;
    gfx->deadline = UINT64_MAX;
    gfx->offer_answered = false;
    gfx->surface = 0;
    gfx->aux = 0;
    gfx->width = gfx->height = 0;
    pacer_forget(&gfx->pacer);
    writer_init(&w, 256);
    gfx_write_caps_confirm(&w, &gfx->capset);
    if (!send_now(gfx, &w)) {
        give_up(gfx, "the graphics channel cannot be written");
        return;
    }
    log_debug(gfx->subject, "GFX version %08x, flags %08x", gfx->capset.version, gfx->capset.flags);
    gfx->callbacks->ready(gfx->user);
}

static void on_cache_import_offer(Gfx *gfx)
{
    Writer w;

    if (gfx->offer_answered) /* each answer waits in the outbox for a client that may not read */
        return;
    gfx->offer_answered = true;
    writer_init(&w, 64);
    gfx_write_cache_import_reply_empty(&w);
    if (!send_now(gfx, &w))
        give_up(gfx, "the graphics channel cannot be written");
}

static void handle(Gfx *gfx, const GfxClientPdu *pdu)
{
    if (pdu->cmd == GFX_CAPSADVERTISE) {
        on_caps_advertise(gfx, pdu);
        return;
    }
    if (gfx->state != READY)
        return;
    switch (pdu->cmd) {
    case GFX_FRAMEACKNOWLEDGE:
        pacer_acked(&gfx->pacer, pdu->ack.frame_id, pdu->ack.queue_depth == GFX_QUEUE_SUSPEND,
                    gfx->now());
        gfx->callbacks->slot(gfx->user);
        break;
    case GFX_CACHEIMPORTOFFER:
        on_cache_import_offer(gfx);
        break;
    default: /* QoE figures are not used; unknown commands are of no concern to a server */
        break;
    }
}

static void on_opened(Dvc *dvc, void *user)
{
    Gfx *gfx = user;

    (void)dvc;
    gfx->state = WAIT_CAPS;
    gfx->deadline = gfx->now() + GFX_ADVERTISE_US;
}

static void on_message(Dvc *dvc, const uint8_t *data, size_t len, void *user)
{
    Gfx *gfx = user;
    Reader r;

    (void)dvc;
    enter(gfx);
    reader_init(&r, data, len);
    while (reader_left(&r) > 0 && gfx->state != GONE && !gfx->freed) {
        GfxClientPdu pdu;
        const char *why = "";
        if (!gfx_parse_client(&r, &pdu, &why)) {
            give_up(gfx, why);
            break;
        }
        handle(gfx, &pdu);
    }
    leave(gfx);
}

static void on_closed(Dvc *dvc, DvcCloseReason reason, void *user)
{
    Gfx *gfx = user;

    (void)dvc;
    gfx->dvc = NULL;
    switch (reason) {
    case DVC_CLOSED_REFUSED:
        give_up(gfx, "the client has no graphics pipeline");
        break;
    case DVC_CLOSED_OVERSIZE:
        give_up(gfx, "the client sent an oversized message on the graphics channel");
        break;
    default:
        give_up(gfx, "the client closed the graphics channel");
        break;
    }
}

static const DvcCallbacks dvc_callbacks = {
    .opened = on_opened, .message = on_message, .closed = on_closed};

static void on_drained(void *user)
{
    Gfx *gfx = user;

    if (gfx->state == READY) {
        enter(gfx);
        gfx->callbacks->slot(gfx->user);
        leave(gfx);
    }
}

Gfx *gfx_new(DvcManager *manager, const char *subject, uint64_t (*now)(void),
             const GfxCallbacks *callbacks, void *user)
{
    Gfx *gfx = calloc(1, sizeof(*gfx));

    if (!gfx)
        abort();
    gfx->manager = manager;
    gfx->now = now;
    gfx->callbacks = callbacks;
    gfx->user = user;
    gfx->state = OPENING;
    gfx->advertise_window = now();
    gfx->deadline = now() + GFX_ADVERTISE_US;
    snprintf(gfx->subject, sizeof(gfx->subject), "%s", subject);
    pacer_init(&gfx->pacer);
    gfx->zgfx = zgfx_new();
    gfx->dvc = dvc_open(manager, GFX_CHANNEL, GFX_MAX_MESSAGE, DVC_BULK, &dvc_callbacks, gfx);
    if (!gfx->dvc) {
        destroy(gfx);
        return NULL;
    }
    dvc_manager_on_drained(manager, DVC_BULK, GFX_LOW_WATER, on_drained, gfx);
    return gfx;
}

void gfx_free(Gfx *gfx)
{
    if (!gfx)
        return;
    dvc_manager_on_drained(gfx->manager, DVC_BULK, GFX_LOW_WATER, NULL, NULL);
    dvc_close(gfx->dvc);
    gfx->dvc = NULL;
    gfx->state = GONE;
    gfx->freed = true;
    if (gfx->running == 0)
        destroy(gfx);
}

uint64_t gfx_deadline(const Gfx *gfx)
{
    if (gfx->state == READY)
        return pacer_deadline(&gfx->pacer, gfx->now());
    return gfx->deadline;
}

uint64_t gfx_waiting_since(const Gfx *gfx)
{
    return gfx->state == READY ? pacer_waiting_since(&gfx->pacer) : 0;
}

void gfx_tick(Gfx *gfx)
{
    enter(gfx);
    if ((gfx->state == OPENING || gfx->state == WAIT_CAPS) && gfx->now() >= gfx->deadline)
        give_up(gfx, "the client did not advertise graphics capabilities in time");
    else if (gfx->state == READY && gfx_may_send(gfx))
        gfx->callbacks->slot(gfx->user);
    leave(gfx);
}

bool gfx_ready(const Gfx *gfx)
{
    return gfx->state == READY;
}

bool gfx_avc420(const Gfx *gfx)
{
    return gfx->state == READY && allows_avc420(&gfx->capset);
}

bool gfx_set_surface(Gfx *gfx, uint32_t width, uint32_t height)
{
    Writer w;

    if (gfx->state != READY)
        return false;
    assert(width >= 1 && width <= 8192 && height >= 1 && height <= 8192);
    dvc_manager_limit_bulk(gfx->manager, GFX_OUTBOX(width, height));
    writer_init(&w, 1024);
    if (gfx->surface)
        gfx_write_delete_surface(&w, gfx->surface);
    for (unsigned i = 0; i < GFX_AUX_SURFACES; i++) {
        if (gfx->aux & 1u << i)
            gfx_write_delete_surface(&w, (uint16_t)(GFX_AUX_SURFACE + i));
    }
    gfx->aux = 0;
    if (gfx->width != width || gfx->height != height) {
        GfxMonitor monitor = {
            .right = (int32_t)width - 1, .bottom = (int32_t)height - 1, .primary = true};
        gfx_write_reset_graphics(&w, width, height, &monitor, 1);
        gfx->width = width;
        gfx->height = height;
    }
    if (++gfx->last_surface == GFX_AUX_SURFACE)
        gfx->last_surface = 1;
    gfx->surface = gfx->last_surface;
    gfx_write_create_surface(&w, gfx->surface, (uint16_t)width, (uint16_t)height, GFX_PIXEL_XRGB);
    gfx_write_map_surface_to_output(&w, gfx->surface, 0, 0);
    if (send_now(gfx, &w))
        return true;
    give_up(gfx, "the graphics channel cannot be written");
    return false;
}

uint16_t gfx_surface(const Gfx *gfx)
{
    return gfx->surface;
}

bool gfx_may_send(const Gfx *gfx)
{
    return gfx->state == READY && gfx->surface != 0 && pacer_may_send(&gfx->pacer, gfx->now()) &&
           dvc_manager_queued(gfx->manager, DVC_BULK) <= GFX_LOW_WATER;
}

/* Keeps account of the surfaces that a frame makes and deletes. */
static void note_surfaces(Gfx *gfx, const uint8_t *pdu, size_t len)
{
    Reader r;

    reader_init(&r, pdu, len);
    uint16_t cmd = reader_u16(&r);
    if (cmd != GFX_CREATESURFACE && cmd != GFX_DELETESURFACE)
        return;
    reader_skip(&r, GFX_HEADER_BYTES - 2);
    unsigned aux = reader_u16(&r) - GFX_AUX_SURFACE;
    assert(reader_ok(&r) && aux < GFX_AUX_SURFACES);
    if (cmd == GFX_CREATESURFACE)
        gfx->aux |= (uint16_t)(1u << aux);
    else
        gfx->aux &= (uint16_t) ~(1u << aux);
}

bool gfx_send_frame(Gfx *gfx, const uint8_t *pdus, size_t len)
{
    const size_t room = DVC_SLICE - ZGFX_STORED_BYTES;
    uint64_t now = gfx->now(), bytes = gfx->bytes;
    size_t dense = 0;
    bool ok = true;
    Writer w;

    if (gfx->state != READY)
        return false;
    if (len > GFX_MAX_FRAME) { /* the next one would be no smaller */
        give_up(gfx, "a picture is too large for the graphics channel");
        return false;
    }
    gfx->frame_id++;
    writer_init(&w, GFX_MAX_FRAME);
    gfx_write_start_frame(&w, gfx_timestamp(now / 1000), gfx->frame_id);
    for (size_t at = 0; at < len && ok;) {
        size_t n = gfx_pdu_length(pdus + at, len - at);
        assert(n > 0);
        if (w.len + n > room) {
            ok = flush(gfx, &w, effort_for(w.len, dense, at));
            dense = 0;
        }
        writer_bytes(&w, pdus + at, n);
        note_surfaces(gfx, pdus + at, n);
        if (gfx_pdu_is_dense(pdus + at, n))
            dense += n;
        at += n;
    }
    if (ok && w.len + GFX_HEADER_BYTES + 4 > room) {
        ok = flush(gfx, &w, effort_for(w.len, dense, len));
        dense = 0;
    }
    gfx_write_end_frame(&w, gfx->frame_id);
    ok = ok && flush(gfx, &w, effort_for(w.len, dense, len));
    writer_clear(&w);
    if (!ok) {
        give_up(gfx, "the graphics channel cannot be written");
        return false;
    }
    pacer_sent(&gfx->pacer, gfx->frame_id, (size_t)(gfx->bytes - bytes), now);
    return true;
}

void gfx_network(Gfx *gfx, uint64_t rtt_us, uint64_t rate_bps)
{
    pacer_network(&gfx->pacer, rtt_us, rate_bps);
}

GfxStatus gfx_status(const Gfx *gfx)
{
    return (GfxStatus){
        .version = gfx->state == READY ? gfx->capset.version : 0,
        .frames = gfx->pacer.sent,
        .acked = gfx->pacer.acked,
        .in_flight = gfx->pacer.n,
        .window = pacer_window(&gfx->pacer),
        .rtt_us = gfx->pacer.rtt_us,
        .rate_bps = pacer_rate(&gfx->pacer),
        .decoding_us = pacer_decoding(&gfx->pacer),
        .bytes = gfx->bytes,
        .plain_bytes = gfx->plain_bytes,
        .suspended = gfx->pacer.suspended,
    };
}
