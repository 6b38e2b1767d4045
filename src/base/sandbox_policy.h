/* sandbox_policy.h - the system calls of each kind of thread, as a table, and
 * its translation into a filter. Private to the sandbox. */
#ifndef LODGE_BASE_SANDBOX_POLICY_H
#define LODGE_BASE_SANDBOX_POLICY_H

#include <linux/filter.h>

#include "base/sandbox.h"

/* The filter for a kind of thread under features. The caller frees ret_program->filter. */
int sandbox_policy_compile(enum sandbox_thread kind, unsigned features,
                           struct sock_fprog *ret_program, struct error *err);

#endif
