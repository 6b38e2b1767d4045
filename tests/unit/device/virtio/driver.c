#include "driver.h"

#include <unistd.h>

#define RING_BASE   0x10000u
#define RING_STRIDE 0x10000u

static void count_interrupt(void *opaque, int queue)
{
    struct driver *driver = opaque;

    if (queue < 0)
        driver->config_interrupts++;
    else if ((unsigned)queue < DRIVER_QUEUES)
        driver->interrupts[queue]++;
}

static void stop_loop(void *opaque)
{
    loop_stop(((struct driver *)opaque)->device->loop);
}

void driver_start(struct driver *driver, struct virtio_device *device, bool packed,
                  uint64_t features, unsigned queues, unsigned size)
{
    memset(driver, 0, sizeof(*driver));
    assert_int_equal(guest_memory_create(DRIVER_MEMORY, &driver->memory, NULL), 0);
    driver->device = device;
    driver->packed = packed;
    device->memory = driver->memory;
    device->transport = (struct virtio_transport){count_interrupt, driver};
    assert_int_equal(loop_add_timer(device->loop, stop_loop, driver, &driver->tick, NULL), 0);
    driver_restart(driver, features, queues, size);
}

void driver_restart(struct driver *driver, uint64_t features, unsigned queues, unsigned size)
{
    struct virtio_device *device = driver->device;

    driver->next_buffer = DRIVER_BUFFERS;
    virtio_device_set_status(device, VIRTIO_ACKNOWLEDGE);
    virtio_device_set_status(device, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    virtio_device_set_features(device, (features & ~VIRTIO_F_RING_PACKED) | VIRTIO_F_VERSION_1 |
                                           (driver->packed ? VIRTIO_F_RING_PACKED : 0));
    virtio_device_set_status(device, VIRTIO_FEATURES_OK);
    assert_true(virtio_device_status(device) & VIRTIO_FEATURES_OK);
    for (unsigned i = 0; i < queues; i++) {
        struct driver_queue *q = &driver->queues[i];
        uint64_t base = RING_BASE + (uint64_t)i * RING_STRIDE;

        *q = (struct driver_queue){
            .size = size, .area = {base, base + 0x4000, base + 0x6000}, .wrap = true,
            .used_wrap = true};
        memset(driver_at(driver, base), 0, RING_STRIDE);
        device->queues[i].size = size;
        memcpy(device->queues[i].address, q->area, sizeof(q->area));
        virtio_device_enable_queue(device, i);
    }
    virtio_device_set_status(device, VIRTIO_DRIVER_OK);
    virtio_device_serve(device);
}

void driver_stop(struct driver *driver)
{
    loop_remove(driver->tick);
    virtio_device_destroy(driver->device);
    guest_memory_destroy(driver->memory);
}

uint64_t driver_alloc(struct driver *driver, size_t size)
{
    uint64_t address = driver->next_buffer;

    driver->next_buffer = ALIGN_UP(address + size, 16u);
    assert_true(driver->next_buffer <= DRIVER_MEMORY);
    return address;
}

uint8_t *driver_at(struct driver *driver, uint64_t address)
{
    return guest_memory_at(driver->memory, address, 1);
}

static uint8_t *area(struct driver *driver, unsigned queue, enum virtqueue_area which)
{
    return driver_at(driver, driver->queues[queue].area[which]);
}

void driver_write_descriptor(struct driver *driver, unsigned queue, unsigned at,
                             const struct buffer *buffer, uint16_t next_or_id)
{
    uint8_t *descriptor = area(driver, queue, AREA_DESCRIPTOR) + (size_t)at * 16;

    store_le64(descriptor, buffer->address);
    store_le32(descriptor + 8, buffer->length);
    if (driver->packed) {
        store_le16(descriptor + 12, next_or_id);
        store_le16(descriptor + 14, buffer->flags);
    } else {
        store_le16(descriptor + 12, buffer->flags);
        store_le16(descriptor + 14, next_or_id);
    }
}

void driver_offer(struct driver *driver, unsigned queue, uint16_t head)
{
    struct driver_queue *q = &driver->queues[queue];
    uint8_t *ring = area(driver, queue, AREA_DRIVER);

    store_le16(ring + 4 + 2 * (q->available_index % q->size), head);
    store_le16(ring + 2, ++q->available_index);
}

static uint16_t add_packed(struct driver *driver, unsigned queue, const struct buffer *buffers,
                           unsigned count)
{
    struct driver_queue *q = &driver->queues[queue];
    uint16_t id = q->next;

    q->lengths[id] = (uint16_t)count;
    for (unsigned i = 0; i < count; i++) {
        struct buffer b = buffers[i];

        b.flags |= (uint16_t)((i + 1 < count ? BUFFER_NEXT : 0) | (q->wrap ? 0x80 : 0x8000));
        driver_write_descriptor(driver, queue, q->next, &b, id);
        if (++q->next == q->size) {
            q->next = 0;
            q->wrap = !q->wrap;
        }
    }
    return id;
}

static uint16_t add_split(struct driver *driver, unsigned queue, const struct buffer *buffers,
                          unsigned count)
{
    struct driver_queue *q = &driver->queues[queue];
    uint16_t head = q->next;

    for (unsigned i = 0; i < count; i++) {
        struct buffer b = buffers[i];
        uint16_t at = q->next;

        q->next = (uint16_t)((q->next + 1) % q->size);
        b.flags |= i + 1 < count ? BUFFER_NEXT : 0;
        driver_write_descriptor(driver, queue, at, &b, q->next);
    }
    driver_offer(driver, queue, head);
    return head;
}

uint16_t driver_add(struct driver *driver, unsigned queue, const struct buffer *buffers,
                    unsigned count)
{
    return driver->packed ? add_packed(driver, queue, buffers, count)
                          : add_split(driver, queue, buffers, count);
}

uint16_t driver_add_indirect(struct driver *driver, unsigned queue, const struct buffer *buffers,
                             unsigned count)
{
    const struct buffer one = {driver_alloc(driver, 16 * count), 16 * count, BUFFER_INDIRECT};

    for (unsigned i = 0; i < count; i++) {
        uint8_t *descriptor = driver_at(driver, one.address) + 16 * i;
        uint16_t flags = (uint16_t)(buffers[i].flags | (i + 1 < count ? BUFFER_NEXT : 0));

        store_le64(descriptor, buffers[i].address);
        store_le32(descriptor + 8, buffers[i].length);
        store_le16(descriptor + (driver->packed ? 14 : 12), flags);
        store_le16(descriptor + (driver->packed ? 12 : 14), (uint16_t)(i + 1));
    }
    return driver_add(driver, queue, &one, 1);
}

void driver_kick(struct driver *driver, unsigned queue)
{
    virtio_device_notify(driver->device, queue);
    virtio_device_serve(driver->device);
}

static bool used_split(struct driver *driver, unsigned queue, struct used *ret_used)
{
    struct driver_queue *q = &driver->queues[queue];
    const uint8_t *ring = area(driver, queue, AREA_DEVICE), *entry;

    if (load_le16(ring + 2) == q->used)
        return false;
    entry = ring + 4 + 8 * (q->used++ % q->size);
    *ret_used = (struct used){(uint16_t)load_le32(entry), load_le32(entry + 4)};
    return true;
}

static bool used_packed(struct driver *driver, unsigned queue, struct used *ret_used)
{
    struct driver_queue *q = &driver->queues[queue];
    const uint8_t *entry = area(driver, queue, AREA_DESCRIPTOR) + 16 * (size_t)q->used;
    uint16_t flags = load_le16(entry + 14);

    if (!(flags & 0x80) == q->used_wrap || !(flags & 0x8000) == q->used_wrap)
        return false;
    *ret_used = (struct used){load_le16(entry + 12), load_le32(entry + 8)};
    assert_true(ret_used->id < q->size);
    q->used = (uint16_t)(q->used + q->lengths[ret_used->id]);
    if (q->used >= q->size) {
        q->used = (uint16_t)(q->used - q->size);
        q->used_wrap = !q->used_wrap;
    }
    return true;
}

bool driver_used(struct driver *driver, unsigned queue, struct used *ret_used)
{
    return driver->packed ? used_packed(driver, queue, ret_used)
                          : used_split(driver, queue, ret_used);
}

void driver_run(struct driver *driver)
{
    loop_arm_timer(driver->tick, loop_now_ns() + 2000000);
    assert_int_equal(loop_run(driver->device->loop, NULL), 0);
}

struct used driver_wait(struct driver *driver, unsigned queue)
{
    struct used used = {0};

    for (unsigned i = 0; !driver_used(driver, queue, &used); i++) {
        assert_true(i < 5000);
        driver_run(driver);
    }
    return used;
}

void driver_want_interrupts(struct driver *driver, unsigned queue, bool on)
{
    struct driver_queue *q = &driver->queues[queue];
    uint8_t *ring = area(driver, queue, AREA_DRIVER);

    if (driver->packed) {
        store_le16(ring, (uint16_t)(q->used | (q->used_wrap ? 0x8000 : 0)));
        store_le16(ring + 2, !on                                                ? 1
                             : driver->device->features & VIRTIO_F_EVENT_IDX ? 2
                                                                                 : 0);
    } else if (driver->device->features & VIRTIO_F_EVENT_IDX) {
        /* used_event: the next one, or one that is far away. */
        store_le16(ring + 4 + 2 * q->size, (uint16_t)(on ? q->used : q->used - 1));
    } else {
        store_le16(ring, on ? 0 : 1);
    }
}

bool driver_device_is_broken(struct driver *driver)
{
    return virtio_device_status(driver->device) & VIRTIO_NEEDS_RESET;
}
