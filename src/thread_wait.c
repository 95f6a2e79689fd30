#include "thread_wait.h"

#include <fcntl.h>
#include <glib.h>
#include <stdlib.h>
#include <unistd.h>

struct ThreadWait {
    int fd;
};

ThreadWait *thread_wait_new(void)
{
    ThreadWait *wait = g_new(ThreadWait, 1);

    wait->fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    return wait;
}

void thread_wait_free(ThreadWait *wait)
{
    if (wait->fd >= 0)
        close(wait->fd);
    g_free(wait);
}

/* Nanoseconds on a processor, nanoseconds ready without one, and how often it got one
 * (Documentation/scheduler/sched-stats.rst). */
uint64_t thread_wait_us(const ThreadWait *wait)
{
    char text[80] = "";
    ssize_t n = wait->fd < 0 ? 0 : pread(wait->fd, text, sizeof(text) - 1, 0);
    char *second;

    if (n <= 0)
        return 0;
    strtoull(text, &second, 10);
    return strtoull(second, NULL, 10) / 1000;
}
