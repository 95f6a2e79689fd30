/* Modules of qrdp's that are loaded at run time. Thread: any. */
#ifndef QRDP_MODULE_H
#define QRDP_MODULE_H

#include <stdint.h>

/** Loads NAME.so for the process's life from $QRDP_MODULE_DIR, from beside the program (a build
 * tree) or from where it is installed, and calls its function @get, which returns what it offers: a
 * static structure that begins with a version, @abi. NULL and a reason in *@why (g_free());
 * @library: the package that the module needs. */
const void *module_open(const char *name, const char *get, uint32_t abi, const char *library,
                        char **why);

#endif
