/* A ring takes the operations that disks need, and no others: it passes by the sandbox's filter. */
#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <unistd.h>

#include "storage/io.h"

static struct io_uring *ring;
static int event_fd;

/* What the ring answers to an operation that was prepared. */
static int answer(void)
{
    struct io_uring_cqe *cqe;
    int result;

    assert_int_equal(io_uring_submit_and_wait(ring, 1), 1);
    assert_int_equal(io_uring_peek_cqe(ring, &cqe), 0);
    result = cqe->res;
    io_uring_cqe_seen(ring, cqe);
    return result;
}

static void an_operation_of_disks_is_carried_out(void **state)
{
    char byte;
    struct iovec vec = {.iov_base = &byte, .iov_len = 1};
    int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);

    (void)state;
    io_uring_prep_readv(io_uring_get_sqe(ring), fd, &vec, 1, 0);
    assert_int_equal(answer(), 1);
    close(fd);
}

static void any_other_operation_is_refused(void **state)
{
    (void)state;
    io_uring_prep_openat(io_uring_get_sqe(ring), AT_FDCWD, "/etc/passwd", O_RDONLY, 0);
    assert_int_equal(answer(), -EACCES);
    io_uring_prep_connect(io_uring_get_sqe(ring), 0, NULL, 0);
    assert_int_equal(answer(), -EACCES);
    io_uring_prep_unlinkat(io_uring_get_sqe(ring), AT_FDCWD, "/none", 0);
    assert_int_equal(answer(), -EACCES);
}

static void it_cannot_be_made_to_take_more(void **state)
{
    (void)state;
    assert_true(io_uring_register((unsigned)ring->ring_fd, IORING_REGISTER_PERSONALITY, NULL, 0) <
                0);
    assert_true(io_uring_register((unsigned)ring->ring_fd, IORING_REGISTER_RESTRICTIONS, NULL, 0) <
                0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_operation_of_disks_is_carried_out),
        cmocka_unit_test(any_other_operation_is_refused),
        cmocka_unit_test(it_cannot_be_made_to_take_more),
    };
    void *state;
    struct error err;
    int failed;

    if (io_uring_engine.create(&state, &event_fd, &err) < 0) {
        printf("%s\n", err.text);
        return 77; /* meson: skipped */
    }
    ring = state;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    io_uring_engine.destroy(state);
    close(event_fd);
    return failed;
}
