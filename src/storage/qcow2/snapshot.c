/* Snapshots inside the image: L1 tables that are kept, and the refcounts of what they reach. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "storage/qcow2/qcow2.h"

/* An entry of the snapshot table: fixed fields, extra data, id, name, padding to 8. */
enum {
    AT_L1_OFFSET = 0,
    AT_L1_SIZE = 8,
    AT_ID_LENGTH = 12,
    AT_NAME_LENGTH = 14,
    AT_SECONDS = 16,
    AT_NANOSECONDS = 20,
    AT_VM_CLOCK = 24,
    AT_VM_STATE_SIZE = 32,
    AT_EXTRA_LENGTH = 36,
    AT_EXTRA = 40,
    EXTRA_VM_STATE_SIZE = 0,
    EXTRA_DISK_SIZE = 8,
    EXTRA_ICOUNT = 16,
    EXTRA_LENGTH = 24,
    EXTRA_MAX = 1024,
};

#define TABLE_MAX (64u << 20) /* bytes of the snapshot table */

/* --- The snapshot table --- */

static void copy_text(char *to, size_t room, const uint8_t *from, size_t length)
{
    length = MIN(length, room - 1);
    memcpy(to, from, length);
    to[length] = 0;
}

static int read_entry(struct qcow2 *q, uint64_t at, struct snapshot *s, uint64_t *ret_length)
{
    uint8_t fixed[AT_EXTRA + EXTRA_MAX], text[65535];
    uint32_t extra, id, name;
    int r = disk_read(q->file, at, fixed, AT_EXTRA);

    if (r < 0)
        return r;
    id = load_be16(fixed + AT_ID_LENGTH);
    name = load_be16(fixed + AT_NAME_LENGTH);
    extra = load_be32(fixed + AT_EXTRA_LENGTH);
    if (extra > EXTRA_MAX || id + name > sizeof(text))
        return -EINVAL;
    r = disk_read(q->file, at + AT_EXTRA, fixed + AT_EXTRA, extra);
    if (r == 0)
        r = disk_read(q->file, at + AT_EXTRA + extra, text, id + name);
    if (r < 0)
        return r;
    *s = (struct snapshot){
        .l1_offset = load_be64(fixed + AT_L1_OFFSET),
        .l1_size = load_be32(fixed + AT_L1_SIZE),
        .size = q->header.size,
        .facts.seconds = load_be32(fixed + AT_SECONDS),
        .nanoseconds = load_be32(fixed + AT_NANOSECONDS),
        .vm_clock = load_be64(fixed + AT_VM_CLOCK),
        .vm_state_size = load_be32(fixed + AT_VM_STATE_SIZE),
        .icount = UINT64_MAX, /* QEMU's "none" */
    };
    if (extra >= EXTRA_DISK_SIZE)
        s->vm_state_size = load_be64(fixed + AT_EXTRA + EXTRA_VM_STATE_SIZE);
    if (extra >= EXTRA_ICOUNT)
        s->size = load_be64(fixed + AT_EXTRA + EXTRA_DISK_SIZE);
    if (extra >= EXTRA_LENGTH)
        s->icount = load_be64(fixed + AT_EXTRA + EXTRA_ICOUNT);
    copy_text(s->facts.id, sizeof(s->facts.id), text, id);
    copy_text(s->facts.name, sizeof(s->facts.name), text + id, name);
    s->facts.size = s->size;
    *ret_length = ALIGN_UP(AT_EXTRA + extra + id + name, 8ull);
    return 0;
}

int snapshots_read(struct qcow2 *q, struct snapshot **ret_snapshots, unsigned *ret_count,
                   uint64_t *ret_table_length, struct error *err)
{
    const unsigned count = q->header.snapshot_count;
    AUTO_FREE struct snapshot *list = calloc(count + 1, sizeof(*list)); /* room for one more */
    uint64_t at = 0, length;
    int r = 0;

    if (!list)
        return error_set(err, ENOMEM, "out of memory for snapshots");
    for (unsigned i = 0; i < count; i++, at += length) {
        struct snapshot *s = &list[i];

        r = at > TABLE_MAX ? -EINVAL : read_entry(q, q->header.snapshots_offset + at, s, &length);
        if (r == 0 && (s->l1_size > QCOW2_L1_MAX / 8 || s->l1_offset > INT64_MAX ||
                       s->size > INT64_MAX || (s->l1_offset & (q->cluster_size - 1))))
            r = -EINVAL;
        if (r < 0)
            return error_system(err, -r, "%s: snapshot %u is damaged", q->file->path, i + 1);
    }
    *ret_snapshots = steal_pointer(&list);
    *ret_count = count;
    *ret_table_length = at;
    return 0;
}

static size_t put_entry(uint8_t *at, const struct snapshot *s)
{
    const size_t id = strlen(s->facts.id), name = strlen(s->facts.name);
    uint8_t *extra = at + AT_EXTRA;

    store_be64(at + AT_L1_OFFSET, s->l1_offset);
    store_be32(at + AT_L1_SIZE, s->l1_size);
    store_be16(at + AT_ID_LENGTH, (uint16_t)id);
    store_be16(at + AT_NAME_LENGTH, (uint16_t)name);
    store_be32(at + AT_SECONDS, (uint32_t)s->facts.seconds);
    store_be32(at + AT_NANOSECONDS, (uint32_t)s->nanoseconds);
    store_be64(at + AT_VM_CLOCK, s->vm_clock);
    store_be32(at + AT_VM_STATE_SIZE,
               s->vm_state_size > UINT32_MAX ? 0 : (uint32_t)s->vm_state_size);
    store_be32(at + AT_EXTRA_LENGTH, EXTRA_LENGTH);
    store_be64(extra + EXTRA_VM_STATE_SIZE, s->vm_state_size);
    store_be64(extra + EXTRA_DISK_SIZE, s->size);
    store_be64(extra + EXTRA_ICOUNT, s->icount);
    memcpy(extra + EXTRA_LENGTH, s->facts.id, id);
    memcpy(extra + EXTRA_LENGTH + id, s->facts.name, name);
    return ALIGN_UP(AT_EXTRA + EXTRA_LENGTH + id + name, 8);
}

/* Write a new table beside the old, and then let the header refer to it. */
static int replace_table(struct qcow2 *q, const struct snapshot *list, unsigned count,
                         uint64_t old_length)
{
    const struct qcow2_header before = q->header;
    AUTO_FREE uint8_t *raw = calloc(count + 1, AT_EXTRA + EXTRA_LENGTH + sizeof(list->facts.id) +
                                                   sizeof(list->facts.name));
    uint64_t offset = 0, clusters, length = 0;
    int r = 0;

    if (!raw)
        return -ENOMEM;
    for (unsigned i = 0; i < count; i++)
        length += put_entry(raw + length, &list[i]);
    clusters = (length + q->cluster_size - 1) / q->cluster_size;
    if (clusters) {
        r = clusters_allocate(q, clusters, &offset);
        if (r < 0)
            return r;
        r = disk_write(q->file, offset, raw, length);
    }
    if (r == 0)
        r = qcow2_write_back(q);
    if (r == 0) {
        q->header.snapshot_count = count;
        q->header.snapshots_offset = offset;
        r = qcow2_header_update(q);
    }
    if (r == 0)
        r = disk_flush(q->file);
    if (r < 0) {
        q->header = before;
        if (clusters)
            clusters_release(q, offset, clusters);
        return r;
    }
    if (before.snapshot_count)
        clusters_free_later(q, before.snapshots_offset, old_length);
    return 0;
}

/* --- Trees: an L1 table and all that it reaches --- */

/* What to do with a reference to the range. */
typedef int tree_fn(struct qcow2 *q, uint64_t offset, uint64_t length);

static int add_reference(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    return refcount_change(q, offset, length, 1);
}

static int drop_reference(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    clusters_free_later(q, offset, length);
    return 0;
}

/* Call fn for each L2 table and cluster of the tree, for at most *limit; *limit is lowered. */
static int walk_tree(struct qcow2 *q, const uint64_t *l1, uint32_t l1_size, tree_fn *fn,
                     uint64_t *limit)
{
    AUTO_FREE uint8_t *table = malloc(q->cluster_size);
    const unsigned entries = 1u << q->l2_bits;

    if (!table)
        return -ENOMEM;
    for (uint32_t i = 0; i < l1_size; i++) {
        uint64_t at = l1[i] & QCOW2_OFFSET_MASK;
        int r;

        if (!at)
            continue;
        if (at & (q->cluster_size - 1))
            return qcow2_corrupt(q);
        r = disk_read(q->file, at, table, q->cluster_size);
        for (unsigned k = 0; k <= entries && r == 0; k++) {
            const uint8_t *entry = table + (size_t)k * q->l2_entry_size;
            uint64_t value = k == entries ? at : load_be64(entry);
            uint64_t offset = value & QCOW2_OFFSET_MASK;
            uint32_t length = q->cluster_size;

            if (value & QCOW2_COMPRESSED && k < entries)
                compressed_range(q, value, &offset, &length);
            if (!offset)
                continue;
            if (!*limit)
                return 0;
            r = fn(q, offset, length);
            *limit -= r == 0;
        }
        if (r < 0)
            return r;
    }
    return 0;
}

static int undo_reference(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    return refcount_change(q, offset, length, -1);
}

/* One use more for all of the tree, or nothing. */
static int add_tree(struct qcow2 *q, const uint64_t *l1, uint32_t l1_size)
{
    uint64_t left = UINT64_MAX, done;
    int r = qcow2_begin_change(q);

    if (r == 0)
        r = walk_tree(q, l1, l1_size, add_reference, &left);
    if (r < 0) {
        done = UINT64_MAX - left;
        walk_tree(q, l1, l1_size, undo_reference, &done);
    }
    return r;
}

/* Once the file does not refer to the tree any more. */
static int drop_tree(struct qcow2 *q, const uint64_t *l1, uint32_t l1_size)
{
    uint64_t no_limit = UINT64_MAX;
    int r = walk_tree(q, l1, l1_size, drop_reference, &no_limit);

    return r < 0 ? r : clusters_free_pending(q);
}

/* Whether the entry's COPIED flag should be set. */
static int find_copied(struct qcow2 *q, uint64_t value, bool clear, uint64_t *ret_value)
{
    uint64_t offset = value & QCOW2_OFFSET_MASK, refs = 0;
    int r;

    *ret_value = value;
    if (!offset || (value & QCOW2_COMPRESSED))
        return 0;
    r = clear ? 0 : refcount_get(q, offset / q->cluster_size, &refs);
    *ret_value = refs == 1 ? value | QCOW2_COPIED : value & ~QCOW2_COPIED;
    return r;
}

/* Set the COPIED flags of the active tree as refcounts are, or clear all of them. */
static int mark_copied(struct qcow2 *q, bool clear)
{
    const unsigned entries = 1u << q->l2_bits;
    uint64_t value;
    int r = 0;

    for (uint32_t i = 0; i < q->header.l1_size && r == 0; i++) {
        struct l2_place place = {0};
        uint64_t at = q->l1[i] & QCOW2_OFFSET_MASK;

        if (!at)
            continue;
        r = cache_get(q, &q->l2_cache, at, false, &place.table);
        for (; r == 0 && place.index < entries; place.index++) {
            struct l2_entry entry = l2_read(q, &place);

            r = find_copied(q, entry.value, clear, &value);
            /* Reading refcounts may have moved tables about. */
            place.table = cache_find(&q->l2_cache, at);
            if (r == 0 && !place.table)
                r = cache_get(q, &q->l2_cache, at, false, &place.table);
            if (r == 0 && value != entry.value) {
                entry.value = value;
                l2_write(q, &place, entry);
            }
        }
        if (r == 0)
            r = find_copied(q, q->l1[i], clear, &value);
        if (r == 0 && value != q->l1[i]) {
            q->l1[i] = value;
            q->l1_dirty = true;
        }
    }
    return r == 0 ? qcow2_write_back(q) : r;
}

static int read_l1(struct qcow2 *q, const struct snapshot *s, uint64_t **ret_l1)
{
    uint64_t *l1 = malloc(s->l1_size * 8ull + 8);
    int r = l1 ? disk_read(q->file, s->l1_offset, l1, s->l1_size * 8ull) : -ENOMEM;

    if (r < 0) {
        free(l1);
        return r;
    }
    for (uint32_t i = 0; i < s->l1_size; i++)
        l1[i] = be64toh(l1[i]);
    *ret_l1 = l1;
    return 0;
}

/* --- Operations, with the whole disk held --- */

struct hold {
    struct range_hold range;
    struct snapshot *list;
    unsigned count;
    uint64_t table_length;
};

static void let_go(struct qcow2 *q, struct hold *hold)
{
    fiber_unlock(&q->lock);
    range_unlock(&q->ranges, &hold->range);
    free(hold->list);
}

static int hold_all(struct qcow2 *q, struct hold *hold, struct error *err)
{
    struct fibers *fibers = storage_fibers(q->disk->storage);
    int r;

    *hold = (struct hold){0};
    range_lock(fibers, &q->ranges, &hold->range, 0, UINT64_MAX, true);
    fiber_lock(fibers, &q->lock);
    r = q->disk->writable ? 0 : error_set(err, EROFS, "%s is open for reading only", q->disk->path);
    if (r == 0 && (r = q->broken ? -EIO : qcow2_write_back(q)) < 0)
        error_system(err, -r, "cannot write to %s", q->disk->path);
    if (r == 0)
        r = snapshots_read(q, &hold->list, &hold->count, &hold->table_length, err);
    if (r < 0)
        let_go(q, hold);
    return r;
}

static int find(const struct qcow2 *q, const struct hold *hold, const char *name,
                unsigned *ret_index, struct error *err)
{
    for (unsigned by_id = 0; by_id < 2; by_id++)
        for (unsigned i = 0; i < hold->count; i++)
            if (!strcmp(by_id ? hold->list[i].facts.id : hold->list[i].facts.name, name)) {
                *ret_index = i;
                return 0;
            }
    return error_set(err, ENOENT, "%s has no snapshot '%s'", q->disk->path, name);
}

/* A copy of the active L1 table in clusters of its own. */
static int copy_l1(struct qcow2 *q, struct snapshot *s)
{
    const uint64_t length = q->header.l1_size * 8ull;
    AUTO_FREE uint64_t *raw = malloc(length + 8);
    int r;

    s->l1_size = q->header.l1_size;
    if (!raw)
        return -ENOMEM;
    r = clusters_allocate(q, MAX((length + q->cluster_size - 1) / q->cluster_size, 1),
                          &s->l1_offset);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < s->l1_size; i++)
        raw[i] = htobe64(q->l1[i]);
    r = disk_write(q->file, s->l1_offset, raw, length);
    return r < 0 ? r : qcow2_write_back(q);
}

static int create_held(struct qcow2 *q, struct hold *hold, const char *name)
{
    struct snapshot *s = &hold->list[hold->count];
    unsigned long id = 0;
    struct timespec now;
    int r;

    clock_gettime(CLOCK_REALTIME, &now);
    for (unsigned i = 0; i < hold->count; i++)
        id = MAX(id, strtoul(hold->list[i].facts.id, NULL, 10));
    *s = (struct snapshot){.size = q->header.size, .icount = UINT64_MAX};
    snprintf(s->facts.id, sizeof(s->facts.id), "%lu", id + 1);
    snprintf(s->facts.name, sizeof(s->facts.name), "%s", name);
    s->facts.seconds = (uint64_t)now.tv_sec;
    s->nanoseconds = (uint64_t)now.tv_nsec;
    /* Nothing may be written in place from here on; a flag that is missing harms nothing. */
    r = mark_copied(q, true);
    if (r == 0)
        r = add_tree(q, q->l1, q->header.l1_size);
    if (r == 0) {
        r = copy_l1(q, s);
        if (r == 0)
            r = replace_table(q, hold->list, hold->count + 1, hold->table_length);
        if (r < 0) {
            if (s->l1_offset)
                clusters_release(
                    q, s->l1_offset,
                    MAX((s->l1_size * 8ull + q->cluster_size - 1) / q->cluster_size, 1));
            drop_tree(q, q->l1, q->header.l1_size);
        }
    }
    if (r < 0)
        mark_copied(q, false);
    return r;
}

int qcow2_snapshot_create(struct disk *disk, const char *name, struct error *err)
{
    struct qcow2 *q = disk->state;
    struct hold hold;
    unsigned i;
    int r;

    if (!*name || strlen(name) >= sizeof(hold.list->facts.name))
        return error_set(err, EINVAL, "a snapshot's name has 1 to %zu bytes",
                         sizeof(hold.list->facts.name) - 1);
    r = hold_all(q, &hold, err);
    if (r < 0)
        return r;
    if (find(q, &hold, name, &i, NULL) == 0)
        r = error_set(err, EEXIST, "%s has a snapshot '%s' already", disk->path, name);
    else if (hold.count >= QCOW2_SNAPSHOTS_MAX)
        r = error_set(err, ENOSPC, "%s has %u snapshots already", disk->path, hold.count);
    else if ((r = create_held(q, &hold, name)) == -ERANGE)
        error_set(err, ERANGE, "%s: refcounts of %u bits cannot count one more snapshot",
                  disk->path, 1u << q->header.refcount_order);
    else if (r < 0)
        error_system(err, -r, "cannot make a snapshot in %s", disk->path);
    let_go(q, &hold);
    return r;
}

/* Let another tree, which is counted already, be the active one; the old one goes. */
static int replace_tree(struct qcow2 *q, const uint64_t *l1, uint32_t l1_size, uint64_t size)
{
    const uint64_t before = q->header.size;
    const uint32_t old_size = q->header.l1_size;
    uint32_t entries = (uint32_t)MAX(l1_size, qcow2_l1_needed(q, size));
    AUTO_FREE uint64_t *old = malloc(old_size * 8ull + 8);
    int r = old ? 0 : -ENOMEM;

    if (r == 0) {
        memcpy(old, q->l1, old_size * 8ull);
        q->header.size = size;
        r = qcow2_replace_l1(q, l1, l1_size, entries);
    }
    if (r < 0) {
        q->header.size = before;
        return r;
    }
    q->disk->size = size;
    r = drop_tree(q, old, old_size);
    return r < 0 ? r : mark_copied(q, false);
}

static int apply_held(struct qcow2 *q, const struct snapshot *s)
{
    AUTO_FREE uint64_t *l1 = NULL;
    int r = read_l1(q, s, &l1);

    if (r == 0)
        r = add_tree(q, l1, s->l1_size);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < s->l1_size; i++)
        l1[i] &= ~QCOW2_COPIED;
    r = qcow2_write_back(q);
    if (r == 0)
        r = replace_tree(q, l1, s->l1_size, s->size);
    return r;
}

int qcow2_snapshot_apply(struct disk *disk, const char *name, struct error *err)
{
    struct qcow2 *q = disk->state;
    struct hold hold;
    unsigned i;
    int r = hold_all(q, &hold, err);

    if (r < 0)
        return r;
    r = find(q, &hold, name, &i, err);
    if (r == 0 && (r = apply_held(q, &hold.list[i])) < 0)
        error_system(err, -r, "cannot go back to snapshot '%s' of %s", name, disk->path);
    let_go(q, &hold);
    return r;
}

static int delete_held(struct qcow2 *q, struct hold *hold, unsigned i)
{
    const struct snapshot gone = hold->list[i];
    AUTO_FREE uint64_t *l1 = NULL;
    int r = read_l1(q, &gone, &l1);

    if (r < 0)
        return r;
    memmove(hold->list + i, hold->list + i + 1, (hold->count - i - 1) * sizeof(*hold->list));
    r = replace_table(q, hold->list, hold->count - 1, hold->table_length);
    if (r == 0) {
        clusters_free_later(q, gone.l1_offset, MAX(gone.l1_size * 8ull, 1));
        r = drop_tree(q, l1, gone.l1_size);
    }
    return r == 0 ? mark_copied(q, false) : r;
}

int qcow2_snapshot_delete(struct disk *disk, const char *name, struct error *err)
{
    struct qcow2 *q = disk->state;
    struct hold hold;
    unsigned i;
    int r = hold_all(q, &hold, err);

    if (r < 0)
        return r;
    r = find(q, &hold, name, &i, err);
    if (r == 0 && (r = delete_held(q, &hold, i)) < 0)
        error_system(err, -r, "cannot delete snapshot '%s' of %s", name, disk->path);
    let_go(q, &hold);
    return r;
}

int qcow2_snapshot_list(struct disk *disk, struct image_snapshot **ret_snapshots,
                        unsigned *ret_count, struct error *err)
{
    AUTO_FREE struct snapshot *list = NULL;
    struct image_snapshot *facts;
    uint64_t table_length;
    unsigned count;
    int r = snapshots_read(disk->state, &list, &count, &table_length, err);

    if (r < 0)
        return r;
    facts = calloc(count + 1, sizeof(*facts));
    if (!facts)
        return error_set(err, ENOMEM, "out of memory for snapshots");
    for (unsigned i = 0; i < count; i++)
        facts[i] = list[i].facts;
    *ret_snapshots = facts;
    *ret_count = count;
    return 0;
}

int qcow2_empty(struct disk *disk, struct error *err)
{
    struct qcow2 *q = disk->state;
    struct hold hold;
    int r = hold_all(q, &hold, err);

    if (r < 0)
        return r;
    r = replace_tree(q, q->l1, 0, q->header.size);
    if (r < 0)
        error_system(err, -r, "cannot empty %s", disk->path);
    let_go(q, &hold);
    return r;
}
