/*
 * Theory of operation. A display is UNDECIDED until the client's graphics pipeline has come up
 * (PATH_GFX) or turned out not to exist (PATH_LEGACY); a pipeline that breaks later falls back too.
 *
 * With GFX main makes the frames. tell() keeps it informed of whether there is room for one, and of
 * what the next one must begin with; frames come in order, and those that do not begin with it are
 * let go. Without, one frame at a time is on its way: pump() asks main for one when there is
 * damage, nothing is being asked for or encoded, output is allowed, and there is room. The frame
 * goes to the encode pool with the encoder and comes back as bytes. So damage accumulates in the
 * Framebuffer and encoded frames never queue.
 *
 * Mode switches: a frame of another size brings a new GFX surface with it. A legacy client is
 * deactivated and reactivated with the new size, at most twice a second, and gets nothing until
 * peer_display_activated() is called again.
 *
 * All timing is one source: arm() computes when something is due next.
 */
#include "peer_display.h"

#include <freerdp/peer.h>

#include "disp.h"
#include "gfx.h"
#include "log.h"
#include "peer_cursor.h"
#include "peer_display_priv.h"
#include "size_echo.h"

/* From activation until drdynvc and GFX must have come up; gfx.c has its own ten seconds. */
#define DECIDE_US 12000000
#define RESIZE_US 500000
/* A film's picture is limited to what the link takes in a frame's time, if that is in this range.
 */
#define FILM_MIN_BYTES 8192u
#define FILM_MAX_BYTES (192u * 1024u)

typedef enum DisplayPath { PATH_UNDECIDED, PATH_GFX, PATH_LEGACY } DisplayPath;

typedef struct TickSource {
    GSource source;
    PeerDisplay *display;
} TickSource;

struct PeerDisplay {
    rdpContext *context;
    DvcManager *dvcs;
    GMainContext *main_context;
    char *subject;
    const PeerDisplayCallbacks *callbacks;
    void *user;

    bool activated, suppressed, broken;
    bool dvc_seen;
    DisplayPath path;
    int64_t decide_by; /* INT64_MAX: decided */
    PeerLink *link;
    uint32_t width, height; /* of the surface, or of the legacy desktop */
    int64_t resized_us;     /* legacy: when the desktop was given its size */
    SizeEcho size_echo;
    Disp *disp;

    Gfx *gfx;
    StreamNeed need; /* what the next frame must begin with */
    uint32_t handled;
    bool told_any;
    StreamSlot told; /* what main knows */
    uint64_t film_pictures;
    const char *film; /* codec of the last one */
    bool lossy;

    Legacy legacy;
    bool damage;      /* main has something that we have not asked for */
    bool asked;       /* want_frame is out */
    bool refining;    /* the frame asked for is to be lossless */
    Encoder *encoder; /* NULL while a job is out, or before the first frame */
    EncoderJob *job;

    PeerCursor *cursors;
    Cursor *cursor;
    bool cursor_hidden;
    bool cursor_waits; /* for the socket: shapes change as often as the guest likes */

    uint64_t frames, dropped;
    int64_t encode_us; /* of all of them */

    GSource *tick;
};

static void pump(PeerDisplay *d);
static bool slot_free(PeerDisplay *d);
static void show_cursor(PeerDisplay *d);
static void use_network(PeerDisplay *d);

static uint64_t monotonic_us(void)
{
    return (uint64_t)g_get_monotonic_time();
}

static void fail(PeerDisplay *d, const char *why)
{
    if (d->broken)
        return;
    d->broken = true;
    d->callbacks->failed(d->user, why);
}

static void show_everything(PeerDisplay *d)
{
    d->refining = false;
    d->damage = true;
    d->callbacks->invalidate(d->user, NULL);
}

static void forget_encoder(PeerDisplay *d)
{
    if (d->job)
        encoder_abandon(d->job);
    d->job = NULL;
    g_clear_pointer(&d->encoder, encoder_free);
}

/* What the client shows is not known: GFX begins again with a new surface. */
static void start_over(PeerDisplay *d)
{
    if (d->path == PATH_GFX)
        d->need = STREAM_FRESH;
    else
        show_everything(d);
}

/* Choosing the path */

static void go_legacy(PeerDisplay *d)
{
    const char *why = "";

    d->decide_by = INT64_MAX;
    d->path = PATH_LEGACY;
    if (!legacy_init(&d->legacy, d->context, &why)) {
        fail(d, why);
        return;
    }
    d->width = freerdp_settings_get_uint32(d->context->settings, FreeRDP_DesktopWidth);
    d->height = freerdp_settings_get_uint32(d->context->settings, FreeRDP_DesktopHeight);
    legacy_reset(&d->legacy, d->width, d->height);
    use_network(d);
    log_info(d->subject, "graphics: %s, %u bits per pixel", legacy_name(&d->legacy),
             d->legacy.params.bpp);
    show_everything(d);
}

/* The client has fitted its window to this before there is a picture. */
static void note_desktop(PeerDisplay *d)
{
    const rdpSettings *settings = d->context->settings;

    size_echo_shown(&d->size_echo, freerdp_settings_get_uint32(settings, FreeRDP_DesktopWidth),
                    freerdp_settings_get_uint32(settings, FreeRDP_DesktopHeight),
                    g_get_monotonic_time());
}

static void on_gfx_ready(void *user)
{
    PeerDisplay *d = user;

    if (d->path != PATH_GFX) {
        forget_encoder(d);
        legacy_clear(&d->legacy);
        d->path = PATH_GFX;
        note_desktop(d);
        d->decide_by = INT64_MAX;
        use_network(d);
        log_info(d->subject, "graphics: pipeline (GFX) %08x", gfx_status(d->gfx).version);
    }
    start_over(d);
    pump(d);
}

static void on_gfx_interrupt(void *user)
{
    PeerDisplay *d = user;

    d->need = MAX(d->need, STREAM_START);
    pump(d);
}

static void on_gfx_slot(void *user)
{
    pump(user);
}

static void on_gfx_unavailable(void *user, const char *why)
{
    PeerDisplay *d = user;

    log_info(d->subject, "no graphics pipeline: %s", why);
    gfx_free(d->gfx);
    d->gfx = NULL;
    d->path = PATH_UNDECIDED;
    if (d->told_any)
        d->callbacks->slot(d->user, NULL);
    if (d->activated)
        go_legacy(d);
    pump(d);
}

static const GfxCallbacks gfx_callbacks = {.ready = on_gfx_ready,
                                           .interrupt = on_gfx_interrupt,
                                           .slot = on_gfx_slot,
                                           .unavailable = on_gfx_unavailable};

static bool wants_gfx(const PeerDisplay *d)
{
    return freerdp_settings_get_bool(d->context->settings, FreeRDP_SupportGraphicsPipeline) &&
           freerdp_settings_get_uint32(d->context->settings, FreeRDP_ColorDepth) == 32;
}

static void on_resized(void *user, const DispLayout *layout)
{
    PeerDisplay *d = user;

    bool wish = size_echo_report(&d->size_echo, layout, g_get_monotonic_time());

    log_debug(d->subject, "the client's window is %ux%u now%s", layout->width, layout->height,
              wish ? "" : ", which is the picture's size");
    if (!wish)
        return;
    d->callbacks->ui_size(d->user, layout->width, layout->height, layout->width_mm,
                          layout->height_mm);
}

void peer_display_connected_with(PeerDisplay *display, uint32_t width, uint32_t height)
{
    on_resized(display, &(DispLayout){.width = width, .height = height, .monitors = 1});
}

uint64_t peer_display_waiting_since(const PeerDisplay *display)
{
    return display->path == PATH_GFX && !display->suppressed ? gfx_waiting_since(display->gfx) : 0;
}

/* Timing */

static int64_t next_due(PeerDisplay *d)
{
    int64_t now = g_get_monotonic_time();
    int64_t due = d->decide_by;

    if (d->gfx) {
        uint64_t gfx = gfx_deadline(d->gfx);
        if (gfx < (uint64_t)due)
            due = (int64_t)gfx;
    }
    if (d->path == PATH_LEGACY && d->activated && !d->suppressed && !d->broken && !d->asked &&
        !d->job)
        due = MIN(due, d->damage ? legacy_look_at(&d->legacy, now)
                                 : MAX(legacy_refine_at(&d->legacy), now + LEGACY_POLL_US));
    if (d->cursor_waits && d->activated)
        due = MIN(due, now + LEGACY_POLL_US);
    if (d->activated && !d->suppressed && !d->broken)
        due = MIN(due, peer_link_due(d->link));
    return due;
}

static void arm(PeerDisplay *d)
{
    int64_t due = next_due(d);

    g_source_set_ready_time(d->tick, due == INT64_MAX ? -1 : due);
}

static gboolean on_tick(GSource *source, GSourceFunc func, gpointer user)
{
    PeerDisplay *d = ((TickSource *)source)->display;
    int64_t now = g_get_monotonic_time();

    (void)func;
    (void)user;
    g_source_set_ready_time(source, -1);
    if (now >= d->decide_by) {
        log_info(d->subject, "no graphics pipeline: dynamic channels did not come up in time");
        gfx_free(d->gfx);
        d->gfx = NULL;
        go_legacy(d);
    }
    if (d->gfx && (uint64_t)now >= gfx_deadline(d->gfx))
        gfx_tick(d->gfx);
    if (d->cursor_waits)
        show_cursor(d);
    if (d->activated && !d->suppressed)
        peer_link_tick(d->link);
    if (d->path == PATH_LEGACY && !d->damage && !d->asked && !d->job && !d->suppressed &&
        now >= legacy_refine_at(&d->legacy) && legacy_may_send(&d->legacy, now) &&
        legacy_refine(&d->legacy, now, d->callbacks->invalidate, d->user) > 0) {
        d->refining = true;
        d->damage = true;
    }
    pump(d);
    return G_SOURCE_CONTINUE;
}

static GSourceFuncs tick_funcs = {.dispatch = on_tick};

/* Frames */

static bool slot_free(PeerDisplay *d)
{
    switch (d->path) {
    case PATH_GFX:
        if (!gfx_ready(d->gfx) || gfx_surface(d->gfx) != 0)
            return gfx_ready(d->gfx) && gfx_may_send(d->gfx);
        /* A client that asks for a new beginning takes what it was sent before. */
        return dvc_manager_queued(d->dvcs, DVC_BULK) <= GFX_LOW_WATER;
    case PATH_LEGACY:
        return legacy_may_send(&d->legacy, g_get_monotonic_time());
    default:
        return false;
    }
}

static uint32_t film_limit(const PeerDisplay *d)
{
    size_t bytes = gfx_status(d->gfx).picture_bytes;

    return bytes == 0 || bytes > FILM_MAX_BYTES ? 0 : (uint32_t)MAX(bytes, FILM_MIN_BYTES);
}

/* Keeps main informed of what matters: that nothing more is to come, or that the next may. */
static void tell(PeerDisplay *d)
{
    const StreamSlot slot = {
        .film = gfx_avc420(d->gfx) ? FILM_H264 : FILM_RFX,
        .need = d->need,
        .ready = d->activated && !d->suppressed && !d->broken && slot_free(d),
        .handled = d->handled,
        .film_limit = film_limit(d),
    };

    if (d->told_any && slot.film == d->told.film && slot.need == d->told.need &&
        slot.ready == d->told.ready && (!slot.ready || slot.handled == d->told.handled))
        return;
    d->told_any = true;
    d->told = slot;
    d->callbacks->slot(d->user, &slot);
}

static void pump(PeerDisplay *d)
{
    if (d->path == PATH_GFX) {
        tell(d);
    } else if (d->damage && !d->asked && !d->job && d->activated && !d->suppressed && !d->broken &&
               slot_free(d)) {
        d->damage = false;
        d->asked = true;
        d->callbacks->want_frame(d->user);
    }
    arm(d);
}

/* Makes a legacy client's picture as large as @frame. True if the frame may be sent now. */
static bool fit(PeerDisplay *d, const Frame *frame)
{
    rdpSettings *settings = d->context->settings;

    if (d->width == frame->width && d->height == frame->height)
        return true;
    if (!freerdp_settings_get_bool(settings, FreeRDP_DesktopResize)) {
        fail(d, "the client cannot follow the guest's change of screen size");
        return false;
    }
    int64_t now = g_get_monotonic_time();
    if (now - d->resized_us < RESIZE_US) {
        show_everything(d); /* the poll comes back to it */
        d->legacy.next_us = d->resized_us + RESIZE_US;
        return false;
    }
    d->resized_us = now;
    d->width = frame->width;
    d->height = frame->height;
    size_echo_shown(&d->size_echo, d->width, d->height, now);
    legacy_reset(&d->legacy, d->width, d->height);
    d->activated = false;
    if (!legacy_reactivate(d->context, frame->width, frame->height))
        fail(d, "the client could not be told the new screen size");
    return false;
}

static bool send_frame(PeerDisplay *d, EncodedFrame *encoded)
{
    if (!d->activated || d->suppressed || encoded->frame->width != d->width ||
        encoded->frame->height != d->height)
        return false;
    peer_link_sending(d->link, encoded->bytes.len);
    if (!legacy_send(&d->legacy, encoded, g_get_monotonic_time())) {
        fail(d, "drawing failed");
        return false;
    }
    return true;
}

void peer_display_sent(PeerDisplay *display)
{
    if (dvc_manager_queued(display->dvcs, DVC_BULK) == 0)
        peer_link_sent(display->link);
}

static void use_network(PeerDisplay *d)
{
    const LinkProbe *probe = peer_link_probe(d->link);

    if (d->path == PATH_GFX)
        gfx_network(d->gfx, link_probe_base_rtt(probe), link_probe_rate(probe));
    else if (d->path == PATH_LEGACY)
        pacer_network(&d->legacy.pacer, link_probe_base_rtt(probe), link_probe_rate(probe));
}

static void on_network(void *user)
{
    use_network(user);
    arm(user);
}

static void on_encoded(void *user, Encoder *encoder, EncodedFrame *encoded)
{
    PeerDisplay *d = user;

    d->job = NULL;
    d->encoder = encoder;
    if (!encoded) {
        fail(d, "a picture could not be encoded");
        return;
    }
    d->encode_us += encoded->encode_us;
    log_trace(d->subject, "frame of %u rectangles: %zu bytes, encoded in %" G_GINT64_FORMAT " us",
              encoded->frame->n_rects, encoded->bytes.len, encoded->encode_us);
    if (send_frame(d, encoded)) {
        d->frames++;
    } else {
        d->dropped++;
        forget_encoder(d); /* what it has told the decoder is lost: RemoteFX's headers */
        show_everything(d);
    }
    encoded_frame_unref(encoded);
    pump(d);
}

/* What comes before a frame that begins with it. */
static bool start(PeerDisplay *d, const GfxStart *start)
{
    if (d->need == STREAM_FRESH && !start->fresh)
        return false;
    d->need = STREAM_GOES_ON;
    if (start->fresh) {
        d->width = start->width;
        d->height = start->height;
        size_echo_shown(&d->size_echo, d->width, d->height, g_get_monotonic_time());
    }
    return gfx_start(d->gfx, start);
}

static bool send_gfx(PeerDisplay *d, EncodedFrame *encoded)
{
    const DvcOwner owner = encoded_frame_owner(encoded);

    if (encoded->starts ? !start(d, &encoded->start) : d->need == STREAM_FRESH)
        return false;
    uint64_t before = gfx_status(d->gfx).bytes;
    if (!gfx_send_frame(d->gfx, &encoded->packed, encoded->clear_streams, &owner))
        return false;
    /* The channel has only queued it: what is sent now goes ahead of it. */
    peer_link_sending(d->link, (size_t)(gfx_status(d->gfx).bytes - before));
    return true;
}

void peer_display_encoded(PeerDisplay *display, EncodedFrame *encoded)
{
    PeerDisplay *d = display;

    d->handled++;
    if (!encoded) {
        fail(d, "a picture could not be encoded");
        return;
    }
    d->encode_us += encoded->encode_us;
    if (d->path == PATH_GFX && send_gfx(d, encoded)) {
        d->frames++;
        d->lossy = encoded->lossy;
        if (encoded->film_bytes > 0) {
            d->film_pictures++;
            d->film = encoded->film_codec;
        }
    } else {
        d->dropped++;
    }
    encoded_frame_unref(encoded);
    pump(d);
}

static bool ensure_encoder(PeerDisplay *d)
{
    if (!d->encoder)
        d->encoder = encoder_new(&d->legacy.params);
    if (!d->encoder)
        fail(d, "the picture encoder could not be made");
    return d->encoder != NULL;
}

void peer_display_frame(PeerDisplay *display, Frame *frame)
{
    PeerDisplay *d = display;

    d->asked = false;
    const EncoderOrder order = {.lossless = legacy_worth_exactness(frame, d->refining)};
    d->refining = false;
    if (d->broken || d->path != PATH_LEGACY || !d->activated || d->suppressed || d->job) {
        show_everything(d);
    } else if (fit(d, frame) && ensure_encoder(d)) {
        d->job = encoder_submit(g_steal_pointer(&d->encoder), frame_ref(frame), &order,
                                d->main_context, on_encoded, d);
    }
    frame_unref(frame);
    pump(d);
}

void peer_display_no_frame(PeerDisplay *display)
{
    display->asked = false;
    display->refining = false;
    pump(display);
}

void peer_display_damaged(PeerDisplay *display)
{
    display->damage = true;
    pump(display);
}

/* Cursor */

static void show_cursor(PeerDisplay *d)
{
    if (!d->activated || (!d->cursor && !d->cursor_hidden))
        return;
    d->cursor_waits = d->context->peer->IsWriteBlocked(d->context->peer);
    if (d->cursor_waits)
        return;
    if (!peer_cursor_show(d->cursors, d->cursor))
        log_debug(d->subject, "the pointer's shape could not be sent");
}

void peer_display_cursor(PeerDisplay *display, Cursor *cursor)
{
    if (display->cursor)
        cursor_unref(display->cursor);
    display->cursor = cursor;
    display->cursor_hidden = cursor == NULL;
    show_cursor(display);
    arm(display);
}

/* Life */

void peer_display_activated(PeerDisplay *display)
{
    PeerDisplay *d = display;

    d->activated = true;
    note_desktop(d);
    peer_cursor_reset(d->cursors);
    show_cursor(d);
    if (d->path == PATH_LEGACY) {
        legacy_reset(&d->legacy, d->width, d->height);
        show_everything(d);
    } else if (d->path == PATH_UNDECIDED && !wants_gfx(d)) {
        go_legacy(d);
    } else if (d->path == PATH_UNDECIDED && d->dvc_seen && !d->gfx) {
        go_legacy(d); /* the pipeline was refused before we were allowed to draw */
    } else if (d->path == PATH_UNDECIDED) {
        d->decide_by = g_get_monotonic_time() + DECIDE_US;
    }
    pump(d);
}

void peer_display_dvc_ready(PeerDisplay *display)
{
    PeerDisplay *d = display;

    if (d->dvc_seen)
        return;
    d->dvc_seen = true;
    if (d->path == PATH_UNDECIDED && wants_gfx(d)) {
        d->gfx = gfx_new(d->dvcs, d->subject, monotonic_us, &gfx_callbacks, d);
        if (!d->gfx && d->activated)
            go_legacy(d);
    }
    if (freerdp_settings_get_bool(d->context->settings, FreeRDP_SupportDisplayControl))
        d->disp = disp_new(d->dvcs, d->subject, on_resized, d);
    pump(d);
}

void peer_display_suppress(PeerDisplay *display, bool allow)
{
    if (display->suppressed == !allow)
        return;
    display->suppressed = !allow;
    if (allow && display->path != PATH_GFX)
        show_everything(display);
    pump(display);
}

void peer_display_refresh(PeerDisplay *display, const Rect *rects, size_t n)
{
    if (n == 0 || display->path == PATH_GFX) /* surfaces are the client's own to draw again */
        start_over(display);
    else
        for (size_t i = 0; i < n; i++)
            display->callbacks->invalidate(display->user, &rects[i]);
    display->damage = true;
    pump(display);
}

PeerDisplay *peer_display_new(rdpContext *context, DvcManager *dvcs, GMainContext *main_context,
                              const char *subject, const PeerDisplayCallbacks *callbacks,
                              void *user)
{
    PeerDisplay *d = g_new0(PeerDisplay, 1);

    d->context = context;
    d->dvcs = dvcs;
    d->main_context = g_main_context_ref(main_context);
    d->subject = g_strdup(subject);
    d->callbacks = callbacks;
    d->user = user;
    d->decide_by = INT64_MAX;
    d->damage = true;
    d->cursors = peer_cursor_new(context);
    d->link = peer_link_new(context, on_network, d);
    d->tick = g_source_new(&tick_funcs, sizeof(TickSource));
    ((TickSource *)d->tick)->display = d;
    g_source_attach(d->tick, main_context);
    return d;
}

void peer_display_free(PeerDisplay *display)
{
    if (!display)
        return;
    g_source_destroy(display->tick);
    g_source_unref(display->tick);
    forget_encoder(display);
    gfx_free(display->gfx);
    disp_free(display->disp);
    legacy_clear(&display->legacy);
    peer_link_free(display->link);
    peer_cursor_free(display->cursors);
    if (display->cursor)
        cursor_unref(display->cursor);
    g_main_context_unref(display->main_context);
    g_free(display->subject);
    g_free(display);
}

void peer_display_status(const PeerDisplay *display, PeerDisplayStatus *status)
{
    const PeerDisplay *d = display;

    *status = (PeerDisplayStatus){.width = d->width, .height = d->height};
    status->suppressed = d->suppressed;
    if (d->frames + d->dropped > 0)
        status->encode_us = (uint64_t)d->encode_us / (d->frames + d->dropped);
    if (d->path == PATH_GFX) {
        GfxStatus s = gfx_status(d->gfx);
        status->codec = "GFX";
        status->version = s.version;
        status->bits = 32;
        status->frames = s.frames;
        status->bytes = s.bytes;
        status->plain_bytes = s.plain_bytes;
        status->unacknowledged = s.in_flight;
        status->window = s.window;
        status->silent = s.suspended;
        status->rtt_us = s.rtt_us;
        status->rate_bps = s.rate_bps;
        status->decoding_us = s.decoding_us;
        status->film = d->film ? d->film : "none";
        status->film_pictures = d->film_pictures;
        status->film_limit = film_limit(d);
        status->lossy = d->lossy;
    } else if (d->path == PATH_LEGACY) {
        status->codec = legacy_name(&d->legacy);
        status->bits = d->legacy.params.bpp;
        status->frames = d->legacy.frames;
        status->bytes = d->legacy.bytes;
        status->rate_bps = pacer_rate(&d->legacy.pacer, (uint64_t)g_get_monotonic_time());
        status->decoding_us = pacer_decoding(&d->legacy.pacer);
    }
    status->network = peer_link_status(d->link);
}
