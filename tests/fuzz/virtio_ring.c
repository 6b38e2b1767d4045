/* A driver that writes what it likes: the input is a few numbers that set the
 * queue up, and then guest memory with the rings in it. Whatever they say, the
 * device touches nothing but guest memory, and comes to an end. */
#include <stdlib.h>

#include "base/bytes.h"
#include "device/virtio/virtio.h"

#define MEMORY     (2u << 20)
#define HEADER     16u
#define CHAINS_MAX 64u

static void take(struct virtqueue_chain *chain)
{
    static uint8_t bytes[4096];
    size_t n = iov_read(chain->iov, chain->out_count, 0, bytes, sizeof(bytes));

    iov_write(chain_in(chain), chain->in_count, 0, bytes, n);
}

static void fuzz_notify(struct virtio_device *device, unsigned index)
{
    static struct virtqueue_chain chain;
    struct virtqueue *queue = &device->queues[index];

    for (unsigned i = 0; i < CHAINS_MAX; i++) {
        virtqueue_set_notify(queue, i & 1);
        if (!virtqueue_pop(queue, &chain))
            break;
        if (i % 8 == 7) {
            virtqueue_unpop(queue, &chain);
        } else {
            take(&chain);
            virtqueue_push(queue, &chain, (uint32_t)chain.in_size);
        }
        virtqueue_interrupt(queue);
    }
}

static const struct virtio_device_ops fuzz_ops = {.name = "fuzz", .notify = fuzz_notify};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct guest_memory *memory;
    static struct virtio_device device;
    uint8_t *ram;

    if (!memory && (guest_memory_create(MEMORY, &memory, NULL) < 0 ||
                    virtio_device_init(&device, &fuzz_ops, 0, NULL, 0, 1, 256, NULL, NULL) < 0))
        abort();
    if (size < HEADER)
        return 0;
    device.memory = memory;
    ram = guest_memory_at(memory, 0, MEMORY);
    memset(ram, 0, 0x10000);
    memcpy(ram, data + HEADER, MIN(size - HEADER, 0x10000u));
    virtio_device_set_status(&device, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    virtio_device_set_features(&device, VIRTIO_F_VERSION_1 | (uint64_t)(data[0] & 7) << 28 |
                                            (data[0] & 8 ? VIRTIO_F_RING_PACKED : 0));
    virtio_device_set_status(&device, VIRTIO_FEATURES_OK);
    device.queues[0].size = load_le16(data + 1);
    for (unsigned i = 0; i < AREA_COUNT; i++)
        device.queues[0].address[i] =
            data[15] & 1 << i ? load_le32(data + 3 + 4 * i) : load_le16(data + 3 + 4 * i) & ~15u;
    virtio_device_enable_queue(&device, 0);
    virtio_device_set_status(&device, VIRTIO_DRIVER_OK);
    virtio_device_serve(&device);
    virtio_device_notify(&device, 0);
    virtio_device_serve(&device);
    virtio_device_set_status(&device, 0);
    if (virtio_device_status(&device) || device.in_flight)
        abort();
    return 0;
}
