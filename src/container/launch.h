/* launch.h - bring a process into being inside its namespaces and control
 * group, by one clone3(2). A user or pid namespace that exists is entered by a
 * helper first, whose child (and the runtime's, by CLONE_PARENT) it then is. */
#ifndef LODGE_CONTAINER_LAUNCH_H
#define LODGE_CONTAINER_LAUNCH_H

#include <sys/types.h>

#include "base/error.h"
#include "container/cgroup.h"
#include "container/config.h"
#include "container/namespace.h"

/* What the new process does. It returns only when that fails: the error is
 * sent to the runtime, and the process ends. */
typedef int launch_fn(int sync_fd, void *opaque, struct error *err);

struct launch {
    const struct namespace_set *namespaces;
    const struct cgroup *cgroup;
    const struct linux_config *linux_; /* id maps and time offsets of new namespaces; or NULL */
    const char *initial_cpus;          /* CPUs to begin on, "0-3,7"; NULL: the runtime's own */
    const struct process *process;     /* its oom_score_adj is set, its rlimits are made possible */
    launch_fn *run;
    void *opaque;
};

/* ret_sync: the runtime's end of sync.h, which the caller closes. The process
 * is the caller's child. */
int launch(const struct launch *launch, pid_t *ret_pid, int *ret_sync, struct error *err);

/* Bind the calling process to the CPUs of a list like "0-3,7". */
int launch_set_cpus(const char *list, struct error *err);

#endif
