/* decode.h - bytes to a decoded instruction, by the table src/x86/insn.tab.
 *
 * The table has one row for each form of an instruction: its encoding, its
 * operands, what it reads and writes, the CPUID feature it belongs to. The
 * interpreter, the translator, the disassembler and the test generator all
 * read its rows; at build time scripts/insn-table.py turns it into C
 * (x86/insn-rows.h with enum x86_op and enum x86_feature, x86/insn-rows.c).
 *
 * Everything here is pure: no state, no allocation, safe from any thread. */
#ifndef LODGE_X86_DECODE_H
#define LODGE_X86_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "x86/insn-rows.h" /* generated: enum x86_op, enum x86_feature */
#include "x86/registers.h"

#define X86_INSN_MAX 15      /* bytes (SDM 2A 2.3.11) */
#define X86_OPERANDS_MAX 5   /* implicit ones count where the table lists them */

/* Code size of the current code segment: what the default sizes follow. */
enum x86_mode { X86_MODE_16 = 16, X86_MODE_32 = 32, X86_MODE_64 = 64 };

enum x86_operand_kind {
    X86_OPERAND_NONE,
    X86_OPERAND_GPR,     /* reg: x86_gpr; size 1, 2, 4, 8; high_byte for AH CH DH BH (reg 0-3) */
    X86_OPERAND_SEGMENT, /* reg: x86_segment_register */
    X86_OPERAND_CONTROL, /* reg: 0, 2, 3, 4, 8 */
    X86_OPERAND_DEBUG,
    X86_OPERAND_ST,      /* reg: i of ST(i) */
    X86_OPERAND_MMX,
    X86_OPERAND_XMM,     /* size 4, 8 or 16: how much of it is meant */
    X86_OPERAND_YMM,
    X86_OPERAND_MEMORY,  /* by insn->memory; size in bytes, 0 if no plain datum (LEA, XSAVE) */
    X86_OPERAND_IMMEDIATE, /* value in insn->immediate (second one: immediate2), sign-extended */
    X86_OPERAND_RELATIVE,  /* a branch: insn->immediate counts from the next instruction */
    X86_OPERAND_FAR,       /* ptr16:16/32: offset in immediate, selector in immediate2 */
    X86_OPERAND_CONSTANT,  /* an implied number such as the 1 of D1 /4; in insn->immediate */
};

#define X86_READ  1u
#define X86_WRITE 2u

struct x86_operand {
    uint8_t kind;   /* enum x86_operand_kind */
    uint8_t reg;
    uint8_t size;   /* bytes */
    uint8_t access; /* X86_READ | X86_WRITE; conditional writes count as both */
    bool high_byte;
};

#define X86_NO_REGISTER 0xff

/* The one memory operand an instruction can encode by ModRM, moffs, or as an
 * implied [rSI], [rDI], [rBX+AL]. String instructions with two memory operands
 * have the source here; the body knows that the other is ES:[rDI]. */
struct x86_memory {
    uint8_t base, index;  /* x86_gpr or X86_NO_REGISTER; of a VSIB form, index is a vector */
    uint8_t scale;        /* 1, 2, 4, 8 */
    uint8_t segment;      /* the effective one: override, or default by base */
    bool rip_relative;    /* displacement counts from the end of the instruction */
    bool vsib;
    int64_t displacement; /* sign-extended; 64 bits only for moffs */
};

enum x86_prefix {
    X86_PREFIX_LOCK = 1 << 0,
    X86_PREFIX_REPNE = 1 << 1, /* F2, when it is a prefix and not part of the opcode */
    X86_PREFIX_REP = 1 << 2,   /* F3, likewise */
    X86_PREFIX_OPERAND = 1 << 3,
    X86_PREFIX_ADDRESS = 1 << 4,
    X86_PREFIX_SEGMENT = 1 << 5, /* an override was given */
};

struct x86_insn {
    uint16_t row;  /* index into x86_rows */
    uint16_t op;   /* enum x86_op */
    uint8_t length;
    uint8_t mode;          /* enum x86_mode it was decoded for */
    uint8_t operand_size;  /* bytes: 2, 4, 8; 1 for byte forms */
    uint8_t address_size;  /* bytes: 2, 4, 8 */
    uint8_t prefixes;      /* enum x86_prefix */
    uint8_t rex;           /* 0, or 0x40-0x4f; for VEX the same bits made from it (W, R, X, B) */
    bool vex;
    uint8_t vex_length;    /* 0: 128 bits, 1: 256 */
    bool has_modrm;
    uint8_t modrm;
    uint8_t opcode;        /* the last opcode byte; low bits: the condition of Jcc, SETcc, CMOVcc */
    uint8_t opcode_offset; /* where it stands in the bytes */
    uint8_t modrm_offset, displacement_offset, immediate_offset; /* 0: there is none */
    uint8_t operand_count;
    struct x86_operand operands[X86_OPERANDS_MAX];
    uint8_t memory_operand; /* the operand that is memory, from 1 on; 0: none */
    struct x86_memory memory; /* meaningful when an operand is X86_OPERAND_MEMORY */
    int64_t immediate, immediate2;
};

/* One row of the table, as the generator and analyses see it. */
enum x86_attribute {
    X86_ATTR_LOCKABLE = 1 << 0,   /* LOCK allowed with a memory destination */
    X86_ATTR_PRIVILEGED = 1 << 1, /* CPL 0 only, or IOPL-, CR4-dependent: not for user-mode tests */
    X86_ATTR_NO64 = 1 << 2,       /* invalid in 64-bit mode */
    X86_ATTR_ONLY64 = 1 << 3,     /* only in 64-bit mode */
    X86_ATTR_BRANCH = 1 << 4,     /* changes RIP otherwise than to the next instruction */
    X86_ATTR_STRING = 1 << 5,     /* REP applies */
    X86_ATTR_DEFAULT64 = 1 << 6,  /* 64 bits by default in 64-bit mode (PUSH, near branches) */
    X86_ATTR_ALIGNED = 1 << 7,    /* memory operand must be aligned to its size, else #GP */
    X86_ATTR_NONDETERMINISTIC = 1 << 8, /* RDTSC, RDRAND, CPUID: no comparison of results */
    X86_ATTR_SERIALIZING = 1 << 9,
};

struct x86_row {
    uint16_t op;           /* enum x86_op */
    uint16_t feature;      /* enum x86_feature */
    uint16_t attributes;   /* enum x86_attribute */
    uint16_t flags_read;   /* X86_STATUS_FLAGS and X86_DF: of the low 12 bits of EFLAGS */
    uint16_t flags_written;   /* set, cleared or left undefined */
    uint16_t flags_undefined; /* of flags_written: undefined afterwards */
    const char *mnemonic;  /* lower case: "add" */
    const char *encoding;  /* as in the table: "66 0F 58 /r" */
    const char *operands;  /* as in the table: "Vx,Wx" */
};

extern const struct x86_row x86_rows[];
extern const unsigned x86_row_count;

enum x86_decode_result {
    X86_DECODE_OK = 0,
    X86_DECODE_SHORT,   /* bytes end before the instruction does */
    X86_DECODE_INVALID, /* no such instruction in this mode: #UD; length: how far it was read */
    X86_DECODE_LONG,    /* more than 15 bytes: #GP(0) */
};

/* Decode the first instruction in bytes[0..available). Fills all of *insn on
 * X86_DECODE_OK. LOCK where it is not allowed decodes as X86_DECODE_INVALID.
 * CPUID features and CR0/CR4 conditions are the engine's to check. */
enum x86_decode_result x86_decode(const uint8_t *bytes, size_t available, enum x86_mode mode,
                                  struct x86_insn *insn);

/* The operand that is memory, or NULL. */
static inline const struct x86_operand *x86_memory_operand(const struct x86_insn *insn)
{
    return insn->memory_operand ? &insn->operands[insn->memory_operand - 1] : NULL;
}

/* Intel syntax, "add rax, qword ptr [rbx+rcx*4+0x10]", into buffer, cut to
 * length. rip is the address of the instruction, for branch targets. */
const char *x86_disassemble(const struct x86_insn *insn, uint64_t rip, char *buffer, size_t length);

#endif
