/* Shifts and rotates (SDM 2 SAL, RCL, SHLD, SHRD). The count is masked to five
 * bits, six for 64-bit operands; a count of zero leaves all flags. */
#include "engine/interpret/bodies.h"
#include "engine/interpret/arithmetic.h"

enum shift { SHIFT_ROL, SHIFT_ROR, SHIFT_RCL, SHIFT_RCR, SHIFT_SHL, SHIFT_SHR, SHIFT_SAR };

static unsigned shift_count(const struct cpu *cpu, const struct x86_insn *insn, unsigned i)
{
    const struct x86_operand *operand = &insn->operands[i];
    unsigned count = operand->kind == X86_OPERAND_GPR ? (uint8_t)cpu->state.gpr[X86_RCX]
                                                      : (uint8_t)insn->immediate;

    return count & (insn->operands[0].size == 8 ? 63 : 31);
}

/* The result, and the flags that change with their mask. count is not zero. */
ALWAYS_INLINE uint64_t shift(enum shift op, uint64_t a, unsigned count, unsigned size,
                             uint64_t carry, uint64_t *flags, uint64_t *mask)
{
    const unsigned bits = size * 8;
    uint64_t result, cf, of, top;
    unsigned n;

    a &= size_mask(size);
    switch (op) {
    case SHIFT_ROL:
        n = count % bits;
        result = n ? a << n | a >> (bits - n) : a;
        result &= size_mask(size);
        cf = result & 1;
        of = cf ^ (result >> (bits - 1) & 1);
        *mask = X86_CF | X86_OF;
        break;
    case SHIFT_ROR:
        n = count % bits;
        result = n ? a >> n | a << (bits - n) : a;
        result &= size_mask(size);
        cf = result >> (bits - 1) & 1;
        of = cf ^ (result >> (bits - 2) & 1);
        *mask = X86_CF | X86_OF;
        break;
    case SHIFT_RCL:
        result = a;
        cf = carry;
        for (n = count % (bits + 1); n; n--) {
            uint64_t out = result >> (bits - 1) & 1;

            result = (result << 1 | cf) & size_mask(size);
            cf = out;
        }
        of = cf ^ (result >> (bits - 1) & 1);
        *mask = X86_CF | X86_OF;
        break;
    case SHIFT_RCR:
        result = a;
        cf = carry;
        of = cf ^ (a >> (bits - 1) & 1); /* of the first step, as defined for a count of one */
        for (n = count % (bits + 1); n; n--) {
            uint64_t out = result & 1;

            result = result >> 1 | cf << (bits - 1);
            cf = out;
        }
        of = (result >> (bits - 1) ^ result >> (bits - 2)) & 1;
        *mask = X86_CF | X86_OF;
        break;
    case SHIFT_SHL:
        result = count < bits ? a << count : 0;
        cf = count <= bits ? a >> (bits - count) & 1 : 0;
        result &= size_mask(size);
        of = cf ^ (result >> (bits - 1) & 1);
        *mask = FLAGS_ALL;
        break;
    case SHIFT_SHR:
        result = count < bits ? a >> count : 0;
        cf = count <= bits ? a >> (count - 1) & 1 : 0;
        of = a >> (bits - 1) & 1;
        *mask = FLAGS_ALL;
        break;
    default:
        top = 64 - bits;
        n = count < bits ? count : bits - 1;
        result = (uint64_t)((int64_t)(a << top) >> top >> n) & size_mask(size);
        cf = (uint64_t)((int64_t)(a << top) >> top >> (count < bits ? count - 1 : bits - 1)) & 1;
        of = 0;
        *mask = FLAGS_ALL;
        break;
    }
    *flags = cf | of << 11;
    if (*mask == FLAGS_ALL)
        *flags |= flags_of_result(result, size);
    return result;
}

ALWAYS_INLINE void shift_body(struct cpu *cpu, const struct x86_insn *insn, enum shift op)
{
    const unsigned size = insn->operands[0].size, count = shift_count(cpu, insn, 1);
    const uint64_t carry = alu_carry(cpu);
    uint64_t a, result, flags = 0, mask = 0, linear = 0;

    if (insn->operands[0].kind == X86_OPERAND_MEMORY) {
        linear = operand_address(cpu, insn, size, X86_READ | X86_WRITE);
        a = cpu_load_to_modify(cpu, linear, size);
        result = count ? shift(op, a, count, size, carry, &flags, &mask) : a;
        cpu_store(cpu, linear, size, result);
    } else {
        a = operand_gpr_read(cpu, &insn->operands[0]);
        result = count ? shift(op, a, count, size, carry, &flags, &mask) : a;
        operand_gpr_write(cpu, &insn->operands[0], result);
    }
    flags_set(cpu, mask, flags);
}

#define SHIFT_BODY(name, op)                                                                       \
    void interpret_##name(struct cpu *cpu, const struct x86_insn *insn)                            \
    {                                                                                              \
        shift_body(cpu, insn, op);                                                                 \
    }

SHIFT_BODY(rol, SHIFT_ROL)
SHIFT_BODY(ror, SHIFT_ROR)
SHIFT_BODY(rcl, SHIFT_RCL)
SHIFT_BODY(rcr, SHIFT_RCR)
SHIFT_BODY(shl, SHIFT_SHL)
SHIFT_BODY(shr, SHIFT_SHR)
SHIFT_BODY(sar, SHIFT_SAR)

static void shift_double(struct cpu *cpu, const struct x86_insn *insn, bool left)
{
    const unsigned size = insn->operands[0].size, bits = size * 8;
    const unsigned count = shift_count(cpu, insn, 2);
    uint64_t a, b = operand_read(cpu, insn, 1), result, cf, linear = 0;
    const bool memory = insn->operands[0].kind == X86_OPERAND_MEMORY;

    if (memory) {
        linear = operand_address(cpu, insn, size, X86_READ | X86_WRITE);
        a = cpu_load_to_modify(cpu, linear, size);
    } else {
        a = operand_gpr_read(cpu, &insn->operands[0]);
    }
    if (!count) {
        if (!memory)
            operand_gpr_write(cpu, &insn->operands[0], a);
        return;
    }
    /* A 16-bit count above 16 is undefined; here the operands repeat. */
    unsigned __int128 wide = left ? (unsigned __int128)a << bits | b
                                  : (unsigned __int128)b << bits | a;
    unsigned n = count;

    if (bits == 16 && count > 16) {
        wide = left ? (unsigned __int128)b << 16 | a : (unsigned __int128)a << 16 | b;
        n = count - 16;
    }
    if (left) {
        result = (uint64_t)(wide << n >> bits) & size_mask(size);
        cf = (uint64_t)(wide >> (2 * bits - n)) & 1;
    } else {
        result = (uint64_t)(wide >> n) & size_mask(size);
        cf = (uint64_t)(wide >> (n - 1)) & 1;
    }
    if (memory)
        cpu_store(cpu, linear, size, result);
    else
        operand_gpr_write(cpu, &insn->operands[0], result);
    flags_set(cpu, FLAGS_ALL, cf | flags_of_result(result, size) |
                                  ((a ^ result) >> (bits - 1) & 1) << 11);
}

void interpret_shld(struct cpu *cpu, const struct x86_insn *insn)
{
    shift_double(cpu, insn, true);
}

void interpret_shrd(struct cpu *cpu, const struct x86_insn *insn)
{
    shift_double(cpu, insn, false);
}

/* BMI2: no flags, the count in a register. */
static unsigned bmi_count(const struct cpu *cpu, const struct x86_insn *insn)
{
    return (unsigned)cpu->state.gpr[insn->operands[2].reg] &
           (insn->operands[0].size == 8 ? 63 : 31);
}

void interpret_shlx(struct cpu *cpu, const struct x86_insn *insn)
{
    gpr_write(cpu, insn->operands[0].reg, insn->operands[0].size,
              operand_read(cpu, insn, 1) << bmi_count(cpu, insn));
}

void interpret_shrx(struct cpu *cpu, const struct x86_insn *insn)
{
    gpr_write(cpu, insn->operands[0].reg, insn->operands[0].size,
              operand_read(cpu, insn, 1) >> bmi_count(cpu, insn));
}

void interpret_sarx(struct cpu *cpu, const struct x86_insn *insn)
{
    const unsigned size = insn->operands[0].size;
    uint64_t a = operand_read(cpu, insn, 1);
    int64_t extended = size == 8 ? (int64_t)a : (int32_t)a;

    gpr_write(cpu, insn->operands[0].reg, size, (uint64_t)(extended >> bmi_count(cpu, insn)));
}

void interpret_rorx(struct cpu *cpu, const struct x86_insn *insn)
{
    const unsigned size = insn->operands[0].size, bits = size * 8;
    const unsigned n = (unsigned)insn->immediate & (bits - 1);
    uint64_t a = operand_read(cpu, insn, 1);

    gpr_write(cpu, insn->operands[0].reg, size, n ? a >> n | a << (bits - n) : a);
}
