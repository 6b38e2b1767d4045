/* expand.h - a tar stream that may be compressed: expanded, bounded, and hashed
 * on its way to libarchive's reader. For layers, and for whole archives. */
#ifndef LODGE_IMAGE_EXPAND_H
#define LODGE_IMAGE_EXPAND_H

#include <archive.h>
#include <stdint.h>
#include <sys/types.h>

#include "image/digest.h"

struct expander;

/* Expand length bytes of fd from offset on, to limit bytes at most. library_archive is loaded. */
int expander_create(int fd, uint64_t offset, uint64_t length, uint64_t limit,
                    const struct digest *like, struct expander **ret_expander, struct error *err);
void expander_destroy(struct expander *expander); /* NULL is ignored */

/* The next bytes: their count, 0 at the end. data is valid until the next call. */
ssize_t expander_read(struct expander *expander, const void **ret_data, struct error *err);

/* A reader of the expanded stream; freed by the caller before the expander. */
int expander_open_tar(struct expander *expander, struct archive **ret_tar, struct error *err);
/* Why the reader failed: the expander's own words, or libarchive's. Returns the error. */
int expander_error(struct expander *expander, struct archive *tar, struct error *err);

/* Read what the reader left, and give the digest of all that came. */
int expander_finish(struct expander *expander, struct digest *ret_digest, struct error *err);

#endif
