/* verbs.h - the verbs of `lodge`, one file each; verbs.c puts them in order. */
#ifndef LODGE_CLI_VERBS_H
#define LODGE_CLI_VERBS_H

#include "cli/cli.h"

extern const struct verb run_command;
extern const struct verb oci_command;
extern const struct verb image_command;
extern const struct verb disk_command;
extern const struct verb net_command;
extern const struct verb engine_command;
extern const struct verb engines_command;
extern const struct verb version_command;
extern const struct verb help_command;

#endif
