#include "network/link.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

#define SYSCTL "/proc/sys/net"

/* The kernel's struct in6_ifreq (linux/ipv6.h, which does not go with netinet/in.h). */
struct ipv6_request {
    struct in6_addr address;
    uint32_t prefix;
    int index;
};

/* Its struct in6_rtmsg (linux/ipv6_route.h), likewise. */
struct ipv6_route {
    struct in6_addr target, source, gateway;
    uint32_t type;
    uint16_t target_length, source_length;
    uint32_t metric;
    unsigned long info;
    uint32_t flags;
    int index;
};

/* --- Requests --- */

static int set_name(char field[IFNAMSIZ], const char *name)
{
    size_t length = strlen(name);

    if (!length || length >= IFNAMSIZ)
        return -ENODEV;
    memcpy(field, name, length + 1);
    return 0;
}

static int request_of(int family, unsigned long request, void *argument)
{
    AUTO_CLOSE int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    return fd < 0 || ioctl(fd, request, argument) < 0 ? -errno : 0;
}

static int link_request(const char *name, unsigned long request, struct ifreq *ifr)
{
    int r = set_name(ifr->ifr_name, name);

    return r < 0 ? r : request_of(AF_INET, request, ifr);
}

static int set_sysctl(const char *path, const char *value)
{
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);

    return fd < 0 || write(fd, value, strlen(value)) < 0 ? -errno : 0;
}

/* "accept_ra" of a device's IPv6. */
static int set_device_sysctl(const char *family, const char *name, const char *what,
                             const char *value)
{
    char path[128];

    snprintf(path, sizeof(path), SYSCTL "/%s/conf/%s/%s", family, name, what);
    return set_sysctl(path, value);
}

/* --- Devices --- */

bool link_exists(const char *name)
{
    return if_nametoindex(name) != 0;
}

int link_up(const char *name, struct error *err)
{
    struct ifreq ifr = {0};
    int r = link_request(name, SIOCGIFFLAGS, &ifr);

    if (r == 0) {
        ifr.ifr_flags |= IFF_UP;
        r = link_request(name, SIOCSIFFLAGS, &ifr);
    }
    return r < 0 ? error_system(err, -r, "cannot bring %s up", name) : 0;
}

int link_get_mac(const char *name, uint8_t mac[6], struct error *err)
{
    struct ifreq ifr = {0};
    int r = link_request(name, SIOCGIFHWADDR, &ifr);

    if (r < 0)
        return error_system(err, -r, "cannot read the address of the card %s", name);
    memcpy(mac, ifr.ifr_hwaddr.sa_data, 6);
    return 0;
}

int link_set_mac(const char *name, const uint8_t mac[6], struct error *err)
{
    struct ifreq ifr = {.ifr_hwaddr.sa_family = ARPHRD_ETHER};
    int r;

    memcpy(ifr.ifr_hwaddr.sa_data, mac, 6);
    r = link_request(name, SIOCSIFHWADDR, &ifr);
    return r < 0 ? error_system(err, -r, "cannot set the address of the card %s", name) : 0;
}

int link_set_mtu(const char *name, unsigned mtu, struct error *err)
{
    struct ifreq ifr = {.ifr_mtu = (int)mtu};
    int r = link_request(name, SIOCSIFMTU, &ifr);

    return r < 0 ? error_system(err, -r, "cannot set the MTU of %s to %u", name, mtu) : 0;
}

/* --- Addresses --- */

static int set_ipv4(const char *name, unsigned long request, uint32_t address)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
    struct ifreq ifr = {0};

    memcpy(&ifr.ifr_addr, &in, sizeof(in));
    return link_request(name, request, &ifr);
}

static int add_ipv6(const char *name, struct in6_addr address)
{
    struct ipv6_request wanted = {address, 64, (int)if_nametoindex(name)};
    int r = request_of(AF_INET6, SIOCSIFADDR, &wanted);

    return r == -EEXIST ? 0 : r;
}

int link_set_addresses(const char *name, const struct subnet *subnet, bool *ret_ipv6,
                       struct error *err)
{
    const struct in6_addr router = {.s6_addr = {0xfe, 0x80, [15] = 1}};
    int r = set_ipv4(name, SIOCSIFADDR, subnet->network + 1);

    if (r == 0)
        r = set_ipv4(name, SIOCSIFNETMASK, subnet_mask(subnet));
    if (r < 0)
        return error_system(err, -r, "cannot give %s an address", name);
    /* Nobody else can have them: no need to ask around first. */
    *ret_ipv6 = set_device_sysctl("ipv6", name, "accept_dad", "0") == 0 &&
                add_ipv6(name, router) == 0 && add_ipv6(name, subnet_host_ipv6(subnet)) == 0;
    return 0;
}

static int add_default_route(const char *name, const struct subnet *subnet)
{
    const struct sockaddr_in any = {.sin_family = AF_INET},
                             router = {.sin_family = AF_INET, .sin_addr = subnet_host(subnet)};
    struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY, .rt_dev = (char *)name};

    memcpy(&route.rt_dst, &any, sizeof(any));
    memcpy(&route.rt_genmask, &any, sizeof(any));
    memcpy(&route.rt_gateway, &router, sizeof(router));
    return request_of(AF_INET, SIOCADDRT, &route);
}

static int set_guest_ipv6(const char *name, const struct subnet *subnet, struct in_addr address)
{
    struct in6_addr own = subnet_host_ipv6(subnet);
    struct ipv6_route route = {.gateway = own, .metric = 1, .flags = RTF_UP | RTF_GATEWAY,
                               .index = (int)if_nametoindex(name)};
    int r = set_device_sysctl("ipv6", name, "accept_dad", "0");

    memcpy(own.s6_addr + 12, &address, 4); /* as nobody has it who makes one of a card's address */
    if (r == 0)
        r = add_ipv6(name, own);
    return r < 0 ? r : request_of(AF_INET6, SIOCADDRT, &route);
}

int link_set_guest_addresses(const char *name, const struct subnet *subnet, struct in_addr address,
                             bool ipv6, struct error *err)
{
    int r = set_ipv4(name, SIOCSIFADDR, ntohl(address.s_addr));

    if (r == 0)
        r = set_ipv4(name, SIOCSIFNETMASK, subnet_mask(subnet));
    if (r == 0)
        r = add_default_route(name, subnet);
    if (r == 0 && ipv6)
        r = set_guest_ipv6(name, subnet, address);
    return r < 0 ? error_system(err, -r, "cannot give %s an address", name) : 0;
}

int link_route_localhost(const char *name, struct error *err)
{
    int r = set_device_sysctl("ipv4", name, "route_localnet", "1");

    return r < 0 ? error_system(err, -r, "cannot lead 127.0.0.1 to %s", name) : 0;
}

/* --- Bridges --- */

int link_make_bridge(const char *name, struct error *err)
{
    char text[IFNAMSIZ] = "";
    int r = set_name(text, name);

    if (r == 0)
        r = request_of(AF_INET, SIOCBRADDBR, text);
    return r < 0 && r != -EEXIST ? error_system(err, -r, "cannot make the bridge %s", name) : 0;
}

int link_delete_bridge(const char *name, struct error *err)
{
    struct ifreq ifr = {0};
    char text[IFNAMSIZ] = "";
    int r = link_request(name, SIOCGIFFLAGS, &ifr);

    if (r == 0) {
        ifr.ifr_flags &= ~IFF_UP;
        link_request(name, SIOCSIFFLAGS, &ifr);
        set_name(text, name);
        r = request_of(AF_INET, SIOCBRDELBR, text);
    }
    return r < 0 && r != -ENODEV && r != -ENXIO
               ? error_system(err, -r, "cannot remove the bridge %s", name) : 0;
}

int link_join_bridge(const char *name, const char *bridge, struct error *err)
{
    struct ifreq ifr = {.ifr_ifindex = (int)if_nametoindex(name)};
    int r = link_request(bridge, SIOCBRADDIF, &ifr);

    return r < 0 ? error_system(err, -r, "cannot put %s into the bridge %s", name, bridge) : 0;
}

/* --- Forwarding --- */

/* A router hears no other routers (accept_ra 1), unless it is told to go on (2): the host is
 * not to lose its own way out. */
static void keep_hearing_routers(void)
{
    DIR *directory = opendir(SYSCTL "/ipv6/conf");
    struct dirent *entry;

    while (directory && (entry = readdir(directory))) {
        char path[512], value = 0;
        AUTO_CLOSE int fd = -1;

        snprintf(path, sizeof(path), SYSCTL "/ipv6/conf/%s/accept_ra", entry->d_name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && read(fd, &value, 1) == 1 && value == '1')
            set_sysctl(path, "2");
    }
    if (directory)
        closedir(directory);
}

int link_enable_forwarding(bool ipv6, struct error *err)
{
    int r = set_sysctl(SYSCTL "/ipv4/ip_forward", "1");

    if (r == 0 && ipv6) {
        keep_hearing_routers();
        r = set_sysctl(SYSCTL "/ipv6/conf/all/forwarding", "1");
    }
    return r < 0 ? error_system(err, -r, "cannot let the host forward packets") : 0;
}
