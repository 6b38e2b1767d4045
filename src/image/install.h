/* install.h - an image from anywhere into a store: its layers fetched and
 * unpacked side by side, and named when all of it is there. */
#ifndef LODGE_IMAGE_INSTALL_H
#define LODGE_IMAGE_INSTALL_H

#include "image/progress.h"
#include "image/store.h"

struct origin {
    /* Put layer number i into the store. Its digest and size are known, or
     * (digest "") filled in. Called on several threads. */
    int (*fetch)(const struct origin *origin, struct store *store, size_t i,
                 struct descriptor *layer, struct progress *progress, struct error *err);
    unsigned threads; /* how many fetches at once; 0: as many as there are CPUs */
};

/* Fetch what the store lacks of manifest's layers, and unpack them; each must
 * have the digest that the configuration gives for it. The documents
 * themselves are put in by the caller, who then names the image. */
int image_install(struct store *store, const struct origin *origin, struct manifest *manifest,
                  const struct image_config *config, struct progress *progress, struct error *err);

/* Unpack the layers that an image in the store still lacks under layers/. */
int image_unpack(struct store *store, const struct manifest *manifest,
                 const struct image_config *config, struct error *err);

/* Where the layer whose tar stream has diff_id is unpacked, under the store's
 * path, into path (LAYER_PATH_MAX). Such directories are overlayfs's lowerdirs. */
enum { LAYER_PATH_MAX = 160 };
void layer_path(const struct digest *diff_id, char *path);

#endif
