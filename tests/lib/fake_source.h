/*
 * An emulated USB device behind a UsbSource, for tests: a memory stick that speaks Bulk-Only
 * Transport strictly, a keyboard, a headset whose streams only wait for the test, or just a place
 * where requests wait for the test.
 *
 * It keeps submitted requests in order and does nothing until fake_source_run() is called, so a
 * test decides what overlaps. What a correct peer never does (a request before
 * SELECT_CONFIGURATION, a wrong CBW, an endpoint that is not there, a reused id) is counted in
 * .violations.
 */
#ifndef QRDP_TESTS_FAKE_SOURCE_H
#define QRDP_TESTS_FAKE_SOURCE_H

#include "usb.h"

#define FAKE_BLOCK 512u
#define FAKE_BLOCKS 4096u
#define FAKE_MAX_PENDING 1024u

typedef enum FakeKind {
    FAKE_STICK,
    FAKE_KEYBOARD,
    FAKE_HEADSET, /* interface 1, setting 1: iso OUT 0x03; interface 2, setting 1: iso IN 0x84 */
} FakeKind;

typedef enum FakeCancel {
    FAKE_CANCEL_LATE,   /* a completion with status cancelled comes with the next run */
    FAKE_CANCEL_SILENT, /* none ever comes */
    FAKE_CANCEL_DEAF,   /* the request goes on as if nothing had been said */
} FakeCancel;

typedef struct FakeRequest {
    UsbRequest request; /* .data is ours */
    uint8_t *data;
    UsbIsoPacket packets[USB_ISO_MAX_PACKETS_PER_URB];
    bool cancelled;
    bool unwanted; /* as .cancelled, but it goes on (FAKE_CANCEL_DEAF) */
} FakeRequest;

typedef enum FakePhase {
    FAKE_CBW,
    FAKE_DATA_IN,
    FAKE_DATA_OUT,
    FAKE_CSW,
    FAKE_PHASE_ERROR, /* wants reset recovery */
} FakePhase;

typedef struct FakeSource {
    UsbSource base;
    FakeKind kind;
    UsbSpeed speed;
    FakeCancel cancel_mode;
    bool hold;           /* run() does nothing */
    bool refuse;         /* submit() refuses */
    bool mute_control;   /* control requests are never answered */
    bool fail_select;    /* SELECT_* end in an I/O error */
    bool no_bos;         /* BOS and strings stall */
    unsigned stall_in;   /* so many bulk or interrupt IN requests stall */
    bool in_doubt;       /* a SELECT_* was cancelled: who can say what is selected now */
    unsigned violations; /* see above */
    char violation[160]; /* the last one */
    unsigned submitted, cancels, retired, selects, clear_halts, bulk_resets, port_resets, commands;
    uint8_t selected; /* configuration value */
    uint8_t alt[4];

    FakeRequest pending[FAKE_MAX_PENDING];
    unsigned n_pending;

    uint8_t device_raw[18];
    uint8_t config_raw[512];
    uint16_t config_len;
    uint8_t bos_raw[64];
    uint16_t bos_len;

    /* the stick */
    FakePhase phase;
    bool halted_in, halted_out;
    uint8_t *disk;
    uint8_t reply[64];
    const uint8_t *data;
    uint32_t data_len, data_pos, residue, tag;
    uint8_t *write_to;
    uint8_t csw_status;
    uint32_t blocks;   /* what READ CAPACITY says */
    char name[17];     /* what INQUIRY says */
    uint8_t attention; /* UNIT ATTENTION with this additional code fails the next command */
    uint8_t qualifier; /* of the attention and of .sense */
    uint8_t sense;     /* additional code for REQUEST SENSE, 0 for no sense */
    bool no_medium;    /* READ CAPACITY fails */
    unsigned writes;   /* WRITE commands begun */

    /* the keyboard */
    uint8_t reports[64][8];
    unsigned n_reports;
    uint8_t leds;
} FakeSource;

FakeSource *fake_source_new(FakeKind kind, UsbSpeed speed);
void fake_source_free(FakeSource *f);
/** Carries out what can be carried out, in order. Returns how many completions it gave. */
unsigned fake_source_run(FakeSource *f);
/** Ends the pending request @index the way the test wants. */
void fake_source_complete(FakeSource *f, unsigned index, UsbStatus status, const void *data,
                          uint32_t length, bool retry_in);
/** Ends the pending isochronous request @index; @data holds the successful packets of an IN. */
void fake_source_complete_iso(FakeSource *f, unsigned index, const UsbIsoPacket *packets,
                              uint32_t n, const void *data);
/** A completion for an id out of the blue. */
void fake_source_stray(FakeSource *f, uint32_t id);
/** Index of the first pending request that is on @endpoint and not cancelled, -1 for none. */
int fake_source_find(const FakeSource *f, uint8_t endpoint);
unsigned fake_source_count(const FakeSource *f, uint8_t endpoint);
/** Unplugs it: .gone is called on the sink and nothing is accepted afterwards. */
void fake_source_unplug(FakeSource *f);
void fake_source_key(FakeSource *f, uint8_t code);
/** The descriptors as the probe would find them. */
UsbDescriptors *fake_source_descriptors(FakeSource *f);

#endif
