/* The cache of units: memory for code, and how units are found and let go.
 * Assumption: code that is translated once is mostly run for long, so nothing
 * is sorted out one by one. When the memory is full, everything goes, and what
 * is still in use comes back at the cost of a translation each. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "engine/translate/translator.h"

/* More than the largest unit takes: UNIT_STEPS (build.h) of less than 700 bytes,
 * which is what PUSH from memory can take with all that surrounds it. */
#define UNIT_SIZE_MAX 65536u
/* One site or trap for that many bytes of code is more than there ever are. */
#define BYTES_PER_SITE 8u

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

int code_cache_create(struct code_cache *cache, size_t size, struct error *err)
{
    int r;

    cache->size = MAX(ALIGN_UP(size, (size_t)4096), (size_t)4 * UNIT_SIZE_MAX);
    r = map_views(cache, err);
    if (r < 0)
        return r;
    cache->site_room = cache->trap_room = (unsigned)(cache->size / BYTES_PER_SITE);
    cache->sites = reserve(cache->site_room * sizeof(*cache->sites));
    cache->traps = reserve(cache->trap_room * sizeof(*cache->traps));
    if (!cache->sites || !cache->traps)
        return error_set(err, ENOMEM, "out of memory for the translator's tables");
    cache->emit = (struct emit){.at = cache->write};
    return 0;
}

void code_cache_destroy(struct code_cache *cache)
{
    if (cache->write)
        munmap(cache->write, cache->size);
    if (cache->execute)
        munmap(cache->execute, cache->size);
    if (cache->sites)
        munmap(cache->sites, cache->site_room * sizeof(*cache->sites));
    if (cache->traps)
        munmap(cache->traps, cache->trap_room * sizeof(*cache->traps));
}

bool code_cache_has_room(const struct code_cache *cache)
{
    return (size_t)(cache->emit.at - cache->write) + UNIT_SIZE_MAX <= cache->size &&
           cache->site_count + UNIT_SIZE_MAX / BYTES_PER_SITE <= cache->site_room;
}

static unsigned hash_unit(uint64_t physical, unsigned mode)
{
    return (unsigned)((physical * 0x9e3779b97f4a7c15ull >> 40) ^ mode) & (UNIT_HASH - 1);
}

static unsigned hash_page(const struct code_page *page)
{
    return (unsigned)((uintptr_t)page / sizeof(*page)) & (PAGE_HASH - 1);
}

static void remove_from_hash(struct code_cache *cache, struct unit *unit)
{
    struct unit **where = &cache->units[hash_unit(unit->physical, unit->mode)];

    while (*where != unit)
        where = &(*where)->next;
    *where = unit->next;
}

static void remove_from_pages(struct unit *unit)
{
    struct unit **where = &unit->page->units;

    while (*where != unit)
        where = &(*where)->next_in_page;
    *where = unit->next_in_page;
    if (!unit->tail_page)
        return;
    where = &unit->tail_page->tails;
    while (*where != unit)
        where = &(*where)->next_in_tail;
    *where = unit->next_in_tail;
}

/* Its code stays where it is, unreachable. Its own links into other units do
 * too: their patches go nowhere that matters. */
static void drop_unit(struct translator *t, struct unit *unit)
{
    chain_unlink_all(unit);
    jump_cache_forget(t, unit->linear);
    remove_from_hash(&t->cache, unit);
    remove_from_pages(unit);
    t->cache.unit_count--;
    t->stats.dropped++;
    /* Sites of it may stand in lists of others; they are found by pointer only. */
    free(unit);
}

static bool has_units(const struct unit_page *page)
{
    return page->units || page->tails;
}

static void drop_units(struct translator *t, struct unit_page *page)
{
    while (page->units)
        drop_unit(t, page->units);
    while (page->tails)
        drop_unit(t, page->tails);
}

void code_cache_flush(struct translator *t)
{
    struct code_cache *cache = &t->cache;

    for (unsigned i = 0; i < PAGE_HASH; i++) {
        struct unit_page *next_page;

        for (struct unit_page *page = cache->pages[i]; page; page = next_page) {
            struct unit *next;

            next_page = page->next;
            for (struct unit *unit = page->units; unit; unit = next) {
                next = unit->next_in_page;
                free(unit);
            }
            free(page);
        }
        cache->pages[i] = NULL;
    }
    memset(cache->units, 0, sizeof(cache->units));
    for (unsigned i = 0; i < cache->site_count; i++)
        free(cache->sites[i].fallback);
    cache->unit_count = cache->site_count = cache->trap_count = 0;
    cache->emit.at = cache->start;
    for (unsigned i = 0; i < JUMP_CACHES; i++)
        jump_cache_flush(t, (enum jump_caches)i);
    t->stats.flushes++;
}

struct unit *code_cache_find(struct code_cache *cache, uint64_t physical, uint64_t linear,
                             unsigned mode)
{
    struct unit *unit = cache->units[hash_unit(physical, mode)];

    while (unit && (unit->physical != physical || unit->linear != linear || unit->mode != mode))
        unit = unit->next;
    return unit;
}

void code_cache_add(struct translator *t, struct unit *unit, struct unit_page *page,
                    struct unit_page *tail)
{
    struct code_cache *cache = &t->cache;
    struct unit **where = &cache->units[hash_unit(unit->physical, unit->mode)];

    unit->next = *where;
    *where = unit;
    unit->next_in_page = page->units;
    page->units = unit;
    unit->page = page;
    unit->tail_page = tail;
    if (tail) {
        unit->next_in_tail = tail->tails;
        tail->tails = unit;
    }
    cache->unit_count++;
}

struct unit_page *code_cache_page(struct translator *t, struct code_page *page, unsigned version)
{
    struct unit_page **where = &t->cache.pages[hash_page(page)], *found;

    for (found = *where; found && found->page != page; found = found->next)
        ;
    if (!found) {
        found = calloc(1, sizeof(*found));
        if (!found)
            return NULL;
        found->page = page;
        found->next = *where;
        *where = found;
    } else if (found->version != version && has_units(found)) {
        drop_units(t, found);
    }
    found->version = version;
    return found;
}

static void drop_if_stale(struct translator *t, struct unit_page *page)
{
    if (has_units(page) &&
        atomic_load_explicit(&page->page->version, memory_order_acquire) != page->version)
        drop_units(t, page);
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
    struct site *site = &cache->sites[cache->site_count++];

    *site = (struct site){.kind = (uint8_t)kind, .rip = rip, .unit = unit};
    return site;
}

bool code_cache_trap(struct code_cache *cache, uint8_t *at, uint8_t *leave)
{
    if (cache->trap_count == cache->trap_room)
        return false;
    cache->traps[cache->trap_count++] = (struct trap){at, leave};
    return true;
}

uint8_t *code_cache_find_trap(const struct code_cache *cache, const uint8_t *at)
{
    unsigned low = 0, high = cache->trap_count;

    while (low < high) {
        unsigned middle = (low + high) / 2;

        if (cache->traps[middle].at < at)
            low = middle + 1;
        else
            high = middle;
    }
    return low < cache->trap_count && cache->traps[low].at == at ? cache->traps[low].leave : NULL;
}
