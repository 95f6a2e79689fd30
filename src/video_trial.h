/*
 * Which codecs of a module work here, and how fast they are. Used by video.c once.
 *
 * Thread: main, before there are others.
 */
#ifndef QRDP_VIDEO_TRIAL_H
#define QRDP_VIDEO_TRIAL_H

#include "video_backend.h"

/** No kind gets more than this and the picture in which it ran out. */
#define VIDEO_TRIAL_US 400000

typedef struct VideoTrial {
    bool works;
    double cpu_us_per_kpixel; /* processor time, which is what encoding takes from the guest */
    char why[128];            /* if it does not work */
} VideoTrial;

/** Encodes a few moving pictures with each kind, decodes them again and compares. @trials: one per
 * kind. @sandbox: kinds that do not work confined are passed over. */
void video_trial(const VideoBackend *backend, bool sandbox, VideoTrial *trials);

/** Planes for pictures of @width x @height, multiples of 16; free with video_planes_clear(). */
void video_planes_init(VideoPlanes *planes, uint32_t width, uint32_t height);
void video_planes_clear(VideoPlanes *planes);

#endif
