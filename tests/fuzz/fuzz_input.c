/*
 * Input PDUs of a client, in any order and with any flags. The guest must never see a key or button
 * that stays down once everything was released, or a key it has no number for.
 */
#include <assert.h>

#include "bytes.h"
#include "input.h"
#include "log.h"
#include "vm.h"

#define MAX_SIDE 8192u

typedef struct Guest {
    bool keys[256], buttons[VM_BUTTON_EXTRA + 1];
    uint32_t width, height;
} Guest;

static void on_events(void *user, const InputEvent *events, size_t n)
{
    Guest *guest = user;

    for (size_t i = 0; i < n; i++) {
        const InputEvent *e = &events[i];
        switch (e->type) {
        case INPUT_KEY:
            assert(e->code > 0 && e->code < 256);
            guest->keys[e->code] = e->down;
            break;
        case INPUT_BUTTON:
            assert(e->code <= VM_BUTTON_EXTRA);
            guest->buttons[e->code] = e->down;
            break;
        case INPUT_ABS: /* the screen may have been another when the client sent it: vm.c clamps */
            assert(e->x >= 0 && e->y >= 0 && e->x <= UINT16_MAX && e->y <= UINT16_MAX);
            break;
        case INPUT_REL:
            break;
        }
    }
}

static void step(Input *input, Reader *r)
{
    uint8_t op = reader_u8(r);
    uint16_t flags = reader_u16(r), a = reader_u16(r), b = op & 0x80 ? reader_u16(r) : 7;

    switch (op % 9) {
    case 0:
        input_keyboard(input, flags, (uint8_t)a);
        break;
    case 1:
        input_unicode(input, flags, a);
        break;
    case 2:
        input_mouse(input, flags, a, b);
        break;
    case 3:
        input_mouse_extended(input, flags, a, b);
        break;
    case 4:
        input_mouse_relative(input, flags, (int16_t)a, (int16_t)b);
        break;
    case 5:
        input_synchronize(input, flags | (uint32_t)a << 16);
        break;
    case 6:
        input_set_leds(input, flags);
        input_set_absolute(input, a & 1);
        break;
    case 7:
        input_set_size(input, 1 + flags % MAX_SIDE, 1 + a % MAX_SIDE);
        break;
    default:
        input_flush(input);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const layouts[] = {"us", "de"};
    Guest guest = {0};
    Reader r;

    if (size < 1 || size > 4096)
        return 0;
    log_set_level(LOG_LEVEL_ERROR);
    reader_init(&r, data, size);
    Input *input = input_new(layouts[reader_u8(&r) & 1], "fuzzer", on_events, &guest);
    input_set_size(input, 1024, 768);
    while (reader_left(&r) > 0)
        step(input, &r);
    input_release_all(input);
    for (unsigned i = 0; i < 256; i++)
        assert(!guest.keys[i]);
    for (unsigned i = 0; i <= VM_BUTTON_EXTRA; i++)
        assert(!guest.buttons[i] || i == VM_BUTTON_WHEEL_UP || i == VM_BUTTON_WHEEL_DOWN);
    input_free(input);
    return 0;
}
