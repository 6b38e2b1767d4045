/* lodge image load, import: images out of files. */
#include <stdint.h>

#include "cli/image.h"
#include "cli/progress_bars.h"
#include "image/load.h"

static void print_loaded(void *opaque, const struct descriptor *descriptor)
{
    const struct cli *cli = opaque;

    fprintf(cli->out, "%s\n", descriptor->name[0] ? descriptor->name : descriptor->digest.text);
}

static int load(struct cli *cli, const char *path, const char *name, struct error *err)
{
    struct progress_bars *bars = progress_bars_create();
    struct platform platform;
    struct store *store = NULL;
    struct source *source = NULL;
    int r = platform_parse(cli_value(cli, "platform"), &platform, err);

    if (r == 0)
        r = image_store_open(cli, &store, err);
    if (r == 0 && (r = source_open(path, store, &source, err)) == 0) {
        r = image_load(store, source, name, &platform, progress_bars_progress(bars), print_loaded,
                       cli, err);
        if (r < 0)
            error_prepend(err, "%s", path);
    }
    progress_bars_destroy(bars);
    source_close(source);
    store_close(store);
    return r < 0 ? -EIO : CLI_OK;
}

static int load_run(struct cli *cli, struct error *err)
{
    const char *input = cli_value(cli, "input");
    int r = image_operands(cli, 0, 0, err);

    return r < 0 ? r : load(cli, input ? input : "-", NULL, err);
}

static int import_run(struct cli *cli, struct error *err)
{
    int r = image_operands(cli, 1, 2, err);

    return r < 0 ? r : load(cli, cli->argv[0], cli->argc > 1 ? cli->argv[1] : NULL, err);
}

#define PLATFORM_OPTION                                                                            \
    {                                                                                              \
        "platform", 0, "OS/ARCH",                                                                  \
            "Which one to take of an image for several platforms (default linux/amd64).", NULL     \
    }

static const struct cli_option load_options[] = {
    {"input", 'i', "FILE", "The archive (default: the standard input).", "FILE"},
    PLATFORM_OPTION,
    IMAGE_STORE_OPTION,
    {0},
};

static const struct cli_option import_options[] = {
    PLATFORM_OPTION,
    IMAGE_STORE_OPTION,
    {0},
};

const struct verb image_load_verb = {
    .name = "load",
    .summary = "load the images of an archive (docker save, podman save, OCI), names and all",
    .operands = "",
    .options = load_options,
    .run = load_run,
};

const struct verb image_import_verb = {
    .name = "import",
    .summary = "import an OCI image layout or an archive, under a name of one's own",
    .operands = "DIR|FILE [NAME]",
    .options = import_options,
    .run = import_run,
};
