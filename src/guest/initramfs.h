/* initramfs.h - files as an initial RAM disk (cpio "newc"; Linux,
 * Documentation/driver-api/early-userspace/buffer-format.rst). */
#ifndef LODGE_GUEST_INITRAMFS_H
#define LODGE_GUEST_INITRAMFS_H

#include <stddef.h>

#include "base/error.h"

struct initramfs;

/* Write to fd, which stays the caller's. */
int initramfs_create(int fd, struct initramfs **ret_initramfs, struct error *err);
void initramfs_destroy(struct initramfs *initramfs); /* NULL is ignored */

/* Add a directory (data NULL) or a file owned by root; mode with its type. */
int initramfs_add(struct initramfs *initramfs, const char *name, unsigned mode, const void *data,
                  size_t length, struct error *err);
/* The end; flushes. */
int initramfs_finish(struct initramfs *initramfs, struct error *err);

#endif
