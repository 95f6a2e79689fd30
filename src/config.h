/*
 * What the operator asked for. Owner: main; immutable once parsed, shared by pointer with every
 * thread for the life of the process.
 */
#ifndef QRDP_CONFIG_H
#define QRDP_CONFIG_H

#include <glib.h>
#include <stdbool.h>

#include "log.h"

typedef enum ConfigMode {
    CONFIG_RUN,    /* qrdp run -- qemu-system-x86_64 ARGS... */
    CONFIG_QMP,    /* qrdp serve --qmp=PATH */
    CONFIG_BUS,    /* qrdp --dbus-address=ADDR serve ..., as libvirt starts it */
    CONFIG_STATUS, /* qrdp status */
    CONFIG_USB,    /* qrdp usb list|allow|deny|detach */
    CONFIG_PASSWD, /* qrdp passwd USER */
    CONFIG_PRINT_CAPABILITIES,
} ConfigMode;

#define CONFIG_MAX_LISTENERS 8u
#define CONFIG_MAX_USB_SLOTS 28u
#define CONFIG_USB_BOOT_AUTO (-2)
#define CONFIG_USB_BOOT_OFF (-1)
#define CONFIG_MAX_USB_BOOT 100000

typedef struct Config {
    ConfigMode mode;
    char **qemu_argv;   /* RUN */
    char *qmp_path;     /* QMP */
    char *dbus_address; /* BUS */
    char **listen;      /* "127.0.0.1:3389", "[::1]:0", ":3389", "unix:/path"; at least one */
    char *cert_path;    /* PEM; NULL: made on first start in the state directory */
    char *key_path;
    char *auth_file;    /* credential store (auth.h); NULL: <state dir>/credentials */
    char *run_dir;      /* control socket; NULL: $XDG_RUNTIME_DIR/qrdp or /run/qrdp */
    bool share;         /* a second client watches and types along instead of taking over */
    bool tls_only;      /* offer TLS with the password in the client info besides NLA */
    char *keymap;       /* guest keyboard layout for Unicode input, xkb name, default "us" */
    char *usb_policy;   /* usbredirfilter rules or NULL */
    unsigned usb_slots; /* RUN: slots plugged at start, 0..28, default 4 */
    int usb_boot;       /* bootindex of the first slot, or one of CONFIG_USB_BOOT_* */
    unsigned usb_grace; /* seconds that a device waits for its client, 0: none, default 10 */
    bool usb_as_is;     /* no device is shown at another speed than its own */
    bool host_usb;      /* devices of this host may be opened; without a sandbox always (main) */
    bool sandbox;       /* confine the process (sandbox.h), default true */
    unsigned stall_seconds; /* a client that stops reading is cut off after this, default 20 */
    bool print_ready;       /* "READY rdp=ADDR:PORT" on stdout once clients can connect */
    bool json;              /* STATUS */
    char **words;           /* USB: verb and arguments; PASSWD: user name */
    bool remove;            /* PASSWD: forget the user */
    LogLevel log_level;
} Config;

#define CONFIG_DEFAULT_LISTEN "127.0.0.1:3389"
#define CONFIG_DEFAULT_USB_SLOTS 4u
#define CONFIG_DEFAULT_USB_GRACE 10u
#define CONFIG_MAX_USB_GRACE 600u
#define CONFIG_DEFAULT_STALL_SECONDS 20u
#define CONFIG_MAX_STALL_SECONDS 3600u

/** A Config with its defaults; @mode decides which of them apply. */
Config *config_new(ConfigMode mode);
void config_free(Config *config);
/** Checks every value against its bounds and every file against the disk. One sentence that says
 * what to do in @error. */
bool config_check(const Config *config, GError **error);
/** Takes "HOST:PORT", "[v6]:PORT" or ":PORT" apart. *host (g_free) is "" for every address. False
 * for anything else, "unix:PATH" included. */
bool config_split_address(const char *text, char **host, guint16 *port);
/** What is waited for as long as there is no machine: "waiting for QEMU at ...". g_free() it. */
char *config_waiting_text(const Config *config);
/** Decides .usb_boot if it is left to us: after that it is an index, or off. */
void config_settle_usb_boot(Config *config);
/** $XDG_RUNTIME_DIR/qrdp, or /run/qrdp for root without one; each instance has a directory of its
 * own in it. Free with g_free(). */
char *config_run_base(void);

#endif
