/*
 * The D-Bus display of a QEMU that does what a test says, over a socketpair.
 *
 * It runs in a thread of its own, like the real one in its process, so that a vm that blocks
 * inside a call deadlocks here too. Functions may be called from the test's thread.
 */
#ifndef QRDP_TESTS_FAKE_QEMU_H
#define QRDP_TESTS_FAKE_QEMU_H

#include <gio/gio.h>
#include <stdbool.h>

typedef struct FakeQemu FakeQemu;

/** With console 0 (text), console 1 (graphic) and two redirection chardevs, charredir0 and 1. */
FakeQemu *fake_qemu_new(void);
/** Closes every connection, as a killed QEMU does. */
void fake_qemu_free(FakeQemu *fake);
/** The client's end (a reference). */
GDBusConnection *fake_qemu_connection(FakeQemu *fake);

/** The number of listeners registered so far, and whether the last one offers Unix.Map. */
unsigned fake_qemu_listeners(FakeQemu *fake, bool *map);
/** Calls the listener; @method "Iface.Method" below org.qemu.Display1. Waits for the reply if
 * @wait.
 * @fd: passed along or -1, not taken. */
bool fake_qemu_call(FakeQemu *fake, const char *method, GVariant *parameters, int fd, bool wait);
/** Closes the listener's connection only. */
void fake_qemu_drop_listener(FakeQemu *fake);
/** Changes a property of the graphic console's object and says so; @interface "Mouse". */
void fake_qemu_set_property(FakeQemu *fake, const char *interface, const char *name,
                            GVariant *value);
/** All input calls so far, "Keyboard.Press(30) ..."; free with g_free(). */
char *fake_qemu_input(FakeQemu *fake);
/** What SetUIInfo answers from now on. */
void fake_qemu_support_ui_info(FakeQemu *fake, bool supported);
unsigned fake_qemu_ui_infos(FakeQemu *fake);
/** Who is attached to charredir@n: the descriptor (not the caller's) or -1. */
int fake_qemu_slot_fd(FakeQemu *fake, unsigned n);
/** QEMU's end of slot @n is closed: it can be registered again. */
void fake_qemu_drop_slot(FakeQemu *fake, unsigned n);
/** How often Register was refused because the slot was taken. */
unsigned fake_qemu_refusals(FakeQemu *fake);

#endif
