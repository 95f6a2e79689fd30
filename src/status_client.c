#include "status_client.h"

#include <stdio.h>
#include <string.h>

#include "control.h"
#include "helper_bus.h"

#define ATTACH_SECONDS 30 /* for a device to be read, to be given a slot and to be claimed */
#define ATTACH_POLL_US 50000

static char **make_request(const Config *config)
{
    GPtrArray *words = g_ptr_array_new();
    g_ptr_array_add(words, g_strdup(config->mode == CONFIG_USB ? "usb" : "status"));
    if (config->mode == CONFIG_STATUS && config->json)
        g_ptr_array_add(words, g_strdup("json"));
    for (guint i = 0; config->words && config->words[i]; i++)
        g_ptr_array_add(words, g_strdup(config->words[i]));
    g_ptr_array_add(words, NULL);
    return (char **)g_ptr_array_free(words, FALSE);
}

/** What the qrdp of @dir says first: its machine, and where it listens. */
static char *describe(const char *dir)
{
    static const char machine[] = "vm:        ", place[] = "listening: ";
    char *words[] = {(char *)"status", NULL};
    bool ok = false;
    g_autofree char *text = control_call(dir, words, &ok, NULL);
    g_auto(GStrv) lines = g_strsplit(text ? text : "", "\n", 3);
    if (!ok || g_strv_length(lines) < 2 || !g_str_has_prefix(lines[0], machine) ||
        !g_str_has_prefix(lines[1], place))
        return g_strdup("it does not answer");
    return g_strdup_printf("%s, at %s", lines[0] + strlen(machine), lines[1] + strlen(place));
}

/** The directory of the one qrdp that runs, or NULL and which to choose from. */
static char *find_dir(GError **error)
{
    g_autofree char *base = config_run_base();
    g_autoptr(GPtrArray) found = control_list(base);
    if (found->len == 1)
        return g_strdup(g_ptr_array_index(found, 0));
    if (found->len == 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                    "No qrdp runs in %s: give --run-dir=DIR, or --dbus-address=ADDR for one that "
                    "libvirt started",
                    base);
        return NULL;
    }
    GString *names = g_string_new(NULL);
    for (guint i = 0; i < found->len; i++) {
        const char *dir = g_ptr_array_index(found, i);
        g_autofree char *described = describe(dir);
        g_string_append_printf(names, "\n  --run-dir=%s  %s", dir, described);
    }
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_EXISTS, "%u qrdp run, name one of them:%s",
                found->len, names->str);
    g_string_free(names, TRUE);
    return NULL;
}

static char *ask(const Config *config, char **words, bool *ok, GError **error)
{
    if (config->dbus_address)
        return helper_bus_call(config->dbus_address, words, ok, error);
    g_autofree char *dir = config->run_dir ? g_strdup(config->run_dir) : find_dir(error);
    return dir ? control_call(dir, words, ok, error) : NULL;
}

/** qrdp has begun to attach the device that @text starts with: waits for the outcome. @text is
 * exchanged for the device's line, without number and columns if it was not attached. */
static bool wait_attached(const Config *config, char **text, GError **error)
{
    static const char *const still[] = {"probing", "waiting", "attaching", NULL};
    g_autofree char *number = g_strndup(*text, strcspn(*text, " "));
    char *words[] = {(char *)"usb", (char *)"show", number, NULL};
    gint64 deadline = g_get_monotonic_time() + ATTACH_SECONDS * G_USEC_PER_SEC;
    bool ok = true;
    for (;;) {
        g_autofree char *row = ask(config, words, &ok, error);
        char state[16] = "";
        int rest = 0;
        if (!row) {
            g_clear_pointer(text, g_free);
            return false;
        }
        sscanf(row, "%*s %15s %n", state, &rest);
        bool done = !ok || !g_strv_contains(still, state) || g_get_monotonic_time() > deadline;
        if (done) {
            bool attached = ok && strcmp(state, "connected") == 0;
            g_free(*text);
            *text = attached || !ok ? g_steal_pointer(&row)
                                    : g_strdup_printf("%s: %s", state, row + rest);
            return attached;
        }
        g_usleep(ATTACH_POLL_US);
    }
}

int status_client_run(const Config *config)
{
    bool ok = false;
    g_autoptr(GError) error = NULL;
    g_auto(GStrv) words = make_request(config);
    g_autofree char *text = ask(config, words, &ok, &error);
    if (ok && config->mode == CONFIG_USB && strcmp(config->words[0], "attach") == 0)
        ok = wait_attached(config, &text, &error);
    if (!text) {
        fprintf(stderr, "qrdp: %s\n", error->message);
        return 1;
    }
    if (!ok)
        fputs("qrdp: ", stderr);
    fputs(text, ok ? stdout : stderr);
    return ok ? 0 : 1;
}
