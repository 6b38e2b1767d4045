#include "engine/interpret/vector.h"
#include "engine/interpret/x87.h"

#include <string.h>

static bool x87_pending(const struct cpu *cpu)
{
    return cpu->state.fpu.fsw & FSW_ES;
}

void x87_check(struct cpu *cpu)
{
    if (cpu->state.cr0 & (X86_CR0_EM | X86_CR0_TS))
        cpu_raise(cpu, X86_NM);
    if (x87_pending(cpu))
        cpu_raise(cpu, X86_MF);
}

void mmx_check(struct cpu *cpu)
{
    if (cpu->state.cr0 & X86_CR0_EM)
        cpu_raise(cpu, X86_UD);
    if (cpu->state.cr0 & X86_CR0_TS)
        cpu_raise(cpu, X86_NM);
    if (x87_pending(cpu))
        cpu_raise(cpu, X86_MF);
}

void sse_check(struct cpu *cpu)
{
    if ((cpu->state.cr0 & X86_CR0_EM) || !(cpu->state.cr4 & X86_CR4_OSFXSR))
        cpu_raise(cpu, X86_UD);
    if (cpu->state.cr0 & X86_CR0_TS)
        cpu_raise(cpu, X86_NM);
}

void avx_check(struct cpu *cpu)
{
    const uint64_t needed = X86_XCR0_SSE | X86_XCR0_AVX;

    if (!(cpu->state.cr0 & X86_CR0_PE) || (cpu->state.rflags & X86_VM) ||
        !(cpu->state.cr4 & X86_CR4_OSXSAVE) || (cpu->state.xcr0 & needed) != needed)
        cpu_raise(cpu, X86_UD);
    if (cpu->state.cr0 & X86_CR0_TS)
        cpu_raise(cpu, X86_NM);
}

static bool uses_mmx(const struct x86_insn *insn)
{
    for (unsigned i = 0; i < insn->operand_count; i++)
        if (insn->operands[i].kind == X86_OPERAND_MMX)
            return true;
    return false;
}

void vector_check(struct cpu *cpu, const struct x86_insn *insn)
{
    if (insn->vex)
        avx_check(cpu);
    else if (uses_mmx(insn))
        mmx_check(cpu);
    else
        sse_check(cpu);
}

uint64_t vector_address(struct cpu *cpu, const struct x86_insn *insn, unsigned size,
                        unsigned access)
{
    uint64_t linear = cpu_operand_address(cpu, insn, size, access);

    if ((x86_rows[insn->row].attributes & X86_ATTR_ALIGNED) && (linear & (size - 1)))
        cpu_raise_error(cpu, X86_GP, 0);
    return linear;
}

unsigned vector_size(const struct x86_insn *insn)
{
    for (unsigned i = 0; insn->vex && i < insn->operand_count; i++)
        if (insn->operands[i].kind == X86_OPERAND_YMM || insn->operands[i].size == 32)
            return 32;
    return uses_mmx(insn) ? 8 : 16;
}

/* The registers are kept relative to TOP, as FXSAVE does; MMX names them
 * absolutely. */
uint64_t mmx_read(const struct cpu *cpu, unsigned reg)
{
    return cpu->state.fpu.st[(reg - x87_top(&cpu->state.fpu)) & 7].significand;
}

void mmx_enter(struct cpu *cpu)
{
    x87_set_top(&cpu->state.fpu, 0);
    cpu->state.fpu.ftw = 0xff;
}

void mmx_write(struct cpu *cpu, unsigned reg, uint64_t value)
{
    mmx_enter(cpu);
    cpu->state.fpu.st[reg & 7].significand = value;
    cpu->state.fpu.st[reg & 7].sign_exponent = 0xffff;
}

void vector_read_xmm(const struct cpu *cpu, unsigned reg, union lane *ret_value)
{
    memcpy(ret_value, cpu->state.fpu.xmm[reg], sizeof(*ret_value));
}

void vector_read_ymm(const struct cpu *cpu, unsigned reg, union vector *ret_value)
{
    memcpy(&ret_value->lane[0], cpu->state.fpu.xmm[reg], 16);
    memcpy(&ret_value->lane[1], cpu->state.fpu.ymm_high[reg], 16);
}

void vector_write_xmm(struct cpu *cpu, unsigned reg, const union lane *value)
{
    memcpy(cpu->state.fpu.xmm[reg], value, sizeof(*value));
}

void vector_write_ymm(struct cpu *cpu, unsigned reg, const union vector *value)
{
    memcpy(cpu->state.fpu.xmm[reg], &value->lane[0], 16);
    memcpy(cpu->state.fpu.ymm_high[reg], &value->lane[1], 16);
}

void vector_read(struct cpu *cpu, const struct x86_insn *insn, unsigned i, union vector *ret_value)
{
    const struct x86_operand *operand = &insn->operands[i];
    union vector value = {0};

    switch (operand->kind) {
    case X86_OPERAND_MMX:
        value.u64[0] = mmx_read(cpu, operand->reg & 7);
        break;
    case X86_OPERAND_YMM:
        memcpy(&value.lane[1], cpu->state.fpu.ymm_high[operand->reg], 16);
        memcpy(&value.lane[0], cpu->state.fpu.xmm[operand->reg], 16);
        break;
    case X86_OPERAND_XMM:
        memcpy(&value.lane[0], cpu->state.fpu.xmm[operand->reg], 16);
        break;
    case X86_OPERAND_MEMORY:
        cpu_read(cpu, vector_address(cpu, insn, operand->size, X86_READ), &value, operand->size);
        break;
    default:
        value.u64[0] = cpu_read_operand(cpu, insn, i);
        break;
    }
    *ret_value = value;
}

void vector_write(struct cpu *cpu, const struct x86_insn *insn, unsigned i,
                  const union vector *value)
{
    const struct x86_operand *operand = &insn->operands[i];

    switch (operand->kind) {
    case X86_OPERAND_MMX:
        mmx_write(cpu, operand->reg, value->u64[0]);
        break;
    case X86_OPERAND_YMM:
        vector_write_ymm(cpu, operand->reg, value);
        break;
    case X86_OPERAND_XMM:
        memcpy(cpu->state.fpu.xmm[operand->reg], &value->lane[0], 16);
        if (insn->vex)
            memset(cpu->state.fpu.ymm_high[operand->reg], 0, 16);
        break;
    case X86_OPERAND_MEMORY:
        cpu_write(cpu, vector_address(cpu, insn, operand->size, X86_WRITE), value, operand->size);
        break;
    default:
        cpu_write_operand(cpu, insn, i, value->u64[0]);
        break;
    }
}

/* The last operand that is not an immediate: the second source. */
static unsigned last_source(const struct x86_insn *insn)
{
    unsigned i = insn->operand_count - 1;

    while (i > 1 && insn->operands[i].kind == X86_OPERAND_IMMEDIATE)
        i--;
    return i;
}

/* Read both sources; which of them exist differs by form. */
static void read_sources(struct cpu *cpu, const struct x86_insn *insn, union vector *a,
                         union vector *b)
{
    unsigned last = last_source(insn);

    vector_check(cpu, insn);
    vector_read(cpu, insn, last, b);
    vector_read(cpu, insn, last >= 2 ? 1 : 0, a);
}

void vector_binary(struct cpu *cpu, const struct x86_insn *insn, lane_binary *operation)
{
    union vector a, b, d = {0};
    unsigned size = vector_size(insn);

    read_sources(cpu, insn, &a, &b);
    for (unsigned i = 0; i < vector_lanes(insn); i++)
        operation(&d.lane[i], &a.lane[i], &b.lane[i], size == 8 ? 8 : 16);
    vector_write(cpu, insn, 0, &d);
}

void vector_immediate(struct cpu *cpu, const struct x86_insn *insn, lane_immediate *operation)
{
    union vector a, b, d = {0};
    unsigned size = vector_size(insn);

    read_sources(cpu, insn, &a, &b);
    for (unsigned i = 0; i < vector_lanes(insn); i++)
        operation(&d.lane[i], &a.lane[i], &b.lane[i], (uint8_t)insn->immediate,
                  size == 8 ? 8 : 16);
    vector_write(cpu, insn, 0, &d);
}

void float_end(struct cpu *cpu, uint32_t csr)
{
    uint32_t flags = csr & MXCSR_FLAGS;
    uint32_t masks = cpu->state.fpu.mxcsr >> MXCSR_MASK_SHIFT;

    /* What faults before the computation leaves no flags of its outcome (SDM 1 11.5.3). */
    if (flags & ~masks & MXCSR_BEFORE)
        flags &= MXCSR_BEFORE;
    cpu->state.fpu.mxcsr |= flags;
    if (flags & ~masks)
        cpu_raise(cpu, cpu->state.cr4 & X86_CR4_OSXMMEXCPT ? X86_XM : X86_UD);
}

void vector_float(struct cpu *cpu, const struct x86_insn *insn, float_binary *operation)
{
    union vector a, b, d = {0};
    uint32_t csr = float_begin(cpu);

    read_sources(cpu, insn, &a, &b);
    for (unsigned i = 0; i < vector_lanes(insn); i++)
        operation(&d.lane[i], &a.lane[i], &b.lane[i], &csr);
    float_end(cpu, csr);
    vector_write(cpu, insn, 0, &d);
}
