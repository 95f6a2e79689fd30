/*
 * Memory for whole pictures, which are read and written from end to end many times a second.
 */
#ifndef QRDP_BASE_PAGES_H
#define QRDP_BASE_PAGES_H

#include <stddef.h>

/** @size bytes, undefined, aligned to a cache line or better, on large pages as far as the kernel
 * has them: of 4 MB it takes 1000 small ones, and each costs a walk through the page tables on
 * every pass. The caller's, to be given to free(). Never NULL: aborts without memory. */
void *pages_alloc(size_t size);

#endif
