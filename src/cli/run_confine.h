/* run_confine.h - the options of `lodge run IMAGE` that say what a container may do. */
#ifndef LODGE_CLI_RUN_CONFINE_H
#define LODGE_CLI_RUN_CONFINE_H

#include "cli/cli.h"
#include "guest/confine.h"

/* Rows for the verb's table of options. */
/* clang-format off */
#define RUN_CONFINE_OPTIONS                                                                        \
    {"read-only", 0, NULL, "Make the root read-only, but /tmp, /run and /var/tmp.", NULL},         \
    {"tmpfs", 0, "TARGET[:OPTION,...]", "An empty file system in memory.", NULL},                  \
    {"device", 0, "SOURCE[:TARGET][:rwm]", "A device of the host.", "FILE"},                       \
    {"ulimit", 0, "NAME=SOFT[:HARD]", "A limit of each process: nofile=1024:2048.", NULL},         \
    {"pids-limit", 0, "N", "How many processes there may be (default 2048; -1: any).", NULL},      \
    {"cap-add", 0, "NAME", "Give a capability that it has not by default, or ALL.", NULL},         \
    {"cap-drop", 0, "NAME", "Take one away, or ALL.", NULL},                                       \
    {"security-opt", 0, "OPTION", "seccomp=FILE (a profile in place of the built-in one), "        \
     "seccomp=unconfined, no-new-privileges, apparmor=PROFILE, unmask=ALL.", NULL},                \
    {"privileged", 0, NULL, "Withhold nothing: all capabilities, system calls and devices.", NULL},
/* clang-format on */

/* The lists are the caller's to release; they point into the command line. */
void run_confine_read(const struct cli *cli, struct confine_options *ret_options);
void run_confine_release(struct confine_options *options);

#endif
