#include "storage/storage.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bytes.h"
#include "storage/disk.h"
#include "storage/io.h"

static const struct io_engine *const engines[] = {&io_uring_engine, &io_threads_engine};

struct storage {
    const struct io_engine *engine;
    void *state;
    struct fibers *fibers;
    struct loop_source *source;
    bool has_loop;
    int event_fd;     /* readable when there is something to handle */
    unsigned held;    /* depth of storage_hold */
    unsigned pending; /* I/O under way */
    struct disk_request *finished, **finished_end;
};

struct fibers *storage_fibers(struct storage *storage)
{
    return storage->fibers;
}

const char *storage_engine(const struct storage *storage)
{
    return storage->engine->name;
}

void storage_hold(struct storage *storage)
{
    storage->held++;
}

void storage_release(struct storage *storage)
{
    if (--storage->held)
        return;
    storage->held++; /* what runs now shares one push */
    fibers_run(storage->fibers);
    storage->held--;
    storage->engine->push(storage->state);
}

/* --- Handling what has ended --- */

static void call_done(struct storage *storage)
{
    struct disk_request *request;

    while ((request = storage->finished)) {
        storage->finished = request->next;
        if (!storage->finished)
            storage->finished_end = &storage->finished;
        request->done(request, request->result);
    }
}

static void handle(struct storage *storage)
{
    struct io *io;

    storage->held++;
    do {
        while ((io = storage->engine->reap(storage->state))) {
            storage->pending--;
            fiber_wake(io->waiter);
        }
        fibers_run(storage->fibers);
        call_done(storage);
    } while (storage->finished);
    storage->held--;
    storage->engine->push(storage->state);
}

static void event(void *opaque, uint32_t events)
{
    struct storage *storage = opaque;
    uint64_t count;

    (void)events;
    if (read(storage->event_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
        return;
    handle(storage);
}

/* Run what can run; block only when nothing has come to an end by that. ended: or NULL. */
static void wait_unless(struct storage *storage, const bool *ended)
{
    fibers_run(storage->fibers);
    storage->engine->push(storage->state);
    if (!storage->finished && storage->pending && !(ended && *ended))
        storage->engine->wait(storage->state);
    handle(storage);
}

void storage_wait(struct storage *storage)
{
    wait_unless(storage, NULL);
}

void storage_finished(struct storage *storage, struct disk_request *request)
{
    const uint64_t one = 1;

    if (!storage->finished && storage->has_loop && write(storage->event_fd, &one, sizeof(one)) < 0)
        return; /* the counter is full: the loop is awake anyway */
    request->next = NULL;
    *storage->finished_end = request;
    storage->finished_end = &request->next;
}

/* --- Fibers --- */

int storage_start(struct storage *storage, fiber_fn *fn, void *opaque)
{
    int r = fiber_start(storage->fibers, fn, opaque);

    if (r == 0 && !storage->held && !fiber_self(storage->fibers)) {
        storage->held++;
        storage_release(storage);
    }
    return r;
}

struct run {
    int (*fn)(void *opaque);
    void *opaque;
    int result;
    bool ended;
};

static void run_main(void *opaque)
{
    struct run *run = opaque;

    run->result = run->fn(run->opaque);
    run->ended = true;
}

int storage_run(struct storage *storage, int (*fn)(void *opaque), void *opaque)
{
    struct run run = {.fn = fn, .opaque = opaque};

    if (fiber_self(storage->fibers))
        return fn(opaque);
    if (fiber_start(storage->fibers, run_main, &run) < 0)
        return -ENOMEM;
    while (!run.ended)
        wait_unless(storage, &run.ended);
    return run.result;
}

static int perform(struct storage *storage, struct io *io)
{
    io->waiter = fiber_self(storage->fibers);
    if (storage->engine->queue(storage->state, io))
        return io->result;
    storage->pending++;
    fiber_wait(storage->fibers);
    return io->result;
}

int io_read(struct storage *storage, int fd, const struct iovec *iov, unsigned count,
            uint64_t offset)
{
    struct io io = {.kind = IO_READ, .fd = fd, .iov = iov, .iov_count = count, .offset = offset};

    return perform(storage, &io);
}

int io_write(struct storage *storage, int fd, const struct iovec *iov, unsigned count,
             uint64_t offset)
{
    struct io io = {.kind = IO_WRITE, .fd = fd, .iov = iov, .iov_count = count, .offset = offset};

    return perform(storage, &io);
}

int io_sync(struct storage *storage, int fd)
{
    struct io io = {.kind = IO_SYNC, .fd = fd};

    return perform(storage, &io);
}

int io_allocate(struct storage *storage, int fd, int mode, uint64_t offset, uint64_t length)
{
    struct io io = {
        .kind = IO_ALLOCATE, .fd = fd, .mode = mode, .offset = offset, .length = length};

    return perform(storage, &io);
}

int io_receive(struct storage *storage, int fd, void *buffer, size_t length)
{
    struct io io = {.kind = IO_RECEIVE, .fd = fd, .buffer = buffer, .length = length};

    return perform(storage, &io);
}

int io_send(struct storage *storage, int fd, const void *buffer, size_t length)
{
    struct io io = {.kind = IO_SEND, .fd = fd, .buffer = (void *)buffer, .length = length};

    return perform(storage, &io);
}

int io_poll(struct storage *storage, int fd, int events)
{
    struct io io = {.kind = IO_POLL, .fd = fd, .mode = events};

    return perform(storage, &io);
}

/* --- Making and ending --- */

/* The engine that was named, or the first that works here. */
static int choose_engine(struct storage *storage, const char *name, struct error *err)
{
    int r = -ENOENT;

    for (unsigned i = 0; i < ARRAY_SIZE(engines); i++) {
        if (name && strcmp(name, "auto") && strcmp(name, engines[i]->name))
            continue;
        r = engines[i]->create(&storage->state, &storage->event_fd, err);
        if (r == 0) {
            storage->engine = engines[i];
            return 0;
        }
    }
    if (r == -ENOENT)
        return error_set(err, EINVAL, "there is no I/O engine '%s'; there are auto, uring, threads",
                         name);
    return r;
}

void storage_confine(struct storage *storage, const struct sandbox *sandbox)
{
    if (storage->engine->confine)
        storage->engine->confine(storage->state, sandbox);
}

int storage_create(struct loop *loop, const char *engine, struct storage **ret_storage,
                   struct error *err)
{
    struct storage *storage = calloc(1, sizeof(*storage));
    int r;

    if (!storage)
        return error_set(err, ENOMEM, "out of memory for disks");
    storage->event_fd = -1;
    storage->finished_end = &storage->finished;
    storage->fibers = fibers_create();
    r = storage->fibers ? choose_engine(storage, engine, err)
                        : error_set(err, ENOMEM, "out of memory for disks");
    if (r == 0 && loop) {
        storage->has_loop = true;
        r = loop_add_fd(loop, storage->event_fd, EPOLLIN, event, storage, &storage->source, err);
    }
    if (r < 0)
        storage_destroy(storage);
    else
        *ret_storage = storage;
    return r;
}

void storage_destroy(struct storage *storage)
{
    if (!storage)
        return;
    loop_remove(storage->source);
    if (storage->engine)
        storage->engine->destroy(storage->state);
    if (storage->event_fd >= 0)
        close(storage->event_fd);
    fibers_destroy(storage->fibers);
    free(storage);
}
