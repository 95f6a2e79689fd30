/*
 * Isochronous streams, to a headset and from it: what the guest sends is played once and in order,
 * gaps are whose they are, and what a client or guest gets wrong is refused.
 */
#include <string.h>

#include "iso_sim.h"

typedef struct Lie {
    UsbRig *rig;
    uint64_t late, waited;
} Lie;

/* ---- OUT ---- */

static void test_grouping(void)
{
    for (int equal = 0; equal < 2; equal++) {
        UsbRig *r = headset(USB_SPEED_FULL, equal ? FREERDP : 0, 1000);
        static const uint32_t lengths[] = {176, 176, 180, 176, 0, 0, 196};
        unsigned n = 0, urbs = 0;

        start_out(r);
        for (unsigned i = 0; i < 140; i++)
            send_packet(r, i, lengths[i % 7]);
        for (unsigned i = 0; i < r->source->n_pending; i++, urbs++) {
            const FakeRequest *q = &r->source->pending[i];
            uint32_t sum = 0;

            g_assert_cmpuint(q->request.kind, ==, USB_REQUEST_ISO);
            g_assert_cmpuint(q->request.endpoint, ==, OUT);
            g_assert_cmpuint(q->request.n_packets, <=, PER_URB);
            for (unsigned k = 0; k < q->request.n_packets; k++, n++) {
                g_assert_cmpuint(q->packets[k].length, ==, lengths[n % 7]);
                if (q->packets[k].length)
                    g_assert_cmpuint(q->data[sum], ==, n);
                if (equal)
                    g_assert_cmpuint(q->packets[k].length, ==, q->packets[0].length);
                sum += q->packets[k].length;
            }
            g_assert_cmpuint(sum, ==, q->request.length);
        }
        g_assert_cmpuint(urbs, ==, equal ? 140 / 7 * 5 - 1 : 14); /* the last may still grow */
        finish(r);
    }
}

static void test_start_up(void)
{
    UsbRig *r = headset(USB_SPEED_HIGH, FREERDP, 30000);

    start_out(r);
    for (unsigned i = 0; i < 109; i++)
        send_packet(r, i, 192);
    g_assert_cmpuint(r->source->n_pending, ==, 0);
    send_packet(r, 109, 192); /* 60 ms, a round trip, a request, 5 ms; in whole requests */
    g_assert_cmpuint(r->source->n_pending, ==, 11);
    g_assert_cmpuint(stats(r).iso_out.lead_us, ==, 110000);
    for (unsigned i = 110; i < 120; i++)
        send_packet(r, i, 192);
    g_assert_cmpuint(r->source->n_pending, ==, 12);
    finish(r);
}

static void test_distance(void)
{
    static const uint64_t trips[] = {0, 2500, 10000, 25000, 100000};

    for (size_t i = 0; i < G_N_ELEMENTS(trips); i++) {
        UsbRig *r = headset(USB_SPEED_FULL, FREERDP, 2 * trips[i]);
        Sim *s = sim_new(r, trips[i]);

        start_out(r);
        sim_play(s, 10000);
        g_assert_cmpuint(s->gaps, ==, 0);
        stop_out(s);
        check_all_played(s);
        g_assert_cmpuint(stats(r).iso_out.delivered, ==, s->sent);
        g_assert_cmpuint(stats(r).iso_out.gaps_guest + stats(r).iso_out.gaps_network, ==, 0);
        g_assert_cmpuint(stats(r).in_flight, ==, 0);
        finish(r);
        g_free(s);
    }
}

/* A guest that is held up and does not make up for it, as QEMU's xHCI after 4 ms. */
static void test_guest_gap(void)
{
    UsbRig *r = headset(USB_SPEED_FULL, FREERDP, 50000);
    Sim *s = sim_new(r, 25000);

    start_out(r);
    for (unsigned round = 1; round <= 5; round++) {
        sim_play(s, 2000);
        for (unsigned i = 0; i < 300; i++)
            sim_step(s);
        sim_play(s, 500);
        g_assert_cmpuint(s->gaps, ==, round);
        g_assert_cmpuint(stats(r).iso_out.gaps_guest, ==, round);
        g_assert_cmpuint(stats(r).iso_out.gaps_network, ==, 0);
    }
    sim_play(s, 2000);
    for (unsigned i = 0; i < 40; i++) /* the lead covers this one */
        sim_step(s);
    sim_play(s, 2000);
    g_assert_cmpuint(s->gaps, ==, 5);
    stop_out(s);
    check_all_played(s);
    finish(r);
    g_free(s);
}

/* A thread that did not come to read QEMU's socket: busy with something else, or without a
 * processor, for @late us of the time that the bytes lay there. */
static void lie_about_arrival(void *user, UsbArrival *a)
{
    const Lie *lie = user;

    *a = (UsbArrival){.arrived_us = lie->rig->now - lie->late, .waited_us = lie->waited};
}

static void late_reader(uint64_t late, uint64_t waited, unsigned own, unsigned host)
{
    UsbRig *r = headset(USB_SPEED_FULL, FREERDP, 10000);
    Sim *s = sim_new(r, 5000);
    Lie lie = {.rig = r};

    r->arrival = lie_about_arrival;
    r->arrival_user = &lie;
    start_out(r);
    sim_play(s, 1000);
    for (unsigned i = 0; i < 120; i++)
        sim_step(s);
    lie.late = late;
    lie.waited = waited;
    for (unsigned i = 0; i < 120; i++, s->sent++) /* all that came meanwhile, in one reading */
        send_packet(r, s->sent, s->sent % 10 == 9 ? 180 : 176);
    lie.late = 0;
    sim_play(s, 1000);
    g_assert_cmpuint(s->gaps, ==, 1);
    g_assert_cmpuint(stats(r).iso_out.gaps_own, ==, own);
    g_assert_cmpuint(stats(r).iso_out.gaps_host, ==, host);
    g_assert_cmpuint(stats(r).iso_out.gaps_guest, ==, 1 - own - host);
    g_assert_cmpuint(stats(r).iso_out.gaps_network, ==, 0);
    stop_out(s);
    check_all_played(s);
    finish(r);
    g_free(s);
}

static void test_own_gap(void)
{
    late_reader(0, 0, 0, 0);      /* QEMU sent it as late as that */
    late_reader(120000, 0, 1, 0); /* it was there all the time */
    late_reader(0, 120000, 0, 1); /* there was no processor to read it */
    late_reader(60000, 60000, 0, 1);
    late_reader(119000, 1000, 1, 0);
}

/* Offered to the client's socket too late, although it was submitted in time. */
static void test_late_offer(void)
{
    UsbRig *r = headset(USB_SPEED_FULL, FREERDP, 10000);

    start_out(r);
    for (unsigned i = 0; i < 100; i++) {
        /* Of the lead, which is not late for anything, and then of a request that had time. */
        r->late_offer = i == 89 ? 20000 : i == 99 ? 200000 : 0;
        send_packet(r, i, 192);
        g_assert_cmpuint(stats(r).iso_out.gaps_own, ==, i == 99 ? 1 : 0);
    }
    finish(r);
}

static void test_network_gap(void)
{
    UsbRig *r = headset(USB_SPEED_FULL, FREERDP, 50000);
    Sim *s = sim_new(r, 25000);

    start_out(r);
    sim_play(s, 2000);
    s->blocked_until = r->now + 90000; /* the lead covers this one */
    sim_play(s, 2000);
    g_assert_cmpuint(s->gaps, ==, 0);
    s->blocked_until = r->now + 300000;
    sim_play(s, 2000);
    g_assert_cmpuint(s->gaps, ==, 1);
    g_assert_cmpuint(stats(r).iso_out.gaps_network, ==, 1);
    g_assert_cmpuint(stats(r).iso_out.gaps_guest, ==, 0);
    stop_out(s);
    check_all_played(s);
    finish(r);
    g_free(s);
}

/* A beep that is shorter than what is collected at first; the setting waits for its end. */
static void test_beep(void)
{
    UsbRig *r = headset(USB_SPEED_FULL, FREERDP, 50000);
    Sim *s = sim_new(r, 25000);

    start_out(r);
    sim_play(s, 25);
    g_assert_cmpuint(s->played, ==, 0);
    uint64_t stop = fake_guest_stop_iso(r->guest, OUT);
    g_assert_cmpuint(status_of(r, stop)->status, ==, USB_STATUS_SUCCESS);
    uint64_t alt = fake_guest_set_alt(r->guest, 1, 0);
    for (unsigned i = 0; i < 60; i++)
        sim_step(s);
    g_assert_cmpuint(s->played, ==, 25);
    for (unsigned i = 0; i < 100; i++)
        sim_step(s);
    check_all_played(s);
    g_assert_cmpuint(fake_guest_find(r->guest, usb_redir_alt_setting_status, alt)->status, ==, 0);
    finish(r);
    g_free(s);
}

/* The client never says that it is done: the guest's next setting does not wait for ever. */
static void test_drain_limit(void)
{
    UsbRig *r = headset(USB_SPEED_FULL, FREERDP, 1000);

    start_out(r);
    for (unsigned i = 0; i < 100; i++)
        send_packet(r, i, 192);
    fake_guest_stop_iso(r->guest, OUT);
    uint64_t alt = fake_guest_set_alt(r->guest, 1, 0);
    usb_rig_wait(r, USB_ISO_DRAIN_US - 1);
    g_assert_null(fake_guest_find(r->guest, usb_redir_alt_setting_status, alt));
    usb_rig_wait(r, 1);
    g_assert_cmpuint(fake_guest_find(r->guest, usb_redir_alt_setting_status, alt)->status, ==, 0);
    g_assert_cmpuint(stats(r).in_flight, ==, 0);
    g_assert_cmpuint(stats(r).iso_out.dropped, ==, 100);
    finish(r);
}

/* A guest's clock that is 20 % fast: the delay is bounded, and what is played stays in order. */
static void test_too_fast(void)
{
    UsbRig *r = headset(USB_SPEED_FULL, FREERDP, 10000);
    Sim *s = sim_new(r, 5000);

    start_out(r);
    for (unsigned i = 0; i < 8000; i++, s->sent++) {
        send_packet(r, s->sent, 176);
        if (i % 5 == 0)
            continue;
        sim_step(s);
        g_assert_cmpuint(s->sent - stats(r).iso_out.dropped - s->played, <=,
                         (USB_ISO_MAX_LEAD_US + USB_ISO_MAX_EXCESS_US) / 1000 + 2 * PER_URB);
    }
    g_assert_cmpuint(stats(r).iso_out.dropped, >, 500);
    g_assert_cmpuint(s->gaps, ==, 0);
    for (unsigned i = 1; i < s->played; i++)
        g_assert_cmpuint(s->numbers[i], >, s->numbers[i - 1]);
    finish(r);
    g_free(s);
}

/* A client that takes requests and answers none. */
static void test_deaf_client(void)
{
    UsbRig *r = headset(USB_SPEED_FULL, FREERDP, 10000);

    start_out(r);
    for (unsigned i = 0; i < 20000; i++) {
        send_packet(r, i, i % 2 ? 176 : 180); /* one request each */
        r->now += 1000;
        usb_device_tick(r->device, r->now);
        g_assert_cmpuint(stats(r).in_flight, <=, USB_ISO_MAX_REQUESTS);
        if (fake_guest_find(r->guest, usb_redir_iso_stream_status, 0))
            break; /* it was given up */
    }
    g_assert_cmpuint(fake_guest_count(r->guest, usb_redir_iso_stream_status), >, 0);
    finish(r);
}

static void test_out_errors(void)
{
    UsbRig *r = headset(USB_SPEED_FULL, FREERDP, 1000);
    UsbIsoPacket packets[PER_URB] = {{.length = 192}};

    start_out(r);
    for (unsigned i = 0; i < 200; i++)
        send_packet(r, i, 192);
    fake_guest_clear_log(r->guest);
    packets[3].status = USB_STATUS_IOERROR;
    fake_source_complete_iso(r->source, 0, packets, PER_URB, NULL);
    usb_rig_run(r);
    g_assert_cmpuint(r->guest->n_log, ==, 1);
    g_assert_cmpint(r->guest->log[0].type, ==, usb_redir_iso_stream_status);
    g_assert_cmpuint(r->guest->log[0].status, ==, USB_STATUS_IOERROR);
    g_assert_cmpuint(stats(r).iso_out.failed, ==, 1);
    g_assert_cmpuint(stats(r).iso_out.delivered, ==, 9);
    fake_guest_clear_log(r->guest);
    for (unsigned i = 0; i < 8; i++)
        fake_source_complete(r->source, 0, USB_STATUS_IOERROR, NULL, 0, false);
    usb_rig_run(r);
    g_assert_cmpuint(r->guest->log[r->guest->n_log - 1].status, ==, USB_STATUS_STALL);
    g_assert_cmpuint(stats(r).in_flight, ==, 0);
    send_packet(r, 0, 192); /* no stream, no harm */
    start_out(r);
    finish(r);
}

static void test_flush(void)
{
    UsbRig *r = headset(USB_SPEED_FULL, FREERDP, 1000);

    start_out(r);
    for (unsigned i = 0; i < 3; i++)
        send_packet(r, i, 192);
    usb_rig_wait(r, USB_ISO_FLUSH_US - 1);
    g_assert_cmpuint(r->source->n_pending, ==, 0);
    usb_rig_wait(r, 1);
    g_assert_cmpuint(r->source->n_pending, ==, 1);
    g_assert_cmpuint(r->source->pending[0].request.n_packets, ==, 3);
    finish(r);
}

/* A client that wants whole frames: what is left when the guest stops is filled up with empty
 * packets, and only the guest's own are counted. */
static void test_whole_frames(void)
{
    FakeSource *f = fake_source_new(FAKE_HEADSET, USB_SPEED_HIGH);

    for (uint16_t i = 0; i + 6 < f->config_len; i++) {
        if (f->config_raw[i] == 7 && f->config_raw[i + 1] == 5 && f->config_raw[i + 2] == OUT)
            f->config_raw[i + 6] = 2; /* four packets per frame */
    }
    UsbRig *r = usb_rig_with(f, USB_QUIRK_TRANSFERS_MAY_PEND | USB_QUIRK_ISO_WHOLE_FRAMES);
    usb_rig_enumerate(r);
    set_alt(r, 1, 1);
    start_out(r);
    for (unsigned i = 0; i < 11; i++)
        send_packet(r, i, 100 + i);
    fake_guest_stop_iso(r->guest, OUT);
    usb_rig_run(r);
    g_assert_cmpuint(r->source->n_pending, ==, 2);
    g_assert_cmpuint(r->source->pending[0].request.n_packets, ==, 8);
    const FakeRequest *last = &r->source->pending[1];
    g_assert_cmpuint(last->request.n_packets, ==, 4);
    g_assert_cmpuint(last->request.length, ==, 108 + 109 + 110);
    g_assert_cmpuint(last->packets[2].length, ==, 110);
    g_assert_cmpuint(last->packets[3].length, ==, 0);

    const UsbIsoPacket done[8] = {{0}}, half[4] = {{0}, {0, USB_STATUS_IOERROR}};
    fake_source_complete_iso(r->source, 0, done, 8, NULL);
    fake_source_complete_iso(r->source, 0, half, 4, NULL);
    usb_rig_run(r);
    g_assert_cmpuint(stats(r).iso_out.packets, ==, 11);
    g_assert_cmpuint(stats(r).iso_out.delivered, ==, 10);
    g_assert_cmpuint(stats(r).iso_out.failed, ==, 1);
    finish(r);
}

/* QEMU counts periods in frames, or microframes at high speed; bInterval is an exponent. */
static void test_interval(void)
{
    for (UsbSpeed speed = USB_SPEED_FULL; speed <= USB_SPEED_HIGH; speed++) {
        UsbRig *r = usb_rig_new(FAKE_HEADSET, speed, FREERDP);

        usb_rig_enumerate(r);
        fake_guest_set_alt(r->guest, 1, 1);
        usb_rig_run(r);
        const GuestPacket *p = fake_guest_find(r->guest, usb_redir_ep_info, UINT64_MAX);
        g_assert_nonnull(p);
        g_assert_cmpuint(p->ep.type[OUT], ==, usb_redir_type_iso);
        g_assert_cmpuint(p->ep.interval[OUT], ==, speed == USB_SPEED_FULL ? 1 : 8);
        g_assert_cmpuint(p->ep.max_packet_size[OUT], ==, 196);
        finish(r);
    }
}

static void test_refused(void)
{
    static const uint8_t bad[][3] = {{OUT, 0, 1},   {OUT, 33, 1},  {OUT, 10, 17},
                                     {0x83, 10, 6}, {0x04, 10, 6}, {0x81, 10, 6}};
    UsbRig *r = headset(USB_SPEED_FULL, FREERDP, 1000);

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        uint64_t id = fake_guest_start_iso(r->guest, bad[i][0], bad[i][1], bad[i][2]);
        g_assert_cmpuint(status_of(r, id)->status, ==, USB_STATUS_STALL);
    }
    send_packet(r, 0, 192);
    start_out(r);
    fake_guest_clear_log(r->guest);
    uint8_t large[200] = {0};
    fake_guest_iso_out(r->guest, OUT, large, 197);
    usb_rig_run(r);
    g_assert_cmpuint(r->guest->log[0].status, ==, USB_STATUS_INVAL);
    set_alt(r, 2, 0);
    uint64_t id = fake_guest_start_iso(r->guest, IN, 10, 6);
    g_assert_cmpuint(status_of(r, id)->status, ==, USB_STATUS_STALL);
    finish(r);
}

static void test_reset(void)
{
    UsbRig *r = headset(USB_SPEED_FULL, FREERDP, 1000);

    start_out(r);
    fake_guest_start_iso(r->guest, IN, 10, 6);
    for (unsigned i = 0; i < 100; i++)
        send_packet(r, i, 192);
    fake_guest_clear_log(r->guest);
    fake_guest_reset(r->guest);
    usb_rig_run(r);
    g_assert_cmpuint(fake_guest_count(r->guest, usb_redir_iso_stream_status), ==, 2);
    g_assert_cmpuint(stats(r).in_flight, ==, 0);
    usb_rig_enumerate(r);
    set_alt(r, 1, 1);
    start_out(r);
    for (unsigned i = 0; i < 100; i++)
        send_packet(r, i, 192);
    g_assert_cmpuint(r->source->n_pending, >, 5);
    fake_source_unplug(r->source);
    usb_rig_run(r);
    finish(r);
}

/* ---- IN ---- */

static unsigned start_in(UsbRig *r)
{
    uint64_t id = fake_guest_start_iso(r->guest, IN, PER_URB, 6);

    g_assert_cmpuint(status_of(r, id)->status, ==, USB_STATUS_SUCCESS);
    return fake_source_count(r->source, IN);
}

static void test_in_packets(void)
{
    UsbRig *r = headset(USB_SPEED_FULL, FREERDP, 50000);
    uint8_t data[PER_URB * 196];
    UsbIsoPacket packets[PER_URB];
    unsigned window = start_in(r);

    g_assert_cmpuint(window, ==, 17); /* 60 + 2 * 50 ms in 10 ms, and one */
    for (unsigned i = 0; i < PER_URB; i++)
        packets[i] = (UsbIsoPacket){.length = 90 + i};
    packets[2].status = USB_STATUS_IOERROR;
    packets[2].length = 0;
    packets[5].length = 0;
    for (unsigned i = 0, at = 0; i < PER_URB; at += packets[i++].length)
        memset(data + at, (int)i, packets[i].length);
    fake_guest_clear_log(r->guest);
    g_assert_cmpuint(r->source->pending[0].request.length, ==, PER_URB * 196);
    g_assert_cmpuint(r->source->pending[0].packets[9].length, ==, 196);
    fake_source_complete_iso(r->source, 0, packets, PER_URB, data);
    usb_rig_run(r);
    g_assert_cmpuint(r->guest->n_log, ==, PER_URB);
    for (unsigned i = 0; i < PER_URB; i++) {
        const GuestPacket *p = &r->guest->log[i];

        g_assert_cmpint(p->type, ==, usb_redir_iso_packet);
        g_assert_cmpuint(p->id, ==, i);
        g_assert_cmpuint(p->status, ==, packets[i].status);
        g_assert_cmpuint(p->length, ==, packets[i].length);
        for (uint32_t k = 0; k < p->length; k++)
            g_assert_cmpuint(p->data[k], ==, i);
    }
    g_assert_cmpuint(fake_source_count(r->source, IN), ==, window);

    /* given up by the client without harm: asked for again, and the guest hears nothing */
    fake_guest_clear_log(r->guest);
    fake_source_complete(r->source, 0, USB_STATUS_TIMEOUT, NULL, 0, true);
    usb_rig_run(r);
    g_assert_cmpuint(r->guest->n_log, ==, 0);
    g_assert_cmpuint(fake_source_count(r->source, IN), ==, window);

    /* failed as a whole: each of its times has passed */
    fake_source_complete(r->source, 0, USB_STATUS_IOERROR, NULL, 0, false);
    usb_rig_run(r);
    g_assert_cmpuint(fake_guest_count(r->guest, usb_redir_iso_packet), ==, PER_URB);
    g_assert_cmpuint(r->guest->log[4].status, ==, USB_STATUS_IOERROR);
    for (unsigned i = 0; i < 7; i++)
        fake_source_complete(r->source, 0, USB_STATUS_IOERROR, NULL, 0, false);
    usb_rig_run(r);
    g_assert_nonnull(fake_guest_find(r->guest, usb_redir_iso_stream_status, 0));
    g_assert_cmpuint(stats(r).in_flight, ==, 0);

    g_assert_cmpuint(start_in(r), ==, window);
    uint64_t id = fake_guest_stop_iso(r->guest, IN);
    g_assert_cmpuint(status_of(r, id)->status, ==, USB_STATUS_SUCCESS);
    g_assert_cmpuint(stats(r).in_flight, ==, 0);
    finish(r);
}

static void test_in_distance(void)
{
    static const uint64_t trips[] = {0, 2500, 25000, 60000};

    for (size_t i = 0; i < G_N_ELEMENTS(trips); i++) {
        UsbRig *r = headset(USB_SPEED_FULL, FREERDP, 2 * trips[i]);
        Sim *s = sim_new(r, trips[i]);
        unsigned window = start_in(r);

        for (unsigned ms = 0; ms < 5000; ms++)
            sim_step(s);
        g_assert_cmpuint(s->gaps, ==, 0);
        g_assert_cmpuint(stats(r).iso_in.gaps_network, ==, 0);
        s->blocked_until = r->now + 500000;
        for (unsigned ms = 0; ms < 5000; ms++)
            sim_step(s);
        g_assert_cmpuint(s->gaps, ==, 1);
        g_assert_cmpuint(stats(r).iso_in.gaps_network, ==, 1);
        g_assert_cmpuint(fake_source_count(r->source, IN), >, window);
        g_assert_cmpuint(stats(r).iso_in.delivered, >, 9000);
        finish(r);
        g_free(s);
    }
}

/* QEMU does not read: nothing is asked for, and nothing piles up. */
static void test_in_paused(void)
{
    UsbRig *r = headset(USB_SPEED_FULL, FREERDP, 1000);
    Sim *s = sim_new(r, 500);

    start_in(r);
    r->blocked = true;
    for (unsigned ms = 0; ms < 5000; ms++)
        sim_step(s);
    g_assert_cmpuint(fake_source_count(r->source, IN), ==, 0);
    unsigned sent = (unsigned)stats(r).iso_in.packets;
    g_assert_cmpuint(sent, <, 1300);
    r->blocked = false;
    usb_device_guest_writable(r->device);
    for (unsigned ms = 0; ms < 1000; ms++)
        sim_step(s);
    g_assert_cmpuint(stats(r).iso_in.packets, >=, sent + 900);
    finish(r);
    g_free(s);
}

/* Both directions, and a control request in between. */
static void test_both(void)
{
    UsbRig *r = headset(USB_SPEED_HIGH, FREERDP, 20000);

    start_out(r);
    start_in(r);
    for (unsigned i = 0; i < 100; i++)
        send_packet(r, i, 192);
    g_assert_cmpuint(fake_source_count(r->source, OUT), ==, 10);
    uint64_t id = fake_guest_control(r->guest, 0x80, 0, 0, 0, 2, NULL);
    usb_rig_run(r);
    g_assert_nonnull(fake_guest_find(r->guest, usb_redir_control_packet, id));
    finish(r);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/usb-iso/out/grouping", test_grouping);
    g_test_add_func("/usb-iso/out/start-up", test_start_up);
    g_test_add_func("/usb-iso/out/distance", test_distance);
    g_test_add_func("/usb-iso/out/guest-gap", test_guest_gap);
    g_test_add_func("/usb-iso/out/network-gap", test_network_gap);
    g_test_add_func("/usb-iso/out/own-gap", test_own_gap);
    g_test_add_func("/usb-iso/out/late-offer", test_late_offer);
    g_test_add_func("/usb-iso/out/beep", test_beep);
    g_test_add_func("/usb-iso/out/drain-limit", test_drain_limit);
    g_test_add_func("/usb-iso/out/too-fast", test_too_fast);
    g_test_add_func("/usb-iso/out/deaf-client", test_deaf_client);
    g_test_add_func("/usb-iso/out/errors", test_out_errors);
    g_test_add_func("/usb-iso/out/flush", test_flush);
    g_test_add_func("/usb-iso/out/whole-frames", test_whole_frames);
    g_test_add_func("/usb-iso/interval", test_interval);
    g_test_add_func("/usb-iso/refused", test_refused);
    g_test_add_func("/usb-iso/reset", test_reset);
    g_test_add_func("/usb-iso/in/packets", test_in_packets);
    g_test_add_func("/usb-iso/in/distance", test_in_distance);
    g_test_add_func("/usb-iso/in/paused", test_in_paused);
    g_test_add_func("/usb-iso/both", test_both);
    return g_test_run();
}
