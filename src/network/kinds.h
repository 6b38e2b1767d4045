/* kinds.h - the rows of the table of networks, each in its own file. */
#ifndef LODGE_NETWORK_KINDS_H
#define LODGE_NETWORK_KINDS_H

#include "network/network.h"

extern const struct network_kind network_user, network_tap, network_switch, network_none;

/* What is no row: a network of named.h, its name in place of the kind's. */
extern const struct network_kind network_named;

#endif
