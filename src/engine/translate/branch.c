/* Ways out of a unit: to other units, and to C. The flags come along: to a linked unit in
 * the host's own, through the jump cache in memory (keep.c), so that its tag may be compared.
 * Where a poll finds them live, it goes through RCX and JRCXZ. */
#include "engine/translate/build.h"
#include "engine/translate/guess.h"
#include "engine/translate/inline_cache.h"
#include "engine/translate/return.h"
#include "engine/translate/stack.h"
#include "engine/translate/together.h"

void branch_convert_from(struct build *b, uint16_t from, uint16_t same, uint16_t to)
{
    for (EACH_REGISTER(reg, to & ~(unsigned)(from | same)))
        emit_store(b->e, HOME(reg), reg);
    for (EACH_REGISTER(reg, from & ~(unsigned)to))
        emit_load(b->e, reg, HOME(reg));
}

void branch_convert(struct build *b, uint16_t from, uint16_t to)
{
    branch_convert_from(b, from, 0, to);
}

static void leave_by(struct build *b, const struct site *site, const uint8_t *routine)
{
    emit_constant(b->e, X86_R10, (uint64_t)(site - b->t->cache.sites));
    relocate_note(&b->relocations, RELOCATE_SITE, b->e->at - 4);
    emit_jump_to(b->e, routine);
}

void branch_leave(struct build *b, const struct site *site)
{
    leave_by(b, site, b->t->leave);
}

void branch_leave_kept(struct build *b, const struct site *site)
{
    leave_by(b, site, b->t->kept.leave);
}

struct stub *build_stub(struct build *b, enum stub_kind kind, uint8_t *from, struct site *site)
{
    struct stub *stub = &b->stubs[b->stub_count++];

    *stub = (struct stub){
        .kind = kind, .from = from, .home = b->home, .same = b->same, .site = site,
        .bit = EMIT_NONE,
        .loop = b->loop, .step = b->step, .behind = b->behind};
    return stub;
}

/* A link within the page for who has flags in memory. */
static void exit_link_kept(struct build *b, struct site *site)
{
    site->lazy = true;
    branch_convert(b, b->unit->home, SCRATCH_HOME);
    site->far = emit_jump(b->e);
    emit_patch(site->far, b->e->at);
    branch_leave_kept(b, site);
}

/* A link within the page. rebuild: flags to be made again before, or NULL. */
static void exit_link(struct build *b, uint64_t rip, uint64_t target, uint8_t *near,
                      const struct rebuild *rebuild)
{
    struct site *site = code_cache_site(&b->t->cache, SITE_LINK, target, b->unit);
    const uint8_t *unlinked;

    if (near)
        emit_patch(near, b->e->at);
    if (rebuild && rebuild->passed_on)
        rebuild_store(b, rebuild, b->scratch[0]);
    if (rebuild && (rebuild->kept || rebuild->passed_on)) {
        exit_link_kept(b, site);
        return;
    }
    if (rebuild)
        rebuild_emit(b, rebuild, b->scratch[0]);
    site->backward = target <= rip || b->path; /* whose way here may have been backward */
    site->near = rebuild ? NULL : near;
    unlinked = b->e->at;
    branch_convert(b, b->unit->home, SCRATCH_HOME);
    site->far = emit_jump(b->e);
    emit_patch(site->far, b->e->at);
    site->near_distance = (uint8_t)(site->far - unlinked);
    branch_leave(b, site);
}

static size_t jump_field(const struct build *b, size_t within)
{
    const enum jump_caches which = jump_cache_for(b->unit->mode & ~(unsigned)UNIT_SINGLE);

    return offsetof(struct translator, jumps) + which * sizeof(struct jump_cache) + within;
}

/* Flags go to memory, unless they are there; registers are as between units, and SCRATCH_A
 * is used. */
static void keep(struct build *b, const struct rebuild *rebuild)
{
    if (!rebuild)
        keep_emit_image(b->e, SCRATCH_A);
    else if (!rebuild->kept)
        rebuild_store(b, rebuild, SCRATCH_A);
}

/* To another page: whether it is still there is asked each time. */
static void exit_jump(struct build *b, uint64_t target, uint8_t *near,
                      const struct rebuild *rebuild)
{
    struct site *site = code_cache_site(&b->t->cache, SITE_JUMP, target, b->unit);
    const uint64_t address = b->segmented ? unit_key(target, b->unit->code_base) : target;
    const size_t i = (size_t)jump_cache_index(address) * 8;
    const struct emit_memory tag =
        emit_field(jump_field(b, offsetof(struct jump_cache, tag)) + i);
    struct emit *e = b->e;
    uint8_t *miss;

    if (near)
        emit_patch(near, e->at);
    branch_convert(b, b->unit->home, SCRATCH_HOME);
    keep(b, rebuild);
    if (emit_fits(-address)) {
        emit_rm(e, true, 0x81, 7, tag); /* CMP */
        emit_u32(e, (uint32_t)-address);
        b->relocations.fixed = true;
    } else {
        emit_constant(e, SCRATCH_B, -address);
        relocate_note(&b->relocations, RELOCATE_TAG, e->at - 8);
        emit_rm(e, true, 0x3b, SCRATCH_B, tag); /* CMP */
        relocate_note(&b->relocations, RELOCATE_INDEX, e->at - 4);
    }
    miss = emit_jcc(e, EMIT_NOT_EQUAL);
    emit_rm(e, false, 0xff, 4, emit_field(jump_field(b, offsetof(struct jump_cache, code)) + i));
    relocate_note(&b->relocations, RELOCATE_INDEX, e->at - 4);
    emit_patch(miss, e->at);
    branch_leave_kept(b, site);
}

/* A unit that is cut has just looked where its second page is, a trace where all are. */
bool branch_stays(const struct build *b, uint64_t target)
{
    const uint64_t distance = (target & PAGE_MASK) - (b->unit->linear & PAGE_MASK);

    if (b->path)
        return path_page_at(b->path->pages, b->path->page_count, target);
    return !distance || (b->unit->cut && distance == PAGE_SIZE);
}

void branch_exit(struct build *b, uint64_t rip, uint64_t target, uint8_t *near,
                 const struct rebuild *rebuild)
{
    if (branch_stays(b, target))
        exit_link(b, rip, target, near, rebuild);
    else
        exit_jump(b, target, near, rebuild);
}

void branch_indirect(struct build *b, const struct step *s, unsigned reg, int undo,
                     const struct rebuild *rebuild)
{
    struct site *site = code_cache_site(&b->t->cache, SITE_INDIRECT, s->rip, b->unit);
    const struct emit_memory tag =
        emit_element(jump_field(b, offsetof(struct jump_cache, tag)), SCRATCH_A);
    const struct emit_memory code =
        emit_element(jump_field(b, offsetof(struct jump_cache, code)), SCRATCH_A);
    struct emit *e = b->e;
    uint8_t *miss, *asks = NULL;

    site->undo = undo;
    if (reg != EMIT_NONE && b->unit->home == SCRATCH_HOME) {
        if (reg != SCRATCH_B)
            emit_rr(b->e, true, 0x8b, SCRATCH_B, reg);
    } else {
        if (reg != EMIT_NONE)
            emit_store(b->e, FIELD(scratch_value), reg);
        branch_convert(b, b->unit->home, SCRATCH_HOME);
        emit_load(b->e, SCRATCH_B, FIELD(scratch_value));
    }
    keep(b, rebuild);
    if (inline_cache_wanted(b))
        asks = s->kind == STEP_RETURN ? return_emit(b, site)
                                      : inline_cache_emit(b, site, PREDICT_INDIRECT, 1);
    emit_rorx(e, SCRATCH_A, SCRATCH_B, JUMP_SPREAD);
    emit_lea(e, SCRATCH_A, emit_based(SCRATCH_A, SCRATCH_B, 0));
    emit_movzx16(e, SCRATCH_A, SCRATCH_A);
    emit_rm(e, true, 0x03, SCRATCH_B, tag); /* ADD */
    miss = emit_jcc(e, EMIT_NOT_EQUAL);
    emit_rm(e, false, 0xff, 4, code);
    emit_patch(miss, e->at);
    emit_rm(e, true, 0x2b, SCRATCH_B, tag); /* SUB */
    if (asks)
        emit_patch(asks, e->at);
    emit_store(e, FIELD(scratch_target), SCRATCH_B);
    branch_leave_kept(b, site);
}

void branch_poll(struct build *b, size_t field, bool byte, bool flags_live, struct site *site)
{
    struct emit *e = b->e;
    uint8_t *hit;

    if (!flags_live) {
        emit_rm(e, false, byte ? 0x80 : 0x83, 7, emit_field(field)); /* CMP, 0 */
        emit_u8(e, 0);
        build_stub(b, STUB_LEAVE, emit_jcc(e, EMIT_NOT_EQUAL), site);
        return;
    }
    emit_store(e, FIELD(saved_rcx), X86_RCX);
    emit_rm(e, false, byte ? 0x0fb6 : 0x8b, X86_RCX, emit_field(field));
    hit = emit_jrcxz(e);
    build_stub(b, STUB_LEAVE, emit_jump(e), site)->rcx_saved = true;
    emit_patch_short(hit, e->at);
    emit_load(e, X86_RCX, FIELD(saved_rcx));
}

/* Flags that nobody reads, as the step that left finds them, for who looks at what it
 * raised. In a loop's turns registers are elsewhere. */
static void stub_flags(struct build *b, const struct stub *stub)
{
    const struct step *s = &b->steps[stub->step];
    struct rebuild rebuild = {.kept = true};

    if (s->flags_live || stub->loop || s->kind == STEP_SYSTEM)
        return;
    if (stub->step >= b->keep_at || path_keeps(b, stub->step) ||
        rebuild_find(b, stub->step, &rebuild))
        rebuild_emit(b, &rebuild, SCRATCH_B);
}

static void stub_memory(struct build *b, struct stub *stub)
{
    struct emit *e = b->e;

    memory_address(b, &stub->memory, stub->address_size, stub->next_rip, stub->scratch[0],
                   stub->scratch[1]);
    if (stub->bit != EMIT_NONE)
        memory_bit_word(b, stub->bit, stub->wide, stub->scratch[0], stub->scratch[1]);
    emit_store(e, FIELD(scratch_address), stub->scratch[0]);
    if (stub->loop)
        loop_save_counter(b, stub->loop);
    branch_convert(b, stub->home, SCRATCH_HOME);
    stub_flags(b, stub);
    if (stub->site->span != stub->site->size) { /* to a unit without groups some time */
        stub->site->far = emit_jump(e);
        emit_patch(stub->site->far, e->at);
    }
    second_leave(b, stub->site, memory_rights(b->unit->mode));
    stub->site->resume = code_of(&b->t->cache, e->at);
    branch_convert(b, SCRATCH_HOME, stub->home);
    stack_move(b, -stub->behind);
    if (stub->loop)
        loop_load_slots(b, stub->loop);
    emit_jump_to(e, stub->check);
}

/* A branch whose way may begin with moving registers. */
static void stub_branch(struct build *b, struct stub *stub)
{
    const uint16_t home = b->unit->home;

    if (stub->home != home || stub->behind) {
        emit_patch(stub->from, b->e->at);
        stack_move(b, stub->behind);
        branch_convert_from(b, stub->home, stub->same, home);
        stub->from = NULL;
    }
    if (stub->kind == STUB_LINK && b->path && b->unit->path->counting) {
        if (stub->from)
            emit_patch(stub->from, b->e->at);
        path_count_exit(b, b->scratch[0]);
        stub->from = emit_jump(b->e);
    }
    if (stub->kind == STUB_LINK)
        branch_exit(b, stub->rip, stub->target, stub->from,
                    stub->rebuilds ? &stub->rebuild : NULL);
    else if (stub->from)
        emit_patch(stub->from, *stub->to);
    else
        emit_jump_to(b->e, *stub->to);
}

void branch_stubs(struct build *b)
{
    for (unsigned i = 0; i < b->stub_count; i++) {
        struct stub *stub = &b->stubs[i];

        if (stub->kind == STUB_LINK || stub->kind == STUB_STEP) {
            stub_branch(b, stub);
            continue;
        }
        if (stub->kind == STUB_APART) {
            together_stub(b, stub);
            continue;
        }
        if (stub->from)
            emit_patch(stub->from, b->e->at);
        if (stub->kind == STUB_GUESS) {
            guess_stub(b, stub);
            continue;
        }
        if (stub->trap)
            stub->trap->leave = b->e->at;
        if (stub->flags_saved)
            flags_restore(b);
        if (stub->rcx_saved)
            emit_load(b->e, X86_RCX, FIELD(saved_rcx));
        stack_move(b, stub->behind);
        if (stub->kind == STUB_GUARD) {
            path_stub(b, stub);
            continue;
        }
        if (stub->kind == STUB_MEMORY) {
            stub_memory(b, stub);
        } else {
            branch_convert(b, stub->home, SCRATCH_HOME);
            stub_flags(b, stub);
            branch_leave(b, stub->site);
        }
    }
}
