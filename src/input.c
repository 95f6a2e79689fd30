/*
 * One client's keyboard and mouse.
 *
 * Events are collected in a small array and handed over once per wake-up. Only the last element may
 * be changed, and only motion by motion of the same kind, so a click always happens where the
 * pointer was when it was made.
 *
 * Every key and button that the guest was told is down is remembered, so that it can be released
 * when the client leaves or synchronises (MS-RDPBCGR 2.2.8.1.1.3.1.1.5: all keys are up then).
 *
 * Lock keys: the guest's LEDs arrive late, and a guest without a keyboard driver never reports any.
 * After toggling a lock key the new state is assumed until the guest says otherwise, so that two
 * synchronisations in a row do not toggle twice.
 *
 * A guest with a relative mouse (PS/2) gets the differences of the client's absolute positions;
 * a client in relative mode on a guest with a tablet moves a virtual position.
 */
#include "input.h"

#include <freerdp/input.h>
#include <string.h>

#include "log.h"
#include "vm.h"

#define INPUT_MAX_BATCH 64u
#define WHEEL_NOTCH 120
#define MAX_COORDINATE 65535

enum {
    QNUM_SHIFT_L = 0x2a,
    QNUM_SHIFT_R = 0x36,
    QNUM_CTRL_L = 0x1d,
    QNUM_CTRL_R = 0x9d,
    QNUM_CAPS = 0x3a,
    QNUM_NUM = 0x45,
    QNUM_SCROLL = 0x46,
    QNUM_ALTGR = 0xb8,
    QNUM_PAUSE = 0xc6,
};

struct Input {
    InputSink sink;
    void *user;
    char *layout, *subject;
    InputMap *map;
    bool map_failed;

    InputEvent batch[INPUT_MAX_BATCH];
    size_t n;

    uint8_t keys[256 / 8]; /* held, by qnum */
    uint32_t buttons;      /* held, by VmButton */
    uint32_t leds;
    bool pause_prefix;  /* E1 1D came, 45 must follow */
    uint16_t surrogate; /* high half of a pair, 0: none */
    LogLimit unmappable;

    bool absolute;
    bool have_position;
    int32_t x, y;
    uint32_t width, height;
    int32_t wheel; /* rotation not yet worth a notch */
};

Input *input_new(const char *layout, const char *subject, InputSink sink, void *user)
{
    Input *in = g_new0(Input, 1);
    in->layout = g_strdup(layout && *layout ? layout : "us");
    in->subject = g_strdup(subject);
    in->sink = sink;
    in->user = user;
    in->absolute = true;
    return in;
}

void input_free(Input *input)
{
    if (!input)
        return;
    input_map_free(input->map);
    g_free(input->layout);
    g_free(input->subject);
    g_free(input);
}

void input_flush(Input *input)
{
    if (input->n == 0)
        return;
    size_t n = input->n;
    input->n = 0;
    input->sink(input->user, input->batch, n);
}

static void push(Input *in, InputEvent event)
{
    InputEvent *last = in->n ? &in->batch[in->n - 1] : NULL;

    if (last && event.type == INPUT_ABS && last->type == INPUT_ABS) {
        *last = event;
        return;
    }
    if (last && event.type == INPUT_REL && last->type == INPUT_REL) {
        last->x = CLAMP(last->x + event.x, -MAX_COORDINATE, MAX_COORDINATE);
        last->y = CLAMP(last->y + event.y, -MAX_COORDINATE, MAX_COORDINATE);
        return;
    }
    if (in->n == INPUT_MAX_BATCH)
        input_flush(in);
    in->batch[in->n++] = event;
}

/* --- keyboard --- */

static bool key_held(const Input *in, uint8_t qnum)
{
    return in->keys[qnum / 8] & 1u << qnum % 8;
}

static void key(Input *in, uint8_t qnum, bool down)
{
    if (!down && !key_held(in, qnum))
        return;
    if (down)
        in->keys[qnum / 8] |= 1u << qnum % 8;
    else
        in->keys[qnum / 8] &= ~(1u << qnum % 8);
    push(in, (InputEvent){.type = INPUT_KEY, .code = qnum, .down = down});
}

static void tap(Input *in, uint8_t qnum)
{
    key(in, qnum, true);
    key(in, qnum, false);
}

static void release_keys(Input *in)
{
    for (unsigned qnum = 0; qnum < 256; qnum++)
        key(in, (uint8_t)qnum, false);
    in->pause_prefix = false;
    in->surrogate = 0;
}

void input_keyboard(Input *input, uint16_t flags, uint8_t code)
{
    bool down = !(flags & KBD_FLAGS_RELEASE);

    /* Pause is E1 1D 45 on press and E1 9D C5 on release: the prefix comes as a Ctrl with
     * EXTENDED1, and the rest looks like Num Lock. */
    if (flags & KBD_FLAGS_EXTENDED1) {
        input->pause_prefix = code == 0x1d;
        return;
    }
    if (input->pause_prefix) {
        input->pause_prefix = false;
        if (code == 0x45) {
            key(input, QNUM_PAUSE, down);
            return;
        }
    }
    uint8_t qnum = input_qnum(code, flags & KBD_FLAGS_EXTENDED);
    if (qnum)
        key(input, qnum, down);
}

static bool load_map(Input *in)
{
    if (in->map || in->map_failed)
        return in->map;
    GError *error = NULL;
    in->map = input_map_new(in->layout, &error);
    if (!in->map) {
        in->map_failed = true;
        log_warning(in->subject, "Unicode input is off: %s", error->message);
        g_error_free(error);
    }
    return in->map;
}

/* Types one character with a stroke of its own: the modifiers it needs are pressed, those in its
 * way are lifted, and both are put back. */
static void type_stroke(Input *in, const InputStroke *stroke)
{
    bool left = key_held(in, QNUM_SHIFT_L), right = key_held(in, QNUM_SHIFT_R);
    bool altgr = key_held(in, QNUM_ALTGR);
    bool want = stroke->shift;

    if (stroke->letter && (in->leds & VM_LED_CAPS))
        want = !want;
    if (!want) {
        key(in, QNUM_SHIFT_L, false);
        key(in, QNUM_SHIFT_R, false);
    } else if (!left && !right) {
        key(in, QNUM_SHIFT_L, true);
    }
    if (stroke->altgr != altgr)
        key(in, QNUM_ALTGR, stroke->altgr);
    tap(in, stroke->qnum);
    if (stroke->altgr != altgr)
        key(in, QNUM_ALTGR, altgr);
    if (left != key_held(in, QNUM_SHIFT_L))
        key(in, QNUM_SHIFT_L, left);
    if (right != key_held(in, QNUM_SHIFT_R))
        key(in, QNUM_SHIFT_R, right);
}

/* Ctrl and a letter arrive as one control character from clients that look it up before they send
 * it; most have pressed Ctrl as a key before. */
static void type_control(Input *in, const InputStroke *stroke)
{
    bool held = key_held(in, QNUM_CTRL_L) || key_held(in, QNUM_CTRL_R);

    if (!held)
        key(in, QNUM_CTRL_L, true);
    tap(in, stroke->qnum);
    if (!held)
        key(in, QNUM_CTRL_L, false);
}

void input_unicode(Input *input, uint16_t flags, uint16_t unit)
{
    uint32_t character = unit;
    InputStroke stroke;

    if (flags & KBD_FLAGS_RELEASE) /* the press was a whole stroke */
        return;
    if (unit >= 0xd800 && unit <= 0xdbff) {
        input->surrogate = unit;
        return;
    }
    if (unit >= 0xdc00 && unit <= 0xdfff) {
        if (!input->surrogate)
            return;
        character = 0x10000u + ((uint32_t)(input->surrogate - 0xd800) << 10) + (unit - 0xdc00u);
    }
    input->surrogate = 0;
    if (!load_map(input))
        return;
    if (input_map_find(input->map, character, &stroke))
        type_stroke(input, &stroke);
    else if (character >= 1 && character <= 26 &&
             input_map_find(input->map, 'a' - 1 + character, &stroke))
        type_control(input, &stroke);
    else if (log_limit(&input->unmappable, (uint64_t)g_get_monotonic_time(), 60000000u, 1))
        log_debug(input->subject, "the client typed a character that layout %s has no key for",
                  input->layout);
}

void input_synchronize(Input *input, uint32_t flags)
{
    static const struct {
        uint32_t sync, led;
        uint8_t qnum;
    } locks[] = {
        {KBD_SYNC_SCROLL_LOCK, VM_LED_SCROLL, QNUM_SCROLL},
        {KBD_SYNC_NUM_LOCK, VM_LED_NUM, QNUM_NUM},
        {KBD_SYNC_CAPS_LOCK, VM_LED_CAPS, QNUM_CAPS},
    };

    release_keys(input);
    for (size_t i = 0; i < G_N_ELEMENTS(locks); i++) {
        bool client = flags & locks[i].sync, guest = input->leds & locks[i].led;
        if (client == guest)
            continue;
        tap(input, locks[i].qnum);
        input->leds ^= locks[i].led;
    }
}

void input_set_leds(Input *input, uint32_t leds)
{
    input->leds = leds;
}

/* --- mouse --- */

static void button(Input *in, VmButton which, bool down)
{
    if (!down && !(in->buttons & 1u << which))
        return;
    if (down)
        in->buttons |= 1u << which;
    else
        in->buttons &= ~(1u << which);
    push(in, (InputEvent){.type = INPUT_BUTTON, .code = which, .down = down});
}

static void move_to(Input *in, int32_t x, int32_t y)
{
    int32_t dx = x - in->x, dy = y - in->y;
    bool known = in->have_position;

    if (known && dx == 0 && dy == 0)
        return;
    in->x = x;
    in->y = y;
    in->have_position = true;
    if (in->absolute)
        push(in, (InputEvent){.type = INPUT_ABS, .x = x, .y = y});
    else if (known)
        push(in, (InputEvent){.type = INPUT_REL, .x = dx, .y = dy});
}

/* 9-bit two's complement; a notch is 120, high-resolution wheels send less. */
static void wheel(Input *in, uint16_t flags)
{
    int32_t rotation = flags & WheelRotationMask;
    if (rotation & PTR_FLAGS_WHEEL_NEGATIVE)
        rotation -= 0x200;
    if ((rotation < 0) != (in->wheel < 0))
        in->wheel = 0; /* turning back starts afresh */
    in->wheel += rotation;
    while (in->wheel >= WHEEL_NOTCH || in->wheel <= -WHEEL_NOTCH) {
        VmButton which = in->wheel > 0 ? VM_BUTTON_WHEEL_UP : VM_BUTTON_WHEEL_DOWN;
        in->wheel += in->wheel > 0 ? -WHEEL_NOTCH : WHEEL_NOTCH;
        button(in, which, true);
        button(in, which, false);
    }
}

static void plain_buttons(Input *in, uint16_t flags)
{
    bool down = flags & PTR_FLAGS_DOWN;
    if (flags & PTR_FLAGS_BUTTON1)
        button(in, VM_BUTTON_LEFT, down);
    if (flags & PTR_FLAGS_BUTTON2)
        button(in, VM_BUTTON_RIGHT, down);
    if (flags & PTR_FLAGS_BUTTON3)
        button(in, VM_BUTTON_MIDDLE, down);
}

static void extended_buttons(Input *in, uint16_t flags)
{
    bool down = flags & PTR_XFLAGS_DOWN;
    if (flags & PTR_XFLAGS_BUTTON1)
        button(in, VM_BUTTON_SIDE, down);
    if (flags & PTR_XFLAGS_BUTTON2)
        button(in, VM_BUTTON_EXTRA, down);
}

void input_mouse(Input *input, uint16_t flags, uint16_t x, uint16_t y)
{
    if (flags & PTR_FLAGS_WHEEL) { /* its position is not valid */
        wheel(input, flags);
        return;
    }
    if (flags & PTR_FLAGS_HWHEEL) /* QEMU's D-Bus display has no such button */
        return;
    move_to(input, x, y);
    plain_buttons(input, flags);
}

void input_mouse_extended(Input *input, uint16_t flags, uint16_t x, uint16_t y)
{
    move_to(input, x, y);
    extended_buttons(input, flags);
}

void input_mouse_relative(Input *input, uint16_t flags, int16_t dx, int16_t dy)
{
    if (!input->absolute) {
        if (dx || dy)
            push(input, (InputEvent){.type = INPUT_REL, .x = dx, .y = dy});
    } else {
        int32_t right = input->width ? (int32_t)input->width - 1 : MAX_COORDINATE;
        int32_t bottom = input->height ? (int32_t)input->height - 1 : MAX_COORDINATE;
        move_to(input, CLAMP(input->x + dx, 0, right), CLAMP(input->y + dy, 0, bottom));
    }
    /* The flags of both kinds of button, which overlap in nothing but PTR_FLAGS_DOWN. */
    plain_buttons(input, flags);
    extended_buttons(input, flags);
}

void input_set_absolute(Input *input, bool absolute)
{
    if (absolute != input->absolute)
        input->have_position = false;
    input->absolute = absolute;
}

void input_set_size(Input *input, uint32_t width, uint32_t height)
{
    input->width = width;
    input->height = height;
}

void input_release_all(Input *input)
{
    release_keys(input);
    for (unsigned which = 0; which < 32; which++)
        button(input, (VmButton)which, false);
    input_flush(input);
}
