/* format.h - what a disk format or a protocol is (private to storage). A new one
 * is one file and one row in the table of disk.c.
 *
 * A format keeps a guest's disk within another disk, its file; a protocol is
 * where bytes are in the end. Their functions run in fibers, wait for I/O in the
 * middle and are called while others of the same disk wait. disk.c has checked
 * ranges against the size (a protocol may be written beyond it) and that the
 * disk is writable. All return 0 or a negative errno. */
#ifndef LODGE_STORAGE_FORMAT_H
#define LODGE_STORAGE_FORMAT_H

#include "base/fiber.h"
#include "storage/disk.h"
#include "storage/image.h"
#include "storage/io.h"

struct disk {
    const struct disk_format *format;
    struct storage *storage;
    void *state;          /* the format's */
    struct disk *file;    /* what the format's bytes are in; NULL for a protocol */
    struct disk *backing; /* what is not in the image is read from it, or NULL */
    char *path;
    uint64_t size;
    unsigned depth; /* how many images are stacked on this one */
    bool writable;
    unsigned under_way; /* requests; the last to end wakes drained */
    struct fiber_queue drained;
    void (*resized)(void *opaque, uint64_t size);
    void *resized_opaque;
};

struct disk_format {
    const char *name;
    const char *url;     /* a protocol's prefix, "nbd://"; NULL for a format */
    const char *summary; /* for `lodge disk` help */

    /* Whether an image begins like this. */
    bool (*probe)(const uint8_t *head, size_t length);
    /* Make an empty image in file, which is empty and writable. NULL: read-only format. */
    int (*create)(struct disk *file, const struct disk_create_options *options, struct error *err);
    /* Set disk->state and size; file, path and writable are there. Opens the backing file. */
    int (*open)(struct disk *disk, const struct disk_options *options, struct error *err);
    int (*close)(struct disk *disk, struct error *err);

    int (*read)(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count,
                uint64_t length);
    int (*write)(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count,
                 uint64_t length);
    int (*flush)(struct disk *disk);
    int (*discard)(struct disk *disk, uint64_t offset, uint64_t length);
    int (*write_zeroes)(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags);
    int (*resize)(struct disk *disk, uint64_t size, struct error *err);
    /* What this image alone says; present false: ask the backing file. */
    int (*map)(struct disk *disk, uint64_t offset, struct disk_extent *ret_extent);

    const struct image_ops *image; /* snapshots, check and the like (image.h), or NULL */
};

extern const struct disk_format file_protocol, nbd_tcp_protocol, nbd_unix_protocol,
    nbd_tls_tcp_protocol, nbd_tls_unix_protocol;
extern const struct disk_format raw_format, qcow2_format, vmdk_format, vdi_format, vhdx_format;

/* NULL with err filled when there is none of that name. */
const struct disk_format *disk_format_find(const char *name, struct error *err);

/* Any length of vector; ranges are checked. From a fiber. */
int disk_readv(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count);
int disk_writev(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count);

/* A disk of this format in file, which it owns from then on, also on failure. */
int disk_open_in(struct disk *file, const struct disk_format *format,
                 const struct disk_options *options, struct disk **ret_disk, struct error *err);
/* A disk without content yet, to be opened by a protocol; disk_free gives it up. */
struct disk *disk_new(struct storage *storage, const struct disk_format *format, const char *path,
                      bool writable);
void disk_free(struct disk *disk);

/* Open disk's backing file name (as the image spells it). */
int disk_open_backing(struct disk *disk, const char *name, const char *format,
                      const struct disk_options *options, struct error *err);
/* The path that name means in the image at path; to be freed. NULL: out of memory. */
char *disk_backing_path(const char *path, const char *name);

#endif
