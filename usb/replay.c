/*
 * Theory of operation
 *
 * A device whose client was away is back with the descriptors it had. A replay asks it for one
 * thing after the other, with nothing else in flight:
 *
 *   1. SELECT_CONFIGURATION, and SELECT_INTERFACE where the guest had chosen another setting than
 *      0. Selecting a configuration clears the halts and toggles of both sides (USB 2.0, 9.4.5).
 *   2. The settings that its driver has made over endpoint 0 (device_state.c).
 *   3. For mass storage a reset recovery (BBB 5.3.4): the class reset, then CLEAR_HALT on both bulk
 *      endpoints. Whatever was left of the command that was cut off is forgotten by the device.
 *   4. Each question that the guest has asked about the medium, INQUIRY and READ CAPACITY, with the
 *      same command block; the answer must have the same bytes.
 *
 * A device that was reset, as FreeRDP does with every device that it lets go, fails the next
 * command with UNIT ATTENTION, power on or reset (SPC-4, 29h): it is asked again. One that says
 * that it was without power (29h 01h) may have lost what was written and not flushed, and a guest
 * that sees no unplug would not know. That, UNIT ATTENTION for a changed medium (28h), any other
 * surprise, and silence end the replay: the device is not taken for the same one.
 */
#include <libusb.h>
#include <stdlib.h>
#include <string.h>

#include "device_priv.h"

#define REQUEST_BULK_ONLY_RESET 0xffu
#define REPLAY_TOTAL_US 20000000u /* a guest's SCSI layer gives a command 30 s */
#define CLIENT_TIMEOUT_MS 5000u
#define MAX_ATTENTIONS 3u
#define FIRST_TAG 0x71726470u

#define SCSI_REQUEST_SENSE 0x03u
#define SENSE_LEN 18u
#define SENSE_UNIT_ATTENTION 0x06u
#define SENSE_RESET 0x29u
#define SENSE_POWER_ON 0x01u /* its qualifier */

typedef enum ReplayStep {
    REPLAY_CONFIGURATION,
    REPLAY_INTERFACES,
    REPLAY_SETTINGS,
    REPLAY_BULK_RESET,
    REPLAY_CLEAR_IN,
    REPLAY_CLEAR_OUT,
    REPLAY_COMMAND, /* from here on: a SCSI command, of the question or of REQUEST SENSE */
    REPLAY_DATA,
    REPLAY_CLEAR_STALL,
    REPLAY_STATUS,
    REPLAY_END,
} ReplayStep;

struct UsbReplay {
    const UsbDevice *device;
    UsbSource *source;
    UsbReplayDone done;
    void *user;
    ReplayStep step;
    unsigned interface; /* index of the next one to select */
    unsigned setting;   /* index of the next one to repeat */
    unsigned question;  /* index of the answer to compare with */
    unsigned attentions;
    bool sensing; /* the command is REQUEST SENSE */
    StorageAnswer command;
    uint32_t tag;
    uint32_t id;    /* request in flight, 0 for none */
    bool unstamped; /* it left at an unknown time after .now */
    uint32_t patience_us;
    uint64_t now, deadline, end;
};

static void advance(UsbReplay *r);

/* The replay may be gone afterwards. */
static void finish(UsbReplay *r, const char *error)
{
    if (r->source) {
        usb_source_set_sink(r->source, NULL, NULL);
        r->source = NULL;
    }
    r->id = 0;
    r->step = REPLAY_END;
    r->deadline = UINT64_MAX;
    r->done(r->user, error);
}

static void ask(UsbReplay *r, UsbRequest *request)
{
    bool control =
        request->kind != USB_REQUEST_BULK; /* SELECT_* and CLEAR_HALT are carried out likewise */

    request->id = r->id = usb_source_next_id(r->source);
    request->timeout_ms = CLIENT_TIMEOUT_MS;
    r->patience_us = control ? USB_TIMEOUT_CONTROL_US : USB_TIMEOUT_TRANSFER_US;
    r->unstamped = true;
    r->deadline = r->now; /* stamped by the next tick */
    if (!r->source->ops->submit(r->source, request)) {
        r->id = 0;
        finish(r, "its client does not take requests for it");
    }
}

/* ---- what is asked ---- */

static void ask_interface(UsbReplay *r)
{
    const UsbDevice *d = r->device;
    const UsbConfiguration *c = d->configuration;

    while (r->interface < c->n_interfaces && d->alts[r->interface] == 0)
        r->interface++;
    if (r->interface == c->n_interfaces) {
        r->step = REPLAY_SETTINGS;
        advance(r);
        return;
    }
    unsigned i = r->interface++;
    ask(r, &(UsbRequest){.kind = USB_REQUEST_SELECT_INTERFACE,
                         .configuration = c,
                         .alt = usb_configuration_alt(c, c->interface_numbers[i], d->alts[i])});
}

static void ask_setting(UsbReplay *r)
{
    const UsbDevice *d = r->device;

    while (r->setting < d->settings.n && !state_applies(d, &d->settings.settings[r->setting]))
        r->setting++;
    if (r->setting == d->settings.n) {
        r->step = d->storage_kind == STORAGE_BULK_ONLY ? REPLAY_BULK_RESET : REPLAY_END;
        advance(r);
        return;
    }
    const DeviceSetting *s = &d->settings.settings[r->setting++];
    ask(r, &(UsbRequest){.kind = USB_REQUEST_CONTROL,
                         .setup = s->setup,
                         .length = s->setup.length,
                         .data = s->setup.length ? s->data : NULL});
}

static void ask_bulk(UsbReplay *r, uint8_t endpoint, uint8_t *data, uint32_t length)
{
    ask(r, &(UsbRequest){
               .kind = USB_REQUEST_BULK, .endpoint = endpoint, .data = data, .length = length});
}

static void ask_command(UsbReplay *r)
{
    const StorageAnswer *expected = &r->device->storage->answers[r->question];
    uint8_t cbw[STORAGE_CBW_LEN];

    r->command = (StorageAnswer){.unit = expected->unit};
    if (r->sensing) {
        r->command.block_len = 6;
        r->command.block[0] = SCSI_REQUEST_SENSE;
        r->command.block[4] = SENSE_LEN;
        r->command.wanted = SENSE_LEN;
    } else {
        r->command.block_len = expected->block_len;
        memcpy(r->command.block, expected->block, sizeof(expected->block));
        r->command.wanted = expected->wanted;
    }
    storage_write_command(cbw, ++r->tag, &r->command);
    ask_bulk(r, r->device->storage_out, cbw, sizeof(cbw));
}

/* Takes the step that .step names. */
static void advance(UsbReplay *r)
{
    const UsbDevice *d = r->device;

    switch (r->step) {
    case REPLAY_CONFIGURATION:
        ask(r, &(UsbRequest){.kind = USB_REQUEST_SELECT_CONFIGURATION,
                             .configuration = d->configuration});
        break;
    case REPLAY_INTERFACES:
        ask_interface(r);
        break;
    case REPLAY_SETTINGS:
        ask_setting(r);
        break;
    case REPLAY_BULK_RESET:
        ask(r, &(UsbRequest){
                   .kind = USB_REQUEST_CONTROL,
                   .setup = {.request_type = LIBUSB_REQUEST_TYPE_CLASS | LIBUSB_RECIPIENT_INTERFACE,
                             .request = REQUEST_BULK_ONLY_RESET,
                             .index = d->storage_interface}});
        break;
    case REPLAY_CLEAR_IN:
    case REPLAY_CLEAR_STALL:
        ask(r, &(UsbRequest){.kind = USB_REQUEST_CLEAR_HALT, .endpoint = d->storage_in});
        break;
    case REPLAY_CLEAR_OUT:
        ask(r, &(UsbRequest){.kind = USB_REQUEST_CLEAR_HALT, .endpoint = d->storage_out});
        break;
    case REPLAY_COMMAND:
        ask_command(r);
        break;
    case REPLAY_DATA:
        ask_bulk(r, d->storage_in, NULL, r->command.wanted);
        break;
    case REPLAY_STATUS:
        ask_bulk(r, d->storage_in, NULL, STORAGE_CSW_LEN);
        break;
    case REPLAY_END:
        finish(r, NULL);
        break;
    }
}

/* ---- what is answered ---- */

static void go_on(UsbReplay *r, ReplayStep step)
{
    r->step = step;
    advance(r);
}

static void next_command(UsbReplay *r, bool sensing)
{
    r->sensing = sensing;
    go_on(r, r->question < r->device->storage->n_answers ? REPLAY_COMMAND : REPLAY_END);
}

static void judge_sense(UsbReplay *r)
{
    const StorageAnswer *sense = &r->command;
    bool fits = sense->status == SCSI_STATUS_GOOD && sense->length >= 13;
    bool attention = fits && (sense->data[2] & 0x0f) == SENSE_UNIT_ATTENTION;

    if (attention && sense->data[12] == SENSE_RESET && sense->length >= 14 &&
        sense->data[13] == SENSE_POWER_ON) {
        finish(r, "it was without power: what it had not written yet may be lost");
    } else if (attention && sense->data[12] == SENSE_RESET && ++r->attentions <= MAX_ATTENTIONS) {
        next_command(r, false);
    } else if (fits && !attention &&
               r->device->storage->answers[r->question].status == SCSI_STATUS_FAILED) {
        r->question++; /* no medium then, and none now */
        next_command(r, false);
    } else {
        finish(r, "its medium may have been changed");
    }
}

static void judge_command(UsbReplay *r)
{
    const StorageAnswer *expected = &r->device->storage->answers[r->question];
    const StorageAnswer *got = &r->command;

    if (r->sensing) {
        judge_sense(r);
    } else if (got->status == SCSI_STATUS_FAILED) {
        next_command(r, true);
    } else if (got->status != expected->status || got->length != expected->length ||
               memcmp(got->data, expected->data, got->length) != 0) {
        finish(r, "its medium is not the same one: it has another name or size");
    } else {
        r->question++;
        next_command(r, false);
    }
}

static void take_data(UsbReplay *r, const UsbCompletion *c)
{
    if (c->status == USB_STATUS_STALL) {
        go_on(r, REPLAY_CLEAR_STALL);
        return;
    }
    if (c->status != USB_STATUS_SUCCESS || c->length > r->command.wanted) {
        finish(r, "it does not answer when it is asked for its medium");
        return;
    }
    r->command.length = c->length;
    if (c->length)
        memcpy(r->command.data, c->data, c->length);
    go_on(r, REPLAY_STATUS);
}

static void take_status(UsbReplay *r, const UsbCompletion *c)
{
    int status = c->status == USB_STATUS_SUCCESS && c->data
                     ? storage_read_status(c->data, c->length, r->tag)
                     : -1;

    if (status != (int)SCSI_STATUS_GOOD && status != (int)SCSI_STATUS_FAILED) {
        finish(r, "it does not answer when it is asked for its medium");
        return;
    }
    r->command.status = (uint8_t)status;
    judge_command(r);
}

static void take_answer(UsbReplay *r, const UsbCompletion *c)
{
    bool ok = c->status == USB_STATUS_SUCCESS;

    switch (r->step) {
    case REPLAY_CONFIGURATION:
    case REPLAY_INTERFACES:
        if (ok)
            go_on(r, REPLAY_INTERFACES);
        else
            finish(r, "it could not be configured as it was");
        return;
    case REPLAY_SETTINGS:
        if (ok)
            go_on(r, REPLAY_SETTINGS);
        else
            finish(r, "it does not take the settings that it had");
        return;
    case REPLAY_BULK_RESET:
    case REPLAY_CLEAR_IN:
        if (ok)
            go_on(r, r->step + 1);
        else
            finish(r, "it could not be reset");
        return;
    case REPLAY_CLEAR_OUT:
        if (ok)
            next_command(r, false);
        else
            finish(r, "it could not be reset");
        return;
    case REPLAY_COMMAND:
        if (ok && c->length == STORAGE_CBW_LEN)
            go_on(r, REPLAY_DATA);
        else
            finish(r, "it takes no command");
        return;
    case REPLAY_DATA:
        take_data(r, c);
        return;
    case REPLAY_CLEAR_STALL:
        if (ok)
            go_on(r, REPLAY_STATUS);
        else
            finish(r, "it does not answer when it is asked for its medium");
        return;
    case REPLAY_STATUS:
        take_status(r, c);
        return;
    case REPLAY_END:
        return;
    }
}

static void on_complete(void *user, const UsbCompletion *completion)
{
    UsbReplay *r = user;

    if (r->id == 0 || completion->id != r->id)
        return;
    r->id = 0;
    take_answer(r, completion);
}

static void on_gone(void *user, const char *why)
{
    UsbReplay *r = user;

    r->source = NULL;
    finish(r, why);
}

/* ---- life ---- */

UsbReplay *usb_replay_new(const UsbDevice *device, UsbSource *source, uint64_t now_us,
                          UsbReplayDone done, void *user)
{
    static const UsbSink sink = {.complete = on_complete, .gone = on_gone};
    UsbReplay *r = calloc(1, sizeof(*r));

    if (!r)
        abort();
    r->device = device;
    r->source = source;
    r->done = done;
    r->user = user;
    r->now = r->deadline = now_us;
    r->end = now_us + REPLAY_TOTAL_US;
    r->tag = FIRST_TAG;
    /* A guest that had not configured the device will do so: nothing to bring back. */
    r->step = device->selected && device->configuration ? REPLAY_CONFIGURATION : REPLAY_END;
    usb_source_set_sink(source, &sink, r);
    return r;
}

void usb_replay_free(UsbReplay *r)
{
    if (!r)
        return;
    if (r->source) {
        usb_source_set_sink(r->source, NULL, NULL);
        if (r->id && !r->source->gone)
            r->source->ops->cancel(r->source, r->id);
    }
    free(r);
}

uint64_t usb_replay_deadline(const UsbReplay *r)
{
    return r->deadline;
}

void usb_replay_tick(UsbReplay *r, uint64_t now_us)
{
    r->now = now_us;
    if (now_us < r->deadline || r->deadline == UINT64_MAX)
        return;
    if (r->id == 0) {
        advance(r); /* the first step */
    } else if (now_us >= r->end || !r->unstamped) {
        uint32_t id = r->id;

        r->id = 0;
        r->source->ops->cancel(r->source, id);
        finish(r, "it has not answered in time");
    } else {
        r->unstamped = false;
        r->deadline = now_us + r->patience_us;
        if (r->deadline > r->end)
            r->deadline = r->end;
    }
}
