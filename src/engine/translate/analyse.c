#include "engine/translate/analyse.h"

#define ALL_FLAGS ((uint16_t)(X86_STATUS_FLAGS & 0xfff))
#define BIT(reg)  ((uint16_t)(1u << (reg)))
#define AX BIT(X86_RAX)
#define CX BIT(X86_RCX)
#define DX BIT(X86_RDX)
#define BX BIT(X86_RBX)
#define SP BIT(X86_RSP)
#define BP BIT(X86_RBP)
#define DI BIT(X86_RDI)

/* Registers that the operand list of the table does not name (SDM 2). */
static const struct implied {
    uint16_t reads, writes;
} implied_registers[X86_OP_COUNT] = {
    [X86_OP_MUL] = {AX, AX | DX},
    [X86_OP_DIV] = {AX | DX, AX | DX},
    [X86_OP_IDIV] = {AX | DX, AX | DX},
    [X86_OP_CBW] = {AX, AX},
    [X86_OP_CWD] = {AX, DX},
    [X86_OP_CMPXCHG] = {AX, AX},
    [X86_OP_LAHF] = {AX, AX},
    [X86_OP_SAHF] = {AX, 0},
    [X86_OP_CMPXCHG8B] = {AX | DX | CX | BX, AX | DX},
    [X86_OP_CMPXCHG16B] = {AX | DX | CX | BX, AX | DX},
    [X86_OP_MULX] = {DX, 0},
    [X86_OP_PCMPESTRI] = {AX | DX, CX},
    [X86_OP_PCMPESTRM] = {AX | DX, 0},
    [X86_OP_PCMPISTRI] = {0, CX},
    [X86_OP_VPCMPESTRI] = {AX | DX, CX},
    [X86_OP_VPCMPESTRM] = {AX | DX, 0},
    [X86_OP_VPCMPISTRI] = {0, CX},
    [X86_OP_PUSH] = {SP, SP},
    [X86_OP_POP] = {SP, SP},
    [X86_OP_LEAVE] = {SP | BP, SP | BP},
    [X86_OP_CALL] = {SP, SP},
    [X86_OP_CALL_INDIRECT] = {SP, SP},
    [X86_OP_RET] = {SP, SP},
};

/* Instructions that cannot be copied although nothing else says so: they reach
 * memory in ways that one check does not cover, or touch state that is not in
 * the host's registers while translated code runs. */
static const bool interpreted[X86_OP_COUNT] = {
    [X86_OP_XLAT] = true, [X86_OP_ENTER] = true, [X86_OP_PUSHF] = true, [X86_OP_POPF] = true,
    [X86_OP_CLD] = true, [X86_OP_STD] = true, [X86_OP_PAUSE] = true, [X86_OP_FLDCW] = true,
    [X86_OP_FLDENV] = true, [X86_OP_FNSTENV] = true, [X86_OP_FRSTOR] = true,
    [X86_OP_FNSAVE] = true, [X86_OP_FNINIT] = true, [X86_OP_LDMXCSR] = true,
    [X86_OP_FXSAVE] = true, [X86_OP_FXRSTOR] = true, [X86_OP_XSAVE] = true,
    [X86_OP_XRSTOR] = true, [X86_OP_XSAVEOPT] = true, [X86_OP_XSAVEC] = true,
    [X86_OP_CLFLUSH] = true, [X86_OP_CLFLUSHOPT] = true, [X86_OP_CLWB] = true,
    [X86_OP_XGETBV] = true, [X86_OP_MASKMOVQ] = true, [X86_OP_MASKMOVDQU] = true,
    [X86_OP_VMASKMOVDQU] = true, [X86_OP_VLDMXCSR] = true,
};

static bool is_bit_test(const struct x86_insn *insn)
{
    return insn->op == X86_OP_BT || insn->op == X86_OP_BTS || insn->op == X86_OP_BTR ||
           insn->op == X86_OP_BTC;
}

/* Moves under a mask: what is masked out must not fault. */
static bool is_masked(const struct x86_insn *insn)
{
    return insn->op == X86_OP_VMASKMOVPS || insn->op == X86_OP_VMASKMOVPD ||
           insn->op == X86_OP_VPMASKMOVD || insn->op == X86_OP_VPMASKMOVQ ||
           insn->memory.vsib;
}

/* The operands that keep an instruction from being copied. */
static bool copyable_operand(const struct x86_insn *insn, const struct x86_operand *operand)
{
    switch (operand->kind) {
    case X86_OPERAND_SEGMENT: case X86_OPERAND_CONTROL: case X86_OPERAND_DEBUG:
    case X86_OPERAND_FAR:
        return false;
    case X86_OPERAND_MEMORY:
        if (insn->op == X86_OP_LEA)
            return true;
        return operand->size && operand->size <= 32;
    default:
        return true;
    }
}

static bool copyable(const struct x86_insn *insn)
{
    const struct x86_row *row = &x86_rows[insn->row];
    const struct x86_operand *memory = x86_memory_operand(insn);

    if (row->attributes & (X86_ATTR_PRIVILEGED | X86_ATTR_STRING | X86_ATTR_SERIALIZING |
                           X86_ATTR_NONDETERMINISTIC | X86_ATTR_BRANCH))
        return false;
    if (interpreted[insn->op])
        return false;
    for (unsigned i = 0; i < insn->operand_count; i++) {
        if (!copyable_operand(insn, &insn->operands[i]))
            return false;
        /* AH to BH cannot be named beside R8 to R15, where the address may come to lie. */
        if (insn->operands[i].high_byte && memory && insn->mode == X86_MODE_64)
            return false;
    }
    if (memory && row->feature == X86_FEATURE_SHA)
        return false; /* not every host minds an unaligned operand */
    if (memory && is_bit_test(insn) && insn->operands[1].kind == X86_OPERAND_GPR)
        return false; /* the bit may lie anywhere */
    /* In 32-bit code these mean something else than in the host's 64-bit code. */
    if (insn->mode != X86_MODE_64 &&
        (insn->op == X86_OP_VZEROALL ||
         insn->op == X86_OP_VZEROUPPER ||
         ((row->attributes & X86_ATTR_NO64) && insn->op != X86_OP_INC && insn->op != X86_OP_DEC)))
        return false;
    return !is_masked(insn);
}

static enum step_kind kind_of(const struct x86_insn *insn)
{
    /* What 32-bit code does with 16 bits, segmented code knows: sixteen.c. */
    const bool wide = insn->mode == X86_MODE_16 ||
                      insn->operand_size == (insn->mode == X86_MODE_64 ? 8 : 4);
    const bool branches = insn->mode == X86_MODE_64 || wide;

    switch (insn->op) {
    case X86_OP_NOP: case X86_OP_PREFETCH:
        return STEP_NOTHING;
    case X86_OP_JCC:
        return branches ? STEP_JCC : STEP_INTERPRET;
    case X86_OP_JMP:
        return branches ? STEP_JUMP : STEP_INTERPRET;
    case X86_OP_JMP_INDIRECT:
        return wide ? STEP_JUMP_INDIRECT : STEP_INTERPRET;
    case X86_OP_CALL:
        return wide ? STEP_CALL : STEP_INTERPRET;
    case X86_OP_CALL_INDIRECT:
        return wide ? STEP_CALL_INDIRECT : STEP_INTERPRET;
    case X86_OP_RET:
        return wide ? STEP_RETURN : STEP_INTERPRET;
    case X86_OP_PUSH:
        return wide ? STEP_PUSH : STEP_INTERPRET;
    case X86_OP_POP:
        /* POP to memory has rules of its own. */
        return wide && insn->operands[0].kind == X86_OPERAND_GPR ? STEP_POP : STEP_INTERPRET;
    case X86_OP_LEAVE:
        return wide ? STEP_LEAVE : STEP_INTERPRET;
    default:
        return copyable(insn) ? STEP_COPY : STEP_INTERPRET;
    }
}

static void add_operands(struct step *step)
{
    const struct x86_insn *insn = &step->insn;
    const struct implied *implied = &implied_registers[insn->op];

    for (unsigned i = 0; i < insn->operand_count; i++) {
        const struct x86_operand *o = &insn->operands[i];

        if (o->kind == X86_OPERAND_GPR) {
            step->mentions |= BIT(o->reg);
            if (o->access & X86_WRITE)
                step->writes |= BIT(o->reg);
        } else if (o->kind == X86_OPERAND_MEMORY) {
            if (insn->memory.base != X86_NO_REGISTER)
                step->mentions |= BIT(insn->memory.base);
            if (insn->memory.index != X86_NO_REGISTER && !insn->memory.vsib)
                step->mentions |= BIT(insn->memory.index);
        } else if (o->kind == X86_OPERAND_XMM || o->kind == X86_OPERAND_YMM) {
            step->sse = true;
            step->avx |= insn->vex;
        } else if (o->kind == X86_OPERAND_MMX) {
            step->x87 = true;
        }
    }
    step->mentions |= implied->reads | implied->writes;
    step->writes |= implied->writes;
    /* The one-operand form; the others name theirs. */
    if (insn->op == X86_OP_IMUL && insn->operand_count == 1) {
        step->mentions |= AX | DX;
        step->writes |= AX | DX;
    }
}

/* Shifts and rotates leave the flags alone when the count is zero. */
static bool may_keep_flags(const struct x86_insn *insn)
{
    const struct x86_operand *last;

    switch (insn->op) {
    case X86_OP_ROL: case X86_OP_ROR: case X86_OP_RCL: case X86_OP_RCR: case X86_OP_SHL:
    case X86_OP_SHR: case X86_OP_SAR: case X86_OP_SHLD: case X86_OP_SHRD:
        last = &insn->operands[insn->operand_count - 1];
        if (last->kind == X86_OPERAND_GPR)
            return true;
        return !((uint64_t)insn->immediate & 31);
    default:
        return false;
    }
}

/* What the sixteen conditions look at, in pairs (SDM 1 appendix B). */
static const uint16_t condition_flags[8] = {
    X86_OF, X86_CF, X86_ZF, X86_CF | X86_ZF, X86_SF, X86_PF, X86_SF | X86_OF,
    X86_ZF | X86_SF | X86_OF,
};

static uint16_t read_flags(const struct x86_insn *insn)
{
    switch (insn->op) {
    case X86_OP_JCC: case X86_OP_SETCC: case X86_OP_CMOVCC:
        return condition_flags[insn->opcode >> 1 & 7];
    default:
        return x86_rows[insn->row].flags_read & ALL_FLAGS;
    }
}

static void analyse_flags(struct step *step)
{
    const struct x86_row *row = &x86_rows[step->insn.row];

    if (step->kind == STEP_INTERPRET) {
        step->flags_read = ALL_FLAGS;
        step->flags_killed = 0;
        return;
    }
    step->flags_read = read_flags(&step->insn);
    step->flags_killed = row->flags_written & ALL_FLAGS;
    if (may_keep_flags(&step->insn))
        step->flags_killed = 0;
}

void analyse_step(struct step *step, bool offered)
{
    const struct x86_row *row = &x86_rows[step->insn.row];
    const struct x86_operand *memory = x86_memory_operand(&step->insn);

    step->mentions = step->writes = 0;
    step->sse = step->avx = step->leader = step->loop = step->follows = false;
    step->x87 = row->feature == X86_FEATURE_FPU || row->feature == X86_FEATURE_MMX;
    step->inside = NO_STEP;
    step->kind = offered ? kind_of(&step->insn) : STEP_INTERPRET;
    add_operands(step);
    switch (step->insn.op) {
    case X86_OP_VZEROUPPER: case X86_OP_VZEROALL: case X86_OP_VSTMXCSR: case X86_OP_VCVTSD2SI:
    case X86_OP_VCVTTSD2SI: case X86_OP_VCVTSS2SI: case X86_OP_VCVTTSS2SI:
        step->avx = true;
        step->sse = true;
        break;
    case X86_OP_STMXCSR: case X86_OP_CVTSD2SI: case X86_OP_CVTTSD2SI: case X86_OP_CVTSS2SI:
    case X86_OP_CVTTSS2SI: case X86_OP_CVTPS2PI: case X86_OP_CVTTPS2PI: case X86_OP_CVTPD2PI:
    case X86_OP_CVTTPD2PI:
        step->sse = true;
        break;
    case X86_OP_FISTTP: case X86_OP_FWAIT:
        step->x87 = true;
        break;
    default:
        break;
    }
    step->can_trap = step->insn.op == X86_OP_DIV || step->insn.op == X86_OP_IDIV ||
                     (memory && (row->attributes & X86_ATTR_ALIGNED)) ||
                     (memory && step->sse && !step->insn.vex);
    if (step->insn.operand_count && step->insn.operands[0].kind == X86_OPERAND_RELATIVE)
        step->target = step->rip + step->insn.length + (uint64_t)step->insn.immediate;
    if (step->insn.mode != X86_MODE_64)
        step->target = (uint32_t)step->target;
    analyse_flags(step);
}

#define PEEK_INSNS 8

static bool stores(const struct step *s)
{
    const struct x86_operand *memory = x86_memory_operand(&s->insn);

    return (memory && (memory->access & X86_WRITE)) || s->kind == STEP_PUSH ||
           s->kind == STEP_CALL || s->kind == STEP_CALL_INDIRECT;
}

uint16_t analyse_flags_at(const uint8_t *bytes, unsigned available, enum x86_mode mode,
                          bool written)
{
    uint16_t unknown = ALL_FLAGS, live = 0;

    for (unsigned i = 0; i < PEEK_INSNS && unknown; i++) {
        struct step step;

        if (x86_decode(bytes, available, mode, &step.insn) != X86_DECODE_OK)
            break;
        step.kind = kind_of(&step.insn);
        analyse_flags(&step);
        if (written && stores(&step))
            break;
        live |= step.flags_read & unknown;
        unknown &= (uint16_t)~(step.flags_killed | step.flags_read);
        if (x86_rows[step.insn.row].attributes & X86_ATTR_BRANCH)
            break;
        bytes += step.insn.length;
        available -= step.insn.length;
    }
    return live | unknown;
}

/* That nobody reads a flag is true of the code as it is now. Where code has written to its
 * own page, or to one of its trace, the next store may change the code that follows it. */
void analyse_stores(struct step *steps, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (stores(&steps[i]))
            steps[i].flags_read = ALL_FLAGS;
}

void analyse_liveness(struct step *steps, unsigned count, uint16_t live_out)
{
    bool changed = true;

    /* Loops: until nothing changes. It only grows, so it ends. */
    while (changed) {
        uint16_t live = live_out;

        changed = false;
        for (unsigned i = count; i-- > 0;) {
            struct step *step = &steps[i];
            const bool ends = step->kind == STEP_JUMP;
            uint16_t taken = step->inside != NO_STEP ? steps[step->inside].flags_live
                                                     : step->taken_live;

            if (step->kind == STEP_JCC || step->follows)
                live |= taken;
            else if (ends || step->kind >= STEP_JUMP_INDIRECT)
                live = taken;
            live = (uint16_t)((live & ~step->flags_killed) | step->flags_read);
            if (live != step->flags_live) {
                step->flags_live = live;
                changed = true;
            }
        }
    }
}
