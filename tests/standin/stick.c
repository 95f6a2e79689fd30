/*
 * A USB stick: the Bulk-Only Transport (USB Mass Storage Class BOT 1.0).
 *
 *     COMMAND --CBW--> DATA_IN or DATA_OUT --all moved--> STATUS --CSW--> COMMAND
 *        |                                                   |
 *        +--bad CBW--> BROKEN <--CSW said "phase error"------+
 *
 * In each state one endpoint moves and the other NAKs. The thirteen cases of BOT 6.7 are decided
 * when the command arrives. BROKEN (6.6.1, 6.7) keeps both bulk endpoints halted, whatever is
 * cleared, until the host does reset recovery: Bulk-Only Mass Storage Reset, then both halts.
 */
#include "bus.h"
#include "scsi.h"
#include <stdlib.h>
#include <string.h>

#define EP_IN 0x81
#define EP_OUT 0x02
#define CBW_SIZE 31
#define CSW_SIZE 13

typedef enum State { COMMAND, DATA_IN, DATA_OUT, STATUS, BROKEN } State;

enum { CSW_PASSED, CSW_FAILED, CSW_PHASE_ERROR };

typedef struct Stick {
    Scsi *scsi;
    State state;
    uint8_t tag[4];
    uint32_t host_len; /* dCBWDataTransferLength */
    uint32_t length;   /* what will move */
    uint32_t moved;
    uint8_t status;
} Stick;

static uint32_t get32le(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put32le(uint8_t *p, uint32_t v)
{
    p[0] = v & 0xff;
    p[1] = v >> 8 & 0xff;
    p[2] = v >> 16 & 0xff;
    p[3] = v >> 24 & 0xff;
}

/* UAS (1.0, 5.1), which nobody speaks here: a host must leave it alone. */
static void add_uas(Device *d, uint8_t alt)
{
    static const uint8_t pipes[] = {0x04, 0x83, EP_IN, EP_OUT}; /* command, status, data in, out */

    desc_interface(d, 0, alt, 4, LIBUSB_CLASS_MASS_STORAGE, 6, 0x62);
    for (uint8_t i = 0; i < sizeof(pipes); i++) {
        uint8_t usage[4] = {4, 0x24, i + 1, 0};

        desc_endpoint(d, pipes[i], LIBUSB_ENDPOINT_TRANSFER_TYPE_BULK, desc_bulk_mps(d), 0);
        if (i > 0)
            desc_streams(d, 5);
        desc_raw(d, usage, sizeof(usage));
    }
}

static bool stick_create(Device *d, Options *o, char *err, size_t errsize)
{
    Stick *s = calloc(1, sizeof(*s));
    char image[512], readonly[8] = "0", uas[8] = "";
    uint16_t mps = desc_bulk_mps(d);

    if (!s)
        abort();
    d->state = s;
    if (!option_take(o, "image", image, sizeof(image))) {
        snprintf(err, errsize, "a stick needs image=PATH");
        return false;
    }
    option_take(o, "readonly", readonly, sizeof(readonly));
    option_take(o, "uas", uas, sizeof(uas));
    s->scsi =
        scsi_new(image, readonly[0] == '1',
                 d->device_desc[16] ? d->strings[d->device_desc[16] - 1] : "0001", err, errsize);
    if (!s->scsi)
        return false;
    desc_config(d, 0x80, d->speed == LIBUSB_SPEED_SUPER ? 50 : 100);
    if (strcmp(uas, "only") == 0) {
        add_uas(d, 0);
        return true;
    }
    desc_interface(d, 0, 0, 2, LIBUSB_CLASS_MASS_STORAGE, 6, 0x50);
    desc_endpoint(d, EP_IN, LIBUSB_ENDPOINT_TRANSFER_TYPE_BULK, mps, 0);
    desc_endpoint(d, EP_OUT, LIBUSB_ENDPOINT_TRANSFER_TYPE_BULK, mps, 0);
    if (strcmp(uas, "also") == 0)
        add_uas(d, 1);
    return true;
}

static void stick_destroy(Device *d)
{
    Stick *s = d->state;

    if (s->scsi)
        scsi_free(s->scsi);
    free(s);
}

static void stick_reset(Device *d)
{
    Stick *s = d->state;

    s->state = COMMAND;
    if (!d->configuration) /* a bus reset, not SET_CONFIGURATION */
        scsi_reset(s->scsi);
}

static void halt(Device *d, uint8_t address)
{
    device_ep(d, address)->halted = true;
}

static void break_down(Device *d, Stick *s)
{
    s->state = BROKEN;
    halt(d, EP_IN);
    halt(d, EP_OUT);
}

/* A device that stalls in mid-data has given the command up (BOT 6.7.2, 6.7.3). */
static void stick_stalled(Device *d, Endpoint *ep)
{
    Stick *s = d->state;

    if (s->state == (ep->address == EP_IN ? DATA_IN : DATA_OUT)) {
        s->state = STATUS;
        s->status = CSW_FAILED;
        scsi_abort(s->scsi);
    }
}

static void stick_halt_cleared(Device *d, Endpoint *ep)
{
    Stick *s = d->state;

    if (s->state == BROKEN)
        ep->halted = true;
}

static int stick_control(Device *d, const Setup *s, uint8_t *data)
{
    Stick *stick = d->state;

    if (s->type == 0xa1 && s->request == 0xfe && !s->value && !s->index && s->length == 1) {
        data[0] = 0; /* Get Max LUN */
        return 1;
    }
    if (s->type == 0x21 && s->request == 0xff && !s->value && !s->index && !s->length) {
        stick->state = COMMAND; /* halts and toggles stay as they are (BOT 3.1) */
        return 0;
    }
    return IO_STALL;
}

/* BOT 6.2.1 and 6.2.2: valid and meaningful. */
static bool cbw_ok(const uint8_t *p, size_t n)
{
    return n == CBW_SIZE && !memcmp(p, "USBC", 4) && !(p[12] & 0x7f) && p[13] == 0 && p[14] >= 1 &&
           p[14] <= 16;
}

/* The thirteen cases of BOT 6.7: sets the state, the length, and stalls. */
static void begin(Device *d, Stick *s, ScsiPlan plan, bool host_in)
{
    ScsiDirection expected = !s->host_len ? SCSI_NONE : host_in ? SCSI_TO_HOST : SCSI_FROM_HOST;

    s->state = STATUS;
    s->length = s->moved = 0;
    s->status = plan.ok ? CSW_PASSED : CSW_FAILED;
    if (plan.direction == SCSI_NONE || !plan.ok) { /* 1, 4, 9, and failed commands */
        if (s->host_len)
            halt(d, host_in ? EP_IN : EP_OUT);
        return;
    }
    if (plan.direction != expected) { /* 2, 3, 8, 10 */
        violation(d, V_PHASE);
        s->status = CSW_PHASE_ERROR;
        if (s->host_len)
            halt(d, host_in ? EP_IN : EP_OUT);
        return;
    }
    if (plan.length > s->host_len) { /* 7, 13 */
        violation(d, V_PHASE);
        s->status = CSW_PHASE_ERROR;
        plan.length = s->host_len;
        if (!host_in) {
            halt(d, EP_OUT);
            return;
        }
    }
    s->length = (uint32_t)plan.length; /* 5, 6, 11, 12 */
    s->state = host_in ? DATA_IN : DATA_OUT;
}

static void command_block(Device *d, Stick *s, const uint8_t *p, size_t n)
{
    if (!cbw_ok(p, n)) {
        violation(d, V_BAD_CBW);
        break_down(d, s);
        return;
    }
    memcpy(s->tag, p + 4, 4);
    s->host_len = get32le(p + 8);
    trace(d, "CBW opcode %02x, %u bytes %s", p[15], s->host_len, p[12] ? "in" : "out");
    begin(d, s, scsi_command(s->scsi, p + 15, p[14]), p[12] & 0x80);
}

static void data_moved(Device *d, Stick *s, uint16_t mps, uint8_t address)
{
    if (s->moved < s->length)
        return;
    s->state = STATUS;
    if (s->status == CSW_PASSED && !scsi_finish(s->scsi))
        s->status = CSW_FAILED;
    /* The host waits for more: a short packet tells it, else a stall does (6.7.2, 6.7.3). */
    if (s->length < s->host_len && (address == EP_OUT || s->length % mps == 0))
        halt(d, address);
}

static ssize_t data_out(Device *d, Stick *s, Endpoint *ep, const uint8_t *data, size_t len)
{
    uint32_t left = s->length - s->moved;
    size_t mps = ep->desc->mps, n;

    if (len <= left) {
        n = len;
    } else { /* the host sends more than the command takes: whole packets, of which we keep some */
        n = (left + mps - 1) / mps * mps;
        if (n > len)
            n = len;
    }
    scsi_write(s->scsi, data, n < left ? n : left);
    s->moved += (uint32_t)(n < left ? n : left);
    if (s->moved < s->length && (n == 0 || n % mps)) { /* short packet in mid-data */
        violation(d, V_PHASE);
        s->status = CSW_PHASE_ERROR;
        s->length = s->moved;
    }
    data_moved(d, s, ep->desc->mps, EP_OUT);
    return (ssize_t)n;
}

static ssize_t stick_out(Device *d, Endpoint *ep, const uint8_t *data, size_t len)
{
    Stick *s = d->state;
    size_t n = len < ep->desc->mps ? len : ep->desc->mps;

    switch (s->state) {
    case COMMAND:
        command_block(d, s, data, n);
        return (ssize_t)n;
    case DATA_OUT:
        return data_out(d, s, ep, data, len);
    case BROKEN:
        return IO_STALL;
    default:
        return IO_NAK;
    }
}

static ssize_t stick_in_avail(Device *d, Endpoint *ep)
{
    Stick *s = d->state;

    switch (s->state) {
    case DATA_IN:
        return s->length - s->moved;
    case STATUS:
        return CSW_SIZE;
    case BROKEN:
        return IO_STALL;
    default:
        return IO_NAK;
    }
}

static void stick_in_take(Device *d, Endpoint *ep, uint8_t *buf, size_t n)
{
    Stick *s = d->state;
    uint8_t csw[CSW_SIZE] = "USBS";

    if (s->state == DATA_IN) {
        scsi_read(s->scsi, buf, n);
        s->moved += (uint32_t)n;
        data_moved(d, s, ep->desc->mps, EP_IN);
        return;
    }
    if (ep->taken)
        violation(d, V_LOST_CSW);
    memcpy(csw + 4, s->tag, 4);
    put32le(csw + 8, s->host_len - s->moved);
    csw[12] = s->status;
    memcpy(buf, csw, n);
    s->state = COMMAND;
    if (s->status == CSW_PHASE_ERROR)
        break_down(d, s);
}

const DeviceOps stick_ops = {
    .kind = "stick",
    .product_id = 0x0001,
    .speed = "high",
    .kernel_driver = true,
    .create = stick_create,
    .destroy = stick_destroy,
    .reset = stick_reset,
    .control = stick_control,
    .out = stick_out,
    .in_avail = stick_in_avail,
    .in_take = stick_in_take,
    .stalled = stick_stalled,
    .halt_cleared = stick_halt_cleared,
};
