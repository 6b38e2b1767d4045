/* The disk's bytes as they are. */
#include "storage/format.h"

static int raw_create(struct disk *file, const struct disk_create_options *options,
                      struct error *err)
{
    if (options->backing)
        return error_set(err, EINVAL, "%s: a raw disk has no backing file; use qcow2", file->path);
    if (options->cluster_size || options->version || options->refcount_bits ||
        options->lazy_refcounts || options->extended_l2 || options->compression)
        return error_set(err, EINVAL, "%s: a raw disk has no options; use qcow2", file->path);
    return file->format->resize(file, options->size, err);
}

static int raw_open(struct disk *disk, const struct disk_options *options, struct error *err)
{
    (void)options;
    (void)err;
    disk->size = disk->file->size;
    return 0;
}

static int raw_close(struct disk *disk, struct error *err)
{
    (void)disk;
    (void)err;
    return 0;
}

static int raw_read(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count,
                    uint64_t length)
{
    return disk->file->format->read(disk->file, offset, iov, count, length);
}

static int raw_write(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count,
                     uint64_t length)
{
    return disk->file->format->write(disk->file, offset, iov, count, length);
}

static int raw_flush(struct disk *disk)
{
    return disk->file->format->flush(disk->file);
}

static int raw_discard(struct disk *disk, uint64_t offset, uint64_t length)
{
    return disk->file->format->discard(disk->file, offset, length);
}

static int raw_write_zeroes(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags)
{
    return disk->file->format->write_zeroes(disk->file, offset, length, flags);
}

static int raw_resize(struct disk *disk, uint64_t size, struct error *err)
{
    int r = disk_resize(disk->file, size, err);

    if (r == 0)
        disk->size = size;
    return r;
}

static int raw_map(struct disk *disk, uint64_t offset, struct disk_extent *ret_extent)
{
    return disk->file->format->map(disk->file, offset, ret_extent);
}

const struct disk_format raw_format = {
    .name = "raw",
    .summary = "the disk's bytes as they are",
    .create = raw_create,
    .open = raw_open,
    .close = raw_close,
    .read = raw_read,
    .write = raw_write,
    .flush = raw_flush,
    .discard = raw_discard,
    .write_zeroes = raw_write_zeroes,
    .resize = raw_resize,
    .map = raw_map,
};
