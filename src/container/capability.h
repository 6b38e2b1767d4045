/* capability.h - capability sets (capabilities(7)) from the names of config.json. */
#ifndef LODGE_CONTAINER_CAPABILITY_H
#define LODGE_CONTAINER_CAPABILITY_H

#include <stdint.h>

#include "base/error.h"
#include "base/log.h"
#include "container/config.h"

/* One bit a capability. */
struct capability_sets {
    uint64_t bounding, effective, inheritable, permitted, ambient;
};

/* Names that this kernel does not have are logged and left out, as config.md
 * (Linux Process) says. names NULL: empty sets. */
void capability_parse(const struct capability_names *names, struct capability_sets *ret_sets,
                      const struct log *log);

/* Drop from the bounding set what is not in it. Before the user changes. */
int capability_bound(const struct capability_sets *sets, struct error *err);

/* Set the other sets of the calling thread. After the user has changed with
 * PR_SET_KEEPCAPS. What the bounding set of the caller does not allow is left out. */
int capability_apply(const struct capability_sets *sets, struct error *err);

/* The name of capability n ("CAP_CHOWN"); NULL when this kernel has none such. */
const char *capability_name(unsigned n);

#endif
