#include "network/subnet.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"

#define PREFIX_MIN 8
#define PREFIX_MAX 29

int subnet_parse(const char *text, struct subnet *ret_subnet, struct error *err)
{
    char address[INET_ADDRSTRLEN];
    struct subnet subnet;
    struct in_addr in;
    int end = 0;

    if (sscanf(text, "%15[0-9.]/%2u%n", address, &subnet.prefix, &end) != 2 || text[end] ||
        inet_pton(AF_INET, address, &in) != 1)
        return error_set(err, EINVAL, "'%.60s' is no subnet like 10.5.0.0/24", text);
    if (subnet.prefix < PREFIX_MIN || subnet.prefix > PREFIX_MAX)
        return error_set(err, EINVAL, "'%.60s': the prefix of a subnet is %d to %d bits long", text,
                         PREFIX_MIN, PREFIX_MAX);
    subnet.network = ntohl(in.s_addr);
    if (subnet.network & ~subnet_mask(&subnet))
        return error_set(err, EINVAL, "'%.60s' has bits of a host in it", text);
    *ret_subnet = subnet;
    return 0;
}

const char *subnet_format(const struct subnet *subnet, char text[SUBNET_TEXT_MAX])
{
    const struct in_addr in = {htonl(subnet->network)};
    char address[INET_ADDRSTRLEN];

    inet_ntop(AF_INET, &in, address, sizeof(address));
    snprintf(text, SUBNET_TEXT_MAX, "%s/%u", address, subnet->prefix);
    return text;
}

bool subnet_has_guest(const struct subnet *subnet, struct in_addr address)
{
    uint32_t a = ntohl(address.s_addr), last = subnet->network | ~subnet_mask(subnet);

    return a > subnet->network + 1 && a < last;
}

bool subnet_overlaps(const struct subnet *a, const struct subnet *b)
{
    uint32_t mask = subnet_mask(a) & subnet_mask(b);

    return (a->network & mask) == (b->network & mask);
}

struct in6_addr subnet_host_ipv6(const struct subnet *subnet)
{
    struct in6_addr address = {.s6_addr = {0xfd, 0x4c, 0x6f, 0x64, [15] = 1}};

    store_be32(address.s6_addr + 4, subnet->network);
    return address;
}

int subnet_is_used_by_host(const struct subnet *subnet, struct error *err)
{
    struct ifaddrs *all;
    int used = 0;

    if (getifaddrs(&all) < 0)
        return error_system(err, errno, "cannot list the host's addresses");
    for (struct ifaddrs *a = all; a; a = a->ifa_next) {
        struct subnet theirs = {.prefix = 32};
        struct sockaddr_in in;

        if (!a->ifa_addr || a->ifa_addr->sa_family != AF_INET)
            continue;
        memcpy(&in, a->ifa_addr, sizeof(in));
        theirs.network = ntohl(in.sin_addr.s_addr);
        used |= (theirs.network & subnet_mask(subnet)) == subnet->network;
    }
    freeifaddrs(all);
    return used;
}
