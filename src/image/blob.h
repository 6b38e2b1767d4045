/* blob.h - content on its way into a store: written piece by piece, hashed as
 * it comes, and named only when its digest and size are those expected. */
#ifndef LODGE_IMAGE_BLOB_H
#define LODGE_IMAGE_BLOB_H

#include "image/store.h"

struct blob_writer;

/* expected: the digest and size that the content must have, or NULL. */
int blob_create(struct store *store, const struct descriptor *expected,
                struct blob_writer **ret_writer, struct error *err);

/* The same for a download: what an earlier one left in partial/ is taken over,
 * and kept by blob_abandon. Waits while another process downloads the same;
 * -EEXIST without words when the content is then there. */
int blob_resume(struct store *store, const struct descriptor *expected,
                struct blob_writer **ret_writer, struct error *err);

/* How many bytes it has. */
uint64_t blob_size(const struct blob_writer *writer);
/* Throw away what it has, and begin anew. */
int blob_restart(struct blob_writer *writer, struct error *err);

/* -EINVAL when more comes than expected. */
int blob_write(struct blob_writer *writer, const void *data, size_t length, struct error *err);
/* Write length bytes of fd from offset on. */
int blob_copy(struct blob_writer *writer, int fd, uint64_t offset, uint64_t length,
              struct error *err);

/* Check, sync, name, and destroy the writer, whatever comes out. Fills digest
 * and size of ret_descriptor, which may be NULL. */
int blob_finish(struct blob_writer *writer, struct descriptor *ret_descriptor, struct error *err);
void blob_abandon(struct blob_writer *writer);

#endif
