/*
 * Theory of operation. FreeRDP writes and reads the PDUs (2.2.14); which numbers they carry and
 * which answers count is LinkProbe's. They travel on the message channel, past the dynamic
 * channels' queue: so Start goes before a picture is queued, and Stop when the picture has left
 * that queue. Requests are not made while FreeRDP's output buffer is not empty: they would measure
 * that.
 *
 * If FreeRDP cannot write, the connection is broken, and the next dispatch finds that.
 */
#include "peer_link.h"

#include <freerdp/autodetect.h>
#include <freerdp/peer.h>
#include <glib.h>

#define POLL_US 8000 /* the socket is looked at so often while a question waits for it */

struct PeerLink {
    rdpContext *context;
    rdpAutoDetect *detect; /* NULL: the client does not take part */
    LinkProbe probe;
    void (*changed)(void *user);
    void *user;
};

static uint64_t now_us(void)
{
    return (uint64_t)g_get_monotonic_time();
}

static PeerLink *link_of(const rdpAutoDetect *detect)
{
    return detect->custom;
}

static void tell(PeerLink *link)
{
    LinkResult r;

    if (link_probe_tell(&link->probe, now_us(), &r)) {
        rdpNetworkCharacteristicsResult result = {
            .type = r.kbit ? RDP_NETCHAR_RESULT_TYPE_BASE_RTT_BW_AVG_RTT
                           : RDP_NETCHAR_RESULT_TYPE_BASE_RTT_AVG_RTT,
            .baseRTT = r.base_rtt_ms,
            .averageRTT = r.average_rtt_ms,
            .bandwidth = r.kbit,
        };
        link->detect->NetworkCharacteristicsResult(link->detect, RDP_TRANSPORT_TCP, r.sequence,
                                                   &result);
    }
    link->changed(link->user);
}

static BOOL on_rtt(rdpAutoDetect *detect, RDP_TRANSPORT_TYPE transport, UINT16 sequence)
{
    PeerLink *link = link_of(detect);

    if (link && link_probe_answered(&link->probe, sequence, now_us()))
        tell(link);
    return TRUE;
}

static BOOL on_bandwidth(rdpAutoDetect *detect, RDP_TRANSPORT_TYPE transport, UINT16 sequence,
                         UINT16 type, UINT32 took_ms, UINT32 bytes)
{
    PeerLink *link = link_of(detect);

    if (link && link_probe_measured(&link->probe, sequence, took_ms, bytes, now_us()))
        tell(link);
    return TRUE;
}

static FREERDP_AUTODETECT_STATE on_connect_time(rdpAutoDetect *detect)
{
    return FREERDP_AUTODETECT_STATE_COMPLETE;
}

void peer_link_prepare(rdpContext *context)
{
    context->autodetect->OnConnectTimeAutoDetectBegin = on_connect_time;
}

PeerLink *peer_link_new(rdpContext *context, void (*changed)(void *user), void *user)
{
    PeerLink *link = g_new0(PeerLink, 1);

    link->context = context;
    link->changed = changed;
    link->user = user;
    link_probe_init(&link->probe);
    if (!freerdp_settings_get_bool(context->settings, FreeRDP_NetworkAutoDetect))
        return link;
    link->detect = context->autodetect;
    link->detect->custom = link;
    link->detect->RTTMeasureResponse = on_rtt;
    link->detect->BandwidthMeasureResults = on_bandwidth;
    return link;
}

void peer_link_free(PeerLink *link)
{
    if (link && link->detect)
        link->detect->custom = NULL;
    g_free(link);
}

static uint64_t bytes_written(const PeerLink *link)
{
    UINT64 sent = 0;

    freerdp_get_stats(link->context->rdp, NULL, &sent, NULL, NULL);
    return sent;
}

void peer_link_sending(PeerLink *link, size_t bytes)
{
    uint16_t sequence;

    if (!link->detect)
        return;
    link_probe_picture(&link->probe, bytes, now_us());
    if (link_probe_measure(&link->probe, bytes, bytes_written(link), now_us(), &sequence))
        link->detect->BandwidthMeasureStart(link->detect, RDP_TRANSPORT_TCP, sequence);
}

void peer_link_sent(PeerLink *link)
{
    uint16_t sequence;

    if (link_probe_measure_end(&link->probe, bytes_written(link), &sequence))
        link->detect->BandwidthMeasureStop(link->detect, RDP_TRANSPORT_TCP, sequence, 0);
}

static bool is_blocked(const PeerLink *link)
{
    freerdp_peer *peer = link->context->peer;

    return peer->IsWriteBlocked(peer);
}

int64_t peer_link_due(const PeerLink *link)
{
    uint64_t now = now_us(), due = link_probe_deadline(&link->probe, now);

    if (due > (uint64_t)INT64_MAX)
        return INT64_MAX;
    return (int64_t)(is_blocked(link) ? MAX(due, now + POLL_US) : due);
}

void peer_link_tick(PeerLink *link)
{
    uint16_t sequence;

    if (!is_blocked(link) && link_probe_ask(&link->probe, now_us(), &sequence))
        link->detect->RTTMeasureRequest(link->detect, RDP_TRANSPORT_TCP, sequence);
}

const LinkProbe *peer_link_probe(const PeerLink *link)
{
    return &link->probe;
}

PeerLinkStatus peer_link_status(const PeerLink *link)
{
    return (PeerLinkStatus){
        .detects = link->detect != NULL,
        .rtt_us = link_probe_rtt(&link->probe),
        .base_rtt_us = link_probe_base_rtt(&link->probe),
        .rate_bps = link_probe_rate(&link->probe),
        .probes = link->probe.requests,
        .answers = link->probe.answers,
        .strays = link->probe.strays,
    };
}
