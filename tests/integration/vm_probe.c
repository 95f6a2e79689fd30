/*
 * vm-probe: attaches to a real QEMU as qrdp does, without RDP.
 *
 *   vm-probe --qmp PATH | --bus ADDRESS [--copy] [--ppm FILE] [--size WxH] [--key QNUM]... [--ui
 * WxH]
 *            [--usb] [--add-slots N] [--timeout SECONDS]
 *
 * Waits until the picture is there (and has the size asked for) and has not changed for a moment,
 * then prints what it saw, one "name value" per line, and writes the picture as a PPM.
 */
#include <gio/gio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "qmp.h"
#include "vm.h"
#include "vm_internal.h"

#define QUIET_MS 500

static char *option_qmp, *option_bus, *option_ppm, *option_size, *option_ui;
static char **option_keys;
static gboolean option_copy, option_usb, option_verbose;
static int option_add_slots, option_timeout = 30;

static GMainLoop *loop;
static int status = 1;
static Qmp *qmp;
static Vm *vm;
static FramebufferViewer *viewer;
static uint8_t *picture;
static uint32_t width, height, generation, frames;
static uint32_t wanted_width, wanted_height;
static guint quiet_source;
static int slots_to_add;
static bool finishing;

static void fail(const char *format, ...) G_GNUC_PRINTF(1, 2);

static void fail(const char *format, ...)
{
    va_list list;

    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
    status = 1;
    g_main_loop_quit(loop);
}

static void write_ppm(void)
{
    FILE *file = fopen(option_ppm, "wb");

    if (!file) {
        perror(option_ppm);
        return;
    }
    fprintf(file, "P6\n%u %u\n255\n", width, height);
    for (size_t i = 0; i < (size_t)width * height; i++) {
        const uint8_t rgb[3] = {picture[i * 4 + 2], picture[i * 4 + 1], picture[i * 4]};
        fwrite(rgb, 1, 3, file);
    }
    fclose(file);
}

static void finish(void)
{
    printf("name %s\nframe %ux%u\nframes %u\nmouse %s\nleds %u\n", vm_name(vm), width, height,
           frames, vm_mouse_is_absolute(vm) ? "absolute" : "relative", vm_leds(vm));
    if (option_ppm && picture)
        write_ppm();
    status = 0;
    g_main_loop_quit(loop);
}

static gboolean read_hello(GIOChannel *channel, GIOCondition condition, gpointer data)
{
    char buffer[512];
    int fd = g_io_channel_unix_get_fd(channel);
    ssize_t n = read(fd, buffer, sizeof(buffer));

    printf("hello %zd\n", n);
    g_autoptr(GPtrArray) slots = vm_usb_slots(vm);
    for (guint i = 0; i < slots->len; i++) {
        const VmUsbSlot *slot = g_ptr_array_index(slots, i);
        printf("slot %s%s%s\n", slot->id, slot->busy ? " busy" : "", slot->ours ? " ours" : "");
    }
    finish();
    return G_SOURCE_REMOVE;
}

static void on_opened(void *user, int fd, const char *error)
{
    if (error) {
        fail("slot: %s", error);
        return;
    }
    GIOChannel *channel = g_io_channel_unix_new(fd);
    g_io_channel_set_close_on_unref(channel, TRUE);
    g_io_add_watch(channel, G_IO_IN | G_IO_HUP, read_hello, NULL);
    g_io_channel_unref(channel);
}

static void open_slot(void)
{
    g_autoptr(GPtrArray) slots = vm_usb_slots(vm);

    for (guint i = 0; i < slots->len; i++) {
        const VmUsbSlot *slot = g_ptr_array_index(slots, i);
        if (!slot->busy) {
            vm_usb_slot_open(vm, slot->id, on_opened, NULL);
            return;
        }
    }
    fail("no free slot among %u", slots->len);
}

static void on_slot_added(void *user, const char *id, const char *error)
{
    if (slots_to_add == 0)
        return;
    printf("added %s\n", id ? id : error);
    if (--slots_to_add > 0)
        qmp_add_usb_slot(qmp, -1, on_slot_added, NULL);
    else if (option_usb)
        open_slot();
    else
        finish();
}

static gboolean on_quiet(gpointer data)
{
    quiet_source = 0;
    if (finishing || width == 0 ||
        (wanted_width && (width != wanted_width || height != wanted_height)))
        return G_SOURCE_REMOVE;
    if (option_keys) { /* typed one by one into the quiet screen */
        static guint typed;
        if (option_keys[typed]) {
            uint32_t qnum = (uint32_t)strtoul(option_keys[typed++], NULL, 0);
            vm_key(vm, qnum, true);
            vm_key(vm, qnum, false);
            quiet_source = g_timeout_add(QUIET_MS, on_quiet, NULL);
            return G_SOURCE_REMOVE;
        }
    }
    finishing = true;
    if (option_add_slots > 0) {
        slots_to_add = option_add_slots;
        qmp_add_usb_slot(qmp, -1, on_slot_added, NULL);
    } else if (option_usb) {
        open_slot();
    } else {
        finish();
    }
    return G_SOURCE_REMOVE;
}

static void take(void)
{
    Frame *frame = framebuffer_viewer_take(viewer);

    if (!frame)
        return;
    if (!frame->blank) {
        frames++;
        if (!picture || generation != frame->generation) {
            g_free(picture);
            picture = g_malloc0((size_t)frame->width * frame->height * 4);
            width = frame->width;
            height = frame->height;
            generation = frame->generation;
        }
        for (uint32_t i = 0; i < frame->n_rects; i++) {
            const Rect *r = &frame->rects[i];
            for (int y = r->y; y < r->y + r->h; y++)
                memcpy(picture + ((size_t)y * width + (size_t)r->x) * 4,
                       frame->pixels + (size_t)y * frame->stride + (size_t)r->x * 4,
                       (size_t)r->w * 4);
        }
    }
    /* A blinking text cursor is as quiet as it gets. */
    bool small = frame->n_rects == 1 && frame->rects[0].w <= 128 && frame->rects[0].h <= 128;
    frame_unref(frame);
    if (small && quiet_source)
        return;
    g_clear_handle_id(&quiet_source, g_source_remove);
    quiet_source = g_timeout_add(QUIET_MS, on_quiet, NULL);
}

static void on_ready(void *user)
{
    if (!viewer)
        viewer = framebuffer_viewer_new(vm_framebuffer(vm));
    if (option_ui) {
        unsigned w, h;
        if (sscanf(option_ui, "%ux%u", &w, &h) == 2)
            vm_set_ui_info(vm, w, h, 0, 0);
    }
    take();
}

static void on_damaged(void *user)
{
    if (viewer)
        take();
}

static void on_cursor(void *user, Cursor *cursor)
{
    if (cursor)
        printf("cursor %ux%u hot %d,%d\n", cursor->width, cursor->height, cursor->hot_x,
               cursor->hot_y);
    else
        printf("cursor hidden\n");
}

static void on_lost(void *user, const char *why)
{
    fail("lost: %s", why);
}

static const VmCallbacks vm_callbacks = {
    .ready = on_ready, .damaged = on_damaged, .cursor = on_cursor, .lost = on_lost};

static void on_attached(void *user, GDBusConnection *connection, const char *error)
{
    if (error) {
        fail("%s", error);
        return;
    }
    vm = vm_new_p2p(connection, &vm_callbacks, NULL);
    vm_set_offer_map(vm, !option_copy);
    g_object_unref(connection);
}

static bool attach_bus(GError **error)
{
    g_autoptr(GDBusConnection) connection =
        g_dbus_connection_new_for_address_sync(option_bus,
                                               G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT |
                                                   G_DBUS_CONNECTION_FLAGS_MESSAGE_BUS_CONNECTION,
                                               NULL, NULL, error);

    if (!connection)
        return false;
    vm = vm_new_bus(connection, &vm_callbacks, NULL);
    vm_set_offer_map(vm, !option_copy);
    return true;
}

static gboolean on_timeout(gpointer data)
{
    fail("timeout: %ux%u after %u frames", width, height, frames);
    return G_SOURCE_CONTINUE;
}

int main(int argc, char **argv)
{
    const GOptionEntry entries[] = {
        {"qmp", 0, 0, G_OPTION_ARG_FILENAME, &option_qmp, "QMP socket", "PATH"},
        {"bus", 0, 0, G_OPTION_ARG_STRING, &option_bus, "message bus", "ADDRESS"},
        {"copy", 0, 0, G_OPTION_ARG_NONE, &option_copy, "do not offer shared memory", NULL},
        {"ppm", 0, 0, G_OPTION_ARG_FILENAME, &option_ppm, "write the picture", "FILE"},
        {"size", 0, 0, G_OPTION_ARG_STRING, &option_size, "wait for this size", "WxH"},
        {"key", 0, 0, G_OPTION_ARG_STRING_ARRAY, &option_keys, "type a key", "QNUM"},
        {"ui", 0, 0, G_OPTION_ARG_STRING, &option_ui, "ask the guest for a size", "WxH"},
        {"usb", 0, 0, G_OPTION_ARG_NONE, &option_usb, "attach to a slot", NULL},
        {"add-slots", 0, 0, G_OPTION_ARG_INT, &option_add_slots, "plug slots first", "N"},
        {"timeout", 0, 0, G_OPTION_ARG_INT, &option_timeout, "give up", "SECONDS"},
        {"verbose", 0, 0, G_OPTION_ARG_NONE, &option_verbose, "log every message", NULL},
        {NULL, 0, 0, G_OPTION_ARG_NONE, NULL, NULL, NULL},
    };
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);
    g_autoptr(GError) error = NULL;

    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &error) || (!option_qmp && !option_bus)) {
        fprintf(stderr, "vm-probe: %s\n", error ? error->message : "--qmp or --bus is missing");
        return 2;
    }
    if (option_size)
        sscanf(option_size, "%ux%u", &wanted_width, &wanted_height);
    log_set_level(option_verbose ? LOG_LEVEL_TRACE : LOG_LEVEL_INFO);
    loop = g_main_loop_new(NULL, FALSE);
    if (option_qmp) {
        qmp = qmp_new(option_qmp);
        qmp_set_patience(qmp, (unsigned)option_timeout);
        qmp_attach_display(qmp, on_attached, NULL);
    } else if (!attach_bus(&error)) {
        fprintf(stderr, "vm-probe: %s\n", error->message);
        return 2;
    }
    guint timeout = g_timeout_add_seconds((guint)option_timeout, on_timeout, NULL);
    g_main_loop_run(loop);

    g_source_remove(timeout);
    g_clear_handle_id(&quiet_source, g_source_remove);
    option_usb = false; /* the callbacks of what is pending come now */
    slots_to_add = 0;
    qmp_free(qmp);
    framebuffer_viewer_free(viewer);
    vm_free(vm);
    g_free(picture);
    g_main_loop_unref(loop);
    return status;
}
