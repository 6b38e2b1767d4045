/* String and text instructions of SSE4.2: PCMPxSTRx (SDM 1 12.10.3 and 2B 4.1). */
#include "engine/interpret/vector.h"

/* Imm8 (SDM 2B 4.1.1-4.1.5) */
#define WORDS          0x01u
#define SIGNED         0x02u
#define AGGREGATION    0x0cu
#define EQUAL_ANY      0x00u
#define RANGES         0x04u
#define EQUAL_EACH     0x08u
#define EQUAL_ORDERED  0x0cu
#define NEGATE         0x10u
#define NEGATE_MASKED  0x20u /* with NEGATE: only where the second string is valid */
#define MOST           0x40u /* the last index, or a mask of elements */

struct string {
    const union vector *vector;
    unsigned length, count; /* valid elements, of so many */
    uint8_t imm;
};

static int string_at(const struct string *string, unsigned i)
{
    switch (string->imm & (WORDS | SIGNED)) {
    case 0:
        return string->vector->lane[0].u8[i];
    case WORDS:
        return string->vector->lane[0].u16[i];
    case SIGNED:
        return string->vector->lane[0].i8[i];
    default:
        return string->vector->lane[0].i16[i];
    }
}

/* An implicit length ends before the first zero element. */
static unsigned implicit_length(const struct string *string)
{
    unsigned length = 0;

    while (length < string->count && string_at(string, length) != 0)
        length++;
    return length;
}

/* An explicit one is the absolute value of EAX or EDX (RAX, RDX with REX.W). */
static unsigned explicit_length(const struct cpu *cpu, const struct x86_insn *insn, unsigned reg,
                                unsigned count)
{
    uint64_t value = cpu->state.gpr[reg];
    bool negative;

    if (!(insn->rex & 8))
        value = (uint64_t)(int64_t)(int32_t)value;
    negative = value >> 63;
    if (negative)
        value = 0 - value;
    return value > count ? count : (unsigned)value;
}

/* Does element j of b match, by the rules of the aggregation? Elements beyond
 * an end are forced as SDM 2B table 4-7 says. */
static bool matches(const struct string *a, const struct string *b, unsigned j)
{
    switch (a->imm & AGGREGATION) {
    case EQUAL_ANY:
        for (unsigned i = 0; i < a->length; i++)
            if (j < b->length && string_at(a, i) == string_at(b, j))
                return true;
        return false;
    case RANGES:
        for (unsigned i = 0; i + 1 < a->length; i += 2)
            if (j < b->length && string_at(a, i) <= string_at(b, j) &&
                string_at(b, j) <= string_at(a, i + 1))
                return true;
        return false;
    case EQUAL_EACH:
        if (j >= a->length || j >= b->length)
            return j >= a->length && j >= b->length;
        return string_at(a, j) == string_at(b, j);
    default:
        for (unsigned i = 0; i < a->length && i + j < a->count; i++)
            if (i + j >= b->length || string_at(a, i) != string_at(b, i + j))
                return false;
        return true;
    }
}

static unsigned compare(const struct string *a, const struct string *b)
{
    unsigned result = 0;

    for (unsigned j = 0; j < a->count; j++) {
        bool bit = matches(a, b, j);

        if ((a->imm & NEGATE) && (!(a->imm & NEGATE_MASKED) || j < b->length))
            bit = !bit;
        result |= (unsigned)bit << j;
    }
    return result;
}

static void string_compare(struct cpu *cpu, const struct x86_insn *insn, bool explicit, bool mask)
{
    uint8_t imm = (uint8_t)insn->immediate;
    unsigned count = imm & WORDS ? 8 : 16, result;
    union vector first, second;
    struct string a = {&first, 0, count, imm}, b = {&second, 0, count, imm};
    uint64_t flags = 0;

    vector_check(cpu, insn);
    vector_read(cpu, insn, 0, &first);
    vector_read(cpu, insn, 1, &second);
    a.length = explicit ? explicit_length(cpu, insn, X86_RAX, count) : implicit_length(&a);
    b.length = explicit ? explicit_length(cpu, insn, X86_RDX, count) : implicit_length(&b);
    result = compare(&a, &b);

    if (mask) {
        union vector d = {.u64 = {result}};

        if (imm & MOST) {
            d = (union vector){0};
            for (unsigned i = 0; i < 16; i++)
                d.u8[i] = (uint8_t)-(result >> (imm & WORDS ? i / 2 : i) & 1);
        }
        vector_write_xmm(cpu, 0, &d.lane[0]);
        if (insn->vex)
            vector_write_ymm(cpu, 0, &d);
    } else {
        unsigned index = count;

        if (result)
            index = (unsigned)(imm & MOST ? 31 - __builtin_clz(result) : __builtin_ctz(result));
        cpu->state.gpr[X86_RCX] = index;
    }
    flags |= result ? X86_CF : 0;
    flags |= b.length < count ? X86_ZF : 0;
    flags |= a.length < count ? X86_SF : 0;
    flags |= result & 1 ? X86_OF : 0;
    cpu->state.rflags = (cpu->state.rflags & ~(uint64_t)X86_STATUS_FLAGS) | flags;
}

#define COMPARE(op, explicit, mask)                                                                \
    void interpret_##op(struct cpu *cpu, const struct x86_insn *insn)                              \
    {                                                                                              \
        string_compare(cpu, insn, explicit, mask);                                                 \
    }
COMPARE(pcmpestri, true, false)
COMPARE(vpcmpestri, true, false)
COMPARE(pcmpestrm, true, true)
COMPARE(vpcmpestrm, true, true)
COMPARE(pcmpistri, false, false)
COMPARE(vpcmpistri, false, false)
COMPARE(pcmpistrm, false, true)
COMPARE(vpcmpistrm, false, true)
