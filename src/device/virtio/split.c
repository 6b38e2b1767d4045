/* Split virtqueues (VIRTIO 1.2, 2.7): a descriptor table, the driver's ring of
 * available heads, the device's ring of used ones. */
#include <stdatomic.h>

#include "base/bytes.h"
#include "device/virtio/virtio.h"
#include "device/virtio/virtqueue-private.h"

/* Both rings: flags, index, the entries, then the other side's event index. */
enum { RING_FLAGS = 0, RING_INDEX = 2, RING_ENTRIES = 4 };

#define AVAILABLE_ENTRY  2
#define USED_ENTRY       8
#define FLAG_NO_EVENT    1 /* no interrupt, no notification */

static uint16_t *word(uint8_t *area, size_t offset)
{
    return (uint16_t *)(void *)(area + offset);
}

/* The host is little-endian as the rings are; what both sides write goes by atomics. */
static uint16_t read_word(uint8_t *area, size_t offset)
{
    return __atomic_load_n(word(area, offset), __ATOMIC_ACQUIRE);
}

static void write_word(uint8_t *area, size_t offset, uint16_t value)
{
    __atomic_store_n(word(area, offset), value, __ATOMIC_RELEASE);
}

static void split_areas(unsigned size, uint64_t ret_bytes[3])
{
    ret_bytes[AREA_DESCRIPTOR] = (uint64_t)size * DESCRIPTOR_SIZE;
    ret_bytes[AREA_DRIVER] = RING_ENTRIES + (uint64_t)size * AVAILABLE_ENTRY + 2;
    ret_bytes[AREA_DEVICE] = RING_ENTRIES + (uint64_t)size * USED_ENTRY + 2;
}

static bool split_available(struct virtqueue *q)
{
    return read_word(q->area[AREA_DRIVER], RING_INDEX) != q->next_available;
}

/* Follow a chain through a table from its entry first. */
static int gather(struct virtqueue *q, struct virtqueue_chain *chain, const uint8_t *table,
                  unsigned count, unsigned first, bool indirect, struct error *err)
{
    unsigned at = first;

    /* A loop would go round for ever: no chain has more entries than its table. */
    for (unsigned steps = 0; steps < count; steps++) {
        uint8_t copy[DESCRIPTOR_SIZE];
        const uint8_t *next_table;
        unsigned next_count;
        uint16_t flags;
        int r;

        if (at >= count)
            return error_set(err, EINVAL, "queue %u names descriptor %u of %u", q->index, at,
                             count);
        memcpy(copy, table + (size_t)at * DESCRIPTOR_SIZE, sizeof(copy));
        flags = load_le16(copy + 12);
        if (flags & DESCRIPTOR_INDIRECT) {
            if (indirect || (flags & DESCRIPTOR_NEXT))
                return error_set(err, EINVAL, "queue %u has an indirect table in a wrong place",
                                 q->index);
            r = chain_indirect(q, load_le64(copy), load_le32(copy + 8), &next_table, &next_count,
                               err);
            return r < 0 ? r : gather(q, chain, next_table, next_count, 0, true, err);
        }
        r = chain_add(q, chain, load_le64(copy), load_le32(copy + 8), flags, err);
        if (r < 0)
            return r;
        if (!(flags & DESCRIPTOR_NEXT))
            return 0;
        at = load_le16(copy + 14);
    }
    return error_set(err, EINVAL, "a chain in queue %u has no end", q->index);
}

static int split_pop(struct virtqueue *q, struct virtqueue_chain *chain, struct error *err)
{
    uint16_t index = read_word(q->area[AREA_DRIVER], RING_INDEX);
    uint16_t waiting = (uint16_t)(index - q->next_available);
    unsigned slot = q->next_available & (q->size - 1);
    int r;

    if (!waiting)
        return 0;
    if (waiting > q->size)
        return error_set(err, EINVAL, "queue %u claims %u requests, and has room for %u", q->index,
                         waiting, q->size);
    chain_start(q, chain);
    chain->id = read_word(q->area[AREA_DRIVER], RING_ENTRIES + slot * AVAILABLE_ENTRY);
    r = gather(q, chain, q->area[AREA_DESCRIPTOR], q->size, chain->id, false, err);
    if (r < 0)
        return r;
    q->next_available++;
    return 1;
}

static void split_unpop(struct virtqueue *q, const struct virtqueue_chain *chain)
{
    (void)chain;
    q->next_available--;
}

static void split_push(struct virtqueue *q, const struct virtqueue_chain *chain, uint32_t written,
                       bool more)
{
    uint8_t *entry =
        q->area[AREA_DEVICE] + RING_ENTRIES + (size_t)(q->next_used & (q->size - 1)) * USED_ENTRY;

    q->pushed++;
    q->next_used++;
    store_le32(entry, chain->id);
    store_le32(entry + 4, written);
    if (!more)
        write_word(q->area[AREA_DEVICE], RING_INDEX, q->next_used);
}

static void split_set_notify(struct virtqueue *q, bool on)
{
    if (q->device->features & VIRTIO_F_EVENT_IDX) {
        /* avail_event, after the used ring's entries: the next that comes, also
         * when the device leaves some of those that are there. */
        if (on)
            write_word(q->area[AREA_DEVICE], RING_ENTRIES + (size_t)q->size * USED_ENTRY,
                       read_word(q->area[AREA_DRIVER], RING_INDEX));
    } else {
        write_word(q->area[AREA_DEVICE], RING_FLAGS, on ? 0 : FLAG_NO_EVENT);
    }
}

static bool split_wants_interrupt(struct virtqueue *q, uint16_t pushed)
{
    uint16_t event;

    if (!(q->device->features & VIRTIO_F_EVENT_IDX))
        return !(read_word(q->area[AREA_DRIVER], RING_FLAGS) & FLAG_NO_EVENT);
    /* used_event, after the available ring's entries (2.7.7.2). */
    event = read_word(q->area[AREA_DRIVER], RING_ENTRIES + (size_t)q->size * AVAILABLE_ENTRY);
    return (uint16_t)(q->next_used - event - 1) < pushed;
}

const struct ring_format ring_split = {
    .areas = split_areas,
    .pop = split_pop,
    .push = split_push,
    .unpop = split_unpop,
    .available = split_available,
    .set_notify = split_set_notify,
    .wants_interrupt = split_wants_interrupt,
};
