#include "cli/run_devices.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/size.h"
#include "device/virtio/9p.h"
#include "device/virtio/balloon.h"
#include "device/virtio/blk.h"
#include "device/virtio/console.h"
#include "device/virtio/net.h"
#include "device/virtio/rng.h"

#define QUEUES_MAX 8

/* --- Values with parts: WHAT[,NAME=VALUE][,NAME] --- */

/* A part that a value may have. */
struct part {
    const char *name;
    bool flag; /* it stands alone, without a value */
    const char *value; /* out: NULL when it is not given; "" for a flag */
};

/* Take text (which is cut up) apart: what comes before the first comma, and the
 * parts. err names the option. */
static int split(char *text, const char *option, struct part *parts, unsigned count,
                 struct error *err)
{
    char *save = NULL;

    strtok_r(text, ",", &save);
    for (char *word; (word = strtok_r(NULL, ",", &save));) {
        char *equals = strchr(word, '=');
        unsigned i;

        if (equals)
            *equals = 0;
        for (i = 0; i < count && strcmp(parts[i].name, word) != 0; i++)
            ;
        if (i == count)
            return error_set(err, EINVAL, "--%s does not know '%s'", option, word);
        if (!equals != parts[i].flag)
            return error_set(err, EINVAL, "--%s: '%s' %s", option, word,
                             equals ? "takes no value" : "needs a value");
        parts[i].value = equals ? equals + 1 : "";
    }
    return 0;
}

/* A count from 1 to max, or otherwise when text is NULL. */
static int parse_count(const char *text, unsigned otherwise, unsigned max, const char *what,
                       unsigned *ret_count, struct error *err)
{
    char *end;
    unsigned long n;

    if (!text) {
        *ret_count = otherwise;
        return 0;
    }
    n = strtoul(text, &end, 10);
    if (*end || end == text || *text == '-' || n == 0 || n > max)
        return error_set(err, EINVAL, "%s '%s' is no number from 1 to %u", what, text, max);
    *ret_count = (unsigned)n;
    return 0;
}

/* A rate in what its unit counts, suffixes allowed; 0 when it is not given. */
static int parse_rate(const struct cli *cli, const char *option, uint64_t *ret_rate,
                      struct error *err)
{
    const char *text = cli_value(cli, option);

    *ret_rate = 0;
    if (text && size_parse(text, 1, ret_rate, err) < 0) {
        error_prepend(err, "--%s", option);
        return -EINVAL;
    }
    if (text && !*ret_rate)
        return error_set(err, EINVAL, "--%s: a rate of nothing", option);
    return 0;
}

/* --- Disks --- */

static int add_disk(const struct cli *cli, const char *value, struct machine *machine,
                    struct error *err)
{
    enum { READONLY, FORMAT, SERIAL, QUEUES };
    struct part parts[] = {
        [READONLY] = {"ro", true}, [FORMAT] = {"format"}, [SERIAL] = {"serial"},
        [QUEUES] = {"queues"},
    };
    AUTO_FREE char *text = strdup(value);
    struct virtio_blk_config config = {.path = text};
    struct virtio_device *device;
    int r;

    if (!text)
        return error_set(err, ENOMEM, "out of memory");
    r = split(text, "disk", parts, ARRAY_SIZE(parts), err);
    if (r == 0)
        r = parse_count(parts[QUEUES].value, 1, QUEUES_MAX, "--disk: queues", &config.queues, err);
    if (r == 0)
        r = parse_rate(cli, "disk-iops", &config.iops, err);
    if (r == 0)
        r = parse_rate(cli, "disk-rate", &config.bytes_limit, err);
    if (r < 0)
        return r;
    config.readonly = parts[READONLY].value != NULL;
    config.format = parts[FORMAT].value;
    config.serial = parts[SERIAL].value;
    r = virtio_blk_create(&config, cli->log, &device, err);
    return r < 0 ? r : machine_add_virtio(machine, device, err);
}

/* --- Networks --- */

static int parse_port(const char *text, uint16_t *ret_port, struct error *err)
{
    char *end;
    unsigned long port = strtoul(text, &end, 10);

    if (*end || end == text || *text == '-' || port == 0 || port > 65535)
        return error_set(err, EINVAL, "--publish: '%s' is no port", text);
    *ret_port = (uint16_t)port;
    return 0;
}

/* [ADDRESS:]HOST:GUEST[/udp] */
static int parse_publish(const char *value, struct network_publish *ret_publish, struct error *err)
{
    AUTO_FREE char *text = strdup(value);
    struct network_publish publish = {.address.s_addr = htonl(INADDR_LOOPBACK)};
    char *slash, *guest, *host;
    int r;

    if (!text)
        return error_set(err, ENOMEM, "out of memory");
    slash = strchr(text, '/');
    if (slash) {
        *slash++ = 0;
        publish.udp = strcmp(slash, "udp") == 0;
        if (!publish.udp && strcmp(slash, "tcp") != 0)
            return error_set(err, EINVAL, "--publish: '%s' is neither tcp nor udp", slash);
    }
    guest = strrchr(text, ':');
    if (!guest)
        return error_set(err, EINVAL, "--publish '%s' is not like 8080:80", value);
    *guest++ = 0;
    host = strrchr(text, ':');
    if (host) {
        *host++ = 0;
        if (inet_pton(AF_INET, text, &publish.address) != 1)
            return error_set(err, EINVAL, "--publish: '%s' is no IPv4 address", text);
    }
    r = parse_port(host ? host : text, &publish.host_port, err);
    if (r == 0)
        r = parse_port(guest, &publish.guest_port, err);
    if (r == 0)
        *ret_publish = publish;
    return r;
}

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
        return error_set(err, EINVAL, "--net: '%s' is no address of a network card", text);
    for (unsigned i = 0; i < NETWORK_MAC_SIZE; i++)
        mac[i] = (uint8_t)b[i];
    return 0;
}

/* What --publish asks for, on the first network that is not said otherwise. */
static int collect_publish(const struct cli *cli, struct network_publish **ret_list,
                           unsigned *ret_count, struct error *err)
{
    struct network_publish *list;
    unsigned count = 0;
    int r = 0;

    while (cli_value_at(cli, "publish", count))
        count++;
    list = calloc(count + 1, sizeof(*list));
    if (!list)
        return error_set(err, ENOMEM, "out of memory");
    for (unsigned i = 0; r == 0 && i < count; i++)
        r = parse_publish(cli_value_at(cli, "publish", i), &list[i], err);
    if (r < 0) {
        free(list);
        return r;
    }
    *ret_list = list;
    *ret_count = count;
    return 0;
}

static int add_net(const struct cli *cli, const char *value, bool publishes,
                   struct machine *machine, struct error *err)
{
    enum { MAC, BRIDGE, QUEUES };
    struct part parts[] = {[MAC] = {"mac"}, [BRIDGE] = {"bridge"}, [QUEUES] = {"queues"}};
    AUTO_FREE char *text = strdup(value);
    AUTO_FREE struct network_publish *publish = NULL;
    struct virtio_net_config config = {.network = {.kind = text, .log = cli->log}};
    struct virtio_device *device;
    char *colon;
    int r;

    if (!text)
        return error_set(err, ENOMEM, "out of memory");
    r = split(text, "net", parts, ARRAY_SIZE(parts), err);
    if (r == 0)
        r = parse_count(parts[QUEUES].value, 1, VIRTIO_NET_PAIRS_MAX, "--net: queues",
                        &config.queue_pairs, err);
    if (r == 0)
        r = choose_mac(parts[MAC].value, config.network.mac, err);
    if (r == 0)
        r = parse_rate(cli, "net-rate", &config.rate, err);
    if (r == 0 && publishes)
        r = collect_publish(cli, &publish, &config.network.publish_count, err);
    if (r < 0)
        return r;
    colon = strchr(text, ':');
    if (colon)
        *colon++ = 0;
    config.network.target = colon;
    config.network.bridge = parts[BRIDGE].value;
    config.network.publish = publish;
    r = virtio_net_create(&config, cli->log, &device, err);
    return r < 0 ? r : machine_add_virtio(machine, device, err);
}

/* The first network publishes; --publish alone asks for a user network. */
static int add_nets(const struct cli *cli, struct machine *machine, struct error *err)
{
    const char *value = cli_value_at(cli, "net", 0);
    int r = 0;

    if (!value && cli_value(cli, "publish"))
        return add_net(cli, "user", true, machine, err);
    for (unsigned n = 0; r == 0 && (value = cli_value_at(cli, "net", n)); n++)
        r = add_net(cli, value, n == 0, machine, err);
    return r;
}

/* --- Shares and channels --- */

/* DIR:TAG[:ro] */
static int add_share(const struct cli *cli, const char *value, struct machine *machine,
                     struct error *err)
{
    AUTO_FREE char *text = strdup(value);
    struct virtio_device *device;
    bool readonly = false;
    char *colon;
    int r;

    if (!text)
        return error_set(err, ENOMEM, "out of memory");
    colon = strrchr(text, ':');
    if (colon && strcmp(colon, ":ro") == 0) {
        readonly = true;
        *colon = 0;
        colon = strrchr(text, ':');
    }
    if (!colon)
        return error_set(err, EINVAL, "--share '%s' is not like DIR:TAG", value);
    *colon++ = 0;
    r = virtio_9p_create(text, colon, readonly, cli->log, &device, err);
    return r < 0 ? r : machine_add_virtio(machine, device, err);
}

/* NAME:PATH, all of them ports of one device. */
static int add_channels(const struct cli *cli, struct machine *machine, struct error *err)
{
    struct virtio_console_port ports[VIRTIO_CONSOLE_PORTS_MAX];
    struct virtio_device *device;
    unsigned count = 0;
    const char *value;
    int r = 0;

    while (r == 0 && (value = cli_value_at(cli, "channel", count))) {
        char *name = count < ARRAY_SIZE(ports) ? strdup(value) : NULL;
        char *colon = name ? strchr(name, ':') : NULL;

        if (!colon) {
            free(name);
            r = error_set(err, EINVAL, "--channel '%s' is not like NAME:SOCKET, or is one of more "
                                       "than %d", value, VIRTIO_CONSOLE_PORTS_MAX);
            break;
        }
        *colon++ = 0;
        ports[count++] = (struct virtio_console_port){name, colon};
    }
    if (r == 0 && count) {
        r = virtio_console_create(ports, count, cli->log, &device, err);
        if (r == 0)
            r = machine_add_virtio(machine, device, err);
    }
    while (count)
        free((char *)ports[--count].name);
    return r;
}

/* --- All --- */

static int add_balloon(const struct cli *cli, struct machine *machine, struct error *err)
{
    const char *text = cli_value(cli, "balloon");
    struct virtio_device *device;
    uint64_t inflate = 0;
    int r = 0;

    if (text && size_parse(text, 1ull << 20, &inflate, err) < 0) {
        error_prepend(err, "--balloon");
        return -EINVAL;
    }
    r = virtio_balloon_create(inflate, cli->log, &device, err);
    return r < 0 ? r : machine_add_virtio(machine, device, err);
}

static int add_rng(const struct cli *cli, struct machine *machine, struct error *err)
{
    struct virtio_device *device;
    int r = virtio_rng_create(cli->log, &device, err);

    return r < 0 ? r : machine_add_virtio(machine, device, err);
}

/* Call add for each value of an option that may be repeated. */
static int add_each(const struct cli *cli, const char *option, struct machine *machine,
                    int (*add)(const struct cli *cli, const char *value, struct machine *machine,
                               struct error *err),
                    struct error *err)
{
    const char *value;
    int r = 0;

    for (unsigned n = 0; r == 0 && (value = cli_value_at(cli, option, n)); n++)
        r = add(cli, value, machine, err);
    return r;
}

int run_devices_add(const struct cli *cli, struct machine *machine, struct error *err)
{
    int r = add_rng(cli, machine, err);

    if (r == 0)
        r = add_balloon(cli, machine, err);
    if (r == 0)
        r = add_each(cli, "disk", machine, add_disk, err);
    if (r == 0)
        r = add_nets(cli, machine, err);
    if (r == 0)
        r = add_each(cli, "share", machine, add_share, err);
    if (r == 0)
        r = add_channels(cli, machine, err);
    return r;
}

int run_devices_keep(const struct cli *cli, struct sandbox *sandbox, struct error *err)
{
    const char *value;
    int r = 0;

    /* The sockets of channels are removed at the end. */
    for (unsigned n = 0; r == 0 && (value = cli_value_at(cli, "channel", n)); n++)
        r = sandbox_keep(sandbox, strchr(value, ':') + 1, err);
    return r;
}
