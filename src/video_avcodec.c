/*
 * The module qrdp-h264.so: H.264 encoders of libavcodec behind video_backend.h.
 *
 * Every kind is set up for one thing: a picture goes in and its bytes come out, at once. No
 * B-pictures, no lookahead, one thread (a client's picture is encoded on a thread of qrdp's pool;
 * more threads cost more in all and would have to exist under the sandbox), key pictures on request
 * only, parameter sets before each of them.
 *
 * Quality is a QP per picture. libx264 takes a new one with every picture, for which it estimates
 * each at half the size first; where the quality stays as it is, it does without. The others, too,
 * take it when they are opened, so they are opened again, which costs a key picture: only when it
 * has moved far, and not often.
 *
 * To add an encoder that libavcodec has: a row in kinds[] and one in setups[]. The trial in
 * video_trial.c decodes what comes out, so a driver that encodes rubbish is not used.
 */
#include <libavcodec/avcodec.h>
#include <libavutil/hwcontext.h>
#include <libavutil/imgutils.h>
#include <libavutil/opt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "video_backend.h"

#define KEYS_ON_REQUEST (1 << 24) /* pictures from one key picture to the next */
#define REOPEN_QP 4.0             /* farther from what was asked: open it again... */
#define REOPEN_PICTURES 60        /* ...but not before that many pictures */

static const VideoCodecKind kinds[] = {
    {.name = "h264_vaapi", .gpu = true},
    {.name = "h264_nvenc",
     .unconfined = true}, /* CUDA opens and maps what it likes, when it likes */
    {.name = "libx264 steady", .steady = true},
    {.name = "libx264 superfast"},
    {.name = "libx264 ultrafast"},
    {.name = "libopenh264"},
};

/* Options for one kind; %d is the QP. */
typedef struct Setup {
    const char *encoder;
    enum AVPixelFormat format;
    bool quantiser_option; /* the QP is AVCodecContext.global_quality */
    bool quantiser_range;  /* the QP is qmin and qmax */
    bool follows;          /* takes the option "crf" with every picture */
    int finer;             /* by so much the QP is less than what is asked for, */
    const char *options;   /* in these */
} Setup;

static const Setup setups[] = {
    {.encoder = "h264_vaapi",
     .format = AV_PIX_FMT_NV12,
     .quantiser_option = true,
     .options = "rc_mode=CQP:async_depth=1:profile=high:sei=0"},
    {.encoder = "h264_nvenc",
     .format = AV_PIX_FMT_NV12,
     .options =
         "preset=p2:tune=ull:rc=constqp:qp=%d:zerolatency=1:delay=0:forced-idr=1:surfaces=2"},
    /* Whatever costs more time than it saves bytes is left out, and a finer quantiser makes up for
     * it: a quarter of the time for 1.4 times the bytes. */
    {.encoder = "libx264",
     .format = AV_PIX_FMT_YUV420P,
     .finer = 3,
     .options = "preset=superfast:tune=zerolatency:forced-idr=1:sc_threshold=0:qp=%d:"
                "x264-params=weightp=0\\:partitions=none\\:8x8dct=0\\:subme=0\\:me=dia\\:"
                "chroma-me=0\\:cabac=0\\:aq-mode=0"},
    /* Without weighted prediction, with 8x8 intra blocks alone, whole pixels of motion and the same
     * quantiser everywhere it is a third faster for the same picture. The scene cut is left to
     * blocks. */
    {.encoder = "libx264",
     .format = AV_PIX_FMT_YUV420P,
     .follows = true,
     .options = "preset=superfast:tune=zerolatency:forced-idr=1:sc_threshold=0:crf=%d:"
                "x264-params=weightp=0\\:partitions=i8x8\\:subme=0\\:aq-mode=0"},
    /* What ultrafast leaves out and is cheap: half-pixel motion and the 8x8 transform. */
    {.encoder = "libx264",
     .format = AV_PIX_FMT_YUV420P,
     .follows = true,
     .options = "preset=ultrafast:tune=zerolatency:forced-idr=1:sc_threshold=0:crf=%d:"
                "x264-params=subme=1\\:8x8dct=1"},
    {.encoder = "libopenh264",
     .format = AV_PIX_FMT_YUV420P,
     .quantiser_range = true,
     .options = "rc_mode=quality:allow_skip_frames=0:profile=constrained_baseline"},
};

struct VideoCodec {
    const Setup *setup;
    uint32_t width, height;
    AVBufferRef *device; /* of a GPU */
    AVCodecContext *context;
    AVFrame *frame, *upload; /* .upload: in the GPU */
    AVPacket *packet;
    double qp;      /* that .context was opened or last told with */
    unsigned coded; /* pictures since it was opened */
    int64_t next_pts;
};

static bool fail(char *why, size_t size, const char *what, int error)
{
    char text[AV_ERROR_MAX_STRING_SIZE] = "";

    if (error < 0)
        av_strerror(error, text, sizeof(text));
    snprintf(why, size, "%s%s%s", what, error < 0 ? ": " : "", text);
    return false;
}

static void close_context(VideoCodec *codec)
{
    avcodec_free_context(&codec->context);
    av_frame_free(&codec->frame);
    av_frame_free(&codec->upload);
    av_packet_free(&codec->packet);
}

static void codec_close(VideoCodec *codec)
{
    if (!codec)
        return;
    close_context(codec);
    av_buffer_unref(&codec->device);
    free(codec);
}

static bool is_gpu(const VideoCodec *codec)
{
    return codec->device != NULL;
}

static int use_gpu(VideoCodec *codec)
{
    AVCodecContext *c = codec->context;
    int error = 0;

    c->hw_frames_ctx = av_hwframe_ctx_alloc(codec->device);
    if (!c->hw_frames_ctx)
        return AVERROR(ENOMEM);
    AVHWFramesContext *frames = (AVHWFramesContext *)(void *)c->hw_frames_ctx->data;
    frames->format = AV_PIX_FMT_VAAPI;
    frames->sw_format = codec->setup->format;
    frames->width = c->width;
    frames->height = c->height;
    frames->initial_pool_size = 4;
    error = av_hwframe_ctx_init(c->hw_frames_ctx);
    c->pix_fmt = AV_PIX_FMT_VAAPI;
    return error;
}

static int set_options(VideoCodec *codec, AVDictionary **options)
{
    const Setup *setup = codec->setup;
    AVCodecContext *c = codec->context;
    int qp = (int)lround(codec->qp) - setup->finer;
    char text[256];

    c->width = (int)codec->width;
    c->height = (int)codec->height;
    c->time_base = (AVRational){1, 30};
    c->framerate = (AVRational){30, 1};
    c->pix_fmt = setup->format;
    c->color_range = AVCOL_RANGE_JPEG;
    c->colorspace = AVCOL_SPC_BT709;
    c->color_primaries = AVCOL_PRI_BT709;
    c->color_trc = AVCOL_TRC_BT709;
    c->gop_size = KEYS_ON_REQUEST;
    c->max_b_frames = 0;
    c->thread_count = 1;
    c->slices = 1;
    if (setup->quantiser_option)
        c->global_quality = qp;
    if (setup->quantiser_range) {
        c->qmin = c->qmax = qp;
        c->bit_rate = 1000000000; /* never what decides */
    }
    /* the one %d there is; two would be one argument short */
    const char *number = strstr(setup->options, "%d");
    if (number)
        snprintf(text, sizeof(text), "%.*s%d%s", (int)(number - setup->options), setup->options, qp,
                 number + 2);
    else
        snprintf(text, sizeof(text), "%s", setup->options);
    return av_dict_parse_string(options, text, "=", ":", 0);
}

static bool open_context(VideoCodec *codec, double qp, char *why, size_t why_size)
{
    const AVCodec *encoder = avcodec_find_encoder_by_name(codec->setup->encoder);
    AVDictionary *options = NULL;
    int error = AVERROR(ENOMEM);

    close_context(codec);
    codec->qp = qp;
    codec->coded = 0;
    codec->context = avcodec_alloc_context3(encoder);
    codec->frame = av_frame_alloc();
    codec->upload = av_frame_alloc();
    codec->packet = av_packet_alloc();
    if (!codec->context || !codec->frame || !codec->upload || !codec->packet)
        return fail(why, why_size, "memory", error);
    error = set_options(codec, &options);
    if (error >= 0 && is_gpu(codec))
        error = use_gpu(codec);
    if (error >= 0)
        error = avcodec_open2(codec->context, encoder, &options);
    const AVDictionaryEntry *left = av_dict_get(options, "", NULL, AV_DICT_IGNORE_SUFFIX);
    if (error >= 0 && left) { /* an option of another version of libavcodec */
        char text[64];
        snprintf(text, sizeof(text), "no option %s", left->key);
        fail(why, why_size, text, 0);
        error = AVERROR_OPTION_NOT_FOUND;
    } else if (error < 0) {
        fail(why, why_size, "open", error);
    }
    av_dict_free(&options);
    return error >= 0;
}

static VideoCodec *codec_open(unsigned kind, uint32_t width, uint32_t height, double qp, char *why,
                              size_t why_size)
{
    const Setup *setup = &setups[kind];
    int error = 0;

    av_log_set_level(AV_LOG_QUIET); /* reasons come back in @why */
    if (!avcodec_find_encoder_by_name(setup->encoder)) {
        fail(why, why_size, "libavcodec has it not", 0);
        return NULL;
    }
    VideoCodec *codec = calloc(1, sizeof(*codec));
    if (!codec)
        return NULL;
    codec->setup = setup;
    codec->width = width;
    codec->height = height;
    if (kinds[kind].gpu) {
        error = av_hwdevice_ctx_create(&codec->device, AV_HWDEVICE_TYPE_VAAPI, NULL, NULL, 0);
        if (error < 0)
            fail(why, why_size, "no GPU that VA-API can drive", error);
    }
    if (error < 0 || !open_context(codec, qp, why, why_size)) {
        codec_close(codec);
        return NULL;
    }
    return codec;
}

/* NV12: U and V take turns. */
static void interleave(AVFrame *frame, const VideoPlanes *planes)
{
    for (int y = 0; y < frame->height / 2; y++) {
        const uint8_t *u = planes->data[1] + (size_t)y * planes->stride[1];
        const uint8_t *v = planes->data[2] + (size_t)y * planes->stride[2];
        uint8_t *to = frame->data[1] + (ptrdiff_t)y * frame->linesize[1];
        for (int x = 0; x < frame->width / 2; x++) {
            to[2 * x] = u[x];
            to[2 * x + 1] = v[x];
        }
    }
}

static void keep(void *opaque, uint8_t *data)
{
    (void)opaque;
    (void)data;
}

/* The planes as they are, without a copy: libx264 and libopenh264 take what they need during the
 * call, and the frame is emptied after it. */
static int borrow(AVFrame *frame, const VideoPlanes *planes)
{
    for (int p = 0; p < 3; p++) {
        size_t size = (size_t)planes->stride[p] * (size_t)(p ? frame->height / 2 : frame->height);
        frame->data[p] = planes->data[p];
        frame->linesize[p] = (int)planes->stride[p];
        frame->buf[p] =
            av_buffer_create(planes->data[p], size, keep, NULL, AV_BUFFER_FLAG_READONLY);
        if (!frame->buf[p])
            return AVERROR(ENOMEM);
    }
    return 0;
}

static int fill(VideoCodec *codec, const VideoPlanes *planes)
{
    AVFrame *frame = codec->frame;
    int error;

    frame->format = codec->setup->format;
    frame->width = (int)codec->width;
    frame->height = (int)codec->height;
    if (frame->format == AV_PIX_FMT_YUV420P)
        return borrow(frame, planes);
    error = av_frame_get_buffer(frame, 0);
    if (error < 0)
        return error;
    av_image_copy_plane(frame->data[0], frame->linesize[0], planes->data[0], (int)planes->stride[0],
                        frame->width, frame->height);
    interleave(frame, planes);
    if (!is_gpu(codec))
        return 0;
    error = av_hwframe_get_buffer(codec->context->hw_frames_ctx, codec->upload, 0);
    return error < 0 ? error : av_hwframe_transfer_data(codec->upload, frame, 0);
}

/* -1: the encoder does not say. */
static int packet_qp(const AVPacket *packet)
{
    size_t size = 0;
    const uint8_t *data = av_packet_get_side_data(packet, AV_PKT_DATA_QUALITY_STATS, &size);

    if (!data || size < 4)
        return -1;
    uint32_t lambda =
        data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24;
    int qp = (int)(lambda / FF_QP2LAMBDA);
    return qp >= 0 && qp <= VIDEO_MAX_QP ? qp : -1;
}

static bool follow(VideoCodec *codec, double qp, char *why, size_t why_size)
{
    if (codec->setup->follows) {
        codec->qp = qp;
        av_opt_set_double(codec->context->priv_data, "crf", qp, 0);
        return true;
    }
    if (fabs(qp - codec->qp) < REOPEN_QP || codec->coded < REOPEN_PICTURES)
        return true;
    return open_context(codec, qp, why, why_size);
}

static bool codec_encode(VideoCodec *codec, const VideoPlanes *planes, double qp, bool key,
                         VideoCoded *coded, char *why, size_t why_size)
{
    if (!follow(codec, qp, why, why_size))
        return false;
    AVFrame *frame = is_gpu(codec) ? codec->upload : codec->frame;
    av_packet_unref(codec->packet);
    int error = fill(codec, planes);
    if (error >= 0) {
        frame->pts = codec->next_pts++;
        frame->pict_type = key ? AV_PICTURE_TYPE_I : AV_PICTURE_TYPE_NONE;
        error = avcodec_send_frame(codec->context, frame);
    }
    if (error >= 0)
        error = avcodec_receive_packet(codec->context, codec->packet);
    av_frame_unref(codec->frame);
    av_frame_unref(codec->upload);
    if (error == AVERROR(EAGAIN))
        return fail(why, why_size, "it wants more pictures before it gives one", 0);
    if (error < 0)
        return fail(why, why_size, "encode", error);
    codec->coded++;
    *coded = (VideoCoded){.data = codec->packet->data,
                          .len = (size_t)codec->packet->size,
                          .key = codec->packet->flags & AV_PKT_FLAG_KEY,
                          .qp = packet_qp(codec->packet)};
    if (coded->qp < 0)
        coded->qp = (int)lround(codec->qp);
    return true;
}

static int decode_unit(AVCodecContext *context, AVPacket *packet, AVFrame *frame,
                       const VideoCoded *unit)
{
    int error = av_new_packet(packet, (int)unit->len);

    if (error < 0)
        return error;
    memcpy(packet->data, unit->data, unit->len);
    error = avcodec_send_packet(context, packet);
    av_packet_unref(packet);
    return error < 0 ? error : avcodec_receive_frame(context, frame);
}

static bool decode(const VideoCoded *units, unsigned n, uint32_t width, uint32_t height,
                   uint8_t *luma)
{
    const AVCodec *decoder = avcodec_find_decoder(AV_CODEC_ID_H264);
    AVCodecContext *context = decoder ? avcodec_alloc_context3(decoder) : NULL;
    AVPacket *packet = av_packet_alloc();
    AVFrame *frame = av_frame_alloc();
    bool ok = context && packet && frame;

    if (ok) {
        context->thread_count = 1;
        context->flags |= AV_CODEC_FLAG_LOW_DELAY;
        ok = avcodec_open2(context, decoder, NULL) >= 0;
    }
    for (unsigned i = 0; i < n && ok; i++)
        ok = decode_unit(context, packet, frame, &units[i]) >= 0;
    ok = ok && frame->width == (int)width && frame->height == (int)height;
    if (ok)
        av_image_copy_plane(luma, (int)width, frame->data[0], frame->linesize[0], (int)width,
                            (int)height);
    av_frame_free(&frame);
    av_packet_free(&packet);
    avcodec_free_context(&context);
    return ok;
}

static const VideoBackend backend = {
    .abi = VIDEO_BACKEND_ABI,
    .kinds = kinds,
    .n_kinds = sizeof(kinds) / sizeof(kinds[0]),
    .open = codec_open,
    .encode = codec_encode,
    .close = codec_close,
    .decode = decode,
};

_Static_assert(sizeof(kinds) / sizeof(kinds[0]) == sizeof(setups) / sizeof(setups[0]),
               "a setup for each kind");

__attribute__((visibility("default"))) const VideoBackend *qrdp_video_backend(void);

const VideoBackend *qrdp_video_backend(void)
{
    return &backend;
}
