/*
 * Network auto-detection with one client (MS-RDPBCGR 1.3.8): LinkProbe's questions and answers over
 * FreeRDP.
 *
 * Owner: PeerDisplay. Thread: the peer's. Lifetime: peer_link_free() before the FreeRDP context
 * goes.
 */
#ifndef QRDP_PEER_LINK_H
#define QRDP_PEER_LINK_H

#include <freerdp/freerdp.h>

#include "link_probe.h"

typedef struct PeerLink PeerLink;

/** Settings are negotiated. @changed: an answer has come that counts. */
PeerLink *peer_link_new(rdpContext *context, void (*changed)(void *user), void *user);
void peer_link_free(PeerLink *link);
/** Before FreeRDP negotiates: nothing is measured while the client connects, because some clients
 * never answer then. */
void peer_link_prepare(rdpContext *context);
/** A picture of @bytes is about to be handed to FreeRDP or the channels. */
void peer_link_sending(PeerLink *link, size_t bytes);
/** Nothing of a picture waits in the channels any more. */
void peer_link_sent(PeerLink *link);
/** When peer_link_tick() is due (monotonic), INT64_MAX: it is not. */
int64_t peer_link_due(const PeerLink *link);
/** Asks, if that is due. */
void peer_link_tick(PeerLink *link);
const LinkProbe *peer_link_probe(const PeerLink *link);

/** For `qrdp status`. */
typedef struct PeerLinkStatus {
    bool detects;                 /* the client takes part */
    uint32_t rtt_us, base_rtt_us; /* mean and least of the last round trips, 0: not known */
    uint64_t rate_bps;            /* bytes a second, 0: not known */
    uint64_t probes, answers, strays;
} PeerLinkStatus;
PeerLinkStatus peer_link_status(const PeerLink *link);

#endif
