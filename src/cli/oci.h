/* oci.h - `lodge oci`: the container runtime by runc's command line, which
 * podman, containerd and others call. One file a group of verbs; oci.c has what
 * they share. */
#ifndef LODGE_CLI_OCI_H
#define LODGE_CLI_OCI_H

#include <jansson.h>
#include <limits.h>
#include <sys/types.h>

#include "cli/cli.h"
#include "container/container.h"

extern const struct verb oci_create_command, oci_run_command, oci_start_command, oci_exec_command,
    oci_state_command, oci_list_command, oci_ps_command, oci_kill_command, oci_delete_command,
    oci_pause_command, oci_resume_command, oci_update_command, oci_events_command,
    oci_checkpoint_command, oci_restore_command, oci_spec_command, oci_features_command;

/* A verb's work, with the global options and the container's id (operand 0) filled in. */
typedef int oci_fn(struct cli *cli, struct container_options *options, struct error *err);

/* Check the operands (at least, at most; -1: any), do the work, and write what
 * went wrong to --log too. Failures are CLI_FAILED, whatever their code. */
int oci_run(struct cli *cli, oci_fn *fn, int least, int most, struct error *err);

/* --bundle, --pid-file, --console-socket, --preserve-fds and their like. The
 * socket is connected: options->console_fd is the caller's to close. */
int oci_read_launch_options(struct cli *cli, struct container_options *options, struct error *err);

/* One line, or indented, with a newline. */
int oci_print_json(struct cli *cli, json_t *value, bool indented, struct error *err);

/* --name as a number; absent: ret_value is untouched and 0 is returned, else 1. */
int oci_read_number(struct cli *cli, const char *name, long long *ret_value, struct error *err);

#endif
