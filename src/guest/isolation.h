/* isolation.h - what isolates a guest from the host: one row each, all in isolation.c, and one file
 * each. What guest.h offers is done here where isolations differ. */
#ifndef LODGE_GUEST_ISOLATION_H
#define LODGE_GUEST_ISOLATION_H

#include "guest/guest.h"

struct isolation {
    const char *name;
    /* Refuse options that mean nothing for it. */
    int (*check)(const struct guest_options *options, struct error *err);

    /* guest_run, its lock held; and undo it, also after a process that was killed. */
    int (*run)(struct guest *guest, struct store **store, const struct guest_run *run,
               struct error *err);
    int (*clean)(const struct guest *guest, struct error *err);

    /* Where --init's program is bound into the root, to run the command; NULL: nothing is. */
    const char *init;
    /* The lines of resolv.conf(5) for its network. Freed by the caller. */
    char *(*resolver)(const struct guest *guest);

    /* While the guest is not known to have ended: fill the state, and pid when it runs. */
    void (*status)(const struct guest *guest, struct guest_status *status);
    /* A directory with the etc/passwd and etc/group that count for a further process, O_PATH;
     * negative: there is none. */
    int (*open_users)(const struct guest *guest, const struct guest_status *status);
    /* The root as its processes see it, O_PATH. NULL: nothing outside of it sees it so. */
    int (*open_root)(const struct guest *guest, const struct guest_status *status,
                     struct error *err);
    /* The same of a guest that does not run: mounted in this process's mount namespace, which is
     * its own; the guest's lock is held. NULL where open_root is. */
    int (*mount_root)(const struct guest *guest, struct store *store, struct error *err);
    /* guest_copy_in and guest_copy_out of one that runs, where there is no open_root; else NULL. */
    int (*copy_in)(const struct guest *guest, const char *from, const char *to, struct error *err);
    int (*copy_out)(const struct guest *guest, const char *from, const char *to,
                    struct error *err);
    /* Run a further process in the foreground; process is an object of config.json's kind. Returns
     * its exit status. */
    int (*exec)(const struct guest *guest, const char *process, bool terminal,
                const struct log *log, struct error *err);
    int (*kill)(const struct guest *guest, const struct guest_status *status, int signal,
                struct error *err);
    int (*pause)(const struct guest *guest, const struct guest_status *status, bool pause,
                 struct error *err);
    int (*stats)(const struct guest *guest, const struct guest_status *status,
                 json_t **ret_stats, struct error *err);
    /* out is the standard output. */
    int (*print_processes)(const struct guest *guest, const struct guest_status *status,
                           const char *const *columns, FILE *out, struct error *err);
};

extern const struct isolation container_isolation, vm_isolation;

/* NULL: the default, containers. -EINVAL with words when there is none of that name. */
int isolation_find(const char *name, const struct isolation **ret_isolation, struct error *err);
/* That of a guest's record. */
const struct isolation *isolation_of(const struct guest *guest);

#endif
