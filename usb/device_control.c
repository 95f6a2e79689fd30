/*
 * Theory of operation
 *
 * A queue of everything that goes over endpoint 0 or changes what the endpoints mean, worked off
 * one at a time: a client carries out control requests on the thread that also draws its screen
 * (urbdrc.md 3.5), so a second one would only wait there. The queue holds the guest's control
 * packets, its changes of configuration and setting, and requests of our own (clearing a halt,
 * recovering from a reset).
 *
 * Answered here without asking the device: descriptors that the probe has read (as shown.c made
 * them), configuration and settings, and what concerns the bus and not the device (address, link
 * power: the real link is the client's). Strings are asked of the device: a guest reads each once,
 * so a cache would save nothing, and some devices change theirs. Never passed on raw: SET_ADDRESS,
 * SET_CONFIGURATION, SET_INTERFACE. QEMU has packets of their own for the latter two, and a device
 * changed behind our back would have other endpoints than we and the client believe.
 *
 * While a SELECT_* is queued nothing further is read from QEMU (device.c), so no packet can meet
 * endpoints that are about to change.
 *
 * A guest's port reset is not a device reset everywhere: FreeRDP answers RESET_PORT and does
 * nothing. All requests are cancelled and the configuration is forgotten, so that the guest's next
 * set_configuration selects it again. For such clients a device that has seen bulk transfers also
 * gets what its guest would have done had it known: the class reset of Bulk-Only Transport (its
 * command may be half done), then CLEAR_HALT on each bulk pipe. The order is safe although
 * CLEAR_HALT cancels everything there: nothing is left to cancel, and nothing is sent before the
 * guest has configured the device again, behind these requests in the same queue.
 */
#include <libusb.h>
#include <stdlib.h>
#include <string.h>

#include "descriptor.h"
#include "device_priv.h"

#define STANDARD_MASK 0x60u
#define FEATURE_ENDPOINT_HALT 0u
#define FEATURE_TEST_MODE 2u
#define FEATURE_FUNCTION_SUSPEND 0u /* of an interface */
#define FEATURE_U1_ENABLE 48u       /* USB 3.2, table 9-7; U2 and LTM follow */
#define FEATURE_LTM_ENABLE 50u
#define SUBCLASS_BULK_ONLY_SCSI 0x06u
#define PROTOCOL_BULK_ONLY 0x50u
#define REQUEST_BULK_ONLY_RESET 0xffu
#define DT_DEVICE_QUALIFIER 0x06u /* libusb has no names for these */
#define DT_OTHER_SPEED_CONFIGURATION 0x07u
#define CLIENT_CONTROL_TIMEOUT_MS 5000u

static void answer_control(UsbDevice *d, uint64_t id, const UsbSetup *setup, UsbStatus status,
                           const uint8_t *data, uint32_t length)
{
    if (setup->request_type & LIBUSB_ENDPOINT_IN) {
        if (!data)
            length = 0;
        if (length == 0)
            data = NULL;
    } else {
        data = NULL;
    }
    if (status != USB_STATUS_SUCCESS)
        d->stats.errors++;
    redir_send_control(d->redir, id, status, setup, data, length);
}

static void answer_alt(UsbDevice *d, uint64_t id, UsbStatus status, uint8_t interface)
{
    const UsbConfiguration *c = d->configuration;

    for (unsigned i = 0; c && i < c->n_interfaces; i++) {
        if (c->interface_numbers[i] == interface) {
            redir_send_alt_status(d->redir, id, status, interface, d->alts[i]);
            return;
        }
    }
    redir_send_alt_status(d->redir, id, USB_STATUS_INVAL, interface, 0xff);
}

/* ---- answers from the cache ---- */

static void answer_descriptor(UsbDevice *d, uint64_t id, const UsbSetup *s, const uint8_t *data,
                              uint32_t length)
{
    answer_control(d, id, s, USB_STATUS_SUCCESS, data, length < s->length ? length : s->length);
}

static bool cached_descriptor(UsbDevice *d, uint64_t id, const UsbSetup *s)
{
    const UsbDescriptors *all = d->shown;
    uint8_t index = s->value & 0xff;

    switch (s->value >> 8) {
    case LIBUSB_DT_DEVICE:
        answer_descriptor(d, id, s, all->device_raw, sizeof(all->device_raw));
        return true;
    case LIBUSB_DT_CONFIG:
        if (index < all->n_configurations) {
            const UsbConfiguration *c = &all->configurations[index];

            answer_descriptor(d, id, s, c->raw, c->raw_len);
        } else {
            answer_control(d, id, s, USB_STATUS_STALL, NULL, 0);
        }
        return true;
    case LIBUSB_DT_BOS:
        answer_control(d, id, s, all->bos_len ? USB_STATUS_SUCCESS : USB_STATUS_STALL, all->bos,
                       all->bos_len < s->length ? all->bos_len : s->length);
        return true;
    case DT_DEVICE_QUALIFIER:
    case DT_OTHER_SPEED_CONFIGURATION:
        if (all->speed != USB_SPEED_SUPER)
            return false;
        answer_control(d, id, s, USB_STATUS_STALL, NULL, 0); /* USB 3.2, 9.4.3: it has none */
        return true;
    default:
        return false;
    }
}

static uint8_t current_value(const UsbDevice *d)
{
    return d->configuration ? d->configuration->value : 0;
}

/* Standard requests that the device must not or need not see. */
static bool answer_locally(UsbDevice *d, uint64_t id, const UsbSetup *s)
{
    uint8_t value = current_value(d);

    if (s->request_type & STANDARD_MASK)
        return false;
    switch (s->request) {
    case LIBUSB_REQUEST_GET_DESCRIPTOR:
        return s->request_type == LIBUSB_ENDPOINT_IN && cached_descriptor(d, id, s);
    case LIBUSB_REQUEST_GET_CONFIGURATION:
        if (s->request_type != LIBUSB_ENDPOINT_IN)
            return false;
        answer_descriptor(d, id, s, &value, 1);
        return true;
    case LIBUSB_REQUEST_SET_ADDRESS:
    case LIBUSB_REQUEST_SET_CONFIGURATION:
    case LIBUSB_REQUEST_SET_INTERFACE:
        answer_control(d, id, s, USB_STATUS_STALL, NULL, 0);
        return true;
    case LIBUSB_REQUEST_SET_FEATURE:
    case LIBUSB_REQUEST_CLEAR_FEATURE:
        if (s->request_type == LIBUSB_RECIPIENT_INTERFACE && s->value == FEATURE_FUNCTION_SUSPEND &&
            device_is_raised(d)) { /* a device at high speed has not this feature */
            answer_control(d, id, s, USB_STATUS_SUCCESS, NULL, 0);
            return true;
        }
        if (s->request_type != LIBUSB_RECIPIENT_DEVICE)
            return false;
        if (s->value == FEATURE_TEST_MODE) { /* it would take the client's whole port away */
            answer_control(d, id, s, USB_STATUS_STALL, NULL, 0);
            return true;
        }
        if (s->value < FEATURE_U1_ENABLE || s->value > FEATURE_LTM_ENABLE)
            return false;
        answer_control(d, id, s, USB_STATUS_SUCCESS, NULL, 0);
        return true;
    case LIBUSB_REQUEST_SET_SEL:
    case LIBUSB_SET_ISOCH_DELAY:
        if (s->request_type != LIBUSB_RECIPIENT_DEVICE)
            return false;
        answer_control(d, id, s, USB_STATUS_SUCCESS, NULL, s->length);
        return true;
    default:
        return false;
    }
}

/* ---- the queue ---- */

void control_pump(UsbDevice *d)
{
    Packet *p;

    while (d->source && (p = d->control.head) && !p->submitted) {
        if (d->control_rest > d->now)
            return;
        if ((p->type == PACKET_SET_CONFIGURATION || p->type == PACKET_SET_ALT) && iso_draining(d))
            return; /* it would cut off what is still being played */
        UsbRequest request = {
            .kind = p->kind,
            .endpoint = p->endpoint,
            .setup = p->setup,
            .length = p->kind == USB_REQUEST_CONTROL ? p->length : 0,
            .data = p->kind == USB_REQUEST_CONTROL && p->out ? p->data : NULL,
            .configuration = p->configuration,
            .alt = p->alt,
            .timeout_ms = CLIENT_CONTROL_TIMEOUT_MS,
        };

        if (transfer_full(&d->table)) {
            d->starved = true;
            return;
        }
        p->submitted = true;
        p->request = device_submit(d, &request, TRANSFER_TIMER_CONTROL, p);
        if (p->request == 0) {
            UsbCompletion refused = {.status = USB_STATUS_IOERROR};
            control_complete(d, p, &refused);
        }
    }
}

void control_took(UsbDevice *d, const Transfer *t)
{
    const Packet *p = t->owner;

    if (!p || p->type == PACKET_BULK || p->type == PACKET_INTERRUPT)
        return;
    uint64_t took = d->now > t->t0 ? d->now - t->t0 : 0;
    if (d->source && d->source->quirks & USB_QUIRK_CONTROL_BLOCKS_CLIENT &&
        took > USB_CONTROL_SLOW_US)
        d->control_rest = d->now + (took < USB_CONTROL_REST_US ? took : USB_CONTROL_REST_US);
}

uint64_t control_deadline(const UsbDevice *d)
{
    return d->control.head && !d->control.head->submitted && d->source && d->control_rest > d->now
               ? d->control_rest
               : UINT64_MAX;
}

static void enqueue(UsbDevice *d, Packet *p)
{
    queue_append(&d->control, p);
    control_pump(d);
}

static void remove_packet(UsbDevice *d, Packet *p)
{
    if (p->type == PACKET_SET_CONFIGURATION || p->type == PACKET_SET_ALT)
        d->selecting--;
    queue_remove(&d->control, p);
    packet_free(d, p);
}

static void finish_set_configuration(UsbDevice *d, const Packet *p, UsbStatus status)
{
    if (status == USB_STATUS_SUCCESS) {
        d->configuration = p->configuration;
        memset(d->alts, 0, sizeof(d->alts));
        d->selected = true;
        device_rebuild_pipes(d);
        device_send_topology(d);
    }
    redir_send_configuration_status(d->redir, p->guest_id, status, current_value(d));
}

static void finish_set_alt(UsbDevice *d, const Packet *p, UsbStatus status)
{
    const UsbConfiguration *c = d->configuration;

    if (status == USB_STATUS_SUCCESS) {
        for (unsigned i = 0; i < c->n_interfaces; i++) {
            if (c->interface_numbers[i] == p->alt->interface)
                d->alts[i] = p->alt->alt;
        }
        device_rebuild_pipes(d);
        device_send_topology(d);
    }
    answer_alt(d, p->guest_id, status, p->alt->interface);
}

void control_complete(UsbDevice *d, Packet *p, const UsbCompletion *c)
{
    uint32_t length = c->length < p->length ? c->length : p->length;

    switch (p->type) {
    case PACKET_CONTROL:
        if (p->out && c->status == USB_STATUS_SUCCESS)
            length = p->length;
        if (p->kind == USB_REQUEST_CONTROL && p->out && c->status == USB_STATUS_SUCCESS)
            state_note(d, p);
        if (p->kind == USB_REQUEST_CONTROL)
            *(p->out ? &d->stats.bytes_out : &d->stats.bytes_in) += length;
        answer_control(d, p->guest_id, &p->setup, c->status, c->data, length);
        break;
    case PACKET_SET_CONFIGURATION:
        finish_set_configuration(d, p, c->status);
        break;
    case PACKET_SET_ALT:
        finish_set_alt(d, p, c->status);
        break;
    default:
        if (p->kind == USB_REQUEST_CLEAR_HALT)
            stream_recovered(d, p->endpoint, c->status);
        break;
    }
    remove_packet(d, p);
    control_pump(d);
}

bool control_cancel(UsbDevice *d, uint64_t guest_id)
{
    for (Packet *p = d->control.head; p; p = p->next) {
        if (p->type != PACKET_CONTROL || p->guest_id != guest_id)
            continue;
        if (p->submitted)
            device_withdraw(d, p->request);
        d->stats.cancelled++;
        redir_send_control(d->redir, p->guest_id, USB_STATUS_CANCELLED, &p->setup, NULL, 0);
        remove_packet(d, p);
        control_pump(d);
        return true;
    }
    return false;
}

void control_drop_all(UsbDevice *d)
{
    while (d->control.head)
        remove_packet(d, d->control.head);
}

void control_fail_all(UsbDevice *d)
{
    const UsbCompletion failed = {.status = USB_STATUS_IOERROR};

    while (d->control.head) /* control_pump() sends nothing without a source */
        control_complete(d, d->control.head, &failed);
}

/* ---- requests of our own ---- */

static Packet *internal(UsbDevice *d, UsbRequestKind kind, uint8_t endpoint)
{
    Packet *p = packet_new(d, PACKET_INTERNAL, 0);

    p->kind = kind;
    p->endpoint = endpoint;
    p->out = true;
    return p;
}

void control_ask(UsbDevice *d)
{
    Packet *p = internal(d, USB_REQUEST_CONTROL, LIBUSB_ENDPOINT_IN);

    p->out = false;
    p->length = sizeof(d->descriptors->device_raw);
    p->setup = (UsbSetup){.request_type = LIBUSB_ENDPOINT_IN,
                          .request = LIBUSB_REQUEST_GET_DESCRIPTOR,
                          .value = LIBUSB_DT_DEVICE << 8,
                          .length = sizeof(d->descriptors->device_raw)};
    enqueue(d, p);
}

void control_clear_halt(UsbDevice *d, uint8_t endpoint)
{
    for (const Packet *p = d->control.head; p; p = p->next) {
        if (p->type == PACKET_INTERNAL && p->kind == USB_REQUEST_CLEAR_HALT &&
            p->endpoint == endpoint && !p->submitted)
            return; /* it is queued already */
    }
    enqueue(d, internal(d, USB_REQUEST_CLEAR_HALT, endpoint));
}

static void recover_bulk(UsbDevice *d, const UsbAltSetting *alt)
{
    if (alt->class_code == LIBUSB_CLASS_MASS_STORAGE && alt->protocol == PROTOCOL_BULK_ONLY) {
        Packet *p = internal(d, USB_REQUEST_CONTROL, 0);

        p->setup =
            (UsbSetup){.request_type = LIBUSB_REQUEST_TYPE_CLASS | LIBUSB_RECIPIENT_INTERFACE,
                       .request = REQUEST_BULK_ONLY_RESET,
                       .index = alt->interface};
        enqueue(d, p);
    }
    for (unsigned e = 0; e < alt->n_endpoints; e++) {
        if (alt->endpoints[e].type == USB_ENDPOINT_BULK)
            control_clear_halt(d, alt->endpoints[e].address);
    }
}

/* ---- what the guest sends ---- */

static void cancel_data(UsbDevice *d, int interface)
{
    for (unsigned i = 0; i < DEVICE_PIPES; i++) {
        if (interface < 0 || d->pipes[i].interface == interface) {
            if (!iso_pipe_draining(&d->pipes[i]))
                stream_abort(d, &d->pipes[i]);
            pipe_cancel_all(d, &d->pipes[i]);
        }
    }
}

void control_reset(UsbDevice *d)
{
    const UsbConfiguration *c = d->configuration;
    bool was_selected = d->selected;

    for (unsigned i = 0; i < DEVICE_PIPES; i++)
        stream_abort(d, &d->pipes[i]);
    cancel_data(d, -1);
    for (Packet *p = d->control.head, *next; p; p = next) {
        next = p->next;
        if (p->type != PACKET_CONTROL)
            continue;
        if (p->submitted)
            device_withdraw(d, p->request);
        d->stats.cancelled++;
        redir_send_control(d->redir, p->guest_id, USB_STATUS_CANCELLED, &p->setup, NULL, 0);
        remove_packet(d, p);
    }
    d->selected = false;
    state_forget(d);
    if (d->touched && d->source) { /* else a reset has nothing to undo: guests send several */
        if (!(d->source->quirks & USB_QUIRK_RESET_IS_NO_OP)) {
            enqueue(d, internal(d, USB_REQUEST_RESET_PORT, 0));
        } else if (d->bulk_used && was_selected && c) {
            for (unsigned i = 0; i < c->n_interfaces; i++)
                recover_bulk(d, usb_configuration_alt(c, c->interface_numbers[i], d->alts[i]));
        }
        d->touched = d->bulk_used = false;
    }
    memset(d->alts, 0, sizeof(d->alts));
    device_rebuild_pipes(d);
    control_pump(d);
}

void control_set_configuration(UsbDevice *d, uint64_t id, uint8_t value)
{
    const UsbConfiguration *c = usb_descriptors_configuration(d->descriptors, value);
    bool at_default = true;

    for (unsigned i = 0; i < USB_MAX_INTERFACES; i++)
        at_default &= d->alts[i] == 0;
    if (value == 0) { /* urbdrc.md 4.3: nothing that a client could do about it */
        cancel_data(d, -1);
        d->configuration = NULL;
        d->selected = false;
        device_rebuild_pipes(d);
    } else if (!c) {
        redir_send_configuration_status(d->redir, id, USB_STATUS_INVAL, current_value(d));
        return;
    } else if (!d->selected || d->configuration != c || !at_default) {
        Packet *p = packet_new(d, PACKET_SET_CONFIGURATION, id);

        cancel_data(d, -1);
        p->kind = USB_REQUEST_SELECT_CONFIGURATION;
        p->configuration = c;
        d->selected = false; /* until the client says that it is */
        d->selecting++;
        enqueue(d, p);
        return;
    }
    device_send_topology(d);
    redir_send_configuration_status(d->redir, id, USB_STATUS_SUCCESS, value);
}

void control_get_configuration(UsbDevice *d, uint64_t id)
{
    redir_send_configuration_status(d->redir, id, USB_STATUS_SUCCESS, current_value(d));
}

void control_set_alt(UsbDevice *d, uint64_t id, uint8_t interface, uint8_t alt)
{
    const UsbAltSetting *a =
        d->configuration ? usb_configuration_alt(d->configuration, interface, alt) : NULL;

    if (!a || !d->selected) { /* before a configuration is selected it crashes FreeRDP: 3.5 */
        answer_alt(d, id, USB_STATUS_INVAL, interface);
        return;
    }
    Packet *p = packet_new(d, PACKET_SET_ALT, id);
    cancel_data(d, interface);
    p->kind = USB_REQUEST_SELECT_INTERFACE;
    p->configuration = d->configuration;
    p->alt = a;
    d->selecting++;
    enqueue(d, p);
}

void control_get_alt(UsbDevice *d, uint64_t id, uint8_t interface)
{
    answer_alt(d, id, USB_STATUS_SUCCESS, interface);
}

/* CLEAR_FEATURE(ENDPOINT_HALT) for another endpoint than 0. */
static bool is_clear_halt(const UsbSetup *s)
{
    return s->request_type == LIBUSB_RECIPIENT_ENDPOINT &&
           s->request == LIBUSB_REQUEST_CLEAR_FEATURE && s->value == FEATURE_ENDPOINT_HALT &&
           (s->index & 0x0f) != 0;
}

void control_event(UsbDevice *d, RedirEvent *e)
{
    const UsbSetup *s = &e->setup;

    if (e->endpoint != (s->request_type & LIBUSB_ENDPOINT_IN) ||
        s->length > USB_MAX_CONTROL_BYTES) {
        answer_control(d, e->id, s, USB_STATUS_INVAL, NULL, 0);
        return;
    }
    if (answer_locally(d, e->id, s))
        return;
    if (device_over_cap(d)) {
        answer_control(d, e->id, s, USB_STATUS_IOERROR, NULL, 0);
        return;
    }

    uint8_t target = s->index & 0xff;
    bool clear_halt = is_clear_halt(s);
    const Pipe *pipe = &d->pipes[pipe_index(target)];

    if (clear_halt &&
        (s->length != 0 || !d->selected || !pipe->endpoint || pipe->endpoint->address != target)) {
        answer_control(d, e->id, s, USB_STATUS_STALL, NULL, 0);
        return;
    }
    Packet *p = packet_new(d, PACKET_CONTROL, e->id);
    p->kind = clear_halt ? USB_REQUEST_CLEAR_HALT : USB_REQUEST_CONTROL;
    p->endpoint = clear_halt ? target : e->endpoint;
    p->setup = *s;
    p->out = !(s->request_type & LIBUSB_ENDPOINT_IN);
    p->length = s->length;
    p->data = e->data;
    e->data = NULL;
    d->packet_bytes += p->length;
    enqueue(d, p);
}
