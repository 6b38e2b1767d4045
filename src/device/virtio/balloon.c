#include "device/virtio/balloon.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define PAGE_SHIFT   12
#define PAGE_SIZE    (1ull << PAGE_SHIFT)
#define QUEUE_SIZE   128u
#define STATS_PERIOD 5000000000ull /* ns between two questions */
#define PAGES_MAX    16384u        /* of one request; drivers name a few hundred */

enum { F_STATS = 1, F_DEFLATE_ON_OOM = 2, F_REPORTING = 5 };
#define FEATURE(name) (1ull << F_##name)

enum { QUEUE_INFLATE, QUEUE_DEFLATE, QUEUE_OPTIONAL, QUEUE_COUNT = 4 };

/* Configuration layout (5.5.4). */
enum { CONFIG_PAGES = 0, CONFIG_ACTUAL = 4, CONFIG_SIZE = 8 };

#define STAT_SIZE 10u /* tag[2] value[8] */

struct balloon {
    struct virtio_device device;
    uint8_t config[CONFIG_SIZE];
    struct loop_source *timer;
    struct virtio_balloon_stats stats;
    bool holds_stats; /* the stats chain, which is given back to ask anew */
    struct virtqueue_chain stats_chain;
    struct virtqueue_chain chain;
};

static struct balloon *balloon_of(struct virtio_device *device)
{
    return container_of(device, struct balloon, device);
}

/* Optional queues follow each other in the order of their features. */
static bool is_stats_queue(const struct balloon *b, unsigned index)
{
    return index == QUEUE_OPTIONAL && (b->device.features & FEATURE(STATS));
}

/* Give whole pages of [host, host + size), which lies in guest RAM, to the
 * host's kernel; they read as zeroes afterwards. */
static void give_back(struct balloon *b, void *host, uint64_t size)
{
    uint8_t *start = (uint8_t *)ALIGN_UP((uintptr_t)host, PAGE_SIZE);
    uint8_t *end = (uint8_t *)ALIGN_DOWN((uintptr_t)host + size, PAGE_SIZE);
    int r;

    if (start >= end)
        return;
    r = guest_memory_discard(b->device.memory, start, (uint64_t)(end - start));
    if (r < 0)
        log_debug(b->device.log, "balloon: memory was not given back: %s", strerror(-r));
}

/* A list of page numbers; neighbours go together. A list that would never end is cut. */
static void inflate(struct balloon *b, const struct virtqueue_chain *chain)
{
    uint64_t start = 0, length = 0;
    uint8_t page[4];

    for (size_t at = 0; at < 4 * PAGES_MAX; at += 4) {
        uint64_t address;
        void *host;

        if (iov_read(chain->iov, chain->out_count, at, page, 4) != 4)
            break;
        address = (uint64_t)load_le32(page) << PAGE_SHIFT;
        host = guest_memory_at(b->device.memory, address, PAGE_SIZE);
        if (!host)
            continue; /* no memory: nothing to give */
        if (length && address == start + length &&
            guest_memory_at(b->device.memory, start, length + PAGE_SIZE)) {
            length += PAGE_SIZE;
            continue;
        }
        if (length)
            give_back(b, guest_memory_at(b->device.memory, start, length), length);
        start = address;
        length = PAGE_SIZE;
    }
    if (length)
        give_back(b, guest_memory_at(b->device.memory, start, length), length);
}

/* The guest lets the device do with its free pages as it likes until it has them back. */
static void take_report(struct balloon *b, struct virtqueue_chain *chain)
{
    for (unsigned i = 0; i < chain->in_count; i++)
        give_back(b, chain_in(chain)[i].iov_base, chain_in(chain)[i].iov_len);
}

static void read_stats(struct balloon *b, const struct virtqueue_chain *chain)
{
    struct virtio_balloon_stats *s = &b->stats;
    uint64_t *const places[] = {
        &s->swap_in, &s->swap_out,  &s->major_faults,   &s->minor_faults, &s->free,
        &s->total,   &s->available, &s->caches,         &s->huge_allocated, &s->huge_failed,
    };
    uint8_t stat[STAT_SIZE];

    for (unsigned n = 0; n < 2 * ARRAY_SIZE(places); n++) {
        if (iov_read(chain->iov, chain->out_count, n * STAT_SIZE, stat, STAT_SIZE) != STAT_SIZE)
            return;
        if (load_le16(stat) < ARRAY_SIZE(places))
            *places[load_le16(stat)] = load_le64(stat + 2);
    }
}

static void return_stats_chain(struct balloon *b)
{
    struct virtqueue *queue = &b->device.queues[QUEUE_OPTIONAL];

    if (!b->holds_stats)
        return;
    b->holds_stats = false;
    virtqueue_push(queue, &b->stats_chain, 0);
    virtqueue_interrupt(queue);
}

/* The chain is kept, and given back when news are wanted (5.5.6.3). */
static void serve_stats(struct balloon *b, struct virtqueue *queue)
{
    virtqueue_set_notify(queue, true);
    while (virtqueue_pop(queue, &b->chain)) {
        return_stats_chain(b);
        memcpy(&b->stats_chain, &b->chain, sizeof(b->chain));
        b->holds_stats = true;
        read_stats(b, &b->stats_chain);
        loop_arm_timer(b->timer, loop_now_ns() + STATS_PERIOD);
    }
}

static void ask_for_stats(void *opaque)
{
    struct balloon *b = opaque;

    virtio_device_lock(&b->device);
    return_stats_chain(b);
    virtio_device_unlock(&b->device);
}

static void balloon_notify(struct virtio_device *device, unsigned index)
{
    struct balloon *b = balloon_of(device);
    struct virtqueue *queue = &device->queues[index];

    if (is_stats_queue(b, index)) {
        serve_stats(b, queue);
        return;
    }
    do {
        virtqueue_set_notify(queue, false);
        while (virtqueue_pop(queue, &b->chain)) {
            if (index == QUEUE_INFLATE)
                inflate(b, &b->chain);
            else if (index >= QUEUE_OPTIONAL)
                take_report(b, &b->chain);
            virtqueue_push(queue, &b->chain, 0);
        }
    } while (virtqueue_set_notify(queue, true));
    virtqueue_interrupt(queue);
}

static void balloon_config_write(struct virtio_device *device, unsigned offset,
                                 const uint8_t *from, unsigned size)
{
    if (offset == CONFIG_ACTUAL && size == 4)
        memcpy(balloon_of(device)->config + CONFIG_ACTUAL, from, size);
}

static void balloon_reset(struct virtio_device *device)
{
    struct balloon *b = balloon_of(device);

    return_stats_chain(b);
    memset(&b->stats, 0xff, sizeof(b->stats));
    store_le32(b->config + CONFIG_ACTUAL, 0);
}

static void balloon_destroy(struct virtio_device *device)
{
    struct balloon *b = balloon_of(device);

    loop_remove(b->timer);
    virtio_device_fini(device);
    free(b);
}

static const struct virtio_device_ops balloon_ops = {
    .name = "virtio-balloon",
    .id = VIRTIO_ID_BALLOON,
    .pci_class = 0x00ff00,
    .notify = balloon_notify,
    .reset = balloon_reset,
    .config_write = balloon_config_write,
    .destroy = balloon_destroy,
};

static void set_target(struct balloon *b, uint64_t bytes)
{
    store_le32(b->config + CONFIG_PAGES, (uint32_t)MIN(bytes >> PAGE_SHIFT, UINT32_MAX));
}

void virtio_balloon_inflate(struct virtio_device *device, uint64_t bytes)
{
    virtio_device_lock(device);
    set_target(balloon_of(device), bytes);
    virtio_device_config_changed(device);
    virtio_device_unlock(device);
}

uint64_t virtio_balloon_actual(struct virtio_device *device)
{
    uint64_t pages;

    virtio_device_lock(device);
    pages = load_le32(balloon_of(device)->config + CONFIG_ACTUAL);
    virtio_device_unlock(device);
    return pages << PAGE_SHIFT;
}

void virtio_balloon_get_stats(struct virtio_device *device, struct virtio_balloon_stats *ret_stats)
{
    virtio_device_lock(device);
    *ret_stats = balloon_of(device)->stats;
    virtio_device_unlock(device);
}

int virtio_balloon_create(uint64_t inflate_bytes, const struct log *log,
                          struct virtio_device **ret_device, struct error *err)
{
    const uint64_t features = FEATURE(STATS) | FEATURE(DEFLATE_ON_OOM) | FEATURE(REPORTING);
    struct balloon *b = calloc(1, sizeof(*b));
    int r;

    if (!b)
        return error_set(err, ENOMEM, "out of memory");
    memset(&b->stats, 0xff, sizeof(b->stats));
    r = virtio_device_init(&b->device, &balloon_ops, features, b->config, CONFIG_SIZE, QUEUE_COUNT,
                           QUEUE_SIZE, log, err);
    if (r < 0) {
        free(b);
        return r;
    }
    set_target(b, inflate_bytes);
    r = loop_add_timer(b->device.loop, ask_for_stats, b, &b->timer, err);
    if (r < 0) {
        balloon_destroy(&b->device);
        return r;
    }
    *ret_device = &b->device;
    return 0;
}
