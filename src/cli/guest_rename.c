/* lodge rename: another name for a guest. */
#include "cli/guest.h"
#include "cli/image.h"
#include "cli/verbs.h"

static int rename_run(struct cli *cli, struct error *err)
{
    struct store *store = NULL;
    struct guest guest;
    int r = guest_operand(cli, 2, 2, &guest, err);

    if (r < 0)
        return r;
    r = image_store_open(cli, &store, err);
    if (r == 0)
        r = guest_rename(&guest, cli->argv[1], store, err);
    store_close(store);
    guest_close(&guest);
    return r < 0 ? -EIO : CLI_OK;
}

static const struct cli_option options[] = {
    IMAGE_STORE_OPTION,
    {0},
};

const struct verb rename_command = {
    .name = "rename",
    .summary = "give another name to a guest that does not run",
    .operands = "GUEST NAME",
    .description = "It has that name in its networks, too, and as its host name unless it was "
                   "given another one, from its next start on.",
    .options = options,
    .run = rename_run,
};
