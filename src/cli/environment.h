/* environment.h - the variables that --env-file and --env set for a guest's command. */
#ifndef LODGE_CLI_ENVIRONMENT_H
#define LODGE_CLI_ENVIRONMENT_H

#include "cli/cli.h"

struct environment {
    const char **variables; /* NAME=VALUE, or NAME: the caller's; NULL at the end; owned */
    char **texts;           /* of the files, which the list points into; NULL at the end; owned */
};

/* Those of the files first, so that --env overrides them. A line of a file is NAME[=VALUE]; empty
 * ones, and those that begin with #, are passed over. */
int environment_read(const struct cli *cli, struct environment *ret_environment, struct error *err);
void environment_release(struct environment *environment);

#endif
