/* Integer arithmetic and logic: ADD to CMP, TEST, NOT, NEG, INC, DEC, MUL,
 * DIV, XADD, CMPXCHG, ADCX. */
#include "engine/interpret/bodies.h"
#include "engine/interpret/arithmetic.h"

ALWAYS_INLINE void binary(struct cpu *cpu, const struct x86_insn *insn, enum alu op,
                          unsigned size)
{
    const uint64_t carry = alu_carry(cpu);
    uint64_t a, b, result, linear;

    if (insn->operands[0].kind == X86_OPERAND_MEMORY && alu_writes(op)) {
        b = operand_read(cpu, insn, 1);
        linear = operand_address(cpu, insn, size, X86_READ | X86_WRITE);
        MEMORY_RMW(cpu, insn, linear, size, insn->prefixes & X86_PREFIX_LOCK, a, result,
                   result = alu_result(op, a, b, carry));
    } else {
        a = operand_read(cpu, insn, 0);
        b = operand_read(cpu, insn, 1);
        result = alu_result(op, a, b, carry);
        if (alu_writes(op))
            operand_gpr_write(cpu, &insn->operands[0], result);
    }
    alu_flags(cpu, op, a, b, result, size);
}

#define BINARY_BODY(name, op)                                                                      \
    void interpret_##name(struct cpu *cpu, const struct x86_insn *insn)                            \
    {                                                                                              \
        switch (insn->operands[0].size) {                                                          \
        case 1: binary(cpu, insn, op, 1); break;                                                   \
        case 2: binary(cpu, insn, op, 2); break;                                                   \
        case 4: binary(cpu, insn, op, 4); break;                                                   \
        default: binary(cpu, insn, op, 8); break;                                                  \
        }                                                                                          \
    }

BINARY_BODY(add, ALU_ADD)
BINARY_BODY(or, ALU_OR)
BINARY_BODY(adc, ALU_ADC)
BINARY_BODY(sbb, ALU_SBB)
BINARY_BODY(and, ALU_AND)
BINARY_BODY(sub, ALU_SUB)
BINARY_BODY(xor, ALU_XOR)
BINARY_BODY(cmp, ALU_CMP)
BINARY_BODY(test, ALU_TEST)

enum unary { UNARY_NOT, UNARY_NEG, UNARY_INC, UNARY_DEC };

ALWAYS_INLINE uint64_t unary_result(enum unary op, uint64_t a)
{
    switch (op) {
    case UNARY_NOT: return ~a;
    case UNARY_NEG: return -a;
    case UNARY_INC: return a + 1;
    default: return a - 1;
    }
}

ALWAYS_INLINE void unary(struct cpu *cpu, const struct x86_insn *insn, enum unary op)
{
    const unsigned size = insn->operands[0].size;
    const uint64_t carry = cpu->state.rflags & X86_CF;
    uint64_t a, result;

    if (insn->operands[0].kind == X86_OPERAND_MEMORY) {
        uint64_t linear = operand_address(cpu, insn, size, X86_READ | X86_WRITE);

        MEMORY_RMW(cpu, insn, linear, size, insn->prefixes & X86_PREFIX_LOCK, a, result,
                   result = unary_result(op, a));
    } else {
        a = operand_gpr_read(cpu, &insn->operands[0]);
        result = unary_result(op, a);
        operand_gpr_write(cpu, &insn->operands[0], result);
    }
    if (op == UNARY_NEG) {
        flags_sub(cpu, 0, a, result, size);
    } else if (op != UNARY_NOT) {
        if (op == UNARY_INC)
            flags_add(cpu, a, 1, result, size);
        else
            flags_sub(cpu, a, 1, result, size);
        flags_set(cpu, X86_CF, carry); /* INC and DEC leave it */
    }
}

#define UNARY_BODY(name, op)                                                                       \
    void interpret_##name(struct cpu *cpu, const struct x86_insn *insn)                            \
    {                                                                                              \
        unary(cpu, insn, op);                                                                      \
    }

UNARY_BODY(not, UNARY_NOT)
UNARY_BODY(neg, UNARY_NEG)
UNARY_BODY(inc, UNARY_INC)
UNARY_BODY(dec, UNARY_DEC)

static int64_t sign_extend(uint64_t value, unsigned size)
{
    unsigned shift = 64 - size * 8;

    return (int64_t)(value << shift) >> shift;
}

/* CF and OF say that the upper half matters; the others are undefined and
 * follow the low half, as on current CPUs. */
static void multiply_flags(struct cpu *cpu, bool overflow)
{
    flags_set(cpu, X86_CF | X86_OF, overflow ? X86_CF | X86_OF : 0);
}

static void write_double(struct cpu *cpu, unsigned size, uint64_t low, uint64_t high)
{
    if (size == 1) {
        gpr_write(cpu, X86_RAX, 2, (low & 0xff) | (high & 0xff) << 8);
    } else {
        gpr_write(cpu, X86_RAX, size, low);
        gpr_write(cpu, X86_RDX, size, high);
    }
}

void interpret_mul(struct cpu *cpu, const struct x86_insn *insn)
{
    const unsigned size = insn->operands[0].size, bits = size * 8;
    uint64_t b = operand_read(cpu, insn, 0), a = gpr_read(cpu, X86_RAX, size);
    unsigned __int128 product = (unsigned __int128)a * b;
    uint64_t high = (uint64_t)(product >> bits) & size_mask(size);

    write_double(cpu, size, (uint64_t)product, high);
    multiply_flags(cpu, high != 0);
}

void interpret_imul(struct cpu *cpu, const struct x86_insn *insn)
{
    const unsigned size = insn->operands[0].size, bits = size * 8;
    int64_t a, b;
    __int128 product;

    if (insn->operand_count == 1) {
        b = sign_extend(operand_read(cpu, insn, 0), size);
        a = sign_extend(cpu->state.gpr[X86_RAX], size);
    } else if (insn->operand_count == 2) {
        b = sign_extend(operand_read(cpu, insn, 1), size);
        a = sign_extend(cpu->state.gpr[insn->operands[0].reg], size);
    } else {
        b = sign_extend(operand_read(cpu, insn, 1), size);
        a = insn->immediate;
    }
    product = (__int128)a * b;
    if (insn->operand_count == 1)
        write_double(cpu, size, (uint64_t)product, (uint64_t)(product >> bits));
    else
        gpr_write(cpu, insn->operands[0].reg, size, (uint64_t)product);
    multiply_flags(cpu, product != sign_extend((uint64_t)product, size));
}

void interpret_div(struct cpu *cpu, const struct x86_insn *insn)
{
    const unsigned size = insn->operands[0].size, bits = size * 8;
    uint64_t divisor = operand_read(cpu, insn, 0);
    unsigned __int128 dividend, quotient;

    if (!divisor)
        cpu_raise(cpu, X86_DE);
    if (size == 1)
        dividend = gpr_read(cpu, X86_RAX, 2);
    else
        dividend = (unsigned __int128)gpr_read(cpu, X86_RDX, size) << bits |
                   gpr_read(cpu, X86_RAX, size);
    /* Most dividends fit in 64 bits, where division is many times faster. */
    if (dividend >> 64 == 0)
        quotient = (uint64_t)dividend / divisor;
    else
        quotient = dividend / divisor;
    if (quotient > size_mask(size))
        cpu_raise(cpu, X86_DE);
    write_double(cpu, size, (uint64_t)quotient, (uint64_t)(dividend - quotient * divisor));
}

void interpret_idiv(struct cpu *cpu, const struct x86_insn *insn)
{
    const unsigned size = insn->operands[0].size, bits = size * 8;
    int64_t divisor = sign_extend(operand_read(cpu, insn, 0), size);
    __int128 dividend, quotient;

    if (!divisor)
        cpu_raise(cpu, X86_DE);
    if (size == 1)
        dividend = (int16_t)cpu->state.gpr[X86_RAX];
    else
        dividend = (__int128)((unsigned __int128)(__int128)sign_extend(cpu->state.gpr[X86_RDX],
                                                                       size) << bits |
                              gpr_read(cpu, X86_RAX, size));
    /* The one quotient that overflows 128 bits. */
    if (divisor == -1 && dividend == (__int128)((unsigned __int128)1 << 127))
        cpu_raise(cpu, X86_DE);
    quotient = dividend / divisor;
    if (quotient != sign_extend((uint64_t)quotient, size))
        cpu_raise(cpu, X86_DE);
    write_double(cpu, size, (uint64_t)quotient, (uint64_t)(dividend - quotient * divisor));
}

void interpret_mulx(struct cpu *cpu, const struct x86_insn *insn)
{
    const unsigned size = insn->operands[0].size;
    uint64_t b = operand_read(cpu, insn, 2), a = gpr_read(cpu, X86_RDX, size);
    unsigned __int128 product = (unsigned __int128)a * b;

    /* When both are the same register it holds the upper half. */
    gpr_write(cpu, insn->operands[1].reg, size, (uint64_t)product);
    gpr_write(cpu, insn->operands[0].reg, size, (uint64_t)(product >> (size * 8)));
}

static void add_with(struct cpu *cpu, const struct x86_insn *insn, uint64_t flag)
{
    const unsigned size = insn->operands[0].size;
    uint64_t a = operand_read(cpu, insn, 0), b = operand_read(cpu, insn, 1);
    unsigned __int128 sum = (unsigned __int128)a + b + !!(cpu->state.rflags & flag);

    gpr_write(cpu, insn->operands[0].reg, size, (uint64_t)sum);
    flags_set(cpu, flag, sum >> (size * 8) ? flag : 0);
}

void interpret_adcx(struct cpu *cpu, const struct x86_insn *insn)
{
    add_with(cpu, insn, X86_CF);
}

void interpret_adox(struct cpu *cpu, const struct x86_insn *insn)
{
    add_with(cpu, insn, X86_OF);
}

void interpret_xadd(struct cpu *cpu, const struct x86_insn *insn)
{
    const unsigned size = insn->operands[0].size;
    uint64_t a, b = operand_read(cpu, insn, 1), result;

    if (insn->operands[0].kind == X86_OPERAND_MEMORY) {
        uint64_t linear = operand_address(cpu, insn, size, X86_READ | X86_WRITE);

        MEMORY_RMW(cpu, insn, linear, size, insn->prefixes & X86_PREFIX_LOCK, a, result,
                   result = a + b);
        operand_gpr_write(cpu, &insn->operands[1], a);
    } else {
        a = operand_gpr_read(cpu, &insn->operands[0]);
        result = a + b;
        operand_gpr_write(cpu, &insn->operands[1], a);
        operand_gpr_write(cpu, &insn->operands[0], result);
    }
    flags_add(cpu, a, b, result, size);
}

void interpret_xchg(struct cpu *cpu, const struct x86_insn *insn)
{
    const unsigned size = insn->operands[0].size;
    uint64_t a, b = operand_read(cpu, insn, 1);

    if (insn->operands[0].kind == X86_OPERAND_MEMORY) {
        uint64_t linear = operand_address(cpu, insn, size, X86_READ | X86_WRITE);

        /* Locked with or without the prefix. */
        MEMORY_RMW(cpu, insn, linear, size, true, a, b, (void)0);
    } else {
        a = operand_gpr_read(cpu, &insn->operands[0]);
        operand_gpr_write(cpu, &insn->operands[0], b);
    }
    operand_gpr_write(cpu, &insn->operands[1], a);
}

/* What becomes of the upper half of a 32-bit register that is not equal differs
 * by vendor (zero or kept): the host decides, so that all engines agree. */
static void host_cmpxchg_upper(uint64_t *gpr, uint64_t expected)
{
    uint64_t other = expected;

    __asm__("cmpxchgl %k[other], %k[gpr]"
            : [gpr] "+r"(*gpr), "+a"(expected)
            : [other] "r"(other)
            : "cc");
}

void interpret_cmpxchg(struct cpu *cpu, const struct x86_insn *insn)
{
    const unsigned size = insn->operands[0].size;
    const uint64_t expected = gpr_read(cpu, X86_RAX, size), desired = operand_read(cpu, insn, 1);
    uint64_t a, result;

    if (insn->operands[0].kind == X86_OPERAND_MEMORY) {
        uint64_t linear = operand_address(cpu, insn, size, X86_READ | X86_WRITE);

        /* The store happens in any case: the old value when they differ. */
        MEMORY_RMW(cpu, insn, linear, size, insn->prefixes & X86_PREFIX_LOCK, a, result,
                   result = a == expected ? desired : a);
    } else {
        a = operand_gpr_read(cpu, &insn->operands[0]);
        if (a == expected)
            operand_gpr_write(cpu, &insn->operands[0], desired);
        else if (size == 4)
            host_cmpxchg_upper(&cpu->state.gpr[insn->operands[0].reg], expected);
    }
    if (a != expected)
        gpr_write(cpu, X86_RAX, size, a);
    flags_sub(cpu, expected, a, expected - a, size);
}

void interpret_cmpxchg8b(struct cpu *cpu, const struct x86_insn *insn)
{
    const uint64_t expected = gpr_read(cpu, X86_RDX, 4) << 32 | gpr_read(cpu, X86_RAX, 4);
    const uint64_t desired = gpr_read(cpu, X86_RCX, 4) << 32 | gpr_read(cpu, X86_RBX, 4);
    uint64_t linear = operand_address(cpu, insn, 8, X86_READ | X86_WRITE), a, result;

    MEMORY_RMW(cpu, insn, linear, 8, insn->prefixes & X86_PREFIX_LOCK, a, result,
               result = a == expected ? desired : a);
    if (a != expected) {
        gpr_write(cpu, X86_RAX, 4, a);
        gpr_write(cpu, X86_RDX, 4, a >> 32);
    }
    flags_set(cpu, X86_ZF, a == expected ? X86_ZF : 0);
}

void interpret_cmpxchg16b(struct cpu *cpu, const struct x86_insn *insn)
{
    uint64_t linear = operand_address(cpu, insn, 16, X86_READ | X86_WRITE);
    uint64_t low = cpu->state.gpr[X86_RAX], high = cpu->state.gpr[X86_RDX];
    void *host;
    bool equal;

    if (linear & 15)
        cpu_raise_error(cpu, X86_GP, 0);
    host = cpu_host_for_atomic(cpu, linear, 16);
    if (!host) { /* device memory: no atomicity to keep */
        uint64_t seen_low = cpu_load(cpu, linear, 8), seen_high = cpu_load(cpu, linear + 8, 8);

        equal = seen_low == low && seen_high == high;
        cpu_store(cpu, linear, 8, equal ? cpu->state.gpr[X86_RBX] : seen_low);
        cpu_store(cpu, linear + 8, 8, equal ? cpu->state.gpr[X86_RCX] : seen_high);
        low = seen_low;
        high = seen_high;
    } else {
        __asm__ volatile("lock cmpxchg16b %[memory]"
                         : [memory] "+m"(*(unsigned __int128 *)host), "+a"(low), "+d"(high),
                           "=@ccz"(equal)
                         : "b"(cpu->state.gpr[X86_RBX]), "c"(cpu->state.gpr[X86_RCX])
                         : "memory");
        cpu_wrote_code(cpu, linear, 16);
    }
    if (!equal) {
        cpu->state.gpr[X86_RAX] = low;
        cpu->state.gpr[X86_RDX] = high;
    }
    flags_set(cpu, X86_ZF, equal ? X86_ZF : 0);
}
