/*
 * delay-proxy: a longer network between two programs of this machine.
 *
 *   delay-proxy --to=ADDRESS:PORT [--listen=ADDRESS:PORT] [--rtt=MS] [--rate=MBIT] [--strict]
 *
 * Each byte is delayed by half the RTT in each direction, never less; --rate limits each direction
 * to so many Mbit/s. Each direction holds at most LINE_BOUND bytes, with a rate one bandwidth-delay
 * product and LINE_SLACK; when that is full the proxy stops reading. The handshake of a connection
 * itself takes no time.
 *
 * Before it says "READY port=N ..." it tests itself (selftest.c) and ends if a byte came early;
 * with
 * --strict also if the median round trip is not right within 5 % or 1 ms, which is no fault of a
 * machine that is busy and no basis for a measurement.
 *
 * Commands on standard input, each answered with one line, "ok ..." or "error ...":
 *
 *   stall [up|down]    nothing passes (up: from who connected); nothing is read or accepted either
 *   resume [up|down]   goes on; what waited keeps its delay
 *   reset              RST to both ends of each connection
 *   close              FIN to both ends; what was on its way is lost
 *   refuse, accept     new connections are refused; are accepted again
 *   rtt MS, rate MBIT  another network from now on (rate 0: none); existing connections stay
 *   selftest           as at the start, with the network of now
 *   stat               counters
 *
 * It ends with its standard input.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "line.h"
#include "selftest.h"

#define LINKS_MAX 64
#define RTT_MAX_MS 10000.0
#define RATE_MAX_MBIT 100000.0
#define TRIES 10 /* of a strict self-test */

enum { UP, DOWN, WAYS };

typedef struct {
    int fd[WAYS]; /* fd[UP]: of who connected; fd[DOWN]: the target. -1: no link */
    Line *line[WAYS];
    bool forwarded_end[WAYS];
    bool closing; /* both ends got FIN, we wait for theirs */
    bool for_test;
} Link;

typedef struct {
    int fd; /* -1: refusing */
    struct sockaddr_in address, target;
} Listener;

static LineNetwork network;
static bool stalled[WAYS];
static bool strict;
static Link links[LINKS_MAX];
static Listener main_listener, test_listener;
static LineStats past[WAYS]; /* of links that are gone */
static uint64_t connections;
static int echo_fd, done_pipe[2];

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "delay-proxy: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void answer(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void answer(const char *format, ...)
{
    va_list list;

    va_start(list, format);
    vprintf(format, list);
    va_end(list);
    putchar('\n');
    fflush(stdout);
}

/* Sockets */

static bool parse_address(const char *text, struct sockaddr_in *out)
{
    char host[64];
    const char *colon = strrchr(text, ':');
    char *end;
    long port;

    if (!colon || (size_t)(colon - text) >= sizeof(host))
        return false;
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = 0;
    port = strtol(colon + 1, &end, 10);
    *out = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    return end != colon + 1 && !*end && port >= 0 && port <= 65535 &&
           inet_pton(AF_INET, host, &out->sin_addr) == 1;
}

static int listen_on(struct sockaddr_in *address)
{
    const int on = 1;
    socklen_t size = sizeof(*address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, (struct sockaddr *)address, size) || listen(fd, 64) ||
        getsockname(fd, (struct sockaddr *)address, &size))
        die("listening");
    return fd;
}

static void prepare(int fd)
{
    const int on = 1, small = LINE_SLACK;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (network.bytes_per_second > 0) /* or the kernel's buffers would hold more than the network */
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
}

/* Links */

static void link_end(Link *link, bool reset)
{
    const struct linger now = {1, 0};

    for (int way = 0; way < WAYS; way++) {
        if (reset)
            setsockopt(link->fd[way], SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        close(link->fd[way]);
        link->fd[way] = -1;
        if (!link->for_test)
            line_add_stats(link->line[way], &past[way]);
        line_free(link->line[way]);
    }
}

static void accept_link(Listener *listener)
{
    Link *link = links;
    int fd, target;

    while (link < links + LINKS_MAX && link->fd[UP] >= 0)
        link++;
    if (link == links + LINKS_MAX)
        return;
    fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    target = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (target < 0)
        die("socket");
    prepare(fd);
    prepare(target);
    *link = (Link){.fd = {fd, target},
                   .line = {line_new(&network), line_new(&network)},
                   .for_test = listener == &test_listener};
    connections += !link->for_test;
    if (connect(target, (struct sockaddr *)&listener->target, sizeof(listener->target)) &&
        errno != EINPROGRESS)
        link_end(link, true);
}

/* A closing link: what arrives is thrown away until both ends have closed, too. */
static void link_drain(Link *link, int way)
{
    char waste[65536];
    ssize_t n = read(link->fd[way], waste, sizeof(waste));

    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        link->forwarded_end[way] = true;
}

static void link_serve(Link *link, const struct pollfd *polled)
{
    for (int way = 0; way < WAYS; way++) {
        int to = link->fd[!way];
        Line *line = link->line[way];
        bool broken = false;

        if (polled[way].revents & (POLLIN | POLLHUP | POLLERR)) {
            if (link->closing)
                link_drain(link, way);
            else
                line_read(line, link->fd[way]);
        }
        if (link->closing || (stalled[way] && !link->for_test))
            continue;
        if (line_due(line) <= line_now() && (!line_blocked(line) || polled[!way].revents))
            line_write(line, to, &broken);
        if (broken || line_end(line, line_now()) == LINE_RESET) {
            link_end(link, true);
            return;
        }
        if (!link->forwarded_end[way] && line_end(line, line_now()) == LINE_FINISHED) {
            link->forwarded_end[way] = true;
            shutdown(to, SHUT_WR);
        }
    }
    if (link->forwarded_end[UP] && link->forwarded_end[DOWN])
        link_end(link, false);
}

/* What to ask poll() for; lowers *wake to when something becomes due. */
static void link_watch(const Link *link, struct pollfd *watch, int64_t *wake)
{
    for (int way = 0; way < WAYS; way++)
        watch[way] = (struct pollfd){link->fd[way], 0, 0};
    for (int way = 0; way < WAYS && link->fd[UP] >= 0; way++) {
        const Line *line = link->line[way];
        bool still = stalled[way] && !link->for_test;

        if (link->closing) {
            watch[way].events |= link->forwarded_end[way] ? 0 : POLLIN;
            continue;
        }
        if (!still && line_wants(line))
            watch[way].events |= POLLIN;
        if (still || link->forwarded_end[way])
            continue;
        if (line_blocked(line))
            watch[!way].events |= POLLOUT;
        else if (line_due(line) < *wake)
            *wake = line_due(line);
    }
    for (int way = 0; way < WAYS; way++)
        if (!watch[way].events) /* poll() would return for an error that nobody reads */
            watch[way].fd = -1;
}

/* Self-test */

static Selftest selftest;
static pthread_t selftest_thread;
static bool selftest_running;
static int selftest_tries;

static void start_selftest(void)
{
    selftest = (Selftest){.proxy_port = ntohs(test_listener.address.sin_port),
                          .target_fd = echo_fd,
                          .half_ns = network.half_ns,
                          .bytes_per_second = network.bytes_per_second,
                          .done_fd = done_pipe[1]};
    if (pthread_create(&selftest_thread, NULL, selftest_run, &selftest))
        die("a thread");
    selftest_running = true;
}

/* True: the test is over, and passed or said why not. */
static bool selftest_done(const char *word)
{
    int64_t right = 2 * network.half_ns;
    int64_t slack = right / 20 > 1000000 ? right / 20 : 1000000;
    char c;
    ssize_t n = read(done_pipe[0], &c, 1);

    (void)n;
    pthread_join(selftest_thread, NULL);
    selftest_running = false;
    if (!selftest.error[0] && strict && selftest.round_trip_ns > right + slack) {
        if (++selftest_tries < TRIES) {
            start_selftest();
            return false;
        }
        snprintf(selftest.error, sizeof(selftest.error),
                 "the round trip takes %.3f ms instead of %.3f: the machine is too busy",
                 (double)selftest.round_trip_ns / 1e6, (double)right / 1e6);
    }
    selftest_tries = 0;
    if (selftest.error[0])
        answer("error self-test: %s", selftest.error);
    else
        answer("%s port=%d rtt_us=%lld up_us=%lld down_us=%lld mbyte_per_s=%.0f", word,
               ntohs(main_listener.address.sin_port), (long long)selftest.round_trip_ns / 1000,
               (long long)selftest.least_ns[0] / 1000, (long long)selftest.least_ns[1] / 1000,
               selftest.measured_per_second / 1e6);
    return true;
}

/* Commands */

static bool set_rtt(const char *text)
{
    char *end;
    double ms = strtod(text, &end);

    if (end == text || *end || !(ms >= 0) || ms > RTT_MAX_MS)
        return false;
    network.half_ns = (int64_t)(ms * 1e6 / 2 + 0.5);
    return true;
}

static bool set_rate(const char *text)
{
    char *end;
    double mbit = strtod(text, &end);

    if (end == text || *end || !(mbit >= 0) || mbit > RATE_MAX_MBIT)
        return false;
    network.bytes_per_second = mbit * 1e6 / 8;
    return true;
}

static bool command_stall(const char *which, bool on)
{
    if (*which && strcmp(which, "up") && strcmp(which, "down"))
        return false;
    if (strcmp(which, "down"))
        stalled[UP] = on;
    if (strcmp(which, "up"))
        stalled[DOWN] = on;
    return true;
}

static void end_links(bool reset)
{
    for (Link *link = links; link < links + LINKS_MAX; link++) {
        if (link->fd[UP] < 0 || link->for_test)
            continue;
        if (reset) {
            link_end(link, true);
            continue;
        }
        link->closing = true;
        for (int way = 0; way < WAYS; way++) {
            link->forwarded_end[way] = false;
            shutdown(link->fd[way], SHUT_WR);
        }
    }
}

static void command_refuse(bool on)
{
    if (on && main_listener.fd >= 0) {
        close(main_listener.fd);
        main_listener.fd = -1;
    } else if (!on && main_listener.fd < 0)
        main_listener.fd = listen_on(&main_listener.address);
}

static void command_stat(void)
{
    LineStats sum[WAYS] = {past[UP], past[DOWN]};
    size_t held[WAYS] = {0, 0};
    int open = 0;
    char text[WAYS][200];

    for (Link *link = links; link < links + LINKS_MAX; link++) {
        if (link->fd[UP] < 0 || link->for_test)
            continue;
        open++;
        for (int way = 0; way < WAYS; way++) {
            line_add_stats(link->line[way], &sum[way]);
            held[way] += line_held(link->line[way]);
        }
    }
    for (int way = 0; way < WAYS; way++) {
        const char *name = way == UP ? "up" : "down";

        snprintf(text[way], sizeof(text[way]),
                 "%s.bytes=%llu %s.early=%llu %s.least_us=%lld %s.latest_us=%lld %s.held=%zu "
                 "%s.largest_held=%llu",
                 name, (unsigned long long)sum[way].bytes, name, (unsigned long long)sum[way].early,
                 name, sum[way].bytes ? (long long)sum[way].least_ns / 1000 : 0, name,
                 (long long)sum[way].latest_ns / 1000, name, held[way], name,
                 (unsigned long long)sum[way].largest_held);
    }
    answer("ok open=%d connections=%llu bound=%zu %s %s", open, (unsigned long long)connections,
           line_bound(&network), text[UP], text[DOWN]);
}

/* False: not understood. *later: the answer comes when the self-test is over. */
static bool run_command(char *line, bool *later)
{
    char *word = strtok(line, " "), *argument = word ? strtok(NULL, " ") : NULL;
    const char *rest = argument ? argument : "";

    if (!word)
        return false;
    if (!strcmp(word, "stall") || !strcmp(word, "resume"))
        return command_stall(rest, *word == 's');
    if (!strcmp(word, "rtt"))
        return set_rtt(rest);
    if (!strcmp(word, "rate"))
        return set_rate(rest);
    if (*rest)
        return false;
    if (!strcmp(word, "reset") || !strcmp(word, "close"))
        end_links(*word == 'r');
    else if (!strcmp(word, "refuse") || !strcmp(word, "accept"))
        command_refuse(*word == 'r');
    else if (!strcmp(word, "stat")) {
        command_stat();
        *later = true;
    } else if (!strcmp(word, "selftest")) {
        start_selftest();
        *later = true;
    } else
        return false;
    return true;
}

static void serve_commands(void)
{
    static char buffer[1024];
    static size_t size;
    ssize_t n = read(STDIN_FILENO, buffer + size, sizeof(buffer) - 1 - size);
    char *newline;

    if (n <= 0 || size + (size_t)n == sizeof(buffer) - 1)
        exit(0);
    size += (size_t)n;
    buffer[size] = 0;
    while ((newline = strchr(buffer, '\n'))) {
        bool later = false;

        *newline = 0;
        if (!run_command(buffer, &later))
            answer("error: no such command");
        else if (!later)
            answer("ok");
        size -= (size_t)(newline + 1 - buffer);
        memmove(buffer, newline + 1, size + 1);
    }
}

/* The loop */

enum { WATCH_STDIN, WATCH_DONE, WATCH_LISTENER, WATCH_TEST, WATCH_LINKS };

static void loop(void)
{
    const char *word = "READY";

    start_selftest();
    for (;;) {
        struct pollfd watch[WATCH_LINKS + WAYS * LINKS_MAX];
        int64_t wake = INT64_MAX, now;
        struct timespec timeout;

        watch[WATCH_STDIN] = (struct pollfd){selftest_running ? -1 : STDIN_FILENO, POLLIN, 0};
        watch[WATCH_DONE] = (struct pollfd){done_pipe[0], POLLIN, 0};
        watch[WATCH_LISTENER] = (struct pollfd){stalled[UP] ? -1 : main_listener.fd, POLLIN, 0};
        watch[WATCH_TEST] = (struct pollfd){test_listener.fd, POLLIN, 0};
        for (int i = 0; i < LINKS_MAX; i++)
            link_watch(&links[i], watch + WATCH_LINKS + WAYS * i, &wake);
        now = line_now();
        wake = wake <= now ? 0 : wake - now;
        timeout = (struct timespec){wake / 1000000000, wake % 1000000000};
        if (ppoll(watch, WATCH_LINKS + WAYS * LINKS_MAX, &timeout, NULL) < 0 && errno != EINTR)
            die("poll");
        for (int i = 0; i < LINKS_MAX; i++)
            if (links[i].fd[UP] >= 0)
                link_serve(&links[i], watch + WATCH_LINKS + WAYS * i);
        if (watch[WATCH_LISTENER].revents)
            accept_link(&main_listener);
        if (watch[WATCH_TEST].revents)
            accept_link(&test_listener);
        if (watch[WATCH_DONE].revents && selftest_done(word)) {
            if (selftest.error[0] && *word == 'R')
                exit(1);
            word = "ok";
        }
        if (watch[WATCH_STDIN].revents)
            serve_commands();
    }
}

static void usage(void)
{
    fputs("usage: delay-proxy --to=ADDRESS:PORT [--listen=ADDRESS:PORT] [--rtt=MS] [--rate=MBIT] "
          "[--strict]\n",
          stderr);
    exit(2);
}

static void parse_options(int argc, char **argv)
{
    static const struct option options[] = {
        {"to", required_argument, NULL, 't'},  {"listen", required_argument, NULL, 'l'},
        {"rtt", required_argument, NULL, 'd'}, {"rate", required_argument, NULL, 'r'},
        {"strict", no_argument, NULL, 's'},    {NULL, 0, NULL, 0}};
    bool fine = parse_address("127.0.0.1:0", &main_listener.address), target = false;
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 't')
            fine &= target = parse_address(optarg, &main_listener.target);
        else if (c == 'l')
            fine &= parse_address(optarg, &main_listener.address);
        else if (c == 'd')
            fine &= set_rtt(optarg);
        else if (c == 'r')
            fine &= set_rate(optarg);
        else if (c == 's')
            strict = true;
        else
            fine = false;
    }
    if (!fine || !target || optind != argc)
        usage();
}

int main(int argc, char **argv)
{
    struct sockaddr_in echo;

    parse_options(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1);
    for (int i = 0; i < LINKS_MAX; i++)
        links[i].fd[UP] = links[i].fd[DOWN] = -1;
    for (int way = 0; way < WAYS; way++)
        past[way].least_ns = INT64_MAX;
    main_listener.fd = listen_on(&main_listener.address);
    parse_address("127.0.0.1:0", &echo);
    echo_fd = listen_on(&echo);
    fcntl(echo_fd, F_SETFL, 0); /* the self-test waits on it */
    test_listener.target = echo;
    parse_address("127.0.0.1:0", &test_listener.address);
    test_listener.fd = listen_on(&test_listener.address);
    if (pipe2(done_pipe, O_CLOEXEC))
        die("pipe");
    loop();
}
