/*
 * A script of events for one device: what a guest asks for, how its requests end, time, and a guest
 * that does not read, in any order. Two bytes per event: what, and an argument. At the end all is
 * cancelled, and each packet must have had exactly one answer.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake_guest.h"

#define MAX_PACKETS 1024u

static uint8_t bytes[200000];

static void complete_iso(UsbRig *r, unsigned at, uint8_t arg)
{
    const FakeRequest *q = &r->source->pending[at];
    UsbIsoPacket packets[USB_ISO_MAX_PACKETS_PER_URB];
    uint32_t n = arg & 0x40 ? q->request.n_packets : 0;

    for (uint32_t i = 0; i < n; i++) {
        packets[i].status = (arg + i) % 5 == 0 ? USB_STATUS_IOERROR : USB_STATUS_SUCCESS;
        packets[i].length = packets[i].status ? 0 : q->packets[i].length >> (arg + i) % 3;
    }
    fake_source_complete_iso(r->source, at, packets, n, bytes);
}

static void complete_one(UsbRig *r, uint8_t arg)
{
    static const UsbStatus statuses[] = {USB_STATUS_SUCCESS, USB_STATUS_SUCCESS,
                                         USB_STATUS_STALL,   USB_STATUS_TIMEOUT,
                                         USB_STATUS_IOERROR, USB_STATUS_CANCELLED};

    if (r->source->n_pending == 0)
        return;
    unsigned at = arg % r->source->n_pending;
    const UsbRequest *q = &r->source->pending[at].request;
    bool in = (q->endpoint & 0x80) != 0;
    uint32_t n = arg & 0x80 ? q->length : q->length / 2;
    UsbStatus status = statuses[(arg >> 3) % 6];

    if (status == USB_STATUS_SUCCESS &&
        (q->kind == USB_REQUEST_SELECT_CONFIGURATION || q->kind == USB_REQUEST_SELECT_INTERFACE))
        return; /* only the fake itself can carry these out */

    if (q->kind == USB_REQUEST_ISO && status == USB_STATUS_SUCCESS) {
        complete_iso(r, at, arg);
        return;
    }
    fake_source_complete(r->source, at, status, in && n ? bytes : NULL, n, in && (arg & 0x40));
}

static uint64_t guest_event(UsbRig *r, uint8_t what, uint8_t arg)
{
    FakeGuest *g = r->guest;
    uint8_t in = r->source->kind == FAKE_STICK && arg & 1 ? 0x83 : 0x81;

    switch (what) {
    case 0:
        return fake_guest_bulk_in(g, in, (uint32_t)arg * 512);
    case 1:
        return fake_guest_bulk_out(g, arg & 1 ? 0x04 : 0x02, bytes, (uint32_t)arg * 700);
    case 2:
        return fake_guest_control(g, 0xa1, 0xfe, 0, 0, 1, NULL);
    case 3:
        return fake_guest_control(g, 0x80, 6, (uint16_t)(arg << 8), 0, 64, NULL);
    case 4:
        return fake_guest_control(g, 0x02, 1, 0, arg & 1 ? 0x02 : 0x81, 0, NULL);
    case 5:
        return fake_guest_control(g, arg & 0x7f, arg, arg, arg, 4, bytes);
    default:
        return fake_guest_interrupt_out(g, 0x02, bytes, arg);
    }
}

static void iso_control(FakeGuest *g, uint8_t arg)
{
    uint8_t endpoint = arg & 1 ? 0x84 : 0x03;

    switch (arg >> 1 & 3) {
    case 0:
        fake_guest_start_iso(g, endpoint, arg >> 3, arg >> 4);
        break;
    case 1:
        fake_guest_stop_iso(g, endpoint);
        break;
    default:
        fake_guest_set_alt(g, 1 + (arg & 1), arg >> 1 & 1);
    }
}

/* Some packets, of one size or of two. */
static void iso_packets(UsbRig *r, uint8_t arg)
{
    for (unsigned i = 0; i < (arg & 0x3fu); i++)
        fake_guest_iso_out(r->guest, 0x03, bytes, arg & 0x40 && i % 3 == 0 ? 180 : arg & 0x80);
    r->now += (uint64_t)(arg & 0x3f) * 1000;
    usb_device_tick(r->device, r->now);
}

static void on_replayed(void *user, const char *error)
{
    int *result = user;

    *result = error ? -1 : 1;
}

/* The client leaves and comes back with the same device, perhaps only at the second attempt. */
static void away_and_back(UsbRig *r, uint8_t arg)
{
    const char *why;
    int result = 0;

    if (usb_device_state(r->device) != USB_DEVICE_CONNECTED ||
        !usb_device_can_suspend(r->device, &why))
        return;
    usb_device_suspend(r->device);
    usb_rig_run(r);
    for (int i = arg & 1; i >= 0 && result == 0; i--) {
        FakeSource *f = fake_source_new(r->source->kind, r->source->speed);

        assert(r->source->violations == 0);
        f->base.quirks = r->source->base.quirks;
        f->cancel_mode = r->source->cancel_mode;
        fake_source_free(r->source);
        r->source = f;
        UsbReplay *replay = usb_replay_new(r->device, &f->base, r->now, on_replayed, &result);
        for (unsigned steps = 0; result == 0 && (i == 0 || steps < (arg & 3u)); steps++) {
            usb_replay_tick(replay, r->now);
            fake_source_run(f);
        }
        usb_replay_free(replay);
    }
    assert(result == 1);
    usb_device_resume(r->device, &r->source->base, r->now);
}

static void event(UsbRig *r, uint8_t what, uint8_t arg, uint64_t *ids, unsigned *n)
{
    if (what < 7) {
        if (*n < MAX_PACKETS)
            ids[(*n)++] = guest_event(r, what, arg);
        return;
    }
    switch (what) {
    case 7:
        if (*n)
            fake_guest_cancel(r->guest, ids[arg % *n]);
        break;
    case 8:
        fake_guest_reset(r->guest);
        break;
    case 9:
        fake_guest_set_configuration(r->guest, arg % 3);
        break;
    case 10:
        fake_guest_set_alt(r->guest, arg & 1, arg >> 1 & 1);
        break;
    case 11:
        if (arg & 8 && arg & 1)
            fake_guest_start_bulk(r->guest, arg & 2 ? 0x83 : 0x81, (uint32_t)(arg & 0xf0) * 32,
                                  arg & 4 ? 5 : arg & 0x1f);
        else if (arg & 8)
            fake_guest_stop_bulk(r->guest, arg & 2 ? 0x83 : 0x81);
        else if (arg & 1)
            fake_guest_start_interrupt(r->guest, 0x81);
        else
            fake_guest_stop_interrupt(r->guest, 0x81);
        break;
    case 12:
        r->now += (uint64_t)arg * 100000;
        usb_device_tick(r->device, r->now);
        break;
    case 13:
        r->blocked = arg & 1;
        break;
    case 14:
        r->source->hold = arg & 1;
        r->source->refuse = (arg & 6) == 6;
        break;
    case 17:
        if (r->source->kind != FAKE_STICK) /* its medium is test_usb_suspend's */
            away_and_back(r, arg);
        break;
    case 18:
        iso_control(r->guest, arg);
        break;
    case 19:
        iso_packets(r, arg);
        break;
    default:
        complete_one(r, arg);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint32_t quirks[] = {0,
                                      USB_QUIRK_CLEAR_HALT_CANCELS_ALL | USB_QUIRK_RESET_IS_NO_OP,
                                      USB_QUIRK_TRANSFERS_MAY_PEND | USB_QUIRK_ISO_WHOLE_FRAMES,
                                      USB_QUIRK_RESET_IS_NO_OP | USB_QUIRK_EQUAL_ISO_PACKETS};
    static const UsbSpeed speeds[] = {USB_SPEED_FULL, USB_SPEED_HIGH, USB_SPEED_SUPER,
                                      USB_SPEED_HIGH};
    uint64_t ids[MAX_PACKETS];
    unsigned n = 0;

    if (size < 1 || size > 4096)
        return 0;
    FakeKind kind = data[0] >= 0xc0 ? FAKE_HEADSET : data[0] & 1 ? FAKE_KEYBOARD : FAKE_STICK;
    UsbRig *r = usb_rig_new(kind, speeds[data[0] >> 1 & 3], quirks[data[0] >> 3 & 3]);
    r->source->cancel_mode = (data[0] >> 5) % 3u;
    r->chunk = 65536;
    usb_rig_enumerate(r);
    for (size_t at = 1; at + 1 < size; at += 2) {
        event(r, data[at] % 20, data[at + 1], ids, &n);
        usb_rig_run(r);
    }
    r->blocked = r->source->refuse = false;
    r->source->hold = false;
    for (unsigned i = 0; i < n; i++)
        fake_guest_cancel(r->guest, ids[i]);
    usb_rig_wait(r, 120000000);
    if (r->source->violations)
        fprintf(stderr, "violation: %s\n", r->source->violation);
    assert(r->source->violations == 0 && r->guest->errors == 0);
    assert(usb_device_state(r->device) == USB_DEVICE_CONNECTED);
    for (unsigned i = 0; i < n; i++) {
        unsigned answers = 0;
        for (unsigned k = 0; k < r->guest->n_log; k++) {
            const GuestPacket *p = &r->guest->log[k];
            bool read_ahead = /* own ids */
                (p->type == usb_redir_interrupt_packet && (p->endpoint & 0x80)) ||
                p->type == usb_redir_iso_packet || p->type == usb_redir_buffered_bulk_packet;
            answers += p->id == ids[i] && p->type >= usb_redir_control_packet && !read_ahead;
        }
        assert(answers == 1);
    }
    fake_guest_stop_iso(r->guest, 0x03);
    fake_guest_stop_iso(r->guest, 0x84);
    usb_rig_wait(r, USB_ISO_DRAIN_US);
    fake_guest_stop_interrupt(r->guest, 0x81);
    fake_guest_stop_bulk(r->guest, 0x81);
    fake_guest_stop_bulk(r->guest, 0x83);
    usb_rig_run(r);
    UsbDeviceStats stats;
    usb_device_stats(r->device, &stats);
    assert(stats.in_flight == 0 && stats.bytes_in_flight == 0);
    usb_rig_free(r);
    return 0;
}
