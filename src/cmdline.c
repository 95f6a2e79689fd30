/*
 * One table of options, one of commands.
 *
 * Every option names the commands it belongs to, so that "not an option of this command" and
 * "no such option" are told apart, and help is made from the same rows. The command is known only
 * after the whole line was read (global options may come first), so the first pass collects option
 * rows with their values and the second applies them. GOption is not used: it allows neither the
 * check per command nor a useful sentence for a misspelt option.
 */
#include "cmdline.h"

#include <gio/gio.h>
#include <string.h>

#define ERR(error, ...) g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, __VA_ARGS__)

#define MAX_ARGS 4096

enum { /* bits of Option.commands, in the order of the command table */
       IN_RUN = 1u << 0,
       IN_SERVE = 1u << 1,
       IN_STATUS = 1u << 2,
       IN_USB = 1u << 3,
       IN_PASSWD = 1u << 4,
       IN_SERVERS = IN_RUN | IN_SERVE,
       IN_CLIENTS = IN_STATUS | IN_USB,
       IN_ALL = IN_SERVERS | IN_CLIENTS | IN_PASSWD,
};

typedef struct Command {
    const char *name;
    const char *usage;
    const char *help;
} Command;

static const Command commands[] = {
    {"run", "[OPTIONS] -- qemu-system-x86_64 ARGS...",
     "Start a virtual machine and serve its console. The machine ends with qrdp and qrdp with it."},
    {"serve", "(--qmp=PATH | --dbus-address=ADDR) [OPTIONS]",
     "Attach to a virtual machine that runs already with -display dbus,p2p=yes (--qmp), or wait "
     "for "
     "one on a message bus (--dbus-address; libvirt starts qrdp like this)."},
    {"status", "[OPTIONS]", "Show the clients, the USB devices and why a device was refused."},
    {"usb", "[OPTIONS] list | allow DEVICE | deny DEVICE | detach DEVICE | attach DEVICE",
     "List redirected USB devices, or decide about one of them (a number from the list, or "
     "VID:PID). "
     "attach gives the guest one that is plugged into this host (VID:PID, or BUS-DEVICE)."},
    {"passwd", "[OPTIONS] USER",
     "Set the password of USER, read from the terminal or from standard input."},
};

typedef enum OptionId {
    OPT_HELP,
    OPT_VERSION,
    OPT_PRINT_CAPABILITIES,
    OPT_QMP,
    OPT_DBUS_ADDRESS,
    OPT_LISTEN,
    OPT_CERT,
    OPT_KEY,
    OPT_AUTH_FILE,
    OPT_TLS_LOGIN,
    OPT_SHARE,
    OPT_KEYMAP,
    OPT_USB_POLICY,
    OPT_USB_SLOTS,
    OPT_USB_BOOT,
    OPT_USB_GRACE,
    OPT_USB_AS_IS,
    OPT_STALL_SECONDS,
    OPT_SANDBOX,
    OPT_HOST_USB,
    OPT_PRINT_READY,
    OPT_RUN_DIR,
    OPT_LOG_LEVEL,
    OPT_JSON,
    OPT_DELETE,
} OptionId;

typedef struct Option {
    const char *name;
    OptionId id;
    const char *value; /* what help calls the value; NULL: a flag */
    unsigned commands;
    const char *help; /* NULL: an alias, not shown */
} Option;

static const Option options[] = {
    {"--help", OPT_HELP, NULL, IN_ALL, "show this text"},
    {"-h", OPT_HELP, NULL, IN_ALL, NULL},
    {"--version", OPT_VERSION, NULL, IN_ALL, "show the version"},
    {"--print-capabilities", OPT_PRINT_CAPABILITIES, NULL, IN_ALL,
     "describe this build to libvirt, as JSON"},
    {"--qmp", OPT_QMP, "PATH", IN_SERVE, "QMP socket of the machine"},
    {"--dbus-address", OPT_DBUS_ADDRESS, "ADDR", IN_SERVE | IN_CLIENTS,
     "message bus on which the machine (or, for status and usb, qrdp) is"},
    {"--listen", OPT_LISTEN, "ADDR:PORT", IN_SERVERS,
     "where clients connect; may be repeated, unix:/PATH too (" CONFIG_DEFAULT_LISTEN ")"},
    {"--bind-address", OPT_LISTEN, "ADDR:PORT", IN_SERVERS, NULL},
    {"--cert", OPT_CERT, "FILE", IN_SERVERS, "TLS certificate, PEM; made on first start if absent"},
    {"--key", OPT_KEY, "FILE", IN_SERVERS, "its private key, PEM"},
    {"--auth-file", OPT_AUTH_FILE, "FILE", IN_SERVERS | IN_PASSWD,
     "credential store that 'qrdp passwd' writes"},
    {"--tls-login", OPT_TLS_LOGIN, NULL, IN_SERVERS,
     "accept passwords over plain TLS too, for clients without NLA"},
    {"--share", OPT_SHARE, NULL, IN_SERVERS,
     "let a second client join instead of taking the console over"},
    {"--keymap", OPT_KEYMAP, "LAYOUT", IN_SERVERS,
     "the guest's keyboard layout, for clients that send characters (us)"},
    {"--usb-policy", OPT_USB_POLICY, "RULES", IN_SERVERS,
     "which USB devices may reach the guest, usbredir filter syntax"},
    {"--usb-slots", OPT_USB_SLOTS, "N", IN_RUN,
     "USB devices to have room for from the start (4); 0 for a machine without PCI"},
    {"--usb-boot", OPT_USB_BOOT, "N", IN_SERVERS,
     "start from redirected sticks at this place in the boot order; or off, auto (auto)"},
    {"--usb-grace", OPT_USB_GRACE, "SECONDS", IN_SERVERS,
     "how long a device stays in the guest when its client's network fails (10)"},
    {"--stall-seconds", OPT_STALL_SECONDS, "N", IN_SERVERS,
     "cut a client off that reads nothing for so long (20)"},
    {"--sandbox", OPT_SANDBOX, "on|off", IN_SERVERS,
     "keep this process from opening other files and running programs (on)"},
    {"--usb-as-is", OPT_USB_AS_IS, NULL, IN_SERVERS,
     "show high-speed sticks to the guest at their own speed, not as faster ones"},
    {"--host-usb", OPT_HOST_USB, NULL, IN_SERVERS,
     "leave this host's own USB devices open to 'qrdp usb attach'"},
    {"--print-ready", OPT_PRINT_READY, NULL, IN_SERVERS,
     "print 'READY rdp=ADDR:PORT' on stdout when clients can connect"},
    {"--run-dir", OPT_RUN_DIR, "DIR", IN_SERVERS | IN_CLIENTS,
     "where the control socket is ($XDG_RUNTIME_DIR/qrdp/PID)"},
    {"--log-level", OPT_LOG_LEVEL, "LEVEL", IN_ALL, "error, warning, info, debug or trace (info)"},
    {"--json", OPT_JSON, NULL, IN_STATUS, "for programs"},
    {"--delete", OPT_DELETE, NULL, IN_PASSWD, "forget USER"},
};

typedef struct Given {
    const Option *option;
    const char *value;
} Given;

/* ------------------------------------------------------------------------------------------------
 * "Did you mean"
 */

static size_t min3(size_t a, size_t b, size_t c)
{
    return MIN(MIN(a, b), c);
}

/** Levenshtein distance of two short words; a long one is simply far away. */
static size_t distance(const char *a, const char *b)
{
    enum { LIMIT = 32 };
    size_t la = strlen(a), lb = strlen(b), row[LIMIT + 1];
    if (la > LIMIT || lb > LIMIT)
        return LIMIT;
    for (size_t j = 0; j <= lb; j++)
        row[j] = j;
    for (size_t i = 1; i <= la; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            size_t above = row[j];
            row[j] = min3(above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = above;
        }
    }
    return row[lb];
}

typedef struct Guess {
    const char *word;
    size_t distance;
} Guess;

static void guess(Guess *best, const char *typed, const char *candidate)
{
    size_t d = distance(typed, candidate);
    if (d < best->distance && d <= MAX(2, strlen(candidate) / 3))
        *best = (Guess){candidate, d};
}

/** @command: what was typed before, NULL if nothing was. */
static void unknown_option(const char *name, const char *command, bool after_run, GError **error)
{
    if (after_run) {
        ERR(error,
            "'qrdp run' has no option %s: put -- before QEMU's command, as in "
            "qrdp run -- qemu-system-x86_64 -m 2G",
            name);
        return;
    }
    Guess best = {NULL, SIZE_MAX};
    for (size_t i = 0; i < G_N_ELEMENTS(options); i++)
        guess(&best, name, options[i].name);
    if (best.word)
        ERR(error, "There is no option %s: did you mean %s?", name, best.word);
    else if (command)
        ERR(error, "There is no option %s: see 'qrdp %s --help'", name, command);
    else
        ERR(error, "There is no option %s: see 'qrdp COMMAND --help'", name);
}

static void unknown_command(const char *name, GError **error)
{
    Guess best = {NULL, SIZE_MAX};
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++)
        guess(&best, name, commands[i].name);
    if (best.word)
        ERR(error, "There is no command '%s': did you mean 'qrdp %s'?", name, best.word);
    else if (strstr(name, "qemu"))
        ERR(error, "To start a virtual machine write 'qrdp run -- %s ...'", name);
    else
        ERR(error, "There is no command '%s': use run, serve, status, usb or passwd", name);
}

/* ------------------------------------------------------------------------------------------------
 * Help
 */

static void add_options_help(GString *out, unsigned mask)
{
    for (size_t i = 0; i < G_N_ELEMENTS(options); i++) {
        const Option *o = &options[i];
        if (!o->help || !(o->commands & mask))
            continue;
        g_autofree char *left =
            o->value ? g_strconcat(o->name, "=", o->value, NULL) : g_strdup(o->name);
        g_string_append_printf(out, "  %-22s  %s\n", left, o->help);
    }
}

static char *make_help(int command)
{
    GString *out = g_string_new(NULL);
    if (command >= 0) {
        const Command *c = &commands[command];
        g_string_append_printf(out, "Usage: qrdp %s %s\n\n%s\n\nOptions:\n", c->name, c->usage,
                               c->help);
        add_options_help(out, 1u << command);
    } else {
        g_string_append(out, "Usage: qrdp COMMAND [OPTIONS]\n\n"
                             "The display of a QEMU virtual machine over RDP, with the client's "
                             "USB devices in it.\n\nCommands:\n");
        for (size_t i = 0; i < G_N_ELEMENTS(commands); i++)
            g_string_append_printf(out, "  qrdp %s %s\n", commands[i].name, commands[i].usage);
        g_string_append(out, "  qrdp COMMAND --help\n  qrdp --version\n"
                             "  qrdp --print-capabilities\n\nMore in qrdp(1).\n");
    }
    return g_string_free(out, FALSE);
}

/* ------------------------------------------------------------------------------------------------
 * First pass: words and options
 */

typedef struct Line {
    GArray *given;    /* Given */
    GPtrArray *words; /* borrowed, the command's name included */
    char **rest;      /* what follows "--", borrowed; NULL without "--" */
} Line;

static int find_command(const Line *line)
{
    for (size_t i = 0; line->words->len > 0 && i < G_N_ELEMENTS(commands); i++)
        if (strcmp(g_ptr_array_index(line->words, 0), commands[i].name) == 0)
            return (int)i;
    return -1;
}

/* "qrdp run qemu-system-x86_64 -m 2G": the option is QEMU's, and what lacks is the "--". */
static bool is_run_without_dashes(const Line *line)
{
    return line->words->len > 1 && strcmp(g_ptr_array_index(line->words, 0), "run") == 0;
}

/** Reads the option at argv[i]; returns how many words it took, 0 for an error. */
static int read_option(Line *line, int argc, char **argv, int i, GError **error)
{
    const char *equals = strchr(argv[i], '=');
    size_t len = equals ? (size_t)(equals - argv[i]) : strlen(argv[i]);
    g_autofree char *name = g_strndup(argv[i], len);
    const Option *option = NULL;
    for (size_t k = 0; k < G_N_ELEMENTS(options) && !option; k++)
        if (strcmp(options[k].name, name) == 0)
            option = &options[k];
    if (!option) {
        int command = find_command(line);
        unknown_option(name, command >= 0 ? commands[command].name : NULL,
                       is_run_without_dashes(line), error);
        return 0;
    }
    Given given = {option, equals ? equals + 1 : NULL};
    int taken = 1;
    if (!option->value && equals) {
        ERR(error, "%s takes no value: write just %s", name, name);
        return 0;
    }
    if (option->value && !equals) {
        if (i + 1 >= argc || strcmp(argv[i + 1], "--") == 0) {
            ERR(error, "%s needs a value: write %s=%s", name, name, option->value);
            return 0;
        }
        given.value = argv[i + 1];
        taken = 2;
    }
    if (option->value && !*given.value) {
        ERR(error, "%s has an empty value: write %s=%s", name, name, option->value);
        return 0;
    }
    g_array_append_val(line->given, given);
    return taken;
}

static bool read_line(Line *line, int argc, char **argv, GError **error)
{
    for (int i = 1; i < argc;) {
        if (!g_utf8_validate(argv[i], -1, NULL)) {
            ERR(error, "Argument %d is not valid UTF-8: use a UTF-8 locale", i);
            return false;
        }
        if (strcmp(argv[i], "--") == 0) {
            line->rest = argv + i + 1;
            return true;
        }
        if (argv[i][0] == '-' && argv[i][1]) {
            int taken = read_option(line, argc, argv, i, error);
            if (!taken)
                return false;
            i += taken;
        } else {
            g_ptr_array_add(line->words, argv[i++]);
        }
    }
    return true;
}

/* ------------------------------------------------------------------------------------------------
 * Second pass: values into the Config
 */

static bool number(const Given *given, unsigned *out, GError **error)
{
    guint64 value;
    if (g_ascii_string_to_unsigned(given->value, 10, 0, G_MAXUINT, &value, NULL)) {
        *out = (unsigned)value;
        return true;
    }
    ERR(error, "%s=%s is not a number: write digits only", given->option->name, given->value);
    return false;
}

static bool boot_place(const Given *given, int *out, GError **error)
{
    guint64 value;
    if (strcmp(given->value, "auto") == 0)
        *out = CONFIG_USB_BOOT_AUTO;
    else if (strcmp(given->value, "off") == 0)
        *out = CONFIG_USB_BOOT_OFF;
    else if (g_ascii_string_to_unsigned(given->value, 10, 0, G_MAXINT, &value, NULL))
        *out = (int)value;
    else {
        ERR(error, "--usb-boot=%s: give the bootindex of the first slot, off or auto",
            given->value);
        return false;
    }
    return true;
}

static bool once(char **slot, const Given *given, GError **error)
{
    if (*slot) {
        ERR(error, "%s was given twice: keep one", given->option->name);
        return false;
    }
    *slot = g_strdup(given->value);
    return true;
}

static bool apply(Config *config, GPtrArray *listen, const Given *given, GError **error)
{
    switch (given->option->id) {
    case OPT_QMP:
        return once(&config->qmp_path, given, error);
    case OPT_DBUS_ADDRESS:
        return once(&config->dbus_address, given, error);
    case OPT_LISTEN:
        g_ptr_array_add(listen, g_strdup(given->value));
        return true;
    case OPT_CERT:
        return once(&config->cert_path, given, error);
    case OPT_KEY:
        return once(&config->key_path, given, error);
    case OPT_AUTH_FILE:
        return once(&config->auth_file, given, error);
    case OPT_TLS_LOGIN:
        config->tls_only = true;
        return true;
    case OPT_SHARE:
        config->share = true;
        return true;
    case OPT_KEYMAP:
        g_free(config->keymap);
        config->keymap = g_strdup(given->value);
        return true;
    case OPT_USB_POLICY:
        return once(&config->usb_policy, given, error);
    case OPT_USB_SLOTS:
        return number(given, &config->usb_slots, error);
    case OPT_USB_BOOT:
        return boot_place(given, &config->usb_boot, error);
    case OPT_USB_GRACE:
        return number(given, &config->usb_grace, error);
    case OPT_STALL_SECONDS:
        return number(given, &config->stall_seconds, error);
    case OPT_SANDBOX:
        config->sandbox = strcmp(given->value, "off") != 0;
        if (!config->sandbox || strcmp(given->value, "on") == 0)
            return true;
        ERR(error, "--sandbox=%s: use on or off", given->value);
        return false;
    case OPT_USB_AS_IS:
        config->usb_as_is = true;
        return true;
    case OPT_HOST_USB:
        config->host_usb = true;
        return true;
    case OPT_PRINT_READY:
        config->print_ready = true;
        return true;
    case OPT_RUN_DIR:
        g_free(config->run_dir);
        config->run_dir = g_canonicalize_filename(given->value, NULL);
        return true;
    case OPT_LOG_LEVEL:
        if (log_level_from_string(given->value, &config->log_level))
            return true;
        ERR(error, "--log-level=%s: use error, warning, info, debug or trace", given->value);
        return false;
    case OPT_JSON:
        config->json = true;
        return true;
    case OPT_DELETE:
        config->remove = true;
        return true;
    case OPT_HELP:
    case OPT_VERSION:
    case OPT_PRINT_CAPABILITIES:
        return true;
    }
    g_assert_not_reached();
}

static char **take_words(const Line *line)
{
    GPtrArray *words = g_ptr_array_new();
    for (guint i = 1; i < line->words->len; i++)
        g_ptr_array_add(words, g_strdup(g_ptr_array_index(line->words, i)));
    g_ptr_array_add(words, NULL);
    return (char **)g_ptr_array_free(words, FALSE);
}

static bool finish_run(Config *config, const Line *line, GError **error)
{
    if (line->words->len > 1) {
        ERR(error, "Write '--' before QEMU's command: qrdp run [OPTIONS] -- %s ...",
            (char *)g_ptr_array_index(line->words, 1));
        return false;
    }
    if (!line->rest || !line->rest[0]) {
        ERR(error, "Say which machine to run: qrdp run [OPTIONS] -- qemu-system-x86_64 ARGS...");
        return false;
    }
    if (g_strv_length(line->rest) > MAX_ARGS) {
        ERR(error, "QEMU's command has more than %d words: use its -readconfig", MAX_ARGS);
        return false;
    }
    config->qemu_argv = g_strdupv(line->rest);
    return true;
}

static bool finish_serve(Config *config, const Line *line, GError **error)
{
    if (line->words->len > 1) {
        ERR(error, "'qrdp serve' takes options only: remove '%s'",
            (char *)g_ptr_array_index(line->words, 1));
        return false;
    }
    if (!config->qmp_path == !config->dbus_address) {
        ERR(error,
            "Give 'qrdp serve' either --qmp=PATH (QEMU's QMP socket) or --dbus-address=ADDR "
            "(a message bus)%s",
            config->qmp_path ? ", not both" : "");
        return false;
    }
    config->mode = config->qmp_path ? CONFIG_QMP : CONFIG_BUS;
    return true;
}

static bool finish_usb(Config *config, const Line *line, GError **error)
{
    static const struct {
        const char *verb;
        guint n; /* words after the verb */
    } verbs[] = {{"list", 0}, {"allow", 1}, {"deny", 1}, {"detach", 1}, {"attach", 1}};
    const char *verb = line->words->len > 1 ? g_ptr_array_index(line->words, 1) : NULL;
    if (!verb) {
        ERR(error, "Say what to do: qrdp usb list, or allow, deny, detach or attach DEVICE");
        return false;
    }
    Guess best = {NULL, SIZE_MAX};
    for (size_t i = 0; i < G_N_ELEMENTS(verbs); i++) {
        guess(&best, verb, verbs[i].verb);
        if (strcmp(verb, verbs[i].verb) != 0)
            continue;
        if (line->words->len - 2 == verbs[i].n) {
            config->words = take_words(line);
            return true;
        }
        if (!verbs[i].n)
            ERR(error, "'qrdp usb %s' takes no device: remove it", verb);
        else
            ERR(error, "'qrdp usb %s' needs one device: give %s, or VID:PID", verb,
                strcmp(verb, "attach") == 0 ? "its BUS-DEVICE, such as 1-4 (see lsusb)"
                                            : "its number in 'qrdp usb list'");
        return false;
    }
    ERR(error, "'qrdp usb' cannot '%s': %s%s%s", verb, best.word ? "did you mean '" : "",
        best.word ? best.word : "use list, allow, deny, detach or attach", best.word ? "'?" : "");
    return false;
}

static bool finish_passwd(Config *config, const Line *line, GError **error)
{
    if (line->words->len == 2) {
        config->words = take_words(line);
        return true;
    }
    if (line->words->len > 2)
        ERR(error, "'qrdp passwd' takes one user name and no password: the password is read from "
                   "the terminal or standard input, so that nobody sees it in a process list");
    else
        ERR(error, "Say whose password to set: qrdp passwd USER");
    return false;
}

static bool finish_status(const Line *line, GError **error)
{
    if (line->words->len == 1)
        return true;
    ERR(error, "'qrdp status' takes options only: remove '%s'",
        (char *)g_ptr_array_index(line->words, 1));
    return false;
}

static bool finish_command(Config *config, const Line *line, GError **error)
{
    if (line->rest && config->mode != CONFIG_RUN) {
        ERR(error, "'--' and a command belong to 'qrdp run': remove them");
        return false;
    }
    switch (config->mode) {
    case CONFIG_RUN:
        return finish_run(config, line, error);
    case CONFIG_QMP:
        return finish_serve(config, line, error);
    case CONFIG_STATUS:
        return finish_status(line, error);
    case CONFIG_USB:
        return finish_usb(config, line, error);
    case CONFIG_PASSWD:
        return finish_passwd(config, line, error);
    case CONFIG_BUS:
    case CONFIG_PRINT_CAPABILITIES:
        break;
    }
    g_assert_not_reached();
}

static bool apply_all(Config *config, const Line *line, int command, GError **error)
{
    g_autoptr(GPtrArray) listen = g_ptr_array_new_with_free_func(g_free);
    for (guint i = 0; i < line->given->len; i++) {
        const Given *given = &g_array_index(line->given, Given, i);
        if (!(given->option->commands & (1u << command))) {
            ERR(error, "%s is not an option of 'qrdp %s': see 'qrdp %s --help'",
                given->option->name, commands[command].name, commands[command].name);
            return false;
        }
        if (!apply(config, listen, given, error))
            return false;
    }
    bool serves = (1u << command) & IN_SERVERS;
    if (serves && listen->len == 0)
        g_ptr_array_add(listen, g_strdup(CONFIG_DEFAULT_LISTEN));
    g_ptr_array_add(listen, NULL);
    config->listen = g_strdupv((char **)listen->pdata);
    return true;
}

static bool was_given(const Line *line, OptionId id)
{
    for (guint i = 0; i < line->given->len; i++)
        if (g_array_index(line->given, Given, i).option->id == id)
            return true;
    return false;
}

static Config *parse(const Line *line, char **text, GError **error)
{
    static const ConfigMode modes[] = {CONFIG_RUN, CONFIG_QMP, CONFIG_STATUS, CONFIG_USB,
                                       CONFIG_PASSWD};
    int command = find_command(line);
    if (was_given(line, OPT_PRINT_CAPABILITIES))
        return config_new(CONFIG_PRINT_CAPABILITIES);
    if (was_given(line, OPT_VERSION)) {
        *text = g_strdup("qrdp " QRDP_VERSION "\n");
        return NULL;
    }
    if (was_given(line, OPT_HELP) && (command >= 0 || line->words->len == 0)) {
        *text = make_help(command);
        return NULL;
    }
    if (command < 0) {
        if (line->words->len > 0)
            unknown_command(g_ptr_array_index(line->words, 0), error);
        else if (line->rest && line->rest[0])
            ERR(error, "To start a virtual machine write 'qrdp run -- %s ...'", line->rest[0]);
        else
            ERR(error,
                "Say what to do: qrdp run, serve, status, usb or passwd (see 'qrdp --help')");
        return NULL;
    }
    Config *config = config_new(modes[command]);
    if (apply_all(config, line, command, error) && finish_command(config, line, error)) {
        config_settle_usb_boot(config);
        if (config_check(config, error))
            return config;
    }
    config_free(config);
    return NULL;
}

Config *cmdline_parse(int argc, char **argv, char **text, GError **error)
{
    *text = NULL;
    Line line = {.given = g_array_new(FALSE, FALSE, sizeof(Given)), .words = g_ptr_array_new()};
    Config *config = NULL;
    if (read_line(&line, argc, argv, error))
        config = parse(&line, text, error);
    g_array_unref(line.given);
    g_ptr_array_unref(line.words);
    return config;
}
