/* source.h - the files of an image that lies in a directory or in a tar archive. */
#ifndef LODGE_IMAGE_SOURCE_H
#define LODGE_IMAGE_SOURCE_H

#include <stdint.h>

#include "image/store.h"

struct source;

/* Where a file's bytes are. */
struct source_file {
    int fd; /* the caller closes it */
    uint64_t offset, size;
};

/* path: a directory, a tar archive (plain, gzip or zstd), or "-" for an archive from the standard
 * input. What cannot be read in place is put into the store's tmp/ for as long as the source is
 * open. */
int source_open(const char *path, struct store *store, struct source **ret_source,
                struct error *err);
void source_close(struct source *source); /* NULL is ignored */

/* Find a file by its name, such as "index.json"; any thread. -ENOENT with words. */
int source_find(const struct source *source, const char *name, struct source_file *ret_file,
                struct error *err);
/* A document at once; a NUL behind it is not counted. */
int source_read(const struct source *source, const char *name, char **ret_text, size_t *ret_length,
                struct error *err);

#endif
