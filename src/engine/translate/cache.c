/* The cache of units: memory for code, and how units are found and let go.
 * Assumption: what is oldest is needed least, and what is still in use of it comes
 * back at the cost of a translation each. So the memory is filled region after
 * region; when all are full, the oldest region's units go together, and nobody
 * keeps accounts of who is used. What belongs to units lies in tables beside their
 * code: freeing it piece by piece would have the C library give memory back, for
 * which it opens a file, and the sandbox ends a process that does. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "engine/translate/segment.h"

/* More than the largest unit takes: UNIT_STEPS (build.h) of less than 1,600 bytes,
 * which is what two copies of a step in a loop can take with all that surrounds them. */
#define UNIT_SIZE_MAX 131072u
#define UNIT_SITES_MAX 1024u
/* One site or trap for that many bytes of code is more than there ever are. */
#define BYTES_PER_SITE 8u
/* A unit looks for signals and goes on somewhere, which takes more; it has no more
 * than one fallback for that many bytes either. */
#define BYTES_PER_UNIT 32u
#define BYTES_PER_PATH   1024u /* a trace is larger; else it is none */
#define BYTES_PER_BUCKET 512u /* about what a unit takes */
#define PAGE_RECORDS   (1u << 20)
/* The last unit of a region may reach into the next one, not beyond. */
#define REGION_SIZE_MIN ((size_t)UNIT_SIZE_MAX)

/* Of a cache's size this part is for code, the rest for the tables: a unit's sites and its
 * record take a third more than its code. */
#define CODE_SHARE(size) ((size) / 5 * 2)

static void *reserve(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

static int map_views(struct code_cache *cache, struct error *err)
{
    int fd = memfd_create("lodge-code", MFD_CLOEXEC);
    void *write = MAP_FAILED, *execute = MAP_FAILED;

    if (fd >= 0 && ftruncate(fd, (off_t)cache->size) == 0) {
        write = mmap(NULL, cache->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        execute = mmap(NULL, cache->size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    }
    if (fd >= 0)
        close(fd);
    if (write != MAP_FAILED)
        cache->write = write;
    if (execute != MAP_FAILED)
        cache->execute = execute;
    if (!cache->write || !cache->execute)
        return error_set(err, ENOMEM, "cannot map %zu KiB for translated code",
                         cache->size / 1024);
    return 0;
}

static size_t table_size(const struct code_cache *cache, size_t entry)
{
    return (size_t)cache->region_count * cache->table_room * entry;
}

static size_t unit_table_size(const struct code_cache *cache, size_t entry)
{
    return (size_t)cache->region_count * cache->unit_room * entry;
}

static size_t path_table_size(const struct code_cache *cache)
{
    return (size_t)cache->region_count * cache->path_room * sizeof(*cache->paths);
}

static size_t buckets_size(const struct code_cache *cache)
{
    return ((size_t)cache->unit_mask + 1) * sizeof(*cache->units);
}

int code_cache_create(struct code_cache *cache, size_t size, struct error *err)
{
    int r;

    cache->size = MAX(ALIGN_UP(CODE_SHARE(size), (size_t)4096), (size_t)4 * UNIT_SIZE_MAX);
    r = map_views(cache, err);
    if (r < 0)
        return r;
    cache->region_count = (unsigned)MIN(cache->size / REGION_SIZE_MIN, (size_t)CODE_REGIONS_MAX);
    cache->region_size = cache->size / cache->region_count;
    cache->region_tables = (size - MIN(CODE_SHARE(size), size)) / cache->region_count;
    cache->table_room = (unsigned)(cache->region_size / BYTES_PER_SITE);
    cache->sites = reserve(table_size(cache, sizeof(*cache->sites)));
    cache->traps = reserve(table_size(cache, sizeof(*cache->traps)));
    cache->unit_room = (unsigned)(cache->region_size / BYTES_PER_UNIT);
    cache->unit_table = reserve(unit_table_size(cache, sizeof(*cache->unit_table)));
    cache->fallbacks = reserve(unit_table_size(cache, sizeof(*cache->fallbacks)));
    cache->path_room = (unsigned)(cache->region_size / BYTES_PER_PATH);
    cache->paths = reserve(path_table_size(cache));
    while (cache->unit_mask < cache->size / BYTES_PER_BUCKET)
        cache->unit_mask = 2 * cache->unit_mask + 1;
    cache->units = reserve(buckets_size(cache));
    cache->movable = reserve(buckets_size(cache));
    cache->page_table = reserve(PAGE_RECORDS * sizeof(*cache->page_table));
    if (!cache->sites || !cache->traps || !cache->unit_table || !cache->fallbacks ||
        !cache->paths || !cache->units || !cache->movable || !cache->page_table)
        return error_set(err, ENOMEM, "out of memory for the translator's tables");
    for (unsigned i = 0; i < cache->region_count; i++)
        cache->regions[i].begin = cache->write + i * cache->region_size;
    cache->emit = (struct emit){.at = cache->write};
    return 0;
}

void code_cache_keep(struct code_cache *cache)
{
    cache->start = cache->regions[0].begin = cache->emit.at;
}

void code_cache_destroy(struct code_cache *cache)
{
    if (cache->write)
        munmap(cache->write, cache->size);
    if (cache->execute)
        munmap(cache->execute, cache->size);
    if (cache->sites)
        munmap(cache->sites, table_size(cache, sizeof(*cache->sites)));
    if (cache->traps)
        munmap(cache->traps, table_size(cache, sizeof(*cache->traps)));
    if (cache->unit_table)
        munmap(cache->unit_table, unit_table_size(cache, sizeof(*cache->unit_table)));
    if (cache->fallbacks)
        munmap(cache->fallbacks, unit_table_size(cache, sizeof(*cache->fallbacks)));
    if (cache->paths)
        munmap(cache->paths, path_table_size(cache));
    if (cache->units)
        munmap(cache->units, buckets_size(cache));
    if (cache->movable)
        munmap(cache->movable, buckets_size(cache));
    if (cache->page_table)
        munmap(cache->page_table, PAGE_RECORDS * sizeof(*cache->page_table));
}

/* Where units with that hash are. Code that many processes share lies at another
 * linear address in each. */
static struct unit **bucket(const struct code_cache *cache, uint64_t physical, uint64_t linear,
                            unsigned mode)
{
    const uint64_t hash = (physical ^ linear << 16) * 0x9e3779b97f4a7c15ull >> 40;

    return &cache->units[(hash ^ mode) & cache->unit_mask];
}

static struct unit **bucket_of(const struct code_cache *cache, const struct unit *unit)
{
    return bucket(cache, unit->physical, unit->linear, unit->mode);
}

static unsigned hash_page(const struct code_page *page)
{
    return (unsigned)((uintptr_t)page / sizeof(*page)) & (PAGE_HASH - 1);
}

static void remove_from_hash(struct code_cache *cache, struct unit *unit)
{
    struct unit **where = bucket_of(cache, unit);

    while (*where != unit)
        where = &(*where)->next;
    *where = unit->next;
}

/* The pages that the trace leads through do not know of it any more. */
static void leave_pages(struct path *path)
{
    for (unsigned i = 1; i < path->page_count; i++) {
        struct path_page *p = &path->pages[i];

        *p->where = p->next;
        if (p->next)
            p->next->where = p->where;
    }
}

/* Its code stays where it is, unreachable. Its own links into other units do
 * too, until its region goes: their patches go nowhere that matters. */
static void drop_unit(struct translator *t, struct unit *unit)
{
    chain_unlink_all(unit);
    jump_cache_forget(t, unit->mode & UNIT_SEGMENTED ? unit_key(unit->linear, unit->code_base)
                                                     : unit->linear);
    remove_from_hash(&t->cache, unit);
    elsewhere_forget(unit);
    *unit->where_in_page = unit->next_in_page;
    if (unit->next_in_page)
        unit->next_in_page->where_in_page = unit->where_in_page;
    *unit->where_in_region = unit->next_in_region;
    if (unit->next_in_region)
        unit->next_in_region->where_in_region = unit->where_in_region;
    if (unit->path)
        leave_pages(unit->path);
    t->cache.unit_count--;
    unit->dropped = true;
    /* Sites of it may stand in lists of others; they are found by pointer only. */
}

static void drop_units(struct translator *t, struct unit_page *page)
{
    for (; page->units; t->stats.dropped++)
        drop_unit(t, page->units);
    for (; page->paths; t->stats.dropped++)
        drop_unit(t, page->paths->unit);
}

static void free_if_empty(struct code_cache *cache, struct unit_page *page)
{
    struct unit_page **where = &cache->pages[hash_page(page->page)];

    if (page->units || page->paths)
        return;
    while (*where != page)
        where = &(*where)->next;
    *where = page->next;
    page->next = cache->free_pages;
    cache->free_pages = page;
}

/* Sites of the region that are linked into units of others are forgotten there. */
static void evict(struct translator *t, struct code_region *region)
{
    struct code_cache *cache = &t->cache;
    struct site *sites = cache->sites + (size_t)(region - cache->regions) * cache->table_room;

    for (; region->units; t->stats.evicted++) {
        struct unit_page *page = region->units->page;

        drop_unit(t, region->units);
        free_if_empty(cache, page);
    }
    for (unsigned i = 0; i < region->site_count; i++)
        if (sites[i].linked)
            chain_forget(&sites[i]);
    region->site_count = region->trap_count = region->unit_count = region->fallback_count = 0;
    region->path_count = 0;
    t->stats.evictions++;
}

static uint8_t *region_end(const struct code_cache *cache, unsigned i)
{
    return cache->write + (i + 1) * cache->region_size;
}

/* What the units of a region take in the tables. */
static size_t tables_used(const struct code_region *region)
{
    return region->site_count * sizeof(struct site) + region->trap_count * sizeof(struct trap) +
           region->unit_count * sizeof(struct unit) +
           region->fallback_count * sizeof(struct fallback) +
           region->path_count * sizeof(struct path);
}

static void evict_if_used(struct translator *t, unsigned i)
{
    if (t->cache.regions[i].site_count)
        evict(t, &t->cache.regions[i]);
}

void code_cache_make_room(struct translator *t)
{
    struct code_cache *cache = &t->cache;
    struct emit *e = &cache->emit;

    for (;;) {
        const unsigned i = cache->region, next = (i + 1) % cache->region_count;
        uint8_t *end = region_end(cache, i);

        if (e->at + (next ? 1 : UNIT_SIZE_MAX) <= end &&
            tables_used(&cache->regions[i]) <= cache->region_tables &&
            cache->regions[i].site_count + UNIT_SITES_MAX <= cache->table_room &&
            cache->regions[i].unit_count < cache->unit_room) {
            if (e->at + UNIT_SIZE_MAX > end)
                evict_if_used(t, next);
            return;
        }
        evict_if_used(t, next);
        cache->region = next;
        e->at = next ? MAX(e->at, end) : cache->start;
    }
}

void code_cache_flush(struct translator *t)
{
    struct code_cache *cache = &t->cache;

    for (unsigned i = 0; i < cache->region_count; i++)
        evict(t, &cache->regions[i]);
    for (unsigned i = 0; i < PAGE_HASH; i++) /* those whose units were dropped */
        while (cache->pages[i])
            free_if_empty(cache, cache->pages[i]);
    jump_cache_flush_all(t);
    cache->region = 0;
    cache->emit.at = cache->start;
    t->stats.flushes++;
}

struct unit *code_cache_find(struct code_cache *cache, uint64_t physical, uint64_t linear,
                             unsigned mode, const struct x86_segment *cs)
{
    struct unit *unit = *bucket(cache, physical, linear, mode);

    while (unit && (unit->physical != physical || unit->linear != linear || unit->mode != mode ||
                    ((mode & UNIT_SEGMENTED) &&
                     (unit->code_base != cs->base || unit->code_limit != cs->limit))))
        unit = unit->next;
    return unit;
}

void code_cache_add(struct translator *t, struct unit *unit, struct unit_page *page)
{
    struct code_cache *cache = &t->cache;
    struct code_region *region = &cache->regions[cache->region];
    struct unit **where = bucket_of(cache, unit);

    unit->next = *where;
    *where = unit;
    unit->next_in_page = page->units;
    unit->where_in_page = &page->units;
    if (unit->next_in_page)
        unit->next_in_page->where_in_page = &unit->next_in_page;
    page->units = unit;
    unit->page = page;
    unit->next_in_region = region->units;
    unit->where_in_region = &region->units;
    if (unit->next_in_region)
        unit->next_in_region->where_in_region = &unit->next_in_region;
    region->units = unit;
    cache->unit_count++;
}

void code_cache_add_to_page(struct path_page *p, struct unit *unit, struct unit_page *page)
{
    p->unit = unit;
    p->next = page->paths;
    p->where = &page->paths;
    if (p->next)
        p->next->where = &p->next;
    page->paths = p;
}

void code_cache_rename(struct code_cache *cache, struct unit *unit, uint64_t linear)
{
    struct unit **where;

    remove_from_hash(cache, unit);
    unit->linear = linear;
    where = bucket_of(cache, unit);
    unit->next = *where;
    *where = unit;
}

static struct unit_page *new_page(struct code_cache *cache)
{
    struct unit_page *page = cache->free_pages;

    if (page)
        cache->free_pages = page->next;
    else if (cache->page_count < PAGE_RECORDS)
        page = &cache->page_table[cache->page_count++];
    return page;
}

struct unit_page *code_cache_page(struct translator *t, struct code_page *page, unsigned version)
{
    struct unit_page **where = &t->cache.pages[hash_page(page)], *found;

    for (found = *where; found && found->page != page; found = found->next)
        ;
    if (!found) {
        found = new_page(&t->cache);
        if (!found)
            return NULL;
        *found = (struct unit_page){.page = page, .next = *where};
        *where = found;
    } else if (found->version != version) {
        drop_units(t, found);
    }
    found->version = version;
    return found;
}

void code_cache_drop_unit(struct translator *t, struct unit *unit)
{
    if (unit->dropped)
        return;
    drop_unit(t, unit);
    t->stats.dropped++;
}

static void drop_if_stale(struct translator *t, struct unit_page *page)
{
    if ((!page->units && !page->paths) ||
        atomic_load_explicit(&page->page->version, memory_order_acquire) == page->version)
        return;
    drop_units(t, page);
    churn_note(t, page->page);
}

void code_cache_drop_stale(struct translator *t)
{
    struct code_page *written;

    while (code_pages_next_written(t->cpu.soft, &t->written_seen, &written)) {
        t->stats.writes++;
        if (written) {
            struct unit_page *page = t->cache.pages[hash_page(written)];

            while (page && page->page != written)
                page = page->next;
            if (page)
                drop_if_stale(t, page);
            continue;
        }
        for (unsigned i = 0; i < PAGE_HASH; i++)
            for (struct unit_page *page = t->cache.pages[i]; page; page = page->next)
                drop_if_stale(t, page);
    }
}

struct site *code_cache_site(struct code_cache *cache, enum site_kind kind, uint64_t rip,
                             struct unit *unit)
{
    struct code_region *region = &cache->regions[cache->region];
    struct site *site =
        &cache->sites[(size_t)cache->region * cache->table_room + region->site_count++];

    *site = (struct site){.kind = (uint8_t)kind, .rip = rip, .unit = unit};
    return site;
}

struct unit *code_cache_unit(struct code_cache *cache)
{
    struct code_region *region = &cache->regions[cache->region];

    return &cache->unit_table[(size_t)cache->region * cache->unit_room + region->unit_count++];
}

void code_cache_give_back(struct code_cache *cache)
{
    cache->regions[cache->region].unit_count--;
}

struct fallback *code_cache_fallback(struct code_cache *cache, const struct site *site)
{
    const size_t i = site ? (size_t)(site - cache->sites) / cache->table_room : cache->region;
    struct code_region *region = &cache->regions[i];

    if (region->fallback_count == cache->unit_room)
        return NULL;
    return &cache->fallbacks[i * cache->unit_room + region->fallback_count++];
}

struct path *code_cache_path(struct code_cache *cache)
{
    struct code_region *region = &cache->regions[cache->region];
    struct path *path;

    if (region->path_count == cache->path_room)
        return NULL;
    path = &cache->paths[(size_t)cache->region * cache->path_room + region->path_count++];
    *path = (struct path){.exits = region->path_count % PATH_EXITS};
    return path;
}

struct trap *code_cache_trap(struct code_cache *cache, uint8_t *at)
{
    struct code_region *region = &cache->regions[cache->region];
    struct trap *trap;

    if (region->trap_count == cache->table_room)
        return NULL;
    trap = &cache->traps[(size_t)cache->region * cache->table_room + region->trap_count++];
    *trap = (struct trap){.at = at};
    return trap;
}

static uint8_t *find_trap(const struct code_cache *cache, size_t region, const uint8_t *at)
{
    const struct trap *traps = cache->traps + region * cache->table_room;
    const unsigned count = cache->regions[region].trap_count;
    unsigned low = 0, high = count;

    while (low < high) {
        unsigned middle = (low + high) / 2;

        if (traps[middle].at < at)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && traps[low].at == at ? traps[low].leave : NULL;
}

uint8_t *code_cache_find_trap(const struct code_cache *cache, const uint8_t *at)
{
    const size_t region = MIN((size_t)(at - cache->write) / cache->region_size,
                              (size_t)cache->region_count - 1);
    uint8_t *leave = find_trap(cache, region, at);

    return leave || !region ? leave : find_trap(cache, region - 1, at);
}
