/* timer.h - time for devices. One thread waits for the nearest deadline of all
 * timers and calls their functions; a device's own lock guards its state.
 * Time comes from here only, so that a run can be repeated. */
#ifndef LODGE_MACHINE_TIMER_H
#define LODGE_MACHINE_TIMER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/sandbox.h"

struct timer {
    void (*fn)(void *opaque);
    void *opaque;
    uint64_t deadline; /* ns; 0: not armed */
    unsigned index;    /* place in the heap */
};

#define TIMERS_MAX 128

struct timers {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    bool running, stop;
    int confined; /* 1: the thread sits in its sandbox; -errno: it could not */
    const struct sandbox *sandbox;
    unsigned count;
    struct timer *heap[TIMERS_MAX]; /* by deadline */
    uint64_t tsc_hz;                /* of the host's, and so of the guest's, TSC */
};

/* sandbox: for the thread, or NULL; lives as long. */
int timers_init(struct timers *timers, const struct sandbox *sandbox, struct error *err);
/* Stops the thread; no timer's function runs afterwards. */
void timers_destroy(struct timers *timers);

/* Nanoseconds since some start; does not jump. */
uint64_t timers_now(const struct timers *timers);
/* Nanoseconds since 1970 in UTC, by the host's clock. */
uint64_t timers_wall_clock(const struct timers *timers);

/* Call timer->fn once at deadline (ns of timers_now), on the timer thread. A
 * new deadline replaces the old. The function may arm its own timer again. Any
 * thread, device locks held. */
void timer_arm(struct timers *timers, struct timer *timer, uint64_t deadline);
void timer_disarm(struct timers *timers, struct timer *timer);

#endif
