/*
 * Theory of operation. The window is what keeps a link busy and no more: frames per second times
 * round trip, plus one, between 2 and 16. The round trip used is the least one seen, slowly
 * forgotten, because the smoothed one grows with our own queue and a window that follows it grows
 * for ever (the mistake krdp fixed twice, rdp-server.md 6.7). A byte budget of what the link was
 * seen to carry in a round trip and a frame's time keeps large frames from queueing where small
 * ones pass: what queues is what a key press waits for.
 *
 * What the link carries is told by the time between acknowledgements while it is busy, and while it
 * is not, by how much later one comes than the network's round trip after its frame, where that is
 * known. With the round trip in it a film on a long link would be coded for a slow one, its
 * pictures be smaller, and the rate seem to be less still. A round trip that was measured behind
 * our own queue makes the rate too large, and that the queue: so the bandwidth that was measured
 * (link_probe.h), in which there is neither, is the limit. Before the first acknowledgement a large
 * frame that waits for its own tells how fast the link is at most: so the second picture of a film
 * is not as large as the first one was.
 *
 * A film's picture gets nine tenths of that, so that what has queued goes away. A client that takes
 * long for each, small or large, would get smaller and smaller ones for nothing: they are not made
 * smaller than what is timed, unless the network is that slow.
 *
 * An acknowledgement comes when the client has decoded the frame. Where the network's own figures
 * are known (link_probe.h) its round trip is used instead: a window that made up for slow decoding
 * would only fill the client's queue. Suspended clients (queueDepth 0xFFFFFFFF) and those that
 * never acknowledge are sent to without counting; what bounds them is the bandwidth that was
 * measured, a frame's time ahead, and else the socket alone.
 */
#include "pacer.h"

#include <string.h>

#define TIMED_LEAST 1024u

void pacer_init(Pacer *pacer)
{
    memset(pacer, 0, sizeof(*pacer));
}

void pacer_forget(Pacer *pacer)
{
    pacer->n = 0;
    pacer->bytes = 0;
    pacer->suspended = pacer->mute;
    pacer->busy_until_us = 0;
    pacer->last_ack_us = 0;
    pacer->waiting_since_us = 0;
}

void pacer_never_acked(Pacer *pacer)
{
    pacer->mute = pacer->suspended = true;
}

void pacer_network(Pacer *pacer, uint64_t rtt_us, uint64_t rate_bps)
{
    if (pacer->network_rtt_us == 0 && rtt_us > 0)
        pacer->n_times = 0; /* with it */
    pacer->network_rtt_us = rtt_us;
    pacer->network_bps = rate_bps;
}

static uint64_t round_trip(const Pacer *pacer)
{
    if (pacer->network_rtt_us && (!pacer->min_rtt_us || pacer->network_rtt_us < pacer->min_rtt_us))
        return pacer->network_rtt_us;
    return pacer->min_rtt_us;
}

static uint64_t per_second(uint64_t bytes, uint64_t us)
{
    if (bytes >= us * (PACER_MAX_RATE / 1000000))
        return PACER_MAX_RATE;
    uint64_t rate = bytes * 1000000 / us;
    return rate > 0 ? rate : 1;
}

/* Of the last times but the slowest: the network may just have stopped for a moment. */
static uint64_t timed_rate(const Pacer *pacer)
{
    unsigned n = pacer->n_times < PACER_TIMES ? (unsigned)pacer->n_times : PACER_TIMES;
    const PacerTime *slowest = pacer->times;
    PacerTime sum = {0};

    for (unsigned i = 0; i < n; i++) {
        const PacerTime *t = &pacer->times[i];
        sum = (PacerTime){sum.us + t->us, sum.bytes + t->bytes};
        if (t->us * slowest->bytes > slowest->us * t->bytes)
            slowest = t;
    }
    if (n > 1)
        sum = (PacerTime){sum.us - slowest->us, sum.bytes - slowest->bytes};
    return per_second(sum.bytes, sum.us);
}

/* How long frames have kept the link busy of which the first was sent at @sent_us, 0: not yet. */
static uint64_t busy_for(const Pacer *pacer, uint64_t sent_us, uint64_t now_us)
{
    uint64_t from = sent_us + (pacer->network_rtt_us ? round_trip(pacer) : 0);

    if (from < pacer->last_ack_us)
        from = pacer->last_ack_us;
    return now_us > from ? now_us - from : 0;
}

uint64_t pacer_rate(const Pacer *pacer, uint64_t now_us)
{
    uint64_t rate = 0;

    if (pacer->suspended)
        return pacer->network_bps;
    if (pacer->n_times > 0) {
        rate = timed_rate(pacer);
    } else if (pacer->n > 0 && pacer->frames[0].bytes >= PACER_TIMED_BYTES) {
        uint64_t us = busy_for(pacer, pacer->frames[0].sent_us, now_us);
        rate = us > 0 ? per_second(pacer->frames[0].bytes, us) : 0;
    }
    return rate == 0 || (pacer->network_bps > 0 && rate > pacer->network_bps) ? pacer->network_bps
                                                                              : rate;
}

size_t pacer_picture(const Pacer *pacer, uint64_t now_us)
{
    unsigned tenths = pacer->network_bps > 0 ? 9 : 10; /* else the round trip is in it as it is */
    uint64_t rate = pacer_rate(pacer, now_us);
    size_t picture = (size_t)(rate * tenths / (10 * PACER_FPS));
    size_t least = (size_t)(pacer->network_bps / PACER_FPS * 9 / 10);

    if (least > PACER_TIMED_BYTES)
        least = PACER_TIMED_BYTES;
    if (picture < least)
        return least;
    return picture == 0 && rate > 0 ? 1 : picture;
}

uint64_t pacer_decoding(const Pacer *pacer)
{
    return pacer->network_rtt_us && pacer->rtt_us > pacer->network_rtt_us
               ? pacer->rtt_us - pacer->network_rtt_us
               : 0;
}

unsigned pacer_window(const Pacer *pacer)
{
    uint64_t frames = (round_trip(pacer) * PACER_FPS + 999999) / 1000000 + 1;

    if (frames < PACER_MIN_WINDOW)
        return PACER_MIN_WINDOW;
    return frames > PACER_MAX_WINDOW ? PACER_MAX_WINDOW : (unsigned)frames;
}

static size_t byte_budget(const Pacer *pacer, uint64_t now_us)
{
    uint64_t rate = pacer_rate(pacer, now_us);

    if (rate == 0)
        return PACER_MIN_BYTES * 16;
    uint64_t budget = rate * (round_trip(pacer) + 1000000 / PACER_FPS) / 1000000;
    return budget < PACER_MIN_BYTES ? PACER_MIN_BYTES : (size_t)budget;
}

bool pacer_may_send(const Pacer *pacer, uint64_t now_us)
{
    if (pacer->suspended)
        return now_us + PACER_AHEAD_US >= pacer->busy_until_us;
    if (pacer->n == 0)
        return true;
    if (now_us - pacer->frames[0].sent_us >= PACER_LOST_US)
        return true;
    return pacer->n < pacer_window(pacer) && pacer->bytes < byte_budget(pacer, now_us);
}

static void drop(Pacer *pacer, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        pacer->bytes -= pacer->frames[i].bytes;
    pacer->n -= count;
    memmove(pacer->frames, pacer->frames + count, pacer->n * sizeof(pacer->frames[0]));
}

void pacer_sent(Pacer *pacer, uint32_t frame_id, size_t bytes, uint64_t now_us)
{
    pacer->sent++;
    if (pacer->suspended) {
        uint64_t from = pacer->busy_until_us > now_us ? pacer->busy_until_us : now_us;
        uint64_t takes = pacer->network_bps ? bytes * 1000000ull / pacer->network_bps : 0;
        uint64_t most = now_us + PACER_LOST_US;
        pacer->busy_until_us = from + takes < most ? from + takes : most;
        return;
    }
    if (pacer->waiting_since_us == 0)
        pacer->waiting_since_us = now_us;
    if (pacer->n > 0 && now_us - pacer->frames[0].sent_us >= PACER_LOST_US)
        drop(pacer, pacer->n); /* the client lost them or its acknowledgements: start over */
    if (pacer->n == PACER_MAX_WINDOW)
        drop(pacer, 1);
    pacer->frames[pacer->n++] = (PacerFrame){frame_id, now_us, bytes};
    pacer->bytes += bytes;
}

/* Fewer bytes than that tell nothing of the rate: jitter takes longer. A limited film's pictures
 * are enough, or it would never know that the link has become faster, or slower still. */
static size_t enough(const Pacer *pacer, uint64_t now_us)
{
    size_t picture = pacer_picture(pacer, now_us) / 2;

    if (pacer->n_times == 0 || picture > PACER_TIMED_BYTES)
        return PACER_TIMED_BYTES;
    return picture < TIMED_LEAST ? TIMED_LEAST : picture;
}

/* Frames of together @bytes, the first of them sent at @first_us, the last at @last_us. */
static void learn(Pacer *pacer, uint64_t first_us, uint64_t last_us, size_t bytes, uint64_t now_us)
{
    uint64_t rtt = now_us > last_us ? now_us - last_us : 1;

    if (bytes >= enough(pacer, now_us))
        pacer->times[pacer->n_times++ % PACER_TIMES] =
            (PacerTime){busy_for(pacer, first_us, now_us), bytes};
    pacer->rtt_us = pacer->rtt_us ? (pacer->rtt_us * 7 + rtt) / 8 : rtt;
    if (pacer->min_rtt_us == 0 || rtt < pacer->min_rtt_us)
        pacer->min_rtt_us = rtt;
    else
        pacer->min_rtt_us += (pacer->rtt_us - pacer->min_rtt_us) / 256; /* links change */
}

void pacer_acked(Pacer *pacer, uint32_t frame_id, bool suspend, uint64_t now_us)
{
    for (unsigned i = 0; i < pacer->n; i++) {
        if (pacer->frames[i].id != frame_id)
            continue;
        size_t bytes = 0;
        for (unsigned j = 0; j <= i; j++)
            bytes += pacer->frames[j].bytes;
        learn(pacer, pacer->frames[0].sent_us, pacer->frames[i].sent_us, bytes, now_us);
        pacer->acked += i + 1;
        pacer->last_ack_us = now_us;
        drop(pacer, i + 1);
        pacer->waiting_since_us = pacer->n > 0 ? now_us : 0;
        break;
    }
    if (suspend) {
        pacer->waiting_since_us = 0;
        pacer->n = 0;
        pacer->bytes = 0;
    }
    pacer->suspended = suspend;
    pacer->busy_until_us = 0;
}

uint64_t pacer_waiting_since(const Pacer *pacer)
{
    return pacer->acked > 0 ? pacer->waiting_since_us : 0;
}

uint64_t pacer_deadline(const Pacer *pacer, uint64_t now_us)
{
    if (pacer_may_send(pacer, now_us))
        return UINT64_MAX;
    if (pacer->suspended)
        return pacer->busy_until_us - PACER_AHEAD_US;
    return pacer->frames[0].sent_us + PACER_LOST_US;
}
