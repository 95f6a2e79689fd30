/*
 * A hostile client and a hostile guest at once, with everything of ours that is between them:
 * channels/urbdrc*.c and usb/ as peer_usb.c and slot.c put them together, under a clock.
 *
 * The input is a script. Its first byte chooses the device, the second how far a session gets
 * before the script begins. Each operation is a byte and what it reads. Time passes only by
 * operations, and every deadline on the way is met.
 *
 * What must hold, beside what hostile_client.c and hostile_guest.c assert: deadlines move on (no
 * spinning), what is announced goes, and at the end, when everybody behaves and time passes, each
 * packet of a guest whose device is still there has had exactly one answer.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "hostile_client.h"
#include "hostile_guest.h"
#include "log.h"
#include "urbdrc.h"

#define MAX_SEATS 6u
#define MAX_SCRIPT 8192u
#define MAX_STEPS 1000000u
#define MAX_CLIENTS 4u

/* One device on its way to the guest, as peer_usb.c's Device with its Slot. */
typedef struct Seat {
    struct Session *session;
    UsbSource *source;
    UsbProbe *probe;
    UsbReplay *replay;
    struct Seat *returning; /* whose suspended device .replay brings back */
    UsbDescriptors *descriptors;
    UsbDevice *device;
    HostileGuest *guest;
    bool used, over, blocked, dead;
} Seat;

typedef struct Session {
    DvcManager *manager;
    Urbdrc *urbdrc;
    HostileClient *client;
    unsigned clients;
    uint64_t now;
    size_t chunk;
    unsigned profile;
    uint32_t usb_device;
    Seat seats[MAX_SEATS];
} Session;

/* --- a seat's device --- */

static ptrdiff_t guest_write(void *user, const uint8_t *data, size_t len)
{
    Seat *seat = user;

    if (seat->dead)
        return -1;
    if (seat->blocked)
        return 0;
    hostile_guest_receive(seat->guest, data, len);
    return (ptrdiff_t)len;
}

static void state_changed(void *user, UsbDeviceState state, const char *why)
{
    Seat *seat = user;

    assert(why && *why);
    if (state == USB_DEVICE_GONE)
        seat->source = NULL;
    if (state != USB_DEVICE_HELLO && state != USB_DEVICE_CONNECTED)
        seat->over = true;
}

static const UsbDeviceCallbacks device_callbacks = {.guest_write = guest_write,
                                                    .state_changed = state_changed};

static void parked_complete(void *user, const UsbCompletion *completion)
{
}

static void parked_gone(void *user, const char *why)
{
    ((Seat *)user)->source = NULL;
    ((Seat *)user)->over = true;
}

static const UsbSink parked = {.complete = parked_complete, .gone = parked_gone};

static void attach(Seat *seat)
{
    if (seat->device || !seat->source || !seat->descriptors || seat->over || seat->replay)
        return;
    seat->guest = hostile_guest_new();
    seat->dead = seat->blocked = false;
    seat->device = usb_device_new(seat->descriptors, seat->source, seat->session->now,
                                  &device_callbacks, seat);
}

static void detach(Seat *seat)
{
    if (!seat->device)
        return;
    usb_device_free(seat->device);
    seat->device = NULL;
    hostile_guest_check(seat->guest, false);
    hostile_guest_free(seat->guest);
    seat->guest = NULL;
    if (seat->source)
        usb_source_set_sink(seat->source, &parked, seat);
}

static void vacate(Seat *seat)
{
    usb_replay_free(seat->replay);
    seat->replay = NULL;
    usb_probe_free(seat->probe);
    seat->probe = NULL;
    detach(seat);
    if (seat->source) {
        usb_source_set_sink(seat->source, NULL, NULL);
        seat->source->ops->retire(seat->source, "its seat is needed");
    }
    seat->source = NULL;
    if (seat->descriptors)
        usb_descriptors_unref(seat->descriptors);
    seat->descriptors = NULL;
    seat->used = false;
}

/* --- a client that was away brings a device back --- */

static void replayed(void *user, const char *error)
{
    Seat *seat = user, *home = seat->returning;

    usb_replay_free(seat->replay);
    seat->replay = NULL;
    seat->returning = NULL;
    if (error) {
        home->over = true;
        if (seat->source && !seat->source->gone)
            usb_source_set_sink(seat->source, &parked, seat);
        else
            seat->source = NULL;
        seat->over = !seat->source;
        return;
    }
    usb_device_resume(home->device, seat->source, seat->session->now);
    home->source = seat->source;
    seat->source = NULL;
    seat->over = true;
}

static Seat *find_suspended(Session *s, const UsbDescriptors *d)
{
    for (unsigned i = 0; i < MAX_SEATS; i++) {
        Seat *seat = &s->seats[i];
        bool taken = false;
        for (unsigned k = 0; k < MAX_SEATS; k++)
            taken |= s->seats[k].returning == seat;
        if (seat->used && !seat->over && !taken && seat->device &&
            usb_device_is_suspended(seat->device) &&
            usb_descriptors_same(usb_device_descriptors(seat->device), d))
            return seat;
    }
    return NULL;
}

static void probed(void *user, UsbDescriptors *descriptors, const char *error)
{
    Seat *seat = user;

    usb_probe_free(seat->probe);
    seat->probe = NULL;
    assert(!descriptors == !!error);
    if (!descriptors) {
        if (!seat->source->gone) {
            usb_source_set_sink(seat->source, NULL, NULL);
            seat->source->ops->retire(seat->source, error);
        }
        seat->source = NULL;
        seat->over = true;
        return;
    }
    seat->descriptors = descriptors;
    seat->returning = find_suspended(seat->session, descriptors);
    if (seat->returning)
        seat->replay = usb_replay_new(seat->returning->device, seat->source, seat->session->now,
                                      replayed, seat);
    else
        attach(seat);
}

static void device_added(void *user, UsbSource *source)
{
    Session *s = user;

    for (unsigned i = 0; i < MAX_SEATS; i++) {
        Seat *seat = &s->seats[i];
        if (seat->used)
            continue;
        *seat = (Seat){.session = s, .used = true, .source = source};
        seat->probe = usb_probe_new(source, s->now, probed, seat);
        return;
    }
    source->ops->retire(source, "there is no seat");
}

static void unavailable(void *user, const char *why)
{
}

static const UrbdrcCallbacks urbdrc_callbacks = {.device_added = device_added,
                                                 .unavailable = unavailable};

/* --- the loop --- */

static bool pump_seat(Session *s, Seat *seat)
{
    bool moved = false;
    size_t len;

    if (seat->over) {
        /* A device that comes back leaves its seat to the one that waited for it. */
        for (unsigned k = 0; k < MAX_SEATS; k++) {
            Seat *other = &s->seats[k];
            if (other->returning == seat) {
                usb_replay_free(other->replay);
                other->replay = NULL;
                other->returning = NULL;
                other->over = true;
            }
        }
        vacate(seat);
        return true;
    }
    if (!seat->device)
        return false;
    if (!seat->blocked && usb_device_has_guest_bytes(seat->device))
        usb_device_guest_writable(seat->device);
    if (!seat->over && usb_device_wants_guest_bytes(seat->device)) {
        uint8_t *bytes = hostile_guest_take(seat->guest, s->chunk, &len);
        if (bytes) {
            usb_device_guest_bytes(seat->device, bytes, len, s->now);
            moved = true;
        }
        free(bytes);
    }
    return moved;
}

static void pump(Session *s)
{
    unsigned steps = 0;

    for (bool moved = true; moved; assert(++steps < MAX_STEPS)) {
        moved = hostile_client_read(s->client);
        for (unsigned i = 0; i < MAX_SEATS; i++)
            if (s->seats[i].used)
                moved |= pump_seat(s, &s->seats[i]);
    }
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t deadline(const Session *s)
{
    uint64_t next = urbdrc_deadline(s->urbdrc);

    for (unsigned i = 0; i < MAX_SEATS; i++) {
        const Seat *seat = &s->seats[i];
        if (seat->probe)
            next = sooner(next, usb_probe_deadline(seat->probe));
        if (seat->replay)
            next = sooner(next, usb_replay_deadline(seat->replay));
        if (seat->device)
            next = sooner(next, usb_device_deadline(seat->device));
    }
    return next;
}

static void tick(Session *s)
{
    urbdrc_tick(s->urbdrc, s->now);
    for (unsigned i = 0; i < MAX_SEATS; i++) {
        Seat *seat = &s->seats[i];
        if (seat->probe && usb_probe_deadline(seat->probe) <= s->now)
            usb_probe_tick(seat->probe, s->now);
        if (seat->replay && usb_replay_deadline(seat->replay) <= s->now)
            usb_replay_tick(seat->replay, s->now);
        if (seat->device && usb_device_deadline(seat->device) <= s->now)
            usb_device_tick(seat->device, s->now);
    }
    pump(s);
}

static void pass(Session *s, uint64_t us)
{
    uint64_t until = s->now + us;
    unsigned idle = 0;

    pump(s);
    for (;;) {
        uint64_t next = deadline(s);
        if (next > until)
            break;
        idle = next > s->now ? 0 : idle + 1;
        assert(idle < 1000); /* a deadline that is due stays due: the thread would spin */
        if (next > s->now)
            s->now = next;
        tick(s);
    }
    s->now = until;
    tick(s);
}

/* --- clients come and go --- */

static void connect_client(Session *s)
{
    s->manager = fake_dvc_manager_new();
    s->urbdrc = urbdrc_new(s->manager, "mallory", s->now, &urbdrc_callbacks, s);
    s->client = hostile_client_new(s->manager, s->profile, s->usb_device);
    fake_dvc_accept(fake_dvc_nth(s->manager, 0));
}

/* @grace: devices that can wait for the client do. */
static void disconnect_client(Session *s, bool grace)
{
    const char *why;

    for (unsigned i = 0; i < MAX_SEATS; i++) {
        Seat *seat = &s->seats[i];
        if (grace && seat->device && !seat->over && !usb_device_is_suspended(seat->device) &&
            usb_device_can_suspend(seat->device, &why)) {
            usb_device_suspend(seat->device);
            seat->source = NULL;
        }
    }
    urbdrc_free(s->urbdrc);
    for (unsigned i = 0; i < MAX_SEATS; i++)
        assert(!s->seats[i].source);
    hostile_client_free(s->client);
    fake_dvc_manager_free(s->manager);
}

static void proceed(Session *s, unsigned rounds)
{
    pass(s, 1);
    while (rounds-- > 0 && hostile_client_pending(s->client) > 0) {
        hostile_client_answer(s->client, 0, HOSTILE_PROPER, 0);
        pass(s, 10);
    }
}

static Dvc *accept_all(Session *s)
{
    Dvc *last = NULL;

    for (size_t i = 0; i < fake_dvc_count(s->manager); i++) {
        last = fake_dvc_nth(s->manager, i);
        if (!fake_dvc_dead(last) && !dvc_is_open(last))
            fake_dvc_accept(last);
    }
    return last;
}

/* --- the script --- */

static void client_operation(Session *s, Reader *r, uint8_t what)
{
    uint8_t arg = reader_u8(r);
    unsigned pending = hostile_client_pending(s->client);
    Dvc *dvc = fake_dvc_nth(s->manager, arg % fake_dvc_count(s->manager));

    switch (what) {
    case 0:
        if (pending > 0) {
            uint8_t how = reader_u8(r);
            hostile_client_answer(s->client, arg % pending, (HostileHow)(how % HOSTILE_N_HOWS),
                                  reader_u16(r));
        }
        break;
    case 1: {
        size_t want = reader_u8(r), len = want < reader_left(r) ? want : reader_left(r);
        const uint8_t *data = reader_bytes(r, len);
        if (data && !fake_dvc_dead(dvc))
            fake_dvc_receive(dvc, data, len);
        break;
    }
    case 2:
        if (!fake_dvc_dead(dvc) && arg >= 0x80)
            fake_dvc_end(dvc, (DvcCloseReason)(arg % 4));
        else
            accept_all(s);
        break;
    case 3:
        hostile_client_profile(s->client, arg);
        hostile_client_patch(s->client, reader_u8(r), reader_u8(r));
        if (!fake_dvc_dead(fake_dvc_nth(s->manager, 0)))
            hostile_client_announce(s->client);
        pass(s, 1);
        accept_all(s);
        break;
    case 4:
        if (s->clients >= MAX_CLIENTS)
            break;
        s->clients++;
        disconnect_client(s, arg & 1);
        connect_client(s);
        proceed(s, 1);
        accept_all(s);
        proceed(s, arg >> 2);
        break;
    default:
        fake_dvc_set_queued(s->manager, DVC_URGENT, (size_t)arg << 14);
        break;
    }
}

static void seat_operation(Session *s, Reader *r, uint8_t what)
{
    uint8_t arg = reader_u8(r);
    Seat *seat = &s->seats[(arg & 7) % MAX_SEATS];

    if (!seat->used || seat->over)
        return;
    switch (what) {
    case 0:
        if (seat->guest) {
            size_t len = reader_u8(r);
            const uint8_t *data = len <= reader_left(r) ? reader_bytes(r, len) : NULL;
            if (data)
                hostile_guest_raw(seat->guest, data, len);
        }
        break;
    case 1:
        seat->blocked = arg & 0x80;
        break;
    case 2:
        if (seat->device && !usb_device_is_suspended(seat->device))
            detach(seat);
        break;
    case 3:
        if (!seat->probe)
            attach(seat);
        break;
    case 4:
        if (seat->source && !seat->replay && arg & 0x80) {
            detach(seat);
            usb_probe_free(seat->probe);
            seat->probe = NULL;
            seat->over = true;
        }
        break;
    default:
        if (arg & 0x80)
            seat->dead = true;
        else if (seat->guest)
            hostile_guest_configure(seat->guest);
        break;
    }
}

static void operation(Session *s, Reader *r)
{
    uint8_t op = reader_u8(r);
    Seat *seat = &s->seats[op / 32 % MAX_SEATS];

    switch (op % 32) {
    case 0 ... 5:
        client_operation(s, r, op % 32);
        break;
    case 6 ... 11:
        seat_operation(s, r, op % 32 - 6);
        break;
    case 12 ... 21:
        if (seat->guest && !seat->over)
            hostile_guest_act(seat->guest, r);
        break;
    case 22 ... 26:
        proceed(s, op / 32 + 1);
        break;
    case 27:
        pass(s, (uint64_t)reader_u8(r) * 1000);
        break;
    case 28:
        pass(s, (uint64_t)reader_u8(r) * 100000);
        break;
    case 29:
        pass(s, 0);
        break;
    case 30: {
        unsigned pending = hostile_client_pending(s->client);
        if (pending > 0) /* the youngest: out of order */
            hostile_client_answer(s->client, pending - 1, HOSTILE_PROPER, 0);
        break;
    }
    default:
        s->chunk = op & 32 ? 5 : 65536;
        break;
    }
    pump(s);
}

/* Everybody behaves, and time passes: what is asked gets its answer. */
static void settle(Session *s)
{
    fake_dvc_set_queued(s->manager, DVC_URGENT, 0);
    s->chunk = 65536;
    for (unsigned i = 0; i < MAX_SEATS; i++) {
        Seat *seat = &s->seats[i];
        seat->blocked = false;
        if (seat->used && seat->guest && !seat->over)
            hostile_guest_cancel_all(seat->guest);
    }
    for (unsigned i = 0; i < 12; i++) {
        proceed(s, 16);
        pass(s, 2000000);
    }
    for (unsigned i = 0; i < MAX_SEATS; i++) {
        Seat *seat = &s->seats[i];
        if (seat->used && !seat->over && seat->device && !seat->dead &&
            !usb_device_is_suspended(seat->device) &&
            usb_device_state(seat->device) == USB_DEVICE_CONNECTED)
            hostile_guest_check(seat->guest, true);
    }
}

static void prepare(Session *s, uint8_t depth)
{
    if (depth % 4 == 0)
        return;
    proceed(s, 1);
    accept_all(s);
    proceed(s, depth % 4 == 1 ? 2 : 64);
    if (depth % 4 == 3 && s->seats[0].guest) {
        hostile_guest_configure(s->seats[0].guest);
        proceed(s, 16);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Session s = {.now = 1000000, .chunk = 65536};
    Reader r;

    if (size < 2 || size > MAX_SCRIPT)
        return 0;
    log_set_level(LOG_LEVEL_ERROR);
    reader_init(&r, data, size);
    s.profile = reader_u8(&r);
    uint8_t depth = reader_u8(&r);
    s.usb_device = depth & 0x80 ? 0 : 5;
    connect_client(&s);
    prepare(&s, depth);
    while (reader_left(&r) > 0)
        operation(&s, &r);
    settle(&s);
    disconnect_client(&s, depth & 0x40);
    for (unsigned i = 0; i < MAX_SEATS; i++)
        vacate(&s.seats[i]);
    return 0;
}
