/* Fused multiply-add (SDM 1 14.5). The product and sum are libm's fma() under
 * the guest's MXCSR; which NaN comes out, and when it is an invalid
 * operation, is decided here, as it depends on the order of the operands. */
#include "engine/interpret/vector.h"

#include <math.h>
#include <string.h>

/* Called through pointers the compiler cannot see through, so that the call
 * stays between the two loads of MXCSR. */
static double (*const volatile fma_double)(double, double, double) = fma;
static float (*const volatile fma_single)(float, float, float) = fmaf;

#define MXCSR_IE 0x01u
#define MXCSR_DE 0x02u

struct format {
    unsigned bits, fraction;
};

static const struct format single_format = {32, 23};
static const struct format double_format = {64, 52};

static uint64_t sign_of(const struct format *format)
{
    return UINT64_C(1) << (format->bits - 1);
}

static uint64_t infinity_of(const struct format *format)
{
    return sign_of(format) - (UINT64_C(1) << format->fraction);
}

static bool is_nan(const struct format *format, uint64_t value)
{
    return (value & ~sign_of(format)) > infinity_of(format);
}

static uint64_t quiet_bit(const struct format *format)
{
    return UINT64_C(1) << (format->fraction - 1);
}

static bool is_denormal(const struct format *format, uint64_t value)
{
    return (value & infinity_of(format)) == 0 && (value & ~sign_of(format)) != 0;
}

static uint64_t calculate(const struct format *format, uint64_t x, uint64_t y, uint64_t z,
                          uint32_t *csr)
{
    uint32_t host;

    __asm__ volatile("stmxcsr %0" : "=m"(host));
    if (format->bits == 32) {
        uint32_t x32 = (uint32_t)x, y32 = (uint32_t)y, z32 = (uint32_t)z, d32;
        float fx, fy, fz, fd;

        memcpy(&fx, &x32, 4);
        memcpy(&fy, &y32, 4);
        memcpy(&fz, &z32, 4);
        __asm__ volatile("ldmxcsr %3" : "+x"(fx), "+x"(fy), "+x"(fz) : "m"(*csr));
        fd = fma_single(fx, fy, fz);
        __asm__ volatile("stmxcsr %1\n\tldmxcsr %2" : "+x"(fd), "=m"(*csr) : "m"(host));
        memcpy(&d32, &fd, 4);
        return d32;
    }

    double fx, fy, fz, fd;
    uint64_t d;

    memcpy(&fx, &x, 8);
    memcpy(&fy, &y, 8);
    memcpy(&fz, &z, 8);
    __asm__ volatile("ldmxcsr %3" : "+x"(fx), "+x"(fy), "+x"(fz) : "m"(*csr));
    fd = fma_double(fx, fy, fz);
    __asm__ volatile("stmxcsr %1\n\tldmxcsr %2" : "+x"(fd), "=m"(*csr) : "m"(host));
    memcpy(&d, &fd, 8);
    return d;
}

/* x * y + z; the signs of the product and of z are changed as asked, but a NaN
 * keeps its own. */
static uint64_t multiply_add(const struct format *format, uint64_t x, uint64_t y, uint64_t z,
                             bool negate_product, bool negate_z, uint32_t *csr)
{
    const uint64_t operands[3] = {x, y, z};
    uint64_t result;
    uint32_t own; /* flags of this element */

    for (unsigned i = 0; i < 3; i++)
        if (is_nan(format, operands[i]) && !(operands[i] & quiet_bit(format)))
            *csr |= MXCSR_IE;
    for (unsigned i = 0; i < 3; i++)
        if (is_nan(format, operands[i]))
            return operands[i] | quiet_bit(format);
    own = *csr & ~MXCSR_FLAGS;
    result = calculate(format, negate_product ? x ^ sign_of(format) : x, y,
                       negate_z ? z ^ sign_of(format) : z, &own);
    /* An invalid operation comes before a denormal operand (SDM 1 4.9.2). */
    for (unsigned i = 0; i < 3 && !(own & (MXCSR_DAZ | MXCSR_IE)); i++)
        if (is_denormal(format, operands[i]))
            own |= MXCSR_DE;
    *csr |= own & MXCSR_FLAGS;
    return result;
}

static uint64_t element_get(const union vector *vector, unsigned i, unsigned size)
{
    return size == 4 ? vector->u32[i] : vector->u64[i];
}

/* How a family of instructions treats signs; where alternate is set, odd
 * elements take the opposite sign of z. */
struct family {
    bool negate_product, negate_z, alternate;
};

static const struct family fmadd = {false, false, false};
static const struct family fmsub = {false, true, false};
static const struct family fnmadd = {true, false, false};
static const struct family fnmsub = {true, true, false};
static const struct family fmaddsub = {false, true, true};
static const struct family fmsubadd = {false, false, true};

/* order names which operands (1-3) are factor, factor, addend: 132, 213, 231. */
static void vector_fma(struct cpu *cpu, const struct x86_insn *insn, const struct family *family,
                       unsigned order, unsigned size, bool scalar)
{
    const struct format *format = size == 4 ? &single_format : &double_format;
    unsigned count = scalar ? 1 : vector_size(insn) / size;
    unsigned x = order / 100 - 1, y = order / 10 % 10 - 1, z = order % 10 - 1;
    union vector operands[3], d;
    uint32_t csr = float_begin(cpu);

    vector_check(cpu, insn);
    for (unsigned i = 3; i-- > 0;)
        vector_read(cpu, insn, i, &operands[i]);
    d = operands[0];
    for (unsigned i = 0; i < count; i++) {
        bool negate_z = family->negate_z ^ (family->alternate && (i & 1));
        uint64_t result = multiply_add(format, element_get(&operands[x], i, size),
                                       element_get(&operands[y], i, size),
                                       element_get(&operands[z], i, size), family->negate_product,
                                       negate_z, &csr);

        memcpy(&d.u8[i * size], &result, size);
    }
    float_end(cpu, csr);
    vector_write(cpu, insn, 0, &d);
}

#define FMA_ONE(name, family, order, suffix, size, scalar)                                         \
    void interpret_v##name##order##suffix(struct cpu *cpu, const struct x86_insn *insn)            \
    {                                                                                              \
        vector_fma(cpu, insn, &family, order, size, scalar);                                       \
    }
#define FMA_PACKED(name, order)                                                                    \
    FMA_ONE(name, name, order, ps, 4, false)                                                       \
    FMA_ONE(name, name, order, pd, 8, false)
#define FMA_SCALAR(name, order)                                                                    \
    FMA_ONE(name, name, order, ss, 4, true)                                                        \
    FMA_ONE(name, name, order, sd, 8, true)
#define FMA_ORDERS(define, name) define(name, 132) define(name, 213) define(name, 231)

FMA_ORDERS(FMA_PACKED, fmadd)
FMA_ORDERS(FMA_SCALAR, fmadd)
FMA_ORDERS(FMA_PACKED, fmsub)
FMA_ORDERS(FMA_SCALAR, fmsub)
FMA_ORDERS(FMA_PACKED, fnmadd)
FMA_ORDERS(FMA_SCALAR, fnmadd)
FMA_ORDERS(FMA_PACKED, fnmsub)
FMA_ORDERS(FMA_SCALAR, fnmsub)
FMA_ORDERS(FMA_PACKED, fmaddsub)
FMA_ORDERS(FMA_PACKED, fmsubadd)
