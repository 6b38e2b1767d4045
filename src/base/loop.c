#include "base/loop.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"

struct loop_source {
    struct loop *loop;
    int fd;
    bool timer; /* the descriptor is a timerfd of ours */
    bool dead;  /* removed; freed when no event can refer to it any more */
    loop_fd_fn *fd_fn;
    loop_fn *timer_fn;
    void *opaque;
    struct loop_source *next_dead;
};

struct posted {
    loop_fn *fn;
    void *opaque;
    struct posted *next;
};

struct loop {
    int epoll_fd;
    int wake_fd;
    atomic_bool stop;
    pthread_mutex_t lock; /* over the posted queue */
    struct posted *posted_first, **posted_end;
    struct loop_source *dead;
};

uint64_t loop_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

int loop_create(struct loop **ret_loop, struct error *err)
{
    AUTO_CLOSE int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    AUTO_CLOSE int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    struct loop *loop;

    if (epoll_fd < 0 || wake_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, wake_fd, &event) < 0)
        return error_system(err, errno, "cannot create an event loop");
    loop = calloc(1, sizeof(*loop));
    if (!loop)
        return error_set(err, ENOMEM, "out of memory for an event loop");
    pthread_mutex_init(&loop->lock, NULL);
    loop->posted_end = &loop->posted_first;
    loop->epoll_fd = steal_fd(&epoll_fd);
    loop->wake_fd = steal_fd(&wake_fd);
    *ret_loop = loop;
    return 0;
}

static void bury_dead(struct loop *loop)
{
    while (loop->dead) {
        struct loop_source *source = loop->dead;

        loop->dead = source->next_dead;
        free(source);
    }
}

void loop_destroy(struct loop *loop)
{
    if (!loop)
        return;
    while (loop->posted_first) {
        struct posted *posted = loop->posted_first;

        loop->posted_first = posted->next;
        free(posted);
    }
    bury_dead(loop);
    close(loop->epoll_fd);
    close(loop->wake_fd);
    pthread_mutex_destroy(&loop->lock);
    free(loop);
}

static int add(struct loop *loop, const struct loop_source *proto, uint32_t events,
               struct loop_source **ret_source, struct error *err)
{
    AUTO_FREE struct loop_source *source = malloc(sizeof(*source));
    struct epoll_event event = {.events = events, .data.ptr = source};

    if (!source)
        return error_set(err, ENOMEM, "out of memory for an event source");
    *source = *proto;
    source->loop = loop;
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) < 0)
        return error_system(err, errno, "cannot watch descriptor %d", source->fd);
    *ret_source = steal_pointer(&source);
    return 0;
}

int loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn *fn, void *opaque,
                struct loop_source **ret_source, struct error *err)
{
    const struct loop_source proto = {.fd = fd, .fd_fn = fn, .opaque = opaque};

    return add(loop, &proto, events, ret_source, err);
}

int loop_modify_fd(struct loop_source *source, uint32_t events, struct error *err)
{
    struct epoll_event event = {.events = events, .data.ptr = source};

    if (epoll_ctl(source->loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event) < 0)
        return error_system(err, errno, "cannot watch descriptor %d", source->fd);
    return 0;
}

int loop_add_timer(struct loop *loop, loop_fn *fn, void *opaque, struct loop_source **ret_source,
                   struct error *err)
{
    AUTO_CLOSE int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    const struct loop_source proto = {.fd = fd, .timer = true, .timer_fn = fn, .opaque = opaque};
    int r;

    if (fd < 0)
        return error_system(err, errno, "cannot create a timer");
    r = add(loop, &proto, EPOLLIN, ret_source, err);
    if (r == 0)
        steal_fd(&fd);
    return r;
}

void loop_arm_timer(struct loop_source *source, uint64_t deadline_ns)
{
    struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(deadline_ns / 1000000000),
                     .tv_nsec = (long)(deadline_ns % 1000000000)},
    };

    timerfd_settime(source->fd, TFD_TIMER_ABSTIME, &when, NULL);
}

void loop_remove(struct loop_source *source)
{
    if (!source || source->dead)
        return;
    epoll_ctl(source->loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
    if (source->timer)
        close(source->fd);
    source->dead = true;
    source->next_dead = source->loop->dead;
    source->loop->dead = source;
}

static void wake(struct loop *loop)
{
    const uint64_t one = 1;

    if (write(loop->wake_fd, &one, sizeof(one)) < 0)
        return; /* the counter is full: the loop is awake anyway */
}

int loop_post(struct loop *loop, loop_fn *fn, void *opaque)
{
    struct posted *posted = malloc(sizeof(*posted));

    if (!posted)
        return -ENOMEM;
    *posted = (struct posted){.fn = fn, .opaque = opaque};
    pthread_mutex_lock(&loop->lock);
    *loop->posted_end = posted;
    loop->posted_end = &posted->next;
    pthread_mutex_unlock(&loop->lock);
    wake(loop);
    return 0;
}

void loop_stop(struct loop *loop)
{
    atomic_store(&loop->stop, true);
    wake(loop);
}

static void run_posted(struct loop *loop)
{
    struct posted *posted, *next;

    pthread_mutex_lock(&loop->lock);
    posted = loop->posted_first;
    loop->posted_first = NULL;
    loop->posted_end = &loop->posted_first;
    pthread_mutex_unlock(&loop->lock);
    for (; posted; posted = next) {
        next = posted->next;
        posted->fn(posted->opaque);
        free(posted);
    }
}

static void dispatch(struct loop *loop, const struct epoll_event *event)
{
    struct loop_source *source = event->data.ptr;
    uint64_t count;

    if (!source) {
        if (read(loop->wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
            return;
        run_posted(loop);
    } else if (source->dead) {
        return; /* removed by a callback of this round */
    } else if (!source->timer) {
        source->fd_fn(source->opaque, event->events);
    } else if (read(source->fd, &count, sizeof(count)) == sizeof(count)) {
        source->timer_fn(source->opaque);
    }
}

int loop_run(struct loop *loop, struct error *err)
{
    struct epoll_event events[32];
    int n;

    while (!atomic_load(&loop->stop)) {
        n = epoll_wait(loop->epoll_fd, events, ARRAY_SIZE(events), -1);
        if (n < 0 && errno != EINTR)
            return error_system(err, errno, "cannot wait for events");
        for (int i = 0; i < n; i++)
            dispatch(loop, &events[i]);
        bury_dead(loop);
    }
    run_posted(loop);
    atomic_store(&loop->stop, false);
    return 0;
}
