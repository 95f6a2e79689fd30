/*
 * Requests to a scripted client's device, and everything a client may get wrong in its answers.
 */
#include <string.h>

#include "log.h"
#include "urbdrc_rig.h"

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
                    m.transfer.urb.select_configuration.descriptor_len, stick.raw, stick.raw_len);
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
                    m.transfer.urb.select_configuration.descriptor_len, stick.raw, stick.raw_len);
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
    return g_test_run();
}
