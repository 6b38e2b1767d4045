/* vector.h - what the bodies of x87, MMX, SSE and AVX instructions share:
 * the conditions under which they may run, operands as vectors, and
 * arithmetic on the host's unit under the guest's MXCSR.
 *
 * One function carries out one operation on a lane of 16 bytes; the legacy,
 * the VEX.128, the VEX.256 and the MMX form of an instruction share it. What
 * differs is where operands come from and what becomes of the upper half of
 * the destination: a legacy form keeps it, a VEX.128 form clears it
 * (SDM 1 14.1.3). Private to src/engine/interpret/. */
#ifndef LODGE_ENGINE_INTERPRET_VECTOR_H
#define LODGE_ENGINE_INTERPRET_VECTOR_H

#include "engine/interpret/bodies.h"
#include "engine/interpret/cpu.h"

union lane {
    uint8_t u8[16];
    int8_t i8[16];
    uint16_t u16[8];
    int16_t i16[8];
    uint32_t u32[4];
    int32_t i32[4];
    uint64_t u64[2];
    int64_t i64[2];
} __attribute__((aligned(16)));

union vector {
    union lane lane[2];
    uint8_t u8[32];
    uint16_t u16[16];
    uint32_t u32[8];
    int32_t i32[8];
    uint64_t u64[4];
} __attribute__((aligned(32)));

/* MXCSR (SDM 1 10.2.3): flags in bits 0-5, their masks in 7-12. */
#define MXCSR_FLAGS      0x3fu
#define MXCSR_BEFORE     0x07u /* IE, DE, ZE: found before the computation */
#define MXCSR_PRECISION  0x20u
#define MXCSR_UNDERFLOW_MASK (1u << 11)
#define MXCSR_DAZ        (1u << 6)
#define MXCSR_MASK_SHIFT 7
#define MXCSR_MASKS      (MXCSR_FLAGS << MXCSR_MASK_SHIFT)
#define MXCSR_RC_SHIFT   13
#define MXCSR_RC         (3u << MXCSR_RC_SHIFT)
#define MXCSR_FTZ        (1u << 15)
#define MXCSR_VALID      0xffffu /* other bits must be zero */

/* FPU status word (SDM 1 8.1.3) */
#define FSW_IE        (1u << 0)
#define FSW_OE        (1u << 3)
#define FSW_UE        (1u << 4)
#define FSW_EXCEPTIONS 0x3fu
#define FSW_ES        (1u << 7)
#define FSW_TOP_SHIFT 11
#define FSW_TOP       (7u << FSW_TOP_SHIFT)
#define FSW_B         (1u << 15)

/* Raise #UD, #NM or #MF when an instruction of that unit may not run now
 * (SDM 2A 2.4, SDM 3A 2.5 and 13.1). vector_check takes the unit from the
 * operands and from the VEX prefix. */
void x87_check(struct cpu *cpu);
void mmx_check(struct cpu *cpu);
void sse_check(struct cpu *cpu);
void avx_check(struct cpu *cpu);
void vector_check(struct cpu *cpu, const struct x86_insn *insn);

/* The linear address of the memory operand; #GP(0) for a form that demands an
 * aligned operand and has none. */
uint64_t vector_address(struct cpu *cpu, const struct x86_insn *insn, unsigned size,
                        unsigned access);

/* Operand i, zero-extended to 32 bytes. Any kind: vector register, general
 * register, memory. */
void vector_read(struct cpu *cpu, const struct x86_insn *insn, unsigned i, union vector *ret_value);

/* Store to operand i what it is wide of value. A vector register is written as
 * a whole: what an instruction keeps is the caller's to merge. The upper half
 * follows the VEX rule; an MMX register also does what mmx_enter does. */
void vector_write(struct cpu *cpu, const struct x86_insn *insn, unsigned i,
                  const union vector *value);

/* Registers by number. Writing an XMM register leaves the upper half alone. */
void vector_read_xmm(const struct cpu *cpu, unsigned reg, union lane *ret_value);
void vector_read_ymm(const struct cpu *cpu, unsigned reg, union vector *ret_value);
void vector_write_xmm(struct cpu *cpu, unsigned reg, const union lane *value);
void vector_write_ymm(struct cpu *cpu, unsigned reg, const union vector *value);
uint64_t mmx_read(const struct cpu *cpu, unsigned reg);
void mmx_write(struct cpu *cpu, unsigned reg, uint64_t value);

/* What every MMX instruction but EMMS does once it cannot fault any more:
 * TOP becomes 0, all registers are tagged in use (SDM 1 9.5.1). */
void mmx_enter(struct cpu *cpu);

/* Bytes of the operation: the widest register operand's, 8 for MMX, 16, or 32.
 * VEX.L does not tell: scalar forms ignore it. */
unsigned vector_size(const struct x86_insn *insn);

static inline unsigned vector_lanes(const struct x86_insn *insn)
{
    return vector_size(insn) == 32 ? 2 : 1;
}

/* One lane of d = a op b; d is neither a nor b. bytes is 8 for an MMX operand
 * and 16 otherwise: what packs or moves across the lane must know. */
typedef void lane_binary(union lane *d, const union lane *a, const union lane *b, unsigned bytes);
typedef void lane_immediate(union lane *d, const union lane *a, const union lane *b, uint8_t imm,
                            unsigned bytes);

/* The whole instruction: operand 0 = first source op last source. The first
 * source is the destination itself in two-operand forms. */
void vector_binary(struct cpu *cpu, const struct x86_insn *insn, lane_binary *operation);
/* Whether the host's DPPS and DPPD sum each element of the result in an order of its own. */
bool vector_dot_by_lane(void);
void vector_immediate(struct cpu *cpu, const struct x86_insn *insn, lane_immediate *operation);

/* Define the body of a legacy form, or of it and its VEX form. */
#define BINARY(op, operation)                                                                      \
    void interpret_##op(struct cpu *cpu, const struct x86_insn *insn)                              \
    {                                                                                              \
        vector_binary(cpu, insn, operation);                                                       \
    }
#define IMMEDIATE(op, operation)                                                                   \
    void interpret_##op(struct cpu *cpu, const struct x86_insn *insn)                              \
    {                                                                                              \
        vector_immediate(cpu, insn, operation);                                                    \
    }
#define BINARY_VEX(op, operation)    BINARY(op, operation) BINARY(v##op, operation)
#define IMMEDIATE_VEX(op, operation) IMMEDIATE(op, operation) IMMEDIATE(v##op, operation)

/* Floating point. One lane of d = a op b under *csr, all exceptions masked;
 * flags are added to *csr. */
typedef void float_binary(union lane *d, const union lane *a, const union lane *b, uint32_t *csr);

/* MXCSR to compute with: the guest's modes, all masked, no flags. An underflow
 * that is unmasked happens to exact results too (SDM 1 4.9.1.5); so it does
 * under FTZ when masked. */
static inline uint32_t float_begin(const struct cpu *cpu)
{
    const uint32_t csr = (cpu->state.fpu.mxcsr & ~MXCSR_FLAGS) | MXCSR_MASKS;

    return cpu->state.fpu.mxcsr & MXCSR_UNDERFLOW_MASK ? csr : csr | MXCSR_FTZ;
}

/* Add the flags of csr to the guest's MXCSR; raise #XM (#UD without
 * CR4.OSXMMEXCPT) when one of them is unmasked. */
void float_end(struct cpu *cpu, uint32_t csr);

void vector_float(struct cpu *cpu, const struct x86_insn *insn, float_binary *operation);

#define FLOAT(op, operation)                                                                       \
    void interpret_##op(struct cpu *cpu, const struct x86_insn *insn)                              \
    {                                                                                              \
        vector_float(cpu, insn, operation);                                                        \
    }
#define FLOAT_VEX(op, operation) FLOAT(op, operation) FLOAT(v##op, operation)

/* A float_binary that is one host instruction: one asm block, so that nothing
 * of the compiler's own runs under the guest's MXCSR. */
#define FLOAT_HOST(name, instruction)                                                              \
    static void name(union lane *d, const union lane *a, const union lane *b, uint32_t *csr)       \
    {                                                                                              \
        uint32_t host;                                                                             \
                                                                                                   \
        __asm__ volatile("stmxcsr %[host]\n\t"                                                     \
                         "movaps %[a], %%xmm0\n\t"                                                 \
                         "movaps %[b], %%xmm1\n\t"                                                 \
                         "ldmxcsr %[csr]\n\t" instruction "\n\t"                                   \
                         "stmxcsr %[csr]\n\t"                                                      \
                         "ldmxcsr %[host]\n\t"                                                     \
                         "movaps %%xmm0, %[d]"                                                     \
                         : [d] "=m"(*d), [csr] "+m"(*csr), [host] "=m"(host)                       \
                         : [a] "m"(*a), [b] "m"(*b)                                                \
                         : "xmm0", "xmm1");                                                        \
    }

/* Clamp to the range of an element (saturating arithmetic). */
static inline int32_t clamp_i32(int32_t value, int32_t low, int32_t high)
{
    return value < low ? low : value > high ? high : value;
}

#endif
