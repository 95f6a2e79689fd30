/*
 * Dynamic virtual channels of one client, without a FreeRDP type in sight.
 *
 * dvc.c implements this over FreeRDP's WTS API (see dvc_freerdp.h for the part that needs it);
 * tests and fuzzers link tests/lib/fake_dvc.c instead.
 *
 * Owner: the Peer owns the DvcManager, each channel module owns its Dvcs. Thread: the peer's.
 * Lifetime: dvc_close() may be called at any time, also from inside a callback of the same Dvc;
 * no callback follows it and the pointer is dead for the caller.
 *
 * Order on the wire: FreeRDP has one FIFO for all channels, so priority is applied before it.
 * What an urgent Dvc sends is handed to FreeRDP at once; what a bulk Dvc sends waits in an outbox
 * and is released in slices of at most DVC_SLICE bytes, only when FreeRDP's own queue and socket
 * buffer have drained.
 */
#ifndef QRDP_CHANNELS_DVC_H
#define QRDP_CHANNELS_DVC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Largest run of bulk bytes handed to FreeRDP between two looks at the urgent channels. */
#define DVC_SLICE (64u * 1024u)
/** Most DVCs ever opened in one connection: FreeRDP never reuses ids and 3.30+ asserts at 65536. */
#define DVC_MAX_OPENS 4096u

typedef struct DvcManager DvcManager;
typedef struct Dvc Dvc;

typedef enum DvcPriority {
    DVC_URGENT, /* USB, input, display control, acknowledgements */
    DVC_BULK,   /* graphics */
} DvcPriority;

typedef enum DvcCloseReason {
    DVC_CLOSED_REFUSED,   /* the client has no listener of that name */
    DVC_CLOSED_BY_CLIENT, /* it was open and the client closed it */
    DVC_CLOSED_OVERSIZE,  /* a message exceeded max_message */
    DVC_CLOSED_LOST,      /* the connection is going away */
} DvcCloseReason;

typedef struct DvcCallbacks {
    /** The client accepted the channel; dvc_send() works from here on. */
    void (*opened)(Dvc *dvc, void *user);
    /** One whole reassembled message, valid for the call. Zero-length messages are not delivered.
     */
    void (*message)(Dvc *dvc, const uint8_t *data, size_t len, void *user);
    /** The channel is gone. The Dvc is freed after this returns; do not call dvc_close(). */
    void (*closed)(Dvc *dvc, DvcCloseReason reason, void *user);
} DvcCallbacks;

/**
 * Asks the client to open a channel called @name ("URBDRC", "Microsoft::Windows::RDS::Graphics").
 * @max_message: largest message accepted from the client, in bytes; a longer one closes the channel
 * before memory is spent. @callbacks is borrowed and must outlive the Dvc.
 * Returns NULL when drdynvc is not ready or DVC_MAX_OPENS is reached.
 */
Dvc *dvc_open(DvcManager *manager, const char *name, size_t max_message, DvcPriority priority,
              const DvcCallbacks *callbacks, void *user);
/** Sends one message of @len bytes (copied). False if the channel is not open. */
bool dvc_send(Dvc *dvc, const uint8_t *data, size_t len);
/** Whose bytes they are: a reference count that any thread may change. */
typedef struct DvcOwner {
    void *owner;
    void (*ref)(void *owner);
    void (*unref)(void *owner);
} DvcOwner;
/** As dvc_send(), but what has to wait is not copied: @owner is held until it has been sent. NULL:
 * it is copied. */
bool dvc_send_held(Dvc *dvc, const uint8_t *data, size_t len, const DvcOwner *owner);
/** Closes and frees. NULL is accepted. */
void dvc_close(Dvc *dvc);
bool dvc_is_open(const Dvc *dvc);
/** Id on the wire, for log lines. */
uint32_t dvc_id(const Dvc *dvc);

/** Writes urgent messages to the client's socket now, and not in the loop's next pass; what it does
 * not take follows then. Not from inside a callback of a Dvc or of FreeRDP. */
void dvc_manager_flush(DvcManager *manager);
/** Bytes accepted by dvc_send() of all channels of that priority and not yet written to the
 * client's socket. */
size_t dvc_manager_queued(const DvcManager *manager, DvcPriority priority);
/** From now on at most @bytes more of bulk messages wait than do now; dvc_send() refuses others. */
void dvc_manager_limit_bulk(DvcManager *manager, size_t bytes);
/** @drained is called whenever the queue of @priority fell to at most @low_water bytes after having
 * been above it. One listener per priority. */
void dvc_manager_on_drained(DvcManager *manager, DvcPriority priority, size_t low_water,
                            void (*drained)(void *user), void *user);

#endif
