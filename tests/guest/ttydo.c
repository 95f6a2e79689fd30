/*
 * ttydo DEVICE WORD...: opens a serial port raw and does what the words say, one after the other:
 *
 *      baud=N              any speed
 *      dtr=0 rts=1         an output line
 *      wait=cts wait=-dsr  until an input line (cts dsr dcd ri) is set, or is not
 *      echo=SIZE           sends SIZE bytes and receives them at the same time; they must be equal
 *      line                waits for a line of text and prints it
 *      drain               discards what comes, until nothing has come for a quarter of a second
 *      until=FILE          reads nothing until the file is there
 *      hup                 waits until the port is gone
 *
 * Each prints "ok WORD" (and what it got) or says what went wrong and ends the program with status
 * 1. Nothing waits longer than a minute (for a file, four).
 */
#include "guest.h"

#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/serial.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { MAX_SIZE = 1 << 20, DEADLINE_MS = 60000 };

static uint8_t sent[MAX_SIZE], got[MAX_SIZE];

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int set_raw(int fd, unsigned baud)
{
    struct termios2 t;
    if (ioctl(fd, TCGETS2, &t) < 0)
        return -1;
    t.c_iflag = t.c_oflag = t.c_lflag = 0;
    t.c_cflag = CS8 | CREAD | CLOCAL | HUPCL | BOTHER | BOTHER << IBSHIFT;
    t.c_ispeed = t.c_ospeed = baud;
    t.c_cc[VMIN] = 1;
    t.c_cc[VTIME] = 0;
    return ioctl(fd, TCSETS2, &t);
}

static int line_bit(const char *name)
{
    static const struct {
        const char *name;
        int bit;
    } names[] = {{"cts", TIOCM_CTS}, {"dsr", TIOCM_DSR}, {"dcd", TIOCM_CAR},
                 {"ri", TIOCM_RI},   {"dtr", TIOCM_DTR}, {"rts", TIOCM_RTS}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i].name, name) == 0)
            return names[i].bit;
    return 0;
}

static const char *wait_line(int fd, const char *name)
{
    bool wanted = *name != '-';
    int bit = line_bit(wanted ? name : name + 1), lines = 0;
    long end = now_ms() + DEADLINE_MS;
    while (now_ms() < end) {
        if (ioctl(fd, TIOCMGET, &lines) < 0)
            return strerror(errno);
        if (!(lines & bit) != wanted)
            return NULL;
        poll(NULL, 0, 20);
    }
    return "the line did not change";
}

static const char *echo(int fd, size_t size)
{
    size_t out = 0, in = 0;
    long end = now_ms() + DEADLINE_MS;
    for (size_t i = 0; i < size; i++)
        sent[i] = (uint8_t)(i * 31 ^ i >> 8 ^ i >> 16);
    while (in < size) {
        struct pollfd p = {.fd = fd, .events = (short)(POLLIN | (out < size ? POLLOUT : 0))};
        if (poll(&p, 1, 1000) < 0 || now_ms() > end) {
            printf("sent %zu, received %zu of %zu: ", out, in, size);
            return "no more in time";
        }
        ssize_t n = p.revents & POLLOUT ? write(fd, sent + out, size - out) : 0;
        if (n < 0 && errno != EAGAIN)
            return strerror(errno);
        out += n > 0 ? (size_t)n : 0;
        n = p.revents & POLLIN ? read(fd, got + in, size - in) : 0;
        if (n < 0 && errno != EAGAIN)
            return strerror(errno);
        in += n > 0 ? (size_t)n : 0;
    }
    for (size_t i = 0; i < size; i++) {
        if (sent[i] != got[i]) {
            printf("byte %zu is %02x, not %02x: ", i, got[i], sent[i]);
            return "changed on the way";
        }
    }
    return NULL;
}

static const char *read_line(int fd)
{
    size_t in = 0;
    long end = now_ms() + DEADLINE_MS;
    while (!memchr(got, '\n', in)) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 1000) < 0 || now_ms() > end || in == 4096)
            return "no line came";
        ssize_t n = p.revents ? read(fd, got + in, 4096 - in) : 0;
        if (n < 0 && errno != EAGAIN)
            return strerror(errno);
        in += n > 0 ? (size_t)n : 0;
    }
    printf("%.*s", (int)in, (char *)got);
    return NULL;
}

static const char *wait_gone(int fd)
{
    long end = now_ms() + DEADLINE_MS;
    while (now_ms() < end) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 1000) > 0 && (p.revents & (POLLHUP | POLLERR)))
            return NULL;
        if (p.revents & POLLIN && read(fd, got, sizeof got) <= 0 && errno != EAGAIN)
            return NULL;
    }
    return "it is still there";
}

static const char *wait_file(const char *path)
{
    long end = now_ms() + 4 * DEADLINE_MS;
    while (access(path, F_OK) < 0) {
        if (now_ms() > end)
            return "it did not come";
        poll(NULL, 0, 50);
    }
    return NULL;
}

static const char *drain(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    long end = now_ms() + DEADLINE_MS;
    while (poll(&p, 1, 250) > 0) {
        if (now_ms() > end || read(fd, got, sizeof got) <= 0)
            return "it does not end";
    }
    return NULL;
}

static const char *carry_out(int fd, const char *word)
{
    const char *value = strchr(word, '=');
    int bit;
    value = value ? value + 1 : "";
    if (strcmp(word, "line") == 0)
        return read_line(fd);
    if (strcmp(word, "hup") == 0)
        return wait_gone(fd);
    if (strcmp(word, "drain") == 0)
        return drain(fd);
    if (strncmp(word, "until=", 6) == 0)
        return wait_file(value);
    if (strncmp(word, "baud=", 5) == 0)
        return set_raw(fd, (unsigned)atoi(value)) < 0 ? strerror(errno) : NULL;
    if (strncmp(word, "wait=", 5) == 0)
        return wait_line(fd, value);
    if (strncmp(word, "echo=", 5) == 0)
        return atoi(value) > MAX_SIZE ? "too long" : echo(fd, (size_t)atoi(value));
    if (strncmp(word, "dtr=", 4) == 0 || strncmp(word, "rts=", 4) == 0) {
        bit = word[0] == 'd' ? TIOCM_DTR : TIOCM_RTS;
        return ioctl(fd, atoi(value) ? TIOCMBIS : TIOCMBIC, &bit) < 0 ? strerror(errno) : NULL;
    }
    return "unknown word";
}

int ttydo_main(int argc, char **argv)
{
    int fd = argc > 1 ? open(argv[1], O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC) : -1;
    if (argc < 2 || fd < 0 || set_raw(fd, 115200) < 0) {
        fprintf(stderr, "%s: %s\n", argc > 1 ? argv[1] : "ttydo DEVICE WORD...", strerror(errno));
        return 1;
    }
    for (int i = 2; i < argc; i++) {
        const char *wrong = carry_out(fd, argv[i]);
        printf("%s %s%s%s\n", wrong ? "error" : "ok", argv[i], wrong ? ": " : "",
               wrong ? wrong : "");
        fflush(stdout);
        if (wrong)
            return 1;
    }
    close(fd);
    return 0;
}
