#include "cli/verbs.h"

/* In the order of `lodge help`; a new verb is one file and one line here. */
const struct verb *const cli_verbs[] = {
    &run_command,
    &ls_command,
    &ps_command,
    &exec_command,
    &logs_command,
    &attach_command,
    &start_command,
    &stop_command,
    &kill_command,
    &pause_command,
    &unpause_command,
    &rm_command,
    &stats_command,
    &inspect_command,
    &image_command,
    &oci_command,
    &disk_command,
    &net_command,
    &balloon_command,
    &engine_command,
    &engines_command,
    &version_command,
    &help_command,
    NULL,
};
