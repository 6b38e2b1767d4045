/* Conversions between integers and floating point, and between formats
 * (SDM 1 11.4.1.6 and figure 11-8). */
#include "engine/interpret/vector.h"

/* Conversions inside a vector register, or of the low element into one. */
#define ONE_HOST(op, instruction)                                                                  \
    FLOAT_HOST(op##_lane, instruction " %%xmm1, %%xmm0")                                           \
    FLOAT_VEX(op, op##_lane)

ONE_HOST(cvtdq2ps, "cvtdq2ps")
ONE_HOST(cvtps2dq, "cvtps2dq")
ONE_HOST(cvttps2dq, "cvttps2dq")
ONE_HOST(cvtss2sd, "cvtss2sd")
ONE_HOST(cvtsd2ss, "cvtsd2ss")

/* Conversions that double or halve the element. Of the 256-bit forms the
 * narrow side has 128 bits. */
FLOAT_HOST(cvtps2pd_lane, "cvtps2pd %%xmm1, %%xmm0")
FLOAT_HOST(cvtdq2pd_lane, "cvtdq2pd %%xmm1, %%xmm0")
FLOAT_HOST(cvtpd2ps_lane, "cvtpd2ps %%xmm1, %%xmm0")
FLOAT_HOST(cvtpd2dq_lane, "cvtpd2dq %%xmm1, %%xmm0")
FLOAT_HOST(cvttpd2dq_lane, "cvttpd2dq %%xmm1, %%xmm0")

static void convert_wider(struct cpu *cpu, const struct x86_insn *insn, float_binary *operation)
{
    uint32_t csr = float_begin(cpu);
    union vector b, d = {0};

    vector_check(cpu, insn);
    vector_read(cpu, insn, 1, &b);
    b.u64[2] = b.u64[1];
    for (unsigned i = 0; i < vector_lanes(insn); i++) {
        b.lane[i].u64[1] = 0;
        operation(&d.lane[i], &b.lane[i], &b.lane[i], &csr);
    }
    float_end(cpu, csr);
    vector_write(cpu, insn, 0, &d);
}

static void convert_narrower(struct cpu *cpu, const struct x86_insn *insn,
                             float_binary *operation)
{
    uint32_t csr = float_begin(cpu);
    union vector b, d = {0};

    vector_check(cpu, insn);
    vector_read(cpu, insn, 1, &b);
    for (unsigned i = 0; i < vector_lanes(insn); i++) {
        union lane half;

        operation(&half, &b.lane[i], &b.lane[i], &csr);
        d.u64[i] = half.u64[0];
    }
    float_end(cpu, csr);
    vector_write(cpu, insn, 0, &d);
}

#define CONVERT(op, function)                                                                      \
    void interpret_##op(struct cpu *cpu, const struct x86_insn *insn)                              \
    {                                                                                              \
        function(cpu, insn, op##_lane);                                                            \
    }                                                                                              \
    void interpret_v##op(struct cpu *cpu, const struct x86_insn *insn)                             \
    {                                                                                              \
        function(cpu, insn, op##_lane);                                                            \
    }
CONVERT(cvtps2pd, convert_wider)
CONVERT(cvtdq2pd, convert_wider)
CONVERT(cvtpd2ps, convert_narrower)
CONVERT(cvtpd2dq, convert_narrower)
CONVERT(cvttpd2dq, convert_narrower)

/* A general register or integer in memory to the low element; the rest comes
 * from the first source. */
#define FROM_INTEGER(name, instruction, register)                                                  \
    static void name(union lane *d, const union lane *a, uint64_t integer, uint32_t *csr)          \
    {                                                                                              \
        uint32_t host;                                                                             \
                                                                                                   \
        __asm__ volatile("stmxcsr %[host]\n\t"                                                     \
                         "movaps %[a], %%xmm0\n\t"                                                 \
                         "ldmxcsr %[csr]\n\t" instruction " %" register "[integer], %%xmm0\n\t"    \
                         "stmxcsr %[csr]\n\t"                                                      \
                         "ldmxcsr %[host]\n\t"                                                     \
                         "movaps %%xmm0, %[d]"                                                     \
                         : [d] "=m"(*d), [csr] "+m"(*csr), [host] "=m"(host)                       \
                         : [a] "m"(*a), [integer] "r"(integer)                                     \
                         : "xmm0");                                                                \
    }
FROM_INTEGER(ss_from_i32, "cvtsi2ssl", "k")
FROM_INTEGER(ss_from_i64, "cvtsi2ssq", "q")
FROM_INTEGER(sd_from_i32, "cvtsi2sdl", "k")
FROM_INTEGER(sd_from_i64, "cvtsi2sdq", "q")

typedef void from_integer(union lane *d, const union lane *a, uint64_t integer, uint32_t *csr);

static void convert_from_integer(struct cpu *cpu, const struct x86_insn *insn,
                                 from_integer *from_i32, from_integer *from_i64)
{
    unsigned source = insn->vex ? 2 : 1;
    uint32_t csr = float_begin(cpu);
    union vector a, d = {0};
    uint64_t integer;

    vector_check(cpu, insn);
    integer = cpu_read_operand(cpu, insn, source);
    vector_read(cpu, insn, insn->vex ? 1 : 0, &a);
    (insn->operands[source].size == 8 ? from_i64 : from_i32)(&d.lane[0], &a.lane[0], integer, &csr);
    float_end(cpu, csr);
    vector_write(cpu, insn, 0, &d);
}

#define CONVERT_FROM_INTEGER(op, type)                                                             \
    void interpret_##op(struct cpu *cpu, const struct x86_insn *insn)                              \
    {                                                                                              \
        convert_from_integer(cpu, insn, type##_from_i32, type##_from_i64);                         \
    }
CONVERT_FROM_INTEGER(cvtsi2ss, ss)
CONVERT_FROM_INTEGER(vcvtsi2ss, ss)
CONVERT_FROM_INTEGER(cvtsi2sd, sd)
CONVERT_FROM_INTEGER(vcvtsi2sd, sd)

/* The low element to a general register, rounded or truncated. */
#define TO_INTEGER(name, instruction, register)                                                    \
    static uint64_t name(const union lane *b, uint32_t *csr)                                       \
    {                                                                                              \
        uint64_t integer;                                                                          \
        uint32_t host;                                                                             \
                                                                                                   \
        __asm__ volatile("stmxcsr %[host]\n\t"                                                     \
                         "movaps %[b], %%xmm0\n\t"                                                 \
                         "ldmxcsr %[csr]\n\t" instruction " %%xmm0, %" register "[integer]\n\t"    \
                         "stmxcsr %[csr]\n\t"                                                      \
                         "ldmxcsr %[host]"                                                         \
                         : [integer] "=&r"(integer), [csr] "+m"(*csr), [host] "=m"(host)           \
                         : [b] "m"(*b)                                                             \
                         : "xmm0");                                                                \
        return integer;                                                                            \
    }

typedef uint64_t to_integer(const union lane *b, uint32_t *csr);

static void convert_to_integer(struct cpu *cpu, const struct x86_insn *insn, to_integer *to_i32,
                               to_integer *to_i64)
{
    uint32_t csr = float_begin(cpu);
    union vector b;
    uint64_t integer;

    vector_check(cpu, insn);
    vector_read(cpu, insn, 1, &b);
    integer = (insn->operands[0].size == 8 ? to_i64 : to_i32)(&b.lane[0], &csr);
    float_end(cpu, csr);
    cpu_write_operand(cpu, insn, 0, integer);
}

#define CONVERT_TO_INTEGER(op)                                                                     \
    TO_INTEGER(op##_i32, #op, "k")                                                                 \
    TO_INTEGER(op##_i64, #op, "q")                                                                 \
    void interpret_##op(struct cpu *cpu, const struct x86_insn *insn)                              \
    {                                                                                              \
        convert_to_integer(cpu, insn, op##_i32, op##_i64);                                         \
    }                                                                                              \
    void interpret_v##op(struct cpu *cpu, const struct x86_insn *insn)                             \
    {                                                                                              \
        convert_to_integer(cpu, insn, op##_i32, op##_i64);                                         \
    }
CONVERT_TO_INTEGER(cvtss2si)
CONVERT_TO_INTEGER(cvttss2si)
CONVERT_TO_INTEGER(cvtsd2si)
CONVERT_TO_INTEGER(cvttsd2si)

/* To and from MMX registers. These enter MMX state like MMX instructions, save
 * CVTPI2PD with a memory operand, which does not touch it (SDM 2A). */
static void check_mmx_form(struct cpu *cpu, const struct x86_insn *insn)
{
    sse_check(cpu);
    if (insn->operands[0].kind == X86_OPERAND_MMX || insn->operands[1].kind == X86_OPERAND_MMX)
        mmx_check(cpu);
}

static void convert_from_mmx(struct cpu *cpu, const struct x86_insn *insn, float_binary *operation,
                             bool keep_upper)
{
    uint32_t csr = float_begin(cpu);
    union vector a, b, d = {0};

    check_mmx_form(cpu, insn);
    vector_read(cpu, insn, 1, &b);
    vector_read(cpu, insn, 0, &a);
    operation(&d.lane[0], &a.lane[0], &b.lane[0], &csr);
    if (keep_upper)
        d.u64[1] = a.u64[1];
    float_end(cpu, csr);
    vector_write(cpu, insn, 0, &d);
    if (insn->operands[1].kind == X86_OPERAND_MMX)
        mmx_enter(cpu);
}

void interpret_cvtpi2ps(struct cpu *cpu, const struct x86_insn *insn)
{
    convert_from_mmx(cpu, insn, cvtdq2ps_lane, true);
}

void interpret_cvtpi2pd(struct cpu *cpu, const struct x86_insn *insn)
{
    convert_from_mmx(cpu, insn, cvtdq2pd_lane, false);
}

static void convert_to_mmx(struct cpu *cpu, const struct x86_insn *insn, float_binary *operation,
                           unsigned bytes)
{
    uint32_t csr = float_begin(cpu);
    union vector b, d = {0};

    check_mmx_form(cpu, insn);
    vector_read(cpu, insn, 1, &b);
    if (bytes == 8)
        b.u64[1] = 0;
    operation(&d.lane[0], &b.lane[0], &b.lane[0], &csr);
    float_end(cpu, csr);
    vector_write(cpu, insn, 0, &d);
}

#define TO_MMX(op, operation, bytes)                                                               \
    void interpret_##op(struct cpu *cpu, const struct x86_insn *insn)                              \
    {                                                                                              \
        convert_to_mmx(cpu, insn, operation, bytes);                                               \
    }
TO_MMX(cvtps2pi, cvtps2dq_lane, 8)
TO_MMX(cvttps2pi, cvttps2dq_lane, 8)
TO_MMX(cvtpd2pi, cvtpd2dq_lane, 16)
TO_MMX(cvttpd2pi, cvttpd2dq_lane, 16)
