/* io.h - system calls that a fiber waits for without stopping its thread
 * (private to storage). The engines are one row each in storage.c. */
#ifndef LODGE_STORAGE_IO_H
#define LODGE_STORAGE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/fiber.h"
#include "storage/storage.h"

enum io_kind { IO_READ, IO_WRITE, IO_SYNC, IO_ALLOCATE, IO_RECEIVE, IO_SEND, IO_POLL };

/* One call under way; lives on the stack of the fiber that waits. */
struct io {
    enum io_kind kind;
    int fd;
    const struct iovec *iov; /* read, write */
    unsigned iov_count;
    void *buffer; /* receive, send */
    uint64_t offset, length;
    int mode;   /* allocate: of fallocate(2); poll: the events */
    int result; /* what the call returned, or a negative errno */
    struct fiber *waiter;
    struct io *next;
};

struct io_engine {
    const char *name;
    int (*create)(void **ret_state, int *ret_event_fd, struct error *err);
    void (*destroy)(void *state);
    /* Take it; it may wait for push. True: it has ended already, and is not reaped. */
    bool (*queue)(void *state, struct io *io);
    void (*push)(void *state);       /* hand what was queued to the kernel */
    struct io *(*reap)(void *state); /* one that has ended, or NULL; does not block */
    void (*wait)(void *state);       /* block until there is something to reap */
    /* Confine the engine's own threads, those that run and those to come. NULL: it has none. */
    void (*confine)(void *state, const struct sandbox *sandbox);
};

extern const struct io_engine io_uring_engine, io_threads_engine;

struct fibers *storage_fibers(struct storage *storage);

/* All return what the system call does, or a negative errno. Only from a fiber. */
int io_read(struct storage *storage, int fd, const struct iovec *iov, unsigned count,
            uint64_t offset);
int io_write(struct storage *storage, int fd, const struct iovec *iov, unsigned count,
             uint64_t offset);
int io_sync(struct storage *storage, int fd); /* fdatasync(2) */
int io_allocate(struct storage *storage, int fd, int mode, uint64_t offset, uint64_t length);
int io_receive(struct storage *storage, int fd, void *buffer, size_t length);
int io_send(struct storage *storage, int fd, const void *buffer, size_t length);
int io_poll(struct storage *storage, int fd, int events);

/* Run fn(opaque) in a fiber and return what it does; in the caller's when it is one,
 * otherwise in a new one, handling the storage's I/O until it ends. */
int storage_run(struct storage *storage, int (*fn)(void *opaque), void *opaque);

/* A finished request: its done is called soon, on the thread's own stack. */
struct disk_request;
void storage_finished(struct storage *storage, struct disk_request *request);
/* Start a fiber soon; for disk_submit. */
int storage_start(struct storage *storage, fiber_fn *fn, void *opaque);

#endif
