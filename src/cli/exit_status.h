/* exit_status.h - how a guest ended, as the exit status of `lodge run`. */
#ifndef LODGE_CLI_EXIT_STATUS_H
#define LODGE_CLI_EXIT_STATUS_H

#include "machine/machine.h"

enum {
    EXIT_STATUS_TRIPLE_FAULT = 4,
    EXIT_STATUS_QUIT = 130,
    EXIT_STATUS_TERMINATED = 143,
};

struct exit_status {
    const char *status, *meaning; /* NULL ends the table */
};

extern const struct exit_status exit_statuses[];

/* The status for an outcome that is not MACHINE_FAILED or MACHINE_STOPPED. */
int exit_status_of(const struct machine_outcome *outcome);

#endif
