#include "../unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "storage/disk.h"

#define SIZE     (4u << 20)
#define REQUESTS 64
#define LENGTH   4096u

struct fixture {
    const char *engine;
    struct loop *loop;
    struct storage *storage;
    char folder[32], path[64];
};

static struct fixture uring = {.engine = "uring"}, threads = {.engine = "threads"};

static int set_up(void **state)
{
    struct fixture *f = *state;
    const struct disk_create_options options = {.size = SIZE};

    strcpy(f->folder, "/tmp/lodge-unit-XXXXXX");
    if (!mkdtemp(f->folder) || loop_create(&f->loop, NULL) < 0)
        return -1;
    /* Where io_uring is forbidden, its tests run on threads again. */
    if (storage_create(f->loop, f->engine, &f->storage, NULL) < 0 &&
        storage_create(f->loop, "auto", &f->storage, NULL) < 0)
        return -1;
    snprintf(f->path, sizeof(f->path), "%s/disk", f->folder);
    return disk_create(f->storage, f->path, "raw", &options, NULL);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    storage_destroy(f->storage);
    loop_destroy(f->loop);
    unlink(f->path);
    rmdir(f->folder);
    return 0;
}

static struct disk *open_writable(struct fixture *f)
{
    const struct disk_options options = {.writable = true, .format = "raw"};
    struct disk *disk = NULL;
    struct error err = {0};

    if (disk_open(f->storage, f->path, &options, &disk, &err) < 0)
        fail_msg("%s", err.text);
    return disk;
}

/* --- Many requests at once --- */

struct many {
    struct fixture *f;
    struct disk *disk;
    struct disk_request requests[REQUESTS];
    struct iovec iov[REQUESTS][2];
    uint8_t data[REQUESTS][LENGTH];
    unsigned left, failed;
    bool inside_submit;
};

static void one_done(struct disk_request *request, int result)
{
    struct many *many = request->opaque;

    assert_false(many->inside_submit);
    many->failed += result != 0;
    if (--many->left == 0)
        loop_stop(many->f->loop);
}

static void submit_all(struct many *many, enum disk_op op)
{
    many->left = REQUESTS;
    many->inside_submit = true;
    for (unsigned i = 0; i < REQUESTS; i++) {
        struct disk_request *request = &many->requests[i];

        many->iov[i][0] = (struct iovec){many->data[i], 1000};
        many->iov[i][1] = (struct iovec){many->data[i] + 1000, LENGTH - 1000};
        *request = (struct disk_request){.op = op,
                                         .offset = (uint64_t)((i * 37) % REQUESTS) * LENGTH,
                                         .iov = many->iov[i],
                                         .iov_count = 2,
                                         .done = one_done,
                                         .opaque = many};
        disk_submit(many->disk, request);
    }
    many->inside_submit = false;
    assert_int_equal(loop_run(many->f->loop, NULL), 0);
    assert_int_equal(many->failed, 0);
}

static void many_requests_at_once_all_end_from_the_loop(void **state)
{
    static struct many many;

    many = (struct many){.f = *state, .disk = open_writable(*state)};
    for (unsigned i = 0; i < REQUESTS; i++)
        memset(many.data[i], (int)(i + 1), LENGTH);
    submit_all(&many, DISK_WRITE);
    memset(many.data, 0, sizeof(many.data));
    submit_all(&many, DISK_READ);
    for (unsigned i = 0; i < REQUESTS; i++)
        for (unsigned k = 0; k < LENGTH; k++)
            assert_int_equal(many.data[i][k], i + 1);
    assert_int_equal(disk_close(many.disk, NULL), 0);
}

/* --- What is refused --- */

static void a_request_beyond_the_end_is_refused(void **state)
{
    struct disk *disk = open_writable(*state);
    uint8_t byte = 1;

    assert_int_equal(disk_write(disk, SIZE, &byte, 1), -EINVAL);
    assert_int_equal(disk_read(disk, SIZE - 1, &byte, 2), -EINVAL);
    assert_int_equal(disk_read(disk, UINT64_MAX, &byte, 1), -EINVAL);
    assert_int_equal(disk_discard(disk, 512, UINT64_MAX), -EINVAL);
    assert_int_equal(disk_write_zeroes(disk, SIZE, 1, 0), -EINVAL);
    assert_int_equal(disk_read(disk, SIZE - 1, &byte, 1), 0);
    disk_close(disk, NULL);
}

static void a_disk_opened_for_reading_refuses_writes(void **state)
{
    struct fixture *f = *state;
    struct disk *disk;
    uint8_t byte = 1;

    assert_int_equal(disk_open(f->storage, f->path, NULL, &disk, NULL), 0);
    assert_int_equal(disk_write(disk, 0, &byte, 1), -EROFS);
    assert_int_equal(disk_discard(disk, 0, 512), -EROFS);
    assert_int_equal(disk_write_zeroes(disk, 0, 512, 0), -EROFS);
    assert_int_equal(disk_resize(disk, 512, NULL), -EROFS);
    assert_int_equal(disk_flush(disk), 0);
    disk_close(disk, NULL);
}

static void a_second_writer_is_refused_and_readers_beside_a_writer_too(void **state)
{
    struct fixture *f = *state;
    const struct disk_options writable = {.writable = true, .format = "raw"};
    const struct disk_options unlocked = {.no_lock = true, .format = "raw"};
    struct disk *disk = open_writable(f), *other;
    struct error err = {0};

    assert_int_equal(disk_open(f->storage, f->path, &writable, &other, &err), -EBUSY);
    assert_non_null(strstr(err.text, "in use"));
    assert_int_equal(disk_open(f->storage, f->path, NULL, &other, NULL), -EBUSY);
    assert_int_equal(disk_open(f->storage, f->path, &unlocked, &other, NULL), 0);
    disk_close(other, NULL);
    disk_close(disk, NULL);
    assert_int_equal(disk_open(f->storage, f->path, NULL, &disk, NULL), 0);
    assert_int_equal(disk_open(f->storage, f->path, NULL, &other, NULL), 0);
    disk_close(other, NULL);
    disk_close(disk, NULL);
}

/* --- Holes and sizes --- */

static void discarded_storage_goes_back_to_the_host_and_reads_as_zeroes(void **state)
{
    struct fixture *f = *state;
    struct disk *disk = open_writable(f);
    uint8_t *data = malloc(SIZE);
    struct disk_extent extent;
    struct stat st;

    memset(data, 7, SIZE);
    assert_int_equal(disk_write(disk, 0, data, SIZE), 0);
    assert_int_equal(disk_discard(disk, 0, SIZE / 2), 0);
    assert_int_equal(disk_write_zeroes(disk, SIZE / 2, SIZE / 4, DISK_MAY_UNMAP), 0);
    assert_int_equal(disk_map(disk, 0, &extent), 0);
    assert_true(extent.zero && extent.length == SIZE / 4 * 3);
    assert_int_equal(stat(f->path, &st), 0);
    assert_true((uint64_t)st.st_blocks * 512 <= SIZE / 4 + 65536);
    assert_int_equal(disk_read(disk, 0, data, SIZE), 0);
    for (unsigned i = 0; i < SIZE; i++)
        assert_int_equal(data[i], i < SIZE / 4 * 3 ? 0 : 7);
    free(data);
    disk_close(disk, NULL);
}

static void note_size(void *opaque, uint64_t size)
{
    *(uint64_t *)opaque = size;
}

static void a_disk_grows_and_shrinks_and_tells_of_it(void **state)
{
    struct disk *disk = open_writable(*state);
    uint64_t told = 0;
    uint8_t byte = 9;

    disk_on_resize(disk, note_size, &told);
    assert_int_equal(disk_resize(disk, 2 * SIZE, NULL), 0);
    assert_true(told == 2 * SIZE && disk_size(disk) == 2 * SIZE);
    assert_int_equal(disk_read(disk, 2 * SIZE - 1, &byte, 1), 0);
    assert_int_equal(byte, 0);
    assert_int_equal(disk_resize(disk, 4096, NULL), 0);
    assert_int_equal(told, 4096);
    disk_close(disk, NULL);
}

#define EACH_ENGINE(test)                                                                          \
    {#test " (uring)", test, set_up, tear_down, &uring},                                           \
    {                                                                                              \
#test " (threads)", test, set_up, tear_down, &threads                                      \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH_ENGINE(many_requests_at_once_all_end_from_the_loop),
        EACH_ENGINE(a_request_beyond_the_end_is_refused),
        EACH_ENGINE(a_disk_opened_for_reading_refuses_writes),
        EACH_ENGINE(a_second_writer_is_refused_and_readers_beside_a_writer_too),
        EACH_ENGINE(discarded_storage_goes_back_to_the_host_and_reads_as_zeroes),
        EACH_ENGINE(a_disk_grows_and_shrinks_and_tells_of_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
