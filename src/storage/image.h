/* image.h - what can be done with a disk image beside reading and writing it:
 * facts, snapshots, checking, copying, comparing. As for disk.h, all calls are
 * made on the storage's thread and end when they are done. */
#ifndef LODGE_STORAGE_IMAGE_H
#define LODGE_STORAGE_IMAGE_H

#include "storage/disk.h"

/* How far long work has come: called now and then; may be NULL. A negative errno stops the work,
 * which fails with it. */
struct image_progress {
    int (*fn)(void *opaque, uint64_t done, uint64_t total);
    void *opaque;
};

/* --- Facts --- */

struct image_info {
    uint64_t size;           /* of the guest's disk, bytes */
    uint64_t file_size;      /* where the file ends */
    uint64_t allocated;      /* what the file takes of the host's storage; 0 when not known */
    uint32_t cluster_size;   /* 0: none */
    char backing[1024];      /* as the image spells it, or "" */
    char backing_format[16]; /* or "" */
    const char *compression; /* "zlib", "zstd", or NULL */
    unsigned version;        /* 0: none */
    unsigned refcount_bits;
    bool dirty, corrupt, lazy_refcounts, extended_l2, encrypted;
};

int image_info(struct disk *disk, struct image_info *ret_info, struct error *err);

/* --- Snapshots inside the image --- */

struct image_snapshot {
    char id[64], name[256];
    uint64_t size;    /* of the disk then */
    uint64_t seconds; /* since 1970 */
};

int image_snapshot_create(struct disk *disk, const char *name, struct error *err);
/* name: the name or the id. */
int image_snapshot_apply(struct disk *disk, const char *name, struct error *err);
int image_snapshot_delete(struct disk *disk, const char *name, struct error *err);
/* To be freed. */
int image_snapshot_list(struct disk *disk, struct image_snapshot **ret_snapshots,
                        unsigned *ret_count, struct error *err);

/* --- Checking --- */

enum { IMAGE_REPAIR_LEAKS = 1 << 0, IMAGE_REPAIR_ALL = 1 << 1 };

struct image_check {
    uint64_t corruptions; /* found; what was repaired is counted there too */
    uint64_t leaks;       /* clusters that are taken and used by nothing */
    uint64_t corruptions_repaired, leaks_repaired;
    uint64_t allocated_clusters, total_clusters, compressed_clusters;
    uint64_t image_end; /* bytes */
    char first[256];    /* the first corruption in words, or "" */
};

/* repair: 0 or what to repair; then the disk must be writable. Nothing else may be
 * under way. -ENOTSUP where the format has nothing to check. */
int image_check(struct disk *disk, unsigned repair, struct image_check *ret_check,
                struct error *err);

/* --- Copying and comparing --- */

struct image_copy_options {
    bool compress;    /* write compressed clusters */
    bool target_zero; /* the target is new and reads as zeroes: they are left out */
};

/* All of from into to, which is at least as large. */
int image_copy(struct disk *from, struct disk *to, const struct image_copy_options *options,
               const struct image_progress *progress, struct error *err);

/* 0: the same content; 1: different, at *ret_offset. What one has beyond the other's end
 * must be zeroes. */
int image_compare(struct disk *a, struct disk *b, const struct image_progress *progress,
                  uint64_t *ret_offset, struct error *err);

/* Write what disk has into its backing file, and empty disk. It has no backing file open
 * afterwards: all that is left to do with it is to close it. */
int image_commit(struct disk *disk, const struct image_progress *progress, struct error *err);

/* Make backing ("" for none), of format ("": look), the backing file of disk. Unless only_name,
 * what differs between the old and the new one is copied into disk first, so that its content
 * stays. The new one is read from the next opening on. */
int image_rebase(struct disk *disk, const char *backing, const char *format, bool only_name,
                 const struct image_progress *progress, struct error *err);

/* --- For formats --- */

struct image_ops {
    int (*info)(struct disk *disk, struct image_info *info, struct error *err);
    int (*snapshot_create)(struct disk *disk, const char *name, struct error *err);
    int (*snapshot_apply)(struct disk *disk, const char *name, struct error *err);
    int (*snapshot_delete)(struct disk *disk, const char *name, struct error *err);
    int (*snapshot_list)(struct disk *disk, struct image_snapshot **ret_snapshots,
                         unsigned *ret_count, struct error *err);
    int (*check)(struct disk *disk, unsigned repair, struct image_check *ret_check,
                 struct error *err);
    /* One cluster at offset, all of it (less at the disk's end), compressed. -ENOSPC: it does not
     * get smaller. */
    int (*write_compressed)(struct disk *disk, uint64_t offset, const void *data, size_t length);
    /* Forget all guest data: the whole disk is read from the backing file. */
    int (*empty)(struct disk *disk, struct error *err);
    /* Write another backing file's name down, "" for none. */
    int (*set_backing)(struct disk *disk, const char *name, const char *format, struct error *err);
};

#endif
