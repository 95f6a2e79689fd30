/*
 * The host's side: libusb's opaque types.
 *
 * Owner: a context belongs to libusb_init()/libusb_exit(), a libusb_device to its references (one
 * of them the context's, while it is plugged), a handle to libusb_open()/libusb_close().
 * Thread: any; fields under the bus lock unless a comment says otherwise.
 */
#ifndef QRDP_TESTS_STANDIN_HOST_H
#define QRDP_TESTS_STANDIN_HOST_H

#include "bus.h"
#include <pthread.h>
#include <stdatomic.h>

struct libusb_device {
    TAILQ_ENTRY(libusb_device) link;
    libusb_context *ctx;
    Device *hw;
    unsigned refs;
};

struct libusb_device_handle {
    libusb_device *dev;
    bool auto_detach;
};

typedef struct Hotplug {
    TAILQ_ENTRY(Hotplug) link;
    libusb_hotplug_callback_handle id;
    int events, vid, pid, dev_class;
    libusb_hotplug_callback_fn fn;
    void *user_data;
    bool gone;
} Hotplug;

typedef struct Message {
    TAILQ_ENTRY(Message) link;
    libusb_device *dev;
    libusb_hotplug_event event;
} Message;

struct libusb_context {
    TAILQ_ENTRY(libusb_context) link;
    unsigned refs;
    /* libusb's two locks, held by the caller across our calls: not under the bus lock. */
    pthread_mutex_t events_lock;
    pthread_mutex_t waiters_lock;
    pthread_cond_t waiters_cond;
    atomic_bool handler_active;

    int wake_fd; /* eventfd: something is done, or the sleeper must look at the clock again */
    bool signalled;
    bool interrupted;
    int64_t sleeping_until; /* 0: nobody sleeps */
    struct XferList done;
    struct XferList flying;
    TAILQ_HEAD(, libusb_device) devices;
    TAILQ_HEAD(, Hotplug) hotplugs;
    TAILQ_HEAD(MessageList, Message) messages;
    int next_hotplug;
};

static inline struct libusb_transfer *xfer_public(Xfer *x)
{
    return (struct libusb_transfer *)((char *)x + ((sizeof(Xfer) + 15) & ~(size_t)15));
}

static inline Xfer *xfer_private(struct libusb_transfer *t)
{
    return (Xfer *)((char *)t - ((sizeof(Xfer) + 15) & ~(size_t)15));
}

/** The context a caller means: NULL is the default one. */
libusb_context *context_get(libusb_context *ctx);
/** Lets the sleeper in handle_events look again. */
void context_wake(libusb_context *ctx);
/** True in a transfer or hotplug callback, where no events can be waited for. */
bool events_in_callback(void);
/** The handle's device while it is plugged, else NULL. */
Device *handle_hw(libusb_device_handle *h);
/** Whether @h may move data over @interface; claims it the way usbfs does when @implicit. */
bool handle_may_use(libusb_device_handle *h, unsigned interface, bool implicit);

#endif
