/* lodge version. */
#include "cli/verbs.h"

static int version_run(struct cli *cli, struct error *err)
{
    (void)err;
    fprintf(cli->out, "lodge %s\n", LODGE_VERSION);
    return CLI_OK;
}

const struct verb version_command = {
    .name = "version",
    .summary = "print the version",
    .run = version_run,
};
