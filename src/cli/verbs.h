/* verbs.h - the verbs of `lodge`, one file each; verbs.c puts them in order. */
#ifndef LODGE_CLI_VERBS_H
#define LODGE_CLI_VERBS_H

#include "cli/cli.h"

extern const struct verb ls_command, inspect_command, stats_command, ps_command, exec_command,
    logs_command, attach_command, stop_command, kill_command, rm_command;
extern const struct verb run_command, image_command, oci_command, engines_command,
    version_command, help_command;

#endif
