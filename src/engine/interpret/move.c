/* Data movement, conversions, flag instructions and BCD (SDM 1 7.3.1, 7.3.2,
 * 7.3.7). */
#include "engine/interpret/bodies.h"
#include "engine/interpret/arithmetic.h"

void interpret_mov(struct cpu *cpu, const struct x86_insn *insn)
{
    operand_write(cpu, insn, 0, operand_read(cpu, insn, 1));
}

void interpret_movnti(struct cpu *cpu, const struct x86_insn *insn)
{
    operand_write(cpu, insn, 0, operand_read(cpu, insn, 1));
}

void interpret_movzx(struct cpu *cpu, const struct x86_insn *insn)
{
    operand_gpr_write(cpu, &insn->operands[0], operand_read(cpu, insn, 1));
}

static void move_signed(struct cpu *cpu, const struct x86_insn *insn)
{
    unsigned shift = 64 - insn->operands[1].size * 8u;
    uint64_t value = operand_read(cpu, insn, 1);

    operand_gpr_write(cpu, &insn->operands[0], (uint64_t)((int64_t)(value << shift) >> shift));
}

void interpret_movsx(struct cpu *cpu, const struct x86_insn *insn)
{
    move_signed(cpu, insn);
}

void interpret_movsxd(struct cpu *cpu, const struct x86_insn *insn)
{
    move_signed(cpu, insn);
}

void interpret_lea(struct cpu *cpu, const struct x86_insn *insn)
{
    gpr_write(cpu, insn->operands[0].reg, insn->operands[0].size, effective_address(cpu, insn));
}

void interpret_cbw(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t a = cpu->state.gpr[X86_RAX];

    switch (insn->operand_size) {
    case 2: gpr_write(cpu, X86_RAX, 2, (uint64_t)(int8_t)a); break;
    case 4: gpr_write(cpu, X86_RAX, 4, (uint64_t)(int16_t)a); break;
    default: gpr_write(cpu, X86_RAX, 8, (uint64_t)(int32_t)a); break;
    }
}

void interpret_cwd(struct cpu *cpu, const struct x86_insn *insn)
{
    const unsigned size = insn->operand_size;
    bool negative = cpu->state.gpr[X86_RAX] >> (size * 8 - 1) & 1;

    gpr_write(cpu, X86_RDX, size, negative ? UINT64_MAX : 0);
}

void interpret_cmovcc(struct cpu *cpu, const struct x86_insn *insn)
{
    /* The source is read, and a 32-bit destination zero-extended, in any case. */
    uint64_t value = operand_read(cpu, insn, 1);

    if (flags_condition(cpu->state.rflags, insn->opcode))
        operand_gpr_write(cpu, &insn->operands[0], value);
    else if (insn->operands[0].size == 4)
        gpr_write(cpu, insn->operands[0].reg, 4, cpu->state.gpr[insn->operands[0].reg]);
}

void interpret_setcc(struct cpu *cpu, const struct x86_insn *insn)
{
    operand_write(cpu, insn, 0, flags_condition(cpu->state.rflags, insn->opcode));
}

void interpret_xlat(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t offset = cpu->state.gpr[X86_RBX] + (uint8_t)cpu->state.gpr[X86_RAX];
    uint64_t address = cpu_segment_address(cpu, insn->memory.segment,
                                           offset & size_mask(insn->address_size), 1, X86_READ);

    gpr_write(cpu, X86_RAX, 1, cpu_load(cpu, address, 1));
}

void interpret_lahf(struct cpu *cpu, const struct x86_insn *insn)
{
    (void)insn;
    cpu->state.gpr[X86_RAX] = (cpu->state.gpr[X86_RAX] & ~0xff00ull) |
                              ((cpu->state.rflags & 0xd5) | X86_FLAGS_ONE) << 8;
}

void interpret_sahf(struct cpu *cpu, const struct x86_insn *insn)
{
    const uint64_t mask = X86_SF | X86_ZF | X86_AF | X86_PF | X86_CF;

    (void)insn;
    flags_set(cpu, mask, cpu->state.gpr[X86_RAX] >> 8 & mask);
}

void interpret_salc(struct cpu *cpu, const struct x86_insn *insn)
{
    (void)insn;
    gpr_write(cpu, X86_RAX, 1, cpu->state.rflags & X86_CF ? 0xff : 0);
}

#define FLAG_BODY(name, mask, value)                                                               \
    void interpret_##name(struct cpu *cpu, const struct x86_insn *insn)                            \
    {                                                                                              \
        (void)insn;                                                                                \
        flags_set(cpu, mask, value);                                                               \
    }

FLAG_BODY(clc, X86_CF, 0)
FLAG_BODY(stc, X86_CF, X86_CF)
FLAG_BODY(cmc, X86_CF, ~cpu->state.rflags & X86_CF)
FLAG_BODY(cld, X86_DF, 0)
FLAG_BODY(std, X86_DF, X86_DF)

#define NOTHING_BODY(name)                                                                         \
    void interpret_##name(struct cpu *cpu, const struct x86_insn *insn)                            \
    {                                                                                              \
        (void)cpu;                                                                                 \
        (void)insn;                                                                                \
    }

NOTHING_BODY(nop)
NOTHING_BODY(prefetch)

/* Other CPUs are host threads: a fence of theirs must be one of the host. */
#define FENCE_BODY(name)                                                                           \
    void interpret_##name(struct cpu *cpu, const struct x86_insn *insn)                            \
    {                                                                                              \
        (void)cpu;                                                                                 \
        (void)insn;                                                                                \
        atomic_thread_fence(memory_order_seq_cst);                                                 \
    }

FENCE_BODY(lfence)
FENCE_BODY(mfence)
FENCE_BODY(sfence)

/* No cache to write back, but the line must be readable. */
#define CACHE_LINE_BODY(name)                                                                      \
    void interpret_##name(struct cpu *cpu, const struct x86_insn *insn)                            \
    {                                                                                              \
        cpu_load(cpu, operand_address(cpu, insn, 1, X86_READ), 1);                                 \
    }

CACHE_LINE_BODY(clflush)
CACHE_LINE_BODY(clflushopt)
CACHE_LINE_BODY(clwb)

/* --- BCD (SDM 2 AAA, AAD, AAM, AAS, DAA, DAS) --- */

static void bcd_flags(struct cpu *cpu, uint64_t result, uint64_t af, uint64_t cf)
{
    flags_set(cpu, FLAGS_ALL, flags_of_result(result, 1) | (af ? X86_AF : 0) | (cf ? X86_CF : 0));
}

static void decimal_adjust(struct cpu *cpu, int sign)
{
    const uint64_t flags = cpu->state.rflags;
    const uint8_t before = (uint8_t)cpu->state.gpr[X86_RAX];
    uint8_t al = before;
    bool af = false, cf = false;

    if ((al & 15) > 9 || (flags & X86_AF)) {
        cf = (flags & X86_CF) || (sign > 0 ? al > 0xff - 6 : al < 6);
        al = (uint8_t)(al + sign * 6);
        af = true;
    }
    if (before > 0x99 || (flags & X86_CF)) {
        al = (uint8_t)(al + sign * 0x60);
        cf = true;
    } else if (sign > 0) {
        cf = false;
    }
    gpr_write(cpu, X86_RAX, 1, al);
    bcd_flags(cpu, al, af, cf);
}

void interpret_daa(struct cpu *cpu, const struct x86_insn *insn)
{
    (void)insn;
    decimal_adjust(cpu, 1);
}

void interpret_das(struct cpu *cpu, const struct x86_insn *insn)
{
    (void)insn;
    decimal_adjust(cpu, -1);
}

static void ascii_adjust(struct cpu *cpu, int sign)
{
    uint16_t ax = (uint16_t)cpu->state.gpr[X86_RAX];
    bool adjust = (ax & 15) > 9 || (cpu->state.rflags & X86_AF);

    if (adjust)
        ax = (uint16_t)(ax + sign * 0x106);
    gpr_write(cpu, X86_RAX, 2, ax & 0xff0f);
    flags_set(cpu, X86_AF | X86_CF, adjust ? X86_AF | X86_CF : 0);
}

void interpret_aaa(struct cpu *cpu, const struct x86_insn *insn)
{
    (void)insn;
    ascii_adjust(cpu, 1);
}

void interpret_aas(struct cpu *cpu, const struct x86_insn *insn)
{
    (void)insn;
    ascii_adjust(cpu, -1);
}

void interpret_aam(struct cpu *cpu, const struct x86_insn *insn)
{
    const uint8_t base = (uint8_t)insn->immediate, al = (uint8_t)cpu->state.gpr[X86_RAX];

    if (!base)
        cpu_raise(cpu, X86_DE);
    gpr_write(cpu, X86_RAX, 2, (uint64_t)(al / base) << 8 | al % base);
    bcd_flags(cpu, al % base, 0, 0);
}

void interpret_aad(struct cpu *cpu, const struct x86_insn *insn)
{
    const uint16_t ax = (uint16_t)cpu->state.gpr[X86_RAX];
    uint8_t al = (uint8_t)(ax + (ax >> 8) * (uint8_t)insn->immediate);

    gpr_write(cpu, X86_RAX, 2, al);
    bcd_flags(cpu, al, 0, 0);
}
