/* transfer.h - what the routines that change the level without leaving emitted code
 * share: transfer.c's own for SYSCALL and SYSRET, iret.c's for IRET. Private to the two.
 *
 * A routine begins with guest registers as between units, in SCRATCH_A the number of
 * a site for the interpreter (the next one is for what was not found in the jump cache). */
#ifndef LODGE_ENGINE_TRANSLATE_TRANSFER_H
#define LODGE_ENGINE_TRANSLATE_TRANSFER_H

#include "engine/translate/build.h"

/* Ways to the interpreter, which are taken before anything was changed. */
struct refusals {
    uint8_t *at[24];
    unsigned count;
};

enum { IMMEDIATE_OR = 1, IMMEDIATE_AND = 4, IMMEDIATE_CMP = 7 };

void transfer_refuse_if(struct emit *e, unsigned condition, struct refusals *r);
/* Unless the registers of that kind are the interpreter's. */
void transfer_refuse_vectors(struct emit *e, struct refusals *r);
void transfer_refuse_x87(struct emit *e, struct refusals *r);
/* AND, OR, CMP by operation, of 32 bits. */
void transfer_immediate(struct emit *e, unsigned operation, unsigned reg, uint32_t value);
/* CMP of 32 bits; value fits 8 signed. */
void transfer_compare_field(struct emit *e, struct emit_memory m, unsigned value);
/* TEST of 32 bits. */
void transfer_test_field(struct emit *e, struct emit_memory m, uint32_t bits);
/* Whether reg is canonical, by a comparison; other is used. */
void transfer_compare_canonical(struct emit *e, unsigned reg, unsigned other);
/* What the software CPU derives from the level in 64-bit code without alignment checks. */
void transfer_set_level(struct emit *e, unsigned cpl);
/* SCRATCH_B's place in a jump cache: its code into SCRATCH_A. Compares; returns the
 * branch that is taken when it is not there, or SCRATCH_B is lost. */
uint8_t *transfer_look_up(struct emit *e, enum jump_caches which);
/* Status flags from EAX, a guest's RFLAGS; other is used, and EAX lost. */
void transfer_put_flags(struct emit *e, unsigned other);
/* The number of the site for what was not found into SCRATCH_A. */
void transfer_load_next_site(struct emit *e);

/* --- iret.c --- */

void iret_emit_routine(struct translator *t);

#endif
