/*
 * Event handling: the only place that calls back into the client.
 *
 * libusb's locking protocol is the caller's business and kept exactly: events_lock and waiters_lock
 * are real mutexes held across our calls, and whoever has handled events wakes the waiters. Our own
 * bus lock is never held during a callback.
 *
 * Sleeping is a poll() on an eventfd, which is written only when somebody sleeps or the flag is not
 * set yet: a completion costs one system call and wakes at once.
 */
#include "host.h"
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static _Thread_local bool in_callback;

bool events_in_callback(void)
{
    return in_callback;
}

void context_wake(libusb_context *ctx)
{
    uint64_t one = 1;

    if (ctx->signalled)
        return;
    ctx->signalled = true;
    if (write(ctx->wake_fd, &one, sizeof(one)) < 0)
        abort();
}

void context_done(Xfer *x)
{
    TAILQ_INSERT_TAIL(&x->ctx->done, x, link);
    context_wake(x->ctx);
}

/* ---- hotplug ---- */

static bool matches(const Hotplug *h, const Message *m)
{
    const uint8_t *p = m->dev->hw->device_desc;

    return !h->gone && h->events & (int)m->event &&
           (h->vid == LIBUSB_HOTPLUG_MATCH_ANY || h->vid == (p[8] | p[9] << 8)) &&
           (h->pid == LIBUSB_HOTPLUG_MATCH_ANY || h->pid == (p[10] | p[11] << 8)) &&
           (h->dev_class == LIBUSB_HOTPLUG_MATCH_ANY || h->dev_class == p[4]);
}

/* Lock held; dropped around the callback. */
static void call_hotplug(libusb_context *ctx, Hotplug *h, const Message *m)
{
    bool nested = in_callback;
    int gone;

    bus_unlock();
    in_callback = true;
    gone = h->fn(ctx, m->dev, m->event, h->user_data);
    in_callback = nested;
    bus_lock();
    if (gone)
        h->gone = true;
}

static void deliver(libusb_context *ctx, Message *m)
{
    Hotplug *h, *next;

    TAILQ_FOREACH(h, &ctx->hotplugs, link)
    {
        if (matches(h, m))
            call_hotplug(ctx, h, m);
    }
    for (h = TAILQ_FIRST(&ctx->hotplugs); h; h = next) {
        next = TAILQ_NEXT(h, link);
        if (h->gone) {
            TAILQ_REMOVE(&ctx->hotplugs, h, link);
            free(h);
        }
    }
    bus_unlock();
    libusb_unref_device(m->dev);
    free(m);
    bus_lock();
}

int libusb_hotplug_register_callback(libusb_context *ctx, int events, int flags, int vid, int pid,
                                     int dev_class, libusb_hotplug_callback_fn fn, void *user_data,
                                     libusb_hotplug_callback_handle *handle)
{
    Hotplug *h;
    libusb_device **list;
    ssize_t n;

    if (!events || !fn || events & ~3)
        return LIBUSB_ERROR_INVALID_PARAM;
    h = calloc(1, sizeof(*h));
    if (!h)
        abort();
    h->events = events;
    h->vid = vid;
    h->pid = pid;
    h->dev_class = dev_class;
    h->fn = fn;
    h->user_data = user_data;
    bus_lock();
    ctx = context_get(ctx);
    h->id = ++ctx->next_hotplug;
    if (handle)
        *handle = h->id;
    TAILQ_INSERT_TAIL(&ctx->hotplugs, h, link);
    bus_unlock();
    if (!(flags & LIBUSB_HOTPLUG_ENUMERATE) || !(events & LIBUSB_HOTPLUG_EVENT_DEVICE_ARRIVED))
        return 0;

    n = libusb_get_device_list(ctx, &list);
    bus_lock();
    for (ssize_t i = 0; i < n; i++) {
        Message m = {.dev = list[i], .event = LIBUSB_HOTPLUG_EVENT_DEVICE_ARRIVED};

        if (matches(h, &m))
            call_hotplug(ctx, h, &m);
    }
    bus_unlock();
    libusb_free_device_list(list, 1);
    return 0;
}

static Hotplug *find_hotplug(libusb_context *ctx, libusb_hotplug_callback_handle id)
{
    Hotplug *h;

    TAILQ_FOREACH(h, &ctx->hotplugs, link)
    {
        if (h->id == id && !h->gone)
            return h;
    }
    return NULL;
}

void libusb_hotplug_deregister_callback(libusb_context *ctx, libusb_hotplug_callback_handle id)
{
    Hotplug *h;

    bus_lock();
    ctx = context_get(ctx);
    h = ctx ? find_hotplug(ctx, id) : NULL;
    if (h) {
        h->gone = true; /* freed after the next delivery: one may be going on */
        context_wake(ctx);
    }
    bus_unlock();
}

void *libusb_hotplug_get_user_data(libusb_context *ctx, libusb_hotplug_callback_handle id)
{
    Hotplug *h;

    bus_lock();
    h = find_hotplug(context_get(ctx), id);
    bus_unlock();
    return h ? h->user_data : NULL;
}

/* ---- completions ---- */

/* Lock held; dropped around the callback, which may free the transfer. */
static void complete(libusb_context *ctx, Xfer *x)
{
    struct libusb_transfer *t = xfer_public(x);
    bool nested = in_callback;
    uint8_t flags = t->flags;

    TAILQ_REMOVE(&ctx->done, x, link);
    TAILQ_REMOVE(&ctx->flying, x, flight);
    x->state = XFER_IDLE;
    t->status = (enum libusb_transfer_status)x->status;
    t->actual_length = (int)x->pos;
    if (flags & LIBUSB_TRANSFER_SHORT_NOT_OK && t->status == LIBUSB_TRANSFER_COMPLETED &&
        x->pos != x->len - (t->type == LIBUSB_TRANSFER_TYPE_CONTROL ? 8 : 0))
        t->status = LIBUSB_TRANSFER_ERROR;
    bus_unlock();
    if (t->callback) {
        in_callback = true;
        t->callback(t);
        in_callback = nested;
    }
    if (flags & LIBUSB_TRANSFER_FREE_TRANSFER)
        libusb_free_transfer(t);
    bus_lock();
}

static int64_t next_deadline(const libusb_context *ctx)
{
    int64_t first = NEVER;
    Xfer *x;

    TAILQ_FOREACH(x, &ctx->flying, flight)
    {
        if (x->state == XFER_QUEUED && x->deadline < first)
            first = x->deadline;
    }
    return first;
}

static void expire(libusb_context *ctx)
{
    int64_t now = now_ns();
    Xfer *x;

    TAILQ_FOREACH(x, &ctx->flying, flight)
    {
        if (x->state != XFER_QUEUED || x->deadline > now)
            continue;
        xfer_finish(x, LIBUSB_TRANSFER_TIMED_OUT);
        device_run(x->dev); /* the one behind it may be able to move */
    }
}

/*
 * What is there now; what callbacks add waits for the next round. True if anything was.
 *
 * Completions come first. When a device is unplugged, Linux ends its requests while it disables the
 * endpoints and tells udev of the removal afterwards (usb_disconnect(): usb_disable_device(), then
 * device_del()), so libusb has reaped them when the message arrives. FreeRDP 3.33 relies on it: its
 * hotplug callback waits for the device's requests, in the thread that would complete them.
 */
static bool dispatch(libusb_context *ctx)
{
    Message *m, *last_message;
    Xfer *x, *last;
    bool any = false, more;

    expire(ctx);
    last_message = TAILQ_LAST(&ctx->messages, MessageList);
    last = TAILQ_LAST(&ctx->done, XferList);
    more = last != NULL;
    while (more && (x = TAILQ_FIRST(&ctx->done))) {
        more = x != last;
        complete(ctx, x);
        any = true;
    }
    more = last_message != NULL;
    while (more && (m = TAILQ_FIRST(&ctx->messages))) {
        more = m != last_message;
        TAILQ_REMOVE(&ctx->messages, m, link);
        deliver(ctx, m);
        any = true;
    }
    if (ctx->interrupted) {
        ctx->interrupted = false;
        any = true;
    }
    return any;
}

static void acknowledge(libusb_context *ctx)
{
    uint64_t count;

    if (!ctx->signalled || !TAILQ_EMPTY(&ctx->done) || !TAILQ_EMPTY(&ctx->messages))
        return;
    if (read(ctx->wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
        abort();
    ctx->signalled = false;
}

static void sleep_until(libusb_context *ctx, int64_t until)
{
    struct pollfd p = {.fd = ctx->wake_fd, .events = POLLIN};
    int64_t left = until - now_ns();
    struct timespec ts;

    if (left <= 0)
        return;
    ts.tv_sec = left / 1000000000;
    ts.tv_nsec = left % 1000000000;
    ctx->sleeping_until = until;
    bus_unlock();
    ppoll(&p, 1, until == NEVER ? NULL : &ts, NULL);
    bus_lock();
    ctx->sleeping_until = 0;
}

static int64_t after(const struct timeval *tv)
{
    return now_ns() + (int64_t)tv->tv_sec * 1000000000 + (int64_t)tv->tv_usec * 1000;
}

int libusb_handle_events_locked(libusb_context *ctx, struct timeval *tv)
{
    int64_t end = after(tv), deadline;
    bool any;

    if (in_callback)
        return LIBUSB_ERROR_BUSY;
    bus_lock();
    ctx = context_get(ctx);
    any = dispatch(ctx);
    acknowledge(ctx);
    if (!any) {
        deadline = next_deadline(ctx);
        sleep_until(ctx, deadline < end ? deadline : end);
        any = dispatch(ctx);
        acknowledge(ctx);
    }
    bus_unlock();
    if (any) {
        pthread_mutex_lock(&ctx->waiters_lock);
        pthread_cond_broadcast(&ctx->waiters_cond);
        pthread_mutex_unlock(&ctx->waiters_lock);
    }
    return 0;
}

/* ---- libusb's locks ---- */

int libusb_try_lock_events(libusb_context *ctx)
{
    ctx = context_get(ctx);
    if (pthread_mutex_trylock(&ctx->events_lock))
        return 1;
    ctx->handler_active = true;
    return 0;
}

void libusb_lock_events(libusb_context *ctx)
{
    ctx = context_get(ctx);
    pthread_mutex_lock(&ctx->events_lock);
    ctx->handler_active = true;
}

void libusb_unlock_events(libusb_context *ctx)
{
    ctx = context_get(ctx);
    ctx->handler_active = false;
    pthread_mutex_unlock(&ctx->events_lock);
    pthread_mutex_lock(&ctx->waiters_lock);
    pthread_cond_broadcast(&ctx->waiters_cond);
    pthread_mutex_unlock(&ctx->waiters_lock);
}

int libusb_event_handling_ok(libusb_context *ctx)
{
    return 1;
}

int libusb_event_handler_active(libusb_context *ctx)
{
    return context_get(ctx)->handler_active;
}

void libusb_interrupt_event_handler(libusb_context *ctx)
{
    bus_lock();
    ctx = context_get(ctx);
    ctx->interrupted = true;
    context_wake(ctx);
    bus_unlock();
}

void libusb_lock_event_waiters(libusb_context *ctx)
{
    pthread_mutex_lock(&context_get(ctx)->waiters_lock);
}

void libusb_unlock_event_waiters(libusb_context *ctx)
{
    pthread_mutex_unlock(&context_get(ctx)->waiters_lock);
}

int libusb_wait_for_event(libusb_context *ctx, struct timeval *tv)
{
    int64_t end = tv ? after(tv) : 0;
    struct timespec ts = {.tv_sec = end / 1000000000, .tv_nsec = end % 1000000000};

    ctx = context_get(ctx);
    if (!tv) {
        pthread_cond_wait(&ctx->waiters_cond, &ctx->waiters_lock);
        return 0;
    }
    return pthread_cond_timedwait(&ctx->waiters_cond, &ctx->waiters_lock, &ts) == ETIMEDOUT;
}

/* Set by the caller's callback, perhaps in another thread. */
static bool is_set(const int *completed)
{
    return completed && __atomic_load_n(completed, __ATOMIC_ACQUIRE);
}

int libusb_handle_events_timeout_completed(libusb_context *ctx, struct timeval *tv, int *completed)
{
    int result = 0;

    ctx = context_get(ctx);
    for (;;) {
        bool active;

        if (libusb_try_lock_events(ctx) == 0) {
            if (!is_set(completed))
                result = libusb_handle_events_locked(ctx, tv);
            libusb_unlock_events(ctx);
            return result;
        }
        libusb_lock_event_waiters(ctx);
        active = libusb_event_handler_active(ctx);
        if (active && !is_set(completed))
            libusb_wait_for_event(ctx, tv);
        libusb_unlock_event_waiters(ctx);
        if (active || is_set(completed))
            return 0;
    }
}

int libusb_handle_events_timeout(libusb_context *ctx, struct timeval *tv)
{
    return libusb_handle_events_timeout_completed(ctx, tv, NULL);
}

int libusb_handle_events_completed(libusb_context *ctx, int *completed)
{
    struct timeval tv = {.tv_sec = 60};

    return libusb_handle_events_timeout_completed(ctx, &tv, completed);
}

int libusb_handle_events(libusb_context *ctx)
{
    return libusb_handle_events_completed(ctx, NULL);
}

/* ---- for callers with a poll loop of their own ---- */

int libusb_pollfds_handle_timeouts(libusb_context *ctx)
{
    return 0; /* deadlines are not a file descriptor: ask libusb_get_next_timeout() */
}

int libusb_get_next_timeout(libusb_context *ctx, struct timeval *tv)
{
    int64_t deadline, left;

    bus_lock();
    deadline = next_deadline(context_get(ctx));
    bus_unlock();
    if (deadline == NEVER)
        return 0;
    left = deadline - now_ns();
    if (left < 0)
        left = 0;
    tv->tv_sec = left / 1000000000;
    tv->tv_usec = left % 1000000000 / 1000;
    return 1;
}

const struct libusb_pollfd **libusb_get_pollfds(libusb_context *ctx)
{
    const struct libusb_pollfd **list = calloc(1, 2 * sizeof(*list) + sizeof(**list));
    struct libusb_pollfd *p;

    if (!list)
        abort();
    p = (struct libusb_pollfd *)(list + 2);
    p->fd = context_get(ctx)->wake_fd;
    p->events = POLLIN;
    list[0] = p;
    return list;
}

void libusb_free_pollfds(const struct libusb_pollfd **list)
{
    free(list);
}

void libusb_set_pollfd_notifiers(libusb_context *ctx, libusb_pollfd_added_cb added,
                                 libusb_pollfd_removed_cb removed, void *user_data)
{
    /* The one descriptor lives as long as the context. */
}
