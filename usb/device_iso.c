/*
 * Theory of operation
 *
 * An isochronous stream keeps an endpoint busy in every service interval. Nobody repeats a packet,
 * and a packet that is late is lost, so all here is about time: between the guest's bus and the
 * client's lies a network, and packets have to be under way early enough for the slowest of them.
 *
 * OUT. Packets of the guest are put into URBs of as many packets as QEMU suggested, and each URB is
 * one request. Where a client gives all packets of a request one size (FreeRDP, urbdrc.md 3.5) a
 * packet of another size begins a new URB, so that each packet stays what it was: 44.1 kHz audio
 * becomes URBs of nine packets and of one. Where a client wants whole frames, the last URB before a
 * pause is filled up with empty packets.
 *
 *      FILLING --enough collected, or stop--> RUNNING --stop--> DRAINING --all done--> ended
 *         ^                                      |
 *         +------- the device has run dry -------+
 *
 * In FILLING packets are collected; they leave all at once and lie at the client as the lead that
 * RUNNING then lives on. It is 60 ms, which QEMU found necessary for a guest's own jitter, one
 * round trip more, since that is how long a lost segment holds up what is behind it, and the time
 * that a request takes to fill up and to be noticed by the client. After a gap that the network
 * caused it grows by half.
 *
 * What lies at the client cannot be seen, but computed: .play_end is when the completion of the
 * last request is due if the device never waits. What would arrive there when its predecessor has
 * nearly ended comes too late: sending it at once would leave no lead for what follows, and perhaps
 * a gap at each request. So the stream is filled anew. Whose fault that is, device_isogap.c finds.
 * Completions correct .play_end (see IsoClock); when they turn out to be later than the sum of the
 * packets explains, the device has waited for us although all was on time here (gaps_network).
 *
 * More than the lead piles up when a guest catches up after it was held up, or when its clock is
 * faster than the device's. USB_ISO_MAX_EXCESS_US of that is carried as delay. Beyond it new
 * packets are dropped until the lead is normal again, so that one gap is heard and not many.
 *
 * When the guest stops, what it had sent is still played: a beep may be shorter than the lead.
 * SELECT_* requests wait for that (control_pump()), because they would silence the device, but no
 * longer than USB_ISO_DRAIN_US.
 *
 * IN. Requests for as many packets as QEMU suggested are kept outstanding, enough to cover the
 * round trip and the same 60 ms and one round trip. Each packet of a completion goes to QEMU,
 * failed ones too, since each stands for a time that has passed. QEMU collects 60 ms before the
 * guest sees the first and throws away what exceeds 120 ms. After a gap the window grows by half.
 *
 * Both: a request that fails as a whole is reported; ISO_MAX_ERRORS in a row end the stream with
 * stall, after which QEMU starts it again with the guest's next packet. OUT packets have no answer
 * in usbredir; that one has failed is told by an iso_stream_status, which fails the guest's next.
 */
#include "device_iso_priv.h"

#include <stdlib.h>

#define ISO_GAP_US 5000u /* later than that is a gap, not jitter */
#define ISO_WINDOW 8u    /* an IsoClock's: completions, and no less than ... */
#define ISO_WINDOW_US 100000u
#define ISO_MAX_WINDOW 64u /* IN requests */
#define MICROFRAME_US 125u

static void in_pump(UsbDevice *d, Pipe *pipe);

/* ---- beginning and end ---- */

static uint32_t period_of(const UsbDevice *d, const UsbEndpoint *e)
{
    UsbSpeed speed = d->descriptors->speed;
    unsigned exponent = (e->interval > 16 ? 16u : e->interval) - 1u;
    bool micro = speed == USB_SPEED_HIGH || speed == USB_SPEED_SUPER;

    return (micro ? MICROFRAME_US : 8 * MICROFRAME_US) << exponent;
}

/* Packets per URB: what QEMU wants, less if the URB became too large; where it has to be, a number
 * that fills whole frames. */
static uint32_t urb_size(const IsoStream *s, uint32_t wanted)
{
    uint32_t n = USB_ISO_MAX_URB_BYTES / s->packet_bytes;

    n = n > wanted ? wanted : n;
    return n < s->multiple ? s->multiple : n - n % s->multiple;
}

/* What a stream lives on while packets do not come as they should. */
static uint64_t margin(const UsbDevice *d)
{
    uint64_t us = USB_ISO_MIN_LEAD_US + device_round_trip(d);

    return us > USB_ISO_MAX_LEAD_US ? USB_ISO_MAX_LEAD_US : us;
}

static void set_window(IsoStream *s, uint32_t window)
{
    uint32_t most = USB_ISO_MAX_BYTES / (s->per_urb * s->packet_bytes);

    most = most < 2 ? 2 : most > ISO_MAX_WINDOW ? ISO_MAX_WINDOW : most;
    s->window = window > most ? most : window;
}

static IsoStream *stream_new(const UsbDevice *d, const UsbEndpoint *e, const RedirEvent *event)
{
    IsoStream *s = calloc(1, sizeof(*s));

    if (!s)
        abort();
    s->in = (e->address & 0x80) != 0;
    s->period = period_of(d, e);
    s->packet_bytes = e->interval_bytes;
    s->multiple = 1;
    if (d->source->quirks & USB_QUIRK_ISO_WHOLE_FRAMES && s->period < 8 * MICROFRAME_US)
        s->multiple = 8 * MICROFRAME_US / s->period;
    s->per_urb = urb_size(s, event->per_urb);

    uint32_t urb_us = s->per_urb * s->period;
    if (s->in) {
        uint64_t us = margin(d) + device_round_trip(d);
        uint32_t window = (uint32_t)((us + urb_us - 1) / urb_us) + 1;

        set_window(s, window < event->urbs ? event->urbs : window);
    } else {
        uint64_t half = (uint64_t)event->urbs * event->per_urb * s->period / 2;

        s->lead = margin(d) + urb_us + ISO_SLACK_US;
        if (s->lead < half)
            s->lead = half > USB_ISO_MAX_LEAD_US ? USB_ISO_MAX_LEAD_US : half;
    }
    return s;
}

/* Forgets the stream; what is at the source is withdrawn. */
void iso_end(UsbDevice *d, Pipe *pipe)
{
    IsoStream *s = pipe->iso;
    uint32_t cursor = 0;
    const Transfer *t;

    while (s->live > 0 && (t = transfer_next(&d->table, &cursor))) {
        if (!t->owner && t->endpoint == pipe->endpoint->address) {
            s->live--;
            d->iso_requests--;
            device_withdraw(d, t->id);
        }
    }
    iso_forget(d, pipe);
}

void iso_forget(UsbDevice *d, Pipe *pipe)
{
    IsoStream *s = pipe->iso;

    if (!s)
        return;
    d->iso_requests -= s->live;
    d->stats.iso_out.dropped += iso_list_clear(&s->waiting) + iso_list_clear(&s->sent);
    free(s);
    pipe->iso = NULL;
}

void iso_abort(UsbDevice *d, Pipe *pipe)
{
    if (!pipe->iso)
        return;
    bool told = pipe->iso->state == ISO_DRAINING; /* QEMU has stopped it itself */
    iso_end(d, pipe);
    if (!told)
        redir_send_iso_status(d->redir, 0, USB_STATUS_STALL, pipe->endpoint->address);
}

void iso_start(UsbDevice *d, const RedirEvent *event)
{
    Pipe *pipe = &d->pipes[pipe_index(event->endpoint)];
    const UsbEndpoint *e = pipe->endpoint;

    if (!d->selected || !d->source || !e || e->address != event->endpoint ||
        e->type != USB_ENDPOINT_ISO || e->interval_bytes == 0 || event->per_urb < 1 ||
        event->per_urb > USB_ISO_MAX_PACKETS_PER_URB || event->urbs > USB_ISO_MAX_URBS) {
        redir_send_iso_status(d->redir, event->id, USB_STATUS_STALL, event->endpoint);
        return;
    }
    if (!pipe->iso)
        pipe->iso = stream_new(d, e, event);
    else if (pipe->iso->state == ISO_DRAINING) /* a pause; its rest stays in front of what comes */
        pipe->iso->state = ISO_FILLING;
    redir_send_iso_status(d->redir, event->id, USB_STATUS_SUCCESS, event->endpoint);
    if (pipe->iso->in)
        in_pump(d, pipe);
}

void iso_stop(UsbDevice *d, uint64_t id, uint8_t endpoint)
{
    Pipe *pipe = &d->pipes[pipe_index(endpoint)];
    IsoStream *s = pipe->iso;

    redir_send_iso_status(d->redir, id, USB_STATUS_SUCCESS, endpoint);
    if (!s || pipe->endpoint->address != endpoint)
        return;
    if (s->in) {
        iso_end(d, pipe);
        return;
    }
    iso_out_stop(d, pipe);
}

bool iso_plays(const UsbDevice *d)
{
    for (unsigned i = 0; i < DEVICE_PIPES / 2; i++) {
        if (d->pipes[i].iso)
            return true;
    }
    return false;
}

bool iso_pipe_draining(const Pipe *pipe)
{
    return pipe->iso && pipe->iso->state == ISO_DRAINING;
}

bool iso_draining(const UsbDevice *d)
{
    for (unsigned i = 0; i < DEVICE_PIPES; i++) {
        if (iso_pipe_draining(&d->pipes[i]))
            return true;
    }
    return false;
}

/* ---- time ---- */

/* Takes how late a completion was. Returns by how much what was computed has to be moved. */
static int64_t clock_observe(IsoClock *c, uint64_t now, int64_t late)
{
    int64_t shift = 0;

    if (late < 0) { /* at once: all others of the window were later than this one */
        shift = late;
        late = 0;
        c->least = 0;
    }
    if (c->n == 0) {
        c->since = now;
        c->least = late;
    }
    if (late < c->least)
        c->least = late;
    if (++c->n < ISO_WINDOW || now - c->since < ISO_WINDOW_US)
        return shift;
    c->n = 0;
    return shift + c->least;
}

/* A completion came that had been expected at @due. */
void iso_observe(UsbDevice *d, IsoStream *s, uint64_t due)
{
    int64_t shift = clock_observe(&s->clock, d->now, (int64_t)(d->now - due));

    s->play_end += (uint64_t)shift;
    for (IsoUrb *urb = s->sent.head; urb && shift; urb = urb->next)
        urb->end += (uint64_t)shift;
    if (!s->clock.settled && !s->in && shift != 0) /* the round trip is not what was thought */
        device_note_round_trip(d, (uint64_t)((int64_t)device_round_trip(d) + shift));
    if (s->clock.n > 0)
        return;

    bool late = s->clock.settled && shift > (int64_t)ISO_GAP_US && shift > 2 * (int64_t)s->period;
    if (late && !s->clock.late) {
        iso_stats(d, s)->gaps_network++;
        s->lead += s->lead / 2;
        if (s->lead > USB_ISO_MAX_LEAD_US)
            s->lead = USB_ISO_MAX_LEAD_US;
        if (s->in)
            set_window(s, s->window + s->window / 2);
    }
    s->clock.late = late;
    s->clock.settled = true;
}

/* ---- IN ---- */

bool iso_room(UsbDevice *d)
{
    if (d->iso_requests < USB_ISO_MAX_REQUESTS &&
        d->table.in_flight + DEVICE_CONTROL_RESERVE < USB_MAX_IN_FLIGHT)
        return true;
    d->starved = true;
    return false;
}

static void in_pump(UsbDevice *d, Pipe *pipe)
{
    IsoStream *s = pipe->iso;
    UsbIsoPacket packets[USB_ISO_MAX_PACKETS_PER_URB];

    if (redir_congested(d->redir))
        d->streams_paused = true;
    for (uint32_t i = 0; i < s->per_urb; i++)
        packets[i] = (UsbIsoPacket){.length = s->packet_bytes};
    while (!d->streams_paused && s->live < s->window) {
        UsbRequest request = {
            .kind = USB_REQUEST_ISO,
            .endpoint = pipe->endpoint->address,
            .length = s->per_urb * s->packet_bytes,
            .n_packets = s->per_urb,
            .packets = packets,
        };

        if (!iso_room(d))
            return;
        if (!device_submit(d, &request, TRANSFER_TIMER_ISO, NULL)) {
            if (s->live == 0)
                iso_abort(d, pipe);
            return;
        }
        if (s->live == 0) /* everything begins anew: nothing is known of when it ends */
            s->play_end = 0;
        s->live++;
        d->iso_requests++;
    }
}

static void deliver(UsbDevice *d, Pipe *pipe, const UsbCompletion *c)
{
    IsoStream *s = pipe->iso;
    uint32_t at = 0;

    for (uint32_t i = 0; i < s->per_urb; i++) {
        bool have = c->status == USB_STATUS_SUCCESS && i < c->n_packets;
        UsbStatus status = have                              ? c->packets[i].status
                           : c->status != USB_STATUS_SUCCESS ? c->status
                                                             : USB_STATUS_IOERROR;
        uint32_t length = have && status == USB_STATUS_SUCCESS ? c->packets[i].length : 0;

        if (length > s->packet_bytes || length > c->length - at) { /* the source has checked */
            status = USB_STATUS_BABBLE;
            length = 0;
        }
        d->stats.iso_in.packets++;
        *(status == USB_STATUS_SUCCESS ? &d->stats.iso_in.delivered : &d->stats.iso_in.failed) += 1;
        redir_send_iso(d->redir, s->next_id++, status, pipe->endpoint->address,
                       length ? c->data + at : NULL, length);
        at += length;
    }
    d->stats.bytes_in += at;
}

static void complete_in(UsbDevice *d, Pipe *pipe, const UsbCompletion *c)
{
    IsoStream *s = pipe->iso;
    uint32_t urb_us = s->per_urb * s->period;

    if (c->status == USB_STATUS_SUCCESS) {
        s->errors = 0;
        if (s->play_end == 0) {
            s->play_end = d->now;
            s->clock = (IsoClock){0};
        } else {
            s->play_end += urb_us;
        }
        iso_observe(d, s, s->play_end);
        deliver(d, pipe, c);
    } else if (!c->retry_in) {
        deliver(d, pipe, c);
        if (++s->errors >= ISO_MAX_ERRORS) {
            iso_abort(d, pipe);
            return;
        }
    } else {
        s->play_end = 0;
    }
    in_pump(d, pipe);
}

/* ---- what device.c calls ---- */

void iso_complete(UsbDevice *d, const Transfer *transfer, const UsbCompletion *c)
{
    Pipe *pipe = &d->pipes[pipe_index(transfer->endpoint)];

    pipe->iso->live--;
    d->iso_requests--;
    if (pipe->iso->in)
        complete_in(d, pipe, c);
    else
        iso_out_complete(d, pipe, c);
}

void iso_pump(UsbDevice *d, Pipe *pipe)
{
    if (!pipe->iso)
        return;
    if (pipe->iso->in)
        in_pump(d, pipe);
    else
        iso_out_pump(d, pipe);
}

uint64_t iso_deadline(const UsbDevice *d)
{
    uint64_t deadline = UINT64_MAX;

    for (unsigned i = 0; i < DEVICE_PIPES; i++) {
        const IsoStream *s = d->pipes[i].iso;

        if (s && !s->in && iso_out_deadline(s) < deadline)
            deadline = iso_out_deadline(s);
    }
    return deadline;
}

void iso_tick(UsbDevice *d)
{
    for (unsigned i = 0; i < DEVICE_PIPES; i++) {
        if (d->pipes[i].iso && !d->pipes[i].iso->in)
            iso_out_tick(d, &d->pipes[i]);
    }
}
