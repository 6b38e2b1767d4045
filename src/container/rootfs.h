/* rootfs.h - a container's root filesystem: the root and the sources of its
 * mounts taken from the host as detached trees, then put together in the new
 * mount namespace, and entered (config.md, Root and Mounts; config-linux.md,
 * Masked Paths, Readonly Paths, Rootfs Mount Propagation). All work inside the
 * root is by descriptor (path.h). */
#ifndef LODGE_CONTAINER_ROOTFS_H
#define LODGE_CONTAINER_ROOTFS_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "container/cgroup.h"
#include "container/config.h"
#include "container/mount.h"
#include "container/path.h"

struct rootfs_plan {
    const struct config *config;
    const struct cgroup *cgroup;
    struct path_root root;     /* a detached tree until rootfs_build; owned */
    int place_fd;              /* without a mount namespace of its own: what the root covers; or
                                  -1; owned */
    char path[PATH_MAX];       /* with one that is joined: where the root is */
    struct mount_plan *mounts; /* as many as config->mounts; owned */
    bool no_pivot;
};

/* In the runtime, with its privileges. bundle_fd: where relative paths begin. */
int rootfs_open(struct rootfs_plan *plan, const struct config *config, const struct cgroup *cgroup,
                int bundle_fd, struct error *err);
void rootfs_close(struct rootfs_plan *plan);

/* A container without a mount namespace of its own leaves its mounts on the host, over its root.
 * The mount that path is on, to know later whether it is covered; 0: it cannot be told. */
uint64_t rootfs_mount_id(const char *path);
/* Take away what covers path since rootfs_mount_id was id. */
void rootfs_uncover(const char *path, uint64_t id);

/* In the new process: attach everything; the host's root is still there. */
int rootfs_build(struct rootfs_plan *plan, struct error *err);
/* Hide what must be hidden, make read-only what must be, and make the root "/". */
int rootfs_enter(struct rootfs_plan *plan, struct error *err);

#endif
