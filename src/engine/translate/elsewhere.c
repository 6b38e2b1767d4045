/* The same code at another address: position-independent programs and libraries, which each
 * process has elsewhere.
 *
 * Assumption: what a unit is depends on its page, its mode and its offset in the page; its
 * linear address is in its code as constants only. So a unit for another address is a copy, with
 * these constants moved (relocate.h). And mostly processes come one after the other: where the
 * address space is gone that a unit was last looked up in, nobody needs it there any more, and it
 * is moved itself, which takes no room from others.
 *
 * It goes so for code that is far from the lowest and the highest addresses: then no constant
 * that counts from RIP fits in 32 bits, so that all have one form, and none is near one that
 * does not count from RIP. A hot unit rests on what was met at its address, a trace and a cut
 * one on other pages: these are made anew. */
#include "engine/translate/elsewhere.h"

#include <string.h>

#include "engine/translate/build.h"
#include "engine/translate/trace.h"

#define FAR (8ull << 30)

/* Units with a hash that are looked at, and those of them that might be moved. */
#define LOOKED_AT       16u
#define MOVE_CANDIDATES 3u

/* Of page tables (SDM 3A 4.5). */
#define ENTRY_PRESENT 1ull
#define ENTRY_LARGE   0x80ull
#define ENTRY_FRAME   0x000ffffffffff000ull

/* Units are 131,072 bytes at most with what is behind them (cache.c). */
#define SIZE_MAX_COPIED 65536u

static bool is_far(uint64_t linear)
{
    return linear + FAR >= 2 * FAR;
}

static bool is_movable(uint64_t linear, unsigned mode)
{
    return (mode & CPU_MODE_SIZE) == CPU_MODE_64 && is_far(linear);
}

static struct unit **bucket_of(const struct code_cache *cache, uint64_t physical, unsigned mode)
{
    const uint64_t hash = (physical + mode) * 0x9e3779b97f4a7c15ull >> 40;

    return &cache->movable[hash & cache->unit_mask];
}

static void remember(struct translator *t, struct unit *unit)
{
    struct unit **bucket = bucket_of(&t->cache, unit->physical, unit->mode);
    struct belongings *own = &unit->belongings;

    own->movable = true;
    own->root = t->cpu.state.cr3;
    own->next = *bucket;
    own->where = bucket;
    if (own->next)
        own->next->belongings.where = &own->next;
    *bucket = unit;
}

void elsewhere_forget(const struct unit *unit)
{
    const struct belongings *own = &unit->belongings;

    if (!own->movable)
        return;
    *own->where = own->next;
    if (own->next)
        own->next->belongings.where = own->where;
}

/* --- When it is translated --- */

void elsewhere_begin(struct build *b)
{
    const struct code_cache *cache = &b->t->cache;
    const struct code_region *region = &cache->regions[cache->region];
    const size_t table = (size_t)cache->region * cache->table_room;
    struct relocations *r = &b->relocations;
    const struct unit *unit = b->unit;

    b->e->relocations = r;
    r->begin = b->e->at;
    r->common_end = cache->start;
    r->count = 0;
    r->fixed = unit->hot || unit->path || unit->cut || !is_movable(unit->linear, unit->mode);
    b->unit->belongings = (struct belongings){
        .first_site = (uint32_t)(table + region->site_count),
        .first_trap = (uint32_t)(table + region->trap_count)};
}

void elsewhere_finish(struct build *b)
{
    struct code_cache *cache = &b->t->cache;
    const struct code_region *region = &cache->regions[cache->region];
    const size_t table = (size_t)cache->region * cache->table_room;
    struct belongings *own = &b->unit->belongings;
    const struct relocations *r = &b->relocations;

    if (r->fixed || b->unit->size > SIZE_MAX_COPIED)
        return;
    own->sites = (uint16_t)(table + region->site_count - own->first_site);
    own->traps = (uint16_t)(table + region->trap_count - own->first_trap);
    own->relocations = (uint16_t)r->count;
    emit_bytes(b->e, r->entries, r->count * (unsigned)sizeof(r->entries[0]));
    remember(b->t, b->unit);
}

void elsewhere_constant(struct build *b, unsigned reg, uint64_t address)
{
    emit_constant(b->e, reg, address);
    if (address > UINT32_MAX && !emit_fits(address))
        relocate_note(&b->relocations, RELOCATE_ADDRESS, b->e->at - 8);
    else
        b->relocations.fixed = true;
}

/* --- When it is copied --- */

struct move {
    struct translator *t;
    const struct unit *from;
    struct unit *to;
    intptr_t code;     /* from the one's code to the other's, */
    uint64_t linear;   /* address to address, */
    uint32_t site;     /* site to site */
};

static void add_64(uint8_t *at, uint64_t by)
{
    uint64_t value;

    memcpy(&value, at, 8);
    value += by;
    memcpy(at, &value, 8);
}

static void add_32(uint8_t *at, uint32_t by)
{
    uint32_t value;

    memcpy(&value, at, 4);
    value += by;
    memcpy(at, &value, 4);
}

static uint64_t address_of_tag(const uint8_t *at)
{
    uint64_t value;

    memcpy(&value, at, 8);
    return -value;
}

/* The constants in the code, which is where it belongs. */
static void move_constants(const struct move *m)
{
    const uint8_t *entries = m->to->code + m->to->size;
    uint32_t index = 0; /* from a place in the jump cache to the other */

    for (unsigned i = 0; i < m->to->belongings.relocations; i++) {
        uint64_t address;
        uint32_t entry;
        uint8_t *at;

        memcpy(&entry, entries + i * sizeof(entry), sizeof(entry));
        at = m->to->code + (entry & ((1u << RELOCATION_KIND_SHIFT) - 1));
        switch ((enum relocation)(entry >> RELOCATION_KIND_SHIFT)) {
        case RELOCATE_ADDRESS:
            add_64(at, m->linear);
            break;
        case RELOCATE_TAG:
            address = address_of_tag(at);
            index = 8 * (jump_cache_index(address + m->linear) - jump_cache_index(address));
            add_64(at, -m->linear);
            break;
        case RELOCATE_INDEX:
            add_32(at, index);
            break;
        case RELOCATE_SITE:
            add_32(at, m->site);
            break;
        case RELOCATE_ROUTINE:
            add_32(at, (uint32_t)-m->code);
            break;
        }
    }
}

static uint8_t *moved(const struct move *m, uint8_t *code)
{
    return code ? code + m->code : NULL;
}

/* An access that met a device at one address need not at the other. */
static struct fallback *copy_fallback(const struct move *m, const struct site *site)
{
    struct fallback *copy = NULL;

    if (site->fallback && site->kind != SITE_MEMORY)
        copy = code_cache_fallback(&m->t->cache, NULL);
    if (copy)
        *copy = *site->fallback;
    return copy;
}

static void copy_sites(const struct move *m)
{
    struct code_cache *cache = &m->t->cache;
    const struct site *from = &cache->sites[m->from->belongings.first_site];

    for (unsigned i = 0; i < m->from->belongings.sites; i++, from++) {
        struct site *to = code_cache_site(cache, (enum site_kind)from->kind,
                                          from->rip + m->linear, m->to);

        to->access = from->access;
        to->checked = from->checked;
        to->size = from->size;
        to->aligned = from->aligned;
        to->backward = from->backward;
        to->lazy = from->lazy;
        to->near_distance = from->near_distance;
        to->low = from->low;
        to->span = from->span;
        to->undo = from->undo;
        to->fallback = copy_fallback(m, from);
        to->resume = moved(m, from->resume);
        to->near = moved(m, from->near);
        to->far = moved(m, from->far);
        if (from->linked)
            chain_unlink(to);
    }
}

static void copy_traps(const struct move *m)
{
    struct code_cache *cache = &m->t->cache;
    const struct trap *from = &cache->traps[m->from->belongings.first_trap];

    for (unsigned i = 0; i < m->from->belongings.traps; i++, from++)
        code_cache_trap(cache, moved(m, from->at))->leave = moved(m, from->leave);
}

static struct unit *copy(struct translator *t, const struct unit *from, uint64_t linear)
{
    struct code_cache *cache = &t->cache;
    const struct code_region *region = &cache->regions[cache->region];
    const size_t table = (size_t)cache->region * cache->table_room;
    const size_t size = from->size + from->belongings.relocations * sizeof(uint32_t);
    struct unit *to;
    struct move m;

    if (region->trap_count + from->belongings.traps > cache->table_room)
        return NULL;
    to = code_cache_unit(cache);
    m = (struct move){.t = t, .from = from, .to = to, .code = cache->emit.at - from->code,
                      .linear = linear - from->linear,
                      .site = (uint32_t)(table + region->site_count) - from->belongings.first_site};
    *to = *from;
    to->linear = linear;
    to->code = moved(&m, from->code);
    to->entry = moved(&m, from->entry);
    to->lazy = moved(&m, from->lazy);
    to->body = moved(&m, from->body);
    to->inner = moved(&m, from->inner);
    to->incoming = NULL;
    to->belongings.first_site = (uint32_t)(table + region->site_count);
    to->belongings.first_trap = (uint32_t)(table + region->trap_count);
    memcpy(to->code, from->code, size);
    cache->emit.at += size;
    move_constants(&m);
    copy_sites(&m);
    copy_traps(&m);
    code_cache_add(t, to, from->page);
    remember(t, to);
    t->stats.copied++;
    trace_unit(t, to);
    return to;
}

/* --- When it is moved --- */

/* Nothing leads to it, and it leads nowhere: as if it were new. */
static void detach(struct translator *t, struct unit *unit)
{
    struct site *sites = &t->cache.sites[unit->belongings.first_site];

    chain_unlink_all(unit);
    jump_cache_forget(t, unit->linear);
    for (unsigned i = 0; i < unit->belongings.sites; i++)
        if (sites[i].linked) {
            chain_forget(&sites[i]);
            chain_unlink(&sites[i]);
        }
}

static void move(struct translator *t, struct unit *unit, uint64_t linear)
{
    const struct move m = {.t = t, .from = unit, .to = unit, .linear = linear - unit->linear};
    struct site *sites = &t->cache.sites[unit->belongings.first_site];

    detach(t, unit);
    move_constants(&m);
    for (unsigned i = 0; i < unit->belongings.sites; i++) {
        sites[i].rip += m.linear;
        if (sites[i].kind == SITE_MEMORY)
            sites[i].fallback = NULL;
    }
    code_cache_rename(&t->cache, unit, linear);
    unit->belongings.root = t->cpu.state.cr3;
    t->stats.moved++;
    trace_unit(t, unit);
}

/* Whether the address space it was last looked up in still has it there. That is gone with a
 * process, mostly: kernels clear page tables before they let them go. Who is wrong has a unit
 * moved to and fro, no more. */
static bool is_mapped(const struct translator *t, const struct unit *unit)
{
    uint64_t table = unit->belongings.root & ENTRY_FRAME;

    for (unsigned shift = 39;; shift -= 9) {
        const uint64_t in_page = (1ull << shift) - 1;
        struct memory_slot *slot;
        const uint64_t *entries = (uint64_t *)soft_engine_host(t->cpu.soft, table, &slot);
        uint64_t entry;

        if (!entries)
            return false;
        entry = __atomic_load_n(&entries[unit->linear >> shift & 511], __ATOMIC_RELAXED);
        if (!(entry & ENTRY_PRESENT))
            return false;
        if (shift == 12 || entry & ENTRY_LARGE)
            return !((((entry & ENTRY_FRAME & ~in_page) | (unit->linear & in_page)) ^
                      unit->physical) & PAGE_MASK);
        table = entry & ENTRY_FRAME;
    }
}

struct unit *elsewhere_make(struct translator *t, uint64_t linear, uint64_t physical,
                            unsigned mode)
{
    struct unit *unit = *bucket_of(&t->cache, physical, mode), *found = NULL;
    unsigned left = LOOKED_AT, candidates = MOVE_CANDIDATES;

    if (!is_movable(linear, mode))
        return NULL;
    for (; unit && left && candidates; unit = unit->belongings.next, left--) {
        if (unit->physical != physical || unit->mode != mode)
            continue;
        found = unit;
        candidates--;
        if (!is_mapped(t, unit)) {
            move(t, unit, linear);
            return unit;
        }
    }
    return found ? copy(t, found, linear) : NULL;
}
