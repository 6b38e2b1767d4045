/* io_uring(7) as an I/O engine. */
#include <liburing.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "storage/io.h"
#include "storage/vec.h"

#define RING_ENTRIES  256
#define WRITE_AT_ONCE (64 * 1024) /* bytes */

/* What the kernel must offer; all of it, and restrictions, is in Linux 5.10 and later. */
static const int needed_ops[] = {IORING_OP_READV,     IORING_OP_WRITEV, IORING_OP_FSYNC,
                                 IORING_OP_FALLOCATE, IORING_OP_RECV,   IORING_OP_SEND,
                                 IORING_OP_POLL_ADD};

static int probe(struct io_uring *ring, struct error *err)
{
    struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
    int r = 0;

    /* Without NODROP a full completion queue loses results. */
    if (!probe || !(ring->features & IORING_FEAT_NODROP))
        r = -ENOSYS;
    for (unsigned i = 0; r == 0 && i < ARRAY_SIZE(needed_ops); i++)
        if (!io_uring_opcode_supported(probe, needed_ops[i]))
            r = -ENOSYS;
    io_uring_free_probe(probe);
    return r < 0 ? error_set(err, ENOSYS, "this kernel's io_uring lacks operations") : 0;
}

/* A ring's operations pass by the sandbox's filter of system calls, and there are some for most of
 * these: it is told to take no others, for good (io_uring_register(2), restrictions). */
static int restrict_ring(struct io_uring *ring)
{
    struct io_uring_restriction only[ARRAY_SIZE(needed_ops)] = {0};
    int r;

    for (unsigned i = 0; i < ARRAY_SIZE(needed_ops); i++) {
        only[i].opcode = IORING_RESTRICTION_SQE_OP;
        only[i].sqe_op = (uint8_t)needed_ops[i];
    }
    /* (liburing 2.3 declares functions for these two, and has none.) */
    r = io_uring_register((unsigned)ring->ring_fd, IORING_REGISTER_RESTRICTIONS, only,
                          ARRAY_SIZE(only));
    if (r == 0)
        r = io_uring_register((unsigned)ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    return r;
}

static int uring_create(void **ret_state, int *ret_event_fd, struct error *err)
{
    AUTO_FREE struct io_uring *ring = calloc(1, sizeof(*ring));
    AUTO_CLOSE int event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int r;

    if (!ring || event_fd < 0)
        return error_set(err, ENOMEM, "out of memory or descriptors for io_uring");
    r = io_uring_queue_init(RING_ENTRIES, ring, IORING_SETUP_R_DISABLED);
    if (r < 0)
        return error_system(err, -r, "io_uring cannot be used here");
    r = probe(ring, err);
    if (r == 0) {
        r = io_uring_register_eventfd(ring, event_fd);
        if (r < 0)
            error_system(err, -r, "io_uring cannot signal an eventfd");
    }
    if (r == 0) {
        r = restrict_ring(ring);
        if (r < 0)
            error_system(err, -r, "io_uring cannot be restricted");
    }
    if (r < 0) {
        io_uring_queue_exit(ring);
        return r;
    }
    *ret_state = steal_pointer(&ring);
    *ret_event_fd = steal_fd(&event_fd);
    return 0;
}

static void uring_destroy(void *state)
{
    io_uring_queue_exit(state);
    free(state);
}

static void uring_push(void *state)
{
    struct io_uring *ring = state;

    /* -EBUSY and -EAGAIN: completions must be reaped first; what stays queued goes
     * with the next push or wait. */
    if (io_uring_sq_ready(ring))
        io_uring_submit(ring);
}

/* The kernel hands writes to the page cache over to threads of its own, which costs ten
 * times the copying of a few pages: such a write is made at once instead. */
static bool write_at_once(struct io *io)
{
    ssize_t n;

    if (io->kind != IO_WRITE || vec_length(io->iov, io->iov_count) > WRITE_AT_ONCE)
        return false;
    n = pwritev(io->fd, io->iov, (int)io->iov_count, (off_t)io->offset);
    io->result = n < 0 ? -errno : (int)n;
    return true;
}

static bool uring_queue(void *state, struct io *io)
{
    struct io_uring *ring = state;
    struct io_uring_sqe *sqe;

    if (write_at_once(io))
        return true;
    while (!(sqe = io_uring_get_sqe(ring)))
        io_uring_submit(ring);
    switch (io->kind) {
    case IO_READ:
        io_uring_prep_readv(sqe, io->fd, io->iov, io->iov_count, io->offset);
        break;
    case IO_WRITE:
        io_uring_prep_writev(sqe, io->fd, io->iov, io->iov_count, io->offset);
        break;
    case IO_SYNC:
        io_uring_prep_fsync(sqe, io->fd, IORING_FSYNC_DATASYNC);
        break;
    case IO_ALLOCATE:
        io_uring_prep_fallocate(sqe, io->fd, io->mode, (off_t)io->offset, (off_t)io->length);
        break;
    case IO_RECEIVE:
        io_uring_prep_recv(sqe, io->fd, io->buffer, io->length, 0);
        break;
    case IO_SEND:
        io_uring_prep_send(sqe, io->fd, io->buffer, io->length, MSG_NOSIGNAL);
        break;
    case IO_POLL:
        io_uring_prep_poll_add(sqe, io->fd, (unsigned)io->mode);
        break;
    }
    io_uring_sqe_set_data(sqe, io);
    return false;
}

static struct io *uring_reap(void *state)
{
    struct io_uring *ring = state;
    struct io_uring_cqe *cqe;
    struct io *io;

    if (io_uring_peek_cqe(ring, &cqe) < 0)
        return NULL;
    io = io_uring_cqe_get_data(cqe);
    io->result = cqe->res;
    io_uring_cqe_seen(ring, cqe);
    return io;
}

static void uring_wait(void *state)
{
    io_uring_submit_and_wait(state, 1);
}

const struct io_engine io_uring_engine = {
    .name = "uring",
    .create = uring_create,
    .destroy = uring_destroy,
    .queue = uring_queue,
    .push = uring_push,
    .reap = uring_reap,
    .wait = uring_wait,
};
