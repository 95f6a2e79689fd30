/*
 * The server half never blocks: a connection is a small buffer, one fd watch and one deadline, and
 * whatever a caller does wrong ends only its own connection. The client half blocks, it runs in a
 * process of its own.
 *
 * The socket is bound under a temporary name and renamed when it already listens with its final
 * mode, so that nobody ever sees one that refuses connections while its owner lives. That makes
 * ECONNREFUSED mean "dead", which control_list() and control_new() rely on.
 */
#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <glib-unix.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"

#define SOCKET_NAME "control"
#define SUBJECT "control"
#define ACCEPT_PAUSE_MS 500 /* when there is no descriptor for a caller: it stays in the queue */

struct Control {
    char *dir, *path;
    int fd;
    guint accept_source; /* the socket's watch, or the pause after a failed accept */
    ControlHandler handler;
    void *user;
    GPtrArray *clients; /* ControlClient */
    LogLimit log_limit;
};

typedef struct ControlClient {
    Control *control;
    int fd;
    guint watch, deadline;
    GString *request;
    char *answer; /* NULL while the request is being read */
    size_t len, sent;
} ControlClient;

static void set_errno_error(GError **error, int saved, const char *what, const char *path)
{
    g_set_error(error, G_IO_ERROR, g_io_error_from_errno(saved), "%s %s: %s", what, path,
                g_strerror(saved));
}

static bool fill_address(struct sockaddr_un *address, const char *path, GError **error)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (g_strlcpy(address->sun_path, path, sizeof(address->sun_path)) < sizeof(address->sun_path))
        return true;
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                "%s is too long for a socket: give a shorter --run-dir", path);
    return false;
}

bool control_make_dir(const char *path, GError **error)
{
    struct stat st;
    if (g_mkdir_with_parents(path, 0700) < 0 || lstat(path, &st) < 0) {
        set_errno_error(error, errno, "Cannot make the directory", path);
        return false;
    }
    if (S_ISDIR(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & (S_IWGRP | S_IWOTH)))
        return true;
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED,
                "%s must be a directory of uid %u that nobody else may write to: fix its owner and "
                "mode, or name another with --run-dir",
                path, (unsigned)geteuid());
    return false;
}

/* ------------------------------------------------------------------------------------------------
 * One connection
 */

static void client_free(void *data)
{
    ControlClient *client = data;
    if (client->watch)
        g_source_remove(client->watch);
    if (client->deadline)
        g_source_remove(client->deadline);
    close(client->fd);
    g_string_free(client->request, TRUE);
    g_free(client->answer);
    g_free(client);
}

static void client_end(ControlClient *client)
{
    g_ptr_array_remove_fast(client->control->clients, client);
}

static gboolean on_deadline(void *data)
{
    ControlClient *client = data;
    client->deadline = 0;
    if (log_limit(&client->control->log_limit, (uint64_t)g_get_monotonic_time(), 60000000, 5))
        log_warning(SUBJECT, "a caller took longer than %u ms and was cut off",
                    CONTROL_DEADLINE_MS);
    client_end(client);
    return G_SOURCE_REMOVE;
}

static gboolean on_writable(int fd, GIOCondition condition, void *data)
{
    ControlClient *client = data;
    ssize_t n = send(fd, client->answer + client->sent, client->len - client->sent,
                     MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return G_SOURCE_CONTINUE;
    if (n > 0)
        client->sent += (size_t)n;
    if (n > 0 && client->sent < client->len)
        return G_SOURCE_CONTINUE;
    client->watch = 0;
    client_end(client);
    return G_SOURCE_REMOVE;
}

static void client_answer(ControlClient *client, bool ok, const char *text)
{
    client->answer = g_strconcat(ok ? "ok\n" : "error\n", text, NULL);
    client->len = strlen(client->answer);
    client->watch = g_unix_fd_add(client->fd, G_IO_OUT | G_IO_HUP | G_IO_ERR, on_writable, client);
}

static void client_request(ControlClient *client, char *line)
{
    g_auto(GStrv) words = g_strsplit(line, " ", -1);
    bool ok = g_utf8_validate(line, -1, NULL) && words[0] && *words[0];
    if (!ok) {
        client_answer(client, false, "The request is not a line of UTF-8 words.\n");
        return;
    }
    g_autofree char *text = client->control->handler(client->control->user, words, &ok);
    client_answer(client, ok, text ? text : "");
}

static gboolean on_readable(int fd, GIOCondition condition, void *data)
{
    ControlClient *client = data;
    char buffer[1024];
    ssize_t n = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return G_SOURCE_CONTINUE;
    client->watch = 0;
    if (n <= 0) {
        client_end(client); /* left without a whole request */
        return G_SOURCE_REMOVE;
    }
    g_string_append_len(client->request, buffer, n);
    char *newline = memchr(client->request->str, '\n', client->request->len);
    if (newline) {
        *newline = '\0';
        client_request(client, client->request->str);
    } else if (client->request->len >= CONTROL_MAX_REQUEST) {
        client_answer(client, false, "The request is too long.\n");
    } else {
        client->watch = g_unix_fd_add(fd, G_IO_IN | G_IO_HUP | G_IO_ERR, on_readable, client);
    }
    return G_SOURCE_REMOVE;
}

static bool may_ask(int fd)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 &&
           (cred.uid == 0 || cred.uid == geteuid());
}

static gboolean on_connection(int fd, GIOCondition condition, void *data);

static gboolean on_accept_again(void *data)
{
    Control *control = data;
    control->accept_source = g_unix_fd_add(control->fd, G_IO_IN, on_connection, control);
    return G_SOURCE_REMOVE;
}

/* The caller is still there, and its watch would fire for ever. */
static void pause_accepting(Control *control, int error)
{
    if (log_limit(&control->log_limit, (uint64_t)g_get_monotonic_time(), 60000000, 5))
        log_warning(SUBJECT, "a caller must wait: %s; raise the limit on open files",
                    g_strerror(error));
    control->accept_source = g_timeout_add(ACCEPT_PAUSE_MS, on_accept_again, control);
}

static gboolean on_connection(int fd, GIOCondition condition, void *data)
{
    Control *control = data;
    int client_fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (client_fd < 0) {
        if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
            return G_SOURCE_CONTINUE;
        pause_accepting(control, errno);
        return G_SOURCE_REMOVE;
    }
    const char *refusal = NULL;
    if (!may_ask(client_fd))
        refusal = "it is of another user";
    else if (control->clients->len >= CONTROL_MAX_CLIENTS)
        refusal = "there are too many at once";
    if (refusal) {
        if (log_limit(&control->log_limit, (uint64_t)g_get_monotonic_time(), 60000000, 5))
            log_warning(SUBJECT, "a caller was refused: %s", refusal);
        close(client_fd);
        return G_SOURCE_CONTINUE;
    }
    ControlClient *client = g_new0(ControlClient, 1);
    client->control = control;
    client->fd = client_fd;
    client->request = g_string_new(NULL);
    client->watch = g_unix_fd_add(client_fd, G_IO_IN | G_IO_HUP | G_IO_ERR, on_readable, client);
    client->deadline = g_timeout_add(CONTROL_DEADLINE_MS, on_deadline, client);
    g_ptr_array_add(control->clients, client);
    return G_SOURCE_CONTINUE;
}

/* ------------------------------------------------------------------------------------------------
 * The listening socket
 */

/** Connects to @path; -1 and errno. */
static int connect_to(const char *path)
{
    struct sockaddr_un address;
    if (!fill_address(&address, path, NULL)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    int saved = errno;
    if (fd >= 0)
        close(fd);
    errno = saved;
    return -1;
}

static int listen_at(const char *path, GError **error)
{
    g_autofree char *temporary = g_strdup_printf("%s.%d", path, (int)getpid());
    struct sockaddr_un address;
    if (!fill_address(&address, temporary, error))
        return -1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    unlink(temporary);
    if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
        chmod(temporary, 0600) == 0 && listen(fd, CONTROL_MAX_CLIENTS) == 0 &&
        rename(temporary, path) == 0)
        return fd;
    set_errno_error(error, errno, "Cannot make the control socket", path);
    unlink(temporary);
    if (fd >= 0)
        close(fd);
    return -1;
}

Control *control_new(const char *dir, ControlHandler handler, void *user, GError **error)
{
    g_autofree char *path = g_build_filename(dir, SOCKET_NAME, NULL);
    int other = connect_to(path);
    if (other >= 0) {
        close(other);
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_EXISTS,
                    "Another qrdp uses %s: give each its own --run-dir", dir);
        return NULL;
    }
    int fd = listen_at(path, error);
    if (fd < 0)
        return NULL;
    Control *control = g_new0(Control, 1);
    control->dir = g_strdup(dir);
    control->path = g_steal_pointer(&path);
    control->fd = fd;
    control->handler = handler;
    control->user = user;
    control->clients = g_ptr_array_new_with_free_func(client_free);
    control->accept_source = g_unix_fd_add(fd, G_IO_IN, on_connection, control);
    return control;
}

void control_free(Control *control)
{
    if (!control)
        return;
    g_source_remove(control->accept_source);
    g_ptr_array_unref(control->clients);
    unlink(control->path);
    rmdir(control->dir);
    close(control->fd);
    g_free(control->path);
    g_free(control->dir);
    g_free(control);
}

/* ------------------------------------------------------------------------------------------------
 * The asking side
 */

static bool join_words(GString *out, char **words, GError **error)
{
    for (guint i = 0; words[i]; i++) {
        if (!*words[i] || strpbrk(words[i], " \n")) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                        "'%s' is not a single word: remove its blanks", words[i]);
            return false;
        }
        g_string_append_printf(out, "%s%s", i ? " " : "", words[i]);
    }
    g_string_append_c(out, '\n');
    if (out->len <= CONTROL_MAX_REQUEST)
        return true;
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "The request is too long");
    return false;
}

static bool send_all(int fd, const GString *text)
{
    for (size_t sent = 0; sent < text->len;) {
        ssize_t n = send(fd, text->str + sent, text->len - sent, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        sent += (size_t)n;
    }
    return true;
}

/** Reads to the end of the stream, at most until @deadline (monotonic us). */
static bool receive_all(int fd, GString *out, gint64 deadline)
{
    char buffer[4096];
    for (;;) {
        gint64 left = (deadline - g_get_monotonic_time()) / 1000;
        struct pollfd pfd = {.fd = fd, .events = POLLIN};
        if (left <= 0 || out->len > CONTROL_MAX_ANSWER)
            return false;
        int ready = poll(&pfd, 1, (int)left);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            return false;
        ssize_t n = recv(fd, buffer, sizeof(buffer), 0);
        if (n <= 0)
            return n == 0;
        g_string_append_len(out, buffer, n);
    }
}

char *control_call(const char *dir, char **words, bool *ok, GError **error)
{
    g_autoptr(GString) request = g_string_new(NULL);
    g_autoptr(GString) answer = g_string_new(NULL);
    g_autofree char *path = g_build_filename(dir, SOCKET_NAME, NULL);
    if (!join_words(request, words, error))
        return NULL;
    int fd = connect_to(path);
    if (fd < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno),
                    "No qrdp answers at %s (%s): is it running, and is it yours?", path,
                    g_strerror(errno));
        return NULL;
    }
    gint64 deadline = g_get_monotonic_time() + CONTROL_DEADLINE_MS * G_TIME_SPAN_MILLISECOND;
    bool received = send_all(fd, request) && receive_all(fd, answer, deadline);
    close(fd);
    *ok = received && g_str_has_prefix(answer->str, "ok\n");
    if (!*ok && !(received && g_str_has_prefix(answer->str, "error\n"))) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                    "The qrdp at %s gave no answer: see its log", path);
        return NULL;
    }
    return g_strdup(strchr(answer->str, '\n') + 1);
}

/** What an instance that was killed left: its sockets and then the directory. */
static void remove_dead(const char *dir)
{
    g_autoptr(GDir) entries = g_dir_open(dir, 0, NULL);
    const char *name;
    while (entries && (name = g_dir_read_name(entries))) {
        g_autofree char *path = g_build_filename(dir, name, NULL);
        struct stat st;
        if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
            unlink(path);
    }
    rmdir(dir);
}

GPtrArray *control_list(const char *base)
{
    GPtrArray *found = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GDir) entries = g_dir_open(base, 0, NULL);
    const char *name;
    while (entries && (name = g_dir_read_name(entries))) {
        g_autofree char *dir = g_build_filename(base, name, NULL);
        g_autofree char *path = g_build_filename(dir, SOCKET_NAME, NULL);
        int fd = connect_to(path);
        if (fd >= 0) {
            close(fd);
            g_ptr_array_add(found, g_steal_pointer(&dir));
        } else if (errno == ECONNREFUSED) {
            remove_dead(dir);
        }
    }
    return found;
}
