/* arithmetic.h - the two-operand operations as inline functions of a constant
 * operation and size, from which the bodies and their fast forms are made.
 * Private to the interpreter. */
#ifndef LODGE_ENGINE_INTERPRET_ARITHMETIC_H
#define LODGE_ENGINE_INTERPRET_ARITHMETIC_H

#include "engine/interpret/flags.h"

/* In the order of bits 5:3 of the opcode; TEST is an AND without a result. */
enum alu { ALU_ADD, ALU_OR, ALU_ADC, ALU_SBB, ALU_AND, ALU_SUB, ALU_XOR, ALU_CMP, ALU_TEST };

ALWAYS_INLINE uint64_t alu_result(enum alu op, uint64_t a, uint64_t b, uint64_t carry)
{
    switch (op) {
    case ALU_ADD: return a + b;
    case ALU_OR: return a | b;
    case ALU_ADC: return a + b + carry;
    case ALU_SBB: return a - b - carry;
    case ALU_AND: case ALU_TEST: return a & b;
    case ALU_SUB: case ALU_CMP: return a - b;
    default: return a ^ b;
    }
}

ALWAYS_INLINE void alu_flags(struct cpu *cpu, enum alu op, uint64_t a, uint64_t b, uint64_t result,
                             unsigned size)
{
    switch (op) {
    case ALU_ADD: case ALU_ADC:
        flags_add(cpu, a, b, result, size);
        break;
    case ALU_SUB: case ALU_SBB: case ALU_CMP:
        flags_sub(cpu, a, b, result, size);
        break;
    default:
        flags_logic(cpu, result, size);
        break;
    }
}

ALWAYS_INLINE bool alu_writes(enum alu op)
{
    return op != ALU_CMP && op != ALU_TEST;
}

ALWAYS_INLINE uint64_t alu_carry(const struct cpu *cpu)
{
    return cpu->state.rflags & X86_CF;
}

/* One atomic compare-and-exchange of guest memory at a host address. */
ALWAYS_INLINE bool host_compare_exchange(void *host, unsigned size, uint64_t *expected,
                                         uint64_t desired)
{
    bool done;

    switch (size) {
#define CASE(bytes, type)                                                                          \
    case bytes: {                                                                                  \
        type e = (type)*expected;                                                                  \
        done = __atomic_compare_exchange_n((type *)host, &e, (type)desired, false,                 \
                                           __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                    \
        *expected = e;                                                                             \
        return done;                                                                               \
    }
        CASE(1, uint8_t)
        CASE(2, uint16_t)
        CASE(4, uint32_t)
    default:
        CASE(8, uint64_t)
#undef CASE
    }
}

/* Read-modify-write of memory at linear: new = f(old), as one atomic step when
 * it is locked. statement computes `result` from `a`. */
#define MEMORY_RMW(cpu, insn, linear, size, locked, a, result, statement)                          \
    do {                                                                                           \
        void *host_ = (locked) ? cpu_host_for_atomic(cpu, linear, size) : NULL;                    \
                                                                                                   \
        if (host_) {                                                                               \
            a = host_load(host_, size);                                                            \
            do {                                                                                   \
                statement;                                                                         \
            } while (!host_compare_exchange(host_, size, &a, result));                             \
            cpu_wrote_code(cpu, linear, size);                                                     \
        } else {                                                                                   \
            if (locked)                                                                            \
                cpu_split_lock(cpu, linear, size);                                                 \
            a = cpu_load_to_modify(cpu, linear, size);                                             \
            statement;                                                                             \
            cpu_store(cpu, linear, size, result);                                                  \
            if (locked)                                                                            \
                cpu_split_unlock(cpu);                                                             \
        }                                                                                          \
    } while (0)

#endif
