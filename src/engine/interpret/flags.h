/* flags.h - the status flags of arithmetic (SDM 1 3.4.3.1, appendix A).
 * Operands and results may have garbage above size. Private to src/engine/. */
#ifndef LODGE_ENGINE_INTERPRET_FLAGS_H
#define LODGE_ENGINE_INTERPRET_FLAGS_H

#include "engine/interpret/access.h"

#define FLAGS_ALL ((uint64_t)X86_STATUS_FLAGS)

/* PF, ZF and SF of a result. */
ALWAYS_INLINE uint64_t flags_of_result(uint64_t result, unsigned size)
{
    /* PF is set when the low byte has an even number of ones. */
    uint64_t flags = __builtin_parity((unsigned)(result & 0xff)) ? 0 : X86_PF;

    result &= size_mask(size);
    flags |= result ? 0 : X86_ZF;
    flags |= (result >> (size * 8 - 1)) << 7;
    return flags;
}

ALWAYS_INLINE void flags_set(struct cpu *cpu, uint64_t mask, uint64_t flags)
{
    cpu->state.rflags = (cpu->state.rflags & ~mask) | flags;
}

/* a + b (+ carry) = result; carry out: the sum is below an addend. */
ALWAYS_INLINE void flags_add(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t result,
                             unsigned size)
{
    const unsigned top = size * 8 - 1;
    uint64_t carries = (a & b) | ((a | b) & ~result);
    uint64_t flags = flags_of_result(result, size);

    flags |= (carries >> top) & 1;
    flags |= (a ^ b ^ result) & X86_AF;
    flags |= (((a ^ result) & (b ^ result)) >> top & 1) << 11;
    flags_set(cpu, FLAGS_ALL, flags);
}

/* a - b (- borrow) = result */
ALWAYS_INLINE void flags_sub(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t result,
                             unsigned size)
{
    const unsigned top = size * 8 - 1;
    uint64_t borrows = (~a & b) | ((~a | b) & result);
    uint64_t flags = flags_of_result(result, size);

    flags |= (borrows >> top) & 1;
    flags |= (a ^ b ^ result) & X86_AF;
    flags |= (((a ^ b) & (a ^ result)) >> top & 1) << 11;
    flags_set(cpu, FLAGS_ALL, flags);
}

/* AND, OR, XOR, TEST: CF, OF clear; AF undefined, cleared here. */
ALWAYS_INLINE void flags_logic(struct cpu *cpu, uint64_t result, unsigned size)
{
    flags_set(cpu, FLAGS_ALL, flags_of_result(result, size));
}

/* The sixteen conditions of Jcc, SETcc, CMOVcc (SDM 1 appendix B). */
ALWAYS_INLINE bool flags_condition(uint64_t f, unsigned condition)
{
    bool holds;

    switch (condition >> 1 & 7) {
    case 0: holds = f & X86_OF; break;
    case 1: holds = f & X86_CF; break;
    case 2: holds = f & X86_ZF; break;
    case 3: holds = f & (X86_CF | X86_ZF); break;
    case 4: holds = f & X86_SF; break;
    case 5: holds = f & X86_PF; break;
    case 6: holds = (f >> 7 ^ f >> 11) & 1; break;
    default: holds = (f & X86_ZF) || ((f >> 7 ^ f >> 11) & 1); break;
    }
    return holds != (condition & 1);
}

#endif
