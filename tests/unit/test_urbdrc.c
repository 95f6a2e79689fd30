/*
 * The URBDRC server against a scripted client on fake channels: handshake, devices, transfers, and
 * everything a client may get wrong.
 */
#include "urbdrc.h"

#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "fake_dvc.h"
#include "log.h"
#include "urbdrc_flavour.h"
#include "urbdrc_source.h"

#define SECOND 1000000u

typedef struct Device {
    UsbSource *source;
    UsbCompletion last;
    uint8_t data[65536];
    UsbIsoPacket packets[8];
    unsigned n_completions;
    unsigned gone;
    char why[200];
    uint32_t resubmit; /* id to submit from inside .complete */
} Device;

typedef struct Fixture {
    DvcManager *manager;
    Urbdrc *urbdrc;
    uint64_t now;
    Device devices[URBDRC_MAX_DEVICES];
    unsigned n_devices;
    unsigned n_unavailable;
    bool retire_at_once;
    UrbdrcScratch scratch;
    uint8_t *taken;
} Fixture;

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

static const UrbdrcCallbacks callbacks = {.device_added = on_device_added,
                                          .unavailable = on_unavailable};

/* ---- the client ---- */

static Dvc *dvc(Fixture *f, size_t n)
{
    return fake_dvc_nth(f->manager, n);
}

static void client_send(Fixture *f, size_t n, const UrbdrcMessage *m)
{
    Writer w;

    writer_init(&w, 1 << 24);
    urbdrc_write_message(&w, m);
    g_assert_true(writer_ok(&w));
    fake_dvc_receive(dvc(f, n), w.data, w.len);
    writer_clear(&w);
}

/* The next message of the server, which must be of @kind. Valid until the next call. */
static UrbdrcMessage client_take(Fixture *f, size_t n, UrbdrcKind kind)
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

static void assert_quiet(Fixture *f, size_t n)
{
    g_assert_cmpuint(fake_dvc_pending(dvc(f, n)), ==, 0);
}

static void client_caps(Fixture *f, size_t n)
{
    UrbdrcMessage m = client_take(f, n, URBDRC_CAPS_REQUEST);

    g_assert_cmpuint(m.caps.value, ==, 1);
    client_send(
        f, n,
        &(UrbdrcMessage){.kind = URBDRC_CAPS_RESPONSE, .message_id = m.message_id, .caps = {1, 0}});
}

static void client_created(Fixture *f, size_t n)
{
    UrbdrcMessage m = client_take(f, n, URBDRC_CHANNEL_CREATED);

    g_assert_cmpuint(m.interface_id, ==, URBDRC_INTERFACE_TO_CLIENT);
    client_send(f, n,
                &(UrbdrcMessage){.kind = URBDRC_CHANNEL_CREATED,
                                 .interface_id = URBDRC_INTERFACE_TO_SERVER,
                                 .created.major = 1});
}

/* Accepts channel @n and takes it through the handshake, RIMCALL_RELEASE included. */
static void client_handshake(Fixture *f, size_t n)
{
    fake_dvc_accept(dvc(f, n));
    client_caps(f, n);
    client_created(f, n);
    UrbdrcMessage m = client_take(f, n, URBDRC_RELEASE);
    g_assert_cmpuint(m.interface_id, ==, URBDRC_INTERFACE_TO_CLIENT);
    assert_quiet(f, n);
}

static void client_announce(Fixture *f)
{
    client_send(f, 0,
                &(UrbdrcMessage){.kind = URBDRC_ADD_VIRTUAL_CHANNEL,
                                 .interface_id = URBDRC_INTERFACE_DEVICE_SINK});
}

static const UrbdrcString hardware_id = {(const uint8_t *)"U\0S\0B\0\\\0V\0I\0D\0\0\0\0",
                                         9}; /* "USB\VID", and the list's end */

/* ADD_DEVICE as FreeRDP (@usb_device from 5) or Windows (0) sends it. */
static UrbdrcMessage add_device(uint32_t usb_device)
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

static void client_add_device(Fixture *f, size_t n, uint32_t usb_device)
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

static UrbdrcMessage completion(UrbdrcKind kind, uint32_t id, uint32_t status)
{
    return (UrbdrcMessage){.kind = kind,
                           .interface_id = 0x10000,
                           .completion = {.request_id = id, .usbd_status = status}};
}

static void client_no_data(Fixture *f, size_t n, uint32_t id, uint32_t status, uint32_t written)
{
    UrbdrcMessage m = completion(URBDRC_URB_COMPLETION_NO_DATA, id, status);

    m.completion.output_size = written;
    client_send(f, n, &m);
}

static void client_data(Fixture *f, size_t n, uint32_t id, uint32_t status, size_t len)
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
static UsbConfiguration stick = {.value = 1,
                                 .n_interfaces = 1,
                                 .interface_numbers = {0},
                                 .n_alts = 2,
                                 .alts = stick_alts,
                                 .raw_len = sizeof(raw_config),
                                 .raw = raw_config};

static bool submit(Device *d, UsbRequest r)
{
    return d->source->ops->submit(d->source, &r);
}

static UsbRequest bulk(uint32_t id, uint8_t endpoint, uint32_t length)
{
    static const uint8_t payload[65536];

    return (UsbRequest){.id = id,
                        .kind = USB_REQUEST_BULK,
                        .endpoint = endpoint,
                        .length = length,
                        .data = endpoint & 0x80 ? NULL : payload};
}

static UsbRequest control(uint32_t id, UsbSetup setup)
{
    static const uint8_t payload[4096];

    return (UsbRequest){.id = id,
                        .kind = USB_REQUEST_CONTROL,
                        .setup = setup,
                        .length = setup.length,
                        .data = setup.request_type & 0x80 ? NULL : payload};
}

static UsbRequest select_configuration(uint32_t id)
{
    return (UsbRequest){
        .id = id, .kind = USB_REQUEST_SELECT_CONFIGURATION, .configuration = &stick};
}

static UsbRequest select_interface(uint32_t id, uint8_t alt)
{
    return (UsbRequest){.id = id,
                        .kind = USB_REQUEST_SELECT_INTERFACE,
                        .configuration = &stick,
                        .alt = &stick_alts[alt]};
}

static UsbRequest clear_halt(uint32_t id, uint8_t endpoint)
{
    return (UsbRequest){.id = id, .kind = USB_REQUEST_CLEAR_HALT, .endpoint = endpoint};
}

static const UsbSetup get_device = {0x80, 6, 0x0100, 0, 18};

static UrbdrcInterfaceResult interface_result(uint8_t alt)
{
    UrbdrcInterfaceResult r = {.number = 0, .alt = alt, .handle = 0x77};
    const UsbAltSetting *a = &stick_alts[alt];

    for (uint32_t i = 0; i < a->n_endpoints; i++)
        r.pipes[r.n_pipes++] = (UrbdrcPipeResult){.endpoint = a->endpoints[i].address,
                                                  .handle = 0xffff0000u | a->endpoints[i].address};
    return r;
}

static void client_selected(Fixture *f, size_t n, uint32_t id, const UrbdrcInterfaceResult *r,
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

static Fixture *new_fixture(void)
{
    Fixture *f = g_new0(Fixture, 1);

    f->now = 1000 * SECOND;
    f->manager = fake_dvc_manager_new();
    f->urbdrc = urbdrc_new(f->manager, "alice@127.0.0.1", f->now, &callbacks, f);
    return f;
}

static void tick(Fixture *f, uint64_t us)
{
    urbdrc_tick(f->urbdrc, f->now); /* arms what messages have started */
    f->now += us;
    urbdrc_tick(f->urbdrc, f->now);
}

static void free_fixture(Fixture *f)
{
    urbdrc_free(f->urbdrc);
    for (unsigned i = 0; i < f->n_devices; i++)
        g_assert_cmpuint(f->devices[i].gone, ==, 1); /* exactly once, whatever happened */
    fake_dvc_manager_free(f->manager);
    free(f->taken);
    g_free(f);
}

/* Control channel up, one device on channel 1. */
static Fixture *fixture_with_device(uint32_t usb_device)
{
    Fixture *f = new_fixture();

    client_handshake(f, 0);
    client_announce(f);
    client_handshake(f, 1);
    client_add_device(f, 1, usb_device);
    return f;
}

/* And the stick configured. */
static Fixture *fixture_with_stick(uint32_t usb_device)
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

static void assert_device_closed(Fixture *f)
{
    g_assert_true(fake_dvc_closed_by_server(dvc(f, 1)));
    g_assert_cmpuint(f->devices[0].gone, ==, 1);
    g_assert_false(fake_dvc_dead(dvc(f, 0))); /* the control channel is not to blame */
}

static void status_is(Fixture *f, const char *state, const char *flavour)
{
    UrbdrcDeviceStatus s[2];

    g_assert_cmpuint(urbdrc_status(f->urbdrc, s, 2), >=, 1);
    g_assert_cmpstr(s[0].state, ==, state);
    g_assert_cmpstr(s[0].flavour, ==, flavour);
}

/* ---- handshake ---- */

static void test_freerdp_handshake(void)
{
    Fixture *f = new_fixture();

    g_assert_cmpstr(fake_dvc_name(dvc(f, 0)), ==, "URBDRC");
    g_assert_cmpint(fake_dvc_priority(dvc(f, 0)), ==, DVC_URGENT);
    client_handshake(f, 0);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, 1);
    client_announce(f);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, 2);
    status_is(f, "opening", "");
    client_handshake(f, 1);
    status_is(f, "device", "");
    client_add_device(f, 1, 5);
    status_is(f, "active", "freerdp3");
    g_assert_cmphex(f->devices[0].source->quirks, ==,
                    USB_QUIRK_CLEAR_HALT_CANCELS_ALL | USB_QUIRK_RESET_IS_NO_OP |
                        USB_QUIRK_EQUAL_ISO_PACKETS | USB_QUIRK_CONTROL_BLOCKS_CLIENT);
    g_assert_true(f->devices[0].source->high_speed_hint);
    g_assert_cmpstr(f->devices[0].source->label, ==, "alice@127.0.0.1 channel 2");
    assert_quiet(f, 1);
    free_fixture(f);
}

static void test_windows_handshake(void)
{
    Fixture *f = fixture_with_device(0);
    UrbdrcDeviceStatus s;

    urbdrc_status(f->urbdrc, &s, 1);
    g_assert_cmpstr(s.flavour, ==, "windows");
    g_assert_cmpstr(s.hardware_id, ==, "USB/VID");
    g_assert_cmphex(f->devices[0].source->quirks, ==,
                    USB_QUIRK_TRANSFERS_MAY_PEND | USB_QUIRK_ISO_WHOLE_FRAMES);
    /* It releases the callback interface whenever it likes; R may be anything, also 0. */
    for (int i = 0; i < 100; i++)
        client_send(f, 1, &(UrbdrcMessage){.kind = URBDRC_RELEASE});
    g_assert_true(submit(&f->devices[0], control(1, get_device)));
    UrbdrcMessage m = client_take(f, 1, URBDRC_TRANSFER_IN);
    g_assert_cmphex(m.interface_id, ==, 0);
    m = completion(URBDRC_URB_COMPLETION, 1, 0);
    m.interface_id = 1;
    m.completion.data = (const uint8_t *)"0123456789abcdefgh";
    m.completion.data_len = m.completion.output_size = 18;
    client_send(f, 1, &m);
    g_assert_cmpuint(f->devices[0].n_completions, ==, 1);
    g_assert_cmpmem(f->devices[0].data, 18, "0123456789abcdefgh", 18);
    free_fixture(f);
}

static void test_eager_client(void)
{
    /* By the letter of 3.3.5.2.2 a client announces without waiting for RIMCALL_RELEASE. */
    Fixture *f = new_fixture();
    const UrbdrcMessage add = add_device(7);

    fake_dvc_accept(dvc(f, 0));
    client_caps(f, 0);
    client_announce(f);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, 1);
    client_created(f, 0);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, 2);
    fake_dvc_accept(dvc(f, 1));
    client_caps(f, 1);
    client_send(f, 1, &add);
    g_assert_cmpuint(f->n_devices, ==, 1);
    client_created(f, 1);
    client_take(f, 1, URBDRC_REGISTER_CALLBACK);
    assert_quiet(f, 1); /* no RIMCALL_RELEASE: it would bind another device here */
    free_fixture(f);
}

static void test_wrong_order_is_ignored_but_bounded(void)
{
    Fixture *f = new_fixture();
    const UrbdrcMessage created = {.kind = URBDRC_CHANNEL_CREATED,
                                   .interface_id = URBDRC_INTERFACE_TO_SERVER,
                                   .created.major = 1};

    fake_dvc_accept(dvc(f, 0));
    client_send(f, 0, &created);
    client_announce(f);
    client_caps(f, 0);
    client_created(f, 0);
    client_take(f, 0, URBDRC_RELEASE);
    client_send(f, 0, &created); /* twice: no second release */
    assert_quiet(f, 0);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, 1);
    for (unsigned i = 0; i < URBDRC_MAX_IGNORED; i++)
        client_send(f, 0, &created);
    g_assert_true(fake_dvc_closed_by_server(dvc(f, 0)));
    g_assert_cmpuint(f->n_unavailable, ==, 1);
    free_fixture(f);
}

static void test_refusals(void)
{
    Fixture *f = new_fixture();

    fake_dvc_end(dvc(f, 0), DVC_CLOSED_REFUSED);
    g_assert_cmpuint(f->n_unavailable, ==, 1);
    g_assert_cmpuint(urbdrc_deadline(f->urbdrc), ==, UINT64_MAX);
    free_fixture(f);

    f = new_fixture();
    fake_dvc_accept(dvc(f, 0));
    client_send(f, 0, &(UrbdrcMessage){.kind = URBDRC_CAPS_RESPONSE, .caps = {1, 0x80004005}});
    g_assert_true(fake_dvc_closed_by_server(dvc(f, 0)));
    g_assert_cmpuint(f->n_unavailable, ==, 1);
    free_fixture(f);

    f = new_fixture();
    fake_dvc_accept(dvc(f, 0));
    client_caps(f, 0);
    client_send(f, 0,
                &(UrbdrcMessage){.kind = URBDRC_CHANNEL_CREATED,
                                 .interface_id = URBDRC_INTERFACE_TO_SERVER,
                                 .created.major = 2});
    g_assert_true(fake_dvc_closed_by_server(dvc(f, 0)));
    free_fixture(f);

    f = g_new0(Fixture, 1); /* no drdynvc: known only at the first tick */
    f->manager = fake_dvc_manager_new();
    fake_dvc_refuse_opens(f->manager);
    f->urbdrc = urbdrc_new(f->manager, "x", 1, &callbacks, f);
    g_assert_cmpuint(f->n_unavailable, ==, 0);
    g_assert_cmpuint(urbdrc_deadline(f->urbdrc), ==, 0);
    urbdrc_tick(f->urbdrc, 2);
    g_assert_cmpuint(f->n_unavailable, ==, 1);
    free_fixture(f);
}

static void test_handshake_timeouts(void)
{
    for (int steps = 0; steps < 3; steps++) {
        for (size_t n = 0; n < 2; n++) {
            Fixture *f = new_fixture();
            if (n == 1) {
                client_handshake(f, 0);
                client_announce(f);
            }
            if (steps > 0)
                fake_dvc_accept(dvc(f, n));
            if (steps > 1)
                client_caps(f, n);
            g_assert_cmpuint(urbdrc_deadline(f->urbdrc), ==, 0);
            tick(f, URBDRC_HANDSHAKE_US - 1);
            g_assert_false(fake_dvc_dead(dvc(f, n)));
            g_assert_cmpuint(urbdrc_deadline(f->urbdrc), ==, f->now + 1);
            tick(f, 1);
            g_assert_true(fake_dvc_closed_by_server(dvc(f, n)));
            g_assert_cmpuint(f->n_unavailable, ==, n == 0 ? 1 : 0);
            free_fixture(f);
        }
    }
}

static void test_idle_has_no_deadline(void)
{
    Fixture *f = fixture_with_device(5);

    tick(f, URBDRC_BEGIN_US);
    g_assert_cmpuint(urbdrc_deadline(f->urbdrc), ==, UINT64_MAX);
    tick(f, 3600ull * SECOND);
    g_assert_false(fake_dvc_dead(dvc(f, 1)));
    free_fixture(f);
}

static void test_two_devices_one_after_the_other(void)
{
    Fixture *f = new_fixture();

    client_handshake(f, 0);
    client_announce(f);
    client_announce(f);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, 2);
    client_handshake(f, 1);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, 2); /* not before the first has its device */
    client_add_device(f, 1, 5);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, 3);
    client_handshake(f, 2);
    client_add_device(f, 2, 6);
    /* Requests of one do not show on the other; equal ids are different requests. */
    g_assert_true(submit(&f->devices[0], control(1, get_device)));
    g_assert_true(submit(&f->devices[1], control(1, get_device)));
    client_take(f, 1, URBDRC_TRANSFER_IN);
    client_take(f, 2, URBDRC_TRANSFER_IN);
    client_data(f, 2, 1, 0, 18);
    g_assert_cmpuint(f->devices[0].n_completions, ==, 0);
    g_assert_cmpuint(f->devices[1].n_completions, ==, 1);
    fake_dvc_end(dvc(f, 1), DVC_CLOSED_BY_CLIENT);
    g_assert_cmpuint(f->devices[0].gone, ==, 1);
    g_assert_cmpuint(f->devices[1].gone, ==, 0);
    free_fixture(f);
}

static void test_surplus_announcement(void)
{
    Fixture *f = new_fixture();

    client_handshake(f, 0);
    client_announce(f);
    client_announce(f);
    client_handshake(f, 1); /* no ADD_DEVICE follows */
    tick(f, URBDRC_SERIAL_US);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, 3); /* holds up the next one this long only */
    client_handshake(f, 2);
    client_add_device(f, 2, 5);
    tick(f, URBDRC_HANDSHAKE_US - URBDRC_SERIAL_US);
    g_assert_true(fake_dvc_closed_by_server(dvc(f, 1)));
    g_assert_false(fake_dvc_dead(dvc(f, 2)));
    g_assert_cmpuint(f->n_devices, ==, 1);
    g_assert_cmpuint(f->n_unavailable, ==, 0);
    free_fixture(f);
}

/* The client's system gets time to load its driver for what is plugged in later. */
static void test_plugged_in_later(void)
{
    Fixture *f = new_fixture();

    client_handshake(f, 0);
    tick(f, URBDRC_BEGIN_US + 1);
    client_announce(f);
    tick(f, URBDRC_SETTLE_US - 1);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, 1);
    g_assert_cmpuint(urbdrc_deadline(f->urbdrc), ==, f->now + 1);
    client_announce(f); /* the next one's driver needs time, too */
    tick(f, URBDRC_SETTLE_US - 1);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, 1);
    tick(f, 1);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, 2);
    client_handshake(f, 1);
    client_add_device(f, 1, 5);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, 3);
    free_fixture(f);
}

static void test_device_limit(void)
{
    Fixture *f = new_fixture();

    client_handshake(f, 0);
    for (unsigned i = 0; i < 3 * URBDRC_MAX_DEVICES; i++)
        client_announce(f);
    for (unsigned i = 1; i <= URBDRC_MAX_DEVICES; i++) {
        g_assert_cmpuint(fake_dvc_count(f->manager), ==, i + 1);
        client_handshake(f, i);
        client_add_device(f, i, 4 + i);
    }
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, URBDRC_MAX_DEVICES + 1);
    /* A place that becomes free can be used again. */
    fake_dvc_end(dvc(f, 1), DVC_CLOSED_BY_CLIENT);
    client_announce(f);
    g_assert_cmpuint(fake_dvc_count(f->manager), ==, URBDRC_MAX_DEVICES + 2);
    fake_dvc_end(dvc(f, URBDRC_MAX_DEVICES + 1), DVC_CLOSED_REFUSED);
    free_fixture(f);
}

static void test_unplug_in_every_state(void)
{
    for (int steps = 0; steps < 6; steps++) {
        Fixture *f = new_fixture();
        client_handshake(f, 0);
        client_announce(f);
        if (steps == 1)
            fake_dvc_accept(dvc(f, 1));
        if (steps == 2) {
            fake_dvc_accept(dvc(f, 1));
            client_caps(f, 1);
        }
        if (steps >= 3)
            client_handshake(f, 1);
        if (steps >= 4)
            client_add_device(f, 1, 5);
        if (steps >= 5) {
            submit(&f->devices[0], control(1, get_device));
            submit(&f->devices[0], select_configuration(2)); /* queued behind it */
        }
        client_announce(f); /* the next one gets its channel then */
        fake_dvc_end(dvc(f, 1), steps == 0 ? DVC_CLOSED_REFUSED : DVC_CLOSED_BY_CLIENT);
        g_assert_cmpuint(f->n_devices, ==, steps >= 4 ? 1 : 0);
        g_assert_cmpuint(fake_dvc_count(f->manager), ==, 3);
        if (steps >= 4)
            g_assert_cmpstr(f->devices[0].why, ==, "the device was unplugged");
        free_fixture(f);
    }
}

static void test_control_channel_lost_keeps_devices(void)
{
    Fixture *f = fixture_with_device(5);

    fake_dvc_end(dvc(f, 0), DVC_CLOSED_BY_CLIENT);
    g_assert_cmpuint(f->n_unavailable, ==, 1);
    g_assert_cmpuint(f->devices[0].gone, ==, 0);
    g_assert_true(submit(&f->devices[0], control(1, get_device)));
    free_fixture(f);
}

static void test_retire(void)
{
    Fixture *f = fixture_with_device(5);

    f->devices[0].source->ops->retire(f->devices[0].source, "hubs are not allowed");
    f->devices[0].source->ops->retire(f->devices[0].source, "twice");
    UrbdrcMessage m = client_take(f, 1, URBDRC_RETRACT_DEVICE);
    g_assert_cmpuint(m.retract.reason, ==, URBDRC_RETRACT_BLOCKED_BY_POLICY);
    assert_quiet(f, 1);
    tick(f, URBDRC_RETRACT_GRACE_US - 1);
    g_assert_cmpuint(f->devices[0].gone, ==, 0);
    status_is(f, "retracting", "freerdp3");
    tick(f, 1);
    assert_device_closed(f);
    free_fixture(f);

    f = fixture_with_device(0); /* Windows closes by itself */
    f->devices[0].source->ops->retire(f->devices[0].source, "no slot");
    fake_dvc_end(dvc(f, 1), DVC_CLOSED_BY_CLIENT);
    g_assert_cmpuint(f->devices[0].gone, ==, 1);
    tick(f, 10 * SECOND);
    free_fixture(f);

    f = new_fixture(); /* from inside device_added */
    f->retire_at_once = true;
    client_handshake(f, 0);
    client_announce(f);
    client_handshake(f, 1);
    client_add_device(f, 1, 5);
    client_take(f, 1, URBDRC_RETRACT_DEVICE);
    tick(f, URBDRC_RETRACT_GRACE_US);
    assert_device_closed(f);
    free_fixture(f);
}

static void test_malformed_closes_that_channel(void)
{
    Fixture *f = fixture_with_device(5);

    fake_dvc_receive(dvc(f, 1), "\0\0\0\x40garbage", 11);
    assert_device_closed(f);
    free_fixture(f);

    f = fixture_with_device(5);
    fake_dvc_end(dvc(f, 1), DVC_CLOSED_OVERSIZE);
    g_assert_cmpuint(f->devices[0].gone, ==, 1);
    free_fixture(f);
}

/* ---- requests ---- */

static void test_bulk(void)
{
    Fixture *f = fixture_with_stick(5);
    Device *d = &f->devices[0];

    g_assert_true(submit(d, bulk(10, 0x81, 512)));
    g_assert_true(submit(d, bulk(11, 0x02, 31)));
    UrbdrcMessage m = client_take(f, 1, URBDRC_TRANSFER_IN);
    g_assert_cmphex(m.transfer.urb.function, ==, URB_BULK_OR_INTERRUPT_TRANSFER);
    g_assert_cmphex(m.transfer.urb.transfer.pipe, ==, 0xffff0081);
    g_assert_cmphex(m.transfer.urb.transfer.flags, ==, URB_FLAG_IN | URB_FLAG_SHORT_OK);
    g_assert_cmpuint(m.transfer.output_size, ==, 512);
    m = client_take(f, 1, URBDRC_TRANSFER_OUT);
    g_assert_cmphex(m.transfer.urb.transfer.pipe, ==, 0xffff0002);
    g_assert_cmphex(m.transfer.urb.transfer.flags, ==, 0);
    g_assert_cmpuint(m.transfer.output_size, ==, 31);

    client_data(f, 1, 10, 0, 13); /* short is fine */
    g_assert_cmpuint(d->last.id, ==, 10);
    g_assert_cmpuint(d->last.length, ==, 13);
    g_assert_cmphex(d->data[0], ==, 0xca);
    client_data(f, 1, 11, 0, 31); /* FreeRDP up to 3.30 echoes what was written */
    g_assert_cmpuint(d->last.id, ==, 11);
    g_assert_cmpuint(d->last.length, ==, 31);
    g_assert_null(d->last.data);

    g_assert_true(submit(d, bulk(12, 0x02, 64)));
    client_no_data(f, 1, 12, 0, 0); /* a success that reports nothing has sent everything */
    g_assert_cmpuint(d->last.length, ==, 64);
    g_assert_true(submit(d, bulk(13, 0x02, 0))); /* a zero-length packet is a transfer */
    client_no_data(f, 1, 13, 0, 0);
    g_assert_cmpuint(d->last.id, ==, 13);
    g_assert_cmpint(d->last.status, ==, USB_STATUS_SUCCESS);

    g_assert_false(submit(d, bulk(14, 0x83, 8))); /* not in this alternate setting */
    g_assert_false(submit(d, bulk(0, 0x81, 8)));
    g_assert_false(submit(d, bulk(USB_MAX_REQUEST_ID + 1, 0x81, 8)));
    g_assert_false(submit(d, bulk(15, 0x81, USB_MAX_TRANSFER_BYTES + 1)));
    g_assert_true(submit(d, bulk(15, 0x81, 8)));
    g_assert_false(submit(d, bulk(15, 0x81, 8))); /* the id is taken */
    free_fixture(f);
}

static void test_resubmit_from_completion(void)
{
    Fixture *f = fixture_with_stick(5);
    Device *d = &f->devices[0];

    g_assert_true(submit(d, bulk(10, 0x81, 512)));
    d->resubmit = 11;
    client_data(f, 1, 10, 0, 512);
    g_assert_cmpuint(fake_dvc_pending(dvc(f, 1)), ==, 2);
    client_data(f, 1, 11, 0, 512);
    g_assert_cmpuint(d->last.id, ==, 11);
    free_fixture(f);
}

static void test_in_flight_is_bounded(void)
{
    Fixture *f = fixture_with_stick(5);
    Device *d = &f->devices[0];
    unsigned n = 0;

    while (submit(d, bulk(10 + n, 0x81, 8)))
        n++;
    g_assert_cmpuint(n, ==, USB_MAX_IN_FLIGHT);
    g_assert_true(submit(d, clear_halt(5000, 0x81))); /* control gets through regardless */
    n = 0;
    while (submit(d, control(6000 + n, get_device)))
        n++;
    g_assert_cmpuint(n, ==, 64);
    client_no_data(f, 1, 5000, 0, 0);
    g_assert_cmpuint(d->last.id, ==, 5000);
    free_fixture(f);
}

static void test_select_configuration(void)
{
    Fixture *f = fixture_with_device(5);
    Device *d = &f->devices[0];
    UrbdrcInterfaceResult r = interface_result(0);

    g_assert_false(submit(d, bulk(1, 0x81, 8)));       /* no pipes yet */
    g_assert_false(submit(d, select_interface(1, 1))); /* kills FreeRDP up to 3.21 */
    g_assert_true(submit(d, select_configuration(1)));
    UrbdrcMessage m = client_take(f, 1, URBDRC_TRANSFER_IN);
    g_assert_cmpuint(m.transfer.output_size, ==, 0);
    g_assert_cmphex(m.transfer.urb.function, ==, URB_SELECT_CONFIGURATION);
    g_assert_cmpuint(m.transfer.urb.select_configuration.n_interfaces, ==, 1);
    g_assert_cmpuint(m.transfer.urb.select_configuration.interfaces[0].n_pipes, ==, 2);
    g_assert_cmpuint(m.transfer.urb.select_configuration.interfaces[0].alt, ==, 0);
    g_assert_cmpmem(m.transfer.urb.select_configuration.descriptor,
                    m.transfer.urb.select_configuration.descriptor_len, raw_config,
                    sizeof(raw_config));
    client_selected(f, 1, 1, NULL, 0); /* FreeRDP's way to refuse */
    g_assert_cmpint(d->last.status, ==, USB_STATUS_IOERROR);
    g_assert_false(submit(d, bulk(2, 0x81, 8)));

    g_assert_true(submit(d, select_configuration(3)));
    client_selected(f, 1, 3, &r, 1);
    g_assert_cmpint(d->last.status, ==, USB_STATUS_SUCCESS);
    client_take(f, 1, URBDRC_TRANSFER_IN);

    /* Another alternate setting replaces the pipes of its interface. */
    g_assert_true(submit(d, select_interface(4, 1)));
    m = client_take(f, 1, URBDRC_TRANSFER_IN);
    g_assert_cmphex(m.transfer.urb.select_interface.configuration_handle, ==, 0xc0c0);
    g_assert_cmpuint(m.transfer.urb.select_interface.interface->alt, ==, 1);
    UrbdrcInterfaceResult alt = interface_result(1);
    UrbdrcMessage c = completion(URBDRC_URB_COMPLETION_NO_DATA, 4, 0);
    Writer w;
    writer_init(&w, 1 << 16);
    urbdrc_write_interface_result(&w, &alt);
    c.completion.result = w.data;
    c.completion.result_len = w.len;
    client_send(f, 1, &c);
    writer_clear(&w);
    g_assert_cmpint(d->last.status, ==, USB_STATUS_SUCCESS);
    g_assert_false(submit(d, bulk(5, 0x81, 8)));
    g_assert_true(submit(d, bulk(6, 0x83, 8)));
    client_take(f, 1, URBDRC_TRANSFER_IN);

    /* And no configuration none at all. */
    g_assert_true(submit(d, (UsbRequest){.id = 7, .kind = USB_REQUEST_SELECT_CONFIGURATION}));
    m = client_take(f, 1, URBDRC_TRANSFER_IN);
    g_assert_null(m.transfer.urb.select_configuration.descriptor);
    client_selected(f, 1, 7, NULL, 0);
    g_assert_cmpint(d->last.status, ==, USB_STATUS_SUCCESS);
    g_assert_false(submit(d, bulk(8, 0x83, 8)));
    free_fixture(f);
}

static uint32_t selected_interfaces(Fixture *f, uint32_t id)
{
    UrbdrcMessage m = client_take(f, 1, URBDRC_TRANSFER_IN);

    g_assert_cmphex(m.transfer.urb.function, ==, URB_SELECT_CONFIGURATION);
    g_assert_cmpuint(m.transfer.urb.request_id, ==, id);
    g_assert_cmpmem(m.transfer.urb.select_configuration.descriptor,
                    m.transfer.urb.select_configuration.descriptor_len, raw_config,
                    sizeof(raw_config));
    for (uint32_t i = 0; i < m.transfer.urb.select_configuration.n_interfaces; i++)
        g_assert_cmpuint(m.transfer.urb.select_configuration.interfaces[i].number, ==, 0);
    return m.transfer.urb.select_configuration.n_interfaces;
}

/* A device whose other configuration has three interfaces. */
static void test_select_pads(void)
{
    UsbConfiguration small = stick;
    UrbdrcInterfaceResult r[3] = {interface_result(0), interface_result(0), interface_result(0)};
    UsbRequest q = select_configuration(1);

    small.most_interfaces = 3;
    q.configuration = &small;

    Fixture *f = fixture_with_device(5); /* FreeRDP up to 3.21 takes it */
    Device *d = &f->devices[0];
    g_assert_true(submit(d, q));
    g_assert_cmpuint(selected_interfaces(f, 1), ==, 3);
    client_selected(f, 1, 1, r, 3);
    g_assert_cmpint(d->last.status, ==, USB_STATUS_SUCCESS);
    g_assert_true(submit(d, bulk(2, 0x81, 8)));
    free_fixture(f);

    f = fixture_with_device(5); /* later ones do not, and are asked no more */
    d = &f->devices[0];
    g_assert_true(submit(d, q));
    g_assert_true(submit(d, control(2, get_device))); /* waits behind it */
    g_assert_cmpuint(selected_interfaces(f, 1), ==, 3);
    client_selected(f, 1, 1, NULL, 0);
    g_assert_cmpuint(d->n_completions, ==, 0);
    g_assert_cmpuint(selected_interfaces(f, 1), ==, 1);
    client_selected(f, 1, 1, r, 1);
    g_assert_cmpuint(d->n_completions, ==, 1);
    g_assert_cmpint(d->last.status, ==, USB_STATUS_SUCCESS);
    client_take(f, 1, URBDRC_TRANSFER_IN); /* the one that waited */
    client_no_data(f, 1, 2, 0, 0);
    q.id = 3;
    g_assert_true(submit(d, q));
    g_assert_cmpuint(selected_interfaces(f, 3), ==, 1);
    client_selected(f, 1, 3, NULL, 0); /* it cannot be selected at all */
    g_assert_cmpint(d->last.status, ==, USB_STATUS_IOERROR);
    free_fixture(f);

    f = fixture_with_device(5); /* an unplugged one leaves nothing behind */
    g_assert_true(submit(&f->devices[0], q));
    free_fixture(f);

    f = fixture_with_device(0); /* Windows: exactly one per interface */
    q.id = 1;
    g_assert_true(submit(&f->devices[0], q));
    g_assert_cmpuint(selected_interfaces(f, 1), ==, 1);
    free_fixture(f);
}

static void test_select_interface_of_freerdp_3_14(void)
{
    /* Part of the result again where HResult belongs; read as HRESULT it would be a failure. */
    static const uint8_t extra[] = {0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0x10, 0, 0, 1};
    Fixture *f = fixture_with_stick(5);
    UrbdrcInterfaceResult r = interface_result(0);
    Writer w, result;

    g_assert_true(submit(&f->devices[0], select_interface(2, 0)));
    writer_init(&w, 4096);
    writer_init(&result, 4096);
    urbdrc_write_interface_result(&result, &r);
    UrbdrcMessage c = completion(URBDRC_URB_COMPLETION_NO_DATA, 2, 0);
    c.completion.result = result.data;
    c.completion.result_len = result.len;
    urbdrc_write_message(&w, &c);
    size_t at = w.len - 8;
    writer_bytes(&w, extra, sizeof(extra));
    memmove(w.data + at + sizeof(extra), w.data + at, 8);
    memcpy(w.data + at, extra, sizeof(extra));
    fake_dvc_receive(dvc(f, 1), w.data, w.len);
    g_assert_cmpuint(f->devices[0].last.id, ==, 2);
    g_assert_cmpint(f->devices[0].last.status, ==, USB_STATUS_SUCCESS);
    writer_clear(&w);
    writer_clear(&result);
    free_fixture(f);
}

static void test_select_result_must_fit_the_descriptor(void)
{
    for (int i = 0; i < 3; i++) {
        Fixture *f = fixture_with_device(5);
        UrbdrcInterfaceResult r[2] = {interface_result(0), interface_result(0)};

        g_assert_true(submit(&f->devices[0], select_configuration(1)));
        if (i == 0)
            r[0].pipes[1].endpoint = 0x85; /* not in the descriptor */
        if (i == 1)
            r[0].pipes[1].endpoint = 0x81;           /* twice */
        client_selected(f, 1, 1, r, i == 2 ? 2 : 1); /* an interface twice */
        assert_device_closed(f);
        g_assert_cmpuint(f->devices[0].n_completions, ==, 0);
        free_fixture(f);
    }
}

static void test_control_is_one_at_a_time(void)
{
    Fixture *f = fixture_with_stick(5);
    Device *d = &f->devices[0];

    for (uint32_t id = 10; id < 14; id++)
        g_assert_true(submit(d, control(id, get_device)));
    client_take(f, 1, URBDRC_TRANSFER_IN);
    assert_quiet(f, 1);
    g_assert_true(submit(d, bulk(20, 0x81, 8))); /* data does not wait */
    client_take(f, 1, URBDRC_TRANSFER_IN);
    d->source->ops->cancel(d->source, 11); /* still in the queue: nobody else knows it */
    assert_quiet(f, 1);
    client_data(f, 1, 10, 0, 18);
    UrbdrcMessage m = client_take(f, 1, URBDRC_TRANSFER_IN);
    g_assert_cmpuint(m.transfer.urb.request_id, ==, 12);
    /* One that is never answered is cancelled by its timer, and the next goes out. */
    d->source->ops->cancel(d->source, 12);
    m = client_take(f, 1, URBDRC_CANCEL_REQUEST);
    g_assert_cmpuint(m.cancel.request_id, ==, 12);
    m = client_take(f, 1, URBDRC_TRANSFER_IN);
    g_assert_cmpuint(m.transfer.urb.request_id, ==, 13);
    client_data(f, 1, 13, 0, 18);
    g_assert_cmpuint(d->last.id, ==, 13);
    client_data(f, 1, 12, 0, 18); /* late */
    g_assert_cmpuint(d->last.id, ==, 13);
    g_assert_cmpuint(d->gone, ==, 0);
    free_fixture(f);
}

static void test_oversize_closes(void)
{
    const struct {
        uint8_t endpoint;
        bool data;
        uint32_t claimed;
    } cases[] = {
        {0x81, true, 513}, {0x02, false, 513}, {0x02, true, 600}, {0x02, false, UINT32_MAX}};

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        Fixture *f = fixture_with_stick(5);
        g_assert_true(submit(&f->devices[0], bulk(2, cases[i].endpoint, 512)));
        if (cases[i].data)
            client_data(f, 1, 2, 0, cases[i].claimed);
        else
            client_no_data(f, 1, 2, 0, cases[i].claimed);
        assert_device_closed(f);
        g_assert_cmpuint(f->devices[0].n_completions, ==, 1); /* the SELECT only */
        free_fixture(f);
    }
}

static void test_unknown_ids(void)
{
    Fixture *f = fixture_with_stick(5);

    client_no_data(f, 1, 77, 0, 0); /* never sent */
    assert_device_closed(f);
    free_fixture(f);

    f = fixture_with_stick(5);
    client_no_data(f, 1, 0, 0, 0);
    assert_device_closed(f);
    free_fixture(f);

    f = fixture_with_stick(5); /* the completion of another kind */
    g_assert_true(submit(&f->devices[0], bulk(2, 0x81, 8)));
    UrbdrcMessage m = completion(URBDRC_IOCONTROL_COMPLETION, 2, 0);
    client_send(f, 1, &m);
    assert_device_closed(f);
    free_fixture(f);
}

static void test_late_and_double_answers(void)
{
    Fixture *f = fixture_with_stick(5);
    Device *d = &f->devices[0];
    unsigned before;

    g_assert_true(submit(d, bulk(2, 0x81, 8)));
    d->source->ops->cancel(d->source, 2);
    d->source->ops->cancel(d->source, 2); /* again: nothing more to cancel */
    client_take(f, 1, URBDRC_TRANSFER_IN);
    client_take(f, 1, URBDRC_CANCEL_REQUEST);
    assert_quiet(f, 1);
    before = d->n_completions;
    g_assert_false(submit(d, bulk(2, 0x81, 8))); /* a tombstone holds its id */
    client_no_data(f, 1, 2, USBD_LIBUSB_CANCELLED, 0);
    client_no_data(f, 1, 2, 0, 0);
    g_assert_cmpuint(d->n_completions, ==, before);

    g_assert_true(submit(d, bulk(3, 0x81, 8)));
    client_data(f, 1, 3, 0, 8);
    client_data(f, 1, 3, 0, 8); /* answered twice: once for the sink */
    g_assert_cmpuint(d->n_completions, ==, before + 1);
    g_assert_cmpuint(d->gone, ==, 0);

    /* More tombstones than there are graves: the oldest is forgotten, not blamed. */
    for (uint32_t id = 100; id < 100 + 4 * USB_MAX_TOMBSTONES; id++) {
        g_assert_true(submit(d, bulk(id, 0x81, 8)));
        d->source->ops->cancel(d->source, id);
    }
    for (uint32_t id = 100; id < 100 + 4 * USB_MAX_TOMBSTONES; id++)
        client_no_data(f, 1, id, USBD_STATUS_CANCELED, 0);
    g_assert_cmpuint(d->n_completions, ==, before + 1);
    g_assert_cmpuint(d->gone, ==, 0);
    /* But there is an end to patience. */
    for (unsigned i = 0; i < 2000 && d->gone == 0; i++)
        client_data(f, 1, 3, 0, 8);
    g_assert_cmpuint(d->gone, ==, 1);
    free_fixture(f);
}

/* What a device sent before the client heard of the cancel is not thrown away here. */
static void test_late_data(void)
{
    Fixture *f = fixture_with_stick(5);
    Device *d = &f->devices[0];
    unsigned before = d->n_completions;

    for (uint32_t id = 2; id <= 5; id++) {
        g_assert_true(submit(d, id == 4 ? bulk(id, 0x02, 8) : bulk(id, 0x81, 8)));
        d->source->ops->cancel(d->source, id);
    }
    client_data(f, 1, 2, 0, 5);
    g_assert_cmpuint(d->n_completions, ==, before + 1);
    g_assert_cmpuint(d->last.id, ==, 2);
    g_assert_cmpuint(d->last.length, ==, 5);
    client_data(f, 1, 2, 0, 5); /* once */
    client_data(f, 1, 3, 0, 9); /* more than was asked for */
    client_no_data(f, 1, 4, 0, 8);
    client_no_data(f, 1, 5, USBD_LIBUSB_CANCELLED, 0);
    g_assert_cmpuint(d->n_completions, ==, before + 1);
    g_assert_cmpuint(d->gone, ==, 0);
    free_fixture(f);
}

/* A client owes answers to nothing for ever: what it says twice is forgotten with what it says
 * once. */
static void test_strays_are_forgotten(void)
{
    Fixture *f = fixture_with_stick(5);
    Device *d = &f->devices[0];

    for (uint32_t id = 10; id < 10 + 4 * URBDRC_MAX_STRAYS; id++) {
        g_assert_true(submit(d, bulk(id, 0x81, 8)));
        client_data(f, 1, id, 0, 8);
        client_data(f, 1, id, 0, 8);
    }
    g_assert_cmpuint(d->gone, ==, 0);
    free_fixture(f);
}

/* Some clients report 0 bytes when all were sent, but not with a status that says the opposite. */
static void test_nothing_sent(void)
{
    static const struct {
        uint32_t status, said, length;
    } cases[] = {
        {USBD_STATUS_SUCCESS, 0, 8},        {USBD_STATUS_SUCCESS, 3, 3},
        {USBD_STATUS_SHORT_TRANSFER, 0, 0}, {USBD_STATUS_SHORT_TRANSFER, 3, 3},
        {USBD_STATUS_DATA_UNDERRUN, 0, 0},  {USBD_STATUS_DATA_UNDERRUN, 8, 8},
    };
    Fixture *f = fixture_with_stick(5);
    Device *d = &f->devices[0];

    for (uint32_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_assert_true(submit(d, bulk(10 + i, 0x02, 8)));
        client_no_data(f, 1, 10 + i, cases[i].status, cases[i].said);
        g_assert_cmpuint(d->last.id, ==, 10 + i);
        g_assert_cmpint(d->last.status, ==, USB_STATUS_SUCCESS);
        g_assert_cmpuint(d->last.length, ==, cases[i].length);
    }
    free_fixture(f);
}

/* ---- clear halt and reset ---- */

static uint32_t start_clear_halt(Fixture *f, uint32_t id)
{
    g_assert_true(submit(&f->devices[0], clear_halt(id, 0x81)));
    UrbdrcMessage m = client_take(f, 1, URBDRC_TRANSFER_IN);
    g_assert_cmphex(m.transfer.urb.function, ==, URB_SYNC_RESET_PIPE_AND_CLEAR_STALL);
    g_assert_cmphex(m.transfer.urb.pipe.handle, ==, 0xffff0081);
    g_assert_cmpuint(m.transfer.urb.request_id, ==, id);
    g_assert_cmpuint(m.transfer.output_size, ==, 0); /* else FreeRDP >= 3.23 ignores it */
    m = client_take(f, 1, URBDRC_TRANSFER_IN);
    g_assert_cmphex(m.transfer.urb.function, ==, URB_GET_DESCRIPTOR_FROM_DEVICE);
    g_assert_cmpuint(m.transfer.urb.descriptor.type, ==, 1);
    g_assert_cmpuint(m.transfer.output_size, ==, 18);
    g_assert_cmpuint(m.transfer.urb.request_id, !=, id);
    return m.transfer.urb.request_id;
}

static void test_clear_halt_barrier(void)
{
    Fixture *f = fixture_with_stick(5);
    Device *d = &f->devices[0];
    uint32_t barrier;

    barrier = start_clear_halt(f, 500); /* FreeRDP to 3.12 and from 3.23: both are answered */
    client_no_data(f, 1, 500, USBD_STATUS_STALL_PID, 0);
    g_assert_cmpuint(d->last.id, ==, 500);
    g_assert_cmpint(d->last.status, ==, USB_STATUS_STALL);
    unsigned n = d->n_completions;
    client_no_data(f, 1, barrier, 0, 0);
    g_assert_cmpuint(d->n_completions, ==, n);

    barrier = start_clear_halt(f, 501); /* 3.13 to 3.22: only the barrier is */
    g_assert_true(submit(d, control(502, get_device)));
    client_data(f, 1, barrier, 0, 18);
    g_assert_cmpuint(d->last.id, ==, 501);
    g_assert_cmpint(d->last.status, ==, USB_STATUS_SUCCESS);
    client_take(f, 1, URBDRC_TRANSFER_IN); /* the queue moves on */
    client_no_data(f, 1, 501, 0, 0);       /* and a late answer does no harm */
    g_assert_cmpuint(d->n_completions, ==, n + 1);
    client_data(f, 1, 502, 0, 18);

    barrier = start_clear_halt(f, 503); /* cancelled: both halves are */
    d->source->ops->cancel(d->source, 503);
    client_no_data(f, 1, barrier, 0, 0);
    client_no_data(f, 1, 503, 0, 0);
    g_assert_cmpuint(d->n_completions, ==, n + 2);
    g_assert_cmpuint(d->gone, ==, 0);
    g_assert_false(submit(d, clear_halt(504, 0x85)));
    free_fixture(f);

    f = fixture_with_stick(0); /* Windows answers PIPE_REQUEST: no barrier */
    g_assert_true(submit(&f->devices[0], clear_halt(5, 0x81)));
    client_take(f, 1, URBDRC_TRANSFER_IN);
    assert_quiet(f, 1);
    free_fixture(f);
}

static void test_reset_port(void)
{
    Fixture *f = fixture_with_device(5);

    g_assert_true(submit(&f->devices[0], (UsbRequest){.id = 1, .kind = USB_REQUEST_RESET_PORT}));
    UrbdrcMessage m = client_take(f, 1, URBDRC_IO_CONTROL);
    g_assert_cmphex(m.io_control.code, ==, URBDRC_IOCTL_RESET_PORT);
    m = completion(URBDRC_IOCONTROL_COMPLETION, 1, 0);
    m.completion.output_size = 4; /* FreeRDP claims bytes it does not send */
    client_send(f, 1, &m);
    g_assert_cmpuint(f->devices[0].last.id, ==, 1);
    g_assert_cmpint(f->devices[0].last.status, ==, USB_STATUS_SUCCESS);
    free_fixture(f);
}

/* ---- isochronous ---- */

static Fixture *fixture_with_iso(uint32_t usb_device)
{
    Fixture *f = fixture_with_stick(usb_device);
    UrbdrcInterfaceResult r = interface_result(1);
    UrbdrcMessage c = completion(URBDRC_URB_COMPLETION_NO_DATA, 2, 0);
    Writer w;

    g_assert_true(submit(&f->devices[0], select_interface(2, 1)));
    client_take(f, 1, URBDRC_TRANSFER_IN);
    writer_init(&w, 4096);
    urbdrc_write_interface_result(&w, &r);
    c.completion.result = w.data;
    c.completion.result_len = w.len;
    client_send(f, 1, &c);
    writer_clear(&w);
    return f;
}

static void client_iso(Fixture *f, uint32_t id, uint32_t n, const UrbdrcIsoPacket *packets,
                       size_t data)
{
    static const uint8_t bytes[1024] = {1};
    UrbdrcMessage c = completion(URBDRC_URB_COMPLETION, id, 0);
    Writer w;

    writer_init(&w, 4096);
    urbdrc_write_isoch_result(&w, 0, 0, n, packets);
    c.completion.result = w.data;
    c.completion.result_len = w.len;
    c.completion.output_size = (uint32_t)data;
    c.completion.data = bytes;
    c.completion.data_len = data;
    client_send(f, 1, &c);
    writer_clear(&w);
}

static void test_iso(void)
{
    Fixture *f = fixture_with_iso(5);
    Device *d = &f->devices[0];
    UsbIsoPacket slots[3] = {{192, 0}, {192, 0}, {192, 0}};
    UsbRequest r = {.id = 10,
                    .kind = USB_REQUEST_ISO,
                    .endpoint = 0x83,
                    .length = 576,
                    .n_packets = 3,
                    .packets = slots};

    g_assert_true(submit(d, r));
    UrbdrcMessage m = client_take(f, 1, URBDRC_TRANSFER_IN);
    g_assert_cmpuint(m.transfer.urb.iso.n_packets, ==, 3);
    g_assert_cmpuint(m.transfer.urb.iso.packets[2].offset, ==, 384);
    g_assert_cmphex(m.transfer.urb.iso.flags, ==, URB_FLAG_IN | URB_FLAG_START_ISO_ASAP);
    /* FreeRDP claims the whole buffer; only what the packets say is data. */
    client_iso(
        f, 10, 3,
        (const UrbdrcIsoPacket[]){{0, 100, 0}, {100, 0, USBD_STATUS_STALL_PID}, {100, 50, 0}}, 576);
    g_assert_cmpuint(d->last.length, ==, 150);
    g_assert_cmpuint(d->last.n_packets, ==, 3);
    g_assert_cmpuint(d->packets[0].length, ==, 100);
    g_assert_cmpint(d->packets[1].status, ==, USB_STATUS_STALL);
    g_assert_cmpuint(d->packets[2].length, ==, 50);

    slots[1].length = 100; /* FreeRDP would cut them all alike */
    r.id = 11;
    r.length = 484;
    g_assert_false(submit(d, r));
    slots[1].length = 192;
    r.length = 500; /* not their sum */
    g_assert_false(submit(d, r));
    free_fixture(f);
}

static void test_iso_lies(void)
{
    const struct {
        uint32_t n, first, others;
        size_t data;
    } cases[] = {{2, 10, 10, 100}, {3, 193, 10, 576}, {3, 100, 100, 299}};

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        Fixture *f = fixture_with_iso(5);
        const UsbIsoPacket slots[3] = {{192, 0}, {192, 0}, {192, 0}};
        UrbdrcIsoPacket wire[3];

        g_assert_true(submit(&f->devices[0], (UsbRequest){.id = 10,
                                                          .kind = USB_REQUEST_ISO,
                                                          .endpoint = 0x83,
                                                          .length = 576,
                                                          .n_packets = 3,
                                                          .packets = slots}));
        for (int k = 0; k < 3; k++)
            wire[k] = (UrbdrcIsoPacket){.length = k == 0 ? cases[i].first : cases[i].others};
        client_iso(f, 10, cases[i].n, wire, cases[i].data);
        assert_device_closed(f);
        free_fixture(f);
    }
}

/* ---- tables ---- */

static void test_status_map(void)
{
    static const struct {
        uint32_t usbd, hresult, length;
        bool stream_in;
        UsbStatus status;
        bool retry;
    } cases[] = {
        {0, 0, 5, true, USB_STATUS_SUCCESS, false},
        {USBD_STATUS_SHORT_TRANSFER, 0, 5, true, USB_STATUS_SUCCESS, false},
        {USBD_STATUS_DATA_UNDERRUN, 0, 5, true, USB_STATUS_SUCCESS, false},
        {USBD_STATUS_STALL_PID, 0, 0, true, USB_STATUS_STALL, false},
        {USBD_STATUS_ENDPOINT_HALTED, 0, 0, false, USB_STATUS_STALL, false},
        {USBD_LIBUSB_STALL, 0, 0, true, USB_STATUS_STALL, false},
        {USBD_LIBUSB_TIMED_OUT, 0, 0, true, USB_STATUS_TIMEOUT, true},
        {USBD_LIBUSB_TIMED_OUT, 0, 7, true, USB_STATUS_SUCCESS, false},
        {USBD_LIBUSB_TIMED_OUT, 0, 0, false, USB_STATUS_TIMEOUT, false},
        {USBD_STATUS_TIMEOUT, 0, 0, false, USB_STATUS_TIMEOUT, false},
        {USBD_LIBUSB_CANCELLED, 0, 0, true, USB_STATUS_CANCELLED, true},
        {USBD_STATUS_CANCELED, 0, 0, false, USB_STATUS_IOERROR, false},
        {USBD_LIBUSB_ERROR, 0, 0, true, USB_STATUS_IOERROR, false},
        {USBD_LIBUSB_NO_DEVICE, 0, 0, true, USB_STATUS_IOERROR, false},
        {USBD_STATUS_DEVICE_GONE, 0, 0, true, USB_STATUS_IOERROR, false},
        {USBD_LIBUSB_OVERFLOW, 0, 0, true, USB_STATUS_BABBLE, false},
        {USBD_STATUS_BABBLE, 0, 0, true, USB_STATUS_BABBLE, false},
        {USBD_STATUS_DATA_OVERRUN, 0, 0, true, USB_STATUS_BABBLE, false},
        {USBD_STATUS_BUFFER_OVERRUN, 0, 0, true, USB_STATUS_BABBLE, false},
        {USBD_STATUS_INVALID_URB_FUNCTION, 0, 0, true, USB_STATUS_INVAL, false},
        {USBD_STATUS_INVALID_PARAMETER, 0, 0, true, USB_STATUS_INVAL, false},
        {USBD_STATUS_INVALID_PIPE_HANDLE, 0, 0, true, USB_STATUS_INVAL, false},
        {0, URBDRC_E_INVALIDARG, 0, true, USB_STATUS_INVAL, false},
        {0, 0x8007001f, 0, true, USB_STATUS_IOERROR, false},
        {7, 0, 0, true, USB_STATUS_IOERROR, false},
        {0xdeadbeef, 0, 0, true, USB_STATUS_IOERROR, false},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        UrbdrcOutcome o = urbdrc_flavour_outcome(cases[i].usbd, cases[i].hresult, cases[i].length,
                                                 cases[i].stream_in);
        g_test_message("usbd %08x hresult %08x", cases[i].usbd, cases[i].hresult);
        g_assert_cmpint(o.status, ==, cases[i].status);
        g_assert_cmpint(o.retry_in, ==, cases[i].retry);
    }
}

/* Who is who: device, MessageId, jitter buffer, the core data's build and early flags. */
static void test_flavours(void)
{
    enum { OLD_FLAGS = 0x06ef, NEW_FLAGS = 0x0eef };
    static const struct {
        uint32_t device, message_id, jitter;
        bool known;
        uint32_t build, flags;
        const char *flavour;
    } cases[] = {
        {5, 0, 0x50, true, 18363, NEW_FLAGS, "freerdp3"},
        {6, 0, 0x50, true, 18363, OLD_FLAGS, "freerdp2"},
        {5, 0, 0x50, true, 2600, OLD_FLAGS, "freerdp2"},
        {5, 0, 0x50, false, 0, 0, "freerdp3"},
        {4, 0, 0x50, true, 18363, NEW_FLAGS, "ironrdp"}, /* its first device */
        {5, 0, 0x50, true, 10, NEW_FLAGS, "ironrdp"},
        {0, 0, 0, true, 26100, NEW_FLAGS, "windows"},
        {0, 7, 0, true, 7601, OLD_FLAGS, "windows"},
        {0, 0, 32, false, 0, 0, "windows"},
        {5, 9, 0x50, true, 18363, NEW_FLAGS, "unknown"},
        {5, 0, 0, true, 18363, NEW_FLAGS, "unknown"},
        {3, 0, 0x50, true, 18363, NEW_FLAGS, "unknown"},
        {4, 1, 0x50, true, 18363, NEW_FLAGS, "unknown"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        UrbdrcEvidence e = {
            .known = cases[i].known, .client_build = cases[i].build, .early_flags = cases[i].flags};
        UrbdrcMessage m = add_device(cases[i].device);
        char text[URBDRC_EVIDENCE_SIZE];

        m.add_device.no_ack_jitter_ms = cases[i].jitter;
        g_test_message(
            "case %zu: %s", i,
            urbdrc_flavour_evidence(&e, &m.add_device, cases[i].message_id, text, sizeof(text)));
        g_assert_cmpstr(urbdrc_flavour_detect(&e, &m.add_device, cases[i].message_id)->name, ==,
                        cases[i].flavour);
        if (cases[i].device == 4 && cases[i].message_id == 0) { /* and its second one */
            m.add_device.usb_device = 5;
            g_assert_cmpstr(urbdrc_flavour_detect(&e, &m.add_device, 0)->name, ==, "ironrdp");
        }
    }
}

static void test_flavour_is_told(void)
{
    Fixture *f = new_fixture();
    const char *evidence;

    urbdrc_set_client(f->urbdrc, 18363, 0x06ef);
    g_assert_cmpstr(urbdrc_flavour(f->urbdrc, &evidence), ==, "");
    client_handshake(f, 0);
    client_announce(f);
    client_handshake(f, 1);
    client_add_device(f, 1, 5);
    g_assert_cmpstr(urbdrc_flavour(f->urbdrc, &evidence), ==, "freerdp2");
    g_assert_cmpstr(evidence, ==,
                    "UsbDevice 5, MessageId 0, jitter buffer 80 ms, client build 18363, early "
                    "flags 0x06ef");
    free_fixture(f);
}

static void test_control_map(void)
{
    static const struct {
        UsbSetup setup;
        uint16_t freerdp, windows; /* URB functions; 0xffff: never forwarded */
        bool out_freerdp, out_windows;
    } cases[] = {
        {{0x80, 6, 0x0100, 0, 18}, 0x0b, 0x0b, false, false},
        {{0x81, 6, 0x2200, 0, 63}, 0x28, 0x28, false, false},
        {{0x82, 6, 0x2200, 0, 63}, 0x24, 0x24, false, false},
        {{0x83, 6, 0x2200, 0, 63}, 0x08, 0x08, false, false},
        {{0x00, 7, 0x0300, 0, 4}, 0x08, 0x0c, true, true},
        {{0x00, 3, 1, 0, 0}, 0x08, 0x0d, true, false},
        {{0x01, 3, 1, 0, 0}, 0x08, 0x0e, true, false},
        {{0x02, 3, 0, 1, 0}, 0x08, 0x0f, true, false},
        {{0x03, 3, 1, 0, 0}, 0x08, 0x23, true, false},
        {{0x00, 1, 1, 0, 0}, 0x08, 0x10, true, false},
        {{0x02, 1, 0, 0x81, 0}, 0x08, 0x12, true, false},
        {{0x80, 0, 0, 0, 2}, 0x13, 0x13, false, false},
        {{0x81, 0, 0, 0, 2}, 0x14, 0x14, false, false},
        {{0x82, 0, 0, 0x81, 2}, 0x15, 0x15, false, false},
        {{0x83, 0, 0, 0, 2}, 0x21, 0x21, false, false},
        {{0x80, 0, 0, 0, 4}, 0x08, 0x08, false, false}, /* not the length of a status */
        {{0x80, 8, 0, 0, 1}, 0x26, 0x26, false, false},
        {{0x81, 10, 0, 0, 1}, 0x27, 0x27, false, false},
        {{0xa1, 0xfe, 0, 0, 1}, 0x1b, 0x1b, false, false},
        {{0x21, 0xff, 0, 0, 0}, 0x1b, 0x1b, true, true},
        {{0x20, 9, 0, 0, 0}, 0x1a, 0x1a, true, true}, /* class request 9 is not SET_CONFIGURATION */
        {{0x22, 1, 0x100, 2, 3}, 0x1c, 0x1c, true, true},
        {{0x23, 3, 8, 1, 0}, 0x1f, 0x1f, true, true},
        {{0xc0, 0x20, 0, 4, 16}, 0x17, 0x17, false, false},
        {{0x41, 1, 0, 0, 0}, 0x18, 0x18, true, true},
        {{0x42, 1, 0, 0, 0}, 0x19, 0x19, true, true},
        {{0x43, 1, 0, 0, 0}, 0x20, 0x20, true, true},
        {{0xe0, 1, 0, 0, 4}, 0x08, 0x08, false, false}, /* reserved type */
        {{0x44, 1, 0, 0, 0}, 0x08, 0x08, true, true},   /* reserved recipient */
        {{0x00, 9, 1, 0, 0}, 0xffff, 0xffff, false, false},
        {{0x01, 11, 1, 0, 0}, 0xffff, 0xffff, false, false},
        {{0x00, 5, 1, 0, 0}, 0xffff, 0xffff, false, false},
    };
    const UrbdrcMessage f = add_device(5), w = add_device(0), u = add_device(3);
    UrbdrcEvidence nothing = {0};
    const UrbdrcFlavour *freerdp = urbdrc_flavour_detect(&nothing, &f.add_device, 0);
    const UrbdrcFlavour *windows = urbdrc_flavour_detect(&nothing, &w.add_device, 0);
    const UrbdrcFlavour *unknown = urbdrc_flavour_detect(&nothing, &u.add_device, 0);

    g_assert_cmpstr(unknown->name, ==, "unknown");
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        UrbdrcUrb urb = {0};
        bool out = false;

        g_test_message("%02x %02x", cases[i].setup.request_type, cases[i].setup.request);
        bool ok = urbdrc_flavour_control(freerdp, &cases[i].setup, &urb, &out);
        g_assert_cmpint(ok, ==, cases[i].freerdp != 0xffff);
        if (!ok)
            continue;
        g_assert_cmphex(urb.function, ==, cases[i].freerdp);
        g_assert_cmpint(out, ==, cases[i].out_freerdp);
        g_assert_true(urbdrc_flavour_control(unknown, &cases[i].setup, &urb, &out));
        g_assert_cmphex(urb.function, ==, cases[i].freerdp);
        g_assert_true(urbdrc_flavour_control(windows, &cases[i].setup, &urb, &out));
        g_assert_cmphex(urb.function, ==, cases[i].windows);
        g_assert_cmpint(out, ==, cases[i].out_windows);
    }
}

static void test_control_on_the_wire(void)
{
    Fixture *f = fixture_with_device(5);
    Device *d = &f->devices[0];

    g_assert_true(submit(d, control(1, (UsbSetup){0x21, 0x22, 3, 0, 7})));
    UrbdrcMessage m = client_take(f, 1, URBDRC_TRANSFER_OUT);
    g_assert_cmpuint(m.transfer.output_size, ==, 7);
    g_assert_cmphex(m.transfer.urb.vendor_class.flags, ==, 0);
    g_assert_cmpuint(m.transfer.urb.vendor_class.request, ==, 0x22);
    client_no_data(f, 1, 1, 0, 7);
    g_assert_cmpuint(d->last.length, ==, 7);

    g_assert_true(submit(d, control(2, (UsbSetup){0x00, 3, 1, 0, 0}))); /* SET_FEATURE */
    m = client_take(f, 1, URBDRC_TRANSFER_OUT);
    g_assert_cmphex(m.transfer.urb.function, ==, URB_CONTROL_TRANSFER);
    g_assert_cmphex(m.transfer.urb.control.flags, ==, URB_FLAG_DEFAULT_PIPE);
    g_assert_cmphex(m.transfer.urb.control.setup[1], ==, 3);
    client_no_data(f, 1, 2, USBD_STATUS_STALL_PID, 0);
    g_assert_cmpint(d->last.status, ==, USB_STATUS_STALL);

    UsbRequest r = control(3, get_device); /* the two lengths must agree */
    r.length = 17;
    g_assert_false(submit(d, r));
    g_assert_false(submit(d, control(3, (UsbSetup){0, 9, 1, 0, 0})));
    free_fixture(f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_set_level(LOG_LEVEL_ERROR);
#define TEST(path, fn) g_test_add_func("/urbdrc/" path, fn)
    TEST("handshake/freerdp", test_freerdp_handshake);
    TEST("handshake/windows", test_windows_handshake);
    TEST("handshake/flavours", test_flavours);
    TEST("handshake/flavour-told", test_flavour_is_told);
    TEST("handshake/eager", test_eager_client);
    TEST("handshake/wrong-order", test_wrong_order_is_ignored_but_bounded);
    TEST("handshake/refusals", test_refusals);
    TEST("handshake/timeouts", test_handshake_timeouts);
    TEST("handshake/idle", test_idle_has_no_deadline);
    TEST("devices/two", test_two_devices_one_after_the_other);
    TEST("devices/surplus", test_surplus_announcement);
    TEST("devices/later", test_plugged_in_later);
    TEST("devices/limit", test_device_limit);
    TEST("devices/unplug", test_unplug_in_every_state);
    TEST("devices/control-lost", test_control_channel_lost_keeps_devices);
    TEST("devices/retire", test_retire);
    TEST("devices/malformed", test_malformed_closes_that_channel);
    TEST("requests/bulk", test_bulk);
    TEST("requests/resubmit", test_resubmit_from_completion);
    TEST("requests/bounded", test_in_flight_is_bounded);
    TEST("requests/select", test_select_configuration);
    TEST("requests/select-pads", test_select_pads);
    TEST("requests/select-3.14", test_select_interface_of_freerdp_3_14);
    TEST("requests/select-lies", test_select_result_must_fit_the_descriptor);
    TEST("requests/control-queue", test_control_is_one_at_a_time);
    TEST("requests/oversize", test_oversize_closes);
    TEST("requests/unknown-ids", test_unknown_ids);
    TEST("requests/late", test_late_and_double_answers);
    TEST("requests/late-data", test_late_data);
    TEST("requests/strays", test_strays_are_forgotten);
    TEST("requests/nothing-sent", test_nothing_sent);
    TEST("requests/clear-halt", test_clear_halt_barrier);
    TEST("requests/reset-port", test_reset_port);
    TEST("requests/iso", test_iso);
    TEST("requests/iso-lies", test_iso_lies);
    TEST("requests/control", test_control_on_the_wire);
    TEST("tables/status", test_status_map);
    TEST("tables/control", test_control_map);
    return g_test_run();
}
