/*
 * Theory of operation. A job owns everything it touches: the encoder, a reference on the frame, and
 * later the result. It is pushed to a pool of as many threads as there are processors, which all
 * share; the result travels back as a source on the owner's GMainContext. The source's
 * destroy notify frees the job, delivered or not, so an owner that is gone loses nothing.
 * encoder_abandon() runs on the thread that would deliver, so a plain flag is enough.
 */
#include "encoder.h"

#include "encoder_priv.h"
#include "handover.h"

struct EncoderJob {
    Encoder *encoder;
    Frame *frame;
    EncoderOrder order;
    GMainContext *context;
    EncoderDone done;
    void *user;
    bool abandoned; /* owner's thread only */
    EncodedFrame *encoded;
};

EncodedFrame *encoded_frame_ref(EncodedFrame *encoded)
{
    g_atomic_int_inc(&encoded->refs);
    return encoded;
}

void encoded_frame_unref(EncodedFrame *encoded)
{
    if (!encoded || !g_atomic_int_dec_and_test(&encoded->refs))
        return;
    if (encoded->frame)
        frame_unref(encoded->frame);
    writer_clear(&encoded->bytes);
    gfx_frame_clear(&encoded->packed);
    if (encoded->parts)
        g_array_unref(encoded->parts);
    g_free(encoded);
}

/* A film goes on, and nothing is left of another; or it has left something behind: all of it, or
 * what one frame did not take. Where a frame was made to show that and had nothing to show, the
 * next one would have no more, at once and again. */
int64_t encoded_frame_refine_at(const EncodedFrame *encoded, int64_t before_us, bool due,
                                int64_t now_us)
{
    bool empty = encoded->bytes.len == 0 && encoded->packed.messages.len == 0;

    if (!encoded->lossy)
        return INT64_MAX;
    if ((encoded->film_bytes > 0 && !encoded->rests) || before_us == INT64_MAX || (due && empty))
        return now_us + encoded->film_rest_us;
    return before_us;
}

static void hold(void *encoded)
{
    encoded_frame_ref(encoded);
}

static void release(void *encoded)
{
    encoded_frame_unref(encoded);
}

DvcOwner encoded_frame_owner(EncodedFrame *encoded)
{
    return (DvcOwner){encoded, hold, release};
}

Encoder *encoder_new(const EncoderParams *params)
{
    Encoder *encoder = g_new0(Encoder, 1);
    bool ok;

    encoder->params = *params;
    if (params->path == ENCODER_GFX) {
        ok = encoder_gfx_init(encoder);
    } else {
        g_assert(params->max_part >= ENCODER_MIN_PART);
        ok = encoder_legacy_init(encoder);
    }
    if (!ok) {
        encoder_free(encoder);
        return NULL;
    }
    return encoder;
}

void encoder_free(Encoder *encoder)
{
    if (!encoder)
        return;
    freerdp_bitmap_planar_context_free(encoder->planar);
    freerdp_bitmap_planar_context_free(encoder->planar_raw);
    nsc_context_free(encoder->nsc);
    g_clear_pointer(&encoder->clear, clear_encoder_free);
    encoder_gfx_clear(encoder);
    g_free(encoder->scratch);
    g_free(encoder);
}

void encoder_limit_film(Encoder *encoder, uint32_t bytes)
{
    encoder->film_bytes = bytes;
}

EncodedFrame *encoder_encode(Encoder *encoder, Frame *frame, uint16_t surface, bool lossless)
{
    EncodedFrame *encoded = g_new0(EncodedFrame, 1);
    int64_t start = g_get_monotonic_time();
    bool ok;

    encoded->refs = 1;
    encoded->path = encoder->params.path;
    if (lossless && encoded->path != ENCODER_GFX)
        encoded->path = ENCODER_BITMAP;
    encoded->frame = frame_ref(frame);
    encoded->surface = surface;
    writer_init(&encoded->bytes, SIZE_MAX / 2); /* bounded by the frame's size */
    if (encoded->path == ENCODER_GFX) {
        ok = encoder_gfx_encode(encoder, encoded);
    } else {
        encoded->parts = g_array_new(FALSE, FALSE, sizeof(EncodedPart));
        ok = encoder_legacy_encode(encoder, encoded);
    }
    encoded->encode_us = g_get_monotonic_time() - start;
    if (!ok || !writer_ok(&encoded->bytes)) {
        encoded_frame_unref(encoded);
        return NULL;
    }
    return encoded;
}

static void job_free(EncoderJob *job)
{
    handover_take(job);
    encoder_free(job->encoder);
    encoded_frame_unref(job->encoded);
    if (job->frame)
        frame_unref(job->frame);
    g_free(job);
}

static gboolean deliver(gpointer data)
{
    EncoderJob *job = data;

    handover_take(job);
    if (!job->abandoned) {
        Encoder *encoder = g_steal_pointer(&job->encoder);
        EncodedFrame *encoded = g_steal_pointer(&job->encoded);
        job->done(job->user, encoder, encoded);
    }
    return G_SOURCE_REMOVE;
}

static void run(gpointer data, gpointer user)
{
    EncoderJob *job = data;
    handover_take(job);
    /* given up before the source holds the job, or they would keep each other alive */
    GMainContext *context = g_steal_pointer(&job->context);

    (void)user;
    job->encoded =
        encoder_encode(job->encoder, job->frame, job->order.surface, job->order.lossless);
    g_clear_pointer(&job->frame, frame_unref);
    if (job->encoded && job->encoded->path == ENCODER_GFX &&
        !encoder_gfx_pack(job->encoder, job->encoded, job->order.frame_id))
        g_clear_pointer(&job->encoded, encoded_frame_unref);

    GSource *source = g_idle_source_new();
    g_source_set_priority(source, G_PRIORITY_DEFAULT);
    g_source_set_callback(source, deliver, job, (GDestroyNotify)job_free);
    handover_give(job);
    g_source_attach(source, context); /* from here on the job is the source's */
    g_source_unref(source);
    if (context)
        g_main_context_unref(context);
}

static GThreadPool *pool(void)
{
    static gsize once;

    if (g_once_init_enter(&once)) {
        GThreadPool *made = g_thread_pool_new(run, NULL, (gint)g_get_num_processors(), FALSE, NULL);
        g_once_init_leave(&once, (gsize)made);
    }
    return (GThreadPool *)once;
}

EncoderJob *encoder_submit(Encoder *encoder, Frame *frame, const EncoderOrder *order,
                           GMainContext *context, EncoderDone done, void *user)
{
    EncoderJob *job = g_new0(EncoderJob, 1);

    *job = (EncoderJob){
        .encoder = encoder,
        .frame = frame,
        .order = *order,
        .context = context ? g_main_context_ref(context) : NULL,
        .done = done,
        .user = user,
    };
    handover_give(job);
    g_thread_pool_push(pool(), job, NULL);
    return job;
}

void encoder_abandon(EncoderJob *job)
{
    job->abandoned = true;
}
