/* The network card under a driver that writes what it likes, plugged into a switch that sends
 * what it likes: the input is where the rings lie, then guest memory with the rings in it, and its
 * end is a frame that comes. Whatever they say, the card touches nothing but guest memory, and a
 * reset ends. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "device/virtio/net.h"
#include "virtqueue.h"

#define MEMORY    (2u << 20)
#define QUEUES    3u
#define HEADER    (1u + QUEUES * FUZZ_QUEUE_BYTES)
#define FRAME_MAX 200u

struct bench {
    struct guest_memory *memory;
    struct virtio_device *device;
    struct loop_source *tick;
    int peer;
};

static void stop(void *opaque)
{
    loop_stop(opaque);
}

static void set_up(struct bench *bench)
{
    struct virtio_net_config config = {.network.kind = "switch", .queue_pairs = 1};
    struct sockaddr_un where = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    snprintf(where.sun_path, sizeof(where.sun_path), "/tmp/lodge-fuzz-switch-%d", (int)getpid());
    unlink(where.sun_path);
    config.network.target = where.sun_path;
    if (bind(listener, (struct sockaddr *)&where, sizeof(where)) < 0 || listen(listener, 1) < 0 ||
        guest_memory_create(MEMORY, &bench->memory, NULL) < 0 ||
        virtio_net_create(&config, NULL, &bench->device, NULL) < 0 ||
        loop_add_timer(bench->device->loop, stop, bench->device->loop, &bench->tick, NULL) < 0)
        abort();
    bench->peer = accept(listener, NULL, NULL);
    close(listener);
    unlink(where.sun_path);
    bench->device->memory = bench->memory;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct bench bench;
    struct virtio_device *device;
    uint8_t *ram, byte[FRAME_MAX];
    size_t frame;

    if (!bench.device)
        set_up(&bench);
    if (size < HEADER)
        return 0;
    device = bench.device;
    ram = guest_memory_at(bench.memory, 0, MEMORY);
    memset(ram, 0, 0x10000);
    memcpy(ram, data + HEADER, MIN(size - HEADER, 0x10000u));
    virtio_device_set_status(device, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    virtio_device_set_features(device, (~0ull << 4 & ~VIRTIO_F_RING_PACKED) | (data[0] & 15) |
                                           (data[0] & 16 ? VIRTIO_F_RING_PACKED : 0));
    virtio_device_set_status(device, VIRTIO_FEATURES_OK);
    for (unsigned i = 0; i < QUEUES; i++)
        fuzz_set_queue(device, i, data + 1 + FUZZ_QUEUE_BYTES * i, MEMORY);
    virtio_device_set_status(device, VIRTIO_DRIVER_OK);
    virtio_device_serve(device);
    frame = MIN(size, FRAME_MAX);
    if (send(bench.peer, data + size - frame, frame, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        abort();
    loop_arm_timer(bench.tick, 1);
    if (loop_run(device->loop, NULL) < 0)
        abort();
    virtio_device_set_status(device, 0);
    if (virtio_device_status(device) || device->in_flight)
        abort();
    while (recv(bench.peer, byte, sizeof(byte), MSG_DONTWAIT) > 0)
        ;
    return 0;
}
