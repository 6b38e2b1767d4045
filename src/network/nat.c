#include "network/nat.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "network/publish.h"

#define LAST_CHAIN    "last"
#define LOOKS_MAX     1000
#define LOOK_EVERY_US 10000

struct nat {
    int rules_fd; /* to the nft(8) that holds them, or -1 */
    unsigned port_count;
    int ports[]; /* sockets that keep others from the published ports */
};

/* --- nft(8) --- */

/* Start it with its input from a pipe and give it commands. The pipe's end, for the caller to
 * close. */
static int start_nft(char *const argv[], const char *commands, pid_t *ret_pid)
{
    AUTO_CLOSE int input = -1, output = -1;
    posix_spawn_file_actions_t actions;
    size_t length = strlen(commands);
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
    while (r == 0 && length) {
        ssize_t n = write(output, commands, length);

        if (n < 0 && errno != EINTR)
            r = -errno;
        commands += n > 0 ? n : 0;
        length -= n > 0 ? (size_t)n : 0;
    }
    return r < 0 ? r : steal_fd(&output);
}

/* Run it to its end. */
static bool nft_succeeds(char *const argv[], const char *commands)
{
    int status = -1, fd;
    pid_t pid;

    fd = start_nft(argv, commands, &pid);
    if (fd < 0)
        return false;
    close(fd);
    return waitpid(pid, &status, 0) == pid && status == 0;
}

/* Put the rules in force until the pipe is closed. Whoever is confined next must not get ahead
 * of nft(8), which still has libraries to load: the last that it makes is waited for. */
static int apply_rules(struct nat *nat, const char *name, const char *commands, struct error *err)
{
    char *const check[] = {"nft", "-c", "-f", "-", NULL}, *const hold[] = {"nft", "-i", NULL};
    char table[IFNAMSIZ + sizeof("lodge-")];
    char *const look[] = {"nft", "list", "chain", "inet", table, LAST_CHAIN, NULL};
    pid_t pid;

    if (!nft_succeeds(check, commands))
        return error_set(err, EIO, "nft does not take the rules of the network; is the package "
                                   "nftables installed?");
    nat->rules_fd = start_nft(hold, commands, &pid);
    if (nat->rules_fd < 0)
        return error_system(err, -nat->rules_fd, "cannot run nft");
    snprintf(table, sizeof(table), "lodge-%s", name);
    for (unsigned i = 0; i < LOOKS_MAX; i++) {
        if (nft_succeeds(look, ""))
            return 0;
        if (waitpid(pid, NULL, WNOHANG) == pid)
            break;
        usleep(LOOK_EVERY_US);
    }
    return error_set(err, EIO, "nft does not put the rules of the network in force");
}

/* --- The rules --- */

/* What a chain is hooked into. The first takes what pretends to come from 127.0.0.1 of the
 * host, which link_route_localhost would let in. */
static const struct {
    const char *name, *hook;
} chains[] = {
    {"protect", "type filter hook prerouting priority -300"},
    {"out", "type nat hook postrouting priority 100"},
    {"in", "type nat hook prerouting priority -100"},
    {"local", "type nat hook output priority -100"},
    {"forward", "type filter hook forward priority 0"},
};

static void write_published(const struct nat_config *config, const char *chain, const char *guest,
                            FILE *out)
{
    char address[INET_ADDRSTRLEN];

    for (unsigned i = 0; i < config->publish_count; i++) {
        const struct network_publish *p = &config->publish[i];

        fprintf(out, "add rule inet lodge-%s %s ", config->name, chain);
        if (p->address.s_addr)
            fprintf(out, "ip daddr %s ",
                    inet_ntop(AF_INET, &p->address, address, sizeof(address)));
        fprintf(out, "meta nfproto ipv4 fib daddr type local %s dport %u dnat ip to %s:%u\n",
                p->udp ? "udp" : "tcp", p->host_port, guest, p->guest_port);
    }
}

static void write_rules(const struct nat_config *config, FILE *out)
{
    struct in6_addr ipv6 = subnet_host_ipv6(&config->subnet);
    char guest[INET_ADDRSTRLEN], subnet[SUBNET_TEXT_MAX], prefix[INET6_ADDRSTRLEN];
    const char *name = config->name, *device = config->device;

    inet_ntop(AF_INET, &config->guest, guest, sizeof(guest));
    ipv6.s6_addr[15] = 0;
    inet_ntop(AF_INET6, &ipv6, prefix, sizeof(prefix));
    subnet_format(&config->subnet, subnet);
    fprintf(out, "add table inet lodge-%s { flags owner; }\n", name);
    for (unsigned i = 0; i < ARRAY_SIZE(chains); i++)
        fprintf(out, "add chain inet lodge-%s %s { %s; }\n", name, chains[i].name, chains[i].hook);
    fprintf(out, "add rule inet lodge-%s protect iifname \"%s\" ip daddr 127.0.0.0/8 drop\n", name,
            device);
    if (config->internal) {
        fprintf(out, "add rule inet lodge-%s forward iifname \"%s\" oifname != \"%s\" drop\n", name,
                device, device);
        fprintf(out, "add rule inet lodge-%s forward oifname \"%s\" iifname != \"%s\" drop\n", name,
                device, device);
        return;
    }
    fprintf(out, "add rule inet lodge-%s out ip saddr %s oifname != \"%s\" masquerade\n", name,
            guest, device);
    fprintf(out, "add rule inet lodge-%s out ip6 saddr %s/64 oifname != \"%s\" masquerade\n", name,
            prefix, device);
    /* From the host itself, and from a neighbour by the host's address: the answer is to come
     * back the same way. */
    fprintf(out, "add rule inet lodge-%s out ip daddr %s ip saddr { 127.0.0.0/8, %s } "
                 "ct status dnat masquerade\n", name, guest, subnet);
    write_published(config, "in", guest, out);
    write_published(config, "local", guest, out);
}

/* --- The whole --- */

void nat_close(struct nat *nat)
{
    if (!nat)
        return;
    for (unsigned i = 0; i < nat->port_count; i++)
        close(nat->ports[i]);
    if (nat->rules_fd >= 0)
        close(nat->rules_fd);
    free(nat);
}

static int reserve_ports(struct nat *nat, const struct nat_config *config, struct error *err)
{
    for (unsigned i = 0; i < config->publish_count; i++) {
        int fd = publish_reserve(&config->publish[i], err);

        if (fd < 0)
            return fd;
        nat->ports[nat->port_count++] = fd;
    }
    return 0;
}

int nat_open(const struct nat_config *config, struct nat **ret_nat, struct error *err)
{
    struct nat *nat = calloc(1, sizeof(*nat) + config->publish_count * sizeof(nat->ports[0]));
    AUTO_FREE char *text = NULL;
    size_t size;
    FILE *out = nat ? open_memstream(&text, &size) : NULL;
    int r;

    if (!out) {
        free(nat);
        return error_set(err, ENOMEM, "out of memory");
    }
    nat->rules_fd = -1;
    write_rules(config, out);
    fprintf(out, "add chain inet lodge-%s " LAST_CHAIN "\n", config->name);
    fclose(out);
    r = config->internal && config->publish_count
            ? error_set(err, EINVAL, "ports cannot be published on an internal network")
            : reserve_ports(nat, config, err);
    if (r == 0)
        r = apply_rules(nat, config->name, text, err);
    if (r < 0) {
        nat_close(nat);
        return r;
    }
    *ret_nat = nat;
    return 0;
}
