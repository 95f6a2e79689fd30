/*
 * A redirected device as a UsbSource: UsbRequests become TS_URBs on its DVC, completions become
 * UsbCompletions.
 *
 * Owner: the device channel of urbdrc.c. Thread: the peer's. Lifetime: from ADD_DEVICE until
 * urbdrc_source_free(), which calls .gone on the sink first. It borrows the Dvc.
 */
#ifndef QRDP_CHANNELS_URBDRC_SOURCE_H
#define QRDP_CHANNELS_URBDRC_SOURCE_H

#include "dvc.h"
#include "urbdrc_flavour.h"

#define URBDRC_MAX_QUEUED_CONTROL 64u /* control requests waiting for their turn */
/* Completions for requests that are long over; more of them than a client can owe us is flooding.
 */
#define URBDRC_MAX_STRAYS 1024u

typedef struct UrbdrcSource UrbdrcSource;

/** @label is copied into UsbSource.label. @retire is called for UsbSourceOps.retire; it may not
 * free the source. Sends REGISTER_REQUEST_CALLBACK. */
UrbdrcSource *urbdrc_source_new(Dvc *dvc, const UrbdrcAddDevice *add_device,
                                const UrbdrcFlavour *flavour, const char *label,
                                void (*retire)(void *user, const char *reason), void *user);
/** Ends it: .gone(@why) on the sink, then freed. NULL is accepted. */
void urbdrc_source_free(UrbdrcSource *source, const char *why);
UsbSource *urbdrc_source_usb(UrbdrcSource *source);
const UrbdrcFlavour *urbdrc_source_flavour(const UrbdrcSource *source);
/** Takes one of the three completions. Returns NULL, or what the client did wrong: the caller then
 * closes the channel. The text is valid until the source is used again. */
const char *urbdrc_source_completion(UrbdrcSource *source, const UrbdrcMessage *message);
/** Tells the client that we do not want the device (RETRACT_DEVICE). */
void urbdrc_source_retract(UrbdrcSource *source);

#endif
