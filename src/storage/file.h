/* file.h - files and block devices of the host, beside what format.h says of
 * them as a protocol (private to storage). */
#ifndef LODGE_STORAGE_FILE_H
#define LODGE_STORAGE_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct disk;

/* Make an empty file at path. -EEXIST when there is one, unless overwrite: then it is
 * left as it is, for its content goes only once it is locked. A block device is always left.
 * *ret_made: the file is new, and the caller's to remove when what follows fails. */
int file_make(const char *path, bool overwrite, bool *ret_made, struct error *err);

/* What the file takes of the host's storage, bytes. */
uint64_t file_allocated(const struct disk *file);

#endif
