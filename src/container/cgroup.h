/* cgroup.h - a container's control groups (cgroups(7); config-linux.md, Control
 * groups). A host has one tree (v2), one a controller (v1), or both (hybrid:
 * controllers sit where the host put them, the v2 tree comes along). A group
 * is one directory in each tree. */
#ifndef LODGE_CONTAINER_CGROUP_H
#define LODGE_CONTAINER_CGROUP_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/log.h"
#include "container/cgroup_systemd.h"
#include "container/config.h"

enum { CGROUP_TREES_MAX = 24 };

struct cgroup_tree {
    char *name;  /* "cpu,cpuacct", "name=systemd"; "" is v2; owned */
    char *mount; /* where the tree is mounted; owned */
    char *path;  /* the group within the tree, with a leading slash; owned */
    int fd;      /* the group's directory; -1: not open (or left out without privileges); owned */
};

struct cgroup {
    struct cgroup_tree trees[CGROUP_TREES_MAX];
    size_t count;
    bool unprivileged; /* trees that refuse are left out, and limits in them are errors */
    struct cgroup_scope *scope; /* NULL: not by systemd; owned */
    pid_t holder;               /* keeps a new scope alive until somebody is in; 0: none */
};

/* Find the trees and where the group goes in each: path is linux.cgroupsPath,
 * NULL or empty: id. Relative paths start at the runtime's own group. systemd: let it
 * make the group; path is as cgroup_systemd.h says. */
int cgroup_init(struct cgroup *cgroup, const char *path, const char *id, bool unprivileged,
                bool systemd, struct error *err);
/* The group of a saved container. */
int cgroup_load(struct cgroup *cgroup, const json_t *paths, struct error *err);
/* A new reference. */
json_t *cgroup_save(const struct cgroup *cgroup);
void cgroup_release(struct cgroup *cgroup);

/* Fails where somebody is in the group already: what is another's must not be limited and killed
 * with the container. */
int cgroup_check_empty(const struct cgroup *cgroup, struct error *err);
/* Make the directories, open them, and apply limits (NULL: none). */
int cgroup_create(struct cgroup *cgroup, const struct resources *resources, struct error *err);
/* Somebody is in a new group now. */
void cgroup_settle(struct cgroup *cgroup);
/* Open the directories of a group that exists; missing ones are left out. */
void cgroup_open(struct cgroup *cgroup);

/* Go to a group that exists below this one: "PATH" in all trees, or "CONTROLLER:PATH". */
int cgroup_descend(struct cgroup *cgroup, const char *group, struct error *err);

/* A descriptor to be born in by CLONE_INTO_CGROUP; -1: no v2 tree. Not a new one. */
int cgroup_birth_fd(const struct cgroup *cgroup);
/* Open the v1 files by which a process moves itself. Returns how many. */
int cgroup_open_entries(const struct cgroup *cgroup, int ret_fds[CGROUP_TREES_MAX],
                        struct error *err);
/* In the child: move the calling thread in, and close the descriptors. A
 * thread that moves itself in v1 takes no system-wide lock; moving another
 * process waits for an RCU grace period. */
int cgroup_enter(int fds[], int count, struct error *err);

/* Apply limits; those not given stay. */
int cgroup_set(struct cgroup *cgroup, const struct resources *resources, struct error *err);

/* Stop or continue all processes; waits until it has happened. */
int cgroup_freeze(struct cgroup *cgroup, bool frozen, struct error *err);
bool cgroup_is_frozen(const struct cgroup *cgroup);

/* All processes of the group and those below it. The array is the caller's. */
int cgroup_pids(const struct cgroup *cgroup, pid_t **ret_pids, size_t *ret_count,
                struct error *err);
/* Send signal to all of them. */
int cgroup_signal(const struct cgroup *cgroup, int signal, struct error *err);

/* Kill what is left in the group and remove its directories and those below. */
int cgroup_remove(struct cgroup *cgroup, struct error *err);

/* What `events --stats` shows, as runc spells it. A new reference, or NULL. */
json_t *cgroup_stats(const struct cgroup *cgroup);

/* A descriptor that becomes readable when the group may have run out of memory;
 * -1: there is none. The caller's. Read it by cgroup_count_oom: returns how
 * often that has happened since; *seen is kept between the calls, 0 at first. */
int cgroup_watch_oom(const struct cgroup *cgroup);
uint64_t cgroup_count_oom(const struct cgroup *cgroup, int fd, uint64_t *seen);

/* Whether the tree has the v1 controller. */
bool cgroup_tree_has(const struct cgroup_tree *tree, const char *controller);
/* The v1 tree of a controller, open; NULL when there is none. */
const struct cgroup_tree *cgroup_find(const struct cgroup *cgroup, const char *controller);
/* A tree that holds all processes of the container; NULL: none is open. */
const struct cgroup_tree *cgroup_find_any(const struct cgroup *cgroup);
/* The v2 tree, open; NULL when there is none. */
const struct cgroup_tree *cgroup_find_v2(const struct cgroup *cgroup);

#endif
