/* From unit to unit without leaving emitted code.
 *
 * Direct links, within a page. Assumption: who runs in a page has its
 * translation, so the next unit of the same page and mode is the right one as
 * long as it lives. Links are taken back when the target goes.
 *
 * The jump cache, for all else: guest address to code, direct-mapped.
 * Assumption: an entry was right when made, and what changes translations
 * takes it away: loading CR3, INVLPG, a change of mode for the shared part. */
#include <string.h>

#include "base/bytes.h"
#include "engine/translate/path.h"
#include "engine/translate/translator.h"

/* The target lies where the unit that goes there takes its page to be. */
static bool is_where_expected(const struct unit *from, const struct unit *target)
{
    const bool next = (from->linear ^ target->linear) & PAGE_MASK;

    if (from->path) {
        const struct path_page *page =
            path_page_at(from->path->pages, from->path->page_count, target->linear);

        return page && page->physical == (target->physical & PAGE_MASK);
    }
    return !(((next ? from->next_physical : from->physical) ^ target->physical) & PAGE_MASK);
}

void chain_link(struct translator *t, struct site *site, struct unit *target)
{
    const struct unit *from = site->unit;
    const bool inner = (!target->sse || from->sse) && (!target->avx || from->avx) &&
                       (!target->x87 || from->x87);

    if (site->linked || !is_where_expected(from, target))
        return;
    if (site->near && from->home == target->home)
        emit_patch(site->near, inner && !site->backward ? target->inner : target->body);
    emit_patch(site->far, site->lazy ? target->lazy : target->entry);
    site->linked = true;
    site->target = target;
    site->next = target->incoming;
    target->incoming = site;
    t->stats.links++;
}

void chain_unlink(struct site *site)
{
    if (site->near)
        emit_patch(site->near, site->far - site->near_distance);
    emit_patch(site->far, site->far + 4);
    site->linked = false;
    site->next = NULL;
}

void chain_unlink_all(struct unit *target)
{
    struct site *next;

    for (struct site *site = target->incoming; site; site = next) {
        next = site->next;
        chain_unlink(site);
    }
    target->incoming = NULL;
}

void chain_forget(struct site *site)
{
    struct site **where = &site->target->incoming;

    while (*where != site)
        where = &(*where)->next;
    *where = site->next;
}

/* --- The jump cache --- */

/* A tag that no address of that index has. */
static uint64_t jump_invalid(unsigned index)
{
    return index ? 0 : 1;
}

static unsigned page_hash(uint64_t linear)
{
    return (linear >> 12) % 8192;
}

static unsigned region_hash(uint64_t linear)
{
    return (linear >> TLB_LARGE_SHIFT) % 4096;
}

static unsigned gigabyte_hash(uint64_t linear)
{
    return (linear >> TLB_HUGE_SHIFT) % 256;
}

enum jump_caches jump_cache_for(unsigned mode)
{
    if (mode & UNIT_SEGMENTED)
        return mode & CPU_MODE_USER ? JUMP_USER_SEGMENTED : JUMP_SUPERVISOR_SEGMENTED;
    if ((mode & CPU_MODE_SIZE) != CPU_MODE_64)
        return mode & CPU_MODE_USER ? JUMP_USER_32 : JUMP_SUPERVISOR_32;
    if (mode & CPU_MODE_USER)
        return JUMP_USER;
    return mode & UNIT_AC ? JUMP_SUPERVISOR_AC : JUMP_SUPERVISOR;
}

void jump_cache_enter_mode(struct translator *t, unsigned mode)
{
    const enum jump_caches which = jump_cache_for(mode);
    const uint32_t limit = mode & UNIT_SEGMENTED ? t->cpu.state.segment[X86_CS].limit : 0;

    if (likely(t->jump_modes[which] == mode && t->jump_limits[which] == limit))
        return;
    jump_cache_flush(t, which);
    t->jump_modes[which] = mode;
    t->jump_limits[which] = limit;
}

void jump_cache_add(struct translator *t, uint64_t rip, struct unit *unit, bool large)
{
    const enum jump_caches which = jump_cache_for(unit->mode & ~(unsigned)UNIT_SINGLE);
    struct jump_list *list = &t->jump_lists[which];
    const unsigned i = jump_cache_index(rip);

    if (unit->mode & UNIT_SINGLE)
        return;
    if (t->jumps[which].tag[i] == jump_invalid(i)) {
        if (list->count < JUMP_LIST)
            list->index[list->count] = (uint16_t)i;
        list->count += list->count <= JUMP_LIST;
    } else if (t->jumps[which].tag[i] != -rip) {
        t->stats.jumps_replaced++;
    }
    t->jumps[which].tag[i] = -rip;
    t->jumps[which].code[i] = code_of(&t->cache, unit->lazy);
    t->jump_pages[page_hash(rip)] |= (uint8_t)(1u << which);
    if (large) {
        t->jump_regions[region_hash(rip)] |= (uint8_t)(1u << which);
        t->jump_gigabytes[gigabyte_hash(rip)] |= (uint8_t)(1u << which);
    }
}

const uint8_t *jump_cache_find(const struct translator *t, uint64_t rip, unsigned mode)
{
    const enum jump_caches which = jump_cache_for(mode);
    const struct jump_cache *jumps = &t->jumps[which];

    if (jumps->tag[jump_cache_index(rip)] != -rip || t->jump_modes[which] != mode ||
        ((mode & UNIT_SEGMENTED) && t->jump_limits[which] != t->cpu.state.segment[X86_CS].limit))
        return NULL;
    return jumps->code[jump_cache_index(rip)];
}

void jump_cache_forget(struct translator *t, uint64_t rip)
{
    const unsigned i = jump_cache_index(rip);

    for (unsigned which = 0; which < JUMP_CACHES; which++)
        if (t->jumps[which].tag[i] == -rip)
            t->jumps[which].tag[i] = jump_invalid(i);
}

void jump_cache_flush(struct translator *t, enum jump_caches which)
{
    struct jump_list *list = &t->jump_lists[which];
    struct jump_cache *jumps = &t->jumps[which];

    if (list->count <= JUMP_LIST)
        for (unsigned k = 0; k < list->count; k++)
            jumps->tag[list->index[k]] = jump_invalid(list->index[k]);
    else
        memset(jumps->tag, 0, sizeof(jumps->tag));
    jumps->tag[0] = jump_invalid(0);
    list->count = 0;
    t->stats.jump_flushes++;
}

void jump_cache_flush_all(struct translator *t)
{
    for (unsigned which = 0; which < JUMP_CACHES; which++)
        jump_cache_flush(t, (enum jump_caches)which);
    memset(t->jump_pages, 0, sizeof(t->jump_pages));
    memset(t->jump_regions, 0, sizeof(t->jump_regions));
    memset(t->jump_gigabytes, 0, sizeof(t->jump_gigabytes));
}

/* Those of a cache that lead where linear lies, but for the lowest bits; if it has
 * many, count indexes from first are looked at. */
static void forget_near(struct translator *t, enum jump_caches which, uint64_t linear,
                        unsigned shift, unsigned first, unsigned count)
{
    const struct jump_list *list = &t->jump_lists[which];
    const bool few = list->count <= MIN(count, JUMP_LIST);
    uint64_t *tags = t->jumps[which].tag;

    for (unsigned k = 0; k < (few ? list->count : count); k++) {
        const unsigned i = few ? list->index[k] : (first + k) & (JUMP_ENTRIES - 1);

        if ((-tags[i] ^ linear) >> shift == 0)
            tags[i] = jump_invalid(i);
    }
}

void jump_cache_flush_page(struct translator *t, uint64_t linear)
{
    const unsigned huge = t->cpu.tlb.huge ? t->jump_gigabytes[gigabyte_hash(linear)] : 0;
    const unsigned large = t->jump_regions[region_hash(linear)];
    const unsigned small = t->jump_pages[page_hash(linear)];

    for (unsigned which = 0; which < JUMP_CACHES; which++) {
        if (which >= JUMP_USER_SEGMENTED) { /* nobody knows which */
            if (t->jump_lists[which].count)
                jump_cache_flush(t, which);
            continue;
        }
        if (huge >> which & 1)
            forget_near(t, which, linear, TLB_HUGE_SHIFT, 0, JUMP_ENTRIES);
        else if (large >> which & 1)
            forget_near(t, which, linear, TLB_LARGE_SHIFT, 0, JUMP_ENTRIES);
        else if (small >> which & 1)
            forget_near(t, which, linear, 12, jump_cache_index(linear & PAGE_MASK), PAGE_SIZE);
    }
}
