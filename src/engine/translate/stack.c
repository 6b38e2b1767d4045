/* The stack: pushes, pops, and what moves RSP by a constant.
 *
 * Assumption: calls, and functions' beginnings and ends, are made of runs of these. So RSP
 * stays behind: what it is to be moved by is known while the unit is made, goes into the
 * displacements of what reaches for the stack, and RSP follows once, at the end of the run.
 * It is where it belongs wherever ways meet or part and wherever anything but such an
 * access reads it; ways out of line bring it there themselves (branch.c). */
#include "engine/translate/stack.h"

/* More is moved at once. */
#define BEHIND_MAX 0x10000

static void add_to_rsp(struct build *b, int32_t by)
{
    emit_rm(b->e, b->word == 8, 0x8d, X86_RSP, emit_based(X86_RSP, EMIT_NONE, by)); /* LEA */
}

void stack_move(struct build *b, int32_t by)
{
    if (by)
        add_to_rsp(b, by);
}

void stack_bring_in(struct build *b)
{
    stack_move(b, b->behind);
    b->behind = 0;
}

static void move_rsp(struct build *b, int32_t by)
{
    if (b->word != 8 || b->segmented) {
        add_to_rsp(b, by);
        return;
    }
    b->behind += by;
    if (b->behind > BEHIND_MAX || b->behind < -BEHIND_MAX)
        stack_bring_in(b);
}

/* Whether all that the step wants of RSP is where memory is, or where the stack ends. */
static bool knows_behind(const struct build *b, const struct step *s)
{
    const struct x86_insn *insn = &s->insn;

    for (unsigned k = 0; k < insn->operand_count; k++)
        if (insn->operands[k].kind == X86_OPERAND_GPR && insn->operands[k].reg == X86_RSP)
            return false;
    return !x86_memory_operand(insn) || insn->memory.base != X86_RSP ||
           (insn->op != X86_OP_LEA && insn->address_size == b->word);
}

static bool flags_free_after(const struct build *b, unsigned i)
{
    return !path_live_before(b, i + 1);
}

bool stack_moves(struct build *b, unsigned i)
{
    const struct step *s = &b->steps[i];
    int64_t delta;

    if (s->kind != STEP_COPY || !(s->writes >> X86_RSP & 1) || b->word != 8 || b->segmented ||
        b->loop || !memory_constant_step(b, s, X86_RSP, &delta) || delta > BEHIND_MAX ||
        delta < -BEHIND_MAX || (s->insn.op != X86_OP_LEA && !flags_free_after(b, i)))
        return false;
    move_rsp(b, (int32_t)delta);
    return true;
}

void stack_before_step(struct build *b, unsigned i)
{
    const struct step *s = &b->steps[i];
    bool stays;

    if (!b->behind)
        return;
    switch (s->kind) {
    case STEP_NOTHING: case STEP_LEAVE:
        stays = true;
        break;
    case STEP_COPY: case STEP_PUSH: case STEP_POP: case STEP_CALL: case STEP_CALL_INDIRECT:
    case STEP_RETURN: case STEP_JUMP_INDIRECT:
        stays = knows_behind(b, s);
        break;
    case STEP_JUMP:
        stays = s->inside == i + 1;
        break;
    case STEP_JCC: /* off a trace few go */
        stays = b->path && s->inside == NO_STEP;
        break;
    default:
        stays = false;
        break;
    }
    if (!stays || s->leader || b->met_anew[i])
        stack_bring_in(b);
}

/* --- Reaching it --- */

static struct emit_memory reach_stack(struct build *b, unsigned i, int displacement,
                                      unsigned access)
{
    struct x86_memory stack = memory_stack(displacement);

    return memory_reach(b, i, &stack, b->word, b->word, access);
}

static void load_word(struct build *b, unsigned reg, struct emit_memory m)
{
    emit_rm(b->e, b->word == 8, 0x8b, reg, m);
}

static void store_word(struct build *b, struct emit_memory m, unsigned reg)
{
    emit_rm(b->e, b->word == 8, 0x89, reg, m);
}

/* Store a constant of a word; s1 is free. */
static void store_constant(struct build *b, struct emit_memory m, uint64_t value)
{
    if (b->word == 4 || emit_fits(value)) {
        emit_rm(b->e, b->word == 8, 0xc7, 0, m);
        emit_u32(b->e, (uint32_t)value);
    } else {
        emit_constant(b->e, b->s1, value);
        emit_store(b->e, m, b->s1);
    }
}

void stack_fetch_operand(struct build *b, unsigned i)
{
    const struct step *s = &b->steps[i];

    if (s->insn.operands[0].kind == X86_OPERAND_GPR) {
        emit_store(b->e, FIELD(scratch_value), s->insn.operands[0].reg);
        return;
    }
    load_word(b, b->s1, memory_reach(b, i, &s->insn.memory, s->insn.address_size, b->word,
                                     X86_READ));
    emit_store(b->e, FIELD(scratch_value), b->s1);
}

/* --- Steps --- */

void stack_emit_push(struct build *b, unsigned i)
{
    const struct step *s = &b->steps[i];
    const struct x86_operand *o = &s->insn.operands[0];
    struct emit_memory m;

    begin_step(b, s, true);
    if (o->kind == X86_OPERAND_MEMORY)
        stack_fetch_operand(b, i);
    m = reach_stack(b, i, -(int)b->word, X86_WRITE);
    if (o->kind == X86_OPERAND_GPR) {
        store_word(b, m, o->reg);
    } else if (o->kind == X86_OPERAND_MEMORY) {
        if (m.base == b->s1) { /* which is needed for the value */
            emit_lea(b->e, b->s2, m);
            m = emit_based(b->s2, EMIT_NONE, 0);
        }
        emit_load(b->e, b->s1, FIELD(scratch_value));
        store_word(b, m, b->s1);
    } else {
        store_constant(b, m, (uint64_t)s->insn.immediate);
    }
    move_rsp(b, -(int)b->word);
    end_step(b, s);
}

void stack_emit_pop(struct build *b, unsigned i)
{
    const struct step *s = &b->steps[i];

    begin_step(b, s, true);
    load_word(b, s->insn.operands[0].reg, reach_stack(b, i, 0, X86_READ));
    if (s->insn.operands[0].reg != X86_RSP) /* what was popped is the new one */
        move_rsp(b, (int)b->word);
    end_step(b, s);
}

void stack_emit_leave(struct build *b, unsigned i)
{
    const struct step *s = &b->steps[i];
    struct x86_memory frame = memory_stack(0);
    struct emit_memory m;

    frame.base = X86_RBP;
    begin_step(b, s, true);
    m = memory_reach(b, i, &frame, b->word, b->word, X86_READ);
    emit_rm(b->e, b->word == 8, 0x8d, X86_RSP, emit_based(X86_RBP, EMIT_NONE, (int)b->word));
    b->behind = 0;
    load_word(b, X86_RBP, m);
    end_step(b, s);
}

void stack_push_return(struct build *b, unsigned i)
{
    const struct step *s = &b->steps[i];
    struct emit_memory m = reach_stack(b, i, -(int)b->word, X86_WRITE);

    if (s->kind == STEP_CALL_INDIRECT && b->word == 8) { /* the call may turn out to fault */
        emit_load(b->e, b->s1, m);
        emit_store(b->e, FIELD(scratch_pushed), b->s1);
    }
    if (b->word == 4 || emit_fits(s->rip + s->insn.length)) {
        store_constant(b, m, s->rip + s->insn.length);
        b->relocations.fixed = true;
    } else {
        elsewhere_constant(b, b->s1, s->rip + s->insn.length);
        emit_store(b->e, m, b->s1);
    }
    move_rsp(b, -(int)b->word);
}

int stack_pop_return(struct build *b, unsigned i)
{
    const struct x86_insn *insn = &b->steps[i].insn;
    const int by = (int)b->word + (insn->operand_count ? (uint16_t)insn->immediate : 0);

    load_word(b, b->s1, reach_stack(b, i, 0, X86_READ));
    move_rsp(b, by);
    return by;
}
