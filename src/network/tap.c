/* A network device of the host's kernel (root). It is a port of a bridge that is
 * there, or of a named network's (named.h), or a private network of its own, 10.77.N.0/24.
 * But for the first the guest gets its address from this process (gateway.h), and nftables
 * hides it behind the host (nat.h). The kernel takes and gives frames with their work undone,
 * as guests do. */
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <arpa/inet.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "network/gateway.h"
#include "network/kinds.h"
#include "network/lease.h"
#include "network/link.h"
#include "network/nat.h"
#include "network/packet.h"

#define FRAMES_A_TURN 64
#define HEADER_SIZE   12u /* struct virtio_net_hdr_mrg_rxbuf */
#define SUBNET_FIRST  0x0a4d0000u /* 10.77.0.0/16, a /24 for each guest */
#define SUBNET_LAST   0x0a4dff00u
#define SUBNET_PREFIX 24
#define NAME_CHARACTERS                                                                            \
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

struct tap {
    struct network network;
    struct network_guest guest;
    const struct log *log;
    int fd;
    struct loop_source *source;
    char name[IFNAMSIZ];
    struct lease lease; /* in a named network */
    struct gateway *gateway;  /* NULL in a bridge of others */
    struct nat *nat;
    uint8_t buffer[HEADER_SIZE + NETWORK_FRAME_MAX];
};

/* --- Frames --- */

static void tap_send(struct network *network, const struct network_offload *offload, uint8_t *frame,
                     size_t length)
{
    struct tap *tap = container_of(network, struct tap, network);
    uint8_t header[HEADER_SIZE] = {0};
    const struct iovec iov[] = {{header, HEADER_SIZE}, {frame, length}};

    if (tap->gateway && gateway_take(tap->gateway, frame, length))
        return;
    packet_write_offload(header, offload);
    if (writev(tap->fd, iov, ARRAY_SIZE(iov)) < 0)
        log_debug(tap->log, "%s: a frame was lost: %s", tap->name, strerror(errno));
}

static void frames_come(void *opaque, uint32_t events)
{
    struct tap *tap = opaque;

    (void)events;
    for (unsigned i = 0; i < FRAMES_A_TURN; i++) {
        ssize_t n = read(tap->fd, tap->buffer, sizeof(tap->buffer));
        struct network_offload offload;

        if (n < (ssize_t)HEADER_SIZE)
            return;
        packet_read_offload(tap->buffer, &offload);
        tap->guest.receive(tap->guest.opaque, &offload, tap->buffer + HEADER_SIZE,
                           (size_t)n - HEADER_SIZE);
    }
}

static void tap_set_offload(struct network *network, bool checksum, bool tcp4, bool tcp6)
{
    struct tap *tap = container_of(network, struct tap, network);
    unsigned long flags = 0;

    if (checksum)
        flags = TUN_F_CSUM | (tcp4 ? TUN_F_TSO4 : 0u) | (tcp6 ? TUN_F_TSO6 : 0u);
    if (ioctl(tap->fd, TUNSETOFFLOAD, flags) < 0)
        log_warning(tap->log, "%s: cannot set offloads: %s", tap->name, strerror(errno));
}

/* --- The device --- */

/* The kernel chooses a number. */
static const char any[] = "lodge%d";

static int make_device(struct tap *tap, const char *name, struct error *err)
{
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int header = HEADER_SIZE;

    /* It is a word of the rules, too (nat.h). */
    if (strlen(name) >= IFNAMSIZ || (name != any && name[strspn(name, NAME_CHARACTERS)]))
        return error_set(err, EINVAL, "'%.60s' cannot be a network device's name: that has at most "
                                      "%d letters, digits and dashes", name, IFNAMSIZ - 1);
    strcpy(ifr.ifr_name, name);
    tap->fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (tap->fd < 0)
        return error_system(err, errno, "cannot open /dev/net/tun");
    if (ioctl(tap->fd, TUNSETIFF, &ifr) < 0 || ioctl(tap->fd, TUNSETVNETHDRSZ, &header) < 0)
        return error_system(err, errno, "cannot make the network device %s", name);
    memcpy(tap->name, ifr.ifr_name, IFNAMSIZ);
    return 0;
}

/* --- Private networks --- */

/* Where the guest's network ends on the host. */
struct host_end {
    const char *device;
    struct subnet subnet;
    struct in_addr guest;
    const char *hostname;
    bool internal, ipv6;
};

static bool find_guest(void *opaque, const char *name, struct in_addr *ret_address)
{
    struct tap *tap = opaque;

    return tap->lease.directory_fd >= 0 && lease_find(tap->lease.directory_fd, name, ret_address);
}

static int connect_guest(struct tap *tap, const struct network_config *config, struct loop *loop,
                         const struct host_end *end, struct error *err)
{
    struct gateway_config gateway = {
        .subnet = end->subnet, .guest = end->guest, .hostname = end->hostname,
        .ipv6 = end->ipv6, .find = find_guest, .opaque = tap, .log = tap->log,
    };
    const struct nat_config nat = {
        .name = tap->name, .device = end->device, .subnet = end->subnet, .guest = end->guest,
        .internal = end->internal, .publish = config->publish,
        .publish_count = config->publish_count,
    };
    int r = link_get_mac(end->device, gateway.mac, err);

    if (r == 0)
        r = gateway_create(&gateway, loop, &tap->guest, &tap->gateway, err);
    if (r == 0)
        r = link_enable_forwarding(gateway.ipv6, err);
    return r < 0 ? r : nat_open(&nat, &tap->nat, err);
}

/* The first in which the host has no address yet. */
static int find_subnet(struct subnet *ret_subnet, struct error *err)
{
    struct subnet subnet = {.prefix = SUBNET_PREFIX};

    for (subnet.network = SUBNET_FIRST; subnet.network <= SUBNET_LAST; subnet.network += 0x100) {
        int r = subnet_is_used_by_host(&subnet, err);

        if (r < 0)
            return r;
        if (r == 0) {
            *ret_subnet = subnet;
            return 0;
        }
    }
    return error_set(err, EADDRNOTAVAIL, "no network of 10.77.0.0/16 is free");
}

static int make_private_network(struct tap *tap, const struct network_config *config,
                                struct loop *loop, struct error *err)
{
    struct host_end end = {.device = tap->name, .hostname = config->hostname};
    int r;

    if (config->address.s_addr) { /* a subnet around it */
        end.guest = config->address;
        end.subnet = (struct subnet){ntohl(end.guest.s_addr) & ~0xffu, SUBNET_PREFIX};
        if (!subnet_has_guest(&end.subnet, end.guest))
            return error_set(err, EINVAL, "a guest cannot have the first or last address of a /24");
        r = subnet_is_used_by_host(&end.subnet, err);
        if (r > 0)
            r = error_set(err, EADDRINUSE, "the host has an address in the guest's network");
    } else {
        r = find_subnet(&end.subnet, err);
        end.guest.s_addr = htonl(end.subnet.network + 2);
    }
    if (r == 0)
        r = link_set_addresses(tap->name, &end.subnet, &end.ipv6, err);
    if (r == 0)
        r = link_route_localhost(tap->name, err);
    return r < 0 ? r : connect_guest(tap, config, loop, &end, err);
}

/* --- Named networks --- */

static int join_network(struct tap *tap, const struct network_config *config, struct loop *loop,
                        struct error *err)
{
    struct named_network network;
    struct host_end end = {.device = network.bridge, .hostname = tap->lease.name};
    int r = named_open(config->kind, &network, err);

    if (r == 0)
        r = lease_take(&network, config->hostname, config->address, config->mac, &tap->lease, err);
    if (r == 0)
        r = named_bring_up(&network, &end.ipv6, err);
    if (r == 0)
        r = link_join_bridge(tap->name, network.bridge, err);
    end.subnet = network.subnet;
    end.guest = tap->lease.address;
    end.internal = network.internal;
    return r < 0 ? r : connect_guest(tap, config, loop, &end, err);
}

/* --- The kinds --- */

static void tap_close(struct network *network)
{
    struct tap *tap = container_of(network, struct tap, network);

    loop_remove(tap->source);
    nat_close(tap->nat);
    gateway_destroy(tap->gateway);
    if (tap->fd >= 0)
        close(tap->fd);
    lease_release(&tap->lease);
    free(tap);
}

static int plug_in(struct tap *tap, const struct network_config *config, struct loop *loop,
                   struct error *err)
{
    bool named = tap->network.kind == &network_named;
    int r = make_device(tap, !named && config->target && *config->target ? config->target : any,
                        err);

    if (r == 0 && config->mtu)
        r = link_set_mtu(tap->name, config->mtu, err);
    if (r < 0)
        return r;
    if (named)
        r = join_network(tap, config, loop, err);
    else if (config->bridge && config->publish_count)
        r = error_set(err, EINVAL, "ports are not published on a bridge: its guests have addresses "
                                   "that others reach");
    else if (config->bridge)
        r = link_join_bridge(tap->name, config->bridge, err);
    else
        r = make_private_network(tap, config, loop, err);
    if (r == 0)
        r = link_up(tap->name, err);
    return r < 0 ? r : loop_add_fd(loop, tap->fd, EPOLLIN, frames_come, tap, &tap->source, err);
}

static int open_as(const struct network_kind *kind, const struct network_config *config,
                   struct loop *loop, const struct network_guest *guest,
                   struct network **ret_network, struct error *err)
{
    struct tap *tap = calloc(1, sizeof(*tap));
    int r;

    if (!tap)
        return error_set(err, ENOMEM, "out of memory");
    tap->network.kind = kind;
    tap->guest = *guest;
    tap->log = config->log;
    tap->fd = tap->lease.fd = tap->lease.directory_fd = -1;
    r = plug_in(tap, config, loop, err);
    if (r < 0) {
        tap_close(&tap->network);
        return r;
    }
    *ret_network = &tap->network;
    return 0;
}

static int tap_open(const struct network_config *config, struct loop *loop,
                    const struct network_guest *guest, struct network **ret_network,
                    struct error *err)
{
    return open_as(&network_tap, config, loop, guest, ret_network, err);
}

static int named_network_open(const struct network_config *config, struct loop *loop,
                              const struct network_guest *guest, struct network **ret_network,
                              struct error *err)
{
    return open_as(&network_named, config, loop, guest, ret_network, err);
}

const struct network_kind network_tap = {
    .name = "tap",
    .summary = "a network device of the host, in a bridge or behind NAT (root)",
    .open = tap_open,
    .close = tap_close,
    .send = tap_send,
    .set_offload = tap_set_offload,
    .mtu = 1500,
};

const struct network_kind network_named = {
    .name = "NAME",
    .summary = "a network that 'lodge net create' made (root)",
    .open = named_network_open,
    .close = tap_close,
    .send = tap_send,
    .set_offload = tap_set_offload,
    .mtu = 1500,
};
