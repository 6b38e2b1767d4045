/* guest_live.h - the life of a guest from launch to end, by the process that waits for it. */
#ifndef LODGE_CLI_GUEST_LIVE_H
#define LODGE_CLI_GUEST_LIVE_H

#include "cli/cli.h"
#include "guest/guest.h"

/* Launch a guest whose lock is held, wait for it and clean up; returns its exit status. Detached, a
 * process of its own does so, and this one prints the guest's name when it runs. The store
 * is closed early: then *store is NULL. */
int guest_live(struct cli *cli, struct guest *guest, bool detached, struct store **store,
               struct error *err);

#endif
