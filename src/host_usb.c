/*
 * A device of this host takes the same way as a client's: its descriptors are read, usb_slots.c
 * judges them and finds a chardev, and the socket goes to who has the device, here a HostBridge. It
 * is known by (USB_SLOTS_HOST, id). What a bridge has to say comes from its thread through idle
 * callbacks, by id, and is dropped when the device is no longer known.
 *
 * A device that could not be had keeps its row, with the reason, until it is detached or attached
 * again; one that was unplugged loses it.
 */
#include "host_usb.h"

#include <libusb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "host_bridge.h"
#include "log.h"

#define MAX_DEVICES 64u
#define MAX_BREAKS 3u /* slots a device may lose to QEMU before it stays parked */

struct HostUsb {
    UsbSlots *slots;
    GHashTable *devices; /* id -> HostDevice */
    guint last_id;
    gint refs; /* atomic: one, and one for each message under way */
    bool dead;
};

typedef struct HostDevice {
    HostUsb *host;
    guint id;
    unsigned bus, address;
    char *label;
    HostBridge *bridge; /* NULL: its thread has ended, without the device */
    UsbDescriptors *descriptors;
    char *slot; /* NULL: QEMU does not have it */
    unsigned breaks;
    bool failed;  /* it could not be had */
    bool denied;  /* by the operator: it is on its way back, whatever its thread said before */
    bool leaving; /* to be forgotten when its thread has ended */
} HostDevice;

typedef struct Message {
    HostUsb *host;
    guint id;
    HostEvent event;
    UsbDescriptors *descriptors;
    char *why;
} Message;

static void host_unref(HostUsb *host)
{
    if (g_atomic_int_dec_and_test(&host->refs))
        g_free(host);
}

static void device_free(void *data)
{
    HostDevice *device = data;

    host_bridge_free(device->bridge);
    if (device->descriptors)
        usb_descriptors_unref(device->descriptors);
    g_free(device->label);
    g_free(device->slot);
    g_free(device);
}

HostUsb *host_usb_new(UsbSlots *slots)
{
    HostUsb *host = g_new0(HostUsb, 1);

    host->slots = slots;
    host->devices = g_hash_table_new_full(NULL, NULL, NULL, device_free);
    host->refs = 1;
    return host;
}

void host_usb_free(HostUsb *host)
{
    GHashTableIter iter;
    void *value;

    if (!host)
        return;
    host->dead = true;
    g_hash_table_iter_init(&iter, host->devices);
    while (g_hash_table_iter_next(&iter, NULL, &value)) /* all at once, then wait for each */
        if (((HostDevice *)value)->bridge)
            host_bridge_quit(((HostDevice *)value)->bridge);
    g_hash_table_destroy(host->devices);
    host_unref(host);
}

/* ---- what bridges say ---- */

static void forget(HostDevice *device)
{
    HostUsb *host = device->host;
    guint id = device->id;

    g_hash_table_remove(host->devices, GUINT_TO_POINTER(id));
    usb_slots_forget(host->slots, USB_SLOTS_HOST, id);
}

static void note(HostDevice *device, const char *state, const char *why)
{
    usb_slots_note(device->host->slots, USB_SLOTS_HOST, device->id, device->label, state, why);
}

static void released(HostDevice *device)
{
    g_clear_pointer(&device->slot, g_free);
    usb_slots_released(device->host->slots, USB_SLOTS_HOST, device->id);
}

static void request(HostDevice *device)
{
    usb_slots_request(device->host->slots, USB_SLOTS_HOST, device->id, device->descriptors,
                      device->label);
}

static void refused(HostDevice *device, const char *state, const char *why)
{
    log_warning(device->label, "not passed on: %s", why);
    device->failed = true;
    note(device, state, why);
    released(device);
}

static void on_probed(HostDevice *device, UsbDescriptors *descriptors)
{
    char text[160];

    device->descriptors = usb_descriptors_ref(descriptors);
    log_info(device->label, "is %s, %s speed",
             usb_descriptors_describe(descriptors, text, sizeof(text)),
             usb_speed_name(descriptors->speed));
    request(device);
}

static void on_ended(HostDevice *device, bool unplugged)
{
    if (unplugged || device->leaving) {
        log_info(device->label, unplugged ? "was unplugged" : "is this host's again");
        forget(device);
        return;
    }
    host_bridge_free(g_steal_pointer(&device->bridge));
}

static void handle(HostDevice *device, const Message *m)
{
    switch (m->event) {
    case HOST_PROBED:
        on_probed(device, m->descriptors);
        break;
    case HOST_CONNECTED:
        if (!device->slot || device->denied)
            break;
        log_info(device->label, "connected to slot %s", device->slot);
        note(device, "connected", NULL);
        break;
    case HOST_REJECTED:
        refused(device, "rejected", m->why);
        break;
    case HOST_FAILED:
        refused(device, "refused", m->why);
        break;
    case HOST_LOST_SLOT:
        refused(device, "parked", m->why);
        if (device->breaks++ < MAX_BREAKS && !device->leaving)
            request(device);
        break;
    case HOST_RELEASED:
        released(device);
        break;
    case HOST_UNPLUGGED:
    case HOST_ENDED:
        on_ended(device, m->event == HOST_UNPLUGGED);
        break;
    }
}

static gboolean on_message(void *data)
{
    const Message *m = data;
    HostDevice *device =
        m->host->dead ? NULL : g_hash_table_lookup(m->host->devices, GUINT_TO_POINTER(m->id));

    if (device)
        handle(device, m);
    return G_SOURCE_REMOVE;
}

static void message_free(void *data)
{
    Message *m = data;

    if (m->descriptors)
        usb_descriptors_unref(m->descriptors);
    host_unref(m->host);
    g_free(m->why);
    g_free(m);
}

/* On the bridge's thread. */
static void on_event(void *user, HostEvent event, UsbDescriptors *descriptors, const char *why)
{
    const HostDevice *device = user;
    Message *m = g_new0(Message, 1);

    m->host = device->host;
    g_atomic_int_inc(&m->host->refs);
    m->id = device->id;
    m->event = event;
    m->descriptors = descriptors;
    m->why = g_strdup(why);
    g_idle_add_full(G_PRIORITY_DEFAULT, on_message, m, message_free);
}

/* ---- what main says ---- */

bool host_usb_granted(HostUsb *host, guint id, int fd, const char *slot_id, const char *error)
{
    HostDevice *device = host ? g_hash_table_lookup(host->devices, GUINT_TO_POINTER(id)) : NULL;

    if (!device || device->leaving || !device->bridge)
        return false;
    if (fd < 0) {
        char text[160];
        log_warning(device->label, "%s not passed on: %s",
                    usb_descriptors_describe(device->descriptors, text, sizeof(text)), error);
        return true;
    }
    g_free(device->slot);
    device->slot = g_strdup(slot_id);
    device->failed = device->denied = false;
    host_bridge_give(device->bridge, fd);
    return true;
}

static void let_go(HostDevice *device)
{
    if (!device->bridge) {
        forget(device);
        return;
    }
    device->leaving = true;
    host_bridge_quit(device->bridge);
}

void host_usb_leave(HostUsb *host, guint id, bool close, const char *why)
{
    HostDevice *device = host ? g_hash_table_lookup(host->devices, GUINT_TO_POINTER(id)) : NULL;

    if (!device)
        return;
    log_info(device->label, device->slot ? "taken from the guest: %s" : "kept from the guest: %s",
             why);
    if (close) {
        let_go(device);
    } else if (device->bridge) {
        device->denied = true;
        host_bridge_release(device->bridge);
    }
}

/* ---- attach ---- */

typedef struct Found {
    unsigned bus, address;
    unsigned n; /* how many devices fit */
    char places[80];
} Found;

/* Looks for "VID:PID" or "BUS-ADDRESS" among the host's devices. */
static void look_for(libusb_device **list, ssize_t n, const char *which, Found *found)
{
    unsigned a, b;
    int used = 0;
    bool by_ids = sscanf(which, "%4x:%4x%n", &a, &b, &used) == 2 && which[used] == '\0';

    if (!by_ids && sscanf(which, "%3u-%3u", &a, &b) != 2)
        return;
    for (ssize_t i = 0; i < n; i++) {
        struct libusb_device_descriptor d;
        unsigned bus = libusb_get_bus_number(list[i]);
        unsigned address = libusb_get_device_address(list[i]);
        if (by_ids ? libusb_get_device_descriptor(list[i], &d) < 0 || d.idVendor != a ||
                         d.idProduct != b
                   : bus != a || address != b)
            continue;
        size_t len = strlen(found->places);
        snprintf(found->places + len, sizeof(found->places) - len, " %u-%u", bus, address);
        found->bus = bus;
        found->address = address;
        found->n++;
    }
}

/* NULL if there is exactly one, else what to tell the operator. */
static char *find(const char *which, Found *found)
{
    libusb_context *context = NULL;
    libusb_device **list = NULL;
    int error = libusb_init(&context);

    if (error < 0)
        return g_strdup_printf("This host's USB cannot be used: %s.\n", libusb_strerror(error));
    ssize_t n = libusb_get_device_list(context, &list);
    look_for(list, n, which, found);
    if (list)
        libusb_free_device_list(list, 1);
    libusb_exit(context);
    if (found->n == 1)
        return NULL;
    if (found->n > 1)
        return g_strdup_printf("%u devices of this host are %s: name one by bus and device:%s.\n",
                               found->n, which, found->places);
    return g_strdup_printf("This host has no USB device %s: name one as lsusb shows it, by VID:PID "
                           "or by bus and device, as in 1-4.\n",
                           which);
}

/* Who has the device already, be it without success. */
static HostDevice *earlier(HostUsb *host, const Found *found)
{
    GHashTableIter iter;
    void *value;

    g_hash_table_iter_init(&iter, host->devices);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        HostDevice *device = value;
        if (device->bus == found->bus && device->address == found->address && !device->leaving)
            return device;
    }
    return NULL;
}

static char *explain_earlier(HostUsb *host, const HostDevice *device, const char *which)
{
    guint number = usb_slots_number(host->slots, USB_SLOTS_HOST, device->id);
    const char *refused = usb_slots_refusal(host->slots, USB_SLOTS_HOST, device->id);

    if (refused)
        return g_strdup_printf("%s is number %u already, and refused: %s\n", which, number,
                               refused);
    return g_strdup_printf("%s is number %u already: see qrdp usb list.\n", which, number);
}

char *host_usb_attach(HostUsb *host, const char *which, bool *ok)
{
    Found found = {0};
    char *problem = find(which, &found);

    *ok = false;
    if (problem)
        return problem;
    HostDevice *device = earlier(host, &found);
    if (device && !device->failed)
        return explain_earlier(host, device, which);
    if (device)
        let_go(device);
    if (g_hash_table_size(host->devices) >= MAX_DEVICES)
        return g_strdup_printf("There are already %u devices of this host: detach one.\n",
                               MAX_DEVICES);
    device = g_new0(HostDevice, 1);
    device->host = host;
    device->id = ++host->last_id;
    device->bus = found.bus;
    device->address = found.address;
    device->label = g_strdup_printf("this host's %u-%u", found.bus, found.address);
    g_hash_table_insert(host->devices, GUINT_TO_POINTER(device->id), device);
    note(device, "probing", NULL);
    device->bridge = host_bridge_new(found.bus, found.address, device->label, on_event, device);
    *ok = true;
    return g_strdup_printf("%u is being attached.\n",
                           usb_slots_number(host->slots, USB_SLOTS_HOST, device->id));
}
