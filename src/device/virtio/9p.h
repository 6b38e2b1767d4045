/* 9p.h - the 9P transport (VIRTIO 1.2, 5.9, and Linux's virtio_9p.h) for a shared folder. */
#ifndef LODGE_DEVICE_VIRTIO_9P_H
#define LODGE_DEVICE_VIRTIO_9P_H

#include "device/virtio/virtio.h"

#define VIRTIO_9P_TAG_MAX 31

/* Share the folder under tag, of at most VIRTIO_9P_TAG_MAX bytes. */
int virtio_9p_create(const char *folder, const char *tag, bool readonly, const struct log *log,
                     struct virtio_device **ret_device, struct error *err);

#endif
