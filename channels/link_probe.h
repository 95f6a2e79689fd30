/*
 * How long the way to the client is and how much it carries, from network auto-detection
 * (MS-RDPBCGR 1.3.8, 2.2.14): what to ask when, which answers count, and what follows from them.
 *
 * Pure: the caller's clock, no I/O, no wire format (that is FreeRDP's). Owner: PeerLink. All times
 * in microseconds of one monotonic clock.
 */
#ifndef QRDP_CHANNELS_LINK_PROBE_H
#define QRDP_CHANNELS_LINK_PROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINK_SAMPLES 16u /* round trips that are remembered */
#define LINK_RATES 5u    /* bandwidths that are */
#define LINK_FIRST 4u    /* so many are asked for one after the other */
/** No picture for so long: nothing is asked any more. */
#define LINK_QUIET_US 2000000u
/** Between two questions while much is sent, and while little is: a blinking cursor. */
#define LINK_ASK_US 500000u
#define LINK_ASK_SELDOM_US 10000000u
#define LINK_MUCH_BYTES 16384u
/** A longer round trip is a network that stood still, not its length. */
#define LINK_MAX_RTT_US 10000000u
/** Frames as large as this are measured, if the last measurement began so long ago. */
#define LINK_MEASURE_BYTES 4096u
#define LINK_MEASURE_US 1000000u
/** A measurement with fewer bytes says nothing; and bounds of what one may say, bytes a second. */
#define LINK_MIN_BYTES 2048u
#define LINK_MIN_RATE 8192u
#define LINK_MAX_RATE 1000000000u
/** The client is told the result again if it has changed, and not before so long. */
#define LINK_TELL_US 10000000u

typedef struct LinkProbe {
    uint16_t sequence; /* the last number that was used */

    bool asked; /* a round trip is being measured: at most one */
    uint16_t asked_sequence;
    uint64_t asked_us, last_ask_us;
    uint64_t active_us; /* when the last picture was sent, 0: none yet */
    uint64_t bytes;     /* of pictures since the last question */

    enum { LINK_IDLE, LINK_MEASURING, LINK_MEASURED } measuring; /* start sent; stop sent, too */
    uint16_t measure_sequence;
    uint64_t measure_us, measure_mark, measure_bytes;

    uint32_t rtts[LINK_SAMPLES]; /* a ring; the last ones that counted */
    uint64_t n_rtts;
    uint32_t rates[LINK_RATES]; /* bytes a second; a ring as well */
    uint64_t n_rates;

    uint64_t told_us;
    uint32_t told_rate_bps, told_rtt_us;

    uint64_t requests, answers, strays; /* for status; strays: answers that did not count */
} LinkProbe;

/** What the client is told (2.2.14.1.5), in the units of the wire. */
typedef struct LinkResult {
    uint16_t sequence;
    uint32_t base_rtt_ms, average_rtt_ms;
    uint32_t kbit; /* a second; 0: not known */
} LinkResult;

void link_probe_init(LinkProbe *probe);
/** A picture of @bytes is sent. */
void link_probe_picture(LinkProbe *probe, size_t bytes, uint64_t now_us);
/** When link_probe_ask() will be true without another picture; UINT64_MAX: never. */
uint64_t link_probe_deadline(const LinkProbe *probe, uint64_t now_us);
/** Whether to send an RTT Measure Request now; it has to carry *@sequence. */
bool link_probe_ask(LinkProbe *probe, uint64_t now_us, uint16_t *sequence);
/** An RTT Measure Response came. False: it answers nothing, and does not count. */
bool link_probe_answered(LinkProbe *probe, uint16_t sequence, uint64_t now_us);

/** Whether to send Bandwidth Measure Start before a picture of @bytes. @mark: bytes that were given
 * to the connection so far, all kinds together. */
bool link_probe_measure(LinkProbe *probe, size_t bytes, uint64_t mark, uint64_t now_us,
                        uint16_t *sequence);
/** The picture has gone: whether to send Bandwidth Measure Stop. */
bool link_probe_measure_end(LinkProbe *probe, uint64_t mark, uint16_t *sequence);
/** Bandwidth Measure Results came: @bytes arrived within @took_ms. False: they do not count. */
bool link_probe_measured(LinkProbe *probe, uint16_t sequence, uint32_t took_ms, uint32_t bytes,
                         uint64_t now_us);
/** Whether the client is to be told, and what. To be asked after an answer has counted. */
bool link_probe_tell(LinkProbe *probe, uint64_t now_us, LinkResult *result);

/** The mean and the least of the last round trips, 0: not known. */
uint32_t link_probe_rtt(const LinkProbe *probe);
uint32_t link_probe_base_rtt(const LinkProbe *probe);
/** Bytes a second that the link carries: the median of the last measurements, 0: not known. */
uint32_t link_probe_rate(const LinkProbe *probe);

#endif
