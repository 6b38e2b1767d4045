/* fiber.h - functions that can stop in the middle and go on later, so that code
 * which waits for I/O reads from top to bottom. A fiber has a stack of its own
 * and runs on one thread, that of its `struct fibers`; it gives way only in
 * fiber_wait and fiber_lock. Nothing here is safe to call from other threads. */
#ifndef LODGE_BASE_FIBER_H
#define LODGE_BASE_FIBER_H

#include <stdbool.h>

struct fiber;
struct fibers; /* the fibers of one thread */

typedef void fiber_fn(void *opaque);

/* Bytes of stack a fiber has, a guard page below it not counted. */
#define FIBER_STACK (256 * 1024)

/* NULL when out of memory. No fiber may be left at destroy. */
struct fibers *fibers_create(void);
void fibers_destroy(struct fibers *fibers);

/* Run the fibers that are ready until none is. Not from a fiber. */
void fibers_run(struct fibers *fibers);

/* Make a fiber that will run fn(opaque) at the next fibers_run. -ENOMEM. */
int fiber_start(struct fibers *fibers, fiber_fn *fn, void *opaque);

/* The fiber that runs now; NULL outside of one. */
struct fiber *fiber_self(const struct fibers *fibers);

/* Stop the running fiber until fiber_wake. Each wake ends one wait: there must
 * be exactly one for each. */
void fiber_wait(struct fibers *fibers);
void fiber_wake(struct fiber *fiber);

/* A list of fibers that wait for something. */
struct fiber_queue {
    struct fiber *first, **end;
};
void fiber_queue_init(struct fiber_queue *queue);
void fiber_queue_wait(struct fibers *fibers, struct fiber_queue *queue);
void fiber_queue_wake_all(struct fiber_queue *queue);

/* A lock between fibers of the same thread; taken in the order of asking. */
struct fiber_lock {
    bool held;
    struct fiber_queue waiting;
};
void fiber_lock_init(struct fiber_lock *lock);
void fiber_lock(struct fibers *fibers, struct fiber_lock *lock);
void fiber_unlock(struct fiber_lock *lock);

#endif
