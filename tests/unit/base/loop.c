#include "../unit.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/loop.h"

struct fixture {
    struct loop *loop;
    struct loop_source *source, *other;
    int pipe[2];
    int calls;
};

static int set_up(void **state)
{
    static struct fixture fixture;

    fixture = (struct fixture){0};
    *state = &fixture;
    return loop_create(&fixture.loop, NULL) || pipe(fixture.pipe);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    close(f->pipe[0]);
    close(f->pipe[1]);
    loop_destroy(f->loop);
    return 0;
}

static void read_and_stop(void *opaque, uint32_t events)
{
    struct fixture *f = opaque;
    char byte;

    assert_true(events & EPOLLIN);
    assert_int_equal(read(f->pipe[0], &byte, 1), 1);
    f->calls++;
    loop_remove(f->source);
    loop_stop(f->loop);
}

static void a_readable_descriptor_calls_its_function(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(loop_add_fd(f->loop, f->pipe[0], EPOLLIN, read_and_stop, f, &f->source, NULL),
                     0);
    assert_int_equal(write(f->pipe[1], "x", 1), 1);
    assert_int_equal(loop_run(f->loop, NULL), 0);
    assert_int_equal(f->calls, 1);
}

static void tick(void *opaque)
{
    struct fixture *f = opaque;

    if (++f->calls == 3) {
        loop_remove(f->source);
        loop_stop(f->loop);
    } else {
        loop_arm_timer(f->source, loop_now_ns() + 1000000);
    }
}

static void a_timer_fires_each_time_it_is_armed(void **state)
{
    struct fixture *f = *state;
    uint64_t start = loop_now_ns();

    assert_int_equal(loop_add_timer(f->loop, tick, f, &f->source, NULL), 0);
    loop_arm_timer(f->source, start + 1000000);
    assert_int_equal(loop_run(f->loop, NULL), 0);
    assert_int_equal(f->calls, 3);
    assert_true(loop_now_ns() - start >= 3000000);
}

static void count(void *opaque)
{
    ((struct fixture *)opaque)->calls++;
}

static void *post_many(void *opaque)
{
    struct fixture *f = opaque;

    for (int i = 0; i < 1000; i++)
        assert_int_equal(loop_post(f->loop, count, f), 0);
    loop_stop(f->loop);
    return NULL;
}

static void work_posted_by_another_thread_is_all_run(void **state)
{
    struct fixture *f = *state;
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, post_many, f), 0);
    assert_int_equal(loop_run(f->loop, NULL), 0);
    pthread_join(thread, NULL);
    assert_int_equal(f->calls, 1000);
}

static void remove_the_other(void *opaque, uint32_t events)
{
    struct fixture *f = opaque;

    (void)events;
    f->calls++;
    loop_remove(f->source);
    loop_remove(f->other);
    loop_stop(f->loop);
}

static void a_source_removed_in_the_same_round_is_not_called(void **state)
{
    struct fixture *f = *state;
    int copy = dup(f->pipe[0]);

    assert_int_equal(loop_add_fd(f->loop, f->pipe[0], EPOLLIN, remove_the_other, f, &f->source,
                                 NULL),
                     0);
    assert_int_equal(loop_add_fd(f->loop, copy, EPOLLIN, remove_the_other, f, &f->other, NULL), 0);
    assert_int_equal(write(f->pipe[1], "x", 1), 1);
    assert_int_equal(loop_run(f->loop, NULL), 0);
    assert_int_equal(f->calls, 1);
    close(copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_readable_descriptor_calls_its_function, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_timer_fires_each_time_it_is_armed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(work_posted_by_another_thread_is_all_run, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_source_removed_in_the_same_round_is_not_called, set_up,
                                        tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
