/* lodge image pull, push: images from and to registries. */
#include "cli/image.h"
#include "cli/progress_bars.h"

int image_registry_options(const struct cli *cli, struct progress_bars *bars,
                           struct registry_options *options, struct error *err)
{
    options->auth_file = cli_value(cli, "authfile");
    options->ca_file = cli_value(cli, "ca");
    options->insecure = cli_flag(cli, "insecure");
    options->progress = progress_bars_progress(bars);
    return platform_parse(cli_value(cli, "platform"), &options->platform, err);
}

/* What pull and push do with the store, and the name of what came. */
typedef int exchange_fn(struct cli *cli, struct store *store,
                        const struct registry_options *options, struct descriptor *ret_descriptor,
                        struct error *err);

static int exchange(struct cli *cli, int operands, exchange_fn *fn, struct error *err)
{
    struct progress_bars *bars;
    struct registry_options options;
    struct descriptor descriptor = {0};
    struct store *store = NULL;
    int r = image_operands(cli, 1, operands, err);

    if (r < 0)
        return r;
    bars = progress_bars_create();
    r = image_registry_options(cli, bars, &options, err);
    if (r == 0)
        r = image_store_open(cli, &store, err);
    if (r == 0)
        r = fn(cli, store, &options, &descriptor, err);
    progress_bars_destroy(bars);
    store_close(store);
    if (r < 0)
        return -EIO;
    if (descriptor.name[0])
        fprintf(cli->out, "%s\n", descriptor.name);
    return CLI_OK;
}

static int pull(struct cli *cli, struct store *store, const struct registry_options *options,
                struct descriptor *ret_descriptor, struct error *err)
{
    return registry_pull(store, cli->argv[0], options, ret_descriptor, err);
}

static int pull_run(struct cli *cli, struct error *err)
{
    return exchange(cli, 1, pull, err);
}

static int push(struct cli *cli, struct store *store, const struct registry_options *options,
                struct descriptor *ret_descriptor, struct error *err)
{
    (void)ret_descriptor;
    return registry_push(store, cli->argv[0], cli->argv[cli->argc - 1], options, err);
}

static int push_run(struct cli *cli, struct error *err)
{
    return exchange(cli, 2, push, err);
}

static const struct cli_option pull_options[] = {
    {"platform", 0, "OS/ARCH",
     "Which one to take of an image for several platforms (default linux/amd64).", NULL},
    IMAGE_REGISTRY_OPTIONS,
    {0},
};

static const struct cli_option push_options[] = {
    IMAGE_REGISTRY_OPTIONS,
    {0},
};

#define DEFAULT_NOTE                                                                               \
    "A name without a registry goes to the one set as \"default\" in "                             \
    "~/.config/lodge/registries.json or /etc/lodge/registries.json; mirrors, certificates and "    \
    "insecure registries are set there too."

const struct verb image_pull_verb = {
    .name = "pull",
    .summary = "get an image from a registry",
    .operands = "[REGISTRY/]NAME[:TAG|@DIGEST]",
    .description = DEFAULT_NOTE,
    .options = pull_options,
    .run = pull_run,
};

const struct verb image_push_verb = {
    .name = "push",
    .summary = "put an image into a registry",
    .operands = "IMAGE [TARGET]",
    .description = DEFAULT_NOTE,
    .options = push_options,
    .run = push_run,
};
