/* config-private.h - between config.c, which reads, and config_check.c, which judges. */
#ifndef LODGE_CONTAINER_CONFIG_PRIVATE_H
#define LODGE_CONTAINER_CONFIG_PRIVATE_H

#include "container/config.h"

/* By the kernel's RLIMIT_ number; NULL ends it. */
extern const char *const config_rlimit_names[];

/* Each names the field that is wrong. */
int process_check(const struct process *process, struct error *err);
int resources_check(const struct resources *resources, struct error *err);
int config_check(const struct config *config, struct error *err);

#endif
