/* Flags made again. The instruction that set them last is carried out once more, on what
 * it left: the sum less the addend, plus the addend.
 *
 * Assumption: mostly that instruction is a comparison or an addition whose operands are
 * still there when a unit ends, and doing it again takes one or two instructions, while
 * keeping flags over the checks of addresses between takes several for each. So checks
 * may change flags on the way to a branch that leads who knows where, and the branch
 * makes them again, or where it goes through the jump cache stores what it takes to do so
 * (keep.c). What takes an exception in between sees them too, at no cost to who takes none.
 *
 * Where that cannot be, but nothing in the rest of the unit reads or writes them, they are
 * kept in memory (keep.c) from there to its end. */
#include "engine/translate/build.h"

#define ALL_FLAGS ((uint16_t)(X86_STATUS_FLAGS & 0xfff))

/* The sum of both fits a displacement. */
#define IMMEDIATE_MAX 0x40000000
#define MOVED_MAX     0x10000

/* Registers that are in place between units and within this one. */
static bool is_in_place(const struct build *b, unsigned reg)
{
    return !((SCRATCH_HOME | b->unit->home) >> reg & 1);
}

static bool is_register(const struct build *b, const struct x86_operand *o)
{
    return o->kind == X86_OPERAND_GPR && !o->high_byte && is_in_place(b, o->reg);
}

static bool is_same(const struct x86_operand *o)
{
    return o[1].kind == X86_OPERAND_GPR && o[0].reg == o[1].reg;
}

/* What does not depend on the operands: a register set to zero. */
static bool is_zeroing(const struct x86_insn *insn)
{
    return (insn->op == X86_OP_XOR || insn->op == X86_OP_SUB) && is_same(insn->operands);
}

static bool is_repeatable(const struct build *b, const struct step *s)
{
    const struct x86_operand *o = s->insn.operands;

    if (s->kind != STEP_COPY || s->insn.vex || s->insn.operand_count != 2 ||
        !is_register(b, &o[0]) ||
        (o[1].kind == X86_OPERAND_GPR ? !is_register(b, &o[1])
                                      : o[1].kind != X86_OPERAND_IMMEDIATE))
        return false;
    switch (s->insn.op) {
    case X86_OP_ADD: case X86_OP_SUB:
        return (s->insn.op == X86_OP_SUB || !is_same(o)) && s->insn.immediate > -IMMEDIATE_MAX &&
               s->insn.immediate < IMMEDIATE_MAX;
    case X86_OP_CMP: case X86_OP_TEST: case X86_OP_AND: case X86_OP_OR: case X86_OP_XOR:
        return true;
    default:
        return false;
    }
}

/* Whether flags before step `to` are those of step `from`, and its operands as it left
 * them but for constants. */
static bool survives(const struct build *b, unsigned from, unsigned to, struct rebuild *ret)
{
    const struct x86_operand *o = b->steps[from].insn.operands;

    if (!is_repeatable(b, &b->steps[from]))
        return false;
    *ret = (struct rebuild){.step = (uint16_t)from};
    if (is_zeroing(&b->steps[from].insn))
        return true;
    for (unsigned k = from + 1; k < to; k++) {
        int64_t delta;

        if (!memory_constant_step(b, &b->steps[k], o[0].reg, &delta) ||
            (o[1].kind == X86_OPERAND_GPR && b->steps[k].writes >> o[1].reg & 1))
            return false;
        ret->moved += delta;
    }
    return ret->moved > -MOVED_MAX && ret->moved < MOVED_MAX &&
           (o[0].size == b->word || !ret->moved);
}

bool rebuild_leaves_flags(const struct step *s)
{
    switch (s->kind) {
    case STEP_SYSTEM: case STEP_MODE: case STEP_INTERPRET: case STEP_TRANSFER:
        return false;
    case STEP_COPY:
        return !(x86_rows[s->insn.row].flags_written & ALL_FLAGS);
    default:
        return true;
    }
}

bool rebuild_find(const struct build *b, unsigned i, struct rebuild *ret)
{
    if (i < b->count && b->steps[i].leader)
        return false;
    for (unsigned k = i; k-- > 0;) {
        const struct step *s = &b->steps[k];

        if (s->kind == STEP_COPY && s->flags_killed == ALL_FLAGS)
            return survives(b, k, i, ret);
        if (s->leader || !rebuild_leaves_flags(s))
            return false;
    }
    return false;
}

/* The first of the steps behind which flags are not written to the unit's end, and
 * nothing branches. */
static unsigned last_writer(const struct build *b)
{
    unsigned i = b->count;

    while (i > 0 && rebuild_leaves_flags(&b->steps[i - 1]) && !b->steps[i - 1].leader)
        i--;
    return i;
}

/* Whether step i's access to memory needs a check of its own, as far as can be told now:
 * no earlier one off the same base covers it. */
static bool makes_check(const struct build *b, unsigned i)
{
    struct x86_memory memory, earlier;
    unsigned size, access;
    int64_t delta;

    if (!memory_of_step(b, &b->steps[i], &memory, &size, &access))
        return b->steps[i].kind == STEP_CALL_INDIRECT;
    if (!memory_groupable(b, &memory, b->word))
        return true;
    for (unsigned k = i; k-- > 0 && memory_constant_step(b, &b->steps[k], memory.base, &delta);)
        if (memory_of_step(b, &b->steps[k], &earlier, &size, &access) &&
            earlier.base == memory.base && earlier.index == memory.index)
            return false;
    return true;
}

/* Whether the unit goes on through the jump cache, for which flags are kept anyway. */
static bool leaves_through_cache(const struct build *b)
{
    const struct step *last = &b->steps[b->count - 1];

    if (last->kind == STEP_RETURN || last->kind == STEP_JUMP_INDIRECT ||
        last->kind == STEP_CALL_INDIRECT)
        return true;
    return !branch_stays(b, last->kind == STEP_CALL || last->kind == STEP_JUMP ? last->target
                                                                              : b->end_rip);
}

/* They are kept from where nothing in the unit reads them any more, if that spares some
 * check the trouble, or the look for signals at the unit's head, or they are to be kept in
 * the end. */
static bool plan_keeping(struct build *b)
{
    unsigned i = last_writer(b);
    bool pays;

    while (i < b->count && b->steps[i].flags_live)
        i++;
    b->keep_at = (uint16_t)i;
    for (pays = !i || (i < b->count && leaves_through_cache(b)); i < b->count && !pays; i++)
        pays = makes_check(b, i);
    if (!pays)
        b->keep_at = NO_STEP;
    return pays;
}

void rebuild_plan(struct build *b)
{
    struct step *last = &b->steps[b->count - 1];
    uint16_t *live = last->kind >= STEP_JUMP ? &last->taken_live : &b->end_live;
    const uint16_t wanted = *live;

    b->keep_at = NO_STEP;
    b->rebuilds = wanted && last->inside == NO_STEP && !b->unit->cut;
    if (b->rebuilds)
        *live = 0;
    if (b->rebuilds && !rebuild_find(b, b->count, &b->rebuild)) {
        analyse_liveness(b->steps, b->count, b->end_live);
        b->rebuild = (struct rebuild){.kept = true};
        b->rebuilds = rebuild_leaves_flags(last) && plan_keeping(b);
        *live = b->rebuilds ? 0 : wanted;
    }
    if (b->keep_at != NO_STEP)
        b->steps[b->keep_at].flags_read = ALL_FLAGS;
    analyse_liveness(b->steps, b->count, b->end_live);
    if (b->keep_at != NO_STEP) /* which itself need not keep them any more */
        b->steps[b->keep_at].flags_live = 0;
}

/* How wide the operation is, as keep.h has it. */
static unsigned size_log(unsigned size)
{
    return (unsigned)__builtin_ctz(size);
}

static enum keep_operation operation_of(const struct x86_insn *insn)
{
    switch (insn->op) {
    case X86_OP_ADD: return KEEP_ADD;
    case X86_OP_SUB: return KEEP_SUB;
    case X86_OP_CMP: return KEEP_CMP;
    case X86_OP_TEST: return is_same(insn->operands) ? KEEP_RESULT : KEEP_TEST;
    default: return KEEP_RESULT;
    }
}

static void store_immediate(struct emit *e, struct emit_memory m, int64_t value)
{
    emit_rm(e, true, 0xc7, 0, m); /* MOV QWORD */
    emit_u32(e, (uint32_t)value);
}

void rebuild_store(struct build *b, const struct rebuild *rebuild, unsigned reg)
{
    const struct x86_insn *insn = &b->steps[rebuild->step].insn;
    const struct x86_operand *o = insn->operands;
    const enum keep_operation operation = operation_of(insn);
    const unsigned log = size_log(o[0].size);
    const bool wants_b = operation != KEEP_RESULT, constant = o[1].kind == X86_OPERAND_IMMEDIATE;
    const int64_t value = insn->immediate;
    struct emit *e = b->e;
    uint32_t how = KEEP_KIND(operation, log, false);

    if (is_zeroing(insn)) {
        store_immediate(e, FIELD(kept.a), 0);
        keep_emit_how(e, how); /* and b is 0 */
        return;
    }
    if (rebuild->moved) {
        emit_lea(e, reg, emit_based(o[0].reg, EMIT_NONE, (int32_t)-rebuild->moved));
        emit_store(e, FIELD(kept.a), reg);
    } else {
        emit_store(e, FIELD(kept.a), o[0].reg);
    }
    if (wants_b && constant && value >= -KEEP_BESIDE_MAX && value < KEEP_BESIDE_MAX) {
        how |= (uint32_t)value << 8;
    } else if (wants_b) {
        how = KEEP_KIND(operation, log, true);
        if (constant)
            store_immediate(e, FIELD(kept.b), value);
        else
            emit_store(e, FIELD(kept.b), o[1].reg);
    }
    keep_emit_how(e, how);
}

void rebuild_keep(struct build *b, unsigned i)
{
    struct rebuild rebuild;

    if (rebuild_find(b, i, &rebuild))
        rebuild_store(b, &rebuild, b->scratch[0]);
    else
        keep_emit_image(b->e, b->scratch[0]);
}

/* The forms for bytes (SDM 2B); others are one more. */
enum {
    ADD_RM = 0x00, SUB_RM = 0x28, XOR_RM = 0x30, CMP_RM = 0x38, TEST_RM = 0x84,
    IMMEDIATE_RM = 0x80, TEST_IMMEDIATE = 0xf6,
};

static void operate(struct emit *e, unsigned size, unsigned opcode, unsigned reg, unsigned rm)
{
    if (size == 2)
        emit_u8(e, 0x66);
    if (size == 1 && !((reg | rm) >> 3)) /* else they might be AH to BH */
        emit_u8(e, 0x40);
    emit_rr(e, size == 8, opcode + (size > 1), reg, rm);
}

enum { ADD_IMMEDIATE = 0, CMP_IMMEDIATE = 7 };

static void operate_immediate(struct emit *e, unsigned size, unsigned opcode, unsigned operation,
                              unsigned reg, int64_t value)
{
    const uint32_t bits = (uint32_t)value;

    operate(e, size, opcode, operation, reg);
    emit_bytes(e, &bits, size < 4 ? size : 4);
}

void rebuild_emit(struct build *b, const struct rebuild *rebuild, unsigned reg)
{
    const struct x86_insn *insn = &b->steps[rebuild->step].insn;
    const struct x86_operand *o = insn->operands;
    const bool constant = o[1].kind == X86_OPERAND_IMMEDIATE;
    const unsigned size = o[0].size, other = o[1].reg;
    const int64_t value = insn->immediate;
    int64_t back = -rebuild->moved;
    struct emit *e = b->e;

    if (rebuild->kept) {
        keep_emit_make(b->t, e);
        return;
    }
    if (is_zeroing(insn)) {
        operate(e, 4, insn->op == X86_OP_SUB ? CMP_RM : XOR_RM, reg, reg);
        return;
    }
    if (insn->op == X86_OP_ADD && constant)
        back -= value;
    if (insn->op == X86_OP_SUB && constant)
        back += value;
    if (insn->op == X86_OP_SUB && !constant) /* RSP cannot be an index */
        emit_lea(e, reg, emit_based(other == X86_RSP ? other : o[0].reg,
                                    other == X86_RSP ? o[0].reg : other, (int32_t)back));
    else
        emit_lea(e, reg, emit_based(o[0].reg, EMIT_NONE, (int32_t)back));
    switch (insn->op) {
    case X86_OP_ADD:
        if (constant) {
            operate_immediate(e, size, IMMEDIATE_RM, ADD_IMMEDIATE, reg, value);
            break;
        }
        operate(e, size, SUB_RM, other, reg);
        operate(e, size, ADD_RM, other, reg);
        break;
    case X86_OP_SUB: case X86_OP_CMP:
        if (constant)
            operate_immediate(e, size, IMMEDIATE_RM, CMP_IMMEDIATE, reg, value);
        else
            operate(e, size, CMP_RM, other, reg);
        break;
    case X86_OP_TEST:
        if (constant)
            operate_immediate(e, size, TEST_IMMEDIATE, 0, reg, value);
        else
            operate(e, size, TEST_RM, other, reg);
        break;
    default: /* AND, OR, XOR: the result tells all */
        operate(e, size, TEST_RM, reg, reg);
        break;
    }
}
