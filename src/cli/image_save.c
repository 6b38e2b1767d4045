/* lodge image save, export: images into files. */
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/image.h"
#include "cli/progress_bars.h"
#include "image/save.h"

/* The images that count operands name, into form at path. */
static int save(struct cli *cli, int count, enum save_form form, const char *path,
                struct error *err)
{
    struct progress_bars *bars = progress_bars_create();
    AUTO_FREE struct descriptor *images = calloc((size_t)count, sizeof(*images));
    struct store *store = NULL;
    int r = images ? image_store_open(cli, &store, err) : error_set(err, ENOMEM, "out of memory");

    for (int i = 0; i < count && r == 0; i++)
        r = store_resolve(store, cli->argv[i], images + i, err);
    if (r == 0)
        r = image_save(store, images, (size_t)count, form, path, progress_bars_progress(bars), err);
    progress_bars_destroy(bars);
    store_close(store);
    return r < 0 ? -EIO : CLI_OK;
}

static int save_run(struct cli *cli, struct error *err)
{
    const char *output = cli_value(cli, "output");
    int r = image_operands(cli, 1, 64, err);

    if (r < 0)
        return r;
    if (!output && isatty(STDOUT_FILENO))
        return error_set(err, EINVAL, "an archive is not for a terminal: give --output FILE");
    return save(cli, cli->argc, SAVE_ARCHIVE, output ? output : "-", err);
}

static int export_run(struct cli *cli, struct error *err)
{
    int r = image_operands(cli, 2, 2, err);

    return r < 0 ? r : save(cli, 1, SAVE_DIRECTORY, cli->argv[1], err);
}

static const struct cli_option save_options[] = {
    {"output", 'o', "FILE", "The archive (default: the standard output).", "FILE"},
    IMAGE_STORE_OPTION,
    {0},
};

static const struct cli_option export_options[] = {
    IMAGE_STORE_OPTION,
    {0},
};

const struct verb image_save_verb = {
    .name = "save",
    .summary = "write images to an archive that docker, podman and OCI tools load",
    .operands = "IMAGE...",
    .options = save_options,
    .run = save_run,
};

const struct verb image_export_verb = {
    .name = "export",
    .summary = "write an image as an OCI image layout",
    .operands = "IMAGE DIR",
    .options = export_options,
    .run = export_run,
};
