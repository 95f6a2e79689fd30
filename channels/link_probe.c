/*
 * Theory of operation. Acknowledgements of frames tell when a client has decoded something, which
 * is the network's time and the client's together, and some clients give none. RTT Measure Requests
 * are answered by the client's network code alone.
 *
 * Every request has a number of our own, one counter for both kinds, and only the answer to the one
 * that is out counts: FreeRDP's library keeps one time for all, so that overlapping requests give
 * nonsense (rdp-server.md 16). A request never expires: TCP loses nothing, so a client that does
 * not answer does not know the PDU, and is not asked again.
 *
 * Questions are asked only while pictures are sent, because only then anybody needs to know, and an
 * idle console must cost nothing: four one after the other, then twice a second while much is sent,
 * and every ten seconds with a cursor that blinks. What is used is the least of the last sixteen
 * round trips: the others contain what was queued in front of the question, and often that was
 * ours.
 *
 * Bandwidth is measured by what is sent anyway: Start, a large frame, Stop, all in one stream, and
 * the client says how long it was from one to the other and how many bytes were between. How fast
 * the frame was handed to the kernel does not matter if the link is slower, which is the case that
 * counts. Neither number is trusted: no more bytes than we sent, and no more time than passed here.
 * A client that was busy reads everything at once and reports a link that it does not have: the
 * median of the last five is what counts.
 */
#include "link_probe.h"

#include <string.h>

void link_probe_init(LinkProbe *probe)
{
    memset(probe, 0, sizeof(*probe));
}

void link_probe_picture(LinkProbe *probe, size_t bytes, uint64_t now_us)
{
    probe->active_us = now_us;
    probe->bytes += bytes;
}

uint64_t link_probe_deadline(const LinkProbe *probe, uint64_t now_us)
{
    uint64_t due = probe->active_us, quiet = probe->active_us + LINK_QUIET_US;

    if (probe->asked || probe->active_us == 0 || now_us >= quiet)
        return UINT64_MAX;
    if (probe->n_rtts >= LINK_FIRST)
        due = probe->last_ask_us +
              (probe->bytes >= LINK_MUCH_BYTES ? LINK_ASK_US : LINK_ASK_SELDOM_US);
    return due < quiet ? due : UINT64_MAX;
}

bool link_probe_ask(LinkProbe *probe, uint64_t now_us, uint16_t *sequence)
{
    if (link_probe_deadline(probe, now_us) > now_us)
        return false;
    probe->asked = true;
    probe->asked_sequence = *sequence = ++probe->sequence;
    probe->asked_us = probe->last_ask_us = now_us;
    probe->bytes = 0;
    probe->requests++;
    return true;
}

bool link_probe_answered(LinkProbe *probe, uint16_t sequence, uint64_t now_us)
{
    uint64_t rtt = now_us - probe->asked_us;

    if (!probe->asked || sequence != probe->asked_sequence) {
        probe->strays++;
        return false;
    }
    probe->asked = false;
    probe->answers++;
    if (rtt > LINK_MAX_RTT_US)
        return false;
    probe->rtts[probe->n_rtts++ % LINK_SAMPLES] = rtt ? (uint32_t)rtt : 1;
    return true;
}

bool link_probe_measure(LinkProbe *probe, size_t bytes, uint64_t mark, uint64_t now_us,
                        uint16_t *sequence)
{
    if (probe->measuring != LINK_IDLE || bytes < LINK_MEASURE_BYTES ||
        (probe->measure_us && now_us < probe->measure_us + LINK_MEASURE_US))
        return false;
    probe->measuring = LINK_MEASURING;
    probe->measure_sequence = *sequence = ++probe->sequence;
    probe->measure_us = now_us;
    probe->measure_mark = mark;
    return true;
}

bool link_probe_measure_end(LinkProbe *probe, uint64_t mark, uint16_t *sequence)
{
    if (probe->measuring != LINK_MEASURING)
        return false;
    probe->measuring = LINK_MEASURED;
    probe->measure_bytes = mark - probe->measure_mark;
    *sequence = probe->measure_sequence;
    return true;
}

bool link_probe_measured(LinkProbe *probe, uint16_t sequence, uint32_t took_ms, uint32_t bytes,
                         uint64_t now_us)
{
    uint64_t passed_ms = (now_us - probe->measure_us) / 1000;

    if (probe->measuring != LINK_MEASURED || sequence != probe->measure_sequence) {
        probe->strays++;
        return false;
    }
    probe->measuring = LINK_IDLE;
    if (bytes < LINK_MIN_BYTES || bytes > probe->measure_bytes || took_ms > passed_ms + 1) {
        probe->strays++;
        return false;
    }
    uint64_t rate = (uint64_t)bytes * 1000 / (took_ms ? took_ms : 1);
    if (rate < LINK_MIN_RATE)
        rate = LINK_MIN_RATE;
    if (rate > LINK_MAX_RATE)
        rate = LINK_MAX_RATE;
    probe->rates[probe->n_rates++ % LINK_RATES] = (uint32_t)rate;
    return true;
}

static bool differs(uint64_t a, uint64_t b, uint64_t least)
{
    uint64_t larger = a > b ? a : b, smaller = a > b ? b : a;

    return larger - smaller > larger / 3 && larger - smaller >= least;
}

bool link_probe_tell(LinkProbe *probe, uint64_t now_us, LinkResult *result)
{
    uint32_t rtt = link_probe_rtt(probe), rate = link_probe_rate(probe);

    if (probe->n_rtts < LINK_FIRST || (probe->told_us && now_us < probe->told_us + LINK_TELL_US))
        return false;
    if (probe->told_us && !differs(rtt, probe->told_rtt_us, 2000) &&
        !differs(rate, probe->told_rate_bps, 1))
        return false;
    probe->told_us = now_us;
    probe->told_rtt_us = rtt;
    probe->told_rate_bps = rate;
    *result = (LinkResult){.sequence = ++probe->sequence,
                           .base_rtt_ms = link_probe_base_rtt(probe) / 1000,
                           .average_rtt_ms = rtt / 1000,
                           .kbit = (uint32_t)((uint64_t)rate * 8 / 1000)};
    return true;
}

static unsigned known(const LinkProbe *probe)
{
    return probe->n_rtts < LINK_SAMPLES ? (unsigned)probe->n_rtts : LINK_SAMPLES;
}

uint32_t link_probe_rate(const LinkProbe *probe)
{
    unsigned n = probe->n_rates < LINK_RATES ? (unsigned)probe->n_rates : LINK_RATES;

    for (unsigned i = 0; i < n; i++) {
        unsigned below = 0, equal = 0;
        for (unsigned j = 0; j < n; j++) {
            below += probe->rates[j] < probe->rates[i];
            equal += probe->rates[j] == probe->rates[i];
        }
        if (below <= (n - 1) / 2 && (n - 1) / 2 < below + equal)
            return probe->rates[i];
    }
    return 0;
}

uint32_t link_probe_rtt(const LinkProbe *probe)
{
    uint64_t sum = 0;
    unsigned n = known(probe);

    for (unsigned i = 0; i < n; i++)
        sum += probe->rtts[i];
    return n ? (uint32_t)(sum / n) : 0;
}

uint32_t link_probe_base_rtt(const LinkProbe *probe)
{
    uint32_t least = 0;

    for (unsigned i = 0; i < known(probe); i++) {
        if (least == 0 || probe->rtts[i] < least)
            least = probe->rtts[i];
    }
    return least;
}
