/* copy.h - one directory's content into another, with owners, modes, times,
 * extended attributes and special files, as tmpcopyup means it. */
#ifndef LODGE_CONTAINER_COPY_H
#define LODGE_CONTAINER_COPY_H

#include "base/error.h"

/* Both are O_PATH descriptors of directories. Links are copied, not followed;
 * other filesystems below from_fd are left out. */
int copy_tree(int from_fd, int to_fd, struct error *err);
/* The same for what is called name in one directory, as to_name, which is not there yet, in the
 * other. What is half done stays. */
int copy_entry(int from_fd, const char *name, int to_fd, const char *to_name, struct error *err);

#endif
