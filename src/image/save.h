/* save.h - images out of a store into files that other tools read: an OCI image
 * layout, with a Docker archive's manifest.json beside it that names the same blobs. */
#ifndef LODGE_IMAGE_SAVE_H
#define LODGE_IMAGE_SAVE_H

#include "image/progress.h"
#include "image/store.h"

enum save_form {
    SAVE_DIRECTORY, /* path must not exist, or be an empty directory */
    SAVE_ARCHIVE,   /* a tar archive; path "-": the standard output */
};

/* Write count images. All content is checked on its way. On failure path is
 * left as it was. */
int image_save(const struct store *store, const struct descriptor *images, size_t count,
               enum save_form form, const char *path, struct progress *progress, struct error *err);

#endif
