/*
 * Tells ThreadSanitizer that memory changes hands here. GLib's locks order our crossings, but GLib
 * is built without the sanitizer, so it cannot see them; without it these are nothing.
 *
 * handover_give() on the thread that lets go, handover_take() on the one that gets it, with the
 * same address. Thread: any.
 */
#ifndef QRDP_BASE_HANDOVER_H
#define QRDP_BASE_HANDOVER_H

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define QRDP_TSAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define QRDP_TSAN 1
#endif

#ifdef QRDP_TSAN
void __tsan_acquire(void *address);
void __tsan_release(void *address);
#define handover_give(address) __tsan_release(address)
#define handover_take(address) __tsan_acquire(address)
#else
#define handover_give(address) ((void)(address))
#define handover_take(address) ((void)(address))
#endif

#endif
