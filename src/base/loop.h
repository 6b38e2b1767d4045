/* loop.h - the one event loop: file descriptors, timers, and work posted from
 * other threads, all run on the thread that calls loop_run. Only loop_post and
 * loop_stop may be called from other threads. epoll(7), timerfd and eventfd
 * underneath. */
#ifndef LODGE_BASE_LOOP_H
#define LODGE_BASE_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct loop;
struct loop_source; /* one watched descriptor or timer; owned by the loop's user */

/* events: EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR as in epoll_ctl(2). */
typedef void loop_fd_fn(void *opaque, uint32_t events);
typedef void loop_fn(void *opaque);

int loop_create(struct loop **ret_loop, struct error *err);
/* All sources must have been removed. */
void loop_destroy(struct loop *loop);

/* Watch fd (not owned) for events; call fn until the source is removed. */
int loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn *fn, void *opaque,
                struct loop_source **ret_source, struct error *err);
int loop_modify_fd(struct loop_source *source, uint32_t events, struct error *err);

/* A timer, disarmed at first. */
int loop_add_timer(struct loop *loop, loop_fn *fn, void *opaque, struct loop_source **ret_source,
                   struct error *err);
/* Fire at deadline_ns of CLOCK_MONOTONIC; 0 disarms. A time in the past fires at once. */
void loop_arm_timer(struct loop_source *source, uint64_t deadline_ns);

/* Safe inside callbacks, the source's own included. NULL is ignored. */
void loop_remove(struct loop_source *source);

/* Run fn(opaque) on the loop's thread, in order of posting. Any thread.
 * -ENOMEM when it could not be queued; then fn is not run. */
int loop_post(struct loop *loop, loop_fn *fn, void *opaque);

/* Handle events until loop_stop; what was posted before the stop is still run. */
int loop_run(struct loop *loop, struct error *err);
/* Make loop_run return. Any thread, and async-signal-safe. */
void loop_stop(struct loop *loop);

uint64_t loop_now_ns(void); /* CLOCK_MONOTONIC in nanoseconds */

#endif
