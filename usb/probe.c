/*
 * Theory of operation
 *
 * A probe asks a fresh source for its descriptors, one request at a time, before anybody else may
 * use it: the device descriptor, each configuration (header first, for its length), the BOS if the
 * device is new enough to have one, and the product and serial strings. The first configuration
 * must be there and make sense. All else may be missing: devices stall on BOS and strings, and a
 * second configuration that cannot be read is as good as none.
 *
 * Clients say that a device is fast when its bcdUSB is 2.0 (FreeRDP: urbdrc.md 2.2), which most
 * full speed devices claim as well. Where the endpoints prove nothing either, as those of headsets
 * and mice, the device is asked for its device qualifier: one that cannot be fast has none
 * (USB 2.0, 9.6.2). Hosts ask for it themselves. A speed that is wrong makes the guest's polling,
 * and the packets of its streams, eight times too many or too few.
 *
 * A device may lie differently each time it is asked. Only the second, full read is used; its own
 * wTotalLength must be the length that was asked for.
 */
#include <libusb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "descriptor.h"
#include "log.h"

typedef enum ProbeStep {
    PROBE_DEVICE,
    PROBE_CONFIG_HEADER,
    PROBE_CONFIG,
    PROBE_QUALIFIER,
    PROBE_BOS_HEADER,
    PROBE_BOS,
    PROBE_LANGUAGES,
    PROBE_PRODUCT,
    PROBE_SERIAL,
    PROBE_END,
} ProbeStep;

#define PROBE_CLIENT_TIMEOUT_MS 5000u
#define DT_DEVICE_QUALIFIER 0x06 /* libusb has no name for it */
#define QUALIFIER_LEN 10u
#define BCD_USB_WITH_BOS 0x0201

struct UsbProbe {
    UsbSource *source;
    UsbProbeDone done;
    void *user;
    UsbDescriptors *descriptors;
    ProbeStep step;
    uint8_t config_index;
    uint16_t length;   /* of the configuration or BOS being read */
    uint16_t language; /* LANGID of the strings */
    uint32_t id;       /* request in flight, 0 for none */
    bool high_speed;   /* unless its endpoints say otherwise */
    bool unstamped;    /* it left at an unknown time after .now (a completion brings no time) */
    uint64_t now, deadline;
};

static void advance(UsbProbe *probe, ProbeStep step);

/* The probe may be gone afterwards. */
static void finish(UsbProbe *probe, const char *error)
{
    UsbDescriptors *d = probe->descriptors;

    if (!error) /* whichever step was the last one */
        usb_descriptors_derive_speed(d, probe->high_speed);
    if (probe->source) {
        usb_source_set_sink(probe->source, NULL, NULL);
        probe->source = NULL;
    }
    probe->id = 0;
    probe->step = PROBE_END;
    probe->deadline = UINT64_MAX;
    probe->descriptors = NULL;
    if (error) {
        usb_descriptors_unref(d);
        d = NULL;
    }
    probe->done(probe->user, d, error);
}

static bool optional(const UsbProbe *probe)
{
    return probe->step >= PROBE_BOS_HEADER || probe->config_index > 0;
}

/* The step came to nothing. */
static void fail_step(UsbProbe *probe, const char *error)
{
    if (!optional(probe)) {
        finish(probe, error);
        return;
    }
    log_debug(probe->source->label, "probe: %s", error);
    if (probe->step <= PROBE_CONFIG)
        advance(probe, PROBE_QUALIFIER);
    else if (probe->step == PROBE_QUALIFIER)
        advance(probe, PROBE_BOS_HEADER);
    else if (probe->step <= PROBE_BOS)
        advance(probe, PROBE_LANGUAGES);
    else if (probe->step == PROBE_PRODUCT)
        advance(probe, PROBE_SERIAL);
    else
        finish(probe, NULL);
}

static void ask(UsbProbe *probe, uint8_t type, uint8_t index, uint16_t language, uint16_t length)
{
    UsbRequest request = {
        .kind = USB_REQUEST_CONTROL,
        .endpoint = LIBUSB_ENDPOINT_IN,
        .setup = {.request_type = LIBUSB_ENDPOINT_IN,
                  .request = LIBUSB_REQUEST_GET_DESCRIPTOR,
                  .value = (uint16_t)(type << 8 | index),
                  .index = language,
                  .length = length},
        .length = length,
        .timeout_ms = PROBE_CLIENT_TIMEOUT_MS,
    };

    request.id = probe->id = usb_source_next_id(probe->source);
    probe->unstamped = true;
    probe->deadline = probe->now + USB_TIMEOUT_CONTROL_US;
    if (!probe->source->ops->submit(probe->source, &request)) {
        probe->id = 0;
        finish(probe, "its client does not take requests for it");
    }
}

/* Whether the client's word decides between full and high speed. */
static bool speed_is_hearsay(UsbProbe *probe)
{
    UsbDescriptors *d = probe->descriptors;

    usb_descriptors_derive_speed(d, false);
    UsbSpeed without = d->speed;
    usb_descriptors_derive_speed(d, probe->high_speed);
    return d->speed != without;
}

static void advance(UsbProbe *probe, ProbeStep step)
{
    const uint8_t *device = probe->descriptors ? probe->descriptors->device_raw : NULL;

    if (step == PROBE_QUALIFIER && !speed_is_hearsay(probe))
        step = PROBE_BOS_HEADER;
    if (step == PROBE_BOS_HEADER && probe->descriptors->bcd_usb < BCD_USB_WITH_BOS)
        step = PROBE_LANGUAGES;
    if (step == PROBE_LANGUAGES && device[15] == 0 && device[16] == 0)
        step = PROBE_END;
    if (step == PROBE_PRODUCT && device[15] == 0)
        step = PROBE_SERIAL;
    if (step == PROBE_SERIAL && device[16] == 0)
        step = PROBE_END;
    probe->step = step;
    switch (step) {
    case PROBE_DEVICE:
        ask(probe, LIBUSB_DT_DEVICE, 0, 0, USB_DEVICE_DESCRIPTOR_LEN);
        break;
    case PROBE_CONFIG_HEADER:
        ask(probe, LIBUSB_DT_CONFIG, probe->config_index, 0, USB_CONFIG_HEADER_LEN);
        break;
    case PROBE_CONFIG:
        ask(probe, LIBUSB_DT_CONFIG, probe->config_index, 0, probe->length);
        break;
    case PROBE_QUALIFIER:
        ask(probe, DT_DEVICE_QUALIFIER, 0, 0, QUALIFIER_LEN);
        break;
    case PROBE_BOS_HEADER:
        ask(probe, LIBUSB_DT_BOS, 0, 0, USB_BOS_HEADER_LEN);
        break;
    case PROBE_BOS:
        ask(probe, LIBUSB_DT_BOS, 0, 0, probe->length);
        break;
    case PROBE_LANGUAGES:
        ask(probe, LIBUSB_DT_STRING, 0, 0, 255);
        break;
    case PROBE_PRODUCT:
        ask(probe, LIBUSB_DT_STRING, device[15], probe->language, 255);
        break;
    case PROBE_SERIAL:
        ask(probe, LIBUSB_DT_STRING, device[16], probe->language, 255);
        break;
    case PROBE_END:
        finish(probe, NULL);
        break;
    }
}

static void take_answer(UsbProbe *probe, const uint8_t *data, size_t len)
{
    UsbDescriptors *d = probe->descriptors;
    char why[160] = "";

    switch (probe->step) {
    case PROBE_DEVICE:
        probe->descriptors = usb_descriptors_new(data, len, why, sizeof(why));
        if (!probe->descriptors)
            break;
        if (probe->descriptors->device_raw[17] == 0) {
            snprintf(why, sizeof(why), "the device has no configuration");
            break;
        }
        advance(probe, PROBE_CONFIG_HEADER);
        return;
    case PROBE_CONFIG_HEADER:
        probe->length = usb_descriptor_config_length(data, len, why, sizeof(why));
        if (!probe->length)
            break;
        advance(probe, PROBE_CONFIG);
        return;
    case PROBE_CONFIG:
        if (len != probe->length) {
            snprintf(why, sizeof(why), "configuration %u came as %zu of its %u bytes",
                     probe->config_index, len, probe->length);
            break;
        }
        if (!usb_descriptors_add_configuration(d, data, len, why, sizeof(why)))
            break;
        probe->config_index++;
        if (probe->config_index < d->device_raw[17] &&
            probe->config_index < USB_MAX_CONFIGURATIONS) {
            advance(probe, PROBE_CONFIG_HEADER);
        } else {
            advance(probe, PROBE_QUALIFIER);
        }
        return;
    case PROBE_QUALIFIER: /* it has one; what is in it does not matter */
        advance(probe, PROBE_BOS_HEADER);
        return;
    case PROBE_BOS_HEADER:
        probe->length = usb_descriptor_bos_length(data, len, why, sizeof(why));
        if (!probe->length)
            break;
        advance(probe, PROBE_BOS);
        return;
    case PROBE_BOS:
        if (!usb_descriptors_set_bos(d, data, len, why, sizeof(why)))
            break;
        advance(probe, PROBE_LANGUAGES);
        return;
    case PROBE_LANGUAGES:
        if (len < 4 || data[1] != LIBUSB_DT_STRING) {
            snprintf(why, sizeof(why), "the device names no string language");
            break;
        }
        probe->language = (uint16_t)(data[2] | data[3] << 8);
        usb_descriptors_add_string(d, data, len);
        advance(probe, PROBE_PRODUCT);
        return;
    case PROBE_PRODUCT:
        usb_descriptor_string(data, len, d->product, sizeof(d->product));
        usb_descriptors_add_string(d, data, len);
        advance(probe, PROBE_SERIAL);
        return;
    case PROBE_SERIAL:
        usb_descriptor_string(data, len, d->serial, sizeof(d->serial));
        usb_descriptors_add_string(d, data, len);
        advance(probe, PROBE_END);
        return;
    case PROBE_END:
        return;
    }
    fail_step(probe, why);
}

static void on_complete(void *user, const UsbCompletion *completion)
{
    UsbProbe *probe = user;
    char why[160];

    if (probe->id == 0 || completion->id != probe->id)
        return;
    probe->id = 0;
    if (completion->status == USB_STATUS_SUCCESS) {
        take_answer(probe, completion->data, completion->data ? completion->length : 0);
        return;
    }
    if (probe->step == PROBE_QUALIFIER && completion->status == USB_STATUS_STALL)
        probe->high_speed = false;
    snprintf(why, sizeof(why), "reading its descriptors ended with %s",
             usb_status_name(completion->status));
    fail_step(probe, why);
}

static void on_gone(void *user, const char *why)
{
    UsbProbe *probe = user;

    probe->source = NULL;
    finish(probe, why);
}

UsbProbe *usb_probe_new(UsbSource *source, uint64_t now_us, UsbProbeDone done, void *user)
{
    static const UsbSink sink = {.complete = on_complete, .gone = on_gone};
    UsbProbe *probe = calloc(1, sizeof(*probe));

    if (!probe)
        abort();
    probe->source = source;
    probe->high_speed = source->high_speed_hint;
    probe->done = done;
    probe->user = user;
    probe->now = now_us;
    probe->deadline = now_us; /* the first request leaves from the first tick */
    usb_source_set_sink(source, &sink, probe);
    return probe;
}

void usb_probe_free(UsbProbe *probe)
{
    if (!probe)
        return;
    if (probe->source) {
        usb_source_set_sink(probe->source, NULL, NULL);
        if (probe->id)
            probe->source->ops->cancel(probe->source, probe->id);
    }
    usb_descriptors_unref(probe->descriptors);
    free(probe);
}

uint64_t usb_probe_deadline(const UsbProbe *probe)
{
    return probe->deadline;
}

void usb_probe_tick(UsbProbe *probe, uint64_t now_us)
{
    probe->now = now_us;
    if (probe->step == PROBE_END || now_us < probe->deadline)
        return;
    if (probe->id == 0) {
        advance(probe, PROBE_DEVICE);
        return;
    }
    if (probe->unstamped) {
        probe->unstamped = false;
        probe->deadline = now_us + USB_TIMEOUT_CONTROL_US;
        return;
    }
    uint32_t id = probe->id;
    probe->id = 0;
    probe->source->ops->cancel(probe->source, id);
    fail_step(probe, "the client did not answer a request for its descriptors");
}
