/*
 * Redirection slots: chardevs of QEMU whose Name starts with org.qemu.usbredir.
 *
 * libvirt gives all of them the same Name, so a slot is known by its object path. The attachment
 * follows the file descriptor (libvirt.md 4). On a bus QEMU says with Owner who is attached; on a
 * peer-to-peer connection nobody has a name and Owner is always "". So a slot that we attached is
 * ours until we are told that its fd was closed, and what others do is known on a bus only; on a
 * peer-to-peer connection their slot is found out when it refuses us.
 *
 * A chardev is a slot once FEOpened says that a usb-redir device is behind it: when one is plugged,
 * the chardev comes first, and goes again if there is no port for the device.
 *
 * QEMU notices the end of an fd a little later than we close it, and until then it refuses the next
 * one: an attempt that is refused so soon is made again.
 */
#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <gio/gunixfdlist.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "log.h"
#include "vm_internal.h"

#define SUBJECT "usb"
#define CHARDEV_PREFIX VM_ROOT_PATH "/Chardev_"
#define SLOT_NAME "org.qemu.usbredir"
#define RELEASE_GRACE_US (2 * G_USEC_PER_SEC)
#define RETRY_MS 20u
#define MAX_SLOTS 64u /* more are not listed */

struct VmUsb {
    GDBusObjectManager *manager;
    GHashTable *ours;     /* ids we attached to */
    GHashTable *released; /* id -> gint64: when our fd was closed */
    GPtrArray *opens;     /* of Open */
};

typedef struct Open {
    VmUsb *usb; /* NULL: .done has been called */
    char *id;
    int fd;
    guint retry; /* id of a timeout source, 0: Register is under way */
    VmUsbOpened done;
    void *user;
} Open;

static void open_free(Open *open)
{
    if (open->fd >= 0)
        close(open->fd);
    g_free(open->id);
    g_free(open);
}

/* Calls .done once: with the fd if @error is NULL. If no Register is under way, @open is freed. */
static void open_finish(Open *open, const char *error)
{
    bool waiting = open->retry != 0;

    g_ptr_array_remove_fast(open->usb->opens, open);
    open->usb = NULL;
    g_clear_handle_id(&open->retry, g_source_remove);
    int fd = error ? -1 : open->fd;
    if (fd >= 0)
        open->fd = -1;
    open->done(open->user, fd, error);
    if (waiting)
        open_free(open);
}

static void fail_opens(VmUsb *usb, const char *why)
{
    while (usb->opens->len > 0)
        open_finish(g_ptr_array_index(usb->opens, 0), why);
}

VmUsb *vm_usb_new(void)
{
    VmUsb *usb = g_new0(VmUsb, 1);

    usb->ours = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    usb->released = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    usb->opens = g_ptr_array_new();
    return usb;
}

void vm_usb_free(VmUsb *usb)
{
    if (!usb)
        return;
    fail_opens(usb, "the VM is being let go of");
    g_ptr_array_unref(usb->opens);
    g_hash_table_unref(usb->ours);
    g_hash_table_unref(usb->released);
    g_free(usb);
}

void vm_usb_set_manager(VmUsb *usb, GDBusObjectManager *manager)
{
    usb->manager = manager;
    if (!manager) {
        g_hash_table_remove_all(usb->ours);
        g_hash_table_remove_all(usb->released);
        fail_opens(usb, "QEMU went away");
    }
}

static char *string_property(GDBusProxy *proxy, const char *name)
{
    g_autoptr(GVariant) value = g_dbus_proxy_get_cached_property(proxy, name);

    return value && g_variant_is_of_type(value, G_VARIANT_TYPE_STRING)
               ? g_variant_dup_string(value, NULL)
               : g_strdup("");
}

bool vm_usb_is_slot(GDBusProxy *proxy)
{
    if (strcmp(g_dbus_proxy_get_interface_name(proxy), VM_IFACE_CHARDEV) != 0 ||
        !g_str_has_prefix(g_dbus_proxy_get_object_path(proxy), CHARDEV_PREFIX))
        return false;
    g_autofree char *name = string_property(proxy, "Name");
    return g_str_has_prefix(name, SLOT_NAME);
}

static bool has_device(GDBusProxy *proxy)
{
    g_autoptr(GVariant) value = g_dbus_proxy_get_cached_property(proxy, "FEOpened");

    return value && g_variant_is_of_type(value, G_VARIANT_TYPE_BOOLEAN) &&
           g_variant_get_boolean(value);
}

static const char *slot_id(GDBusProxy *proxy)
{
    return g_dbus_proxy_get_object_path(proxy) + strlen(CHARDEV_PREFIX);
}

void vm_usb_release(VmUsb *usb, const char *id)
{
    if (!g_hash_table_remove(usb->ours, id))
        return;
    gint64 *now = g_new(gint64, 1);
    *now = g_get_monotonic_time();
    g_hash_table_insert(usb->released, g_strdup(id), now);
}

/* Whether QEMU may not have noticed yet that we closed the slot. */
static bool just_released(VmUsb *usb, const char *id)
{
    const gint64 *since = g_hash_table_lookup(usb->released, id);

    return since && g_get_monotonic_time() - *since < RELEASE_GRACE_US;
}

static bool being_opened(const VmUsb *usb, const char *id)
{
    for (guint i = 0; i < usb->opens->len; i++)
        if (strcmp(((const Open *)g_ptr_array_index(usb->opens, i))->id, id) == 0)
            return true;
    return false;
}

static void slot_free(gpointer data)
{
    VmUsbSlot *slot = data;

    g_free(slot->id);
    g_free(slot);
}

/* charredir2 before charredir10. */
static gint slot_compare(gconstpointer a, gconstpointer b)
{
    const char *x = (*(VmUsbSlot *const *)a)->id, *y = (*(VmUsbSlot *const *)b)->id;
    size_t x_len = strlen(x), y_len = strlen(y);

    return x_len != y_len ? (x_len < y_len ? -1 : 1) : strcmp(x, y);
}

GPtrArray *vm_usb_list(VmUsb *usb)
{
    GPtrArray *slots = g_ptr_array_new_with_free_func(slot_free);
    GList *objects = usb->manager ? g_dbus_object_manager_get_objects(usb->manager) : NULL;

    for (GList *l = objects; l && slots->len < MAX_SLOTS; l = l->next) {
        g_autoptr(GDBusInterface) interface =
            g_dbus_object_get_interface(l->data, VM_IFACE_CHARDEV);
        if (!interface || !vm_usb_is_slot(G_DBUS_PROXY(interface)) ||
            !has_device(G_DBUS_PROXY(interface)))
            continue;
        g_autofree char *owner = string_property(G_DBUS_PROXY(interface), "Owner");
        VmUsbSlot *slot = g_new0(VmUsbSlot, 1);
        slot->id = g_strdup(slot_id(G_DBUS_PROXY(interface)));
        slot->ours = g_hash_table_contains(usb->ours, slot->id);
        slot->busy = *owner || slot->ours || being_opened(usb, slot->id);
        g_ptr_array_add(slots, slot);
    }
    g_list_free_full(objects, g_object_unref);
    g_ptr_array_sort(slots, slot_compare);
    return slots;
}

static GDBusProxy *find_slot(VmUsb *usb, const char *id)
{
    g_autofree char *path = g_strconcat(CHARDEV_PREFIX, id, NULL);

    if (!usb->manager || !g_variant_is_object_path(path))
        return NULL;
    GDBusInterface *interface =
        g_dbus_object_manager_get_interface(usb->manager, path, VM_IFACE_CHARDEV);
    if (interface && !vm_usb_is_slot(G_DBUS_PROXY(interface)))
        g_clear_object(&interface);
    return interface ? G_DBUS_PROXY(interface) : NULL;
}

static void register_fd(Open *open);

static gboolean on_retry(gpointer data)
{
    Open *open = data;

    open->retry = 0;
    register_fd(open);
    return G_SOURCE_REMOVE;
}

static void on_registered(GObject *source, GAsyncResult *result, gpointer user_data)
{
    Open *open = user_data;
    g_autoptr(GError) error = NULL;
    g_autoptr(GVariant) reply =
        g_dbus_proxy_call_with_unix_fd_list_finish(G_DBUS_PROXY(source), NULL, result, &error);

    if (open->usb && reply) {
        g_hash_table_add(open->usb->ours, g_strdup(open->id));
        g_hash_table_remove(open->usb->released, open->id);
        open_finish(open, NULL);
    } else if (open->usb) {
        g_dbus_error_strip_remote_error(error);
        bool taken = strstr(error->message, "register FD") != NULL;
        if (taken && just_released(open->usb, open->id)) {
            open->retry = g_timeout_add(RETRY_MS, on_retry, open);
            return;
        }
        g_autofree char *why =
            taken ? g_strdup_printf("slot %s is in use by another program", open->id)
                  : g_strdup_printf("slot %s: %s", open->id, error->message);
        open_finish(open, why);
    }
    open_free(open);
}

/* Passes QEMU one end of a new socket pair. Frees @open if that cannot even be tried. */
static void register_fd(Open *open)
{
    g_autoptr(GDBusProxy) proxy = find_slot(open->usb, open->id);
    g_autofree char *why = NULL;
    int ends[2];

    if (open->fd >= 0)
        close(open->fd);
    open->fd = -1;
    if (!proxy)
        why = g_strdup_printf("there is no redirection slot %s", open->id);
    else if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        why = g_strdup_printf("socketpair: %s", g_strerror(errno));
    if (why) {
        open_finish(open, why);
        open_free(open);
        return;
    }
    fcntl(ends[0], F_SETFL, O_NONBLOCK); /* ours only: QEMU sets what it needs */
    open->fd = ends[0];
    g_autoptr(GUnixFDList) fds = g_unix_fd_list_new_from_array(&ends[1], 1);
    g_dbus_proxy_call_with_unix_fd_list(proxy, "Register", g_variant_new("(h)", 0),
                                        G_DBUS_CALL_FLAGS_NONE, -1, fds, NULL, on_registered, open);
}

void vm_usb_open(VmUsb *usb, const char *id, VmUsbOpened done, void *user)
{
    Open *open = g_new0(Open, 1);

    open->usb = usb;
    open->id = g_strdup(id);
    open->fd = -1;
    open->done = done;
    open->user = user;
    g_ptr_array_add(usb->opens, open);
    register_fd(open);
}
