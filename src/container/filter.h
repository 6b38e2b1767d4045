/* filter.h - linux.seccomp (config-linux.md, Seccomp) as a BPF program. */
#ifndef LODGE_CONTAINER_FILTER_H
#define LODGE_CONTAINER_FILTER_H

#include <linux/filter.h>
#include <stdbool.h>

#include "base/error.h"
#include "base/log.h"
#include "container/config.h"

struct filter {
    struct sock_filter *insns; /* owned; NULL: no filter */
    unsigned short count;
    unsigned flags; /* SECCOMP_FILTER_FLAG_... */
    bool notifies;  /* a listener is wanted */
};

int filter_compile(const struct seccomp *seccomp, struct filter *ret_filter, const struct log *log,
                   struct error *err);
void filter_release(struct filter *program);

/* Put the filter on the calling thread. ret_listener: the listener's
 * descriptor when the program notifies, else -1. */
int filter_apply(const struct filter *program, int *ret_listener, struct error *err);

/* Send the listener of the process pid, open there as number listener, to the
 * socket at path with the state that runtime.md (Container Process State) asks for. */
int filter_send_listener(const char *path, const char *metadata, pid_t pid, int listener,
                         const char *state_json, struct error *err);

/* The n-th action, operator, architecture or flag understood, for `features`; NULL after
 * the last. */
const char *filter_action_name(unsigned n);
const char *filter_operator_name(unsigned n);
const char *filter_architecture_name(unsigned n);
const char *filter_flag_name(unsigned n);

#endif
