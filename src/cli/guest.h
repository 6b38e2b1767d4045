/* guest.h - what the verbs about guests share; one file a verb, or a pair of them. */
#ifndef LODGE_CLI_GUEST_H
#define LODGE_CLI_GUEST_H

#include "cli/cli.h"
#include "guest/guest.h"

/* All values of a repeated option, NULL at the end; only the list is to be freed. */
const char **guest_values(const struct cli *cli, const char *name);

/* Open the guest that operand 0 names; least and most count all operands (most -1: any). */
int guest_operand(const struct cli *cli, int least, int most, struct guest *ret_guest,
                  struct error *err);

/* Do fn for the guest that each operand names. Stops at the first failure. */
int guest_each(struct cli *cli, int (*fn)(struct cli *cli, struct guest *guest, struct error *err),
               struct error *err);

/* How long an end may take, in milliseconds: the row's value, once it was checked. */
#define GUEST_TIME_OPTION                                                                          \
    {"time", 't', "SECONDS", "How long it may take before it is killed (default 10).", NULL}
int guest_check_timeout(const struct cli *cli, struct error *err);
unsigned guest_stop_timeout(const struct cli *cli, const struct guest *guest);

#endif
