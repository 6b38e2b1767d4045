/* container.h - the operations on containers (OCI runtime specification 1.2,
 * runtime.md), with runc's beside them. Each is one command's work: it finds the
 * container by its state directory (state.h) and leaves it consistent. */
#ifndef LODGE_CONTAINER_CONTAINER_H
#define LODGE_CONTAINER_CONTAINER_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/log.h"
#include "container/config.h"
#include "container/state.h"

struct container_options {
    const char *root; /* where states are kept */
    const char *id;
    const char *bundle;   /* of container_create */
    const char *pid_file; /* NULL: none */
    const char *keyring;  /* name of a new session keyring; NULL: the caller's */
    int console_fd;       /* a socket that the terminal's master is sent to; -1: none */
    unsigned preserve_fds;
    bool no_pivot;
    bool systemd_cgroup;   /* control groups are systemd's to make */
    const struct log *log; /* warnings */
};

/* Make the container of the bundle; its first process waits for container_start.
 * On failure nothing of it is left. ret_pid: the caller's child. */
int container_create(const struct container_options *options, pid_t *ret_pid, struct error *err);

/* Let the first process execute its program; returns once it has. */
int container_start(const struct container_options *options, struct error *err);

/* A further process. The container must run; ignore_paused: or be paused.
 * group: a control group below the container's, or NULL. */
int container_exec(const struct container_options *options, const struct process *process,
                   const char *group, bool ignore_paused, pid_t *ret_pid, struct error *err);

/* Send signal to the first process, or to all. */
int container_kill(const struct container_options *options, int signal, bool all,
                   struct error *err);

/* Remove what is left of a stopped container; force: stop it first, and take
 * a container that does not exist for removed. */
int container_delete(const struct container_options *options, bool force, struct error *err);

int container_pause(const struct container_options *options, bool pause, struct error *err);
int container_update(const struct container_options *options, const struct resources *resources,
                     struct error *err);

/* The host's pids of all its processes; the array is the caller's. */
int container_pids(const struct container_options *options, pid_t **ret_pids, size_t *ret_count,
                   struct error *err);

/* A file given by the user, and the container's own copy of its config.json. The
 * text is the caller's. */
int container_read_file(const char *path, char **ret_text, size_t *ret_length, struct error *err);
int container_read_config(const struct container_options *options, char **ret_text,
                          struct error *err);

/* Open a container that must be running or paused, and its control group. */
struct cgroup;
int container_open(const struct container_options *options, struct state *state,
                   struct cgroup *cgroup, struct error *err);

#endif
