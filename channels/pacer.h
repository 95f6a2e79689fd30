/*
 * May a frame be sent now? Decides from acknowledgements, frame-to-acknowledgement times, bytes in
 * flight (rdp-server.md 6.7) and what network auto-detection has found (link_probe.h).
 *
 * Pure: the caller's clock, no I/O. Owner: Gfx, or the legacy path of PeerDisplay.
 */
#ifndef QRDP_CHANNELS_PACER_H
#define QRDP_CHANNELS_PACER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PACER_MIN_WINDOW 2u
#define PACER_MAX_WINDOW 16u
#define PACER_FPS 30u
/** An unacknowledged frame this old is taken for lost: a client must not freeze its own picture
 * for ever by dropping one acknowledgement. */
#define PACER_LOST_US 5000000u
/** Least byte budget; a single frame may always go when nothing is in flight. */
#define PACER_MIN_BYTES (64u * 1024u)

/** A client that does not acknowledge is sent so much more than the link has carried by now. */
#define PACER_AHEAD_US (1000000u / PACER_FPS)

/** Bytes a second; faster ones are not told apart. */
#define PACER_MAX_RATE 1000000000u

#define PACER_TIMES 8u
/** Of fewer bytes jitter takes longer than they do, where the link is not known to be slow. */
#define PACER_TIMED_BYTES 16384u

typedef struct PacerFrame {
    uint32_t id;
    uint64_t sent_us;
    size_t bytes;
} PacerFrame;

/** For how long bytes have kept the link busy. */
typedef struct PacerTime {
    uint64_t us, bytes;
} PacerTime;

typedef struct Pacer {
    PacerFrame frames[PACER_MAX_WINDOW]; /* in flight, oldest first */
    unsigned n;
    size_t bytes;                 /* sum of the above */
    bool suspended, mute;         /* it acknowledges nothing now; it never does */
    uint64_t rtt_us, min_rtt_us;  /* smoothed and least send-to-acknowledge time, 0: none yet */
    PacerTime times[PACER_TIMES]; /* the last ones */
    uint64_t n_times;
    uint64_t network_rtt_us; /* of the network alone, 0: not known */
    uint64_t network_bps;    /* bytes a second that were measured, 0: not known */
    uint64_t busy_until_us;  /* suspended: when the link has carried what was sent */
    uint64_t last_ack_us;
    uint64_t sent, acked;
    uint64_t waiting_since_us; /* first frame sent after the last acknowledgement, 0: none */
} Pacer;

void pacer_init(Pacer *pacer);
/** Forgets what is in flight, keeps what was learnt about the link. */
void pacer_forget(Pacer *pacer);
bool pacer_may_send(const Pacer *pacer, uint64_t now_us);
void pacer_sent(Pacer *pacer, uint32_t frame_id, size_t bytes, uint64_t now_us);
/** An acknowledgement covers its frame and all before it. Unknown ids are ignored. @suspend: the
 * client stops acknowledging (queueDepth 0xFFFFFFFF) until one comes without. */
void pacer_acked(Pacer *pacer, uint32_t frame_id, bool suspend, uint64_t now_us);
/** This client acknowledges no frame at any time. */
void pacer_never_acked(Pacer *pacer);
/** What was measured of the network: its least round trip and the bytes a second that it carries;
 * 0: not known. */
void pacer_network(Pacer *pacer, uint64_t rtt_us, uint64_t rate_bps);
/** Bytes a second that the link takes, 0: not known. */
uint64_t pacer_rate(const Pacer *pacer, uint64_t now_us);
/** Bytes that a film's picture may take, PACER_FPS of them a second; 0: not known. */
size_t pacer_picture(const Pacer *pacer, uint64_t now_us);
/** What of the time from a frame to its acknowledgement is the client's own; 0: not known. */
uint64_t pacer_decoding(const Pacer *pacer);
/** Frames that may be unacknowledged now: PACER_MIN_WINDOW..PACER_MAX_WINDOW. */
unsigned pacer_window(const Pacer *pacer);
/** Since when a client that has acknowledged frames before owes an acknowledgement; 0: it does not.
 * Frames given up as lost still count. */
uint64_t pacer_waiting_since(const Pacer *pacer);
/** When pacer_may_send() can become true without an acknowledgement; UINT64_MAX: never. */
uint64_t pacer_deadline(const Pacer *pacer, uint64_t now_us);

#endif
