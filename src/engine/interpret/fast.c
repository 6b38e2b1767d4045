/* Fast forms: 32- and 64-bit MOV, arithmetic and logic between registers,
 * immediates and 64-bit-mode memory, LEA, Jcc, PUSH, POP, CALL, RET. */
#include "engine/interpret/fast.h"

#include "engine/interpret/arithmetic.h"

/* Addresses of 64-bit mode with 64-bit address size, without FS and GS. */
ALWAYS_INLINE uint64_t fast_address(const struct cpu *cpu, const struct x86_insn *insn)
{
    const struct x86_memory *m = &insn->memory;
    uint64_t address = (uint64_t)m->displacement;

    if (likely(m->base != X86_NO_REGISTER))
        address += cpu->state.gpr[m->base];
    if (m->index != X86_NO_REGISTER)
        address += cpu->state.gpr[m->index] * m->scale;
    if (m->rip_relative)
        address += cpu->state.rip;
    return address;
}

enum form { FORM_RR, FORM_RM, FORM_MR, FORM_RI, FORM_MI, FORMS };

ALWAYS_INLINE uint64_t fast_source(struct cpu *cpu, const struct x86_insn *insn, enum form form,
                                   unsigned size)
{
    switch (form) {
    case FORM_RR: case FORM_MR:
        return gpr_read(cpu, insn->operands[1].reg, size);
    case FORM_RM:
        return cpu_load(cpu, fast_address(cpu, insn), size);
    default:
        return (uint64_t)insn->immediate;
    }
}

ALWAYS_INLINE bool memory_target(enum form form)
{
    return form == FORM_MR || form == FORM_MI;
}

ALWAYS_INLINE void fast_alu(struct cpu *cpu, const struct x86_insn *insn, enum alu op,
                            enum form form, unsigned size)
{
    const uint64_t carry = alu_carry(cpu), b = fast_source(cpu, insn, form, size);
    const uint64_t address = memory_target(form) ? fast_address(cpu, insn) : 0;
    const uint64_t a = !memory_target(form) ? gpr_read(cpu, insn->operands[0].reg, size)
                       : alu_writes(op)     ? cpu_load_to_modify(cpu, address, size)
                                            : cpu_load(cpu, address, size);
    const uint64_t result = alu_result(op, a, b, carry);

    if (alu_writes(op)) {
        if (memory_target(form))
            cpu_store(cpu, address, size, result);
        else
            gpr_write(cpu, insn->operands[0].reg, size, result);
    }
    alu_flags(cpu, op, a, b, result, size);
}

ALWAYS_INLINE void fast_mov(struct cpu *cpu, const struct x86_insn *insn, enum form form,
                            unsigned size)
{
    const uint64_t value = fast_source(cpu, insn, form, size);

    if (memory_target(form))
        cpu_store(cpu, fast_address(cpu, insn), size, value);
    else
        gpr_write(cpu, insn->operands[0].reg, size, value);
}

#define ALU_FORM(name, op, form, size)                                                             \
    static void name##_##form##_##size(struct cpu *cpu, const struct x86_insn *insn)               \
    {                                                                                              \
        fast_alu(cpu, insn, op, form, size);                                                       \
    }
#define ALU_SIZES(name, op, form)                                                                  \
    ALU_FORM(name, op, form, 1) ALU_FORM(name, op, form, 4) ALU_FORM(name, op, form, 8)
#define ALU_FORMS(name, op)                                                                        \
    ALU_SIZES(name, op, FORM_RR) ALU_SIZES(name, op, FORM_RM) ALU_SIZES(name, op, FORM_MR)         \
    ALU_SIZES(name, op, FORM_RI) ALU_SIZES(name, op, FORM_MI)

ALU_FORMS(add, ALU_ADD)
ALU_FORMS(or, ALU_OR)
ALU_FORMS(and, ALU_AND)
ALU_FORMS(sub, ALU_SUB)
ALU_FORMS(xor, ALU_XOR)
ALU_FORMS(cmp, ALU_CMP)
ALU_FORMS(test, ALU_TEST)

#define MOV_FORM(form, size)                                                                       \
    static void mov_##form##_##size(struct cpu *cpu, const struct x86_insn *insn)                  \
    {                                                                                              \
        fast_mov(cpu, insn, form, size);                                                           \
    }
#define MOV_SIZES(form) MOV_FORM(form, 1) MOV_FORM(form, 4) MOV_FORM(form, 8)

MOV_SIZES(FORM_RR)
MOV_SIZES(FORM_RM)
MOV_SIZES(FORM_MR)
MOV_SIZES(FORM_RI)
MOV_SIZES(FORM_MI)

#define ROW(name, form) {name##_##form##_1, name##_##form##_4, name##_##form##_8}
#define ROWS(name)                                                                                 \
    {ROW(name, FORM_RR), ROW(name, FORM_RM), ROW(name, FORM_MR), ROW(name, FORM_RI),               \
     ROW(name, FORM_MI)}

/* [operation][form][size: 1, 4, 8] */
static const struct {
    enum x86_op op;
    interpret_body *bodies[FORMS][3];
} forms[] = {
    {X86_OP_MOV, ROWS(mov)}, {X86_OP_ADD, ROWS(add)}, {X86_OP_OR, ROWS(or)},
    {X86_OP_AND, ROWS(and)}, {X86_OP_SUB, ROWS(sub)}, {X86_OP_XOR, ROWS(xor)},
    {X86_OP_CMP, ROWS(cmp)}, {X86_OP_TEST, ROWS(test)},
};

static void lea_8(struct cpu *cpu, const struct x86_insn *insn)
{
    cpu->state.gpr[insn->operands[0].reg] = fast_address(cpu, insn);
}

static void push_8(struct cpu *cpu, const struct x86_insn *insn)
{
    const uint64_t rsp = cpu->state.gpr[X86_RSP] - 8;

    cpu_store(cpu, rsp, 8, cpu->state.gpr[insn->operands[0].reg]);
    cpu->state.gpr[X86_RSP] = rsp;
}

static void pop_8(struct cpu *cpu, const struct x86_insn *insn)
{
    const uint64_t rsp = cpu->state.gpr[X86_RSP], value = cpu_load(cpu, rsp, 8);

    cpu->state.gpr[X86_RSP] = rsp + 8;
    cpu->state.gpr[insn->operands[0].reg] = value;
}

ALWAYS_INLINE void go_64(struct cpu *cpu, uint64_t target)
{
    if (unlikely(!cpu_canonical(target)))
        cpu_raise_error(cpu, X86_GP, 0);
    cpu->state.rip = target;
}

static void call_64(struct cpu *cpu, const struct x86_insn *insn)
{
    const uint64_t rsp = cpu->state.gpr[X86_RSP] - 8, back = cpu->state.rip;

    go_64(cpu, back + (uint64_t)insn->immediate);
    cpu_store(cpu, rsp, 8, back);
    cpu->state.gpr[X86_RSP] = rsp;
}

static void ret_64(struct cpu *cpu, const struct x86_insn *insn)
{
    const uint64_t rsp = cpu->state.gpr[X86_RSP];

    (void)insn;
    go_64(cpu, cpu_load(cpu, rsp, 8));
    cpu->state.gpr[X86_RSP] = rsp + 8;
}

static void jmp_64(struct cpu *cpu, const struct x86_insn *insn)
{
    go_64(cpu, cpu->state.rip + (uint64_t)insn->immediate);
}

#define JCC(n)                                                                                     \
    static void jcc_64_##n(struct cpu *cpu, const struct x86_insn *insn)                           \
    {                                                                                              \
        if (flags_condition(cpu->state.rflags, n))                                                 \
            go_64(cpu, cpu->state.rip + (uint64_t)insn->immediate);                                \
    }
JCC(0) JCC(1) JCC(2) JCC(3) JCC(4) JCC(5) JCC(6) JCC(7)
JCC(8) JCC(9) JCC(10) JCC(11) JCC(12) JCC(13) JCC(14) JCC(15)

static interpret_body *const jcc_64[] = {
    jcc_64_0, jcc_64_1, jcc_64_2,  jcc_64_3,  jcc_64_4,  jcc_64_5,  jcc_64_6,  jcc_64_7,
    jcc_64_8, jcc_64_9, jcc_64_10, jcc_64_11, jcc_64_12, jcc_64_13, jcc_64_14, jcc_64_15,
};

#define MOVZX(name, from)                                                                      \
    static void name(struct cpu *cpu, const struct x86_insn *insn)                                 \
    {                                                                                              \
        gpr_write(cpu, insn->operands[0].reg, 8, cpu_load(cpu, fast_address(cpu, insn), from));    \
    }
MOVZX(movzx_m8, 1)
MOVZX(movzx_m16, 2)

static int size_index(unsigned size)
{
    return size == 1 ? 0 : size == 4 ? 1 : size == 8 ? 2 : -1;
}

static bool plain_memory(const struct x86_insn *insn)
{
    return insn->address_size == 8 && insn->memory.segment < X86_FS;
}

static interpret_body *two_operands(const struct x86_insn *insn, interpret_body *general)
{
    const struct x86_operand *to = &insn->operands[0], *from = &insn->operands[1];
    const int size = size_index(to->size);
    enum form form;

    if (insn->operand_count != 2 || size < 0 || to->high_byte || from->high_byte ||
        (insn->prefixes & X86_PREFIX_LOCK))
        return general;
    if (to->kind == X86_OPERAND_GPR)
        form = from->kind == X86_OPERAND_GPR      ? FORM_RR
               : from->kind == X86_OPERAND_MEMORY ? FORM_RM
                                                  : FORM_RI;
    else
        form = from->kind == X86_OPERAND_GPR ? FORM_MR : FORM_MI;
    if (form != FORM_RR && form != FORM_RI && !plain_memory(insn))
        return general;
    for (size_t i = 0; i < ARRAY_SIZE(forms); i++)
        if (forms[i].op == insn->op)
            return forms[i].bodies[form][size];
    return general;
}

interpret_body *interpret_fast_body(const struct x86_insn *insn, interpret_body *general)
{
    const bool wide = insn->operand_size == 8;

    if (insn->mode != X86_MODE_64)
        return general;
    switch (insn->op) {
    case X86_OP_MOV: case X86_OP_ADD: case X86_OP_OR: case X86_OP_AND: case X86_OP_SUB:
    case X86_OP_XOR: case X86_OP_CMP: case X86_OP_TEST:
        return two_operands(insn, general);
    case X86_OP_LEA:
        return wide && insn->address_size == 8 ? lea_8 : general;
    case X86_OP_PUSH:
        return wide && insn->operands[0].kind == X86_OPERAND_GPR ? push_8 : general;
    case X86_OP_POP:
        return wide && insn->operands[0].kind == X86_OPERAND_GPR ? pop_8 : general;
    case X86_OP_CALL:
        return call_64;
    case X86_OP_RET:
        return insn->operand_count ? general : ret_64;
    case X86_OP_JMP:
        return jmp_64;
    case X86_OP_JCC:
        return jcc_64[insn->opcode & 15];
    case X86_OP_MOVZX:
        if (insn->operands[1].kind != X86_OPERAND_MEMORY || insn->operands[0].size < 4 ||
            !plain_memory(insn))
            return general;
        return insn->operands[1].size == 1 ? movzx_m8 : movzx_m16;
    default:
        return general;
    }
}
