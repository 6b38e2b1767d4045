/* directories.h - a directory, and those above it. */
#ifndef LODGE_BASE_DIRECTORIES_H
#define LODGE_BASE_DIRECTORIES_H

#include <sys/types.h>

#include "base/error.h"

/* Make what is missing of path, which is absolute: above is the mode of the directories above
 * the last one, last its own. Those that are there stay as they are. */
int directories_make(const char *path, mode_t above, mode_t last, struct error *err);

#endif
