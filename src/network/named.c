#include "network/named.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "network/directory.h"
#include "network/lease.h"
#include "network/link.h"

#define RECORDS        "/var/lib/lodge/networks"
#define SUFFIX         ".json"
#define RECORD_MAX     4096
#define SUBNET_FIRST   0x0a4e0000u /* 10.78.0.0/16, a /24 for each network */
#define SUBNET_LAST    0x0a4eff00u
#define SUBNET_PREFIX  24
#define BRIDGES_MAX    1000u

/* --- Names and places --- */

static bool is_letter_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool named_name_is_good(const char *name)
{
    size_t length = strlen(name);

    for (size_t i = 0; i < length; i++)
        if (!is_letter_or_digit(name[i]) && name[i] != '-')
            return false;
    return length && length <= NAMED_NAME_MAX && name[0] != '-' && name[length - 1] != '-';
}

/* The records, which only one process at a time adds to or takes from while it holds the
 * descriptor. */
static int lock_records(struct error *err)
{
    AUTO_CLOSE int fd = directory_open(RECORDS, err);

    if (fd < 0)
        return fd;
    if (flock(fd, LOCK_EX) < 0)
        return error_system(err, errno, "cannot lock " RECORDS);
    return steal_fd(&fd);
}

static ssize_t read_file(int directory, const char *name, char *text, size_t size)
{
    AUTO_CLOSE int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);

    if (n >= 0)
        text[n] = 0;
    return n;
}

/* --- Records --- */

static int parse_record(const char *text, struct named_network *ret_network, struct error *err)
{
    json_t *tree = json_loads(text, 0, NULL);
    const char *name, *subnet, *bridge, *created;
    struct named_network network = {0};
    int internal, r = -EINVAL;

    if (tree && json_unpack(tree, "{ss ss ss sb ss}", "name", &name, "subnet", &subnet, "bridge",
                            &bridge, "internal", &internal, "created", &created) == 0 &&
        named_name_is_good(name) && *bridge && strlen(bridge) < sizeof(network.bridge) &&
        strlen(created) < sizeof(network.created) &&
        subnet_parse(subnet, &network.subnet, NULL) == 0) {
        strcpy(network.name, name);
        strcpy(network.bridge, bridge);
        strcpy(network.created, created);
        network.internal = internal;
        *ret_network = network;
        r = 0;
    }
    json_decref(tree);
    return r < 0 ? error_set(err, EINVAL, "the record of a network is damaged") : 0;
}

static int read_record(int records, const char *file, struct named_network *ret_network,
                       struct error *err)
{
    char text[RECORD_MAX];
    int r;

    if (read_file(records, file, text, sizeof(text)) < 0)
        return error_system(err, errno, "cannot read " RECORDS "/%s", file);
    r = parse_record(text, ret_network, err);
    if (r < 0)
        error_prepend(err, RECORDS "/%s", file);
    return r;
}

/* It is there whole, or not at all. */
static int write_record(int records, const struct named_network *network, struct error *err)
{
    char subnet[SUBNET_TEXT_MAX], path[NAMED_NAME_MAX + 8], temporary[NAMED_NAME_MAX + 8];
    json_t *tree = json_pack("{ss ss ss sb ss}", "name", network->name, "subnet",
                             subnet_format(&network->subnet, subnet), "bridge", network->bridge,
                             "internal", network->internal, "created", network->created);
    AUTO_FREE char *text = tree ? json_dumps(tree, JSON_INDENT(2)) : NULL;
    AUTO_CLOSE int fd = -1;

    json_decref(tree);
    if (!text)
        return error_set(err, ENOMEM, "out of memory");
    snprintf(path, sizeof(path), "%s" SUFFIX, network->name);
    snprintf(temporary, sizeof(temporary), ".%s", network->name);
    fd = openat(records, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) || fsync(fd) < 0 ||
        renameat(records, temporary, records, path) < 0)
        return error_system(err, errno, "cannot write " RECORDS "/%s", path);
    return 0;
}

static int each_record(int records, int (*fn)(const struct named_network *network, void *opaque),
                       void *opaque, struct error *err)
{
    struct dirent **entries;
    int count = directory_list(records, &entries, err), r = 0;

    if (count < 0)
        return count;
    for (int i = 0; r == 0 && i < count; i++) {
        const char *name = entries[i]->d_name, *dot = strrchr(name, '.');
        struct named_network network;

        if (name[0] == '.' || !dot || strcmp(dot, SUFFIX) != 0)
            continue;
        r = read_record(records, name, &network, err);
        if (r == 0)
            r = fn(&network, opaque);
    }
    directory_free(entries, count);
    return r;
}

int named_list(int (*fn)(const struct named_network *network, void *opaque), void *opaque,
               struct error *err)
{
    AUTO_CLOSE int records = open(RECORDS, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (records < 0)
        return errno == ENOENT ? 0 : error_system(err, errno, "cannot open " RECORDS);
    return each_record(records, fn, opaque, err);
}

int named_open(const char *name, struct named_network *ret_network, struct error *err)
{
    AUTO_CLOSE int records = open(RECORDS, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char path[NAMED_NAME_MAX + 8];

    snprintf(path, sizeof(path), "%.*s" SUFFIX, NAMED_NAME_MAX, name);
    if (!named_name_is_good(name) || records < 0 || faccessat(records, path, F_OK, 0) < 0)
        return error_set(err, ENOENT, "there is no network '%.63s'; 'lodge net ls' lists them",
                         name);
    return read_record(records, path, ret_network, err);
}

/* --- Making one --- */

/* What a new one must keep clear of. */
struct others {
    const struct named_network *wanted;
    const char *overlapping; /* out, with clash */
    struct named_network clash;
    bool bridge_taken;
};

static int compare(const struct named_network *network, void *opaque)
{
    struct others *others = opaque;

    if (strcmp(network->bridge, others->wanted->bridge) == 0)
        others->bridge_taken = true;
    if (subnet_overlaps(&network->subnet, &others->wanted->subnet)) {
        others->clash = *network;
        others->overlapping = others->clash.name;
    }
    return 0;
}

/* 0: the subnet is free. */
static int check_subnet(int records, const struct named_network *network, struct error *err)
{
    struct others others = {.wanted = network};
    char text[SUBNET_TEXT_MAX];
    int r = each_record(records, compare, &others, err);

    if (r < 0)
        return r;
    subnet_format(&network->subnet, text);
    if (others.overlapping)
        return error_set(err, EADDRINUSE, "the subnet %s overlaps with that of the network %s",
                         text, others.overlapping);
    r = subnet_is_used_by_host(&network->subnet, err);
    return r > 0 ? error_set(err, EADDRINUSE, "the host has an address in %s", text) : r;
}

static int find_subnet(int records, struct named_network *network, struct error *err)
{
    int r = -EADDRINUSE;

    network->subnet.prefix = SUBNET_PREFIX;
    for (uint32_t at = SUBNET_FIRST; r == -EADDRINUSE && at <= SUBNET_LAST; at += 0x100) {
        network->subnet.network = at;
        r = check_subnet(records, network, err);
    }
    return r;
}

static int find_bridge(int records, struct named_network *network, struct error *err)
{
    for (unsigned i = 0; i < BRIDGES_MAX; i++) {
        struct others others = {.wanted = network};
        int r;

        snprintf(network->bridge, sizeof(network->bridge), "lodgebr%u", i);
        r = each_record(records, compare, &others, err);
        if (r < 0)
            return r;
        if (!others.bridge_taken && !link_exists(network->bridge))
            return 0;
    }
    return error_set(err, ENOSPC, "there are too many networks");
}

int named_create(const char *name, const struct subnet *subnet, bool internal,
                 struct named_network *ret_network, struct error *err)
{
    struct named_network network = {.internal = internal};
    AUTO_CLOSE int records = -1;
    time_t now = time(NULL);
    struct tm utc;
    int r;

    if (!named_name_is_good(name) || network_kind_find(name) || strcmp(name, "host") == 0)
        return error_set(err, EINVAL,
                         "'%.80s' cannot be the name of a network: that has up to %d letters, "
                         "digits and dashes, and is no kind of network",
                         name, NAMED_NAME_MAX);
    records = lock_records(err);
    if (records < 0)
        return records;
    if (named_open(name, &network, NULL) == 0)
        return error_set(err, EEXIST, "there is a network '%s' already", name);
    strcpy(network.name, name);
    strftime(network.created, sizeof(network.created), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    r = find_bridge(records, &network, err);
    if (r == 0 && subnet) {
        network.subnet = *subnet;
        r = check_subnet(records, &network, err);
    } else if (r == 0) {
        r = find_subnet(records, &network, err);
    }
    if (r == 0)
        r = write_record(records, &network, err);
    if (r == 0)
        *ret_network = network;
    return r;
}

/* --- Up and away --- */

int named_bring_up(const struct named_network *network, bool *ret_ipv6, struct error *err)
{
    uint8_t mac[NETWORK_MAC_SIZE] = {0x02, 0x4c};
    int r = link_make_bridge(network->bridge, err);

    /* An address of its own: otherwise it takes those of its ports, and changes it as they come
     * and go. */
    store_be32(mac + 2, network->subnet.network);
    if (r == 0)
        r = link_set_mac(network->bridge, mac, err);
    if (r == 0)
        r = link_up(network->bridge, err);
    if (r == 0)
        r = link_set_addresses(network->bridge, &network->subnet, ret_ipv6, err);
    return r < 0 ? r : link_route_localhost(network->bridge, err);
}

int named_remove(const struct named_network *network, struct error *err)
{
    AUTO_CLOSE int records = lock_records(err), leases = -1;
    char path[NAMED_NAME_MAX + 8];
    int r;

    if (records < 0)
        return records;
    leases = lease_remove_all(network, err);
    r = leases < 0 ? leases : 0;
    if (r == 0)
        r = link_delete_bridge(network->bridge, err);
    snprintf(path, sizeof(path), "%s" SUFFIX, network->name);
    if (r == 0 && unlinkat(records, path, 0) < 0)
        r = error_system(err, errno, "cannot remove " RECORDS "/%s", path);
    return r;
}
