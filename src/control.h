/*
 * The control socket: how `qrdp status` and `qrdp usb` reach a running qrdp.
 *
 * A unix socket "control" of mode 0600 in a directory of mode 0700; the other side must have our
 * uid or be root. One request per connection: words separated by one space, ended by a newline.
 * The answer is a line "ok" or "error", then text until the end of the stream.
 *
 * Owner: main.c. Thread: main. Lifetime: control_free() removes the socket.
 */
#ifndef QRDP_CONTROL_H
#define QRDP_CONTROL_H

#include <gio/gio.h>
#include <stdbool.h>

#define CONTROL_MAX_REQUEST 4096u
#define CONTROL_MAX_ANSWER (4u << 20)
#define CONTROL_MAX_CLIENTS 16u
#define CONTROL_DEADLINE_MS 5000u /* for a whole request, asked and answered */

typedef struct Control Control;

/** @words (NULL-terminated, at least one) is borrowed; the answer's text is g_free()d by us. */
typedef char *(*ControlHandler)(void *user, char **words, bool *ok);

/** Makes @path a directory that only we can enter, with its parents. Refuses one that belongs to
 * somebody else or that others may write to. */
bool control_make_dir(const char *path, GError **error);
/** Listens on @dir/control. @dir exists (control_make_dir()). Refuses when another qrdp answers
 * there; a socket that nobody serves any more is replaced. */
Control *control_new(const char *dir, ControlHandler handler, void *user, GError **error);
/** Removes the socket, and the directory if nothing else is in it. */
void control_free(Control *control);

/** What `qrdp status` and `qrdp usb` are to the handler above: "status", "status json", "usb ...".
 * Blocks for at most CONTROL_DEADLINE_MS. NULL and *error when nobody answered. */
char *control_call(const char *dir, char **words, bool *ok, GError **error);
/** The directories inside @base in which a qrdp answers; those of dead ones are removed. */
GPtrArray *control_list(const char *base);

#endif
