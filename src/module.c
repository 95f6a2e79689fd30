#include "module.h"

#include <dlfcn.h>
#include <glib.h>

typedef const uint32_t *(*Get)(void);

static void *load(const char *name, const char *library, char **why)
{
    const char *named = g_getenv("QRDP_MODULE_DIR");
    g_autofree char *program = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *beside = program ? g_path_get_dirname(program) : NULL;
    g_autofree char *file = g_strconcat(name, ".so", NULL);
    const char *folders[] = {named, beside, QRDP_MODULE_DIR};

    for (size_t i = 0; i < G_N_ELEMENTS(folders); i++) {
        if (!folders[i])
            continue;
        g_autofree char *path = g_build_filename(folders[i], file, NULL);
        if (!g_file_test(path, G_FILE_TEST_EXISTS))
            continue;
        void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!module)
            *why = g_strdup_printf("%s; install %s", dlerror(), library);
        return module;
    }
    *why = g_strdup_printf("%s is not in %s: build qrdp with %s-dev installed", file,
                           QRDP_MODULE_DIR, library);
    return NULL;
}

const void *module_open(const char *name, const char *get, uint32_t abi, const char *library,
                        char **why)
{
    void *module = load(name, library, why);
    Get function = NULL;

    if (!module)
        return NULL;
    *(void **)&function = dlsym(module, get);
    const uint32_t *offered = function ? function() : NULL;
    if (offered && *offered == abi)
        return offered;
    *why = g_strdup_printf("%s.so belongs to another version of qrdp", name);
    return NULL;
}
