/* oci_checkpoint.c - checkpoint and restore, which engines may ask for: refused in a word that
 * reaches their log. The options are runc's. */
#include "cli/oci.h"

static int refuse(struct cli *cli, struct container_options *options, struct error *err)
{
    return error_set(err, ENOTSUP, "cannot %s container %s: Lodge has no checkpoints",
                     cli->verb->name, options->id);
}

static int refuse_run(struct cli *cli, struct error *err)
{
    return oci_run(cli, refuse, 1, 1, err);
}

#define IGNORED "Taken for the sake of callers; does nothing."

/* clang-format off */
#define OPTIONS_OF_BOTH                                                                            \
    {"image-path", 0, "DIRECTORY", IGNORED, "FILE"},                                               \
    {"work-path", 0, "DIRECTORY", IGNORED, "FILE"},                                                \
    {"manage-cgroups-mode", 0, "MODE", IGNORED, NULL},                                             \
    {"empty-ns", 0, "NAMESPACE", IGNORED, NULL},                                                   \
    {"tcp-established", 0, NULL, IGNORED, NULL},                                                   \
    {"ext-unix-sk", 0, NULL, IGNORED, NULL},                                                       \
    {"shell-job", 0, NULL, IGNORED, NULL},                                                         \
    {"lazy-pages", 0, NULL, IGNORED, NULL},                                                        \
    {"file-locks", 0, NULL, IGNORED, NULL},                                                        \
    {"auto-dedup", 0, NULL, IGNORED, NULL}
/* clang-format on */

static const struct cli_option checkpoint_options[] = {
    OPTIONS_OF_BOTH,
    {"parent-path", 0, "DIRECTORY", IGNORED, "FILE"},
    {"page-server", 0, "ADDRESS", IGNORED, NULL},
    {"status-fd", 0, "N", IGNORED, NULL},
    {"leave-running", 0, NULL, IGNORED, NULL},
    {"pre-dump", 0, NULL, IGNORED, NULL},
    {0},
};

static const struct cli_option restore_options[] = {
    OPTIONS_OF_BOTH,
    {"bundle", 'b', "DIRECTORY", IGNORED, "FILE"},
    {"pid-file", 0, "FILE", IGNORED, "FILE"},
    {"console-socket", 0, "SOCKET", IGNORED, "FILE"},
    {"lsm-profile", 0, "PROFILE", IGNORED, NULL},
    {"lsm-mount-context", 0, "CONTEXT", IGNORED, NULL},
    {"detach", 'd', NULL, IGNORED, NULL},
    {"no-subreaper", 0, NULL, IGNORED, NULL},
    {"no-pivot", 0, NULL, IGNORED, NULL},
    {0},
};

const struct verb oci_checkpoint_command = {
    .name = "checkpoint",
    .summary = "refused: there are no checkpoints",
    .operands = "ID",
    .options = checkpoint_options,
    .run = refuse_run,
};

const struct verb oci_restore_command = {
    .name = "restore",
    .summary = "refused: there are no checkpoints",
    .operands = "ID",
    .options = restore_options,
    .run = refuse_run,
};
