/* collect.h - what no name leads to is removed, and what is there is checked. */
#ifndef LODGE_IMAGE_COLLECT_H
#define LODGE_IMAGE_COLLECT_H

#include "image/store.h"

struct collected {
    size_t items;   /* blobs, unpacked layers and old downloads */
    uint64_t bytes; /* of blobs and downloads */
    bool busy;      /* another process has the store open: nothing was removed */
};

/* Remove the content that no image in the index needs; a download that was
 * broken off counts after a day. ret_collected may be NULL. */
int store_collect(struct store *store, struct collected *ret_collected, struct error *err);

/* Told of each fault. */
typedef void check_fn(void *opaque, const char *fault);

struct checked {
    size_t images, blobs, faults;
    size_t unreferenced; /* blobs and layers that store_collect would remove */
};

/* Read all content that the index leads to, and compare it with its digests;
 * look for layers and files that should not be there. */
int store_check(struct store *store, check_fn *fault, void *opaque, struct checked *ret_checked,
                struct error *err);

#endif
