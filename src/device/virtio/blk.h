/* blk.h - the block device (VIRTIO 1.2, 5.2) over a virtual disk. */
#ifndef LODGE_DEVICE_VIRTIO_BLK_H
#define LODGE_DEVICE_VIRTIO_BLK_H

#include "device/virtio/virtio.h"

struct virtio_blk_config {
    const char *path;
    const char *format; /* or NULL: look at the content */
    bool readonly;
    const char *serial;   /* up to 20 bytes are shown to the guest; or NULL */
    unsigned queues;      /* 1 to 16 */
    uint64_t iops;        /* requests a second; 0: no limit */
    uint64_t bytes_limit; /* bytes a second; 0: no limit */
};

/* Opens the disk, too. */
int virtio_blk_create(const struct virtio_blk_config *config, const struct log *log,
                      struct virtio_device **ret_device, struct error *err);

/* The disk's path, absolute where it is a file's, or its URL. Any thread. */
const char *virtio_blk_path(const struct virtio_device *device);
/* Make the disk larger or smaller while the guest runs, which is told. bytes is a multiple of 512.
 * The requests under way are waited for. Any thread but the device's. */
int virtio_blk_resize(struct virtio_device *device, uint64_t bytes, struct error *err);

#endif
