/* From guest code to a unit: decode, analyse, choose registers, emit.
 *
 * A unit follows the guest's code from its first instruction on: past
 * conditional branches, over forward jumps unless a branch leads to what follows
 * them, to the first call, return or instruction for the interpreter, or to the
 * end of the page. Branches back into it stay inside, so that a short loop is one
 * unit. */
#include <string.h>

#include "engine/translate/build.h"
#include "engine/translate/frame.h"
#include "engine/translate/guess.h"
#include "engine/translate/hot.h"
#include "engine/translate/stack.h"
#include "engine/translate/trace.h"

#define LOOP_WEIGHT   8 /* how much more often code in a loop runs: a guess */
#define MOVE_COST     4 /* uses of a scratch register that outweigh taking another */
#define ALL_FLAGS     ((uint16_t)(X86_STATUS_FLAGS & 0xfff))
#define NEVER_SCRATCH (1u << X86_RSP | 1u << X86_RCX)

/* --- Decoding --- */

static bool same_page(uint64_t a, uint64_t b)
{
    return !((a ^ b) & PAGE_MASK);
}

bool build_falls_through(const struct step *s)
{
    return s->kind == STEP_COPY || s->kind == STEP_NOTHING || s->kind == STEP_PUSH ||
           s->kind == STEP_POP || s->kind == STEP_LEAVE || s->kind == STEP_JCC ||
           s->kind == STEP_SYSTEM;
}

bool build_reaches_segment(const struct build *b, unsigned segment)
{
    if (b->word == 8)
        return true;
    if (b->segmented)
        return segment_allows(b, segment, X86_READ);
    if (segment == X86_CS) /* never writable */
        return false;
    if (segment != X86_FS && segment != X86_GS)
        return true;
    return b->unit->mode & (segment == X86_FS ? UNIT_FS : UNIT_GS);
}

/* Bits of VEX and of a register in an immediate that 32-bit code may set
 * without meaning anything by it (SDM 2A 2.3); the host would not ignore them. */
static bool has_ignored_bits(const struct step *s)
{
    const char *operands = x86_rows[s->insn.row].operands;
    const uint8_t *vex = s->bytes;

    if (!s->insn.vex)
        return false;
    while (*vex != 0xc4 && *vex != 0xc5)
        vex++;
    if (*vex == 0xc4 && (!(vex[1] & 0x20) || !(vex[2] & 0x40) ||
                         ((vex[2] & 0x80) && strchr(operands, 'y'))))
        return true;
    return strchr(operands, 'L') && (s->bytes[s->insn.length - 1] & 0x80);
}

/* LEA of 16 bits is not worth a translation. FS and GS may have limits in 32-bit code. */
static void refine_kind(const struct build *b, struct step *s)
{
    const struct x86_memory *m = &s->insn.memory;

    if (b->segmented)
        sixteen_refine(b, s);
    if (s->insn.op == X86_OP_LEA && s->insn.operand_size == 2 && m->rip_relative)
        s->kind = STEP_INTERPRET;
    if (s->insn.op == X86_OP_XCHG && s->insn.opcode == 0x90 && (s->insn.prefixes & X86_PREFIX_REP))
        s->kind = STEP_INTERPRET; /* the host may take it for PAUSE */
    if (b->word == 4 && has_ignored_bits(s))
        s->kind = STEP_INTERPRET;
    if (x86_memory_operand(&s->insn) && !b->segmented && !build_reaches_segment(b, m->segment))
        s->kind = STEP_INTERPRET;
    if (s->kind == STEP_INTERPRET) { /* which may lead anywhere */
        s->flags_read = ALL_FLAGS;
        s->flags_killed = 0;
    }
}

/* Whether a branch before it leads there. */
static bool is_branched_to(const struct build *b, uint64_t rip)
{
    for (unsigned i = 0; i < b->count; i++)
        if (b->steps[i].kind == STEP_JCC && b->steps[i].target == rip)
            return true;
    return false;
}

void build_classify(const struct build *b, struct step *s)
{
    analyse_step(s, b->t->offered[x86_rows[s->insn.row].feature]);
    refine_kind(b, s);
    if (s->kind == STEP_INTERPRET)
        system_refine(b, s);
}

static void decode(struct build *b, const uint8_t *page, enum x86_mode mode)
{
    uint64_t rip = b->unit->linear;

    b->cut = false;

    while (b->count < UNIT_STEPS) {
        const unsigned offset = rip & ~PAGE_MASK;
        struct step *s = &b->steps[b->count];
        enum x86_decode_result result;

        if (!same_page(rip, b->unit->linear) ||
            (b->segmented && segment_rip(b, rip) > b->unit->code_limit))
            break;
        result = x86_decode(page + offset, (size_t)(PAGE_SIZE - offset), mode, &s->insn);
        b->cut = result == X86_DECODE_SHORT;
        if (result != X86_DECODE_OK)
            break;
        s->bytes = page + offset;
        s->rip = rip;
        build_classify(b, s);
        b->count++;
        rip += s->insn.length;
        if (s->kind == STEP_JUMP && is_branched_to(b, rip))
            continue;
        if (s->kind == STEP_JUMP && s->target >= rip && same_page(s->target, b->unit->linear) &&
            b->count < UNIT_STEPS) {
            s->inside = (uint16_t)b->count;
            rip = s->target;
            continue;
        }
        if (!build_falls_through(s))
            break;
    }
    if (!b->count && b->cut && cut_decode(b)) {
        build_classify(b, &b->steps[0]);
        b->count = 1;
        rip += b->steps[0].insn.length;
    }
    b->end_rip = rip;
}

static uint16_t flags_at(const struct build *b, const uint8_t *page, uint64_t rip,
                         enum x86_mode mode)
{
    const unsigned offset = rip & ~PAGE_MASK;

    if (!same_page(rip, b->unit->linear))
        return ALL_FLAGS;
    return analyse_flags_at(page + offset, (unsigned)(PAGE_SIZE - offset), mode, b->written);
}

static unsigned step_at(const struct build *b, uint64_t rip)
{
    for (unsigned i = 0; i < b->count; i++)
        if (b->steps[i].rip == rip)
            return i;
    return NO_STEP;
}

static void resolve_branches(struct build *b, const uint8_t *page, enum x86_mode mode)
{
    for (unsigned i = 0; i < b->count; i++) {
        struct step *s = &b->steps[i];
        unsigned to;

        if (s->kind == STEP_CALL)
            s->taken_live = flags_at(b, page, s->target, mode);
        else if (s->kind > STEP_JUMP)
            s->taken_live = ALL_FLAGS;
        if (s->kind != STEP_JCC && s->kind != STEP_JUMP)
            continue;
        if (s->kind == STEP_JUMP && s->inside == i + 1 && i + 1 < b->count)
            continue;
        to = step_at(b, s->target);
        if (to <= i && (b->unit->mode & UNIT_SINGLE)) /* the next turn may do with groups */
            to = NO_STEP;
        s->inside = (uint16_t)to;
        if (to == NO_STEP) {
            s->taken_live = flags_at(b, page, s->target, mode);
        } else {
            b->steps[to].leader = true;
            b->steps[to].loop |= to <= i;
        }
    }
    b->end_live = flags_at(b, page, b->end_rip, mode);
}

static const struct rebuild *end_rebuild(const struct build *b)
{
    return b->rebuilds ? &b->rebuild : NULL;
}

/* --- Registers --- */

static void weigh(const struct build *b, unsigned weight[X86_GPRS])
{
    unsigned loops = 0;

    for (unsigned i = b->count; i-- > 0;) {
        const struct step *s = &b->steps[i];

        /* Between a branch back and its target. */
        if ((s->kind == STEP_JCC || s->kind == STEP_JUMP) && s->inside != NO_STEP && s->inside <= i)
            loops = 1;
        for (EACH_REGISTER(reg, s->mentions))
            weight[reg] += loops ? LOOP_WEIGHT : 1;
        if (s->loop)
            loops = 0;
    }
}

static unsigned lightest(const unsigned weight[X86_GPRS], unsigned except)
{
    unsigned best = X86_GPRS;

    for (unsigned reg = 0; reg < X86_GPRS; reg++)
        if (!((NEVER_SCRATCH | except) >> reg & 1) &&
            (best == X86_GPRS || weight[reg] <= weight[best]))
            best = reg;
    return best;
}

/* The addend of a group lives in the second, so that it is the lighter one. */
static void choose_scratch(struct build *b)
{
    unsigned weight[X86_GPRS] = {0};
    unsigned first, second;

    weigh(b, weight);
    second = lightest(weight, 0);
    first = lightest(weight, 1u << second);
    if (weight[SCRATCH_A] + weight[SCRATCH_B] < weight[first] + weight[second] + MOVE_COST) {
        bool swap = weight[SCRATCH_A] < weight[SCRATCH_B];

        first = swap ? SCRATCH_B : SCRATCH_A;
        second = swap ? SCRATCH_A : SCRATCH_B;
    }
    b->scratch[0] = (uint8_t)first;
    b->scratch[1] = (uint8_t)second;
    b->unit->home = (uint16_t)(1u << first | 1u << second);
}

static unsigned take_scratch(struct build *b, const struct step *s, unsigned except)
{
    const unsigned taken = s->mentions | NEVER_SCRATCH | except;

    for (unsigned i = 2; i-- > 0;)
        if (!(taken >> b->scratch[i] & 1))
            return b->scratch[i];
    for (unsigned reg = X86_GPRS; reg-- > 0;)
        if (!((taken | b->steady) >> reg & 1)) {
            emit_store(b->e, HOME(reg), reg);
            b->lent |= (uint16_t)(1u << reg);
            b->home |= (uint16_t)(1u << reg);
            return reg;
        }
    return X86_GPRS; /* no instruction mentions that many */
}

/* A register that the step gives a value without looking at the one it has, a bit. */
static uint16_t only_written(const struct step *s)
{
    const struct x86_operand *o = s->insn.operands;
    const struct x86_memory *m = &s->insn.memory;
    bool reads;

    if (s->kind != STEP_COPY || o[0].kind != X86_OPERAND_GPR || o[0].size < 4)
        return 0;
    reads = o[1].kind == X86_OPERAND_GPR && o[1].reg == o[0].reg;
    switch (s->insn.op) {
    case X86_OP_XOR:
        return reads && s->insn.operand_count == 2 ? (uint16_t)(1u << o[0].reg) : 0;
    case X86_OP_MOV: case X86_OP_MOVZX: case X86_OP_MOVSX: case X86_OP_MOVSXD: case X86_OP_LEA:
        reads |= x86_memory_operand(&s->insn) && (m->base == o[0].reg || m->index == o[0].reg);
        return reads ? 0 : (uint16_t)(1u << o[0].reg);
    default:
        return 0;
    }
}

void begin_step(struct build *b, const struct step *s, bool needs_scratch)
{
    const uint16_t unread = b->steady & only_written(s);

    b->lent = 0;
    b->borrowed = b->steady & s->mentions;
    b->home = b->steady & (uint16_t)(~s->mentions | unread); /* until the step is over */
    if (s->mentions >> b->scratch[1] & 1)
        group_lose_register(b);
    for (EACH_REGISTER(reg, b->borrowed & ~(unread | b->holds)))
        emit_load(b->e, reg, HOME(reg));
    b->holds |= b->borrowed;
    if (needs_scratch)
        begin_scratch(b, s, 2);
}

void begin_scratch(struct build *b, const struct step *s, unsigned count)
{
    b->s1 = b->s2 = (uint8_t)take_scratch(b, s, 0);
    if (count > 1)
        b->s1 = (uint8_t)take_scratch(b, s, 1u << b->s2);
}

void end_step(struct build *b, const struct step *s)
{
    for (EACH_REGISTER(reg, b->borrowed & s->writes))
        emit_store(b->e, HOME(reg), reg);
    for (EACH_REGISTER(reg, b->lent))
        emit_load(b->e, reg, HOME(reg));
    b->home = b->steady;
}

/* Whether registers still hold after the step what they held before: but for what it mentions
 * it uses no others than build_copy tells of. */
static bool keeps_held(const struct build *b, const struct step *s)
{
    return !b->segmented && (s->kind == STEP_COPY || s->kind == STEP_NOTHING ||
                             (s->kind == STEP_JCC && s->insn.op == X86_OP_JCC));
}

/* --- Branches --- */

static void emit_call(struct build *b, unsigned i)
{
    const struct step *s = &b->steps[i];

    begin_step(b, s, true);
    stack_push_return(b, i);
    end_step(b, s);
    if (s->follows)
        return;
    stack_bring_in(b);
    branch_exit(b, s->rip, s->target, NULL, end_rebuild(b));
}

/* Step i goes to the address in reg, or in scratch_value. */
static void go_indirect(struct build *b, unsigned i, unsigned reg, int undo)
{
    if (b->steps[i].follows) {
        path_guard(b, i, reg, undo);
        return;
    }
    stack_bring_in(b);
    branch_indirect(b, &b->steps[i], reg, undo, end_rebuild(b));
}

static void emit_indirect(struct build *b, unsigned i)
{
    const struct step *s = &b->steps[i];
    const struct x86_operand *o = &s->insn.operands[0];

    begin_step(b, s, true);
    if (s->kind == STEP_JUMP_INDIRECT && !b->lent && !b->borrowed) { /* nothing is moved after it */
        if (o->kind == X86_OPERAND_MEMORY)
            emit_rm(b->e, b->word == 8, 0x8b, b->s1,
                    memory_reach(b, i, &s->insn.memory, s->insn.address_size, b->word, X86_READ));
        go_indirect(b, i, o->kind == X86_OPERAND_MEMORY ? b->s1 : o->reg, 0);
        return;
    }
    stack_fetch_operand(b, i);
    if (s->kind == STEP_CALL_INDIRECT)
        stack_push_return(b, i);
    end_step(b, s);
    go_indirect(b, i, EMIT_NONE, s->kind == STEP_CALL_INDIRECT ? (int)b->word : 0);
}

static void emit_return(struct build *b, unsigned i)
{
    const struct step *s = &b->steps[i];
    bool plain;
    int by;

    begin_step(b, s, true);
    plain = !b->lent && !b->borrowed;
    by = stack_pop_return(b, i);
    if (!plain)
        emit_store(b->e, FIELD(scratch_value), b->s1);
    end_step(b, s);
    go_indirect(b, i, plain ? b->s1 : EMIT_NONE, -by);
}

static void emit_jcc_step(struct build *b, unsigned i)
{
    const struct step *s = &b->steps[i];
    const bool loops = s->insn.op != X86_OP_JCC;
    uint8_t *displacement = loops ? sixteen_emit_loop(b, i)
                                  : emit_jcc(b->e, s->insn.opcode & 15);
    struct stub *stub;

    group_at_branch(b, i);
    if (s->inside == NO_STEP) {
        stub = build_stub(b, STUB_LINK, displacement, NULL);
        stub->rip = s->rip;
        stub->target = s->target;
        stub->rebuilds = !loops &&
                         (!branch_stays(b, s->target) || s->taken_live == ALL_FLAGS) &&
                         rebuild_find(b, i, &stub->rebuild);
        stub->rebuild.passed_on = true;
    } else if (s->inside <= i) {
        emit_patch(displacement, b->host[s->inside]);
    } else {
        b->open[i] = displacement;
    }
}

static void emit_jump_step(struct build *b, unsigned i)
{
    const struct step *s = &b->steps[i];

    group_at_branch(b, i);
    if (s->inside == NO_STEP)
        branch_exit(b, s->rip, s->target, NULL, i + 1 == b->count ? end_rebuild(b) : NULL);
    else if (s->inside <= i)
        emit_jump_to(b->e, b->host[s->inside]);
    else if (s->inside != i + 1)
        b->open[i] = emit_jump(b->e);
}

struct fallback *fallback_for(struct translator *t, const struct site *site,
                              const struct x86_insn *insn)
{
    struct fallback *fallback = code_cache_fallback(&t->cache, site);

    if (fallback) {
        fallback->insn = *insn;
        fallback->body = cpu_body_for(&t->cpu, insn);
    }
    return fallback;
}

struct fallback *make_fallback(struct build *b, const struct step *s)
{
    return fallback_for(b->t, NULL, &s->insn);
}

static void emit_interpret(struct build *b, const struct step *s)
{
    struct site *site = code_cache_site(&b->t->cache, SITE_INTERPRET, s->rip, b->unit);

    site->fallback = make_fallback(b, s);
    branch_convert(b, b->unit->home, SCRATCH_HOME);
    branch_leave(b, site);
}

/* --- The unit --- */

static void poll_signals(struct build *b, const struct step *s)
{
    branch_poll(b, offsetof(struct translator, cpu.attention), false, s->flags_live,
                code_cache_site(&b->t->cache, SITE_SIGNAL, s->rip, b->unit));
}

void build_poll(struct build *b, const struct step *s)
{
    poll_signals(b, s);
    hot_count(b, s);
    if (b->path && s == b->steps)
        path_count_turn(b, s);
}

static void emit_head(struct build *b)
{
    struct unit *unit = b->unit;

    b->step = 0;
    unit->code = unit->lazy = unit->entry = b->e->at;
    branch_convert(b, SCRATCH_HOME, unit->home);
    unit->body = unit->inner = b->behind_keeping = b->e->at;
    b->home = b->steady = unit->home;
    poll_signals(b, &b->steps[0]);
    if (unit->x87)
        branch_poll(b, offsetof(struct translator, x87_absent), true, b->steps[0].flags_live,
                    code_cache_site(&b->t->cache, SITE_VECTORS, unit->linear, unit));
    if (unit->sse)
        branch_poll(b,
                    unit->avx ? offsetof(struct translator, avx_absent)
                              : offsetof(struct translator, sse_absent),
                    true, b->steps[0].flags_live,
                    code_cache_site(&b->t->cache, SITE_VECTORS, unit->linear, unit));
    if (b->keep_at)
        unit->inner = b->e->at;
    hot_count(b, &b->steps[0]);
    if (unit->cut)
        cut_guard(b);
    if (unit->path)
        path_check_pages(b);
}

/* The other way into the unit: see keep.c. */
static void emit_other_entry(struct build *b)
{
    struct unit *unit = b->unit;

    if (!b->keep_at) { /* it passes flags on; who comes with them has them kept */
        unit->entry = b->e->at;
        branch_convert(b, SCRATCH_HOME, unit->home);
        unit->body = unit->inner = b->e->at;
        rebuild_keep(b, 0);
        emit_jump_to(b->e, b->behind_keeping);
    } else if (b->steps[0].flags_live) {
        unit->lazy = b->e->at;
        keep_emit_make_for(b->t, b->e, unit->entry);
    }
}

static void emit_step(struct build *b, unsigned i)
{
    const struct step *s = &b->steps[i];

    stack_before_step(b, i);
    b->step = (uint16_t)i;
    if (s->loop)
        frame_begin(b, i);
    b->host[i] = b->e->at;
    if (s->leader)
        group_at_leader(b, i);
    if (s->leader || !keeps_held(b, s) || !i || !keeps_held(b, s - 1))
        b->holds = 0;
    if ((i && i == b->keep_at) || (b->path && b->path->keeps[i])) {
        rebuild_keep(b, i);
        b->holds = 0;
    }
    b->unit->loops |= s->loop;
    if (s->loop)
        loop_emit(b, i);
    else if (b->path && !i)
        path_count_turn(b, s);
    for (unsigned k = 0; s->leader && k < i; k++)
        if (b->open[k] && b->steps[k].inside == i)
            emit_patch(b->open[k], b->host[i]);
    if (b->segmented && sixteen_emit(b, i))
        return;
    switch (s->kind) {
    case STEP_COPY: build_copy(b, i); break;
    case STEP_PUSH: stack_emit_push(b, i); break;
    case STEP_POP: stack_emit_pop(b, i); break;
    case STEP_LEAVE: stack_emit_leave(b, i); break;
    case STEP_JCC: emit_jcc_step(b, i); break;
    case STEP_JUMP: emit_jump_step(b, i); break;
    case STEP_CALL: emit_call(b, i); break;
    case STEP_CALL_INDIRECT: case STEP_JUMP_INDIRECT: emit_indirect(b, i); break;
    case STEP_RETURN: emit_return(b, i); break;
    case STEP_SYSTEM: case STEP_MODE: case STEP_TRANSFER: system_emit(b, i); break;
    case STEP_INTERPRET: emit_interpret(b, s); break;
    default: break;
    }
    group_after_step(b, i);
}

static void emit_unit(struct build *b)
{
    const struct step *last = &b->steps[b->count - 1];

    for (unsigned i = 0; i < b->count; i++) {
        b->unit->sse |= b->steps[i].sse && b->steps[i].kind != STEP_INTERPRET;
        b->unit->avx |= b->steps[i].avx && b->steps[i].kind != STEP_INTERPRET;
        b->unit->x87 |= b->steps[i].x87 && b->steps[i].kind != STEP_INTERPRET;
    }
    emit_head(b);
    for (unsigned i = 0; i < b->count; i++)
        emit_step(b, i);
    stack_bring_in(b);
    b->host[b->count] = b->e->at;
    if (build_falls_through(last) || last->kind == STEP_MODE)
        branch_exit(b, last->rip, b->end_rip, NULL, end_rebuild(b));
    branch_stubs(b);
    emit_other_entry(b);
    b->unit->size = (unsigned)(b->e->at - b->unit->code);
}

void build_begin(struct build *b, struct unit *unit)
{
    b->e = &b->t->cache.emit;
    b->unit = unit;
    b->path = NULL;
    b->count = b->stub_count = b->loop_count = 0;
    b->word = b->t->cpu.code_size == X86_MODE_64 ? 8 : 4;
    b->segmented = unit->mode & UNIT_SEGMENTED;
    b->cut = false;
    b->same = 0;
    b->frame = (struct frame){.last = 0};
    b->behind = 0;
    group_forget(b);
    memset(b->met_anew, 0, sizeof(b->met_anew));
}

void build_plan(struct build *b)
{
    memset(b->open, 0, b->count * sizeof(b->open[0]));
    for (unsigned i = 0; i < b->count; i++)
        b->steps[i].flags_live = 0;
    if (b->written)
        analyse_stores(b->steps, b->count);
    choose_scratch(b);
    if (b->path)
        path_plan_flags(b);
    rebuild_plan(b);
    if (b->path)
        path_keep_flags(b);
    guess_plan(b);
}

void build_finish(struct build *b, struct unit_page *page)
{
    struct translator *t = b->t;

    elsewhere_begin(b);
    emit_unit(b);
    elsewhere_finish(b);
    code_cache_add(t, b->unit, page);
    t->stats.units++;
    t->stats.insns += b->count;
    t->stats.bytes += b->unit->size;
    trace_unit(t, b->unit);
}

struct unit *translate_unit(struct translator *t, uint64_t linear, uint64_t physical,
                            unsigned mode, bool hot)
{
    struct memory_slot *slot;
    const uint8_t *host = soft_engine_host(t->cpu.soft, physical, &slot);
    struct build *b = t->build;
    struct code_page *code;
    struct unit_page *page;
    struct unit *unit;

    if (!host)
        return NULL;
    code_cache_make_room(t);
    code = &slot->pages[(physical - slot->address) >> 12];
    page = code_cache_page(t, code, code_page_mark(&t->cpu, code, physical));
    if (!page)
        return NULL;
    unit = hot || t->hot_turns == 1 ? NULL : elsewhere_make(t, linear, physical, mode);
    if (unit)
        return unit;
    unit = code_cache_unit(&t->cache);
    *unit = (struct unit){.linear = linear, .physical = physical, .mode = mode,
                          .hot = hot || t->hot_turns == 1};
    if (mode & UNIT_SEGMENTED) {
        unit->code_base = (uint32_t)t->cpu.state.segment[X86_CS].base;
        unit->code_limit = t->cpu.state.segment[X86_CS].limit;
    }
    b->t = t;
    build_begin(b, unit);
    b->written = code_page_was_stored(code, code, physical);
    decode(b, host - (physical & ~PAGE_MASK), t->cpu.code_size);
    if (!b->count) {
        code_cache_give_back(&t->cache);
        return NULL;
    }
    resolve_branches(b, host - (physical & ~PAGE_MASK), t->cpu.code_size);
    build_plan(b);
    build_finish(b, page);
    return unit;
}
