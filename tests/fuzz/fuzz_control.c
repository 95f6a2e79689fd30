/*
 * Requests at the control socket: other programs of the same user. The input is one connection's
 * bytes. An answer begins with "ok" or "error", and the handler sees words without separators.
 */
#include <assert.h>
#include <errno.h>
#include <gio/gio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "control.h"
#include "log.h"

static Control *control;
static char *folder;

static char *on_command(void *user, char **words, bool *ok)
{
    size_t len = 0;

    assert(words[0] && *words[0]);
    for (char **w = words; *w; w++) {
        assert(!strpbrk(*w, " \n") && g_utf8_validate(*w, -1, NULL));
        len += strlen(*w) + 1;
    }
    assert(len <= CONTROL_MAX_REQUEST + 1024);
    *ok = !strchr(words[0], 'e');
    return g_strdup(words[0]);
}

static void clean_up(void)
{
    control_free(control);
    rmdir(folder);
    g_free(folder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char answer[8192];
    size_t len = 0;

    if (size > 2 * CONTROL_MAX_REQUEST)
        return 0;
    log_set_level(LOG_LEVEL_ERROR);
    if (!control) {
        folder = g_dir_make_tmp("fuzz-control-XXXXXX", NULL);
        control = control_new(folder, on_command, NULL, NULL);
        assert(control);
        atexit(clean_up);
    }
    g_snprintf(address.sun_path, sizeof(address.sun_path), "%s/control", folder);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    (void)!send(fd, data, size, MSG_NOSIGNAL);
    shutdown(fd, SHUT_WR);
    for (ssize_t n = -1; n != 0 && len < sizeof(answer);) {
        g_main_context_iteration(NULL, FALSE);
        n = recv(fd, answer + len, sizeof(answer) - len, MSG_DONTWAIT);
        if (n > 0)
            len += (size_t)n;
        else if (n < 0 && errno != EAGAIN)
            n = 0; /* cut off with bytes of ours unread */
    }
    close(fd);
    if (size > 0 && memchr(data, '\n', size) == NULL && size < CONTROL_MAX_REQUEST)
        assert(len == 0); /* not a whole request: no answer */
    assert(len == 0 || memcmp(answer, "ok\n", MIN(len, 3)) == 0 ||
           memcmp(answer, "error\n", MIN(len, 6)) == 0);
    return 0;
}
