/* lodge stop, kill, rm, prune: the ends of guests; pause, unpause. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/signal_number.h"
#include "cli/guest.h"
#include "cli/image.h"
#include "cli/verbs.h"

#define TIMEOUT_DEFAULT 10

enum { TRIES_MAX = 20 };

unsigned guest_stop_timeout(const struct cli *cli, const struct guest *guest)
{
    const char *text = cli_value(cli, "time");
    const json_t *own = json_object_get(guest->record, "stopTimeout");

    if (text)
        return 1000 * (unsigned)atoi(text);
    return 1000 * (own ? (unsigned)json_integer_value(own) : TIMEOUT_DEFAULT);
}

int guest_check_timeout(const struct cli *cli, struct error *err)
{
    const char *text = cli_value(cli, "time");

    if (text && (!*text || strlen(text) > 5 || text[strspn(text, "0123456789")]))
        return error_set(err, EINVAL, "--time '%s' is no number of seconds", text);
    return 0;
}

static int stop(struct cli *cli, struct guest *guest, struct error *err)
{
    return guest_stop(guest, guest_stop_timeout(cli, guest), err);
}

static int stop_run(struct cli *cli, struct error *err)
{
    int r = guest_check_timeout(cli, err);

    return r < 0 ? r : guest_each(cli, stop, err);
}

static int kill_guest(struct cli *cli, struct guest *guest, struct error *err)
{
    const char *text = cli_value(cli, "signal");

    return guest_kill(guest, text ? signal_number(text) : SIGKILL, err);
}

static int kill_run(struct cli *cli, struct error *err)
{
    const char *text = cli_value(cli, "signal");

    if (text && signal_number(text) < 0)
        return error_set(err, EINVAL, "--signal '%s' is no signal", text);
    return guest_each(cli, kill_guest, err);
}

static int remove_guest(struct cli *cli, struct guest *guest, struct error *err)
{
    bool force = cli_flag(cli, "force");
    struct store *store = NULL;
    int r = image_store_open(cli, &store, err);

    /* It may be started in between, or have been at its start. */
    for (unsigned tries = 0; r == 0 && tries < TRIES_MAX; tries++) {
        if (force)
            r = guest_stop(guest, 0, err);
        if (r == 0)
            r = guest_remove(guest, store, cli_flag(cli, "volumes"), err);
        if (!force || r != -EBUSY)
            break;
        r = tries + 1 < TRIES_MAX ? 0 : r;
    }
    store_close(store);
    return r;
}

static int rm_run(struct cli *cli, struct error *err)
{
    return guest_each(cli, remove_guest, err);
}

struct pruning {
    struct cli *cli;
    struct store *store;
    struct error *err;
};

/* One that has ended, and that nobody is starting again. */
static int prune_one(struct guest *guest, void *opaque)
{
    const struct pruning *pruning = opaque;
    struct guest_status status;
    int r = guest_status(guest, &status, pruning->err);

    if (r < 0 || status.state != GUEST_EXITED)
        return r;
    r = guest_remove(guest, pruning->store, false, pruning->err);
    if (r == 0)
        fprintf(pruning->cli->out, "%s\n", guest->name);
    return r;
}

static int prune_run(struct cli *cli, struct error *err)
{
    struct pruning pruning = {.cli = cli, .err = err};
    int r = image_store_open(cli, &pruning.store, err);

    if (r == 0)
        r = guest_remove_remains(pruning.store, err);
    if (r == 0)
        r = guest_list(prune_one, &pruning, err);
    store_close(pruning.store);
    return r < 0 ? -EIO : CLI_OK;
}

static int pause_guest(struct cli *cli, struct guest *guest, struct error *err)
{
    return guest_pause(guest, cli->verb == &pause_command, err);
}

static int pause_run(struct cli *cli, struct error *err)
{
    return guest_each(cli, pause_guest, err);
}

static const struct cli_option stop_options[] = {
    GUEST_TIME_OPTION,
    {0},
};

static const struct cli_option kill_options[] = {
    {"signal", 's', "SIGNAL", "A name or a number (default KILL).", "HUP INT QUIT KILL TERM"},
    {0},
};

static const struct cli_option rm_options[] = {
    {"force", 'f', NULL, "Kill it first when it runs.", NULL},
    {"volumes", 'v', NULL, "Remove its anonymous volumes too.", NULL},
    IMAGE_STORE_OPTION,
    {0},
};

static const struct cli_option prune_options[] = {
    IMAGE_STORE_OPTION,
    {0},
};

const struct verb stop_command = {
    .name = "stop",
    .summary = "ask guests to end, and kill those that do not",
    .operands = "GUEST...",
    .options = stop_options,
    .run = stop_run,
};

const struct verb kill_command = {
    .name = "kill",
    .summary = "send a signal to guests",
    .operands = "GUEST...",
    .options = kill_options,
    .run = kill_run,
};

const struct verb rm_command = {
    .name = "rm",
    .summary = "remove guests, with all that they wrote",
    .operands = "GUEST...",
    .options = rm_options,
    .run = rm_run,
};

const struct verb pause_command = {
    .name = "pause",
    .summary = "let guests stand still",
    .operands = "GUEST...",
    .run = pause_run,
};

const struct verb unpause_command = {
    .name = "unpause",
    .summary = "let guests go on that stand still",
    .operands = "GUEST...",
    .run = pause_run,
};

const struct verb prune_command = {
    .name = "prune",
    .summary = "remove all guests that have ended",
    .options = prune_options,
    .run = prune_run,
};
