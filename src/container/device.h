/* device.h - the device files of a container (config-linux.md, Devices, Default
 * Devices), its /dev/console and the links in /dev (runtime-linux.md, Dev
 * symbolic links). */
#ifndef LODGE_CONTAINER_DEVICE_H
#define LODGE_CONTAINER_DEVICE_H

#include "base/error.h"
#include "container/config.h"
#include "container/path.h"

/* The default devices, then those of the configuration. Where mknod(2) is not
 * allowed the host's file is bound. */
int device_make_all(struct path_root *root, const struct linux_config *linux_, struct error *err);

/* A new pseudo-terminal of the root's own devpts. The descriptors are checked
 * to be what they should: the root's files may have been made by an attacker. */
int device_open_terminal(struct path_root *root, int *ret_master, int *ret_slave,
                         struct error *err);
/* Bind the slave over /dev/console. */
int device_bind_console(struct path_root *root, int slave, struct error *err);

#endif
