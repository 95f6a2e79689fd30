/*
 * usbloop VID:PID SIZE COUNT: sends COUNT times SIZE bytes to bulk endpoint 01 of a device and
 * reads them back from 81 (the stand-in's loop device, docs/testing-standin.md), through usbfs as a
 * user-space driver does. Prints the microseconds that each OUT and IN took, a pair per line.
 */
#include "guest.h"

#include <errno.h>
#include <linux/usbdevice_fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { MAX_SIZE = 16384, TIMEOUT_MS = 5000 };

/* The microseconds it took, or -1. */
static long bulk(int fd, unsigned endpoint, void *data, unsigned size)
{
    struct usbdevfs_bulktransfer transfer = {
        .ep = endpoint, .len = size, .timeout = TIMEOUT_MS, .data = data};
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    int done = ioctl(fd, USBDEVFS_BULK, &transfer);
    clock_gettime(CLOCK_MONOTONIC, &end);
    if (done != (int)size) {
        fprintf(stderr, "endpoint %02x: %d of %u bytes: %s\n", endpoint, done, size,
                done < 0 ? strerror(errno) : "short");
        return -1;
    }
    return (end.tv_sec - start.tv_sec) * 1000000 + (end.tv_nsec - start.tv_nsec) / 1000;
}

int usbloop_main(int argc, char **argv)
{
    static uint8_t sent[MAX_SIZE], got[MAX_SIZE];
    unsigned vid, pid, interface = 0;
    unsigned size = argc > 2 ? (unsigned)atoi(argv[2]) : 0;
    int count = argc > 3 ? atoi(argv[3]) : 0;
    if (argc != 4 || sscanf(argv[1], "%x:%x", &vid, &pid) != 2 || size < 1 || size > MAX_SIZE) {
        fprintf(stderr, "usage: usbloop VID:PID SIZE COUNT, SIZE up to %d\n", MAX_SIZE);
        return 2;
    }
    int fd = usb_open(vid, pid);
    if (fd < 0 || ioctl(fd, USBDEVFS_CLAIMINTERFACE, &interface) < 0) {
        perror(argv[1]);
        return 1;
    }
    for (int i = 0; i < count; i++) {
        memset(sent, i, size);
        long out = bulk(fd, 0x01, sent, size);
        long in = out < 0 ? -1 : bulk(fd, 0x81, got, size);
        if (in < 0)
            return 1;
        if (memcmp(sent, got, size) != 0) {
            fprintf(stderr, "transfer %d came back changed\n", i);
            return 1;
        }
        printf("%ld %ld\n", out, in);
    }
    close(fd);
    return 0;
}
