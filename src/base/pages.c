#include "pages.h"

#include <stdlib.h>
#include <sys/mman.h>

#define CACHE_LINE 64u
#define LARGE ((size_t)2 << 20) /* of x86-64 and of most others; what differs gets small pages */

void *pages_alloc(size_t size)
{
    void *p = NULL;

    if (posix_memalign(&p, size >= LARGE ? LARGE : CACHE_LINE, size) != 0)
        abort();
    if (size >= LARGE) /* not the rest of the last one: it would be there as a whole */
        (void)madvise(p, size / LARGE * LARGE, MADV_HUGEPAGE);
    return p;
}
