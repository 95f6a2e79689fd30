/*
 * Which devices are plugged in, and where.
 *
 * High speed and slower devices sit on bus 1, SuperSpeed ones on bus 2, as behind one xHCI
 * controller; ports are the lowest free ones and addresses count up, as Linux does it. The bus is
 * per process and starts with the first libusb_init(), so that preloading the library into a shell
 * or a wrapper costs nothing.
 */
#include "bus.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t started = PTHREAD_ONCE_INIT;
static struct DeviceList devices = TAILQ_HEAD_INITIALIZER(devices);
static uint64_t memory;
static uint8_t next_address[3] = {0, 2, 2};
static FILE *trace_file;

static const DeviceOps *const kinds[] = {
    &stick_ops, &keyboard_ops, &loop_ops, &ftdi_ops, &cp210x_ops,  &pl2303_ops,
    &multi_ops, &fido_ops,     &ccid_ops, &ecm_ops,  &headset_ops, &webcam_ops,
};

static const struct {
    const char *name;
    int speed;
} speeds[] = {
    {"low", LIBUSB_SPEED_LOW},
    {"full", LIBUSB_SPEED_FULL},
    {"high", LIBUSB_SPEED_HIGH},
    {"super", LIBUSB_SPEED_SUPER},
};

static const char *const violation_names[V_COUNT] = {
    [V_UNCLAIMED] = "unclaimed",
    [V_BAD_ENDPOINT] = "bad_endpoint",
    [V_RESUBMITTED] = "resubmitted",
    [V_FREED_IN_FLIGHT] = "freed_in_flight",
    [V_CLOSED_IN_FLIGHT] = "closed_in_flight",
    [V_DIRECTION] = "direction",
    [V_TOGGLE] = "toggle",
    [V_BABBLE] = "babble",
    [V_BAD_CBW] = "bad_cbw",
    [V_PHASE] = "phase",
    [V_LOST_CSW] = "lost_csw",
};

void bus_lock(void)
{
    pthread_mutex_lock(&lock);
}

void bus_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void trace(const Device *d, const char *fmt, ...)
{
    va_list ap;

    if (!trace_file)
        return;
    fprintf(trace_file, "%.6f %s: ", (double)now_ns() / 1e9, d ? d->name : "-");
    va_start(ap, fmt);
    vfprintf(trace_file, fmt, ap);
    va_end(ap);
    fputc('\n', trace_file);
}

void violation(Device *d, Violation v)
{
    if (d)
        d->violations[v]++;
    trace(d, "VIOLATION %s", violation_names[v]);
}

const char *violation_name(Violation v)
{
    return violation_names[v];
}

uint64_t *bus_memory(void)
{
    return &memory;
}

struct DeviceList *bus_devices(void)
{
    return &devices;
}

Device *bus_find(const char *name)
{
    Device *d;

    TAILQ_FOREACH(d, &devices, link)
    {
        if (!strcmp(d->name, name))
            return d;
    }
    return NULL;
}

void device_ref(Device *d)
{
    d->refs++;
}

void device_unref(Device *d)
{
    if (--d->refs)
        return;
    d->ops->destroy(d);
    free(d);
}

const char *option_take(Options *o, const char *key, char *buf, size_t size)
{
    size_t n = strlen(key);

    for (char *p = o->text; *p;) {
        char *end = strchr(p, ',');
        size_t len = end ? (size_t)(end - p) : strlen(p);

        if (len > n && !strncmp(p, key, n) && p[n] == '=') {
            snprintf(buf, size, "%.*s", (int)(len - n - 1), p + n + 1);
            memmove(p, p + len + (end != NULL), strlen(p + len + (end != NULL)) + 1);
            return buf;
        }
        p += len + (end != NULL);
    }
    return NULL;
}

static const char *take_text(Options *o, const char *key, const char *fallback, char *buf,
                             size_t size)
{
    const char *value = option_take(o, key, buf, size);

    return value ? value : fallback;
}

static void default_name(const char *kind, char *name, size_t size)
{
    snprintf(name, size, "%s", kind);
    for (unsigned n = 2; bus_find(name); n++)
        snprintf(name, size, "%s%u", kind, n);
}

static uint8_t free_port(uint8_t bus)
{
    for (uint8_t port = 1;; port++) {
        Device *d;

        TAILQ_FOREACH(d, &devices, link)
        {
            if (d->bus == bus && d->port == port)
                break;
        }
        if (!d)
            return port;
    }
}

static int speed_of(const char *name)
{
    for (size_t i = 0; i < sizeof(speeds) / sizeof(speeds[0]); i++) {
        if (!strcmp(speeds[i].name, name))
            return speeds[i].speed;
    }
    return LIBUSB_SPEED_UNKNOWN;
}

static void fill_ids(Device *d, Options *o)
{
    char buf[64];
    const char *vid_text = option_take(o, "vid", buf, sizeof(buf));
    unsigned long vid = vid_text            ? strtoul(vid_text, NULL, 16)
                        : d->ops->vendor_id ? d->ops->vendor_id
                                            : 0x1209;
    const char *pid = option_take(o, "pid", buf, sizeof(buf));
    unsigned long product = pid ? strtoul(pid, NULL, 16) : d->ops->product_id;

    d->device_desc[8] = vid & 0xff;
    d->device_desc[9] = vid >> 8 & 0xff;
    d->device_desc[10] = product & 0xff;
    d->device_desc[11] = product >> 8 & 0xff;
    d->device_desc[14] = desc_string(d, take_text(o, "vendor", "qrdp", buf, sizeof(buf)));
    d->device_desc[15] = desc_string(d, take_text(o, "product", d->ops->kind, buf, sizeof(buf)));
    d->device_desc[16] = desc_string(d, take_text(o, "serial", "0001", buf, sizeof(buf)));
}

Device *bus_plug(const char *spec, char *err, size_t errsize)
{
    Options o;
    char kind[32], buf[64];
    size_t n = strcspn(spec, ":");
    const DeviceOps *ops = NULL;
    Device *d;

    snprintf(kind, sizeof(kind), "%.*s", (int)n, spec);
    snprintf(o.text, sizeof(o.text), "%s", spec[n] ? spec + n + 1 : "");
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (!strcmp(kinds[i]->kind, kind))
            ops = kinds[i];
    }
    if (!ops) {
        snprintf(err, errsize, "no kind of device is called '%s'", kind);
        return NULL;
    }
    d = calloc(1, sizeof(*d));
    if (!d)
        abort();
    d->ops = ops;
    d->refs = 1;
    default_name(kind, buf, sizeof(buf));
    take_text(&o, "name", buf, buf, sizeof(buf));
    snprintf(d->name, sizeof(d->name), "%.*s", MAX_NAME - 1, buf);
    d->speed = speed_of(take_text(&o, "speed", ops->speed, buf, sizeof(buf)));
    for (unsigned i = 0; i < 32; i++) {
        d->eps[i].address = (i & 15) | (i & 16 ? 0x80 : 0);
        TAILQ_INIT(&d->eps[i].queue);
    }
    err[0] = 0;
    if (bus_find(d->name))
        snprintf(err, errsize, "'%s' is plugged in already", d->name);
    else if (d->speed == LIBUSB_SPEED_UNKNOWN)
        snprintf(err, errsize, "speed is low, full, high or super");
    if (err[0]) {
        free(d);
        return NULL;
    }
    desc_device(d, 0, 0x0100);
    fill_ids(d, &o);
    if (ops->create(d, &o, err, errsize) && o.text[0])
        snprintf(err, errsize, "unknown option in '%.200s'", o.text);
    if (err[0]) {
        device_unref(d);
        return NULL;
    }

    d->bus = d->speed == LIBUSB_SPEED_SUPER ? 2 : 1;
    d->port = free_port(d->bus);
    d->address = next_address[d->bus]++;
    if (next_address[d->bus] > 127)
        next_address[d->bus] = 2;
    d->plugged = true;
    TAILQ_INSERT_TAIL(&devices, d, link);
    device_reset(d);
    device_configure(d, 1); /* the client's kernel configures what it finds ... */
    for (unsigned i = 0; i < device_config(d)->n_interfaces; i++)
        d->kernel_bound[i] = ops->kernel_driver; /* ... and binds its drivers */
    d->resets = d->set_configurations = 0;
    trace(d, "plugged, bus %u address %u port %u", d->bus, d->address, d->port);
    contexts_plugged(d);
    return d;
}

void bus_unplug(Device *d)
{
    trace(d, "unplugged");
    d->plugged = false;
    TAILQ_REMOVE(&devices, d, link);
    device_flush(d, NULL, LIBUSB_TRANSFER_NO_DEVICE);
    contexts_unplugged(d);
    device_unref(d);
}

static void start(void)
{
    const char *path = getenv("QRDP_STANDIN_TRACE");
    const char *specs = getenv("QRDP_STANDIN_DEVICES");
    char err[256];

    if (path && *path) {
        trace_file = fopen(path, "ae");
        if (trace_file)
            setvbuf(trace_file, NULL, _IOLBF, 0);
    }
    bus_lock();
    while (specs && *specs) {
        char spec[1024];
        size_t n = strcspn(specs, ";");

        snprintf(spec, sizeof(spec), "%.*s", (int)n, specs);
        if (n && !bus_plug(spec, err, sizeof(err)))
            fprintf(stderr, "qrdp-standin: QRDP_STANDIN_DEVICES: %s\n", err);
        specs += n + (specs[n] == ';');
    }
    bus_unlock();
    machine_start();
}

void bus_start(void)
{
    pthread_once(&started, start);
}
