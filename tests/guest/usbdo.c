/*
 * usbdo VID:PID WORD...: carries out USB requests one after the other, as a user-space driver does,
 * and prints a line for each: what came, or the error that the guest's kernel gave.
 *
 *      timeout=MS          of the requests that follow; 0 (at first: 5000) waits for ever
 *      show=BYTES          of what comes, as hex (64)
 *      claim=N release=N   an interface; a kernel driver is put aside
 *      setif=N.ALT setcfg=N halt=EP reset
 *      in=EP.SIZE          bulk or interrupt; EP in hex
 *      out=EP.HEX          the same; "out=EP.+SIZE" sends SIZE bytes that count up
 *      cin=TYPE.REQUEST.VALUE.INDEX.LENGTH     control, hex numbers but for the length
 *      cout=TYPE.REQUEST.VALUE.INDEX.HEX       the same to the device, HEX may be empty
 *
 * A line is "ok BYTES HEX", of which HEX stops after those bytes, with a checksum of all ("sum" is
 * that of +SIZE), or "error NAME". Exit status: 0 unless the device cannot be opened or a word is
 * wrong; errors of requests are results.
 */
#include "guest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/usbdevice_fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { MAX_SIZE = 4 << 20 };

static uint8_t data[MAX_SIZE];
static unsigned timeout_ms = 5000;
static int shown = 64;

static unsigned long attribute(const char *device, const char *name, int base)
{
    char path[128], text[32] = "";
    snprintf(path, sizeof path, "/sys/bus/usb/devices/%.40s/%s", device, name);
    FILE *file = fopen(path, "r");
    if (file && !fgets(text, sizeof text, file))
        text[0] = 0;
    if (file)
        fclose(file);
    return strtoul(text, NULL, base);
}

int usb_open(unsigned vid, unsigned pid)
{
    int fd = -1;
    DIR *dir = opendir("/sys/bus/usb/devices");
    for (struct dirent *entry; dir && fd < 0 && (entry = readdir(dir));) {
        if (strchr(entry->d_name, ':') || attribute(entry->d_name, "idVendor", 16) != vid ||
            attribute(entry->d_name, "idProduct", 16) != pid)
            continue;
        char path[64];
        snprintf(path, sizeof path, "/dev/bus/usb/%03lu/%03lu",
                 attribute(entry->d_name, "busnum", 10), attribute(entry->d_name, "devnum", 10));
        fd = open(path, O_RDWR | O_CLOEXEC);
    }
    if (dir)
        closedir(dir);
    return fd;
}

static uint32_t checksum(const uint8_t *bytes, size_t size)
{
    uint32_t sum = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < size; i++)
        sum = (sum ^ bytes[i]) * 16777619u;
    return sum;
}

/* What an ioctl returned; @in: the bytes that came are shown. */
static void result(int done, bool in)
{
    if (done < 0) {
        printf("error %s\n", strerrorname_np(errno));
    } else {
        printf("ok %d ", done);
        for (int i = 0; in && i < done && i < shown; i++)
            printf("%02x", data[i]);
        if (in && done > shown)
            printf(" %08x", checksum(data, (size_t)done));
        putchar('\n');
    }
    fflush(stdout);
}

/* Hex digits, or "+SIZE" for bytes that count up, into data; -1 if it is neither. */
static int payload(const char *text)
{
    if (*text == '+') {
        int size = atoi(text + 1);
        if (size < 0 || size > MAX_SIZE)
            return -1;
        for (int i = 0; i < size; i++)
            data[i] = (uint8_t)(i ^ i >> 8);
        return size;
    }
    int size = 0;
    for (unsigned byte; *text; text += 2, size++) {
        if (size == MAX_SIZE || sscanf(text, "%2x", &byte) != 1 || !text[1])
            return -1;
        data[size] = (uint8_t)byte;
    }
    return size;
}

static int bulk(int fd, unsigned endpoint, int size)
{
    struct usbdevfs_bulktransfer transfer = {
        .ep = endpoint, .len = (unsigned)size, .timeout = timeout_ms, .data = data};
    return ioctl(fd, USBDEVFS_BULK, &transfer);
}

static bool control(int fd, const char *text, bool in)
{
    unsigned type, request, value, index;
    int at = 0, size;
    if (sscanf(text, "%x.%x.%x.%x.%n", &type, &request, &value, &index, &at) != 4 || at == 0)
        return false;
    size = in ? atoi(text + at) : payload(text + at);
    if (size < 0 || size > 4096)
        return false;
    struct usbdevfs_ctrltransfer transfer = {.bRequestType = (uint8_t)type,
                                             .bRequest = (uint8_t)request,
                                             .wValue = (uint16_t)value,
                                             .wIndex = (uint16_t)index,
                                             .wLength = (uint16_t)size,
                                             .timeout = timeout_ms,
                                             .data = data};
    result(ioctl(fd, USBDEVFS_CONTROL, &transfer), in);
    return true;
}

static bool interface_word(int fd, const char *name, const char *text)
{
    unsigned number = (unsigned)strtoul(text, NULL, 16);
    if (strcmp(name, "claim") == 0) {
        struct usbdevfs_disconnect_claim claim = {.interface = number};
        result(ioctl(fd, USBDEVFS_DISCONNECT_CLAIM, &claim), false);
    } else if (strcmp(name, "release") == 0) {
        result(ioctl(fd, USBDEVFS_RELEASEINTERFACE, &number), false);
    } else if (strcmp(name, "setcfg") == 0) {
        result(ioctl(fd, USBDEVFS_SETCONFIGURATION, &number), false);
    } else if (strcmp(name, "halt") == 0) {
        result(ioctl(fd, USBDEVFS_CLEAR_HALT, &number), false);
    } else if (strcmp(name, "setif") == 0) {
        struct usbdevfs_setinterface set;
        if (sscanf(text, "%u.%u", &set.interface, &set.altsetting) != 2)
            return false;
        result(ioctl(fd, USBDEVFS_SETINTERFACE, &set), false);
    } else {
        return false;
    }
    return true;
}

static bool carry_out(int fd, const char *word)
{
    char name[16];
    unsigned endpoint;
    int at = 0, size;
    const char *text = strchr(word, '=');

    if (strcmp(word, "reset") == 0) {
        result(ioctl(fd, USBDEVFS_RESET), false);
        return true;
    }
    if (!text || text - word >= (int)sizeof name)
        return false;
    snprintf(name, sizeof name, "%.*s", (int)(text - word), word);
    text++;
    if (strcmp(name, "timeout") == 0) {
        timeout_ms = (unsigned)atoi(text);
        return true;
    }
    if (strcmp(name, "show") == 0) {
        shown = atoi(text);
        return true;
    }
    if (strcmp(name, "cin") == 0 || strcmp(name, "cout") == 0)
        return control(fd, text, name[1] == 'i');
    bool in = strcmp(name, "in") == 0;
    if (!in && strcmp(name, "out") != 0)
        return interface_word(fd, name, text);
    if (sscanf(text, "%x.%n", &endpoint, &at) != 1 || at == 0)
        return false;
    size = in ? atoi(text + at) : payload(text + at);
    if (size < 0 || size > MAX_SIZE)
        return false;
    result(bulk(fd, endpoint, size), in);
    return true;
}

int usbdo_main(int argc, char **argv)
{
    unsigned vid, pid;
    if (argc < 3 || sscanf(argv[1], "%x:%x", &vid, &pid) != 2) {
        fprintf(stderr, "usage: usbdo VID:PID WORD...\n");
        return 2;
    }
    int fd = usb_open(vid, pid);
    if (fd < 0) {
        fprintf(stderr, "%s: no such device\n", argv[1]);
        return 1;
    }
    for (int i = 2; i < argc; i++) {
        if (!carry_out(fd, argv[i])) {
            fprintf(stderr, "usbdo does not know %s\n", argv[i]);
            return 2;
        }
    }
    close(fd);
    return 0;
}
