/* virtqueue.h - a queue of a virtio device, as the fuzzer's bytes have it. */
#ifndef LODGE_FUZZ_VIRTQUEUE_H
#define LODGE_FUZZ_VIRTQUEUE_H

#include "base/bytes.h"
#include "device/virtio/virtio.h"

#define FUZZ_QUEUE_BYTES 14u

/* Size and areas from FUZZ_QUEUE_BYTES bytes of data; the areas lie in guest memory, of which
 * there are memory bytes (a power of two). */
static inline void fuzz_set_queue(struct virtio_device *device, unsigned i, const uint8_t *data,
                                  uint32_t memory)
{
    struct virtqueue *queue = &device->queues[i];

    queue->size = load_le16(data);
    for (unsigned area = 0; area < AREA_COUNT; area++)
        queue->address[area] = load_le32(data + 2 + 4 * area) & (memory - 1) & ~15u;
    virtio_device_enable_queue(device, i);
}

#endif
