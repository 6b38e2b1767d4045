/* namespace.h - plugs a network namespace, of a container, into a named network. The
 * container has a card eth0 with its addresses and routes, and a name server at
 * NAMESPACE_RESOLVER that knows the other guests.
 *
 * A process of its own holds all that: the place in the network, the rules, the name
 * server. It is made here, needs nobody who waits for it, and ends with the container's first
 * process. */
#ifndef LODGE_NETWORK_NAMESPACE_H
#define LODGE_NETWORK_NAMESPACE_H

#include <sys/types.h>

#include "network/network.h"

/* As in docker's containers: an address of the loopback that nothing else has. */
#define NAMESPACE_RESOLVER "127.0.0.11"

struct namespace_config {
    const char *network;  /* a name (named.h) */
    const char *hostname; /* what others call the container */
    pid_t pid;            /* its first process */
    const struct network_publish *publish;
    unsigned publish_count;
};

int namespace_connect(const struct namespace_config *config, struct error *err);

#endif
