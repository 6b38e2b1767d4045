/* kernel.h - the Linux of virtual machines that run images: where it is, and the
 * initial RAM disk with Lodge's init and the modules that the guest needs. */
#ifndef LODGE_GUEST_KERNEL_H
#define LODGE_GUEST_KERNEL_H

#include <limits.h>
#include <stdbool.h>

#include "base/error.h"

/* What the guest has beside a disk and its ports. */
enum { KERNEL_NETWORK = 1 << 0, KERNEL_SHARES = 1 << 1 };

/* The kernel to boot: asked (NULL or "": the smallest one installed that can do the features),
 * into path. -ENOENT tells how to get one. */
int kernel_find(const char *asked, unsigned features, char path[PATH_MAX], struct error *err);

/* Write the initial RAM disk for a kernel to fd. Its modules are in modules/ beside it, and
 * modules/order lists them; without that directory, all must be built in. */
int kernel_write_initrd(const char *kernel, unsigned features, int fd, struct error *err);

#endif
