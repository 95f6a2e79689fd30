/*
 * camera DEVICE COUNT: takes COUNT whole pictures from a camera (Video4Linux, memory-mapped
 * buffers) and prints a line for each: its first 32 bits, its size and its checksum (FNV-1a).
 * Pictures that the driver marks as damaged are counted and not printed; the last line is "damaged
 * N". Gives up after two minutes.
 */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { BUFFERS = 4, DEADLINE_S = 120 };

static struct {
    uint8_t *data;
    size_t size;
} buffers[BUFFERS];

static int failed(const char *what)
{
    printf("%s: %s\n", what, strerror(errno));
    return 1;
}

static struct v4l2_buffer buffer_of(unsigned index)
{
    return (struct v4l2_buffer){
        .type = V4L2_BUF_TYPE_VIDEO_CAPTURE, .memory = V4L2_MEMORY_MMAP, .index = index};
}

static int start(int fd)
{
    struct v4l2_requestbuffers request = {
        .count = BUFFERS, .type = V4L2_BUF_TYPE_VIDEO_CAPTURE, .memory = V4L2_MEMORY_MMAP};
    int type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    if (ioctl(fd, VIDIOC_REQBUFS, &request) < 0 || request.count != BUFFERS)
        return -1;
    for (unsigned i = 0; i < BUFFERS; i++) {
        struct v4l2_buffer b = buffer_of(i);
        if (ioctl(fd, VIDIOC_QUERYBUF, &b) < 0)
            return -1;
        buffers[i].size = b.length;
        buffers[i].data = mmap(NULL, b.length, PROT_READ, MAP_SHARED, fd, (off_t)b.m.offset);
        if (buffers[i].data == MAP_FAILED || ioctl(fd, VIDIOC_QBUF, &b) < 0)
            return -1;
    }
    return ioctl(fd, VIDIOC_STREAMON, &type);
}

static void print_picture(const uint8_t *data, size_t size)
{
    uint32_t sum = 2166136261u, first = 0;
    if (size >= sizeof first)
        memcpy(&first, data, sizeof first);
    for (size_t i = 0; i < size; i++)
        sum = (sum ^ data[i]) * 16777619u;
    printf("%u %zu %08x\n", first, size, sum);
    fflush(stdout);
}

int camera_main(int argc, char **argv)
{
    int fd = argc == 3 ? open(argv[1], O_RDWR | O_CLOEXEC) : -1;
    int wanted = argc == 3 ? atoi(argv[2]) : 0, damaged = 0;
    time_t end = time(NULL) + DEADLINE_S;
    if (fd < 0 || start(fd) < 0)
        return failed(argc == 3 ? argv[1] : "camera DEVICE COUNT");
    while (wanted > 0) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        struct v4l2_buffer b = buffer_of(0);
        if (time(NULL) > end) {
            printf("no more pictures in time, damaged %d\n", damaged);
            return 1;
        }
        if (poll(&p, 1, 1000) <= 0)
            continue;
        if (ioctl(fd, VIDIOC_DQBUF, &b) < 0)
            return failed("VIDIOC_DQBUF");
        if (b.flags & V4L2_BUF_FLAG_ERROR || b.bytesused == 0) {
            damaged++;
        } else {
            print_picture(buffers[b.index].data, b.bytesused);
            wanted--;
        }
        if (ioctl(fd, VIDIOC_QBUF, &b) < 0)
            return failed("VIDIOC_QBUF");
    }
    printf("damaged %d\n", damaged);
    close(fd);
    return 0;
}
