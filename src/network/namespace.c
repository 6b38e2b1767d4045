#include "network/namespace.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/report.h"
#include "base/sandbox.h"
#include "network/lease.h"
#include "network/link.h"
#include "network/nat.h"
#include "network/resolver.h"
#include "network/veth.h"

#define CARD       "eth0"
#define TURN_MAX   64   /* questions taken in a row */

struct keeper {
    const struct namespace_config *config;
    struct loop *loop;
    struct sandbox *sandbox;
    int pid_fd, namespace_fd, questions_fd;
    struct lease lease;
    struct nat *nat;
    struct resolver *resolver;
};

/* --- Names --- */

static bool find(void *opaque, const char *name, struct in_addr *ret_address)
{
    struct keeper *keeper = opaque;

    return lease_find(keeper->lease.directory_fd, name, ret_address);
}

static void reply(void *opaque, const struct udp_ends *asker, const uint8_t *message, size_t size)
{
    const struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = asker->from,
                                   .sin_port = htons(asker->from_port)};
    struct keeper *keeper = opaque;

    if (sendto(keeper->questions_fd, message, size, MSG_DONTWAIT, (const struct sockaddr *)&to,
               sizeof(to)) < 0)
        return; /* lost, as datagrams may be */
}

static void questions_come(void *opaque, uint32_t events)
{
    struct keeper *keeper = opaque;
    uint8_t query[RESOLVER_MESSAGE_MAX];

    (void)events;
    for (unsigned i = 0; i < TURN_MAX; i++) {
        struct sockaddr_in from;
        socklen_t size = sizeof(from);
        ssize_t n = recvfrom(keeper->questions_fd, query, sizeof(query), MSG_DONTWAIT,
                             (struct sockaddr *)&from, &size);
        struct udp_ends asker = {0};

        if (n < 0)
            return;
        asker.from = from.sin_addr;
        asker.from_port = ntohs(from.sin_port);
        resolver_ask(keeper->resolver, &asker, query, (size_t)n);
    }
}

/* --- In the namespace --- */

static int open_questions(struct error *err)
{
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons(RESOLVER_PORT)};
    AUTO_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    inet_pton(AF_INET, NAMESPACE_RESOLVER, &where.sin_addr);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&where, sizeof(where)) < 0)
        return error_system(err, errno, "cannot serve names at " NAMESPACE_RESOLVER);
    return steal_fd(&fd);
}

static int set_up_inside(struct keeper *keeper, const struct subnet *subnet, bool ipv6,
                         struct error *err)
{
    int r = link_up("lo", err);

    if (r == 0)
        r = link_up(CARD, err);
    if (r == 0)
        r = link_set_guest_addresses(CARD, subnet, keeper->lease.address, ipv6, err);
    if (r == 0)
        r = keeper->questions_fd = open_questions(err);
    return r < 0 ? r : 0;
}

static int enter_and_set_up(struct keeper *keeper, const struct subnet *subnet, bool ipv6,
                            struct error *err)
{
    AUTO_CLOSE int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    int r;

    if (home < 0 || setns(keeper->namespace_fd, CLONE_NEWNET) < 0)
        return error_system(err, errno, "cannot enter the container's network namespace");
    r = set_up_inside(keeper, subnet, ipv6, err);
    if (setns(home, CLONE_NEWNET) < 0 && r == 0)
        r = error_system(err, errno, "cannot leave the container's network namespace");
    return r;
}

/* --- The keeper --- */

static int plug_in(struct keeper *keeper, struct error *err)
{
    uint8_t mac[NETWORK_MAC_SIZE];
    char name[IFNAMSIZ];
    struct nat_config nat = {.name = name, .publish = keeper->config->publish,
                             .publish_count = keeper->config->publish_count};
    struct named_network network;
    bool ipv6 = false;
    int r = named_open(keeper->config->network, &network, err);

    if (r == 0 && getrandom(mac, sizeof(mac), 0) != sizeof(mac))
        r = error_system(err, errno, "no random bytes for a network address");
    mac[0] = (uint8_t)((mac[0] & 0xfc) | 2);
    if (r == 0)
        r = lease_take(&network, keeper->config->hostname, (struct in_addr){0}, mac,
                       &keeper->lease, err);
    if (r == 0)
        r = named_bring_up(&network, &ipv6, err);
    snprintf(name, sizeof(name), "lodge%x", ntohl(keeper->lease.address.s_addr));
    if (r == 0)
        r = veth_create(name, CARD, mac, keeper->namespace_fd, err);
    if (r == 0)
        r = link_join_bridge(name, network.bridge, err);
    if (r == 0)
        r = link_up(name, err);
    if (r == 0)
        r = enter_and_set_up(keeper, &network.subnet, ipv6, err);
    if (r == 0)
        r = link_enable_forwarding(ipv6, err);
    nat.device = network.bridge;
    nat.subnet = network.subnet;
    nat.guest = keeper->lease.address;
    nat.internal = network.internal;
    return r < 0 ? r : nat_open(&nat, &keeper->nat, err);
}

static void container_ended(void *opaque, uint32_t events)
{
    struct keeper *keeper = opaque;

    (void)events;
    loop_stop(keeper->loop);
}

static int begin(struct keeper *keeper, struct error *err)
{
    const struct resolver_ops ops = {find, reply, keeper};
    struct loop_source *source;
    char path[64];
    int r;

    keeper->pid_fd = (int)syscall(SYS_pidfd_open, keeper->config->pid, 0);
    snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)keeper->config->pid);
    keeper->namespace_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (keeper->pid_fd < 0 || keeper->namespace_fd < 0)
        return error_system(err, errno, "cannot open the container's network namespace");
    r = sandbox_create(SANDBOX_NETWORK, NULL, &keeper->sandbox, err);
    if (r == 0)
        r = plug_in(keeper, err);
    if (r == 0)
        r = loop_create(&keeper->loop, err);
    if (r == 0)
        r = resolver_create(&ops, keeper->loop, NULL, &keeper->resolver, err);
    if (r == 0)
        r = loop_add_fd(keeper->loop, keeper->pid_fd, EPOLLIN, container_ended, keeper, &source,
                        err);
    if (r == 0)
        r = loop_add_fd(keeper->loop, keeper->questions_fd, EPOLLIN, questions_come, keeper,
                        &source, err);
    return r < 0 ? r : sandbox_enter(keeper->sandbox, err);
}

/* Of what the parent has open nothing is kept but the pipe to it. */
static void let_go_of_parent(int pipe_fd)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    for (int fd = 0; fd <= STDERR_FILENO && null >= 0; fd++)
        dup2(null, fd);
    if (pipe_fd > STDERR_FILENO + 1)
        close_range(STDERR_FILENO + 1, (unsigned)pipe_fd - 1, 0);
    close_range((unsigned)pipe_fd + 1, ~0u, 0);
    setsid();
}

/* The kernel takes down what it holds when it ends. */
static _Noreturn void keep(const struct namespace_config *config, int pipe_fd)
{
    struct keeper keeper = {.config = config, .lease = {.fd = -1, .directory_fd = -1}};
    struct error err = {0};
    int r;

    let_go_of_parent(pipe_fd);
    r = begin(&keeper, &err);
    report_send(&pipe_fd, r < 0 ? &err : NULL);
    if (r == 0)
        r = loop_run(keeper.loop, &err);
    _exit(r < 0);
}

int namespace_connect(const struct namespace_config *config, struct error *err)
{
    AUTO_CLOSE int said = -1;
    int ends[2], r = report_open(ends, err);
    pid_t pid;

    if (r < 0)
        return r;
    said = ends[0];
    pid = fork();
    if (pid == 0) { /* it ends at once, so that nobody has to wait for the keeper */
        pid = fork();
        if (pid == 0)
            keep(config, ends[1]);
        _exit(pid < 0);
    }
    close(ends[1]);
    if (pid < 0)
        return error_system(err, errno, "cannot fork");
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    return report_await(said, "the keeper of the network", err);
}
