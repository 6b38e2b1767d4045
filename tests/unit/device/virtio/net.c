/* The network card, plugged into a switch whose other port is the test. */
#include "driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "device/virtio/net.h"
#include "network/switch.h"

#define HEADER 12u
enum { RECEIVE = 0, SEND = 1, CONTROL = 2 };
#define F_MERGEABLE (1ull << 15)

struct fixture {
    struct driver driver;
    struct loop *loop; /* the switch's */
    struct ethernet_switch *ethernet;
    struct loop_source *tick;
    int peer;
    char path[64];
};

static const uint8_t our_mac[] = {2, 0, 0, 0, 0, 1}, peer_mac[] = {2, 0, 0, 0, 0, 2};

static void stop(void *opaque)
{
    loop_stop(opaque);
}

/* Let the switch and the card work. */
static void work(struct fixture *f)
{
    for (unsigned i = 0; i < 3; i++) {
        driver_run(&f->driver);
        loop_arm_timer(f->tick, loop_now_ns() + 1000000);
        assert_int_equal(loop_run(f->loop, NULL), 0);
    }
    driver_run(&f->driver);
}

static int set_up(void **state)
{
    static struct fixture f;
    struct virtio_net_config config = {.network.kind = "switch", .queue_pairs = 1};
    struct sockaddr_un where = {.sun_family = AF_UNIX};
    struct virtio_device *device;
    struct error err = {0};

    memset(&f, 0, sizeof(f));
    snprintf(f.path, sizeof(f.path), "/tmp/lodge-test-switch-%d", (int)getpid());
    assert_int_equal(loop_create(&f.loop, NULL), 0);
    assert_int_equal(loop_add_timer(f.loop, stop, f.loop, &f.tick, NULL), 0);
    if (ethernet_switch_create(f.path, f.loop, NULL, &f.ethernet, &err) < 0)
        fail_msg("%s", err.text);
    config.network.target = f.path;
    memcpy(config.network.mac, our_mac, 6);
    if (virtio_net_create(&config, NULL, &device, &err) < 0)
        fail_msg("%s", err.text);
    f.peer = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    strcpy(where.sun_path, f.path);
    assert_int_equal(connect(f.peer, (struct sockaddr *)&where, sizeof(where)), 0);
    driver_start(&f.driver, device, false, ~0ull & ~(1ull << 22), 3, 64);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    driver_stop(&f->driver);
    ethernet_switch_destroy(f->ethernet);
    loop_remove(f->tick);
    loop_destroy(f->loop);
    close(f->peer);
    return 0;
}

/* A frame with a payload that counts. */
static void make_frame(uint8_t *frame, size_t size, const uint8_t *to, const uint8_t *from)
{
    memcpy(frame, to, 6);
    memcpy(frame + 6, from, 6);
    store_be16(frame + 12, 0x88b5); /* for experiments */
    for (size_t i = 14; i < size; i++)
        frame[i] = (uint8_t)i;
}

static void a_frame_sent_comes_out_of_the_switch(void **state)
{
    struct fixture *f = *state;
    struct driver *d = &f->driver;
    const struct buffer buffer = {driver_alloc(d, 2048), HEADER + 1000, 0};
    uint8_t frame[1000], got[2048];

    make_frame(frame, sizeof(frame), peer_mac, our_mac);
    memcpy(driver_at(d, buffer.address) + HEADER, frame, sizeof(frame));
    driver_add(d, SEND, &buffer, 1);
    driver_kick(d, SEND);
    driver_wait(d, SEND);
    work(f);
    assert_int_equal(recv(f->peer, got, sizeof(got), MSG_DONTWAIT), sizeof(frame));
    assert_memory_equal(got, frame, sizeof(frame));
}

static void a_frame_received_is_spread_over_small_buffers(void **state)
{
    struct fixture *f = *state;
    struct driver *d = &f->driver;
    uint8_t frame[1000], got[1200] = {0};
    uint64_t buffers[8];
    size_t done = 0;

    for (unsigned i = 0; i < 8; i++) {
        const struct buffer b = {buffers[i] = driver_alloc(d, 256), 256, BUFFER_WRITE};

        driver_add(d, RECEIVE, &b, 1);
    }
    driver_kick(d, RECEIVE);
    make_frame(frame, sizeof(frame), our_mac, peer_mac);
    assert_int_equal(send(f->peer, frame, sizeof(frame), 0), sizeof(frame));
    work(f);
    for (unsigned i = 0; i < 4; i++) {
        struct used used = driver_wait(d, RECEIVE);

        memcpy(got + done, driver_at(d, buffers[i]), used.length);
        done += used.length;
    }
    assert_int_equal(done, HEADER + sizeof(frame));
    assert_int_equal(load_le16(got + 10), 4); /* num_buffers */
    assert_memory_equal(got + HEADER, frame, sizeof(frame));
}

static void a_frame_waits_for_buffers(void **state)
{
    struct fixture *f = *state;
    struct driver *d = &f->driver;
    const struct buffer buffer = {driver_alloc(d, 2048), 2048, BUFFER_WRITE};
    uint8_t frame[100];
    struct used used;

    make_frame(frame, sizeof(frame), our_mac, peer_mac);
    assert_int_equal(send(f->peer, frame, sizeof(frame), 0), sizeof(frame));
    work(f);
    assert_false(driver_used(d, RECEIVE, &used));
    driver_add(d, RECEIVE, &buffer, 1);
    driver_kick(d, RECEIVE);
    used = driver_wait(d, RECEIVE);
    assert_int_equal(used.length, HEADER + sizeof(frame));
    assert_memory_equal(driver_at(d, buffer.address) + HEADER, frame, sizeof(frame));
}

/* Does a frame to that address come, with a tag of that VLAN unless it is 0? */
static bool comes(struct fixture *f, const uint8_t *to, unsigned vlan)
{
    struct driver *d = &f->driver;
    const struct buffer buffer = {driver_alloc(d, 2048), 2048, BUFFER_WRITE};
    uint8_t frame[100];
    struct used used;

    driver_add(d, RECEIVE, &buffer, 1);
    driver_kick(d, RECEIVE);
    make_frame(frame, sizeof(frame), to, peer_mac);
    if (vlan) {
        store_be16(frame + 12, 0x8100);
        store_be16(frame + 14, (uint16_t)(0xe000 | vlan)); /* a priority is no part of it */
    }
    assert_int_equal(send(f->peer, frame, sizeof(frame), 0), sizeof(frame));
    work(f);
    return driver_used(d, RECEIVE, &used);
}

static uint8_t control(struct driver *d, const uint8_t *command, uint32_t size)
{
    const uint64_t out = driver_alloc(d, size), ack = driver_alloc(d, 1);
    const struct buffer buffers[] = {{out, size, 0}, {ack, 1, BUFFER_WRITE}};

    memcpy(driver_at(d, out), command, size);
    *driver_at(d, ack) = 0xee;
    driver_add(d, CONTROL, buffers, 2);
    driver_kick(d, CONTROL);
    driver_wait(d, CONTROL);
    return *driver_at(d, ack);
}

static void the_control_queue_obeys_what_it_knows(void **state)
{
    struct driver *d = &((struct fixture *)*state)->driver;
    const uint8_t address[] = {1, 1, 2, 3, 4, 5, 6, 7}, promiscuous[] = {0, 0, 1},
                  pairs[] = {4, 0, 9, 0}, unknown[] = {77, 0}, cut[] = {1, 1, 2};
    uint8_t mac[6];

    assert_int_equal(control(d, address, sizeof(address)), 0);
    virtio_device_config_read(d->device, 0, mac, 6);
    assert_memory_equal(mac, address + 2, 6);
    assert_int_equal(control(d, promiscuous, sizeof(promiscuous)), 0);
    assert_int_equal(control(d, pairs, sizeof(pairs)), 1);
    assert_int_equal(control(d, unknown, sizeof(unknown)), 1);
    assert_int_equal(control(d, cut, sizeof(cut)), 1);
}

static const uint8_t broadcast[] = {255, 255, 255, 255, 255, 255},
                     group[] = {1, 0, 0x5e, 0, 0, 9}, other_group[] = {1, 0, 0x5e, 0, 0, 10},
                     second[] = {2, 0, 0, 0, 0, 7}, stranger[] = {2, 0, 0, 0, 0, 8};

static void the_driver_chooses_whose_frames_come(void **state)
{
    struct fixture *f = *state;
    struct driver *d = &f->driver;
    const uint8_t table[] = {1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 7, 1, 0, 0, 0, 1, 0, 0x5e, 0, 0, 9},
                  cut[] = {1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 8, 1, 0, 0, 0, 1, 0},
                  huge[] = {1, 0, 255, 255, 255, 255, 1, 2, 3, 4, 5, 6}, selective[] = {0, 0, 0};

    assert_true(comes(f, stranger, 0)); /* all comes until it says otherwise */
    assert_int_equal(control(d, selective, sizeof(selective)), 0);
    assert_int_equal(control(d, table, sizeof(table)), 0);
    assert_int_equal(control(d, cut, sizeof(cut)), 1);
    assert_int_equal(control(d, huge, sizeof(huge)), 1);
    assert_true(comes(f, our_mac, 0));
    assert_true(comes(f, second, 0));
    assert_true(comes(f, group, 0));
    assert_true(comes(f, broadcast, 0));
    assert_false(comes(f, stranger, 0));
    assert_false(comes(f, other_group, 0));
    for (uint8_t mode = 1; mode < 6; mode++) {
        const uint8_t on[] = {0, mode, 1}, off[] = {0, mode, 0};

        assert_int_equal(control(d, on, sizeof(on)), 0);
        assert_int_equal(comes(f, other_group, 0), mode == 1);
        assert_int_equal(comes(f, stranger, 0), mode == 2);
        assert_int_equal(comes(f, group, 0), mode != 3);
        assert_int_equal(comes(f, our_mac, 0), mode != 4);
        assert_int_equal(comes(f, broadcast, 0), mode != 5);
        assert_int_equal(control(d, off, sizeof(off)), 0);
    }
}

static void frames_of_other_vlans_do_not_come(void **state)
{
    struct fixture *f = *state;
    struct driver *d = &f->driver;
    const uint8_t add[] = {2, 0, 0xff, 0x0f}, removed[] = {2, 1, 0xff, 0x0f},
                  beyond[] = {2, 0, 0x00, 0x10};

    assert_true(comes(f, our_mac, 0));
    assert_false(comes(f, our_mac, 4095));
    assert_int_equal(control(d, add, sizeof(add)), 0);
    assert_true(comes(f, our_mac, 4095));
    assert_false(comes(f, our_mac, 4094));
    assert_int_equal(control(d, removed, sizeof(removed)), 0);
    assert_false(comes(f, our_mac, 4095));
    assert_int_equal(control(d, beyond, sizeof(beyond)), 1);
}

static void a_reset_forgets_what_the_driver_chose(void **state)
{
    struct fixture *f = *state;
    struct driver *d = &f->driver;
    const uint8_t selective[] = {0, 0, 0}, address[] = {1, 1, 2, 9, 9, 9, 9, 9};
    uint8_t mac[6];

    assert_int_equal(control(d, selective, sizeof(selective)), 0);
    assert_int_equal(control(d, address, sizeof(address)), 0);
    assert_false(comes(f, stranger, 0));
    virtio_device_set_status(d->device, 0);
    driver_restart(d, ~0ull & ~(1ull << 22), 3, 64);
    virtio_device_config_read(d->device, 0, mac, 6);
    assert_memory_equal(mac, our_mac, 6);
    assert_true(comes(f, stranger, 0));
}

static void nonsense_is_not_sent(void **state)
{
    struct fixture *f = *state;
    struct driver *d = &f->driver;
    const uint64_t at = driver_alloc(d, 4096);
    const struct buffer tiny = {at, HEADER + 3, 0}, frame = {at, HEADER + 60, 0};
    uint8_t got[2048];

    driver_add(d, SEND, &tiny, 1);
    store_le16(driver_at(d, at) + 6, 0xfff0); /* a checksum far beyond the frame */
    *driver_at(d, at) = 1;
    driver_add(d, SEND, &frame, 1);
    driver_kick(d, SEND);
    driver_wait(d, SEND);
    driver_wait(d, SEND);
    *(driver_at(d, at) + 1) = 1; /* a large segment of no protocol */
    driver_add(d, SEND, &frame, 1);
    driver_kick(d, SEND);
    driver_wait(d, SEND);
    work(f);
    assert_int_equal(recv(f->peer, got, sizeof(got), MSG_DONTWAIT), -1);
    assert_false(driver_device_is_broken(d));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_frame_sent_comes_out_of_the_switch),
        TEST(a_frame_received_is_spread_over_small_buffers),
        TEST(a_frame_waits_for_buffers),
        TEST(the_control_queue_obeys_what_it_knows),
        TEST(the_driver_chooses_whose_frames_come),
        TEST(frames_of_other_vlans_do_not_come),
        TEST(a_reset_forgets_what_the_driver_chose),
        TEST(nonsense_is_not_sent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
