#include "device/virtio/net_filter.h"

#include <string.h>

#include "base/bytes.h"
#include "device/virtio/virtqueue.h"

#define TAG_AT        12u /* of a VLAN (IEEE 802.1Q): its type, then its number */
#define TAG_END       16u
#define TAG_TYPE      0x8100
#define VLAN_MASK     0x0fff

enum { VLAN_ADD = 0, VLAN_REMOVE = 1 };

void net_filter_reset(struct net_filter *filter)
{
    *filter = (struct net_filter){.modes[NET_FILTER_PROMISCUOUS] = true};
}

/* --- Commands --- */

/* A count and so many addresses at offset. Returns the offset behind them, or 0. */
static size_t read_addresses(const struct iovec *iov, unsigned count, size_t offset,
                             struct net_addresses *addresses)
{
    uint8_t number[4];
    size_t wanted;

    if (iov_read(iov, count, offset, number, sizeof(number)) != sizeof(number))
        return 0;
    offset += sizeof(number);
    addresses->count = load_le32(number);
    wanted = MIN(addresses->count, NET_FILTER_ADDRESSES) * (size_t)NETWORK_MAC_SIZE;
    if (iov_read(iov, count, offset, addresses->list, wanted) != wanted)
        return 0;
    return offset + addresses->count * (size_t)NETWORK_MAC_SIZE;
}

static bool set_addresses(struct net_filter *filter, const struct iovec *iov, unsigned count)
{
    struct net_addresses unicast, multicast;
    size_t offset = read_addresses(iov, count, 2, &unicast);

    if (!offset || !read_addresses(iov, count, offset, &multicast))
        return false;
    filter->unicast = unicast;
    filter->multicast = multicast;
    return true;
}

static bool set_vlan(struct net_filter *filter, uint8_t command, const struct iovec *iov,
                     unsigned count)
{
    uint8_t bytes[2];
    unsigned vlan;

    if (command > VLAN_REMOVE || iov_read(iov, count, 2, bytes, sizeof(bytes)) != sizeof(bytes))
        return false;
    vlan = load_le16(bytes);
    if (vlan >= NET_FILTER_VLANS)
        return false;
    if (command == VLAN_ADD)
        filter->vlans[vlan / 8] |= (uint8_t)(1u << vlan % 8);
    else
        filter->vlans[vlan / 8] &= (uint8_t)~(1u << vlan % 8);
    return true;
}

bool net_filter_command(struct net_filter *filter, const struct iovec *iov, unsigned count)
{
    uint8_t command[2], on;

    if (iov_read(iov, count, 0, command, sizeof(command)) != sizeof(command))
        return false;
    switch (command[0]) {
    case NET_FILTER_RX:
        if (command[1] >= NET_FILTER_MODES || iov_read(iov, count, 2, &on, 1) != 1)
            return false;
        filter->modes[command[1]] = on;
        return true;
    case NET_FILTER_MAC:
        return command[1] == NET_FILTER_MAC_TABLE && set_addresses(filter, iov, count);
    case NET_FILTER_VLAN:
        return set_vlan(filter, command[1], iov, count);
    default:
        return false;
    }
}

/* --- Frames --- */

static bool has_address(const struct net_addresses *addresses, const uint8_t *mac)
{
    if (addresses->count > NET_FILTER_ADDRESSES)
        return true;
    for (unsigned i = 0; i < addresses->count; i++)
        if (memcmp(addresses->list[i], mac, NETWORK_MAC_SIZE) == 0)
            return true;
    return false;
}

static bool passes_by_vlan(const struct net_filter *filter, const uint8_t *frame, size_t length)
{
    unsigned vlan;

    if (!filter->by_vlan || length < TAG_END || load_be16(frame + TAG_AT) != TAG_TYPE)
        return true;
    vlan = load_be16(frame + TAG_AT + 2) & VLAN_MASK;
    return filter->vlans[vlan / 8] >> vlan % 8 & 1;
}

bool net_filter_passes(const struct net_filter *filter, const uint8_t mac[NETWORK_MAC_SIZE],
                       const uint8_t *frame, size_t length)
{
    static const uint8_t broadcast[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    const bool *modes = filter->modes;

    if (!passes_by_vlan(filter, frame, length))
        return false;
    if (modes[NET_FILTER_PROMISCUOUS])
        return true;
    if (memcmp(frame, broadcast, sizeof(broadcast)) == 0)
        return !modes[NET_FILTER_NO_BROADCAST];
    if (frame[0] & 1)
        return !modes[NET_FILTER_NO_MULTICAST] &&
               (modes[NET_FILTER_ALL_MULTICAST] || has_address(&filter->multicast, frame));
    return !modes[NET_FILTER_NO_UNICAST] &&
           (modes[NET_FILTER_ALL_UNICAST] || memcmp(frame, mac, NETWORK_MAC_SIZE) == 0 ||
            has_address(&filter->unicast, frame));
}
