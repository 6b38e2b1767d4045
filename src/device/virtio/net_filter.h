/* net_filter.h - which of the frames that come the driver wants (VIRTIO 1.2,
 * 5.1.6.5.1 to 5.1.6.5.3): receive modes, tables of addresses, VLANs. */
#ifndef LODGE_DEVICE_VIRTIO_NET_FILTER_H
#define LODGE_DEVICE_VIRTIO_NET_FILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "network/network.h"

/* Commands of the control queue, classes 0 to 2. */
enum net_filter_class { NET_FILTER_RX = 0, NET_FILTER_MAC = 1, NET_FILTER_VLAN = 2 };
enum net_filter_mode {
    NET_FILTER_PROMISCUOUS = 0, NET_FILTER_ALL_MULTICAST = 1, NET_FILTER_ALL_UNICAST = 2,
    NET_FILTER_NO_MULTICAST = 3, NET_FILTER_NO_UNICAST = 4, NET_FILTER_NO_BROADCAST = 5,
    NET_FILTER_MODES,
};
enum { NET_FILTER_MAC_TABLE = 0 };

#define NET_FILTER_ADDRESSES 64 /* of a kind; of more, all are let through */
#define NET_FILTER_VLANS     4096

struct net_addresses {
    unsigned count; /* more than NET_FILTER_ADDRESSES: too many to be told apart */
    uint8_t list[NET_FILTER_ADDRESSES][NETWORK_MAC_SIZE];
};

struct net_filter {
    bool modes[NET_FILTER_MODES];
    struct net_addresses unicast, multicast;
    bool by_vlan; /* the driver has the feature: only the VLANs of the table pass */
    uint8_t vlans[NET_FILTER_VLANS / 8];
};

/* As after a reset: everything passes. */
void net_filter_reset(struct net_filter *filter);

/* Obey a command whose bytes begin with its class and number. False: it is none that is
 * known, or is cut; then nothing has changed. */
bool net_filter_command(struct net_filter *filter, const struct iovec *iov, unsigned count);

/* Does the driver, whose card has that address, want the frame (of at least a header)? */
bool net_filter_passes(const struct net_filter *filter, const uint8_t mac[NETWORK_MAC_SIZE],
                       const uint8_t *frame, size_t length);

#endif
