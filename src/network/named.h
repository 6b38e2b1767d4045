/* named.h - networks with a name, which guests join (lease.h). A file is all that remembers
 * one, so that any process of Lodge may die at any moment:
 *
 *     /var/lib/lodge/networks/NAME.json   what was asked for; written once
 *
 * Its bridge is made when the first guest joins, and stays until the network is removed. */
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

/* Make its bridge, with the host's addresses, unless that is there. ret_ipv6: the host has IPv6. */
int named_bring_up(const struct named_network *network, bool *ret_ipv6, struct error *err);

#endif
