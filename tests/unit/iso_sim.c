#include "iso_sim.h"

#include <string.h>

const GuestPacket *status_of(UsbRig *r, uint64_t id)
{
    usb_rig_run(r);
    return fake_guest_find(r->guest, usb_redir_iso_stream_status, id);
}

void set_alt(UsbRig *r, uint8_t interface, uint8_t alt)
{
    uint64_t id = fake_guest_set_alt(r->guest, interface, alt);

    usb_rig_run(r);
    const GuestPacket *p = fake_guest_find(r->guest, usb_redir_alt_setting_status, id);
    g_assert_nonnull(p);
    g_assert_cmpuint(p->status, ==, USB_STATUS_SUCCESS);
}

/* What has been asked for takes as long as the way there and back. */
static void travel(UsbRig *r, uint64_t round_trip)
{
    r->source->hold = true;
    usb_rig_run(r);
    r->now += round_trip;
    r->source->hold = false;
    usb_rig_run(r);
}

UsbRig *headset(UsbSpeed speed, uint32_t quirks, uint64_t round_trip)
{
    UsbRig *r = usb_rig_new(FAKE_HEADSET, speed, quirks);

    usb_rig_run(r);
    fake_guest_set_configuration(r->guest, 1);
    travel(r, round_trip);
    for (uint8_t i = 1; i < 3; i++) {
        fake_guest_set_alt(r->guest, i, 1);
        travel(r, round_trip);
    }
    g_assert_cmpuint(fake_guest_count(r->guest, usb_redir_alt_setting_status), ==, 2);
    fake_guest_clear_log(r->guest);
    return r;
}

void finish(UsbRig *r)
{
    g_assert_cmpstr(r->source->violation, ==, "");
    g_assert_cmpuint(r->guest->errors, ==, 0);
    usb_rig_free(r);
}

UsbDeviceStats stats(const UsbRig *r)
{
    UsbDeviceStats s;

    usb_device_stats(r->device, &s);
    return s;
}

void send_packet(UsbRig *r, uint32_t number, uint32_t length)
{
    uint8_t data[256] = {(uint8_t)number, (uint8_t)(number >> 8), (uint8_t)(number >> 16)};

    for (uint32_t i = 3; i < length; i++)
        data[i] = (uint8_t)(number * 7 + i);
    fake_guest_iso_out(r->guest, OUT, data, length);
    usb_rig_run(r);
}

void start_out(UsbRig *r)
{
    uint64_t id = fake_guest_start_iso(r->guest, OUT, PER_URB, URBS);

    g_assert_cmpuint(status_of(r, id)->status, ==, USB_STATUS_SUCCESS);
}

/* ---- the far side ---- */

Sim *sim_new(UsbRig *r, uint64_t trip)
{
    Sim *s = g_new0(Sim, 1);

    s->rig = r;
    s->trip = trip;
    return s;
}

/* New requests set out for the client. */
static void sim_collect(Sim *s)
{
    const FakeSource *f = s->rig->source;

    for (unsigned i = 0; i < f->n_pending; i++) {
        const UsbRequest *q = &f->pending[i].request;

        if (q->kind != USB_REQUEST_ISO || q->id <= s->last_id)
            continue;
        g_assert_cmpuint(s->n_urbs, <, MAX_URBS);
        s->last_id = q->id;
        SimUrb *urb = &s->urbs[s->n_urbs++];
        *urb = (SimUrb){.id = q->id, .n_packets = q->n_packets};
        urb->arrival = MAX(s->rig->now + s->trip, s->blocked_until);
    }
}

FakeRequest *pending(const Sim *s, uint32_t id, unsigned *index)
{
    FakeSource *f = s->rig->source;

    for (unsigned i = 0; i < f->n_pending; i++) {
        if (f->pending[i].request.id == id) {
            *index = i;
            return &f->pending[i];
        }
    }
    return NULL;
}

static void note_packet(Sim *s, const SimUrb *urb)
{
    unsigned index;
    const FakeRequest *q = pending(s, urb->id, &index);
    uint32_t at = 0;

    g_assert_nonnull(q);
    for (uint32_t i = 0; i < s->at_packet; i++)
        at += q->packets[i].length;
    if (q->data && q->packets[s->at_packet].length >= 3) {
        const uint8_t *data = q->data + at;

        s->lengths[s->played] = q->packets[s->at_packet].length;
        s->numbers[s->played] = data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16;
        for (uint32_t i = 3; i < q->packets[s->at_packet].length; i++)
            g_assert_cmpuint(data[i], ==, (uint8_t)(s->numbers[s->played] * 7 + i));
    }
}

/* The device's next frame. */
static void sim_frame(Sim *s)
{
    SimUrb *urb = &s->urbs[s->playing];

    if (s->playing == s->n_urbs || urb->arrival > s->rig->now) {
        if (s->started && !s->dry)
            s->gaps++;
        s->dry = true;
        return;
    }
    s->started = true;
    s->dry = false;
    note_packet(s, urb);
    s->played++;
    if (++s->at_packet == urb->n_packets) {
        s->at_packet = 0;
        s->playing++;
        urb->finished = s->rig->now;
    }
}

static void sim_return(Sim *s)
{
    uint8_t data[8192] = {0};
    unsigned index;

    while (s->returned < s->playing) {
        const SimUrb *urb = &s->urbs[s->returned];

        if (MAX(urb->finished + s->trip, s->blocked_until) > s->rig->now)
            return;
        s->returned++;
        const FakeRequest *q = pending(s, urb->id, &index);
        if (!q)
            continue;
        UsbIsoPacket packets[USB_ISO_MAX_PACKETS_PER_URB];
        memcpy(packets, q->packets, sizeof(packets));
        fake_source_complete_iso(s->rig->source, index, packets, urb->n_packets, data);
    }
}

void sim_step(Sim *s)
{
    s->rig->now += 1000;
    usb_device_tick(s->rig->device, s->rig->now);
    sim_return(s);
    usb_rig_run(s->rig);
    sim_collect(s);
    sim_frame(s);
}

void sim_play(Sim *s, unsigned ms)
{
    for (unsigned i = 0; i < ms; i++, s->sent++) {
        send_packet(s->rig, s->sent, s->sent % 10 == 9 ? 180 : 176);
        sim_step(s);
    }
}

void check_all_played(const Sim *s)
{
    g_assert_cmpuint(s->played, ==, s->sent);
    for (unsigned i = 0; i < s->played; i++) {
        g_assert_cmpuint(s->numbers[i], ==, i);
        g_assert_cmpuint(s->lengths[i], ==, i % 10 == 9 ? 180 : 176);
    }
}

void stop_out(Sim *s)
{
    fake_guest_stop_iso(s->rig->guest, OUT);
    for (unsigned i = 0; i < 1000; i++)
        sim_step(s);
}
