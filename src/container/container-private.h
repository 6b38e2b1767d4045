/* container-private.h - between the files that make up container.h. */
#ifndef LODGE_CONTAINER_CONTAINER_PRIVATE_H
#define LODGE_CONTAINER_CONTAINER_PRIVATE_H

#include "container/container.h"

/* Replace the file by the pid in decimal. */
int pid_file_write(const char *path, pid_t pid, struct error *err);

/* config.md, poststop: each hook runs, whatever became of the one before. */
void poststop_run(const struct state *state, const struct config *config, const struct log *log);

#endif
