/* environment.h - the variables that --env-file and --env set for a guest's command. */
#ifndef LODGE_CLI_ENVIRONMENT_H
#define LODGE_CLI_ENVIRONMENT_H

#include "cli/cli.h"

struct environment {
    const char **variables; /* NAME=VALUE, or NAME: the caller's; NULL at the end; owned */
    char **texts;           /* of the files, which the list points into; NULL at the end; owned */
};

/* What the options called files and values say; with host, after all that the caller has. Those of
 * the files come first, so that values override them. A line of a file is NAME[=VALUE]; empty
 * ones, and those that begin with #, are passed over. */
int environment_read(const struct cli *cli, const char *files, const char *values, bool host,
                     struct environment *ret_environment, struct error *err);
void environment_release(struct environment *environment);

#endif
