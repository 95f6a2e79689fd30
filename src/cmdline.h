/*
 * argv -> Config.
 *
 * Options may stand before or after the command (libvirt writes --dbus-address before `serve`), and
 * take their value after '=' or as the next word. Thread: main, before anything else runs.
 */
#ifndef QRDP_CMDLINE_H
#define QRDP_CMDLINE_H

#include "config.h"

/** The Config that @argv asks for, already checked with config_check(); the caller frees it.
 * NULL with *text set (g_free): print that on stdout and exit 0 (--help, --version).
 * NULL with *error set: one sentence that says what to do; exit 2. */
Config *cmdline_parse(int argc, char **argv, char **text, GError **error);

#endif
