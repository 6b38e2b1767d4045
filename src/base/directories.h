/* directories.h - a directory, and those above it. */
#ifndef LODGE_BASE_DIRECTORIES_H
#define LODGE_BASE_DIRECTORIES_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

/* Make what is missing of path, which is absolute: above is the mode of the directories above
 * the last one, last its own. Those that are there stay as they are. */
int directories_make(const char *path, mode_t above, mode_t last, struct error *err);

/* Open a directory (O_PATH) as a mount of its own that hangs nowhere: ".." leads from it to itself,
 * even for whoever has taken this process over; readonly, nothing below it can be written. That
 * needs a mount namespace of one's own, or root: elsewhere it is the directory where it stands.
 * -1 with errno. */
int directory_open_alone(const char *path, bool readonly);

#endif
