#include "network/ndp.h"

#include <string.h>

#include "base/bytes.h"
#include "network/packet.h"

#define ETHERNET_SIZE   14u
#define IPV6_SIZE       40u
#define TYPE_IPV6       0x86dd
#define PROTOCOL_ICMPV6 58
#define SOLICITATION    133
#define ADVERTISEMENT   134
#define ROUTER_LIFETIME 1800 /* seconds, as the others */
#define PREFIX_LIFETIME 86400

/* Offsets (RFC 8200, 3; RFC 4861, 4.2, 4.6). */
enum { IPV6_LENGTH = 4, IPV6_NEXT = 6, IPV6_HOPS = 7, IPV6_SOURCE = 8, IPV6_TARGET = 24 };
enum { ICMP_TYPE = 0, ICMP_CHECKSUM = 2, ROUTER_HOPS = 4, ROUTER_SECONDS = 6, OPTIONS = 16 };
enum { OPTION_LINK_ADDRESS = 1, OPTION_PREFIX = 3 };
enum { LINK_ADDRESS_SIZE = 8, PREFIX_SIZE = 32, MESSAGE_SIZE = 16 + 8 + 32 };
enum { PREFIX_LENGTH = 2, PREFIX_FLAGS = 3, PREFIX_VALID = 4, PREFIX_PREFERRED = 8,
       PREFIX_AT = 16 };
#define PREFIX_ON_LINK_AUTONOMOUS 0xc0

bool ndp_is_solicitation(const uint8_t *frame, size_t length)
{
    const uint8_t *ip = frame + ETHERNET_SIZE;

    return length > ETHERNET_SIZE + IPV6_SIZE && load_be16(frame + 12) == TYPE_IPV6 &&
           ip[IPV6_NEXT] == PROTOCOL_ICMPV6 && ip[IPV6_SIZE] == SOLICITATION;
}

size_t ndp_advertise(const struct ndp_router *router, uint8_t frame[NDP_ADVERTISEMENT_MAX])
{
    static const uint8_t everybody_mac[] = {0x33, 0x33, 0, 0, 0, 1};
    static const uint8_t everybody[16] = {0xff, 0x02, [15] = 1};
    uint8_t *ip = frame + ETHERNET_SIZE, *icmp = ip + IPV6_SIZE, *option = icmp + OPTIONS;

    memset(frame, 0, NDP_ADVERTISEMENT_MAX);
    memcpy(frame, everybody_mac, 6);
    memcpy(frame + 6, router->mac, 6);
    store_be16(frame + 12, TYPE_IPV6);
    ip[0] = 0x60;
    store_be16(ip + IPV6_LENGTH, MESSAGE_SIZE);
    ip[IPV6_NEXT] = PROTOCOL_ICMPV6;
    ip[IPV6_HOPS] = 255; /* nobody has passed it on */
    memcpy(ip + IPV6_SOURCE, &router->address, 16);
    memcpy(ip + IPV6_TARGET, everybody, 16);
    icmp[ICMP_TYPE] = ADVERTISEMENT;
    icmp[ROUTER_HOPS] = 64;
    store_be16(icmp + ROUTER_SECONDS, ROUTER_LIFETIME);
    option[0] = OPTION_LINK_ADDRESS;
    option[1] = LINK_ADDRESS_SIZE / 8;
    memcpy(option + 2, router->mac, 6);
    option += LINK_ADDRESS_SIZE;
    option[0] = OPTION_PREFIX;
    option[1] = PREFIX_SIZE / 8;
    option[PREFIX_LENGTH] = 64;
    option[PREFIX_FLAGS] = PREFIX_ON_LINK_AUTONOMOUS;
    store_be32(option + PREFIX_VALID, PREFIX_LIFETIME);
    store_be32(option + PREFIX_PREFERRED, PREFIX_LIFETIME);
    memcpy(option + PREFIX_AT, &router->prefix, 8);
    store_be16(icmp + ICMP_CHECKSUM,
               (uint16_t)~packet_fold(packet_sum(
                   icmp, MESSAGE_SIZE,
                   packet_sum(ip + IPV6_SOURCE, 32, PROTOCOL_ICMPV6 + MESSAGE_SIZE))));
    return ETHERNET_SIZE + IPV6_SIZE + MESSAGE_SIZE;
}
