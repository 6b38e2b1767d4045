/* Both ring formats, with a device that echoes what it reads, or keeps it. */
#include "driver.h"

#include <stdio.h>
#include <stdlib.h>

struct echo {
    struct virtio_device device;
    bool keep; /* hold what comes instead of answering */
    unsigned held;
    struct virtqueue_chain chains[4];
};

/* The readable part is copied to the writable one. */
static uint32_t answer(struct virtqueue_chain *chain)
{
    static uint8_t bytes[65536];
    size_t n = iov_read(chain->iov, chain->out_count, 0, bytes, sizeof(bytes));

    return (uint32_t)iov_write(chain_in(chain), chain->in_count, 0, bytes, n);
}

static void echo_notify(struct virtio_device *device, unsigned index)
{
    struct echo *echo = container_of(device, struct echo, device);
    struct virtqueue *queue = &device->queues[index];
    static struct virtqueue_chain chain;

    do {
        virtqueue_set_notify(queue, false);
        while (echo->held < ARRAY_SIZE(echo->chains) && virtqueue_pop(queue, &chain)) {
            if (echo->keep)
                echo->chains[echo->held++] = chain;
            else
                virtqueue_push(queue, &chain, answer(&chain));
        }
    } while (echo->held < ARRAY_SIZE(echo->chains) && virtqueue_set_notify(queue, true));
    virtqueue_interrupt(queue);
}

static void echo_destroy(struct virtio_device *device)
{
    virtio_device_fini(device);
    free(container_of(device, struct echo, device));
}

static const struct virtio_device_ops echo_ops = {
    .name = "echo", .id = 42, .notify = echo_notify, .destroy = echo_destroy};

struct fixture {
    struct driver driver;
    struct echo *echo;
};

#define QUEUE_SIZE 8u

static int set_up(void **state, bool packed, uint64_t features)
{
    static struct fixture fixture;

    fixture.echo = calloc(1, sizeof(*fixture.echo));
    assert_non_null(fixture.echo);
    assert_int_equal(virtio_device_init(&fixture.echo->device, &echo_ops, 0, NULL, 0, 2, 256, NULL,
                                        NULL), 0);
    driver_start(&fixture.driver, &fixture.echo->device, packed, features, 2, QUEUE_SIZE);
    *state = &fixture;
    return 0;
}

static int set_up_split(void **state)
{
    return set_up(state, false, VIRTIO_F_INDIRECT_DESC);
}

static int set_up_packed(void **state)
{
    return set_up(state, true, VIRTIO_F_INDIRECT_DESC);
}

static int set_up_split_events(void **state)
{
    return set_up(state, false, VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX);
}

static int set_up_packed_events(void **state)
{
    return set_up(state, true, VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX);
}

static int tear_down(void **state)
{
    driver_stop(&((struct fixture *)*state)->driver);
    return 0;
}

/* A chain of two readable and two writable buffers, with text in it. */
static void make_buffers(struct driver *d, const char *text, struct buffer buffers[4])
{
    size_t size = strlen(text) + 1, half = size / 2;

    buffers[0] = (struct buffer){driver_alloc(d, half), (uint32_t)half, 0};
    buffers[1] = (struct buffer){driver_alloc(d, size - half), (uint32_t)(size - half), 0};
    buffers[2] = (struct buffer){driver_alloc(d, 3), 3, BUFFER_WRITE};
    buffers[3] = (struct buffer){driver_alloc(d, 100), 100, BUFFER_WRITE};
    memcpy(driver_at(d, buffers[0].address), text, half);
    memcpy(driver_at(d, buffers[1].address), text + half, size - half);
}

static void check_echo(struct driver *d, const char *text, const struct buffer buffers[4])
{
    assert_memory_equal(driver_at(d, buffers[2].address), text, 3);
    assert_string_equal((char *)driver_at(d, buffers[3].address), text + 3);
}

static void requests_go_round_and_round_the_ring(void **state)
{
    struct driver *d = &((struct fixture *)*state)->driver;

    for (unsigned i = 0; i < 70000; i++) { /* indices wrap, too */
        struct buffer buffers[4];
        struct used used;
        char text[32];
        uint16_t id;

        d->next_buffer = DRIVER_BUFFERS;
        snprintf(text, sizeof(text), "request number %u", i);
        make_buffers(d, text, buffers);
        id = driver_add(d, 0, buffers, i % 3 ? 4 : 3);
        driver_kick(d, 0);
        assert_true(driver_used(d, 0, &used));
        assert_int_equal(used.id, id);
        assert_int_equal(used.length, i % 3 ? strlen(text) + 1 : 3);
        if (i % 3)
            check_echo(d, text, buffers);
        assert_false(driver_used(d, 0, &used));
    }
    assert_false(driver_device_is_broken(d));
}

static void an_indirect_table_is_one_entry_of_the_ring(void **state)
{
    struct driver *d = &((struct fixture *)*state)->driver;

    for (unsigned i = 0; i < 3 * QUEUE_SIZE; i++) {
        struct buffer buffers[4];
        struct used used;

        make_buffers(d, "through a table", buffers);
        driver_add_indirect(d, 1, buffers, 4);
        driver_kick(d, 1);
        assert_true(driver_used(d, 1, &used));
        assert_int_equal(used.length, 16);
        check_echo(d, "through a table", buffers);
    }
}

static void the_driver_is_interrupted_only_when_it_wants(void **state)
{
    struct driver *d = &((struct fixture *)*state)->driver;
    struct buffer buffers[4];
    struct used used;

    make_buffers(d, "interrupt", buffers);
    driver_add(d, 0, buffers, 4);
    driver_want_interrupts(d, 0, true);
    driver_kick(d, 0);
    assert_int_equal(d->interrupts[0], 1);
    assert_true(driver_used(d, 0, &used));
    driver_want_interrupts(d, 0, false);
    driver_add(d, 0, buffers, 4);
    driver_kick(d, 0);
    assert_true(driver_used(d, 0, &used));
    assert_int_equal(d->interrupts[0], 1);
    driver_want_interrupts(d, 0, true);
    driver_add(d, 0, buffers, 4);
    driver_kick(d, 0);
    assert_true(driver_used(d, 0, &used));
    assert_int_equal(d->interrupts[0], 2);
}

static void a_reset_waits_for_what_is_under_way(void **state)
{
    struct fixture *f = *state;
    struct driver *d = &f->driver;
    struct virtio_device *device = &f->echo->device;
    struct buffer buffers[4];
    struct used used;

    f->echo->keep = true;
    make_buffers(d, "kept", buffers);
    driver_add(d, 0, buffers, 4);
    driver_kick(d, 0);
    assert_int_equal(f->echo->held, 1);
    virtio_device_set_status(device, 0);
    assert_int_not_equal(virtio_device_status(device), 0);
    f->echo->held = 0;
    virtio_device_lock(device);
    virtqueue_push(&device->queues[0], &f->echo->chains[0], 1);
    virtio_device_unlock(device);
    assert_int_equal(virtio_device_status(device), 0);
    assert_false(driver_used(d, 0, &used)); /* the old ring is left alone */

    f->echo->keep = false;
    driver_restart(d, VIRTIO_F_INDIRECT_DESC, 2, QUEUE_SIZE);
    make_buffers(d, "afterwards", buffers);
    driver_add(d, 0, buffers, 4);
    driver_kick(d, 0);
    assert_true(driver_used(d, 0, &used));
    check_echo(d, "afterwards", buffers);
}

/* --- Drivers that break the rules --- */

/* The device gives up, says so, and works again after a reset. */
static void check_broken(struct driver *d)
{
    struct buffer buffers[4];
    struct used used;

    assert_true(driver_device_is_broken(d));
    assert_int_equal(d->config_interrupts, 1);
    assert_false(driver_used(d, 0, &used));
    virtio_device_set_status(d->device, 0);
    assert_int_equal(virtio_device_status(d->device), 0);
    driver_restart(d, VIRTIO_F_INDIRECT_DESC, 2, QUEUE_SIZE);
    make_buffers(d, "works again", buffers);
    driver_add(d, 0, buffers, 4);
    driver_kick(d, 0);
    assert_true(driver_used(d, 0, &used));
    check_echo(d, "works again", buffers);
}

/* Make one chain of these buffers available and see the device refuse it. */
static void refuse(void **state, const struct buffer *buffers, unsigned count)
{
    struct driver *d = &((struct fixture *)*state)->driver;

    driver_add(d, 0, buffers, count);
    driver_kick(d, 0);
    check_broken(d);
}

static void what_is_pushed_together_is_seen_together(void **state)
{
    struct fixture *f = *state;
    struct driver *d = &f->driver;
    struct virtqueue *queue = &d->device->queues[0];

    f->echo->keep = true;
    for (unsigned round = 0; round < 10; round++) { /* over the ring's end */
        uint16_t ids[3];
        struct used used;

        for (unsigned i = 0; i < 3; i++) {
            struct buffer buffer = {driver_alloc(d, 4), 4, BUFFER_WRITE};

            ids[i] = driver_add(d, 0, &buffer, 1);
        }
        driver_kick(d, 0);
        assert_int_equal(f->echo->held, 3);
        virtqueue_push_first(queue, &f->echo->chains[0], 1);
        virtqueue_push_first(queue, &f->echo->chains[1], 2);
        assert_false(driver_used(d, 0, &used));
        virtqueue_push(queue, &f->echo->chains[2], 3);
        f->echo->held = 0;
        for (unsigned i = 0; i < 3; i++) {
            assert_true(driver_used(d, 0, &used));
            assert_int_equal(used.id, ids[i]);
            assert_int_equal(used.length, i + 1);
        }
    }
}

static void a_buffer_beyond_memory_is_refused(void **state)
{
    const struct buffer beyond = {DRIVER_MEMORY - 8, 16, 0}, far = {UINT64_MAX - 7, 16, 0},
                        long_one = {0x200000, UINT32_MAX, BUFFER_WRITE};

    refuse(state, &beyond, 1);
    ((struct fixture *)*state)->driver.config_interrupts = 0;
    refuse(state, &far, 1);
    ((struct fixture *)*state)->driver.config_interrupts = 0;
    refuse(state, &long_one, 1);
}

static void a_readable_buffer_after_a_writable_one_is_refused(void **state)
{
    const struct buffer buffers[] = {{0x200000, 16, BUFFER_WRITE}, {0x201000, 16, 0}};

    refuse(state, buffers, 2);
}

static void a_chain_without_an_end_is_refused(void **state)
{
    struct driver *d = &((struct fixture *)*state)->driver;
    const struct buffer b = {0x200000, 16, BUFFER_NEXT | (d->packed ? 0x80 : 0)};

    for (unsigned i = 0; i < QUEUE_SIZE; i++)
        driver_write_descriptor(d, 0, i, &b, (uint16_t)((i + 1) % QUEUE_SIZE));
    driver_offer(d, 0, 0);
    if (d->packed) /* offering wrote into the event area; put that right */
        memset(driver_at(d, d->queues[0].area[AREA_DRIVER]), 0, 8);
    driver_kick(d, 0);
    check_broken(d);
}

static void an_indirect_table_within_another_is_refused(void **state)
{
    struct driver *d = &((struct fixture *)*state)->driver;
    const struct buffer inner = {0x200000, 32, BUFFER_INDIRECT};

    if (d->packed)
        return; /* the flag means nothing there: entries of a table are buffers */
    driver_add_indirect(d, 0, &inner, 1);
    driver_kick(d, 0);
    check_broken(d);
}

static void an_indirect_table_of_a_wrong_size_is_refused(void **state)
{
    const struct buffer odd = {0x200000, 17, BUFFER_INDIRECT},
                        none = {0x200000, 0, BUFFER_INDIRECT},
                        beyond = {DRIVER_MEMORY - 16, 32, BUFFER_INDIRECT};

    refuse(state, &odd, 1);
    ((struct fixture *)*state)->driver.config_interrupts = 0;
    refuse(state, &none, 1);
    ((struct fixture *)*state)->driver.config_interrupts = 0;
    refuse(state, &beyond, 1);
}

static void a_table_longer_than_the_queue_is_refused(void **state)
{
    struct driver *d = &((struct fixture *)*state)->driver;
    struct buffer buffers[QUEUE_SIZE + 1];

    for (unsigned i = 0; i <= QUEUE_SIZE; i++)
        buffers[i] = (struct buffer){0x300000, 16, 0};
    driver_add_indirect(d, 0, buffers, QUEUE_SIZE + 1);
    driver_kick(d, 0);
    check_broken(d);
}

static void an_index_out_of_range_is_refused(void **state)
{
    struct driver *d = &((struct fixture *)*state)->driver;

    driver_offer(d, 0, QUEUE_SIZE);
    driver_kick(d, 0);
    check_broken(d);
}

static void more_requests_than_the_ring_holds_are_refused(void **state)
{
    struct driver *d = &((struct fixture *)*state)->driver;

    store_le16(driver_at(d, d->queues[0].area[AREA_DRIVER]) + 2, QUEUE_SIZE + 1);
    driver_kick(d, 0);
    check_broken(d);
}

static void a_ring_outside_memory_is_refused(void **state)
{
    struct driver *d = &((struct fixture *)*state)->driver;

    virtio_device_set_status(d->device, 0);
    d->device->queues[0].address[AREA_DEVICE] = DRIVER_MEMORY - 4;
    virtio_device_enable_queue(d->device, 0);
    assert_true(driver_device_is_broken(d));
    assert_false(d->device->queues[0].enabled);
}

static void features_that_are_not_offered_are_not_agreed_on(void **state)
{
    struct driver *d = &((struct fixture *)*state)->driver;

    virtio_device_set_status(d->device, 0);
    virtio_device_set_status(d->device, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    virtio_device_set_features(d->device, 1); /* no VERSION_1 */
    virtio_device_set_status(d->device, VIRTIO_FEATURES_OK);
    assert_false(virtio_device_status(d->device) & VIRTIO_FEATURES_OK);
    virtio_device_set_status(d->device, VIRTIO_DRIVER_OK);
    assert_false(virtio_device_status(d->device) & VIRTIO_DRIVER_OK);
}

#define IN(name, set_up_) {#name " (" #set_up_ ")", name, set_up_, tear_down, NULL}
#define IN_BOTH(name)     IN(name, set_up_split), IN(name, set_up_packed)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_BOTH(requests_go_round_and_round_the_ring),
        IN(requests_go_round_and_round_the_ring, set_up_split_events),
        IN(requests_go_round_and_round_the_ring, set_up_packed_events),
        IN_BOTH(an_indirect_table_is_one_entry_of_the_ring),
        IN_BOTH(the_driver_is_interrupted_only_when_it_wants),
        IN(the_driver_is_interrupted_only_when_it_wants, set_up_split_events),
        IN(the_driver_is_interrupted_only_when_it_wants, set_up_packed_events),
        IN_BOTH(a_reset_waits_for_what_is_under_way),
        IN_BOTH(what_is_pushed_together_is_seen_together),
        IN_BOTH(a_buffer_beyond_memory_is_refused),
        IN_BOTH(a_readable_buffer_after_a_writable_one_is_refused),
        IN_BOTH(a_chain_without_an_end_is_refused),
        IN_BOTH(an_indirect_table_within_another_is_refused),
        IN_BOTH(an_indirect_table_of_a_wrong_size_is_refused),
        IN_BOTH(a_table_longer_than_the_queue_is_refused),
        IN(an_index_out_of_range_is_refused, set_up_split),
        IN(more_requests_than_the_ring_holds_are_refused, set_up_split),
        IN_BOTH(a_ring_outside_memory_is_refused),
        IN_BOTH(features_that_are_not_offered_are_not_agreed_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
