/* Conversions between half and single precision (SDM 1 14.4). */
#include "engine/interpret/vector.h"

#define MXCSR_IE 0x01u
#define MXCSR_DE 0x02u
#define MXCSR_OE 0x08u
#define MXCSR_UE 0x10u

enum rounding { NEAREST_EVEN, DOWN, UP, TOWARDS_ZERO };

/* Exact; denormals are taken as they are whatever MXCSR.DAZ says. */
static uint32_t half_to_single(uint16_t half, uint32_t *csr)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31;
    uint32_t fraction = half & 0x3ff;

    if (exponent == 31) {
        if (fraction && !(fraction & 0x200))
            *csr |= MXCSR_IE;
        return sign | 0x7f800000 | fraction << 13 | (fraction ? 0x400000 : 0);
    }
    if (exponent == 0) {
        if (fraction == 0)
            return sign;
        exponent = 1;
        while (!(fraction & 0x400)) {
            fraction <<= 1;
            exponent--;
        }
    }
    return sign | (exponent + 127 - 15) << 23 | (fraction & 0x3ff) << 13;
}

/* Does the remainder (its top bit being one half) round the magnitude up? */
static bool rounds_up(enum rounding rounding, bool negative, bool odd, uint32_t remainder,
                      uint32_t half)
{
    switch (rounding) {
    case NEAREST_EVEN:
        return remainder > half || (remainder == half && odd);
    case DOWN:
        return negative && remainder;
    case UP:
        return !negative && remainder;
    default:
        return false;
    }
}

/* MXCSR.FTZ is not heeded: a tiny result becomes a half denormal. An exact one is an
 * underflow only while that exception is unmasked (SDM 1 4.9.1.5). */
static uint16_t single_to_half(uint32_t single, enum rounding rounding, bool unmasked,
                               uint32_t *csr)
{
    uint16_t sign = (uint16_t)(single >> 16 & 0x8000);
    int exponent = (int)(single >> 23 & 0xff) - 127;
    uint32_t fraction = single & 0x7fffff, kept, remainder, dropped = 13;
    bool tiny;

    if (exponent == 128) {
        if (fraction && !(fraction & 0x400000))
            *csr |= MXCSR_IE;
        return (uint16_t)(sign | 0x7c00 | fraction >> 13 | (fraction ? 0x200 : 0));
    }
    if (exponent == -127) {
        if (fraction == 0)
            return sign;
        if (*csr & MXCSR_DAZ)
            return sign;
        *csr |= MXCSR_DE;
        exponent = -126;
    } else {
        fraction |= 0x800000;
    }

    /* Tininess is found after rounding to unbounded exponent (SDM 1 4.9.1.5). */
    tiny = exponent < -14;
    if (exponent == -15 &&
        (fraction >> 13) + rounds_up(rounding, sign, fraction >> 13 & 1, fraction & 0x1fff,
                                     0x1000) == 0x800)
        tiny = false;
    if (exponent < -14)
        dropped += (unsigned)(-14 - exponent);
    if (dropped > 25)
        dropped = 25;
    kept = fraction >> dropped;
    remainder = fraction & ((1u << dropped) - 1);
    if (rounds_up(rounding, sign, kept & 1, remainder, 1u << (dropped - 1)))
        kept++;
    if (remainder)
        *csr |= MXCSR_PRECISION;
    if (tiny && (remainder || unmasked))
        *csr |= MXCSR_UE;
    if (exponent >= -14)
        kept += (uint32_t)(exponent + 14) << 10;
    if (kept >= 0x7c00) {
        bool to_infinity = rounding == NEAREST_EVEN || rounding == (sign ? DOWN : UP);

        *csr |= MXCSR_OE | MXCSR_PRECISION;
        return (uint16_t)(sign | (to_infinity ? 0x7c00 : 0x7bff));
    }
    return (uint16_t)(sign | kept);
}

void interpret_vcvtph2ps(struct cpu *cpu, const struct x86_insn *insn)
{
    union vector source, d = {0};
    uint32_t csr = float_begin(cpu);

    vector_check(cpu, insn);
    vector_read(cpu, insn, 1, &source);
    for (unsigned i = 0; i < vector_size(insn) / 4; i++)
        d.u32[i] = half_to_single(source.u16[i], &csr);
    float_end(cpu, csr);
    vector_write(cpu, insn, 0, &d);
}

void interpret_vcvtps2ph(struct cpu *cpu, const struct x86_insn *insn)
{
    union vector source, d = {0};
    uint32_t csr = float_begin(cpu);
    unsigned rounding = insn->immediate & 3;
    bool unmasked = !(cpu->state.fpu.mxcsr & MXCSR_UNDERFLOW_MASK);

    vector_check(cpu, insn);
    vector_read(cpu, insn, 1, &source);
    if (insn->immediate & 4)
        rounding = (csr & MXCSR_RC) >> MXCSR_RC_SHIFT;
    for (unsigned i = 0; i < vector_size(insn) / 4; i++)
        d.u16[i] = single_to_half(source.u32[i], rounding, unmasked, &csr);
    if (insn->operands[0].kind == X86_OPERAND_MEMORY) /* its faults come before MXCSR changes */
        cpu_probe_write(cpu, vector_address(cpu, insn, insn->operands[0].size, X86_WRITE),
                        insn->operands[0].size);
    float_end(cpu, csr);
    vector_write(cpu, insn, 0, &d);
}
