/*
 * The seam between qrdp and a module with video codecs, which is loaded at run time.
 *
 * A module is a shared object that exports QRDP_VIDEO_BACKEND, a function that returns a
 * VideoBackend. It sees this header and nothing else of qrdp's, and qrdp sees no header of what the
 * module is made of: distributions build libavcodec under the GPL, the program is Apache licensed.
 *
 * Owner: the VideoBackend is static in the module, which is never unloaded. Thread: any; one
 * VideoCodec is used by one thread at a time.
 */
#ifndef QRDP_VIDEO_BACKEND_H
#define QRDP_VIDEO_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Changes with anything below. */
#define VIDEO_BACKEND_ABI 2u
#define VIDEO_MAX_CODECS 16u /* of one backend */
#define VIDEO_MIN_QP 10
#define VIDEO_MAX_QP 51

/** 8 bit, 4:2:0, BT.709 at full range; every plane starts at a multiple of 64 bytes, so do its
 * rows. */
typedef struct VideoPlanes {
    uint8_t *data[3]; /* Y, U, V */
    uint32_t stride[3];
} VideoPlanes;

typedef struct VideoCoded {
    const uint8_t *data; /* one access unit, Annex B; until the next call for this codec */
    size_t len;
    bool key; /* an IDR picture with its parameter sets */
    int qp;   /* average, -1: not known */
} VideoCoded;

/** One stream being encoded. */
typedef struct VideoCodec VideoCodec;

typedef struct VideoCodecKind {
    const char *name; /* for people: "libx264 superfast" */
    bool gpu;         /* opens and controls a device node below /dev/dri */
    bool unconfined;  /* does not work under the sandbox */
    bool steady;      /* for the quality it was opened with: it changes that late or not at all */
} VideoCodecKind;

typedef struct VideoBackend {
    uint32_t abi; /* VIDEO_BACKEND_ABI */
    /** All kinds the module knows, best picture for its bytes and processor time first. */
    const VideoCodecKind *kinds;
    unsigned n_kinds;

    /** A stream of pictures of @width x @height, multiples of 16. NULL and a reason in @why if this
     * kind is not there or does not want to. No threads may be left behind by close(). */
    VideoCodec *(*open)(unsigned kind, uint32_t width, uint32_t height, double qp, char *why,
                        size_t why_size);
    /** Encodes one picture, without delay: what comes out is this picture. @qp:
     * VIDEO_MIN_QP..VIDEO_MAX_QP; a codec that cannot change it at once does so when it can. False,
     * and a reason: the codec is good for close() only. */
    bool (*encode)(VideoCodec *codec, const VideoPlanes *planes, double qp, bool key,
                   VideoCoded *coded, char *why, size_t why_size);
    void (*close)(VideoCodec *codec);
    /** Decodes a whole stream of @n access units; the luma of its last picture goes to @luma,
     * packed. For checking codecs, whatever their kind. */
    bool (*decode)(const VideoCoded *units, unsigned n, uint32_t width, uint32_t height,
                   uint8_t *luma);
} VideoBackend;

/** The function that a module exports; it returns a const VideoBackend *. */
#define QRDP_VIDEO_BACKEND "qrdp_video_backend"

#endif
