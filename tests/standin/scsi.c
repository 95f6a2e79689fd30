/*
 * SCSI block commands (SPC-4, SBC-3) as a small removable disk understands them.
 *
 * scsi_command() decides everything that can be decided from the command block: what moves, or why
 * not. Data then streams straight between the transfer's buffer and the file. What the host sends
 * is in the file at once; SYNCHRONIZE CACHE and FUA flush it to the disk.
 */
#include "scsi.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK 512u

/* Sense: key << 16 | additional code << 8 | qualifier. */
enum {
    NO_SENSE = 0,
    NO_MEDIUM = 0x023a00,
    MEDIUM_ERROR = 0x031100,
    WRITE_ERROR = 0x030c00,
    INVALID_OPCODE = 0x052000,
    LBA_OUT_OF_RANGE = 0x052100,
    INVALID_FIELD = 0x052400,
    REMOVAL_PREVENTED = 0x055302,
    POWER_ON = 0x062900,
    WRITE_PROTECTED = 0x072700,
    DATA_PHASE_ERROR = 0x0b4b00, /* aborted command */
};

struct Scsi {
    int fd;
    bool readonly;
    uint64_t blocks;
    char serial[32];
    uint32_t sense;
    bool attention;
    bool ejected;
    bool prevented;

    /* The command at work. */
    uint8_t reply[256]; /* what it sends, if not from the file */
    size_t at;
    bool file;
    uint64_t offset;
    bool sync;
    bool failed;
};

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint64_t get64(const uint8_t *p)
{
    return (uint64_t)get32(p) << 32 | get32(p + 4);
}

static void put32(uint8_t *p, uint32_t v)
{
    p[0] = v >> 24 & 0xff;
    p[1] = v >> 16 & 0xff;
    p[2] = v >> 8 & 0xff;
    p[3] = v & 0xff;
}

/* An ASCII field: blank-padded, no terminator. */
static void put_text(uint8_t *p, const char *text, size_t n)
{
    size_t len = strlen(text);

    memset(p, ' ', n);
    memcpy(p, text, len < n ? len : n);
}

Scsi *scsi_new(const char *image, bool readonly, const char *serial, char *err, size_t errsize)
{
    Scsi *s = calloc(1, sizeof(*s));
    struct stat st;

    if (!s)
        abort();
    s->fd = open(image, (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    if (s->fd < 0 || fstat(s->fd, &st) < 0) {
        snprintf(err, errsize, "image %s: %s", image, strerror(errno));
        scsi_free(s);
        return NULL;
    }
    s->readonly = readonly;
    s->blocks = (uint64_t)st.st_size / BLOCK;
    if (!s->blocks) {
        snprintf(err, errsize, "image %s is empty", image);
        scsi_free(s);
        return NULL;
    }
    snprintf(s->serial, sizeof(s->serial), "%s", serial);
    s->attention = true;
    return s;
}

void scsi_free(Scsi *s)
{
    if (s->fd >= 0)
        close(s->fd);
    free(s);
}

void scsi_reset(Scsi *s)
{
    s->attention = true;
    s->prevented = false;
    s->sense = NO_SENSE;
}

static ScsiPlan fail(Scsi *s, uint32_t sense)
{
    s->sense = sense;
    return (ScsiPlan){.ok = false};
}

static ScsiPlan done(void)
{
    return (ScsiPlan){.ok = true};
}

/* Sends the first @n bytes of s->reply, or as many as the host allows. */
static ScsiPlan reply(size_t n, size_t allocation)
{
    if (n > allocation)
        n = allocation;
    return (ScsiPlan){.ok = true, .direction = n ? SCSI_TO_HOST : SCSI_NONE, .length = n};
}

static ScsiPlan vital_product_data(Scsi *s, unsigned page, size_t allocation)
{
    uint8_t *p = s->reply;
    size_t n = 0;

    p[1] = (uint8_t)page;
    switch (page) {
    case 0x00:
        memcpy(p + 4, "\x00\x80\x83", 3);
        n = 3;
        break;
    case 0x80:
        n = strlen(s->serial);
        memcpy(p + 4, s->serial, n);
        break;
    case 0x83: /* one designator: T10 vendor, ASCII, of the logical unit */
        p[4] = 2;
        p[5] = 1;
        put_text(p + 8, "QRDP", 8);
        put_text(p + 16, s->serial, strlen(s->serial));
        p[7] = (uint8_t)(8 + strlen(s->serial));
        n = 4u + p[7];
        break;
    default:
        return fail(s, INVALID_FIELD);
    }
    p[3] = (uint8_t)n;
    return reply(4 + n, allocation);
}

static ScsiPlan inquiry(Scsi *s, const uint8_t *cdb)
{
    size_t allocation = (size_t)cdb[3] << 8 | cdb[4];
    uint8_t *p = s->reply;

    if (cdb[1] & 1)
        return vital_product_data(s, cdb[2], allocation);
    if (cdb[1] || cdb[2])
        return fail(s, INVALID_FIELD);
    p[1] = 0x80; /* removable */
    p[2] = 6;    /* SPC-4 */
    p[3] = 2;
    p[4] = 31;
    put_text(p + 8, "QRDP", 8);
    put_text(p + 16, "Stand-in Stick", 16);
    put_text(p + 32, "1.0", 4);
    return reply(36, allocation);
}

static ScsiPlan request_sense(Scsi *s, const uint8_t *cdb, uint32_t sense)
{
    uint8_t *p = s->reply;

    if (cdb[1])
        return fail(s, INVALID_FIELD);
    if (sense == NO_SENSE && s->attention) {
        sense = POWER_ON;
        s->attention = false;
    }
    p[0] = 0x70;
    p[2] = sense >> 16 & 15;
    p[7] = 10;
    p[12] = sense >> 8 & 0xff;
    p[13] = sense & 0xff;
    return reply(18, cdb[4]);
}

static ScsiPlan mode_sense(Scsi *s, const uint8_t *cdb)
{
    bool ten = cdb[0] == 0x5a, descriptor = !(cdb[1] & 8);
    size_t header = ten ? 8 : 4, n = header;
    unsigned page = cdb[2] & 0x3f;
    uint8_t *p = s->reply;

    if ((cdb[2] >> 6) == 3 || (page != 0x3f && page != 0x08 && page != 0x00) || cdb[3])
        return fail(s, INVALID_FIELD);
    if (descriptor) {
        put32(p + n, s->blocks > UINT32_MAX ? UINT32_MAX : (uint32_t)s->blocks);
        put32(p + n + 4, BLOCK);
        p[header - 1] = 8;
        n += 8;
    }
    if (page == 0x3f || page == 0x08) { /* caching page, write cache off */
        p[n] = 0x08;
        p[n + 1] = 0x12;
        n += 20;
    }
    p[ten ? 3 : 2] = s->readonly ? 0x80 : 0;
    p[ten ? 1 : 0] = (uint8_t)(n - (ten ? 2 : 1));
    return reply(n, ten ? (size_t)cdb[7] << 8 | cdb[8] : cdb[4]);
}

static ScsiPlan read_capacity(Scsi *s, const uint8_t *cdb)
{
    uint64_t last = s->blocks - 1;
    uint8_t *p = s->reply;

    if (cdb[0] == 0x25) {
        put32(p, last > UINT32_MAX ? UINT32_MAX : (uint32_t)last);
        put32(p + 4, BLOCK);
        return reply(8, 8);
    }
    if ((cdb[1] & 0x1f) != 0x10)
        return fail(s, INVALID_FIELD);
    put32(p, (uint32_t)(last >> 32));
    put32(p + 4, (uint32_t)last);
    put32(p + 8, BLOCK);
    return reply(32, get32(cdb + 10));
}

static ScsiPlan read_format_capacities(Scsi *s, const uint8_t *cdb)
{
    uint8_t *p = s->reply;

    p[3] = 8;
    put32(p + 4, s->blocks > UINT32_MAX ? UINT32_MAX : (uint32_t)s->blocks);
    put32(p + 8, BLOCK);
    p[8] = 2; /* formatted */
    return reply(12, (size_t)cdb[7] << 8 | cdb[8]);
}

static ScsiPlan read_write(Scsi *s, const uint8_t *cdb, bool write)
{
    bool sixteen = cdb[0] >= 0x80;
    uint64_t lba = sixteen ? get64(cdb + 2) : get32(cdb + 2);
    uint64_t n = sixteen ? get32(cdb + 10) : (uint64_t)cdb[7] << 8 | cdb[8];

    if (cdb[1] & 0xe0)
        return fail(s, INVALID_FIELD); /* no protection information here */
    if (lba > s->blocks || n > s->blocks - lba)
        return fail(s, LBA_OUT_OF_RANGE);
    if (write && s->readonly)
        return fail(s, WRITE_PROTECTED);
    s->file = true;
    s->offset = lba * BLOCK;
    s->sync = write && cdb[1] & 8;
    return (ScsiPlan){.ok = true,
                      .direction = !n      ? SCSI_NONE
                                   : write ? SCSI_FROM_HOST
                                           : SCSI_TO_HOST,
                      .length = n * BLOCK};
}

static ScsiPlan verify(Scsi *s, const uint8_t *cdb)
{
    uint64_t lba = get32(cdb + 2), n = (uint64_t)cdb[7] << 8 | cdb[8];

    if (cdb[1] & 0x06)
        return fail(s, INVALID_FIELD); /* comparing with data from the host */
    return lba > s->blocks || n > s->blocks - lba ? fail(s, LBA_OUT_OF_RANGE) : done();
}

static ScsiPlan start_stop(Scsi *s, const uint8_t *cdb)
{
    bool load = cdb[4] & 2, start = cdb[4] & 1;

    if (cdb[4] & 0xf0)
        return fail(s, INVALID_FIELD);
    if (load && !start && s->prevented)
        return fail(s, REMOVAL_PREVENTED);
    if (load)
        s->ejected = !start;
    return done();
}

static ScsiPlan report_luns(Scsi *s, const uint8_t *cdb)
{
    put32(s->reply, 8);
    return reply(16, get32(cdb + 6));
}

static bool needs_medium(uint8_t opcode)
{
    return opcode != 0x1e && opcode != 0x1b && opcode != 0x1a && opcode != 0x5a;
}

static ScsiPlan execute(Scsi *s, const uint8_t *cdb)
{
    if (s->ejected && needs_medium(cdb[0]))
        return fail(s, NO_MEDIUM);
    switch (cdb[0]) {
    case 0x00: /* TEST UNIT READY */
        return done();
    case 0x1a: /* MODE SENSE (6) */
    case 0x5a: /* MODE SENSE (10) */
        return mode_sense(s, cdb);
    case 0x1b: /* START STOP UNIT */
        return start_stop(s, cdb);
    case 0x1e: /* PREVENT ALLOW MEDIUM REMOVAL */
        s->prevented = cdb[4] & 1;
        return done();
    case 0x23: /* READ FORMAT CAPACITIES */
        return read_format_capacities(s, cdb);
    case 0x25: /* READ CAPACITY (10) */
    case 0x9e: /* SERVICE ACTION IN (16) */
        return read_capacity(s, cdb);
    case 0x28: /* READ (10) */
    case 0x88: /* READ (16) */
        return read_write(s, cdb, false);
    case 0x2a: /* WRITE (10) */
    case 0x8a: /* WRITE (16) */
        return read_write(s, cdb, true);
    case 0x2f: /* VERIFY (10) */
        return verify(s, cdb);
    case 0x35: /* SYNCHRONIZE CACHE (10) */
    case 0x91: /* SYNCHRONIZE CACHE (16) */
        return fdatasync(s->fd) < 0 && errno != EINVAL && errno != EROFS ? fail(s, WRITE_ERROR)
                                                                         : done();
    default:
        return fail(s, INVALID_OPCODE);
    }
}

/* SPC-4 table 3 and the group codes: how long a command block with this operation code is. */
static unsigned cdb_length(uint8_t opcode)
{
    switch (opcode >> 5) {
    case 0:
        return 6;
    case 4:
        return 16;
    case 5:
        return 12;
    default:
        return 10;
    }
}

ScsiPlan scsi_command(Scsi *s, const uint8_t *bytes, unsigned len)
{
    uint32_t sense = s->sense;
    uint8_t cdb[16] = {0};

    memcpy(cdb, bytes, len > 16 ? 16 : len);
    memset(s->reply, 0, sizeof(s->reply));
    s->at = 0;
    s->file = s->sync = s->failed = false;
    s->sense = NO_SENSE;
    if (len < cdb_length(cdb[0]))
        return fail(s, INVALID_FIELD);
    switch (cdb[0]) { /* the three that a unit attention lets pass (SAM-5 5.14) */
    case 0x12:
        s->sense = sense;
        return inquiry(s, cdb);
    case 0x03:
        return request_sense(s, cdb, sense);
    case 0xa0:
        return report_luns(s, cdb);
    }
    if (s->attention) {
        s->attention = false;
        return fail(s, POWER_ON);
    }
    return execute(s, cdb);
}

void scsi_read(Scsi *s, uint8_t *buf, size_t n)
{
    if (!s->file) {
        memcpy(buf, s->reply + s->at, n);
        s->at += n;
        return;
    }
    for (size_t done_bytes = 0; done_bytes < n;) {
        ssize_t r = pread(s->fd, buf + done_bytes, n - done_bytes, (off_t)s->offset);

        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0) { /* the image shrank, or the disk failed */
            memset(buf + done_bytes, 0, n - done_bytes);
            s->failed = true;
            s->sense = MEDIUM_ERROR;
            return;
        }
        done_bytes += (size_t)r;
        s->offset += (uint64_t)r;
    }
}

void scsi_write(Scsi *s, const uint8_t *data, size_t n)
{
    while (n && !s->failed) {
        ssize_t r = pwrite(s->fd, data, n, (off_t)s->offset);

        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0) {
            s->failed = true;
            s->sense = WRITE_ERROR;
            return;
        }
        data += r;
        n -= (size_t)r;
        s->offset += (uint64_t)r;
    }
}

void scsi_abort(Scsi *s)
{
    s->failed = true;
    s->sense = DATA_PHASE_ERROR;
}

bool scsi_finish(Scsi *s)
{
    if (s->sync && fdatasync(s->fd) < 0 && errno != EINVAL) {
        s->failed = true;
        s->sense = WRITE_ERROR;
    }
    return !s->failed;
}
