/*
 * The one place where bounds of what an operator asks for are checked.
 *
 * cmdline.c fills a Config in and knows option names; this file knows values. After config_check()
 * nobody has to doubt a number or a file again, except for what can change behind our back: files
 * are opened later and report their own errors then.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "usb.h"

#define MAX_HOST 255u       /* a DNS name */
#define BOOT_AFTER_ALL 1000 /* people count devices from 0 or 1 */
#define MAX_KEYMAP 64u      /* "us", "de(nodeadkeys)", "us,ru" */

Config *config_new(ConfigMode mode)
{
    Config *config = g_new0(Config, 1);
    config->mode = mode;
    config->usb_slots = CONFIG_DEFAULT_USB_SLOTS;
    config->usb_boot = CONFIG_USB_BOOT_AUTO;
    config->usb_grace = CONFIG_DEFAULT_USB_GRACE;
    config->stall_seconds = CONFIG_DEFAULT_STALL_SECONDS;
    config->sandbox = true;
    config->keymap = g_strdup("us");
    config->log_level = LOG_LEVEL_INFO;
    return config;
}

void config_free(Config *config)
{
    if (!config)
        return;
    g_strfreev(config->qemu_argv);
    g_free(config->qmp_path);
    g_free(config->dbus_address);
    g_strfreev(config->listen);
    g_free(config->cert_path);
    g_free(config->key_path);
    g_free(config->auth_file);
    g_free(config->run_dir);
    g_free(config->keymap);
    g_free(config->usb_policy);
    g_strfreev(config->words);
    g_free(config);
}

bool config_split_address(const char *text, char **host, guint16 *port)
{
    const char *start = text, *end, *colon;
    if (*text == '[') {
        start = text + 1;
        end = strchr(start, ']');
        if (!end || end[1] != ':' || end == start)
            return false;
        colon = end + 1;
    } else {
        colon = end = strchr(text, ':');
        if (!colon || strchr(colon + 1, ':'))
            return false; /* an IPv6 address needs its brackets */
    }
    guint64 value;
    if ((size_t)(end - start) > MAX_HOST ||
        !g_ascii_string_to_unsigned(colon + 1, 10, 0, 65535, &value, NULL))
        return false;
    for (const char *c = start; c < end; c++)
        if (g_ascii_isspace(*c) || g_ascii_iscntrl(*c))
            return false;
    *host = g_strndup(start, (gsize)(end - start));
    *port = (guint16)value;
    return true;
}

static bool check_listen(const char *text, GError **error)
{
    if (g_str_has_prefix(text, "unix:")) {
        size_t len = strlen(text + 5);
        if (text[5] == '/' && len < sizeof(((struct sockaddr_un *)NULL)->sun_path))
            return true;
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "--listen=%s: write an absolute socket path of at most %zu bytes after 'unix:'",
                    text, sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1);
        return false;
    }
    g_autofree char *host = NULL;
    guint16 port;
    if (config_split_address(text, &host, &port))
        return true;
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                "--listen=%s: write ADDRESS:PORT with a port up to 65535, for example "
                "127.0.0.1:3389, [::1]:3389 or :3389 for every address",
                text);
    return false;
}

static bool check_readable(const char *option, const char *path, GError **error)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int saved = errno;
    bool regular = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    if (fd >= 0)
        close(fd);
    if (regular)
        return true;
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                "%s=%s cannot be read (%s): name a PEM file that uid %u may read", option, path,
                fd < 0 ? g_strerror(saved) : "not a regular file", (unsigned)geteuid());
    return false;
}

static bool check_certificate(const Config *config, GError **error)
{
    if (!config->cert_path != !config->key_path) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "--cert and --key belong together: give %s too, or neither to have a "
                    "certificate made",
                    config->cert_path ? "--key=FILE" : "--cert=FILE");
        return false;
    }
    return !config->cert_path || (check_readable("--cert", config->cert_path, error) &&
                                  check_readable("--key", config->key_path, error));
}

static bool check_keymap(const char *keymap, GError **error)
{
    size_t len = strlen(keymap);
    if (len >= 1 && len <= MAX_KEYMAP &&
        strspn(keymap, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-(),+") ==
            len)
        return true;
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                "--keymap=%s is not a keyboard layout: use an xkb name such as us, de or "
                "'de(nodeadkeys)'",
                keymap);
    return false;
}

/** A socket that is not there yet will be waited for; a file never becomes one. */
static bool check_qmp(const char *path, GError **error)
{
    struct stat st;
    if (!path)
        return true;
    if (strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "--qmp=%s is too long for a socket: use a path of at most %zu bytes", path,
                    sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1);
        return false;
    }
    if (stat(path, &st) < 0 || S_ISSOCK(st.st_mode))
        return true;
    g_set_error(
        error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
        "--qmp=%s is not a socket: give the PATH of QEMU's -qmp unix:PATH,server=on,wait=off",
        path);
    return false;
}

static bool check_numbers(const Config *config, GError **error)
{
    if (config->usb_slots > CONFIG_MAX_USB_SLOTS) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "--usb-slots=%u: give a number from 0 to %u", config->usb_slots,
                    CONFIG_MAX_USB_SLOTS);
        return false;
    }
    if (config->usb_boot > CONFIG_MAX_USB_BOOT) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "--usb-boot=%d: give a bootindex from 0 to %d, or off", config->usb_boot,
                    CONFIG_MAX_USB_BOOT);
        return false;
    }
    if (config->usb_grace > CONFIG_MAX_USB_GRACE) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "--usb-grace=%u: give a number of seconds from 0 (off) to %u",
                    config->usb_grace, CONFIG_MAX_USB_GRACE);
        return false;
    }
    if (config->stall_seconds < 1 || config->stall_seconds > CONFIG_MAX_STALL_SECONDS) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "--stall-seconds=%u: give a number from 1 to %u", config->stall_seconds,
                    CONFIG_MAX_STALL_SECONDS);
        return false;
    }
    return true;
}

static bool check_serving(const Config *config, GError **error)
{
    guint n = config->listen ? g_strv_length(config->listen) : 0;
    if (n > CONFIG_MAX_LISTENERS) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "%u times --listen are too many: give at most %u", n, CONFIG_MAX_LISTENERS);
        return false;
    }
    for (guint i = 0; i < n; i++)
        if (!check_listen(config->listen[i], error))
            return false;
    const char *why = NULL;
    UsbPolicy *policy = usb_policy_new(config->usb_policy, &why);
    if (!policy) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "--usb-policy=%s: write rules as CLASS,VID,PID,VERSION,ALLOW joined by '|', "
                    "with -1 for any, for example '0x08,-1,-1,-1,1|-1,-1,-1,-1,0'",
                    config->usb_policy ? config->usb_policy : "");
        return false;
    }
    usb_policy_free(policy);
    return check_qmp(config->qmp_path, error) && check_numbers(config, error) &&
           check_keymap(config->keymap, error) && check_certificate(config, error);
}

bool config_check(const Config *config, GError **error)
{
    switch (config->mode) {
    case CONFIG_RUN:
    case CONFIG_QMP:
    case CONFIG_BUS:
        return check_serving(config, error);
    case CONFIG_STATUS:
    case CONFIG_USB:
    case CONFIG_PASSWD:
    case CONFIG_PRINT_CAPABILITIES:
        return true;
    }
    g_assert_not_reached();
}

/* A bootindex is not only an order. Once anything has one, OVMF starts nothing but what has, and
 * SeaBIOS tries all that has before all that has not: given to slots alone, it would hide the
 * machine's disks or put every stick before them. So a machine whose command orders nothing is left
 * to its firmware, which tries sticks by itself; in one that does, slots come last, because without
 * an index OVMF would never look at them. */
void config_settle_usb_boot(Config *config)
{
    if (config->usb_boot != CONFIG_USB_BOOT_AUTO)
        return;
    config->usb_boot = CONFIG_USB_BOOT_OFF;
    for (char **word = config->qemu_argv; word && *word; word++)
        if (strstr(*word, "bootindex"))
            config->usb_boot = BOOT_AFTER_ALL;
}

char *config_waiting_text(const Config *config)
{
    if (config->mode == CONFIG_RUN)
        return g_strdup("waiting for QEMU to start");
    if (config->mode == CONFIG_BUS)
        return g_strdup("waiting for QEMU to come to the message bus");
    return g_strdup_printf("waiting for QEMU at %s (start it with -qmp unix:%s,server=on,wait=off "
                           "-display dbus,p2p=yes)",
                           config->qmp_path, config->qmp_path);
}

char *config_run_base(void)
{
    const char *runtime = g_getenv("XDG_RUNTIME_DIR");
    if (runtime && g_path_is_absolute(runtime))
        return g_build_filename(runtime, "qrdp", NULL);
    if (geteuid() == 0)
        return g_strdup("/run/qrdp");
    return g_strdup_printf("/tmp/qrdp-%u", (unsigned)geteuid());
}
