/* Refcounts: how many uses each cluster of the file has; allocating and freeing. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "storage/qcow2/qcow2.h"

#define REFTABLE_MASK (~511ull)

/* Refcounts narrower than a byte fill it from the lowest bit. */
uint64_t refcount_read(const uint8_t *block, unsigned order, uint64_t index)
{
    switch (order) {
    case 3:
        return block[index];
    case 4:
        return load_be16(block + index * 2);
    case 5:
        return load_be32(block + index * 4);
    case 6:
        return load_be64(block + index * 8);
    default: {
        unsigned bits = 1u << order, shift = (unsigned)(index * bits % 8);

        return (block[index * bits / 8] >> shift) & ((1u << bits) - 1);
    }
    }
}

void refcount_write(uint8_t *block, unsigned order, uint64_t index, uint64_t value)
{
    switch (order) {
    case 3:
        block[index] = (uint8_t)value;
        break;
    case 4:
        store_be16(block + index * 2, (uint16_t)value);
        break;
    case 5:
        store_be32(block + index * 4, (uint32_t)value);
        break;
    case 6:
        store_be64(block + index * 8, value);
        break;
    default: {
        unsigned bits = 1u << order, shift = (unsigned)(index * bits % 8);
        uint8_t *byte = &block[index * bits / 8], mask = (uint8_t)(((1u << bits) - 1) << shift);

        *byte = (uint8_t)((*byte & ~mask) | (value << shift));
    }
    }
}

static uint64_t refcount_max(const struct qcow2 *q)
{
    return q->header.refcount_order == 6 ? UINT64_MAX
                                         : (1ull << (1u << q->header.refcount_order)) - 1;
}

int refcount_load_table(struct qcow2 *q, struct error *err)
{
    uint32_t entries = q->header.reftable_clusters * (q->cluster_size / 8);
    uint64_t *reftable = malloc(entries * 8ull);
    int r;

    if (!reftable)
        return error_set(err, ENOMEM, "out of memory for a refcount table");
    r = disk_read(q->file, q->header.reftable_offset, reftable, entries * 8ull);
    if (r < 0) {
        free(reftable);
        return error_system(err, -r, "%s: cannot read its refcount table", q->file->path);
    }
    for (uint32_t i = 0; i < entries; i++)
        reftable[i] = be64toh(reftable[i]) & REFTABLE_MASK;
    free(q->reftable);
    q->reftable = reftable;
    q->reftable_entries = entries;
    return 0;
}

/* The block that counts a cluster; NULL when there is none, all of it being free. */
static int find_block(struct qcow2 *q, uint64_t cluster, struct table **ret_block)
{
    uint64_t i = cluster >> q->block_bits;

    *ret_block = NULL;
    if (i >= q->reftable_entries || !q->reftable[i])
        return 0;
    if ((q->reftable[i] & (q->cluster_size - 1)) || q->reftable[i] > INT64_MAX ||
        cache_find(&q->l2_cache, q->reftable[i]))
        return qcow2_corrupt(q);
    return cache_get(q, &q->block_cache, q->reftable[i], false, ret_block);
}

int refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *ret_count)
{
    struct table *block;
    int r = find_block(q, cluster, &block);

    if (r < 0)
        return r;
    *ret_count = block ? refcount_read(block->data, q->header.refcount_order,
                                       cluster & ((1ull << q->block_bits) - 1))
                       : 0;
    return 0;
}

/* --- Growing the refcount structure --- */

/* A larger refcount table. It and the blocks that count it go where no block counts yet:
 * behind all that the old table reaches. */
static int grow_table(struct qcow2 *q, uint64_t entries_wanted)
{
    const uint64_t per_block = 1ull << q->block_bits, per_cluster = q->cluster_size / 8;
    const uint64_t start = (uint64_t)q->reftable_entries << q->block_bits;
    const struct qcow2_header before = q->header;
    uint64_t entries = MAX(entries_wanted, q->reftable_entries + q->reftable_entries / 2ull);
    uint64_t clusters, blocks = 0, needed;
    AUTO_FREE uint8_t *image = NULL;
    uint64_t *reftable;
    int r;

    for (;;) { /* the blocks must count themselves and the table, which must hold the blocks */
        clusters = (entries + per_cluster - 1) / per_cluster;
        needed = (clusters + blocks + per_block - 1) / per_block;
        if (needed > blocks)
            blocks = needed;
        else if (q->reftable_entries + blocks > clusters * per_cluster)
            entries = q->reftable_entries + blocks;
        else
            break;
    }
    if (clusters * q->cluster_size > QCOW2_REFTABLE_MAX)
        return -EFBIG;
    entries = clusters * per_cluster;
    image = calloc(blocks + clusters, q->cluster_size);
    reftable = calloc(entries, 8);
    if (!image || !reftable) {
        free(reftable);
        return -ENOMEM;
    }
    memcpy(reftable, q->reftable, q->reftable_entries * 8ull);
    for (uint64_t i = 0; i < blocks; i++)
        reftable[q->reftable_entries + i] = (start + i) * q->cluster_size;
    for (uint64_t i = 0; i < blocks + clusters; i++)
        refcount_write(image + i / per_block * q->cluster_size, q->header.refcount_order,
                       i % per_block, 1);
    for (uint64_t i = 0; i < entries; i++)
        store_be64(image + blocks * q->cluster_size + i * 8, reftable[i]);
    r = disk_write(q->file, start * q->cluster_size, image, (blocks + clusters) * q->cluster_size);
    if (r == 0)
        r = disk_flush(q->file);
    if (r == 0) {
        q->header.reftable_offset = (start + blocks) * q->cluster_size;
        q->header.reftable_clusters = (uint32_t)clusters;
        r = qcow2_header_update(q);
    }
    if (r < 0) {
        q->header = before;
        free(reftable);
        return r;
    }
    free(q->reftable);
    q->reftable = reftable;
    q->reftable_entries = (uint32_t)entries;
    q->fresh_from = MAX(q->fresh_from, start + blocks + clusters);
    clusters_free_later(q, before.reftable_offset,
                        (uint64_t)before.reftable_clusters * q->cluster_size);
    return disk_flush(q->file);
}

/* What must never be given out, whatever refcounts say. */
static bool holds_metadata(const struct qcow2 *q, uint64_t cluster)
{
    const uint64_t offset = cluster * q->cluster_size;

    return cluster == 0 || cache_find((struct cache *)&q->l2_cache, offset) ||
           cache_find((struct cache *)&q->block_cache, offset) ||
           offset - q->header.l1_offset < q->header.l1_size * 8ull ||
           offset - q->header.reftable_offset < q->reftable_entries * 8ull;
}

/* Make a block for clusters that none counts: it is the first of them. Its content is durable
 * before the table refers to it. */
static int add_block(struct qcow2 *q, uint64_t cluster)
{
    uint64_t i = cluster >> q->block_bits, offset = (i << q->block_bits) * q->cluster_size;
    struct table *block;
    uint8_t entry[8];
    int r;

    if (i >= q->reftable_entries) {
        r = grow_table(q, i + 1);
        if (r < 0 || q->reftable[i])
            return r;
    }
    if (holds_metadata(q, offset / q->cluster_size))
        return qcow2_corrupt(q); /* in use and yet not counted */
    r = cache_get(q, &q->block_cache, offset, true, &block);
    if (r < 0)
        return r;
    refcount_write(block->data, q->header.refcount_order, 0, 1);
    r = disk_write(q->file, offset, block->data, q->cluster_size);
    if (r == 0)
        r = disk_flush(q->file);
    store_be64(entry, offset);
    if (r == 0)
        r = disk_write(q->file, q->header.reftable_offset + i * 8, entry, sizeof(entry));
    if (r < 0) {
        cache_drop(&q->block_cache, offset);
        return r;
    }
    q->reftable[i] = offset;
    q->fresh_from = MAX(q->fresh_from, offset / q->cluster_size + 1);
    return 0;
}

/* --- Changing --- */

static int change_one(struct qcow2 *q, uint64_t cluster, int delta)
{
    const uint64_t index = cluster & ((1ull << q->block_bits) - 1);
    struct table *block;
    uint64_t count;
    int r = find_block(q, cluster, &block);

    if (r == 0 && !block && delta > 0) {
        r = add_block(q, cluster);
        if (r == 0)
            r = find_block(q, cluster, &block);
    }
    if (r < 0)
        return r;
    count = block ? refcount_read(block->data, q->header.refcount_order, index) : 0;
    if (delta < 0 && count < (uint64_t)-delta)
        return qcow2_corrupt(q);
    if (delta > 0 && refcount_max(q) - count < (uint64_t)delta)
        return -ERANGE;
    count += (uint64_t)(int64_t)delta;
    refcount_write(block->data, q->header.refcount_order, index, count);
    cache_dirty(&q->block_cache, block);
    if (!count)
        q->free_hint = MIN(q->free_hint, cluster);
    return 0;
}

int refcount_change(struct qcow2 *q, uint64_t offset, uint64_t length, int delta)
{
    uint64_t first = offset / q->cluster_size, end;
    int r = 0;

    if (!length)
        return 0;
    if (offset > INT64_MAX || length > INT64_MAX)
        return qcow2_corrupt(q);
    end = (offset + length - 1) / q->cluster_size + 1;
    for (uint64_t i = first; i < end; i++) {
        r = change_one(q, i, delta);
        if (r < 0) { /* all or nothing */
            while (i-- > first)
                change_one(q, i, -delta);
            break;
        }
    }
    return r;
}

/* --- Allocating --- */

/* Find a run of free clusters: wanted of them, or unless exact the first that there are.
 * Blocks that are missing are made on the way, and take their places. */
static int find_free(struct qcow2 *q, uint64_t wanted, bool exact, uint64_t *ret_first,
                     uint64_t *ret_count)
{
    uint64_t at = q->free_hint, run = 0, refs;

    for (; run < wanted; at++) {
        struct table *block;
        int r = 0;

        if (at > INT64_MAX / q->cluster_size - wanted)
            return -EFBIG;
        r = find_block(q, at, &block);
        if (r == 0 && !block)
            r = add_block(q, at);
        if (r == 0)
            r = refcount_get(q, at, &refs);
        if (r < 0)
            return r;
        if (!refs) {
            if (holds_metadata(q, at))
                return qcow2_corrupt(q);
            run++;
            continue;
        }
        if (!run && at == q->free_hint)
            q->free_hint++;
        if (run && !exact)
            break;
        run = 0;
    }
    *ret_first = at - run;
    *ret_count = run;
    return 0;
}

static int allocate(struct qcow2 *q, uint64_t wanted, bool exact, uint64_t *ret_offset,
                    uint64_t *ret_count, bool *ret_fresh)
{
    uint64_t first = 0, count = 0;
    int r = qcow2_begin_change(q);

    if (r == 0)
        r = find_free(q, wanted, exact, &first, &count);
    if (r == 0)
        r = refcount_change(q, first * q->cluster_size, count * q->cluster_size, 1);
    if (r < 0)
        return r;
    if (first == q->free_hint)
        q->free_hint = first + count;
    *ret_fresh = first >= q->fresh_from;
    q->fresh_from = MAX(q->fresh_from, first + count);
    *ret_offset = first * q->cluster_size;
    *ret_count = count;
    return 0;
}

int clusters_allocate(struct qcow2 *q, uint64_t count, uint64_t *ret_offset)
{
    uint64_t got;
    bool fresh;

    return allocate(q, count, true, ret_offset, &got, &fresh);
}

int clusters_allocate_some(struct qcow2 *q, uint64_t *count, uint64_t *ret_offset, bool *ret_fresh)
{
    return allocate(q, *count, false, ret_offset, count, ret_fresh);
}

void clusters_release(struct qcow2 *q, uint64_t offset, uint64_t count)
{
    /* When it fails they leak, and the next check says so. */
    refcount_change(q, offset, count * q->cluster_size, -1);
}

int bytes_allocate(struct qcow2 *q, uint32_t length, uint64_t *ret_offset)
{
    const uint32_t used = (uint32_t)(q->packed_at & (q->cluster_size - 1));
    const uint32_t room = q->packed_at && used ? q->cluster_size - used : 0;
    uint64_t cluster, refs = 0;
    int r;

    if (room >= length) {
        cluster = q->packed_at / q->cluster_size;
        r = refcount_get(q, cluster, &refs);
        if (r < 0)
            return r;
        if (refs && refs < refcount_max(q)) {
            r = refcount_change(q, q->packed_at, length, 1);
            if (r < 0)
                return r;
            *ret_offset = q->packed_at;
            q->packed_at += length;
            return 0;
        }
    }
    r = clusters_allocate(q, 1, &cluster);
    if (r < 0)
        return r;
    *ret_offset = cluster;
    q->packed_at = cluster + length;
    return 0;
}

/* --- Freeing --- */

void clusters_free_later(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    struct pending_free *last = q->pending_count ? &q->pending[q->pending_count - 1] : NULL;

    if (!length)
        return;
    if (last && last->offset + last->length == offset && !(offset & (q->cluster_size - 1))) {
        last->length += length;
        return;
    }
    if (q->pending_count == q->pending_max) {
        unsigned max = MAX(64, 2 * q->pending_max);
        struct pending_free *more = realloc(q->pending, max * sizeof(*more));

        if (!more) {
            q->pending_lost = true;
            return;
        }
        q->pending = more;
        q->pending_max = max;
    }
    q->pending[q->pending_count++] = (struct pending_free){offset, length};
}

/* One less use of each cluster; those without any give their storage back. */
static int free_range(struct qcow2 *q, const struct pending_free *range)
{
    uint64_t at = qcow2_cluster_start(q, range->offset), end = range->offset + range->length;
    uint64_t hole = 0, hole_length = 0, refs;
    int r = 0;

    for (; r == 0 && at < end; at += q->cluster_size) {
        r = refcount_change(q, at, 1, -1);
        if (r == 0)
            r = refcount_get(q, at / q->cluster_size, &refs);
        if (r < 0)
            break;
        if (refs)
            continue;
        cache_drop(&q->l2_cache, at);
        cache_drop(&q->block_cache, at);
        if (hole + hole_length != at) {
            if (hole_length)
                disk_discard(q->file, hole, hole_length);
            hole = at;
            hole_length = 0;
        }
        hole_length += q->cluster_size;
    }
    if (hole_length) /* only a help: that it fails harms nothing */
        disk_discard(q->file, hole, hole_length);
    if (q->packed_at && !(r < 0))
        q->packed_at =
            refcount_get(q, q->packed_at / q->cluster_size, &refs) == 0 && refs ? q->packed_at : 0;
    return r;
}

int clusters_free_pending(struct qcow2 *q)
{
    /* Freeing may have to write back, and come here again: take the list first. */
    AUTO_FREE struct pending_free *list = q->pending;
    unsigned count = q->pending_count;
    int r = 0;

    q->pending = NULL;
    q->pending_count = q->pending_max = 0;
    for (unsigned i = 0; i < count && r == 0; i++)
        r = free_range(q, &list[i]);
    return r;
}
