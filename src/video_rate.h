/*
 * How coarsely the next picture is coded, so that pictures keep to a number of bytes on average.
 *
 * Pure arithmetic, embedded in a VideoEncoder. One thread at a time.
 */
#ifndef QRDP_VIDEO_RATE_H
#define QRDP_VIDEO_RATE_H

#include <stdbool.h>
#include <stdint.h>

/** A picture that needs none before it may take as much as this many others. */
#define VIDEO_KEY_PICTURES 4u

typedef struct VideoRate {
    double need[2]; /* log2 of the bytes that a picture would take at QP 0; [1]: a key picture */
    double debt;    /* bytes over what was asked, less than 0: saved */
    double qp;      /* of the picture before, 0: none */
    double worst;   /* QP */
    bool learnt;    /* need[0] comes from a picture, not from a key picture */
} VideoRate;

/** For H.264; .need and .worst may be changed for another codec. */
void video_rate_init(VideoRate *rate, uint32_t width, uint32_t height);
/** The QP for the next picture, @best to .worst. @frame_bytes: 0 for no limit. */
double video_rate_next(VideoRate *rate, bool key, double best, uint32_t frame_bytes);
/** What came of it. @qp: video_rate_next()'s. */
void video_rate_coded(VideoRate *rate, bool key, double qp, uint32_t bytes, uint32_t frame_bytes);

#endif
