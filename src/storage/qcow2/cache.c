/* Tables of one cluster in memory, the least recently used going first. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "storage/qcow2/qcow2.h"

int cache_init(struct cache *cache, unsigned max)
{
    unsigned buckets = 16;

    while (buckets < max)
        buckets *= 2;
    *cache = (struct cache){.bucket_count = buckets, .max = max};
    cache->buckets = calloc(buckets, sizeof(struct table *));
    return cache->buckets ? 0 : -ENOMEM;
}

static struct table **bucket_of(struct cache *cache, uint64_t offset)
{
    /* Offsets are multiples of the cluster size: mix the upper bits down. */
    uint64_t hash = (offset >> 9) * 0x9e3779b97f4a7c15ull;

    return &cache->buckets[(hash >> 32) & (cache->bucket_count - 1)];
}

static void unlink_age(struct cache *cache, struct table *table)
{
    *(table->newer ? &table->newer->older : &cache->newest) = table->older;
    *(table->older ? &table->older->newer : &cache->oldest) = table->newer;
}

static void link_newest(struct cache *cache, struct table *table)
{
    table->newer = NULL;
    table->older = cache->newest;
    *(cache->newest ? &cache->newest->newer : &cache->oldest) = table;
    cache->newest = table;
}

static void unhash(struct cache *cache, struct table *table)
{
    struct table **link = bucket_of(cache, table->offset);

    while (*link != table)
        link = &(*link)->hash_next;
    *link = table->hash_next;
}

static void discard_table(struct cache *cache, struct table *table)
{
    unhash(cache, table);
    unlink_age(cache, table);
    cache->dirty -= table->dirty;
    cache->count--;
    free(table->data);
    free(table);
}

void cache_drop_all(struct cache *cache)
{
    while (cache->oldest)
        discard_table(cache, cache->oldest);
}

void cache_free(struct cache *cache)
{
    cache_drop_all(cache);
    free(cache->buckets);
    cache->buckets = NULL;
}

struct table *cache_find(struct cache *cache, uint64_t offset)
{
    struct table *table = *bucket_of(cache, offset);

    while (table && table->offset != offset)
        table = table->hash_next;
    return table;
}

void cache_drop(struct cache *cache, uint64_t offset)
{
    struct table *table = cache_find(cache, offset);

    if (table)
        discard_table(cache, table);
}

static struct table *new_table(uint32_t size)
{
    struct table *table = calloc(1, sizeof(*table));

    if (!table)
        return NULL;
    table->data = malloc(size);
    if (!table->data) {
        free(table);
        return NULL;
    }
    return table;
}

/* Drop the oldest clean table; when all are dirty, write back first. */
static int make_room(struct qcow2 *q, struct cache *cache)
{
    struct table *table;
    int r;

    if (cache->count < cache->max)
        return 0;
    /* The newest few may be in use by the caller. */
    for (table = cache->oldest; table && table->dirty;)
        table = table->newer;
    if (!table || table == cache->newest) {
        r = qcow2_write_back(q);
        if (r < 0)
            return r;
        table = cache->oldest;
        if (table->dirty)
            return 0; /* giving up clusters made it dirty again: grow a little */
    }
    discard_table(cache, table);
    return 0;
}

int cache_get(struct qcow2 *q, struct cache *cache, uint64_t offset, bool fresh,
              struct table **ret_table)
{
    struct table *table = cache_find(cache, offset), **bucket;
    int r;

    if (table) {
        if (cache->newest != table) {
            unlink_age(cache, table);
            link_newest(cache, table);
        }
        if (fresh)
            memset(table->data, 0, q->cluster_size);
        *ret_table = table;
        return 0;
    }
    r = make_room(q, cache);
    if (r < 0)
        return r;
    table = new_table(q->cluster_size);
    if (!table)
        return -ENOMEM;
    r = 0;
    if (fresh)
        memset(table->data, 0, q->cluster_size);
    else
        r = disk_read(q->file, offset, table->data, q->cluster_size);
    if (r < 0) {
        free(table->data);
        free(table);
        return r;
    }
    table->offset = offset;
    bucket = bucket_of(cache, offset);
    table->hash_next = *bucket;
    *bucket = table;
    link_newest(cache, table);
    cache->count++;
    *ret_table = table;
    return 0;
}

void cache_dirty(struct cache *cache, struct table *table)
{
    cache->dirty += !table->dirty;
    table->dirty = true;
}

int cache_write_back(struct qcow2 *q, struct cache *cache)
{
    for (struct table *table = cache->newest; table && cache->dirty; table = table->older) {
        int r;

        if (!table->dirty)
            continue;
        r = disk_write(q->file, table->offset, table->data, q->cluster_size);
        if (r < 0)
            return r;
        table->dirty = false;
        cache->dirty--;
    }
    return 0;
}
