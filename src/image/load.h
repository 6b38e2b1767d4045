/* load.h - images out of files into a store: an OCI image layout, or what
 * `docker save` and `podman save` write (a manifest.json beside the layers);
 * as a directory or as a tar archive. */
#ifndef LODGE_IMAGE_LOAD_H
#define LODGE_IMAGE_LOAD_H

#include "image/progress.h"
#include "image/source.h"

/* Told of each image that came: its name ("" for none) and manifest are in descriptor. */
typedef void load_fn(void *opaque, const struct descriptor *descriptor);

/* Load all images of the source; of those for several platforms, the one for platform.
 * name: what the image is called here, when the source has only one; else NULL.
 * On failure what came in vain is removed from the store. */
int image_load(struct store *store, const struct source *source, const char *name,
               const struct platform *platform, struct progress *progress, load_fn *loaded,
               void *opaque, struct error *err);

#endif
