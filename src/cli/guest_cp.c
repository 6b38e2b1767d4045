/* lodge cp: files into a guest, and out of it. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/guest.h"
#include "cli/verbs.h"

/* The path behind GUEST:, or NULL when the operand is a path of the host. */
static const char *path_in_guest(const char *operand)
{
    size_t length = strcspn(operand, ":/");

    return operand[length] == ':' && length ? operand + length + 1 : NULL;
}

static int cp_run(struct cli *cli, struct error *err)
{
    const char *from = cli->argc == 2 ? path_in_guest(cli->argv[0]) : NULL;
    const char *to = cli->argc == 2 ? path_in_guest(cli->argv[1]) : NULL;
    AUTO_FREE char *name = NULL;
    struct guest guest;
    int r;

    if (!from == !to)
        return error_set(err, EINVAL, "usage: lodge cp GUEST:PATH PATH, or PATH GUEST:PATH");
    name = strndup(cli->argv[from ? 0 : 1], strcspn(cli->argv[from ? 0 : 1], ":"));
    r = guest_open(name ? name : "", &guest, err);
    if (r < 0)
        return -EIO;
    r = from ? guest_copy_out(&guest, from, cli->argv[1], err)
             : guest_copy_in(&guest, cli->argv[0], to, err);
    guest_close(&guest);
    return r < 0 ? -EIO : CLI_OK;
}

const struct verb cp_command = {
    .name = "cp",
    .summary = "copy files and directories into a container that runs, or out of it",
    .operands = "[GUEST:]PATH [GUEST:]PATH",
    .description = "Owners and modes are kept. A directory is copied whole, into the target when "
                   "that is a directory, else as the target, where nothing is called so.",
    .run = cp_run,
};
