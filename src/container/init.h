/* init.h - the first process of a container, from its birth in the new
 * namespaces to its program. */
#ifndef LODGE_CONTAINER_INIT_H
#define LODGE_CONTAINER_INIT_H

#include "base/error.h"
#include "container/config.h"
#include "container/process.h"
#include "container/rootfs.h"
#include "container/state.h"

/* All gathered by the runtime, and read by the process from its copy of memory. */
struct init {
    const struct config *config;
    struct state *state;
    struct rootfs_plan rootfs;
    const char *bundle; /* not NULL: rootfs is to be opened by the process, whose user namespace
                           may take mounts where the runtime may not */
    struct process_plan process;
    int console_fd; /* the terminal's master goes there; -1: no terminal */
    int fifo_fd;    /* a byte from it starts the program */
    int error_fd;   /* for `start` to read why that failed */
};

/* A launch_fn; opaque is the struct init. */
int init_run(int sync_fd, void *opaque, struct error *err);

#endif
