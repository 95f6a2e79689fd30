/*
 * What the viewers of ./dev bench display share: a program that shows nothing, but knows when which
 * frame of the guest's scene was in its decoded picture (viewer.c). Each protocol is one small file
 * beside it (rdp_viewer.c, vnc_viewer.c, spice_viewer.c, dbus_viewer.c) that decodes into memory.
 *
 * One thread, GLib's default main context: everything is called on it.
 */
#ifndef QRDP_BENCH_VIEWER_H
#define QRDP_BENCH_VIEWER_H

#include <stdbool.h>
#include <stdint.h>

/* The picture is here from now on, until the next call: rows of stride bytes, pixels B, G, R,
 * unused. */
void viewer_picture(const void *pixels, unsigned width, unsigned height, unsigned stride);
/* Something of it has changed. whole: the protocol says that this is the end of an update. */
void viewer_changed(bool whole);
/* Answers commands on standard input until it ends. key: presses or releases a key of the guest,
 * any one. */
void viewer_run(void (*key)(bool down));
/* Ends the program: what has failed, and why. */
_Noreturn void viewer_fail(const char *what, const char *why);

#endif
