/* store-private.h - inside a store; for store.c, blob.c, collect.c and rootfs.c. */
#ifndef LODGE_IMAGE_STORE_PRIVATE_H
#define LODGE_IMAGE_STORE_PRIVATE_H

#include <stdatomic.h>

#include "image/store.h"

enum { STORE_NAME_MAX = 160 }; /* of blobs/, layers/ and partial/ names */

struct store {
    char *path;
    int fd;
    int lock_fd;             /* holds a shared flock(2) */
    uint64_t token;          /* random: tells this handle's temporary names from all others */
    atomic_uint temporaries; /* names given out */
};

/* A file of the form of index.json; one that is not there is empty. */
int store_read_index(const struct store *store, const char *name, struct index *ret_index,
                     struct error *err);

/* The blob's name within the store, into path (STORE_NAME_MAX). */
void store_blob_path(const struct digest *digest, char *path);

#endif
