/* run_network.h - the options of `lodge run` that plug network cards in. */
#ifndef LODGE_CLI_RUN_NETWORK_H
#define LODGE_CLI_RUN_NETWORK_H

#include "cli/cli.h"
#include "machine/machine.h"

/* Rows for the verb's table of options. */
#define RUN_NETWORK_OPTIONS                                                                        \
    {"network", 'N', "NETWORK[,ip=A][,mac=M][,name=N][,queues=N][,mtu=N]",                         \
     "What a network card is plugged into; may be repeated. user: the host's connections; NAME: "  \
     "a network of 'lodge net create'; tap[:DEVICE]: a private network behind the host, or a "     \
     "port of a bridge by bridge=BRIDGE; switch:SOCKET: an Ethernet of 'lodge net switch'; none. " \
     "A container has one card: user (default), host (the host's own network) or none.",           \
     "user host tap switch: none"},                                                                \
    {"publish", 'p', "[ADDRESS:]HOST:GUEST[/udp]",                                                 \
     "Let a port of the host (of 127.0.0.1 unless said otherwise) lead to one of the guest, by "   \
     "its first network; ranges are like 8000-8009:80-89; may be repeated. Of an "                 \
     "image, GUEST[/udp] alone: by a free port of the host's, which 'lodge port' tells.", NULL},   \
    {"net-rate", 0, "SIZE", "How many bytes a second each card moves at most, each way.", NULL},

/* Plug in what the options ask for. */
int run_network_add(const struct cli *cli, struct machine *machine, struct error *err);

#endif
