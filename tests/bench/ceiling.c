/*
 * qrdp-bench: qrdp with a second kind of slot, for measurements only.
 *
 * A device whose product id has bit 12 set is not shown to the guest. A bare loop takes its place,
 * which issues the requests that the guest's driver would make, on the same thread and through the
 * same channel: command, data and status of each command of a stick, control transfers, a
 * keyboard's reports. So it shows how fast that client is, with nothing behind it. All other
 * devices go the usual way, so that both can be measured in one session.
 *
 * The program is linked from qrdp's own objects; the linker puts the functions __wrap_slot_* below
 * in front of slot.c (--wrap).
 *
 * Each such device, named in QRDP_CEILING, has a socket, QRDP_CEILING_DIR/PRODUCT. One command per
 * line, one answer:
 *
 *      capacity                                first of all, for a stick
 *      read BYTES COUNT, write BYTES COUNT     COUNT commands one after the other; their time in us
 *      rand BYTES COUNT                        reads at random places; the time of each
 *      control COUNT                           vendor request 03; the time of each
 *      hid                                     "ok", then a line "key" for each report
 *      wakeups COUNT                           a thread sleeps 1 ms COUNT times; how late each was
 */
#include <errno.h>
#include <glib-unix.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "slot.h"

#define CEILING_BIT 0x1000
#define COUNT_MAX 1000000u
#define HID_WINDOW 8u
#define BLOCK 512u
#define CAPACITY_STEPS 3u

typedef enum Phase { SELECTING, READY, COMMAND, DATA, STATUS, CONTROL, SILENCING } Phase;

typedef struct Ceiling {
    GMainContext *context;
    char *id;
    int fd; /* the guest's slot, unused */
    UsbSource *source;
    UsbDescriptors *descriptors;
    const SlotCallbacks *callbacks;
    void *user;
    uint8_t in, out, interrupt; /* endpoints */
    GSource *listener, *reader;
    int client_fd;

    Phase phase;
    bool hid, each_time, writing;
    uint32_t blocks;        /* of the stick */
    unsigned capacity_step; /* 0: not under way */
    uint32_t size, left, place, moved;
    int64_t started, command_started;
    GString *times;
    uint8_t *data;
} Ceiling;

static GMutex lock;
static GHashTable *ceilings; /* the slots that are ours */

__typeof__(slot_new) __wrap_slot_new, __real_slot_new;
__typeof__(slot_free) __wrap_slot_free, __real_slot_free;
__typeof__(slot_id) __wrap_slot_id, __real_slot_id;
__typeof__(slot_kick) __wrap_slot_kick, __real_slot_kick;
__typeof__(slot_device) __wrap_slot_device, __real_slot_device;
__typeof__(usb_device_sent) __wrap_usb_device_sent, __real_usb_device_sent;
__typeof__(usb_device_stats) __wrap_usb_device_stats, __real_usb_device_stats;

static bool is_ceiling(const Slot *slot)
{
    g_mutex_lock(&lock);
    bool found = ceilings && g_hash_table_contains(ceilings, slot);
    g_mutex_unlock(&lock);
    return found;
}

/* Never waits: this is the client's thread, and the picture and all other devices would wait, too.
 * Whoever asks has to read, so a full socket is a mistake of the benchmark. */
static void answer(Ceiling *c, const char *text)
{
    char *line = g_strconcat(text, "\n", NULL);
    ssize_t length = (ssize_t)strlen(line);
    ssize_t n = c->client_fd < 0
                    ? length
                    : send(c->client_fd, line, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
        g_warning("ceiling: %s", strerror(errno));
    else if (n != length)
        g_error("ceiling: the answers of %s are not read", c->id);
    g_free(line);
}

/* Requests */

static void submit(Ceiling *c, UsbRequest request)
{
    request.id = usb_source_next_id(c->source);
    request.timeout_ms = 10000;
    if (!c->source->ops->submit(c->source, &request)) {
        c->phase = READY;
        answer(c, "error the client's channel refused a request");
    }
}

static void transfer(Ceiling *c, uint8_t endpoint, const uint8_t *data, uint32_t length)
{
    submit(c, (UsbRequest){
                  .kind = USB_REQUEST_BULK, .endpoint = endpoint, .data = data, .length = length});
}

static void listen_for_report(Ceiling *c)
{
    submit(c, (UsbRequest){.kind = USB_REQUEST_INTERRUPT, .endpoint = c->interrupt, .length = 8});
}

/* As a host's driver does: the device is to report changes only, and not every half second what is
 * held (HID 1.11, 7.2.4). */
static void silence(Ceiling *c)
{
    c->phase = SILENCING;
    submit(c, (UsbRequest){.kind = USB_REQUEST_CONTROL,
                           .endpoint = 0x00,
                           .setup = {.request_type = 0x21, .request = 0x0a}});
}

static void start_listening(Ceiling *c)
{
    c->phase = READY;
    c->hid = true;
    answer(c, "ok");
    for (unsigned i = 0; i < HID_WINDOW; i++)
        listen_for_report(c);
}

/* A command block wrapper (Bulk-Only Transport 5.1) with a SCSI command of 10 bytes. */
static void send_command(Ceiling *c, uint8_t code, uint32_t place, uint32_t length, bool in)
{
    uint8_t cbw[31] = {'U', 'S', 'B', 'C', 1, 2, 3, 4};
    uint32_t blocks = length / BLOCK; /* 0 for what is no READ or WRITE */

    for (int i = 0; i < 4; i++) {
        cbw[8 + i] = (uint8_t)(length >> (8 * i));
        cbw[17 + i] = (uint8_t)(place >> (24 - 8 * i));
    }
    cbw[12] = in ? 0x80 : 0;
    cbw[14] = 10;
    cbw[15] = code;
    if (blocks > 0) {
        cbw[22] = (uint8_t)(blocks >> 8);
        cbw[23] = (uint8_t)blocks;
    } else if (code == 0x03) {
        cbw[19] = (uint8_t)length; /* REQUEST SENSE's allocation length */
    }
    c->moved = 0;
    c->command_started = g_get_monotonic_time();
    transfer(c, c->out, cbw, sizeof(cbw));
}

/* What a host does first: TEST UNIT READY and REQUEST SENSE (a fresh stick has a unit attention to
 * tell), READ CAPACITY. */
static void next_capacity(Ceiling *c)
{
    static const struct {
        uint8_t code;
        uint32_t length;
    } steps[CAPACITY_STEPS] = {{0x00, 0}, {0x03, 18}, {0x25, 8}};

    c->size = steps[c->capacity_step].length;
    c->phase = COMMAND;
    send_command(c, steps[c->capacity_step++].code, 0, c->size, true);
}

static void next_command(Ceiling *c)
{
    uint32_t blocks = c->size / BLOCK;

    if (c->each_time)
        c->place = (uint32_t)g_random_int_range(0, (gint32)(c->blocks / blocks)) * blocks;
    else if (c->place + blocks > c->blocks)
        c->place = 0;
    c->phase = COMMAND;
    send_command(c, c->writing ? 0x2a : 0x28, c->place, c->size, !c->writing);
    c->place += blocks;
}

static void next_control(Ceiling *c)
{
    c->phase = CONTROL;
    c->command_started = g_get_monotonic_time();
    submit(c, (UsbRequest){.kind = USB_REQUEST_CONTROL,
                           .endpoint = 0x80,
                           .setup = {.request_type = 0xc0, .request = 3, .length = 4},
                           .length = 4});
}

/* One more is done. */
static void one_done(Ceiling *c)
{
    int64_t now = g_get_monotonic_time();

    if (c->each_time)
        g_string_append_printf(c->times, " %" G_GINT64_FORMAT, now - c->command_started);
    if (--c->left > 0) {
        if (c->phase == CONTROL)
            next_control(c);
        else
            next_command(c);
        return;
    }
    if (!c->each_time)
        g_string_append_printf(c->times, " %" G_GINT64_FORMAT, now - c->started);
    c->phase = READY;
    answer(c, c->times->str);
}

/* The data is moved in one request, or in the pieces that usb/device_pipe.c makes of it. */
static void move_data(Ceiling *c)
{
    uint32_t length = c->size - c->moved;

    c->phase = DATA;
    if (!c->writing) {
        transfer(c, c->in, NULL, length);
        return;
    }
    if (length > USB_OUT_CHUNK_BYTES)
        length = USB_OUT_CHUNK_BYTES;
    transfer(c, c->out, c->data + c->moved, length);
}

static bool good_status(const UsbCompletion *done)
{
    return done->length == 13 && memcmp(done->data, "USBS", 4) == 0 && done->data[12] == 0;
}

static void storage_step(Ceiling *c, const UsbCompletion *done)
{
    uint32_t asked;

    switch (c->phase) {
    case COMMAND:
        if (c->size > 0) {
            move_data(c);
            return;
        }
        c->phase = STATUS;
        transfer(c, c->in, NULL, 13);
        return;
    case DATA:
        asked = c->size - c->moved;
        c->moved += c->writing ? MIN(asked, USB_OUT_CHUNK_BYTES) : done->length;
        if (c->capacity_step == CAPACITY_STEPS && done->length == 8)
            c->blocks = GUINT32_FROM_BE(*(const guint32 *)done->data) + 1;
        if (c->writing && c->moved < c->size) {
            move_data(c);
            return;
        }
        c->phase = STATUS;
        transfer(c, c->in, NULL, 13);
        return;
    case STATUS:
        if (c->capacity_step > 0 && c->capacity_step < CAPACITY_STEPS) {
            next_capacity(c);
        } else if (!good_status(done)) {
            c->phase = READY;
            answer(c, "error bad status of a command");
        } else if (c->capacity_step > 0) {
            c->capacity_step = 0;
            c->phase = READY;
            answer(c, "ok");
        } else {
            one_done(c);
        }
        return;
    default:
        return;
    }
}

static void on_complete(void *user, const UsbCompletion *done)
{
    Ceiling *c = user;

    if (c->hid && c->phase == READY) {
        if (done->status == USB_STATUS_SUCCESS && done->length > 0)
            answer(c, "key");
        listen_for_report(c);
    } else if (done->status != USB_STATUS_SUCCESS) {
        c->phase = READY;
        answer(c, "error a request failed");
    } else if (c->phase == SELECTING) {
        c->phase = READY;
    } else if (c->phase == SILENCING) {
        start_listening(c);
    } else if (c->phase == CONTROL) {
        one_done(c);
    } else {
        storage_step(c, done);
    }
}

static void on_gone(void *user, const char *why)
{
    Ceiling *c = user;

    c->source = NULL;
    c->callbacks->state_changed(c->user, (Slot *)c, USB_DEVICE_GONE, why);
}

static const UsbSink sink = {.complete = on_complete, .gone = on_gone};

/* Commands */

static void *sleeper(void *data)
{
    Ceiling *c = data;
    struct timespec wake, now;

    clock_gettime(CLOCK_MONOTONIC, &wake);
    while (c->left-- > 0) {
        wake.tv_nsec += 1000000;
        if (wake.tv_nsec >= 1000000000) {
            wake.tv_nsec -= 1000000000;
            wake.tv_sec++;
        }
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &wake, NULL);
        clock_gettime(CLOCK_MONOTONIC, &now);
        g_string_append_printf(c->times, " %ld",
                               (long)(now.tv_sec - wake.tv_sec) * 1000000 +
                                   (now.tv_nsec - wake.tv_nsec) / 1000);
        wake = now;
    }
    answer(c, c->times->str);
    return NULL;
}

static void run_command(Ceiling *c, const char *line)
{
    char word[16];
    unsigned a = 0, b = 0;
    int n = sscanf(line, "%15s %u %u", word, &a, &b);

    if (n < 1 || !c->source || c->phase != READY || a > USB_MAX_TRANSFER_BYTES || b > COUNT_MAX) {
        answer(c, "error not now, or not understood");
        return;
    }
    g_string_assign(c->times, "ok");
    c->started = g_get_monotonic_time();
    c->writing = !strcmp(word, "write");
    c->each_time = !strcmp(word, "rand") || !strcmp(word, "control");
    if (!strcmp(word, "capacity")) {
        c->capacity_step = 0;
        next_capacity(c);
    } else if (n == 3 && a >= BLOCK && a % BLOCK == 0 && b > 0 && c->blocks >= a / BLOCK &&
               (c->writing || c->each_time || !strcmp(word, "read"))) {
        c->size = a;
        c->left = b;
        c->place = 0;
        next_command(c);
    } else if (n == 2 && a > 0 && !strcmp(word, "control")) {
        c->left = a;
        next_control(c);
    } else if (n == 2 && a > 0 && !strcmp(word, "wakeups")) {
        c->left = a;
        g_thread_unref(g_thread_new("sleeper", sleeper, c));
    } else if (!strcmp(word, "hid") && !c->hid && c->interrupt) {
        silence(c);
    } else {
        answer(c, "error not understood");
    }
    c->callbacks->read(c->user); /* flushes */
}

static void drop_source(GSource **source)
{
    if (*source) {
        g_source_destroy(*source);
        g_source_unref(*source);
        *source = NULL;
    }
}

static gboolean on_command(gint fd, GIOCondition condition, gpointer user)
{
    Ceiling *c = user;
    char line[128];
    ssize_t n = recv(fd, line, sizeof(line) - 1, 0);

    if (n <= 0) {
        drop_source(&c->reader);
        close(c->client_fd);
        c->client_fd = -1;
        return G_SOURCE_REMOVE;
    }
    line[n] = 0;
    run_command(c, line);
    return G_SOURCE_CONTINUE;
}

static GSource *watch(Ceiling *c, int fd, GUnixFDSourceFunc func)
{
    GSource *source = g_unix_fd_source_new(fd, G_IO_IN);

    g_source_set_callback(source, G_SOURCE_FUNC(func), c, NULL);
    g_source_attach(source, c->context);
    return source;
}

static gboolean on_connection(gint fd, GIOCondition condition, gpointer user)
{
    Ceiling *c = user;
    int client = accept(fd, NULL, NULL);

    if (client < 0 || c->client_fd >= 0) {
        if (client >= 0)
            close(client);
        return G_SOURCE_CONTINUE;
    }
    c->client_fd = client;
    c->reader = watch(c, client, on_command);
    return G_SOURCE_CONTINUE;
}

/* The slot */

/* Listening sockets are made before qrdp's sandbox forbids that. Keyed by product id. */
static int listeners[0x10000];

__attribute__((constructor)) static void make_listeners(void)
{
    const char *directory = g_getenv("QRDP_CEILING_DIR"), *products = g_getenv("QRDP_CEILING");
    char **words = g_strsplit(products ? products : "", ",", -1);

    for (unsigned i = 0; directory && words[i] && *words[i]; i++) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        unsigned product = (unsigned)strtoul(words[i], NULL, 16) & 0xffff;
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        snprintf(address.sun_path, sizeof(address.sun_path), "%s/%04x", directory, product);
        unlink(address.sun_path);
        if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 1))
            g_error("ceiling: %s: %s", address.sun_path, strerror(errno));
        listeners[product] = fd;
    }
    g_strfreev(words);
}

static void find_endpoints(Ceiling *c, const UsbAltSetting *alt)
{
    for (unsigned i = 0; i < alt->n_endpoints; i++) {
        const UsbEndpoint *e = &alt->endpoints[i];

        if (e->type == USB_ENDPOINT_INTERRUPT && e->address & 0x80)
            c->interrupt = e->address;
        else if (e->type == USB_ENDPOINT_BULK && e->address & 0x80)
            c->in = e->address;
        else if (e->type == USB_ENDPOINT_BULK)
            c->out = e->address;
    }
}

Slot *__wrap_slot_new(GMainContext *context, const char *id, int fd, UsbDescriptors *descriptors,
                      UsbSource *source, const SlotCallbacks *callbacks, void *user)
{
    if (!(descriptors->pid & CEILING_BIT))
        return __real_slot_new(context, id, fd, descriptors, source, callbacks, user);
    Ceiling *c = g_new0(Ceiling, 1);

    *c = (Ceiling){.context = context,
                   .id = g_strdup(id),
                   .fd = fd,
                   .source = source,
                   .descriptors = usb_descriptors_ref(descriptors),
                   .callbacks = callbacks,
                   .user = user,
                   .client_fd = -1,
                   .times = g_string_new(NULL),
                   .data = g_malloc0(USB_MAX_TRANSFER_BYTES)};
    g_mutex_lock(&lock);
    if (!ceilings)
        ceilings = g_hash_table_new(NULL, NULL);
    g_hash_table_add(ceilings, c);
    g_mutex_unlock(&lock);
    find_endpoints(c, &descriptors->configurations[0].alts[0]);
    usb_source_set_sink(source, &sink, c);
    submit(c, (UsbRequest){.kind = USB_REQUEST_SELECT_CONFIGURATION,
                           .configuration = &descriptors->configurations[0]});
    c->listener = watch(c, listeners[descriptors->pid], on_connection);
    return (Slot *)c;
}

void __wrap_slot_free(Slot *slot)
{
    Ceiling *c = (Ceiling *)slot;

    if (!slot || !is_ceiling(slot)) {
        __real_slot_free(slot);
        return;
    }
    g_mutex_lock(&lock);
    g_hash_table_remove(ceilings, slot);
    g_mutex_unlock(&lock);
    if (c->source)
        usb_source_set_sink(c->source, NULL, NULL);
    drop_source(&c->listener);
    drop_source(&c->reader);
    if (c->client_fd >= 0)
        close(c->client_fd);
    close(c->fd);
    g_free(c->id);
    g_free(c->data);
    g_string_free(c->times, TRUE);
    usb_descriptors_unref(c->descriptors);
    g_free(c);
}

const char *__wrap_slot_id(const Slot *slot)
{
    return is_ceiling(slot) ? ((const Ceiling *)slot)->id : __real_slot_id(slot);
}

void __wrap_slot_kick(Slot *slot)
{
    if (!is_ceiling(slot))
        __real_slot_kick(slot);
}

/* There is no UsbDevice: the pointer only says whose it would be. */
UsbDevice *__wrap_slot_device(Slot *slot)
{
    return is_ceiling(slot) ? (UsbDevice *)(void *)slot : __real_slot_device(slot);
}

static bool of_ceiling(const UsbDevice *device)
{
    return is_ceiling((const Slot *)(const void *)device);
}

void __wrap_usb_device_sent(UsbDevice *device)
{
    if (!of_ceiling(device))
        __real_usb_device_sent(device);
}

void __wrap_usb_device_stats(const UsbDevice *device, UsbDeviceStats *stats)
{
    if (of_ceiling(device))
        *stats = (UsbDeviceStats){0};
    else
        __real_usb_device_stats(device, stats);
}
