/* copy.h - one directory's content into another, with owners, modes, times,
 * extended attributes and special files: what tmpcopyup means. */
#ifndef LODGE_CONTAINER_COPY_H
#define LODGE_CONTAINER_COPY_H

#include "base/error.h"

/* Both are O_PATH descriptors of directories. Links are copied, not followed;
 * other filesystems below from_fd are left out. */
int copy_tree(int from_fd, int to_fd, struct error *err);

#endif
