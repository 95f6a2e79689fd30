/*
 * The clock is a source that is never ready. Its priority makes it the first to be prepared and
 * checked, so it sees when the thread goes to poll and when it comes back: one clock reading per
 * wake-up, whatever happens in it.
 *
 * A poll that had to wait (the kernel counts that, 0.3 us per question) returns when the bytes
 * arrive. One that returned at once found bytes that may have arrived any time since the poll
 * before; it is not known when, so they are charged with all of that. The figures are thus never
 * too good, except for what the kernel takes to wake us.
 */
#include "usb_latency.h"

#include <sys/resource.h>

typedef struct Clock {
    GSource source;
    long waits;     /* of this thread, before the last poll */
    gint64 after;   /* when it returned */
    gint64 arrived; /* what it found is not older than this */
} Clock;

struct UsbLatency {
    Clock *clock;
    gint64 out_since, in_since; /* 0: nothing is on its way */
    UsbLatencies sums;
};

static long thread_waits(void)
{
    struct rusage usage;

    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nvcsw;
}

static gboolean clock_prepare(GSource *source, gint *timeout)
{
    ((Clock *)source)->waits = thread_waits();
    *timeout = -1;
    return FALSE;
}

static gboolean clock_check(GSource *source)
{
    Clock *clock = (Clock *)source;
    gint64 now = g_get_monotonic_time();

    clock->arrived = thread_waits() == clock->waits ? clock->after : now;
    clock->after = now;
    return FALSE;
}

static gboolean clock_dispatch(GSource *source, GSourceFunc func, gpointer user)
{
    return G_SOURCE_CONTINUE;
}

UsbLatency *usb_latency_new(GMainContext *context)
{
    static GSourceFuncs funcs = {
        .prepare = clock_prepare, .check = clock_check, .dispatch = clock_dispatch};
    UsbLatency *l = g_new0(UsbLatency, 1);

    l->clock = (Clock *)g_source_new(&funcs, sizeof(Clock));
    l->clock->arrived = l->clock->after = g_get_monotonic_time();
    g_source_set_priority(&l->clock->source, G_PRIORITY_HIGH - 100);
    g_source_attach(&l->clock->source, context);
    return l;
}

void usb_latency_free(UsbLatency *latency)
{
    if (!latency)
        return;
    g_source_destroy(&latency->clock->source);
    g_source_unref(&latency->clock->source);
    g_free(latency);
}

static void add(Latency *sum, gint64 since)
{
    latency_add(sum, (uint64_t)MAX(g_get_monotonic_time() - since, 0));
}

void usb_latency_out_waits(UsbLatency *latency)
{
    if (!latency->out_since) /* else older bytes wait, and theirs is the time to tell */
        latency->out_since = latency->clock->arrived;
}

void usb_latency_out_gone(UsbLatency *latency)
{
    if (latency->out_since)
        add(&latency->sums.out, latency->out_since);
    latency->out_since = 0;
}

void usb_latency_receiving(UsbLatency *latency, bool on)
{
    latency->in_since = on ? latency->clock->arrived : 0;
}

void usb_latency_in_gone(UsbLatency *latency)
{
    if (latency->in_since)
        add(&latency->sums.in, latency->in_since);
}

uint64_t usb_latency_arrived(const UsbLatency *latency)
{
    return (uint64_t)latency->clock->arrived;
}

const UsbLatencies *usb_latency_get(const UsbLatency *latency)
{
    return &latency->sums;
}
