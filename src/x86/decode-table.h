/* decode-table.h - how the generated table is laid out for the decoder.
 * Private to src/x86/ and to the generated insn-rows.c. */
#ifndef LODGE_X86_DECODE_TABLE_H
#define LODGE_X86_DECODE_TABLE_H

#include "x86/decode.h"

/* Where an operand comes from: SDM 2 appendix A.2, one letter each. */
enum x86_pattern_kind {
    P_NONE,
    P_E, P_G, P_M, P_R, P_Z, P_B,      /* general registers and memory */
    P_I, P_IS, P_J, P_O, P_A,          /* immediates, branches, moffs, far pointer */
    P_S, P_C, P_D,                     /* segment, control, debug registers */
    P_P, P_N, P_Q,                     /* MMX */
    P_V, P_U, P_W, P_H, P_L,           /* vector */
    P_X, P_Y, P_XLAT,                  /* [rSI], [rDI], [rBX+AL] */
    P_FIXED_GPR, P_FIXED_SREG, P_FIXED_ST, P_ST_I, P_CONSTANT,
};

/* Sizes that depend on prefixes; smaller values are bytes. */
enum {
    SIZE_V = 100, /* operand size */
    SIZE_Z,       /* operand size, at most 4 */
    SIZE_Y,       /* 4, or 8 with REX.W */
    SIZE_X,       /* vector length */
    SIZE_X2,      /* half of it */
    SIZE_X4,
    SIZE_X8,
    SIZE_N,       /* 8 in 64-bit mode, else 4 */
    SIZE_P,       /* far pointer: operand size + 2 */
    SIZE_A,       /* two operands: BOUND */
};

enum { MOD_ANY, MOD_MEMORY, MOD_REGISTER };

struct x86_operand_pattern {
    uint8_t kind, reg, size, access;
};

/* What must hold for a row to match, and how its operands are found. */
struct x86_pattern {
    uint8_t prefix;  /* 0 any, 1 none of 66 F3 F2, 2: 66, 3: F3, 4: F2, 5: any but F3 and F2 */
    uint8_t vex;     /* 0 legacy, 1: 128, 2: 256, 3: L ignored */
    int8_t w, reg;   /* -1: any */
    uint8_t mod;
    uint8_t modrm;   /* there is a ModRM byte */
    uint8_t fixed, fixed_count; /* ModRM is in [fixed, fixed + fixed_count), when count > 0 */
    uint8_t vsib;    /* 1: index is an XMM register, 2: YMM */
    uint8_t operand_count;
    struct x86_operand_pattern operands[X86_OPERANDS_MAX];
};

struct x86_opcode_range {
    uint16_t start;
    uint8_t count;
    uint8_t modrm;   /* any of them has a ModRM byte */
};

extern const struct x86_pattern x86_patterns[]; /* by row */
extern const uint16_t x86_candidates[];
/* [VEX][map: one byte, 0F, 0F38, 0F3A][opcode] */
extern const struct x86_opcode_range x86_opcode_ranges[2][4][256];
extern const char *const x86_op_names[]; /* by enum x86_op, lower case */

#endif
