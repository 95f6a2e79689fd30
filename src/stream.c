/*
 * Theory of operation. A Stream is one sequence of frames with its Encoder, and as many members as
 * keep up with each other: it is encoded and compressed once, each member's thread sends it. A
 * client begins alone in a stream of its own, so one viewer is no special case.
 *
 * What makes it possible is that all state of the format can be made equal. Since its last start
 * (GfxStart) a stream's frames refer to nothing but what it has sent since then: the compressor,
 * the ClearCodec caches, unmapped surfaces and films begin there anew. What is left is the picture
 * itself, and that is the guest's: two streams that show all there was at one moment show the same.
 * So they join without a pixel being sent (join()), which is checked on every pixel they have.
 * Cells that are not exact, because of a film, are taken for not exact at both. Where there is no
 * such moment, because the guest draws all the time, both make a frame at the same one, once
 * (.mate).
 *
 * A frame is due when there is damage, no job is out, and one member is ready. Members that are not
 * get it later: they are owed a little, so that a moment's delay changes nothing. One that is
 * owed that much when the next frame is due goes its own way first (branch_off()): it takes the
 * picture along, and nobody has waited for it. It may join again when it has kept up for a while,
 * twice as long each time. So a member that falls behind over and over costs the others some bytes
 * now and then.
 *
 * Whether a member is ready, it says itself; whether it has heard of the last frame by then is told
 * by counts: main's of frames delivered, the client's of frames handled. It also says when what it
 * shows is lost: then it gets a stream of its own that begins with a whole frame.
 *
 * Everything is decided in on_tick(), not where the news arrives: damage comes in batches.
 */
#include "stream.h"

#include "gfx_pdu.h"

#define OWED_FRAMES 2u
#define OWED_BYTES (64u * 1024u)
/* With something to show a member that takes no frame for so long does not keep up. */
#define LAG_US 50000
#define MAX_BACKOFF 32 /* times the patience */

typedef struct Stream Stream;

struct Stream {
    Streams *all;
    GPtrArray *members; /* at least one */
    FilmCodec film;
    FramebufferViewer *viewer;
    Encoder *encoder; /* NULL while a job is out, or before the first frame */
    EncoderJob *job;
    bool stale;  /* what the job makes is for nobody */
    bool failed; /* no more pictures */
    bool damage; /* the viewer may have something */
    bool fresh;  /* nobody shows anything: the next frame is a whole one */
    bool starts; /* the next frame refers to nothing before it */
    uint16_t surface;
    uint32_t width, height; /* of it */
    uint32_t start_id;      /* frame id for the start of the frame at hand */
    int64_t refine_at;      /* what is shown with loss is due; INT64_MAX: nothing is */
    bool refining;          /* the frame at hand was due for that */
    int64_t film_rest_us;   /* from a film's last picture to then */
    Rect rest;              /* what of it is due first */
    int64_t may_join_at;
    Stream *mate;        /* they have taken a frame at the same time: they join after it */
    uint32_t film_bytes; /* of a film's picture, smoothed */
};

struct Streams {
    Framebuffer *fb;
    int64_t patience_us;
    GPtrArray *streams;
    uint16_t last_surface;
    uint32_t last_frame;
    GSource *tick;
};

struct StreamMember {
    Stream *stream;
    StreamDeliver deliver;
    void *user;
    StreamSlot slot;
    uint32_t delivered;
    uint32_t started_at; /* .delivered with the last frame that starts */
    int64_t delivered_us;
    GQueue owed; /* of EncodedFrame */
    size_t owed_bytes;
    int64_t joined_us, may_join_at, backoff_us;
};

typedef struct TickSource {
    GSource source;
    Streams *streams;
} TickSource;

static void schedule(Streams *all)
{
    g_source_set_ready_time(all->tick, 0);
}

/* ---- members ---- */

static bool is_ready(const StreamMember *m)
{
    return m->slot.ready && m->slot.handled == m->delivered;
}

/* What the client needs and is not on its way to it. */
static StreamNeed need_of(const StreamMember *m)
{
    return (int32_t)(m->slot.handled - m->started_at) >= 0 ? m->slot.need : STREAM_GOES_ON;
}

static uint32_t limit_of(const StreamMember *m)
{
    return m->slot.film_limit ? m->slot.film_limit : UINT32_MAX;
}

static void hand_out(StreamMember *m, EncodedFrame *encoded)
{
    m->delivered++;
    m->delivered_us = g_get_monotonic_time();
    m->deliver(m->user, encoded);
}

static void give(StreamMember *m, EncodedFrame *encoded)
{
    if (encoded->starts)
        m->started_at = m->delivered + m->owed.length + 1;
    if (is_ready(m) && m->owed.length == 0) {
        hand_out(m, encoded_frame_ref(encoded));
        return;
    }
    g_queue_push_tail(&m->owed, encoded_frame_ref(encoded));
    m->owed_bytes += encoded->packed.messages.len;
}

static void give_owed(StreamMember *m)
{
    EncodedFrame *encoded;

    if (!is_ready(m) || !(encoded = g_queue_pop_head(&m->owed)))
        return;
    m->owed_bytes -= encoded->packed.messages.len;
    hand_out(m, encoded);
}

static void forget_owed(StreamMember *m)
{
    g_queue_clear_full(&m->owed, (GDestroyNotify)encoded_frame_unref);
    m->owed_bytes = 0;
    m->started_at = m->delivered;
}

static bool lags(const StreamMember *m)
{
    return m->owed.length >= OWED_FRAMES || m->owed_bytes > OWED_BYTES;
}

/* ---- streams ---- */

static Stream *stream_new(Streams *all, FilmCodec film, FramebufferViewer *viewer)
{
    Stream *s = g_new0(Stream, 1);

    s->all = all;
    s->members = g_ptr_array_new();
    s->film = film;
    s->viewer = viewer;
    s->damage = s->fresh = true;
    s->refine_at = INT64_MAX;
    g_ptr_array_add(all->streams, s);
    return s;
}

static void part_from_mate(Stream *s)
{
    if (s->mate)
        s->mate->mate = NULL;
    s->mate = NULL;
}

static void stream_free(Stream *s)
{
    part_from_mate(s);
    g_ptr_array_remove(s->all->streams, s);
    if (s->job)
        encoder_abandon(s->job);
    encoder_free(s->encoder);
    framebuffer_viewer_free(s->viewer);
    g_ptr_array_unref(s->members);
    g_free(s);
}

/* From its stream to @to, or to none. */
static void move(StreamMember *m, Stream *to)
{
    Stream *from = m->stream;

    m->stream = to;
    if (to)
        g_ptr_array_add(to->members, m);
    if (!from)
        return;
    g_ptr_array_remove(from->members, m);
    if (from->members->len == 0)
        stream_free(from);
}

static StreamMember *member_at(const Stream *s, guint i)
{
    return g_ptr_array_index(s->members, i);
}

static bool any_ready(const Stream *s)
{
    for (guint i = 0; i < s->members->len; i++) {
        if (is_ready(member_at(s, i)))
            return true;
    }
    return false;
}

/* The best link's: who cannot take so much falls behind, or goes. */
static uint32_t film_limit(const Stream *s)
{
    uint32_t most = 0;

    for (guint i = 0; i < s->members->len; i++)
        most = MAX(most, limit_of(member_at(s, i)));
    return most;
}

static bool film_too_large(const Stream *s, const StreamMember *m)
{
    return limit_of(m) < film_limit(s) / 2 && limit_of(m) < s->film_bytes;
}

/* What the clients show is not known. */
static void begin_fresh(Stream *s)
{
    s->stale = s->job != NULL;
    s->fresh = s->damage = true;
    s->refine_at = INT64_MAX;
    framebuffer_viewer_invalidate(s->viewer, NULL);
}

/* ---- parting ---- */

/* Joining costs the others something: who parts soon afterwards waits longer each time. */
static void back_off(StreamMember *m, int64_t now)
{
    int64_t patience = m->stream->all->patience_us;

    if (now - m->joined_us > patience * MAX_BACKOFF)
        m->backoff_us = patience;
    else
        m->backoff_us = MIN(m->backoff_us * 2, patience * MAX_BACKOFF);
    m->may_join_at = now + m->backoff_us;
}

/* @m goes its own way from the picture that its stream shows now. */
static void branch_off(StreamMember *m, int64_t now)
{
    Stream *from = m->stream;
    Stream *s = stream_new(from->all, from->film, framebuffer_viewer_copy(from->viewer));

    if (!from->fresh)
        s->encoder = encoder_fork(from->encoder);
    if (s->encoder) {
        s->fresh = false;
        s->starts = true;
        s->surface = from->surface;
        s->width = from->width;
        s->height = from->height;
        s->film_bytes = from->film_bytes;
        s->rest = from->rest;
        s->refine_at = from->refine_at == INT64_MAX ? INT64_MAX : now + from->film_rest_us;
        s->film_rest_us = from->film_rest_us;
    } else {
        begin_fresh(s);
    }
    back_off(m, now);
    move(m, s);
}

/* Before a frame is made: nobody else is to wait for, or be shown, what only some can take. */
static void part(Stream *s, int64_t now)
{
    for (guint i = s->members->len; i > 0 && s->members->len > 1; i--) {
        StreamMember *m = member_at(s, i - 1);
        if (lags(m) || need_of(m) != STREAM_GOES_ON || film_too_large(s, m))
            branch_off(m, now);
    }
    if (s->members->len == 1 && !s->fresh && need_of(member_at(s, 0)) == STREAM_START) {
        encoder_begin(s->encoder);
        s->starts = true;
    }
}

/* ---- joining ---- */

/* Nothing is on its way, and everybody has time. */
static bool may_join(const Stream *s, int64_t now)
{
    if (s->job || s->failed || s->fresh || !s->encoder || s->mate || now < s->may_join_at)
        return false;
    for (guint i = 0; i < s->members->len; i++) {
        const StreamMember *m = member_at(s, i);
        if (!is_ready(m) || need_of(m) != STREAM_GOES_ON || now < m->may_join_at)
            return false;
    }
    return true;
}

static bool films_fit(const Stream *a, const Stream *b)
{
    uint32_t most = MAX(film_limit(a), film_limit(b));
    uint32_t film = MAX(a->film_bytes, b->film_bytes);

    return (film_limit(a) >= most / 2 && film_limit(b) >= most / 2) ||
           (film_limit(a) >= film && film_limit(b) >= film);
}

/* All members of one get the frames of the other from now on. */
static void join(Stream *s, Stream *from, int64_t now)
{
    const Streams *all = s->all;

    if (from->members->len > s->members->len) {
        join(from, s, now);
        return;
    }
    s->may_join_at = now + all->patience_us;
    if (!encoder_join(s->encoder, from->encoder)) {
        from->may_join_at = now + all->patience_us * MAX_BACKOFF;
        return;
    }
    encoder_begin(s->encoder);
    s->starts = true;
    if (from->refine_at < s->refine_at) {
        s->refine_at = from->refine_at;
        s->rest = from->rest;
        s->film_rest_us = from->film_rest_us;
    }
    s->damage |= from->damage;
    for (guint n = from->members->len; n > 0; n--) {
        StreamMember *m = member_at(from, n - 1);
        m->joined_us = now;
        move(m, s);
    }
}

/* Somebody to join; NULL: nobody. */
static Stream *find_mate(const Stream *s, int64_t now)
{
    const GPtrArray *streams = s->all->streams;

    if (streams->len < 2 || !may_join(s, now))
        return NULL;
    for (guint i = 0; i < streams->len; i++) {
        Stream *other = g_ptr_array_index(streams, i);
        if (other != s && other->film == s->film && may_join(other, now) && films_fit(s, other))
            return other;
    }
    return NULL;
}

/* Both frames are made. False: it was the end of @s. */
static bool join_mate(Stream *s, int64_t now)
{
    Stream *mate = s->mate;

    part_from_mate(s);
    if (s->fresh || mate->fresh || mate->failed) /* somebody has lost what it showed */
        return true;
    join(s, mate, now);
    return false;
}

/* ---- frames ---- */

static void plan_refinement(Stream *s, const EncodedFrame *encoded)
{
    if (encoded->film_bytes > 0)
        s->film_bytes = (s->film_bytes * 3 + encoded->film_bytes) / 4;
    s->rest = encoded->rest;
    s->film_rest_us = encoded->film_rest_us;
    s->refine_at =
        encoded_frame_refine_at(encoded, s->refine_at, s->refining, g_get_monotonic_time());
}

static void fail(Stream *s)
{
    s->failed = true;
    for (guint i = 0; i < s->members->len; i++)
        member_at(s, i)->deliver(member_at(s, i)->user, NULL);
}

static void on_encoded(void *user, Encoder *encoder, EncodedFrame *encoded)
{
    Stream *s = user;
    bool stale = s->stale;

    s->job = NULL;
    s->encoder = encoder;
    s->stale = false;
    schedule(s->all);
    if (!encoded) {
        fail(s);
    } else if (!stale) {
        plan_refinement(s, encoded);
        if (s->starts || encoded->packed.messages.len > 0) {
            encoded->starts = s->starts;
            encoded->start = (GfxStart){
                .fresh = s->fresh,
                .surface = s->surface,
                .width = s->width,
                .height = s->height,
                .frame_id = s->start_id,
                .clear_sequence = encoded->clear_sequence,
            };
            s->starts = s->fresh = false;
            for (guint i = 0; i < s->members->len; i++)
                give(member_at(s, i), encoded);
        }
    }
    encoded_frame_unref(encoded);
}

static bool covers_all(const Frame *frame)
{
    uint64_t area = 0;

    for (uint32_t i = 0; i < frame->n_rects; i++)
        area += (uint64_t)frame->rects[i].w * (uint64_t)frame->rects[i].h;
    return frame->blank || area == (uint64_t)frame->width * frame->height;
}

/* An encoder that knows nothing, and a surface of @frame's size. */
static bool prepare_fresh(Stream *s, const Frame *frame)
{
    const EncoderParams params = {.path = ENCODER_GFX, .bpp = 32, .film = s->film};

    if (s->encoder)
        encoder_restart(s->encoder);
    else if (!(s->encoder = encoder_new(&params)))
        return false;
    if (++s->all->last_surface == GFX_AUX_SURFACE)
        s->all->last_surface = 1;
    s->surface = s->all->last_surface;
    s->width = frame->width;
    s->height = frame->height;
    s->fresh = s->starts = true;
    return true;
}

static void submit(Stream *s)
{
    Frame *frame = framebuffer_viewer_take(s->viewer);
    uint32_t limit = film_limit(s);

    s->fresh |= frame->width != s->width || frame->height != s->height;
    if (s->fresh && !covers_all(frame)) {
        framebuffer_viewer_invalidate(s->viewer, NULL);
        frame_unref(frame);
        schedule(s->all);
        return;
    }
    s->damage = false;
    if (s->fresh && !prepare_fresh(s, frame)) {
        frame_unref(frame);
        fail(s);
        return;
    }
    encoder_limit_film(s->encoder, limit == UINT32_MAX ? 0 : limit);
    if (s->starts)
        s->start_id = ++s->all->last_frame;
    const EncoderOrder order = {.surface = s->surface, .frame_id = ++s->all->last_frame};
    s->job = encoder_submit(g_steal_pointer(&s->encoder), frame, &order, NULL, on_encoded, s);
}

static void note_lag(Stream *s, int64_t now)
{
    for (guint i = 0; i < s->members->len; i++) {
        StreamMember *m = member_at(s, i);
        if (s->damage && !is_ready(m) && now - m->delivered_us > LAG_US)
            m->may_join_at = MAX(m->may_join_at, now + s->all->patience_us);
    }
}

/* Makes a frame; one for who is to join afterwards, too. */
static void make_frame(Stream *s, int64_t now)
{
    Stream *mate = find_mate(s, now);

    submit(s);
    if (!mate)
        return;
    if (framebuffer_viewer_look(mate->viewer))
        submit(mate);
    s->mate = mate;
    mate->mate = s;
}

static void pump(Stream *s, int64_t now)
{
    Streams *all = s->all; /* which outlives @s, see join_mate() */

    if (s->job || s->failed || (s->mate && s->mate->job))
        return;
    if (s->mate && !join_mate(s, now)) {
        schedule(all);
        return;
    }
    note_lag(s, now);
    if (!any_ready(s))
        return;
    s->refining = now >= s->refine_at;
    if (s->refining) { /* what rests does not wait for what goes on */
        framebuffer_viewer_invalidate(s->viewer, &s->rest);
        s->damage = true;
    }
    if (s->damage && framebuffer_viewer_look(s->viewer)) {
        part(s, now);
        if (any_ready(s))
            make_frame(s, now);
        return;
    }
    s->damage = false;
    Stream *mate = find_mate(s, now);
    if (mate && !framebuffer_viewer_look(mate->viewer))
        join(s, mate, now);
}

/* ---- time ---- */

static int64_t next_due(const Streams *all, int64_t now)
{
    int64_t due = INT64_MAX;

    for (guint i = 0; i < all->streams->len; i++) {
        const Stream *s = g_ptr_array_index(all->streams, i);
        if (!s->job && !s->failed && !(s->mate && s->mate->job) && any_ready(s))
            due = MIN(due, s->refine_at);
        if (all->streams->len < 2)
            continue;
        if (s->may_join_at > now)
            due = MIN(due, s->may_join_at);
        for (guint j = 0; j < s->members->len; j++) {
            if (member_at(s, j)->may_join_at > now)
                due = MIN(due, member_at(s, j)->may_join_at);
        }
    }
    return due;
}

static gboolean on_tick(GSource *source, GSourceFunc func, gpointer user)
{
    Streams *all = ((TickSource *)source)->streams;
    int64_t now = g_get_monotonic_time();
    GPtrArray *streams = g_ptr_array_copy(all->streams, NULL, NULL);

    (void)func;
    (void)user;
    g_source_set_ready_time(source, -1);
    for (guint i = 0; i < streams->len; i++) {
        if (g_ptr_array_find(all->streams, streams->pdata[i],
                             NULL)) /* it may have joined another */
            pump(streams->pdata[i], now);
    }
    if (streams->len != all->streams->len) /* one that parted has not had its turn */
        schedule(all);
    else if (g_source_get_ready_time(source) != 0)
        g_source_set_ready_time(source, next_due(all, now) == INT64_MAX ? -1 : next_due(all, now));
    g_ptr_array_unref(streams);
    return G_SOURCE_CONTINUE;
}

static GSourceFuncs tick_funcs = {.dispatch = on_tick};

void streams_damaged(Streams *all)
{
    for (guint i = 0; i < all->streams->len; i++)
        ((Stream *)g_ptr_array_index(all->streams, i))->damage = true;
    if (all->streams->len > 0)
        schedule(all);
}

/* ---- life ---- */

Streams *streams_new(Framebuffer *fb, int64_t patience_us)
{
    Streams *all = g_new0(Streams, 1);

    all->fb = fb;
    all->patience_us = patience_us;
    all->streams = g_ptr_array_new();
    all->tick = g_source_new(&tick_funcs, sizeof(TickSource));
    ((TickSource *)all->tick)->streams = all;
    g_source_attach(all->tick, NULL);
    return all;
}

void streams_free(Streams *all)
{
    if (!all)
        return;
    g_assert(all->streams->len == 0);
    g_ptr_array_unref(all->streams);
    g_source_destroy(all->tick);
    g_source_unref(all->tick);
    g_free(all);
}

StreamMember *stream_member_new(Streams *all, const StreamSlot *slot, StreamDeliver deliver,
                                void *user)
{
    StreamMember *m = g_new0(StreamMember, 1);

    m->deliver = deliver;
    m->user = user;
    m->slot = *slot;
    m->backoff_us = all->patience_us;
    m->may_join_at = g_get_monotonic_time() + all->patience_us;
    g_queue_init(&m->owed);
    move(m, stream_new(all, slot->film, framebuffer_viewer_new(all->fb)));
    schedule(all);
    return m;
}

void stream_member_free(StreamMember *m)
{
    if (!m)
        return;
    forget_owed(m);
    move(m, NULL);
    g_free(m);
}

void stream_member_slot(StreamMember *m, const StreamSlot *slot)
{
    Streams *all = m->stream->all;

    m->slot = *slot;
    if (slot->film != m->stream->film ||
        (need_of(m) == STREAM_FRESH && m->stream->members->len > 1)) {
        forget_owed(m);
        if (m->stream->members->len > 1)
            back_off(m, g_get_monotonic_time());
        move(m, stream_new(all, slot->film, framebuffer_viewer_new(all->fb)));
    } else if (need_of(m) == STREAM_FRESH && !m->stream->fresh) {
        forget_owed(m);
        begin_fresh(m->stream);
    } else if (need_of(m) == STREAM_START) { /* a frame has to be made, whatever it shows */
        framebuffer_viewer_invalidate(m->stream->viewer, &(Rect){0, 0, 1, 1});
        m->stream->damage = true;
    }
    give_owed(m);
    schedule(all);
}

bool stream_members_share(const StreamMember *a, const StreamMember *b)
{
    return a->stream == b->stream;
}
