/*
 * H.264 for a part of the screen that moves: BGRX pictures in, RFX_AVC420_BITMAP_STREAMs out
 * (MS-RDPEGFX 2.2.4.4), for WireToSurface1 with GFX_CODEC_AVC420 on a surface of exactly the part's
 * size.
 *
 * The codecs are in a module that is loaded at run time (video_backend.h). Which of them are used,
 * and for which sizes, is decided by a timed trial when it is loaded.
 *
 * Loading is one for the process: video_load() on main, before sandbox_confine() and before any
 * other thread. The rest may be called from any thread.
 * A VideoEncoder is one stream. Owner: the caller, one thread at a time. Lifetime: that of the
 * client's surface; a new size is a new surface and a new VideoEncoder.
 */
#ifndef QRDP_VIDEO_H
#define QRDP_VIDEO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"
#include "gfx_pdu.h"
#include "video_backend.h"

#define VIDEO_MAX_SIDE 4096u  /* pixels; larger pictures are no level of H.264 that clients have */
#define VIDEO_MAX_RECTS 1024u /* of one picture */
/** A good picture, as good as JPEG of quality 80 in 0.3 of its bytes (docs/graphics.md). */
#define VIDEO_GOOD_QP 22.5

/** Loads the module and tries its codecs, which takes some tenths of a second; logs what was found,
 * or what to install. @sandbox: the process will be confined. Call once. */
void video_load(bool sandbox);
/** The same in two steps, for who must not be late: loads the module, before the process is
 * confined, and tries the codecs afterwards on a thread of its own. A GPU is out of reach then.
 * Until they are tried there is no codec. */
void video_open(void);
void video_try_later(void);
/** Waits for that thread. */
void video_finish(void);
/** There is a codec. */
bool video_available(void);
/** A codec in use opens device nodes below /dev/dri and gives them ioctls: the sandbox must know.
 */
bool video_needs_gpu(void);
/** One line for people: which codecs are used and how fast they are, or why there are none. */
const char *video_text(void);

typedef struct VideoEncoder VideoEncoder;

/** An encoder for surfaces of @width x @height pixels, 1..VIDEO_MAX_SIDE; the first picture must be
 * a whole one. NULL if there is no codec for it. */
VideoEncoder *video_encoder_new(uint32_t width, uint32_t height);
void video_encoder_free(VideoEncoder *encoder);

typedef struct VideoPicture {
    const uint8_t *bgrx; /* the surface's top left pixel: bytes B, G, R, X */
    size_t stride;       /* bytes */
    /** What changed since the picture before, and what the client is to paint; only these pixels
     * are read. Relative to the surface; even, except at its right and bottom edges. */
    const GfxRect *rects;
    unsigned n_rects; /* 1..VIDEO_MAX_RECTS */
} VideoPicture;

typedef struct VideoWant {
    double qp;            /* the best quality to spend bytes on, VIDEO_MIN_QP..VIDEO_MAX_QP */
    uint32_t frame_bytes; /* a picture's bytes on average, 0: whatever the quality takes */
    bool key;             /* one that needs no picture before it */
} VideoWant;

typedef struct VideoInfo {
    bool key;
    uint8_t qp;        /* what was used: with frame_bytes it is often higher */
    size_t len;        /* bytes appended */
    const char *codec; /* "libx264 superfast" */
} VideoInfo;

/** Appends one RFX_AVC420_BITMAP_STREAM to @out. False if the codec failed (one line is logged and
 * that codec is not used again) or @out is full: nothing is appended, and the encoder is good for
 * video_encoder_free() only; a new one takes another codec. */
bool video_encode(VideoEncoder *encoder, const VideoPicture *picture, const VideoWant *want,
                  Writer *out, VideoInfo *info);

#endif
