/* named.h - networks with a name, which guests join. Files are all that remembers
 * them, so that any process of Lodge may die at any moment:
 *
 *     /var/lib/lodge/networks/NAME.json   what was asked for; written once
 *     /run/lodge/networks/NAME/GUEST      "ADDRESS MAC" of a guest, its name in lower case
 *
 * A guest has its address as long as its process holds its file locked (fcntl(2), open
 * file description locks); a file without a lock is left over, and means nothing. The network's
 * bridge is made when the first guest joins, and stays until the network is removed. */
#ifndef LODGE_NETWORK_NAMED_H
#define LODGE_NETWORK_NAMED_H

#include <net/if.h>
#include <stdbool.h>

#include "base/error.h"
#include "network/network.h"
#include "network/subnet.h"

#define NAMED_NAME_MAX 63 /* of networks and of guests: a label of DNS */

struct named_network {
    char name[NAMED_NAME_MAX + 1];
    struct subnet subnet;
    char bridge[IFNAMSIZ];
    bool internal; /* no way out of it, and none in */
    char created[32]; /* UTC, RFC 3339 */
};

/* A guest's place in a network. */
struct named_lease {
    int fd;           /* holds it; closed by the owner */
    int directory_fd; /* the leases of the network; closed by the owner */
    char name[NAMED_NAME_MAX + 1];
    struct in_addr address;
};

/* A guest that has joined. */
struct named_guest {
    const char *name;
    struct in_addr address;
    uint8_t mac[NETWORK_MAC_SIZE];
};

/* Letters, digits and dashes, as host names have them (RFC 1123, 2.1). */
bool named_name_is_good(const char *name);

/* subnet NULL: one that is free. -EEXIST when there is one of that name, -EADDRINUSE when the
 * subnet overlaps with another's, or with an address of the host. */
int named_create(const char *name, const struct subnet *subnet, bool internal,
                 struct named_network *ret_network, struct error *err);
/* -ENOENT with words. */
int named_open(const char *name, struct named_network *ret_network, struct error *err);
/* Call fn with each, by name; a negative return of fn ends it. */
int named_list(int (*fn)(const struct named_network *network, void *opaque), void *opaque,
               struct error *err);
/* With its bridge. -EBUSY while guests are in it. */
int named_remove(const struct named_network *network, struct error *err);

/* Call fn with each guest that is in it, by address; a negative return of fn ends it. */
int named_guests(const struct named_network *network,
                 int (*fn)(const struct named_guest *guest, void *opaque), void *opaque,
                 struct error *err);

/* Take a place. name NULL: one is made up; address 0: the first that is free. */
int named_join(const struct named_network *network, const char *name, struct in_addr address,
               const uint8_t mac[NETWORK_MAC_SIZE], struct named_lease *ret_lease,
               struct error *err);
/* The address of a guest, by its name in lower case. Works within the sandbox. */
bool named_find(int directory_fd, const char *name, struct in_addr *ret_address);

#endif
