/* namespace.h - the namespaces of a container (config-linux.md, Namespaces):
 * which are new, which are joined, and the id maps of a user namespace. */
#ifndef LODGE_CONTAINER_NAMESPACE_H
#define LODGE_CONTAINER_NAMESPACE_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "container/config.h"

struct namespace_set {
    unsigned new_flags;            /* CLONE_NEW... of those to be made */
    int join_fds[NAMESPACE_TYPES]; /* those to be joined; -1: not; owned */
};

/* Open the paths of the config; checks that each is a namespace of its type. */
int namespace_set_open(struct namespace_set *set, const struct config *config, struct error *err);
/* All namespaces of a running process, those not our own already. */
int namespace_set_open_pid(struct namespace_set *set, pid_t pid, struct error *err);
void namespace_set_close(struct namespace_set *set);

/* Whether a process must sit between the runtime and the container's: a pid
 * namespace is joined by children only, and a user namespace must be entered
 * before what it is to own is made. */
bool namespace_needs_helper(const struct namespace_set *set);

/* Join those of join_fds in mask (1 << enum namespace_type), the user's first. */
int namespace_join(const struct namespace_set *set, unsigned mask, struct error *err);

/* In the child: a new time namespace with its offsets. The caller is single-threaded. */
int namespace_enter_time(const struct time_offsets *offsets, struct error *err);

/* Write the id maps of pid's new user namespace. Without privileges a single
 * map of the caller's own id is written by the kernel's rules, others go
 * through newuidmap(1) and newgidmap(1). */
int namespace_write_id_maps(pid_t pid, const id_map_list *uids, const id_map_list *gids,
                            struct error *err);

/* A user namespace with these maps and nobody in it, for id-mapped mounts. */
int namespace_make_user(const id_map_list *uids, const id_map_list *gids, struct error *err);

/* Where the container's id is on the host; -1: nowhere. */
int64_t namespace_host_id(const id_map_list *map, int64_t container_id);

/* Bring up "lo" in the calling process's network namespace. */
int namespace_loopback_up(struct error *err);

/* "pid", "network", ... as config.json names them; CLONE_NEW... of a type. */
const char *namespace_name(enum namespace_type type);
unsigned namespace_flag(enum namespace_type type);

#endif
