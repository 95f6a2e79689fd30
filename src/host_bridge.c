/*
 * Theory of operation.
 *
 * libusbredirhost translates between a libusb device and usbredir, so nothing of usb/ is needed but
 * the reading of descriptors: the policy judges a host's device as it judges a client's. The
 * library claims interfaces, selects configurations and resets with calls that block for as long as
 * the device likes. Therefore a device has a thread, and because closing a device handles every
 * event of its libusb context, it has a context too.
 *
 * The thread polls three things: its wake-up, libusb's descriptors and, while QEMU has the device,
 * the slot's socket. What main wants is left in a few words under a lock. A device that waits for a
 * slot, or was refused one, is not open: the host's own driver keeps it until QEMU is there. When
 * it is given back, libusbredirhost attaches the kernel's drivers again; only a SIGKILL prevents
 * that.
 *
 * What the device sends while QEMU does not read would pile up in the library: beyond
 * MAX_QUEUED packets libusb's events are left alone, so that the transfers in flight, whose number
 * is fixed, are the end of it.
 */
#include "host_bridge.h"

#include <errno.h>
#include <libusb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include <usbredirhost.h>

#include "descriptor.h"
#include "log.h"

#define READ_TIMEOUT_MS 2000u /* of one descriptor */
#define MAX_QUEUED 256        /* usbredir packets that QEMU has not taken */
#define MAX_POLL_FDS 32u      /* libusb has a handful */
#define MAX_STRING_BYTES 255u
#define ENGLISH 0x0409

struct HostBridge {
    unsigned bus, address;
    char *subject;
    HostBridgeEvent event;
    void *user;
    GThread *thread;
    int wake; /* eventfd */

    GMutex lock; /* for what main wants: */
    int given;   /* a slot's socket, -1: none */
    bool release, quit;

    libusb_context *context; /* the thread's, as all that follows */
    libusb_device *device;
    struct usbredirhost *host; /* NULL: the device is with the host */
    int fd;                    /* the slot's, while .host */
    bool closed;               /* by QEMU */
    bool told;                 /* HOST_CONNECTED was */
    bool unplugged;
    char complaint[160]; /* the last error that libusbredirhost logged */
};

const char *host_bridge_explain(int libusb_error, unsigned bus, unsigned address, char *out,
                                size_t size)
{
    switch (libusb_error) {
    case LIBUSB_ERROR_ACCESS:
        snprintf(out, size,
                 "uid %u may not open /dev/bus/usb/%03u/%03u: let it read and write that file (a "
                 "udev rule with OWNER or GROUP), or run qrdp as root",
                 (unsigned)geteuid(), bus, address);
        break;
    case LIBUSB_ERROR_BUSY:
        snprintf(out, size,
                 "another program uses the device (another machine? unmount it, end that program)");
        break;
    case LIBUSB_ERROR_NO_DEVICE:
    case LIBUSB_ERROR_NOT_FOUND:
        snprintf(out, size, "it is no longer plugged in");
        break;
    default:
        snprintf(out, size, "libusb: %s", libusb_strerror(libusb_error));
        break;
    }
    return out;
}

/* ---- the device itself ---- */

static libusb_device *find_device(HostBridge *bridge)
{
    libusb_device **list = NULL, *found = NULL;
    ssize_t n = libusb_get_device_list(bridge->context, &list);

    for (ssize_t i = 0; i < n && !found; i++)
        if (libusb_get_bus_number(list[i]) == bridge->bus &&
            libusb_get_device_address(list[i]) == bridge->address)
            found = libusb_ref_device(list[i]);
    if (list)
        libusb_free_device_list(list, 1);
    return found;
}

static int LIBUSB_CALL on_left(libusb_context *context, libusb_device *device,
                               libusb_hotplug_event event, void *user)
{
    HostBridge *bridge = user;

    if (device == bridge->device)
        bridge->unplugged = true;
    return 0;
}

static int get_descriptor(libusb_device_handle *handle, uint8_t type, uint8_t index, uint16_t lang,
                          uint8_t *out, uint16_t length)
{
    return libusb_control_transfer(handle, LIBUSB_ENDPOINT_IN, LIBUSB_REQUEST_GET_DESCRIPTOR,
                                   (uint16_t)(type << 8 | index), lang, out, length,
                                   READ_TIMEOUT_MS);
}

static bool read_configuration(libusb_device_handle *handle, UsbDescriptors *d, uint8_t index,
                               char *why, size_t size)
{
    uint8_t header[USB_CONFIG_HEADER_LEN];
    int n = get_descriptor(handle, LIBUSB_DT_CONFIG, index, 0, header, sizeof(header));
    uint16_t total = n < 0 ? 0 : usb_descriptor_config_length(header, (size_t)n, why, size);

    if (n < 0)
        snprintf(why, size, "its configuration cannot be read: %s", libusb_strerror(n));
    if (total == 0)
        return false;
    g_autofree uint8_t *raw = g_malloc(total); /* at most USB_MAX_CONFIG_BYTES */
    n = get_descriptor(handle, LIBUSB_DT_CONFIG, index, 0, raw, total);
    if (n < 0) {
        snprintf(why, size, "its configuration cannot be read: %s", libusb_strerror(n));
        return false;
    }
    return usb_descriptors_add_configuration(d, raw, (size_t)n, why, size);
}

static void read_string(libusb_device_handle *handle, uint8_t index, char *out, size_t size)
{
    uint8_t raw[MAX_STRING_BYTES];
    int n = index ? get_descriptor(handle, LIBUSB_DT_STRING, index, ENGLISH, raw, sizeof(raw)) : 0;

    if (n > 0)
        usb_descriptor_string(raw, (size_t)n, out, size);
}

static UsbSpeed speed_of(libusb_device *device)
{
    switch (libusb_get_device_speed(device)) {
    case LIBUSB_SPEED_LOW:
        return USB_SPEED_LOW;
    case LIBUSB_SPEED_FULL:
        return USB_SPEED_FULL;
    case LIBUSB_SPEED_HIGH:
        return USB_SPEED_HIGH;
    case LIBUSB_SPEED_UNKNOWN:
        return USB_SPEED_UNKNOWN;
    default:
        return USB_SPEED_SUPER;
    }
}

/* What policy and people need to know of the device. The first configuration must make sense. */
static UsbDescriptors *read_descriptors(HostBridge *bridge, libusb_device_handle *handle, char *why,
                                        size_t size)
{
    uint8_t raw[USB_DEVICE_DESCRIPTOR_LEN];
    int n = get_descriptor(handle, LIBUSB_DT_DEVICE, 0, 0, raw, sizeof(raw));

    if (n < 0) {
        snprintf(why, size, "its device descriptor cannot be read: %s", libusb_strerror(n));
        return NULL;
    }
    UsbDescriptors *d = usb_descriptors_new(raw, (size_t)n, why, size);
    if (!d)
        return NULL;
    for (uint8_t i = 0; i < MIN(MAX(raw[17], 1), USB_MAX_CONFIGURATIONS); i++) {
        char ignored[160];
        bool first = i == 0;
        if (!read_configuration(handle, d, i, first ? why : ignored,
                                first ? size : sizeof(ignored)) &&
            first) {
            usb_descriptors_unref(d);
            return NULL;
        }
    }
    read_string(handle, raw[15], d->product, sizeof(d->product));
    read_string(handle, raw[16], d->serial, sizeof(d->serial));
    usb_descriptors_derive_speed(d, false);
    if (speed_of(bridge->device) != USB_SPEED_UNKNOWN)
        d->speed = speed_of(bridge->device);
    return d;
}

static bool probe(HostBridge *bridge)
{
    char why[256];
    libusb_device_handle *handle = NULL;
    int error = libusb_open(bridge->device, &handle);

    if (error < 0) {
        bridge->event(bridge->user, HOST_FAILED, NULL,
                      host_bridge_explain(error, bridge->bus, bridge->address, why, sizeof(why)));
        return false;
    }
    UsbDescriptors *d = read_descriptors(bridge, handle, why, sizeof(why));
    libusb_close(handle);
    bridge->event(bridge->user, d ? HOST_PROBED : HOST_FAILED, d, d ? "" : why);
    return d != NULL;
}

/* ---- libusbredirhost's callbacks ---- */

static void on_log(void *user, int level, const char *message)
{
    HostBridge *bridge = user;
    char text[160];

    log_escape(text, sizeof(text), message, SIZE_MAX);
    if (level == usbredirparser_error)
        g_strlcpy(bridge->complaint, text, sizeof(bridge->complaint));
    log_debug(bridge->subject, "%s", text);
}

static int on_read(void *user, uint8_t *data, int count)
{
    HostBridge *bridge = user;
    ssize_t n = recv(bridge->fd, data, (size_t)count, MSG_DONTWAIT);

    if (n > 0)
        return (int)n;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return 0;
    bridge->closed = true;
    return -1;
}

static int on_write(void *user, uint8_t *data, int count)
{
    HostBridge *bridge = user;
    ssize_t n = send(bridge->fd, data, (size_t)count, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n >= 0)
        return (int)n;
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)
        return 0;
    bridge->closed = true;
    return -1;
}

/* ---- while QEMU has it ---- */

/* QEMU unplugs it in the guest, the host's drivers get it back. */
static void give_back(HostBridge *bridge, HostEvent event, const char *why)
{
    if (!bridge->host)
        return;
    usbredirhost_close(g_steal_pointer(&bridge->host));
    close(bridge->fd);
    bridge->fd = -1;
    bridge->event(bridge->user, event, NULL, why);
}

static void show_to_qemu(HostBridge *bridge, int fd)
{
    char why[256];
    libusb_device_handle *handle = NULL;
    int verbose = log_get_level() >= LOG_LEVEL_TRACE ? usbredirparser_debug : usbredirparser_error;

    bridge->fd = fd;
    bridge->closed = bridge->told = false;
    g_strlcpy(bridge->complaint, "the device cannot be claimed", sizeof(bridge->complaint));
    int error = libusb_open(bridge->device, &handle);
    if (error == 0) /* takes the handle, also if it fails */
        bridge->host =
            usbredirhost_open_full(bridge->context, handle, on_log, on_read, on_write, NULL, NULL,
                                   NULL, NULL, NULL, bridge, "qrdp " QRDP_VERSION, verbose, 0);
    if (bridge->host)
        return;
    close(fd);
    bridge->fd = -1;
    bridge->event(bridge->user, HOST_FAILED, NULL,
                  error ? host_bridge_explain(error, bridge->bus, bridge->address, why, sizeof(why))
                        : bridge->complaint);
}

/* What came from QEMU. */
static void read_slot(HostBridge *bridge)
{
    switch (usbredirhost_read_guest_data(bridge->host)) {
    case 0:
        break;
    case usbredirhost_read_device_rejected:
        give_back(bridge, HOST_REJECTED, "QEMU's filter or port refuses the device");
        return;
    case usbredirhost_read_device_lost:
        bridge->unplugged = true;
        return;
    case usbredirhost_read_parse_error:
        give_back(bridge, HOST_LOST_SLOT, "QEMU sent what is not usbredir");
        return;
    default:
        give_back(bridge, HOST_LOST_SLOT, "QEMU closed the redirection slot");
        return;
    }
    /* Its hello was the first thing it sent, and was answered with the device. */
    if (!bridge->told)
        bridge->event(bridge->user, HOST_CONNECTED, NULL, "");
    bridge->told = true;
}

static void write_slot(HostBridge *bridge)
{
    if (bridge->host && usbredirhost_has_data_to_write(bridge->host) > 0)
        usbredirhost_write_guest_data(bridge->host);
    if (bridge->host && bridge->closed)
        give_back(bridge, HOST_LOST_SLOT, "QEMU closed the redirection slot");
}

/* ---- the thread ---- */

static bool choked(HostBridge *bridge)
{
    return bridge->host && usbredirhost_has_data_to_write(bridge->host) > MAX_QUEUED;
}

/* Fills @fds with all there is to wait for: the wake-up, the slot, libusb's. */
static nfds_t collect(HostBridge *bridge, struct pollfd *fds)
{
    nfds_t n = 0;

    fds[n++] = (struct pollfd){.fd = bridge->wake, .events = POLLIN};
    fds[n++] = (struct pollfd){.fd = bridge->host ? bridge->fd : -1, .events = POLLIN};
    if (bridge->host && usbredirhost_has_data_to_write(bridge->host) > 0)
        fds[1].events |= POLLOUT;
    if (choked(bridge))
        return n;
    const struct libusb_pollfd **list = libusb_get_pollfds(bridge->context);
    for (size_t i = 0; list && list[i] && n < MAX_POLL_FDS; i++)
        fds[n++] = (struct pollfd){.fd = list[i]->fd, .events = list[i]->events};
    libusb_free_pollfds(list);
    return n;
}

static int next_timeout(HostBridge *bridge)
{
    struct timeval tv;

    if (choked(bridge) || libusb_get_next_timeout(bridge->context, &tv) != 1)
        return -1;
    return (int)MIN(tv.tv_sec * 1000 + (tv.tv_usec + 999) / 1000, G_MAXINT);
}

/* What main wants; false: the end. */
static bool obey(HostBridge *bridge)
{
    uint64_t count;
    ssize_t n = read(bridge->wake, &count, sizeof(count));

    g_assert(n == sizeof(count) || errno == EAGAIN);
    g_mutex_lock(&bridge->lock);
    int fd = bridge->given;
    bool release = bridge->release, quit = bridge->quit;
    bridge->given = -1;
    bridge->release = false;
    g_mutex_unlock(&bridge->lock);
    if (release || quit || fd >= 0)
        give_back(bridge, HOST_RELEASED, "");
    if (fd >= 0 && (release || quit)) {
        close(fd);
        bridge->event(bridge->user, HOST_RELEASED, NULL, "");
    } else if (fd >= 0) {
        show_to_qemu(bridge, fd);
    }
    return !quit;
}

static void serve(HostBridge *bridge)
{
    struct pollfd fds[MAX_POLL_FDS];
    struct timeval now = {0, 0};

    while (obey(bridge) && !bridge->unplugged) {
        write_slot(bridge);
        nfds_t n = collect(bridge, fds);
        if (poll(fds, n, next_timeout(bridge)) < 0 && errno != EINTR)
            g_error("poll: %s", g_strerror(errno));
        if (bridge->host && fds[1].revents & (POLLIN | POLLHUP | POLLERR))
            read_slot(bridge);
        if (!choked(bridge))
            libusb_handle_events_timeout_completed(bridge->context, &now, NULL);
    }
    give_back(bridge, HOST_RELEASED, "");
}

static void run_device(HostBridge *bridge)
{
    libusb_hotplug_callback_handle watch = 0;

    bridge->device = find_device(bridge);
    if (!bridge->device) {
        bridge->unplugged = true;
        return;
    }
    bool watched =
        libusb_hotplug_register_callback(bridge->context, LIBUSB_HOTPLUG_EVENT_DEVICE_LEFT, 0,
                                         LIBUSB_HOTPLUG_MATCH_ANY, LIBUSB_HOTPLUG_MATCH_ANY,
                                         LIBUSB_HOTPLUG_MATCH_ANY, on_left, bridge, &watch) == 0;
    if (probe(bridge))
        serve(bridge);
    if (watched)
        libusb_hotplug_deregister_callback(bridge->context, watch);
    libusb_unref_device(bridge->device);
}

static gpointer run(gpointer data)
{
    HostBridge *bridge = data;
    char why[256];
    int error = libusb_init(&bridge->context);

    if (error < 0) {
        bridge->event(bridge->user, HOST_FAILED, NULL,
                      host_bridge_explain(error, bridge->bus, bridge->address, why, sizeof(why)));
    } else {
        run_device(bridge);
        libusb_exit(bridge->context);
    }
    bridge->event(bridge->user, bridge->unplugged ? HOST_UNPLUGGED : HOST_ENDED, NULL, "");
    return NULL;
}

/* ---- main ---- */

HostBridge *host_bridge_new(unsigned bus, unsigned address, const char *subject,
                            HostBridgeEvent event, void *user)
{
    HostBridge *bridge = g_new0(HostBridge, 1);

    bridge->bus = bus;
    bridge->address = address;
    bridge->subject = g_strdup(subject);
    bridge->event = event;
    bridge->user = user;
    bridge->given = bridge->fd = -1;
    bridge->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (bridge->wake < 0)
        g_error("eventfd: %s", g_strerror(errno));
    g_mutex_init(&bridge->lock);
    bridge->thread = g_thread_new("host-usb", run, bridge);
    return bridge;
}

static void wake(HostBridge *bridge)
{
    uint64_t one = 1;
    ssize_t n = write(bridge->wake, &one, sizeof(one));

    g_assert(n == sizeof(one));
}

void host_bridge_give(HostBridge *bridge, int fd)
{
    g_mutex_lock(&bridge->lock);
    int unused = bridge->given;
    bridge->given = fd;
    g_mutex_unlock(&bridge->lock);
    if (unused >= 0)
        close(unused);
    wake(bridge);
}

void host_bridge_release(HostBridge *bridge)
{
    g_mutex_lock(&bridge->lock);
    bridge->release = true;
    g_mutex_unlock(&bridge->lock);
    wake(bridge);
}

void host_bridge_quit(HostBridge *bridge)
{
    g_mutex_lock(&bridge->lock);
    bridge->quit = true;
    g_mutex_unlock(&bridge->lock);
    wake(bridge);
}

void host_bridge_free(HostBridge *bridge)
{
    if (!bridge)
        return;
    host_bridge_quit(bridge);
    g_thread_join(bridge->thread);
    if (bridge->given >= 0)
        close(bridge->given);
    close(bridge->wake);
    g_mutex_clear(&bridge->lock);
    g_free(bridge->subject);
    g_free(bridge);
}
