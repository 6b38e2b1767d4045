/* Each kind of device under a driver that writes what it likes: the input says which device, what
 * features are taken and where the rings lie; then it is guest memory with the rings in it.
 * Whatever it says, the device touches nothing but guest memory, and a reset ends. */
#include <stdlib.h>
#include <string.h>

#include "../unit/device/virtio/devices.h"
#include "base/bytes.h"
#include "virtqueue.h"

#define MEMORY     (2u << 20)
#define QUEUES_MAX 6u
#define HEADER     (4u + QUEUES_MAX * FUZZ_QUEUE_BYTES)
#define WAITS_MAX  10000u /* of a millisecond, until requests under way have ended */

struct bench {
    struct guest_memory *memory;
    struct virtio_device *device;
    struct loop_source *tick;
};

static void stop(void *opaque)
{
    loop_stop(opaque);
}

static void set_up(struct bench *bench, const struct device_kind *kind)
{
    bench->device = kind->create();
    if (guest_memory_create(MEMORY, &bench->memory, NULL) < 0 ||
        loop_add_timer(bench->device->loop, stop, bench->device->loop, &bench->tick, NULL) < 0)
        abort();
    bench->device->memory = bench->memory;
}

static void work(struct bench *bench, uint64_t until)
{
    loop_arm_timer(bench->tick, until);
    if (loop_run(bench->device->loop, NULL) < 0)
        abort();
}

static void reset(struct bench *bench)
{
    virtio_device_set_status(bench->device, 0);
    for (unsigned i = 0; virtio_device_status(bench->device); i++) {
        if (i == WAITS_MAX)
            abort();
        work(bench, loop_now_ns() + 1000000);
    }
    if (bench->device->in_flight)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct bench benches[DEVICE_KINDS];
    struct bench *bench;
    const struct device_kind *kind;
    uint8_t *ram;

    if (size < HEADER)
        return 0;
    kind = &device_kinds[data[0] % DEVICE_KINDS];
    bench = &benches[data[0] % DEVICE_KINDS];
    if (!bench->device)
        set_up(bench, kind);
    ram = guest_memory_at(bench->memory, 0, MEMORY);
    memset(ram, 0, 0x10000);
    memcpy(ram, data + HEADER, MIN(size - HEADER, 0x10000u));
    virtio_device_set_status(bench->device, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    virtio_device_set_features(bench->device, (~0ull << 8 & ~VIRTIO_F_RING_PACKED) | data[1] |
                                                  (data[2] & 1 ? VIRTIO_F_RING_PACKED : 0));
    virtio_device_set_status(bench->device, VIRTIO_FEATURES_OK);
    for (unsigned i = 0; i < kind->queues; i++)
        fuzz_set_queue(bench->device, i, data + 4 + FUZZ_QUEUE_BYTES * i, MEMORY);
    virtio_device_set_status(bench->device, VIRTIO_DRIVER_OK);
    virtio_device_serve(bench->device);
    virtio_device_config_write(bench->device, data[3], data, 4);
    for (unsigned i = 0; i < kind->queues; i++)
        virtio_device_notify(bench->device, i);
    if (data[2] & 2) /* otherwise the reset finds all of it under way */
        work(bench, 1);
    reset(bench);
    return 0;
}
