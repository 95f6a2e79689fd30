/* Every mode the command line can ask for, and one sentence for everything it cannot. */
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <string.h>

#include "cmdline.h"

typedef struct Result {
    Config *config;
    char *text;
    GError *error;
} Result;

/** @line is split at blanks, like a shell without quotes. */
static Result parse(const char *line)
{
    Result r = {0};
    g_auto(GStrv) argv = g_strsplit(line, " ", -1);
    r.config = cmdline_parse((int)g_strv_length(argv), argv, &r.text, &r.error);
    g_assert_cmpint((r.config != NULL) + (r.text != NULL) + (r.error != NULL), ==, 1);
    return r;
}

static void clear(Result *r)
{
    config_free(r->config);
    g_free(r->text);
    g_clear_error(&r->error);
}

static Config *parse_good(const char *line)
{
    Result r = parse(line);
    if (r.error)
        g_error("%s: %s", line, r.error->message);
    g_assert_nonnull(r.config);
    return r.config;
}

static void assert_refused(const char *line, const char *part)
{
    Result r = parse(line);
    if (!r.error)
        g_error("accepted: %s", line);
    if (!strstr(r.error->message, part))
        g_error("%s: \"%s\" does not say \"%s\"", line, r.error->message, part);
    g_assert_null(strchr(r.error->message, '\n'));
    g_assert_true(g_ascii_isalnum(r.error->message[0]) || strchr("'-", r.error->message[0]));
    clear(&r);
}

static void test_run(void)
{
    Config *c = parse_good(
        "qrdp run --share --tls-login --usb-slots 28 --usb-grace=600 --stall-seconds=1 "
        "--listen=:0 --listen [::1]:3390 --listen unix:/tmp/x --keymap=de "
        "--log-level=debug --host-usb --usb-as-is --sandbox=off --print-ready --run-dir=/tmp/r "
        "--auth-file=/tmp/a "
        "-- qemu-system-x86_64 -m 2G --listen");
    g_assert_cmpint(c->mode, ==, CONFIG_RUN);
    g_assert_cmpuint(g_strv_length(c->qemu_argv), ==, 4);
    g_assert_cmpstr(c->qemu_argv[3], ==, "--listen");
    g_assert_cmpuint(g_strv_length(c->listen), ==, 3);
    g_assert_cmpstr(c->listen[1], ==, "[::1]:3390");
    g_assert_true(c->share && c->tls_only && c->print_ready);
    g_assert_cmpuint(c->usb_slots, ==, 28);
    g_assert_cmpuint(c->usb_grace, ==, 600);
    g_assert_cmpuint(c->stall_seconds, ==, 1);
    g_assert_cmpstr(c->keymap, ==, "de");
    g_assert_cmpint(c->log_level, ==, LOG_LEVEL_DEBUG);
    g_assert_cmpstr(c->run_dir, ==, "/tmp/r");
    g_assert_cmpstr(c->auth_file, ==, "/tmp/a");
    g_assert_true(c->host_usb && c->usb_as_is && !c->sandbox);
    config_free(c);
}

static void test_defaults(void)
{
    Config *c = parse_good("qrdp run -- qemu-system-x86_64");
    g_assert_cmpstr(c->listen[0], ==, "127.0.0.1:3389");
    g_assert_null(c->listen[1]);
    g_assert_cmpuint(c->usb_slots, ==, 4);
    g_assert_cmpint(c->usb_boot, ==, CONFIG_USB_BOOT_OFF);
    g_assert_cmpuint(c->usb_grace, ==, 10);
    g_assert_cmpuint(c->stall_seconds, ==, 20);
    g_assert_cmpstr(c->keymap, ==, "us");
    g_assert_false(c->share || c->tls_only || c->print_ready);
    g_assert_null(c->run_dir);
    g_assert_true(c->sandbox && !c->host_usb && !c->usb_as_is);
    config_free(c);
}

/* Slots have a place in the boot order if they were given one, or if the command orders anything.
 */
static void test_usb_boot(void)
{
    static const struct {
        const char *line;
        int boot;
    } cases[] = {
        {"qrdp run -- q -device disk", CONFIG_USB_BOOT_OFF},
        {"qrdp run -- q -device disk,bootindex=2", 1000},
        {"qrdp run --usb-boot=auto -- q -device {\"bootindex\":2}", 1000},
        {"qrdp run --usb-boot=off -- q -device disk,bootindex=2", CONFIG_USB_BOOT_OFF},
        {"qrdp run --usb-boot=0 -- q -device disk,bootindex=100", 0},
        {"qrdp serve --qmp=/tmp/qmp", CONFIG_USB_BOOT_OFF},
        {"qrdp serve --qmp=/tmp/qmp --usb-boot=5", 5},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        Config *c = parse_good(cases[i].line);
        g_assert_cmpint(c->usb_boot, ==, cases[i].boot);
        config_free(c);
    }
}

/** The certificate must exist, its content is not this module's business. */
static char *make_file(void)
{
    g_autoptr(GError) error = NULL;
    char *path = NULL;
    int fd = g_file_open_tmp("qrdp-XXXXXX", &path, &error);
    g_assert_no_error(error);
    g_close(fd, NULL);
    return path;
}

static void test_libvirt(void)
{
    g_autofree char *pem = make_file();
    g_autofree char *line = g_strdup_printf(
        "qemu-rdp --dbus-address=unix:path=/run/1-t1-dbus.sock serve --bind-address 127.0.0.1:3389 "
        "--cert=%s --key=%s",
        pem, pem);
    Config *c = parse_good(line);
    g_assert_cmpint(c->mode, ==, CONFIG_BUS);
    g_assert_cmpstr(c->dbus_address, ==, "unix:path=/run/1-t1-dbus.sock");
    g_assert_cmpstr(c->listen[0], ==, "127.0.0.1:3389");
    g_assert_null(c->listen[1]);
    g_assert_cmpstr(c->cert_path, ==, pem);
    config_free(c);
    g_autofree char *words = g_strdup_printf("qemu-rdp --dbus-address unix:path=/x serve "
                                             "--bind-address :1 --cert %s --key %s",
                                             pem, pem);
    c = parse_good(words);
    g_assert_cmpstr(c->key_path, ==, pem);
    config_free(c);
    c = parse_good("qemu-rdp --print-capabilities");
    g_assert_cmpint(c->mode, ==, CONFIG_PRINT_CAPABILITIES);
    config_free(c);
    g_unlink(pem);
}

static void test_other_modes(void)
{
    Config *c = parse_good("qrdp serve --qmp=/tmp/qmp");
    g_assert_cmpint(c->mode, ==, CONFIG_QMP);
    g_assert_cmpstr(c->qmp_path, ==, "/tmp/qmp");
    config_free(c);
    c = parse_good("qrdp status --json --run-dir=/tmp/r");
    g_assert_cmpint(c->mode, ==, CONFIG_STATUS);
    g_assert_true(c->json);
    config_free(c);
    c = parse_good("qrdp status --dbus-address=unix:path=/x");
    g_assert_cmpint(c->mode, ==, CONFIG_STATUS);
    config_free(c);
    c = parse_good("qrdp usb deny 1234:5678");
    g_assert_cmpint(c->mode, ==, CONFIG_USB);
    g_assert_cmpstr(c->words[0], ==, "deny");
    g_assert_cmpstr(c->words[1], ==, "1234:5678");
    config_free(c);
    c = parse_good("qrdp passwd --delete joe");
    g_assert_cmpint(c->mode, ==, CONFIG_PASSWD);
    g_assert_cmpstr(c->words[0], ==, "joe");
    g_assert_true(c->remove);
    config_free(c);
}

static void test_texts(void)
{
    static const char *const lines[][2] = {
        {"qrdp --help", "qrdp COMMAND"},      {"qrdp -h", "qrdp COMMAND"},
        {"qrdp run --help", "--usb-slots=N"}, {"qrdp --help serve", "--qmp=PATH"},
        {"qrdp passwd -h", "--delete"},       {"qrdp usb --help", "detach DEVICE"},
        {"qrdp status --help", "--json"},     {"qrdp --version", "qrdp " QRDP_VERSION "\n"},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(lines); i++) {
        Result r = parse(lines[i][0]);
        g_assert_nonnull(r.text);
        if (!strstr(r.text, lines[i][1]))
            g_error("%s does not show \"%s\"", lines[i][0], lines[i][1]);
        clear(&r);
    }
    Result r = parse("qrdp passwd --help");
    g_assert_null(strstr(r.text, "--usb-slots"));
    clear(&r);
}

static void test_refusals(void)
{
    static const char *const lines[][2] = {
        {"qrdp", "qrdp run"},
        {"qrdp serv", "did you mean 'qrdp serve'?"},
        {"qrdp qemu-system-x86_64 -m 1G", "There is no option -m"},
        {"qrdp qemu-system-x86_64", "qrdp run -- qemu-system-x86_64"},
        {"qrdp -- qemu-system-x86_64", "qrdp run -- qemu-system-x86_64"},
        {"qrdp frobnicate", "use run, serve"},
        {"qrdp run", "qrdp run [OPTIONS] -- qemu-system-x86_64"},
        {"qrdp run --", "qrdp run [OPTIONS] -- qemu-system-x86_64"},
        {"qrdp run qemu-system-x86_64", "Write '--' before"},
        {"qrdp run --lisen=:1 -- q", "did you mean --listen?"},
        {"qrdp run qemu-system-x86_64 -m 1G", "put -- before QEMU's command"},
        {"qrdp run --frobnicate -- q", "see 'qrdp run --help'"},
        {"qrdp --frobnicate run -- q", "see 'qrdp COMMAND --help'"},
        {"qrdp run --listen -- q", "--listen=ADDR:PORT"},
        {"qrdp run --listen= -- q", "--listen=ADDR:PORT"},
        {"qrdp run --share=yes -- q", "write just --share"},
        {"qrdp run --json -- q", "not an option of 'qrdp run'"},
        {"qrdp run --qmp=/x -- q", "not an option of 'qrdp run'"},
        {"qrdp serve --usb-slots=3 --qmp=/x", "not an option of 'qrdp serve'"},
        {"qrdp run --usb-slots=29 -- q", "from 0 to 28"},
        {"qrdp run --usb-slots=-1 -- q", "digits only"},
        {"qrdp run --usb-boot=soon -- q", "off or auto"},
        {"qrdp run --usb-boot=100001 -- q", "from 0 to 100000"},
        {"qrdp run --usb-slots=4294967296 -- q", "digits only"},
        {"qrdp run --usb-grace=601 -- q", "0 (off) to 600"},
        {"qrdp run --stall-seconds=0 -- q", "from 1 to 3600"},
        {"qrdp run --sandbox=maybe -- q", "use on or off"},
        {"qrdp run --stall-seconds=3601 -- q", "from 1 to 3600"},
        {"qrdp run --log-level=loud -- q", "use error, warning"},
        {"qrdp run --keymap=a/../b -- q", "xkb name"},
        {"qrdp run --usb-policy=nonsense -- q", "CLASS,VID,PID,VERSION,ALLOW"},
        {"qrdp run --cert=/etc/passwd -- q", "--key=FILE"},
        {"qrdp run --key=/etc/passwd -- q", "--cert=FILE"},
        {"qrdp run --cert=/etc/passwd --key=/nonexistent -- q",
         "--key=/nonexistent cannot be read"},
        {"qrdp run --cert=/ --key=/ -- q", "not a regular file"},
        {"qrdp run --cert=/a --cert=/b -- q", "given twice"},
        {"qrdp run --listen=3389 -- q", "ADDRESS:PORT"},
        {"qrdp run --listen=::1:3389 -- q", "[::1]:3389"},
        {"qrdp run --listen=[::1] -- q", "ADDRESS:PORT"},
        {"qrdp run --listen=[]:1 -- q", "ADDRESS:PORT"},
        {"qrdp run --listen=a:65536 -- q", "65535"},
        {"qrdp run --listen=a: -- q", "ADDRESS:PORT"},
        {"qrdp run --listen=a:-1 -- q", "ADDRESS:PORT"},
        {"qrdp run --listen=unix:relative -- q", "absolute socket path"},
        {"qrdp run --listen=:1 --listen=:2 --listen=:3 --listen=:4 --listen=:5 --listen=:6 "
         "--listen=:7 --listen=:8 --listen=:9 -- q",
         "at most 8"},
        {"qrdp serve", "--qmp=PATH"},
        {"qrdp serve --qmp=/a --dbus-address=b", "not both"},
        {"qrdp serve --qmp=/etc/passwd", "is not a socket"},
        {"qrdp serve --qmp=/a extra", "remove 'extra'"},
        {"qrdp serve --qmp=/a -- q", "belong to 'qrdp run'"},
        {"qrdp status now", "remove 'now'"},
        {"qrdp usb", "qrdp usb list"},
        {"qrdp usb alow 1", "did you mean 'allow'?"},
        {"qrdp usb frobnicate", "use list, allow, deny, detach or attach"},
        {"qrdp usb allow", "qrdp usb list"},
        {"qrdp usb list 1", "takes no device"},
        {"qrdp passwd", "qrdp passwd USER"},
        {"qrdp passwd joe secret", "process list"},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(lines); i++)
        assert_refused(lines[i][0], lines[i][1]);
    char *bad[] = {(char *)"qrdp", (char *)"run", (char *)"\xff", NULL};
    char *text;
    g_autoptr(GError) error = NULL;
    g_assert_null(cmdline_parse(3, bad, &text, &error));
    g_assert_nonnull(strstr(error->message, "UTF-8"));
}

static void test_addresses(void)
{
    static const struct {
        const char *text, *host;
        guint16 port;
    } good[] = {{"127.0.0.1:3389", "127.0.0.1", 3389},
                {"[::1]:0", "::1", 0},
                {":65535", "", 65535},
                {"localhost:1", "localhost", 1},
                {"0.0.0.0:3389", "0.0.0.0", 3389}};
    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        g_autofree char *host = NULL;
        guint16 port;
        g_assert_true(config_split_address(good[i].text, &host, &port));
        g_assert_cmpstr(host, ==, good[i].host);
        g_assert_cmpuint(port, ==, good[i].port);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/cmdline/run", test_run);
    g_test_add_func("/cmdline/defaults", test_defaults);
    g_test_add_func("/cmdline/usb-boot", test_usb_boot);
    g_test_add_func("/cmdline/libvirt", test_libvirt);
    g_test_add_func("/cmdline/other-modes", test_other_modes);
    g_test_add_func("/cmdline/texts", test_texts);
    g_test_add_func("/cmdline/refusals", test_refusals);
    g_test_add_func("/cmdline/addresses", test_addresses);
    return g_test_run();
}
