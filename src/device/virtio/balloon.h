/* balloon.h - the memory balloon (VIRTIO 1.2, 5.5): the guest gives memory back
 * when it is asked to, and, by free page reporting, whenever it frees some. */
#ifndef LODGE_DEVICE_VIRTIO_BALLOON_H
#define LODGE_DEVICE_VIRTIO_BALLOON_H

#include "device/virtio/virtio.h"

/* What the guest says of its memory, in bytes or events; UINT64_MAX: not said. */
struct virtio_balloon_stats {
    uint64_t swap_in, swap_out, major_faults, minor_faults, free, total, available, caches;
    uint64_t huge_allocated, huge_failed;
};

/* inflate: bytes that the guest is asked to give up from the start. */
int virtio_balloon_create(uint64_t inflate, const struct log *log,
                          struct virtio_device **ret_device, struct error *err);

/* Ask for another size of the balloon, in bytes. Any thread. */
void virtio_balloon_inflate(struct virtio_device *device, uint64_t bytes);
/* How large it is now, as the guest says. Any thread. */
uint64_t virtio_balloon_actual(struct virtio_device *device);
/* The latest that the guest told; it is asked every few seconds. Any thread. */
void virtio_balloon_get_stats(struct virtio_device *device,
                              struct virtio_balloon_stats *ret_stats);

#endif
