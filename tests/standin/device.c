/*
 * The device's side of USB: standard requests, configurations, alternate settings, halts.
 *
 * Strict: what USB 2.0 chapter 9 does not allow in the present state is answered with a request
 * error (STALL), also when most real devices would be kinder.
 */
#include "bus.h"
#include <string.h>

#define DT_DEVICE_QUALIFIER 0x06

Endpoint *device_ep(Device *d, uint8_t address)
{
    if (address & 0x70)
        return NULL;
    return &d->eps[(address & 15) | (address & 0x80 && address & 15 ? 16 : 0)];
}

const Config *device_config(const Device *d)
{
    return &d->configs[d->configuration ? d->configuration - 1 : 0];
}

static void deactivate(Device *d, uint8_t interface)
{
    for (unsigned i = 1; i < 32; i++) {
        Endpoint *ep = &d->eps[i];

        if (ep->desc && ep->desc->interface == interface) {
            device_flush(d, ep, LIBUSB_TRANSFER_CANCELLED);
            ep->desc = NULL;
        }
    }
}

/* Points the endpoint slots of @interface at the active alternate: fresh toggles, no halts. */
static void activate(Device *d, uint8_t interface)
{
    deactivate(d, interface);
    for (unsigned i = 0; d->configuration && i < d->n_eps_desc; i++) {
        const EndpointDesc *desc = &d->eps_desc[i];
        Endpoint *ep = device_ep(d, desc->address);

        if (desc->configuration != d->configuration || desc->interface != interface ||
            desc->alt != d->alt[interface])
            continue;
        ep->desc = desc;
        ep->halted = false;
        ep->host_seq = ep->device_seq = 0;
        ep->next_poll = 0;
        ep->iso.running = false;
    }
}

void device_configure(Device *d, uint8_t value)
{
    for (uint8_t i = 0; i < MAX_INTERFACES; i++)
        deactivate(d, i);
    d->configuration = value;
    d->set_configurations++;
    memset(d->alt, 0, sizeof(d->alt));
    for (uint8_t i = 0; i < device_config(d)->n_interfaces; i++)
        activate(d, i);
    if (d->ops->reset)
        d->ops->reset(d);
}

bool device_set_alt(Device *d, uint8_t interface, uint8_t alt)
{
    if (!d->configuration || interface >= device_config(d)->n_interfaces ||
        alt >= device_config(d)->n_alts[interface])
        return false;
    d->alt[interface] = alt;
    d->set_interfaces++;
    activate(d, interface);
    return true;
}

void device_reset(Device *d)
{
    uint8_t configuration = d->configuration;

    d->resets++;
    d->remote_wakeup = false;
    d->configuration = 0;
    device_flush(d, NULL, LIBUSB_TRANSFER_CANCELLED);
    memset(d->alt, 0, sizeof(d->alt));
    if (d->ops->reset)
        d->ops->reset(d);
    /* The kernel of the host puts the configuration back. */
    d->configuration = configuration;
    for (uint8_t i = 0; i < device_config(d)->n_interfaces; i++)
        activate(d, i);
}

void device_clear_halt(Device *d, Endpoint *ep)
{
    ep->halted = false;
    ep->device_seq = 0;
    d->clear_halts++;
    if (d->ops->halt_cleared)
        d->ops->halt_cleared(d, ep);
}

static int reply(uint8_t *data, const Setup *s, const void *bytes, size_t n)
{
    if (n > s->length)
        n = s->length;
    memcpy(data, bytes, n);
    return (int)n;
}

static int string_descriptor(Device *d, const Setup *s, uint8_t *data)
{
    uint8_t p[2 + 2 * sizeof(d->strings[0])] = {4, LIBUSB_DT_STRING, 0x09, 0x04};
    unsigned index = s->value & 0xff;
    const char *text;
    size_t n;

    if (index == 0)
        return reply(data, s, p, 4);
    if (index > d->n_strings || s->index != 0x0409)
        return IO_STALL;
    text = d->strings[index - 1];
    n = strlen(text);
    p[0] = (uint8_t)(2 + 2 * n);
    for (size_t i = 0; i < n; i++) {
        p[2 + 2 * i] = (uint8_t)text[i];
        p[3 + 2 * i] = 0;
    }
    return reply(data, s, p, p[0]);
}

static int get_descriptor(Device *d, const Setup *s, uint8_t *data)
{
    static const uint8_t qualifier[10] = {10, DT_DEVICE_QUALIFIER, 0, 2, 0, 0, 0, 64, 1, 0};

    unsigned index = s->value & 0xff;

    switch (s->value >> 8) {
    case LIBUSB_DT_DEVICE:
        return s->value & 0xff ? IO_STALL : reply(data, s, d->device_desc, 18);
    case LIBUSB_DT_CONFIG:
        return index < d->n_configs ? reply(data, s, d->configs[index].bytes, d->configs[index].len)
                                    : IO_STALL;
    case LIBUSB_DT_STRING:
        return string_descriptor(d, s, data);
    case DT_DEVICE_QUALIFIER: /* as it would be at the other speed */
        return d->speed == LIBUSB_SPEED_HIGH ? reply(data, s, qualifier, sizeof(qualifier))
                                             : IO_STALL;
    case LIBUSB_DT_BOS:
        return d->bos_len && !(s->value & 0xff) ? reply(data, s, d->bos, d->bos_len) : IO_STALL;
    default:
        return IO_STALL;
    }
}

static int device_request(Device *d, const Setup *s, uint8_t *data)
{
    bool super = d->speed == LIBUSB_SPEED_SUPER;
    uint8_t status[2] = {(uint8_t)(device_config(d)->bytes[7] >> 6 & 1), 0};

    switch (s->request) {
    case LIBUSB_REQUEST_GET_STATUS:
        if (s->value || s->index || s->length != 2)
            return IO_STALL;
        status[0] |= (uint8_t)(d->remote_wakeup << 1);
        return reply(data, s, status, 2);
    case LIBUSB_REQUEST_CLEAR_FEATURE:
    case LIBUSB_REQUEST_SET_FEATURE:
        if (super && (s->value == 48 || s->value == 49)) /* U1_ENABLE, U2_ENABLE */
            return 0;
        if (s->value != 1 || s->index || s->length || !(device_config(d)->bytes[7] & 0x20))
            return IO_STALL;
        d->remote_wakeup = s->request == LIBUSB_REQUEST_SET_FEATURE;
        return 0;
    case LIBUSB_REQUEST_GET_DESCRIPTOR:
        return get_descriptor(d, s, data);
    case LIBUSB_REQUEST_GET_CONFIGURATION:
        return s->length == 1 ? reply(data, s, &d->configuration, 1) : IO_STALL;
    case LIBUSB_REQUEST_SET_CONFIGURATION:
        if (s->value > d->n_configs || s->index || s->length)
            return IO_STALL;
        device_configure(d, (uint8_t)s->value);
        return 0;
    case LIBUSB_REQUEST_SET_SEL:
        return super && s->length == 6 ? 6 : IO_STALL;
    case LIBUSB_SET_ISOCH_DELAY:
        return super && !s->length ? 0 : IO_STALL;
    default:
        return IO_STALL;
    }
}

static int interface_request(Device *d, const Setup *s, uint8_t *data)
{
    static const uint8_t zero[2];
    unsigned number = s->index & 0xff;

    if (!d->configuration || number >= device_config(d)->n_interfaces)
        return IO_STALL;
    switch (s->request) {
    case LIBUSB_REQUEST_GET_STATUS:
        return s->length == 2 ? reply(data, s, zero, 2) : IO_STALL;
    case LIBUSB_REQUEST_GET_INTERFACE:
        return s->length == 1 ? reply(data, s, &d->alt[number], 1) : IO_STALL;
    case LIBUSB_REQUEST_SET_INTERFACE:
        return !s->length && s->value < 256 && device_set_alt(d, (uint8_t)number, (uint8_t)s->value)
                   ? 0
                   : IO_STALL;
    case LIBUSB_REQUEST_SET_FEATURE:
    case LIBUSB_REQUEST_CLEAR_FEATURE: /* FUNCTION_SUSPEND is a SuperSpeed feature */
        return d->speed == LIBUSB_SPEED_SUPER && s->value == 0 && !s->length ? 0 : IO_STALL;
    default:
        return d->ops->control ? d->ops->control(d, s, data) : IO_STALL;
    }
}

static int endpoint_request(Device *d, const Setup *s, uint8_t *data)
{
    Endpoint *ep = s->index < 256 ? device_ep(d, (uint8_t)s->index) : NULL;
    uint8_t status[2] = {0, 0};

    if (!ep || (ep != &d->eps[0] && !ep->desc))
        return IO_STALL;
    switch (s->request) {
    case LIBUSB_REQUEST_GET_STATUS:
        status[0] = ep->halted;
        return s->length == 2 ? reply(data, s, status, 2) : IO_STALL;
    case LIBUSB_REQUEST_CLEAR_FEATURE:
        if (s->value || s->length)
            return IO_STALL;
        device_clear_halt(d, ep);
        return 0;
    case LIBUSB_REQUEST_SET_FEATURE:
        if (s->value || s->length || ep == &d->eps[0])
            return IO_STALL;
        ep->halted = true;
        return 0;
    default:
        return IO_STALL;
    }
}

/* USB 2.0 table 9-3: which way each standard request's data goes. */
static bool direction_ok(const Setup *s)
{
    bool in = s->type & 0x80;

    switch (s->request) {
    case LIBUSB_REQUEST_GET_STATUS:
    case LIBUSB_REQUEST_GET_DESCRIPTOR:
    case LIBUSB_REQUEST_GET_CONFIGURATION:
    case LIBUSB_REQUEST_GET_INTERFACE:
        return in;
    case LIBUSB_REQUEST_CLEAR_FEATURE:
    case LIBUSB_REQUEST_SET_FEATURE:
    case LIBUSB_REQUEST_SET_CONFIGURATION:
    case LIBUSB_REQUEST_SET_INTERFACE:
    case LIBUSB_REQUEST_SET_SEL:
    case LIBUSB_SET_ISOCH_DELAY:
        return !in;
    default:
        return true;
    }
}

int device_control(Device *d, const Setup *s, uint8_t *data)
{
    int n = IO_STALL;

    if ((s->type & 0x60) == LIBUSB_REQUEST_TYPE_STANDARD) {
        if (!direction_ok(s))
            violation(d, V_DIRECTION);
        else if ((s->type & 0x1f) == LIBUSB_RECIPIENT_DEVICE)
            n = device_request(d, s, data);
        else if ((s->type & 0x1f) == LIBUSB_RECIPIENT_INTERFACE)
            n = interface_request(d, s, data);
        else if ((s->type & 0x1f) == LIBUSB_RECIPIENT_ENDPOINT)
            n = endpoint_request(d, s, data);
    } else if (d->ops->control) {
        n = d->ops->control(d, s, data);
    }
    if (n == IO_STALL)
        d->stalled_requests++;
    trace(d, "control %02x %02x value %04x index %04x length %u: %d", s->type, s->request, s->value,
          s->index, s->length, n);
    return n;
}
