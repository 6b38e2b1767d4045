/* A network device of the host's kernel (root). In a bridge it is just a port
 * of that; otherwise it is a network of its own: the host is 10.77.N.1, the
 * guest gets 10.77.N.2 by DHCP, and nftables hides it behind the host. The
 * kernel takes and gives frames with their work undone, as guests do. */
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <arpa/inet.h>
#include <linux/sockios.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "network/dhcp.h"
#include "network/kinds.h"

#define FRAMES_A_TURN 64
#define HEADER_SIZE   12u /* struct virtio_net_hdr_mrg_rxbuf */
#define SUBNET        0x0a4d0000u /* 10.77.0.0/16, a /24 for each guest */
#define NETMASK       0xffffff00u
#define LEASE_SECONDS 86400

struct tap {
    struct network network;
    struct network_guest guest;
    const struct log *log;
    int fd;
    struct loop_source *source;
    char name[IFNAMSIZ];
    bool private_network; /* with addresses, DHCP and NAT of ours */
    struct dhcp_lease lease;
    int rules_fd; /* to the nft(8) that holds them, or -1 */
    uint8_t buffer[HEADER_SIZE + NETWORK_FRAME_MAX];
};

/* --- Frames --- */

/* The kernel's header is in the host's byte order, which is virtio's. */
static void make_header(uint8_t header[HEADER_SIZE], const struct network_offload *offload)
{
    memset(header, 0, HEADER_SIZE);
    header[0] = offload->flags;
    header[1] = offload->gso_type;
    store_le16(header + 2, offload->header_size);
    store_le16(header + 4, offload->gso_size);
    store_le16(header + 6, offload->checksum_start);
    store_le16(header + 8, offload->checksum_offset);
}

static void tap_send(struct network *network, const struct network_offload *offload, uint8_t *frame,
                     size_t length)
{
    struct tap *tap = container_of(network, struct tap, network);
    uint8_t header[HEADER_SIZE], reply[DHCP_REPLY_MAX];
    const struct iovec iov[] = {{header, HEADER_SIZE}, {frame, length}};
    size_t answer = tap->private_network ? dhcp_answer(&tap->lease, frame, length, reply) : 0;

    if (answer) {
        tap->guest.receive(tap->guest.opaque, NULL, reply, answer);
        return;
    }
    make_header(header, offload);
    if (writev(tap->fd, iov, ARRAY_SIZE(iov)) < 0)
        log_debug(tap->log, "%s: a frame was lost: %s", tap->name, strerror(errno));
}

static void frames_come(void *opaque, uint32_t events)
{
    struct tap *tap = opaque;

    (void)events;
    for (unsigned i = 0; i < FRAMES_A_TURN; i++) {
        ssize_t n = read(tap->fd, tap->buffer, sizeof(tap->buffer));
        const uint8_t *header = tap->buffer;
        struct network_offload offload;

        if (n < (ssize_t)HEADER_SIZE)
            return;
        offload = (struct network_offload){
            .flags = header[0],
            .gso_type = header[1],
            .header_size = load_le16(header + 2),
            .gso_size = load_le16(header + 4),
            .checksum_start = load_le16(header + 6),
            .checksum_offset = load_le16(header + 8),
        };
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

/* --- The host's side --- */

static int set_address(const char *name, int socket_fd, unsigned long request, uint32_t address)
{
    struct ifreq ifr = {0};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};

    memcpy(ifr.ifr_name, name, IFNAMSIZ);
    memcpy(&ifr.ifr_addr, &in, sizeof(in));
    return ioctl(socket_fd, request, &ifr) < 0 ? -errno : 0;
}

static int bring_up(const char *name, int socket_fd)
{
    struct ifreq ifr = {0};

    memcpy(ifr.ifr_name, name, IFNAMSIZ);
    if (ioctl(socket_fd, SIOCGIFFLAGS, &ifr) < 0)
        return -errno;
    ifr.ifr_flags |= IFF_UP;
    return ioctl(socket_fd, SIOCSIFFLAGS, &ifr) < 0 ? -errno : 0;
}

/* The first /24 in which the host has no address yet. */
static int find_subnet(uint32_t *ret_subnet, struct error *err)
{
    struct ifaddrs *all;

    if (getifaddrs(&all) < 0)
        return error_system(err, errno, "cannot list the host's addresses");
    for (uint32_t subnet = SUBNET; subnet < SUBNET + 0x10000; subnet += 0x100) {
        bool taken = false;

        for (struct ifaddrs *a = all; a; a = a->ifa_next)
            if (a->ifa_addr && a->ifa_addr->sa_family == AF_INET)
                taken |= (ntohl(((struct sockaddr_in *)(void *)a->ifa_addr)->sin_addr.s_addr) &
                          NETMASK) == subnet;
        if (!taken) {
            freeifaddrs(all);
            *ret_subnet = subnet;
            return 0;
        }
    }
    freeifaddrs(all);
    return error_set(err, EADDRNOTAVAIL, "no network of 10.77.0.0/16 is free");
}

/* Start nft(8) with its input from a pipe and give it commands. The pipe stays
 * open, for the caller to close. */
static int start_nft(char *const argv[], const char *commands, pid_t *ret_pid)
{
    AUTO_CLOSE int input = -1, output = -1;
    posix_spawn_file_actions_t actions;
    int ends[2], r;

    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    input = ends[0];
    output = ends[1];
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    r = -posix_spawnp(ret_pid, argv[0], &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (r == 0 && write(output, commands, strlen(commands)) != (ssize_t)strlen(commands))
        r = -errno;
    return r < 0 ? r : steal_fd(&output);
}

/* Put the rules in force until the network is closed, or this process is gone
 * in whatever way: the table belongs to an nft(8) that waits for more. */
static int apply_rules(struct tap *tap, const char *commands, struct error *err)
{
    char *const check[] = {"nft", "-c", "-f", "-", NULL}, *const hold[] = {"nft", "-i", NULL};
    int status = -1, fd;
    pid_t pid;

    fd = start_nft(check, commands, &pid);
    if (fd >= 0) {
        close(fd);
        if (waitpid(pid, &status, 0) < 0)
            status = -1;
    }
    if (status != 0)
        return error_set(err, EIO, "nft does not take the rules of the network; is the package "
                                   "nftables installed?");
    tap->rules_fd = start_nft(hold, commands, &pid);
    return tap->rules_fd < 0 ? error_system(err, -tap->rules_fd, "cannot run nft") : 0;
}

static void write_rules(struct tap *tap, const struct network_config *config, FILE *out)
{
    static const char *const hooks[] = {"prerouting", "output"};
    char guest[INET_ADDRSTRLEN], address[INET_ADDRSTRLEN];

    inet_ntop(AF_INET, &tap->lease.guest, guest, sizeof(guest));
    fprintf(out, "add table ip lodge-%s { flags owner; }\n", tap->name);
    fprintf(out, "add chain ip lodge-%s postrouting { type nat hook postrouting priority 100; }\n",
            tap->name);
    fprintf(out, "add rule ip lodge-%s postrouting ip saddr %s oifname != \"%s\" masquerade\n",
            tap->name, guest, tap->name);
    for (unsigned h = 0; h < ARRAY_SIZE(hooks); h++) {
        fprintf(out, "add chain ip lodge-%s %s { type nat hook %s priority -100; }\n", tap->name,
                hooks[h], hooks[h]);
        for (unsigned i = 0; i < config->publish_count; i++) {
            const struct network_publish *p = &config->publish[i];

            fprintf(out, "add rule ip lodge-%s %s ", tap->name, hooks[h]);
            if (p->address.s_addr)
                fprintf(out, "ip daddr %s ",
                        inet_ntop(AF_INET, &p->address, address, sizeof(address)));
            fprintf(out, "fib daddr type local %s dport %u dnat to %s:%u\n",
                    p->udp ? "udp" : "tcp", p->host_port, guest, p->guest_port);
        }
    }
}

static int add_rules(struct tap *tap, const struct network_config *config, struct error *err)
{
    AUTO_FREE char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    if (!out)
        return error_set(err, ENOMEM, "out of memory");
    write_rules(tap, config, out);
    fclose(out);
    return apply_rules(tap, text, err);
}

static int enable_forwarding(struct error *err)
{
    AUTO_CLOSE int fd = open("/proc/sys/net/ipv4/ip_forward", O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, "1", 1) != 1)
        return error_system(err, errno, "cannot let the host forward packets");
    return 0;
}

/* The host's first name server that others can reach, too. */
static struct in_addr host_dns(void)
{
    AUTO_FCLOSE FILE *file = fopen("/etc/resolv.conf", "re");
    struct in_addr found = {0}, address;
    char line[256], text[64];

    while (file && !found.s_addr && fgets(line, sizeof(line), file))
        if (sscanf(line, "nameserver %63s", text) == 1 && inet_pton(AF_INET, text, &address) == 1 &&
            ntohl(address.s_addr) >> 24 != 127)
            found = address;
    return found;
}

static int make_private_network(struct tap *tap, const struct network_config *config,
                                int socket_fd, struct error *err)
{
    struct ifreq ifr = {0};
    uint32_t subnet;
    int r = find_subnet(&subnet, err);

    if (r < 0)
        return r;
    r = set_address(tap->name, socket_fd, SIOCSIFADDR, subnet + 1);
    if (r == 0)
        r = set_address(tap->name, socket_fd, SIOCSIFNETMASK, NETMASK);
    memcpy(ifr.ifr_name, tap->name, IFNAMSIZ);
    if (r == 0 && ioctl(socket_fd, SIOCGIFHWADDR, &ifr) < 0)
        r = -errno;
    if (r < 0)
        return error_system(err, -r, "cannot give %s an address", tap->name);
    tap->lease = (struct dhcp_lease){
        .server.s_addr = htonl(subnet + 1),
        .guest.s_addr = htonl(subnet + 2),
        .netmask.s_addr = htonl(NETMASK),
        .dns = host_dns(),
        .seconds = LEASE_SECONDS,
    };
    memcpy(tap->lease.server_mac, ifr.ifr_hwaddr.sa_data, sizeof(tap->lease.server_mac));
    tap->private_network = true;
    r = enable_forwarding(err);
    return r < 0 ? r : add_rules(tap, config, err);
}

static int join_bridge(struct tap *tap, const char *bridge, int socket_fd, struct error *err)
{
    struct ifreq ifr = {.ifr_ifindex = (int)if_nametoindex(tap->name)};

    if (strlen(bridge) >= IFNAMSIZ)
        return error_set(err, EINVAL, "'%s' is no name of a bridge", bridge);
    strcpy(ifr.ifr_name, bridge);
    if (ioctl(socket_fd, SIOCBRADDIF, &ifr) < 0)
        return error_system(err, errno, "cannot put %s into bridge %s", tap->name, bridge);
    return 0;
}

static int make_device(struct tap *tap, const char *name, struct error *err)
{
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int header = HEADER_SIZE;

    if (strlen(name) >= IFNAMSIZ)
        return error_set(err, EINVAL, "'%s' is too long for a network device's name", name);
    strcpy(ifr.ifr_name, name);
    tap->fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (tap->fd < 0)
        return error_system(err, errno, "cannot open /dev/net/tun");
    if (ioctl(tap->fd, TUNSETIFF, &ifr) < 0 || ioctl(tap->fd, TUNSETVNETHDRSZ, &header) < 0)
        return error_system(err, errno, "cannot make the network device %s", name);
    memcpy(tap->name, ifr.ifr_name, IFNAMSIZ);
    return 0;
}

static void tap_close(struct network *network)
{
    struct tap *tap = container_of(network, struct tap, network);

    loop_remove(tap->source);
    if (tap->rules_fd >= 0)
        close(tap->rules_fd);
    if (tap->fd >= 0)
        close(tap->fd);
    free(tap);
}

static int tap_open(const struct network_config *config, struct loop *loop,
                    const struct network_guest *guest, struct network **ret_network,
                    struct error *err)
{
    AUTO_CLOSE int socket_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct tap *tap = calloc(1, sizeof(*tap));
    int r;

    if (!tap)
        return error_set(err, ENOMEM, "out of memory");
    tap->network.kind = &network_tap;
    tap->guest = *guest;
    tap->log = config->log;
    tap->fd = tap->rules_fd = -1;
    r = make_device(tap, config->target && *config->target ? config->target : "lodge%d", err);
    if (r == 0)
        r = config->bridge ? join_bridge(tap, config->bridge, socket_fd, err)
                           : make_private_network(tap, config, socket_fd, err);
    if (r == 0) {
        r = bring_up(tap->name, socket_fd);
        if (r < 0)
            error_system(err, -r, "cannot bring %s up", tap->name);
    }
    if (r == 0)
        r = loop_add_fd(loop, tap->fd, EPOLLIN, frames_come, tap, &tap->source, err);
    if (r < 0) {
        tap_close(&tap->network);
        return r;
    }
    *ret_network = &tap->network;
    return 0;
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
