#include "cli/run_network.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "cli/value.h"
#include "device/virtio/net.h"
#include "network/publish.h"

#define MTU_MIN 1280 /* IPv6's least (RFC 8200, 5) */
#define MTU_MAX 16384 /* see network/user.c */

/* Given, or a random one that is locally administered. */
static int choose_mac(const char *text, uint8_t mac[NETWORK_MAC_SIZE], struct error *err)
{
    unsigned b[NETWORK_MAC_SIZE];
    int end = 0;

    if (!text) {
        if (getrandom(mac, NETWORK_MAC_SIZE, 0) != NETWORK_MAC_SIZE)
            return error_system(err, errno, "no random bytes for a network address");
        mac[0] = (uint8_t)((mac[0] & 0xfc) | 2);
        return 0;
    }
    if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &end) !=
            NETWORK_MAC_SIZE || text[end] || (b[0] & 1))
        return error_set(err, EINVAL, "--network: '%s' is no address of a network card", text);
    for (unsigned i = 0; i < NETWORK_MAC_SIZE; i++)
        mac[i] = (uint8_t)b[i];
    return 0;
}

static int choose_address(const char *text, struct in_addr *ret_address, struct error *err)
{
    if (text && inet_pton(AF_INET, text, ret_address) != 1)
        return error_set(err, EINVAL, "--network: ip '%s' is no IPv4 address", text);
    return 0;
}

static int collect_publish(const struct cli *cli, struct network_publish **list, unsigned *count,
                           struct error *err)
{
    const char *text;

    for (unsigned n = 0; (text = cli_value_at(cli, "publish", n)); n++)
        if (publish_parse(text, list, count, err) < 0) {
            error_prepend(err, "--publish");
            return -EINVAL;
        }
    return 0;
}

static int add_network(const struct cli *cli, const char *value, bool publishes,
                       struct machine *machine, struct error *err)
{
    enum { ADDRESS, MAC, NAME, BRIDGE, QUEUES, MTU };
    struct part parts[] = {
        [ADDRESS] = {"ip"}, [MAC] = {"mac"}, [NAME] = {"name"},
        [BRIDGE] = {"bridge"}, [QUEUES] = {"queues"}, [MTU] = {"mtu"},
    };
    AUTO_FREE char *text = strdup(value);
    AUTO_FREE struct network_publish *publish = NULL;
    struct virtio_net_config config = {.network = {.kind = text, .log = cli->log}};
    struct network_config *network = &config.network;
    struct virtio_device *device;
    char *colon;
    int r;

    if (!text)
        return error_set(err, ENOMEM, "out of memory");
    r = value_split(text, "network", parts, ARRAY_SIZE(parts), err);
    if (r == 0)
        r = value_count(parts[QUEUES].value, 1, 1, VIRTIO_NET_PAIRS_MAX, "--network: queues",
                        &config.queue_pairs, err);
    if (r == 0)
        r = value_count(parts[MTU].value, 0, MTU_MIN, MTU_MAX, "--network: mtu", &network->mtu,
                        err);
    if (r == 0)
        r = choose_mac(parts[MAC].value, network->mac, err);
    if (r == 0)
        r = choose_address(parts[ADDRESS].value, &network->address, err);
    if (r == 0)
        r = value_rate(cli, "net-rate", &config.rate, err);
    if (r == 0 && publishes)
        r = collect_publish(cli, &publish, &network->publish_count, err);
    if (r < 0)
        return r;
    colon = strchr(text, ':');
    if (colon)
        *colon++ = 0;
    network->target = colon;
    network->bridge = parts[BRIDGE].value;
    network->hostname = parts[NAME].value ? parts[NAME].value : cli_value(cli, "name");
    network->publish = publish;
    r = virtio_net_create(&config, cli->log, &device, err);
    if ((r == -EACCES || r == -EPERM) && strcmp(text, "user") && strcmp(text, "switch"))
        error_prepend(err, "--network %s needs root's rights, --network user none", value);
    return r < 0 ? r : machine_add_virtio(machine, device, err);
}

/* The first network publishes; --publish alone asks for a user network. */
int run_network_add(const struct cli *cli, struct machine *machine, struct error *err)
{
    const char *value = cli_value_at(cli, "network", 0);
    int r = 0;

    if (!value && cli_value(cli, "publish"))
        return add_network(cli, "user", true, machine, err);
    for (unsigned n = 0; r == 0 && (value = cli_value_at(cli, "network", n)); n++)
        r = add_network(cli, value, n == 0, machine, err);
    return r;
}
