/*
 * Input events of one client on their way to the guest.
 *
 * The peer's thread turns RDP events into InputEvents (no FreeRDP call, only its flag values) and
 * posts them to main, which hands them to the Vm in order. The set of held keys and buttons lives
 * on the peer's side, so that they are released when the client goes away.
 */
#ifndef QRDP_INPUT_H
#define QRDP_INPUT_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum InputEventType {
    INPUT_KEY,    /* code = qnum, down */
    INPUT_ABS,    /* x, y in guest pixels */
    INPUT_REL,    /* x, y deltas */
    INPUT_BUTTON, /* code = VmButton, down */
} InputEventType;

typedef struct InputEvent {
    InputEventType type;
    bool down;
    uint32_t code;
    int32_t x, y;
} InputEvent;

/* --- input_map.c: tables, no state --- */

/** Which key, with which modifiers, types a character on the guest's layout. Immutable. */
typedef struct InputMap InputMap;

typedef struct InputStroke {
    uint8_t qnum;
    bool shift, altgr;
    bool letter; /* Caps Lock inverts Shift for it */
} InputStroke;

/** @layout: "us", "de", "fr(oss)": an xkb layout, with the variant in parentheses. NULL, and a
 * sentence in @error, if xkb does not know it. */
InputMap *input_map_new(const char *layout, GError **error);
void input_map_free(InputMap *map);
/** False if no single stroke types @character (UCS-4). */
bool input_map_find(const InputMap *map, uint32_t character, InputStroke *stroke);
/** QEMU's key number of an RDP scancode; 0 if there is none. */
uint8_t input_qnum(uint8_t code, bool extended);

/* --- input.c: one client; owner: the Peer, thread: the peer's --- */

typedef struct Input Input;

/** Events in order, borrowed for the call. */
typedef void (*InputSink)(void *user, const InputEvent *events, size_t n);

/** @layout as for input_map_new(), which is called when the first Unicode event arrives. */
Input *input_new(const char *layout, const char *subject, InputSink sink, void *user);
/** Releases nothing: call input_release_all() before. */
void input_free(Input *input);

/* What the guest has now. */
void input_set_leds(Input *input, uint32_t leds);
void input_set_absolute(Input *input, bool absolute);
void input_set_size(Input *input, uint32_t width, uint32_t height);

/* RDP events with their flags (MS-RDPBCGR 2.2.8.1.1.3.1.1). They are collected; motion is merged
 * with the motion event before it, never across anything else. */
void input_keyboard(Input *input, uint16_t flags, uint8_t code);
void input_unicode(Input *input, uint16_t flags, uint16_t unit);
void input_mouse(Input *input, uint16_t flags, uint16_t x, uint16_t y);
void input_mouse_extended(Input *input, uint16_t flags, uint16_t x, uint16_t y);
void input_mouse_relative(Input *input, uint16_t flags, int16_t dx, int16_t dy);
/** The client's lock keys, which are those of KBD_SYNC_*: releases every key, then toggles the lock
 * keys that differ in the guest. */
void input_synchronize(Input *input, uint32_t flags);

/** Hands what was collected to the sink: once per wake-up of the peer's loop. */
void input_flush(Input *input);
/** Releases every held key and button and flushes. */
void input_release_all(Input *input);

#endif
