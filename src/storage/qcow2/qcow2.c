/* Opening, flushing and closing qcow2 images. */
#include "storage/qcow2/qcow2.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"

/* Memory for tables: L2 tables of 32M map 256G with clusters of 64K. */
#define L2_CACHE_BYTES    (32u << 20)
#define BLOCK_CACHE_BYTES (8u << 20)
#define CACHE_TABLES_MIN  16

/* --- Flushing --- */

static bool lazy(const struct qcow2 *q)
{
    return q->header.compatible & QCOW2_LAZY_REFCOUNTS;
}

int qcow2_write_back(struct qcow2 *q)
{
    bool tables = q->l2_cache.dirty || q->l1_dirty;
    int r = 0;

    /* 1: what tables will refer to, and that it is taken. */
    if (!lazy(q) || (q->header.incompatible & QCOW2_DIRTY) == 0)
        r = cache_write_back(q, &q->block_cache);
    if (r == 0)
        r = disk_flush(q->file);
    /* 2: the tables. */
    if (r == 0 && tables) {
        r = cache_write_back(q, &q->l2_cache);
        if (r == 0 && q->l1_dirty)
            r = mapping_write_l1(q);
        if (r == 0)
            r = disk_flush(q->file);
    }
    /* 3: what they do not refer to any more. */
    return r == 0 ? clusters_free_pending(q) : r;
}

static int qcow2_flush(struct disk *disk)
{
    struct qcow2 *q = disk->state;
    struct fibers *fibers = storage_fibers(disk->storage);
    bool clean = !q->l2_cache.dirty && !q->l1_dirty && (lazy(q) || !q->block_cache.dirty);
    int r;

    if (clean && !q->lock.held)
        return disk_flush(q->file);
    fiber_lock(fibers, &q->lock);
    r = qcow2_write_back(q);
    fiber_unlock(&q->lock);
    return r;
}

static int set_incompatible(struct qcow2 *q, uint64_t set, uint64_t clear)
{
    const uint64_t before = q->header.incompatible;
    int r;

    q->header.incompatible = (before | set) & ~clear;
    r = qcow2_header_update(q);
    if (r == 0)
        r = disk_flush(q->file);
    if (r < 0)
        q->header.incompatible = before;
    return r;
}

int qcow2_begin_change(struct qcow2 *q)
{
    if (!lazy(q) || (q->header.incompatible & QCOW2_DIRTY))
        return 0;
    return set_incompatible(q, QCOW2_DIRTY, 0);
}

int qcow2_corrupt(struct qcow2 *q)
{
    if (!q->broken && q->disk->writable) {
        q->broken = true;
        if (q->header.version >= 3)
            set_incompatible(q, QCOW2_CORRUPT, 0);
    }
    return -EIO;
}

/* --- Opening --- */

static int set_up(struct qcow2 *q, struct error *err)
{
    const struct qcow2_header *h = &q->header;
    bool extended = h->incompatible & QCOW2_EXTENDED_L2;
    int r;

    q->cluster_size = 1u << h->cluster_bits;
    q->l2_entry_size = extended ? 16 : 8;
    q->l2_bits = h->cluster_bits - (extended ? 4 : 3);
    q->subcluster_size = extended ? q->cluster_size / QCOW2_SUBCLUSTERS : q->cluster_size;
    q->block_bits = h->cluster_bits + 3 - h->refcount_order;
    q->fresh_from = (q->file->size + q->cluster_size - 1) / q->cluster_size;
    fiber_lock_init(&q->lock);
    range_locks_init(&q->ranges);
    if (h->l1_size && !h->l1_offset)
        return error_set(err, EINVAL, "%s has no L1 table", q->file->path);
    if (cache_init(&q->l2_cache, MAX(L2_CACHE_BYTES >> h->cluster_bits, CACHE_TABLES_MIN)) < 0 ||
        cache_init(&q->block_cache, MAX(BLOCK_CACHE_BYTES >> h->cluster_bits, CACHE_TABLES_MIN)) <
            0)
        return error_set(err, ENOMEM, "out of memory for tables");
    r = refcount_load_table(q, err);
    return r < 0 ? r : mapping_load_l1(q, err);
}

/* What has to be set right before the first write. */
static int prepare_writing(struct qcow2 *q, struct error *err)
{
    const char *path = q->file->path;
    struct image_check check;
    int r = 0;

    if (q->header.incompatible & QCOW2_DIRTY) {
        r = qcow2_check(q->disk, IMAGE_REPAIR_ALL, &check, err);
        if (r < 0)
            error_prepend(err, "%s was not closed and cannot be set right", path);
    }
    if (r == 0 && q->header.autoclear) {
        q->header.autoclear = 0; /* we keep none of what it stands for up to date */
        r = qcow2_header_update(q);
        if (r < 0)
            error_system(err, -r, "%s: cannot write its header", path);
    }
    return r;
}

static void tear_down(struct qcow2 *q)
{
    qcow2_header_free(&q->header);
    cache_free(&q->l2_cache);
    cache_free(&q->block_cache);
    free(q->l1);
    free(q->reftable);
    free(q->pending);
    free(q);
}

static int open_backing(struct disk *disk, const struct disk_options *options, struct error *err)
{
    const struct qcow2_header *h = &((struct qcow2 *)disk->state)->header;

    if (!*h->backing || options->no_backing)
        return 0;
    return disk_open_backing(disk, h->backing, *h->backing_format ? h->backing_format : NULL,
                             options, err);
}

static int qcow2_open(struct disk *disk, const struct disk_options *options, struct error *err)
{
    struct qcow2 *q = calloc(1, sizeof(*q));
    int r;

    if (!q)
        return error_set(err, ENOMEM, "out of memory for a qcow2 image");
    q->disk = disk;
    q->file = disk->file;
    disk->state = q;
    r = qcow2_header_read(disk->file, &q->header, err);
    if (r == 0)
        r = set_up(q, err);
    if (r == 0 && (q->header.incompatible & QCOW2_CORRUPT) && disk->writable && !options->repairing)
        r = error_set(err, EIO,
                      "%s is marked corrupt; 'lodge disk check --repair' may set it right",
                      disk->path);
    if (r == 0 && qcow2_l1_needed(q, q->header.size) > q->header.l1_size)
        r = error_set(err, EINVAL, "%s: its L1 table is too small for its size", disk->path);
    disk->size = q->header.size;
    if (r == 0)
        r = open_backing(disk, options, err);
    if (r == 0 && disk->writable && !options->repairing)
        r = prepare_writing(q, err);
    if (r < 0)
        tear_down(q);
    return r;
}

static int write_last(struct qcow2 *q)
{
    int r = q->broken ? 0 : qcow2_write_back(q);

    /* Giving up clusters changed refcounts again. */
    if (r == 0)
        r = cache_write_back(q, &q->block_cache);
    if (r == 0)
        r = disk_flush(q->file);
    if (r == 0 && !q->broken && (q->header.incompatible & QCOW2_DIRTY) && lazy(q))
        r = set_incompatible(q, 0, QCOW2_DIRTY);
    return r;
}

static int qcow2_close(struct disk *disk, struct error *err)
{
    struct qcow2 *q = disk->state;
    int r = disk->writable ? write_last(q) : 0;

    tear_down(q);
    return r < 0 ? error_system(err, -r, "cannot write all of %s", disk->path) : 0;
}

/* --- Facts --- */

static int qcow2_info(struct disk *disk, struct image_info *info, struct error *err)
{
    const struct qcow2 *q = disk->state;
    const struct qcow2_header *h = &q->header;

    (void)err;
    info->cluster_size = q->cluster_size;
    snprintf(info->backing, sizeof(info->backing), "%s", h->backing);
    snprintf(info->backing_format, sizeof(info->backing_format), "%s", h->backing_format);
    info->compression = h->compression == QCOW2_ZSTD ? "zstd" : "zlib";
    info->version = h->version;
    info->refcount_bits = 1u << h->refcount_order;
    info->dirty = h->incompatible & QCOW2_DIRTY;
    info->corrupt = h->incompatible & QCOW2_CORRUPT;
    info->lazy_refcounts = h->compatible & QCOW2_LAZY_REFCOUNTS;
    info->extended_l2 = h->incompatible & QCOW2_EXTENDED_L2;
    return 0;
}

static int qcow2_set_backing(struct disk *disk, const char *name, const char *format,
                             struct error *err)
{
    struct qcow2 *q = disk->state;
    const struct qcow2_header before = q->header;
    int r;

    if (strlen(name) > QCOW2_BACKING_MAX || strlen(format) >= sizeof(before.backing_format))
        return error_set(err, ENAMETOOLONG, "%s: the backing file's name is too long", disk->path);
    snprintf(q->header.backing, sizeof(q->header.backing), "%s", name);
    snprintf(q->header.backing_format, sizeof(q->header.backing_format), "%s", format);
    r = qcow2_header_write(q->file, &q->header, err);
    if (r == 0 && (r = disk_flush(q->file)) < 0)
        error_system(err, -r, "cannot write the header of %s", disk->path);
    if (r < 0)
        q->header = before;
    return r;
}

static const struct image_ops qcow2_image = {
    .info = qcow2_info,
    .snapshot_create = qcow2_snapshot_create,
    .snapshot_apply = qcow2_snapshot_apply,
    .snapshot_delete = qcow2_snapshot_delete,
    .snapshot_list = qcow2_snapshot_list,
    .check = qcow2_check,
    .write_compressed = qcow2_write_compressed,
    .empty = qcow2_empty,
    .set_backing = qcow2_set_backing,
};

const struct disk_format qcow2_format = {
    .name = "qcow2",
    .summary = "thin, with snapshots, compression and backing files",
    .probe = qcow2_probe,
    .create = qcow2_create,
    .open = qcow2_open,
    .close = qcow2_close,
    .read = qcow2_read,
    .write = qcow2_write,
    .flush = qcow2_flush,
    .discard = qcow2_discard,
    .write_zeroes = qcow2_write_zeroes,
    .resize = qcow2_resize,
    .map = qcow2_map,
    .image = &qcow2_image,
};
