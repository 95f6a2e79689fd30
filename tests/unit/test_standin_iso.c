/*
 * Isochronous endpoints of the libusb stand-in: a packet per slot, gaps noticed, the kernel's
 * limits.
 */
#include "standin.h"
#include <assert.h>
#include <libusb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PACKETS 10
#define SIZE 192

static libusb_context *ctx;
static libusb_device_handle *handle;

static long counter(const char *key)
{
    char name[64], answer[4096], *p;

    assert(standin_command("log headset", answer, sizeof(answer)));
    snprintf(name, sizeof(name), " %s=", key);
    p = strstr(answer, name);
    return p ? strtol(p + strlen(name), NULL, 10) : -1;
}

static void on_done(struct libusb_transfer *t)
{
    ++*(int *)t->user_data;
}

static struct libusb_transfer *make(uint8_t endpoint, int packets, unsigned size, int *done)
{
    struct libusb_transfer *t = libusb_alloc_transfer(packets);
    uint8_t *data = calloc((size_t)packets, size);

    assert(t && data);
    for (int i = 0; i < packets && !(endpoint & 0x80); i++)
        memset(data + (size_t)i * size, i + 1, size);
    libusb_fill_iso_transfer(t, handle, endpoint, data, packets * (int)size, packets, on_done, done,
                             2000);
    libusb_set_iso_packet_lengths(t, size);
    t->flags = LIBUSB_TRANSFER_FREE_BUFFER;
    return t;
}

static void await(const int *done, int count)
{
    while (*done < count)
        assert(libusb_handle_events(ctx) == 0);
}

static void check_record(const char *path, unsigned packets)
{
    char answer[512];
    uint8_t p[6 + SIZE];

    assert(standin_command("audio headset", answer, sizeof(answer)));
    FILE *file = fopen(path, "r");
    assert(file);
    for (unsigned i = 0, slot = 0; i < packets; i++) {
        assert(fread(p, 1, sizeof(p), file) == sizeof(p));
        assert((unsigned)(p[0] | p[1] << 8) >= slot);
        slot = (p[0] | p[1] << 8u) + 1;
        assert((p[4] | p[5] << 8) == SIZE);
        assert(p[6] == i % PACKETS + 1 && p[6 + SIZE - 1] == i % PACKETS + 1);
    }
    assert(fread(p, 1, 1, file) == 0);
    fclose(file);
}

static void test_speaker(const char *path)
{
    int done = 0;
    struct libusb_transfer *a = make(0x01, PACKETS, SIZE, &done),
                           *b = make(0x01, PACKETS, SIZE, &done);
    unsigned pairs = 0;
    long gaps;

    assert(libusb_submit_transfer(a) == LIBUSB_ERROR_IO); /* setting 0 has no endpoint */
    assert(libusb_set_interface_alt_setting(handle, 1, 1) == 0);
    /* Two that follow each other leave no gap, unless this process slept between them. */
    do {
        gaps = pairs > 0 ? counter("ep01.gaps") + 1 : 0; /* the pause before this pair is one */
        assert(pairs++ < 100);
        assert(libusb_submit_transfer(a) == 0 && libusb_submit_transfer(b) == 0);
        await(&done, 2 * (int)pairs);
        assert(a->status == LIBUSB_TRANSFER_COMPLETED);
        for (int i = 0; i < PACKETS; i++)
            assert(a->iso_packet_desc[i].status == 0 &&
                   b->iso_packet_desc[i].actual_length == SIZE);
        assert(counter("ep01.packets") == 2 * PACKETS * pairs);
    } while (counter("ep01.gaps") != gaps);

    /* it is over when its last slot is: whoever waits for that is late */
    assert(libusb_submit_transfer(a) == 0);
    await(&done, 2 * (int)pairs + 1);
    assert(counter("ep01.gaps") == gaps + 1 && counter("ep01.missed") >= 1);
    check_record(path, (2 * pairs + 1) * PACKETS);
    libusb_free_transfer(a);
    libusb_free_transfer(b);
}

static void test_microphone(void)
{
    int done = 0;
    struct libusb_transfer *t = make(0x82, PACKETS, 98, &done);

    assert(libusb_set_interface_alt_setting(handle, 2, 1) == 0);
    assert(libusb_submit_transfer(t) == 0);
    await(&done, 1);
    for (int i = 0; i < PACKETS; i++)
        assert(t->iso_packet_desc[i].actual_length == 96);
    const int16_t *first = (const void *)libusb_get_iso_packet_buffer_simple(t, 0);
    assert(first[0] == 0 && first[12] > 7900 && first[36] < -7900); /* 1 kHz */

    char answer[64];
    assert(standin_command("error headset 82 2", answer, sizeof(answer)));
    assert(libusb_submit_transfer(t) == 0);
    await(&done, 2);
    assert(t->iso_packet_desc[1].status == LIBUSB_TRANSFER_ERROR);
    assert(t->iso_packet_desc[2].status == LIBUSB_TRANSFER_COMPLETED);
    libusb_free_transfer(t);
}

static void test_limits(void)
{
    int done = 0;
    struct libusb_transfer *large = make(0x01, 1, 197, &done), *many = make(0x01, 129, 8, &done);

    assert(libusb_submit_transfer(large) == LIBUSB_ERROR_INVALID_PARAM);
    assert(libusb_submit_transfer(many) == LIBUSB_ERROR_INVALID_PARAM);
    libusb_free_transfer(large);
    libusb_free_transfer(many);

    struct libusb_transfer *t = make(0x01, PACKETS, SIZE, &done);
    assert(libusb_submit_transfer(t) == 0);
    assert(libusb_set_interface_alt_setting(handle, 1, 0) == 0); /* ends it */
    await(&done, 1);
    assert(t->status == LIBUSB_TRANSFER_CANCELLED);
    libusb_free_transfer(t);
}

int main(void)
{
    char path[] = "/tmp/qrdp-test-standin-XXXXXX", line[128], answer[256];
    int fd = mkstemp(path);

    assert(fd >= 0 && libusb_init(&ctx) == 0);
    snprintf(line, sizeof(line), "plug headset:record=%s", path);
    assert(standin_command(line, answer, sizeof(answer)));
    handle = libusb_open_device_with_vid_pid(ctx, 0x1209, 0x0008);
    assert(handle);
    for (int i = 0; i < 3; i++) {
        assert(libusb_detach_kernel_driver(handle, i) == 0);
        assert(libusb_claim_interface(handle, i) == 0);
    }
    test_speaker(path);
    test_microphone();
    test_limits();
    libusb_close(handle);
    libusb_exit(ctx);
    remove(path);
    printf("ok\n");
    return 0;
}
