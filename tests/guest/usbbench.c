/*
 * usbbench: what tests/bench measures inside the guest. Durations are microseconds, one per line.
 *
 *      usbbench seq DISK read|write SIZE COUNT     COUNT commands of SIZE bytes, one after the
 * other from the start of the disk; the time they all took usbbench rand DISK SIZE COUNT reads at
 * random places, the time of each usbbench control VID:PID COUNT              control transfers
 * (loop device, request 03) usbbench hid SERIAL...                      writes a byte to the port
 * org.qrdp.bench for each key event of these input devices, and grabs them
 *
 * Disks are opened for direct I/O: each read or write is one command to the device if SIZE is not
 * more than the disk's max_sectors_kb.
 */
#include "guest.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/input.h>
#include <linux/usbdevice_fs.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

enum { MAX_SIZE = 4 << 20, MAX_INPUTS = 8, ALIGN = 4096 };

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static int fail(const char *what)
{
    perror(what);
    return 1;
}

/* The disk, open; its size in *bytes. */
static int open_disk(const char *path, int flags, uint64_t *bytes)
{
    int fd = open(path, flags | O_DIRECT | O_CLOEXEC);
    if (fd >= 0 && ioctl(fd, BLKGETSIZE64, bytes) < 0)
        return -1;
    return fd;
}

static void *buffer(unsigned size)
{
    void *memory = NULL;
    if (size < 512 || size > MAX_SIZE || posix_memalign(&memory, ALIGN, size) != 0)
        return NULL;
    memset(memory, 0xa5, size);
    return memory;
}

static int sequential(const char *path, bool write, unsigned size, unsigned count)
{
    uint64_t bytes = 0, at = 0;
    int fd = open_disk(path, write ? O_WRONLY : O_RDONLY, &bytes);
    char *data = buffer(size);
    if (fd < 0 || !data || bytes < size)
        return fail(path);
    int64_t start = now_us();
    for (unsigned i = 0; i < count; i++, at += size) {
        if (at + size > bytes)
            at = 0;
        ssize_t n = write ? pwrite(fd, data, size, (off_t)at) : pread(fd, data, size, (off_t)at);
        if (n != (ssize_t)size)
            return fail(path);
    }
    printf("%lld\n", (long long)(now_us() - start));
    return 0;
}

static int random_reads(const char *path, unsigned size, unsigned count)
{
    uint64_t bytes = 0;
    int fd = open_disk(path, O_RDONLY, &bytes);
    char *data = buffer(size);
    if (fd < 0 || !data || bytes < size)
        return fail(path);
    for (unsigned i = 0; i < count; i++) {
        uint64_t at = 0;
        if (getrandom(&at, sizeof at, 0) != sizeof at)
            return fail("getrandom");
        at = at % (bytes / size) * size;
        int64_t start = now_us();
        if (pread(fd, data, size, (off_t)at) != (ssize_t)size)
            return fail(path);
        printf("%lld\n", (long long)(now_us() - start));
    }
    return 0;
}

static int control(const char *ident, unsigned count)
{
    unsigned vid, pid;
    int fd = sscanf(ident, "%x:%x", &vid, &pid) == 2 ? usb_open(vid, pid) : -1;
    uint8_t answer[4];
    struct usbdevfs_ctrltransfer request = {
        .bRequestType = 0xc0, .bRequest = 3, .wLength = 4, .timeout = 10000, .data = answer};
    if (fd < 0)
        return fail(ident);
    for (unsigned i = 0; i < count; i++) {
        int64_t start = now_us();
        if (ioctl(fd, USBDEVFS_CONTROL, &request) != 4)
            return fail("control transfer");
        printf("%lld\n", (long long)(now_us() - start));
    }
    return 0;
}

static int open_port(const char *wanted)
{
    int fd = -1;
    DIR *dir = opendir("/sys/class/virtio-ports");
    for (struct dirent *entry; dir && fd < 0 && (entry = readdir(dir));) {
        char path[128], name[64] = "";
        snprintf(path, sizeof path, "/sys/class/virtio-ports/%.40s/name", entry->d_name);
        FILE *file = fopen(path, "r");
        if (file && fgets(name, sizeof name, file))
            name[strcspn(name, "\n")] = 0;
        if (file)
            fclose(file);
        if (strcmp(name, wanted) != 0)
            continue;
        snprintf(path, sizeof path, "/dev/%.40s", entry->d_name);
        fd = open(path, O_WRONLY | O_CLOEXEC);
    }
    if (dir)
        closedir(dir);
    return fd;
}

/* The input device of the USB device with this serial number that has keys. */
static int open_input(const char *serial)
{
    for (int i = 0; i < 32; i++) {
        char path[32], uniq[64] = "";
        unsigned long types = 0;
        snprintf(path, sizeof path, "/dev/input/event%d", i);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        if (ioctl(fd, EVIOCGUNIQ(sizeof uniq - 1), uniq) > 0 && strcmp(uniq, serial) == 0 &&
            ioctl(fd, EVIOCGBIT(0, sizeof types), &types) >= 0 && types & 1ul << EV_KEY &&
            ioctl(fd, EVIOCGRAB, 1) == 0)
            return fd;
        close(fd);
    }
    return -1;
}

static int hid(char **serials, int count)
{
    struct pollfd inputs[MAX_INPUTS];
    int port = open_port("org.qrdp.bench");
    if (port < 0)
        return fail("the port org.qrdp.bench");
    for (int i = 0; i < count; i++) {
        inputs[i] = (struct pollfd){.fd = open_input(serials[i]), .events = POLLIN};
        if (inputs[i].fd < 0)
            return fail(serials[i]);
    }
    if (write(port, "r", 1) != 1) /* ready */
        return fail("port");
    for (;;) {
        if (poll(inputs, (nfds_t)count, -1) < 0)
            return fail("poll");
        for (int i = 0; i < count; i++) {
            struct input_event event;
            if (!inputs[i].revents)
                continue;
            if (read(inputs[i].fd, &event, sizeof event) != sizeof event)
                return 0; /* unplugged */
            if (event.type == EV_KEY && event.value != 2 && write(port, "k", 1) != 1)
                return fail("port");
        }
    }
}

int usbbench_main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "seq") == 0 && argc == 6)
        return sequential(argv[2], strcmp(argv[3], "write") == 0, (unsigned)atoi(argv[4]),
                          (unsigned)atoi(argv[5]));
    if (strcmp(what, "rand") == 0 && argc == 5)
        return random_reads(argv[2], (unsigned)atoi(argv[3]), (unsigned)atoi(argv[4]));
    if (strcmp(what, "control") == 0 && argc == 4)
        return control(argv[2], (unsigned)atoi(argv[3]));
    if (strcmp(what, "hid") == 0 && argc > 2 && argc - 2 <= MAX_INPUTS)
        return hid(argv + 2, argc - 2);
    fprintf(stderr, "usage: usbbench seq|rand|control|hid ..., see usbbench.c\n");
    return 2;
}
