/* thread.h - starting a thread, with a stack of the size that work here needs.
 * The C library's own, of 8 MiB, gets a huge page as soon as it is touched: 2
 * MiB of memory for each thread. */
#ifndef LODGE_BASE_THREAD_H
#define LODGE_BASE_THREAD_H

#include <pthread.h>

#define THREAD_STACK (512u << 10)

/* As pthread_create; returns 0 or a positive errno, as it does. */
int thread_start(pthread_t *ret_thread, void *(*run)(void *opaque), void *opaque);

#endif
