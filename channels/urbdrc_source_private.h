/*
 * What urbdrc_source.c (requests) and urbdrc_completion.c (answers) share of a source.
 */
#ifndef QRDP_CHANNELS_URBDRC_SOURCE_PRIVATE_H
#define QRDP_CHANNELS_URBDRC_SOURCE_PRIVATE_H

#include "urbdrc_source.h"

/* The sink has requests of its own below USB_MAX_IN_FLIGHT; the rest is for the control request
 * that is out, with its barrier, whatever else is in flight. */
#define MAX_LIVE (USB_MAX_IN_FLIGHT + 2u)
#define MAX_ENTRIES (MAX_LIVE + USB_MAX_TOMBSTONES)

typedef enum EntryState {
    ENTRY_LIVE,
    ENTRY_TOMBSTONE,
} EntryState;

typedef struct Entry {
    uint32_t id; /* RequestId on the wire */
    EntryState state;
    UsbRequestKind kind;
    bool in;
    bool barrier;     /* of the CLEAR_HALT whose id is .other */
    uint32_t other;   /* the other half of a CLEAR_HALT, 0 if none */
    uint32_t length;  /* bytes asked for or sent */
    uint32_t packets; /* ISO */
    uint32_t packet_size;
    struct Select *select; /* SELECT_*, owned */
} Entry;

/* What a SELECT_* result is allowed to say. */
typedef struct Select {
    bool one_interface;   /* SELECT_INTERFACE */
    uint8_t *plain_bytes; /* the same without padding, if it has any; owned */
    size_t plain_len;
    uint8_t interface;
    uint32_t n_endpoints;
    struct {
        uint8_t interface, address;
    } endpoints[USB_MAX_INTERFACES * USB_MAX_ENDPOINTS];
} Select;

typedef struct Pipe {
    bool valid;
    uint8_t interface;
    uint32_t handle;
} Pipe;

/* A control request: its entry is made when it is sent. */
typedef struct Queued {
    Entry entry;
    uint8_t *bytes;
    size_t len;
    uint8_t *barrier_bytes;
    size_t barrier_len;
} Queued;

struct UrbdrcSource {
    UsbSource usb; /* first: the sink's users hold this */
    Dvc *dvc;      /* NULL while .gone is being called */
    const UrbdrcFlavour *flavour;
    uint32_t usb_device;         /* interface id of our requests */
    uint32_t request_completion; /* interface id the client answers on */
    uint32_t message_id;
    void (*retire)(void *user, const char *reason);
    void *user;

    Entry entries[MAX_ENTRIES]; /* tombstones in order of their death */
    uint32_t n_entries, n_tombstones;
    uint32_t highest_id; /* sent so far */
    bool ids_wrapped;
    uint32_t strays;

    Queued queue[URBDRC_MAX_QUEUED_CONTROL];
    uint32_t n_queued;
    uint32_t control_id; /* outstanding control-type request, 0 if none */

    bool configured;
    bool plain_configurations; /* the client has refused padding */
    uint32_t configuration_handle;
    Pipe pipes[32]; /* by pipe_index() */
    char error[160];
};

static inline uint32_t pipe_index(uint8_t address)
{
    return (uint32_t)(address & 0x80) >> 3 | (address & 0x0f);
}

/** The entry of @id, live or tombstone, or NULL. */
Entry *urbdrc_find_entry(UrbdrcSource *s, uint32_t id);
void urbdrc_remove_entry(UrbdrcSource *s, Entry *entry);
/** Sends the request again without padding, under its id. False if there was none. */
bool urbdrc_select_plain(UrbdrcSource *s, Entry *entry);
/** Leaves a tombstone. @entry is invalid afterwards. */
void urbdrc_bury(UrbdrcSource *s, Entry *entry);
/** The outstanding control request is over: sends the next one. */
void urbdrc_next_control(UrbdrcSource *s);
/** Whether @id was on the wire at some time. */
bool urbdrc_was_issued(const UrbdrcSource *s, uint32_t id);

#endif
