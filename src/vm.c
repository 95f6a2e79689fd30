/*
 * Theory of operation.
 *
 * QEMU describes itself as a tree of D-Bus objects with an object manager at its root. GIO's object
 * manager client mirrors that tree and its properties; this file looks at the mirror whenever it
 * has changed (evaluate()) and brings the rest in line: which console we listen to, the guest's
 * LEDs and mouse mode, the redirection slots. Interfaces are detected, never versions.
 *
 * A peer-to-peer connection lives and dies with its QEMU. On a bus, org.qemu comes and goes, and
 * everything here can happen again.
 *
 * A listener that breaks while QEMU is there is registered again, with patience: MAX_REGISTRATIONS
 * times in REGISTRATION_WINDOW_US, then the VM counts as lost.
 *
 * Input is sent without waiting for replies. So that a QEMU that hangs cannot make our output queue
 * grow for ever, each INPUT_PROBE-th call asks for a reply, and when too many calls are unanswered
 * motion and presses are dropped; releases get a larger allowance, because a key that stays down is
 * worse than one that was never pressed.
 */
#include "vm.h"

#include <gio/gunixfdlist.h>
#include <string.h>

#include "log.h"
#include "vm_internal.h"

#define SUBJECT "vm"
#define UI_INFO_DELAY_MS 50u
#define RETRY_DELAY_MS 200u
#define MAX_REGISTRATIONS 8u
#define REGISTRATION_WINDOW_US (60 * G_USEC_PER_SEC)
#define INPUT_PROBE 32u
#define INPUT_MAX_UNANSWERED 1024u
#define INPUT_MAX_RELEASES 4096u

struct Vm {
    GDBusConnection *connection;
    bool bus;
    VmCallbacks callbacks;
    void *user;
    GCancellable *cancellable;
    GDBusObjectManager *manager;
    guint evaluate_source, retry_source;
    bool gone; /* peer to peer: lost for good */

    Framebuffer *framebuffer;
    VmDisplay *display;
    VmUsb *usb;
    bool offer_map;
    bool draining, damage_pending; /* .damaged waits for the end of a batch */
    Cursor *cursor;

    char *name;
    char *console_path; /* NULL: none yet */
    GDBusProxy *console, *keyboard, *mouse;
    GCancellable *register_cancellable;
    bool is_ready, no_console_reported;
    unsigned registrations; /* in the window that started at .registrations_since */
    gint64 registrations_since;
    uint32_t leds;
    bool absolute;

    unsigned input_unanswered, input_since_probe;
    bool input_dropping;

    guint ui_info_source;
    bool ui_info_unsupported;
    uint32_t ui_width, ui_height, ui_width_mm, ui_height_mm;
};

static void evaluate(Vm *vm);

/* ---- small helpers ---- */

static bool lookup_u32(GDBusProxy *proxy, const char *name, uint32_t *out)
{
    g_autoptr(GVariant) value = proxy ? g_dbus_proxy_get_cached_property(proxy, name) : NULL;

    if (!value || !g_variant_is_of_type(value, G_VARIANT_TYPE_UINT32))
        return false;
    *out = g_variant_get_uint32(value);
    return true;
}

static char *lookup_string(GDBusProxy *proxy, const char *name)
{
    g_autoptr(GVariant) value = g_dbus_proxy_get_cached_property(proxy, name);

    return value && g_variant_is_of_type(value, G_VARIANT_TYPE_STRING)
               ? g_variant_dup_string(value, NULL)
               : g_strdup("");
}

static GDBusProxy *interface_of(GDBusObject *object, const char *name)
{
    GDBusInterface *interface = g_dbus_object_get_interface(object, name);

    return interface ? G_DBUS_PROXY(interface) : NULL;
}

/* ---- losing ---- */

static void drop_console(Vm *vm)
{
    g_cancellable_cancel(vm->register_cancellable);
    g_clear_object(&vm->register_cancellable);
    g_clear_handle_id(&vm->retry_source, g_source_remove);
    g_clear_handle_id(&vm->ui_info_source, g_source_remove);
    g_clear_pointer(&vm->console_path, g_free);
    g_clear_object(&vm->console);
    g_clear_object(&vm->keyboard);
    g_clear_object(&vm->mouse);
    vm_display_close(vm->display);
    vm->is_ready = false;
    vm->ui_info_unsupported = false;
}

/* @vm may have been freed by the callback afterwards. */
static void lose(Vm *vm, const char *why)
{
    if (vm->gone)
        return;
    vm->gone = !vm->bus || g_dbus_connection_is_closed(vm->connection);
    drop_console(vm);
    vm_usb_set_manager(vm->usb, NULL);
    framebuffer_disable(vm->framebuffer);
    if (vm->callbacks.lost)
        vm->callbacks.lost(vm->user, why);
}

static void on_connection_closed(GDBusConnection *connection, gboolean remote_vanished,
                                 GError *error, gpointer user_data)
{
    Vm *vm = user_data;

    lose(vm, vm->bus ? "the message bus closed the connection" : "QEMU closed the connection");
}

/* ---- the display listener ---- */

static void on_drain_begin(void *user)
{
    ((Vm *)user)->draining = true;
}

static void on_drain_end(void *user)
{
    Vm *vm = user;

    vm->draining = false;
    if (vm->damage_pending) {
        vm->damage_pending = false;
        vm->callbacks.damaged(vm->user);
    }
}

static void on_damaged(void *user)
{
    Vm *vm = user;

    if (!vm->callbacks.damaged)
        return;
    if (vm->draining)
        vm->damage_pending = true;
    else
        vm->callbacks.damaged(vm->user);
}

static void on_cursor(void *user, Cursor *cursor)
{
    Vm *vm = user;

    cursor_unref(vm->cursor);
    vm->cursor = cursor ? cursor_ref(cursor) : NULL;
    if (vm->callbacks.cursor)
        vm->callbacks.cursor(vm->user, vm->cursor);
}

static gboolean on_retry(gpointer data)
{
    Vm *vm = data;

    vm->retry_source = 0;
    drop_console(vm);
    evaluate(vm);
    return G_SOURCE_REMOVE;
}

static void listener_failed(Vm *vm, const char *why)
{
    gint64 now = g_get_monotonic_time();

    if (now - vm->registrations_since > REGISTRATION_WINDOW_US) {
        vm->registrations_since = now;
        vm->registrations = 0;
    }
    if (++vm->registrations >= MAX_REGISTRATIONS) {
        g_autofree char *text = g_strdup_printf("the display listener keeps failing: %s", why);
        vm->bus = false; /* waiting for another org.qemu would not help */
        lose(vm, text);
        return;
    }
    log_debug(SUBJECT, "%s; registering again", why);
    if (vm->retry_source == 0)
        vm->retry_source = g_timeout_add(RETRY_DELAY_MS, on_retry, vm);
}

static void on_listener_closed(void *user, const char *why)
{
    listener_failed(user, why);
}

static void on_registered(GObject *source, GAsyncResult *result, gpointer user_data)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GVariant) reply =
        g_dbus_proxy_call_with_unix_fd_list_finish(G_DBUS_PROXY(source), NULL, result, &error);

    if (g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
        return;
    Vm *vm = user_data;
    g_clear_object(&vm->register_cancellable);
    if (!reply) {
        g_dbus_error_strip_remote_error(error);
        listener_failed(vm, error->message);
        return;
    }
    vm->is_ready = true;
    log_info(SUBJECT, "showing %s of \"%s\"", vm->console_path + strlen(VM_ROOT_PATH "/"),
             vm_name(vm));
    if (vm->callbacks.ready)
        vm->callbacks.ready(vm->user);
}

static void register_listener(Vm *vm)
{
    g_autoptr(GError) error = NULL;
    int fd = vm_display_open(vm->display, vm->offer_map, &error);

    if (fd < 0) {
        listener_failed(vm, error->message);
        return;
    }
    g_autoptr(GUnixFDList) fds = g_unix_fd_list_new_from_array(&fd, 1);
    vm->register_cancellable = g_cancellable_new();
    g_dbus_proxy_call_with_unix_fd_list(vm->console, "RegisterListener", g_variant_new("(h)", 0),
                                        G_DBUS_CALL_FLAGS_NONE, -1, fds, vm->register_cancellable,
                                        on_registered, vm);
}

/* ---- what QEMU says about itself ---- */

static void update_leds(Vm *vm)
{
    uint32_t leds;

    if (lookup_u32(vm->keyboard, "Modifiers", &leds) && leds != vm->leds) {
        vm->leds = leds;
        if (vm->callbacks.leds)
            vm->callbacks.leds(vm->user, leds);
    }
}

static void update_mouse_mode(Vm *vm)
{
    g_autoptr(GVariant) value =
        vm->mouse ? g_dbus_proxy_get_cached_property(vm->mouse, "IsAbsolute") : NULL;

    if (!value || !g_variant_is_of_type(value, G_VARIANT_TYPE_BOOLEAN))
        return;
    bool absolute = g_variant_get_boolean(value);
    if (absolute != vm->absolute) {
        vm->absolute = absolute;
        if (vm->callbacks.mouse_mode)
            vm->callbacks.mouse_mode(vm->user, absolute);
    }
}

static void update_size(Vm *vm)
{
    uint32_t width, height;

    if (lookup_u32(vm->console, "Width", &width) && lookup_u32(vm->console, "Height", &height))
        framebuffer_resize(vm->framebuffer, width, height);
}

/* The first graphical console: the one with the lowest number. */
static GDBusObject *find_console(Vm *vm)
{
    GList *objects = g_dbus_object_manager_get_objects(vm->manager);
    GDBusObject *best = NULL;
    guint64 best_number = G_MAXUINT64;

    for (GList *l = objects; l; l = l->next) {
        const char *path = g_dbus_object_get_object_path(l->data);
        g_autoptr(GDBusProxy) console = interface_of(l->data, VM_IFACE_CONSOLE);
        if (!console || !g_str_has_prefix(path, VM_ROOT_PATH "/Console_"))
            continue;
        g_autofree char *type = lookup_string(console, "Type");
        guint64 number = g_ascii_strtoull(path + strlen(VM_ROOT_PATH "/Console_"), NULL, 10);
        if (strcmp(type, "Graphic") == 0 && number < best_number) {
            best_number = number;
            g_set_object(&best, l->data);
        }
    }
    g_list_free_full(objects, g_object_unref);
    return best;
}

static void update_name(Vm *vm)
{
    g_autoptr(GDBusInterface) interface =
        g_dbus_object_manager_get_interface(vm->manager, VM_ROOT_PATH "/VM", VM_IFACE_VM);

    if (interface) {
        g_free(vm->name);
        vm->name = lookup_string(G_DBUS_PROXY(interface), "Name");
    }
}

/* Chooses a console if there is none. */
static void update_console(Vm *vm)
{
    if (vm->console) {
        g_autoptr(GDBusObject) still =
            g_dbus_object_manager_get_object(vm->manager, vm->console_path);
        if (still)
            return;
        log_info(SUBJECT, "the console is gone");
        drop_console(vm);
        framebuffer_disable(vm->framebuffer);
    }
    g_autoptr(GDBusObject) object = find_console(vm);
    if (!object) {
        if (!vm->no_console_reported)
            log_warning(SUBJECT, "the VM has no graphical console: add a display device, for "
                                 "example -vga std or -device virtio-vga");
        vm->no_console_reported = true;
        return;
    }
    vm->no_console_reported = false;
    vm->console_path = g_strdup(g_dbus_object_get_object_path(object));
    vm->console = interface_of(object, VM_IFACE_CONSOLE);
    vm->keyboard = interface_of(object, VM_IFACE_KEYBOARD);
    vm->mouse = interface_of(object, VM_IFACE_MOUSE);
    update_size(vm);
    update_leds(vm);
    update_mouse_mode(vm);
    register_listener(vm);
}

static void evaluate(Vm *vm)
{
    if (vm->gone || !vm->manager)
        return;
    if (vm->bus) {
        g_autofree char *owner =
            g_dbus_object_manager_client_get_name_owner(G_DBUS_OBJECT_MANAGER_CLIENT(vm->manager));
        if (!owner) {
            if (vm->console)
                lose(vm, "QEMU left the bus");
            return;
        }
    }
    vm_usb_set_manager(vm->usb, vm->manager);
    update_name(vm);
    if (vm->retry_source == 0)
        update_console(vm);
}

static gboolean on_evaluate(gpointer data)
{
    Vm *vm = data;

    vm->evaluate_source = 0;
    evaluate(vm);
    return G_SOURCE_REMOVE;
}

/* Objects come in bunches: look once per bunch. */
static void evaluate_soon(Vm *vm)
{
    if (vm->evaluate_source == 0)
        vm->evaluate_source = g_idle_add(on_evaluate, vm);
}

static void on_name_owner(GObject *manager, GParamSpec *spec, gpointer user_data)
{
    evaluate_soon(user_data);
}

static void slots_changed(Vm *vm)
{
    if (vm->callbacks.usb_slots_changed && !vm->gone)
        vm->callbacks.usb_slots_changed(vm->user);
}

static void on_object(GDBusObjectManager *manager, GDBusObject *object, gpointer user_data)
{
    Vm *vm = user_data;
    g_autoptr(GDBusProxy) chardev = interface_of(object, VM_IFACE_CHARDEV);

    evaluate_soon(vm);
    if (chardev && vm_usb_is_slot(chardev))
        slots_changed(vm);
}

static void on_properties(GDBusObjectManagerClient *manager, GDBusObjectProxy *object,
                          GDBusProxy *proxy, GVariant *changed, const gchar *const *invalidated,
                          gpointer user_data)
{
    Vm *vm = user_data;

    if (vm->gone)
        return;
    if (proxy == vm->console)
        update_size(vm);
    else if (proxy == vm->keyboard)
        update_leds(vm);
    else if (proxy == vm->mouse)
        update_mouse_mode(vm);
    else if (vm_usb_is_slot(proxy))
        slots_changed(vm);
}

static void on_manager(GObject *source, GAsyncResult *result, gpointer user_data)
{
    g_autoptr(GError) error = NULL;
    GDBusObjectManager *manager = g_dbus_object_manager_client_new_finish(result, &error);

    if (g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
        return;
    Vm *vm = user_data;
    if (!manager) {
        g_dbus_error_strip_remote_error(error);
        g_autofree char *why =
            g_strdup_printf("QEMU's D-Bus objects cannot be read: %s", error->message);
        lose(vm, why);
        return;
    }
    vm->manager = manager;
    g_signal_connect(manager, "notify::name-owner", G_CALLBACK(on_name_owner), vm);
    g_signal_connect(manager, "object-added", G_CALLBACK(on_object), vm);
    g_signal_connect(manager, "object-removed", G_CALLBACK(on_object), vm);
    g_signal_connect(manager, "interface-proxy-properties-changed", G_CALLBACK(on_properties), vm);
    evaluate(vm);
}

/* ---- life ---- */

static Vm *vm_new(GDBusConnection *connection, bool bus, const VmCallbacks *callbacks, void *user)
{
    static const VmDisplayCallbacks display_callbacks = {
        .drain_begin = on_drain_begin,
        .drain_end = on_drain_end,
        .cursor = on_cursor,
        .closed = on_listener_closed,
    };
    Vm *vm = g_new0(Vm, 1);

    vm->connection = g_object_ref(connection);
    vm->bus = bus;
    vm->callbacks = *callbacks;
    vm->user = user;
    vm->offer_map = true;
    vm->cancellable = g_cancellable_new();
    vm->framebuffer = framebuffer_new(on_damaged, vm);
    vm->display = vm_display_new(vm->framebuffer, &display_callbacks, vm);
    vm->usb = vm_usb_new();
    g_signal_connect(connection, "closed", G_CALLBACK(on_connection_closed), vm);
    g_dbus_object_manager_client_new(
        connection, G_DBUS_OBJECT_MANAGER_CLIENT_FLAGS_DO_NOT_AUTO_START, bus ? VM_BUS_NAME : NULL,
        VM_ROOT_PATH, NULL, NULL, NULL, vm->cancellable, on_manager, vm);
    return vm;
}

Vm *vm_new_p2p(GDBusConnection *connection, const VmCallbacks *callbacks, void *user)
{
    return vm_new(connection, false, callbacks, user);
}

Vm *vm_new_bus(GDBusConnection *connection, const VmCallbacks *callbacks, void *user)
{
    return vm_new(connection, true, callbacks, user);
}

void vm_free(Vm *vm)
{
    if (!vm)
        return;
    vm->gone = true;
    g_cancellable_cancel(vm->cancellable);
    g_signal_handlers_disconnect_by_data(vm->connection, vm);
    if (vm->manager)
        g_signal_handlers_disconnect_by_data(vm->manager, vm);
    g_clear_handle_id(&vm->evaluate_source, g_source_remove);
    drop_console(vm);
    vm_usb_free(vm->usb);
    vm_display_free(vm->display);
    framebuffer_free(vm->framebuffer);
    cursor_unref(vm->cursor);
    g_clear_object(&vm->manager);
    g_object_unref(vm->cancellable);
    g_object_unref(vm->connection);
    g_free(vm->name);
    g_free(vm);
}

void vm_set_offer_map(Vm *vm, bool offer)
{
    vm->offer_map = offer;
}

Framebuffer *vm_framebuffer(Vm *vm)
{
    return vm->framebuffer;
}

const char *vm_name(const Vm *vm)
{
    return vm->name ? vm->name : "";
}

bool vm_mouse_is_absolute(const Vm *vm)
{
    return vm->absolute;
}

uint32_t vm_leds(const Vm *vm)
{
    return vm->leds;
}

Cursor *vm_cursor(const Vm *vm)
{
    return vm->cursor;
}

GPtrArray *vm_usb_slots(Vm *vm)
{
    return vm_usb_list(vm->usb);
}

void vm_usb_slot_open(Vm *vm, const char *id, VmUsbOpened done, void *user)
{
    vm_usb_open(vm->usb, id, done, user);
}

void vm_usb_slot_release(Vm *vm, const char *id)
{
    vm_usb_release(vm->usb, id);
}

/* ---- input ---- */

static void on_input_answered(GObject *source, GAsyncResult *result, gpointer user_data)
{
    g_autoptr(GError) error = NULL;
    GVariant *reply = g_dbus_proxy_call_finish(G_DBUS_PROXY(source), result, &error);

    g_clear_pointer(&reply, g_variant_unref);
    if (g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
        return;
    Vm *vm = user_data;
    vm->input_unanswered -= MIN(vm->input_unanswered, INPUT_PROBE);
    if (vm->input_dropping && vm->input_unanswered < INPUT_MAX_UNANSWERED) {
        vm->input_dropping = false;
        log_info(SUBJECT, "QEMU takes input again");
    }
}

static void send_input(Vm *vm, GDBusProxy *proxy, const char *method, bool release,
                       GVariant *arguments)
{
    g_autoptr(GVariant) owned = g_variant_ref_sink(arguments);

    if (!proxy || vm->gone)
        return;
    if (vm->input_unanswered >= (release ? INPUT_MAX_RELEASES : INPUT_MAX_UNANSWERED)) {
        if (!vm->input_dropping)
            log_warning(SUBJECT, "QEMU does not take input: dropping events until it does");
        vm->input_dropping = true;
        return;
    }
    bool probe = ++vm->input_since_probe >= INPUT_PROBE;
    vm->input_unanswered++;
    if (probe)
        vm->input_since_probe = 0;
    g_dbus_proxy_call(proxy, method, owned, G_DBUS_CALL_FLAGS_NONE, G_MAXINT,
                      probe ? vm->cancellable : NULL, probe ? on_input_answered : NULL, vm);
}

void vm_key(Vm *vm, uint32_t qnum, bool down)
{
    send_input(vm, vm->keyboard, down ? "Press" : "Release", !down, g_variant_new("(u)", qnum));
}

void vm_mouse_abs(Vm *vm, int32_t x, int32_t y)
{
    uint32_t width, height;

    framebuffer_size(vm->framebuffer, &width, &height);
    if (!vm->absolute || width == 0 || height == 0)
        return;
    send_input(vm, vm->mouse, "SetAbsPosition", false,
               g_variant_new("(uu)", (guint32)CLAMP(x, 0, (int32_t)width - 1),
                             (guint32)CLAMP(y, 0, (int32_t)height - 1)));
}

void vm_mouse_rel(Vm *vm, int32_t dx, int32_t dy)
{
    if (!vm->absolute)
        send_input(vm, vm->mouse, "RelMotion", false, g_variant_new("(ii)", dx, dy));
}

void vm_mouse_button(Vm *vm, VmButton button, bool down)
{
    send_input(vm, vm->mouse, down ? "Press" : "Release", !down,
               g_variant_new("(u)", (guint32)button));
}

/* ---- the guest's wish for a size ---- */

static void on_ui_info_set(GObject *source, GAsyncResult *result, gpointer user_data)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GVariant) reply = g_dbus_proxy_call_finish(G_DBUS_PROXY(source), result, &error);

    if (reply || g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
        return;
    Vm *vm = user_data;
    if (G_DBUS_PROXY(source) != vm->console || !g_dbus_error_is_remote_error(error))
        return;
    g_dbus_error_strip_remote_error(error);
    vm->ui_info_unsupported = true;
    log_info(SUBJECT,
             "the guest's display does not follow the client's window size (%s); "
             "virtio-vga would",
             error->message);
}

static gboolean on_ui_info_due(gpointer data)
{
    Vm *vm = data;

    vm->ui_info_source = 0;
    g_dbus_proxy_call(vm->console, "SetUIInfo",
                      g_variant_new("(qqiiuu)", (guint16)vm->ui_width_mm, (guint16)vm->ui_height_mm,
                                    0, 0, vm->ui_width, vm->ui_height),
                      G_DBUS_CALL_FLAGS_NONE, -1, vm->cancellable, on_ui_info_set, vm);
    return G_SOURCE_REMOVE;
}

void vm_set_ui_info(Vm *vm, uint32_t width, uint32_t height, uint32_t width_mm, uint32_t height_mm)
{
    if (!vm->console || vm->ui_info_unsupported || width == 0 || height == 0 ||
        width > FRAMEBUFFER_MAX_SIDE || height > FRAMEBUFFER_MAX_SIDE)
        return;
    vm->ui_width = width;
    vm->ui_height = height;
    vm->ui_width_mm = MIN(width_mm, G_MAXUINT16);
    vm->ui_height_mm = MIN(height_mm, G_MAXUINT16);
    if (vm->ui_info_source == 0)
        vm->ui_info_source = g_timeout_add(UI_INFO_DELAY_MS, on_ui_info_due, vm);
}
