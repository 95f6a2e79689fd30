/*
 * The password comes from the terminal (twice, without echo) or, when standard input is not one,
 * from its first line. It is never an argument or an environment variable, where other users and
 * log files would see it, and it is wiped as soon as the store has its hash.
 */
#include "passwd.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "auth.h"

typedef char Password[AUTH_MAX_PASSWORD + 2]; /* newline and NUL */

static volatile sig_atomic_t caught;

static void on_signal(int number)
{
    caught = number;
}

/** Reads one line from @fd into @out. False: nothing there, or too long, or interrupted. */
static bool read_line(int fd, Password out, const char **why)
{
    size_t len = 0;
    *why = "no password was given";
    for (;;) {
        char c;
        ssize_t n = read(fd, &c, 1);
        if (n < 0 && errno == EINTR && !caught)
            continue;
        if (n < 0)
            return false;
        if (n == 0 || c == '\n')
            break;
        if (len >= AUTH_MAX_PASSWORD) {
            *why = "the password is too long";
            return false;
        }
        out[len++] = c;
    }
    out[len] = '\0';
    if (len > 0 && !g_utf8_validate(out, (gssize)len, NULL)) {
        *why = "the password is not UTF-8 text";
        return false;
    }
    return len > 0;
}

/** One question on the terminal, echo off meanwhile; restored even when interrupted. */
static bool ask(int tty, const char *question, Password out, const char **why)
{
    struct termios before, quiet;
    if (tcgetattr(tty, &before) < 0) {
        *why = "the terminal's echo cannot be turned off";
        return false;
    }
    quiet = before;
    quiet.c_lflag &= ~(tcflag_t)ECHO;
    if (tcsetattr(tty, TCSAFLUSH, &quiet) < 0) {
        *why = "the terminal's echo cannot be turned off";
        return false;
    }
    dprintf(tty, "%s: ", question);
    bool ok = read_line(tty, out, why);
    tcsetattr(tty, TCSAFLUSH, &before);
    dprintf(tty, "\n");
    return ok;
}

static bool ask_twice(Password out, const char **why)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP};
    Password again;
    int tty = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (tty < 0) {
        *why = "there is no terminal to ask on";
        return false;
    }
    struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART: read() returns */
    for (size_t i = 0; i < G_N_ELEMENTS(signals); i++)
        sigaction(signals[i], &action, NULL);
    bool ok = ask(tty, "New password", out, why) && ask(tty, "Once more", again, why);
    for (size_t i = 0; i < G_N_ELEMENTS(signals); i++)
        signal(signals[i], SIG_DFL);
    close(tty);
    if (caught)
        raise(caught);
    if (ok && strcmp(out, again) != 0) {
        *why = "the two passwords differ";
        ok = false;
    }
    explicit_bzero(again, sizeof(again));
    return ok;
}

static bool set_password(Auth *auth, const char *user, GError **error)
{
    Password password;
    const char *why = NULL;

    if (!auth_check_name(user, error)) /* before somebody types a password for it */
        return false;
    bool ok =
        isatty(STDIN_FILENO) ? ask_twice(password, &why) : read_line(STDIN_FILENO, password, &why);
    if (!ok)
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "Nothing was changed, because %s: try again", why);
    else
        ok = auth_set_password(auth, user, password, error);
    explicit_bzero(password, sizeof(password));
    return ok;
}

int passwd_run(const Config *config)
{
    const char *user = config->words[0];
    g_autoptr(GError) error = NULL;
    Auth *auth = auth_new(config->auth_file, &error);
    bool ok = auth &&
              (config->remove ? auth_remove(auth, user, &error) : set_password(auth, user, &error));
    auth_free(auth);
    if (!ok) {
        fprintf(stderr, "qrdp: %s\n", error->message);
        return 1;
    }
    fprintf(stderr, "%s %s in %s.\n", config->remove ? "Removed" : "Set the password of", user,
            config->auth_file);
    return 0;
}
