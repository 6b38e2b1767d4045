#include "cli/verbs.h"

/* In the order of `lodge help`; a new verb is one file and one line here. */
const struct verb *const cli_verbs[] = {
    &run_command,
    &oci_command,
    &image_command,
    &disk_command,
    &net_command,
    &engine_command,
    &engines_command,
    &version_command,
    &help_command,
    NULL,
};
