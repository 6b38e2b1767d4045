/* file.h - whole small files at once: configuration, state, and the kernel's
 * one-value files. Paths are relative to dir_fd (AT_FDCWD: as they stand). */
#ifndef LODGE_CONTAINER_FILE_H
#define LODGE_CONTAINER_FILE_H

#include <stddef.h>

#include "base/error.h"

/* Read at most max bytes (more is -EFBIG); text is ended by a NUL that is not
 * counted, and freed by the caller. ret_length may be NULL. */
int file_read(int dir_fd, const char *path, size_t max, char **ret_text, size_t *ret_length,
              struct error *err);

/* One write(2) into an existing file, as the kernel's control files want it. */
int file_put(int dir_fd, const char *path, const char *text, struct error *err);

/* Replace path by a file with text: readers see the old or the new, never a half. */
int file_replace(int dir_fd, const char *path, const char *text, size_t length, struct error *err);

#endif
