/*
 * Theory of operation. OPENING -> WAIT_CAPS when the client opens the channel -> READY when it has
 * advertised and we have confirmed; GONE from anywhere. Nothing is sent before the confirmation:
 * mstsc disconnects over it. The client may advertise again whenever it likes (mstsc does after
 * a ResetGraphics); that wipes its screen, so everything is forgotten, confirmed again, and ready
 * is called again. A client that never advertises within ten seconds has no GFX.
 *
 * Frames come packed, and refer to what the channel has carried since the last gfx_start(): what is
 * said to this client alone is said at a start, stored. Three things outlive a start at the client:
 * its surfaces, which are made those that the frames expect; its ClearCodec caches, which the first
 * stream resets; and the number that its ClearCodec decoder expects next, of which no PDU is a
 * reset, so streams of one pixel make up for the difference. The pacer counts a frame, by its
 * bytes, until it is acknowledged.
 */
#include "gfx.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "log.h"

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
    bool offered;     /* since the confirmation: a client offers its cache once, */
    bool offer_waits; /* and is answered at the next start */

    uint16_t surface;
    uint16_t aux;                /* a bit for each of GFX_AUX_SURFACES that exists */
    uint32_t width, height;      /* of the last ResetGraphics, 0: none since the confirmation */
    uint8_t clear_sequence;      /* that the client's decoder expects next */
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

/* Sends the PDUs in @pdus, to this client alone, and frees them. */
static bool send_now(Gfx *gfx, Writer *pdus)
{
    bool ok = writer_ok(pdus);

    if (pdus->len > 0) {
        Writer w;
        writer_init(&w, pdus->len + ZGFX_STORED_BYTES);
        zgfx_store(pdus->data, pdus->len, &w);
        ok = ok && dvc_send(gfx->dvc, w.data, w.len);
        gfx->bytes += w.len;
        gfx->plain_bytes += pdus->len;
        writer_clear(&w);
    }
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
    gfx->offered = gfx->offer_waits = false;
    gfx->surface = 0;
    gfx->aux = 0;
    gfx->clear_sequence = 0;
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

    if (gfx->offered) /* each answer waits in the outbox for a client that may not read */
        return;
    gfx->offered = true;
    if (gfx->surface) {
        gfx->offer_waits = true;
        gfx->callbacks->interrupt(gfx->user);
        return;
    }
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

/* One pixel of black (2.2.4.1: no glyph, a residual of one run). */
static void write_clear_pixel(Writer *w, uint16_t surface, uint8_t sequence)
{
    const GfxRect pixel = {0, 0, 1, 1};
    size_t at =
        gfx_begin_wire_to_surface_1(w, surface, GFX_CODEC_CLEARCODEC, GFX_PIXEL_XRGB, &pixel);

    writer_u8(w, 0);
    writer_u8(w, sequence);
    writer_u32(w, 4);
    writer_zero(w, 8 + 3);
    writer_u8(w, 1);
    gfx_end_wire_to_surface_1(w, at);
}

static void write_deletions(Gfx *gfx, Writer *w)
{
    for (unsigned i = 0; i < GFX_AUX_SURFACES; i++) {
        if (gfx->aux & 1u << i)
            gfx_write_delete_surface(w, (uint16_t)(GFX_AUX_SURFACE + i));
    }
    gfx->aux = 0;
}

/* A new surface, and nothing of what was. */
static void write_fresh(Gfx *gfx, const GfxStart *start, Writer *w)
{
    if (gfx->surface)
        gfx_write_delete_surface(w, gfx->surface);
    write_deletions(gfx, w);
    if (gfx->width != start->width || gfx->height != start->height) {
        const GfxMonitor monitor = {.right = (int32_t)start->width - 1,
                                    .bottom = (int32_t)start->height - 1,
                                    .primary = true};
        gfx_write_reset_graphics(w, start->width, start->height, &monitor, 1);
        gfx->width = start->width;
        gfx->height = start->height;
    }
    gfx_write_create_surface(w, start->surface, (uint16_t)start->width, (uint16_t)start->height,
                             GFX_PIXEL_XRGB);
    gfx_write_map_surface_to_output(w, start->surface, 0, 0);
    gfx->surface = start->surface;
}

/* The same picture under another id. */
static void write_renamed(Gfx *gfx, const GfxStart *start, Writer *w)
{
    const GfxRect all = {0, 0, (uint16_t)start->width, (uint16_t)start->height};
    const GfxPoint origin = {0, 0};

    write_deletions(gfx, w);
    if (gfx->surface == start->surface)
        return;
    gfx_write_create_surface(w, start->surface, all.right, all.bottom, GFX_PIXEL_XRGB);
    gfx_write_surface_to_surface(w, gfx->surface, start->surface, &all, &origin, 1);
    gfx_write_delete_surface(w, gfx->surface);
    gfx_write_map_surface_to_output(w, start->surface, 0, 0);
    gfx->surface = start->surface;
}

/* Streams of one pixel until the decoder expects @sequence, on a surface of their own. */
static void write_clear_gap(Gfx *gfx, uint8_t sequence, Writer *w)
{
    if (gfx->clear_sequence == sequence)
        return;
    gfx_write_create_surface(w, GFX_AUX_SURFACE, 1, 1, GFX_PIXEL_XRGB);
    while (gfx->clear_sequence != sequence)
        write_clear_pixel(w, GFX_AUX_SURFACE, gfx->clear_sequence++);
    gfx_write_delete_surface(w, GFX_AUX_SURFACE);
}

bool gfx_start(Gfx *gfx, const GfxStart *start)
{
    Writer w;

    if (gfx->state != READY || (!start->fresh && gfx->surface == 0))
        return false;
    assert(start->width >= 1 && start->width <= 8192 && start->height >= 1 &&
           start->height <= 8192 && start->surface >= 1 && start->surface < GFX_AUX_SURFACE);
    dvc_manager_limit_bulk(gfx->manager, GFX_OUTBOX(start->width, start->height));
    writer_init(&w, DVC_SLICE - ZGFX_STORED_BYTES);
    if (gfx->offer_waits)
        gfx_write_cache_import_reply_empty(&w);
    gfx->offer_waits = false;
    if (start->fresh)
        write_fresh(gfx, start, &w);
    size_t before = w.len;
    gfx_write_start_frame(&w, gfx_timestamp(gfx->now() / 1000), start->frame_id);
    size_t inside = w.len;
    if (!start->fresh)
        write_renamed(gfx, start, &w);
    write_clear_gap(gfx, start->clear_sequence, &w);
    size_t drawn = w.len - inside;
    if (drawn > 0)
        gfx_write_end_frame(&w, start->frame_id);
    else
        writer_truncate(&w, before);
    if (!send_now(gfx, &w)) {
        give_up(gfx, "the graphics channel cannot be written");
        return false;
    }
    if (drawn > 0)
        pacer_sent(&gfx->pacer, start->frame_id, drawn, gfx->now());
    return true;
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

bool gfx_send_frame(Gfx *gfx, const GfxFrame *frame, unsigned clear_streams, const DvcOwner *owner)
{
    uint64_t now = gfx->now(), bytes = gfx->bytes;
    Reader r;

    if (gfx->state != READY || gfx->surface == 0)
        return false;
    if (frame->messages.len == 0)
        return true;
    reader_init(&r, frame->messages.data, frame->messages.len);
    while (reader_left(&r) > 0) {
        uint32_t len = reader_u32(&r);
        const uint8_t *message = reader_bytes(&r, len);
        assert(message);
        if (!dvc_send_held(gfx->dvc, message, len, owner)) {
            give_up(gfx, "the graphics channel cannot be written");
            return false;
        }
        gfx->bytes += len;
    }
    gfx->plain_bytes += frame->plain_bytes;
    gfx->aux = frame->aux;
    gfx->clear_sequence = (uint8_t)(gfx->clear_sequence + clear_streams);
    pacer_sent(&gfx->pacer, frame->id, (size_t)(gfx->bytes - bytes), now);
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
        .rate_bps = pacer_rate(&gfx->pacer, gfx->now()),
        .picture_bytes = pacer_picture(&gfx->pacer, gfx->now()),
        .decoding_us = pacer_decoding(&gfx->pacer),
        .bytes = gfx->bytes,
        .plain_bytes = gfx->plain_bytes,
        .suspended = gfx->pacer.suspended,
    };
}
