/* processes.h - the processes of a guest as a table, from proc(5): the host's for a container, and
 * in a virtual machine its own. Shared with guest/. What processes and the root's passwd say is
 * the guest's: it is cut, and has no bytes that a terminal would take for commands. */
#ifndef LODGE_GUEST_PROCESSES_H
#define LODGE_GUEST_PROCESSES_H

#include <stdio.h>
#include <sys/types.h>

#include "base/error.h"

struct processes {
    const pid_t *pids; /* as this process's /proc has them */
    size_t count;
    pid_t first; /* the guest's first: its namespace is the one whose numbers are told */
    int root_fd; /* with etc/passwd; not owned */
};

/* Names of columns as `podman top` has them, and ended by NULL; an empty list is podman's default.
 * -EINVAL with words when one is not known. */
int processes_check(const char *const *columns, struct error *err);
/* A heading, and a line each. */
void processes_print(const struct processes *processes, const char *const *columns, FILE *out);
/* A line each: the number as /proc has it, and the command. */
void processes_list(const struct processes *processes, FILE *out);

#endif
