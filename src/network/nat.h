/* nat.h - hides a guest behind the host and leads published ports to it, by a
 * table of nftables that is there exactly as long as its owner: it belongs to an
 * nft(8) that waits at a pipe, so it goes in whatever way this process ends. */
#ifndef LODGE_NETWORK_NAT_H
#define LODGE_NETWORK_NAT_H

#include <net/if.h>

#include "network/network.h"
#include "network/subnet.h"

struct nat_config {
    const char *name;   /* the table is lodge-NAME */
    const char *device; /* of the host, behind which the guest is */
    struct subnet subnet;
    struct in_addr guest;
    bool internal; /* nothing goes out of the network, and nothing comes in */
    const struct network_publish *publish;
    unsigned publish_count;
};

struct nat;

/* Published ports are taken first: -EADDRINUSE when somebody else has one. */
int nat_open(const struct nat_config *config, struct nat **ret_nat, struct error *err);
void nat_close(struct nat *nat); /* NULL is ignored */

#endif
