#include "network/lease.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "network/directory.h"

#define LEASES         "/run/lodge/networks"
#define LEASE_TEXT_MAX 64

/* --- Files --- */

/* The leases of a network, which only one process at a time adds to or takes from while it holds
 * the descriptor. */
static int lock_leases(const struct named_network *network, struct error *err)
{
    char path[sizeof(LEASES) + NAMED_NAME_MAX + 2];
    AUTO_CLOSE int fd = -1;

    snprintf(path, sizeof(path), LEASES "/%s", network->name);
    fd = directory_open(path, err);
    if (fd < 0)
        return fd;
    if (flock(fd, LOCK_EX) < 0)
        return error_system(err, errno, "cannot lock %s", path);
    return steal_fd(&fd);
}

static bool is_held(int fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

/* What a lease says, if it is one that is held. */
static bool read_lease(int leases, const char *name, struct lease_guest *ret_guest)
{
    AUTO_CLOSE int fd = openat(leases, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct lease_guest guest = {.name = name};
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

bool lease_find(int directory_fd, const char *name, struct in_addr *ret_address)
{
    struct lease_guest guest;

    if (!named_name_is_good(name) || !read_lease(directory_fd, name, &guest))
        return false;
    *ret_address = guest.address;
    return true;
}

static int by_address(const void *a, const void *b)
{
    uint32_t x = ntohl(((const struct lease_guest *)a)->address.s_addr),
             y = ntohl(((const struct lease_guest *)b)->address.s_addr);

    return x < y ? -1 : x > y;
}

/* All that are held, by address. Both outputs are freed by the caller; guests have their names
 * from the entries. */
static int list_guests(int leases, struct dirent ***ret_entries, int *ret_entry_count,
                       struct lease_guest **ret_guests, struct error *err)
{
    struct dirent **entries;
    int count = directory_list(leases, &entries, err), used = 0;
    struct lease_guest *guests;

    if (count < 0)
        return count;
    guests = calloc((size_t)count + 1, sizeof(*guests));
    if (!guests) {
        directory_free(entries, count);
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

int lease_guests(const struct named_network *network,
                 int (*fn)(const struct lease_guest *guest, void *opaque), void *opaque,
                 struct error *err)
{
    char path[sizeof(LEASES) + NAMED_NAME_MAX + 2];
    AUTO_CLOSE int leases = -1;
    AUTO_FREE struct lease_guest *guests = NULL;
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
    directory_free(entries, entry_count);
    return r;
}

static bool is_taken(const struct lease_guest *guests, int count, uint32_t address)
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
    AUTO_FREE struct lease_guest *guests = NULL;
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
    directory_free(entries, entry_count);
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

static int write_lease(int leases, const struct named_network *network, struct lease *lease,
                      const uint8_t m[NETWORK_MAC_SIZE], struct error *err)
{
    const struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    AUTO_CLOSE int fd =
        openat(leases, lease->name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    char text[LEASE_TEXT_MAX], address[INET_ADDRSTRLEN];
    int length;

    if (fd >= 0 && is_held(fd))
        return error_set(err, EADDRINUSE, "a guest of the network %s is called %s already: give "
                                          "this one another name", network->name, lease->name);
    inet_ntop(AF_INET, &lease->address, address, sizeof(address));
    length = snprintf(text, sizeof(text), "%s %02x:%02x:%02x:%02x:%02x:%02x\n", address, m[0], m[1],
                      m[2], m[3], m[4], m[5]);
    if (fd < 0 || ftruncate(fd, 0) < 0 || write(fd, text, (size_t)length) != length ||
        fcntl(fd, F_OFD_SETLK, &lock) < 0)
        return error_system(err, errno, "cannot take a place in the network %s", network->name);
    lease->fd = steal_fd(&fd);
    return 0;
}

int lease_take(const struct named_network *network, const char *name, struct in_addr address,
               const uint8_t mac[NETWORK_MAC_SIZE], struct lease *ret_lease,
               struct error *err)
{
    AUTO_CLOSE int leases = lock_leases(network, err);
    struct lease lease = {.fd = -1, .directory_fd = -1};
    int r;

    if (leases < 0)
        return leases;
    r = choose_address(network, leases, address, &lease.address, err);
    if (r == 0)
        r = choose_name(name, lease.address, lease.name, err);
    if (r == 0)
        r = write_lease(leases, network, &lease, mac, err);
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

/* --- Letting go --- */

void lease_release(struct lease *lease)
{
    if (lease->fd >= 0)
        close(lease->fd);
    if (lease->directory_fd >= 0)
        close(lease->directory_fd);
}

int lease_remove_all(const struct named_network *network, struct error *err)
{
    AUTO_FREE struct lease_guest *guests = NULL;
    char path[sizeof(LEASES) + NAMED_NAME_MAX + 2];
    AUTO_CLOSE int leases = lock_leases(network, err);
    struct dirent **entries;
    int entry_count, count;

    if (leases < 0)
        return leases;
    count = list_guests(leases, &entries, &entry_count, &guests, err);
    if (count < 0)
        return count;
    if (count)
        error_set(err, EBUSY, "the network %s has a guest: %s", network->name, guests[0].name);
    for (int i = 0; !count && i < entry_count; i++)
        unlinkat(leases, entries[i]->d_name, 0);
    directory_free(entries, entry_count);
    snprintf(path, sizeof(path), LEASES "/%s", network->name);
    if (count)
        return -EBUSY;
    rmdir(path);
    return steal_fd(&leases);
}
