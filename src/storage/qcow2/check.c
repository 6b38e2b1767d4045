/* Consistency: count all uses of each cluster, compare with the refcounts, and repair. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "storage/qcow2/qcow2.h"

#define CLUSTERS_MAX (1ull << 32) /* more than the memory of a check would hold */

struct check {
    struct qcow2 *q;
    struct image_check result;
    unsigned repair;
    uint32_t *uses; /* of each cluster, as counted */
    uint64_t clusters;
    uint8_t *seen; /* a bit a cluster: L2 tables of the tree that is walked */
    bool rebuild;  /* refcounts in the file are too low or cannot be found */
    uint64_t end;  /* the last cluster in use, and one */
};

static void corruption(struct check *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void corruption(struct check *c, const char *format, ...)
{
    va_list args;

    if (c->result.corruptions++ == 0) {
        va_start(args, format);
        vsnprintf(c->result.first, sizeof(c->result.first), format, args);
        va_end(args);
    }
}

/* --- Counting --- */

/* One use of the clusters that the range touches. False: they are not in the file. */
static bool count_range(struct check *c, uint64_t offset, uint64_t length)
{
    uint64_t first = offset / c->q->cluster_size, end;

    if (!length)
        return true;
    if (offset > INT64_MAX || length > INT64_MAX)
        return false;
    end = (offset + length - 1) / c->q->cluster_size + 1;
    if (end > c->clusters)
        return false;
    for (uint64_t i = first; i < end; i++)
        c->uses[i] += c->uses[i] != UINT32_MAX;
    c->end = MAX(c->end, end);
    return true;
}

static bool aligned(const struct check *c, uint64_t offset)
{
    return !(offset & (c->q->cluster_size - 1));
}

static void count_table(struct check *c, const char *what, uint64_t offset, uint64_t length)
{
    if (!aligned(c, offset) || !count_range(c, offset, length))
        corruption(c, "the %s at 0x%llx is not in the file", what, (unsigned long long)offset);
}

/* A tree's L2 entry; returns false when it cannot be. */
static bool count_entry(struct check *c, struct l2_entry entry, bool active)
{
    struct qcow2 *q = c->q;
    uint64_t offset = entry.value & QCOW2_OFFSET_MASK;
    uint32_t length = q->cluster_size;

    if (entry.value & QCOW2_COMPRESSED) {
        compressed_range(q, entry.value, &offset, &length);
        if (offset >= q->cluster_size && count_range(c, offset, length)) {
            c->result.compressed_clusters += active;
            c->result.allocated_clusters += active;
            return true;
        }
    } else {
        if (!offset)
            return !(entry.bitmap & UINT32_MAX);
        if (aligned(c, offset) && !(entry.bitmap & entry.bitmap >> 32 & UINT32_MAX) &&
            count_range(c, offset, length)) {
            c->result.allocated_clusters += active;
            return true;
        }
    }
    return false;
}

static struct l2_entry entry_at(const struct qcow2 *q, const uint8_t *table, unsigned i)
{
    const uint8_t *at = table + (size_t)i * q->l2_entry_size;

    return (struct l2_entry){load_be64(at), q->l2_entry_size == 16 ? load_be64(at + 8) : 0};
}

/* A table of data; entries that cannot be are cleared when all is to be repaired. */
static int count_l2(struct check *c, uint64_t at, uint8_t *table, bool active)
{
    struct qcow2 *q = c->q;
    bool changed = false;
    int r = disk_read(q->file, at, table, q->cluster_size);

    for (unsigned i = 0; r == 0 && i < 1u << q->l2_bits; i++) {
        if (count_entry(c, entry_at(q, table, i), active))
            continue;
        corruption(c, "entry %u of the L2 table at 0x%llx refers to nothing that can be", i,
                   (unsigned long long)at);
        if (c->repair & IMAGE_REPAIR_ALL) {
            memset(table + (size_t)i * q->l2_entry_size, 0, q->l2_entry_size);
            c->result.corruptions_repaired++;
            changed = true;
        }
    }
    return r == 0 && changed ? disk_write(q->file, at, table, q->cluster_size) : r;
}

static int count_tree(struct check *c, uint64_t *l1, uint32_t l1_size, bool active)
{
    AUTO_FREE uint8_t *table = malloc(c->q->cluster_size);
    int r = table ? 0 : -ENOMEM;

    memset(c->seen, 0, c->clusters / 8 + 1);
    for (uint32_t i = 0; i < l1_size && r == 0; i++) {
        uint64_t at = l1[i] & QCOW2_OFFSET_MASK, cluster = at / c->q->cluster_size;
        bool again;

        if (!at)
            continue;
        if (!aligned(c, at) || !count_range(c, at, c->q->cluster_size)) {
            corruption(c, "entry %u of an L1 table refers to no cluster of the file", i);
            if (active && (c->repair & IMAGE_REPAIR_ALL)) {
                l1[i] = 0;
                c->q->l1_dirty = true;
                c->result.corruptions_repaired++;
            }
            continue;
        }
        again = c->seen[cluster / 8] & 1u << cluster % 8;
        c->seen[cluster / 8] |= (uint8_t)(1u << cluster % 8);
        if (!again)
            r = count_l2(c, at, table, active);
        else /* its data is counted once: what is shared is copied on writing */
            corruption(c, "the L2 table at 0x%llx is referred to twice", (unsigned long long)at);
    }
    return r;
}

static int count_snapshots(struct check *c, struct error *err)
{
    struct qcow2 *q = c->q;
    AUTO_FREE struct snapshot *list = NULL;
    uint64_t length;
    unsigned count;
    int r = snapshots_read(q, &list, &count, &length, err);

    if (r < 0)
        return r;
    if (count)
        count_table(c, "snapshot table", q->header.snapshots_offset, length);
    for (unsigned i = 0; i < count && r == 0; i++) {
        AUTO_FREE uint64_t *l1 = malloc(list[i].l1_size * 8ull + 8);

        count_table(c, "snapshot's L1 table", list[i].l1_offset, list[i].l1_size * 8ull);
        r = l1 ? disk_read(q->file, list[i].l1_offset, l1, list[i].l1_size * 8ull) : -ENOMEM;
        for (uint32_t k = 0; r == 0 && k < list[i].l1_size; k++)
            l1[k] = be64toh(l1[k]);
        if (r == 0)
            r = count_tree(c, l1, list[i].l1_size, false);
        if (r < 0)
            error_system(err, -r, "%s: cannot check a snapshot", q->file->path);
    }
    return r;
}

static void count_refcounts(struct check *c)
{
    struct qcow2 *q = c->q;
    uint64_t before = c->result.corruptions;

    count_table(c, "refcount table", q->header.reftable_offset,
                (uint64_t)q->header.reftable_clusters * q->cluster_size);
    for (uint32_t i = 0; i < q->reftable_entries; i++) {
        uint64_t at = q->reftable[i];

        if (!at)
            continue;
        count_table(c, "refcount block", at, q->cluster_size);
        if (aligned(c, at) && at / q->cluster_size < c->clusters &&
            c->uses[at / q->cluster_size] != 1)
            corruption(c, "the refcount block at 0x%llx is something else too",
                       (unsigned long long)at);
    }
    if (c->result.corruptions != before)
        c->rebuild = true;
}

/* Persistent bitmaps, which we leave alone: they are in use while their autoclear bit is set.
 * "Bitmaps extension" of the specification. */
static int count_bitmaps(struct check *c)
{
    enum { BITMAPS = 0x23852875, DIRECTORY_MAX = 1 << 20, ENTRY = 24 };
    struct qcow2 *q = c->q;
    const uint8_t *kept = q->header.kept;
    AUTO_FREE uint8_t *directory = NULL;
    AUTO_FREE uint8_t *table = NULL;
    uint64_t offset, size;
    uint32_t at = 0;
    int r;

    if (!(q->header.autoclear & 1))
        return 0;
    while (at + 8 <= q->header.kept_length && load_be32(kept + at) != BITMAPS)
        at += 8 + ALIGN_UP(load_be32(kept + at + 4), 8);
    if (at + 32 > q->header.kept_length)
        return 0;
    size = load_be64(kept + at + 16);
    offset = load_be64(kept + at + 24);
    if (size > DIRECTORY_MAX)
        return 0;
    count_table(c, "bitmap directory", offset, size);
    directory = malloc(size + 1);
    table = malloc(QCOW2_L1_MAX);
    r = directory && table ? disk_read(q->file, offset, directory, size) : -ENOMEM;
    for (uint64_t i = 0; r == 0 && i + ENTRY <= size;) {
        const uint8_t *entry = directory + i;
        uint64_t table_at = load_be64(entry), entries = load_be32(entry + 8);

        i += ALIGN_UP(ENTRY + (uint64_t)load_be16(entry + 18) + load_be32(entry + 20), 8);
        if (entries > QCOW2_L1_MAX / 8)
            continue;
        count_table(c, "bitmap table", table_at, entries * 8);
        r = disk_read(q->file, table_at, table, entries * 8);
        for (uint64_t k = 0; r == 0 && k < entries; k++) {
            uint64_t data = load_be64(table + k * 8) & QCOW2_OFFSET_MASK;

            if (data)
                count_table(c, "bitmap", data, q->cluster_size);
        }
    }
    return r;
}

/* --- Comparing with the refcounts --- */

static int compare(struct check *c)
{
    struct qcow2 *q = c->q;
    const uint64_t counted = (uint64_t)q->reftable_entries << q->block_bits;
    const uint64_t end = MAX(c->clusters, counted);

    for (uint64_t i = 0; i < end; i++) {
        uint64_t refs, uses = i < c->clusters ? c->uses[i] : 0;
        int r;

        if (i >= c->clusters && !q->reftable[i >> q->block_bits]) {
            i |= (1ull << q->block_bits) - 1; /* no block: all free */
            continue;
        }
        r = refcount_get(q, i, &refs);
        if (r < 0)
            return r;
        if (refs < uses) {
            corruption(c, "cluster %llu is used %llu times and counted %llu times",
                       (unsigned long long)i, (unsigned long long)uses, (unsigned long long)refs);
            c->rebuild = true;
        } else if (refs > uses) {
            c->result.leaks++;
            c->end = MAX(c->end, i + 1);
        }
    }
    return 0;
}

/* Compare and, when asked to, set an entry's COPIED flag: it stands for exactly one use. */
static bool check_copied(struct check *c, uint64_t *value)
{
    uint64_t cluster = (*value & QCOW2_OFFSET_MASK) / c->q->cluster_size, right;

    if (!(*value & QCOW2_OFFSET_MASK) || (*value & QCOW2_COMPRESSED) || cluster >= c->clusters)
        return false;
    right = c->uses[cluster] == 1 ? *value | QCOW2_COPIED : *value & ~QCOW2_COPIED;
    if (right == *value)
        return false;
    corruption(c, "the COPIED flag of cluster %llu is wrong", (unsigned long long)cluster);
    *value = right;
    return c->repair & IMAGE_REPAIR_ALL;
}

static int check_flags(struct check *c)
{
    struct qcow2 *q = c->q;
    AUTO_FREE uint8_t *table = malloc(q->cluster_size);
    int r = table ? 0 : -ENOMEM;

    for (uint32_t i = 0; i < q->header.l1_size && r == 0; i++) {
        uint64_t value = q->l1[i], at = value & QCOW2_OFFSET_MASK;
        bool changed = false;

        if (!at || !aligned(c, at) || at / q->cluster_size >= c->clusters)
            continue;
        if (check_copied(c, &value)) {
            q->l1[i] = value;
            q->l1_dirty = true;
            c->result.corruptions_repaired++;
        }
        r = disk_read(q->file, at, table, q->cluster_size);
        for (unsigned k = 0; r == 0 && k < 1u << q->l2_bits; k++) {
            value = load_be64(table + (size_t)k * q->l2_entry_size);
            if (check_copied(c, &value)) {
                store_be64(table + (size_t)k * q->l2_entry_size, value);
                c->result.corruptions_repaired++;
                changed = true;
            }
        }
        if (r == 0 && changed)
            r = disk_write(q->file, at, table, q->cluster_size);
    }
    return r;
}

/* --- Repairing refcounts --- */

/* All refcounts anew behind the end of the file; the header switches to them at once. */
static int rebuild_refcounts(struct check *c)
{
    struct qcow2 *q = c->q;
    const uint64_t per_block = 1ull << q->block_bits, start = c->clusters;
    const uint64_t most =
        q->header.refcount_order < 6 ? (1ull << (1u << q->header.refcount_order)) - 1 : UINT64_MAX;
    AUTO_FREE uint8_t *block = malloc(q->cluster_size);
    AUTO_FREE uint8_t *table = NULL;
    uint64_t blocks = 0, clusters = 0, end, before;
    int r = 0;

    do {
        before = blocks + clusters;
        end = start + blocks + clusters;
        blocks = (end + per_block - 1) / per_block;
        clusters = (blocks * 8 + q->cluster_size - 1) / q->cluster_size;
    } while (blocks + clusters != before);
    if (clusters * q->cluster_size > QCOW2_REFTABLE_MAX)
        return -EFBIG;
    table = calloc(clusters, q->cluster_size);
    if (!block || !table)
        return -ENOMEM;
    /* The old ones are not used any more. */
    for (uint32_t i = 0; i < q->reftable_entries; i++) {
        uint64_t cluster = q->reftable[i] / q->cluster_size;

        if (q->reftable[i] && aligned(c, q->reftable[i]) && cluster < c->clusters &&
            c->uses[cluster])
            c->uses[cluster]--;
    }
    for (uint32_t i = 0; i < q->header.reftable_clusters; i++) {
        uint64_t cluster = q->header.reftable_offset / q->cluster_size + i;

        if (cluster < c->clusters && c->uses[cluster])
            c->uses[cluster]--;
    }
    for (uint64_t i = 0; i < blocks && r == 0; i++) {
        memset(block, 0, q->cluster_size);
        for (uint64_t k = 0; k < per_block && i * per_block + k < end; k++) {
            uint64_t cluster = i * per_block + k, uses = cluster < start ? c->uses[cluster] : 1;

            if (uses > most)
                return -ERANGE;
            refcount_write(block, q->header.refcount_order, k, uses);
        }
        store_be64(table + i * 8, (start + i) * q->cluster_size);
        r = disk_write(q->file, (start + i) * q->cluster_size, block, q->cluster_size);
    }
    if (r == 0)
        r = disk_write(q->file, (start + blocks) * q->cluster_size, table,
                       clusters * q->cluster_size);
    if (r == 0)
        r = disk_flush(q->file);
    if (r < 0)
        return r;
    q->header.reftable_offset = (start + blocks) * q->cluster_size;
    q->header.reftable_clusters = (uint32_t)clusters;
    r = qcow2_header_update(q);
    if (r == 0)
        r = disk_flush(q->file);
    if (r == 0) {
        cache_drop_all(&q->block_cache);
        r = refcount_load_table(q, NULL);
    }
    q->fresh_from = MAX(q->fresh_from, end);
    return r;
}

/* Refcounts that are too high become what was counted. */
static int repair_leaks(struct check *c)
{
    struct qcow2 *q = c->q;
    const uint64_t counted = (uint64_t)q->reftable_entries << q->block_bits;
    int r = 0;

    for (uint64_t i = 0; i < counted && r == 0; i++) {
        uint64_t refs, uses = i < c->clusters ? c->uses[i] : 0;

        if (!q->reftable[i >> q->block_bits]) {
            i |= (1ull << q->block_bits) - 1;
            continue;
        }
        r = refcount_get(q, i, &refs);
        while (r == 0 && refs > uses) { /* 64-bit refcounts may take a few steps */
            uint64_t step = MIN(refs - uses, INT32_MAX);

            r = refcount_change(q, i * q->cluster_size, 1, -(int)step);
            refs -= step;
        }
    }
    return r == 0 ? cache_write_back(q, &q->block_cache) : r;
}

static int repair(struct check *c)
{
    struct qcow2 *q = c->q;
    const uint64_t flagged = QCOW2_DIRTY | QCOW2_CORRUPT;
    int r = 0;

    if ((c->repair & IMAGE_REPAIR_ALL) && c->rebuild) {
        r = rebuild_refcounts(c);
        if (r == 0) {
            c->result.corruptions_repaired = c->result.corruptions;
            c->result.leaks_repaired = c->result.leaks;
        }
    } else if (c->result.leaks && !c->rebuild) {
        r = repair_leaks(c);
        if (r == 0)
            c->result.leaks_repaired = c->result.leaks;
    }
    if (r == 0 && q->l1_dirty)
        r = mapping_write_l1(q);
    if (r == 0)
        r = disk_flush(q->file);
    if (r == 0 && (c->repair & IMAGE_REPAIR_ALL) && (q->header.incompatible & flagged) &&
        c->result.corruptions == c->result.corruptions_repaired) {
        q->header.incompatible &= ~flagged;
        q->broken = false;
        r = qcow2_header_update(q);
        if (r == 0)
            r = disk_flush(q->file);
    }
    cache_drop_all(&q->l2_cache); /* they were changed behind its back */
    q->free_hint = 0;
    q->packed_at = 0;
    return r;
}

static int count_all(struct check *c, struct error *err)
{
    struct qcow2 *q = c->q;
    int r;

    count_range(c, 0, 1); /* the header */
    count_table(c, "L1 table", q->header.l1_offset, q->header.l1_size * 8ull);
    r = count_tree(c, q->l1, q->header.l1_size, true);
    if (r == 0) {
        r = count_snapshots(c, err);
        if (r < 0)
            return r;
    }
    if (r == 0)
        r = count_bitmaps(c);
    if (r == 0)
        count_refcounts(c);
    if (r == 0)
        r = compare(c);
    if (r == 0)
        r = check_flags(c);
    return r < 0 ? error_system(err, -r, "cannot check %s", q->disk->path) : 0;
}

int qcow2_check(struct disk *disk, unsigned repair_what, struct image_check *ret_check,
                struct error *err)
{
    struct qcow2 *q = disk->state;
    struct check c = {.q = q, .repair = repair_what};
    struct fibers *fibers = storage_fibers(disk->storage);
    int r = 0;

    if (repair_what && !disk->writable)
        return error_set(err, EROFS, "%s is open for reading only", disk->path);
    fiber_lock(fibers, &q->lock);
    if (disk->writable && !q->broken)
        r = qcow2_write_back(q);
    if (r == 0 && disk->writable && !q->broken)
        r = cache_write_back(q, &q->block_cache);
    c.clusters = (q->file->size + q->cluster_size - 1) / q->cluster_size;
    if (r == 0 && c.clusters > CLUSTERS_MAX)
        r = -EFBIG;
    if (r == 0) {
        c.uses = calloc(c.clusters + 1, sizeof(*c.uses));
        c.seen = calloc(1, c.clusters / 8 + 1);
        r = c.uses && c.seen ? 0 : -ENOMEM;
    }
    if (r < 0)
        error_system(err, -r, "cannot check %s", disk->path);
    else
        r = count_all(&c, err);
    if (r == 0 && repair_what && (r = repair(&c)) < 0)
        error_system(err, -r, "cannot repair %s", disk->path);
    fiber_unlock(&q->lock);
    free(c.uses);
    free(c.seen);
    if (r < 0)
        return r;
    c.result.total_clusters = (disk->size + q->cluster_size - 1) / q->cluster_size;
    c.result.image_end = c.end * q->cluster_size;
    *ret_check = c.result;
    return 0;
}
