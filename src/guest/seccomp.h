/* seccomp.h - the system calls of a container guest: profiles in the form that other engines
 * take them, with rows that count for some capabilities or machines only, as the
 * linux.seccomp of an OCI configuration. The built-in one is seccomp.json. */
#ifndef LODGE_GUEST_SECCOMP_H
#define LODGE_GUEST_SECCOMP_H

#include <jansson.h>

#include "base/error.h"

/* The built-in profile. A new reference. */
json_t *seccomp_default(void);
/* A profile from a file, of this form or OCI's own. A new reference. */
int seccomp_read(const char *path, json_t **ret_profile, struct error *err);
/* What of the profile counts for a process with these capabilities (an array of names) on this
 * machine. A new reference. */
json_t *seccomp_resolve(const json_t *profile, const json_t *capabilities);

#endif
