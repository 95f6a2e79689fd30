/*
 * WinPR's events are file descriptors, so FreeRDP fits into a GMainContext: the descriptors behind
 * its handles are watched by one source (style.md, FreeRDP fact 5). The set is compared with the
 * one of the last wait, and touched only where it differs.
 *
 * FreeRDP's own handle reports the socket as readable only. Writability is watched on a dup of the
 * socket, because nothing else would drain its output buffer (rdp-server.md 5).
 */
#include "rdploop.h"

#include <winpr/synch.h>

typedef struct RdpLoop {
    GSource source;
    const RdpLoopCallbacks *callbacks;
    void *user;
    int write_fd;
    gpointer write_tag; /* NULL: not watched */
    guint n;
    int fds[RDPLOOP_MAX_HANDLES];
    gpointer tags[RDPLOOP_MAX_HANDLES];
} RdpLoop;

static void watch_fds(RdpLoop *loop, const int *fds, guint n)
{
    for (guint i = 0; i < MAX(n, loop->n); i++) {
        bool have = i < loop->n, want = i < n;
        if (have && want && loop->fds[i] == fds[i])
            continue;
        if (have)
            g_source_remove_unix_fd(&loop->source, loop->tags[i]);
        if (want) {
            loop->fds[i] = fds[i];
            loop->tags[i] = g_source_add_unix_fd(&loop->source, fds[i], G_IO_IN | G_IO_HUP);
        }
    }
    loop->n = n;
}

static gboolean rdploop_prepare(GSource *source, int *timeout)
{
    RdpLoop *loop = (RdpLoop *)source;
    HANDLE handles[RDPLOOP_MAX_HANDLES];
    int fds[RDPLOOP_MAX_HANDLES];
    guint n = 0;

    *timeout = -1;
    DWORD count = loop->callbacks->handles(loop->user, handles, RDPLOOP_MAX_HANDLES);
    for (DWORD i = 0; i < count; i++) {
        int fd = GetEventFileDescriptor(handles[i]);
        if (fd >= 0)
            fds[n++] = fd;
    }
    watch_fds(loop, fds, n);

    bool want = loop->callbacks->wants_write(loop->user);
    if (want && !loop->write_tag) {
        loop->write_tag = g_source_add_unix_fd(source, loop->write_fd, G_IO_OUT);
    } else if (!want && loop->write_tag) {
        g_source_remove_unix_fd(source, loop->write_tag);
        loop->write_tag = NULL;
    }
    if (!loop->callbacks->ready(loop->user))
        return FALSE;
    *timeout = 0;
    return TRUE;
}

static gboolean rdploop_check(GSource *source)
{
    RdpLoop *loop = (RdpLoop *)source;
    if (loop->callbacks->ready(loop->user))
        return TRUE;
    if (loop->write_tag && g_source_query_unix_fd(source, loop->write_tag))
        return TRUE;
    for (guint i = 0; i < loop->n; i++) {
        if (g_source_query_unix_fd(source, loop->tags[i]))
            return TRUE;
    }
    return FALSE;
}

static gboolean rdploop_dispatch(GSource *source, GSourceFunc function, gpointer data)
{
    RdpLoop *loop = (RdpLoop *)source;
    return loop->callbacks->dispatch(loop->user) ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

GSource *rdploop_source_new(int write_fd, const RdpLoopCallbacks *callbacks, void *user)
{
    static GSourceFuncs functions = {
        .prepare = rdploop_prepare, .check = rdploop_check, .dispatch = rdploop_dispatch};
    GSource *source = g_source_new(&functions, sizeof(RdpLoop));
    RdpLoop *loop = (RdpLoop *)source;

    loop->callbacks = callbacks;
    loop->user = user;
    loop->write_fd = write_fd;
    g_source_set_name(source, "rdp");
    /* Nothing here recurses. GLib would take our descriptors out of the poll during each dispatch,
     * and wake us up to put them back. */
    g_source_set_can_recurse(source, TRUE);
    return source;
}
