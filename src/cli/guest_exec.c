/* lodge exec: a further command in a guest that runs. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/guest.h"
#include "cli/oci.h"
#include "cli/verbs.h"
#include "container/protect.h"
#include "guest/vm.h"

static int execute(struct cli *cli, struct guest *guest, const struct guest_options *options,
                   struct error *err)
{
    struct oci_relay *relay = NULL;
    AUTO_CLOSE int console_fd = -1;
    AUTO_FREE char *text = NULL;
    pid_t pid;
    int r = guest_exec_text(guest, options, &text, err);

    if (r == 0 && !options->interactive) {
        AUTO_CLOSE int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

        if (null < 0 || dup2(null, STDIN_FILENO) < 0)
            r = error_system(err, errno, "cannot open /dev/null");
    }
    if (r == 0 && guest_is_vm(guest))
        return vm_exec(guest, text, err);
    if (r == 0)
        r = oci_relay_open(options->terminal, &relay, &console_fd, err);
    if (r == 0)
        r = guest_exec(guest, text, console_fd, cli->log, &pid, err);
    if (console_fd >= 0)
        close(steal_fd(&console_fd));
    if (r == 0)
        r = oci_relay_run(relay, pid, err);
    oci_relay_close(relay);
    return r;
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
    r = execute(cli, &guest, &options, err);
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
