/*
 * The disk behind a stick: SCSI commands on an image file.
 *
 * Owner: the stick. Thread: any, with the bus lock held. Lifetime: scsi_new() to scsi_free().
 */
#ifndef QRDP_TESTS_STANDIN_SCSI_H
#define QRDP_TESTS_STANDIN_SCSI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Scsi Scsi;

typedef enum ScsiDirection { SCSI_NONE, SCSI_TO_HOST, SCSI_FROM_HOST } ScsiDirection;

/* What a command will move: @ok is false if it failed already (sense is set, nothing moves). */
typedef struct ScsiPlan {
    bool ok;
    ScsiDirection direction;
    uint64_t length;
} ScsiPlan;

/** A disk on the file @image, which is opened for writing unless @readonly; NULL, with the reason
 * in @err, if it cannot be used. */
Scsi *scsi_new(const char *image, bool readonly, const char *serial, char *err, size_t errsize);
void scsi_free(Scsi *s);
/** Power on or reset: the next command finds a unit attention. */
void scsi_reset(Scsi *s);
ScsiPlan scsi_command(Scsi *s, const uint8_t *cdb, unsigned len);
/** Moves data of the current command, in order. */
void scsi_read(Scsi *s, uint8_t *buf, size_t n);
void scsi_write(Scsi *s, const uint8_t *data, size_t n);
/** The device gives the current command up: the host is told to repeat it. */
void scsi_abort(Scsi *s);
/** True if all went well with the data that was moved. */
bool scsi_finish(Scsi *s);

#endif
