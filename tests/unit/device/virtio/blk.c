/* The block device with a raw file behind it. */
#include "driver.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "device/virtio/blk.h"

#define DISK_SIZE (1u << 20)
#define SECTOR    512u

enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13 };
enum { OK = 0, IO_ERROR = 1, UNSUPPORTED = 2 };

struct fixture {
    struct driver driver;
    char path[64];
};

static int start(void **state, const struct virtio_blk_config *proto, bool packed)
{
    static struct fixture fixture;
    struct virtio_blk_config config = *proto;
    struct virtio_device *device;
    struct error err = {0};
    int fd;

    strcpy(fixture.path, "/tmp/lodge-test-blk-XXXXXX");
    fd = mkstemp(fixture.path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, DISK_SIZE), 0);
    for (unsigned i = 0; i < DISK_SIZE / SECTOR; i++)
        assert_int_equal(pwrite(fd, &i, sizeof(i), (off_t)i * SECTOR), sizeof(i));
    close(fd);
    config.path = fixture.path;
    config.format = "raw";
    config.queues = 1;
    if (virtio_blk_create(&config, NULL, &device, &err) < 0)
        fail_msg("%s", err.text);
    driver_start(&fixture.driver, device, packed, ~0ull, 1, 64);
    *state = &fixture;
    return 0;
}

static int set_up(void **state)
{
    return start(state, &(struct virtio_blk_config){.serial = "A SERIAL NUMBER"}, true);
}

static int set_up_readonly(void **state)
{
    return start(state, &(struct virtio_blk_config){.readonly = true}, false);
}

static int set_up_limited(void **state)
{
    return start(state, &(struct virtio_blk_config){.iops = 100}, false);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    driver_stop(&f->driver);
    unlink(f->path);
    return 0;
}

/* Put a request in: its data is out (to the disk) or in; returns where its
 * status will be. */
static uint64_t submit(struct driver *d, uint32_t type, uint64_t sector, uint64_t data,
                       uint32_t size, bool out)
{
    const uint64_t header = driver_alloc(d, 16), status = driver_alloc(d, 1);
    struct buffer buffers[] = {
        {header, 16, 0}, {data, size, out ? 0 : BUFFER_WRITE}, {status, 1, BUFFER_WRITE}};

    store_le32(driver_at(d, header), type);
    store_le32(driver_at(d, header) + 4, 0);
    store_le64(driver_at(d, header) + 8, sector);
    *driver_at(d, status) = 0xee;
    if (!size)
        buffers[1] = buffers[2];
    driver_add(d, 0, buffers, size ? 3 : 2);
    driver_kick(d, 0);
    return status;
}

/* A whole request; returns its status. */
static uint8_t request(struct driver *d, uint32_t type, uint64_t sector, uint64_t data,
                       uint32_t size, bool out)
{
    uint64_t status = submit(d, type, sector, data, size, out);

    driver_wait(d, 0);
    return *driver_at(d, status);
}

static void sectors_are_read_where_they_are(void **state)
{
    struct driver *d = &((struct fixture *)*state)->driver;
    const uint64_t data = driver_alloc(d, 8 * SECTOR);

    assert_int_equal(request(d, IN, 100, data, 8 * SECTOR, false), OK);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(load_le32(driver_at(d, data + i * SECTOR)), 100 + i);
}

static void what_is_written_and_flushed_is_in_the_file(void **state)
{
    struct fixture *f = *state;
    struct driver *d = &f->driver;
    const uint64_t data = driver_alloc(d, SECTOR);
    uint8_t byte;
    int fd;

    memset(driver_at(d, data), 0x5a, SECTOR);
    assert_int_equal(request(d, OUT, 7, data, SECTOR, true), OK);
    assert_int_equal(request(d, FLUSH, 0, 0, 0, true), OK);
    fd = open(f->path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(fd, &byte, 1, 8 * SECTOR - 1), 1);
    assert_int_equal(byte, 0x5a);
    close(fd);
}

static void many_requests_are_under_way_at_once(void **state)
{
    struct driver *d = &((struct fixture *)*state)->driver;
    uint64_t data[16], status[16];

    for (unsigned i = 0; i < 16; i++) {
        data[i] = driver_alloc(d, SECTOR);
        status[i] = submit(d, IN, 3 * i, data[i], SECTOR, false);
    }
    for (unsigned i = 0; i < 16; i++)
        driver_wait(d, 0);
    for (unsigned i = 0; i < 16; i++) {
        assert_int_equal(*driver_at(d, status[i]), OK);
        assert_int_equal(load_le32(driver_at(d, data[i])), 3 * i);
    }
}

static void what_lies_beyond_the_end_is_an_error(void **state)
{
    struct driver *d = &((struct fixture *)*state)->driver;
    const uint64_t data = driver_alloc(d, 2 * SECTOR), last = DISK_SIZE / SECTOR - 1;

    assert_int_equal(request(d, IN, last, data, SECTOR, false), OK);
    assert_int_equal(request(d, IN, last, data, 2 * SECTOR, false), IO_ERROR);
    assert_int_equal(request(d, OUT, UINT64_MAX, data, SECTOR, true), IO_ERROR);
    assert_int_equal(request(d, OUT, UINT64_MAX / SECTOR, data, SECTOR, true), IO_ERROR);
    assert_int_equal(request(d, IN, 0, data, SECTOR + 1, false), IO_ERROR);
    assert_false(driver_device_is_broken(d));
}

static uint8_t clear(struct driver *d, uint32_t type, uint64_t sector, uint32_t count,
                     uint32_t flags)
{
    const uint64_t range = driver_alloc(d, 16);

    store_le64(driver_at(d, range), sector);
    store_le32(driver_at(d, range) + 8, count);
    store_le32(driver_at(d, range) + 12, flags);
    return request(d, type, 0, range, 16, true);
}

static void cleared_sectors_read_as_zeroes(void **state)
{
    struct driver *d = &((struct fixture *)*state)->driver;
    const uint64_t data = driver_alloc(d, SECTOR);

    assert_int_equal(clear(d, WRITE_ZEROES, 16, 8, 0), OK);
    assert_int_equal(clear(d, WRITE_ZEROES, 24, 8, 1), OK);
    assert_int_equal(clear(d, DISCARD, 32, 8, 0), OK);
    for (unsigned sector = 16; sector < 32; sector++) {
        assert_int_equal(request(d, IN, sector, data, SECTOR, false), OK);
        assert_int_equal(load_le32(driver_at(d, data)), 0);
    }
    assert_int_equal(request(d, IN, 40, data, SECTOR, false), OK);
    assert_int_equal(load_le32(driver_at(d, data)), 40);
    assert_int_equal(clear(d, DISCARD, DISK_SIZE / SECTOR, 1, 0), IO_ERROR);
    assert_int_equal(clear(d, DISCARD, 0, UINT32_MAX, 0), IO_ERROR);
    assert_int_equal(clear(d, DISCARD, 0, 8, 1), UNSUPPORTED);
}

static void the_serial_number_is_told(void **state)
{
    struct driver *d = &((struct fixture *)*state)->driver;
    const uint64_t data = driver_alloc(d, 20);

    assert_int_equal(request(d, GET_ID, 0, data, 20, false), OK);
    assert_string_equal((char *)driver_at(d, data), "A SERIAL NUMBER");
    assert_int_equal(request(d, GET_ID, 0, data, 19, false), IO_ERROR);
    assert_int_equal(request(d, 99, 0, data, 20, false), UNSUPPORTED);
}

static void a_request_without_room_for_its_status_breaks_the_device(void **state)
{
    struct driver *d = &((struct fixture *)*state)->driver;
    const struct buffer header = {driver_alloc(d, 16), 16, 0};

    driver_add(d, 0, &header, 1);
    driver_kick(d, 0);
    assert_true(driver_device_is_broken(d));
    virtio_device_set_status(d->device, 0);
    assert_int_equal(virtio_device_status(d->device), 0);
}

static void a_reset_with_requests_under_way_ends(void **state)
{
    struct driver *d = &((struct fixture *)*state)->driver;
    const uint64_t data = driver_alloc(d, 64 * SECTOR);

    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < 16; i++)
            submit(d, i % 2 ? OUT : IN, i, data, 64 * SECTOR, i % 2);
        virtio_device_set_status(d->device, 0);
        for (unsigned i = 0; virtio_device_status(d->device); i++) {
            assert_true(i < 5000);
            driver_run(d);
        }
        driver_restart(d, ~0ull, 1, 64);
    }
    assert_int_equal(request(d, IN, 5, data, SECTOR, false), OK);
}

static void a_read_only_disk_refuses_changes(void **state)
{
    struct driver *d = &((struct fixture *)*state)->driver;
    const uint64_t data = driver_alloc(d, SECTOR);

    assert_true(d->device->offered & 1u << 5);
    assert_int_equal(request(d, OUT, 0, data, SECTOR, true), IO_ERROR);
    assert_int_equal(clear(d, WRITE_ZEROES, 0, 8, 0), IO_ERROR);
    assert_int_equal(request(d, IN, 9, data, SECTOR, false), OK);
    assert_int_equal(load_le32(driver_at(d, data)), 9);
}

static void a_limit_holds_requests_back(void **state)
{
    struct driver *d = &((struct fixture *)*state)->driver;
    const uint64_t data = driver_alloc(d, SECTOR);
    uint64_t begin = loop_now_ns();

    for (unsigned i = 0; i < 30; i++) /* 100 a second, ten at once at first */
        assert_int_equal(request(d, IN, 0, data, SECTOR, false), OK);
    assert_true(loop_now_ns() - begin > 150000000);
}

int main(void)
{
#define TEST(name, set_up_) cmocka_unit_test_setup_teardown(name, set_up_, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(sectors_are_read_where_they_are, set_up),
        TEST(what_is_written_and_flushed_is_in_the_file, set_up),
        TEST(many_requests_are_under_way_at_once, set_up),
        TEST(what_lies_beyond_the_end_is_an_error, set_up),
        TEST(cleared_sectors_read_as_zeroes, set_up),
        TEST(the_serial_number_is_told, set_up),
        TEST(a_request_without_room_for_its_status_breaks_the_device, set_up),
        TEST(a_reset_with_requests_under_way_ends, set_up),
        TEST(a_read_only_disk_refuses_changes, set_up_readonly),
        TEST(a_limit_holds_requests_back, set_up_limited),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
