/* state.h - what is kept of a container between two commands: a directory
 * ROOT/ID with state.json, a copy of config.json, and the fifo that `start`
 * opens. Nothing else remembers a container, so any process may die at any
 * moment. The directory is locked (flock) by commands that change it. */
#ifndef LODGE_CONTAINER_STATE_H
#define LODGE_CONTAINER_STATE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

/* runtime.md, State; paused is the runtime's own, as in runc. */
enum state_status {
    STATE_CREATING,
    STATE_CREATED,
    STATE_RUNNING,
    STATE_PAUSED,
    STATE_STOPPED,
};

struct state {
    char *id, *bundle, *rootfs, *created; /* owned */
    pid_t pid;                            /* 0: not born yet */
    uint64_t start_time; /* of pid, in clock ticks since boot: tells it from a later one */
    uid_t owner;
    bool has_hooks;      /* poststart or poststop */
    uint64_t root_mount; /* rootfs_mount_id, of a container without a mount namespace; or 0 */
    json_t *cgroup;      /* cgroup_save's; owned */
    json_t *annotations; /* owned */
    int dir_fd;          /* ROOT/ID; owned */
};

/* Whether id can name a container: letters, digits, "_", "+", "-" and ".". */
int state_id_check(const char *id, struct error *err);

/* Make ROOT/ID (and ROOT), locked. -EEXIST when the id is taken. */
int state_create(struct state *state, const char *root, const char *id, struct error *err);
/* Read ROOT/ID. lock: wait for and take the lock. A directory whose maker died
 * before it wrote anything gives a state without pid and cgroup. */
int state_open(struct state *state, const char *root, const char *id, bool lock, struct error *err);
int state_save(const struct state *state, struct error *err);
/* Remove the directory. */
int state_remove(const struct state *state, const char *root, struct error *err);
void state_release(struct state *state);

/* Take note of the container's first process. */
int state_set_pid(struct state *state, pid_t pid, struct error *err);
/* Whether that process still runs. */
bool state_is_alive(const struct state *state);

enum state_status state_status(const struct state *state);
const char *state_status_name(enum state_status status);

/* The state as runtime.md has it (runc's: as `state` and `list` print it, with
 * rootfs, created and owner). A new string, or NULL. */
char *state_json(const struct state *state, enum state_status status);
json_t *state_json_runc(const struct state *state, enum state_status status);

/* Call fn for every container below root, in order of names; a root that does
 * not exist has none. A negative return of fn ends it. */
int state_list(const char *root, int (*fn)(struct state *state, void *opaque), void *opaque,
               struct error *err);

/* Remove the directory of a container whose state cannot be read. */
int state_destroy(const char *root, const char *id, struct error *err);

/* Names within dir_fd. */
extern const char state_fifo[];
extern const char state_config[];
extern const char state_error[]; /* why the program could not be started */

#endif
