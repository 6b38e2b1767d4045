/* virtqueue.h - the device's side of a virtqueue (VIRTIO 1.2, 2.6 to 2.8): both
 * ring formats behind one interface, indirect descriptors, event suppression.
 *
 * The rings and the descriptors lie in guest memory and may change at any
 * moment: a descriptor is copied once, checked, then used. A chain that breaks
 * the rules makes the device need a reset; nothing outside guest RAM is
 * touched, and no chain is longer than the queue. */
#ifndef LODGE_DEVICE_VIRTIO_VIRTQUEUE_H
#define LODGE_DEVICE_VIRTIO_VIRTQUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "machine/memory.h"

#define VIRTQUEUE_SIZE_MAX 256 /* a power of two, as split rings demand */

struct virtio_device;
struct virtqueue;

/* One request: what the driver lets the device read, then what it may write.
 * The segments point into guest RAM. */
struct virtqueue_chain {
    uint16_t id;          /* as the ring knows it */
    uint16_t descriptors; /* ring entries that it takes (packed) */
    unsigned generation;  /* of the queue; a reset leaves old chains without a ring */
    unsigned out_count, in_count;
    size_t out_size, in_size;
    struct iovec iov[VIRTQUEUE_SIZE_MAX]; /* out_count readable, then in_count writable */
};

static inline struct iovec *chain_in(struct virtqueue_chain *chain)
{
    return chain->iov + chain->out_count;
}

/* A ring format. What fails has found a driver's error, and says which. */
struct ring_format {
    /* How many bytes the three areas take. */
    void (*areas)(unsigned size, uint64_t ret_bytes[3]);
    /* 1: a chain; 0: none. */
    int (*pop)(struct virtqueue *queue, struct virtqueue_chain *chain, struct error *err);
    /* With more, the driver is to see it together with the next. */
    void (*push)(struct virtqueue *queue, const struct virtqueue_chain *chain, uint32_t written,
                 bool more);
    /* Take back what pop gave last. */
    void (*unpop)(struct virtqueue *queue, const struct virtqueue_chain *chain);
    bool (*available)(struct virtqueue *queue);
    void (*set_notify)(struct virtqueue *queue, bool on);
    /* Does the driver want an interrupt for the entries that were pushed since the last time? */
    bool (*wants_interrupt)(struct virtqueue *queue, uint16_t pushed);
};

extern const struct ring_format ring_split, ring_packed;

/* The three areas (VIRTIO 1.2, 2.6): the table or descriptor ring, what the
 * driver writes, what the device writes. */
enum virtqueue_area { AREA_DESCRIPTOR, AREA_DRIVER, AREA_DEVICE, AREA_COUNT };

struct virtqueue {
    struct virtio_device *device;
    unsigned index;
    unsigned size_max;
    unsigned generation;
    /* As the driver sets them before enabling. */
    unsigned size;
    uint64_t address[AREA_COUNT];
    bool enabled;
    /* While enabled. */
    const struct ring_format *format;
    uint8_t *area[AREA_COUNT]; /* host pointers */
    uint16_t next_available, next_used;
    bool available_wrap, used_wrap; /* packed: the wrap counters */
    uint8_t *held; /* packed: the first entry of those to be seen together, or NULL */
    uint16_t held_flags;
    uint16_t pushed; /* ring entries used since the driver's wish was last looked at */
};

void virtqueue_init(struct virtqueue *queue, struct virtio_device *device, unsigned index,
                    unsigned size_max);
/* Back to what it was after virtqueue_init. */
void virtqueue_reset(struct virtqueue *queue);
/* Check size and addresses, and begin. -EINVAL when they cannot be used. */
int virtqueue_enable(struct virtqueue *queue, struct error *err);

/* All that follow: the device's lock is held. */

/* The next request: 1, or 0 when there is none (or the device is broken,
 * being reset, not enabled). Give each back by virtqueue_push. */
int virtqueue_pop(struct virtqueue *queue, struct virtqueue_chain *chain);
/* The request is done, written bytes of its writable part are valid. */
void virtqueue_push(struct virtqueue *queue, const struct virtqueue_chain *chain,
                    uint32_t written);
/* Like virtqueue_push, but the driver sees it only together with the one that is pushed next:
 * a driver that polls is never to find part of what belongs together (5.1.6.4). */
void virtqueue_push_first(struct virtqueue *queue, const struct virtqueue_chain *chain,
                          uint32_t written);
/* As if the chain, the last one popped, had not been popped. */
void virtqueue_unpop(struct virtqueue *queue, const struct virtqueue_chain *chain);
/* Interrupt the driver for what was pushed, if it wants that. */
void virtqueue_interrupt(struct virtqueue *queue);
/* Ask the driver to notify, or not to. After turning it on, true: something is
 * there already, which the driver may not notify of. */
bool virtqueue_set_notify(struct virtqueue *queue, bool on);

/* Copy between a buffer and a chain's readable or writable part, from offset
 * on. Returns how many bytes there were. */
size_t iov_read(const struct iovec *iov, unsigned count, size_t offset, void *to, size_t size);
size_t iov_write(const struct iovec *iov, unsigned count, size_t offset, const void *from,
                 size_t size);
/* The part [offset, offset + size) of iov as another, at most count_max long; returns its count. */
unsigned iov_slice(const struct iovec *iov, unsigned count, size_t offset, size_t size,
                   struct iovec *to, unsigned count_max);

#endif
