/* Single bits and bit counts: BT to BTC, BSF, BSR, BMI1, BMI2, POPCNT, LZCNT,
 * TZCNT, BSWAP, MOVBE, CRC32. */
#include "engine/interpret/bodies.h"
#include "engine/interpret/arithmetic.h"

enum bit_op { BIT_TEST, BIT_SET, BIT_RESET, BIT_COMPLEMENT };

ALWAYS_INLINE uint64_t bit_result(enum bit_op op, uint64_t a, uint64_t bit)
{
    switch (op) {
    case BIT_SET: return a | bit;
    case BIT_RESET: return a & ~bit;
    case BIT_COMPLEMENT: return a ^ bit;
    default: return a;
    }
}

ALWAYS_INLINE void bit_body(struct cpu *cpu, const struct x86_insn *insn, enum bit_op op)
{
    const unsigned size = insn->operands[0].size, bits = size * 8;
    const bool immediate = insn->operands[1].kind == X86_OPERAND_IMMEDIATE;
    uint64_t index = immediate ? (uint64_t)insn->immediate : operand_read(cpu, insn, 1);
    const uint64_t bit = 1ull << (index & (bits - 1));
    uint64_t a, result;

    if (insn->operands[0].kind == X86_OPERAND_MEMORY) {
        uint64_t offset = effective_address(cpu, insn), linear;

        /* A register index reaches beyond the operand, in both directions. */
        if (!immediate) {
            unsigned shift = 64 - bits;
            int64_t signed_index = (int64_t)(index << shift) >> shift;

            offset += (uint64_t)(signed_index >> (size == 8 ? 6 : size == 4 ? 5 : 4)) * size;
            offset &= size_mask(insn->address_size);
        }
        linear = cpu_segment_address(cpu, insn->memory.segment, offset, size,
                                     op == BIT_TEST ? X86_READ : X86_READ | X86_WRITE);
        if (op == BIT_TEST)
            a = cpu_load(cpu, linear, size);
        else
            MEMORY_RMW(cpu, insn, linear, size, insn->prefixes & X86_PREFIX_LOCK, a, result,
                       result = bit_result(op, a, bit));
    } else {
        a = operand_gpr_read(cpu, &insn->operands[0]);
        if (op != BIT_TEST)
            operand_gpr_write(cpu, &insn->operands[0], bit_result(op, a, bit));
    }
    flags_set(cpu, X86_CF, a & bit ? X86_CF : 0);
}

#define BIT_BODY(name, op)                                                                         \
    void interpret_##name(struct cpu *cpu, const struct x86_insn *insn)                            \
    {                                                                                              \
        bit_body(cpu, insn, op);                                                                   \
    }

BIT_BODY(bt, BIT_TEST)
BIT_BODY(bts, BIT_SET)
BIT_BODY(btr, BIT_RESET)
BIT_BODY(btc, BIT_COMPLEMENT)

void interpret_bsf(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t a = operand_read(cpu, insn, 1);

    /* A source of zero leaves the destination, on AMD by promise. */
    if (a)
        operand_gpr_write(cpu, &insn->operands[0], (uint64_t)__builtin_ctzll(a));
    flags_set(cpu, X86_ZF, a ? 0 : X86_ZF);
}

void interpret_bsr(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t a = operand_read(cpu, insn, 1);

    if (a)
        operand_gpr_write(cpu, &insn->operands[0], 63u - (unsigned)__builtin_clzll(a));
    flags_set(cpu, X86_ZF, a ? 0 : X86_ZF);
}

static void count_result(struct cpu *cpu, const struct x86_insn *insn, bool none, uint64_t count)
{
    operand_gpr_write(cpu, &insn->operands[0], count);
    flags_set(cpu, X86_CF | X86_ZF, (none ? X86_CF : 0) | (count ? 0 : X86_ZF));
}

void interpret_tzcnt(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t a = operand_read(cpu, insn, 1);

    count_result(cpu, insn, !a,
                 a ? (uint64_t)__builtin_ctzll(a) : insn->operands[0].size * 8u);
}

void interpret_lzcnt(struct cpu *cpu, const struct x86_insn *insn)
{
    const unsigned bits = insn->operands[0].size * 8u;
    uint64_t a = operand_read(cpu, insn, 1);

    count_result(cpu, insn, !a, a ? (unsigned)__builtin_clzll(a) - (64 - bits) : bits);
}

void interpret_popcnt(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t a = operand_read(cpu, insn, 1);

    operand_gpr_write(cpu, &insn->operands[0], (uint64_t)__builtin_popcountll(a));
    flags_set(cpu, FLAGS_ALL, a ? 0 : X86_ZF);
}

void interpret_bswap(struct cpu *cpu, const struct x86_insn *insn)
{
    const struct x86_operand *operand = &insn->operands[0];
    uint64_t value = cpu->state.gpr[operand->reg];

    if (operand->size == 8)
        gpr_write(cpu, operand->reg, 8, __builtin_bswap64(value));
    else if (insn->operand_size == 2) /* undefined; current CPUs clear the word */
        gpr_write(cpu, operand->reg, 2, 0);
    else
        gpr_write(cpu, operand->reg, 4, __builtin_bswap32((uint32_t)value));
}

void interpret_movbe(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t value = operand_read(cpu, insn, 1);

    switch (insn->operands[0].size) {
    case 2: value = __builtin_bswap16((uint16_t)value); break;
    case 4: value = __builtin_bswap32((uint32_t)value); break;
    default: value = __builtin_bswap64(value); break;
    }
    operand_write(cpu, insn, 0, value);
}

/* CRC-32C (polynomial 11EDC6F41H), bit-reflected. */
void interpret_crc32(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t data = operand_read(cpu, insn, 1);
    uint32_t crc = (uint32_t)cpu->state.gpr[insn->operands[0].reg];

    for (unsigned i = 0; i < insn->operands[1].size; i++) {
        crc ^= (uint8_t)(data >> (8 * i));
        for (unsigned k = 0; k < 8; k++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
    }
    gpr_write(cpu, insn->operands[0].reg, 8, crc);
}

/* --- BMI1 and BMI2 --- */

static void bmi_result(struct cpu *cpu, const struct x86_insn *insn, uint64_t result, bool carry)
{
    const struct x86_operand *to = &insn->operands[0];

    gpr_write(cpu, to->reg, to->size, result);
    /* PF and AF are undefined; they stay. */
    flags_set(cpu, X86_CF | X86_OF | X86_SF | X86_ZF,
              (carry ? X86_CF : 0) |
                  (flags_of_result(result, to->size) & (X86_SF | X86_ZF)));
}

void interpret_andn(struct cpu *cpu, const struct x86_insn *insn)
{
    bmi_result(cpu, insn, ~operand_read(cpu, insn, 1) & operand_read(cpu, insn, 2), false);
}

void interpret_blsr(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t a = operand_read(cpu, insn, 1);

    bmi_result(cpu, insn, (a - 1) & a, a == 0);
}

void interpret_blsmsk(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t a = operand_read(cpu, insn, 1);

    bmi_result(cpu, insn, (a - 1) ^ a, a == 0);
    flags_set(cpu, X86_ZF, 0);
}

void interpret_blsi(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t a = operand_read(cpu, insn, 1);

    bmi_result(cpu, insn, -a & a, a != 0);
}

void interpret_bextr(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t a = operand_read(cpu, insn, 1), control = cpu->state.gpr[insn->operands[2].reg];
    unsigned start = control & 0xff, length = control >> 8 & 0xff;
    uint64_t result = start < 64 ? a >> start : 0;

    if (length < 64)
        result &= (1ull << length) - 1;
    gpr_write(cpu, insn->operands[0].reg, insn->operands[0].size, result);
    flags_set(cpu, X86_CF | X86_OF | X86_ZF,
              result & size_mask(insn->operands[0].size) ? 0 : X86_ZF);
}

void interpret_bzhi(struct cpu *cpu, const struct x86_insn *insn)
{
    const unsigned bits = insn->operands[0].size * 8u;
    uint64_t a = operand_read(cpu, insn, 1);
    unsigned index = cpu->state.gpr[insn->operands[2].reg] & 0xff;

    bmi_result(cpu, insn, index < bits ? a & ((1ull << index) - 1) : a, index >= bits);
}

void interpret_pdep(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t source = operand_read(cpu, insn, 1), mask = operand_read(cpu, insn, 2), result = 0;

    for (; mask; mask &= mask - 1, source >>= 1)
        if (source & 1)
            result |= mask & -mask;
    gpr_write(cpu, insn->operands[0].reg, insn->operands[0].size, result);
}

void interpret_pext(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t source = operand_read(cpu, insn, 1), mask = operand_read(cpu, insn, 2), result = 0;

    for (unsigned i = 0; mask; mask &= mask - 1, i++)
        if (source & (mask & -mask))
            result |= 1ull << i;
    gpr_write(cpu, insn->operands[0].reg, insn->operands[0].size, result);
}
