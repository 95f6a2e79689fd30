/*
 * Names and passwords, as a client's login or libvirt's SetCredentials brings them, and addresses
 * and USB policies as they are typed. The first byte chooses.
 */
#include <assert.h>
#include <gio/gio.h>
#include <string.h>

#include "auth.h"
#include "config.h"
#include "log.h"
#include "usb.h"

static void login(const char *name, const char *password, const char *other)
{
    GError *error = NULL;
    Auth *auth = auth_new(NULL, &error);

    assert(auth);
    bool set = auth_set_password(auth, name, password, &error);
    assert(set == !error);
    assert(auth_is_empty(auth) == !set);
    g_clear_error(&error);
    AuthSnapshot *users = auth_snapshot(auth);
    if (set) {
        assert(auth_snapshot_verify(users, name, password));
        assert(strlen(other) == 0 || strcmp(other, password) == 0 ||
               !auth_snapshot_verify(users, name, other) || !g_utf8_validate(other, -1, NULL));
    }
    bool known = auth_snapshot_verify(users, other, password);
    assert(!known || (set && (!*name || strcmp(name, other) == 0)));
    auth_snapshot_unref(users);
    auth_free(auth);
}

static void typed(const char *text)
{
    char *host = NULL;
    guint16 port;
    const char *why = NULL;

    if (config_split_address(text, &host, &port))
        assert(host && strlen(host) <= 255);
    g_free(host);
    UsbPolicy *policy = usb_policy_new(text, &why);
    assert(!policy == !!why);
    usb_policy_free(policy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 4096)
        return 0;
    log_set_level(LOG_LEVEL_ERROR);
    /* Three strings with NULs between. */
    char *text = g_strndup((const char *)data + 1, size - 1);
    char *all = g_malloc0(size + 2);
    memcpy(all, data + 1, size - 1);
    const char *second = all + strlen(all) + ((size_t)strlen(all) < size - 1);
    const char *third =
        second + strlen(second) + ((size_t)(second - all) + strlen(second) < size - 1);
    if (data[0] & 1)
        typed(text);
    else
        login(all, second, third);
    g_free(all);
    g_free(text);
    return 0;
}
