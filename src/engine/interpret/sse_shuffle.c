/* Packing, unpacking, shuffling, blending, inserting and extracting elements
 * (SDM 1 10.4.4, 11.4.1.4, 12.10). */
#include "engine/interpret/vector.h"

#include <string.h>

/* Pack: elements of a, then those of b, each half as wide and saturated. */
#define PACK(name, from, to, low, high)                                                            \
    static void name##_lane(union lane *d, const union lane *a, const union lane *b,               \
                            unsigned bytes)                                                        \
    {                                                                                              \
        unsigned count = bytes / sizeof(a->from[0]);                                               \
                                                                                                   \
        *d = (union lane){0};                                                                      \
        for (unsigned i = 0; i < count; i++) {                                                     \
            d->to[i] = (__typeof__(d->to[0]))clamp_i32(a->from[i], low, high);                     \
            d->to[i + count] = (__typeof__(d->to[0]))clamp_i32(b->from[i], low, high);             \
        }                                                                                          \
    }                                                                                              \
    BINARY_VEX(name, name##_lane)

PACK(packsswb, i16, i8, INT8_MIN, INT8_MAX)
PACK(packssdw, i32, i16, INT16_MIN, INT16_MAX)
PACK(packuswb, i16, u8, 0, UINT8_MAX)
PACK(packusdw, i32, u16, 0, UINT16_MAX)

/* Unpack: interleave the lower (first: 0) or upper halves of a and b. */
#define UNPACK(name, field, upper)                                                                 \
    static void name##_lane(union lane *d, const union lane *a, const union lane *b,               \
                            unsigned bytes)                                                        \
    {                                                                                              \
        unsigned half = bytes / sizeof(a->field[0]) / 2, first = (upper) ? half : 0;               \
                                                                                                   \
        *d = (union lane){0};                                                                      \
        for (unsigned i = 0; i < half; i++) {                                                      \
            d->field[2 * i] = a->field[first + i];                                                 \
            d->field[2 * i + 1] = b->field[first + i];                                             \
        }                                                                                          \
    }                                                                                              \
    BINARY_VEX(name, name##_lane)

UNPACK(punpcklbw, u8, false)
UNPACK(punpcklwd, u16, false)
UNPACK(punpckldq, u32, false)
UNPACK(punpcklqdq, u64, false)
UNPACK(punpckhbw, u8, true)
UNPACK(punpckhwd, u16, true)
UNPACK(punpckhdq, u32, true)
UNPACK(punpckhqdq, u64, true)
BINARY_VEX(unpcklps, punpckldq_lane)
BINARY_VEX(unpcklpd, punpcklqdq_lane)
BINARY_VEX(unpckhps, punpckhdq_lane)
BINARY_VEX(unpckhpd, punpckhqdq_lane)

static void pshufb_lane(union lane *d, const union lane *a, const union lane *b, unsigned bytes)
{
    *d = (union lane){0};
    for (unsigned i = 0; i < bytes; i++)
        d->u8[i] = b->u8[i] & 0x80 ? 0 : a->u8[b->u8[i] & (bytes - 1)];
}
BINARY_VEX(pshufb, pshufb_lane)

/* Shuffles by immediate: two bits choose each element. */
static void pshufd_lane(union lane *d, const union lane *a, const union lane *b, uint8_t imm,
                        unsigned bytes)
{
    (void)a, (void)bytes;
    for (unsigned i = 0; i < 4; i++)
        d->u32[i] = b->u32[imm >> (2 * i) & 3];
}
IMMEDIATE_VEX(pshufd, pshufd_lane)

static void pshuflw_lane(union lane *d, const union lane *a, const union lane *b, uint8_t imm,
                         unsigned bytes)
{
    (void)a, (void)bytes;
    *d = *b;
    for (unsigned i = 0; i < 4; i++)
        d->u16[i] = b->u16[imm >> (2 * i) & 3];
}
IMMEDIATE(pshufw, pshuflw_lane)
IMMEDIATE_VEX(pshuflw, pshuflw_lane)

static void pshufhw_lane(union lane *d, const union lane *a, const union lane *b, uint8_t imm,
                         unsigned bytes)
{
    (void)a, (void)bytes;
    *d = *b;
    for (unsigned i = 0; i < 4; i++)
        d->u16[4 + i] = b->u16[4 + (imm >> (2 * i) & 3)];
}
IMMEDIATE_VEX(pshufhw, pshufhw_lane)

static void shufps_lane(union lane *d, const union lane *a, const union lane *b, uint8_t imm,
                        unsigned bytes)
{
    (void)bytes;
    for (unsigned i = 0; i < 4; i++)
        d->u32[i] = (i < 2 ? a : b)->u32[imm >> (2 * i) & 3];
}
IMMEDIATE_VEX(shufps, shufps_lane)

static void palignr_lane(union lane *d, const union lane *a, const union lane *b, uint8_t imm,
                         unsigned bytes)
{
    uint8_t both[32];

    memcpy(both, b, bytes);
    memcpy(both + bytes, a, bytes);
    *d = (union lane){0};
    for (unsigned i = 0; i < bytes; i++)
        d->u8[i] = i + imm < 2 * bytes ? both[i + imm] : 0;
}
IMMEDIATE_VEX(palignr, palignr_lane)

static void pblendw_lane(union lane *d, const union lane *a, const union lane *b, uint8_t imm,
                         unsigned bytes)
{
    (void)bytes;
    for (unsigned i = 0; i < 8; i++)
        d->u16[i] = (imm >> i & 1 ? b : a)->u16[i];
}
IMMEDIATE_VEX(pblendw, pblendw_lane)

/* Operations whose immediate has bits for the whole vector, not for a lane. */
typedef void lane_select(union lane *d, const union lane *a, const union lane *b, unsigned select);

static void vector_select(struct cpu *cpu, const struct x86_insn *insn, unsigned shift,
                          lane_select *operation)
{
    union vector a, b, d = {0};

    vector_check(cpu, insn);
    vector_read(cpu, insn, insn->vex ? 2 : 1, &b);
    vector_read(cpu, insn, insn->vex ? 1 : 0, &a);
    for (unsigned i = 0; i < vector_lanes(insn); i++)
        operation(&d.lane[i], &a.lane[i], &b.lane[i], (uint8_t)insn->immediate >> (shift * i));
    vector_write(cpu, insn, 0, &d);
}

#define SELECT(op, shift, operation)                                                               \
    void interpret_##op(struct cpu *cpu, const struct x86_insn *insn)                              \
    {                                                                                              \
        vector_select(cpu, insn, shift, operation);                                                \
    }

static void shufpd_lane(union lane *d, const union lane *a, const union lane *b, unsigned select)
{
    d->u64[0] = a->u64[select & 1];
    d->u64[1] = b->u64[select >> 1 & 1];
}
SELECT(shufpd, 2, shufpd_lane)
SELECT(vshufpd, 2, shufpd_lane)

static void blend_u32(union lane *d, const union lane *a, const union lane *b, unsigned select)
{
    for (unsigned i = 0; i < 4; i++)
        d->u32[i] = (select >> i & 1 ? b : a)->u32[i];
}
SELECT(blendps, 4, blend_u32)
SELECT(vblendps, 4, blend_u32)
SELECT(vpblendd, 4, blend_u32)

static void blend_u64(union lane *d, const union lane *a, const union lane *b, unsigned select)
{
    for (unsigned i = 0; i < 2; i++)
        d->u64[i] = (select >> i & 1 ? b : a)->u64[i];
}
SELECT(blendpd, 2, blend_u64)
SELECT(vblendpd, 2, blend_u64)

/* Blends by the sign of each element of a mask: XMM0 in the legacy forms,
 * the fourth operand (imm8[7:4]) in the VEX forms. */
static void vector_blend(struct cpu *cpu, const struct x86_insn *insn, unsigned element)
{
    union vector a, b, mask, d = {0};

    vector_check(cpu, insn);
    if (insn->vex) {
        vector_read(cpu, insn, 2, &b);
        vector_read(cpu, insn, 1, &a);
        vector_read(cpu, insn, 3, &mask);
    } else {
        vector_read(cpu, insn, 1, &b);
        vector_read(cpu, insn, 0, &a);
        vector_read_xmm(cpu, 0, &mask.lane[0]);
    }
    for (unsigned i = 0; i < 16 * vector_lanes(insn); i += element) {
        const union vector *from = mask.u8[i + element - 1] & 0x80 ? &b : &a;

        memcpy(&d.u8[i], &from->u8[i], element);
    }
    vector_write(cpu, insn, 0, &d);
}

#define BLEND(op, element)                                                                         \
    void interpret_##op(struct cpu *cpu, const struct x86_insn *insn)                              \
    {                                                                                              \
        vector_blend(cpu, insn, element);                                                          \
    }
BLEND(pblendvb, 1)
BLEND(vpblendvb, 1)
BLEND(blendvps, 4)
BLEND(vblendvps, 4)
BLEND(blendvpd, 8)
BLEND(vblendvpd, 8)

/* Duplicate elements (SSE3). */
static void movsldup_lane(union lane *d, const union lane *a, const union lane *b, unsigned bytes)
{
    (void)a, (void)bytes;
    *d = (union lane){.u32 = {b->u32[0], b->u32[0], b->u32[2], b->u32[2]}};
}
BINARY_VEX(movsldup, movsldup_lane)

static void movshdup_lane(union lane *d, const union lane *a, const union lane *b, unsigned bytes)
{
    (void)a, (void)bytes;
    *d = (union lane){.u32 = {b->u32[1], b->u32[1], b->u32[3], b->u32[3]}};
}
BINARY_VEX(movshdup, movshdup_lane)

static void movddup_lane(union lane *d, const union lane *a, const union lane *b, unsigned bytes)
{
    (void)a, (void)bytes;
    *d = (union lane){.u64 = {b->u64[0], b->u64[0]}};
}
BINARY_VEX(movddup, movddup_lane)

/* Widening moves (SSE4.1); the 256-bit forms read 16 bytes for both lanes. */
#define WIDEN(name, from, to)                                                                      \
    static void name##_any(struct cpu *cpu, const struct x86_insn *insn)                           \
    {                                                                                              \
        union vector b;                                                                            \
        union {                                                                                    \
            union vector vector;                                                                   \
            __typeof__(((union lane *)0)->to[0]) element[32];                                      \
        } d = {0};                                                                                 \
        unsigned count = 16 * vector_lanes(insn) / sizeof(d.element[0]);                           \
                                                                                                   \
        vector_check(cpu, insn);                                                                   \
        vector_read(cpu, insn, 1, &b);                                                             \
        for (unsigned i = 0; i < count; i++)                                                       \
            d.element[i] = b.lane[0].from[i];                                                      \
        vector_write(cpu, insn, 0, &d.vector);                                                     \
    }                                                                                              \
    void interpret_##name(struct cpu *cpu, const struct x86_insn *insn)                            \
    {                                                                                              \
        name##_any(cpu, insn);                                                                     \
    }                                                                                              \
    void interpret_v##name(struct cpu *cpu, const struct x86_insn *insn)                           \
    {                                                                                              \
        name##_any(cpu, insn);                                                                     \
    }

WIDEN(pmovsxbw, i8, i16)
WIDEN(pmovsxbd, i8, i32)
WIDEN(pmovsxbq, i8, i64)
WIDEN(pmovsxwd, i16, i32)
WIDEN(pmovsxwq, i16, i64)
WIDEN(pmovsxdq, i32, i64)
WIDEN(pmovzxbw, u8, u16)
WIDEN(pmovzxbd, u8, u32)
WIDEN(pmovzxbq, u8, u64)
WIDEN(pmovzxwd, u16, u32)
WIDEN(pmovzxwq, u16, u64)
WIDEN(pmovzxdq, u32, u64)

/* Insert an element from a general register or memory; its number is taken
 * modulo the count of elements. */
static void vector_insert(struct cpu *cpu, const struct x86_insn *insn, unsigned element)
{
    unsigned source = insn->vex ? 2 : 1;
    unsigned count = vector_size(insn) / element;
    union vector d;
    uint64_t value;

    vector_check(cpu, insn);
    value = cpu_read_operand(cpu, insn, source);
    vector_read(cpu, insn, insn->vex ? 1 : 0, &d);
    memcpy(&d.u8[((uint8_t)insn->immediate & (count - 1)) * element], &value, element);
    vector_write(cpu, insn, 0, &d);
}

/* Extract one: zero-extended to a general register, as it is to memory. */
static void vector_extract(struct cpu *cpu, const struct x86_insn *insn, unsigned element)
{
    unsigned count = vector_size(insn) / element;
    union vector source, d = {0};

    vector_check(cpu, insn);
    vector_read(cpu, insn, 1, &source);
    memcpy(&d, &source.u8[((uint8_t)insn->immediate & (count - 1)) * element], element);
    vector_write(cpu, insn, 0, &d);
    if (insn->operands[1].kind == X86_OPERAND_MMX)
        mmx_enter(cpu);
}

#define MOVE_ELEMENT(op, function, element)                                                        \
    void interpret_##op(struct cpu *cpu, const struct x86_insn *insn)                              \
    {                                                                                              \
        function(cpu, insn, element);                                                              \
    }                                                                                              \
    void interpret_v##op(struct cpu *cpu, const struct x86_insn *insn)                             \
    {                                                                                              \
        function(cpu, insn, element);                                                              \
    }
MOVE_ELEMENT(pinsrb, vector_insert, 1)
MOVE_ELEMENT(pinsrw, vector_insert, 2)
MOVE_ELEMENT(pinsrd, vector_insert, insn->operands[insn->vex ? 2 : 1].size)
MOVE_ELEMENT(pextrb, vector_extract, 1)
MOVE_ELEMENT(pextrw, vector_extract, 2)
MOVE_ELEMENT(pextrd, vector_extract, insn->operands[0].size)
MOVE_ELEMENT(extractps, vector_extract, 4)

/* INSERTPS: source element in imm[7:6] (memory: the only one), destination in
 * imm[5:4], elements to clear in imm[3:0]. */
static void insertps_any(struct cpu *cpu, const struct x86_insn *insn)
{
    unsigned source = insn->vex ? 2 : 1;
    uint8_t imm = (uint8_t)insn->immediate;
    union vector d, b;

    vector_check(cpu, insn);
    vector_read(cpu, insn, source, &b);
    vector_read(cpu, insn, insn->vex ? 1 : 0, &d);
    d.u32[imm >> 4 & 3] = b.u32[insn->operands[source].kind == X86_OPERAND_MEMORY ? 0 : imm >> 6];
    for (unsigned i = 0; i < 4; i++)
        if (imm >> i & 1)
            d.u32[i] = 0;
    vector_write(cpu, insn, 0, &d);
}

void interpret_insertps(struct cpu *cpu, const struct x86_insn *insn)
{
    insertps_any(cpu, insn);
}

void interpret_vinsertps(struct cpu *cpu, const struct x86_insn *insn)
{
    insertps_any(cpu, insn);
}

/* The sign bits of all elements to a general register. */
static void vector_signs(struct cpu *cpu, const struct x86_insn *insn, unsigned element)
{
    union vector source;
    uint64_t signs = 0;

    vector_check(cpu, insn);
    vector_read(cpu, insn, 1, &source);
    for (unsigned i = 0; i < vector_size(insn) / element; i++)
        signs |= (uint64_t)(source.u8[i * element + element - 1] >> 7) << i;
    if (insn->operands[1].kind == X86_OPERAND_MMX)
        mmx_enter(cpu);
    cpu_write_operand(cpu, insn, 0, signs);
}
MOVE_ELEMENT(pmovmskb, vector_signs, 1)
MOVE_ELEMENT(movmskps, vector_signs, 4)
MOVE_ELEMENT(movmskpd, vector_signs, 8)

/* PTEST, VTESTPS, VTESTPD: ZF and CF of the bits that mask keeps. */
static void vector_test(struct cpu *cpu, const struct x86_insn *insn, uint64_t mask)
{
    union vector a, b;
    uint64_t both = 0, only_b = 0;

    vector_check(cpu, insn);
    vector_read(cpu, insn, 1, &b);
    vector_read(cpu, insn, 0, &a);
    for (unsigned i = 0; i < vector_size(insn) / 8; i++) {
        both |= a.u64[i] & b.u64[i] & mask;
        only_b |= ~a.u64[i] & b.u64[i] & mask;
    }
    cpu->state.rflags = (cpu->state.rflags & ~(uint64_t)X86_STATUS_FLAGS) |
                        (both ? 0 : X86_ZF) | (only_b ? 0 : X86_CF);
}

#define TEST(op, mask)                                                                             \
    void interpret_##op(struct cpu *cpu, const struct x86_insn *insn)                              \
    {                                                                                              \
        vector_test(cpu, insn, mask);                                                              \
    }
TEST(ptest, UINT64_MAX)
TEST(vptest, UINT64_MAX)
TEST(vtestps, 0x8000000080000000)
TEST(vtestpd, 0x8000000000000000)
