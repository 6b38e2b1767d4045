#include "network/named.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "network/link.h"

#define RECORDS        "/var/lib/lodge/networks"
#define LEASES         "/run/lodge/networks"
#define SUFFIX         ".json"
#define RECORD_MAX     4096
#define SUBNET_FIRST   0x0a4e0000u /* 10.78.0.0/16, a /24 for each network */
#define SUBNET_LAST    0x0a4eff00u
#define SUBNET_PREFIX  24
#define BRIDGES_MAX    1000u
#define LEASE_TEXT_MAX 64

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

/* Make the directory and those above it, and open it. */
static int open_directory(const char *path, struct error *err)
{
    char part[128];
    int fd;

    for (const char *slash = path; slash; ) {
        slash = strchr(slash + 1, '/');
        snprintf(part, sizeof(part), "%.*s", slash ? (int)(slash - path) : (int)strlen(path), path);
        if (mkdir(part, 0755) < 0 && errno != EEXIST)
            return error_system(err, errno, "cannot make %s", part);
    }
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? error_system(err, errno, "cannot open %s", path) : fd;
}

/* The records, which only one process at a time adds to or takes from while it holds the
 * descriptor. */
static int lock_records(struct error *err)
{
    AUTO_CLOSE int fd = open_directory(RECORDS, err);

    if (fd < 0)
        return fd;
    if (flock(fd, LOCK_EX) < 0)
        return error_system(err, errno, "cannot lock " RECORDS);
    return steal_fd(&fd);
}

/* The leases of a network, likewise. */
static int lock_leases(const struct named_network *network, struct error *err)
{
    char path[sizeof(LEASES) + NAMED_NAME_MAX + 2];
    AUTO_CLOSE int fd = -1;

    snprintf(path, sizeof(path), LEASES "/%s", network->name);
    fd = open_directory(path, err);
    if (fd < 0)
        return fd;
    if (flock(fd, LOCK_EX) < 0)
        return error_system(err, errno, "cannot lock %s", path);
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

/* Names of a directory's files, in order; freed by the caller. */
static int list_directory(int directory, struct dirent ***ret_entries, struct error *err)
{
    int count = scandirat(directory, ".", ret_entries, NULL, alphasort);

    return count < 0 ? error_system(err, errno, "cannot list networks") : count;
}

static void free_entries(struct dirent **entries, int count)
{
    while (count > 0)
        free(entries[--count]);
    free(entries);
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
    int count = list_directory(records, &entries, err), r = 0;

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
    free_entries(entries, count);
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
        return error_set(err, EINVAL, "'%.80s' cannot be the name of a network: that has letters, "
                                      "digits and dashes, and is no kind of network", name);
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

/* --- Guests --- */

static bool is_held(int fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

/* What a lease says, if it is one that is held. */
static bool read_lease(int leases, const char *name, struct named_guest *ret_guest)
{
    AUTO_CLOSE int fd = openat(leases, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct named_guest guest = {.name = name};
    char text[LEASE_TEXT_MAX], address[INET_ADDRSTRLEN];
    uint8_t *m = guest.mac;
    ssize_t n;

    if (fd < 0 || !is_held(fd) || (n = read(fd, text, sizeof(text) - 1)) <= 0)
        return false;
    text[n] = 0;
    if (sscanf(text, "%15s %hhx:%hhx:%hhx:%hhx:%hhx:%hhx", address, m, m + 1, m + 2, m + 3, m + 4,
               m + 5) != 7 || inet_pton(AF_INET, address, &guest.address) != 1)
        return false;
    *ret_guest = guest;
    return true;
}

bool named_find(int directory_fd, const char *name, struct in_addr *ret_address)
{
    struct named_guest guest;

    if (!named_name_is_good(name) || !read_lease(directory_fd, name, &guest))
        return false;
    *ret_address = guest.address;
    return true;
}

static int by_address(const void *a, const void *b)
{
    uint32_t x = ntohl(((const struct named_guest *)a)->address.s_addr),
             y = ntohl(((const struct named_guest *)b)->address.s_addr);

    return x < y ? -1 : x > y;
}

/* All that are held, by address. Both outputs are freed by the caller; guests have their names
 * from the entries. */
static int list_guests(int leases, struct dirent ***ret_entries, int *ret_entry_count,
                       struct named_guest **ret_guests, struct error *err)
{
    struct dirent **entries;
    int count = list_directory(leases, &entries, err), used = 0;
    struct named_guest *guests;

    if (count < 0)
        return count;
    guests = calloc((size_t)count + 1, sizeof(*guests));
    if (!guests) {
        free_entries(entries, count);
        return error_set(err, ENOMEM, "out of memory");
    }
    for (int i = 0; i < count; i++)
        if (entries[i]->d_name[0] != '.' && read_lease(leases, entries[i]->d_name, &guests[used]))
            used++;
    qsort(guests, (size_t)used, sizeof(*guests), by_address);
    *ret_entries = entries;
    *ret_entry_count = count;
    *ret_guests = guests;
    return used;
}

int named_guests(const struct named_network *network,
                 int (*fn)(const struct named_guest *guest, void *opaque), void *opaque,
                 struct error *err)
{
    char path[sizeof(LEASES) + NAMED_NAME_MAX + 2];
    AUTO_CLOSE int leases = -1;
    AUTO_FREE struct named_guest *guests = NULL;
    struct dirent **entries;
    int entry_count, count, r = 0;

    snprintf(path, sizeof(path), LEASES "/%s", network->name);
    leases = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (leases < 0)
        return errno == ENOENT ? 0 : error_system(err, errno, "cannot open %s", path);
    count = list_guests(leases, &entries, &entry_count, &guests, err);
    if (count < 0)
        return count;
    for (int i = 0; r == 0 && i < count; i++)
        r = fn(&guests[i], opaque);
    free_entries(entries, entry_count);
    return r;
}

static bool is_taken(const struct named_guest *guests, int count, uint32_t address)
{
    for (int i = 0; i < count; i++)
        if (ntohl(guests[i].address.s_addr) == address)
            return true;
    return false;
}

/* The address is the wanted one, or the first that nobody has. */
static int choose_address(const struct named_network *network, int leases, struct in_addr wanted,
                          struct in_addr *ret_address, struct error *err)
{
    const struct subnet *subnet = &network->subnet;
    AUTO_FREE struct named_guest *guests = NULL;
    uint32_t address = wanted.s_addr ? ntohl(wanted.s_addr) : subnet->network + 2;
    char text[SUBNET_TEXT_MAX];
    struct dirent **entries;
    int entry_count, count;

    if (wanted.s_addr && !subnet_has_guest(subnet, wanted))
        return error_set(err, EINVAL, "%s is no address for a guest of the network %s, %s",
                         inet_ntop(AF_INET, &wanted, (char[INET_ADDRSTRLEN]){0}, INET_ADDRSTRLEN),
                         network->name, subnet_format(subnet, text));
    count = list_guests(leases, &entries, &entry_count, &guests, err);
    if (count < 0)
        return count;
    free_entries(entries, entry_count);
    while (!wanted.s_addr && is_taken(guests, count, address))
        address++;
    ret_address->s_addr = htonl(address);
    if (is_taken(guests, count, address))
        return error_set(err, EADDRINUSE, "another guest of the network %s has that address",
                         network->name);
    if (!subnet_has_guest(subnet, *ret_address))
        return error_set(err, ENOSPC, "the network %s has no address left", network->name);
    return 0;
}

/* The guest's name: what was given, in lower case, or made of its address. */
static int choose_name(const char *name, struct in_addr address, char *ret_name, struct error *err)
{
    uint32_t a = ntohl(address.s_addr);

    if (!name) {
        snprintf(ret_name, NAMED_NAME_MAX + 1, "guest-%u-%u", a >> 8 & 255, a & 255);
        return 0;
    }
    if (!named_name_is_good(name))
        return error_set(err, EINVAL, "'%.80s' cannot be a guest's name on a network: that has "
                                      "letters, digits and dashes", name);
    for (size_t i = 0; i <= strlen(name); i++)
        ret_name[i] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] + 32 : name[i]);
    return 0;
}

static int take_lease(int leases, const struct named_network *network, struct named_lease *lease,
                      const uint8_t m[NETWORK_MAC_SIZE], struct error *err)
{
    const struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    AUTO_CLOSE int fd = openat(leases, lease->name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    char text[LEASE_TEXT_MAX], address[INET_ADDRSTRLEN];
    int length;

    if (fd >= 0 && is_held(fd))
        return error_set(err, EADDRINUSE, "a guest of the network %s is called %s already; --network "
                                          "%s,name=NAME gives it another name there",
                         network->name, lease->name, network->name);
    inet_ntop(AF_INET, &lease->address, address, sizeof(address));
    length = snprintf(text, sizeof(text), "%s %02x:%02x:%02x:%02x:%02x:%02x\n", address, m[0], m[1],
                      m[2], m[3], m[4], m[5]);
    if (fd < 0 || ftruncate(fd, 0) < 0 || write(fd, text, (size_t)length) != length ||
        fcntl(fd, F_OFD_SETLK, &lock) < 0)
        return error_system(err, errno, "cannot take a place in the network %s", network->name);
    lease->fd = steal_fd(&fd);
    return 0;
}

int named_join(const struct named_network *network, const char *name, struct in_addr address,
               const uint8_t mac[NETWORK_MAC_SIZE], struct named_lease *ret_lease,
               struct error *err)
{
    AUTO_CLOSE int leases = lock_leases(network, err);
    struct named_lease lease = {.fd = -1, .directory_fd = -1};
    int r;

    if (leases < 0)
        return leases;
    r = choose_address(network, leases, address, &lease.address, err);
    if (r == 0)
        r = choose_name(name, lease.address, lease.name, err);
    if (r == 0)
        r = take_lease(leases, network, &lease, mac, err);
    if (r < 0)
        return r;
    /* Opened again, so that it is not locked. */
    lease.directory_fd = openat(leases, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lease.directory_fd < 0) {
        r = error_system(err, errno, "cannot open the leases of the network %s", network->name);
        close(lease.fd);
        return r;
    }
    *ret_lease = lease;
    return 0;
}

/* --- Removing one --- */

/* Nobody joins meanwhile: the leases are locked. */
static int remove_leases(const struct named_network *network, int leases, struct error *err)
{
    AUTO_FREE struct named_guest *guests = NULL;
    char path[sizeof(LEASES) + NAMED_NAME_MAX + 2];
    struct dirent **entries;
    int entry_count, count = list_guests(leases, &entries, &entry_count, &guests, err), r = 0;

    if (count < 0)
        return count;
    if (count)
        r = error_set(err, EBUSY, "the network %s has a guest: %s", network->name, guests[0].name);
    for (int i = 0; r == 0 && i < entry_count; i++)
        unlinkat(leases, entries[i]->d_name, 0);
    free_entries(entries, entry_count);
    snprintf(path, sizeof(path), LEASES "/%s", network->name);
    if (r == 0)
        rmdir(path);
    return r;
}

int named_remove(const struct named_network *network, struct error *err)
{
    AUTO_CLOSE int records = lock_records(err), leases = -1;
    char path[NAMED_NAME_MAX + 8];
    int r;

    if (records < 0)
        return records;
    leases = lock_leases(network, err);
    if (leases < 0)
        return leases;
    r = remove_leases(network, leases, err);
    if (r == 0)
        r = link_delete_bridge(network->bridge, err);
    snprintf(path, sizeof(path), "%s" SUFFIX, network->name);
    if (r == 0 && unlinkat(records, path, 0) < 0)
        r = error_system(err, errno, "cannot remove " RECORDS "/%s", path);
    return r;
}
