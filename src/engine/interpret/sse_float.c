/* Floating-point arithmetic and comparison: SSE to SSE4.1 and AVX (SDM 1
 * 10.4.1, 11.4.1, 12.10; VCMPPS in 2C). Each operation is the host's own
 * instruction under the guest's MXCSR, so NaN payloads, denormals and flags
 * are right by construction. */
#include "engine/interpret/vector.h"

#include <string.h>

#define ARITHMETIC(op)                                                                             \
    FLOAT_HOST(op##ps_lane, #op "ps %%xmm1, %%xmm0")                                               \
    FLOAT_HOST(op##pd_lane, #op "pd %%xmm1, %%xmm0")                                               \
    FLOAT_HOST(op##ss_lane, #op "ss %%xmm1, %%xmm0")                                               \
    FLOAT_HOST(op##sd_lane, #op "sd %%xmm1, %%xmm0")                                               \
    FLOAT_VEX(op##ps, op##ps_lane)                                                                 \
    FLOAT_VEX(op##pd, op##pd_lane)                                                                 \
    FLOAT_VEX(op##ss, op##ss_lane)                                                                 \
    FLOAT_VEX(op##sd, op##sd_lane)

ARITHMETIC(add)
ARITHMETIC(sub)
ARITHMETIC(mul)
ARITHMETIC(div)
ARITHMETIC(min)
ARITHMETIC(max)
ARITHMETIC(sqrt)

#define ONE_HOST(op, instruction)                                                                  \
    FLOAT_HOST(op##_lane, instruction)                                                             \
    FLOAT_VEX(op, op##_lane)

ONE_HOST(rcpps, "rcpps %%xmm1, %%xmm0")
ONE_HOST(rcpss, "rcpss %%xmm1, %%xmm0")
ONE_HOST(rsqrtps, "rsqrtps %%xmm1, %%xmm0")
ONE_HOST(rsqrtss, "rsqrtss %%xmm1, %%xmm0")
ONE_HOST(addsubps, "addsubps %%xmm1, %%xmm0")
ONE_HOST(addsubpd, "addsubpd %%xmm1, %%xmm0")
ONE_HOST(haddps, "haddps %%xmm1, %%xmm0")
ONE_HOST(haddpd, "haddpd %%xmm1, %%xmm0")
ONE_HOST(hsubps, "hsubps %%xmm1, %%xmm0")
ONE_HOST(hsubpd, "hsubpd %%xmm1, %%xmm0")

/* Comparison. A predicate tells for which of the four relations it holds, and
 * whether a quiet NaN is an invalid operand (SDM 2A CMPPD table 3-1). */
#define RELATION_GT 1u
#define RELATION_LT 2u
#define RELATION_EQ 4u
#define RELATION_UN 8u
#define SIGNALING   16u

static const uint8_t predicates[32] = {
    [0x00] = RELATION_EQ,
    [0x01] = RELATION_LT | SIGNALING,
    [0x02] = RELATION_LT | RELATION_EQ | SIGNALING,
    [0x03] = RELATION_UN,
    [0x04] = RELATION_GT | RELATION_LT | RELATION_UN,
    [0x05] = RELATION_GT | RELATION_EQ | RELATION_UN | SIGNALING,
    [0x06] = RELATION_GT | RELATION_UN | SIGNALING,
    [0x07] = RELATION_GT | RELATION_LT | RELATION_EQ,
    [0x08] = RELATION_EQ | RELATION_UN,
    [0x09] = RELATION_LT | RELATION_UN | SIGNALING,
    [0x0a] = RELATION_LT | RELATION_EQ | RELATION_UN | SIGNALING,
    [0x0b] = 0,
    [0x0c] = RELATION_GT | RELATION_LT,
    [0x0d] = RELATION_GT | RELATION_EQ | SIGNALING,
    [0x0e] = RELATION_GT | SIGNALING,
    [0x0f] = RELATION_GT | RELATION_LT | RELATION_EQ | RELATION_UN,
    [0x10] = RELATION_EQ | SIGNALING,
    [0x11] = RELATION_LT,
    [0x12] = RELATION_LT | RELATION_EQ,
    [0x13] = RELATION_UN | SIGNALING,
    [0x14] = RELATION_GT | RELATION_LT | RELATION_UN | SIGNALING,
    [0x15] = RELATION_GT | RELATION_EQ | RELATION_UN,
    [0x16] = RELATION_GT | RELATION_UN,
    [0x17] = RELATION_GT | RELATION_LT | RELATION_EQ | SIGNALING,
    [0x18] = RELATION_EQ | RELATION_UN | SIGNALING,
    [0x19] = RELATION_LT | RELATION_UN,
    [0x1a] = RELATION_LT | RELATION_EQ | RELATION_UN,
    [0x1b] = SIGNALING,
    [0x1c] = RELATION_GT | RELATION_LT | SIGNALING,
    [0x1d] = RELATION_GT | RELATION_EQ,
    [0x1e] = RELATION_GT,
    [0x1f] = RELATION_GT | RELATION_LT | RELATION_EQ | RELATION_UN | SIGNALING,
};

#define COMPARISONS(type)                                                                          \
    FLOAT_HOST(type##_equal, "cmp" #type " $0, %%xmm1, %%xmm0")                                    \
    FLOAT_HOST(type##_less, "cmp" #type " $1, %%xmm1, %%xmm0")                                     \
    FLOAT_HOST(type##_unordered, "cmp" #type " $3, %%xmm1, %%xmm0")
COMPARISONS(ps)
COMPARISONS(pd)
COMPARISONS(ss)
COMPARISONS(sd)

struct comparison {
    float_binary *equal, *less, *unordered;
    unsigned elements; /* bytes of the lane that are compared */
};

static const struct comparison compare_ps = {ps_equal, ps_less, ps_unordered, 16};
static const struct comparison compare_pd = {pd_equal, pd_less, pd_unordered, 16};
static const struct comparison compare_ss = {ss_equal, ss_less, ss_unordered, 4};
static const struct comparison compare_sd = {sd_equal, sd_less, sd_unordered, 8};

static void compare_lane(const struct comparison *type, unsigned predicate, union lane *d,
                         const union lane *a, const union lane *b, uint32_t *csr)
{
    const uint8_t holds = predicates[predicate];
    uint32_t quiet = *csr, signaling = *csr;
    union lane equal, less, unordered;

    type->equal(&equal, a, b, &quiet);
    type->unordered(&unordered, a, b, &quiet);
    type->less(&less, a, b, &signaling);
    *csr |= holds & SIGNALING ? signaling : quiet;
    *d = *a;
    for (unsigned i = 0; i < type->elements; i++) {
        uint8_t greater = (uint8_t)~(equal.u8[i] | less.u8[i] | unordered.u8[i]);

        d->u8[i] = (uint8_t)((holds & RELATION_EQ ? equal.u8[i] : 0) |
                             (holds & RELATION_LT ? less.u8[i] : 0) |
                             (holds & RELATION_UN ? unordered.u8[i] : 0) |
                             (holds & RELATION_GT ? greater : 0));
    }
}

/* A legacy form knows the first eight predicates only. */
static void vector_compare(struct cpu *cpu, const struct x86_insn *insn,
                           const struct comparison *type)
{
    unsigned predicate = (unsigned)insn->immediate & (insn->vex ? 31 : 7);
    union vector a, b, d = {0};
    uint32_t csr = float_begin(cpu);

    vector_check(cpu, insn);
    vector_read(cpu, insn, insn->vex ? 2 : 1, &b);
    vector_read(cpu, insn, insn->vex ? 1 : 0, &a);
    for (unsigned i = 0; i < vector_lanes(insn); i++)
        compare_lane(type, predicate, &d.lane[i], &a.lane[i], &b.lane[i], &csr);
    float_end(cpu, csr);
    vector_write(cpu, insn, 0, &d);
}

#define COMPARE(op, type)                                                                          \
    void interpret_##op(struct cpu *cpu, const struct x86_insn *insn)                              \
    {                                                                                              \
        vector_compare(cpu, insn, type);                                                           \
    }
COMPARE(cmpps, &compare_ps)
COMPARE(cmppd, &compare_pd)
COMPARE(cmpss, &compare_ss)
COMPARE(cmpsd, &compare_sd)
COMPARE(vcmpps, &compare_ps)
COMPARE(vcmppd, &compare_pd)
COMPARE(vcmpss, &compare_ss)
COMPARE(vcmpsd, &compare_sd)

/* COMISS and its kin: ZF, PF, CF tell the relation, OF, SF and AF are cleared. */
#define FLAGS_HOST(name, instruction)                                                              \
    static uint64_t name(const union lane *a, const union lane *b, uint32_t *csr)                  \
    {                                                                                              \
        uint8_t zero, parity, carry;                                                               \
        uint32_t host;                                                                             \
                                                                                                   \
        __asm__ volatile("stmxcsr %[host]\n\t"                                                     \
                         "movaps %[a], %%xmm0\n\t"                                                 \
                         "movaps %[b], %%xmm1\n\t"                                                 \
                         "ldmxcsr %[csr]\n\t" instruction " %%xmm1, %%xmm0\n\t"                    \
                         "setz %[zero]\n\t"                                                        \
                         "setp %[parity]\n\t"                                                      \
                         "setc %[carry]\n\t"                                                       \
                         "stmxcsr %[csr]\n\t"                                                      \
                         "ldmxcsr %[host]"                                                         \
                         : [zero] "=&q"(zero), [parity] "=&q"(parity), [carry] "=&q"(carry),       \
                           [csr] "+m"(*csr), [host] "=m"(host)                                     \
                         : [a] "m"(*a), [b] "m"(*b)                                                \
                         : "xmm0", "xmm1", "cc");                                                  \
        return (zero ? X86_ZF : 0) | (parity ? X86_PF : 0) | (carry ? X86_CF : 0);                 \
    }                                                                                              \
    static void name##_any(struct cpu *cpu, const struct x86_insn *insn)                           \
    {                                                                                              \
        uint32_t csr = float_begin(cpu);                                                           \
        union vector a, b;                                                                         \
        uint64_t flags;                                                                            \
                                                                                                   \
        vector_check(cpu, insn);                                                                   \
        vector_read(cpu, insn, 1, &b);                                                             \
        vector_read(cpu, insn, 0, &a);                                                             \
        flags = name(&a.lane[0], &b.lane[0], &csr);                                                \
        float_end(cpu, csr);                                                                       \
        cpu->state.rflags = (cpu->state.rflags & ~(uint64_t)X86_STATUS_FLAGS) | flags;             \
    }                                                                                              \
    void interpret_##name(struct cpu *cpu, const struct x86_insn *insn)                            \
    {                                                                                              \
        name##_any(cpu, insn);                                                                     \
    }                                                                                              \
    void interpret_v##name(struct cpu *cpu, const struct x86_insn *insn)                           \
    {                                                                                              \
        name##_any(cpu, insn);                                                                     \
    }
FLAGS_HOST(comiss, "comiss")
FLAGS_HOST(comisd, "comisd")
FLAGS_HOST(ucomiss, "ucomiss")
FLAGS_HOST(ucomisd, "ucomisd")

/* ROUNDxx: the immediate gives the rounding mode, or leaves it to MXCSR, and
 * may keep the precision flag out (SDM 2B ROUNDPD). */
#define ROUND_CURRENT   4u
#define ROUND_NO_FLAG   8u
#define ROUND_HOST(type) FLOAT_HOST(round##type##_lane, "round" #type " $4, %%xmm1, %%xmm0")
ROUND_HOST(ps)
ROUND_HOST(pd)
ROUND_HOST(ss)
ROUND_HOST(sd)

static void vector_round(struct cpu *cpu, const struct x86_insn *insn, float_binary *operation)
{
    unsigned source = insn->operand_count == 4 ? 2 : 1;
    uint8_t imm = (uint8_t)insn->immediate;
    union vector a, b, d = {0};
    uint32_t csr = float_begin(cpu);

    vector_check(cpu, insn);
    vector_read(cpu, insn, source, &b);
    vector_read(cpu, insn, source - 1, &a);
    if (!(imm & ROUND_CURRENT))
        csr = (csr & ~MXCSR_RC) | (imm & 3u) << MXCSR_RC_SHIFT;
    for (unsigned i = 0; i < vector_lanes(insn); i++)
        operation(&d.lane[i], &a.lane[i], &b.lane[i], &csr);
    if (imm & ROUND_NO_FLAG)
        csr &= ~MXCSR_PRECISION;
    float_end(cpu, csr);
    vector_write(cpu, insn, 0, &d);
}

#define ROUND(op)                                                                                  \
    void interpret_##op(struct cpu *cpu, const struct x86_insn *insn)                              \
    {                                                                                              \
        vector_round(cpu, insn, op##_lane);                                                        \
    }                                                                                              \
    void interpret_v##op(struct cpu *cpu, const struct x86_insn *insn)                             \
    {                                                                                              \
        vector_round(cpu, insn, op##_lane);                                                        \
    }
ROUND(roundps)
ROUND(roundpd)
ROUND(roundss)
ROUND(roundsd)

/* One lane of a dot product on its way: x and y, then their products in x, then
 * sums of neighbours in x. */
struct dot_lane {
    union lane x, y;
};

static void dot_multiply(struct dot_lane *lane, unsigned elements, uint32_t *csr)
{
    union lane product;

    (elements == 4 ? mulps_lane : mulpd_lane)(&product, &lane->x, &lane->y, csr);
    lane->x = product;
}

static void dot_add_neighbours(struct dot_lane *lane, unsigned elements, bool own, uint32_t *csr)
{
    const union lane x = lane->x;

    if (elements == 4) {
        lane->y = (union lane){.u32 = {x.u32[1], x.u32[0], x.u32[3], x.u32[2]}};
        addps_lane(&lane->x, own ? &lane->y : &x, own ? &x : &lane->y, csr);
    } else {
        lane->y = (union lane){.u64 = {x.u64[1], x.u64[0]}};
        addpd_lane(&lane->x, &x, &lane->y, csr);
    }
}

static void dot_add_halves(struct dot_lane *lane, uint32_t *csr)
{
    const union lane x = lane->x;

    lane->y = (union lane){.u32 = {x.u32[2], x.u32[3], x.u32[0], x.u32[1]}};
    addps_lane(&lane->x, &x, &lane->y, csr);
}

/* Of two NaNs a sum is the first one. On Intel's CPUs each element of the result has a sum of
 * its own: that of four begins with the other element of its half, that of two with its own.
 * On AMD's all have the first element's. The manual leaves it open (SDM 2A DPPS). Translated
 * code does what the host does. */
bool vector_dot_by_lane(void)
{
    static const union lane nans = {.u32 = {0x7fc00001, 0x7fc00002, 0x7fc00003, 0x7fc00004}};
    union lane sums;

    if (!__builtin_cpu_supports("sse4.1"))
        return false;
    asm volatile("movups %1, %%xmm0\n\t"
                 "dpps $0xff, %%xmm0, %%xmm0\n\t"
                 "movups %%xmm0, %0"
                 : "=m"(sums)
                 : "m"(nans)
                 : "xmm0");
    return sums.u32[0] != sums.u32[1];
}

/* Dot products: imm[7:4] chooses the products that are added, imm[3:0] where
 * the sum goes. Carried out with the selection as zeroes made beforehand, as
 * SDM 2A DPPS describes: unselected products are +0 and raise nothing. Each
 * step is an operation of its own to exceptions that are not masked. */
static void dot_product(struct cpu *cpu, const struct x86_insn *insn, unsigned elements)
{
    const uint8_t imm = (uint8_t)insn->immediate;
    const unsigned lanes = vector_lanes(insn), bytes = 16 / elements;
    const bool own = cpu->soft->dot_by_lane;
    struct dot_lane lane[2];
    union vector a, b, d = {0};
    uint32_t csr = float_begin(cpu);

    vector_check(cpu, insn);
    vector_read(cpu, insn, insn->vex ? 2 : 1, &b);
    vector_read(cpu, insn, insn->vex ? 1 : 0, &a);
    for (unsigned i = 0; i < lanes; i++) {
        lane[i] = (struct dot_lane){a.lane[i], b.lane[i]};
        for (unsigned j = 0; j < elements; j++)
            if (!(imm >> (4 + j) & 1)) {
                memset(&lane[i].x.u8[j * bytes], 0, bytes);
                memset(&lane[i].y.u8[j * bytes], 0, bytes);
            }
        dot_multiply(&lane[i], elements, &csr);
    }
    float_end(cpu, csr);
    for (unsigned i = 0; i < lanes; i++)
        dot_add_neighbours(&lane[i], elements, own, &csr);
    float_end(cpu, csr);
    for (unsigned i = 0; i < lanes && elements == 4; i++)
        dot_add_halves(&lane[i], &csr);
    float_end(cpu, csr);
    for (unsigned i = 0; i < lanes; i++)
        for (unsigned j = 0; j < elements; j++)
            if (imm >> j & 1)
                memcpy(&d.lane[i].u8[j * bytes], &lane[i].x.u8[own ? j * bytes : 0], bytes);
    vector_write(cpu, insn, 0, &d);
}

#define DOT_PRODUCT(op, elements)                                                                  \
    void interpret_##op(struct cpu *cpu, const struct x86_insn *insn)                              \
    {                                                                                              \
        dot_product(cpu, insn, elements);                                                          \
    }
DOT_PRODUCT(dpps, 4)
DOT_PRODUCT(vdpps, 4)
DOT_PRODUCT(dppd, 2)
DOT_PRODUCT(vdppd, 2)
