/* rng.h - the entropy device (VIRTIO 1.2, 5.4): random bytes of the host's kernel. */
#ifndef LODGE_DEVICE_VIRTIO_RNG_H
#define LODGE_DEVICE_VIRTIO_RNG_H

#include "device/virtio/virtio.h"

int virtio_rng_create(const struct log *log, struct virtio_device **ret_device, struct error *err);

#endif
