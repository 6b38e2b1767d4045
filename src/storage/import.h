/* import.h - what formats that are only read have in common: their map function
 * finds where data is, and this reads it (private to storage). */
#ifndef LODGE_STORAGE_IMPORT_H
#define LODGE_STORAGE_IMPORT_H

#include "storage/format.h"

/* The most that a table of an image may take in memory, bytes. */
#define IMPORT_TABLE_MAX (64u << 20)

/* format->read by format->map: data at its host offset, all else zeroes. Not for what
 * is compressed. */
int import_read(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count,
                uint64_t length);

/* A table of the file, to be freed. -EINVAL when it is not in the file or too large. */
int import_table(struct disk *disk, uint64_t offset, uint64_t length, void **ret_table,
                 struct error *err);

/* Refuse a disk that was opened for writing. */
int import_check_read_only(const struct disk *disk, struct error *err);

#endif
