/* parallel.h - the same work on several items, on several threads. */
#ifndef LODGE_IMAGE_PARALLEL_H
#define LODGE_IMAGE_PARALLEL_H

#include <stddef.h>

#include "base/error.h"

/* On item number i; on any thread. */
typedef int parallel_fn(void *opaque, size_t i, struct error *err);

/* Call fn once for each i below count, lowest first, on at most threads threads,
 * the caller's among them. After a failure no new item is begun; the first
 * failure is returned when all threads are done. */
int parallel_run(size_t count, unsigned threads, parallel_fn *fn, void *opaque, struct error *err);

#endif
