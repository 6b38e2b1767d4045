/* store.h - where images are kept: content by digest, and names for it.
 *
 * A store is an OCI image layout (image-layout.md), so that other tools read it
 * as it is, and an exported layout is a store too:
 *
 *     oci-layout, index.json   the names: one descriptor of a manifest each
 *     blobs/sha256/HEX         content, checked before it gets its name
 *     layers/sha256/HEX        layers unpacked, by the digest of their tar stream
 *     disks/HEX                images as disks of virtual machines, by their manifest's digest
 *     partial/                 downloads to be gone on with
 *     holds/NAME               a descriptor whose content a guest uses
 *     tmp/                     what is in the making; of no worth after a crash
 *     lock, index.lock
 *
 * Several processes may use a store at once. Each holds `lock` shared while it
 * has the store open; what removes content (collect.h) takes it exclusively. So
 * content that a process has seen stays for as long as it has the store open.
 * index.json is replaced as a whole under `index.lock`. Nothing gets its final
 * name before it is whole and on the disk. One handle may be used by several threads. */
#ifndef LODGE_IMAGE_STORE_H
#define LODGE_IMAGE_STORE_H

#include "image/manifest.h"

struct store;

/* path NULL: this user's store: /var/lib/lodge/images for root, else
 * $XDG_DATA_HOME/lodge/images. Made where missing. */
int store_open(const char *path, struct store **ret_store, struct error *err);
void store_close(struct store *store); /* NULL is ignored */
const char *store_path(const struct store *store);
int store_directory(const struct store *store); /* descriptor of the path; not the caller's */

/* --- Content --- */

bool store_has(const struct store *store, const struct descriptor *descriptor);
/* Open a blob for reading: a descriptor, or -ENOENT with words. The size is
 * checked; the digest was checked when it was stored. */
int store_open_blob(const struct store *store, const struct descriptor *descriptor,
                    struct error *err);
/* A document at once, its digest checked; a NUL behind it is not counted. */
int store_read_blob(const struct store *store, const struct descriptor *descriptor, char **ret_text,
                    size_t *ret_length, struct error *err);
/* Put a document in; fills ret_descriptor's digest and size. */
int store_write_blob(struct store *store, const void *data, size_t length,
                     struct descriptor *ret_descriptor, struct error *err);

/* Where an image is kept as a disk, by its manifest's digest. Made when needed (src/guest/). */
enum { STORE_DISK_MAX = 160 };
void store_disk_path(const struct digest *manifest, char path[STORE_DISK_MAX]);

/* A name under tmp/ that no one else has, into buffer. */
void store_temporary_name(struct store *store, char *buffer, size_t size);

/* --- Names --- */

/* The manifest that text names: a reference, one without its registry when only
 * one image fits, or the first digits (6 at least) of a manifest's digest. */
int store_resolve(const struct store *store, const char *text, struct descriptor *ret_descriptor,
                  struct error *err);
/* All names, in the order they came. */
int store_list(const struct store *store, struct index *ret_index, struct error *err);
/* Give a manifest the name in descriptor->name, which another one loses. "" adds
 * it without a name. */
int store_tag(struct store *store, const struct descriptor *descriptor, struct error *err);
/* Take away a name as store_list gives it; without a name, the manifest. */
int store_untag(struct store *store, const struct descriptor *descriptor, struct error *err);

/* Keep the content of an image, whatever becomes of its names, for the guest called
 * name (letters, digits, . _ -); one hold a guest. Releasing what is not held is no error. */
int store_hold(struct store *store, const char *name, const struct descriptor *descriptor,
               struct error *err);
int store_release(struct store *store, const char *name, struct error *err);
bool store_is_held(const struct store *store, const char *name);
/* Release what is held for guests that is_there does not know. */
int store_release_others(struct store *store, bool (*is_there)(const char *name),
                         struct error *err);

/* The manifest and the configuration behind a descriptor. ret_config may be NULL. */
int store_read_image(const struct store *store, const struct descriptor *descriptor,
                     struct manifest *ret_manifest, struct image_config *ret_config,
                     struct error *err);

#endif
