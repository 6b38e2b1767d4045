/* path.h - paths inside a container's root, resolved so that nothing in it
 * (symbolic links, "..", a rename at the wrong moment) leads out of it:
 * openat2(2) with RESOLVE_IN_ROOT, or where the kernel or a filter lacks it, a
 * walk of one component at a time. Descriptors returned are O_CLOEXEC. */
#ifndef LODGE_CONTAINER_PATH_H
#define LODGE_CONTAINER_PATH_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

struct path_root {
    int fd;    /* the root; not owned */
    bool walk; /* do without openat2; set by itself when it is missing, or by a test */
};

/* Open path within the root with open(2) flags, O_CREAT not among them. Returns a descriptor or a
 * negative errno without words: callers know what the path was for. */
int path_open(struct path_root *root, const char *path, int flags);

/* The text of a regular file within the root, of at most max bytes; NULL: there is none, or it is
 * something else. Freed by the caller. */
char *path_read_text(struct path_root *root, const char *path, size_t max);

/* Make path a directory within the root, and those above it where missing
 * (mode 0755 cut by no umask); returns an O_PATH descriptor. */
int path_make_directory(struct path_root *root, const char *path, mode_t mode, struct error *err);

/* The same for an empty regular file, as a target for a bind mount. */
int path_make_file(struct path_root *root, const char *path, struct error *err);

/* Open the directory that holds path, made where missing, and point ret_name
 * at the last component within path. "/" and names ending in ".." are -EINVAL. */
int path_open_parent(struct path_root *root, const char *path, const char **ret_name,
                     struct error *err);

/* Open name under the trusted directory dir_fd: no links, no other mounts. For
 * the kernel's files in /proc. */
int path_open_beneath(int dir_fd, const char *name, int flags);

#endif
