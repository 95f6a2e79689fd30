/* The child: arguments refused, status passed through, ended when told. `sh` stands in for QEMU. */
#include "run.h"

#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"

static void on_exited(void *user, int status)
{
    *(int *)user = status;
}

static Run *start_boot(const char *const *argv, const char *dir, unsigned slots, int boot,
                       int *status, GError **error)
{
    const RunCallbacks callbacks = {.exited = on_exited};
    const Config config = {.mode = CONFIG_RUN,
                           .qemu_argv = (char **)(uintptr_t)argv,
                           .usb_slots = slots,
                           .usb_boot = boot};

    *status = -1;
    return run_start(&config, dir, &callbacks, status, error);
}

static Run *start(const char *const *argv, const char *dir, unsigned slots, int *status,
                  GError **error)
{
    return start_boot(argv, dir, slots, CONFIG_USB_BOOT_OFF, status, error);
}

static void wait_exit(const int *status)
{
    gint64 end = g_get_monotonic_time() + 20 * G_USEC_PER_SEC;

    while (*status < 0) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        if (!g_main_context_iteration(NULL, FALSE))
            g_usleep(500);
    }
}

static void test_refused(void)
{
    static const struct {
        const char *argv[5];
        const char *says;
    } cases[] = {
        {{"qemu", "-vnc", ":1"}, "-vnc"},
        {{"qemu", "--spice", "port=1"}, "--spice"},
        {{"qemu", "-nographic"}, "-nographic"},
        {{"qemu", "-display", "gtk,gl=on"}, "-display gtk,gl=on"},
        {{"qemu", "-display", "dbus"}, "--dbus-address"},
        {{"qemu", "-m", "64", "-daemonize"}, "-daemonize"},
        {{"/nonexistent/qemu"}, "/nonexistent/qemu"},
        {{NULL}, "qrdp run --"},
    };
    g_autofree char *dir = g_dir_make_tmp("run-XXXXXX", NULL);

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        int status;
        g_assert_null(start(cases[i].argv, dir, 0, &status, &error));
        g_assert_nonnull(strstr(error->message, cases[i].says));
    }
    g_assert_cmpint(g_rmdir(dir), ==, 0); /* nothing was left in it */
}

static int run_script(const char *script, bool stop)
{
    g_autofree char *dir = g_dir_make_tmp("run-XXXXXX", NULL);
    int status;
    Run *run = start((const char *const[]){"sh", "-c", script, NULL}, dir, 4, &status, NULL);
    struct stat st;

    g_assert_nonnull(run);
    g_assert_cmpint(stat(run_qmp_path(run), &st), ==, 0); /* at once, and ours alone */
    g_assert_cmpint(st.st_mode & 077, ==, 0);
    if (stop) {
        run_stop(run);
        run_stop(run);
    }
    wait_exit(&status);
    run_free(run);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
    return status;
}

static void test_status(void)
{
    g_assert_cmpint(run_script("exit 0", false), ==, 0);
    g_assert_cmpint(run_script("exit 7", false), ==, 7);
    g_assert_cmpint(run_script("kill -9 $$", false), ==, 128 + SIGKILL);
    g_assert_cmpint(run_script("exec sleep 60", true), ==, 128 + SIGTERM);
}

/* What is added, as the child sees it. */
static void test_arguments(void)
{
    g_autofree char *dir = g_dir_make_tmp("run-XXXXXX", NULL);
    g_autofree char *out = g_build_filename(dir, "out", NULL);
    g_autofree char *script = g_strdup_printf("echo \"$@\" > %s", out);
    g_autofree char *text = NULL;
    int status;

    Run *run = start((const char *const[]){"sh", "-c", script, "qemu", "-append", "-vnc",
                                           "-display", "none", NULL},
                     dir, 17, &status, NULL);
    g_assert_nonnull(run);
    wait_exit(&status);
    run_free(run);
    g_assert_true(g_file_get_contents(out, &text, NULL, NULL));
    static const char *const parts[] = {
        "-append -vnc -display none -display dbus,p2p=yes -chardev socket,id=qrdp_qmp,fd=",
        "-device qemu-xhci,id=qrdp-xhci0,p2=15,p3=15 -device qemu-xhci,id=qrdp-xhci1,p2=15,p3=15",
        ("-chardev dbus,id=qrdp_usb0,name=org.qemu.usbredir -device "
         "usb-redir,chardev=qrdp_usb0,id=qrdp_usb0,bus=qrdp-xhci0.0,port=1"),
        "id=qrdp_usb14,bus=qrdp-xhci0.0,port=15",
        "id=qrdp_usb16,bus=qrdp-xhci1.0,port=2",
        "-device usb-tablet,id=qrdp-tablet,bus=qrdp-xhci1.0,port=15",
    };
    for (size_t i = 0; i < G_N_ELEMENTS(parts); i++)
        g_assert_nonnull(strstr(text, parts[i]));
    g_assert_null(strstr(text, "qrdp_usb17"));
    g_assert_null(strstr(text, "bootindex"));
    g_unlink(out);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
}

static void test_boot_order(void)
{
    static const struct {
        int boot;
        const char *device, *expected;
    } cases[] = {
        {CONFIG_USB_BOOT_OFF, "disk,bootindex=2", NULL},
        {0, "disk", "port=2,bootindex=1 "},
        {40, "disk,bootindex=2", "port=2,bootindex=41 "},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *dir = g_dir_make_tmp("run-XXXXXX", NULL);
        g_autofree char *out = g_build_filename(dir, "out", NULL);
        g_autofree char *script = g_strdup_printf("echo \"$@\" > %s", out);
        g_autofree char *text = NULL;
        int status;
        Run *run =
            start_boot((const char *const[]){"sh", "-c", script, "qemu", cases[i].device, NULL},
                       dir, 2, cases[i].boot, &status, NULL);
        g_assert_nonnull(run);
        wait_exit(&status);
        run_free(run);
        g_assert_true(g_file_get_contents(out, &text, NULL, NULL));
        if (cases[i].expected)
            g_assert_nonnull(strstr(text, cases[i].expected));
        else
            g_assert_null(strstr(text, ",bootindex=1"));
        g_unlink(out);
        g_assert_cmpint(g_rmdir(dir), ==, 0);
    }
}

/* qrdp is killed: QEMU gets its SIGTERM from the kernel. */
static void test_we_die(void)
{
    g_autofree char *dir = g_dir_make_tmp("run-XXXXXX", NULL);
    g_autofree char *script = g_strdup_printf(
        "trap 'echo gone > %s/gone; exit 0' TERM; echo up > %s/up; while :; do sleep 0.05; done",
        dir, dir);
    g_autofree char *up = g_build_filename(dir, "up", NULL);
    g_autofree char *gone = g_build_filename(dir, "gone", NULL);
    g_autofree char *socket = g_build_filename(dir, "qmp.sock", NULL);
    gint64 end = g_get_monotonic_time() + 20 * G_USEC_PER_SEC;
    pid_t pid = fork();

    if (pid == 0) {
        int status;
        start((const char *const[]){"sh", "-c", script, NULL}, dir, 0, &status, NULL);
        while (!g_file_test(up, G_FILE_TEST_EXISTS))
            g_usleep(1000);
        raise(SIGKILL);
    }
    waitpid(pid, NULL, 0);
    while (!g_file_test(gone, G_FILE_TEST_EXISTS)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
    g_unlink(up);
    g_unlink(gone);
    g_unlink(socket);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
}

/* A program that is no QEMU is not run again to ask it what it can do. */
static void test_started_once(void)
{
    g_autofree char *dir = g_dir_make_tmp("run-XXXXXX", NULL);
    g_autofree char *script = g_build_filename(dir, "machine.sh", NULL);
    g_autofree char *starts = g_build_filename(dir, "starts", NULL);
    g_autofree char *text = g_strdup_printf("#!/bin/sh\necho one >>%s\nexit 1\n", starts);
    const char *argv[] = {script, NULL};
    g_autofree char *seen = NULL;
    int status;

    g_assert_true(g_file_set_contents(script, text, -1, NULL));
    g_assert_cmpint(chmod(script, 0700), ==, 0);
    Run *run = start(argv, dir, 0, &status, NULL);
    g_assert_nonnull(run);
    wait_exit(&status);
    g_assert_cmpint(status, ==, 1);
    run_free(run);
    g_assert_true(g_file_get_contents(starts, &seen, NULL, NULL));
    g_assert_cmpstr(seen, ==, "one\n");
    g_unlink(script);
    g_unlink(starts);
    g_rmdir(dir);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_set_level(LOG_LEVEL_ERROR);
    g_test_add_func("/run/started-once", test_started_once);
    g_test_add_func("/run/we-die", test_we_die); /* first: it forks */
    g_test_add_func("/run/refused", test_refused);
    g_test_add_func("/run/status", test_status);
    g_test_add_func("/run/arguments", test_arguments);
    g_test_add_func("/run/boot-order", test_boot_order);
    return g_test_run();
}
