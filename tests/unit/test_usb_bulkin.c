/*
 * Reading ahead on a bulk IN endpoint. The fake stick's 81 serves as a serial adapter's: requests
 * are held, and the test ends each of them the way an adapter would.
 */
#include "usb_check.h"

#define EP 0x81
#define WINDOW USB_MAX_BULKIN_TRANSFERS

static bool is_read(const UsbRig *r, unsigned i)
{
    const FakeRequest *q = &r->source->pending[i];

    return !q->cancelled && q->request.endpoint == EP && q->request.kind == USB_REQUEST_BULK;
}

/* The oldest read that is wanted, -1 for none, and how many there are. */
static int next_read(const UsbRig *r)
{
    for (unsigned i = 0; i < r->source->n_pending; i++) {
        if (is_read(r, i))
            return (int)i;
    }
    return -1;
}

static unsigned reads(const UsbRig *r)
{
    unsigned n = 0;

    for (unsigned i = 0; i < r->source->n_pending; i++)
        n += is_read(r, i);
    return n;
}

static UsbRig *rig(UsbSpeed speed)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, speed, FREERDP);

    usb_rig_enumerate(r);
    r->source->hold = true;
    return r;
}

static UsbStatus status_of(UsbRig *r, uint64_t id)
{
    usb_rig_run(r);
    const GuestPacket *p = fake_guest_find(r->guest, usb_redir_bulk_receiving_status, id);
    g_assert_nonnull(p);
    return p->status;
}

/* A running stream; the log is empty. */
static UsbRig *started(UsbSpeed speed, uint32_t bytes)
{
    UsbRig *r = rig(speed);

    g_assert_cmpuint(status_of(r, fake_guest_start_bulk(r->guest, EP, bytes, 5)), ==, 0);
    g_assert_cmpuint(reads(r), ==, WINDOW);
    fake_guest_clear_log(r->guest);
    return r;
}

/* Ends the oldest read. */
static void give(UsbRig *r, UsbStatus status, const void *data, uint32_t length, bool retry)
{
    int at = next_read(r);

    g_assert_cmpint(at, >=, 0);
    fake_source_complete(r->source, (unsigned)at, status, data, length, retry);
    usb_rig_run(r);
}

/* Ends the CLEAR_HALT that is waited for. */
static void clear_halt(UsbRig *r, UsbStatus status)
{
    for (unsigned i = 0; i < r->source->n_pending; i++) {
        if (r->source->pending[i].request.kind != USB_REQUEST_CLEAR_HALT)
            continue;
        fake_source_complete(r->source, i, status, NULL, 0, false);
        usb_rig_run(r);
        return;
    }
    g_assert_not_reached();
}

/* The stream as the guest has it; that ids count up from @first is checked. */
static GByteArray *received(const UsbRig *r, uint64_t first)
{
    GByteArray *all = g_byte_array_new();

    for (unsigned i = 0; i < r->guest->n_log; i++) {
        const GuestPacket *p = &r->guest->log[i];

        g_assert_cmpint(p->type, ==, usb_redir_buffered_bulk_packet);
        g_assert_cmpuint(p->id, ==, first++);
        g_assert_cmpuint(p->endpoint, ==, EP);
        g_assert_cmpuint(p->status, ==, USB_STATUS_SUCCESS);
        g_assert_cmpint(p->data_len, ==, (int)p->length);
        if (p->data_len)
            g_byte_array_append(all, p->data, (guint)p->data_len);
    }
    return all;
}

static void test_stream(void)
{
    UsbRig *r = started(USB_SPEED_FULL, 512);
    uint8_t sent[8192];
    GByteArray *got;
    uint32_t at = 0;

    for (unsigned i = 0; i < sizeof(sent); i++)
        sent[i] = (uint8_t)(i * 7 ^ i >> 8);
    for (uint32_t n = 1; at + n <= sizeof(sent); at += n, n = n * 5 % 513)
        give(r, USB_STATUS_SUCCESS, sent + at, n, false);
    got = received(r, 0);
    g_assert_cmpmem(got->data, got->len, sent, at);
    for (unsigned i = 0; i < r->guest->n_log; i++) /* QEMU must never cut one: CVE-2026-15705 */
        g_assert_cmpuint(r->guest->log[i].length, <=, 64);
    g_assert_cmpuint(reads(r), ==, WINDOW);
    for (unsigned i = 0; i < r->source->n_pending; i++)
        g_assert_cmpuint(r->source->pending[i].request.length, ==, 512);
    g_byte_array_free(got, true);

    fake_guest_clear_log(r->guest);
    give(r, USB_STATUS_SUCCESS, NULL, 0, false); /* a zero-length packet is one */
    g_assert_cmpuint(r->guest->n_log, ==, 1);
    g_assert_cmpuint(r->guest->log[0].length, ==, 0);
    end(r);
}

/* What is asked of the client at a time stays small however much QEMU wants. */
static void test_request_size(void)
{
    UsbRig *r = started(USB_SPEED_HIGH, 65536);
    uint8_t sent[8192];
    GByteArray *got;

    memset(sent, 0x5a, sizeof(sent));
    g_assert_cmpuint(r->source->pending[0].request.length, ==, sizeof(sent));
    give(r, USB_STATUS_SUCCESS, sent, sizeof(sent), false);
    got = received(r, 0);
    g_assert_cmpmem(got->data, got->len, sent, sizeof(sent));
    g_assert_cmpuint(r->guest->n_log, ==, 16);
    g_byte_array_free(got, true);
    end(r);
}

static void test_refused(void)
{
    static const struct {
        uint8_t endpoint;
        uint32_t bytes;
        uint8_t transfers;
    } bad[] = {
        {EP, 511, 5}, {EP, 513, 5},   {EP, 65536 + 512, 5}, {EP, 512, 17},
        {EP, 0, 5},   {0x82, 512, 5}, {0x80, 512, 5},       {0xff, 512, 5},
        {EP, 512, 0}, {0x83, 512, 5}, {EP, 128u << 20, 5},
    };
    UsbRig *r = rig(USB_SPEED_HIGH);

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++)
        g_assert_cmpuint(status_of(r, fake_guest_start_bulk(r->guest, bad[i].endpoint, bad[i].bytes,
                                                            bad[i].transfers)),
                         ==, USB_STATUS_STALL);
    g_assert_cmpuint(r->source->n_pending, ==, 0);

    uint64_t id = fake_guest_bulk_in(r->guest, EP, 512); /* a read of the guest's is under way */
    g_assert_cmpuint(status_of(r, fake_guest_start_bulk(r->guest, EP, 512, 5)), ==,
                     USB_STATUS_STALL);
    give(r, USB_STATUS_SUCCESS, "ab", 2, false);
    g_assert_cmpuint(fake_guest_find(r->guest, usb_redir_bulk_packet, id)->status, ==, 0);
    g_assert_cmpuint(status_of(r, fake_guest_stop_bulk(r->guest, EP)), ==, 0); /* never started */

    g_assert_cmpuint(status_of(r, fake_guest_start_bulk(r->guest, EP, 512, 16)), ==, 0);
    id = fake_guest_bulk_in(r->guest, EP, 512); /* and the other way round */
    usb_rig_run(r);
    g_assert_cmpuint(fake_guest_find(r->guest, usb_redir_bulk_packet, id)->status, ==,
                     USB_STATUS_INVAL);
    g_assert_cmpuint(reads(r), ==, WINDOW);
    end(r);
}

/* Not before the device is configured: its endpoints may not be used. */
static void test_unconfigured(void)
{
    UsbRig *r = rig(USB_SPEED_HIGH);

    fake_guest_reset(r->guest);
    usb_rig_run(r);
    g_assert_cmpuint(status_of(r, fake_guest_start_bulk(r->guest, EP, 512, 5)), ==,
                     USB_STATUS_STALL);
    end(r);
}

/* FreeRDP ends each read after 10 s, some of them with a few bytes that had come. */
static void test_client_gives_up(void)
{
    UsbRig *r = started(USB_SPEED_FULL, 512);
    GByteArray *got;

    for (unsigned i = 0; i < 3 * WINDOW; i++)
        give(r, USB_STATUS_TIMEOUT, NULL, 0, true);
    g_assert_cmpuint(r->guest->n_log, ==, 0);
    give(r, USB_STATUS_TIMEOUT, "late", 4, true);
    give(r, USB_STATUS_SUCCESS, "r", 1, false);
    got = received(r, 0);
    g_assert_cmpmem(got->data, got->len, "later", 5);
    g_byte_array_free(got, true);

    /* Not even that comes: the guest is told that something may be missing, once in a while. */
    usb_rig_wait(r, 4 * (uint64_t)USB_TIMEOUT_TRANSFER_US);
    g_assert_cmpuint(reads(r), ==, WINDOW);
    g_assert_cmpuint(r->guest->n_log, ==, 4);
    g_assert_cmpuint(r->guest->log[3].status, ==, USB_STATUS_IOERROR);
    give(r, USB_STATUS_SUCCESS, "!", 1, false);
    g_assert_cmpuint(r->guest->n_log, ==, 5);
    g_assert_cmpuint(r->source->retired, ==, 0);
    end(r);
}

static void test_stop(void)
{
    UsbRig *r = started(USB_SPEED_HIGH, 512);

    give(r, USB_STATUS_SUCCESS, "1", 1, false);
    g_assert_cmpuint(status_of(r, fake_guest_stop_bulk(r->guest, EP)), ==, 0);
    g_assert_cmpuint(r->source->cancels, ==, WINDOW);
    fake_guest_clear_log(r->guest);
    r->source->hold = false; /* what the client says to the cancels */
    usb_rig_run(r);
    g_assert_cmpuint(r->guest->n_log, ==, 0);
    g_assert_cmpuint(r->source->n_pending, ==, 0);

    r->source->hold = true;
    fake_guest_start_bulk(r->guest, EP, 512, 5);
    usb_rig_run(r);
    fake_guest_clear_log(r->guest);
    give(r, USB_STATUS_SUCCESS, "2", 1, false);
    g_byte_array_free(received(r, 0), true); /* ids start over */
    g_assert_cmpuint(r->guest->n_log, ==, 1);
    end(r);
}

static void test_stall(void)
{
    UsbRig *r = started(USB_SPEED_HIGH, 512);
    GByteArray *got;

    give(r, USB_STATUS_STALL, "x", 1, false); /* what came before it counts */
    got = received(r, 0);
    g_assert_cmpmem(got->data, got->len, "x", 1);
    g_byte_array_free(got, true);
    fake_guest_clear_log(r->guest);
    g_assert_cmpint(next_read(r), <, 0);
    clear_halt(r, USB_STATUS_SUCCESS);
    g_assert_cmpuint(reads(r), ==, WINDOW);
    give(r, USB_STATUS_SUCCESS, "y", 1, false); /* the guest has not noticed */
    g_byte_array_free(received(r, 0), true);

    fake_guest_clear_log(r->guest);
    for (unsigned i = 0; i < 2; i++) {
        give(r, USB_STATUS_STALL, NULL, 0, false);
        clear_halt(r, USB_STATUS_SUCCESS);
    }
    g_assert_cmpuint(r->guest->n_log, ==, 0);
    give(r, USB_STATUS_STALL, NULL, 0, false); /* now it has: its read ends, then the stream */
    g_assert_cmpuint(r->guest->n_log, ==, 2);
    g_assert_cmpint(r->guest->log[0].type, ==, usb_redir_buffered_bulk_packet);
    g_assert_cmpuint(r->guest->log[0].status, ==, USB_STATUS_STALL);
    g_assert_cmpint(r->guest->log[0].data_len, ==, 2);
    g_assert_cmpint(r->guest->log[1].type, ==, usb_redir_bulk_receiving_status);
    g_assert_cmpuint(r->guest->log[1].status, ==, USB_STATUS_STALL);
    g_assert_cmpint(next_read(r), <, 0);

    g_assert_cmpuint(status_of(r, fake_guest_start_bulk(r->guest, EP, 512, 5)), ==, 0);
    g_assert_cmpuint(reads(r), ==, WINDOW); /* a new attempt */
    end(r);
}

static void test_halt_stays(void)
{
    UsbRig *r = started(USB_SPEED_HIGH, 512);

    give(r, USB_STATUS_STALL, NULL, 0, false);
    clear_halt(r, USB_STATUS_IOERROR);
    g_assert_cmpuint(r->guest->n_log, ==, 2);
    g_assert_cmpuint(r->guest->log[0].status, ==, USB_STATUS_STALL);
    g_assert_cmpint(r->guest->log[1].type, ==, usb_redir_bulk_receiving_status);
    g_assert_cmpint(next_read(r), <, 0);
    end(r);
}

static void test_errors(void)
{
    UsbRig *r = started(USB_SPEED_FULL, 512);
    uint8_t bytes[100] = {1, 2, 3};

    give(r, USB_STATUS_BABBLE, bytes, sizeof(bytes), false);
    g_assert_cmpuint(r->guest->n_log, ==, 2);
    g_assert_cmpuint(r->guest->log[0].status, ==, USB_STATUS_SUCCESS);
    g_assert_cmpuint(r->guest->log[1].status, ==, USB_STATUS_BABBLE); /* on the last piece */
    g_assert_cmpint(r->guest->log[1].data_len, ==, 36);

    give(r, USB_STATUS_SUCCESS, "ok", 2, false);
    fake_guest_clear_log(r->guest);
    unsigned n = 0;
    for (; next_read(r) >= 0; n++)
        give(r, USB_STATUS_IOERROR, NULL, 0, false);
    g_assert_cmpuint(n, ==, 8);
    g_assert_cmpuint(fake_guest_count(r->guest, usb_redir_buffered_bulk_packet), ==, 8);
    g_assert_cmpuint(fake_guest_count(r->guest, usb_redir_bulk_receiving_status), ==, 1);
    g_assert_cmpint(r->guest->log[8].type, ==, usb_redir_bulk_receiving_status);
    end(r);
}

/* A client that carries out nothing more. */
static void test_refusing_source(void)
{
    UsbRig *r = rig(USB_SPEED_HIGH);

    r->source->refuse = true;
    uint64_t id = fake_guest_start_bulk(r->guest, EP, 512, 5);
    g_assert_cmpuint(status_of(r, id), ==, 0);
    g_assert_cmpuint(fake_guest_find(r->guest, usb_redir_buffered_bulk_packet, 0)->status, ==,
                     USB_STATUS_IOERROR);
    g_assert_cmpuint(fake_guest_find(r->guest, usb_redir_bulk_receiving_status, 0)->status, ==,
                     USB_STATUS_STALL);
    end(r);
}

/* A port reset ends it, and so does another setting: its endpoint is gone. */
static void test_reset(void)
{
    for (unsigned how = 0; how < 2; how++) {
        UsbRig *r = started(USB_SPEED_SUPER, 1024);

        r->source->hold = false;
        r->source->cancel_mode = FAKE_CANCEL_SILENT;
        if (how)
            fake_guest_set_alt(r->guest, 0, 1);
        else
            fake_guest_reset(r->guest);
        usb_rig_run(r);
        const GuestPacket *p =
            fake_guest_find(r->guest, usb_redir_bulk_receiving_status, UINT64_MAX);
        g_assert_nonnull(p);
        g_assert_cmpuint(p->status, ==, USB_STATUS_STALL);
        g_assert_cmpuint(fake_guest_count(r->guest, usb_redir_buffered_bulk_packet), ==, 0);
        g_assert_cmpuint(reads(r), ==, 0);
        end(r);
    }
}

/* QEMU's machine is paused: the adapter waits, nothing is lost and little is kept. */
static void test_guest_does_not_read(void)
{
    UsbRig *r = started(USB_SPEED_FULL, 512);
    uint8_t bytes[512];
    unsigned rounds = 0;
    uint64_t kept = 0;

    memset(bytes, 7, sizeof(bytes));
    r->blocked = true;
    for (; next_read(r) >= 0 && rounds < 100000; rounds++)
        give(r, USB_STATUS_SUCCESS, bytes, sizeof(bytes), false);
    g_assert_cmpuint(rounds * 8, >, 1000);
    g_assert_cmpuint(rounds * 8, <, 1000 + 8 * 2 * WINDOW);
    r->blocked = false;
    usb_device_guest_writable(r->device);
    usb_rig_run(r);
    for (unsigned i = 0; i < r->guest->n_log; i++)
        kept += r->guest->log[i].length;
    g_assert_cmpuint(kept, ==, (uint64_t)rounds * sizeof(bytes));
    g_assert_cmpuint(reads(r), ==, WINDOW);
    end(r);
}

/* Unplugged, or the slot is given up, in the middle. */
static void test_gone(void)
{
    for (unsigned how = 0; how < 2; how++) {
        UsbRig *r = started(USB_SPEED_HIGH, 512);

        if (how)
            fake_source_unplug(r->source);
        else
            usb_device_disconnect(r->device, "test");
        usb_rig_run(r);
        g_assert_cmpint(usb_device_state(r->device), ==, USB_DEVICE_GONE);
        g_assert_cmpuint(fake_guest_count(r->guest, usb_redir_device_disconnect), ==, 1);
        end(r);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/usb-bulkin/stream", test_stream);
    g_test_add_func("/usb-bulkin/request-size", test_request_size);
    g_test_add_func("/usb-bulkin/refused", test_refused);
    g_test_add_func("/usb-bulkin/unconfigured", test_unconfigured);
    g_test_add_func("/usb-bulkin/client-gives-up", test_client_gives_up);
    g_test_add_func("/usb-bulkin/stop", test_stop);
    g_test_add_func("/usb-bulkin/stall", test_stall);
    g_test_add_func("/usb-bulkin/halt-stays", test_halt_stays);
    g_test_add_func("/usb-bulkin/errors", test_errors);
    g_test_add_func("/usb-bulkin/refusing-source", test_refusing_source);
    g_test_add_func("/usb-bulkin/reset", test_reset);
    g_test_add_func("/usb-bulkin/guest-does-not-read", test_guest_does_not_read);
    g_test_add_func("/usb-bulkin/gone", test_gone);
    return g_test_run();
}
