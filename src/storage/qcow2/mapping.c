/* From guest offsets to clusters of the file, through the L1 table and L2 tables. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "storage/qcow2/qcow2.h"

/* --- The L1 table --- */

int mapping_load_l1(struct qcow2 *q, struct error *err)
{
    uint64_t length = q->header.l1_size * 8ull;
    uint64_t *l1 = malloc(length ? length : 1);
    int r;

    if (!l1)
        return error_set(err, ENOMEM, "out of memory for an L1 table");
    r = disk_read(q->file, q->header.l1_offset, l1, length);
    if (r < 0) {
        free(l1);
        return error_system(err, -r, "%s: cannot read its L1 table", q->file->path);
    }
    for (uint32_t i = 0; i < q->header.l1_size; i++)
        l1[i] = be64toh(l1[i]);
    free(q->l1);
    q->l1 = l1;
    q->l1_dirty = false;
    return 0;
}

int mapping_write_l1(struct qcow2 *q)
{
    uint64_t length = q->header.l1_size * 8ull;
    AUTO_FREE uint64_t *raw = malloc(length ? length : 1);
    int r;

    if (!raw)
        return -ENOMEM;
    for (uint32_t i = 0; i < q->header.l1_size; i++)
        raw[i] = htobe64(q->l1[i]);
    r = disk_write(q->file, q->header.l1_offset, raw, length);
    if (r == 0)
        q->l1_dirty = false;
    return r;
}

/* --- L2 tables --- */

/* Tables must lie within whole clusters of their own. */
static bool can_be_table(struct qcow2 *q, uint64_t offset)
{
    return !(offset & (q->cluster_size - 1)) && offset <= INT64_MAX &&
           !cache_find(&q->block_cache, offset) &&
           !(offset - q->header.l1_offset < q->header.l1_size * 8ull) &&
           !(offset - q->header.reftable_offset < q->reftable_entries * 8ull);
}

/* A table of our own in place of the one that is shared with a snapshot, or of none. Its
 * first content is in the file before the L1 table can refer to it. */
static int own_table(struct qcow2 *q, uint64_t l1_index, uint64_t shared, struct table **ret_table)
{
    struct table *table, *from;
    uint64_t offset;
    int r = clusters_allocate(q, 1, &offset);

    if (r < 0)
        return r;
    r = cache_get(q, &q->l2_cache, offset, true, &table);
    if (r == 0 && shared) {
        r = cache_get(q, &q->l2_cache, shared, false, &from);
        if (r == 0 && !(table = cache_find(&q->l2_cache, offset)))
            r = -ENOMEM; /* the cache holds more than two: cannot be */
        if (r == 0)
            memcpy(table->data, from->data, q->cluster_size);
    }
    if (r == 0)
        r = disk_write(q->file, offset, table->data, q->cluster_size);
    if (r < 0) {
        cache_drop(&q->l2_cache, offset);
        clusters_release(q, offset, 1);
        return r;
    }
    q->l1[l1_index] = offset | QCOW2_COPIED;
    q->l1_dirty = true;
    if (shared)
        clusters_free_later(q, shared, q->cluster_size);
    *ret_table = table;
    return 0;
}

int l2_find(struct qcow2 *q, uint64_t offset, bool writable, struct l2_place *ret_place)
{
    uint64_t l1_index = offset >> (q->l2_bits + q->header.cluster_bits), entry, at;
    int r;

    ret_place->table = NULL;
    ret_place->index = (unsigned)(offset >> q->header.cluster_bits) & ((1u << q->l2_bits) - 1);
    if (l1_index >= q->header.l1_size)
        return -EIO;
    entry = q->l1[l1_index];
    at = entry & QCOW2_OFFSET_MASK;
    if (at && !can_be_table(q, at))
        return qcow2_corrupt(q);
    if (writable && !(at && (entry & QCOW2_COPIED))) {
        r = qcow2_begin_change(q);
        return r < 0 ? r : own_table(q, l1_index, at, &ret_place->table);
    }
    return at ? cache_get(q, &q->l2_cache, at, false, &ret_place->table) : 0;
}

struct l2_entry l2_read(const struct qcow2 *q, const struct l2_place *place)
{
    struct l2_entry entry = {0};
    const uint8_t *at;

    if (!place->table)
        return entry;
    at = place->table->data + (size_t)place->index * q->l2_entry_size;
    entry.value = load_be64(at);
    if (q->l2_entry_size == 16)
        entry.bitmap = load_be64(at + 8);
    return entry;
}

void l2_write(struct qcow2 *q, const struct l2_place *place, struct l2_entry entry)
{
    uint8_t *at = place->table->data + (size_t)place->index * q->l2_entry_size;

    store_be64(at, entry.value);
    if (q->l2_entry_size == 16)
        store_be64(at + 8, entry.bitmap);
    cache_dirty(&q->l2_cache, place->table);
}

/* The bitmap of an extended entry: the lower half says which subclusters are allocated, the
 * upper which read as zeroes. */
enum mapping_kind l2_kind(const struct qcow2 *q, struct l2_entry entry, unsigned subcluster)
{
    if (entry.value & QCOW2_COMPRESSED)
        return MAPPING_COMPRESSED;
    if (q->l2_entry_size == 16) {
        if (entry.bitmap >> (32 + subcluster) & 1)
            return MAPPING_ZERO;
        return entry.bitmap >> subcluster & 1 ? MAPPING_DATA : MAPPING_NONE;
    }
    if ((entry.value & QCOW2_ZERO) && q->header.version >= 3)
        return MAPPING_ZERO;
    return entry.value & QCOW2_OFFSET_MASK ? MAPPING_DATA : MAPPING_NONE;
}

void compressed_range(const struct qcow2 *q, uint64_t descriptor, uint64_t *ret_offset,
                      uint32_t *ret_length)
{
    const unsigned bits = 62 - (q->header.cluster_bits - 8);
    const uint64_t offset = descriptor & ((1ull << bits) - 1);
    const uint64_t sectors = (descriptor & ((1ull << 62) - 1)) >> bits;

    *ret_offset = offset;
    *ret_length = (uint32_t)((sectors + 1) * QCOW2_SECTOR - (offset & (QCOW2_SECTOR - 1)));
}

int l2_check(struct qcow2 *q, struct l2_entry entry)
{
    uint64_t host = entry.value & QCOW2_OFFSET_MASK;
    uint32_t length;

    if (entry.value & QCOW2_COMPRESSED) {
        compressed_range(q, entry.value, &host, &length);
        return host < q->cluster_size || (entry.value & QCOW2_COPIED) ? qcow2_corrupt(q) : 0;
    }
    if (host & (q->cluster_size - 1))
        return qcow2_corrupt(q);
    if (q->l2_entry_size == 16) {
        /* Allocated and zero at once, or allocated nowhere, cannot be. */
        if ((entry.bitmap & entry.bitmap >> 32 & UINT32_MAX) ||
            (!host && (entry.bitmap & UINT32_MAX)))
            return qcow2_corrupt(q);
    }
    if (host && (cache_find(&q->l2_cache, host) || cache_find(&q->block_cache, host)))
        return qcow2_corrupt(q);
    return 0;
}

void l2_free_later(struct qcow2 *q, struct l2_entry entry)
{
    uint64_t offset = entry.value & QCOW2_OFFSET_MASK;
    uint32_t length = q->cluster_size;

    if (entry.value & QCOW2_COMPRESSED)
        compressed_range(q, entry.value, &offset, &length);
    if (offset)
        clusters_free_later(q, offset, length);
}

/* --- Guest offsets --- */

int mapping_find(struct qcow2 *q, uint64_t offset, uint64_t length, struct mapping *ret_mapping)
{
    const uint64_t table_bytes = (uint64_t)q->cluster_size << q->l2_bits;
    uint64_t to_table_end = table_bytes - (offset & (table_bytes - 1)), done = 0;
    struct mapping mapping = {0};
    struct l2_place place;
    int r = l2_find(q, offset, false, &place);

    if (r < 0)
        return r;
    length = MIN(length, to_table_end);
    if (!place.table) {
        *ret_mapping = (struct mapping){.kind = MAPPING_NONE, .length = length};
        return 0;
    }
    while (done < length) {
        uint64_t at = offset + done, inside = at & (q->cluster_size - 1), host;
        struct l2_entry entry = l2_read(q, &place);
        unsigned subcluster = (unsigned)(inside / q->subcluster_size);
        enum mapping_kind kind = l2_kind(q, entry, subcluster);
        bool in_place = entry.value & QCOW2_COPIED;

        r = l2_check(q, entry);
        if (r < 0)
            return r;
        host = entry.value & QCOW2_OFFSET_MASK;
        if (kind == MAPPING_DATA)
            host += inside;
        if (kind == MAPPING_COMPRESSED)
            host = entry.value;
        if (!done)
            mapping = (struct mapping){.kind = kind, .host = host, .in_place = in_place};
        else if (kind != mapping.kind || kind == MAPPING_COMPRESSED ||
                 (kind == MAPPING_DATA &&
                  (host != mapping.host + done || in_place != mapping.in_place)))
            break;
        done += q->subcluster_size - (inside & (q->subcluster_size - 1));
        if (kind == MAPPING_COMPRESSED) /* all of the cluster, whatever its subclusters */
            done = q->cluster_size - (offset & (q->cluster_size - 1));
        place.index += ((offset + done) & (q->cluster_size - 1)) == 0;
    }
    mapping.length = MIN(done, length);
    *ret_mapping = mapping;
    return 0;
}
