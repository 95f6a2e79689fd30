/*
 * Redirection slots: chardevs of QEMU whose Name starts with org.qemu.usbredir.
 *
 * libvirt gives all of them the same Name, so a slot is known by its object path. QEMU says with
 * Owner who is attached: the attachment follows the file descriptor, and Owner becomes "" when that
 * is closed (libvirt.md 4). Between our Register and the first word about Owner the slot counts as
 * ours for OWNER_GRACE_US, after which Owner alone decides: if the fd was closed again before QEMU
 * got round to announcing Owner, no change is ever announced.
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
#define OWNER_GRACE_US G_USEC_PER_SEC
#define MAX_SLOTS 64u /* more are not listed */

struct VmUsb {
    GDBusObjectManager *manager;
    GHashTable *ours; /* id -> gint64: when we registered */
    GPtrArray *opens; /* of Open */
};

typedef struct Open {
    VmUsb *usb; /* NULL: .done has been called */
    char *id;
    int fd;
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

/* Calls .done once: with the fd if @error is NULL. */
static void open_finish(Open *open, const char *error)
{
    g_ptr_array_remove_fast(open->usb->opens, open);
    open->usb = NULL;
    int fd = error ? -1 : open->fd;
    if (fd >= 0)
        open->fd = -1;
    open->done(open->user, fd, error);
}

static void fail_opens(VmUsb *usb, const char *why)
{
    while (usb->opens->len > 0)
        open_finish(g_ptr_array_index(usb->opens, 0), why);
}

VmUsb *vm_usb_new(void)
{
    VmUsb *usb = g_new0(VmUsb, 1);

    usb->ours = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
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
    g_free(usb);
}

void vm_usb_set_manager(VmUsb *usb, GDBusObjectManager *manager)
{
    usb->manager = manager;
    if (!manager) {
        g_hash_table_remove_all(usb->ours);
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

static const char *slot_id(GDBusProxy *proxy)
{
    return g_dbus_proxy_get_object_path(proxy) + strlen(CHARDEV_PREFIX);
}

void vm_usb_properties_changed(VmUsb *usb, GDBusProxy *proxy, GVariant *changed)
{
    const char *owner;

    if (g_variant_lookup(changed, "Owner", "&s", &owner) && *owner == '\0')
        g_hash_table_remove(usb->ours, slot_id(proxy));
}

static bool is_ours(VmUsb *usb, const char *id, const char *owner)
{
    const gint64 *since = g_hash_table_lookup(usb->ours, id);

    if (!since)
        return false;
    if (*owner || g_get_monotonic_time() - *since < OWNER_GRACE_US)
        return true;
    g_hash_table_remove(usb->ours, id);
    return false;
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
        if (!interface || !vm_usb_is_slot(G_DBUS_PROXY(interface)))
            continue;
        g_autofree char *owner = string_property(G_DBUS_PROXY(interface), "Owner");
        VmUsbSlot *slot = g_new0(VmUsbSlot, 1);
        slot->id = g_strdup(slot_id(G_DBUS_PROXY(interface)));
        slot->ours = is_ours(usb, slot->id, owner);
        slot->busy = *owner || slot->ours || being_opened(usb, slot->id);
        g_ptr_array_add(slots, slot);
    }
    g_list_free_full(objects, g_object_unref);
    g_ptr_array_sort(slots, slot_compare);
    return slots;
}

static void on_registered(GObject *source, GAsyncResult *result, gpointer user_data)
{
    Open *open = user_data;
    g_autoptr(GError) error = NULL;
    g_autoptr(GVariant) reply =
        g_dbus_proxy_call_with_unix_fd_list_finish(G_DBUS_PROXY(source), NULL, result, &error);

    if (open->usb && reply) {
        gint64 *now = g_new(gint64, 1);
        *now = g_get_monotonic_time();
        g_hash_table_insert(open->usb->ours, g_strdup(open->id), now);
        open_finish(open, NULL);
    } else if (open->usb) {
        g_dbus_error_strip_remote_error(error);
        bool taken = strstr(error->message, "register FD") != NULL;
        g_autofree char *why =
            taken ? g_strdup_printf("slot %s is in use by another program", open->id)
                  : g_strdup_printf("slot %s: %s", open->id, error->message);
        open_finish(open, why);
    }
    open_free(open);
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

void vm_usb_open(VmUsb *usb, const char *id, VmUsbOpened done, void *user)
{
    g_autoptr(GDBusProxy) proxy = find_slot(usb, id);
    int ends[2];

    if (!proxy) {
        g_autofree char *why = g_strdup_printf("there is no redirection slot %s", id);
        done(user, -1, why);
        return;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
        g_autofree char *why = g_strdup_printf("socketpair: %s", g_strerror(errno));
        done(user, -1, why);
        return;
    }
    fcntl(ends[0], F_SETFL, O_NONBLOCK); /* ours only: QEMU sets what it needs */

    Open *open = g_new0(Open, 1);
    open->usb = usb;
    open->id = g_strdup(id);
    open->fd = ends[0];
    open->done = done;
    open->user = user;
    g_ptr_array_add(usb->opens, open);
    g_autoptr(GUnixFDList) fds = g_unix_fd_list_new_from_array(&ends[1], 1);
    g_dbus_proxy_call_with_unix_fd_list(proxy, "Register", g_variant_new("(h)", 0),
                                        G_DBUS_CALL_FLAGS_NONE, -1, fds, NULL, on_registered, open);
}
