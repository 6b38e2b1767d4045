/* Every device under a driver that breaks the rules, or resets it at any moment. */
#include "devices.h"
#include "driver.h"

#include <stdio.h>
#include <stdlib.h>

#define QUEUE_SIZE 64u
#define ROUNDS     10u

struct fixture {
    const struct device_kind *kind;
    bool packed;
    struct driver driver;
};

static int set_up(void **state)
{
    struct fixture *f = *state;

    driver_start(&f->driver, f->kind->create(), f->packed, ~0ull, f->kind->queues, QUEUE_SIZE);
    return 0;
}

static int tear_down(void **state)
{
    driver_stop(&((struct fixture *)*state)->driver);
    return 0;
}

/* Something that every device takes: a block device reads the first sector, the console is told
 * that the guest is there, the others find nothing of use in it. */
static void add_request(struct driver *d, unsigned queue)
{
    const struct buffer buffers[] = {{driver_alloc(d, 16), 16, 0},
                                     {driver_alloc(d, 512), 512, BUFFER_WRITE},
                                     {driver_alloc(d, 1), 1, BUFFER_WRITE}};

    memset(driver_at(d, buffers[0].address), 0, 16);
    driver_add(d, queue, buffers, ARRAY_SIZE(buffers));
}

static void reset(struct driver *d)
{
    virtio_device_set_status(d->device, 0);
    for (unsigned i = 0; virtio_device_status(d->device); i++) {
        assert_true(i < 5000);
        driver_run(d);
    }
    assert_int_equal(d->device->in_flight, 0);
}

static void check_works(struct fixture *f)
{
    driver_restart(&f->driver, ~0ull, f->kind->queues, QUEUE_SIZE);
    add_request(&f->driver, f->kind->eager);
    driver_kick(&f->driver, f->kind->eager);
    driver_wait(&f->driver, f->kind->eager);
    assert_false(driver_device_is_broken(&f->driver));
}

/* The device has given up; it touches nothing any more, and works again after a reset. */
static void check_broken(struct fixture *f)
{
    struct driver *d = &f->driver;
    struct used used;

    assert_true(driver_device_is_broken(d));
    driver_run(d);
    assert_false(driver_used(d, f->kind->eager, &used));
    reset(d);
    check_works(f);
}

static void a_reset_at_any_moment_ends_and_nothing_is_written_afterwards(void **state)
{
    struct fixture *f = *state;
    struct driver *d = &f->driver;

    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t size;
        void *before;

        for (unsigned queue = 0; queue < f->kind->queues; queue++) {
            for (unsigned i = 0; i < 10; i++)
                add_request(d, queue);
            driver_kick(d, queue);
        }
        if (round % 2)
            driver_run(d);
        reset(d);
        size = d->next_buffer;
        before = malloc(size);
        assert_non_null(before);
        memcpy(before, driver_at(d, 0), size);
        driver_run(d);
        assert_memory_equal(before, driver_at(d, 0), size);
        free(before);
        driver_restart(d, ~0ull, f->kind->queues, QUEUE_SIZE);
    }
    reset(d);
    check_works(f);
}

static void a_loop_of_descriptors_breaks_the_device(void **state)
{
    struct fixture *f = *state;
    struct driver *d = &f->driver;
    const unsigned queue = f->kind->eager;
    const struct buffer b = {driver_alloc(d, 16), 16, BUFFER_NEXT | (f->packed ? 0x80 : 0)};

    for (unsigned i = 0; i < QUEUE_SIZE; i++)
        driver_write_descriptor(d, queue, i, &b, (uint16_t)((i + 1) % QUEUE_SIZE));
    if (!f->packed)
        driver_offer(d, queue, 0);
    driver_kick(d, queue);
    check_broken(f);
}

static void a_buffer_beyond_memory_breaks_the_device(void **state)
{
    struct fixture *f = *state;
    const struct buffer buffers[] = {{0x200000, 16, 0},
                                     {DRIVER_MEMORY - 8, 16, BUFFER_WRITE},
                                     {0x200000, UINT32_MAX, BUFFER_WRITE},
                                     {UINT64_MAX - 7, 16, 0}};

    for (unsigned i = 1; i < ARRAY_SIZE(buffers); i++) {
        driver_add(&f->driver, f->kind->eager, buffers, 1);
        driver_add(&f->driver, f->kind->eager, &buffers[i], 1);
        driver_kick(&f->driver, f->kind->eager);
        assert_true(driver_device_is_broken(&f->driver));
        reset(&f->driver);
        check_works(f);
    }
}

static void an_index_out_of_range_breaks_the_device(void **state)
{
    struct fixture *f = *state;

    if (f->packed)
        return; /* has none */
    driver_offer(&f->driver, f->kind->eager, QUEUE_SIZE);
    driver_kick(&f->driver, f->kind->eager);
    check_broken(f);
}

static void a_client_that_does_not_read_does_not_hold_up_a_reset(void **state)
{
    enum { CONTROL_OUT = 3, PORT_OUT = 5, SIZE = 1 << 20 };
    struct fixture *f = *state;
    struct driver *d = &f->driver;
    const struct buffer large = {driver_alloc(d, SIZE), SIZE, 0};

    driver_run(d); /* the client is let in */
    driver_add(d, PORT_OUT, &large, 1);
    driver_kick(d, PORT_OUT);
    assert_int_equal(d->device->in_flight, 1);
    reset(d);
    check_works(f);
}

int main(void)
{
    static const struct {
        const char *name;
        CMUnitTestFunction test;
    } rules[] = {
#define RULE(name) {#name, name}
        RULE(a_reset_at_any_moment_ends_and_nothing_is_written_afterwards),
        RULE(a_loop_of_descriptors_breaks_the_device),
        RULE(a_buffer_beyond_memory_breaks_the_device),
        RULE(an_index_out_of_range_breaks_the_device),
        RULE(a_client_that_does_not_read_does_not_hold_up_a_reset),
    };
    static struct fixture fixtures[2 * DEVICE_KINDS];
    static char names[ARRAY_SIZE(fixtures) * ARRAY_SIZE(rules)][128];
    struct CMUnitTest tests[ARRAY_SIZE(names)];
    size_t count = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(fixtures); i++) {
        struct fixture *f = &fixtures[i];

        *f = (struct fixture){.kind = &device_kinds[i / 2], .packed = i % 2};
        for (unsigned rule = 0; rule < ARRAY_SIZE(rules); rule++) {
            if (rules[rule].test == a_client_that_does_not_read_does_not_hold_up_a_reset &&
                strcmp(f->kind->name, "console"))
                continue;
            snprintf(names[count], sizeof(names[0]), "%s (%s, %s)", rules[rule].name, f->kind->name,
                     f->packed ? "packed" : "split");
            tests[count] =
                (struct CMUnitTest){names[count], rules[rule].test, set_up, tear_down, f};
            count++;
        }
    }
    return _cmocka_run_group_tests("hostile drivers", tests, count, NULL, NULL);
}
