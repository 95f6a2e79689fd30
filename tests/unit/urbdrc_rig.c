#include "urbdrc_rig.h"

#include <stdlib.h>
#include <string.h>

/* ---- the server's user ---- */

static void on_complete(void *user, const UsbCompletion *c)
{
    Device *d = user;

    d->last = *c;
    g_assert_cmpuint(c->length, <=, sizeof(d->data));
    if (c->data)
        memcpy(d->data, c->data, c->length);
    for (uint32_t i = 0; i < c->n_packets && i < G_N_ELEMENTS(d->packets); i++)
        d->packets[i] = c->packets[i];
    d->n_completions++;
    if (d->resubmit) {
        const UsbRequest r = {
            .id = d->resubmit, .kind = USB_REQUEST_BULK, .endpoint = 0x81, .length = 512};
        d->resubmit = 0;
        g_assert_true(d->source->ops->submit(d->source, &r));
    }
}

static void on_gone(void *user, const char *why)
{
    Device *d = user;
    const UsbRequest r = {
        .id = 999, .kind = USB_REQUEST_CONTROL, .setup = {0x80, 6, 0x100, 0, 18}, .length = 18};

    d->gone++;
    g_assert_true(d->source->gone);
    g_strlcpy(d->why, why, sizeof(d->why));
    /* A device that loses its source may still tidy up: nothing of it may touch the channel. */
    g_assert_false(d->source->ops->submit(d->source, &r));
    d->source->ops->cancel(d->source, 1);
    d->source->ops->retire(d->source, "tidying");
    d->source = NULL;
}

static const UsbSink sink = {.complete = on_complete, .gone = on_gone};

static void on_device_added(void *user, UsbSource *source)
{
    Fixture *f = user;
    Device *d = &f->devices[f->n_devices++];

    d->source = source;
    usb_source_set_sink(source, &sink, d);
    if (f->retire_at_once)
        source->ops->retire(source, "the policy says no");
}

static void on_unavailable(void *user, const char *why)
{
    Fixture *f = user;

    g_assert_nonnull(why);
    f->n_unavailable++;
}

const UrbdrcCallbacks callbacks = {.device_added = on_device_added, .unavailable = on_unavailable};

/* ---- the client ---- */

Dvc *dvc(Fixture *f, size_t n)
{
    return fake_dvc_nth(f->manager, n);
}

void client_send(Fixture *f, size_t n, const UrbdrcMessage *m)
{
    Writer w;

    writer_init(&w, 1 << 24);
    urbdrc_write_message(&w, m);
    g_assert_true(writer_ok(&w));
    fake_dvc_receive(dvc(f, n), w.data, w.len);
    writer_clear(&w);
}

UrbdrcMessage client_take(Fixture *f, size_t n, UrbdrcKind kind)
{
    UrbdrcMessage m;
    size_t len;

    free(f->taken);
    f->taken = fake_dvc_take(dvc(f, n), &len);
    g_assert_nonnull(f->taken);
    g_assert_cmpstr(urbdrc_parse_from_server(f->taken, len, &m, &f->scratch), ==, NULL);
    g_assert_cmpstr(urbdrc_kind_name(m.kind), ==, urbdrc_kind_name(kind));
    return m;
}

void assert_quiet(Fixture *f, size_t n)
{
    g_assert_cmpuint(fake_dvc_pending(dvc(f, n)), ==, 0);
}

void client_caps(Fixture *f, size_t n)
{
    UrbdrcMessage m = client_take(f, n, URBDRC_CAPS_REQUEST);

    g_assert_cmpuint(m.caps.value, ==, 1);
    client_send(
        f, n,
        &(UrbdrcMessage){.kind = URBDRC_CAPS_RESPONSE, .message_id = m.message_id, .caps = {1, 0}});
}

void client_created(Fixture *f, size_t n)
{
    UrbdrcMessage m = client_take(f, n, URBDRC_CHANNEL_CREATED);

    g_assert_cmpuint(m.interface_id, ==, URBDRC_INTERFACE_TO_CLIENT);
    client_send(f, n,
                &(UrbdrcMessage){.kind = URBDRC_CHANNEL_CREATED,
                                 .interface_id = URBDRC_INTERFACE_TO_SERVER,
                                 .created.major = 1});
}

void client_handshake(Fixture *f, size_t n)
{
    fake_dvc_accept(dvc(f, n));
    client_caps(f, n);
    client_created(f, n);
    UrbdrcMessage m = client_take(f, n, URBDRC_RELEASE);
    g_assert_cmpuint(m.interface_id, ==, URBDRC_INTERFACE_TO_CLIENT);
    assert_quiet(f, n);
}

void client_announce(Fixture *f)
{
    client_send(f, 0,
                &(UrbdrcMessage){.kind = URBDRC_ADD_VIRTUAL_CHANNEL,
                                 .interface_id = URBDRC_INTERFACE_DEVICE_SINK});
}

static const UrbdrcString hardware_id = {(const uint8_t *)"U\0S\0B\0\\\0V\0I\0D\0\0\0\0",
                                         9}; /* "USB\VID", and the list's end */

UrbdrcMessage add_device(uint32_t usb_device)
{
    return (UrbdrcMessage){.kind = URBDRC_ADD_DEVICE,
                           .interface_id = URBDRC_INTERFACE_DEVICE_SINK,
                           .add_device = {.usb_device = usb_device,
                                          .hardware_ids = hardware_id,
                                          .bus_interface_version = 2,
                                          .usbdi_version = 0x600,
                                          .supported_usb_version = 0x200,
                                          .is_high_speed = 1,
                                          .no_ack_jitter_ms = usb_device >= 5 ? 0x50 : 0}};
}

void client_add_device(Fixture *f, size_t n, uint32_t usb_device)
{
    const UrbdrcMessage m = add_device(usb_device);
    unsigned before = f->n_devices;

    client_send(f, n, &m);
    g_assert_cmpuint(f->n_devices, ==, before + 1);
    UrbdrcMessage r = client_take(f, n, URBDRC_REGISTER_CALLBACK);
    g_assert_cmpuint(r.interface_id, ==, usb_device);
    g_assert_cmpuint(r.callback.n, ==, 1);
    g_assert_cmpuint(r.callback.request_completion, >, 3);
}

UrbdrcMessage completion(UrbdrcKind kind, uint32_t id, uint32_t status)
{
    return (UrbdrcMessage){.kind = kind,
                           .interface_id = 0x10000,
                           .completion = {.request_id = id, .usbd_status = status}};
}

void client_no_data(Fixture *f, size_t n, uint32_t id, uint32_t status, uint32_t written)
{
    UrbdrcMessage m = completion(URBDRC_URB_COMPLETION_NO_DATA, id, status);

    m.completion.output_size = written;
    client_send(f, n, &m);
}

void client_data(Fixture *f, size_t n, uint32_t id, uint32_t status, size_t len)
{
    static const uint8_t bytes[70000] = {0xca, 0xfe};
    UrbdrcMessage m = completion(URBDRC_URB_COMPLETION, id, status);

    m.completion.output_size = (uint32_t)len;
    m.completion.data = bytes;
    m.completion.data_len = len;
    client_send(f, n, &m);
}

/* ---- a stick: bulk 0x81 and 0x02 in alternate 0, one more pair in alternate 1 ---- */

static uint8_t raw_config[] = {9, 2, 9, 0, 1, 1, 0, 0x80, 50}; /* opaque to this layer */
static UsbAltSetting stick_alts[] = {
    {.interface = 0,
     .alt = 0,
     .class_code = 8,
     .n_endpoints = 2,
     .endpoints = {{.address = 0x81, .type = USB_ENDPOINT_BULK, .max_packet_raw = 512},
                   {.address = 0x02, .type = USB_ENDPOINT_BULK, .max_packet_raw = 512}}},
    {.interface = 0,
     .alt = 1,
     .class_code = 8,
     .n_endpoints = 1,
     .endpoints = {{.address = 0x83, .type = USB_ENDPOINT_ISO, .max_packet_raw = 192}}},
};
const UsbConfiguration stick = {.value = 1,
                                .n_interfaces = 1,
                                .interface_numbers = {0},
                                .n_alts = 2,
                                .alts = stick_alts,
                                .raw_len = sizeof(raw_config),
                                .raw = raw_config};

bool submit(Device *d, UsbRequest r)
{
    return d->source->ops->submit(d->source, &r);
}

UsbRequest bulk(uint32_t id, uint8_t endpoint, uint32_t length)
{
    static const uint8_t payload[65536];

    return (UsbRequest){.id = id,
                        .kind = USB_REQUEST_BULK,
                        .endpoint = endpoint,
                        .length = length,
                        .data = endpoint & 0x80 ? NULL : payload};
}

UsbRequest control(uint32_t id, UsbSetup setup)
{
    static const uint8_t payload[4096];

    return (UsbRequest){.id = id,
                        .kind = USB_REQUEST_CONTROL,
                        .setup = setup,
                        .length = setup.length,
                        .data = setup.request_type & 0x80 ? NULL : payload};
}

UsbRequest select_configuration(uint32_t id)
{
    return (UsbRequest){
        .id = id, .kind = USB_REQUEST_SELECT_CONFIGURATION, .configuration = &stick};
}

UsbRequest select_interface(uint32_t id, uint8_t alt)
{
    return (UsbRequest){.id = id,
                        .kind = USB_REQUEST_SELECT_INTERFACE,
                        .configuration = &stick,
                        .alt = &stick_alts[alt]};
}

UsbRequest clear_halt(uint32_t id, uint8_t endpoint)
{
    return (UsbRequest){.id = id, .kind = USB_REQUEST_CLEAR_HALT, .endpoint = endpoint};
}

const UsbSetup get_device = {0x80, 6, 0x0100, 0, 18};

UrbdrcInterfaceResult interface_result(uint8_t alt)
{
    UrbdrcInterfaceResult r = {.number = 0, .alt = alt, .handle = 0x77};
    const UsbAltSetting *a = &stick_alts[alt];

    for (uint32_t i = 0; i < a->n_endpoints; i++)
        r.pipes[r.n_pipes++] = (UrbdrcPipeResult){.endpoint = a->endpoints[i].address,
                                                  .handle = 0xffff0000u | a->endpoints[i].address};
    return r;
}

void client_selected(Fixture *f, size_t n, uint32_t id, const UrbdrcInterfaceResult *r,
                     uint32_t count)
{
    UrbdrcMessage m = completion(URBDRC_URB_COMPLETION_NO_DATA, id, 0);
    Writer w;

    writer_init(&w, 1 << 16);
    urbdrc_write_select_configuration_result(&w, 0xc0c0, count, r);
    m.completion.result = w.data;
    m.completion.result_len = w.len;
    client_send(f, n, &m);
    writer_clear(&w);
}

/* ---- fixture ---- */

Fixture *new_fixture(void)
{
    Fixture *f = g_new0(Fixture, 1);

    f->now = 1000 * SECOND;
    f->manager = fake_dvc_manager_new();
    f->urbdrc = urbdrc_new(f->manager, "alice@127.0.0.1", f->now, &callbacks, f);
    return f;
}

void tick(Fixture *f, uint64_t us)
{
    urbdrc_tick(f->urbdrc, f->now); /* arms what messages have started */
    f->now += us;
    urbdrc_tick(f->urbdrc, f->now);
}

void free_fixture(Fixture *f)
{
    urbdrc_free(f->urbdrc);
    for (unsigned i = 0; i < f->n_devices; i++)
        g_assert_cmpuint(f->devices[i].gone, ==, 1); /* exactly once, whatever happened */
    fake_dvc_manager_free(f->manager);
    free(f->taken);
    g_free(f);
}

Fixture *fixture_with_device(uint32_t usb_device)
{
    Fixture *f = new_fixture();

    client_handshake(f, 0);
    client_announce(f);
    client_handshake(f, 1);
    client_add_device(f, 1, usb_device);
    return f;
}

Fixture *fixture_with_stick(uint32_t usb_device)
{
    Fixture *f = fixture_with_device(usb_device);
    UrbdrcInterfaceResult r = interface_result(0);

    g_assert_true(submit(&f->devices[0], select_configuration(1)));
    client_take(f, 1, URBDRC_TRANSFER_IN);
    client_selected(f, 1, 1, &r, 1);
    g_assert_cmpuint(f->devices[0].n_completions, ==, 1);
    g_assert_cmpint(f->devices[0].last.status, ==, USB_STATUS_SUCCESS);
    return f;
}

void assert_device_closed(Fixture *f)
{
    g_assert_true(fake_dvc_closed_by_server(dvc(f, 1)));
    g_assert_cmpuint(f->devices[0].gone, ==, 1);
    g_assert_false(fake_dvc_dead(dvc(f, 0))); /* the control channel is not to blame */
}

void status_is(Fixture *f, const char *state, const char *flavour)
{
    UrbdrcDeviceStatus s[2];

    g_assert_cmpuint(urbdrc_status(f->urbdrc, s, 2), >=, 1);
    g_assert_cmpstr(s[0].state, ==, state);
    g_assert_cmpstr(s[0].flavour, ==, flavour);
}
