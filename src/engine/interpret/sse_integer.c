/* Packed integer arithmetic: MMX, SSE2, SSSE3, SSE4, AVX and AVX2 (SDM 1 9.4,
 * 11.4.2, 12.4, 12.10, 14.6). One row an instruction: its name, the element it
 * works on, and the result r of the elements x (first source) and y (second). */
#include "engine/interpret/vector.h"

#define ELEMENTS(field) (sizeof((union lane){0}.field) / sizeof((union lane){0}.field[0]))

/* An element-wise operation; type and field name the element. */
#define EACH(name, type, field, result)                                                            \
    static void name##_lane(union lane *d, const union lane *a, const union lane *b,               \
                            unsigned bytes)                                                        \
    {                                                                                              \
        (void)bytes;                                                                               \
        for (unsigned i = 0; i < ELEMENTS(field); i++) {                                           \
            const type x = a->field[i], y = b->field[i];                                           \
                                                                                                   \
            (void)x, (void)y;                                                                      \
            d->field[i] = (type)(result);                                                          \
        }                                                                                          \
    }                                                                                              \
    BINARY_VEX(name, name##_lane)

EACH(paddb, uint8_t, u8, x + y)
EACH(paddw, uint16_t, u16, x + y)
EACH(paddd, uint32_t, u32, x + y)
EACH(paddq, uint64_t, u64, x + y)
EACH(psubb, uint8_t, u8, x - y)
EACH(psubw, uint16_t, u16, x - y)
EACH(psubd, uint32_t, u32, x - y)
EACH(psubq, uint64_t, u64, x - y)
EACH(paddsb, int8_t, i8, clamp_i32(x + y, INT8_MIN, INT8_MAX))
EACH(paddsw, int16_t, i16, clamp_i32(x + y, INT16_MIN, INT16_MAX))
EACH(paddusb, uint8_t, u8, clamp_i32(x + y, 0, UINT8_MAX))
EACH(paddusw, uint16_t, u16, clamp_i32(x + y, 0, UINT16_MAX))
EACH(psubsb, int8_t, i8, clamp_i32(x - y, INT8_MIN, INT8_MAX))
EACH(psubsw, int16_t, i16, clamp_i32(x - y, INT16_MIN, INT16_MAX))
EACH(psubusb, uint8_t, u8, clamp_i32(x - y, 0, UINT8_MAX))
EACH(psubusw, uint16_t, u16, clamp_i32(x - y, 0, UINT16_MAX))

EACH(pand, uint64_t, u64, x &y)
EACH(pandn, uint64_t, u64, ~x & y)
EACH(por, uint64_t, u64, x | y)
EACH(pxor, uint64_t, u64, x ^ y)
BINARY_VEX(andps, pand_lane)
BINARY_VEX(andpd, pand_lane)
BINARY_VEX(andnps, pandn_lane)
BINARY_VEX(andnpd, pandn_lane)
BINARY_VEX(orps, por_lane)
BINARY_VEX(orpd, por_lane)
BINARY_VEX(xorps, pxor_lane)
BINARY_VEX(xorpd, pxor_lane)

EACH(pcmpeqb, uint8_t, u8, -(x == y))
EACH(pcmpeqw, uint16_t, u16, -(x == y))
EACH(pcmpeqd, uint32_t, u32, -(x == y))
EACH(pcmpeqq, int64_t, i64, -(x == y))
EACH(pcmpgtb, int8_t, i8, -(x > y))
EACH(pcmpgtw, int16_t, i16, -(x > y))
EACH(pcmpgtd, int32_t, i32, -(x > y))
EACH(pcmpgtq, int64_t, i64, -(x > y))

EACH(pminub, uint8_t, u8, x < y ? x : y)
EACH(pminuw, uint16_t, u16, x < y ? x : y)
EACH(pminud, uint32_t, u32, x < y ? x : y)
EACH(pminsb, int8_t, i8, x < y ? x : y)
EACH(pminsw, int16_t, i16, x < y ? x : y)
EACH(pminsd, int32_t, i32, x < y ? x : y)
EACH(pmaxub, uint8_t, u8, x > y ? x : y)
EACH(pmaxuw, uint16_t, u16, x > y ? x : y)
EACH(pmaxud, uint32_t, u32, x > y ? x : y)
EACH(pmaxsb, int8_t, i8, x > y ? x : y)
EACH(pmaxsw, int16_t, i16, x > y ? x : y)
EACH(pmaxsd, int32_t, i32, x > y ? x : y)

EACH(pavgb, uint8_t, u8, (x + y + 1) >> 1)
EACH(pavgw, uint16_t, u16, (x + y + 1) >> 1)
EACH(pmullw, int16_t, i16, x *y)
EACH(pmulhw, int16_t, i16, (x * y) >> 16)
EACH(pmulhuw, uint16_t, u16, ((uint32_t)x * y) >> 16)
EACH(pmulhrsw, int16_t, i16, (((x * y) >> 14) + 1) >> 1)
EACH(pmulld, uint32_t, u32, x *y)
EACH(pmuludq, uint64_t, u64, (x & UINT32_MAX) * (y & UINT32_MAX))
EACH(pmuldq, int64_t, i64, (int64_t)(int32_t)x *(int32_t)y)

EACH(psignb, int8_t, i8, y < 0 ? -x : y ? x : 0)
EACH(psignw, int16_t, i16, y < 0 ? -x : y ? x : 0)
EACH(psignd, int32_t, i32, y < 0 ? 0u - (uint32_t)x : y ? (uint32_t)x : 0)
EACH(pabsb, int8_t, i8, y < 0 ? -y : y)
EACH(pabsw, int16_t, i16, y < 0 ? -y : y)
EACH(pabsd, int32_t, i32, y < 0 ? 0u - (uint32_t)y : (uint32_t)y)

/* Pairs of words give a doubleword. */
static void pmaddwd_lane(union lane *d, const union lane *a, const union lane *b, unsigned bytes)
{
    (void)bytes;
    for (unsigned i = 0; i < 4; i++)
        d->u32[i] = (uint32_t)(a->i16[2 * i] * b->i16[2 * i]) +
                    (uint32_t)(a->i16[2 * i + 1] * b->i16[2 * i + 1]);
}
BINARY_VEX(pmaddwd, pmaddwd_lane)

/* Unsigned bytes of a times signed bytes of b, pairs added with saturation. */
static void pmaddubsw_lane(union lane *d, const union lane *a, const union lane *b, unsigned bytes)
{
    (void)bytes;
    for (unsigned i = 0; i < 8; i++)
        d->i16[i] = (int16_t)clamp_i32(a->u8[2 * i] * b->i8[2 * i] +
                                           a->u8[2 * i + 1] * b->i8[2 * i + 1],
                                       INT16_MIN, INT16_MAX);
}
BINARY_VEX(pmaddubsw, pmaddubsw_lane)

static unsigned distance(uint8_t x, uint8_t y)
{
    return x > y ? x - y : y - x;
}

static void psadbw_lane(union lane *d, const union lane *a, const union lane *b, unsigned bytes)
{
    (void)bytes;
    for (unsigned half = 0; half < 2; half++) {
        d->u64[half] = 0;
        for (unsigned i = 0; i < 8; i++)
            d->u64[half] += distance(a->u8[8 * half + i], b->u8[8 * half + i]);
    }
}
BINARY_VEX(psadbw, psadbw_lane)

/* Sums of differences of four bytes at sliding places (SDM 2B MPSADBW). */
static void mpsadbw_lane(union lane *d, const union lane *a, const union lane *b, uint8_t imm)
{
    const uint8_t *fixed = &b->u8[(imm & 3) * 4];
    const uint8_t *sliding = &a->u8[imm & 4];

    for (unsigned i = 0; i < 8; i++) {
        d->u16[i] = 0;
        for (unsigned j = 0; j < 4; j++)
            d->u16[i] = (uint16_t)(d->u16[i] + distance(sliding[i + j], fixed[j]));
    }
}

/* The upper lane of VMPSADBW has its own three bits of the immediate. */
static void interpret_mpsadbw_any(struct cpu *cpu, const struct x86_insn *insn)
{
    union vector a, b, d = {0};

    vector_check(cpu, insn);
    vector_read(cpu, insn, insn->vex ? 2 : 1, &b);
    vector_read(cpu, insn, insn->vex ? 1 : 0, &a);
    for (unsigned i = 0; i < vector_lanes(insn); i++)
        mpsadbw_lane(&d.lane[i], &a.lane[i], &b.lane[i], (uint8_t)(insn->immediate >> (3 * i)) & 7);
    vector_write(cpu, insn, 0, &d);
}

void interpret_mpsadbw(struct cpu *cpu, const struct x86_insn *insn)
{
    interpret_mpsadbw_any(cpu, insn);
}

void interpret_vmpsadbw(struct cpu *cpu, const struct x86_insn *insn)
{
    interpret_mpsadbw_any(cpu, insn);
}

/* Horizontal: neighbours of a make the lower half of d, those of b the upper. */
#define HORIZONTAL(name, field, size, result)                                                      \
    static void name##_lane(union lane *d, const union lane *a, const union lane *b,               \
                            unsigned bytes)                                                        \
    {                                                                                              \
        unsigned half = bytes / (size) / 2;                                                        \
                                                                                                   \
        *d = (union lane){0};                                                                      \
        for (unsigned i = 0; i < half * 2; i++) {                                                  \
            const union lane *from = i < half ? a : b;                                             \
            const int64_t x = from->field[i % half * 2], y = from->field[i % half * 2 + 1];        \
                                                                                                   \
            d->field[i] = (__typeof__(d->field[i]))(result);                                       \
        }                                                                                          \
    }                                                                                              \
    BINARY_VEX(name, name##_lane)

HORIZONTAL(phaddw, i16, 2, x + y)
HORIZONTAL(phaddd, i32, 4, x + y)
HORIZONTAL(phaddsw, i16, 2, clamp_i32((int32_t)(x + y), INT16_MIN, INT16_MAX))
HORIZONTAL(phsubw, i16, 2, x - y)
HORIZONTAL(phsubd, i32, 4, x - y)
HORIZONTAL(phsubsw, i16, 2, clamp_i32((int32_t)(x - y), INT16_MIN, INT16_MAX))

static void phminposuw_lane(union lane *d, const union lane *a, const union lane *b,
                            unsigned bytes)
{
    unsigned least = 0;

    (void)a, (void)bytes;
    for (unsigned i = 1; i < 8; i++)
        if (b->u16[i] < b->u16[least])
            least = i;
    *d = (union lane){.u16 = {b->u16[least], (uint16_t)least}};
}
BINARY_VEX(phminposuw, phminposuw_lane)

/* Shifts of all elements by one count, from a register, from memory or an
 * immediate; counts beyond the element give zero, or the sign. */
typedef void lane_shift(union lane *d, const union lane *a, uint64_t count);

static void vector_shift(struct cpu *cpu, const struct x86_insn *insn, lane_shift *shift)
{
    unsigned last = insn->operand_count - 1;
    union vector a, count, d = {0};

    vector_check(cpu, insn);
    if (insn->operands[last].kind == X86_OPERAND_IMMEDIATE)
        count.u64[0] = (uint8_t)insn->immediate;
    else
        vector_read(cpu, insn, last, &count);
    vector_read(cpu, insn, last >= 2 ? 1 : 0, &a);
    for (unsigned i = 0; i < vector_lanes(insn); i++)
        shift(&d.lane[i], &a.lane[i], count.u64[0]);
    vector_write(cpu, insn, 0, &d);
}

#define SHIFT_BODY(op, shift)                                                                      \
    void interpret_##op(struct cpu *cpu, const struct x86_insn *insn)                              \
    {                                                                                              \
        vector_shift(cpu, insn, shift);                                                            \
    }
#define SHIFT(name, type, field, result)                                                           \
    static void name##_lane(union lane *d, const union lane *a, uint64_t count)                    \
    {                                                                                              \
        const unsigned bits = sizeof(type) * 8;                                                    \
                                                                                                   \
        for (unsigned i = 0; i < ELEMENTS(field); i++) {                                           \
            const type x = a->field[i];                                                            \
                                                                                                   \
            d->field[i] = (type)(result);                                                          \
        }                                                                                          \
    }                                                                                              \
    SHIFT_BODY(name, name##_lane) SHIFT_BODY(v##name, name##_lane)

SHIFT(psllw, uint16_t, u16, count < bits ? x << count : 0)
SHIFT(pslld, uint32_t, u32, count < bits ? x << count : 0)
SHIFT(psllq, uint64_t, u64, count < bits ? x << count : 0)
SHIFT(psrlw, uint16_t, u16, count < bits ? x >> count : 0)
SHIFT(psrld, uint32_t, u32, count < bits ? x >> count : 0)
SHIFT(psrlq, uint64_t, u64, count < bits ? x >> count : 0)
SHIFT(psraw, int16_t, i16, x >> (count < bits ? count : bits - 1))
SHIFT(psrad, int32_t, i32, x >> (count < bits ? count : bits - 1))

static void pslldq_lane(union lane *d, const union lane *a, uint64_t count)
{
    for (unsigned i = 0; i < 16; i++)
        d->u8[i] = i >= count ? a->u8[i - count] : 0;
}
SHIFT_BODY(pslldq, pslldq_lane)
SHIFT_BODY(vpslldq, pslldq_lane)

static void psrldq_lane(union lane *d, const union lane *a, uint64_t count)
{
    for (unsigned i = 0; i < 16; i++)
        d->u8[i] = i + count < 16 ? a->u8[i + count] : 0;
}
SHIFT_BODY(psrldq, psrldq_lane)
SHIFT_BODY(vpsrldq, psrldq_lane)

/* AVX2: a count for each element. */
#define EACH_VEX(name, type, field, result)                                                        \
    static void name##_lane(union lane *d, const union lane *a, const union lane *b,               \
                            unsigned bytes)                                                        \
    {                                                                                              \
        (void)bytes;                                                                               \
        for (unsigned i = 0; i < ELEMENTS(field); i++) {                                           \
            const type x = a->field[i];                                                            \
            const uint64_t y = (uint64_t)b->field[i];                                              \
                                                                                                   \
            d->field[i] = (type)(result);                                                          \
        }                                                                                          \
    }                                                                                              \
    BINARY(name, name##_lane)

EACH_VEX(vpsllvd, uint32_t, u32, y < 32 ? x << y : 0)
EACH_VEX(vpsllvq, uint64_t, u64, y < 64 ? x << y : 0)
EACH_VEX(vpsrlvd, uint32_t, u32, y < 32 ? x >> y : 0)
EACH_VEX(vpsrlvq, uint64_t, u64, y < 64 ? x >> y : 0)
EACH_VEX(vpsravd, int32_t, i32, x >> (y < 32 ? y : 31))
