/* The VM against a fake QEMU: shared memory and copies, input, slots, and what a hostile one says.
 */
#include "vm.h"

#include <fcntl.h>
#include <pixman.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fake_qemu.h"
#include "log.h"
#include "vm_internal.h"
#include "wait_until.h"

#define DEADLINE_US (20 * G_USEC_PER_SEC)
#define LISTENER "Listener."
#define MAP "Listener.Unix.Map."

typedef struct Fixture {
    FakeQemu *qemu;
    Vm *vm;
    FramebufferViewer *viewer;
    int ready, damaged, cursors, lost, slots, modes;
    uint32_t leds;
    char *why;
    int opened_fd;
    char *open_error;
    int opened;
} Fixture;

static void on_ready(void *user)
{
    ((Fixture *)user)->ready++;
}

static void on_damaged(void *user)
{
    ((Fixture *)user)->damaged++;
}

static void on_cursor(void *user, Cursor *cursor)
{
    ((Fixture *)user)->cursors++;
}

static void on_leds(void *user, uint32_t leds)
{
    ((Fixture *)user)->leds = leds;
}

static void on_mouse_mode(void *user, bool absolute)
{
    ((Fixture *)user)->modes++;
}

static void on_slots(void *user)
{
    ((Fixture *)user)->slots++;
}

static void on_lost(void *user, const char *why)
{
    Fixture *f = user;

    f->lost++;
    g_free(f->why);
    f->why = g_strdup(why);
}

static void fixture_open(Fixture *f, bool offer_map)
{
    static const VmCallbacks callbacks = {.ready = on_ready,
                                          .damaged = on_damaged,
                                          .cursor = on_cursor,
                                          .leds = on_leds,
                                          .mouse_mode = on_mouse_mode,
                                          .usb_slots_changed = on_slots,
                                          .lost = on_lost};
    memset(f, 0, sizeof(*f));
    f->qemu = fake_qemu_new();
    g_autoptr(GDBusConnection) connection = fake_qemu_connection(f->qemu);
    f->vm = vm_new_p2p(connection, &callbacks, f);
    vm_set_offer_map(f->vm, offer_map);
    f->viewer = framebuffer_viewer_new(vm_framebuffer(f->vm));
    bool map;
    wait_until(f->ready == 1 && fake_qemu_listeners(f->qemu, &map) == 1);
    g_assert_true(map == offer_map);
}

static void fixture_close(Fixture *f)
{
    framebuffer_viewer_free(f->viewer);
    vm_free(f->vm);
    if (f->qemu)
        fake_qemu_free(f->qemu);
    g_free(f->why);
    g_free(f->open_error);
}

static uint32_t pixel(const Frame *frame, uint32_t x, uint32_t y)
{
    uint32_t v;

    memcpy(&v, frame->pixels + (size_t)y * frame->stride + (size_t)x * 4, 4);
    return v;
}

/* Waits for a frame. */
static Frame *next_frame(Fixture *f)
{
    Frame *frame = NULL;

    wait_until((frame = framebuffer_viewer_take(f->viewer)));
    return frame;
}

static GVariant *bytes(size_t len, int value)
{
    g_autofree guint8 *data = g_malloc(len);

    if (len > 0)
        memset(data, value, len);
    return g_variant_new_fixed_array(G_VARIANT_TYPE_BYTE, data, len, 1);
}

static void expect_size(Fixture *f, uint32_t width, uint32_t height)
{
    uint32_t w, h;

    framebuffer_size(vm_framebuffer(f->vm), &w, &h);
    g_assert_cmpuint(w, ==, width);
    g_assert_cmpuint(h, ==, height);
}

static void test_properties(void)
{
    Fixture f;

    fixture_open(&f, true);
    g_assert_cmpstr(vm_name(f.vm), ==, "fake");
    g_assert_true(vm_mouse_is_absolute(f.vm));
    g_assert_cmpuint(vm_leds(f.vm), ==, VM_LED_NUM);
    g_assert_cmpuint(f.leds, ==, VM_LED_NUM);
    fake_qemu_set_property(f.qemu, "Keyboard", "Modifiers", g_variant_new_uint32(6));
    wait_until(vm_leds(f.vm) == 6);
    fake_qemu_set_property(f.qemu, "Mouse", "IsAbsolute", g_variant_new_boolean(FALSE));
    wait_until(!vm_mouse_is_absolute(f.vm));
    g_assert_cmpint(f.modes, ==, 2);
    fixture_close(&f);
}

static void test_map(void)
{
    Fixture f;
    int fd = memfd_create("scanout", MFD_CLOEXEC);
    uint32_t *memory;

    g_assert_cmpint(ftruncate(fd, 1 << 20), ==, 0);
    memory = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    fixture_open(&f, true);
    memory[0] = 0x112233;
    /* Answered although main does nothing meanwhile. */
    g_assert_true(fake_qemu_call(
        f.qemu, MAP "ScanoutMap",
        g_variant_new("(huuuuu)", 0, 0, 100, 80, 400, (guint32)PIXMAN_x8r8g8b8), fd, true));
    Frame *frame = next_frame(&f);
    g_assert_cmpuint(frame->width, ==, 100);
    g_assert_cmphex(pixel(frame, 0, 0), ==, 0x112233);
    frame_unref(frame);

    /* A tick of a text console: 25 rows, one wake-up, one pixel. */
    memory[100 * 79 + 99] = 0x445566;
    f.damaged = 0;
    for (int y = 0; y < 80; y += 4)
        fake_qemu_call(f.qemu, MAP "UpdateMap", g_variant_new("(iiii)", 0, y, 100, 4), -1, false);
    fake_qemu_call(f.qemu, MAP "UpdateMap", g_variant_new("(iiii)", 0, 0, 1, 1), -1, true);
    frame = next_frame(&f);
    g_assert_cmpint(f.damaged, >=, 1);
    g_assert_cmpint(f.damaged, <=, 3);
    g_assert_cmphex(pixel(frame, 99, 79), ==, 0x445566);
    g_assert_cmpuint(frame->n_rects, ==, 1);
    frame_unref(frame);

    fake_qemu_call(f.qemu, LISTENER "Disable", NULL, -1, true);
    frame = next_frame(&f);
    g_assert_true(frame->blank);
    frame_unref(frame);
    fixture_close(&f);
    munmap(memory, 1 << 20);
    close(fd);
}

static void test_copy(void)
{
    Fixture f;

    fixture_open(&f, false);
    g_assert_false(
        fake_qemu_call(f.qemu, MAP "UpdateMap", g_variant_new("(iiii)", 0, 0, 1, 1), -1, true));
    fake_qemu_call(
        f.qemu, LISTENER "Scanout",
        g_variant_new("(uuuu@ay)", 64, 48, 256, (guint32)PIXMAN_x8r8g8b8, bytes(256 * 48, 7)), -1,
        true);
    Frame *frame = next_frame(&f);
    g_assert_cmphex(pixel(frame, 63, 47), ==, 0x07070707);
    frame_unref(frame);

    /* The mode switch of QEMU without Unix.Map: parts in the new size, no Scanout. */
    for (int y = 0; y < 100; y += 10) {
        if (y == 50) {
            fake_qemu_set_property(f.qemu, "Console", "Width", g_variant_new_uint32(120));
            fake_qemu_set_property(f.qemu, "Console", "Height", g_variant_new_uint32(100));
        }
        fake_qemu_call(f.qemu, LISTENER "Update",
                       g_variant_new("(iiiiuu@ay)", 0, y, 120, 10, 480, (guint32)PIXMAN_x8r8g8b8,
                                     bytes(480 * 10, 100 + y)),
                       -1, true);
    }
    uint32_t w, h;
    wait_until((framebuffer_size(vm_framebuffer(f.vm), &w, &h), w == 120 && h == 100));
    frame = next_frame(&f);
    for (uint32_t y = 0; y < 100; y++)
        g_assert_cmpuint(pixel(frame, 119, y) & 0xff, ==, 100 + y / 10 * 10);
    frame_unref(frame);
    fixture_close(&f);
}

static void define_cursor(Fixture *f, int width, int height, size_t len)
{
    fake_qemu_call(f->qemu, LISTENER "CursorDefine",
                   g_variant_new("(iiii@ay)", width, height, 1000, -1, bytes(len, 0x55)), -1, true);
}

static void test_cursor(void)
{
    Fixture f;

    fixture_open(&f, true);
    fake_qemu_call(f.qemu, LISTENER "MouseSet", g_variant_new("(iii)", 0, 0, 1), -1, true);
    define_cursor(&f, 8, 4, 8 * 4 * 4);
    wait_until(f.cursors == 1);
    g_assert_nonnull(vm_cursor(f.vm));
    g_assert_cmpuint(vm_cursor(f.vm)->width, ==, 8);
    g_assert_cmpint(vm_cursor(f.vm)->hot_x, ==, 7);
    g_assert_cmpint(vm_cursor(f.vm)->hot_y, ==, 0);
    g_assert_cmphex(vm_cursor(f.vm)->argb[31], ==, 0x55555555);

    /* None of these is a cursor. */
    define_cursor(&f, 513, 1, 513 * 4);
    define_cursor(&f, 0, 8, 0);
    define_cursor(&f, -8, -4, 128);
    define_cursor(&f, 8, 4, 127);
    define_cursor(&f, 8, 4, 129);
    define_cursor(&f, INT32_MAX, INT32_MAX, 4);
    fake_qemu_call(f.qemu, LISTENER "MouseSet", g_variant_new("(iii)", 5, 5, 0), -1, true);
    wait_until(f.cursors == 2);
    g_assert_null(vm_cursor(f.vm));
    fixture_close(&f);
}

static void test_input(void)
{
    Fixture f;

    fixture_open(&f, true);
    vm_mouse_abs(f.vm, 10, 10); /* no picture yet: nowhere to point at */
    fake_qemu_call(
        f.qemu, LISTENER "Scanout",
        g_variant_new("(uuuu@ay)", 64, 48, 256, (guint32)PIXMAN_x8r8g8b8, bytes(256 * 48, 7)), -1,
        true);
    frame_unref(next_frame(&f));
    vm_key(f.vm, 30, true);
    vm_mouse_abs(f.vm, -5, 1000);
    vm_mouse_rel(f.vm, 1, 1); /* ignored while absolute */
    vm_mouse_button(f.vm, VM_BUTTON_RIGHT, true);
    vm_mouse_button(f.vm, VM_BUTTON_RIGHT, false);
    vm_key(f.vm, 30, false);
    char *heard = NULL;
    wait_until((g_free(heard), heard = fake_qemu_input(f.qemu), strstr(heard, "Keyboard.Release")));
    g_assert_cmpstr(heard, ==,
                    "Keyboard.Press(30,) Mouse.SetAbsPosition(0, 47) Mouse.Press(2,) "
                    "Mouse.Release(2,) Keyboard.Release(30,) ");
    g_free(heard);

    /* Many events and none lost, as long as QEMU listens. */
    for (int i = 0; i < 3000; i++) {
        vm_key(f.vm, 1 + (unsigned)i % 64, i % 2 == 0);
        if (i % 100 == 0)
            wait_until(!g_main_context_pending(NULL));
    }
    vm_key(f.vm, 99, false);
    heard = NULL;
    wait_until((g_free(heard), heard = fake_qemu_input(f.qemu), strstr(heard, "Release(99,)")));
    g_free(heard);
    fixture_close(&f);
}

static void test_ui_info(void)
{
    Fixture f;

    fixture_open(&f, true);
    for (unsigned i = 0; i < 100; i++)
        vm_set_ui_info(f.vm, 800 + i, 600, 0, 0);
    wait_until(fake_qemu_ui_infos(f.qemu) == 1);
    fake_qemu_support_ui_info(f.qemu, false);
    vm_set_ui_info(f.vm, 1024, 768, 0, 0);
    wait_until(fake_qemu_ui_infos(f.qemu) == 2);
    /* Refused once: not asked again. Another round trip gives the refusal time to arrive. */
    fake_qemu_set_property(f.qemu, "Keyboard", "Modifiers", g_variant_new_uint32(5));
    wait_until(vm_leds(f.vm) == 5);
    vm_set_ui_info(f.vm, 1280, 768, 0, 0);
    gint64 later = g_get_monotonic_time() + 200 * 1000;
    wait_until(g_get_monotonic_time() > later);
    g_assert_cmpuint(fake_qemu_ui_infos(f.qemu), ==, 2);
    fixture_close(&f);
}

static void on_opened(void *user, int fd, const char *error)
{
    Fixture *f = user;

    f->opened++;
    f->opened_fd = fd;
    g_free(f->open_error);
    f->open_error = g_strdup(error);
}

static bool slot_is_ours(Vm *vm)
{
    g_autoptr(GPtrArray) slots = vm_usb_slots(vm);
    const VmUsbSlot *slot = g_ptr_array_index(slots, 0);

    g_assert_cmpint(slot->busy, ==, slot->ours);
    return slot->ours;
}

static void test_slots(void)
{
    Fixture f;

    fixture_open(&f, true);
    g_autoptr(GPtrArray) slots = vm_usb_slots(f.vm);
    g_assert_cmpuint(slots->len, ==, 2);
    const VmUsbSlot *slot = g_ptr_array_index(slots, 0);
    g_assert_cmpstr(slot->id, ==, "charredir0");
    g_assert_false(slot->busy);

    vm_usb_slot_open(f.vm, "charredir0", on_opened, &f);
    wait_until(f.opened == 1);
    g_assert_cmpint(f.opened_fd, >=, 0);
    g_assert_true(fcntl(f.opened_fd, F_GETFL) & O_NONBLOCK);
    g_assert_cmpint(write(f.opened_fd, "x", 1), ==, 1);
    char c = 0;
    g_assert_cmpint(read(fake_qemu_slot_fd(f.qemu, 0), &c, 1), ==, 1);
    g_assert_cmpint(c, ==, 'x');
    wait_until(f.slots >= 1);
    g_autoptr(GPtrArray) now = vm_usb_slots(f.vm);
    slot = g_ptr_array_index(now, 0);
    g_assert_true(slot->busy && slot->ours);
    close(f.opened_fd);

    vm_usb_slot_open(f.vm, "charredir0", on_opened, &f);
    wait_until(f.opened == 2);
    g_assert_cmpint(f.opened_fd, ==, -1);
    g_assert_nonnull(strstr(f.open_error, "in use"));

    /* Once released it is tried again until QEMU has noticed that the fd was closed. */
    vm_usb_slot_release(f.vm, "charredir0");
    g_assert_false(slot_is_ours(f.vm));
    vm_usb_slot_open(f.vm, "charredir0", on_opened, &f);
    wait_until(fake_qemu_refusals(f.qemu) >= 3);
    g_assert_cmpint(f.opened, ==, 2);
    fake_qemu_drop_slot(f.qemu, 0);
    wait_until(f.opened == 3);
    g_assert_cmpint(f.opened_fd, >=, 0);
    g_assert_true(slot_is_ours(f.vm));
    close(f.opened_fd);
    vm_usb_slot_open(f.vm, "other", on_opened, &f);
    vm_usb_slot_open(f.vm, "no/such thing", on_opened, &f);
    g_assert_cmpint(f.opened, ==, 5);

    /* Freed with an open under way, and with one between two attempts: both fail before vm_free()
     * returns. */
    unsigned refusals = fake_qemu_refusals(f.qemu);
    vm_usb_slot_release(f.vm, "charredir0");
    vm_usb_slot_open(f.vm, "charredir0", on_opened, &f);
    wait_until(fake_qemu_refusals(f.qemu) > refusals);
    vm_usb_slot_open(f.vm, "charredir1", on_opened, &f);
    fixture_close(&f);
    g_assert_cmpint(f.opened, ==, 7);
    g_assert_cmpint(f.opened_fd, ==, -1);
}

static void test_hostile(void)
{
    static const struct {
        guint32 width, height, stride;
        size_t len;
    } bad[] = {
        {UINT32_MAX, UINT32_MAX, UINT32_MAX, 16},
        {8193, 1, 8193 * 4, 8193 * 4},
        {64, 48, 255, 12288},
        {64, 48, 256, 12287},
        {0, 0, 0, 0},
    };
    Fixture f;
    int fd = memfd_create("small", MFD_CLOEXEC);

    g_assert_cmpint(ftruncate(fd, 4096), ==, 0);
    fixture_open(&f, true);
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        fake_qemu_call(f.qemu, LISTENER "Scanout",
                       g_variant_new("(uuuu@ay)", bad[i].width, bad[i].height, bad[i].stride,
                                     (guint32)PIXMAN_x8r8g8b8, bytes(bad[i].len, 1)),
                       -1, true);
        fake_qemu_call(f.qemu, MAP "ScanoutMap",
                       g_variant_new("(huuuuu)", 0, 0, bad[i].width, bad[i].height, bad[i].stride,
                                     (guint32)PIXMAN_x8r8g8b8),
                       fd, true);
    }
    /* A handle without a descriptor, a wrong one, wrong types, damage beyond reason. */
    fake_qemu_call(f.qemu, MAP "ScanoutMap",
                   g_variant_new("(huuuuu)", 0, 0, 4, 4, 16, (guint32)PIXMAN_x8r8g8b8), -1, true);
    fake_qemu_call(f.qemu, MAP "ScanoutMap",
                   g_variant_new("(huuuuu)", 9, 0, 4, 4, 16, (guint32)PIXMAN_x8r8g8b8), fd, true);
    g_assert_false(fake_qemu_call(f.qemu, LISTENER "Scanout", g_variant_new("(s)", "x"), -1, true));
    fake_qemu_call(f.qemu, MAP "UpdateMap",
                   g_variant_new("(iiii)", INT32_MIN, INT32_MIN, INT32_MAX, INT32_MAX), -1, true);
    fake_qemu_call(f.qemu, LISTENER "Update",
                   g_variant_new("(iiiiuu@ay)", INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX,
                                 UINT32_MAX, 0u, bytes(4, 1)),
                   -1, true);

    /* Then it behaves, and is shown. */
    fake_qemu_call(
        f.qemu, LISTENER "Scanout",
        g_variant_new("(uuuu@ay)", 64, 48, 256, (guint32)PIXMAN_x8r8g8b8, bytes(12288, 9)), -1,
        true);
    Frame *frame;
    do {
        frame = next_frame(&f);
        bool blank = frame->blank;
        if (!blank)
            g_assert_cmphex(pixel(frame, 0, 0), ==, 0x09090909);
        frame_unref(frame);
        if (!blank)
            break;
    } while (true);
    expect_size(&f, 64, 48);
    fixture_close(&f);
    close(fd);
}

/* Main sleeps while QEMU sends more Updates than are kept: the listener is registered anew. */
static void test_flood(void)
{
    Fixture f;

    fixture_open(&f, true);
    for (int i = 0; i < 6000; i++)
        fake_qemu_call(f.qemu, LISTENER "Update",
                       g_variant_new("(iiiiuu@ay)", i % 64, i / 64, 1, 1, 4,
                                     (guint32)PIXMAN_x8r8g8b8, bytes(4, 1)),
                       -1, i % 100 == 99);
    wait_until(fake_qemu_listeners(f.qemu, NULL) == 2);
    wait_until(f.ready == 2);
    g_assert_cmpint(f.lost, ==, 0);
    fixture_close(&f);
}

static void test_listener_dropped(void)
{
    Fixture f;

    fixture_open(&f, true);
    fake_qemu_drop_listener(f.qemu);
    wait_until(fake_qemu_listeners(f.qemu, NULL) == 2);
    wait_until(f.ready == 2);
    g_assert_cmpint(f.lost, ==, 0);

    /* For ever: it is given up. */
    for (unsigned n = 2; f.lost == 0; n++) {
        fake_qemu_drop_listener(f.qemu);
        wait_until(f.lost > 0 || fake_qemu_listeners(f.qemu, NULL) > n);
        g_assert_cmpuint(n, <, 20);
    }
    g_assert_cmpint(f.lost, ==, 1);
    fixture_close(&f);
}

static void test_qemu_killed(void)
{
    Fixture f;

    fixture_open(&f, true);
    vm_usb_slot_open(f.vm, "charredir1", on_opened, &f);
    wait_until(f.opened == 1);
    close(f.opened_fd);
    fake_qemu_free(g_steal_pointer(&f.qemu));
    wait_until(f.lost == 1);
    g_assert_nonnull(strstr(f.why, "QEMU"));
    vm_key(f.vm, 1, true);
    vm_set_ui_info(f.vm, 640, 480, 0, 0);
    g_autoptr(GPtrArray) slots = vm_usb_slots(f.vm);
    g_assert_cmpuint(slots->len, ==, 0);
    fixture_close(&f);
}

/* Freed at once, before anything has been answered. */
static void test_free_early(void)
{
    static const VmCallbacks callbacks = {.ready = on_ready, .lost = on_lost};

    for (int steps = 0; steps < 40; steps++) {
        Fixture f = {0};
        f.qemu = fake_qemu_new();
        g_autoptr(GDBusConnection) connection = fake_qemu_connection(f.qemu);
        Vm *vm = vm_new_p2p(connection, &callbacks, &f);
        for (int i = 0; i < steps; i++)
            g_main_context_iteration(NULL, steps % 2 == 0 && f.ready == 0);
        vm_free(vm);
        int ready = f.ready;
        for (int i = 0; i < 20; i++)
            g_main_context_iteration(NULL, FALSE);
        g_assert_cmpint(f.ready, ==, ready);
        g_assert_cmpint(f.lost, ==, 0);
        fake_qemu_free(f.qemu);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_set_level(LOG_LEVEL_ERROR);
    g_test_add_func("/vm/properties", test_properties);
    g_test_add_func("/vm/map", test_map);
    g_test_add_func("/vm/copy", test_copy);
    g_test_add_func("/vm/cursor", test_cursor);
    g_test_add_func("/vm/input", test_input);
    g_test_add_func("/vm/ui-info", test_ui_info);
    g_test_add_func("/vm/slots", test_slots);
    g_test_add_func("/vm/hostile", test_hostile);
    g_test_add_func("/vm/flood", test_flood);
    g_test_add_func("/vm/listener-dropped", test_listener_dropped);
    g_test_add_func("/vm/qemu-killed", test_qemu_killed);
    g_test_add_func("/vm/free-early", test_free_early);
    return g_test_run();
}
