/* The switch, with peers that are the test's own sockets. */
#include "../unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "network/network.h"
#include "network/switch.h"

#define PEERS 70

struct fixture {
    struct loop *loop;
    struct loop_source *tick;
    struct ethernet_switch *ethernet;
    struct sockaddr_un where;
    int peers[PEERS];
};

static void stop(void *opaque)
{
    loop_stop(opaque);
}

static void work(struct fixture *f)
{
    for (unsigned i = 0; i < 3; i++) {
        loop_arm_timer(f->tick, loop_now_ns() + 1000000);
        assert_int_equal(loop_run(f->loop, NULL), 0);
    }
}

static void plug(struct fixture *f, unsigned peer)
{
    f->peers[peer] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(connect(f->peers[peer], (struct sockaddr *)&f->where, sizeof(f->where)), 0);
    work(f);
}

static void pull(struct fixture *f, unsigned peer)
{
    close(f->peers[peer]);
    f->peers[peer] = -1;
    work(f);
}

static int set_up(void **state)
{
    static struct fixture f;
    struct error err = {0};

    memset(&f, 0, sizeof(f));
    f.where.sun_family = AF_UNIX;
    snprintf(f.where.sun_path, sizeof(f.where.sun_path), "/tmp/lodge-test-ethernet-%d",
             (int)getpid());
    for (unsigned i = 0; i < PEERS; i++)
        f.peers[i] = -1;
    assert_int_equal(loop_create(&f.loop, NULL), 0);
    assert_int_equal(loop_add_timer(f.loop, stop, f.loop, &f.tick, NULL), 0);
    if (ethernet_switch_create(f.where.sun_path, f.loop, NULL, &f.ethernet, &err) < 0)
        fail_msg("%s", err.text);
    for (unsigned i = 0; i < 3; i++)
        plug(&f, i);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    ethernet_switch_destroy(f->ethernet);
    for (unsigned i = 0; i < PEERS; i++)
        if (f->peers[i] >= 0)
            close(f->peers[i]);
    loop_remove(f->tick);
    loop_destroy(f->loop);
    assert_int_equal(access(f->where.sun_path, F_OK), -1);
    return 0;
}

/* Peer n has the address 02:..:n; 255 is everybody. */
static void say(struct fixture *f, unsigned from, unsigned to)
{
    uint8_t frame[60] = {2, [5] = (uint8_t)to, [6] = 2, [11] = (uint8_t)from};

    if (to == 255)
        memset(frame, 0xff, 6);
    assert_int_equal(send(f->peers[from], frame, sizeof(frame), 0), sizeof(frame));
    work(f);
}

/* Who hears of it: a bit a peer. */
static unsigned heard(struct fixture *f)
{
    unsigned mask = 0;
    uint8_t frame[NETWORK_FRAME_MAX];

    for (unsigned i = 0; i < 8; i++)
        while (f->peers[i] >= 0 && recv(f->peers[i], frame, sizeof(frame), MSG_DONTWAIT) > 0)
            mask |= 1u << i;
    return mask;
}

static void what_is_for_everybody_or_not_known_yet_goes_everywhere_else(void **state)
{
    struct fixture *f = *state;

    say(f, 0, 255);
    assert_int_equal(heard(f), 6);
    say(f, 1, 2); /* which has said nothing so far */
    assert_int_equal(heard(f), 5);
}

static void what_is_learned_goes_to_its_port_alone(void **state)
{
    struct fixture *f = *state;

    say(f, 0, 255);
    heard(f);
    say(f, 1, 0);
    assert_int_equal(heard(f), 1);
    say(f, 0, 1);
    assert_int_equal(heard(f), 2);
    say(f, 0, 0); /* nobody hears their own */
    assert_int_equal(heard(f), 0);
}

static void an_address_that_moves_is_found_again(void **state)
{
    struct fixture *f = *state;
    const uint8_t moved[60] = {[0] = 0xff, [1] = 0xff, [2] = 0xff, [3] = 0xff, [4] = 0xff,
                               [5] = 0xff, [6] = 2, [11] = 0};

    say(f, 0, 255);
    heard(f);
    assert_int_equal(send(f->peers[2], moved, sizeof(moved), 0), sizeof(moved));
    work(f);
    heard(f);
    say(f, 1, 0);
    assert_int_equal(heard(f), 4);
}

static void a_peer_that_dies_is_forgotten(void **state)
{
    struct fixture *f = *state;

    say(f, 0, 255);
    say(f, 1, 255);
    heard(f);
    pull(f, 0);
    say(f, 1, 0);
    assert_int_equal(heard(f), 4); /* as if it had never been */
    plug(f, 0);
    say(f, 0, 1);
    assert_int_equal(heard(f), 2);
}

static void garbage_hurts_nobody(void **state)
{
    struct fixture *f = *state;
    static uint8_t bytes[NETWORK_FRAME_MAX + 4096];
    const size_t sizes[] = {1, 6, 13, sizeof(bytes)};

    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        memset(bytes, 0xff, sizeof(bytes));
        if (sizes[i] < 14)
            assert_int_equal(send(f->peers[0], bytes, sizes[i], 0), sizes[i]);
        else /* more than a frame can be */
            send(f->peers[0], bytes, sizes[i], 0);
        work(f);
        assert_int_equal(heard(f), 0);
    }
    srand(1);
    for (unsigned i = 0; i < 2000; i++) { /* more addresses than it remembers */
        for (unsigned b = 0; b < 60; b++)
            bytes[b] = (uint8_t)rand();
        send(f->peers[0], bytes, 60, 0);
        if (i % 32 == 0)
            work(f);
    }
    work(f);
    heard(f);
    say(f, 2, 255);
    assert_int_equal(heard(f), 3);
    say(f, 1, 2);
    assert_int_equal(heard(f), 4);
}

static void a_peer_that_does_not_listen_keeps_nobody_waiting(void **state)
{
    struct fixture *f = *state;
    uint8_t frame[1500] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, [11] = 0};
    unsigned count = 0;

    for (unsigned i = 0; i < 2000; i++) { /* peer 2 takes none of them */
        assert_int_equal(send(f->peers[0], frame, sizeof(frame), 0), sizeof(frame));
        work(f);
        count += recv(f->peers[1], frame, sizeof(frame), MSG_DONTWAIT) > 0;
    }
    assert_int_equal(count, 2000);
}

static void it_has_64_ports_and_then_lets_none_in(void **state)
{
    struct fixture *f = *state;
    uint8_t byte;

    for (unsigned i = 3; i < 65; i++)
        plug(f, i);
    assert_int_equal(recv(f->peers[64], &byte, 1, MSG_DONTWAIT), 0); /* hung up on */
    say(f, 0, 255);
    assert_int_equal(heard(f), 0xfe);
    pull(f, 63);
    plug(f, 65);
    assert_int_equal(recv(f->peers[65], &byte, 1, MSG_DONTWAIT), -1);
}

static void it_takes_the_place_of_one_that_was_killed_and_of_no_other(void **state)
{
    struct fixture *f = *state;
    struct ethernet_switch *second = NULL;
    struct error err = {0};

    assert_int_equal(ethernet_switch_create(f->where.sun_path, f->loop, NULL, &second, &err),
                     -EADDRINUSE);
    assert_int_equal(access(f->where.sun_path, F_OK), 0);
    say(f, 0, 255);
    assert_int_equal(heard(f), 6);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(what_is_for_everybody_or_not_known_yet_goes_everywhere_else),
        TEST(what_is_learned_goes_to_its_port_alone),
        TEST(an_address_that_moves_is_found_again),
        TEST(a_peer_that_dies_is_forgotten),
        TEST(garbage_hurts_nobody),
        TEST(a_peer_that_does_not_listen_keeps_nobody_waiting),
        TEST(it_has_64_ports_and_then_lets_none_in),
        TEST(it_takes_the_place_of_one_that_was_killed_and_of_no_other),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
