/* lodge image: images of root filesystems. */
#include "cli/image.h"
#include "cli/verbs.h"
#include "guest/rootless.h"

int image_store_open(const struct cli *cli, struct store **ret_store, struct error *err)
{
    int r = rootless_enter(err);

    /* Without a namespace, all files of images belong to the user. */
    return r < 0 && r != -EPERM ? r : store_open(cli_value(cli, "store"), ret_store, err);
}

int image_operands(const struct cli *cli, int min, int max, struct error *err)
{
    if (cli->argc >= min && cli->argc <= max)
        return 0;
    return error_set(err, EINVAL, "usage: lodge image %s [OPTION...] %s", cli->verb->name,
                     cli->verb->operands);
}

static const struct verb *const verbs[] = {
    &image_pull_verb,  &image_push_verb,
    &image_login_verb, &image_logout_verb,
    &image_ls_verb,    &image_inspect_verb,
    &image_tag_verb,   &image_rm_verb,
    &image_load_verb,  &image_import_verb,
    &image_save_verb,  &image_export_verb,
    &image_check_verb, &image_prune_verb,
    &image_build_verb, NULL,
};

const struct verb image_command = {
    .name = "image",
    .summary = "get, keep and hand on images of root filesystems",
    .description =
        "An image is a root filesystem in layers and the configuration to run it with, as "
        "the OCI image specification has it. Containers and virtual machines start from "
        "it. The store is an OCI image layout itself.",
    .verbs = verbs,
};
