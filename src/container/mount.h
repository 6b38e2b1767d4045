/* mount.h - one entry of config.json's mounts (config.md, Mounts): its options
 * read, its source opened, and the mount put in place under the root. Targets
 * are directories or files held by descriptor, never paths, so nothing in the
 * root can move them elsewhere. */
#ifndef LODGE_CONTAINER_MOUNT_H
#define LODGE_CONTAINER_MOUNT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "container/config.h"
#include "container/path.h"

struct mount_plan {
    const struct mount *mount;
    unsigned long flags;       /* MS_... asked for */
    unsigned long cleared;     /* MS_... asked to be off */
    unsigned long propagation; /* MS_SHARED and its like, with MS_REC; 0: as it comes */
    uint64_t recursive_set;    /* MOUNT_ATTR_... for the mount and all below it */
    uint64_t recursive_clear;
    bool read_only_late; /* /dev: its files are made first */
    bool copy_up;        /* tmpfs: begins with what the directory holds */
    bool id_map;         /* by its own mappings, or those of the container */
    bool id_map_recursive;
    char *data;  /* the filesystem's own options; owned */
    int tree_fd; /* a bind mount's source, detached; -1: none yet; owned */
};

/* Read the options of mount. label: linux.mountLabel, or NULL. */
int mount_plan_init(struct mount_plan *plan, const struct mount *mount, const char *label,
                    struct error *err);
void mount_plan_release(struct mount_plan *plan);
bool mount_is_bind(const struct mount_plan *plan);

/* Take the source of a bind mount as a detached tree with its options set.
 * Relative sources start at bundle_fd. id_map_fd: a user namespace for an
 * id-mapped mount, or -1. shared: leave the tree in its source's peer group. */
int mount_open_source(struct mount_plan *plan, int bundle_fd, int id_map_fd, bool shared,
                      struct error *err);

/* Put the mount in place, and make its target where it is missing. Changes the
 * working directory. The types "cgroup" and "cgroup2" are cgroup_mount's. */
int mount_attach(struct mount_plan *plan, struct path_root *root, struct error *err);

/* Mount type on the directory dir_fd itself. Changes the working directory. */
int mount_filesystem(int dir_fd, const char *source, const char *type, unsigned long flags,
                     const char *data);

/* Bind the file or directory at source_path (from source_fd, "" for itself)
 * over target_fd. attributes: MOUNT_ATTR_... to set. Negative errno. */
int mount_bind(int source_fd, const char *source_path, int target_fd, uint64_t attributes);

/* The n-th option name that is understood, for `features`; NULL after the last. */
const char *mount_option_name(unsigned n);
/* Whether there is that option for a whole tree too, with an "r" before its name. */
bool mount_option_is_recursive(unsigned n);

#endif
