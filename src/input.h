/*
 * Input events of one client on their way to the guest.
 *
 * The peer's thread turns RDP events into InputEvents (input.c, no FreeRDP call, only its flag
 * values) and posts them to main, which hands them to the Vm in order. The set of held keys and
 * buttons lives on the peer's side, so that they are released when the client goes away.
 */
#ifndef QRDP_INPUT_H
#define QRDP_INPUT_H

#include <stdbool.h>
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

#endif
