/* guest.h - guests: workloads that Lodge runs from images, whatever isolates
 * them. A guest is a directory, and nothing else remembers it, so that any process of
 * Lodge may die at any moment:
 *
 *     guest.json    what was asked for, and the image; written once
 *     lock          held (flock) by the process that waits for the guest to end
 *     upper, work   what the guest writes: overlayfs's upper layer
 *     rootfs        where its root is mounted while it runs
 *     config.json   made from all this at each start (OCI runtime specification)
 *     hosts, resolv.conf   bound over the root's own
 *     output.log    what a detached guest prints; input: a fifo, what it reads; monitor: the
 *                   process that waits for it
 *     root.qcow2    of a virtual machine: its disk, in place of upper, work and rootfs; and
 *     users/        what its image says of users; lodge.N, the sockets of its sessions
 *     pid, kernel.log   where it runs, and what its kernel said
 *     init          of a container: the program of --init
 *     status        how it ended: absent while it runs, or when nobody waited
 *     stopped       it was asked to end: it is not run again by itself
 *     watched       locked by those who wait for status
 *
 * Guests are under /var/lib/lodge/guests; the runtime's state of those that run is
 * under /run/lodge/guests. Users without privileges have theirs under
 * $XDG_DATA_HOME/lodge/guests and $XDG_RUNTIME_DIR/lodge/guests. */
#ifndef LODGE_GUEST_GUEST_H
#define LODGE_GUEST_GUEST_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/log.h"
#include "guest/confine.h"
#include "guest/resources.h"
#include "image/store.h"

/* What is asked for. Lists end with NULL, or are NULL; texts are NULL when nothing is said. */
struct guest_options {
    const char *name;           /* NULL: one is made up */
    const char *image;          /* as the store resolves it */
    const char *const *command; /* empty: the image's own */
    const char *entrypoint; /* a program, or a JSON array of it and its arguments; NULL: the
                               image's */
    const char *isolation;  /* a row of isolation.h; NULL: container */
    const char *user, *working_directory, *hostname; /* NULL: the image's, or the name */
    const char *const *groups;                       /* further ones of the user */
    const char *const *environment, *const *labels;  /* NAME[=VALUE] */
    const char *const *unset; /* variables of the image, and defaults, that it is not to have */
    bool unset_all;
    const char *umask; /* octal; NULL: 0022 */
    const char *stop_timeout; /* seconds until `lodge stop` kills; NULL: 10 */
    const char *const *volumes, *const *mounts, *const *ports;
    const char *network; /* user, host, none, or a named one; NULL: user */
    const char *const *hosts, *const *name_servers, *const *domains, *const *resolver_options;
    bool no_hosts; /* the root's own hosts file is seen */
    const char *const *exposed;       /* ports as if by the image, for publish_all */
    const char *const *annotations;   /* NAME[=VALUE], told to the OCI runtime and its hooks */
    const char *const *volumes_from;  /* GUEST[:ro|rw]: what another guest has mounted */
    const char *const *sysctls;                                      /* NAME=VALUE */
    const char *pid, *ipc, *uts; /* host: not a namespace of its own */
    const char *stop_signal;     /* NULL: the image's */
    const char *restart;         /* restart_policy_read */
    struct confine_options confine;
    const char *kernel, *engine; /* of a virtual machine; NULL: what there is */
    double cpus;                 /* 0: no limit */
    struct limit_options limits;
    uint64_t memory, shm_size;   /* bytes; 0: no limit, the default */
    bool publish_all; /* the ports that the image exposes, to free ones of the host */
    bool terminal, interactive, remove, detached;
    bool init;       /* a process that reaps and passes signals on runs the command */
    bool no_sandbox; /* around a virtual machine; for debugging */
};

/* When a guest that has ended is run again by the process that waits for it. */
struct restart_policy {
    enum { RESTART_NEVER, RESTART_ON_FAILURE, RESTART_ALWAYS } when;
    unsigned tries; /* after failures; 0: any number */
};

/* "no", "always", "unless-stopped" (the same: nothing starts guests at boot), "on-failure[:N]";
 * -EINVAL without words. */
int restart_policy_read(const char *text, struct restart_policy *ret_policy);

struct guest {
    char *name, *path; /* owned */
    char *states;      /* where the runtime keeps its state; owned */
    int fd;            /* the directory; owned */
    int lock_fd;       /* held, or -1; owned */
    json_t *record;    /* guest.json; owned */
    bool has_run;      /* before (guest_restart): what it wrote is worth keeping */
};

enum guest_state { GUEST_CREATED, GUEST_RUNNING, GUEST_PAUSED, GUEST_EXITED };

struct guest_status {
    enum guest_state state;
    pid_t pid;       /* while it runs: of its first process, or of the virtual machine */
    int exit_status; /* -1: not known */
};

/* --- The directory --- */

/* Make a guest of an image; the image's content is held for it. Its lock is taken.
 * Options are checked. */
int guest_create(const struct guest_options *options, struct store *store, struct guest *ret_guest,
                 struct error *err);
/* The guest of that name; -ENOENT with words. The lock is not taken. */
int guest_open(const char *name, struct guest *ret_guest, struct error *err);
void guest_close(struct guest *guest);

/* Call fn with each guest, by name; a negative return of fn ends it. */
int guest_list(int (*fn)(struct guest *guest, void *opaque), void *opaque, struct error *err);

/* A string of the record; "" when it has none. */
const char *guest_text(const struct guest *guest, const char *name);
/* Whether an option of the record is set. */
bool guest_flag(const struct guest *guest, const char *name);
/* Whether its directory was removed. */
bool guest_is_gone(const struct guest *guest);


int guest_status(const struct guest *guest, struct guest_status *ret_status, struct error *err);
const char *guest_state_name(enum guest_state state);
/* Its address on a named network, as text; false when it has none. */
#define GUEST_ADDRESS_MAX 16
bool guest_address(const struct guest *guest, char ret_text[GUEST_ADDRESS_MAX]);

/* Remove what killed processes left of guests that they made, renamed or removed, in the store too.
 */
int guest_remove_remains(struct store *store, struct error *err);

/* Give another name to a guest that does not run; its networks know it by that from its next start
 * on. -EEXIST with words when there is one of that name. */
int guest_rename(struct guest *guest, const char *name, struct store *store, struct error *err);

/* Remove a guest that does not run, with all it wrote; with its anonymous volumes when asked for
 * now, or at its start (remove). */
int guest_remove(struct guest *guest, struct store *store, bool volumes, struct error *err);

/* --- Running. The caller's lock is held from run to end. --- */

struct guest_run {
    const struct log *log;
    void (*started)(void *opaque); /* its command runs; may be NULL */
    void *opaque;
};

/* Start it, with the caller's standard streams, terminal and signals, and wait until it has ended.
 * Returns its exit status. The store is closed as soon as it is not needed: then *store is NULL. */
int guest_run(struct guest *guest, struct store **store, const struct guest_run *run,
              struct error *err);
/* Make a guest that has ended ready for a further run; its lock is taken, if it is not held. */
int guest_restart(struct guest *guest, struct error *err);
/* Whether it is to be run again, as was asked for: it ended by itself, for the failures-th time
 * with another status than 0. */
bool guest_is_to_restart(const struct guest *guest, int exit_status, unsigned failures);
/* Take note that it ended (exit_status -1: not known), and undo the run. */
int guest_end(struct guest *guest, int exit_status, struct error *err);

/* Write down that this process waits for a detached guest. */
int guest_note_monitor(const struct guest *guest, struct error *err);

/* Who wants to know how a guest ends holds this descriptor until it does: one that is removed at
 * its end is not removed before (guest_await_watchers, for a while). */
int guest_watch(const struct guest *guest, struct error *err);
void guest_await_watchers(const struct guest *guest);
/* Until who waited for a guest that has ended has cleaned up, and written how it did. */
void guest_await_status(const struct guest *guest);

/* --- Files --- */

/* Before a guest is opened that does not run, and whose files are to be copied: go to a mount
 * namespace of this process's own. */
int guest_prepare_copy(struct error *err);
/* Copy a file or a directory into the guest, or out of it, with owners and modes: into to when that
 * is a directory, else as to, in the place of a file of that name. The store is for one that does
 * not run, whose lock is taken (a virtual machine must run: -ENOTSUP with words); else NULL. */
int guest_copy_in(struct guest *guest, struct store *store, const char *from, const char *to,
                  struct error *err);
int guest_copy_out(struct guest *guest, struct store *store, const char *from, const char *to,
                   struct error *err);

/* --- While it runs --- */

/* Give the terminal of a detached guest this size. */
void guest_resize(const struct guest *guest, const struct winsize *size);

/* A further process in the foreground: the command, environment, user, working directory and
 * terminal of options count. Returns its exit status. */
int guest_exec(const struct guest *guest, const struct guest_options *options,
               const struct log *log, struct error *err);

/* Send a signal to its first process. */
int guest_kill(const struct guest *guest, int signal, struct error *err);
/* Ask it to end by the image's stop signal, after timeout_ms kill it, and wait until
 * it is gone and the one who waited for it has cleaned up. */
int guest_stop(struct guest *guest, unsigned timeout_ms, struct error *err);
/* Let all of it stand still, or go on. */
int guest_pause(const struct guest *guest, bool pause, struct error *err);

/* Processor time, memory and more, as runc's events have it. A new reference. */
int guest_stats(const struct guest *guest, json_t **ret_stats, struct error *err);
/* A line each: by the host's ids, or by those of its own kernel; or by columns (processes.h), with
 * the ids that they have inside. out is the standard output. */
int guest_print_processes(const struct guest *guest, const char *const *columns, FILE *out,
                          struct error *err);

#endif
