/* lease.h - the guests of a named network, and their addresses:
 *
 *     /run/lodge/networks/NETWORK/GUEST   "ADDRESS MAC" of a guest, its name in lower case
 *
 * A guest has its address as long as its process holds the file locked (fcntl(2), open file
 * description locks): however that process ends, the address is free. A file without a lock is
 * left over, and means nothing. */
#ifndef LODGE_NETWORK_LEASE_H
#define LODGE_NETWORK_LEASE_H

#include "network/named.h"

/* A guest's place in a network. */
struct lease {
    int fd;           /* holds it; closed by the owner */
    int directory_fd; /* the leases of the network; closed by the owner */
    char name[NAMED_NAME_MAX + 1];
    struct in_addr address;
};

/* A guest that has joined. */
struct lease_guest {
    const char *name;
    struct in_addr address;
    uint8_t mac[NETWORK_MAC_SIZE];
};

/* Take a place. name NULL: one is made up; address 0: the first that is free. -EADDRINUSE when
 * another guest has that name or address. */
int lease_take(const struct named_network *network, const char *name, struct in_addr address,
               const uint8_t mac[NETWORK_MAC_SIZE], struct lease *ret_lease, struct error *err);
/* Close what is open of it; a lease that was never taken has descriptors of -1. */
void lease_release(struct lease *lease);

/* The address of a guest, by its name in lower case. Works within the sandbox. */
bool lease_find(int directory_fd, const char *name, struct in_addr *ret_address);

/* Call fn with each guest that is in the network, by address; a negative return of fn ends it. */
int lease_guests(const struct named_network *network,
                 int (*fn)(const struct lease_guest *guest, void *opaque), void *opaque,
                 struct error *err);

/* Remove what is left over. -EBUSY while there are guests; otherwise a descriptor, and nobody
 * joins until the caller closes it. */
int lease_remove_all(const struct named_network *network, struct error *err);

#endif
