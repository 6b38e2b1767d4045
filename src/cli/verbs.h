/* verbs.h - the verbs of `lodge`, one file each; verbs.c puts them in order. */
#ifndef LODGE_CLI_VERBS_H
#define LODGE_CLI_VERBS_H

#include "cli/cli.h"

extern const struct verb run_command;
extern const struct verb ls_command;
extern const struct verb ps_command;
extern const struct verb top_command;
extern const struct verb exec_command;
extern const struct verb logs_command;
extern const struct verb attach_command;
extern const struct verb start_command;
extern const struct verb stop_command;
extern const struct verb kill_command;
extern const struct verb rename_command, rm_command;
extern const struct verb pause_command, unpause_command, restart_command, wait_command;
extern const struct verb port_command, prune_command, cp_command;
extern const struct verb stats_command;
extern const struct verb inspect_command;
extern const struct verb image_command;
extern const struct verb volume_command;
extern const struct verb oci_command;
extern const struct verb disk_command;
extern const struct verb net_command;
extern const struct verb net_create_command, net_ls_command, net_inspect_command, net_rm_command;
extern const struct verb net_switch_command, net_kinds_command;
extern const struct verb balloon_command;
extern const struct verb engine_command;
extern const struct verb engines_command;
extern const struct verb version_command;
extern const struct verb help_command;

#endif
