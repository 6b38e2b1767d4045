/* debian.h - Debian root filesystems out of its packages, by mmdebstrap: as a
 * bootable disk and as an image. Without root, user namespaces and the ids in
 * /etc/subuid do. */
#ifndef LODGE_IMAGE_DEBIAN_H
#define LODGE_IMAGE_DEBIAN_H

#include "image/store.h"

/* What is asked for; NULL: the default, or nothing. */
struct debian {
    const char *suite;              /* "bookworm" */
    const char *mirror;             /* where packages come from; default: mmdebstrap's */
    const char *packages;           /* more of them, separated by commas */
    const char *user;               /* made, with sudo; password and key are theirs, else root's */
    const char *password, *ssh_key; /* the key is a line of authorized_keys */
    const char *hostname;
};

/* Build a raw disk of size bytes at path (replaced) with an ext4 filesystem that is
 * the root, and the kernel and initial RAM disk to boot it with at PATH.vmlinuz and
 * PATH.initrd. It takes a minute or two. Nothing is left at path on failure. */
int debian_build_disk(const struct debian *debian, const char *path, uint64_t size,
                      struct error *err);

/* Build an image of one layer, and name it in the store. */
int debian_build_image(const struct debian *debian, struct store *store, const char *name,
                       struct descriptor *ret_descriptor, struct error *err);

#endif
