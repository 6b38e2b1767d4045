/* run_devices.h - the options of `lodge run` that plug devices in. */
#ifndef LODGE_CLI_RUN_DEVICES_H
#define LODGE_CLI_RUN_DEVICES_H

#include "base/sandbox.h"
#include "cli/cli.h"
#include "cli/run_network.h"
#include "machine/machine.h"

/* Rows for the verb's table of options. */
#define RUN_DEVICE_OPTIONS                                                                         \
    {"disk", 0, "PATH[,ro][,format=F][,serial=S][,queues=N]",                                    \
     "A disk; may be repeated. The guest sees virtio block devices in the order given.", "FILE"},  \
    {"disk-iops", 0, "N", "How many requests a second each disk serves at most.", NULL},           \
    {"disk-rate", 0, "SIZE", "How many bytes a second each disk moves at most.", NULL},        \
    RUN_NETWORK_OPTIONS                                                                            \
    {"share", 's', "DIR:TAG[:ro]",                                                                 \
     "Share a folder: the guest mounts it by 'mount -t 9p -o trans=virtio TAG /mnt'; may be "      \
     "repeated.", NULL},                                                                           \
    {"channel", 0, "NAME:SOCKET",                                                                  \
     "A channel to a program in the guest (/dev/virtio-ports/NAME) from whoever connects to the "  \
     "Unix socket; may be repeated.", NULL},                                                       \
    {"balloon", 0, "SIZE", "How much memory the guest is asked to give back at once.", NULL},

/* Plug in what the options ask for, and what every machine has. */
int run_devices_add(const struct cli *cli, struct machine *machine, struct error *err);
/* Keep what the devices come back to when the sandbox is closed. */
int run_devices_keep(const struct cli *cli, struct sandbox *sandbox, struct error *err);

#endif
