/*
 * How long a thread has been ready to run without a processor, as the kernel counts it.
 *
 * Owner: whoever makes it. Thread: the one that made it.
 */
#ifndef QRDP_THREAD_WAIT_H
#define QRDP_THREAD_WAIT_H

#include <stdint.h>

typedef struct ThreadWait ThreadWait;

ThreadWait *thread_wait_new(void);
void thread_wait_free(ThreadWait *wait);
/** Microseconds since the thread began; 0 for ever where the kernel does not count. */
uint64_t thread_wait_us(const ThreadWait *wait);

#endif
