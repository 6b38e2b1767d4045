/* disk.h - virtual disks: the seam between what uses a disk (virtio-blk, the
 * NBD server, `lodge disk`) and how it is kept (format.h).
 *
 * A disk is opened by a path or URL; its format is found by its content or
 * named. Requests are asynchronous: any number may be under way, they end in any
 * order, and overlapping ones are ordered only by waiting for the first to end.
 * A write that has ended is seen by later reads; it survives a power cut once a
 * flush that was submitted afterwards has ended.
 *
 * All calls are made on the thread of the disk's `struct storage`. The ones that
 * are not requests (open, close, resize, ...) do their I/O before they return
 * and meanwhile end other requests of the same storage: their `done` may be
 * called. They are not to be called from a `done`. */
#ifndef LODGE_STORAGE_DISK_H
#define LODGE_STORAGE_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "storage/storage.h"

struct disk;

/* Offsets and lengths are multiples of it in what a guest may send; the functions
 * here take any byte. */
#define DISK_SECTOR 512

/* --- Opening --- */

struct disk_options {
    const char *format; /* a name of disk_formats; NULL: look at the content */
    bool writable;
    bool no_lock;    /* do not refuse what another program has open for writing */
    bool no_backing; /* leave the backing file unopened: what is not in the image reads as zeroes */
    bool no_flush;   /* do not wait for the host's disks: for what can be made again */
    bool repairing;  /* open also what is marked corrupt or dirty, as it is */
};

/* path: a file, a block device, nbd://HOST[:PORT][/EXPORT] or
 * nbd+unix:///EXPORT?socket=PATH. NULL options: read-only, all by default.
 * A file is locked against other writers (open file description locks, the
 * ones that QEMU takes too): -EBUSY when another program has it. */
int disk_open(struct storage *storage, const char *path, const struct disk_options *options,
              struct disk **ret_disk, struct error *err);

/* Waits for the requests under way, writes back what is cached, lets go. The disk is
 * gone in any case; the error says that the last writes did not arrive. NULL is ignored. */
int disk_close(struct disk *disk, struct error *err);

uint64_t disk_size(const struct disk *disk); /* bytes */
bool disk_writable(const struct disk *disk);
const char *disk_path(const struct disk *disk);
const char *disk_format_name(const struct disk *disk);
struct storage *disk_storage(const struct disk *disk);

/* --- Requests --- */

enum disk_op {
    DISK_READ,
    DISK_WRITE,
    DISK_FLUSH,        /* all writes that have ended are durable when it ends */
    DISK_DISCARD,      /* the content may be forgotten; reads give zeroes or the old content */
    DISK_WRITE_ZEROES, /* reads give zeroes */
};

enum {
    DISK_FUA = 1 << 0,       /* write, write zeroes: durable when it ends */
    DISK_MAY_UNMAP = 1 << 1, /* write zeroes: the storage may be given back */
};

/* Filled by the caller and left alone until done is called. */
struct disk_request {
    enum disk_op op;
    unsigned flags;
    uint64_t offset;         /* bytes */
    uint64_t length;         /* discard, write zeroes: bytes; otherwise unused */
    const struct iovec *iov; /* read, write: the memory; its lengths add up to the length */
    unsigned iov_count;
    /* On the storage's thread, never from within disk_submit. result: 0, or a negative
     * errno: -EINVAL beyond the disk's end, -EROFS, -ENOSPC, -EIO, ... */
    void (*done)(struct disk_request *request, int result);
    void *opaque; /* the caller's */

    struct disk *disk;         /* the disk's own */
    struct disk_request *next; /* the same */
    int result;                /* the same */
};

void disk_submit(struct disk *disk, struct disk_request *request);

/* Wait until no request of the disk is under way. */
void disk_drain(struct disk *disk);

/* The same, waited for. Return 0 or a negative errno. */
int disk_read(struct disk *disk, uint64_t offset, void *buffer, size_t length);
int disk_write(struct disk *disk, uint64_t offset, const void *buffer, size_t length);
int disk_flush(struct disk *disk);
int disk_discard(struct disk *disk, uint64_t offset, uint64_t length);
int disk_write_zeroes(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags);

/* --- Size --- */

/* Grow or shrink. Waits for the requests under way first. What is new reads as zeroes.
 * -ENOTSUP where the format cannot, -EROFS. */
int disk_resize(struct disk *disk, uint64_t size, struct error *err);

/* Call fn on each change of the size, by whomever: virtio-blk tells its guest. */
void disk_on_resize(struct disk *disk, void (*fn)(void *opaque, uint64_t size), void *opaque);

/* --- Making disks --- */

/* NULL and 0: the format's default. */
struct disk_create_options {
    uint64_t size;              /* bytes; 0 with a backing file: the backing file's */
    const char *backing;        /* path of the backing file, relative to the new image's folder */
    const char *backing_format; /* its format; NULL: looked for, and written down */
    uint32_t cluster_size;      /* qcow2: 512 to 2M, a power of two; default 64K */
    unsigned version;           /* qcow2: 2 or 3 */
    unsigned refcount_bits;     /* qcow2: 1, 2, 4, ... 64; default 16 */
    bool lazy_refcounts;        /* qcow2 version 3 */
    bool extended_l2;           /* qcow2 version 3: subclusters */
    const char *compression;    /* qcow2: "zlib" or "zstd" */
    bool overwrite;             /* an existing file is replaced; otherwise -EEXIST */
};

/* Make an empty disk image. A half-made file does not stay. */
int disk_create(struct storage *storage, const char *path, const char *format,
                const struct disk_create_options *options, struct error *err);

/* --- Where the data is --- */

struct disk_extent {
    uint64_t length; /* bytes from the offset asked for that are alike */
    unsigned depth;  /* 0: in this image; n: in the n-th backing file */
    bool present;    /* some image of the chain has it (allocated, or zeroes said explicitly) */
    bool zero;       /* reads as zeroes */
    bool data;       /* there is storage behind it */
    bool compressed;
    bool has_host_offset;
    uint64_t host_offset; /* in the file of the image that has it */
};

/* What holds at offset (less than the size). Looks through backing files. */
int disk_map(struct disk *disk, uint64_t offset, struct disk_extent *ret_extent);

#endif
