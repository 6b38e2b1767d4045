#include "engine/translate/path.h"

#include <string.h>

#include "base/bytes.h"
#include "engine/translate/hot.h"
#include "engine/translate/record.h"
#include "engine/translate/trace.h"

#define ALL_FLAGS ((uint16_t)(X86_STATUS_FLAGS & 0xfff))

/* So many turns is a trace tried for; */
#define TRIAL_TURNS 2048u
/* and of this many one may end at a side exit. */
#define TURNS_PER_EXIT 4u

uint16_t path_live_before(const struct build *b, unsigned i)
{
    if (i == b->count)
        return b->end_live;
    return (b->path && b->path->keeps[i]) || i == b->keep_at ? ALL_FLAGS : b->steps[i].flags_live;
}

/* --- Pages --- */

const struct path_page *path_page_at(const struct path_page *pages, unsigned count,
                                     uint64_t linear)
{
    for (unsigned i = 0; i < count; i++)
        if (pages[i].linear == (linear & PAGE_MASK))
            return &pages[i];
    return NULL;
}

uint64_t path_physical(const struct unit *unit, uint64_t rip)
{
    const struct path_page *page =
        unit->path ? path_page_at(unit->path->pages, unit->path->page_count, rip) : NULL;

    return (page ? page->physical : unit->physical & PAGE_MASK) | (rip & ~PAGE_MASK);
}

static unsigned page_hash(uint64_t linear)
{
    return (linear >> 12) % PATH_HASHES;
}

static unsigned region_hash(uint64_t linear)
{
    return (linear >> TLB_LARGE_SHIFT) % PATH_HASHES;
}

static const struct tlb_table *fetch_table(const struct translator *t, unsigned mode)
{
    return &t->cpu.tlb.tables[mode & CPU_MODE_USER ? TLB_USER : TLB_SUPERVISOR];
}

static unsigned stamp_of(unsigned mode)
{
    return !!(mode & CPU_MODE_USER);
}

/* Whose traces may have a page that INVLPG of that address drops, a bit for each stamp. */
static unsigned whose_traces(const struct translator *t, uint64_t linear)
{
    if (t->cpu.tlb.huge)
        return 3;
    return t->path_pages[page_hash(linear)] |
           (t->cpu.tlb.large ? t->path_regions[region_hash(linear)] : 0);
}

void path_flushed(struct translator *t)
{
    const struct tlb *tlb = &t->cpu.tlb;
    unsigned which = 0;

    if (tlb->flushed & TLB_FLUSHED_PAGE)
        which = whose_traces(t, tlb->flushed_page);
    if (tlb->flushed & TLB_FLUSHED_LOCAL)
        which |= 2 | t->path_local;
    if (tlb->flushed & TLB_FLUSHED_ALL)
        which = 3;
    for (unsigned i = 0; i < 2; i++)
        t->path_stamps[i] += which >> i & 1;
}

static bool is_there(struct translator *t, const struct unit *unit, const struct path_page *p)
{
    const struct tlb_table *table = fetch_table(t, unit->mode);
    const unsigned i = tlb_index(p->linear);
    uint64_t physical = table->physical[i];

    return (tlb_hit(table->execute[i], p->linear) ||
            cpu_probe_fetch(&t->cpu, p->linear, &physical)) &&
           physical == p->physical;
}

static void put_stamp(const struct translator *t, const struct unit *unit)
{
    const uint32_t stamp = t->path_stamps[stamp_of(unit->mode)];

    store_le32(unit->path->stamp, unit->path->negated ? -stamp : stamp);
}

bool path_renew(struct translator *t, struct unit *unit)
{
    struct path *path = unit->path;

    for (unsigned i = 0; i < path->page_count; i++)
        if (!is_there(t, unit, &path->pages[i])) {
            code_cache_drop_unit(t, unit);
            t->stats.paths_moved++;
            return false;
        }
    put_stamp(t, unit);
    return true;
}

void path_check_pages(struct build *b)
{
    struct path *path = b->unit->path;
    const unsigned which = stamp_of(b->unit->mode);
    struct emit *e = b->e;
    struct site *site;
    uint8_t *same;

    if (path->page_count == 1)
        return;
    site = code_cache_site(&b->t->cache, SITE_PATH, b->unit->linear, b->unit);
    path->negated = path_live_before(b, 0);
    if (!path->negated) {
        emit_rm(e, false, 0x81, 7, FIELD(path_stamps[which])); /* CMP */
        path->stamp = e->at;
        emit_u32(e, 0);
        build_stub(b, STUB_LEAVE, emit_jcc(e, EMIT_NOT_EQUAL), site);
    } else {
        emit_store(e, FIELD(saved_rcx), X86_RCX);
        emit_rm(e, false, 0x8b, X86_RCX, FIELD(path_stamps[which]));
        emit_rm(e, false, 0x8d, X86_RCX, emit_based(X86_RCX, EMIT_NONE, INT32_MAX)); /* LEA */
        path->stamp = e->at - 4;
        same = emit_jrcxz(e);
        build_stub(b, STUB_LEAVE, emit_jump(e), site)->rcx_saved = true;
        emit_patch_short(same, e->at);
        emit_load(e, X86_RCX, FIELD(saved_rcx));
    }
    put_stamp(b->t, b->unit);
}

/* --- The trial --- */

void path_count_turn(struct build *b, const struct step *s)
{
    struct path *path = b->unit->path;

    if (path_live_before(b, 0)) /* not worth it */
        return;
    path->counting = b->e->at;
    emit_rm(b->e, false, 0x83, 5, FIELD(hot_counts[hot_count_of(b->unit->physical)])); /* SUB */
    emit_u8(b->e, 1);
    build_stub(b, STUB_LEAVE, emit_jcc(b->e, EMIT_EQUAL),
               code_cache_site(&b->t->cache, SITE_HOT, s->rip, b->unit));
    path->counted = b->e->at;
    b->t->path_exits[path->exits] = 0;
    b->t->hot_counts[hot_count_of(b->unit->physical)] = MIN(b->t->hot_turns, TRIAL_TURNS);
}

/* Flags and all registers but reg stay. */
void path_count_exit(struct build *b, unsigned reg)
{
    const struct emit_memory count = FIELD(path_exits[b->unit->path->exits]);

    emit_load(b->e, reg, count);
    emit_lea(b->e, reg, emit_based(reg, EMIT_NONE, 1));
    emit_store(b->e, count, reg);
}

void path_judge(struct translator *t, struct unit *unit)
{
    struct path *path = unit->path;

    t->stats.paths_judged++;
    if (t->path_exits[path->exits] * TURNS_PER_EXIT > TRIAL_TURNS) {
        const uint64_t linear = unit->linear, physical = unit->physical;
        const unsigned mode = unit->mode;

        t->stats.paths_bad++;
        t->path_bad[hot_count_of(physical)] = true;
        code_cache_drop_unit(t, unit);
        translate_unit(t, linear, physical, mode, true);
        return;
    }
    path->counting[0] = 0xeb; /* JMP over it */
    path->counting[1] = (uint8_t)(path->counted - path->counting - 2);
    path->counting = NULL;
}

/* --- Flags --- */

static bool is_guarded(const struct step *s)
{
    return s->follows && s->kind != STEP_CALL;
}

/* Where flags that step i leaves can be put away, so that all steps from there to it may
 * change them; behind it: nowhere. */
static unsigned keep_before(const struct build *b, unsigned i)
{
    unsigned k = i + 1;

    while (k > 0 && rebuild_leaves_flags(&b->steps[k - 1]) && !b->steps[k - 1].leader)
        k--;
    while (k <= i && b->steps[k].flags_live)
        k++;
    return k;
}

static void plan_guard(struct build *b, unsigned i)
{
    struct record *r = b->path;
    unsigned k;

    r->rebuilds[i] = rebuild_find(b, i + 1, &r->rebuild[i]);
    if (r->rebuilds[i])
        return;
    k = keep_before(b, i);
    if (!k || k > i) { /* they come with the unit; are needed behind it anyway, or just set */
        b->steps[i].taken_live = ALL_FLAGS;
        return;
    }
    r->rebuilds[i] = true;
    r->rebuild[i] = (struct rebuild){.kept = true};
    r->keeps[k] = true;
}

void path_plan_flags(struct build *b)
{
    struct record *r = b->path;
    struct step *last = &b->steps[b->count - 1];
    const uint16_t taken_live = last->taken_live;

    memset(r->keeps, 0, sizeof(r->keeps));
    if (last->kind != STEP_JCC) /* how flags get to the unit's end is not known yet */
        last->taken_live = 0;
    analyse_liveness(b->steps, b->count, 0);
    last->taken_live = taken_live;
    for (unsigned i = 0; i < b->count; i++)
        if (is_guarded(&b->steps[i]))
            plan_guard(b, i);
    for (unsigned i = 0; i < b->count; i++) {
        r->read[i] = b->steps[i].flags_read;
        if (r->keeps[i])
            b->steps[i].flags_read = ALL_FLAGS;
    }
}

/* A step before which flags were put away need not keep them itself, unless who comes later
 * does. It changes none. */
void path_keep_flags(struct build *b)
{
    for (unsigned i = b->count; i-- > 0;) {
        struct step *s = &b->steps[i];

        if (!b->path->keeps[i])
            continue;
        s->flags_read = b->path->read[i];
        s->flags_live = s->flags_read | path_live_before(b, i + 1);
        if (s->kind == STEP_JCC || s->follows)
            s->flags_live |= s->inside != NO_STEP ? path_live_before(b, s->inside) : s->taken_live;
    }
}

bool path_keeps(const struct build *b, unsigned step)
{
    if (!b->path)
        return false;
    for (unsigned i = step + 1; i-- > 0;) {
        if (b->path->keeps[i])
            return true;
        if (!i || !rebuild_leaves_flags(&b->steps[i - 1]) || b->steps[i - 1].leader)
            return false;
    }
    return false;
}

/* --- Guards --- */

/* opcode reg with a constant of 64 bits behind the unit's code, which returns where its
 * displacement is. */
static uint8_t *with_literal(struct emit *e, unsigned opcode, unsigned reg)
{
    emit_u8(e, 0x48 | (reg >> 3) << 2);
    emit_u8(e, opcode);
    emit_u8(e, 0x05 | (reg & 7) << 3); /* relative to RIP */
    emit_u32(e, 0);
    return e->at - 4;
}

void path_guard(struct build *b, unsigned i, unsigned reg, int undo)
{
    const struct step *s = &b->steps[i];
    const bool flags_live = path_live_before(b, i + 1) || s->taken_live;
    struct emit *e = b->e;
    unsigned value = reg;
    uint8_t *literal = NULL, *hit, *from;
    struct stub *stub;

    if (reg == EMIT_NONE || (flags_live && reg == X86_RCX)) {
        value = b->scratch[0];
        if (reg == EMIT_NONE)
            emit_load(e, value, FIELD(scratch_value));
        else
            emit_rr(e, true, 0x8b, value, reg);
    }
    if (flags_live) {
        emit_store(e, FIELD(saved_rcx), X86_RCX);
        literal = with_literal(e, 0x8b, X86_RCX);
        emit_lea(e, X86_RCX, emit_based(X86_RCX, value, 0));
        hit = emit_jrcxz(e);
        from = emit_jump(e);
        emit_patch_short(hit, e->at);
        emit_load(e, X86_RCX, FIELD(saved_rcx));
    } else if (emit_fits(s->expected)) {
        emit_rr(e, true, 0x81, 7, value); /* CMP */
        emit_u32(e, (uint32_t)s->expected);
        from = emit_jcc(e, EMIT_NOT_EQUAL);
    } else {
        literal = with_literal(e, 0x3b, value); /* CMP */
        from = emit_jcc(e, EMIT_NOT_EQUAL);
    }
    stub = build_stub(b, STUB_GUARD, from, NULL);
    stub->reg = (uint8_t)reg;
    stub->undo = undo;
    stub->rcx_saved = flags_live;
    stub->literal = literal;
    stub->constant = flags_live ? -s->expected : s->expected;
}

void path_stub(struct build *b, const struct stub *stub)
{
    const struct record *r = b->path;
    const struct step *s = &b->steps[stub->step];

    if (b->unit->path->counting)
        path_count_exit(b, b->scratch[stub->reg == b->scratch[0]]);
    branch_indirect(b, s, stub->reg, stub->undo,
                    r->rebuilds[stub->step] ? &r->rebuild[stub->step] : NULL);
    if (stub->literal) {
        emit_patch(stub->literal, b->e->at);
        emit_u64(b->e, stub->constant);
    }
}

/* --- The unit --- */

static uint16_t flags_at(const struct build *b, uint64_t rip)
{
    const struct path_page *page = path_page_at(b->path->pages, b->path->page_count, rip);
    const unsigned offset = rip & ~PAGE_MASK;
    struct memory_slot *slot;

    if (!page)
        return ALL_FLAGS;
    return analyse_flags_at(soft_engine_host(b->t->cpu.soft, page->physical, &slot) + offset,
                            (unsigned)(PAGE_SIZE - offset), b->t->cpu.code_size,
                            b->written);
}

/* The step that the branch of step i leads to, over what stands between in memory; or the
 * head; or none. */
static unsigned step_within(const struct build *b, unsigned i)
{
    const uint64_t target = b->steps[i].target;

    for (unsigned k = i + 1; k < b->count; k++) {
        const struct step *before = &b->steps[k - 1];

        if (b->steps[k].rip != before->rip + before->insn.length)
            break;
        if (b->steps[k].rip == target)
            return k;
    }
    return target == b->unit->linear ? 0 : NO_STEP;
}

static void resolve(struct build *b)
{
    for (unsigned i = 0; i < b->count; i++) {
        struct step *s = &b->steps[i];

        if (s->kind == STEP_JUMP && s->inside == i + 1)
            continue;
        if (s->kind == STEP_JCC || s->kind == STEP_JUMP)
            s->inside = (uint16_t)(s->inside ? step_within(b, i) : 0);
        if (s->inside != NO_STEP) {
            b->steps[s->inside].leader = true;
            b->steps[s->inside].loop |= s->inside <= i;
        } else if (s->follows) {
            s->taken_live = 0;
        } else if (s->kind >= STEP_JCC) {
            s->taken_live = s->kind <= STEP_JUMP || s->kind == STEP_CALL ? flags_at(b, s->target)
                                                                         : ALL_FLAGS;
        }
    }
    b->end_live = flags_at(b, b->end_rip);
}

/* Whether the trace is more than an ordinary unit. */
static bool is_worth_it(const struct build *b)
{
    const struct record *r = &b->record;

    return b->count > 1 &&
           (r->followed || r->page_count > 1 || r->closed || b->t->hot_turns == 1);
}

/* The records of its pages. False: one was written meanwhile, or there is no memory. */
static bool find_pages(struct build *b, struct unit_page *pages[PATH_PAGES])
{
    b->written = false;
    for (unsigned i = 0; i < b->record.page_count; i++) {
        const struct path_page *p = &b->record.pages[i];

        if (atomic_load_explicit(&p->page->version, memory_order_acquire) != p->version)
            return false;
        pages[i] = code_cache_page(b->t, p->page, p->version);
        if (!pages[i])
            return false;
        for (unsigned k = 0; k < b->record.page_count; k++)
            b->written |= code_page_was_stored(p->page, b->record.pages[k].page,
                                               b->record.pages[k].physical);
    }
    return true;
}

static void note_pages(struct translator *t, struct unit *unit)
{
    const struct tlb_table *table = fetch_table(t, unit->mode);
    const uint8_t which = (uint8_t)(1u << stamp_of(unit->mode));

    for (unsigned i = 0; i < unit->path->page_count; i++) {
        const uint64_t linear = unit->path->pages[i].linear;
        const unsigned index = tlb_index(linear);

        t->path_pages[page_hash(linear)] |= which;
        t->path_regions[region_hash(linear)] |= which;
        if (!(table->global[index / 64] >> (index & 63) & 1) && !(unit->mode & CPU_MODE_USER))
            t->path_local = true;
    }
}

static bool make(struct build *b)
{
    struct translator *t = b->t;
    const struct unit *head = &b->record.unit;
    struct unit_page *pages[PATH_PAGES];
    struct unit *unit;
    struct path *path;

    code_cache_make_room(t);
    if (!find_pages(b, pages))
        return false;
    b->path = &b->record;
    resolve(b);
    build_plan(b);
    path = code_cache_path(&t->cache);
    if (!path)
        return false;
    unit = code_cache_unit(&t->cache);
    *unit = *head;
    unit->hot = true;
    unit->path = path;
    b->unit = unit;
    path->page_count = b->record.page_count;
    memcpy(path->pages, b->record.pages, sizeof(path->pages));
    for (unsigned i = 1; i < path->page_count; i++)
        code_cache_add_to_page(&path->pages[i], unit, pages[i]);
    build_finish(b, pages[0]);
    note_pages(t, unit);
    t->stats.paths++;
    t->stats.path_steps += b->count;
    return true;
}

bool path_wanted(const struct translator *t, uint64_t physical, unsigned mode)
{
    return (mode & CPU_MODE_SIZE) == CPU_MODE_64 && !(mode & (UNIT_SINGLE | UNIT_UNMASKED)) &&
           !t->path_bad[hot_count_of(physical)] && !t->trace;
}

bool path_record(struct translator *t, uint64_t linear, uint64_t physical, unsigned mode)
{
    struct build *b = t->build;

    b->t = t;
    t->stats.records++;
    record_run(b, linear, physical, mode);
    if (is_worth_it(b) && make(b))
        return true;
    if (b->record.run)
        translate_unit(t, linear, physical, mode, true);
    return b->record.run;
}
