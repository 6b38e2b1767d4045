/* cgroup_mount.h - mounts of type cgroup and cgroup2 in a container: its own
 * part of each of the host's trees, and nothing above it. */
#ifndef LODGE_CONTAINER_CGROUP_MOUNT_H
#define LODGE_CONTAINER_CGROUP_MOUNT_H

#include <stdbool.h>

#include "base/error.h"
#include "container/cgroup.h"
#include "container/mount.h"
#include "container/path.h"

/* own_namespace: the calling process is in a new cgroup namespace. */
int cgroup_mount(struct mount_plan *plan, struct path_root *root, const struct cgroup *cgroup,
                 bool own_namespace, struct error *err);

#endif
