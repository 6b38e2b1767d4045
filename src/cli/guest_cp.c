/* lodge cp: files into a guest, and out of it. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/guest.h"
#include "cli/image.h"
#include "cli/verbs.h"

/* The path behind GUEST:, or NULL when the operand is a path of the host. */
static const char *path_in_guest(const char *operand)
{
    size_t length = strcspn(operand, ":/");

    return operand[length] == ':' && length ? operand + length + 1 : NULL;
}

/* One that does not run is opened where its root can be mounted, with the store that it is of. */
static int open_guest(const struct cli *cli, const char *name, struct guest *ret_guest,
                      struct store **ret_store, struct error *err)
{
    struct guest_status status;
    struct guest guest;
    int r = guest_open(name, &guest, err);

    if (r < 0)
        return r;
    r = guest_status(&guest, &status, err);
    if (r == 0 && status.state != GUEST_RUNNING && status.state != GUEST_PAUSED) {
        guest_close(&guest);
        r = guest_prepare_copy(err);
        if (r == 0)
            r = image_store_open(cli, ret_store, err);
        if (r == 0)
            r = guest_open(name, &guest, err);
    }
    if (r < 0)
        return r;
    *ret_guest = guest;
    return 0;
}

static int cp_run(struct cli *cli, struct error *err)
{
    const char *from = cli->argc == 2 ? path_in_guest(cli->argv[0]) : NULL;
    const char *to = cli->argc == 2 ? path_in_guest(cli->argv[1]) : NULL;
    AUTO_FREE char *name = NULL;
    struct guest guest = {.fd = -1, .lock_fd = -1};
    struct store *store = NULL;
    int r;

    if (!from == !to)
        return error_set(err, EINVAL, "usage: lodge cp GUEST:PATH PATH, or PATH GUEST:PATH");
    name = strndup(cli->argv[from ? 0 : 1], strcspn(cli->argv[from ? 0 : 1], ":"));
    r = open_guest(cli, name ? name : "", &guest, &store, err);
    if (r == 0)
        r = from ? guest_copy_out(&guest, store, from, cli->argv[1], err)
                 : guest_copy_in(&guest, store, cli->argv[0], to, err);
    guest_close(&guest);
    store_close(store);
    return r < 0 ? -EIO : CLI_OK;
}

static const struct cli_option options[] = {
    IMAGE_STORE_OPTION,
    {0},
};

const struct verb cp_command = {
    .name = "cp",
    .summary = "copy files and directories into a guest, or out of it",
    .operands = "[GUEST:]PATH [GUEST:]PATH",
    .description = "Owners and modes are kept. A directory is copied whole, into the target when "
                   "that is a directory, else as the target, where nothing is called so.",
    .options = options,
    .run = cp_run,
};
