#include "machine/timer.h"

#include <sys/prctl.h>
#include <time.h>
#include <x86intrin.h>

#include "base/bytes.h"
#include "base/thread.h"

#define NS_PER_S 1000000000ull

/* How the TSC's rate is measured. */
#define MEASURE_NS 5000000
#define READINGS   16

uint64_t timers_now(const struct timers *timers)
{
    struct timespec now;

    (void)timers;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t timers_wall_clock(const struct timers *timers)
{
    struct timespec now;

    (void)timers;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static void place(struct timers *t, unsigned i, struct timer *timer)
{
    t->heap[i] = timer;
    timer->index = i;
}

static void sift_up(struct timers *t, unsigned i)
{
    struct timer *timer = t->heap[i];

    for (; i && t->heap[(i - 1) / 2]->deadline > timer->deadline; i = (i - 1) / 2)
        place(t, i, t->heap[(i - 1) / 2]);
    place(t, i, timer);
}

static void sift_down(struct timers *t, unsigned i)
{
    struct timer *timer = t->heap[i];

    for (;;) {
        unsigned child = 2 * i + 1;

        if (child >= t->count)
            break;
        if (child + 1 < t->count && t->heap[child + 1]->deadline < t->heap[child]->deadline)
            child++;
        if (t->heap[child]->deadline >= timer->deadline)
            break;
        place(t, i, t->heap[child]);
        i = child;
    }
    place(t, i, timer);
}

static void take_out(struct timers *t, struct timer *timer)
{
    unsigned i = timer->index;

    timer->deadline = 0;
    if (i != --t->count) {
        place(t, i, t->heap[t->count]);
        sift_down(t, i);
        sift_up(t, i);
    }
}

static void *timer_thread(void *opaque)
{
    struct timers *t = opaque;
    int r;

    /* Guests count on microseconds: no slack of the host's on top. */
    prctl(PR_SET_TIMERSLACK, 1ul, 0ul, 0ul, 0ul);
    r = sandbox_thread(t->sandbox, SANDBOX_TIMER, NULL);
    pthread_mutex_lock(&t->lock);
    t->confined = r < 0 ? r : 1;
    pthread_cond_broadcast(&t->wake);
    while (!t->stop) {
        struct timer *first = t->count ? t->heap[0] : NULL;

        if (!first) {
            pthread_cond_wait(&t->wake, &t->lock);
        } else if (first->deadline > timers_now(t)) {
            struct timespec when = {.tv_sec = (time_t)(first->deadline / NS_PER_S),
                                    .tv_nsec = (long)(first->deadline % NS_PER_S)};

            pthread_cond_timedwait(&t->wake, &t->lock, &when);
        } else {
            take_out(t, first);
            /* The function takes its device's lock, under which timers are
             * armed: ours must not be held around it. */
            pthread_mutex_unlock(&t->lock);
            first->fn(first->opaque);
            pthread_mutex_lock(&t->lock);
        }
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

/* What both clocks say at one moment: of several readings, the one that took least. */
static void read_clocks(const struct timers *t, uint64_t *ret_ns, uint64_t *ret_tsc)
{
    uint64_t least = UINT64_MAX;

    for (int i = 0; i < READINGS; i++) {
        const uint64_t before = __rdtsc(), now = timers_now(t), after = __rdtsc();

        if (after - before >= least)
            continue;
        least = after - before;
        *ret_ns = now;
        *ret_tsc = before + least / 2;
    }
}

/* The TSC runs at a constant rate on every host that Lodge serves; a short
 * measurement against the clock tells it well enough to be rounded to MHz/100. */
static uint64_t measure_tsc(const struct timers *t)
{
    const struct timespec while_it_counts = {.tv_nsec = MEASURE_NS};
    uint64_t ns = 0, tsc = 0, later_ns = 0, later_tsc = 0, hz;

    read_clocks(t, &ns, &tsc);
    nanosleep(&while_it_counts, NULL);
    read_clocks(t, &later_ns, &later_tsc);
    hz = (uint64_t)((unsigned __int128)(later_tsc - tsc) * NS_PER_S / (later_ns - ns));
    return (hz + 5000) / 10000 * 10000;
}

int timers_init(struct timers *timers, const struct sandbox *sandbox, struct error *err)
{
    pthread_condattr_t attributes;
    int r;

    *timers = (struct timers){.sandbox = sandbox};
    pthread_mutex_init(&timers->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&timers->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    timers->tsc_hz = measure_tsc(timers);
    r = thread_start(&timers->thread, timer_thread, timers);
    if (r)
        return error_system(err, r, "cannot start the timer thread");
    timers->running = true;
    pthread_mutex_lock(&timers->lock);
    while (!timers->confined)
        pthread_cond_wait(&timers->wake, &timers->lock);
    r = timers->confined;
    pthread_mutex_unlock(&timers->lock);
    if (r < 0) {
        timers_destroy(timers);
        return error_system(err, -r, "cannot confine the timer thread to its system calls");
    }
    return 0;
}

void timers_destroy(struct timers *timers)
{
    if (timers->running) {
        pthread_mutex_lock(&timers->lock);
        timers->stop = true;
        pthread_cond_signal(&timers->wake);
        pthread_mutex_unlock(&timers->lock);
        pthread_join(timers->thread, NULL);
    }
    pthread_cond_destroy(&timers->wake);
    pthread_mutex_destroy(&timers->lock);
}

void timer_arm(struct timers *timers, struct timer *timer, uint64_t deadline)
{
    pthread_mutex_lock(&timers->lock);
    if (timer->deadline)
        take_out(timers, timer);
    if (timers->count < TIMERS_MAX) {
        timer->deadline = deadline ? deadline : 1;
        place(timers, timers->count++, timer);
        sift_up(timers, timers->count - 1);
        if (timer->index == 0)
            pthread_cond_signal(&timers->wake);
    }
    pthread_mutex_unlock(&timers->lock);
}

void timer_disarm(struct timers *timers, struct timer *timer)
{
    pthread_mutex_lock(&timers->lock);
    if (timer->deadline)
        take_out(timers, timer);
    pthread_mutex_unlock(&timers->lock);
}
