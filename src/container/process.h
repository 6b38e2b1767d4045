/* process.h - what config.json's process object (config.md, Process) makes of
 * a process: its limits, labels, ids, capabilities and seccomp filter, and at
 * last its program. */
#ifndef LODGE_CONTAINER_PROCESS_H
#define LODGE_CONTAINER_PROCESS_H

#include <stdbool.h>

#include "base/error.h"
#include "base/log.h"
#include "container/capability.h"
#include "container/config.h"
#include "container/filter.h"
#include "container/path.h"

struct process_plan {
    const struct process *process;
    const struct linux_config *linux_;
    struct capability_sets capabilities;
    struct filter filter;  /* no instructions: none */
    const char *keyring;   /* name of a new session keyring; NULL: the caller's is kept */
    unsigned preserve_fds; /* descriptors from 3 on that the program keeps */
    bool unprivileged;     /* what only the host's root may do is left out */
    int proc_fd;           /* the host's /proc; owned */
    char **env;            /* what the program gets; owned, as is the text */
    char *home;            /* "HOME=..." when it had to be made; owned */
    char *program;         /* the file to execute; owned */
};

/* Before the process is born: open and compile what it takes. */
int process_prepare(struct process_plan *plan, const struct process *process,
                    const struct linux_config *linux_, const struct log *log, struct error *err);
void process_release(struct process_plan *plan);

/* In the new process, within its root: become all of it but the program.
 * is_exec: the CPUs of execCPUAffinity count. A filter that notifies is loaded
 * here, and its listener reported over sync_fd. */
int process_become(struct process_plan *plan, bool is_exec, int sync_fd, struct error *err);

/* Load the filter unless that is done, and execute the program. Returns on failure only. */
int process_execute(struct process_plan *plan, struct error *err);

/* The process's pseudo-terminal as its standard descriptors. Closes terminal. */
int process_take_terminal(const struct process *process, int terminal, struct error *err);

#endif
