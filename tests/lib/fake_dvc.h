/*
 * dvc.h without FreeRDP: a test plays the client.
 *
 * Channels are numbered in the order of dvc_open(). A channel's record outlives the channel, so a
 * test can look at one that was closed, and use of a closed Dvc by the code under test asserts.
 */
#ifndef QRDP_TESTS_FAKE_DVC_H
#define QRDP_TESTS_FAKE_DVC_H

#include "dvc.h"

DvcManager *fake_dvc_manager_new(void);
void fake_dvc_manager_free(DvcManager *manager);
/** From now on dvc_open() returns NULL. */
void fake_dvc_refuse_opens(DvcManager *manager);
/** Channels opened so far, closed ones included. */
size_t fake_dvc_count(const DvcManager *manager);
Dvc *fake_dvc_nth(const DvcManager *manager, size_t n);
const char *fake_dvc_name(const Dvc *dvc);
DvcPriority fake_dvc_priority(const Dvc *dvc);

/* What the client does. */
void fake_dvc_accept(Dvc *dvc);
/** The channel ends for @reason, as seen from the client's side. */
void fake_dvc_end(Dvc *dvc, DvcCloseReason reason);
/** A message arrives; one over max_message ends the channel as dvc.h says. Dropped if the channel
 * is not open. */
void fake_dvc_receive(Dvc *dvc, const void *data, size_t len);
/** The oldest message the server sent and nobody took, to be freed with free(); NULL if none. */
uint8_t *fake_dvc_take(Dvc *dvc, size_t *len);
/** What dvc_manager_limit_bulk() was last called with. */
size_t fake_dvc_bulk_limit(const DvcManager *manager);
/** Messages not taken yet. */
size_t fake_dvc_pending(const Dvc *dvc);
/** Whether the server called dvc_close(). */
bool fake_dvc_closed_by_server(const Dvc *dvc);
/** Whether the channel is gone for whatever reason. */
bool fake_dvc_dead(const Dvc *dvc);

/** Sets what dvc_manager_queued() answers; calls the drained listener when it falls to low water.
 */
void fake_dvc_set_queued(DvcManager *manager, DvcPriority priority, size_t bytes);

#endif
