/* lodge exec: a further command in a guest that runs. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/guest.h"
#include "cli/verbs.h"
#include "container/protect.h"

static int close_input(struct error *err)
{
    AUTO_CLOSE int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    return null < 0 || dup2(null, STDIN_FILENO) < 0
               ? error_system(err, errno, "cannot open /dev/null")
               : 0;
}

static int exec_run(struct cli *cli, struct error *err)
{
    AUTO_FREE const char **environment = guest_values(cli, "env");
    struct guest_options options = {
        .environment = environment,
        .user = cli_value(cli, "user"),
        .working_directory = cli_value(cli, "workdir"),
        .terminal = cli_flag(cli, "tty"),
        .interactive = cli_flag(cli, "interactive"),
    };
    struct guest guest;
    int r = protect_self(err);

    if (r == 0)
        r = guest_operand(cli, 2, -1, &guest, err);
    if (r < 0)
        return r;
    options.command = (const char *const *)cli->argv + 1;
    r = options.interactive ? 0 : close_input(err);
    if (r == 0)
        r = guest_exec(&guest, &options, cli->log, err);
    guest_close(&guest);
    return r < 0 ? -EIO : r;
}

static const struct cli_option exec_options[] = {
    {"interactive", 'i', NULL, "Keep the standard input open.", NULL},
    {"tty", 't', NULL, "Give it a terminal.", NULL},
    {"env", 'e', "NAME=VALUE", "Set a variable.", NULL},
    {"user", 'u', "USER[:GROUP]", "Who the command runs as.", NULL},
    {"workdir", 'w', "DIR", "The working directory.", NULL},
    {0},
};

const struct verb exec_command = {
    .name = "exec",
    .summary = "run a further command in a guest",
    .operands = "GUEST COMMAND...",
    .description = "The exit status is the command's.",
    .options = exec_options,
    .raw_options = true,
    .run = exec_run,
};
