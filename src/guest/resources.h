/* resources.h - what a container guest may take of the host, beside --memory and --cpus, which
 * virtual machines have too. The options are podman's. */
#ifndef LODGE_GUEST_RESOURCES_H
#define LODGE_GUEST_RESOURCES_H

#include <jansson.h>
#include <stdint.h>

#include "base/error.h"

enum { LIMITS = 10 };

/* What is asked for, as text; NULL: nothing. */
struct limit_options {
    const char *values[LIMITS];
};

/* The n-th option's name, without dashes; NULL after the last. */
const char *limit_name(unsigned n);

/* The first that is given, or NULL: a virtual machine has none of them. */
const char *limits_foreign_to_vm(const struct limit_options *options);

/* Check them beside memory (bytes, 0: no limit) and cpus (0: no limit), and write all down: as
 * linux.resources of an OCI configuration, and oomScoreAdj beside them. A new reference. */
int limits_record(const struct limit_options *options, uint64_t memory, double cpus,
                  json_t **ret_record, struct error *err);

/* Complete an OCI configuration, with process and linux.resources in it. */
void limits_apply(const json_t *record, json_t *config);

#endif
