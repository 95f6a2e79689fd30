/*
 * What a guest knows of a mass storage device's medium: the answers it got to INQUIRY and READ
 * CAPACITY, seen in passing in its Bulk-Only Transport. usb/replay.c asks the same again when the
 * device is back after its client was away; a device that answers differently is another one.
 *
 * Owner: the UsbDevice. Thread: its owner's. Knows Bulk-Only Transport (BBB 1.0) and as much of
 * SCSI as these commands take; bytes come in order from usb/device_pipe.c.
 */
#ifndef QRDP_USB_STORAGE_IDENTITY_H
#define QRDP_USB_STORAGE_IDENTITY_H

#include "usb.h"

#define STORAGE_CBW_LEN 31u
#define STORAGE_CSW_LEN 13u
#define STORAGE_MAX_ANSWERS 24u /* questions remembered: 8 logical units with 3 each */
#define STORAGE_MAX_ANSWER_BYTES 256u

#define SCSI_STATUS_GOOD 0u
#define SCSI_STATUS_FAILED 1u

/** A command block and how it ended. */
typedef struct StorageAnswer {
    uint8_t unit; /* logical */
    uint8_t block_len;
    uint8_t block[16];
    uint32_t wanted; /* bytes of data, all of these commands read */
    uint32_t length; /* bytes that came */
    uint8_t status;  /* SCSI_STATUS_* as the status word has it */
    uint8_t data[STORAGE_MAX_ANSWER_BYTES];
} StorageAnswer;

typedef struct StorageIdentity {
    StorageAnswer answers[STORAGE_MAX_ANSWERS];
    unsigned n_answers;
    /* the command at work */
    bool busy, interesting, got_data;
    uint32_t tag;
    StorageAnswer current;
} StorageIdentity;

/** Whether an OUT packet is a command block wrapper (BBB 6.2.1). */
bool storage_is_command(const uint8_t *data, size_t len);
/** The device took an OUT packet of the guest's. */
void storage_identity_out(StorageIdentity *identity, const uint8_t *data, size_t len);
/** An IN packet of the guest's has ended: data, the status word, or a stall with @len 0. */
void storage_identity_in(StorageIdentity *identity, const uint8_t *data, size_t len);
/** A reset, or an error after which nobody knows: the command at work is forgotten. */
void storage_identity_abort(StorageIdentity *identity);
/** Whether each logical unit that the guest has met was asked both questions. */
bool storage_identity_complete(const StorageIdentity *identity);

/** Writes a command block wrapper for @answer's command. */
void storage_write_command(uint8_t out[STORAGE_CBW_LEN], uint32_t tag, const StorageAnswer *answer);
/** Reads the status word of the command with @tag: its status, or -1 if it is none. */
int storage_read_status(const uint8_t *data, size_t len, uint32_t tag);

#endif
