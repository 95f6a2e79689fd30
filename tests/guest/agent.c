/*
 * The guest's agent. It reads requests from the virtio-serial port "org.qrdp.agent" and answers
 * them, one line each way:
 *
 *     ID VERB [ARGUMENTS]   ->   ID STATUS BASE64(OUTPUT)
 *
 *     ping                  the boot's identity
 *     exec BASE64           runs a shell script; the answer comes when it ends, other requests go
 *                           on
 *     keys                  input events since the last call: SECONDS|DEVICE|TYPE|CODE|VALUE
 *     inputs                the input devices: NODE|NAME|abs CODE MIN MAX|...|leds MASK
 *     drm, pattern, animate, flip, fbhash, scene, show, play, stop, vbe
 *                           see guest.h; the answer to play comes when the scene has ended
 *
 * One thread, one poll loop: a script stuck in a dead device never keeps the agent from answering.
 * Called as "usbwatch", "usbloop", "usbdo", "ttydo", "camera", "usbbench" or "sound" it runs that
 * file instead.
 */
#include "guest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_INPUTS = 32, MAX_JOBS = 16, MAX_LINE = 1 << 20, MAX_EVENTS = 4 << 20 };

struct text {
    char *data;
    size_t length;
};

struct input {
    int fd;
    char node[32];
    char name[128];
};

struct job {
    int fd;      /* the script's output; -1 = unused */
    bool closed; /* fd is no pipe any more, but readable when the process has ended */
    pid_t pid;
    unsigned long id;
    struct text output;
};

static int port = -1;
static struct input inputs[MAX_INPUTS];
static size_t input_count;
static struct job jobs[MAX_JOBS];
static struct text events;
static unsigned long playing; /* the request that is answered when the scene ends, or 0 */

static void append(struct text *text, const char *data, size_t length)
{
    char *grown = realloc(text->data, text->length + length + 1);
    if (!grown)
        abort();
    memcpy(grown + text->length, data, length);
    text->data = grown;
    text->length += length;
    text->data[text->length] = 0;
}

static void clear(struct text *text)
{
    free(text->data);
    *text = (struct text){0};
}

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Decodes in place and terminates; the length. */
static size_t base64_decode(char *text)
{
    size_t length = 0;
    uint32_t bits = 0;
    int count = 0;
    for (const char *c = text; *c; c++) {
        const char *digit = strchr(digits, *c);
        if (!digit)
            break;
        bits = bits << 6 | (uint32_t)(digit - digits);
        count += 6;
        if (count >= 8) {
            count -= 8;
            text[length++] = (char)(bits >> count);
        }
    }
    text[length] = 0;
    return length;
}

static void write_port(const char *data, size_t length)
{
    while (length) {
        ssize_t n = write(port, data, length);
        if (n < 0 && errno == EAGAIN) {
            struct pollfd wait = {.fd = port, .events = POLLOUT};
            if (poll(&wait, 1, 5000) <= 0)
                return; /* the harness went away */
            continue;
        }
        if (n <= 0)
            return;
        data += n;
        length -= (size_t)n;
    }
}

static void reply(unsigned long id, int status, const char *data, size_t length)
{
    char *line = malloc(64 + length / 3 * 4 + 8);
    if (!line)
        abort();
    size_t at = (size_t)sprintf(line, "%lu %d ", id, status);
    for (size_t i = 0; i < length; i += 3) {
        uint32_t bits = 0;
        size_t have = length - i < 3 ? length - i : 3;
        for (size_t j = 0; j < 3; j++)
            bits = bits << 8 | (j < have ? (uint8_t)data[i + j] : 0);
        for (size_t j = 0; j < 4; j++)
            line[at++] = j <= have ? digits[bits >> (18 - 6 * j) & 63] : '=';
    }
    line[at++] = '\n';
    write_port(line, at);
    free(line);
}

static void reply_text(unsigned long id, int status, const char *text)
{
    reply(id, status, text, strlen(text));
}

static void exec_start(unsigned long id, char *script)
{
    struct job *job = NULL;
    for (size_t i = 0; i < MAX_JOBS && !job; i++)
        if (jobs[i].fd < 0)
            job = &jobs[i];
    int fds[2];
    if (!job || pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0) {
        reply_text(id, 126, "too many scripts at once\n");
        return;
    }
    base64_decode(script);
    pid_t pid = fork();
    if (pid == 0) {
        setsid();
        signal(SIGPIPE, SIG_DFL);
        int null = open("/dev/null", O_RDONLY);
        dup2(null, 0);
        fcntl(fds[1], F_SETFL, 0); /* a script writes to a blocking pipe */
        dup2(fds[1], 1);
        dup2(fds[1], 2);
        execl("/bin/sh", "sh", "-c", script, (char *)NULL);
        _exit(127);
    }
    close(fds[1]);
    *job = (struct job){.fd = fds[0], .pid = pid, .id = id};
}

/* A script that leaves something running in the background ends when that closes its output too.
 * One that has sent its output elsewhere ends when its process does. */
static void exec_readable(struct job *job)
{
    char buf[65536];
    ssize_t n = 0;
    while (!job->closed && (n = read(job->fd, buf, sizeof buf)) > 0)
        append(&job->output, buf, (size_t)n);
    if (n < 0 && errno == EAGAIN)
        return;
    if (!job->closed) {
        int process = (int)syscall(SYS_pidfd_open, job->pid, 0);
        if (process >= 0) {
            close(job->fd);
            job->fd = process;
            job->closed = true;
            return;
        }
    }
    int status = 0;
    waitpid(job->pid, &status, 0);
    reply(job->id, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
          job->output.data ? job->output.data : "", job->output.length);
    clear(&job->output);
    close(job->fd);
    job->fd = -1;
}

static void inputs_scan(void)
{
    DIR *dir = opendir("/dev/input");
    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir)) && input_count < MAX_INPUTS;) {
        if (strncmp(entry->d_name, "event", 5) != 0 || strlen(entry->d_name) > 20)
            continue;
        bool known = false;
        for (size_t i = 0; i < input_count; i++)
            known |= strcmp(inputs[i].node, entry->d_name) == 0;
        struct input input = {0};
        char path[64];
        snprintf(path, sizeof path, "/dev/input/%.20s", entry->d_name);
        if (known || (input.fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)) < 0)
            continue;
        snprintf(input.node, sizeof input.node, "%.20s", entry->d_name);
        if (ioctl(input.fd, EVIOCGNAME(sizeof input.name - 1), input.name) < 0)
            strcpy(input.name, "?");
        if (getenv("norepeat")) { /* from the kernel's command line */
            unsigned never[2] = {0, 0};
            ioctl(input.fd, EVIOCSREP, never); /* most devices are no keyboards */
        }
        inputs[input_count++] = input;
    }
    closedir(dir);
}

static void input_readable(size_t index)
{
    struct input_event event;
    ssize_t n;
    while ((n = read(inputs[index].fd, &event, sizeof event)) == (ssize_t)sizeof event) {
        if (event.type == EV_KEY && event.value == 1)
            screen_key_down();
        if (event.type != EV_KEY && event.type != EV_REL && event.type != EV_ABS &&
            event.type != EV_LED)
            continue;
        char line[256];
        int length =
            snprintf(line, sizeof line, "%ld.%06ld|%s|%u|%u|%d\n", event.time.tv_sec,
                     event.time.tv_usec, inputs[index].name, event.type, event.code, event.value);
        if (events.length < MAX_EVENTS)
            append(&events, line, (size_t)length);
    }
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
        close(inputs[index].fd);
        inputs[index] = inputs[--input_count];
    }
}

static int inputs_list(FILE *out)
{
    for (size_t i = 0; i < input_count; i++) {
        fprintf(out, "%s|%s", inputs[i].node, inputs[i].name);
        uint8_t axes[ABS_CNT / 8] = {0};
        uint32_t leds = 0;
        if (ioctl(inputs[i].fd, EVIOCGBIT(EV_ABS, sizeof axes), axes) > 0)
            for (unsigned code = 0; code < ABS_CNT; code++) {
                struct input_absinfo info;
                if ((axes[code / 8] >> code % 8 & 1) &&
                    ioctl(inputs[i].fd, EVIOCGABS(code), &info) == 0)
                    fprintf(out, "|abs %u %d %d", code, info.minimum, info.maximum);
            }
        if (ioctl(inputs[i].fd, EVIOCGLED(sizeof leds), &leds) >= 0)
            fprintf(out, "|leds %u", leds);
        fputc('\n', out);
    }
    return 0;
}

static int ping(FILE *out)
{
    char boot[64] = "";
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (file && !fgets(boot, sizeof boot, file))
        boot[0] = 0;
    if (file)
        fclose(file);
    fputs(boot, out);
    return 0;
}

static void request(char *line)
{
    char *rest = line;
    unsigned long id = strtoul(line, &rest, 10);
    while (*rest == ' ')
        rest++;
    char *verb = rest;
    rest += strcspn(rest, " ");
    if (*rest)
        *rest++ = 0;
    if (!*verb)
        return;
    if (strcmp(verb, "exec") == 0) {
        exec_start(id, rest);
        return;
    }
    if (strcmp(verb, "keys") == 0) {
        reply(id, 0, events.data ? events.data : "", events.length);
        clear(&events);
        return;
    }
    char *answer = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&answer, &length);
    int status = 1;
    if (strcmp(verb, "ping") == 0)
        status = ping(out);
    else if (strcmp(verb, "inputs") == 0)
        status = inputs_list(out);
    else if (strcmp(verb, "drm") == 0)
        status = screen_drm(rest, out);
    else if (strcmp(verb, "pattern") == 0)
        status = screen_pattern(rest, out);
    else if (strcmp(verb, "animate") == 0)
        status = screen_animate(rest, out);
    else if (strcmp(verb, "flip") == 0)
        status = screen_flip(rest, out);
    else if (strcmp(verb, "fbhash") == 0)
        status = screen_hash(out);
    else if (strcmp(verb, "scene") == 0)
        status = scene_set(rest, out);
    else if (strcmp(verb, "show") == 0)
        status = scene_show(rest, out);
    else if (strcmp(verb, "play") == 0)
        status = scene_play(rest, out);
    else if (strcmp(verb, "stop") == 0)
        status = scene_stop();
    else if (strcmp(verb, "vbe") == 0)
        status = vbe_show(rest, out);
    else
        fprintf(out, "unknown request %s\n", verb);
    fclose(out);
    if (strcmp(verb, "play") == 0 && status == 0)
        playing = id;
    else
        reply(id, status, answer, length);
    free(answer);
}

/* Answers what plays the scene, once it has ended. */
static void played(void)
{
    char text[64];
    if (playing && scene_ended(text, sizeof text)) {
        reply_text(playing, 0, text);
        playing = 0;
    }
}

/* False when nobody is connected on the host's side. */
static bool port_readable(void)
{
    static char line[MAX_LINE];
    static size_t length;
    ssize_t n = read(port, line + length, sizeof line - 1 - length);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN)
            length = 0;
        return n < 0 && errno == EAGAIN;
    }
    length += (size_t)n;
    for (char *end; (end = memchr(line, '\n', length));) {
        *end = 0;
        request(line);
        size_t used = (size_t)(end + 1 - line);
        memmove(line, end + 1, length - used);
        length -= used;
    }
    if (length == sizeof line - 1)
        length = 0; /* a line without end is not a request */
    return true;
}

static void uevents(int fd)
{
    char buf[8192];
    long length;
    while ((length = uevent_read(fd, buf, sizeof buf)) >= 0) {
        const char *subsystem = uevent_get(buf, length, "SUBSYSTEM");
        if (strcmp(subsystem, "input") == 0)
            inputs_scan();
        else if (strcmp(subsystem, "drm") == 0)
            screen_hotplug();
    }
}

/* The port appears when virtio_console has bound. */
static int port_open(void)
{
    DIR *dir = opendir("/sys/class/virtio-ports");
    int fd = -1;
    for (struct dirent *entry; dir && fd < 0 && (entry = readdir(dir));) {
        char path[64], name[64] = "";
        snprintf(path, sizeof path, "/sys/class/virtio-ports/%.24s/name", entry->d_name);
        FILE *file = fopen(path, "r");
        if (!file)
            continue;
        snprintf(path, sizeof path, "/dev/%.24s", entry->d_name);
        if (fgets(name, sizeof name, file) && strcmp(name, "org.qrdp.agent\n") == 0)
            fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
        fclose(file);
    }
    if (dir)
        closedir(dir);
    return fd;
}

static int agent_main(void)
{
    enum { OTHERS = 4 }; /* descriptors before those of inputs and jobs */
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < MAX_JOBS; i++)
        jobs[i].fd = -1;
    int uevent_fd = uevent_open();
    inputs_scan();
    bool connected = true;
    for (;;) {
        if (port < 0)
            port = port_open();
        struct pollfd fds[OTHERS + MAX_INPUTS + MAX_JOBS];
        nfds_t count = 0;
        /* Nobody on the host's side would be a hang-up in every poll: look again shortly instead.
         */
        fds[count++] = (struct pollfd){.fd = connected ? port : -1, .events = POLLIN};
        fds[count++] = (struct pollfd){.fd = uevent_fd, .events = POLLIN};
        fds[count++] = (struct pollfd){.fd = screen_timer_fd(), .events = POLLIN};
        fds[count++] = (struct pollfd){.fd = scene_timer_fd(), .events = POLLIN};
        size_t had_inputs = input_count;
        for (size_t i = 0; i < input_count; i++)
            fds[count++] = (struct pollfd){.fd = inputs[i].fd, .events = POLLIN};
        for (size_t i = 0; i < MAX_JOBS; i++)
            fds[count++] = (struct pollfd){.fd = jobs[i].fd, .events = POLLIN};
        if (poll(fds, count, connected && port >= 0 ? -1 : 20) < 0 && errno != EINTR)
            return 1;
        for (size_t i = had_inputs; i-- > 0;)
            if (fds[OTHERS + i].revents)
                input_readable(i);
        for (size_t i = 0; i < MAX_JOBS; i++)
            if (fds[OTHERS + had_inputs + i].revents)
                exec_readable(&jobs[i]);
        if (fds[1].revents)
            uevents(uevent_fd);
        if (fds[2].revents)
            screen_tick();
        if (fds[3].revents)
            scene_tick();
        if (port >= 0 && (!connected || fds[0].revents))
            connected = port_readable();
        played();
    }
}

int main(int argc, char **argv)
{
    const char *name = strrchr(argv[0], '/');
    name = name ? name + 1 : argv[0];
    if (strcmp(name, "usbwatch") == 0)
        return usbwatch_main();
    if (strcmp(name, "usbdo") == 0)
        return usbdo_main(argc, argv);
    if (strcmp(name, "ttydo") == 0)
        return ttydo_main(argc, argv);
    if (strcmp(name, "camera") == 0)
        return camera_main(argc, argv);
    if (strcmp(name, "usbbench") == 0)
        return usbbench_main(argc, argv);
    if (strcmp(name, "sound") == 0)
        return sound_main(argc, argv);
    return strcmp(name, "usbloop") == 0 ? usbloop_main(argc, argv) : agent_main();
}
