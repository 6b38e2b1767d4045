/* Loops whose addresses are checked ahead.
 *
 * Assumption: an inner loop goes through memory in steps that are known, or
 * stays where it is. So one check before the loop tells, for all accesses off
 * the same registers (a range), that they stay in one page for so many turns;
 * the turns then make no checks. What is found, the distance to host memory,
 * is kept for each range in a slot: a register that the loop does not use, or
 * a field.
 *
 * In hot code a loop may have more in it: inner loops, calls. The turns that do not come there
 * are made without checks; where one does, it goes on in the plain body.
 *
 * The loop is emitted twice. The fast body runs as many turns as the ranges
 * allow. Where they allow none (the end of a page, a page not in the TLB), the
 * plain body makes one turn with all its checks, and it is tried again. Nothing
 * but filling the TLB happens in C while a fast body goes on, so what the slots
 * hold stays true. */
#include <string.h>

#include "base/bytes.h"
#include "engine/translate/ahead.h"
#include "engine/translate/build.h"
#include "engine/translate/together.h"

/* Accesses further apart have ranges of their own. */
#define MERGE_SPAN  512
/* A range, with what it moves in a turn, must have a chance to lie in a page. */
#define RANGE_SPAN  2048

/* --- What moves --- */

/* What the loop adds to reg in a turn lies between them; false: who knows. */
static bool movement(const struct build *b, const struct loop *loop, unsigned reg,
                     int64_t *ret_up, int64_t *ret_down)
{
    int64_t up = 0, down = 0, delta;

    for (unsigned i = loop->first; reg != X86_NO_REGISTER && i <= loop->last; i++) {
        if (loop->way[i] != LOOP_TURN)
            continue;
        if (!memory_constant_step(b, &b->steps[i], reg, &delta) || delta > RANGE_SPAN ||
            delta < -RANGE_SPAN)
            return false;
        up += delta > 0 ? delta : 0;
        down += delta < 0 ? delta : 0;
    }
    *ret_up = up;
    *ret_down = down;
    return true;
}

/* Whether reg is known to be small at step i, such as a byte that indexes a table. */
static bool is_bounded(const struct build *b, const struct loop *loop, unsigned i, unsigned reg,
                       int64_t *ret_most)
{
    for (unsigned k = i; k-- > loop->first && !b->steps[k + 1].leader;) {
        const struct x86_insn *insn = &b->steps[k].insn;
        const struct x86_operand *o = insn->operands;

        if (!(b->steps[k].writes >> reg & 1))
            continue;
        if (o[0].kind != X86_OPERAND_GPR || o[0].reg != reg || o[0].size < 4)
            return false;
        if (insn->op == X86_OP_MOVZX && o[1].size == 1)
            *ret_most = UINT8_MAX;
        else if (insn->op == X86_OP_AND && o[1].kind == X86_OPERAND_IMMEDIATE &&
                 insn->immediate >= 0 && insn->immediate < RANGE_SPAN)
            *ret_most = insn->immediate;
        else
            return false;
        return true;
    }
    return false;
}

/* The range of the access of step i alone; false: it must be checked each time. */
static bool range_of_step(const struct build *b, const struct loop *loop, unsigned i,
                          struct range *r)
{
    const struct step *s = &b->steps[i];
    const struct x86_operand *operand = x86_memory_operand(&s->insn);
    struct x86_memory *m = &r->memory;
    int64_t most = 0, base_up, base_down, index_up, index_down;

    if (s->insn.address_size != b->word || memory_has_base_segment(&s->insn.memory))
        return false;
    *r = (struct range){.memory = s->insn.memory, .write = operand->access & X86_WRITE,
                        .slot = EMIT_NONE, .uses = 1};
    if (m->rip_relative) {
        m->displacement += (int64_t)(s->rip + s->insn.length);
        m->rip_relative = false;
    }
    if (m->index != X86_NO_REGISTER && is_bounded(b, loop, i, m->index, &most)) {
        most *= m->scale;
        m->index = X86_NO_REGISTER;
    }
    if (!movement(b, loop, m->base, &base_up, &base_down) ||
        !movement(b, loop, m->index, &index_up, &index_down))
        return false;
    r->up = base_up + index_up * m->scale;
    r->down = base_down + index_down * m->scale;
    r->pair = s->insn.memory.index != X86_NO_REGISTER;
    r->high = m->displacement + most + operand->size;
    if (!base_up && !base_down)
        r->folded = register_bit(m->base);
    else if (m->index != X86_NO_REGISTER && !index_up && !index_down)
        r->folded = register_bit(m->index);
    else if (m->index != X86_NO_REGISTER || most)
        return false; /* both move, and there is no third register in an address */
    return !(r->up && r->down) && r->high - m->displacement + r->up - r->down <= RANGE_SPAN;
}

static bool merge(struct range *into, const struct range *r)
{
    const struct x86_memory *m = &into->memory;
    const int64_t low = MIN(m->displacement, r->memory.displacement);
    const int64_t high = MAX(into->high, r->high), span = high - low;

    if (m->base != r->memory.base || m->index != r->memory.index ||
        (m->index != X86_NO_REGISTER && m->scale != r->memory.scale) ||
        (span > MERGE_SPAN && span != into->high - m->displacement))
        return false;
    into->memory.displacement = low;
    into->high = high;
    into->write |= r->write;
    into->pair |= r->pair;
    into->uses++;
    return true;
}

/* --- The plan --- */

static bool accesses(const struct step *s)
{
    return x86_memory_operand(&s->insn) && s->kind == STEP_COPY && s->insn.op != X86_OP_LEA;
}

static bool is_plain(const struct step *s)
{
    return s->kind == STEP_COPY || s->kind == STEP_NOTHING || s->kind == STEP_JCC ||
           s->kind == STEP_JUMP;
}

static void come_to(const struct build *b, struct loop *loop, unsigned i)
{
    if (i > loop->first && i <= loop->last && loop->way[i] == LOOP_NEVER)
        loop->way[i] = b->steps[i].loop || !is_plain(&b->steps[i]) ? LOOP_LEAVES : LOOP_TURN;
}

/* What of the loop the fast body has: what leads on without an inner loop, a call and the
 * like, where it leaves. False: there is no such way round. */
static bool find_ways(const struct build *b, struct loop *loop)
{
    bool whole = true;

    loop->way[loop->first] = is_plain(&b->steps[loop->first]) ? LOOP_TURN : LOOP_LEAVES;
    for (unsigned i = loop->first; i <= loop->last; i++) {
        const struct step *s = &b->steps[i];

        whole &= loop->way[i] != LOOP_LEAVES;
        if (loop->way[i] != LOOP_TURN)
            continue;
        if (s->kind != STEP_JUMP)
            come_to(b, loop, i + 1);
        if ((s->kind == STEP_JCC || s->kind == STEP_JUMP) && s->inside > i && s->inside != NO_STEP)
            come_to(b, loop, s->inside);
    }
    return loop->way[loop->last] == LOOP_TURN && (whole || b->unit->hot);
}

bool loop_passes(const struct build *b, unsigned i)
{
    const struct loop *loop = b->loop;

    return !loop || i < loop->first || i > loop->last || loop->way[i] == LOOP_TURN;
}

/* A loop from its head to its last branch back, entered only there. */
static bool find_body(const struct build *b, struct loop *loop)
{
    const unsigned first = loop->first;

    for (unsigned i = first; i < b->count; i++)
        if (b->steps[i].inside == first)
            loop->last = i;
    for (unsigned i = 0; i < b->count; i++) {
        const struct step *s = &b->steps[i];
        const bool within = i >= first && i <= loop->last;

        if (!within && s->inside > first && s->inside <= loop->last)
            return false;
    }
    return find_ways(b, loop);
}

/* A range whose base is now near the one of r, which the same is added to. Returns
 * loop->count if there is none. */
static unsigned merge_beside(const struct build *b, struct loop *loop, unsigned i,
                             const struct range *r)
{
    for (unsigned k = 0; k < loop->count; k++) {
        struct range moved = *r, *into = &loop->ranges[k];
        int distance;

        if (!r->pair || !into->pair || into->folded != register_bit(into->memory.base) ||
            r->folded != register_bit(r->memory.base) || into->up != r->up ||
            into->down != r->down ||
            !together_beside(b, loop, r->memory.base, into->memory.base, &distance))
            continue;
        moved.memory.base = into->memory.base;
        moved.memory.displacement += distance;
        moved.high += distance;
        if (!emit_fits((uint64_t)(b->steps[i].insn.memory.displacement + distance)) ||
            !merge(into, &moved))
            continue;
        together_assume(loop, r->memory.base, into->memory.base, distance);
        loop->beside[i] = (int16_t)distance;
        return k;
    }
    return loop->count;
}

/* What is off one register alone has it in its addresses. */
static void settle(struct loop *loop)
{
    for (unsigned k = 0; k < loop->count; k++) {
        struct range *r = &loop->ranges[k];

        r->page = r->holder = (uint8_t)k;
        if (!r->pair)
            r->folded = 0;
        r->plain = !r->folded && address_registers(&r->memory);
    }
}

static void find_ranges(struct build *b, struct loop *loop)
{
    for (unsigned i = loop->first; i <= loop->last; i++) {
        struct range r;
        unsigned k = 0;

        loop->range_of[i] = NO_RANGE;
        if (loop->way[i] != LOOP_TURN || !accesses(&b->steps[i]))
            continue;
        if (!range_of_step(b, loop, i, &r)) {
            loop->checks = true;
            continue;
        }
        while (k < loop->count && !merge(&loop->ranges[k], &r))
            k++;
        if (k == loop->count)
            k = merge_beside(b, loop, i, &r);
        if (k == LOOP_RANGES) {
            loop->checks = true;
            continue;
        }
        if (k == loop->count)
            loop->ranges[loop->count++] = r;
        loop->range_of[i] = (uint8_t)k;
    }
}

/* One of the free registers, rather one that the unit has taken already. */
static unsigned take(const struct build *b, uint16_t *free)
{
    const uint16_t own = *free & b->unit->home;
    const unsigned reg = *free ? (unsigned)__builtin_ctz(own ? own : *free) : EMIT_NONE;

    *free &= (uint16_t)~register_bit(reg);
    return reg;
}

/* Registers that the loop does not mention: for checks that remain and to load
 * slots, then for the slots most used, then to count turns. */
static void assign_registers(struct build *b, struct loop *loop)
{
    uint16_t used = 1u << X86_RSP, free, scratch;
    unsigned wanted, slots = 0;

    for (unsigned i = loop->first; i <= loop->last; i++)
        used |= loop->way[i] == LOOP_TURN ? b->steps[i].mentions : 0;
    for (unsigned k = 0; k < loop->count; k++)
        slots += loop->ranges[k].holder == k;
    loop->home = free = (uint16_t)~used;
    wanted = loop->checks ? 2 : slots > (unsigned)__builtin_popcount(free);
    for (unsigned i = 0; i < 2; i++) {
        scratch = free & (uint16_t)~register_bit(X86_RCX);
        loop->scratch[i] = wanted > i && scratch ? (uint8_t)take(b, &scratch) : X86_RSP;
        free &= (uint16_t)~register_bit(loop->scratch[i]);
    }
    loop->loader = loop->checks || loop->scratch[0] == X86_RSP ? EMIT_NONE : loop->scratch[0];
    for (unsigned n = 0; n < slots && free; n++) {
        struct range *best = NULL;

        for (unsigned k = 0; k < loop->count; k++) {
            struct range *r = &loop->ranges[k];

            if (r->holder == k && r->slot == EMIT_NONE && (!best || r->uses > best->uses))
                best = r;
        }
        best->slot = (uint8_t)take(b, &free);
    }
    loop->counter = (uint8_t)take(b, &free);
    loop->home &= (uint16_t)~free;
}

static bool plan(struct build *b, struct loop *loop)
{
    if (b->word != 8 || (b->unit->mode & UNIT_SINGLE) ||
        b->steps[loop->first].flags_live || !find_body(b, loop))
        return false;
    find_ranges(b, loop);
    if (!loop->count)
        return false;
    settle(loop);
    together_plan(b, loop);
    assign_registers(b, loop);
    return true;
}

struct emit_memory loop_slot_field(unsigned k)
{
    return emit_field(offsetof(struct translator, loop_slots) + 8 * k);
}

void loop_load_slots(struct build *b, const struct loop *loop)
{
    for (unsigned k = 0; k < loop->count; k++)
        if (loop->ranges[k].slot != EMIT_NONE)
            emit_load(b->e, loop->ranges[k].slot, loop_slot_field(k));
    if (loop->counter != EMIT_NONE)
        emit_load(b->e, loop->counter, FIELD(loop_room));
}

void loop_save_counter(struct build *b, const struct loop *loop)
{
    if (loop->counter != EMIT_NONE)
        emit_store(b->e, FIELD(loop_room), loop->counter);
}

/* --- The turns --- */

/* Go to where *to says when the unit is complete. */
static void stub_to(struct build *b, uint8_t *from, uint8_t *const *to)
{
    build_stub(b, STUB_STEP, from, NULL)->to = to;
}

bool loop_needs_scratch(const struct build *b, unsigned i)
{
    const struct loop *loop = b->loop;

    return !loop || loop->range_of[i] == NO_RANGE ||
           (loop->loader == EMIT_NONE &&
            loop->ranges[loop->ranges[loop->range_of[i]].holder].slot == EMIT_NONE);
}

bool loop_reach(struct build *b, unsigned i, struct emit_memory *ret_memory)
{
    struct loop *loop = b->loop;
    const struct x86_memory *m = &b->steps[i].insn.memory;
    const struct range *r;
    struct emit_memory to = {EMIT_NONE, EMIT_NONE, 1, false, (int32_t)m->displacement};
    unsigned k, slot;

    if (!loop || loop->range_of[i] == NO_RANGE)
        return false;
    r = &loop->ranges[loop->range_of[i]];
    to.displacement += loop->beside[i];
    k = r->holder;
    slot = loop->ranges[k].slot;
    if (slot == EMIT_NONE) {
        slot = loop->loader == EMIT_NONE ? b->s1 : loop->loader;
        if (loop->loader == EMIT_NONE || loop->loaded != k)
            emit_load(b->e, slot, loop_slot_field(k));
        loop->loaded = k;
    }
    if (m->base == X86_NO_REGISTER && r->memory.index == X86_NO_REGISTER) {
        uint64_t address = (uint64_t)m->displacement;

        if (m->rip_relative)
            address += b->steps[i].rip + b->steps[i].insn.length;
        to.displacement = (int32_t)(address - (uint64_t)r->memory.displacement);
    }
    if (m->base != X86_NO_REGISTER && !(r->folded & register_bit(r->memory.base))) {
        to.base = m->base;
        to.index = (uint8_t)slot;
    } else {
        to.base = (uint8_t)slot;
        to.index = m->index;
        to.scale = m->index == X86_NO_REGISTER ? 1 : m->scale;
    }
    *ret_memory = to;
    return true;
}

static void emit_branch(struct build *b, struct loop *loop, unsigned i)
{
    const struct step *s = &b->steps[i];
    const bool within = s->inside > i && s->inside <= loop->last;
    uint8_t *from;

    if (s->kind == STEP_JUMP && s->inside == i + 1)
        return;
    group_at_branch(b, i);
    from = s->kind == STEP_JUMP ? emit_jump(b->e) : emit_jcc(b->e, s->insn.opcode & 15);
    if (s->inside == NO_STEP) {
        struct stub *stub = build_stub(b, STUB_LINK, from, NULL);

        stub->rip = s->rip;
        stub->target = s->target;
    } else {
        stub_to(b, from, within ? &loop->host[s->inside] : &b->host[s->inside]);
        b->stubs[b->stub_count - 1].home = within ? b->unit->home : b->home;
    }
}

/* The branch back: another turn, or the checks again when those known to be
 * possible are used up. */
static void emit_back(struct build *b, struct loop *loop)
{
    const struct step *s = &b->steps[loop->last];

    if (s->kind == STEP_JCC)
        stub_to(b, emit_jcc(b->e, (s->insn.opcode & 15) ^ 1), &b->host[loop->last + 1]);
    if (loop->counter != EMIT_NONE)
        emit_rr(b->e, true, 0x83, 5, loop->counter); /* SUB */
    else
        emit_rm(b->e, true, 0x83, 5, FIELD(loop_room));
    emit_u8(b->e, loop->step);
    emit_patch(emit_jcc(b->e, EMIT_NOT_BELOW), loop->host[loop->first]);
    branch_convert_from(b, loop->home, b->same, b->unit->home);
}

static void emit_turn(struct build *b, struct loop *loop)
{
    for (unsigned i = loop->first; i < loop->last; i++) {
        if (loop->way[i] == LOOP_NEVER)
            continue;
        loop->host[i] = b->e->at;
        if (loop->way[i] == LOOP_LEAVES) {
            stub_to(b, emit_jump(b->e), &b->host[i]);
            continue;
        }
        if (b->steps[i].leader) {
            group_at_leader(b, i);
            loop->loaded = NO_RANGE;
        }
        if (b->steps[i].kind == STEP_COPY)
            build_copy(b, i);
        else if (b->steps[i].kind != STEP_NOTHING)
            emit_branch(b, loop, i);
        group_after_step(b, i);
    }
    loop->host[loop->last] = b->e->at;
    emit_back(b, loop);
}

/* Registers that the unit has taken for itself, but not the turns, which leave them alone. */
static uint16_t same_in_turns(const struct build *b, const struct loop *loop)
{
    uint16_t ret = b->unit->home & (uint16_t)~loop->home;

    for (unsigned i = loop->first; i <= loop->last; i++)
        if (loop->way[i] == LOOP_TURN)
            ret &= (uint16_t)~b->steps[i].writes;
    return ret;
}

void loop_emit(struct build *b, unsigned first)
{
    const uint8_t scratch[2] = {b->scratch[0], b->scratch[1]};
    const struct step *s = &b->steps[first];
    struct loop *loop = &b->loops[b->loop_count];
    /* What comes to a unit's loop the first time was polled a little before. */
    const bool polls_later = first && b->unit->hot;
    uint8_t *first_check;

    if (b->loop_count == LOOPS) {
        build_poll(b, s);
        return;
    }
    *loop = (struct loop){.first = first, .loaded = NO_RANGE, .framed = NO_RANGE};
    if (!plan(b, loop)) {
        build_poll(b, s);
        return;
    }
    if (!polls_later)
        build_poll(b, s);
    b->loop_count++;
    for (unsigned i = loop->first; i <= loop->last; i++) { /* where both bodies lead to */
        if (b->steps[i].inside != NO_STEP && b->steps[i].inside > loop->last)
            b->met_anew[b->steps[i].inside] = true;
        if (loop->way[i] == LOOP_LEAVES)
            b->met_anew[i] = b->steps[i].leader = true;
    }
    b->met_anew[loop->last + 1] = true;
    if (loop->last + 1 < b->count)
        b->steps[loop->last + 1].leader = true;
    b->same = same_in_turns(b, loop);
    first_check = b->e->at;
    ahead_check(b, loop);
    b->loop = loop;
    b->steady = b->home = loop->home;
    b->holds = 0;
    memcpy(b->scratch, loop->scratch, sizeof(scratch));
    emit_turn(b, loop);
    memcpy(b->scratch, scratch, sizeof(scratch));
    b->steady = b->home = b->unit->home;
    b->loop = NULL;
    b->same = b->holds = 0;
    if (polls_later) {
        b->host[first] = b->e->at;
        build_poll(b, s);
        emit_jump_to(b->e, first_check);
    } else {
        emit_jump_to(b->e, b->host[first]);
    }
    group_forget(b);
    loop->plain = b->e->at;
}
