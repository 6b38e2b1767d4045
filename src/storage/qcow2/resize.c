/* The size of the guest's disk, and of the L1 table that maps it. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "storage/qcow2/qcow2.h"

uint64_t qcow2_l1_needed(const struct qcow2 *q, uint64_t size)
{
    const uint64_t per_table = (uint64_t)q->cluster_size << q->l2_bits;

    return size / per_table + (size % per_table != 0);
}

int qcow2_replace_l1(struct qcow2 *q, const uint64_t *l1, uint32_t have, uint32_t entries)
{
    const struct qcow2_header before = q->header;
    const uint64_t clusters = (entries * 8ull + q->cluster_size - 1) / q->cluster_size;
    uint64_t *new_l1 = calloc(entries ? entries : 1, 8), *old_l1 = q->l1;
    uint64_t offset;
    int r = qcow2_write_back(q); /* the old one is right in the file until the new one is */

    if (r == 0 && !new_l1)
        r = -ENOMEM;
    if (r == 0)
        r = clusters_allocate(q, MAX(clusters, 1), &offset);
    if (r < 0) {
        free(new_l1);
        return r;
    }
    memcpy(new_l1, l1, MIN(entries, have) * 8ull);
    q->l1 = new_l1;
    q->header.l1_offset = offset;
    q->header.l1_size = entries;
    r = qcow2_write_back(q); /* its refcounts first */
    if (r == 0)
        r = mapping_write_l1(q);
    if (r == 0)
        r = disk_flush(q->file);
    if (r == 0)
        r = qcow2_header_update(q);
    if (r == 0)
        r = disk_flush(q->file);
    if (r < 0) {
        q->header = before;
        q->l1 = old_l1;
        free(new_l1);
        clusters_release(q, offset, MAX(clusters, 1));
        return r;
    }
    free(old_l1);
    if (before.l1_offset)
        clusters_free_later(q, before.l1_offset, MAX(before.l1_size * 8ull, 1));
    return 0;
}

static int set_size(struct qcow2 *q, uint64_t size)
{
    struct fibers *fibers = storage_fibers(q->disk->storage);
    const uint64_t before = q->header.size;
    int r;

    fiber_lock(fibers, &q->lock);
    r = qcow2_write_back(q);
    q->header.size = size;
    if (r == 0)
        r = qcow2_header_update(q);
    if (r == 0)
        r = disk_flush(q->file);
    fiber_unlock(&q->lock);
    if (r < 0)
        q->header.size = before;
    else
        q->disk->size = size;
    return r;
}

/* What comes to light must read as zeroes: the rest of the last cluster, and what a larger
 * backing file has there. */
static int grow(struct qcow2 *q, uint64_t size)
{
    struct disk *disk = q->disk;
    const uint64_t before = disk->size, needed = qcow2_l1_needed(q, size);
    uint64_t hidden = ALIGN_UP(before, (uint64_t)q->cluster_size);
    struct fibers *fibers = storage_fibers(disk->storage);
    int r = 0;

    if (disk->backing)
        hidden = MAX(hidden, disk->backing->size);
    hidden = MIN(hidden, size);
    if (needed > QCOW2_L1_MAX / 8)
        return -EFBIG;
    if (needed > q->header.l1_size) {
        fiber_lock(fibers, &q->lock);
        r = qcow2_replace_l1(q, q->l1, q->header.l1_size, (uint32_t)needed);
        fiber_unlock(&q->lock);
    }
    if (r == 0 && hidden > before) {
        disk->size = size;
        r = qcow2_write_zeroes(disk, before, hidden - before, DISK_MAY_UNMAP);
        disk->size = before;
    }
    return r == 0 ? set_size(q, size) : r;
}

static int shrink(struct qcow2 *q, uint64_t size)
{
    const uint64_t from = ALIGN_UP(size, (uint64_t)q->cluster_size);
    const uint64_t end = ALIGN_UP(q->disk->size, (uint64_t)q->cluster_size);
    int r = set_size(q, size);

    return r == 0 && from < end ? qcow2_drop_range(q, from, end - from) : r;
}

int qcow2_resize(struct disk *disk, uint64_t size, struct error *err)
{
    struct qcow2 *q = disk->state;
    int r;

    if (size % DISK_SECTOR)
        return error_set(err, EINVAL, "%s: a qcow2 disk's size is a multiple of %d bytes",
                         disk->path, DISK_SECTOR);
    if (q->header.version < 3 && q->header.snapshot_count)
        return error_set(err, ENOTSUP,
                         "%s: version 2 cannot change the size of a disk with snapshots",
                         disk->path);
    r = size > disk->size ? grow(q, size) : shrink(q, size);
    if (r == 0)
        r = disk_flush(disk);
    if (r == -EFBIG)
        return error_set(err, EFBIG, "%s: too large for clusters of %u bytes", disk->path,
                         q->cluster_size);
    return r < 0 ? error_system(err, -r, "cannot resize %s", disk->path) : 0;
}
