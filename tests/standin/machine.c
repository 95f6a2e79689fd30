/*
 * The machine's own thread: the control socket, and the clock for what is delayed.
 *
 * It sleeps in ppoll() until a command arrives or the earliest alarm; transfers that need no delay
 * never come near it.
 */
#include "bus.h"
#include "standin.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MAX_CLIENTS 8
#define MAX_LINE 4096

typedef struct Client {
    int fd;
    size_t len;
    char line[MAX_LINE];
} Client;

static int wake_fd = -1, listen_fd = -1;
static int64_t alarm_at = NEVER; /* bus lock */
static Client clients[MAX_CLIENTS];
static char socket_path[sizeof(((struct sockaddr_un *)0)->sun_path)];

void machine_alarm(int64_t when)
{
    uint64_t one = 1;

    if (when >= alarm_at)
        return;
    alarm_at = when;
    if (wake_fd >= 0 && write(wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
        abort();
}

/* ---- the control socket ---- */

static int listen_at(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    if (fd < 0)
        return -1;
    if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0) {
        fprintf(stderr, "qrdp-standin: %s is served by another process already\n", path);
        close(fd);
        return -1;
    }
    unlink(path); /* what a process that is gone left behind */
    if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, MAX_CLIENTS) < 0) {
        fprintf(stderr, "qrdp-standin: %s: %s\n", path, strerror(errno));
        close(fd);
        return -1;
    }
    snprintf(socket_path, sizeof(socket_path), "%s", path);
    return fd;
}

static void accept_client(void)
{
    int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);

    for (unsigned i = 0; fd >= 0 && i < MAX_CLIENTS; i++) {
        if (clients[i].fd >= 0)
            continue;
        clients[i].fd = fd;
        clients[i].len = 0;
        return;
    }
    if (fd >= 0)
        close(fd);
}

static void drop_client(Client *c)
{
    close(c->fd);
    c->fd = -1;
}

static void run_line(Client *c, char *line)
{
    char answer[MAX_LINE];
    size_t n;

    standin_command(line, answer, sizeof(answer) - 1);
    n = strlen(answer);
    answer[n++] = '\n';
    if (send(c->fd, answer, n, MSG_NOSIGNAL) != (ssize_t)n)
        drop_client(c);
}

static void read_client(Client *c)
{
    ssize_t n = recv(c->fd, c->line + c->len, sizeof(c->line) - 1 - c->len, 0);
    char *end;

    if (n <= 0) {
        drop_client(c);
        return;
    }
    c->len += (size_t)n;
    c->line[c->len] = 0;
    while (c->fd >= 0 && (end = memchr(c->line, '\n', c->len))) {
        size_t used = (size_t)(end + 1 - c->line);

        *end = 0;
        run_line(c, c->line);
        memmove(c->line, c->line + used, c->len - used + 1);
        c->len -= used;
    }
    if (c->fd >= 0 && c->len == sizeof(c->line) - 1)
        drop_client(c); /* no command is that long */
}

/* ---- the thread ---- */

static int64_t tick(void)
{
    int64_t next;
    Device *d;

    bus_lock();
    if (alarm_at <= now_ns()) {
        alarm_at = NEVER;
        TAILQ_FOREACH(d, bus_devices(), link)
        device_run(d); /* sets the next alarm */
    }
    next = alarm_at;
    bus_unlock();
    return next;
}

static unsigned fill(struct pollfd *p)
{
    unsigned n = 0;

    p[n++] = (struct pollfd){.fd = wake_fd, .events = POLLIN};
    p[n++] = (struct pollfd){.fd = listen_fd, .events = POLLIN};
    for (unsigned i = 0; i < MAX_CLIENTS; i++)
        p[n++] = (struct pollfd){.fd = clients[i].fd, .events = POLLIN};
    return n;
}

static void *machine_main(void *arg)
{
    for (;;) {
        struct pollfd p[2 + MAX_CLIENTS];
        int64_t next = tick(), left = next - now_ns();
        struct timespec ts = {.tv_sec = left > 0 ? left / 1000000000 : 0,
                              .tv_nsec = left > 0 ? left % 1000000000 : 0};
        unsigned n = fill(p);
        uint64_t count;

        if (ppoll(p, n, next == NEVER ? NULL : &ts, NULL) <= 0)
            continue;
        if (p[0].revents && read(wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
            abort();
        if (p[1].revents)
            accept_client();
        for (unsigned i = 0; i < MAX_CLIENTS; i++) {
            if (p[2 + i].fd >= 0 && p[2 + i].revents)
                read_client(&clients[i]);
        }
    }
    return NULL;
}

static void remove_socket(void)
{
    unlink(socket_path);
}

void machine_start(void)
{
    const char *path = getenv("QRDP_STANDIN_CONTROL");
    pthread_t thread;

    for (unsigned i = 0; i < MAX_CLIENTS; i++)
        clients[i].fd = -1;
    wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (path && *path)
        listen_fd = listen_at(path);
    if (listen_fd >= 0)
        atexit(remove_socket);
    if (wake_fd < 0 || pthread_create(&thread, NULL, machine_main, NULL))
        abort();
    pthread_detach(thread);
}
