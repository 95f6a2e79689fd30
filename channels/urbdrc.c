/*
 * Theory of operation
 *
 * One control channel per connection, on which the client asks for device channels, and one
 * channel per device (MS-RDPEUSB 1.3.1). All are called URBDRC and all do the same handshake:
 *
 *      OPENING --accepted--> CAPS --response--> CREATED --CHANNEL_CREATED--> READY or DEVICE
 *
 * and on leaving CREATED we send RIMCALL_RELEASE for interface 2, exactly once: FreeRDP announces
 * nothing before it, Windows accepts it (urbdrc.md 0.1). The control channel then stays READY; a
 * device channel waits in DEVICE for ADD_DEVICE and becomes ACTIVE with a UrbdrcSource that speaks
 * for the device.
 *
 * The protocol does not say which announcement a channel belongs to: FreeRDP binds the next unsent
 * device to whichever channel is released next. Device channels are therefore opened one after the
 * other. FreeRDP may announce a device twice, and the surplus channel never gets a device: it may
 * hold the line up for URBDRC_SERIAL_US and is closed quietly after URBDRC_HANDSHAKE_US.
 *
 * A device that is plugged in during the session is announced at once, while the client's system
 * may still be loading a driver for it. FreeRDP asks drivers to let go once, when its device
 * channel is released, and one that comes later keeps the device: SELECT_CONFIGURATION succeeds and
 * every transfer hangs. So the channel of such a device is opened URBDRC_SETTLE_US later.
 *
 * Messages do not carry the time. A timer that a message starts is kept as a duration and becomes a
 * deadline at the next tick, which urbdrc_deadline() asks for at once.
 */
#include "urbdrc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "urbdrc_source.h"

#define CHANNEL_NAME                                                                               \
    "URBDRC" /* FreeRDP's own header has it in lower case, which no client hears                   \
              */
#define PROTOCOL_VERSION 1u

typedef enum ChannelState {
    CHANNEL_OPENING,
    CHANNEL_CAPS,
    CHANNEL_CREATED,
    CHANNEL_READY,  /* control channel only */
    CHANNEL_DEVICE, /* device channel only, and so are the rest */
    CHANNEL_ACTIVE,
    CHANNEL_RETRACTING,
} ChannelState;

static const char *const state_names[] = {"opening", "caps",   "created",   "ready",
                                          "device",  "active", "retracting"};

typedef struct Timer {
    uint32_t duration_us; /* 0: off */
    uint64_t deadline;    /* 0: started, not armed yet */
} Timer;

typedef struct Channel {
    Urbdrc *urbdrc;
    Dvc *dvc;
    bool control;
    ChannelState state;
    Timer timer;
    Timer serial; /* while it runs, no other device channel is opened */
    uint32_t message_id;
    uint32_t ignored;
    UrbdrcSource *source;
    char hardware_id[96];
} Channel;

struct Urbdrc {
    DvcManager *manager;
    const UrbdrcCallbacks *callbacks;
    void *user;
    char label[64];
    Channel *control; /* NULL once it is gone */
    Channel *devices[URBDRC_MAX_DEVICES];
    uint32_t n_devices;
    uint32_t announced;      /* ADD_VIRTUAL_CHANNELs that have no channel yet */
    Timer begin;             /* while it runs, what is announced was there before the session */
    Timer settle;            /* while it runs, no device channel is opened */
    const char *unavailable; /* to be reported by the next tick */
    bool reported;
    uint64_t now;
    LogLimit surplus_limit;
    UrbdrcEvidence evidence;
    const UrbdrcFlavour *flavour; /* as the last device spoke for, NULL before the first */
    char reasons[URBDRC_EVIDENCE_SIZE];
};

static void open_next_device(Urbdrc *u);

/* ---- timers ---- */

static void timer_start(Timer *timer, uint32_t duration_us)
{
    *timer = (Timer){.duration_us = duration_us};
}

static void timer_stop(Timer *timer)
{
    *timer = (Timer){0};
}

static uint64_t timer_deadline(const Timer *timer)
{
    return timer->duration_us ? timer->deadline : UINT64_MAX;
}

/* True once when it has run out. */
static bool timer_tick(Timer *timer, uint64_t now)
{
    if (timer->duration_us == 0)
        return false;
    if (timer->deadline == 0) {
        timer->deadline = now + timer->duration_us;
        return false;
    }
    if (now < timer->deadline)
        return false;
    timer_stop(timer);
    return true;
}

/* ---- channels come and go ---- */

static void report_unavailable(Urbdrc *u, const char *why)
{
    if (u->reported)
        return;
    u->reported = true;
    if (u->callbacks->unavailable)
        u->callbacks->unavailable(u->user, why);
}

static void forget_channel(Channel *c)
{
    Urbdrc *u = c->urbdrc;

    if (c->control) {
        u->control = NULL;
        return;
    }
    for (uint32_t i = 0; i < u->n_devices; i++) {
        if (u->devices[i] == c) {
            memmove(&u->devices[i], &u->devices[i + 1],
                    (u->n_devices - i - 1) * sizeof(u->devices[0]));
            u->n_devices--;
            return;
        }
    }
}

/* The Dvc is closed, or about to be by the caller. */
static void end_channel(Channel *c, const char *why)
{
    Urbdrc *u = c->urbdrc;
    bool control = c->control;

    forget_channel(c);
    urbdrc_source_free(c->source, why);
    free(c);
    if (control)
        report_unavailable(u, why);
    else
        open_next_device(u);
}

static void close_channel(Channel *c, const char *why)
{
    Dvc *dvc = c->dvc;

    c->dvc = NULL;
    dvc_close(dvc);
    end_channel(c, why);
}

/* The client is wrong: one line that says how, and the channel goes. */
static void blame_client(Channel *c, const char *what)
{
    log_warning(c->urbdrc->label, "USB %schannel %u closed, the client is at fault: %s",
                c->control ? "control " : "", dvc_id(c->dvc), what);
    close_channel(c, what);
}

static void on_opened(Dvc *dvc, void *user);
static void on_message(Dvc *dvc, const uint8_t *data, size_t len, void *user);
static void on_closed(Dvc *dvc, DvcCloseReason reason, void *user);

static const DvcCallbacks dvc_callbacks = {
    .opened = on_opened, .message = on_message, .closed = on_closed};

static Channel *open_channel(Urbdrc *u, bool control)
{
    Channel *c = calloc(1, sizeof(*c));

    if (!c)
        abort();
    c->urbdrc = u;
    c->control = control;
    timer_start(&c->timer, URBDRC_HANDSHAKE_US);
    c->dvc = dvc_open(u->manager, CHANNEL_NAME, URBDRC_MAX_MESSAGE, DVC_URGENT, &dvc_callbacks, c);
    if (!c->dvc) {
        free(c);
        return NULL;
    }
    return c;
}

static bool line_is_busy(const Urbdrc *u)
{
    for (uint32_t i = 0; i < u->n_devices; i++) {
        const Channel *c = u->devices[i];
        if (c->state < CHANNEL_DEVICE || (c->state == CHANNEL_DEVICE && c->serial.duration_us))
            return true;
    }
    return false;
}

static void open_next_device(Urbdrc *u)
{
    if (u->announced == 0 || !u->control || u->control->state != CHANNEL_READY ||
        u->settle.duration_us || line_is_busy(u))
        return;
    if (u->n_devices >= URBDRC_MAX_DEVICES) {
        log_warning(u->label, "no channel for another USB device: %u are open", u->n_devices);
        u->announced = 0;
        return;
    }
    u->announced--;
    Channel *c = open_channel(u, false);
    if (!c) {
        log_warning(u->label, "cannot open a channel for a USB device: the connection has no more");
        u->announced = 0;
        return;
    }
    u->devices[u->n_devices++] = c;
}

/* ---- handshake ---- */

static void send_on(Channel *c, const UrbdrcMessage *message)
{
    Writer w;

    writer_init(&w, 64);
    urbdrc_write_message(&w, message);
    if (writer_ok(&w))
        dvc_send(c->dvc, w.data, w.len);
    writer_clear(&w);
}

static void enter(Channel *c, ChannelState state, uint32_t timeout_us)
{
    c->state = state;
    timer_stop(&c->timer);
    if (timeout_us)
        timer_start(&c->timer, timeout_us);
}

static void on_opened(Dvc *dvc, void *user)
{
    Channel *c = user;

    (void)dvc;
    send_on(c, &(UrbdrcMessage){.kind = URBDRC_CAPS_REQUEST,
                                .interface_id = URBDRC_INTERFACE_CAPABILITIES,
                                .message_id = c->message_id++,
                                .caps.value = PROTOCOL_VERSION});
    enter(c, CHANNEL_CAPS, URBDRC_HANDSHAKE_US);
}

static void on_caps(Channel *c, const UrbdrcMessage *m)
{
    if (m->caps.hresult != 0 || m->caps.value != PROTOCOL_VERSION) {
        char what[96];

        snprintf(what, sizeof(what), "it answered capabilities with version %u, HRESULT 0x%08x",
                 m->caps.value, m->caps.hresult);
        blame_client(c, what);
        return;
    }
    send_on(c, &(UrbdrcMessage){.kind = URBDRC_CHANNEL_CREATED,
                                .interface_id = URBDRC_INTERFACE_TO_CLIENT,
                                .message_id = c->message_id++,
                                .created.major = 1});
    enter(c, CHANNEL_CREATED, URBDRC_HANDSHAKE_US);
}

static void on_created(Channel *c, const UrbdrcMessage *m)
{
    if (m->created.major != 1 || m->created.minor != 0) {
        char what[64];

        snprintf(what, sizeof(what), "CHANNEL_CREATED with version %u.%u", m->created.major,
                 m->created.minor);
        blame_client(c, what);
        return;
    }
    send_on(c, &(UrbdrcMessage){.kind = URBDRC_RELEASE,
                                .interface_id = URBDRC_INTERFACE_TO_CLIENT,
                                .message_id = c->message_id++});
    if (c->control) {
        enter(c, CHANNEL_READY, 0);
        timer_start(&c->urbdrc->begin, URBDRC_BEGIN_US);
        open_next_device(c->urbdrc);
    } else {
        enter(c, CHANNEL_DEVICE, URBDRC_HANDSHAKE_US);
        timer_start(&c->serial, URBDRC_SERIAL_US);
    }
}

static void on_add_virtual_channel(Channel *c)
{
    Urbdrc *u = c->urbdrc;

    if (u->n_devices + u->announced >= URBDRC_MAX_DEVICES) {
        if (log_limit(&u->surplus_limit, u->now, 60000000u, 1))
            log_warning(u->label, "the client announces more than %u USB devices: ignored",
                        URBDRC_MAX_DEVICES);
        return;
    }
    u->announced++;
    if (c->state == CHANNEL_READY && !u->begin.duration_us)
        timer_start(&u->settle, URBDRC_SETTLE_US);
    open_next_device(u);
}

static void on_retire(void *user, const char *reason)
{
    Channel *c = user;

    if (c->state != CHANNEL_ACTIVE)
        return;
    log_info(c->urbdrc->label, "USB channel %u: giving the device back: %s", dvc_id(c->dvc),
             reason);
    urbdrc_source_retract(c->source);
    /* Windows closes the channel; FreeRDP only logs the message (urbdrc.md 1.1). */
    enter(c, CHANNEL_RETRACTING, URBDRC_RETRACT_GRACE_US);
}

static void on_add_device(Channel *c, const UrbdrcMessage *m)
{
    Urbdrc *u = c->urbdrc;
    char text[64], label[96];

    urbdrc_string_text(m->add_device.hardware_ids, text, sizeof(text));
    for (char *p = text; *p; p++)
        if (*p == '\\')
            *p = '/'; /* USB/VID_1234 reads better than an escaped backslash */
    log_escape(c->hardware_id, sizeof(c->hardware_id), text, SIZE_MAX);
    snprintf(label, sizeof(label), "%s channel %u", u->label, dvc_id(c->dvc));
    u->flavour = urbdrc_flavour_detect(&u->evidence, &m->add_device, m->message_id);
    urbdrc_flavour_evidence(&u->evidence, &m->add_device, m->message_id, u->reasons,
                            sizeof(u->reasons));
    timer_stop(&c->serial);
    enter(c, CHANNEL_ACTIVE, 0);
    log_info(u->label, "USB channel %u: %s (client flavour %s: %s)", dvc_id(c->dvc), c->hardware_id,
             u->flavour->name, u->reasons);
    c->source = urbdrc_source_new(c->dvc, &m->add_device, u->flavour, label, on_retire, c);
    if (u->callbacks->device_added)
        u->callbacks->device_added(u->user, urbdrc_source_usb(c->source));
    open_next_device(u);
}

/* Out of order, but not wrong enough to end the channel (MS-RDPEUSB 3.1.5). */
static void ignore(Channel *c, const UrbdrcMessage *m)
{
    log_debug(c->urbdrc->label, "USB channel %u: %s ignored in state %s", dvc_id(c->dvc),
              urbdrc_kind_name(m->kind), state_names[c->state]);
    if (++c->ignored > URBDRC_MAX_IGNORED)
        blame_client(c, "too many messages that do not belong here");
}

static void refuse_query(Channel *c, const UrbdrcMessage *m)
{
    send_on(c, &(UrbdrcMessage){.kind = URBDRC_QUERY_INTERFACE_RSP,
                                .interface_id = m->interface_id,
                                .message_id = m->message_id});
}

static void handle(Channel *c, const UrbdrcMessage *m)
{
    const char *error;

    switch (m->kind) {
    case URBDRC_CAPS_RESPONSE:
        if (c->state == CHANNEL_CAPS) {
            on_caps(c, m);
            return;
        }
        break;
    case URBDRC_CHANNEL_CREATED:
        if (c->state == CHANNEL_CREATED && m->interface_id == URBDRC_INTERFACE_TO_SERVER) {
            on_created(c, m);
            return;
        }
        break;
    case URBDRC_ADD_VIRTUAL_CHANNEL:
        /* A client by the letter of the specification does not wait for our release. */
        if (c->control && c->state >= CHANNEL_CREATED) {
            on_add_virtual_channel(c);
            return;
        }
        break;
    case URBDRC_ADD_DEVICE:
        if (!c->control && (c->state == CHANNEL_CREATED || c->state == CHANNEL_DEVICE)) {
            on_add_device(c, m);
            return;
        }
        break;
    case URBDRC_IOCONTROL_COMPLETION:
    case URBDRC_URB_COMPLETION:
    case URBDRC_URB_COMPLETION_NO_DATA:
        if ((error = urbdrc_source_completion(c->source, m)))
            blame_client(c, error);
        return;
    case URBDRC_RELEASE: /* Windows releases the callback interface after each completion */
        return;
    case URBDRC_QUERY_INTERFACE:
        refuse_query(c, m);
        break;
    default:
        break;
    }
    ignore(c, m);
}

static void on_message(Dvc *dvc, const uint8_t *data, size_t len, void *user)
{
    Channel *c = user;
    UrbdrcMessage m;
    const char *error =
        urbdrc_parse_from_client(data, len, c->source ? URBDRC_PHASE_IO : URBDRC_PHASE_SETUP, &m);

    (void)dvc;
    if (error)
        blame_client(c, error);
    else
        handle(c, &m);
}

static const char *close_reason(const Channel *c, DvcCloseReason reason)
{
    switch (reason) {
    case DVC_CLOSED_REFUSED:
        return c->control ? "the client does not redirect USB devices" : "the client refused it";
    case DVC_CLOSED_BY_CLIENT:
        return c->source ? "the device was unplugged" : "the client closed the channel";
    case DVC_CLOSED_OVERSIZE:
        return "the client sent a message of more than 16 MiB or too many at once";
    case DVC_CLOSED_LOST:
        return "the client has left";
    }
    return "the channel is gone";
}

static void on_closed(Dvc *dvc, DvcCloseReason reason, void *user)
{
    Channel *c = user;
    const char *why = close_reason(c, reason);

    if (reason == DVC_CLOSED_OVERSIZE)
        log_warning(c->urbdrc->label, "USB channel %u closed: %s", dvc_id(dvc), why);
    else
        log_info(c->urbdrc->label, "USB %schannel %u: %s", c->control ? "control " : "",
                 dvc_id(dvc), why);
    c->dvc = NULL;
    end_channel(c, why);
}

/* ---- the public side ---- */

Urbdrc *urbdrc_new(DvcManager *manager, const char *label, uint64_t now_us,
                   const UrbdrcCallbacks *callbacks, void *user)
{
    Urbdrc *u = calloc(1, sizeof(*u));

    if (!u)
        abort();
    u->manager = manager;
    u->callbacks = callbacks;
    u->user = user;
    u->now = now_us;
    snprintf(u->label, sizeof(u->label), "%s", label);
    u->control = open_channel(u, true);
    if (!u->control)
        u->unavailable = "the client has no dynamic channels";
    return u;
}

void urbdrc_set_client(Urbdrc *u, uint32_t client_build, uint32_t early_flags)
{
    u->evidence.known = true;
    u->evidence.client_build = client_build;
    u->evidence.early_flags = early_flags;
}

const char *urbdrc_flavour(const Urbdrc *u, const char **evidence)
{
    *evidence = u->reasons;
    return u->flavour ? u->flavour->name : "";
}

void urbdrc_free(Urbdrc *u)
{
    if (!u)
        return;
    u->reported = true;
    u->announced = 0;
    while (u->n_devices > 0)
        close_channel(u->devices[u->n_devices - 1], "the client has left");
    if (u->control)
        close_channel(u->control, "the client has left");
    free(u);
}

static uint64_t earliest(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t urbdrc_deadline(const Urbdrc *u)
{
    uint64_t deadline = u->unavailable ? 0 : UINT64_MAX;

    if (u->control)
        deadline = earliest(deadline, timer_deadline(&u->control->timer));
    deadline = earliest(deadline, timer_deadline(&u->begin));
    deadline = earliest(deadline, timer_deadline(&u->settle));
    for (uint32_t i = 0; i < u->n_devices; i++) {
        deadline = earliest(deadline, timer_deadline(&u->devices[i]->timer));
        deadline = earliest(deadline, timer_deadline(&u->devices[i]->serial));
    }
    return deadline;
}

static void timed_out(Channel *c)
{
    char what[96];

    if (c->state == CHANNEL_RETRACTING) {
        close_channel(c, "the device was given back");
    } else if (c->state == CHANNEL_DEVICE) {
        log_debug(c->urbdrc->label, "USB channel %u closed: announced, but no device came",
                  dvc_id(c->dvc));
        close_channel(c, "no device came");
    } else if (c->control && c->state == CHANNEL_OPENING) {
        /* Some clients do not refuse a channel they have no listener for, they say nothing. */
        log_info(c->urbdrc->label, "USB control channel: no answer, no USB redirection");
        close_channel(c, "the client does not answer for USB devices");
    } else {
        snprintf(what, sizeof(what), "no answer within %u s in state %s",
                 URBDRC_HANDSHAKE_US / 1000000u, state_names[c->state]);
        blame_client(c, what);
    }
}

void urbdrc_tick(Urbdrc *u, uint64_t now_us)
{
    u->now = now_us;
    if (u->unavailable) {
        const char *why = u->unavailable;
        u->unavailable = NULL;
        report_unavailable(u, why);
    }
    timer_tick(&u->begin, now_us);
    timer_tick(&u->settle, now_us);
    if (u->control && timer_tick(&u->control->timer, now_us))
        timed_out(u->control);
    for (uint32_t i = u->n_devices; i-- > 0;) {
        if (i >= u->n_devices)
            continue; /* a callback ended more than one */
        timer_tick(&u->devices[i]->serial, now_us);
        if (timer_tick(&u->devices[i]->timer, now_us))
            timed_out(u->devices[i]);
    }
    open_next_device(u);
}

size_t urbdrc_status(const Urbdrc *u, UrbdrcDeviceStatus *out, size_t max)
{
    for (uint32_t i = 0; i < u->n_devices && i < max; i++) {
        const Channel *c = u->devices[i];

        out[i] = (UrbdrcDeviceStatus){
            .channel_id = dvc_id(c->dvc),
            .flavour = c->source ? urbdrc_source_flavour(c->source)->name : "",
            .state = state_names[c->state],
        };
        memcpy(out[i].hardware_id, c->hardware_id, sizeof(out[i].hardware_id));
    }
    return u->n_devices;
}
