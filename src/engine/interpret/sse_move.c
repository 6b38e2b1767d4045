/* Data movement: MMX, SSE to SSE4.1 and their AVX forms (SDM 1 9.4.2, 10.4.1.1,
 * 10.4.6, 11.4.1.1), and the MXCSR loads. */
#include "engine/interpret/vector.h"

#include <string.h>

#define BODY(op, function)                                                                         \
    void interpret_##op(struct cpu *cpu, const struct x86_insn *insn)                              \
    {                                                                                              \
        function(cpu, insn);                                                                       \
    }
#define BODY_VEX(op, function) BODY(op, function) BODY(v##op, function)

/* Whole operands; aligned or not is a matter of the table. */
static void move(struct cpu *cpu, const struct x86_insn *insn)
{
    union vector value;

    vector_check(cpu, insn);
    vector_read(cpu, insn, 1, &value);
    vector_write(cpu, insn, 0, &value);
}
BODY_VEX(movaps, move)
BODY_VEX(movapd, move)
BODY_VEX(movups, move)
BODY_VEX(movupd, move)
BODY_VEX(movdqa, move)
BODY_VEX(movdqu, move)
BODY_VEX(lddqu, move)
BODY_VEX(movntps, move)
BODY_VEX(movntpd, move)
BODY_VEX(movntdq, move)
BODY_VEX(movntdqa, move)

/* At most eight bytes, zero-extended to the destination. */
static void move_low(struct cpu *cpu, const struct x86_insn *insn)
{
    union vector value;

    vector_check(cpu, insn);
    vector_read(cpu, insn, 1, &value);
    value.u64[1] = 0;
    vector_write(cpu, insn, 0, &value);
    if (insn->operands[1].kind == X86_OPERAND_MMX)
        mmx_enter(cpu);
}
BODY_VEX(movd, move_low)
BODY_VEX(movq, move_low)
BODY(movntq, move_low)
BODY(movq2dq, move_low)
BODY(movdq2q, move_low)

/* One element: a load clears the rest, a move between registers keeps it. */
static void move_scalar(struct cpu *cpu, const struct x86_insn *insn, unsigned element)
{
    unsigned source = insn->operand_count == 3 ? 2 : 1;
    union vector value, d;

    vector_check(cpu, insn);
    vector_read(cpu, insn, source, &value);
    if (insn->operands[0].kind == X86_OPERAND_MEMORY ||
        insn->operands[source].kind == X86_OPERAND_MEMORY) {
        vector_write(cpu, insn, 0, &value);
        return;
    }
    vector_read(cpu, insn, source - 1, &d);
    memcpy(&d, &value, element);
    vector_write(cpu, insn, 0, &d);
}

static void move_single(struct cpu *cpu, const struct x86_insn *insn)
{
    move_scalar(cpu, insn, 4);
}
BODY_VEX(movss, move_single)

static void move_double(struct cpu *cpu, const struct x86_insn *insn)
{
    move_scalar(cpu, insn, 8);
}
BODY(movsd, move_double)
BODY(vmovsd, move_double)

/* Eight bytes between memory (or the other half of a register) and one half. */
static void move_half(struct cpu *cpu, const struct x86_insn *insn, unsigned to, unsigned from)
{
    unsigned source = insn->operand_count == 3 ? 2 : 1;
    union vector value, d;

    vector_check(cpu, insn);
    vector_read(cpu, insn, source, &value);
    if (insn->operands[0].kind == X86_OPERAND_MEMORY) {
        value.u64[0] = value.u64[to];
        vector_write(cpu, insn, 0, &value);
        return;
    }
    vector_read(cpu, insn, source - 1, &d);
    d.u64[to] = value.u64[insn->operands[source].kind == X86_OPERAND_MEMORY ? 0 : from];
    vector_write(cpu, insn, 0, &d);
}

static void move_low_half(struct cpu *cpu, const struct x86_insn *insn)
{
    move_half(cpu, insn, 0, 1);
}
BODY_VEX(movlps, move_low_half)
BODY_VEX(movlpd, move_low_half)
BODY_VEX(movhlps, move_low_half)

static void move_high_half(struct cpu *cpu, const struct x86_insn *insn)
{
    move_half(cpu, insn, 1, 0);
}
BODY_VEX(movhps, move_high_half)
BODY_VEX(movhpd, move_high_half)
BODY_VEX(movlhps, move_high_half)

/* Store the bytes whose mask has its top bit set at [rDI]. A byte that is not
 * stored does not fault either. */
static void masked_store(struct cpu *cpu, const struct x86_insn *insn, unsigned data,
                         unsigned size)
{
    struct x86_insn at = *insn;
    union vector value, mask;
    uint64_t linear[16];

    vector_check(cpu, insn);
    vector_read(cpu, insn, data, &value);
    vector_read(cpu, insn, data + 1, &mask);
    at.memory.base = X86_RDI;
    at.memory.index = X86_NO_REGISTER;
    at.memory.rip_relative = at.memory.vsib = false;
    for (unsigned i = 0; i < size; i++) {
        if (!(mask.u8[i] & 0x80))
            continue;
        at.memory.displacement = i;
        linear[i] = cpu_operand_address(cpu, &at, 1, X86_WRITE);
        cpu_probe_write(cpu, linear[i], 1);
    }
    for (unsigned i = 0; i < size; i++)
        if (mask.u8[i] & 0x80)
            cpu_write(cpu, linear[i], &value.u8[i], 1);
}

static unsigned first_register(const struct x86_insn *insn)
{
    return insn->operands[0].kind == X86_OPERAND_MEMORY ? 1 : 0;
}

static void masked_store_xmm(struct cpu *cpu, const struct x86_insn *insn)
{
    masked_store(cpu, insn, first_register(insn), 16);
}
BODY_VEX(maskmovdqu, masked_store_xmm)

void interpret_maskmovq(struct cpu *cpu, const struct x86_insn *insn)
{
    masked_store(cpu, insn, first_register(insn), 8);
    mmx_enter(cpu);
}

static void load_mxcsr(struct cpu *cpu, const struct x86_insn *insn)
{
    uint32_t value;

    vector_check(cpu, insn);
    cpu_read(cpu, cpu_operand_address(cpu, insn, 4, X86_READ), &value, 4);
    if (value & ~MXCSR_VALID)
        cpu_raise_error(cpu, X86_GP, 0);
    cpu->state.fpu.mxcsr = value;
}
BODY_VEX(ldmxcsr, load_mxcsr)

static void store_mxcsr(struct cpu *cpu, const struct x86_insn *insn)
{
    vector_check(cpu, insn);
    cpu_write(cpu, cpu_operand_address(cpu, insn, 4, X86_WRITE), &cpu->state.fpu.mxcsr, 4);
}
BODY_VEX(stmxcsr, store_mxcsr)

/* TOP becomes 0 as with every MMX instruction, but all tags empty (SDM 3A
 * table 13-1). */
void interpret_emms(struct cpu *cpu, const struct x86_insn *insn)
{
    (void)insn;
    mmx_check(cpu);
    mmx_enter(cpu);
    cpu->state.fpu.ftw = 0;
}
