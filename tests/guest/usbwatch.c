/*
 * The guest's hot-plug daemon, in place of udev. It listens to kernel uevents, loads the driver a
 * device asks for (MODALIAS), writes a line on the first console (and to /run/usb.log) when a USB
 * device comes, is taken by a driver, or goes, and mounts USB sticks on /mnt/usb-sdXN.
 */
#include "guest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_KNOWN = 64, MAX_ALIASES = 128 };

struct known { /* what a device was, for the line that says it went */
    char path[256];
    char what[160];
};

static struct known known[MAX_KNOWN];

int uevent_open(void)
{
    int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
    int size = 4 << 20;
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1};
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

long uevent_read(int fd, char *buf, size_t size)
{
    ssize_t n = recv(fd, buf, size - 1, 0);
    if (n < 0)
        return errno == ENOBUFS ? 0 : -1;
    buf[n] = 0;
    return n;
}

const char *uevent_get(const char *buf, long length, const char *name)
{
    size_t size = strlen(name);
    for (const char *s = buf; s < buf + length; s += strlen(s) + 1)
        if (strncmp(s, name, size) == 0 && s[size] == '=')
            return s + size + 1;
    return "";
}

/* The line overwrote what was being typed; the shell draws that again when the window changes. */
static void redraw_prompt(void)
{
    FILE *file = fopen("/run/shell.pid", "r");
    int pid = 0;
    if (file && fscanf(file, "%d", &pid) == 1 && pid > 1)
        kill(pid, SIGWINCH);
    if (file)
        fclose(file);
}

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    FILE *screen = fopen("/dev/tty1", "w");
    if (screen) {
        fprintf(screen, "\r\033[1;32mUSB\033[0m %s\033[K\n", text);
        fclose(screen);
        redraw_prompt();
    }
    FILE *log = fopen("/run/usb.log", "a");
    if (log) {
        fprintf(log, "%s\n", text);
        fclose(log);
    }
}

static void load_drivers(char *const *aliases, size_t count)
{
    char *argv[MAX_ALIASES + 4] = {"modprobe", "-q", "-a"};
    if (!count)
        return;
    memcpy(argv + 3, aliases, count * sizeof *aliases);
    pid_t pid = fork();
    if (pid == 0) {
        execv("/sbin/modprobe", argv);
        _exit(127);
    }
    waitpid(pid, NULL, 0);
}

static void attribute(const char *path, const char *name, char *value, size_t size)
{
    char file[512];
    snprintf(file, sizeof file, "/sys%.300s/%s", path, name);
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, value, size - 1) : 0;
    if (fd >= 0)
        close(fd);
    value[n > 0 ? n : 0] = 0;
    value[strcspn(value, "\n")] = 0;
    for (char *c = value; *c; c++) /* a device's strings may hold anything */
        if ((unsigned char)*c < 32 || *c == 127)
            *c = '?';
}

static struct known *find(const char *path)
{
    for (size_t i = 0; i < MAX_KNOWN; i++)
        if (strcmp(known[i].path, path) == 0)
            return &known[i];
    return NULL;
}

static void usb_device(const char *action, const char *path)
{
    if (strcmp(action, "add") == 0) {
        char vid[8], pid[8], maker[64], product[64], speed[16];
        attribute(path, "idVendor", vid, sizeof vid);
        attribute(path, "idProduct", pid, sizeof pid);
        attribute(path, "manufacturer", maker, sizeof maker);
        attribute(path, "product", product, sizeof product);
        attribute(path, "speed", speed, sizeof speed);
        struct known *slot = find(path);
        if (!slot)
            slot = find("");
        if (strcmp(vid, "1d6b") == 0 || !slot) /* the controller's own hubs */
            return;
        snprintf(slot->path, sizeof slot->path, "%s", path);
        snprintf(slot->what, sizeof slot->what, "%s:%s %s%s%s", vid, pid, maker, *maker ? " " : "",
                 product);
        say("+ %s, %s Mbit/s", slot->what, speed);
    } else if (strcmp(action, "remove") == 0) {
        struct known *slot = find(path);
        if (!slot)
            return;
        say("- %s is gone", slot->what);
        *slot = (struct known){0};
    }
}

static void usb_bound(const char *path, const char *driver)
{
    char device[256];
    snprintf(device, sizeof device, "%s", path);
    char *slash = strrchr(device, '/');
    if (slash)
        *slash = 0;
    struct known *slot = find(device);
    if (slot && *driver && strcmp(driver, "hub") != 0)
        say("  %s: driver %s", slot->what, driver);
}

/* What a partition holds, by its magic numbers: mount's own guessing litters the console. */
static const char *file_system(const char *node)
{
    uint8_t head[2048] = {0};
    int fd = open(node, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? pread(fd, head, sizeof head, 0) : -1;
    if (fd >= 0)
        close(fd);
    if (n < (ssize_t)sizeof head)
        return NULL;
    if (head[1080] == 0x53 && head[1081] == 0xef)
        return "ext4";
    if (memcmp(head + 3, "EXFAT   ", 8) == 0)
        return "exfat";
    if (memcmp(head + 54, "FAT", 3) == 0 || memcmp(head + 82, "FAT", 3) == 0)
        return "vfat";
    return NULL;
}

static void block_device(const char *action, const char *path, const char *name)
{
    char node[64], where[64];
    if (!strstr(path, "/usb") || strlen(name) > 32)
        return;
    snprintf(node, sizeof node, "/dev/%.32s", name);
    snprintf(where, sizeof where, "/mnt/usb-%.32s", name);
    if (strcmp(action, "remove") == 0) {
        if (umount2(where, MNT_DETACH) == 0)
            say("  %s is no longer mounted", where);
        rmdir(where);
        return;
    }
    const char *type = strcmp(action, "add") == 0 ? file_system(node) : NULL;
    if (!type)
        return;
    mkdir(where, 0755);
    if (mount(node, where, type, 0, NULL) == 0) {
        say("  %s (%s) is mounted on %s", node, type, where);
    } else {
        say("  %s (%s) cannot be mounted: %s", node, type, strerror(errno));
        rmdir(where);
    }
}

/* Devices that were there before us: make the kernel announce those whose drivers are modules. */
static void coldplug(void)
{
    static const char *const buses[] = {"pci", "virtio", "usb", "hid", "serio", "scsi"};
    for (size_t i = 0; i < sizeof buses / sizeof *buses; i++) {
        char path[512];
        snprintf(path, sizeof path, "/sys/bus/%s/devices", buses[i]);
        DIR *dir = opendir(path);
        for (struct dirent *entry; dir && (entry = readdir(dir));) {
            snprintf(path, sizeof path, "/sys/bus/%s/devices/%.200s/uevent", buses[i],
                     entry->d_name);
            int fd = entry->d_name[0] == '.' ? -1 : open(path, O_WRONLY | O_CLOEXEC);
            if (fd >= 0) {
                ssize_t ignored = write(fd, "add", 3);
                (void)ignored;
                close(fd);
            }
        }
        if (dir)
            closedir(dir);
    }
}

int usbwatch_main(void)
{
    static char buf[8192];
    int fd = uevent_open();
    if (fd < 0)
        return 1;
    coldplug();
    bool settled = false;
    for (;;) {
        char *aliases[MAX_ALIASES];
        size_t count = 0;
        long length;
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (poll(&wait, 1, settled ? -1 : 500) == 0) {
            /* Nothing new for a while: the drivers of what was there at the start are loaded. */
            close(open("/run/settled", O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
            settled = true;
        }
        while (count < MAX_ALIASES && (length = uevent_read(fd, buf, sizeof buf)) >= 0) {
            const char *action = uevent_get(buf, length, "ACTION");
            const char *path = uevent_get(buf, length, "DEVPATH");
            const char *alias = uevent_get(buf, length, "MODALIAS");
            const char *subsystem = uevent_get(buf, length, "SUBSYSTEM");
            const char *type = uevent_get(buf, length, "DEVTYPE");
            const char *driver = uevent_get(buf, length, "DRIVER");
            if (strcmp(action, "add") == 0 && *alias && !*driver)
                aliases[count++] = strdup(alias);
            if (strcmp(type, "usb_device") == 0)
                usb_device(action, path);
            else if (strcmp(type, "usb_interface") == 0 && strcmp(action, "bind") == 0)
                usb_bound(path, driver);
            else if (strcmp(subsystem, "block") == 0)
                block_device(action, path, uevent_get(buf, length, "DEVNAME"));
        }
        load_drivers(aliases, count);
        while (count)
            free(aliases[--count]);
    }
}
