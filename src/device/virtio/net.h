/* net.h - the network card (VIRTIO 1.2, 5.1) plugged into a network. */
#ifndef LODGE_DEVICE_VIRTIO_NET_H
#define LODGE_DEVICE_VIRTIO_NET_H

#include "device/virtio/virtio.h"
#include "network/network.h"

#define VIRTIO_NET_PAIRS_MAX 8

struct virtio_net_config {
    struct network_config network; /* its mac is the card's, too */
    unsigned queue_pairs;          /* 1 to VIRTIO_NET_PAIRS_MAX */
    uint64_t rate;                 /* bytes a second each way; 0: no limit */
};

int virtio_net_create(const struct virtio_net_config *config, const struct log *log,
                      struct virtio_device **ret_device, struct error *err);

#endif
