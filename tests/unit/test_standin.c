/*
 * The libusb stand-in, through libusb's own API: it must be as strict as the devices and the kernel
 * it stands for, or tests that rely on it prove nothing.
 */
#include "standin.h"
#include <assert.h>
#include <fcntl.h>
#include <libusb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define IMAGE_BLOCKS 2048

static libusb_context *ctx;
static char image[64];

static void command(const char *line)
{
    char answer[4096];

    if (!standin_command(line, answer, sizeof(answer))) {
        fprintf(stderr, "%s: %s\n", line, answer);
        abort();
    }
}

/* The value of @key in what `log` says about @device. */
static long counter(const char *device, const char *key)
{
    char line[128], answer[4096], *p;

    snprintf(line, sizeof(line), "log %s", device);
    assert(standin_command(line, answer, sizeof(answer)));
    snprintf(line, sizeof(line), " %s=", key);
    p = strstr(answer, line);
    assert(p);
    return strtol(p + strlen(line), NULL, 10);
}

static libusb_device_handle *open_pid(uint16_t pid, bool claim)
{
    libusb_device_handle *h = libusb_open_device_with_vid_pid(ctx, 0x1209, pid);

    assert(h);
    if (claim) {
        if (libusb_kernel_driver_active(h, 0))
            assert(libusb_detach_kernel_driver(h, 0) == 0);
        assert(libusb_claim_interface(h, 0) == 0);
    }
    return h;
}

static libusb_device_handle *open_stick(void)
{
    char line[128];

    snprintf(line, sizeof(line), "plug stick:image=%s,serial=TEST01", image);
    command(line);
    return open_pid(1, true);
}

/* ---- mass storage ---- */

static int cbw(libusb_device_handle *h, uint32_t tag, const void *cdb, uint8_t cdb_len,
               uint32_t length, bool in)
{
    uint8_t p[31] = "USBC";
    int n = 0;

    memcpy(p + 4, &tag, 4);
    memcpy(p + 8, &length, 4);
    p[12] = in ? 0x80 : 0;
    p[14] = cdb_len;
    memcpy(p + 15, cdb, cdb_len);
    return libusb_bulk_transfer(h, 0x02, p, 31, &n, 1000);
}

/* Reads the status word and returns bCSWStatus; @residue may be NULL. */
static int csw(libusb_device_handle *h, uint32_t tag, uint32_t *residue)
{
    uint8_t p[13];
    int n = 0;

    assert(libusb_bulk_transfer(h, 0x81, p, 13, &n, 1000) == 0);
    assert(n == 13 && !memcmp(p, "USBS", 4) && !memcmp(p + 4, &tag, 4));
    if (residue)
        memcpy(residue, p + 8, 4);
    return p[12];
}

static void ready(libusb_device_handle *h)
{
    uint8_t tur[6] = {0};

    assert(cbw(h, 99, tur, 6, 0, false) == 0);
    csw(h, 99, NULL);
}

static void reset_recovery(libusb_device_handle *h)
{
    assert(libusb_control_transfer(h, 0x21, 0xff, 0, 0, NULL, 0, 1000) == 0);
    assert(libusb_clear_halt(h, 0x81) == 0);
    assert(libusb_clear_halt(h, 0x02) == 0);
}

static void test_stick_commands(void)
{
    libusb_device_handle *h = open_stick();
    uint8_t inquiry[6] = {0x12, 0, 0, 0, 255}, tur[6] = {0}, sense[6] = {3, 0, 0, 0, 18};
    uint8_t capacity[10] = {0x25}, unknown[10] = {0x42}, buf[512];
    uint32_t residue;
    int n;

    assert(cbw(h, 1, inquiry, 6, 255, true) == 0);
    assert(libusb_bulk_transfer(h, 0x81, buf, 255, &n, 1000) == 0 && n == 36);
    assert(!memcmp(buf + 8, "QRDP    ", 8));
    assert(csw(h, 1, &residue) == 0 && residue == 255 - 36);

    assert(cbw(h, 2, tur, 6, 0, false) == 0); /* unit attention first ... */
    assert(csw(h, 2, NULL) == 1);
    assert(cbw(h, 3, sense, 6, 18, true) == 0);
    assert(libusb_bulk_transfer(h, 0x81, buf, 18, &n, 1000) == 0 && n == 18);
    assert(buf[2] == 6 && buf[12] == 0x29);
    assert(csw(h, 3, NULL) == 0);
    assert(cbw(h, 4, tur, 6, 0, false) == 0); /* ... then ready */
    assert(csw(h, 4, NULL) == 0);

    assert(cbw(h, 5, capacity, 10, 8, true) == 0);
    assert(libusb_bulk_transfer(h, 0x81, buf, 8, &n, 1000) == 0 && n == 8);
    assert(buf[2] == 0x07 && buf[3] == 0xff && buf[6] == 2);
    assert(csw(h, 5, NULL) == 0);

    /* A command it does not know, with data to come: stall, clear, failed status. */
    assert(cbw(h, 6, unknown, 10, 64, true) == 0);
    assert(libusb_bulk_transfer(h, 0x81, buf, 64, &n, 1000) == LIBUSB_ERROR_PIPE);
    assert(libusb_bulk_transfer(h, 0x81, buf, 64, &n, 1000) == LIBUSB_ERROR_PIPE);
    assert(libusb_clear_halt(h, 0x81) == 0);
    assert(csw(h, 6, &residue) == 1 && residue == 64);
    assert(counter("stick", "violations") == 0);
    libusb_close(h);
    command("unplug stick");
}

static void test_stick_data(void)
{
    libusb_device_handle *h = open_stick();
    uint8_t wr[10] = {0x2a, 0, 0, 0, 0, 8, 0, 0, 16}, rd[10] = {0x28, 0, 0, 0, 0, 8, 0, 0, 16};
    uint8_t past[10] = {0x28, 0, 0, 0, 0x07, 0xff, 0, 0, 2};
    static uint8_t out[8192], in[8192];
    int n, fd;

    ready(h);
    for (size_t i = 0; i < sizeof(out); i++)
        out[i] = (uint8_t)(i * 7 + i / 512);
    assert(cbw(h, 1, wr, 10, sizeof(out), false) == 0);
    assert(libusb_bulk_transfer(h, 0x02, out, 4096, &n, 1000) == 0 && n == 4096);
    assert(libusb_bulk_transfer(h, 0x02, out + 4096, 4096, &n, 1000) == 0 && n == 4096);
    assert(csw(h, 1, NULL) == 0);
    fd = open(image, O_RDONLY);
    assert(pread(fd, in, sizeof(in), 8 * 512) == (ssize_t)sizeof(in));
    assert(!memcmp(in, out, sizeof(in)));
    close(fd);
    memset(in, 0, sizeof(in));
    assert(cbw(h, 2, rd, 10, sizeof(in), true) == 0);
    assert(libusb_bulk_transfer(h, 0x81, in, sizeof(in), &n, 1000) == 0 && n == sizeof(in));
    assert(!memcmp(in, out, sizeof(in)));
    assert(csw(h, 2, NULL) == 0);

    assert(cbw(h, 3, past, 10, 1024, true) == 0); /* past the end */
    assert(libusb_bulk_transfer(h, 0x81, in, 1024, &n, 1000) == LIBUSB_ERROR_PIPE);
    assert(libusb_clear_halt(h, 0x81) == 0);
    assert(csw(h, 3, NULL) == 1);
    assert(counter("stick", "violations") == 0);
    libusb_close(h);
    command("unplug stick");
}

static void test_stick_strict(void)
{
    libusb_device_handle *h = open_stick();
    uint8_t tur[6] = {0}, rd[10] = {0x28, 0, 0, 0, 0, 0, 0, 0, 1}, buf[1024] = {0};
    int n;

    ready(h);
    /* A bad CBW: both endpoints stall, and stay so, until reset recovery. */
    assert(libusb_bulk_transfer(h, 0x02, buf, 31, &n, 1000) == 0);
    assert(libusb_bulk_transfer(h, 0x81, buf, 13, &n, 1000) == LIBUSB_ERROR_PIPE);
    assert(libusb_clear_halt(h, 0x81) == 0 && libusb_clear_halt(h, 0x02) == 0);
    assert(libusb_bulk_transfer(h, 0x81, buf, 13, &n, 1000) == LIBUSB_ERROR_PIPE);
    assert(cbw(h, 1, tur, 6, 0, false) == LIBUSB_ERROR_PIPE);
    reset_recovery(h);
    assert(cbw(h, 2, tur, 6, 0, false) == 0 && csw(h, 2, NULL) == 0);
    assert(counter("stick", "violation.bad_cbw") == 1);

    /* A read too long swallows the status word; the next one finds nothing. */
    assert(cbw(h, 3, rd, 10, 512, true) == 0);
    assert(libusb_bulk_transfer(h, 0x81, buf, 1024, &n, 1000) == 0 && n == 512 + 13);
    assert(libusb_bulk_transfer(h, 0x81, buf, 13, &n, 20) == LIBUSB_ERROR_TIMEOUT);
    assert(counter("stick", "violation.lost_csw") == 1);

    /* Host and device disagree about the direction: phase error, then reset recovery. */
    assert(cbw(h, 4, rd, 10, 512, false) == 0);
    assert(libusb_bulk_transfer(h, 0x02, buf, 512, &n, 1000) == LIBUSB_ERROR_PIPE);
    assert(csw(h, 4, NULL) == 2);
    assert(cbw(h, 5, tur, 6, 0, false) == LIBUSB_ERROR_PIPE);
    reset_recovery(h);
    assert(cbw(h, 6, tur, 6, 0, false) == 0 && csw(h, 6, NULL) == 0);

    /* A buffer smaller than the packet: babble. */
    assert(cbw(h, 7, rd, 10, 512, true) == 0);
    assert(libusb_bulk_transfer(h, 0x81, buf, 100, &n, 1000) == LIBUSB_ERROR_OVERFLOW);
    assert(counter("stick", "violation.babble") == 1);
    libusb_close(h);
    command("unplug stick");
}

/* ---- the kernel's side ---- */

static void test_claims(void)
{
    libusb_device_handle *h, *other;
    uint8_t buf[64] = {0};
    int n;

    command("plug loop:");
    h = open_pid(3, false);
    other = open_pid(3, false);
    assert(libusb_bulk_transfer(h, 0x01, buf, 64, &n, 100) == LIBUSB_ERROR_IO);
    assert(counter("loop", "violation.unclaimed") == 1);
    assert(libusb_claim_interface(h, 1) == LIBUSB_ERROR_NOT_FOUND);
    assert(libusb_claim_interface(h, 0) == 0);
    assert(libusb_claim_interface(other, 0) == LIBUSB_ERROR_BUSY);
    assert(libusb_set_configuration(other, 1) == LIBUSB_ERROR_BUSY);
    assert(libusb_bulk_transfer(h, 0x01, buf, 64, &n, 100) == 0);
    assert(libusb_bulk_transfer(h, 0x81, buf, 64, &n, 100) == 0 && n == 64);

    /* Endpoint 82 is there in alternate 1 only. */
    assert(libusb_interrupt_transfer(h, 0x82, buf, 64, &n, 100) == LIBUSB_ERROR_IO);
    assert(counter("loop", "violation.bad_endpoint") == 1);
    assert(libusb_set_interface_alt_setting(other, 0, 1) == LIBUSB_ERROR_NOT_FOUND);
    assert(libusb_set_interface_alt_setting(h, 0, 2) == LIBUSB_ERROR_NOT_FOUND);
    assert(libusb_set_interface_alt_setting(h, 0, 1) == 0);
    assert(libusb_interrupt_transfer(h, 0x02, buf, 10, &n, 100) == 0);
    assert(libusb_interrupt_transfer(h, 0x82, buf, 64, &n, 100) == 0 && n == 10);
    assert(libusb_release_interface(h, 0) == 0);
    assert(libusb_release_interface(h, 0) == LIBUSB_ERROR_NOT_FOUND);
    assert(counter("loop", "alt") == 0);
    assert(libusb_set_configuration(h, 1) == 0);
    libusb_close(other);
    libusb_close(h);
    command("unplug loop");
    libusb_close(NULL);
    libusb_unref_device(NULL);
}

static void test_kernel_driver(void)
{
    libusb_device_handle *h;

    command("plug keyboard:");
    h = open_pid(2, false);
    assert(libusb_kernel_driver_active(h, 0) == 1);
    assert(libusb_claim_interface(h, 0) == LIBUSB_ERROR_BUSY);
    assert(libusb_detach_kernel_driver(h, 0) == 0);
    assert(libusb_detach_kernel_driver(h, 0) == LIBUSB_ERROR_NOT_FOUND);
    assert(libusb_claim_interface(h, 0) == 0);
    assert(libusb_attach_kernel_driver(h, 0) == LIBUSB_ERROR_BUSY);
    assert(libusb_release_interface(h, 0) == 0);
    assert(libusb_attach_kernel_driver(h, 0) == 0);
    libusb_close(h);
    command("unplug keyboard");
}

static void test_requests(void)
{
    libusb_device_handle *h;
    uint8_t buf[64];

    command("plug loop:serial=S1");
    h = open_pid(3, true);
    assert(libusb_control_transfer(h, 0x80, 6, 0x0100, 0, buf, 64, 100) == 18);
    assert(libusb_control_transfer(h, 0x80, 6, 0x0900, 0, buf, 64, 100) == LIBUSB_ERROR_PIPE);
    assert(libusb_control_transfer(h, 0x80, 8, 0, 0, buf, 1, 100) == 1 && buf[0] == 1);
    assert(libusb_get_string_descriptor_ascii(h, 3, buf, 64) == 2 && !memcmp(buf, "S1", 3));
    /* SET_FEATURE with the direction bit set, as FreeRDP sends it. */
    assert(libusb_control_transfer(h, 0x82, 3, 0, 0x81, buf, 0, 100) == LIBUSB_ERROR_PIPE);
    assert(counter("loop", "violation.direction") == 1);
    memcpy(buf, "hello", 5);
    assert(libusb_control_transfer(h, 0x40, 1, 0, 0, buf, 5, 100) == 5);
    memset(buf, 0, 5);
    assert(libusb_control_transfer(h, 0xc0, 2, 0, 0, buf, 64, 100) == 5);
    assert(!memcmp(buf, "hello", 5));
    assert(libusb_control_transfer(h, 0x40, 9, 0, 0, NULL, 0, 100) == LIBUSB_ERROR_PIPE);
    command("hang loop 0");
    assert(libusb_control_transfer(h, 0x80, 8, 0, 0, buf, 1, 20) == LIBUSB_ERROR_TIMEOUT);
    command("unhang loop 0");
    assert(libusb_control_transfer(h, 0x80, 8, 0, 0, buf, 1, 20) == 1);
    libusb_close(h);
    command("unplug loop");
}

static void test_halts_and_toggles(void)
{
    libusb_device_handle *h;
    uint8_t buf[1024] = {0};
    int n;

    command("plug loop:");
    h = open_pid(3, true);
    command("stall loop 01");
    for (int i = 0; i < 3; i++)
        assert(libusb_bulk_transfer(h, 0x01, buf, 64, &n, 100) == LIBUSB_ERROR_PIPE);
    assert(libusb_control_transfer(h, 0x82, 0, 0, 0x01, buf, 2, 100) == 2 && buf[0] == 1);
    assert(libusb_clear_halt(h, 0x01) == 0);
    assert(libusb_bulk_transfer(h, 0x01, buf, 64, &n, 100) == 0);
    assert(libusb_bulk_transfer(h, 0x81, buf, 512, &n, 100) == 0 && n == 64);

    /* CLEAR_FEATURE behind the kernel's back sets back the device's toggle only: a packet is lost.
     */
    assert(libusb_control_transfer(h, 0x02, 1, 0, 0x01, NULL, 0, 100) == 0);
    assert(libusb_bulk_transfer(h, 0x01, buf, 64, &n, 100) == 0);
    assert(libusb_bulk_transfer(h, 0x81, buf, 512, &n, 20) == LIBUSB_ERROR_TIMEOUT);
    assert(counter("loop", "violation.toggle") == 1);
    assert(libusb_bulk_transfer(h, 0x01, buf, 64, &n, 100) == 0); /* in step again */
    assert(libusb_bulk_transfer(h, 0x81, buf, 512, &n, 100) == 0 && n == 64);

    command("short loop 81 5");
    assert(libusb_bulk_transfer(h, 0x01, buf, 64, &n, 100) == 0);
    assert(libusb_bulk_transfer(h, 0x81, buf, 512, &n, 100) == 0 && n == 5);
    command("error loop 81");
    assert(libusb_bulk_transfer(h, 0x81, buf, 512, &n, 100) == LIBUSB_ERROR_IO);
    command("oversize loop 81");
    assert(libusb_bulk_transfer(h, 0x81, buf, 512, &n, 100) == LIBUSB_ERROR_OVERFLOW);
    libusb_close(h);
    command("unplug loop");
}

/* ---- asynchronous transfers ---- */

typedef struct Seen {
    int count;
    enum libusb_transfer_status status;
    int length;
} Seen;

static void LIBUSB_CALL seen(struct libusb_transfer *t)
{
    Seen *s = t->user_data;

    s->count++;
    s->status = t->status;
    s->length = t->actual_length;
}

static void handle_once(long ms)
{
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

    assert(libusb_handle_events_timeout(ctx, &tv) == 0);
}

static void wait_for(const Seen *s, int count)
{
    for (int i = 0; i < 1000 && s->count < count; i++)
        handle_once(10);
    assert(s->count == count);
}

static double now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static void test_async(void)
{
    struct libusb_transfer *in = libusb_alloc_transfer(0), *out = libusb_alloc_transfer(0);
    libusb_device_handle *h;
    Seen got = {0}, sent = {0};
    uint8_t a[512] = {0}, b[512] = "ping";
    double start;

    command("plug loop:");
    h = open_pid(3, true);
    libusb_fill_bulk_transfer(in, h, 0x81, a, 512, seen, &got, 0);
    libusb_fill_bulk_transfer(out, h, 0x01, b, 512, seen, &sent, 0);
    assert(libusb_submit_transfer(in) == 0);
    assert(libusb_submit_transfer(in) == LIBUSB_ERROR_BUSY);
    assert(libusb_submit_transfer(out) == 0);
    assert(got.count == 0 && sent.count == 0); /* never from within submit */
    wait_for(&got, 1);
    wait_for(&sent, 1);
    assert(got.length == 512 && !memcmp(a, b, 512));

    assert(libusb_cancel_transfer(in) == LIBUSB_ERROR_NOT_FOUND);
    assert(libusb_submit_transfer(in) == 0);
    assert(libusb_cancel_transfer(in) == 0 && got.count == 1);
    wait_for(&got, 2);
    assert(got.status == LIBUSB_TRANSFER_CANCELLED);

    in->timeout = 30;
    start = now_ms();
    assert(libusb_submit_transfer(in) == 0);
    wait_for(&got, 3);
    assert(got.status == LIBUSB_TRANSFER_TIMED_OUT && now_ms() - start >= 29);

    command("delay loop 25");
    start = now_ms();
    assert(libusb_submit_transfer(out) == 0);
    wait_for(&sent, 2);
    assert(now_ms() - start >= 24 && sent.status == LIBUSB_TRANSFER_COMPLETED);
    command("delay loop 0");

    in->timeout = 0;
    command("hang loop 81");
    assert(libusb_submit_transfer(in) == 0);
    handle_once(5);
    assert(got.count == 3);
    command("unhang loop 81");
    wait_for(&got, 4);
    assert(libusb_submit_transfer(in) == 0);
    command("unplug loop");
    wait_for(&got, 5);
    assert(got.status == LIBUSB_TRANSFER_NO_DEVICE);
    assert(libusb_submit_transfer(in) == LIBUSB_ERROR_NO_DEVICE);
    assert(libusb_clear_halt(h, 0x81) == LIBUSB_ERROR_NO_DEVICE);
    libusb_close(h);
    libusb_free_transfer(in);
    libusb_free_transfer(out);
}

static int arrived, left;

static int LIBUSB_CALL hotplug(libusb_context *c, libusb_device *dev, libusb_hotplug_event event,
                               void *user_data)
{
    struct libusb_device_descriptor d;

    assert(c == ctx && libusb_get_device_descriptor(dev, &d) == 0 && d.idVendor == 0x1209);
    (*(event == LIBUSB_HOTPLUG_EVENT_DEVICE_ARRIVED ? &arrived : &left))++;
    return 0;
}

/* What a device still had to do is over before anybody hears that it has left. */
static void LIBUSB_CALL over(struct libusb_transfer *t)
{
    assert(t->status == LIBUSB_TRANSFER_NO_DEVICE && left == 0);
    ++*(int *)t->user_data;
}

static void test_hotplug(void)
{
    struct libusb_transfer *in = libusb_alloc_transfer(0);
    libusb_hotplug_callback_handle a, b;
    libusb_device_handle *h;
    libusb_device **list;
    uint8_t buf[512];
    int ended = 0;

    command("plug loop:");
    handle_once(0); /* delivers to nobody what happened before */
    assert(libusb_hotplug_register_callback(ctx, 3, 0, -1, -1, -1, hotplug, NULL, &a) == 0);
    assert(arrived == 0);
    assert(libusb_hotplug_register_callback(ctx, 3, LIBUSB_HOTPLUG_ENUMERATE, 0x1209, 3, -1,
                                            hotplug, NULL, &b) == 0);
    assert(arrived == 1);
    libusb_hotplug_deregister_callback(ctx, b);
    command("plug loop:speed=super");
    assert(arrived == 1); /* only from event handling */
    handle_once(1000);
    assert(arrived == 2);
    assert(libusb_get_device_list(ctx, &list) == 2);
    assert(libusb_get_bus_number(list[0]) == 1 && libusb_get_port_number(list[0]) == 1);
    assert(libusb_get_bus_number(list[1]) == 2);
    assert(libusb_get_device_speed(list[1]) == LIBUSB_SPEED_SUPER);
    libusb_free_device_list(list, 1);
    h = open_pid(3, true);
    libusb_fill_bulk_transfer(in, h, 0x81, buf, sizeof(buf), over, &ended, 0);
    assert(libusb_submit_transfer(in) == 0);
    command("unplug loop");
    command("unplug loop2");
    for (int i = 0; i < 100 && left < 2; i++)
        handle_once(10);
    assert(left == 2 && ended == 1);
    libusb_free_transfer(in);
    libusb_close(h);
    assert(libusb_get_device_list(ctx, &list) == 0);
    libusb_free_device_list(list, 1);
    libusb_hotplug_deregister_callback(ctx, a);
}

static void test_keyboard(void)
{
    libusb_device_handle *h;
    uint8_t r[8], led = 2, none[8] = {0};
    int n;

    command("plug keyboard:");
    h = open_pid(2, true);
    assert(libusb_control_transfer(h, 0x81, 6, 0x2200, 0, r, 8, 100) == 8 && r[1] == 1);
    assert(libusb_control_transfer(h, 0x21, 0x0a, 0, 0, NULL, 0, 100) == 0);
    assert(libusb_interrupt_transfer(h, 0x81, r, 8, &n, 30) == LIBUSB_ERROR_TIMEOUT);
    command("type keyboard aB");
    assert(libusb_interrupt_transfer(h, 0x81, r, 8, &n, 500) == 0 && n == 8);
    assert(r[0] == 0 && r[2] == 4);
    assert(libusb_interrupt_transfer(h, 0x81, r, 8, &n, 500) == 0 && !memcmp(r, none, 8));
    assert(libusb_interrupt_transfer(h, 0x81, r, 8, &n, 500) == 0 && r[0] == 2 && r[2] == 5);
    assert(libusb_interrupt_transfer(h, 0x81, r, 8, &n, 500) == 0 && !memcmp(r, none, 8));
    assert(libusb_control_transfer(h, 0x21, 9, 0x0200, 0, &led, 1, 100) == 1);
    assert(standin_command("leds keyboard", (char[128]){0}, 128));
    assert(libusb_control_transfer(h, 0x21, 0x0a, 0x0500, 0, NULL, 0, 100) == 0);
    assert(libusb_control_transfer(h, 0xa1, 2, 0, 0, r, 1, 100) == 1 && r[0] == 5);
    assert(libusb_interrupt_transfer(h, 0x81, r, 8, &n, 500) == 0); /* repeats every 20 ms */
    libusb_close(h);
    command("unplug keyboard");
}

static void test_descriptors(void)
{
    struct libusb_config_descriptor *c;
    struct libusb_ss_endpoint_companion_descriptor *companion;
    struct libusb_bos_descriptor *bos;
    const struct libusb_endpoint_descriptor *ep;
    libusb_device_handle *h;
    libusb_device *dev;

    command("plug loop:speed=super");
    h = open_pid(3, false);
    dev = libusb_get_device(h);
    assert(libusb_get_active_config_descriptor(dev, &c) == 0);
    assert(c->bNumInterfaces == 1 && c->interface[0].num_altsetting == 2);
    assert(c->interface[0].altsetting[1].bNumEndpoints == 4);
    ep = &c->interface[0].altsetting[1].endpoint[0];
    assert(ep->bEndpointAddress == 0x81 && ep->wMaxPacketSize == 1024);
    assert(libusb_get_ss_endpoint_companion_descriptor(ctx, ep, &companion) == 0);
    assert(companion->bMaxBurst == 15);
    libusb_free_ss_endpoint_companion_descriptor(companion);
    libusb_free_config_descriptor(c);
    assert(libusb_get_config_descriptor(dev, 1, &c) == LIBUSB_ERROR_NOT_FOUND);
    assert(libusb_get_bos_descriptor(h, &bos) == 0 && bos->bNumDeviceCaps == 2);
    libusb_free_bos_descriptor(bos);
    libusb_close(h);
    command("unplug loop");
}

/* ---- threads ---- */

static atomic_bool stop_events;

static void *event_thread(void *arg)
{
    while (!stop_events)
        assert(libusb_handle_events(ctx) == 0);
    return NULL;
}

/* Synchronous calls on this thread while another one handles events; and how long a round takes. */
static void test_threads(void)
{
    enum { ROUNDS = 2000 };
    libusb_device_handle *h;
    uint8_t buf[512] = {0};
    pthread_t t;
    double start;
    int n;

    command("plug loop:");
    h = open_pid(3, true);
    assert(pthread_create(&t, NULL, event_thread, NULL) == 0);
    start = now_ms();
    for (int i = 0; i < ROUNDS; i++) {
        assert(libusb_bulk_transfer(h, 0x01, buf, 512, &n, 5000) == 0 && n == 512);
        assert(libusb_bulk_transfer(h, 0x81, buf, 512, &n, 5000) == 0 && n == 512);
    }
    printf("# one bulk transfer across threads: %.1f us\n", (now_ms() - start) * 1e3 / ROUNDS / 2);
    stop_events = true;
    libusb_interrupt_event_handler(ctx);
    pthread_join(t, NULL);
    assert(counter("loop", "violations") == 0);
    libusb_close(h);
    command("unplug loop");
}

int main(void)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {
        {"descriptors", test_descriptors},
        {"claims", test_claims},
        {"kernel_driver", test_kernel_driver},
        {"requests", test_requests},
        {"halts_and_toggles", test_halts_and_toggles},
        {"async", test_async},
        {"hotplug", test_hotplug},
        {"keyboard", test_keyboard},
        {"stick_commands", test_stick_commands},
        {"stick_data", test_stick_data},
        {"stick_strict", test_stick_strict},
        {"threads", test_threads},
    };
    int fd;

    snprintf(image, sizeof(image), "/tmp/qrdp-test-standin-XXXXXX");
    fd = mkstemp(image);
    assert(fd >= 0 && ftruncate(fd, IMAGE_BLOCKS * 512) == 0);
    close(fd);
    assert(libusb_init(&ctx) == 0);
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        tests[i].run();
        printf("ok %s\n", tests[i].name);
        fflush(stdout);
    }
    libusb_exit(ctx);
    unlink(image);
    return 0;
}
