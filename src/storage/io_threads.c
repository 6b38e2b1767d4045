/* Threads that make blocking calls as an I/O engine, for kernels that forbid io_uring. */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/sandbox.h"
#include "storage/io.h"

/* A socket's call can block for long: more threads than one disk keeps busy. */
#define THREADS_MAX 64

struct list {
    struct io *first, **end;
};

struct pool {
    pthread_mutex_t lock; /* over all below */
    pthread_cond_t work, ended;
    struct list queued, done;
    unsigned threads, idle, waiting;
    unsigned backlog; /* how many are queued */
    pthread_t thread[THREADS_MAX];
    bool stop;
    int event_fd; /* not owned */
    const struct sandbox *sandbox; /* NULL: none yet */
};

static void list_put(struct list *list, struct io *io)
{
    io->next = NULL;
    *list->end = io;
    list->end = &io->next;
}

static struct io *list_take(struct list *list)
{
    struct io *io = list->first;

    if (io) {
        list->first = io->next;
        if (!list->first)
            list->end = &list->first;
    }
    return io;
}

static int call(const struct io *io)
{
    struct pollfd poll_fd = {.fd = io->fd, .events = (short)io->mode};
    ssize_t n = -1;

    do {
        switch (io->kind) {
        case IO_READ:
            n = preadv(io->fd, io->iov, (int)io->iov_count, (off_t)io->offset);
            break;
        case IO_WRITE:
            n = pwritev(io->fd, io->iov, (int)io->iov_count, (off_t)io->offset);
            break;
        case IO_SYNC:
            n = fdatasync(io->fd);
            break;
        case IO_ALLOCATE:
            n = fallocate(io->fd, io->mode, (off_t)io->offset, (off_t)io->length);
            break;
        case IO_RECEIVE:
            n = recv(io->fd, io->buffer, io->length, 0);
            break;
        case IO_SEND:
            n = send(io->fd, io->buffer, io->length, MSG_NOSIGNAL);
            break;
        case IO_POLL:
            n = poll(&poll_fd, 1, -1);
            if (n > 0)
                n = poll_fd.revents;
            break;
        }
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : (int)n;
}

static void *thread_main(void *opaque)
{
    struct pool *pool = opaque;
    const uint64_t one = 1;
    bool confined = false; /* or it was tried, and r says why not */
    struct io *io;
    int r = 0;

    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (!pool->stop && !pool->queued.first && (confined || !pool->sandbox)) {
            pool->idle++;
            pthread_cond_wait(&pool->work, &pool->lock);
            pool->idle--;
        }
        /* It may have started before there was a sandbox. */
        if (pool->sandbox && !confined) {
            r = sandbox_thread(pool->sandbox, SANDBOX_IO, NULL);
            confined = true;
        }
        io = list_take(&pool->queued);
        if (!io && pool->stop)
            break;
        if (!io)
            continue;
        pool->backlog--;
        pthread_mutex_unlock(&pool->lock);
        io->result = r < 0 ? r : call(io);
        pthread_mutex_lock(&pool->lock);
        list_put(&pool->done, io);
        if (pool->waiting)
            pthread_cond_signal(&pool->ended);
        if (write(pool->event_fd, &one, sizeof(one)) < 0)
            continue; /* the counter is full: the loop is awake anyway */
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static int start_thread(struct pool *pool)
{
    sigset_t all, before;
    int r;

    sigfillset(&all); /* signals are for the threads that ask for them */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&pool->thread[pool->threads], NULL, thread_main, pool);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r == 0)
        pool->threads++;
    return -r;
}

static void threads_destroy(void *state)
{
    struct pool *pool = state;

    pthread_mutex_lock(&pool->lock);
    pool->stop = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->threads; i++)
        pthread_join(pool->thread[i], NULL);
    pthread_cond_destroy(&pool->work);
    pthread_cond_destroy(&pool->ended);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

static int threads_create(void **ret_state, int *ret_event_fd, struct error *err)
{
    AUTO_CLOSE int event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct pool *pool = calloc(1, sizeof(*pool));
    int r;

    if (!pool || event_fd < 0) {
        free(pool);
        return error_set(err, ENOMEM, "out of memory or descriptors for I/O threads");
    }
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->ended, NULL);
    pool->queued.end = &pool->queued.first;
    pool->done.end = &pool->done.first;
    pool->event_fd = event_fd;
    r = start_thread(pool); /* one at least; more when there is work for them */
    if (r < 0) {
        threads_destroy(pool);
        return error_system(err, -r, "cannot start an I/O thread");
    }
    *ret_state = pool;
    *ret_event_fd = steal_fd(&event_fd);
    return 0;
}

static bool threads_queue(void *state, struct io *io)
{
    struct pool *pool = state;

    pthread_mutex_lock(&pool->lock);
    list_put(&pool->queued, io);
    pool->backlog++;
    if (pool->idle)
        pthread_cond_signal(&pool->work);
    if (pool->backlog > pool->idle && pool->threads < THREADS_MAX)
        start_thread(pool); /* when it fails, those that run take the work */
    pthread_mutex_unlock(&pool->lock);
    return false;
}

static void threads_push(void *state)
{
    (void)state;
}

static struct io *threads_reap(void *state)
{
    struct pool *pool = state;
    struct io *io;

    pthread_mutex_lock(&pool->lock);
    io = list_take(&pool->done);
    pthread_mutex_unlock(&pool->lock);
    return io;
}

static void threads_wait(void *state)
{
    struct pool *pool = state;

    pthread_mutex_lock(&pool->lock);
    pool->waiting++;
    while (!pool->done.first)
        pthread_cond_wait(&pool->ended, &pool->lock);
    pool->waiting--;
    pthread_mutex_unlock(&pool->lock);
}

static void threads_confine(void *state, const struct sandbox *sandbox)
{
    struct pool *pool = state;

    pthread_mutex_lock(&pool->lock);
    pool->sandbox = sandbox;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
}

const struct io_engine io_threads_engine = {
    .name = "threads",
    .create = threads_create,
    .destroy = threads_destroy,
    .queue = threads_queue,
    .push = threads_push,
    .reap = threads_reap,
    .wait = threads_wait,
    .confine = threads_confine,
};
