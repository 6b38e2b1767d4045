/* run_devices.h - the options of `lodge run` that plug devices in. */
#ifndef LODGE_CLI_RUN_DEVICES_H
#define LODGE_CLI_RUN_DEVICES_H

#include "cli/cli.h"
#include "machine/machine.h"

#define RUN_DEVICE_OPTIONS

/* Plug in what the options ask for, and what every machine has. */
int run_devices_add(const struct cli *cli, struct machine *machine, struct error *err);

#endif
