/* RDP keyboard and mouse events to QEMU's, as text: "k1e+" is key 0x1e down, "a3,4" absolute
 * motion, "r3,4" relative motion, "b0+" button 0 down. */
#include "input.h"

#include <freerdp/input.h>

#include "vm.h"

static GString *got;

static void on_events(void *user, const InputEvent *events, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const InputEvent *e = &events[i];
        char sign = e->down ? '+' : '-';
        if (got->len)
            g_string_append_c(got, ' ');
        switch (e->type) {
        case INPUT_KEY:
            g_string_append_printf(got, "k%02x%c", e->code, sign);
            break;
        case INPUT_ABS:
            g_string_append_printf(got, "a%d,%d", e->x, e->y);
            break;
        case INPUT_REL:
            g_string_append_printf(got, "r%d,%d", e->x, e->y);
            break;
        case INPUT_BUTTON:
            g_string_append_printf(got, "b%u%c", e->code, sign);
            break;
        }
    }
}

static Input *make(const char *layout)
{
    got = g_string_new(NULL);
    return input_new(layout, "test", on_events, NULL);
}

static void done(Input *in)
{
    input_free(in);
    g_string_free(got, TRUE);
}

#define expect(in, text)                                                                           \
    do {                                                                                           \
        input_flush(in);                                                                           \
        g_assert_cmpstr(got->str, ==, text);                                                       \
        g_string_truncate(got, 0);                                                                 \
    } while (0)

static void test_keys(void)
{
    Input *in = make("us");
    input_keyboard(in, 0, 0x1e);
    input_keyboard(in, KBD_FLAGS_DOWN, 0x1e); /* repeat */
    input_keyboard(in, KBD_FLAGS_RELEASE, 0x1e);
    expect(in, "k1e+ k1e+ k1e-");
    input_keyboard(in, KBD_FLAGS_EXTENDED, 0x4d); /* right arrow */
    input_keyboard(in, KBD_FLAGS_EXTENDED | KBD_FLAGS_RELEASE, 0x4d);
    expect(in, "kcd+ kcd-");
    input_keyboard(in, KBD_FLAGS_EXTENDED, 0x37); /* Print Screen */
    input_keyboard(in, KBD_FLAGS_EXTENDED | KBD_FLAGS_RELEASE, 0x37);
    input_keyboard(in, 0, 0x54); /* Alt+Print Screen */
    input_keyboard(in, KBD_FLAGS_RELEASE, 0x54);
    expect(in, "kb7+ kb7- k54+ k54-");
    input_keyboard(in, KBD_FLAGS_RELEASE, 0x1f); /* was never down */
    input_keyboard(in, 0, 0);
    input_keyboard(in, 0, 0x80);
    input_keyboard(in, 0, 0xff);
    expect(in, "");
    done(in);
}

/* As mstsc and xfreerdp send it: E1 1D, 45, E1 9D, C5. */
static void test_pause(void)
{
    Input *in = make("us");
    input_keyboard(in, KBD_FLAGS_EXTENDED1, 0x1d);
    input_keyboard(in, 0, 0x45);
    input_keyboard(in, KBD_FLAGS_EXTENDED1 | KBD_FLAGS_RELEASE, 0x1d);
    input_keyboard(in, KBD_FLAGS_RELEASE, 0x45);
    expect(in, "kc6+ kc6-");
    input_keyboard(in, 0, 0x45); /* Num Lock is itself again */
    input_keyboard(in, KBD_FLAGS_RELEASE, 0x45);
    expect(in, "k45+ k45-");
    done(in);
}

static void test_release_all(void)
{
    Input *in = make("us");
    input_keyboard(in, 0, 0x2a);
    input_keyboard(in, KBD_FLAGS_EXTENDED, 0x1d);
    input_mouse(in, PTR_FLAGS_BUTTON1 | PTR_FLAGS_DOWN, 5, 6);
    expect(in, "k2a+ k9d+ a5,6 b0+");
    input_release_all(in);
    expect(in, "k2a- k9d- b0-");
    input_release_all(in);
    expect(in, "");
    done(in);
}

static void test_synchronize(void)
{
    Input *in = make("us");
    input_keyboard(in, 0, 0x38);
    input_set_leds(in, VM_LED_NUM);
    expect(in, "k38+");
    input_synchronize(in, KBD_SYNC_CAPS_LOCK | KBD_SYNC_NUM_LOCK);
    expect(in, "k38- k3a+ k3a-");
    /* Twice before the guest's LEDs arrive: once is enough. */
    input_synchronize(in, KBD_SYNC_CAPS_LOCK | KBD_SYNC_NUM_LOCK);
    expect(in, "");
    input_set_leds(in, 0);
    input_synchronize(in, KBD_SYNC_SCROLL_LOCK | KBD_SYNC_NUM_LOCK);
    expect(in, "k46+ k46- k45+ k45-");
    done(in);
}

static void type(Input *in, const char *text)
{
    glong n;
    gunichar2 *units = g_utf8_to_utf16(text, -1, NULL, &n, NULL);
    for (glong i = 0; i < n; i++) {
        input_unicode(in, 0, units[i]);
        input_unicode(in, KBD_FLAGS_RELEASE, units[i]);
    }
    g_free(units);
}

static void test_unicode_us(void)
{
    Input *in = make("us");
    type(in, "aB");
    expect(in, "k1e+ k1e- k2a+ k30+ k30- k2a-");
    type(in, "!\r\n\t ");
    expect(in, "k2a+ k02+ k02- k2a- k1c+ k1c- k1c+ k1c- k0f+ k0f- k39+ k39-");
    type(in, "é€😀"); /* no keys for these on "us" */
    expect(in, "");
    /* Caps Lock in the guest inverts letters, not digits. */
    input_set_leds(in, VM_LED_CAPS);
    type(in, "aB1");
    expect(in, "k2a+ k1e+ k1e- k2a- k30+ k30- k02+ k02-");
    input_set_leds(in, 0);
    /* A Shift that the user holds is lifted and put back. */
    input_keyboard(in, 0, 0x36);
    type(in, "a");
    type(in, "A");
    expect(in, "k36+ k36- k1e+ k1e- k36+ k1e+ k1e-");
    input_keyboard(in, KBD_FLAGS_RELEASE, 0x36);
    expect(in, "k36-");
    /* Ctrl-D, from a client that holds Ctrl as a key, and from one that does not. */
    input_keyboard(in, 0, 0x1d);
    type(in, "\x04");
    input_keyboard(in, KBD_FLAGS_RELEASE, 0x1d);
    expect(in, "k1d+ k20+ k20- k1d-");
    type(in, "\x04");
    expect(in, "k1d+ k20+ k20- k1d-");
    done(in);
}

static void test_unicode_de(void)
{
    Input *in = make("de");
    type(in, "zä@");
    expect(in, "k15+ k15- k28+ k28- kb8+ k10+ k10- kb8-");
    type(in, "€");
    expect(in, "kb8+ k12+ k12- kb8-");
    /* Lone and swapped surrogates. */
    input_unicode(in, 0, 0xdc00);
    input_unicode(in, 0, 0xd83d);
    input_unicode(in, 0, 'a');
    expect(in, "k1e+ k1e-");
    done(in);
}

static void test_layouts(void)
{
    GError *error = NULL;
    InputStroke stroke;
    InputMap *map = input_map_new("fr(oss)", NULL);
    g_assert_nonnull(map);
    g_assert_true(input_map_find(map, 'a', &stroke));
    g_assert_cmpuint(stroke.qnum, ==, 0x10);
    input_map_free(map);
    g_assert_null(input_map_new("no-such-layout", &error));
    g_assert_nonnull(error);
    g_error_free(error);

    Input *in = make("no-such-layout");
    type(in, "ab");
    expect(in, "");
    done(in);
}

static void test_motion(void)
{
    Input *in = make("us");
    input_mouse(in, PTR_FLAGS_MOVE, 1, 2);
    input_mouse(in, PTR_FLAGS_MOVE, 3, 4);
    input_mouse(in, PTR_FLAGS_BUTTON1 | PTR_FLAGS_DOWN, 3, 4);
    input_mouse(in, PTR_FLAGS_MOVE, 5, 6);
    input_mouse(in, PTR_FLAGS_MOVE, 7, 8);
    input_mouse(in, PTR_FLAGS_BUTTON1, 9, 9);
    expect(in, "a3,4 b0+ a9,9 b0-");
    input_mouse(in, PTR_FLAGS_MOVE, 9, 9);
    expect(in, "");
    input_mouse(in, PTR_FLAGS_BUTTON2 | PTR_FLAGS_DOWN, 9, 9);
    input_mouse(in, PTR_FLAGS_BUTTON2, 9, 9);
    input_mouse(in, PTR_FLAGS_BUTTON3 | PTR_FLAGS_DOWN, 9, 9);
    input_mouse(in, PTR_FLAGS_BUTTON3, 9, 9);
    input_mouse_extended(in, PTR_XFLAGS_BUTTON1 | PTR_XFLAGS_DOWN, 9, 9);
    input_mouse_extended(in, PTR_XFLAGS_BUTTON1, 9, 9);
    input_mouse_extended(in, PTR_XFLAGS_BUTTON2 | PTR_XFLAGS_DOWN, 9, 9);
    input_mouse_extended(in, PTR_XFLAGS_BUTTON2, 9, 9);
    expect(in, "b2+ b2- b1+ b1- b5+ b5- b6+ b6-");
    done(in);
}

static void test_wheel(void)
{
    Input *in = make("us");
    input_mouse(in, PTR_FLAGS_WHEEL | 120, 0, 0);
    expect(in, "b3+ b3-");
    input_mouse(in, PTR_FLAGS_WHEEL | (WheelRotationMask & -120), 0, 0);
    expect(in, "b4+ b4-");
    for (int i = 0; i < 8; i++)
        input_mouse(in, PTR_FLAGS_WHEEL | 15, 0, 0);
    expect(in, "b3+ b3-");
    input_mouse(in, PTR_FLAGS_WHEEL | 100, 0, 0);
    input_mouse(in, PTR_FLAGS_WHEEL | (WheelRotationMask & -100), 0, 0);
    expect(in, "");
    input_mouse(in, PTR_FLAGS_HWHEEL | 120, 0, 0);
    expect(in, "");
    input_mouse(in, PTR_FLAGS_WHEEL | 0x100, 0, 0); /* -256 */
    expect(in, "b4+ b4- b4+ b4-");
    done(in);
}

static void test_relative_guest(void)
{
    Input *in = make("us");
    input_mouse(in, PTR_FLAGS_MOVE, 100, 100);
    expect(in, "a100,100");
    input_set_absolute(in, false);
    input_mouse(in, PTR_FLAGS_MOVE, 200, 200); /* only learns where it is */
    expect(in, "");
    input_mouse(in, PTR_FLAGS_MOVE, 205, 190);
    input_mouse(in, PTR_FLAGS_MOVE, 207, 190);
    input_mouse(in, PTR_FLAGS_BUTTON1 | PTR_FLAGS_DOWN, 207, 190);
    expect(in, "r7,-10 b0+");
    input_mouse_relative(in, PTR_FLAGS_MOVE, -3, 4);
    expect(in, "r-3,4");
    done(in);
}

static void test_relative_client(void)
{
    Input *in = make("us");
    input_set_size(in, 640, 480);
    input_mouse(in, PTR_FLAGS_MOVE, 630, 10);
    input_mouse_relative(in, PTR_FLAGS_MOVE, 20, -20);
    expect(in, "a639,0");
    input_mouse_relative(in, PTR_FLAGS_BUTTON1 | PTR_FLAGS_DOWN, 0, 0);
    input_mouse_relative(in, PTR_FLAGS_BUTTON1, 0, 0);
    expect(in, "b0+ b0-");
    done(in);
}

/* More events than one batch holds keep their order. */
static void test_overflow(void)
{
    Input *in = make("us");
    for (int i = 0; i < 200; i++)
        input_keyboard(in, i % 2 ? KBD_FLAGS_RELEASE : 0, 0x1e);
    input_flush(in);
    g_assert_cmpuint(got->len, ==, 200 * 4 + 199);
    g_assert_true(g_str_has_suffix(got->str, "k1e+ k1e-"));
    done(in);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/input/keys", test_keys);
    g_test_add_func("/input/pause", test_pause);
    g_test_add_func("/input/release-all", test_release_all);
    g_test_add_func("/input/synchronize", test_synchronize);
    g_test_add_func("/input/unicode-us", test_unicode_us);
    g_test_add_func("/input/unicode-de", test_unicode_de);
    g_test_add_func("/input/layouts", test_layouts);
    g_test_add_func("/input/motion", test_motion);
    g_test_add_func("/input/wheel", test_wheel);
    g_test_add_func("/input/relative-guest", test_relative_guest);
    g_test_add_func("/input/relative-client", test_relative_client);
    g_test_add_func("/input/overflow", test_overflow);
    return g_test_run();
}
