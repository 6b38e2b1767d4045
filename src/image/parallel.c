#include "image/parallel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/bytes.h"

enum { THREADS_MAX = 16 };

struct work {
    parallel_fn *fn;
    void *opaque;
    size_t count;
    atomic_size_t next;
    atomic_bool failed;
    pthread_mutex_t lock; /* guards code and why */
    int code;
    struct error why;
};

static void *work_run(void *opaque)
{
    struct work *work = opaque;

    while (!work->failed) {
        size_t i = atomic_fetch_add(&work->next, 1);
        struct error why = {0};
        int r;

        if (i >= work->count)
            break;
        r = work->fn(work->opaque, i, &why);
        if (r >= 0)
            continue;
        pthread_mutex_lock(&work->lock);
        if (!work->failed) {
            work->code = r;
            work->why = why;
            work->failed = true;
        }
        pthread_mutex_unlock(&work->lock);
    }
    return NULL;
}

int parallel_run(size_t count, unsigned threads, parallel_fn *fn, void *opaque, struct error *err)
{
    struct work work = {.fn = fn, .opaque = opaque, .count = count};
    pthread_t others[THREADS_MAX];
    unsigned started = 0;

    pthread_mutex_init(&work.lock, NULL);
    /* Fewer threads than wished for are no failure: the caller's own does all that is left. */
    while (started + 1 < MIN(threads, THREADS_MAX) && started + 1 < count &&
           pthread_create(others + started, NULL, work_run, &work) == 0)
        started++;
    work_run(&work);
    while (started > 0)
        pthread_join(others[--started], NULL);
    pthread_mutex_destroy(&work.lock);
    if (work.failed && err)
        *err = work.why;
    return work.failed ? work.code : 0;
}
