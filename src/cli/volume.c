/* lodge volume: directories with a name that outlive guests. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/guest.h"
#include "cli/json.h"
#include "cli/verbs.h"
#include "guest/rootless.h"
#include "guest/volume.h"

#define ROW "%-30s %-22s %s\n"

static int usage(const struct cli *cli, struct error *err)
{
    return error_set(err, EINVAL, "usage: lodge volume %s [OPTION...] %s", cli->verb->name,
                     cli->verb->operands ? cli->verb->operands : "");
}

static int run_create(struct cli *cli, struct error *err)
{
    AUTO_FREE const char **texts = guest_values(cli, "label");
    AUTO_CLOSE int lock = -1;
    json_t *labels;
    int r;

    if (cli->argc != 1)
        return usage(cli, err);
    labels = json_object();
    for (size_t i = 0; texts && texts[i]; i++) {
        const char *equals = strchrnul(texts[i], '=');

        json_object_setn_new(labels, texts[i], (size_t)(equals - texts[i]),
                             json_string(*equals ? equals + 1 : ""));
    }
    r = lock = volume_lock(err);
    if (r >= 0)
        r = volume_create(cli->argv[0], labels, err);
    json_decref(labels);
    if (r < 0)
        return r;
    fprintf(cli->out, "%s\n", cli->argv[0]);
    return CLI_OK;
}

struct listing {
    const struct cli *cli;
    json_t *rows; /* NULL: a table */
};

static int print_row(const char *name, void *opaque)
{
    const struct listing *listing = opaque;
    char guests[16];
    json_t *tree;

    if (volume_describe(name, &tree, NULL) < 0) /* removed meanwhile */
        return 0;
    if (listing->rows) {
        json_array_append_new(listing->rows, tree);
        return 0;
    }
    snprintf(guests, sizeof(guests), "%zu", json_array_size(json_object_get(tree, "guests")));
    fprintf(listing->cli->out, ROW, name, json_string_value(json_object_get(tree, "created")),
            guests);
    json_decref(tree);
    return 0;
}

static int run_ls(struct cli *cli, struct error *err)
{
    struct listing listing = {cli, cli_flag(cli, "json") ? json_array() : NULL};
    int r;

    if (!listing.rows)
        fprintf(cli->out, ROW, "NAME", "CREATED", "GUESTS");
    r = volume_list(print_row, &listing, err);
    if (r < 0)
        json_decref(listing.rows);
    return r < 0 ? r : listing.rows ? cli_print_json(cli, listing.rows, err) : CLI_OK;
}

static int run_inspect(struct cli *cli, struct error *err)
{
    json_t *rows, *tree;

    if (!cli->argc)
        return usage(cli, err);
    rows = json_array();
    for (int i = 0; i < cli->argc; i++) {
        if (volume_describe(cli->argv[i], &tree, err) < 0) {
            json_decref(rows);
            return -EIO;
        }
        json_array_append_new(rows, tree);
    }
    return cli_print_json(cli, rows, err);
}

static int remove_one(const struct cli *cli, const char *name, struct error *err)
{
    int r = volume_remove(name, err);

    if (r == 0)
        fprintf(cli->out, "%s\n", name);
    return r;
}

/* Files may belong to ids that only a namespace has. */
static int begin_removal(int *lock, struct error *err)
{
    int r = rootless_enter(err);

    if (r == 0)
        r = *lock = volume_lock(err);
    return r < 0 ? r : 0;
}

static int run_rm(struct cli *cli, struct error *err)
{
    AUTO_CLOSE int lock = -1;
    int r;

    if (!cli->argc)
        return usage(cli, err);
    r = begin_removal(&lock, err);
    for (int i = 0; r == 0 && i < cli->argc; i++)
        r = remove_one(cli, cli->argv[i], err);
    return r < 0 ? -EIO : CLI_OK;
}

struct pruning {
    const struct cli *cli;
    struct error *err;
};

static int prune_one(const char *name, void *opaque)
{
    const struct pruning *pruning = opaque;
    int r = remove_one(pruning->cli, name, pruning->err);

    return r == -EBUSY ? 0 : r;
}

static int run_prune(struct cli *cli, struct error *err)
{
    struct pruning pruning = {cli, err};
    AUTO_CLOSE int lock = -1;
    int r = begin_removal(&lock, err);

    if (r == 0)
        r = volume_list(prune_one, &pruning, err);
    return r < 0 ? -EIO : CLI_OK;
}

/* --- Rows --- */

static const struct cli_option create_options[] = {
    {"label", 'l', "NAME[=VALUE]", "Say something about it, for inspect.", NULL},
    {0},
};

static const struct cli_option ls_options[] = {
    {"json", 0, NULL, "Print JSON.", NULL},
    {0},
};

static const struct verb create_verb = {
    .name = "create",
    .summary = "make an empty volume",
    .operands = "NAME",
    .options = create_options,
    .run = run_create,
};

static const struct verb ls_verb = {
    .name = "ls",
    .summary = "list the volumes",
    .options = ls_options,
    .run = run_ls,
};

static const struct verb inspect_verb = {
    .name = "inspect",
    .summary = "print all about volumes, and who uses them, as JSON",
    .operands = "NAME...",
    .run = run_inspect,
};

static const struct verb rm_verb = {
    .name = "rm",
    .summary = "remove volumes that no guest uses, with all that is in them",
    .operands = "NAME...",
    .run = run_rm,
};

static const struct verb prune_verb = {
    .name = "prune",
    .summary = "remove all volumes that no guest uses",
    .run = run_prune,
};

static const struct verb *const verbs[] = {
    &create_verb, &ls_verb, &inspect_verb, &rm_verb, &prune_verb, NULL,
};

const struct verb volume_command = {
    .name = "volume",
    .summary = "directories with a name that outlive guests",
    .description =
        "--volume NAME:TARGET of 'lodge run' shows a volume in a guest, whatever isolates it, and "
        "makes it when it is not there. The first guest that uses it puts in what its image has at "
        "TARGET. A volume stays until it is removed.",
    .verbs = verbs,
};
