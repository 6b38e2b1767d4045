/* Instructions of segmented code (segment.c) that are not like those of flat code: the stack,
 * whose pointer may have 16 bits, branches, which may cut the offset to 16 bits, loads of
 * segment registers, string instructions and LOOP.
 *
 * Assumption: in real and virtual-8086 mode a segment register is loaded with a shift and
 * nothing can fault; everywhere else that is rare. Far branches, INT and IRET go through C.
 * What is repeated (REP) is done by the interpreter in one go. */
#include "engine/translate/build.h"

#define ALL_FLAGS ((uint16_t)(X86_STATUS_FLAGS & 0xfff))
#define BIT(reg)  ((uint16_t)(1u << (reg)))
#define AX BIT(X86_RAX)
#define CX BIT(X86_RCX)
#define SP BIT(X86_RSP)
#define SI BIT(X86_RSI)
#define DI BIT(X86_RDI)
#define EIGHT ((uint16_t)0xff)

/* --- What kind of step --- */

/* Those that have code of their own here, and the registers that they touch beside
 * their operands. */
static const struct known {
    enum step_kind kind; /* STEP_INTERPRET: not known here */
    uint16_t mentions, writes;
} known[X86_OP_COUNT] = {
    [X86_OP_JCC] = {STEP_JCC, 0, 0},
    [X86_OP_LOOP] = {STEP_JCC, CX, CX},
    [X86_OP_LOOPE] = {STEP_JCC, CX, CX},
    [X86_OP_LOOPNE] = {STEP_JCC, CX, CX},
    [X86_OP_JCXZ] = {STEP_JCC, CX, 0},
    [X86_OP_JMP] = {STEP_JUMP, 0, 0},
    [X86_OP_JMP_INDIRECT] = {STEP_JUMP_INDIRECT, 0, 0},
    [X86_OP_CALL] = {STEP_CALL, SP, SP},
    [X86_OP_CALL_INDIRECT] = {STEP_CALL_INDIRECT, SP, SP},
    [X86_OP_RET] = {STEP_RETURN, SP, SP},
    [X86_OP_PUSH] = {STEP_PUSH, SP, SP},
    [X86_OP_POP] = {STEP_POP, SP, SP},
    [X86_OP_LEAVE] = {STEP_LEAVE, SP | BIT(X86_RBP), SP | BIT(X86_RBP)},
    [X86_OP_PUSHA] = {STEP_SYSTEM, EIGHT, SP},
    [X86_OP_POPA] = {STEP_SYSTEM, EIGHT, EIGHT},
    [X86_OP_PUSH_SREG] = {STEP_SYSTEM, SP, SP},
    [X86_OP_POP_SREG] = {STEP_SYSTEM, SP, SP},
    [X86_OP_MOV_TO_SREG] = {STEP_SYSTEM, 0, 0},
    [X86_OP_MOV_FROM_SREG] = {STEP_SYSTEM, 0, 0},
    [X86_OP_LDS] = {STEP_SYSTEM, 0, 0},
    [X86_OP_LES] = {STEP_SYSTEM, 0, 0},
    [X86_OP_LFS] = {STEP_SYSTEM, 0, 0},
    [X86_OP_LGS] = {STEP_SYSTEM, 0, 0},
    [X86_OP_LODS] = {STEP_SYSTEM, AX | SI, AX | SI},
    [X86_OP_STOS] = {STEP_SYSTEM, AX | DI, DI},
    [X86_OP_MOVS] = {STEP_SYSTEM, SI | DI, SI | DI},
    [X86_OP_SCAS] = {STEP_SYSTEM, AX | DI, DI},
    [X86_OP_CMPS] = {STEP_SYSTEM, SI | DI, SI | DI},
};

static unsigned far_segment(enum x86_op op)
{
    return op == X86_OP_LDS ? X86_DS : op == X86_OP_LES ? X86_ES : op == X86_OP_LFS ? X86_FS
                                                                                    : X86_GS;
}

/* Whether the segments that it reaches allow it. */
static bool reaches(const struct build *b, const struct step *s)
{
    const struct x86_insn *insn = &s->insn;
    const struct x86_operand *memory = x86_memory_operand(insn);

    switch (insn->op) {
    case X86_OP_LEA:
        return true;
    case X86_OP_CALL_INDIRECT: case X86_OP_PUSH:
        return segment_allows(b, X86_SS, X86_WRITE) &&
               (!memory || segment_allows(b, insn->memory.segment, X86_READ));
    case X86_OP_CALL: case X86_OP_PUSHA: case X86_OP_PUSH_SREG:
        return segment_allows(b, X86_SS, X86_WRITE);
    case X86_OP_POP: case X86_OP_POPA: case X86_OP_RET: case X86_OP_LEAVE: case X86_OP_POP_SREG:
        return segment_allows(b, X86_SS, X86_READ);
    case X86_OP_STOS:
        return segment_allows(b, X86_ES, X86_WRITE);
    case X86_OP_MOVS:
        return segment_allows(b, X86_ES, X86_WRITE) &&
               segment_allows(b, insn->memory.segment, X86_READ);
    case X86_OP_CMPS: case X86_OP_SCAS:
        return segment_allows(b, X86_ES, X86_READ) &&
               segment_allows(b, insn->memory.segment, X86_READ);
    default:
        return !memory || segment_allows(b, insn->memory.segment, memory->access);
    }
}

static bool knows(const struct build *b, const struct step *s)
{
    const struct x86_insn *insn = &s->insn;
    const struct x86_operand *o = insn->operands;

    switch (insn->op) {
    case X86_OP_POP: /* POP to memory has rules of its own */
        return o[0].kind == X86_OPERAND_GPR;
    case X86_OP_POP_SREG: case X86_OP_MOV_TO_SREG:
        return segment_loads_simply(b, o[0].reg);
    case X86_OP_LDS: case X86_OP_LES: case X86_OP_LFS: case X86_OP_LGS:
        return segment_loads_simply(b, far_segment(insn->op));
    case X86_OP_LODS: case X86_OP_STOS: case X86_OP_MOVS: case X86_OP_SCAS: case X86_OP_CMPS:
        return !(insn->prefixes & (X86_PREFIX_REP | X86_PREFIX_REPNE));
    default:
        return true;
    }
}

/* A branch to an offset of 16 bits wraps around; one beyond the limit faults. */
static bool aim(const struct build *b, struct step *s)
{
    uint32_t to = segment_rip(b, s->rip) + s->insn.length + (uint32_t)s->insn.immediate;

    if (s->insn.operand_size == 2)
        to = (uint16_t)to;
    s->target = (uint32_t)(b->unit->code_base + to);
    return to <= b->unit->code_limit;
}

void sixteen_refine(const struct build *b, struct step *s)
{
    const struct x86_row *row = &x86_rows[s->insn.row];
    const struct known *k = &known[s->insn.op];

    if (k->kind != STEP_INTERPRET && b->t->offered[row->feature]) {
        s->kind = knows(b, s) ? k->kind : STEP_INTERPRET;
        s->mentions |= k->mentions;
        s->writes |= k->writes;
        s->flags_read = row->flags_read & ALL_FLAGS;
        s->flags_killed = row->flags_written & ALL_FLAGS;
    }
    /* VEX does not exist in real mode, and has bits that are ignored elsewhere. */
    if (s->insn.vex || !reaches(b, s) ||
        ((s->kind == STEP_JCC || s->kind == STEP_JUMP || s->kind == STEP_CALL) && !aim(b, s)))
        s->kind = STEP_INTERPRET;
}

bool sixteen_knows_system(const struct x86_insn *insn)
{
    switch (insn->op) {
    case X86_OP_CLI: case X86_OP_STI: case X86_OP_CLD: case X86_OP_STD: case X86_OP_PAUSE:
    case X86_OP_MOV_FROM_CR: case X86_OP_RDTSC: case X86_OP_FLDCW:
        return true;
    default:
        return false;
    }
}

/* --- Operands --- */

/* Zero-extended. */
static void load(struct build *b, unsigned size, unsigned reg, struct emit_memory m)
{
    emit_rm(b->e, false, size == 1 ? 0x0fb6 : size == 2 ? 0x0fb7 : 0x8b, reg, m);
}

/* An instruction of that size; opcode is its form for bytes, the other one is one more. */
static void operate(struct build *b, unsigned size, unsigned opcode, unsigned reg,
                    struct emit_memory m)
{
    if (size == 2)
        emit_u8(b->e, 0x66);
    emit_rm(b->e, false, opcode + (size > 1), reg, m);
}

enum { STORE = 0x88, LOAD = 0x8a, COMPARE = 0x3a };

/* reg = reg + index * scale + by, in an address size. */
static void move(struct build *b, unsigned size, unsigned reg, unsigned from, unsigned index,
                 unsigned scale, int32_t by)
{
    if (size == 2)
        emit_u8(b->e, 0x66);
    emit_rm(b->e, false, 0x8d, reg, /* LEA */
            (struct emit_memory){(uint8_t)from, (uint8_t)index, (uint8_t)scale, false, by});
}

static void move_sp(struct build *b, int32_t by)
{
    move(b, segment_stack_size(b), X86_RSP, X86_RSP, EMIT_NONE, 1, by);
}

static struct emit_memory reach(struct build *b, unsigned i, unsigned size, unsigned access)
{
    const struct x86_insn *insn = &b->steps[i].insn;

    return memory_reach(b, i, &insn->memory, insn->address_size, size, access);
}

static struct emit_memory reach_stack(struct build *b, unsigned i, unsigned base, int displacement,
                                      unsigned size, unsigned access)
{
    struct x86_memory stack = memory_stack(displacement);

    stack.base = (uint8_t)base;
    return memory_reach(b, i, &stack, segment_stack_size(b), size, access);
}

static struct emit_memory reach_destination(struct build *b, unsigned i, unsigned size,
                                            unsigned access)
{
    const struct x86_memory m = {
        .base = X86_RDI, .index = X86_NO_REGISTER, .scale = 1, .segment = X86_ES};

    return memory_reach(b, i, &m, b->steps[i].insn.address_size, size, access);
}

/* The same place by s2 alone: s1 is free then. */
static struct emit_memory in_s2(struct build *b, struct emit_memory m)
{
    emit_lea(b->e, b->s2, m);
    return emit_based(b->s2, EMIT_NONE, 0);
}

static struct emit_memory later(struct emit_memory m, unsigned bytes)
{
    m.displacement += (int32_t)bytes;
    return m;
}

/* --- The stack --- */

static void emit_push(struct build *b, unsigned i)
{
    const struct x86_insn *insn = &b->steps[i].insn;
    const struct x86_operand *o = &insn->operands[0];
    const unsigned size = insn->operand_size;
    struct emit_memory m;

    if (o->kind == X86_OPERAND_MEMORY) {
        load(b, size, b->s1, reach(b, i, size, X86_READ));
        emit_store(b->e, FIELD(scratch_value), b->s1);
    }
    m = reach_stack(b, i, X86_RSP, -(int)size, size, X86_WRITE);
    if (o->kind == X86_OPERAND_GPR) {
        operate(b, size, STORE, o->reg, m);
    } else if (o->kind == X86_OPERAND_MEMORY) {
        m = in_s2(b, m);
        emit_load(b->e, b->s1, FIELD(scratch_value));
        operate(b, size, STORE, b->s1, m);
    } else {
        operate(b, size, 0xc6, 0, m); /* MOV */
        emit_bytes(b->e, &insn->immediate, size);
    }
    move_sp(b, -(int)size);
}

static void emit_pop(struct build *b, unsigned i)
{
    const struct x86_insn *insn = &b->steps[i].insn;
    const unsigned size = insn->operand_size;
    struct emit_memory m = reach_stack(b, i, X86_RSP, 0, size, X86_READ);

    move_sp(b, (int)size);
    operate(b, size, LOAD, insn->operands[0].reg, m);
}

static void emit_leave(struct build *b, unsigned i)
{
    const unsigned size = b->steps[i].insn.operand_size;
    struct emit_memory m = reach_stack(b, i, X86_RBP, 0, size, X86_READ);

    move(b, segment_stack_size(b), X86_RSP, X86_RBP, EMIT_NONE, 1, (int)size);
    operate(b, size, LOAD, X86_RBP, m);
}

/* PUSHA and POPA are one access here, which must not wrap around in the middle. */
static struct emit_memory reach_all(struct build *b, unsigned i, int displacement,
                                    unsigned access)
{
    const unsigned size = 8u * b->steps[i].insn.operand_size;
    struct x86_memory stack = memory_stack(displacement);

    if (segment_stack_size(b) == 2) {
        segment_offset(b, &stack, 2, b->s1);
        segment_require(b, i, b->s1, 0x10000 - size);
    }
    return in_s2(b, reach_stack(b, i, X86_RSP, displacement, size, access));
}

static void emit_push_all(struct build *b, unsigned i)
{
    const unsigned size = b->steps[i].insn.operand_size;
    const struct emit_memory m = reach_all(b, i, -8 * (int)size, X86_WRITE);

    for (unsigned reg = X86_RAX; reg <= X86_RDI; reg++)
        operate(b, size, STORE, reg, later(m, (X86_RDI - reg) * size));
    move_sp(b, -8 * (int)size);
}

static void emit_pop_all(struct build *b, unsigned i)
{
    const unsigned size = b->steps[i].insn.operand_size;
    const struct emit_memory m = reach_all(b, i, 0, X86_READ);

    for (unsigned reg = X86_RAX; reg <= X86_RDI; reg++)
        if (reg != X86_RSP)
            operate(b, size, LOAD, reg, later(m, (X86_RDI - reg) * size));
    move_sp(b, 8 * (int)size);
}

/* --- Segment registers --- */

/* Of 32 bits, the upper half stays as it is in memory. */
static void emit_push_segment(struct build *b, unsigned i)
{
    const struct x86_insn *insn = &b->steps[i].insn;
    const unsigned size = insn->operand_size;
    struct emit_memory m = in_s2(b, reach_stack(b, i, X86_RSP, -(int)size, size, X86_WRITE));

    segment_emit_selector(b, insn->operands[0].reg, b->s1);
    operate(b, 2, STORE, b->s1, m);
    move_sp(b, -(int)size);
}

static void emit_pop_segment(struct build *b, unsigned i)
{
    const struct x86_insn *insn = &b->steps[i].insn;

    load(b, 2, b->s1, reach_stack(b, i, X86_RSP, 0, insn->operand_size, X86_READ));
    move_sp(b, insn->operand_size);
    segment_emit_load(b, insn->operands[0].reg, b->s1, b->s2);
}

static void emit_to_segment(struct build *b, unsigned i)
{
    const struct x86_operand *o = b->steps[i].insn.operands;

    if (o[1].kind == X86_OPERAND_MEMORY)
        load(b, 2, b->s1, reach(b, i, 2, X86_READ));
    else
        emit_movzx16(b->e, b->s1, o[1].reg);
    segment_emit_load(b, o[0].reg, b->s1, b->s2);
}

static void emit_from_segment(struct build *b, unsigned i)
{
    const struct x86_insn *insn = &b->steps[i].insn;
    const struct x86_operand *o = insn->operands;
    struct emit_memory m;

    if (o[0].kind == X86_OPERAND_MEMORY) {
        m = in_s2(b, reach(b, i, 2, X86_WRITE));
        segment_emit_selector(b, o[1].reg, b->s1);
        operate(b, 2, STORE, b->s1, m);
        return;
    }
    segment_emit_selector(b, o[1].reg, b->s1);
    if (insn->operand_size == 2)
        emit_u8(b->e, 0x66);
    emit_rr(b->e, false, 0x8b, o[0].reg, b->s1);
}

static void emit_far_pointer(struct build *b, unsigned i)
{
    const struct x86_insn *insn = &b->steps[i].insn;
    const unsigned size = insn->operand_size;
    struct emit_memory m = in_s2(b, reach(b, i, size + 2, X86_READ));

    load(b, 2, b->s1, later(m, size));
    operate(b, size, LOAD, insn->operands[0].reg, m);
    segment_emit_load(b, far_segment(insn->op), b->s1, b->s2);
}

/* --- Strings --- */

/* What an element moves the index registers by, over its size, into s1: 1, or -1 with DF. */
static void direction(struct build *b)
{
    emit_rm(b->e, false, 0x8b, b->s1, FIELD(cpu.state.rflags));
    emit_pext(b->e, b->s1, b->s1, FIELD(only_df));
    emit_rr(b->e, true, 0xf7, 2, b->s1); /* NOT */
    emit_lea(b->e, b->s1, emit_based(b->s1, b->s1, 3));
}

static void advance(struct build *b, const struct step *s, unsigned size)
{
    static const uint8_t registers[] = {X86_RSI, X86_RDI};

    direction(b);
    for (unsigned k = 0; k < 2; k++)
        if (s->writes >> registers[k] & 1)
            move(b, s->insn.address_size, registers[k], registers[k], b->s1, size, 0);
}

static void emit_string(struct build *b, unsigned i)
{
    const struct step *s = &b->steps[i];
    const unsigned size = x86_memory_operand(&s->insn)->size;
    struct emit_memory m;

    switch (s->insn.op) {
    case X86_OP_LODS:
        operate(b, size, LOAD, X86_RAX, reach(b, i, size, X86_READ));
        break;
    case X86_OP_STOS:
        operate(b, size, STORE, X86_RAX, reach_destination(b, i, size, X86_WRITE));
        break;
    case X86_OP_SCAS:
        operate(b, size, COMPARE, X86_RAX, reach_destination(b, i, size, X86_READ));
        break;
    case X86_OP_MOVS:
        load(b, size, b->s1, reach(b, i, size, X86_READ));
        emit_store(b->e, FIELD(scratch_value), b->s1);
        m = in_s2(b, reach_destination(b, i, size, X86_WRITE));
        emit_load(b->e, b->s1, FIELD(scratch_value));
        operate(b, size, STORE, b->s1, m);
        break;
    default: /* CMPS */
        load(b, size, b->s1, reach_destination(b, i, size, X86_READ));
        emit_store(b->e, FIELD(scratch_value), b->s1);
        load(b, size, b->s1, reach(b, i, size, X86_READ));
        operate(b, size, COMPARE, b->s1, FIELD(scratch_value));
        break;
    }
    advance(b, s, size);
}

/* --- Branches --- */

/* Jump if CX, or ECX, is zero or is not; the flags are kept. */
static uint8_t *jump_by_count(struct build *b, unsigned size, bool zero)
{
    struct emit *e = b->e;
    uint8_t *empty, *taken, *end;

    emit_store(e, FIELD(saved_rcx), X86_RCX);
    emit_rr(e, false, size == 2 ? 0x0fb7 : 0x8b, X86_RCX, X86_RCX);
    empty = emit_jrcxz(e);
    emit_load(e, X86_RCX, FIELD(saved_rcx));
    taken = emit_jump(e);
    emit_patch_short(empty, e->at);
    emit_load(e, X86_RCX, FIELD(saved_rcx));
    if (!zero)
        return taken;
    end = taken;
    taken = emit_jump(e);
    emit_patch(end, e->at);
    return taken;
}

uint8_t *sixteen_emit_loop(struct build *b, unsigned i)
{
    const struct step *s = &b->steps[i];
    const unsigned size = s->insn.address_size;
    struct emit *e = b->e;
    uint8_t *counts, *taken, *end;

    if (s->insn.op == X86_OP_JCXZ)
        return jump_by_count(b, size, true);
    move(b, size, X86_RCX, X86_RCX, EMIT_NONE, 1, -1);
    if (s->insn.op == X86_OP_LOOP && !(s->flags_live)) {
        if (size == 2)
            emit_u8(e, 0x66);
        emit_rr(e, false, 0x85, X86_RCX, X86_RCX); /* TEST */
        return emit_jcc(e, EMIT_NOT_EQUAL);
    }
    counts = jump_by_count(b, size, false);
    if (s->insn.op == X86_OP_LOOP)
        return counts;
    end = emit_jump(e);
    emit_patch(counts, e->at);
    taken = emit_jcc(e, s->insn.op == X86_OP_LOOPE ? EMIT_EQUAL : EMIT_NOT_EQUAL);
    emit_patch(end, e->at);
    return taken;
}

static void push_return(struct build *b, unsigned i)
{
    const struct step *s = &b->steps[i];
    const unsigned size = s->insn.operand_size;
    const uint32_t back = segment_rip(b, s->rip) + s->insn.length;

    operate(b, size, 0xc6, 0, reach_stack(b, i, X86_RSP, -(int)size, size, X86_WRITE)); /* MOV */
    emit_bytes(b->e, &back, size);
    move_sp(b, -(int)size);
}

static const struct rebuild *end_rebuild(const struct build *b)
{
    return b->rebuilds ? &b->rebuild : NULL;
}

static void emit_call(struct build *b, unsigned i)
{
    const struct step *s = &b->steps[i];

    push_return(b, i);
    end_step(b, s);
    branch_exit(b, s->rip, s->target, NULL, end_rebuild(b));
}

/* Go where s1 leads. */
static void go(struct build *b, const struct step *s)
{
    const bool plain = !b->lent && !b->borrowed;

    if (!plain)
        emit_store(b->e, FIELD(scratch_value), b->s1);
    end_step(b, s);
    branch_indirect(b, s, plain ? b->s1 : EMIT_NONE, 0, end_rebuild(b));
}

static void emit_return(struct build *b, unsigned i)
{
    const struct step *s = &b->steps[i];
    const unsigned size = s->insn.operand_size;

    load(b, size, b->s1, reach_stack(b, i, X86_RSP, 0, size, X86_READ));
    segment_check_target(b, i, b->s1, size);
    move_sp(b, (int)size + (s->insn.operand_count ? (uint16_t)s->insn.immediate : 0));
    segment_emit_key(b, b->s1, b->s2);
    go(b, s);
}

static void emit_indirect(struct build *b, unsigned i)
{
    const struct step *s = &b->steps[i];
    const struct x86_operand *o = &s->insn.operands[0];
    const unsigned size = s->insn.operand_size;

    if (o->kind == X86_OPERAND_MEMORY)
        load(b, size, b->s1, reach(b, i, size, X86_READ));
    else
        emit_rr(b->e, false, size == 2 ? 0x0fb7 : 0x8b, b->s1, o->reg);
    segment_check_target(b, i, b->s1, size);
    segment_emit_key(b, b->s1, b->s2);
    if (s->kind == STEP_JUMP_INDIRECT) {
        go(b, s);
        return;
    }
    emit_store(b->e, FIELD(scratch_value), b->s1);
    push_return(b, i);
    end_step(b, s);
    branch_indirect(b, s, EMIT_NONE, 0, end_rebuild(b));
}

/* --- All of them --- */

static void emit_other(struct build *b, unsigned i)
{
    switch (b->steps[i].insn.op) {
    case X86_OP_PUSHA: emit_push_all(b, i); break;
    case X86_OP_POPA: emit_pop_all(b, i); break;
    case X86_OP_PUSH_SREG: emit_push_segment(b, i); break;
    case X86_OP_POP_SREG: emit_pop_segment(b, i); break;
    case X86_OP_MOV_TO_SREG: emit_to_segment(b, i); break;
    case X86_OP_MOV_FROM_SREG: emit_from_segment(b, i); break;
    case X86_OP_LDS: case X86_OP_LES: case X86_OP_LFS: case X86_OP_LGS:
        emit_far_pointer(b, i);
        break;
    default: emit_string(b, i); break;
    }
}

bool sixteen_emit(struct build *b, unsigned i)
{
    const struct step *s = &b->steps[i];
    const enum step_kind kind = known[s->insn.op].kind;

    if (s->kind == STEP_INTERPRET || kind == STEP_INTERPRET || kind == STEP_JCC ||
        kind == STEP_JUMP)
        return false;
    begin_step(b, s, true);
    switch (kind) {
    case STEP_CALL: emit_call(b, i); return true;
    case STEP_CALL_INDIRECT: case STEP_JUMP_INDIRECT: emit_indirect(b, i); return true;
    case STEP_RETURN: emit_return(b, i); return true;
    case STEP_PUSH: emit_push(b, i); break;
    case STEP_POP: emit_pop(b, i); break;
    case STEP_LEAVE: emit_leave(b, i); break;
    default: emit_other(b, i); break;
    }
    end_step(b, s);
    return true;
}
