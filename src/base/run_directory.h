/* run_directory.h - where running machines keep their sockets: lodge/ under
 * $XDG_RUNTIME_DIR, or under /run without one (file-hierarchy(7)). */
#ifndef LODGE_BASE_RUN_DIRECTORY_H
#define LODGE_BASE_RUN_DIRECTORY_H

#include <stddef.h>

#include "base/error.h"

/* Make the directory if it is not there (mode 0700), and write the path of
 * NAME.SUFFIX in it into path, free of links. name must be 1 to 64 letters, digits, dots,
 * dashes or underlines and begin with a letter or digit. */
int run_directory_path(const char *name, const char *suffix, char *path, size_t size,
                       struct error *err);

#endif
