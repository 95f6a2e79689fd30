#include "storage_identity.h"

#include <string.h>

#include "bytes.h"

#define CBW_SIGNATURE 0x43425355u
#define CSW_SIGNATURE 0x53425355u
#define CBW_FLAG_IN 0x80u
#define CSW_PHASE_ERROR 2u

#define SCSI_INQUIRY 0x12u
#define SCSI_INQUIRY_EVPD 0x01u
#define SCSI_READ_CAPACITY_10 0x25u
#define SCSI_SERVICE_ACTION_IN_16 0x9eu
#define SCSI_READ_CAPACITY_16 0x10u /* service action */
#define SCSI_SERVICE_ACTION_MASK 0x1fu

bool storage_is_command(const uint8_t *data, size_t len)
{
    Reader r;

    reader_init(&r, data, len);
    return len == STORAGE_CBW_LEN && reader_u32(&r) == CBW_SIGNATURE;
}

static bool is_inquiry(const StorageAnswer *a)
{
    return a->block[0] == SCSI_INQUIRY && !(a->block[1] & SCSI_INQUIRY_EVPD);
}

static bool is_capacity(const StorageAnswer *a)
{
    return a->block[0] == SCSI_READ_CAPACITY_10 ||
           (a->block[0] == SCSI_SERVICE_ACTION_IN_16 &&
            (a->block[1] & SCSI_SERVICE_ACTION_MASK) == SCSI_READ_CAPACITY_16);
}

void storage_identity_abort(StorageIdentity *identity)
{
    identity->busy = identity->interesting = false;
}

void storage_identity_out(StorageIdentity *identity, const uint8_t *data, size_t len)
{
    StorageAnswer *a = &identity->current;
    Reader r;

    if (!storage_is_command(data, len))
        return; /* data of the command at work */
    *a = (StorageAnswer){0};
    reader_init(&r, data, len);
    reader_skip(&r, 4);
    identity->tag = reader_u32(&r);
    a->wanted = reader_u32(&r);
    bool in = (reader_u8(&r) & CBW_FLAG_IN) != 0;
    a->unit = reader_u8(&r) & 0x0f;
    a->block_len = reader_u8(&r) & 0x1f;
    memcpy(a->block, reader_bytes(&r, sizeof(a->block)), sizeof(a->block));
    identity->busy = true;
    identity->got_data = false;
    identity->interesting = in && a->wanted > 0 && a->wanted <= sizeof(a->data) &&
                            a->block_len <= sizeof(a->block) && (is_inquiry(a) || is_capacity(a));
}

/* The latest answer to a question counts: a medium may have been exchanged in the meantime, which
 * the guest has noticed, or it would not have asked again. */
static void remember(StorageIdentity *identity)
{
    const StorageAnswer *a = &identity->current;

    for (unsigned i = 0; i < identity->n_answers; i++) {
        StorageAnswer *old = &identity->answers[i];
        bool same = old->unit == a->unit && old->block[0] == a->block[0] &&
                    is_inquiry(old) == is_inquiry(a);
        if (same) {
            *old = *a;
            return;
        }
    }
    if (identity->n_answers < STORAGE_MAX_ANSWERS)
        identity->answers[identity->n_answers++] = *a;
}

void storage_identity_in(StorageIdentity *identity, const uint8_t *data, size_t len)
{
    StorageAnswer *a = &identity->current;
    int status;

    if (!identity->interesting)
        return;
    if (!identity->got_data && len > 0 && storage_read_status(data, len, identity->tag) < 0) {
        identity->got_data = true;
        a->length = (uint32_t)len;
        if (len > a->wanted) /* nobody was asked that */
            storage_identity_abort(identity);
        else
            memcpy(a->data, data, len);
        return;
    }
    if (len == 0) /* the data stage stalls, and so may the status word the first time */
        return;
    status = storage_read_status(data, len, identity->tag);
    if (status == (int)SCSI_STATUS_GOOD || status == (int)SCSI_STATUS_FAILED) {
        a->status = (uint8_t)status;
        remember(identity);
    }
    storage_identity_abort(identity);
}

bool storage_identity_complete(const StorageIdentity *identity)
{
    bool any = false;

    for (unsigned i = 0; i < identity->n_answers; i++) {
        bool inquiry = is_inquiry(&identity->answers[i]), other = false;

        for (unsigned k = 0; k < identity->n_answers; k++)
            other |= identity->answers[k].unit == identity->answers[i].unit &&
                     is_inquiry(&identity->answers[k]) != inquiry;
        if (!other)
            return false;
        any |=
            is_capacity(&identity->answers[i]) && identity->answers[i].status == SCSI_STATUS_GOOD;
    }
    return any;
}

void storage_write_command(uint8_t out[STORAGE_CBW_LEN], uint32_t tag, const StorageAnswer *answer)
{
    Writer w;

    writer_init(&w, STORAGE_CBW_LEN);
    writer_u32(&w, CBW_SIGNATURE);
    writer_u32(&w, tag);
    writer_u32(&w, answer->wanted);
    writer_u8(&w, CBW_FLAG_IN);
    writer_u8(&w, answer->unit);
    writer_u8(&w, answer->block_len);
    writer_bytes(&w, answer->block, sizeof(answer->block));
    if (writer_ok(&w))
        memcpy(out, w.data, STORAGE_CBW_LEN);
    writer_clear(&w);
}

int storage_read_status(const uint8_t *data, size_t len, uint32_t tag)
{
    Reader r;

    reader_init(&r, data, len);
    if (len != STORAGE_CSW_LEN || reader_u32(&r) != CSW_SIGNATURE || reader_u32(&r) != tag)
        return -1;
    reader_skip(&r, 4);
    uint8_t status = reader_u8(&r);
    return status < CSW_PHASE_ERROR ? status : (int)CSW_PHASE_ERROR;
}
