/*
 * Modes of QEMU's standard VGA that no driver of Linux sets: 8 bits with a palette, 15, 16 and 24
 * bits, through the registers of the Bochs display interface, as a firmware's or an old system's
 * driver does. The bochs driver, and with it the text console, is gone from then on.
 */
#include "guest.h"

#include <fcntl.h>
#include <glob.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    ATTRIBUTES = 0x3c0,
    ATTRIBUTES_RESET = 0x3da,
    UNBLANKED = 0x20,
    PORT_INDEX = 0x1ce,
    PORT_DATA = 0x1cf,
    INDEX_XRES = 1,
    INDEX_YRES,
    INDEX_BPP,
    INDEX_ENABLE,
    ENABLED_LINEAR = 0x41,
    DAC_WRITE = 0x3c8,
    DAC_DATA = 0x3c9,
    VIDEO_BYTES = 16 << 20,
};

static void set(unsigned short index, unsigned short value)
{
    outw(index, PORT_INDEX);
    outw(value, PORT_DATA);
}

/* The adapter's folder in sysfs. */
static bool find_adapter(char *path, size_t size)
{
    char vendor[16] = "";
    glob_t found;
    bool ok = false;
    if (glob("/sys/bus/pci/devices/*", 0, NULL, &found) != 0)
        return false;
    for (size_t i = 0; i < found.gl_pathc && !ok; i++) {
        snprintf(path, size, "%s/vendor", found.gl_pathv[i]);
        FILE *file = fopen(path, "r");
        ok = file && fgets(vendor, sizeof vendor, file) && strcmp(vendor, "0x1234\n") == 0;
        if (file)
            fclose(file);
        snprintf(path, size, "%s", found.gl_pathv[i]);
    }
    globfree(&found);
    return ok;
}

/* The driver lets go of the adapter, or the kernel would not let us map its memory. */
static void unbind(const char *adapter)
{
    int fd = open("/sys/bus/pci/drivers/bochs-drm/unbind", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    dprintf(fd, "%s", strrchr(adapter, '/') + 1);
    close(fd);
}

static uint8_t *video_memory(void)
{
    char path[300];
    if (!find_adapter(path, sizeof path))
        return NULL;
    unbind(path);
    strcat(path, "/resource0");
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    uint8_t *memory = mmap(NULL, VIDEO_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return memory == MAP_FAILED ? NULL : memory;
}

/* 256 colours of six bits a component. */
static void set_palette(unsigned number)
{
    outb(0, DAC_WRITE);
    for (unsigned i = 0; i < 256; i++) {
        outb((unsigned char)((i + number) & 63), DAC_DATA);
        outb((unsigned char)(i * 5 & 63), DAC_DATA);
        outb((unsigned char)(i >> 2), DAC_DATA);
    }
}

/* Every value that a pixel can have comes about, next to each other and below. */
int vbe_show(const char *args, FILE *out)
{
    unsigned width, height, bits, number;
    uint8_t *memory = NULL;
    if (sscanf(args, "%u %u %u %u", &width, &height, &bits, &number) != 4 || bits < 8 ||
        width * height * 4 > VIDEO_BYTES || iopl(3) < 0 || !(memory = video_memory())) {
        fprintf(out, "vbe WIDTH HEIGHT BITS NUMBER: of standard VGA\n");
        return 1;
    }
    set(INDEX_ENABLE, 0);
    set(INDEX_XRES, (unsigned short)width);
    set(INDEX_YRES, (unsigned short)height);
    set(INDEX_BPP, (unsigned short)bits);
    set(INDEX_ENABLE, ENABLED_LINEAR);
    inb(ATTRIBUTES_RESET); /* the next byte is an index, and the driver has blanked the screen */
    outb(UNBLANKED, ATTRIBUTES);
    if (bits == 8)
        set_palette(number);
    size_t bytes = (bits + 7) / 8;
    for (uint32_t y = 0; y < height; y++)
        for (uint32_t x = 0; x < width; x++) {
            uint32_t value = (y / 4 * width + x) * (bits == 24 ? 0x1235 : 1) + number * 7;
            memcpy(memory + ((size_t)y * width + x) * bytes, &value, bytes);
        }
    munmap(memory, VIDEO_BYTES);
    return 0;
}
