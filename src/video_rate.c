/*
 * Theory of operation. Six steps of QP double the quantiser, and bytes roughly halve. So a picture
 * is described by the bytes it would take at QP 0, and that number changes slowly from one picture
 * to the next, except from a key picture to the others. What went over is a debt, paid back over
 * the pictures to come; what was saved may be spent, up to a few pictures' worth.
 *
 * The QP rises at once, because a slow link must not wait for a large picture, and falls slowly,
 * because a picture that pulses is worse than one that is a little coarse.
 *
 * It works with whatever codec because it wants of it nothing but a QP per picture.
 */
#include "video_rate.h"

#include <math.h>

#include "video_backend.h"

#define FIRST_NEED_QP 22.0 /* noise takes 2 bits per pixel there, measured; other things less */
#define FIRST_NEED_BYTES 0.25
#define KEY_TO_OTHERS 1.0 /* log2: the first guess of what the others take */
#define MOST_SAVED 4.0    /* pictures */
#define MOST_OWED 16.0
#define PAY_BACK_PICTURES 8.0
#define FALL_PER_PICTURE 0.75
#define FOLLOW 0.5

void video_rate_init(VideoRate *rate, uint32_t width, uint32_t height)
{
    double need = log2((double)width * height * FIRST_NEED_BYTES) + FIRST_NEED_QP / 6;

    *rate = (VideoRate){.need = {need - KEY_TO_OTHERS, need}, .worst = VIDEO_MAX_QP};
}

double video_rate_next(VideoRate *rate, bool key, double best, uint32_t frame_bytes)
{
    double qp = best;

    if (frame_bytes > 0) {
        double may = key ? (double)frame_bytes * VIDEO_KEY_PICTURES
                         : (double)frame_bytes - rate->debt / PAY_BACK_PICTURES;
        may = fmax(may, frame_bytes / 4.0);
        qp = 6 * (rate->need[key] - log2(may));
        if (!key && rate->qp > 0)
            qp = fmax(qp, rate->qp - FALL_PER_PICTURE);
    }
    return fmin(fmax(qp, best), rate->worst);
}

void video_rate_coded(VideoRate *rate, bool key, double qp, uint32_t bytes, uint32_t frame_bytes)
{
    double need = log2(fmax(bytes, 1)) + qp / 6;

    if (key) {
        rate->need[1] = need;
        if (!rate->learnt)
            rate->need[0] = need - KEY_TO_OTHERS;
    } else {
        rate->need[0] += rate->learnt ? FOLLOW * (need - rate->need[0]) : need - rate->need[0];
        rate->learnt = true;
    }
    rate->qp = qp;
    if (frame_bytes == 0)
        rate->debt = 0;
    else
        rate->debt = fmin(fmax(rate->debt + (double)bytes - frame_bytes, -MOST_SAVED * frame_bytes),
                          MOST_OWED * frame_bytes);
}
