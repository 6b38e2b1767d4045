/* emit.h - x86-64 machine code into a buffer. Assumes that the buffer has room:
 * the cache sees to it before a unit is built. Pure; one thread. */
#ifndef LODGE_ENGINE_TRANSLATE_EMIT_H
#define LODGE_ENGINE_TRANSLATE_EMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/translate/relocate.h"
#include "x86/decode.h"

struct emit {
    uint8_t *at;       /* where the next byte goes, in the writable view */
    intptr_t to_code;  /* from there to the executable view */
    struct relocations *relocations; /* to note branches to common routines in, or NULL */
};

#define EMIT_NONE X86_NO_REGISTER

/* A memory operand of emitted code. gs: relative to the CPU's struct. */
struct emit_memory {
    uint8_t base, index, scale;
    bool gs;
    int32_t displacement;
};

static inline struct emit_memory emit_based(unsigned base, unsigned index, int32_t displacement)
{
    return (struct emit_memory){(uint8_t)base, (uint8_t)index, 1, false, displacement};
}

/* A field of the CPU's struct, by its offset. */
static inline struct emit_memory emit_field(size_t offset)
{
    return (struct emit_memory){EMIT_NONE, EMIT_NONE, 1, true, (int32_t)offset};
}

/* An element of eight bytes of an array of the CPU's struct. */
static inline struct emit_memory emit_element(size_t offset, unsigned index)
{
    return (struct emit_memory){EMIT_NONE, (uint8_t)index, 8, true, (int32_t)offset};
}

void emit_bytes(struct emit *e, const void *bytes, unsigned count);
void emit_u8(struct emit *e, unsigned value);
void emit_u32(struct emit *e, uint32_t value);
void emit_u64(struct emit *e, uint64_t value);

/* The ModRM byte, SIB and displacement of an operand. */
void emit_modrm(struct emit *e, unsigned reg, const struct emit_memory *m);
/* opcode (one to three bytes, the first one highest) with a memory or a
 * register operand; wide: REX.W. */
void emit_rm(struct emit *e, bool wide, unsigned opcode, unsigned reg, struct emit_memory m);
void emit_rr(struct emit *e, bool wide, unsigned opcode, unsigned reg, unsigned rm);

void emit_load(struct emit *e, unsigned reg, struct emit_memory m);  /* 64 bits */
void emit_store(struct emit *e, struct emit_memory m, unsigned reg); /* 64 bits */
void emit_lea(struct emit *e, unsigned reg, struct emit_memory m);
void emit_constant(struct emit *e, unsigned reg, uint64_t value);
/* Whether an immediate or a displacement of 32 bits, which are extended, can hold it. */
static inline bool emit_fits(uint64_t value)
{
    return (uint64_t)(int64_t)(int32_t)value == value;
}
/* reg = from rotated right, the flags untouched (BMI2). */
void emit_rorx(struct emit *e, unsigned reg, unsigned from, unsigned count);
/* reg = the bits of from that the mask in memory selects, flags untouched (BMI2). */
void emit_pext(struct emit *e, unsigned reg, unsigned from, struct emit_memory mask);
/* reg = from shifted right by the register count, signed; flags untouched (BMI2). */
void emit_sarx(struct emit *e, unsigned reg, unsigned from, unsigned count);
/* RORX with 32 bits. */
void emit_rorx32(struct emit *e, unsigned reg, unsigned from, unsigned count);
/* reg = the low bits of from, spread to where the mask has ones (BMI2). */
void emit_pdep(struct emit *e, unsigned reg, unsigned from, struct emit_memory mask);
/* reg = the low 16 bits of from. */
void emit_movzx16(struct emit *e, unsigned reg, unsigned from);

/* Status flags to AH and AL, by LAHF and SETO, and back from there: ADD AL sets OF. */
void emit_flags_to_rax(struct emit *e);
void emit_flags_from_rax(struct emit *e);

/* Branches: to code, or with their displacement left open; the open ones
 * return where it stands, for emit_patch. */
uint8_t *emit_jump(struct emit *e);
uint8_t *emit_jcc(struct emit *e, unsigned condition);
uint8_t *emit_jrcxz(struct emit *e); /* 8 bits: patch with emit_patch_short */
void emit_patch(uint8_t *where, const uint8_t *target);
void emit_patch_short(uint8_t *where, const uint8_t *target);
/* Noted if it leads to a common routine. */
void emit_jump_to(struct emit *e, const uint8_t *target);

enum { EMIT_BELOW = 2, EMIT_NOT_BELOW = 3, EMIT_EQUAL = 4, EMIT_NOT_EQUAL = 5, EMIT_ABOVE = 7 };

#endif
