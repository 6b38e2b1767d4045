/* confine.h - what a container guest may do: its capabilities, system calls, devices, limits of
 * processes, and what of /proc and /sys it sees. The options and defaults are podman's. */
#ifndef LODGE_GUEST_CONFINE_H
#define LODGE_GUEST_CONFINE_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"

/* What is asked for. Lists end with NULL, or are NULL. */
struct confine_options {
    bool privileged; /* nothing is withheld but the namespaces' own limits */
    bool read_only;  /* the root; /tmp, /run and /var/tmp can still be written */
    const char *const *cap_add, *const *cap_drop; /* names, with or without CAP_; or ALL */
    const char *const *security; /* seccomp=FILE, seccomp=unconfined, no-new-privileges,
                                    apparmor=PROFILE, label=..., unmask=ALL */
    const char *const *devices;  /* SOURCE[:TARGET][:rwm] */
    const char *const *tmpfs;    /* TARGET[:OPTION,...] */
    const char *const *limits;   /* NAME=SOFT[:HARD]; -1: none */
    const char *pids;            /* how many processes; NULL: 2048; -1: no limit */
};

/* The option that is asked for and means nothing to a virtual machine, whose kernel is its own, or
 * NULL. That withholds no capability: what adds some is done already. */
const char *confine_foreign_to_vm(const struct confine_options *options);

/* Check the options, and write them down. A new reference. */
int confine_record(const struct confine_options *options, json_t **ret_record, struct error *err);

/* Call fn with each file system in memory that is asked for, by itself or to be written beside a
 * root that cannot be; options are those of mount(8). What the root has there is copied into it. */
void confine_each_tmpfs(const json_t *record,
                        void (*fn)(void *opaque, const char *target, const char *options),
                        void *opaque);

/* Complete an OCI configuration, with process.user and linux.namespaces in it, by a record
 * (NULL: the defaults). */
int confine_apply(const json_t *record, json_t *config, struct error *err);

#endif
