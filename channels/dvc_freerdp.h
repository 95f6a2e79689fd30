/*
 * The part of dvc.h that needs FreeRDP: making the manager of one peer and driving it from the
 * peer's loop. Owner and thread: the Peer.
 *
 * opened, message and closed are delivered from inside peer->CheckFileDescriptor (the guard sits in
 * peer->ReceiveChannelData), so the Peer must not free itself in them. The manager uses
 * peer->ContextExtra. Free it before the peer's context.
 */
#ifndef QRDP_CHANNELS_DVC_FREERDP_H
#define QRDP_CHANNELS_DVC_FREERDP_H

#include <freerdp/freerdp.h>
#include <freerdp/peer.h>
#include <winpr/wtypes.h>

#include "dvc.h"

/** Opens the virtual channel manager of @peer (WTSOpenServer; serialised between peers here) and
 * installs the guard in front of peer->ReceiveChannelData that bounds static and drdynvc messages
 * before FreeRDP allocates for them (design 5). NULL on failure. @violation is called (peer's
 * thread) when the client breaks those bounds; the Peer must end the connection. While @deaf says
 * so, what the client has sent may wait. */
DvcManager *dvc_manager_new(freerdp_peer *peer, void (*violation)(void *user, const char *why),
                            bool (*deaf)(void *user), void *user);
/** Closes every channel (closed is called with DVC_CLOSED_LOST) and the WTS server. */
void dvc_manager_free(DvcManager *manager);
/** Whether more has been read than handled: CheckFileDescriptor is to be called without waiting for
 * the socket, once the peer is not deaf. */
bool dvc_manager_holds_input(const DvcManager *manager);
/** PDUs that were received so far, of all channels. */
uint64_t dvc_manager_received(const DvcManager *manager);
/** The handle to wait for besides the peer's own. */
HANDLE dvc_manager_handle(const DvcManager *manager);
/** To be called after each wake-up once the peer is activated and drdynvc is joined: pumps
 * FreeRDP's queue and releases at most one bulk slice. False: the connection is broken. */
bool dvc_manager_dispatch(DvcManager *manager);
/** drdynvc finished its capability exchange: dvc_open() works. */
bool dvc_manager_ready(const DvcManager *manager);
/** True while PDUs wait for dvc_manager_dispatch() and for nothing else. */
bool dvc_manager_has_pdus(const DvcManager *manager);
/** True while a bulk outbox waits for FreeRDP's queue or socket to drain: the loop must come back
 * when the socket becomes writable. */
bool dvc_manager_has_outbox(const DvcManager *manager);

#endif
