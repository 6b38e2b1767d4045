/* cgroup_systemd.h - control groups that systemd makes and knows of: a transient scope
 * (systemd.scope(5); org.freedesktop.systemd1(5)), named by linux.cgroupsPath as
 * "SLICE:PREFIX:NAME", in runc's way. systemd makes the directory and then leaves what is in it
 * alone (Delegate=); the limits are told to it too, so that it does not undo them. */
#ifndef LODGE_CONTAINER_CGROUP_SYSTEMD_H
#define LODGE_CONTAINER_CGROUP_SYSTEMD_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "container/config.h"

struct cgroup_scope {
    char unit[256], slice[256];
    bool user; /* of the user's own manager */
};

/* Read cgroups_path (NULL or empty: the slice system.slice or user.slice, and id), and ask the
 * manager where its groups begin. ret_path: the group in each tree. */
int cgroup_scope_init(struct cgroup_scope *scope, const char *cgroups_path, const char *id,
                      bool user, char ret_path[PATH_MAX], struct error *err);

/* Make the scope. It lives as long as processes are in its group: ret_holder is one, a child, to
 * be ended by cgroup_scope_let_go once the container's own is in. */
int cgroup_scope_start(const struct cgroup_scope *scope, const struct resources *resources,
                       pid_t *ret_holder, struct error *err);
void cgroup_scope_let_go(pid_t holder);

/* Tell new limits. */
int cgroup_scope_set(const struct cgroup_scope *scope, const struct resources *resources,
                     struct error *err);
/* Let systemd forget it, where it has not yet. */
void cgroup_scope_stop(const struct cgroup_scope *scope);

#endif
