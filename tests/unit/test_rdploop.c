/* The GSource over WinPR handles: readable handles, a changing set, and writability. */
#include "rdploop.h"

#include <sys/socket.h>
#include <unistd.h>
#include <winpr/handle.h>
#include <winpr/synch.h>

typedef struct Fixture {
    GMainContext *context;
    GSource *source;
    HANDLE events[4];
    DWORD n;
    bool want_write, ready;
    int pair[2];
    unsigned dispatched;
    bool go_on;
} Fixture;

static DWORD on_handles(void *user, HANDLE *handles, DWORD max)
{
    Fixture *f = user;
    g_assert_cmpuint(max, ==, RDPLOOP_MAX_HANDLES);
    for (DWORD i = 0; i < f->n; i++)
        handles[i] = f->events[i];
    return f->n;
}

static bool on_wants_write(void *user)
{
    return ((Fixture *)user)->want_write;
}

static bool on_ready(void *user)
{
    return ((Fixture *)user)->ready;
}

static bool on_dispatch(void *user)
{
    Fixture *f = user;
    f->dispatched++;
    for (DWORD i = 0; i < f->n; i++)
        ResetEvent(f->events[i]);
    f->want_write = f->ready = false;
    return f->go_on;
}

static const RdpLoopCallbacks callbacks = {.handles = on_handles,
                                           .ready = on_ready,
                                           .wants_write = on_wants_write,
                                           .dispatch = on_dispatch};

static void set_up(Fixture *f, gconstpointer unused)
{
    f->context = g_main_context_new();
    f->go_on = true;
    for (int i = 0; i < 4; i++)
        f->events[i] = CreateEvent(NULL, TRUE, FALSE, NULL);
    f->n = 2;
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, f->pair), ==, 0);
    f->source = rdploop_source_new(f->pair[0], &callbacks, f);
    g_source_attach(f->source, f->context);
}

static void tear_down(Fixture *f, gconstpointer unused)
{
    g_source_destroy(f->source);
    g_source_unref(f->source);
    g_main_context_unref(f->context);
    for (int i = 0; i < 4; i++)
        CloseHandle(f->events[i]);
    close(f->pair[0]);
    close(f->pair[1]);
}

static unsigned turn(Fixture *f)
{
    f->dispatched = 0;
    g_main_context_iteration(f->context, FALSE);
    return f->dispatched;
}

static void test_readable(Fixture *f, gconstpointer unused)
{
    g_assert_cmpuint(turn(f), ==, 0);
    SetEvent(f->events[1]);
    g_assert_cmpuint(turn(f), ==, 1);
    g_assert_cmpuint(turn(f), ==, 0);
}

static void test_set_changes(Fixture *f, gconstpointer unused)
{
    SetEvent(f->events[3]);
    g_assert_cmpuint(turn(f), ==, 0); /* not among the handles yet */
    f->n = 4;
    g_assert_cmpuint(turn(f), ==, 1);
    f->n = 1;
    SetEvent(f->events[1]);
    g_assert_cmpuint(turn(f), ==, 0); /* no longer among them */
    ResetEvent(f->events[1]);
    /* TLS swaps a handle for another in the same place. */
    HANDLE first = f->events[0];
    f->events[0] = f->events[2];
    f->events[2] = first;
    SetEvent(f->events[0]);
    g_assert_cmpuint(turn(f), ==, 1);
    SetEvent(first);
    g_assert_cmpuint(turn(f), ==, 0);
    f->n = 0;
    g_assert_cmpuint(turn(f), ==, 0);
}

static void test_writable(Fixture *f, gconstpointer unused)
{
    static const char filler[4096];

    g_assert_cmpuint(turn(f), ==, 0); /* writable, but nobody asked */
    f->want_write = true;
    g_assert_cmpuint(turn(f), ==, 1);
    g_assert_cmpuint(turn(f), ==, 0); /* nor now */

    while (write(f->pair[0], filler, sizeof(filler)) > 0) {
    }
    f->want_write = true;
    g_assert_cmpuint(turn(f), ==, 0); /* the other side reads nothing */
    char drain[4096];
    while (read(f->pair[1], drain, sizeof(drain)) > 0) {
    }
    g_assert_cmpuint(turn(f), ==, 1);
}

static void test_ready(Fixture *f, gconstpointer unused)
{
    f->ready = true;
    g_assert_cmpuint(turn(f), ==, 1); /* with no descriptor to be read */
    g_assert_cmpuint(turn(f), ==, 0);
}

static void test_ends(Fixture *f, gconstpointer unused)
{
    f->go_on = false;
    SetEvent(f->events[0]);
    g_assert_cmpuint(turn(f), ==, 1);
    g_assert_true(g_source_is_destroyed(f->source));
    SetEvent(f->events[0]);
    g_assert_cmpuint(turn(f), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add("/rdploop/readable", Fixture, NULL, set_up, test_readable, tear_down);
    g_test_add("/rdploop/set-changes", Fixture, NULL, set_up, test_set_changes, tear_down);
    g_test_add("/rdploop/writable", Fixture, NULL, set_up, test_writable, tear_down);
    g_test_add("/rdploop/ready", Fixture, NULL, set_up, test_ready, tear_down);
    g_test_add("/rdploop/ends", Fixture, NULL, set_up, test_ends, tear_down);
    return g_test_run();
}
