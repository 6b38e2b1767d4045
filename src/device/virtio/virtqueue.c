#include "device/virtio/virtqueue-private.h"

#include <string.h>

#include "base/bytes.h"
#include "device/virtio/virtio.h"

void virtqueue_init(struct virtqueue *queue, struct virtio_device *device, unsigned index,
                    unsigned size_max)
{
    *queue = (struct virtqueue){.device = device, .index = index, .size_max = size_max};
    virtqueue_reset(queue);
}

void virtqueue_reset(struct virtqueue *queue)
{
    *queue = (struct virtqueue){.device = queue->device, .index = queue->index,
                                .size_max = queue->size_max, .size = queue->size_max,
                                .generation = queue->generation + 1};
}

int virtqueue_enable(struct virtqueue *queue, struct error *err)
{
    static const unsigned split_align[AREA_COUNT] = {16, 2, 4};
    static const unsigned packed_align[AREA_COUNT] = {16, 4, 4};
    struct virtio_device *device = queue->device;
    bool packed = device->features & VIRTIO_F_RING_PACKED;
    const unsigned *align = packed ? packed_align : split_align;
    uint64_t bytes[AREA_COUNT];

    queue->format = packed ? &ring_packed : &ring_split;
    if (!queue->size || queue->size > queue->size_max ||
        (!packed && (queue->size & (queue->size - 1))))
        return error_set(err, EINVAL, "queue %u cannot have %u entries", queue->index, queue->size);
    queue->format->areas(queue->size, bytes);
    for (unsigned i = 0; i < AREA_COUNT; i++) {
        queue->area[i] = guest_memory_at(device->memory, queue->address[i], bytes[i]);
        if (!queue->area[i] || queue->address[i] % align[i])
            return error_set(err, EINVAL, "queue %u lies outside memory or unaligned at 0x%llx",
                             queue->index, (unsigned long long)queue->address[i]);
    }
    queue->next_available = queue->next_used = 0;
    queue->available_wrap = queue->used_wrap = true;
    queue->pushed = 0;
    queue->held = NULL;
    queue->enabled = true;
    return 0;
}

/* --- Chains --- */

void chain_start(struct virtqueue *queue, struct virtqueue_chain *chain)
{
    chain->generation = queue->generation;
    chain->descriptors = 0;
    chain->out_count = chain->in_count = 0;
    chain->out_size = chain->in_size = 0;
}

int chain_add(struct virtqueue *queue, struct virtqueue_chain *chain, uint64_t address,
              uint32_t length, uint16_t flags, struct error *err)
{
    unsigned count = chain->out_count + chain->in_count;
    void *host = guest_memory_at(queue->device->memory, address, length);

    if (count >= queue->size || count >= VIRTQUEUE_SIZE_MAX)
        return error_set(err, EINVAL, "a chain in queue %u is longer than the queue", queue->index);
    if (chain->out_size + chain->in_size + length > UINT32_MAX) /* 2.7.4.1 */
        return error_set(err, EINVAL, "a chain in queue %u is longer than 4 GiB", queue->index);
    if (!host)
        return error_set(err, EINVAL,
                         "a buffer in queue %u, %u bytes at 0x%llx, does not lie in memory",
                         queue->index, length, (unsigned long long)address);
    chain->iov[count] = (struct iovec){host, length};
    if (flags & DESCRIPTOR_WRITE) {
        chain->in_count++;
        chain->in_size += length;
    } else if (chain->in_count) {
        return error_set(err, EINVAL, "a chain in queue %u has a readable buffer after a writable",
                         queue->index);
    } else {
        chain->out_count++;
        chain->out_size += length;
    }
    return 0;
}

int chain_indirect(struct virtqueue *queue, uint64_t address, uint32_t length,
                   const uint8_t **ret_table, unsigned *ret_count, struct error *err)
{
    const uint8_t *table = guest_memory_at(queue->device->memory, address, length);

    if (!(queue->device->features & VIRTIO_F_INDIRECT_DESC))
        return error_set(err, EINVAL, "an indirect table in queue %u was not agreed on",
                         queue->index);
    if (!table || !length || length % DESCRIPTOR_SIZE)
        return error_set(err, EINVAL, "an indirect table in queue %u, %u bytes at 0x%llx, is none",
                         queue->index, length, (unsigned long long)address);
    *ret_table = table;
    *ret_count = length / DESCRIPTOR_SIZE;
    return 0;
}

/* --- Requests --- */

static bool usable(const struct virtqueue *queue)
{
    return queue->enabled && virtio_device_runs(queue->device);
}

int virtqueue_pop(struct virtqueue *queue, struct virtqueue_chain *chain)
{
    struct error err = {0};
    int r;

    if (!usable(queue))
        return 0;
    r = queue->format->pop(queue, chain, &err);
    if (r < 0) {
        virtio_device_break(queue->device, err.text);
        return 0;
    }
    queue->device->in_flight += (unsigned)r;
    return r;
}

static void push(struct virtqueue *queue, const struct virtqueue_chain *chain, uint32_t written,
                 bool more)
{
    const struct iovec *in = chain->iov + chain->out_count;
    size_t left = written;

    for (unsigned i = 0; i < chain->in_count && left; i++) {
        size_t part = MIN(left, in[i].iov_len);

        guest_memory_written(queue->device->memory, in[i].iov_base, part);
        left -= part;
    }
    /* What was under way at a reset ends here, and the driver no longer asks. */
    if (usable(queue) && chain->generation == queue->generation)
        queue->format->push(queue, chain, written, more);
    virtio_device_done(queue->device);
}

void virtqueue_push(struct virtqueue *queue, const struct virtqueue_chain *chain, uint32_t written)
{
    push(queue, chain, written, false);
}

void virtqueue_push_first(struct virtqueue *queue, const struct virtqueue_chain *chain,
                          uint32_t written)
{
    push(queue, chain, written, true);
}

void virtqueue_unpop(struct virtqueue *queue, const struct virtqueue_chain *chain)
{
    if (queue->enabled && chain->generation == queue->generation)
        queue->format->unpop(queue, chain);
    virtio_device_done(queue->device);
}

void virtqueue_interrupt(struct virtqueue *queue)
{
    uint16_t pushed = queue->pushed;

    if (!usable(queue) || !pushed)
        return;
    queue->pushed = 0;
    /* What was pushed is seen before the driver's wish is read, as the driver
     * writes its wish before it looks at the ring (VIRTIO 1.2, 2.7.10). */
    atomic_thread_fence(memory_order_seq_cst);
    if (queue->format->wants_interrupt(queue, pushed))
        virtio_device_interrupt(queue->device, queue->index);
}

bool virtqueue_set_notify(struct virtqueue *queue, bool on)
{
    if (!usable(queue))
        return false;
    queue->format->set_notify(queue, on);
    if (!on)
        return false;
    atomic_thread_fence(memory_order_seq_cst);
    return queue->format->available(queue);
}

/* --- Bytes --- */

size_t iov_read(const struct iovec *iov, unsigned count, size_t offset, void *to, size_t size)
{
    size_t done = 0;

    for (unsigned i = 0; i < count && done < size; i++) {
        size_t part;

        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        part = MIN(size - done, iov[i].iov_len - offset);
        memcpy((uint8_t *)to + done, (const uint8_t *)iov[i].iov_base + offset, part);
        done += part;
        offset = 0;
    }
    return done;
}

size_t iov_write(const struct iovec *iov, unsigned count, size_t offset, const void *from,
                 size_t size)
{
    size_t done = 0;

    for (unsigned i = 0; i < count && done < size; i++) {
        size_t part;

        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        part = MIN(size - done, iov[i].iov_len - offset);
        memcpy((uint8_t *)iov[i].iov_base + offset, (const uint8_t *)from + done, part);
        done += part;
        offset = 0;
    }
    return done;
}

unsigned iov_slice(const struct iovec *iov, unsigned count, size_t offset, size_t size,
                   struct iovec *to, unsigned count_max)
{
    unsigned n = 0;

    for (unsigned i = 0; i < count && size && n < count_max; i++) {
        size_t part;

        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        part = MIN(size, iov[i].iov_len - offset);
        to[n++] = (struct iovec){(uint8_t *)iov[i].iov_base + offset, part};
        size -= part;
        offset = 0;
    }
    return n;
}
