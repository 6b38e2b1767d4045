/* Reading, writing, discarding and zeroing guest data. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "storage/qcow2/qcow2.h"
#include "storage/vec.h"

/* Bytes that one write handles at once, at least a cluster. */
#define WRITE_CHUNK (4u << 20)

static struct fibers *fibers_of(const struct qcow2 *q)
{
    return storage_fibers(q->disk->storage);
}

static void lock(struct qcow2 *q)
{
    fiber_lock(fibers_of(q), &q->lock);
}

static void unlock(struct qcow2 *q)
{
    fiber_unlock(&q->lock);
}

/* --- Reading --- */

static int read_backing(const struct disk *disk, uint64_t offset, const struct iovec *iov,
                        unsigned count, uint64_t length)
{
    uint64_t there = 0;
    struct iovec pieces[VEC_PIECES];
    unsigned n;

    if (disk->backing && offset < disk->backing->size)
        there = MIN(length, disk->backing->size - offset);
    if (there < length)
        vec_fill(iov, count, there, 0, length - there);
    if (!there)
        return 0;
    vec_cut(iov, count, 0, there, pieces, &n); /* all of it: iov is cut already */
    return disk_readv(disk->backing, offset, pieces, n);
}

static int read_compressed(struct qcow2 *q, uint64_t offset, const struct mapping *mapping,
                           const struct iovec *iov, unsigned count, uint64_t length)
{
    AUTO_FREE uint8_t *cluster = malloc(q->cluster_size);
    int r = cluster ? qcow2_decompress(q, mapping->host, cluster) : -ENOMEM;

    if (r == 0)
        vec_from(iov, count, 0, cluster + (offset & (q->cluster_size - 1)), length);
    return r;
}

/* The caller holds the range. */
static int read_held(struct qcow2 *q, uint64_t offset, const struct iovec *iov, unsigned count,
                     uint64_t length)
{
    struct iovec pieces[VEC_PIECES];
    uint64_t done = 0;

    while (done < length) {
        struct mapping mapping;
        uint64_t part;
        unsigned n;
        int r;

        lock(q);
        r = mapping_find(q, offset + done, length - done, &mapping);
        unlock(q);
        if (r < 0)
            return r;
        part = vec_cut(iov, count, done, mapping.length, pieces, &n);
        if (mapping.kind == MAPPING_DATA)
            r = q->file->format->read(q->file, mapping.host, pieces, n, part);
        else if (mapping.kind == MAPPING_ZERO)
            vec_fill(pieces, n, 0, 0, part);
        else if (mapping.kind == MAPPING_COMPRESSED)
            r = read_compressed(q, offset + done, &mapping, pieces, n, part);
        else
            r = read_backing(q->disk, offset + done, pieces, n, part);
        if (r < 0)
            return r;
        done += part;
    }
    return 0;
}

int qcow2_read(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count,
               uint64_t length)
{
    struct qcow2 *q = disk->state;
    struct range_hold hold;
    int r;

    range_lock(fibers_of(q), &q->ranges, &hold, offset, length, false);
    r = read_held(q, offset, iov, count, length);
    range_unlock(&q->ranges, &hold);
    return r;
}

/* --- Writing where data is already --- */

/* Write as much of the start of the range as lies in place; *ret_done says how much. */
static int write_in_place(struct qcow2 *q, uint64_t offset, const struct iovec *iov, unsigned count,
                          uint64_t length, uint64_t *ret_done)
{
    struct iovec pieces[VEC_PIECES];
    struct mapping mapping;
    struct range_hold hold;
    uint64_t part;
    unsigned n;
    int r;

    range_lock(fibers_of(q), &q->ranges, &hold, offset, length, false);
    lock(q);
    r = q->broken ? -EIO : mapping_find(q, offset, length, &mapping);
    unlock(q);
    if (r == 0 && mapping.kind == MAPPING_DATA && mapping.in_place) {
        part = vec_cut(iov, count, 0, mapping.length, pieces, &n);
        r = q->file->format->write(q->file, mapping.host, pieces, n, part);
        if (r == 0)
            *ret_done = part;
    }
    range_unlock(&q->ranges, &hold);
    return r;
}

/* --- Writing into new clusters --- */

/* A run of clusters of one L2 table that a write fills: host clusters in a row, and what
 * must be copied from what was there before and after the written bytes. */
struct allocation {
    uint64_t start; /* guest offset of the first cluster */
    uint64_t clusters;
    uint64_t host;
    bool fresh;                   /* the file reads as zeroes there */
    bool kept;                    /* one cluster that the entry already has as its own */
    uint64_t from, end;           /* guest bytes that are written */
    uint64_t copy_from, copy_end; /* and these with what is copied around them */
};

/* What the entry keeps as its own although it has no data there: zeroes with a cluster kept
 * for them, or a cluster with other subclusters in use. */
static bool has_own_cluster(struct l2_entry entry)
{
    return !(entry.value & QCOW2_COMPRESSED) && (entry.value & QCOW2_COPIED) &&
           (entry.value & QCOW2_OFFSET_MASK);
}

/* With extended entries, a cluster that has no data of its own elsewhere needs only the
 * subclusters that are touched. */
static uint32_t copy_unit(const struct qcow2 *q, struct l2_entry entry, bool kept)
{
    bool elsewhere = (entry.value & QCOW2_COMPRESSED) ||
                     (!kept && (entry.bitmap & UINT32_MAX) && q->l2_entry_size == 16);

    return elsewhere ? q->cluster_size : q->subcluster_size;
}

/* Choose how far one step goes, and get its clusters. The caller holds range and lock. */
static int plan(struct qcow2 *q, uint64_t offset, uint64_t length, struct allocation *a)
{
    uint64_t end = offset + length, wanted = 1, last_unit, first_unit;
    struct l2_place place, next;
    struct l2_entry first, last;
    int r = l2_find(q, offset, true, &place);

    if (r < 0)
        return r;
    first = last = l2_read(q, &place);
    r = l2_check(q, first);
    if (r < 0)
        return r;
    a->start = qcow2_cluster_start(q, offset);
    a->kept = has_own_cluster(first);
    next = place;
    while (!a->kept && a->start + wanted * q->cluster_size < end &&
           ++next.index < 1u << q->l2_bits && !has_own_cluster(l2_read(q, &next)))
        wanted++;
    if (a->kept) {
        a->host = first.value & QCOW2_OFFSET_MASK;
        a->fresh = false;
        a->clusters = 1;
    } else {
        a->clusters = wanted;
        r = clusters_allocate_some(q, &a->clusters, &a->host, &a->fresh);
        if (r < 0)
            return r;
        /* Allocating may have written back and reordered the cache: look again. */
        r = l2_find(q, offset, true, &place);
        if (r < 0) {
            clusters_release(q, a->host, a->clusters);
            return r;
        }
    }
    place.index += (unsigned)a->clusters - 1;
    last = l2_read(q, &place);
    a->from = offset;
    a->end = MIN(end, a->start + a->clusters * q->cluster_size);
    first_unit = copy_unit(q, first, a->kept);
    last_unit = copy_unit(q, last, a->kept);
    a->copy_from = ALIGN_DOWN(a->from, first_unit);
    a->copy_end = ALIGN_UP(a->end, last_unit);
    return 0;
}

/* The head and the tail that the guest did not write, as they read now. Bytes beyond the
 * disk's end are zeroes. */
static int read_around(struct qcow2 *q, uint64_t from, uint64_t end, uint8_t *buffer)
{
    uint64_t there = from < q->disk->size ? MIN(end, q->disk->size) - from : 0;
    const struct iovec iov = {buffer, there};

    memset(buffer + there, 0, end - from - there);
    return there ? read_held(q, from, &iov, 1, there) : 0;
}

static bool all_zero(const uint8_t *p, size_t length)
{
    return !length || (!*p && !memcmp(p, p + 1, length - 1));
}

static int fill(struct qcow2 *q, const struct allocation *a, const struct iovec *iov,
                unsigned count)
{
    const size_t head = (size_t)(a->from - a->copy_from), tail = (size_t)(a->copy_end - a->end);
    struct iovec pieces[VEC_PIECES + 2];
    uint64_t at = a->host + (a->copy_from - a->start);
    AUTO_FREE uint8_t *around = head + tail ? malloc(head + tail) : NULL;
    unsigned n, first = 1;
    size_t length;
    int r = head + tail && !around ? -ENOMEM : 0;

    if (r == 0 && head)
        r = read_around(q, a->copy_from, a->from, around);
    if (r == 0 && tail)
        r = read_around(q, a->end, a->copy_end, around + head);
    if (r < 0)
        return r;
    length = vec_cut(iov, count, 0, (size_t)(a->end - a->from), pieces + 1, &n);
    n++;
    /* Zeroes need not be written where the file has them already. */
    if (head && !(a->fresh && all_zero(around, head))) {
        pieces[0] = (struct iovec){around, head};
        first = 0;
        length += head;
    } else {
        at += head;
    }
    if (tail && !(a->fresh && all_zero(around + head, tail))) {
        pieces[n++] = (struct iovec){around + head, tail};
        length += tail;
    }
    return q->file->format->write(q->file, at, pieces + first, n - first, length);
}

/* The bits of the subclusters in [from, end) of the cluster at start. */
static uint64_t subcluster_bits(const struct qcow2 *q, uint64_t start, uint64_t from, uint64_t end)
{
    uint64_t first = from > start ? (from - start) / q->subcluster_size : 0;
    uint64_t last = MIN((end - start + q->subcluster_size - 1) / q->subcluster_size, 32);

    return ((1ull << last) - 1) & ~((1ull << first) - 1);
}

/* Let the entries refer to what was written. The caller holds range and lock. */
static int link_clusters(struct qcow2 *q, const struct allocation *a)
{
    struct l2_place place;
    int r = l2_find(q, a->start, true, &place);

    for (uint64_t i = 0; r == 0 && i < a->clusters; i++, place.index++) {
        const uint64_t start = a->start + i * q->cluster_size;
        const struct l2_entry before = l2_read(q, &place);
        struct l2_entry entry = {.value = (a->host + i * q->cluster_size) | QCOW2_COPIED};

        if (q->l2_entry_size == 16) {
            uint64_t bits = subcluster_bits(q, start, a->copy_from, a->copy_end);
            bool whole = !a->kept && bits == UINT32_MAX;

            entry.bitmap = whole || (before.value & QCOW2_COMPRESSED) ? 0 : before.bitmap;
            entry.bitmap = (entry.bitmap | bits) & ~(bits << 32);
        }
        l2_write(q, &place, entry);
        if (!a->kept)
            l2_free_later(q, before);
    }
    return r;
}

static int write_allocating(struct qcow2 *q, uint64_t offset, const struct iovec *iov,
                            unsigned count, uint64_t length, uint64_t *ret_done)
{
    struct allocation a = {0};
    struct range_hold hold;
    uint64_t start = qcow2_cluster_start(q, offset);
    int r;

    range_lock(fibers_of(q), &q->ranges, &hold, start,
               ALIGN_UP(offset + length, (uint64_t)q->cluster_size) - start, true);
    lock(q);
    r = q->broken ? -EIO : plan(q, offset, length, &a);
    unlock(q);
    if (r == 0) {
        r = fill(q, &a, iov, count);
        lock(q);
        if (r == 0)
            r = link_clusters(q, &a);
        if (r == 0)
            *ret_done = a.end - a.from;
        else if (!a.kept)
            clusters_release(q, a.host, a.clusters);
        unlock(q);
    }
    range_unlock(&q->ranges, &hold);
    return r;
}

int qcow2_write(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count,
                uint64_t length)
{
    struct qcow2 *q = disk->state;
    uint64_t done = 0;

    while (done < length) {
        struct iovec pieces[VEC_PIECES];
        uint64_t part, step = 0;
        unsigned n;
        int r;

        part = vec_cut(iov, count, done, MIN(length - done, WRITE_CHUNK), pieces, &n);
        r = write_in_place(q, offset + done, pieces, n, part, &step);
        if (r == 0 && !step)
            r = write_allocating(q, offset + done, pieces, n, part, &step);
        if (r < 0)
            return r;
        done += step;
    }
    return 0;
}

/* --- Discarding and zeroing --- */

enum { DROP_ALL, READ_ZEROES, READ_ZEROES_KEEP };

/* What an entry becomes when all of its cluster is given up or zeroed. */
static struct l2_entry emptied(const struct qcow2 *q, struct l2_entry entry, int how)
{
    struct l2_entry empty = {0};
    bool own = has_own_cluster(entry);

    if (how == DROP_ALL || (!q->disk->backing && how == READ_ZEROES))
        return empty;
    if (how == READ_ZEROES_KEEP && own)
        empty.value = entry.value & (QCOW2_OFFSET_MASK | QCOW2_COPIED);
    else if (how == READ_ZEROES_KEEP && !q->disk->backing && !entry.value && !entry.bitmap)
        return empty; /* reads as zeroes as it is */
    if (q->l2_entry_size == 16)
        empty.bitmap = (uint64_t)UINT32_MAX << 32;
    else
        empty.value |= QCOW2_ZERO;
    return empty;
}

/* Whole clusters; the caller holds the range exclusively. Stops at the end of an L2 table. */
static int empty_clusters(struct qcow2 *q, uint64_t offset, uint64_t length, int how,
                          uint64_t *ret_done)
{
    const uint64_t table_bytes = (uint64_t)q->cluster_size << q->l2_bits;
    struct l2_place place;
    uint64_t done = 0;
    int r;

    length = MIN(length, table_bytes - (offset & (table_bytes - 1)));
    r = l2_find(q, offset, false, &place);
    if (r == 0 && !place.table && (how == DROP_ALL || !q->disk->backing)) {
        *ret_done = length;
        return 0;
    }
    if (r == 0)
        r = qcow2_begin_change(q);
    if (r == 0)
        r = l2_find(q, offset, true, &place);
    for (; r == 0 && done < length; done += q->cluster_size, place.index++) {
        const struct l2_entry before = l2_read(q, &place);
        const struct l2_entry after = emptied(q, before, how);

        r = l2_check(q, before);
        if (r < 0)
            break;
        if (before.value == after.value && before.bitmap == after.bitmap)
            continue;
        l2_write(q, &place, after);
        if ((before.value & QCOW2_COMPRESSED) || !(after.value & QCOW2_OFFSET_MASK))
            l2_free_later(q, before);
    }
    *ret_done = done;
    return r;
}

static int empty_range(struct qcow2 *q, uint64_t offset, uint64_t length, int how)
{
    struct range_hold hold;
    int r = 0;

    if (!length)
        return 0;
    range_lock(fibers_of(q), &q->ranges, &hold, offset, length, true);
    while (r == 0 && length) {
        uint64_t done = 0;

        lock(q);
        r = q->broken ? -EIO : empty_clusters(q, offset, length, how, &done);
        unlock(q);
        offset += done;
        length -= MIN(done, length);
    }
    range_unlock(&q->ranges, &hold);
    return r;
}

int qcow2_drop_range(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    return empty_range(q, offset, length, DROP_ALL);
}

/* The whole clusters within a range; the disk's last cluster counts as whole. */
static void whole_clusters(const struct qcow2 *q, uint64_t offset, uint64_t length,
                           uint64_t *ret_from, uint64_t *ret_end)
{
    uint64_t end = offset + length;

    *ret_from = ALIGN_UP(offset, (uint64_t)q->cluster_size);
    *ret_end = end == q->disk->size ? ALIGN_UP(end, (uint64_t)q->cluster_size)
                                    : qcow2_cluster_start(q, end);
}

int qcow2_discard(struct disk *disk, uint64_t offset, uint64_t length)
{
    struct qcow2 *q = disk->state;
    uint64_t from, end;

    /* Version 2 cannot say "zeroes" in front of a backing file. */
    whole_clusters(q, offset, length, &from, &end);
    if (from >= end || (q->header.version < 3 && disk->backing))
        return 0;
    return empty_range(q, from, end - from, READ_ZEROES);
}

/* Part of one cluster: the bits of whole subclusters, where there are any; otherwise zeroes
 * are written, unless it reads so already. */
static int zero_part(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    AUTO_FREE uint8_t *zeroes = NULL;
    struct mapping mapping;
    uint64_t done = 0;
    int r;

    while (done < length) {
        struct iovec iov;

        lock(q);
        r = mapping_find(q, offset + done, length - done, &mapping);
        unlock(q);
        if (r < 0)
            return r;
        if (mapping.kind == MAPPING_ZERO || (mapping.kind == MAPPING_NONE && !q->disk->backing)) {
            done += mapping.length;
            continue;
        }
        mapping.length = MIN(mapping.length, WRITE_CHUNK);
        if (!zeroes)
            zeroes = calloc(1, MIN(length, WRITE_CHUNK));
        if (!zeroes)
            return -ENOMEM;
        iov = (struct iovec){zeroes, mapping.length};
        r = qcow2_write(q->disk, offset + done, &iov, 1, mapping.length);
        if (r < 0)
            return r;
        done += mapping.length;
    }
    return 0;
}

/* Set the zero bits of the whole subclusters of [offset, end), which is in one cluster. */
static int zero_subclusters(struct qcow2 *q, uint64_t offset, uint64_t end, bool *ret_done)
{
    struct l2_place place;
    struct l2_entry entry;
    struct range_hold hold;
    uint64_t bits;
    int r;

    range_lock(fibers_of(q), &q->ranges, &hold, qcow2_cluster_start(q, offset), q->cluster_size,
               true);
    lock(q);
    r = q->broken ? -EIO : qcow2_begin_change(q);
    if (r == 0)
        r = l2_find(q, offset, true, &place);
    if (r == 0) {
        entry = l2_read(q, &place);
        r = l2_check(q, entry);
        if (r == 0 && !(entry.value & QCOW2_COMPRESSED)) {
            bits = subcluster_bits(q, qcow2_cluster_start(q, offset), offset, end);
            entry.bitmap = (entry.bitmap & ~bits) | bits << 32;
            l2_write(q, &place, entry);
            *ret_done = true;
        }
    }
    unlock(q);
    range_unlock(&q->ranges, &hold);
    return r;
}

static int zero_in_cluster(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    const uint64_t unit = q->subcluster_size, end = offset + length;
    uint64_t from = ALIGN_UP(offset, unit), to = ALIGN_DOWN(end, unit);
    bool done = false;
    int r = 0;

    if (q->l2_entry_size == 16 && from < to)
        r = zero_subclusters(q, from, to, &done);
    if (r < 0 || !done)
        return r < 0 ? r : zero_part(q, offset, length);
    r = zero_part(q, offset, from - offset);
    return r < 0 ? r : zero_part(q, to, end - to);
}

int qcow2_write_zeroes(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags)
{
    struct qcow2 *q = disk->state;
    uint64_t from, end, first = MIN(ALIGN_UP(offset, (uint64_t)q->cluster_size) - offset, length);
    int r;

    whole_clusters(q, offset, length, &from, &end);
    if (from >= end) { /* within one cluster, or over the border of two */
        r = zero_in_cluster(q, offset, first);
        return r < 0 || first == length ? r : zero_in_cluster(q, offset + first, length - first);
    }
    r = zero_in_cluster(q, offset, first);
    if (r == 0 && q->header.version < 3 && disk->backing)
        r = zero_part(q, from, MIN(end, disk->size) - from);
    else if (r == 0)
        r = empty_range(q, from, end - from,
                        flags & DISK_MAY_UNMAP || q->header.version < 3 ? READ_ZEROES
                                                                        : READ_ZEROES_KEEP);
    if (r == 0 && offset + length > end)
        r = zero_in_cluster(q, end, offset + length - end);
    return r;
}

/* --- Where data is --- */

int qcow2_map(struct disk *disk, uint64_t offset, struct disk_extent *ret_extent)
{
    struct qcow2 *q = disk->state;
    struct mapping mapping;
    int r;

    lock(q);
    r = mapping_find(q, offset, disk->size - offset, &mapping);
    unlock(q);
    if (r < 0)
        return r;
    *ret_extent = (struct disk_extent){
        .length = mapping.length,
        .present = mapping.kind != MAPPING_NONE,
        .zero = mapping.kind == MAPPING_ZERO,
        .data = mapping.kind == MAPPING_DATA || mapping.kind == MAPPING_COMPRESSED,
        .compressed = mapping.kind == MAPPING_COMPRESSED,
        .has_host_offset = mapping.kind == MAPPING_DATA,
        .host_offset = mapping.kind == MAPPING_DATA ? mapping.host : 0,
    };
    return 0;
}
