/*
 * What a QMP monitor may answer. The input is everything it says, at once; we ask it for a slot.
 * Whatever comes, the operation ends exactly once, with a chardev's id or with a sentence.
 */
#include <assert.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"
#include "qmp.h"

#define MAX_SAID 16384u

static int listener = -1;
static char path[108];

static void remove_socket(void)
{
    char *folder = g_path_get_dirname(path);

    unlink(path);
    rmdir(folder);
    g_free(folder);
}

static void listen_once(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (listener >= 0)
        return;
    char *folder = g_dir_make_tmp("fuzz-qmp-XXXXXX", NULL);
    g_snprintf(path, sizeof(path), "%s/qmp", folder);
    g_free(folder);
    strcpy(address.sun_path, path);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert(listener >= 0 && bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0);
    assert(listen(listener, 4) == 0);
    atexit(remove_socket);
}

typedef struct Asked {
    unsigned ended;
} Asked;

static void on_added(void *user, const char *id, const char *error)
{
    assert(!id != !error);
    assert(g_utf8_validate(id ? id : error, -1, NULL));
    ((Asked *)user)->ended++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Asked asked = {0};

    if (size > MAX_SAID)
        return 0;
    log_set_level(LOG_LEVEL_ERROR);
    listen_once();
    Qmp *qmp = qmp_new(path);
    qmp_add_usb_slot(qmp, -1, on_added, &asked);
    int fd = -1;
    while (asked.ended == 0) {
        g_main_context_iteration(NULL, FALSE);
        if (fd < 0 && (fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
            int room = 1 << 20;
            setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
            if (send(fd, data, size, MSG_NOSIGNAL) < 0 && size > 0)
                break;
            shutdown(fd, SHUT_WR);
        }
        if (fd < 0)
            g_usleep(20);
    }
    qmp_free(qmp);
    while (g_main_context_iteration(NULL, FALSE)) {
    }
    assert(asked.ended == 1);
    if (fd >= 0)
        close(fd);
    return 0;
}
