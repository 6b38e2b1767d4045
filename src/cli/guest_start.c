/* lodge start, restart: guests that have ended, or are to end, run again. */
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/guest.h"
#include "cli/guest_live.h"
#include "cli/image.h"
#include "cli/verbs.h"
#include "container/protect.h"
#include "guest/rootless.h"

static int start(struct cli *cli, struct guest *guest, struct error *err)
{
    struct store *store = NULL;
    int r = guest_restart(guest, err);

    if (r == 0)
        r = image_store_open(cli, &store, err);
    if (r == 0)
        r = guest_live(cli, guest, !cli_flag(cli, "attach"), &store, err);
    store_close(store);
    return r;
}

static int start_run(struct cli *cli, struct error *err)
{
    struct guest guest;
    int r = rootless_enter(err);

    if (r == 0)
        r = protect_self(err);
    if (r < 0 || !cli_flag(cli, "attach"))
        return r < 0 ? r : guest_each(cli, start, err);
    r = guest_operand(cli, 1, 1, &guest, err);
    if (r < 0)
        return r;
    r = start(cli, &guest, err);
    guest_close(&guest);
    return r;
}

static int restart_one(struct cli *cli, struct guest *guest, struct error *err)
{
    struct guest again;
    int r = guest_stop(guest, guest_stop_timeout(cli, guest), err);

    if (r < 0)
        return r;
    r = guest_open(guest->name, &again, err);
    if (guest->lock_fd >= 0) /* of the stopped one; start takes it anew */
        close(steal_fd(&guest->lock_fd));
    if (r == 0) {
        r = start(cli, &again, err);
        guest_close(&again);
    }
    return r;
}

static int restart_run(struct cli *cli, struct error *err)
{
    int r = rootless_enter(err);

    if (r == 0)
        r = protect_self(err);
    if (r == 0)
        r = guest_check_timeout(cli, err);
    return r < 0 ? r : guest_each(cli, restart_one, err);
}

static const struct cli_option start_options[] = {
    {"attach", 'a', NULL, "Stay with the guest (one only), whose exit status is returned.", NULL},
    IMAGE_STORE_OPTION,
    {0},
};

static const struct cli_option restart_options[] = {
    GUEST_TIME_OPTION,
    IMAGE_STORE_OPTION,
    {0},
};

const struct verb start_command = {
    .name = "start",
    .summary = "run guests again that have ended, with what they wrote",
    .operands = "GUEST...",
    .options = start_options,
    .run = start_run,
};

const struct verb restart_command = {
    .name = "restart",
    .summary = "stop guests that run, and start them again",
    .operands = "GUEST...",
    .options = restart_options,
    .run = restart_run,
};
