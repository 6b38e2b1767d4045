/* Packed virtqueues (VIRTIO 1.2, 2.8): one ring of descriptors that both sides
 * write, told apart by two flags and a counter of wraps. */
#include <stdatomic.h>

#include "base/bytes.h"
#include "device/virtio/virtio.h"
#include "device/virtio/virtqueue-private.h"

#define DESCRIPTOR_AVAILABLE 0x0080
#define DESCRIPTOR_USED      0x8000

/* Event suppression (2.8.10): offset and wrap counter, then flags. */
enum { EVENT_OFFSET = 0, EVENT_FLAGS = 2, EVENT_SIZE = 4 };
enum { EVENTS_ON, EVENTS_OFF, EVENTS_AT_OFFSET };
#define EVENT_WRAP 0x8000

/* A descriptor: address, length, buffer id, flags. */
enum { FIELD_ADDRESS = 0, FIELD_LENGTH = 8, FIELD_ID = 12, FIELD_FLAGS = 14 };

static uint8_t *entry_at(struct virtqueue *q, unsigned slot)
{
    return q->area[AREA_DESCRIPTOR] + (size_t)slot * DESCRIPTOR_SIZE;
}

static uint16_t read_word(uint8_t *at)
{
    return __atomic_load_n((uint16_t *)(void *)at, __ATOMIC_ACQUIRE);
}

static void write_word(uint8_t *at, uint16_t value)
{
    __atomic_store_n((uint16_t *)(void *)at, value, __ATOMIC_RELEASE);
}

static void packed_areas(unsigned size, uint64_t ret_bytes[3])
{
    ret_bytes[AREA_DESCRIPTOR] = (uint64_t)size * DESCRIPTOR_SIZE;
    ret_bytes[AREA_DRIVER] = ret_bytes[AREA_DEVICE] = EVENT_SIZE;
}

/* Made available in this round: AVAIL is the wrap counter, USED is not. */
static bool is_available(uint16_t flags, bool wrap)
{
    return !(flags & DESCRIPTOR_AVAILABLE) != wrap && !(flags & DESCRIPTOR_USED) == wrap;
}

static bool packed_available(struct virtqueue *q)
{
    return is_available(read_word(entry_at(q, q->next_available) + FIELD_FLAGS),
                        q->available_wrap);
}

/* Move a position and its wrap counter by count entries, at most a round. */
static void advance(const struct virtqueue *q, uint16_t *position, bool *wrap, unsigned count)
{
    unsigned next = *position + count;

    if (next >= q->size) {
        next -= q->size;
        *wrap = !*wrap;
    }
    *position = (uint16_t)next;
}

static int gather_indirect(struct virtqueue *q, struct virtqueue_chain *chain,
                           const uint8_t *descriptor, struct error *err)
{
    const uint8_t *table;
    unsigned count;
    int r = chain_indirect(q, load_le64(descriptor + FIELD_ADDRESS),
                           load_le32(descriptor + FIELD_LENGTH), &table, &count, err);

    /* All entries of the table belong to it; NEXT means nothing (2.8.7). */
    for (unsigned i = 0; r == 0 && i < count; i++) {
        uint8_t copy[DESCRIPTOR_SIZE];

        memcpy(copy, table + (size_t)i * DESCRIPTOR_SIZE, sizeof(copy));
        r = chain_add(q, chain, load_le64(copy), load_le32(copy + FIELD_LENGTH),
                      load_le16(copy + FIELD_FLAGS) & DESCRIPTOR_WRITE, err);
    }
    return r;
}

static int packed_pop(struct virtqueue *q, struct virtqueue_chain *chain, struct error *err)
{
    uint16_t position = q->next_available;
    bool wrap = q->available_wrap;

    if (!packed_available(q))
        return 0;
    chain_start(q, chain);
    for (unsigned steps = 0; steps < q->size; steps++) {
        uint8_t copy[DESCRIPTOR_SIZE];
        uint16_t flags;
        int r;

        memcpy(copy, entry_at(q, position), sizeof(copy));
        flags = load_le16(copy + FIELD_FLAGS);
        chain->id = load_le16(copy + FIELD_ID);
        advance(q, &position, &wrap, 1);
        if (flags & DESCRIPTOR_INDIRECT) {
            if (steps || (flags & DESCRIPTOR_NEXT))
                return error_set(err, EINVAL, "queue %u has an indirect table in a wrong place",
                                 q->index);
            r = gather_indirect(q, chain, copy, err);
        } else {
            r = chain_add(q, chain, load_le64(copy), load_le32(copy + FIELD_LENGTH), flags, err);
        }
        if (r < 0)
            return r;
        if (!(flags & DESCRIPTOR_NEXT)) {
            chain->descriptors = (uint16_t)(steps + 1);
            q->next_available = position;
            q->available_wrap = wrap;
            return 1;
        }
    }
    return error_set(err, EINVAL, "a chain in queue %u has no end", q->index);
}

static void packed_unpop(struct virtqueue *q, const struct virtqueue_chain *chain)
{
    if (q->next_available < chain->descriptors) {
        q->next_available = (uint16_t)(q->next_available + q->size);
        q->available_wrap = !q->available_wrap;
    }
    q->next_available = (uint16_t)(q->next_available - chain->descriptors);
}

static void packed_push(struct virtqueue *q, const struct virtqueue_chain *chain, uint32_t written,
                        bool more)
{
    uint8_t *entry = entry_at(q, q->next_used);
    uint16_t flags = (uint16_t)((q->used_wrap ? DESCRIPTOR_AVAILABLE | DESCRIPTOR_USED : 0) |
                                (written ? DESCRIPTOR_WRITE : 0));

    store_le32(entry + FIELD_LENGTH, written);
    store_le16(entry + FIELD_ID, chain->id);
    /* The driver goes by the order of the ring: while the first is held, none is seen. */
    if (more && !q->held) {
        q->held = entry;
        q->held_flags = flags;
    } else {
        write_word(entry + FIELD_FLAGS, flags);
    }
    if (!more && q->held) {
        write_word(q->held + FIELD_FLAGS, q->held_flags);
        q->held = NULL;
    }
    advance(q, &q->next_used, &q->used_wrap, chain->descriptors);
    q->pushed = (uint16_t)(q->pushed + chain->descriptors);
}

static void packed_set_notify(struct virtqueue *q, bool on)
{
    uint8_t *event = q->area[AREA_DEVICE];

    /* While the device leaves entries that are there, it is to hear of any that comes. */
    if (on && (q->device->features & VIRTIO_F_EVENT_IDX) && !packed_available(q)) {
        write_word(event + EVENT_OFFSET,
                   (uint16_t)(q->next_available | (q->available_wrap ? EVENT_WRAP : 0)));
        write_word(event + EVENT_FLAGS, EVENTS_AT_OFFSET);
    } else {
        write_word(event + EVENT_FLAGS, on ? EVENTS_ON : EVENTS_OFF);
    }
}

static bool packed_wants_interrupt(struct virtqueue *q, uint16_t pushed)
{
    uint8_t *event = q->area[AREA_DRIVER];
    uint16_t flags = read_word(event + EVENT_FLAGS) & 3, offset;
    unsigned position;

    if (flags != EVENTS_AT_OFFSET)
        return flags == EVENTS_ON;
    /* Was the entry at the offset among those pushed since the last time? */
    offset = read_word(event + EVENT_OFFSET);
    position = offset & ~EVENT_WRAP;
    if (position >= q->size)
        return true; /* nonsense: rather once too often */
    /* How far behind next_used it is, in entries, 1 to twice the size. */
    if (!!(offset & EVENT_WRAP) == q->used_wrap)
        return position < q->next_used && (unsigned)q->next_used - position <= pushed;
    return q->size + q->next_used - position <= pushed;
}

const struct ring_format ring_packed = {
    .areas = packed_areas,
    .pop = packed_pop,
    .push = packed_push,
    .unpop = packed_unpop,
    .available = packed_available,
    .set_notify = packed_set_notify,
    .wants_interrupt = packed_wants_interrupt,
};
